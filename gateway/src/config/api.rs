//! Reads what the HTTP API is to be: where it listens, who may use it, and what it signs tokens with; who may use it again at a reload.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{Origin, Problem, Values, auth, is_loopback};
use crate::{
    core::issuer::TokenIssuer,
    outside::backend::keys::{Key, Keys, Scope},
};

/// Longest file of keys: the most that a node takes fit several times over.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a development node listens whose console is at its usual place; others take a free port, since there may be many on a machine.
const DEV_PORT: u16 = 8082;

/// The HTTP API for an application's backend.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may use it. In development one more is made at the start.
    pub keys: Keys,
    /// Where the keys are from, if they are from a file.
    pub file: Option<KeysFile>,
    /// Signs users' tokens; in development the node's own key does.
    pub issuer: Option<TokenIssuer>,
    /// Calls per second of a key.
    pub requests_per_second_max: u32,
}

/// A file of keys.
#[derive(Debug, Clone)]
pub struct KeysFile {
    path: PathBuf,
    /// Whether the node has something to sign users' tokens with.
    is_signing: bool,
}

/// What is wrong with a file of keys, each with its line if it has one.
type Found = Vec<(Option<usize>, String)>;

impl KeysFile {
    /// A file at a path, for a node that signs users' tokens or does not.
    pub(super) fn new(path: PathBuf, is_signing: bool) -> Self {
        Self { path, is_signing }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line if it has one.
    pub fn read(&self) -> Result<Keys, Found> {
        let text = read(&self.path).map_err(|text| vec![(None, text)])?;
        let with_line = |(line, text)| (Some(line), text);
        let keys = Keys::parse(&text).map_err(|found| found.into_iter().map(with_line).collect::<Vec<_>>())?;
        let is_useless = |key: &&Key| key.has(Scope::Tokens) && !self.is_signing;
        if let Some(Key { name, .. }) = keys.iter().find(is_useless) {
            let text = format!(
                "key {name:?} is for tokens, which are signed by HS256: it needs auth.hs256_secret or auth.hs256_secret_file"
            );
            return Err(vec![(None, text)]);
        }
        Ok(keys)
    }

    /// Reads it again.
    ///
    /// # Errors
    /// As [`KeysFile::read`], in one text that names the file.
    pub fn read_again(&self) -> Result<Keys, String> {
        let path = self.path.display();
        self.read().map_err(|problems| {
            let told = problems.into_iter().map(|(line, text)| match line {
                Some(line) => format!("{path}:{line}: {text}"),
                None => format!("{path}: {text}"),
            });
            told.collect::<Vec<_>>().join("; ")
        })
    }
}

/// `None` if there is to be none.
pub(super) fn load(dev: bool, values: &Values, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) -> Option<Api> {
    let file = values.path("api.keys_file");
    let mut problem = |origin: Origin, text: String| problems.push(Problem { origin, text });
    let of_dev = || {
        let port = if values.origin("node.console") == Origin::Default { DEV_PORT } else { 0 };
        dev.then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    let Some(listen) = values.address("api.listen").or_else(of_dev) else {
        if file.is_some() {
            problem(values.origin("api.keys_file"), "api.keys_file: has no use without api.listen".to_owned());
        }
        return None;
    };
    if dev && !is_loopback(listen.ip()) {
        let text =
            format!("api.listen: --dev makes a key for everything, so it listens on loopback only, not on {listen}");
        problem(values.origin("api.listen"), text);
    }
    for other in ["node.listen", "node.console", "tls.listen"] {
        if listen.port() != 0 && values.address(other) == Some(listen) {
            problem(values.origin("api.listen"), format!("api.listen: {listen} is taken by {other}"));
        }
    }
    if !is_loopback(listen.ip()) {
        warnings.push(format!(
            "api.listen: {listen} speaks no TLS, and keys are sent to it: keep it in a network of your own"
        ));
    }
    if file.is_none() && !dev {
        let text = "api.keys_file: is required with api.listen; make a key with antiphon api-key".to_owned();
        problem(values.origin("api.keys_file"), text);
    }
    let issuer = if dev { None } else { auth::issuer(values) };
    let file = file.map(|path| KeysFile::new(path, dev || issuer.is_some()));
    let keys = match file.as_ref().map(|file| (file, file.read())) {
        None => Keys::default(),
        Some((_, Ok(keys))) => keys,
        Some((file, Err(found))) => {
            problems.extend(told_at("api.keys_file", file.path(), found, values));
            return None;
        }
    };
    let requests_per_second_max = values.integer("api.requests_per_second_max").unwrap_or_default() as u32;
    Some(Api { listen, keys, file, issuer, requests_per_second_max })
}

/// What is wrong with the file of keys that the option `name` names, as problems of the configuration.
pub(super) fn told_at(name: &str, path: &Path, found: Found, values: &Values) -> Vec<Problem> {
    let problem = |(line, text): (Option<usize>, String)| match line {
        Some(line) => Problem { origin: Origin::File { path: path.to_owned(), line }, text },
        None => Problem { origin: values.origin(name), text: format!("{name}: {}: {text}", path.display()) },
    };
    found.into_iter().map(problem).collect()
}

fn read(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
