//! The configuration of a node: a TOML file, the environment and flags, in rising precedence.
//!
//! Invariants: every value has an [`Origin`]; unknown keys are refused with the nearest known name; all problems are listed at once,
//! each with the place to mend it; a [`Config`] that was built is consistent. Must not do: fall back silently, or show a secret.

mod admission;
mod api;
mod auth;
mod keys;
mod layers;
mod operator;
mod report;
mod tls;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

pub use self::{
    admission::Admission,
    api::{Api, KeysFile},
    keys::{Default, Form, KEYS, Key, SHARDS_MAX},
    layers::{Origin, Sources, Value, Values},
    operator::Operator,
    report::{help_text, reference_markdown},
    tls::{CertificateFiles, Tls},
};
use antiphon_engine::encryption::NodeKey;

use crate::{
    core::{fanout, token::TokenVerifier},
    encryption,
};

/// A node's whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Development: tokens are signed by the node itself, loopback only.
    pub dev: bool,
    /// Where it stores and listens.
    pub node: Node,
    /// TLS for clients, if it is spoken.
    pub tls: Option<Tls>,
    /// The HTTP API for an application's backend, if there is one.
    pub api: Option<Api>,
    /// Who may look at the operator's page, if there is one.
    pub operator: Option<Operator>,
    /// Who may connect.
    pub auth: Auth,
    /// Origins of web pages that may connect. In development the console's own origins are added when its port is known.
    pub origins_allowed: Vec<String>,
    /// Whether permessage-deflate is accepted.
    pub websocket_deflate: bool,
    /// Who is taken, and how fast.
    pub admission: Admission,
    /// What one client may take.
    pub limits: Limits,
    /// How messages are given to many.
    pub fanout: fanout::Rules,
    /// The engine's sizes.
    pub store: Store,
    /// The node's key, if its store is encrypted.
    pub encryption: Option<NodeKey>,
    /// How long things may take.
    pub timing: Timing,
    /// What is logged: a tracing filter.
    pub log_filter: String,
    /// Things that are allowed but probably not meant; to be logged at the start.
    pub warnings: Vec<String>,
}

/// Where a node stores and listens.
#[derive(Debug, Clone)]
pub struct Node {
    /// The data folder.
    pub data: PathBuf,
    /// How many shards.
    pub shards: usize,
    /// How many of them own a log lane.
    pub lanes: usize,
    /// Address for clients.
    pub listen: SocketAddr,
    /// Address for operators and the page.
    pub console: SocketAddr,
    /// URL that the page is given, if it isn't derived from `listen`.
    pub websocket_url: Option<String>,
    /// Whether to take over from a node that runs on the same data.
    pub takeover: bool,
}

/// Who may connect.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Tokens are signed with the data folder's development key.
    Dev,
    /// Tokens of the application's identity service.
    Tokens(TokenVerifier),
}

/// What one client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of the node.
    pub connections_max: u32,
    /// Memory of the node; `None`: a part of what there is.
    pub memory_bytes_max: Option<u64>,
    /// WebSocket frames per second of a connection.
    pub frames_per_second_max: u32,
    /// Frames at once after a pause.
    pub frames_burst_max: u32,
    /// Requests per second of a connection.
    pub requests_per_second_max: u32,
    /// Requests at once after a pause.
    pub requests_burst_max: u32,
    /// Bytes waiting for a connection.
    pub outbound_bytes_max: usize,
    /// Longest page, in items.
    pub page_items_max: u32,
    /// Page when none is named, in items.
    pub page_items_default: u32,
    /// Devices of a user that may be connected at a time.
    pub devices_per_user: u32,
}

