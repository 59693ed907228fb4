//! Every key of the configuration, once: name, form, default and help. The file, the environment, the flags, `config print` and
//! docs/configuration.md all come from this table.

use antiphon_wire::limits::{
    DEVICES_MAX, HEARTBEAT_INTERVAL_MS, LANES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, SESSION_SILENCE_MS_MAX,
};

/// Most shards of a node: the mesh has a queue for every ordered pair.
pub const SHARDS_MAX: u64 = 512;

/// The form of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A whole number in a range.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A number of bytes in a range: a whole number, or one with a unit, such as 512MiB or 8GB.
    Size {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Any text but the empty one.
    Text,
    /// Text that is never shown.
    Secret,
    /// A path. In a file it is relative to the file's folder, elsewhere to the working directory.
    Path,
    /// `IP:PORT`; port 0 takes a free one.
    Address,
    /// `true` or `false`.
    Boolean,
    /// A list of texts; in the environment and in flags separated by commas.
    List,
    /// A list of paths, each as [`Form::Path`].
    Paths,
}

/// Where a key stands without anybody's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Not set.
    Unset,
    /// A number.
    Integer(u64),
    /// On or off.
    Boolean(bool),
    /// A text, path, address or comma-separated list.
    Text(&'static str),
    /// The machine's cores, at most [`SHARDS_MAX`].
    Cores,
    /// One log lane up to four cores, two beyond: more lanes than that slow a disk down (docs/benchmarks.md).
    Lanes,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `table.name`.
    pub name: &'static str,
    /// Its value's form.
    pub form: Form,
    /// Without anybody's word.
    pub default: Default,
    /// Its own flag, if it has one; `--set table.name=value` works for every key.
    pub flag: Option<&'static str>,
    /// One line for a person.
    pub help: &'static str,
}

impl Key {
    /// The environment variable of the key.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("ANTIPHON_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The key's default in words.
    #[must_use]
    pub fn default_text(&self) -> String {
        match self.default {
            Default::Unset => "not set".to_owned(),
            Default::Integer(value) => value.to_string(),
            Default::Boolean(value) => value.to_string(),
            Default::Text(text) if self.form == Form::List => {
                format!("[{}]", text.split(',').map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", "))
            }
            Default::Text(text) => format!("\"{text}\""),
            Default::Cores => "the machine's cores".to_owned(),
            Default::Lanes => "1 up to 4 cores, 2 beyond".to_owned(),
        }
    }
}

