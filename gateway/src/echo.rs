//! `antiphon echo`: a plain WebSocket echo on the net ring and the codec, to measure and test both without anything
//! else.
//!
//! Answers every message with itself, pings with pongs and a close with a close; a peer that breaks the protocol gets
//! the close code that says so. With permessage-deflate it compresses whatever gets shorter by it. Does not limit how
//! many connect.
//!
//! As a broadcast it sends every message to all other connections of its shard instead: encoded once, shared by
//! reference count, and never compressed, like the pushes of a node whose clients do not ask for compression.

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
pub fn run_echo(listen: SocketAddr, shards: usize, mode: EchoMode, tls: Option<Arc<Settings>>) -> anyhow::Result<()> {
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
        let make = move |_: &ShardContext| Tls::new(EchoHandler::new(mode), tls, 0, Rc::default());
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

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoMode {
    /// It goes back to its sender.
    Echo {
        /// Whether permessage-deflate is accepted.
        deflate: bool,
    },
    /// It goes to all other connections of the shard.
    Broadcast,
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
    /// To be sent after it: frames that other connections get too.
    shared: Vec<Rc<[u8]>>,
    /// What these take, their references too.
    shared_bytes: usize,
    is_sending: bool,
    is_dirty: bool,
}

/// What all connections of a shard share.
struct Shared {
    rules: http::Rules,
    deflater: Deflater,
    inflater: Inflater,
    mode: EchoMode,
    /// Frames that the next turn hands to all but their senders. Bounded by what a turn's receive buffers hold.
    broadcasts: Vec<(ConnectionKey, Rc<[u8]>)>,
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
        Self::new(EchoMode::Echo { deflate: false })
    }
}

impl EchoHandler {
    /// A handler without connections.
    #[must_use]
    pub fn new(mode: EchoMode) -> Self {
        let deflate = mode == EchoMode::Echo { deflate: true };
        let rules = http::Rules { paths: vec!["/".into(), "/ws".into()], deflate, ..http::Rules::default() };
        // Short messages too are compressed here, so that a test of conformance has something to test.
        let (deflater, inflater) = (Deflater::new(0), Inflater::default());
        let shared = Shared { rules, deflater, inflater, mode, broadcasts: Vec::new() };
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
        if connection.pending.len() + connection.shared_bytes > PENDING_BYTES_MAX {
            return self.close(key);
        }
        if connection.is_sending {
            return;
        }
        let mut buffers = Vec::new();
        if !connection.pending.is_empty() {
            buffers = vec![connection.pending.as_slice().into()];
            // A large message's memory is not kept by a connection that may be idle from now on.
            connection.pending = Vec::new();
        }
        if !connection.shared.is_empty() {
            buffers.append(&mut connection.shared);
            connection.shared_bytes = 0;
        }
        if !buffers.is_empty() {
            connection.is_sending = true;
            let awaited = matches!(connection.phase, Phase::Ending);
            self.commands.push_back(Command::Send { connection: key, buffers, awaited });
        } else if matches!(connection.phase, Phase::Ending) {
            self.close(key);
        }
    }

    /// Hands out what came for all. A connection that has not been upgraded, or is ending, gets nothing.
    fn spread(&mut self) {
        for (sender, frame) in std::mem::take(&mut self.shared.broadcasts) {
            for connection in self.connections.iter_mut().flatten() {
                if connection.key == sender || !matches!(connection.phase, Phase::Open(_)) {
                    continue;
                }
                connection.shared_bytes += frame.len() + size_of_val(&frame);
                connection.shared.push(Rc::clone(&frame));
                if !connection.is_dirty {
                    connection.is_dirty = true;
                    self.dirty.push(connection.key);
                }
            }
        }
    }

    fn close(&mut self, key: ConnectionKey) {
        self.connections[key.slot as usize] = None;
        self.commands.push_back(Command::Close { connection: key });
    }
}

