//! What TLS cost and came to, for reports.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Quantiles;
use crate::{
    measure::Latencies,
    tls::TlsClient,
    transport::{SESSION_BYTES, SLOT_BYTES, TlsOutcome},
    workload::control::Counts,
};

/// TLS of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TlsFigures {
    /// Whether certificates were verified.
    pub verified: bool,
    /// The name that was asked for, and verified.
    pub server_name: String,
    /// Handshakes.
    pub handshakes: Handshakes,
    /// Why some failed, and how many.
    pub failures: BTreeMap<String, u64>,
    /// Version, cipher suite and key exchange of those that did not, and how many.
    pub agreed: BTreeMap<String, u64>,
    /// Connections that the server ended without ending TLS first.
    pub unannounced_ends: u64,
    /// From TCP to TLS.
    pub handshake_us: Quantiles,
    /// Of that, what each of its steps waited for the generator itself.
    pub handshake_wait_us: Quantiles,
    /// Size of a session's own structure; what rustls and its ciphers have on the heap comes on top.
    pub session_structure_bytes: usize,
}

/// Handshakes, reconnects with them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Handshakes {
    /// Made in full.
    pub full: u64,
    /// By a ticket.
    pub resumed: u64,
    /// Full ones in which the server asked for another key share first.
    pub hello_retries: u64,
    /// Failed.
    pub failed: u64,
}

impl TlsFigures {
    /// Of an outcome.
    #[must_use]
    pub fn of(client: &TlsClient, counts: &Counts, latencies: &Latencies, outcome: &TlsOutcome) -> Self {
        Self {
            verified: client.verifies(),
            server_name: client.name().to_str().into_owned(),
            handshakes: Handshakes {
                full: counts.tls_full,
                resumed: counts.tls_resumed,
                hello_retries: counts.tls_retried,
                failed: counts.tls_failed,
            },
            failures: outcome.failures.clone(),
            agreed: outcome.agreed.clone(),
            unannounced_ends: counts.tls_unannounced,
            handshake_us: Quantiles::of(&latencies.handshake),
            handshake_wait_us: Quantiles::of(&latencies.handshake_wait),
            session_structure_bytes: SLOT_BYTES + SESSION_BYTES,
        }
    }
}
