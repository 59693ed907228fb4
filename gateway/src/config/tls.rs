//! Reads the certificates that clients are shown, at the start and again at a reload.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{Problem, Values};
use crate::tls::{Chain, OldestVersion};

/// Longest certificate or key file: a chain of many RSA certificates fits several times over.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// TLS for clients.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where `wss://` is spoken.
    pub listen: SocketAddr,
    /// The oldest version spoken.
    pub oldest: OldestVersion,
    /// The files of the certificates. Without any, which is for development only, the node makes a certificate of its own.
    pub files: CertificateFiles,
}

/// Certificate chains and their keys, side by side.
#[derive(Debug, Clone, Default)]
pub struct CertificateFiles {
    /// Chain and key.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

impl CertificateFiles {
    /// Reads them.
    ///
    /// # Errors
    /// The first file that cannot be read or used, in words that name it.
    pub fn read(&self) -> Result<Vec<Chain>, String> {
        self.pairs
            .iter()
            .map(|(certificates, key)| {
                let (chain, key_text) = (read(certificates)?, read(key)?);
                let names = [certificates, key].map(|path| path.display().to_string());
                Chain::from_pem((&names[0], &chain), (&names[1], &key_text)).map_err(|error| error.to_string())
            })
            .collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |text: String| format!("{}: {text}", path.display());
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(path).map_err(|error| failed(error.to_string()))
}

/// `None` if no TLS is wanted.
pub(super) fn load(dev: bool, values: &Values, problems: &mut Vec<Problem>) -> Option<Tls> {
    let mut problem = |name: &str, text: String| {
        problems.push(Problem { origin: values.origin(name), text: format!("{name}: {text}") });
    };
    let [certificates, keys] = ["tls.certificate_files", "tls.key_files"].map(|name| values.list(name));
    let oldest = match values.text("tls.oldest_version").as_deref() {
        Some("1.2") => OldestVersion::Tls12,
        Some("1.3") => OldestVersion::Tls13,
        other => {
            problem("tls.oldest_version", format!("{:?} is neither 1.2 nor 1.3", other.unwrap_or_default()));
            return None;
        }
    };
    let Some(listen) = values.address("tls.listen") else {
        if !certificates.is_empty() {
            problem("tls.certificate_files", "has no use without tls.listen".to_owned());
        }
        return None;
    };
    if certificates.len() != keys.len() {
        let (chains, keys) = (certificates.len(), keys.len());
        problem(
            "tls.key_files",
            format!("{keys} keys for {chains} certificates: give one for each, in the same order"),
        );
        return None;
    }
    if certificates.is_empty() && !dev {
        problem("tls.certificate_files", "is required with tls.listen".to_owned());
    }
    let pairs = certificates.into_iter().map(PathBuf::from).zip(keys.into_iter().map(PathBuf::from)).collect();
    let files = CertificateFiles { pairs };
    if let Err(text) = files.read() {
        problem("tls.certificate_files", text);
    }
    Some(Tls { listen, oldest, files })
}
