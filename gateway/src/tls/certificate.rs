//! Certificates for development, signed by themselves.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;

use crate::config::CertificateFiles;

/// Makes `certificate.pem` and `key.pem` in a folder, with `prefix` before their names, for these names and addresses. Files that are
/// there already stay, so that a client that trusts them does so after a restart too.
///
/// # Errors
/// The folder cannot be written, or a name is none.
pub fn make_certificate(
    folder: &Path,
    prefix: &str,
    names: impl IntoIterator<Item = String>,
) -> anyhow::Result<CertificateFiles> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(format!("{prefix}{name}")));
    if !(certificate.exists() && key.exists()) {
        let made = rcgen::generate_simple_self_signed(names.into_iter().collect::<Vec<_>>())
            .context("a name cannot stand in a certificate")?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut write = |path: &Path, mode, text: &str| {
            let file = options.mode(mode).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
        };
        write(&key, 0o600, &made.signing_key.serialize_pem())?;
        write(&certificate, 0o644, &made.cert.pem())?;
    }
    Ok(CertificateFiles { pairs: vec![(certificate, key)] })
}
