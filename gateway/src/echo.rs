//! `antiphon echo`: a plain WebSocket echo on the net ring and the codec, to measure and test both without anything else.
//!
//! Answers every message with itself, pings with pongs and a close with a close; a peer that breaks the protocol gets the close
//! code that says so. With permessage-deflate it compresses whatever gets shorter by it. Does not limit how many connect.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context;

use crate::{
    announce::echo_announcement,
    core::{
        http,
        io::{Command, ConnectionKey, Handler, Origin, Turn},
        websocket::{
            self, Accepted, CloseCode, Decoder, Deflater, Event, Inflater, Limits, Opcode, Role, extension::Agreed,
        },
    },
    tls::{Settings, Tls},
    uring::{
        ShardConfig, ShardContext, ShardCounters, ShardError, Waker, bind, raise_open_files, refuse_huge_pages,
        spawn_shard,
    },
};

/// Above the largest message of Autobahn's cases, 16 MiB.
const LIMITS: Limits =
    Limits { frame_bytes_max: 32 << 20, message_bytes_max: 32 << 20, fragments_max: 1 << 20, accepted: Accepted::Any };

/// Bytes that wait for a peer that does not read. Two of the largest messages; then it is cut off.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// How often the threads are looked at, to notice one that failed.
const WATCH: Duration = Duration::from_millis(200);

/// Serves until a shard fails; prints a line that begins with `ready` when it accepts.
///
/// # Errors
/// The address cannot be bound, or a shard failed.
pub fn run_echo(listen: SocketAddr, shards: usize, deflate: bool, tls: Option<Arc<Settings>>) -> anyhow::Result<()> {
    refuse_huge_pages().context("refuse huge pages")?;
    raise_open_files().context("raise the limit on open files")?;
    let shards = shards.max(1);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let listeners = bind(listen, shards).with_context(|| format!("listen on {listen}"))?;
    let address = listeners.first().context("an echo has a shard")?.local_addr()?;
    let mut threads = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let mut config = ShardConfig::new(format!("echo-{index}"), Some(listener));
        config.core = (shards <= cores).then_some(index);
        let counters = Arc::new(ShardCounters::default());
        let tls = tls.clone();
        let make = move |_: &ShardContext| Tls::new(EchoHandler::new(deflate), tls, 0, Rc::default());
        threads.push(spawn_shard(config, Waker::new()?, counters, make)?);
    }
    print!("{}", echo_announcement(address, shards));
    io::stdout().flush()?;
    loop {
        if let Some(index) = threads.iter().position(thread::JoinHandle::is_finished) {
            let result: Result<(), ShardError> =
                threads.swap_remove(index).join().map_err(|_| anyhow::anyhow!("a shard panicked"))?;
            return Ok(result?);
        }
        thread::sleep(WATCH);
    }
}

/// Where a connection stands.
enum Phase {
    /// The request, as far as it has come.
    Head(Vec<u8>),
    /// Frames.
    Open(Decoder),
    /// Everything to be said is in `pending` or under way; then it is closed.
    Ending,
}

struct Connection {
    key: ConnectionKey,
    phase: Phase,
    /// What permessage-deflate was agreed on with, if it was.
    deflate: Option<Agreed>,
    /// To be sent.
    pending: Vec<u8>,
    is_sending: bool,
    is_dirty: bool,
}

/// What all connections of a shard share.
struct Shared {
    rules: http::Rules,
    deflater: Deflater,
    inflater: Inflater,
}

/// Echoes on one shard.
pub struct EchoHandler {
    shared: Shared,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// Connections that the next turn looks at.
    dirty: Vec<ConnectionKey>,
    commands: VecDeque<Command>,
}

impl Default for EchoHandler {
    fn default() -> Self {
        Self::new(false)
    }
}

impl EchoHandler {
    /// A handler without connections; `deflate` if it accepts permessage-deflate.
    #[must_use]
    pub fn new(deflate: bool) -> Self {
        let rules = http::Rules { paths: vec!["/".into(), "/ws".into()], deflate, ..http::Rules::default() };
        // Short messages too are compressed here, so that a test of conformance has something to test.
        let shared = Shared { rules, deflater: Deflater::new(0), inflater: Inflater::default() };
        Self { shared, connections: Vec::new(), dirty: Vec::new(), commands: VecDeque::new() }
    }