/// The engine's sizes; a lane has each of them.
#[derive(Debug, Clone, Copy)]
pub struct Store {
    /// One log file.
    pub log_file_bytes: u64,
    /// How many log files.
    pub log_files_max: u32,
    /// Entries in memory.
    pub memtable_bytes: usize,
    /// Blocks in memory.
    pub cache_bytes: usize,
    /// How long message ids are remembered.
    pub message_ids_window_ms: u64,
    /// Their filters in memory.
    pub message_id_filter_bytes: usize,
    /// Within how long what was erased is gone from the disk.
    pub reclaim_ms_max: u64,
    /// What is read for checksums alone; 0 for nothing.
    pub scrub_bytes_per_second: u64,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Until the end of the request's head.
    pub head_timeout_ms: u64,
    /// Until `connect`.
    pub connect_timeout_ms: u64,
    /// Without a frame.
    pub silence_ms: u64,
    /// Over which clients come back after an end in order, and the longest wait for them to go.
    pub drain_ms: u64,
}

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => formatter.write_str(&self.text),
            _ => write!(formatter, "{}: {}", self.origin, self.text),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(formatter, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

impl Config {
    /// Reads, merges and checks all of `sources`.
    pub fn load(sources: &Sources) -> Result<(Self, Values), ConfigErrors> {
        let mut problems = Vec::new();
        let (values, warnings) = layers::merge(sources, &mut problems);
        let config = Self::from_values(sources, &values, warnings, &mut problems);
        // The parser gives tables in no particular order; people mend from top to bottom.
        problems.sort_by_key(|problem| match problem.origin {
            Origin::File { line, .. } => line,
            _ => usize::MAX,
        });
        match config {
            Some(config) if problems.is_empty() => Ok((config, values)),
            _ => Err(ConfigErrors(problems)),
        }
    }

    fn from_values(
        sources: &Sources,
        values: &Values,
        mut warnings: Vec<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let integer = |name: &str| values.integer(name).unwrap_or_default();
        let four_times = |name: &str, other: &str| values.integer(name).unwrap_or_else(|| 4 * integer(other)) as u32;
        let node = Node {
            data: values.path("node.data").unwrap_or_default(),
            shards: integer("node.shards") as usize,
            lanes: integer("node.lanes") as usize,
            listen: values.address("node.listen")?,
            console: values.address("node.console")?,
            websocket_url: values.text("node.websocket_url"),
            takeover: values.boolean("node.takeover"),
        };
        let limits = Limits {
            connections_max: integer("limits.connections_max") as u32,
            memory_bytes_max: values.integer("limits.memory_bytes_max"),
            frames_per_second_max: four_times("limits.frames_per_second_max", "limits.requests_per_second_max"),
            frames_burst_max: four_times("limits.frames_burst_max", "limits.requests_burst_max"),
            requests_per_second_max: integer("limits.requests_per_second_max") as u32,
            requests_burst_max: integer("limits.requests_burst_max") as u32,
            outbound_bytes_max: integer("limits.outbound_bytes_max") as usize,
            page_items_max: integer("limits.page_items_max") as u32,
            page_items_default: integer("limits.page_items_default") as u32,
            devices_per_user: integer("limits.devices_per_user") as u32,
        };
        let fanout = fanout::Rules {
            large_members: integer("fanout.large_members") as usize,
            bodies_members: integer("fanout.bodies_members") as usize,
            hint_ms: integer("fanout.hint_ms"),
            at_a_time: integer("fanout.at_a_time") as usize,
        };
        let store = Store {
            log_file_bytes: integer("store.log_file_bytes"),
            log_files_max: integer("store.log_files_max") as u32,
            memtable_bytes: integer("store.memtable_bytes") as usize,
            cache_bytes: integer("store.cache_bytes") as usize,
            message_ids_window_ms: integer("store.message_ids_window_hours") * 3_600_000,
            message_id_filter_bytes: integer("store.message_id_filter_bytes") as usize,
            reclaim_ms_max: integer("store.reclaim_hours_max") * 3_600_000,
            scrub_bytes_per_second: integer("store.scrub_mib_per_second") << 20,
        };
        let timing = Timing {
            head_timeout_ms: integer("timing.head_timeout_ms"),
            connect_timeout_ms: integer("timing.connect_timeout_ms"),
            silence_ms: integer("timing.silence_ms"),
            drain_ms: integer("timing.drain_ms"),
        };
        let admission = admission::load(values, problems);
        let encryption = load_key(values, problems);
        let tls = tls::load(sources.dev, values, problems);
        let api = api::load(sources.dev, values, problems, &mut warnings);
        let operator = operator::load(sources.dev, values, problems, &mut warnings);
        check_together(sources, values, &node, tls.as_ref(), problems);
        let auth = if sources.dev { Some(Auth::Dev) } else { auth::load(values, problems).map(Auth::Tokens) };
        Some(Self {
            dev: sources.dev,
            node,
            tls,
            api,
            operator,
            auth: auth?,
            origins_allowed: values.list("browsers.origins_allowed"),
            websocket_deflate: values.boolean("websocket.deflate"),
            admission,
            limits,
            fanout,
            store,
            encryption,
            timing,
            log_filter: values.text("log.filter").unwrap_or_default(),
            warnings,
        })
    }

    /// Origins of web pages that may connect, given where the console really listens.
    #[must_use]
    pub fn origins(&self, console: SocketAddr) -> Vec<String> {
        let mut origins = self.origins_allowed.clone();
        if self.dev {
            let port = console.port();
            origins.extend(["127.0.0.1", "localhost", "[::1]"].map(|host| format!("http://{host}:{port}")));
        }
        origins
    }
}

/// The node's key, from wherever it is kept.
fn load_key(values: &Values, problems: &mut Vec<Problem>) -> Option<NodeKey> {
    let (file, command) = (values.path("encryption.key_file"), values.list("encryption.key_command"));
    let (name, read) = match (&file, command.as_slice()) {
        (None, []) => return None,
        (Some(path), []) => ("encryption.key_file", encryption::from_file(path).map_err(|error| error.to_string())),
        (None, command) => {
            ("encryption.key_command", encryption::from_command(command).map_err(|error| error.to_string()))
        }
        (Some(_), _) => ("encryption.key_command", Err("has no use beside encryption.key_file".to_owned())),
    };
    read.map_err(|text| problems.push(Problem { origin: values.origin(name), text: format!("{name}: {text}") })).ok()
}

/// What can only be judged over several keys.
fn check_together(sources: &Sources, values: &Values, node: &Node, tls: Option<&Tls>, problems: &mut Vec<Problem>) {
    let mut problem = |name: &str, text: String| {
        problems.push(Problem { origin: values.origin(name), text: format!("{name}: {text}") });
    };
    if node.lanes > node.shards {
        problem("node.lanes", format!("{} lanes need as many shards, there are {}", node.lanes, node.shards));
    }
    if node.lanes > sources.cores.max(1) {
        problem("node.lanes", format!("{} lanes are more than the {} cores", node.lanes, sources.cores));
    }
    if sources.dev {
        let tls = tls.map(|tls| ("tls.listen", tls.listen));
        for (name, address) in [("node.listen", node.listen), ("node.console", node.console)].into_iter().chain(tls) {
            if !is_loopback(address.ip()) {
                problem(
                    name,
                    format!("--dev hands out tokens to anybody, so it listens on loopback only, not on {address}"),
                );
            }
        }
    }
    if node.listen == node.console && node.listen.port() != 0 {
        problem("node.console", format!("is the same address as node.listen, {}", node.listen));
    }
    if let Some(tls) = tls.filter(|tls| tls.listen.port() != 0)
        && (tls.listen == node.listen || tls.listen == node.console)
    {
        problem("tls.listen", format!("{} is taken by node.listen or node.console", tls.listen));
    }
    if let Some(url) = &node.websocket_url
        && !url_is_plain(url, &["ws://", "wss://"])
    {
        problem("node.websocket_url", format!("{url:?} is not a ws:// or wss:// URL"));
    }
    for origin in values.list("browsers.origins_allowed") {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        if !url_is_plain(&origin, &["http://", "https://"]) || host.contains('/') {
            problem(
                "browsers.origins_allowed",
                format!(
                    "{origin:?} is not an origin: scheme, host and port, without a path, such as https://chat.example.com"
                ),
            );
        }
    }
    if values.integer("limits.page_items_default") > values.integer("limits.page_items_max") {
        problem("limits.page_items_default", "is above limits.page_items_max".to_owned());
    }
    if values.integer("limits.requests_burst_max") < values.integer("limits.requests_per_second_max") {
        problem("limits.requests_burst_max", "is below limits.requests_per_second_max".to_owned());
    }
    if values.integer("timing.head_timeout_ms") > values.integer("timing.connect_timeout_ms") {
        problem("timing.head_timeout_ms", "is above timing.connect_timeout_ms".to_owned());
    }
    for (name, other) in [
        ("limits.frames_per_second_max", "limits.requests_per_second_max"),
        ("limits.frames_burst_max", "limits.requests_burst_max"),
    ] {
        if values.integer(name).is_some_and(|frames| Some(frames) < values.integer(other)) {
            problem(name, format!("is below {other}: every request is a frame"));
        }
    }
    if values.integer("store.log_file_bytes").is_some_and(|bytes| bytes % 4096 != 0) {
        problem("store.log_file_bytes", "is not a multiple of 4096, the unit of direct writes".to_owned());
    }
    let filter = values.text("log.filter").unwrap_or_default();
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        problem("log.filter", format!("{filter:?} is not a filter: {error}"));
    }
}

/// Whether only this machine reaches the address.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// One of the schemes, then visible ASCII that can't break out of a header or a policy.
fn url_is_plain(url: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !b";,'\"*<>\\".contains(&byte))
}

#[cfg(test)]
mod tests;
