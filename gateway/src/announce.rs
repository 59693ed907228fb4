//! What a node prints on standard output when it accepts clients. Scripts wait for the line that begins with `ready`.

use std::{fmt::Write, net::SocketAddr};

use antiphon_wire::ids::UserId;

use crate::{config::Config, outside::new_dev_token};

/// The user of the token that a development node prints.
const EXAMPLE_USER: &str = "alice";

/// Where `antiphon token` looks for the key if it is not told.
const DATA_DEFAULT: &str = "./antiphon-data";

/// The URL at which clients reach a node that listens on `listen`.
#[must_use]
pub fn websocket_url(config: &Config, listen: SocketAddr) -> String {
    config.node.websocket_url.clone().unwrap_or_else(|| format!("ws://{}/", reachable(listen)))
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For clients.
    pub listen: SocketAddr,
    /// For clients over TLS.
    pub tls: Option<SocketAddr>,
    /// For operators.
    pub console: SocketAddr,
    /// For the application's backend.
    pub api: Option<SocketAddr>,
}

/// What a development node has made for itself.
#[derive(Debug, Clone, Copy)]
pub struct DevKeys<'a> {
    /// Signs tokens.
    pub key: &'a [u8],
    /// Opens the operator's page.
    pub operator_key: &'a str,
}

/// The whole announcement, to be printed at once. `dev` is given in development only; `program` is what one
/// types to run this one.
#[must_use]
pub fn announcement(config: &Config, addresses: &Addresses, dev: Option<DevKeys<'_>>, program: &str) -> String {
    let Addresses { listen, tls: tls_listen, console, api } = *addresses;
    let mut text = String::new();
    if let Some(DevKeys { key, .. }) = dev {
        let user = UserId::new(EXAMPLE_USER).expect("a good name");
        let (token, _) = new_dev_token(key, &user, None);
        let data = config.node.data.display().to_string();
        let elsewhere = if data == DATA_DEFAULT { String::new() } else { format!(" --data {data}") };
        let _ = write!(
            text,
            "Antiphon {} for development. Data: {data}\n\n  Page       http://{}/\n  WebSocket  {}\n  Token      {token}\n             \
             for {EXAMPLE_USER}, one day; more by: {program} token --user NAME{elsewhere}\n\n",
            env!("CARGO_PKG_VERSION"),
            reachable(console),
            websocket_url(config, listen),
        );
    }
    if let (Some(tls), Some(_)) = (tls_listen, dev) {
        let _ = writeln!(text, "  TLS        wss://{}/\n", reachable(tls));
    }
    if let (Some(api), Some(_)) = (api, dev) {
        let key = config.node.data.join("dev-api.key").display().to_string();
        let _ = write!(text, "  HTTP API   http://{}/v1 for a backend; its key is in {key}\n\n", reachable(api));
    }
    if let Some(DevKeys { operator_key, .. }) = dev {
        // What stands behind the # is seen by the page alone: no server is told of it, and no log.
        let _ = writeln!(text, "  Operator   http://{}/operator#key={operator_key}\n", reachable(console));
    }
    let tls = tls_listen.map(|tls| format!(" tls={tls}")).unwrap_or_default();
    let api = api.map(|api| format!(" api={api}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "ready listen={listen}{tls} console={console}{api} shards={} lanes={} data={}",
        config.node.shards,
        config.node.lanes,
        config.node.data.display()
    );
    text
}

/// What `antiphon echo` prints when it accepts.
#[must_use]
pub fn echo_announcement(listen: SocketAddr, shards: usize) -> String {
    format!("ready listen={listen} shards={shards}\n")
}

/// An address to click: a node that listens everywhere is reached on loopback from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr =
            if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn a_script_finds_the_line_and_a_person_the_page() {
        let sources = Sources { dev: true, cores: 2, ..Sources::default() };
        let (config, _) = Config::load(&sources).unwrap();
        let (listen, console) = ("127.0.0.1:18080".parse().unwrap(), "127.0.0.1:18081".parse().unwrap());
        let addresses = Addresses { listen, tls: None, console, api: None };
        let dev = Some(DevKeys { key: &[7; 32], operator_key: "5ec" });
        let text = announcement(&config, &addresses, dev, "target/release/antiphon");
        let ready = "ready listen=127.0.0.1:18080 console=127.0.0.1:18081 shards=2 lanes=1 data=./antiphon-data";
        assert!(text.lines().any(|line| line == ready), "{text}");
        for part in [
            "http://127.0.0.1:18081/",
            "ws://127.0.0.1:18080/",
            "ey",
            "Data: ./antiphon-data",
            "http://127.0.0.1:18081/operator#key=5ec\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("more by: target/release/antiphon token --user NAME\n"), "{text}");
        let named = [("--data".to_owned(), "node.data".to_owned(), "/srv/a".to_owned())];
        let (config, _) = Config::load(&Sources { flags: named.into(), ..sources }).unwrap();
        let addresses = Addresses { api: Some("127.0.0.1:18082".parse().unwrap()), ..addresses };
        let text = announcement(&config, &addresses, dev, "antiphon");
        assert!(text.contains("http://127.0.0.1:18082/v1 for a backend; its key is in /srv/a/dev-api.key\n"), "{text}");
        assert!(text.contains(" console=127.0.0.1:18081 api=127.0.0.1:18082 shards=2 "), "{text}");
        assert!(text.contains("more by: antiphon token --user NAME --data /srv/a\n"), "{text}");
        let addresses = Addresses { listen: "0.0.0.0:80".parse().unwrap(), tls: Some(listen), ..addresses };
        let bare = announcement(&config, &addresses, None, "antiphon");
        assert!(bare.starts_with("ready listen=0.0.0.0:80 tls=127.0.0.1:18080 console="), "{bare}");
        assert_eq!(websocket_url(&config, "0.0.0.0:80".parse().unwrap()), "ws://127.0.0.1:80/");
        assert_eq!(websocket_url(&config, "[::]:80".parse().unwrap()), "ws://[::1]:80/");
    }
}