    fn get(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections.get_mut(key.slot as usize)?.as_mut().filter(|connection| connection.key == key)
    }

    fn touch(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.get(key)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush(&mut self, key: ConnectionKey) {
        let Some(connection) = self.get(key) else {
            return;
        };
        connection.is_dirty = false;
        if connection.pending.len() > PENDING_BYTES_MAX {
            return self.close(key);
        }
        if connection.is_sending {
            return;
        }
        if !connection.pending.is_empty() {
            let bytes: Rc<[u8]> = connection.pending.as_slice().into();
            connection.pending.clear();
            // A large message's memory is not kept by a connection that may be idle from now on.
            connection.pending.shrink_to(0);
            connection.is_sending = true;
            self.commands.push_back(Command::Send { connection: key, buffers: vec![bytes] });
        } else if matches!(connection.phase, Phase::Ending) {
            self.close(key);
        }
    }

    fn close(&mut self, key: ConnectionKey) {
        self.connections[key.slot as usize] = None;
        self.commands.push_back(Command::Close { connection: key });
    }
}

impl Connection {
    fn received(&mut self, bytes: &mut [u8], shared: &mut Shared) {
        match &mut self.phase {
            Phase::Head(head) => {
                head.extend_from_slice(bytes);
                match http::upgrade(head, &shared.rules) {
                    http::Outcome::NeedMore => {}
                    http::Outcome::Respond { bytes, .. } => {
                        self.pending.extend_from_slice(&bytes);
                        self.phase = Phase::Ending;
                    }
                    http::Outcome::Upgrade(upgrade) => {
                        self.pending.extend_from_slice(&upgrade.response);
                        let mut rest = head.split_off(upgrade.consumed_bytes);
                        self.phase = Phase::Open(Decoder::new(Role::Server));
                        self.deflate = upgrade.deflate;
                        self.frames(&mut rest, shared);
                    }
                }
            }
            Phase::Open(_) => self.frames(bytes, shared),
            Phase::Ending => {}
        }
    }

    fn frames(&mut self, bytes: &mut [u8], shared: &mut Shared) {
        let Phase::Open(decoder) = &mut self.phase else {
            return;
        };
        let mut input = bytes;
        let out = &mut self.pending;
        loop {
            let inflater = self.deflate.map(|_| &mut shared.inflater);
            match decoder.poll_inflating(&mut input, &LIMITS, inflater) {
                Ok(None) => return,
                Ok(Some(Event::Message { kind, payload })) => {
                    if let Some(agreed) = self.deflate
                        && let Some(compressed) = shared.deflater.payload(agreed, payload)
                    {
                        let length = compressed.len() as u64;
                        let header = websocket::encode_header(kind.opcode(), true, true, length, None);
                        out.extend_from_slice(header.as_slice());
                        out.extend_from_slice(compressed);
                        continue;
                    }
                    websocket::encode_frame_into(out, kind.opcode(), true, payload, None);
                }
                Ok(Some(Event::Ping(payload))) => {
                    websocket::encode_frame_into(out, Opcode::Pong, true, payload, None);
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => {
                    out.extend(websocket::encode_close(code.and_then(CloseCode::new), "", None));
                    break;
                }
                Err(error) => {
                    out.extend(websocket::encode_close(Some(error.close_code()), &error.to_string(), None));
                    break;
                }
            }
        }
        self.phase = Phase::Ending;
    }
}

impl Handler for EchoHandler {
    fn accepted(&mut self, key: ConnectionKey, _: Origin) {
        let slot = key.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        let phase = Phase::Head(Vec::new());
        let connection =
            Connection { key, phase, deflate: None, pending: Vec::new(), is_sending: false, is_dirty: false };
        self.connections[slot] = Some(connection);
    }

    fn received(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let Some(Some(connection)) = self.connections.get_mut(key.slot as usize) else {
            return;
        };
        if connection.key == key {
            connection.received(bytes, &mut self.shared);
            self.touch(key);
        }
    }

    fn sent(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.get(key) {
            connection.is_sending = false;
        }
        self.touch(key);
    }

    fn closed(&mut self, key: ConnectionKey) {
        if self.get(key).is_some() {
            self.connections[key.slot as usize] = None;
        }
    }

    fn turn(&mut self, _now_ms: u64) -> Turn {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.flush(key);
        }
        self.dirty = dirty;
        Turn { more: false, wake_at_ms: None }
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}