const fn integer(min: u64, max: u64) -> Form {
    Form::Integer { min, max }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

macro_rules! keys {
    ($($name:literal $flag:expr, $form:expr, $default:expr, $help:literal;)*) => {
        /// Every key, grouped by table.
        pub const KEYS: &[Key] =
            &[$(Key { name: $name, form: $form, default: $default, flag: $flag, help: $help },)*];
    };
}

keys! {
    "node.data" Some("--data"), Form::Path, Default::Text("./antiphon-data"),
        "Folder of everything that the node stores; one node a folder.";
    "node.shards" Some("--shards"), integer(1, SHARDS_MAX), Default::Cores,
        "Threads that hold connections; more than cores where the open-file limit is small.";
    "node.lanes" Some("--lanes"), integer(1, LANES_MAX as u64), Default::Lanes,
        "Shards that also own a log; at most one a core. A start with another number than before takes the data as it is; clients begin anew.";
    "node.listen" Some("--listen"), Form::Address, Default::Text("127.0.0.1:8080"),
        "Address for clients (WebSocket).";
    "node.console" Some("--console"), Form::Address, Default::Text("127.0.0.1:8081"),
        "Address for operators: health, metrics and the page; keep it from the internet.";
    "node.websocket_url" None, Form::Text, Default::Unset,
        "URL at which browsers reach node.listen, if a proxy stands before it; starts with ws:// or wss://.";
    "node.takeover" Some("--takeover"), Form::Boolean, Default::Boolean(false),
        "Whether to take over from a node that runs on the same data; without one, it starts as usual.";
    "tls.listen" Some("--tls-listen"), Form::Address, Default::Unset,
        "Address for clients over TLS (wss://), beside node.listen.";
    "tls.certificate_files" None, Form::Paths, Default::Unset,
        "PEM files with a certificate chain each; a client is shown the one for the name that it asks for, else the first. SIGHUP reads them again.";
    "tls.key_files" None, Form::Paths, Default::Unset,
        "PEM files with the private keys of tls.certificate_files, in the same order.";
    "tls.oldest_version" None, Form::Text, Default::Text("1.2"),
        "Oldest version of TLS spoken, 1.2 or 1.3.";
    "api.listen" None, Form::Address, Default::Unset,
        "Address of the HTTP API for your application's own backend (docs/http-api.md); it speaks no TLS, so keep it in a network of your \
         own. If not set: none; with --dev 127.0.0.1:8082, or a free port where node.console is another than usual.";
    "api.keys_file" None, Form::Path, Default::Unset,
        "TOML file with the keys of the HTTP API, as antiphon api-key prints entries for it. Required with api.listen. SIGHUP \
         reads it again.";
    "api.requests_per_second_max" None, integer(0, 1_000_000), Default::Integer(1_000),
        "Calls of the HTTP API per second of one key, as many at once; 0: any number. More get 429.";
    "operator.keys_file" None, Form::Path, Default::Unset,
        "TOML file with the keys of the operator's page (docs/operator.md), as antiphon api-key --scope operate prints entries for it; it may be \
         the file of the HTTP API. If not set: no such page, but with --dev, which makes a key. SIGHUP reads it again.";
    "auth.algorithms" None, Form::List, Default::Text("EdDSA,ES256,HS256"),
        "Signature algorithms that tokens may use, of EdDSA, ES256 and HS256.";
    "auth.hs256_secret" None, Form::Secret, Default::Unset,
        "Shared secret for HS256, at least 32 bytes; better in a file or the environment.";
    "auth.hs256_secret_file" None, Form::Path, Default::Unset,
        "File with the shared secret for HS256; one line end at its end is not part of it.";
    "auth.eddsa_public_key_file" None, Form::Path, Default::Unset,
        "PEM file with an Ed25519 public key for EdDSA.";
    "auth.es256_public_key_file" None, Form::Path, Default::Unset,
        "PEM file with a P-256 public key for ES256.";
    "auth.jwks_file" None, Form::Path, Default::Unset,
        "File with a JWK set; a token's kid chooses the key.";
    "auth.audience" None, Form::Text, Default::Unset,
        "The aud that a token must carry. Required.";
    "auth.issuer" None, Form::Text, Default::Unset,
        "The iss that a token must carry; not checked if not set.";
    "auth.device_claim" None, Form::Text, Default::Text("device"),
        "Claim that names the device; a token without it leaves the choice to the client.";
    "browsers.origins_allowed" None, Form::List, Default::Unset,
        "Origins of web pages that may connect, such as https://chat.example.com; others are refused, clients without \
         Origin are not.";
    "websocket.deflate" Some("--deflate"), Form::Boolean, Default::Boolean(false),
        "Whether clients may agree on permessage-deflate; docs/benchmarks.md says why it is off: CPU, and what \
         lengths reveal.";
    "admission.address_per_second_max" None, integer(0, 1_000_000), Default::Integer(1_000),
        "New connections per second from one address (of IPv6: one /64) for long; 0: any number. More get 429. A \
         thousand TLS handshakes are about a tenth of a core.";
    "admission.address_burst_max" None, integer(1, 1_000_000), Default::Integer(30_000),
        "New connections from one address at once after a pause: more than the 28232 that one machine can hold by \
         default, so that it may come back with all of them.";
    "admission.node_per_second_max" None, integer(0, 10_000_000), Default::Integer(0),
        "New connections per second from everybody for long; 0: any number, as fast as the processors take them. More \
         get 503.";
    "admission.node_burst_max" None, integer(1, 10_000_000), Default::Integer(10_000),
        "New connections from everybody at once after a pause, where there is a rate.";
    "admission.connections_per_address_max" None, integer(0, 1_000_000), Default::Integer(0),
        "Connections that one address may hold; 0: any number, since a provider's address may stand for thousands of \
         people. Counted in shared counters, so keep it above 100.";
    "admission.exempt" None, Form::List, Default::Unset,
        "Blocks of addresses, such as 10.0.0.0/8, that no limit by address holds for.";
    "admission.proxy_protocol_from" None, Form::List, Default::Unset,
        "Blocks of addresses of load balancers whose connections begin with a header of the PROXY protocol, version \
         2; without one they are closed.";
    "admission.forwarded_from" None, Form::List, Default::Unset,
        "Blocks of addresses of HTTP proxies that tell their client's address in a header; limits by address hold for \
         that one.";
    "admission.forwarded_header" None, Form::Text, Default::Text("X-Forwarded-For"),
        "The header that those proxies write: X-Forwarded-For or Forwarded. The other is not believed: a proxy passes \
         it on from its client.";
    "limits.connections_max" None, integer(1, 16_000_000), Default::Integer(1_000_000),
        "Most connections of the node; more are told to come back later.";
    "limits.memory_bytes_max" Some("--memory-limit"), Form::Size { min: 64 * MIB, max: 1 << 50 }, Default::Unset,
        "Memory that the node may take, its sockets' in the kernel included: from 90 % on newcomers are told to come \
         back, from 95 % on they wait. If not set: 80 % of the machine's memory, or of the cgroup's limit if that is \
         less.";
    "limits.requests_per_second_max" None, integer(1, 1_000_000), Default::Integer(50),
        "Sustained requests per second of a connection.";
    "limits.requests_burst_max" None, integer(1, 1_000_000), Default::Integer(200),
        "Requests that a connection may make at once after a pause.";
    "limits.frames_per_second_max" None, integer(1, 4_000_000), Default::Unset,
        "Sustained WebSocket frames per second of a connection, of any kind and fragments too; beyond it is closed. \
         If not set: four times limits.requests_per_second_max.";
    "limits.frames_burst_max" None, integer(1, 4_000_000), Default::Unset,
        "Frames that a connection may send at once after a pause. If not set: four times limits.requests_burst_max.";
    "limits.outbound_bytes_max" None, integer(1_280 * KIB, GIB), Default::Integer(2 * MIB),
        "Bytes that may wait for one slow client before it is closed; at least one full page of history.";
    "limits.page_items_max" None, integer(1, PAGE_ITEMS_MAX as u64), Default::Integer(PAGE_ITEMS_MAX as u64),
        "Longest page of history or of a list.";
    "limits.page_items_default" None, integer(1, PAGE_ITEMS_MAX as u64), Default::Integer(PAGE_ITEMS_DEFAULT as u64),
        "Page length when a request names none.";
    "limits.devices_per_user" None, integer(1, DEVICES_MAX as u64), Default::Integer(10),
        "Devices of a user that may be connected at a time.";
    "fanout.at_a_time" None, integer(16, 65_536), Default::Integer(256),
        "Connections that a shard gives a message in one go, where it is for more: what others wait for goes on between. 256 take about two \
         milliseconds.";
    "fanout.bodies_members" None, integer(1, 1_000_000), Default::Integer(10_000),
        "Members of a conversation beyond which only who has it open is given what happens in it, and who is meant by it; the others who are connected \
         hear how far it is, and read it when they open it. Up to 10,000 take a tenth of a second of a core.";
    "fanout.hint_ms" None, integer(10, 600_000), Default::Integer(1_000),
        "Milliseconds between two times that they hear of one conversation, at least.";
    "fanout.large_members" None, integer(1, 1_000_000), Default::Integer(100),
        "Members of a conversation beyond which it is kept who of them is connected, so that a message costs by these. Up to 100 are looked up \
         for each message in a hundredth of a millisecond.";
    "store.log_file_bytes" None, integer(2 * MIB, 4 * GIB), Default::Integer(64 * MIB),
        "Size of one pre-written log file; a multiple of 4096.";
    "store.log_files_max" None, integer(3, 1_024), Default::Integer(8),
        "Log files of a lane; they bound what a restart replays.";
    "store.memtable_bytes" None, integer(MIB, 16 * GIB), Default::Integer(64 * MIB),
        "Recent entries that a lane holds in memory before it writes a segment.";
    "store.cache_bytes" None, integer(0, 1_024 * GIB), Default::Integer(256 * MIB),
        "Blocks that a lane keeps in memory.";
    "store.message_ids_window_hours" None, integer(24, 87_600), Default::Integer(168),
        "How long a client_message_id is remembered: a retry of a send within that time is answered as the first was. Later one whose id \
         says its time (UUID version 7) is refused as too_old, one with another id is stored again.";
    "store.message_id_filter_bytes" None, integer(0, 64 * GIB), Default::Integer(32 * MIB),
        "Filters of message ids that a lane keeps in memory, three bytes an id. Ids that say their time need few of them; for others the \
         more there are the seldomer a fresh one waits for the disk.";
    "store.reclaim_hours_max" None, integer(1, 8_760), Default::Integer(24),
        "Within how long the bytes of what was erased are gone from the disk; a segment that knows something erased is written anew once \
         in half that time.";
    "store.scrub_mib_per_second" None, integer(0, 16_384), Default::Integer(4),
        "MiB a second that a lane reads of its segments for their checksums alone, in the background, so that damage is found before somebody \
         needs what is damaged; 0: none. A terabyte takes three days at 4.";
    "encryption.key_file" None, Form::Path, Default::Unset,
        "File with the node's key, 32 bytes or 64 hexadecimal digits, that nobody but its owner may read; a new store is encrypted with it. \
         Make one with antiphon store encryption-key.";
    "encryption.key_command" None, Form::List, Default::Unset,
        "Command, with its arguments, that prints the node's key, instead of a file; it has 30 seconds.";
    "timing.head_timeout_ms" None, integer(100, 600_000), Default::Integer(5_000),
        "From a connection's start to the end of its HTTP request, and to the end of a header of the PROXY protocol.";
    "timing.connect_timeout_ms" None, integer(100, 600_000), Default::Integer(10_000),
        "From a connection's start to its connect frame.";
    "timing.silence_ms" None, integer(HEARTBEAT_INTERVAL_MS as u64 + 1_000, 3_600_000),
        Default::Integer(SESSION_SILENCE_MS_MAX as u64),
        "Silence that ends a session; longer than the heartbeat interval of 30000.";
    "timing.drain_ms" None, integer(0, 600_000), Default::Integer(10_000),
        "When a node ends: the time over which clients come back, and the longest wait for them to go.";
    "log.filter" Some("--log"), Form::Text, Default::Text("info"),
        "What is logged: a level or a tracing filter such as info,antiphon_gateway::core=debug.";
}

/// The index of a key; its name must be in the table.
pub(crate) fn index_of(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// The known name nearest to a mistaken one, if any is near enough to be meant.
pub(crate) fn nearest<'a>(mistaken: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = known.map(|name| (edit_distance(mistaken, name), name)).min()?;
    (distance <= mistaken.len().max(name.len()) / 3).then_some(name)
}

/// Levenshtein's distance in bytes, one row at a time.
fn edit_distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.bytes().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        let mut tables: Vec<&str> = KEYS.iter().map(|key| key.name.split_once('.').unwrap().0).collect();
        tables.dedup();
        let grouped = tables.clone();
        tables.sort_unstable();
        tables.dedup();
        assert_eq!(tables.len(), grouped.len(), "a table's keys stand together");
        for key in KEYS {
            assert!(key.help.ends_with('.') && !key.help.contains('\n'), "{}", key.name);
            if let (Form::Integer { min, max }, Default::Integer(value)) = (key.form, key.default) {
                assert!((min..=max).contains(&value), "{}", key.name);
            }
        }
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("limits.conections_max", names()), Some("limits.connections_max"));
        assert_eq!(nearest("node.listne", names()), Some("node.listen"));
        assert_eq!(nearest("something.else_entirely", names()), None);
        assert_eq!((edit_distance("", "abc"), edit_distance("kitten", "sitting"), edit_distance("a", "a")), (3, 3, 0));
    }
}
