//! Reads what the HTTP API is to be: where it listens, who may use it, and what it signs tokens with.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use super::{Origin, Problem, Values, auth, is_loopback};
use crate::{
    core::issuer::TokenIssuer,
    outside::backend::keys::{Keys, Scope},
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
    /// Signs users' tokens; in development the node's own key does.
    pub issuer: Option<TokenIssuer>,
    /// Calls per second of a key.
    pub requests_per_second_max: u32,
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
    let keys = match file.as_deref().map(|path| (path, read(path))) {
        None => Keys::default(),
        Some((path, Err(text))) => {
            problem(values.origin("api.keys_file"), format!("api.keys_file: {}: {text}", path.display()));
            return None;
        }
        Some((path, Ok(text))) => match Keys::parse(&text) {
            Ok(keys) => keys,
            Err(found) => {
                let at = |line| Origin::File { path: path.to_owned(), line };
                found.into_iter().for_each(|(line, text)| problem(at(line), text));
                return None;
            }
        },
    };
    let issuer = if dev { None } else { auth::issuer(values) };
    if let Some(key) = keys.iter().find(|key| key.has(Scope::Tokens) && issuer.is_none() && !dev) {
        let text = format!(
            "api.keys_file: key {:?} is for tokens, which are signed by HS256: it needs auth.hs256_secret or auth.hs256_secret_file",
            key.name
        );
        problem(values.origin("api.keys_file"), text);
    }
    let requests_per_second_max = values.integer("api.requests_per_second_max").unwrap_or_default() as u32;
    Some(Api { listen, keys, issuer, requests_per_second_max })
}

fn read(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
