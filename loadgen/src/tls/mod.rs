//! TLS of the simulated clients (`wss://`), over rustls: what a run asks for ([`TlsClient`]), one connection's session without
//! I/O ([`session`]) and the tickets that a thread may resume with ([`tickets`]).
//!
//! Nothing here reads a socket. A certificate is verified against the roots that were named, or not at all if that was asked for;
//! there are no default roots, as a generator seldom loads what a public authority vouches for.

pub mod session;
mod tickets;

use std::{path::Path, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use tickets::Tickets;

/// What is spoken inside (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The newest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Longest text of an error that is kept: some name all that a certificate is valid for.
const TEXT_BYTES_MAX: usize = 300;

/// Why TLS is not to be had, or ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// A file of roots can't be used.
    #[error("--tls-ca {0}")]
    Roots(String),
    /// Neither a DNS name nor an address.
    #[error("{0:?} is no name that a certificate could have: see --tls-server-name")]
    Name(String),
    /// The server's certificate was not accepted.
    #[error("the server's certificate was refused: {}", certificate_text(.0))]
    Certificate(CertificateError),
    /// The server refused.
    #[error("the server sent the alert {0:?}")]
    Alert(AlertDescription),
    /// The server broke the protocol, or speaks something else, or no common version or cipher suite.
    #[error("{}", limited(.0.to_string()))]
    Protocol(rustls::Error),
    /// The connection ended before the handshake did.
    #[error("the connection ended during the TLS handshake")]
    EndedInHandshake,
    /// The server began something too long to be taken.
    #[error("a TLS handshake message is too long")]
    TooLong,
    /// A write after the session's end, or after its keys were used up.
    #[error("the TLS session can't send any more")]
    CannotSend,
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::Certificate(error),
            rustls::Error::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Protocol(other),
        }
    }
}

impl TlsError {
    /// Whether another attempt would end in the same way: a matter of configuration.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        use AlertDescription as Alert;
        match self {
            Self::Certificate(_) | Self::Name(_) | Self::Roots(_) => true,
            Self::Alert(alert) => matches!(
                *alert,
                Alert::HandshakeFailure
                    | Alert::ProtocolVersion
                    | Alert::UnrecognisedName
                    | Alert::NoApplicationProtocol
                    | Alert::CertificateRequired
            ),
            Self::Protocol(error) => {
                matches!(error, rustls::Error::PeerIncompatible(_) | rustls::Error::InvalidMessage(_))
            }
            Self::EndedInHandshake | Self::TooLong | Self::CannotSend => false,
        }
    }

    /// What the caller of `loadgen` can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Certificate(_) => " (see --tls-ca, --tls-server-name and --tls-insecure)",
            Self::Protocol(rustls::Error::InvalidMessage(_)) => " (does the target speak TLS?)",
            Self::Protocol(_) | Self::Alert(_) => " (see --tls-version)",
            _ => "",
        }
    }
}

fn certificate_text(error: &CertificateError) -> String {
    limited(match error {
        CertificateError::UnknownIssuer => "its issuer is none of the given roots".to_owned(),
        CertificateError::BadSignature => "a root has its issuer's name, but did not sign it".to_owned(),
        other => other.to_string(),
    })
}

fn limited(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// Which versions are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsVersion {
    /// TLS 1.2 alone.
    #[value(name = "1.2")]
    V12,
    /// TLS 1.3 alone.
    #[value(name = "1.3")]
    V13,
    /// Both.
    Any,
}

impl TlsVersion {
    fn offered(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::V12 => &VERSIONS[1..],
            Self::V13 => &VERSIONS[..1],
            Self::Any => &VERSIONS,
        }
    }
}

/// Whom to trust.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Whoever has a certificate by one of the roots in a PEM file.
    Roots(&'a Path),
    /// Anybody.
    Anybody,
}

/// What a thread's sessions have in common.
#[derive(Debug, Clone)]
pub struct TlsThread {
    config: Arc<ClientConfig>,
    tickets: Option<Arc<Tickets>>,
}

impl TlsThread {
    /// The configuration for what a client's session does next: to be asked for before each of its calls, as the ticket that a
    /// session takes or leaves is this client's.
    pub fn turn_to(&self, client: u32) -> &Arc<ClientConfig> {
        if let Some(tickets) = &self.tickets {
            tickets.turn_to(client);
        }
        &self.config
    }
}

/// What all connections of a run have in common.
#[derive(Debug)]
pub struct TlsClient {
    config: ClientConfig,
    name: ServerName<'static>,
    resumes: bool,
    verifies: bool,
}

impl TlsClient {
    /// Reads the roots and checks the name.
    pub fn new(trust: Trust<'_>, name: &str, version: TlsVersion, resumes: bool) -> Result<Self, TlsError> {
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(version.offered())?;
        let builder = match trust {
            Trust::Roots(file) => builder.with_root_certificates(roots(file)?),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider }))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { config, name: server_name, resumes, verifies: matches!(trust, Trust::Roots(_)) })
    }

    /// What a thread with so many connections needs; its tickets are its own, so that threads never wait for each other.
    #[must_use]
    pub fn thread(&self, connections: u32) -> TlsThread {
        let mut config = self.config.clone();
        let tickets = self.resumes.then(|| Arc::new(Tickets::new(connections)));
        if let Some(tickets) = &tickets {
            config.resumption = Resumption::store(tickets.clone());
        }
        TlsThread { config: Arc::new(config), tickets }
    }

    /// What the certificate must be valid for.
    #[must_use]
    pub fn name(&self) -> &ServerName<'static> {
        &self.name
    }

    /// Whether tickets are used.
    #[must_use]
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Whether certificates are verified.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.verifies
    }
}

fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let fail = |text: String| TlsError::Roots(format!("{}: {text}", file.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| fail(error.to_string()))? {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        store.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(fail("there is no PEM certificate in it".to_owned()));
    }
    Ok(store)
}

/// Takes any certificate. The signature that proves possession of its key is checked all the same: it is a part of what a
/// handshake costs.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_roots_and_a_name_that_is_none_are_refused() {
        let client = |trust, name| TlsClient::new(trust, name, TlsVersion::Any, false).map(|_| ());
        assert_eq!(client(Trust::Anybody, "a b"), Err(TlsError::Name("a b".into())));
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(client(Trust::Anybody, name), Ok(()));
        }
        let missing = client(Trust::Roots(Path::new("/nowhere/ca.pem")), "localhost").unwrap_err();
        assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let empty = client(Trust::Roots(&source), "localhost").unwrap_err();
        assert!(empty.to_string().contains("no PEM certificate"), "{empty}");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(limited("é".repeat(200)).len(), TEXT_BYTES_MAX);
        assert_eq!(limited("é".repeat(151).replacen('é', "x", 1)).len(), TEXT_BYTES_MAX - 1);
    }
}
