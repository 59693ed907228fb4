//! What the tests of the net ring share: a shard on a thread, a raw echo, and waiting for a condition with an end.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this module")]

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use antiphon_gateway::{
    core::io::{Command, ConnectionKey, Handler, Origin, Turn},
    uring::{ShardConfig, ShardContext, ShardCounters, ShardError, Waker, bind, spawn_shard},
};

/// Longer than anything takes on a busy machine, shorter than anybody's patience.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A shard that runs until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub waker: Waker,
    pub counters: Arc<ShardCounters>,
    thread: Option<JoinHandle<Result<(), ShardError>>>,
}

impl Running {
    pub fn start<H: Handler>(
        configure: impl FnOnce(&mut ShardConfig),
        make: impl FnOnce(&ShardContext) -> H + Send + 'static,
    ) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let mut config = ShardConfig::new("test-shard", Some(listener));
        configure(&mut config);
        let waker = Waker::new().unwrap();
        let counters = Arc::new(ShardCounters::default());
        let thread = spawn_shard(config, waker.clone(), Arc::clone(&counters), make).unwrap();
        Self { address, waker, counters, thread: Some(thread) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Stops the shard; it must give everything back.
    pub fn stop(mut self) {
        self.stop_in_place();
    }

    fn stop_in_place(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.waker.stop();
            let begin = Instant::now();
            thread.join().expect("the shard does not panic").expect("the shard does not fail");
            assert!(begin.elapsed() < Duration::from_secs(4), "the kernel gave everything back in time");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop_in_place();
        }
    }
}

/// Waits until it is so.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that tell their place.
pub fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 31 + seed * 7) ^ (index >> 8)) as u8).collect()
}

pub fn round_trip(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "what came back is what was sent");
}

/// Sends back what it gets, as the pieces in which it came.
#[derive(Default)]
pub struct RawEcho {
    connections: Vec<Option<Echoing>>,
    dirty: VecDeque<ConnectionKey>,
    commands: VecDeque<Command>,
}

struct Echoing {
    key: ConnectionKey,
    pending: Vec<Rc<[u8]>>,
    sending: bool,
}

impl RawEcho {
    fn get(&mut self, key: ConnectionKey) -> &mut Echoing {
        let echoing = self.connections[key.slot as usize].as_mut().expect("only live connections are named");
        assert_eq!(echoing.key, key, "and by their own generation");
        echoing
    }
}

impl Handler for RawEcho {
    fn accepted(&mut self, key: ConnectionKey, _: Origin) {
        let slot = key.slot as usize;
        self.connections.resize_with(self.connections.len().max(slot + 1), || None);
        assert!(self.connections[slot].is_none(), "a slot is free before it is used again");
        self.connections[slot] = Some(Echoing { key, pending: Vec::new(), sending: false });
    }

    fn received(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        assert!(!bytes.is_empty());
        self.get(key).pending.push(Rc::from(&*bytes));
        self.dirty.push_back(key);
    }

    fn sent(&mut self, key: ConnectionKey) {
        assert!(std::mem::take(&mut self.get(key).sending));
        self.dirty.push_back(key);
    }

    fn closed(&mut self, key: ConnectionKey) {
        self.get(key);
        self.connections[key.slot as usize] = None;
    }

    fn turn(&mut self, _now_ms: u64) -> Turn {
        while let Some(key) = self.dirty.pop_front() {
            let Some(Some(echoing)) = self.connections.get_mut(key.slot as usize) else {
                continue;
            };
            if echoing.key == key && !echoing.sending && !echoing.pending.is_empty() {
                echoing.sending = true;
                let buffers = std::mem::take(&mut echoing.pending);
                self.commands.push_back(Command::Send { connection: key, buffers, awaited: false });
            }
        }
        Turn { more: false, wake_at_ms: None }
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}
