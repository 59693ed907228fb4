//! What TLS is spoken with: certificates by name, versions, tickets. One for all shards, replaced whole on a reload.
//!
//! Invariants: a reload that fails changes nothing; tickets outlive a reload, since their keys are made once for the process; a
//! session keeps what it began with. Reads no file: see [`crate::config`].

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::raw_keys;

/// Tickets that a TLS 1.3 client is given: each lets it come back once without the server's signature.
const TICKETS_PER_SESSION: usize = 1;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file does not parse, or holds none: give the PEM chain, the server's own certificate first.
    #[error("{file}: not a PEM chain of certificates: {reason}")]
    Certificates {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The key file does not parse: give one PEM private key, not encrypted.
    #[error("{file}: not a PEM private key: {reason}")]
    Key {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Key and certificate do not belong together, or their kind is not spoken (RSA, P-256, P-384 and Ed25519 are).
    #[error("{file}: key and certificate cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        file: String,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The cryptography's own part failed: no randomness.
    #[error("cannot set TLS up: {0}")]
    Setup(rustls::Error),
}

/// A certificate with its chain and key.
#[derive(Debug)]
pub struct Chain {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Chain {
    /// From the text of two PEM files, whose names are for errors only.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn from_pem((file, certificates): (&str, &[u8]), (key_file, key): (&str, &[u8])) -> Result<Self, TlsError> {
        let certificate_error = |reason: String| TlsError::Certificates { file: file.to_owned(), reason };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| certificate_error(error.to_string()))?;
        let first = chain.first().ok_or_else(|| certificate_error("there is none in it".to_owned()))?;
        let parsed = webpki::EndEntityCert::try_from(first).map_err(|error| certificate_error(error.to_string()))?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| TlsError::Key { file: key_file.to_owned(), reason: error.to_string() })?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|source| TlsError::Pair { file: file.to_owned(), source })?;
        Ok(Self { key: Arc::new(key), names })
    }

    /// The DNS names that it is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldestVersion {
    /// TLS 1.2, for clients of before 2018.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl OldestVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        const ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        match self {
            Self::Tls12 => ALL,
            Self::Tls13 => &ALL[..1],
        }
    }
}

/// See the module.
pub struct Settings {
    oldest: OldestVersion,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    current: Mutex<Arc<ServerConfig>>,
    generation: AtomicU64,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Settings").field("oldest", &self.oldest).finish_non_exhaustive()
    }
}

impl Settings {
    /// A client that names no server, or an unknown one, is shown the first chain.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(chains: Vec<Chain>, oldest: OldestVersion) -> Result<Self, TlsError> {
        let provider = Arc::new(raw_keys::provider());
        let tickets = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
        let config = make(chains, oldest, &provider, &tickets)?;
        Ok(Self { oldest, provider, tickets, current: Mutex::new(config), generation: AtomicU64::new(0) })
    }

    /// Sessions that begin from now on are shown these.
    ///
    /// # Errors
    /// As for [`Settings::new`]; then nothing has changed.
    pub fn replace(&self, chains: Vec<Chain>) -> Result<(), TlsError> {
        let config = make(chains, self.oldest, &self.provider, &self.tickets)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Changes with every replacement, so that a shard that looks at it for each connection takes no lock.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What new sessions are made with.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn make(
    chains: Vec<Chain>,
    oldest: OldestVersion,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(oldest.versions())
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName::new(chains)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Arc::clone(tickets);
    config.send_tls13_tickets = TICKETS_PER_SESSION;
    // Tickets carry what a session needs to be resumed; nothing is stored here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Chooses a certificate by the server's name that a client asks for (RFC 6066 §3).
#[derive(Debug)]
struct ByName {
    /// `chat.example.com`, or `*.example.com` without its star.
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl ByName {
    fn new(chains: Vec<Chain>) -> Self {
        let first = chains.first().map(|chain| Arc::clone(&chain.key));
        let mut names = HashMap::new();
        for chain in chains {
            for name in chain.names {
                let name = name.strip_prefix('*').map(str::to_owned).unwrap_or(name);
                names.entry(name).or_insert_with(|| Arc::clone(&chain.key));
            }
        }
        Self { names, first }
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        // A star stands for one label (RFC 9525 §6.3).
        let of_wildcard = || name.find('.').and_then(|dot| self.names.get(&name[dot..]));
        self.names.get(&name).or_else(of_wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().and_then(|name| self.find(name)).or(self.first.as_ref()).cloned()
    }
}