impl Connection {
    fn new(key: ConnectionKey) -> Self {
        Self {
            key,
            phase: Phase::Head(Vec::new()),
            deflate: None,
            pending: Vec::new(),
            shared: Vec::new(),
            shared_bytes: 0,
            is_sending: false,
            is_dirty: false,
        }
    }

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
                    if shared.mode == EchoMode::Broadcast {
                        let frame = websocket::encode_message(kind, payload, None);
                        shared.broadcasts.push((self.key, frame.into()));
                        continue;
                    }
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
        self.connections[slot] = Some(Connection::new(key));
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
        let Some(connection) = self.get(key) else { return };
        connection.is_sending = false;
        let rests = connection.pending.is_empty() && connection.shared.is_empty();
        if !rests || matches!(connection.phase, Phase::Ending) {
            self.touch(key);
        }
    }

    fn closed(&mut self, key: ConnectionKey) {
        if self.get(key).is_some() {
            self.connections[key.slot as usize] = None;
        }
    }

    fn turn(&mut self, _now_ms: u64) -> Turn {
        self.spread();
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

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    const ORIGIN: Origin =
        Origin { listener: 0, peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1) };

    fn key(slot: u32) -> ConnectionKey {
        ConnectionKey { slot, generation: 1 }
    }

    /// Takes a turn and says what is sent where; what is sent has left.
    fn turn(handler: &mut EchoHandler) -> Vec<(u32, Vec<Rc<[u8]>>)> {
        handler.turn(0);
        let mut sends = Vec::new();
        while let Some(command) = handler.poll_command() {
            match command {
                Command::Send { connection, buffers, .. } => sends.push((connection.slot, buffers)),
                Command::Close { connection } => panic!("{connection:?} is closed"),
            }
        }
        sends.sort_by_key(|(slot, _)| *slot);
        sends
    }

    fn open(mode: EchoMode, count: u32) -> EchoHandler {
        let mut handler = EchoHandler::new(mode);
        for slot in 0..count {
            handler.accepted(key(slot), ORIGIN);
            handler.received(key(slot), &mut REQUEST.to_vec());
        }
        assert_eq!(turn(&mut handler).len(), count as usize);
        (0..count).for_each(|slot| handler.sent(key(slot)));
        handler
    }

    fn say(handler: &mut EchoHandler, slot: u32, text: &str) {
        let mut frame = websocket::encode_frame(Opcode::Text, true, text.as_bytes(), Some([1, 2, 3, 4]));
        handler.received(key(slot), &mut frame);
    }

    #[test]
    fn a_broadcast_reaches_all_but_its_sender_and_is_encoded_once() {
        let mut handler = open(EchoMode::Broadcast, 3);
        handler.accepted(key(3), ORIGIN);
        say(&mut handler, 1, "a");
        say(&mut handler, 1, "b");
        let sends = turn(&mut handler);
        let slots: Vec<u32> = sends.iter().map(|(slot, _)| *slot).collect();
        assert_eq!(slots, [0, 2], "not to its sender, nor to who is not upgraded");
        for (_, buffers) in &sends {
            let frames: Vec<&[u8]> = buffers.iter().map(|frame| &**frame).collect();
            assert_eq!(frames, [&[0x81, 1, b'a'][..], &[0x81, 1, b'b']]);
        }
        assert!(Rc::ptr_eq(&sends[0].1[0], &sends[1].1[0]));
        // Nothing more goes to a connection before its last send has left; then all that has come meanwhile.
        say(&mut handler, 1, "c");
        assert!(turn(&mut handler).is_empty());
        handler.sent(key(2));
        let sends = turn(&mut handler);
        assert_eq!(sends.iter().map(|(slot, buffers)| (*slot, buffers.len())).collect::<Vec<_>>(), [(2, 1)]);
    }

    #[test]
    fn an_echo_goes_back_to_its_sender_alone() {
        let mut handler = open(EchoMode::Echo { deflate: false }, 2);
        say(&mut handler, 1, "a");
        let sends = turn(&mut handler);
        assert_eq!(sends.len(), 1);
        assert_eq!((sends[0].0, &*sends[0].1[0]), (1, &[0x81, 1, b'a'][..]));
    }

    #[test]
    fn who_reads_no_broadcasts_is_cut_off_at_the_limit() {
        let mut handler = open(EchoMode::Broadcast, 2);
        let text = "x".repeat(1 << 20);
        let frames = PENDING_BYTES_MAX / text.len() + 2;
        let mut closed = false;
        for _ in 0..frames {
            say(&mut handler, 0, &text);
            handler.turn(0);
            while let Some(command) = handler.poll_command() {
                closed |= matches!(command, Command::Close { connection } if connection == key(1));
            }
        }
        assert!(closed && handler.get(key(0)).is_some() && handler.get(key(1)).is_none());
    }
}
