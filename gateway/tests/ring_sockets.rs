//! Connections on the net ring, against plain blocking clients.

mod ring_common;

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use antiphon_gateway::{
    core::io::{Command, ConnectionKey, Handler, Origin, Turn},
    uring::{Admission, ShardContext, bind},
};
use ring_common::{PATIENCE, RawEcho, Running, eventually, pattern, round_trip};

fn echo() -> Running {
    Running::start(|_| {}, |_| RawEcho::default())
}

/// `SO_LINGER` of zero: closing sends a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[test]
fn a_thousand_connections_are_served_and_given_back() {
    let shard = echo();
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| shard.connect()).collect();
    for round in 0..3 {
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&pattern(index + round, 100 + index)).unwrap();
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut back = vec![0; 100 + index];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, pattern(index + round, 100 + index));
        }
    }
    assert_eq!((shard.counters.connections.get(), shard.counters.accepts.get()), (1000, 1000));
    drop(streams);
    eventually("all slots are free", || shard.counters.connections.get() == 0);
}

#[test]
fn a_send_that_leaves_at_once_makes_no_completion() {
    let shard = echo();
    let mut stream = shard.connect();
    round_trip(&mut stream, b"first");
    let before = shard.counters.completions.get();
    for round in 0..200 {
        round_trip(&mut stream, &pattern(round, 64));
    }
    // What the receives and the sweep make; with the sends' it would be 400 at least.
    let completions = shard.counters.completions.get() - before;
    assert!((200..300).contains(&completions), "{completions} completions");
    assert_eq!(shard.counters.bytes_in.get(), 5 + 200 * 64);
    drop(stream);
    eventually("the last send has ended too", || shard.counters.bytes_out.get() == 5 + 200 * 64);
}

#[test]
fn a_taken_address_is_refused_and_shared_by_the_shards_of_one_node_only() {
    let own = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
    let addresses: Vec<_> = own.iter().map(|listener| listener.local_addr().unwrap()).collect();
    assert_eq!(addresses, [addresses[0]; 3]);
    assert_eq!(bind(addresses[0], 1).unwrap_err().kind(), ErrorKind::AddrInUse);
    // It waits for one who is about to go.
    let going = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(own);
    });
    assert_eq!(bind(addresses[0], 2).unwrap().len(), 2);
    going.join().unwrap();
}

#[test]
fn slots_are_used_again() {
    let shard = Running::start(|config| config.connections_max = 16, |_| RawEcho::default());
    for round in 0..500 {
        let mut stream = shard.connect();
        round_trip(&mut stream, &pattern(round, 50));
        if round % 3 == 0 {
            reset(stream);
        }
    }
    assert_eq!(shard.counters.accepts.get(), 500);
}

#[test]
fn large_messages_pass_in_many_buffers_and_partial_sends() {
    let shard = Running::start(
        |config| {
            config.receive_buffers = 64;
            config.receive_buffer_bytes = 512;
        },
        |_| RawEcho::default(),
    );
    let bytes = pattern(1, 16 << 20);
    let stream = shard.connect();
    let mut reading = stream.try_clone().unwrap();
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        // Starts late, so that sends fill up the socket and are taken in part.
        thread::sleep(Duration::from_millis(200));
        let mut back = vec![0; expected.len()];
        reading.read_exact(&mut back).unwrap();
        assert!(back == expected);
    });
    (&stream).write_all(&bytes).unwrap();
    reader.join().unwrap();
    assert!(shard.counters.short_sends.get() > 0, "the test means to have partial sends");
    assert_eq!(shard.counters.bytes_in.get(), 16 << 20);
    eventually("the last send has ended too", || shard.counters.bytes_out.get() == 16 << 20);
}

#[test]
fn a_receive_without_a_buffer_is_armed_again() {
    let shard = Running::start(
        |config| {
            config.receive_buffers = 2;
            config.receive_buffer_bytes = 64;
        },
        |_| RawEcho::default(),
    );
    let streams: Vec<TcpStream> = (0..50).map(|_| shard.connect()).collect();
    thread::scope(|scope| {
        for (index, mut stream) in streams.into_iter().enumerate() {
            scope.spawn(move || round_trip(&mut stream, &pattern(index, 20_000)));
        }
    });
    assert!(shard.counters.buffers_exhausted.get() > 0, "the test means to run out of buffers");
    assert_eq!(shard.counters.buffers_free_min.get(), 0);
}

#[test]
fn tiny_queues_lose_nothing() {
    let shard = Running::start(
        |config| {
            config.submission_entries = 4;
            config.completion_entries = 8;
        },
        |_| RawEcho::default(),
    );
    let mut streams: Vec<TcpStream> = (0..300).map(|_| shard.connect()).collect();
    for round in 0..20 {
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&pattern(index + round, 64)).unwrap();
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 64];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back.as_slice(), pattern(index + round, 64));
        }
    }
    drop(streams);
    eventually("all slots are free", || shard.counters.connections.get() == 0);
}

#[test]
fn a_full_table_stops_accepting_and_goes_on_when_a_slot_is_free() {
    let shard = Running::start(|config| config.connections_max = 8, |_| RawEcho::default());
    let mut first: Vec<TcpStream> = (0..8).map(|_| shard.connect()).collect();
    for stream in &mut first {
        round_trip(stream, b"in");
    }
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| shard.connect()).collect();
    for stream in &mut waiting {
        stream.write_all(b"waiting").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "not served, not refused: {error}"
        );
    }
    eventually("the shard noticed", || shard.counters.table_full.get() == 1);
    let turns = shard.counters.turns.get();
    thread::sleep(Duration::from_millis(200));
    assert!(shard.counters.turns.get() - turns < 5, "a full table does not spin");
    assert_eq!(shard.counters.connections.get(), 8);

    drop(first);
    for stream in &mut waiting {
        stream.set_read_timeout(Some(ring_common::PATIENCE)).unwrap();
        let mut back = [0; 7];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"waiting");
    }
    assert_eq!((shard.counters.accepts.get(), shard.counters.accept_errors.get()), (16, 0));
}

/// Sends without end to every connection as soon as it comes, and counts what happens.
struct Flood {
    bytes: Rc<[u8]>,
    commands: Rc<RefCell<VecDeque<Command>>>,
    closed: Arc<AtomicUsize>,
    /// Closes a connection in the turn after its first bytes arrive.
    close_on_bytes: bool,
}

impl Flood {
    fn new(closed: &Arc<AtomicUsize>, close_on_bytes: bool) -> Self {
        let bytes = Rc::from(pattern(3, 1 << 20));
        Self { bytes, commands: Rc::default(), closed: Arc::clone(closed), close_on_bytes }
    }

    fn send(&self, connection: ConnectionKey) {
        let buffers = (0..8).map(|_| Rc::clone(&self.bytes)).collect();
        self.commands.borrow_mut().push_back(Command::Send { connection, buffers, awaited: false });
    }
}

impl Handler for Flood {
    fn accepted(&mut self, key: ConnectionKey, _: Origin) {
        self.send(key);
    }

    fn received(&mut self, connection: ConnectionKey, _: &mut [u8]) {
        if self.close_on_bytes {
            self.commands.borrow_mut().push_back(Command::Close { connection });
            // What comes after a close names nothing any more.
            self.commands.borrow_mut().push_back(Command::Close { connection });
            self.send(connection);
        }
    }

    fn sent(&mut self, key: ConnectionKey) {
        self.send(key);
    }

    fn closed(&mut self, _: ConnectionKey) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn turn(&mut self, _: u64) -> Turn {
        Turn { more: false, wake_at_ms: None }
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.borrow_mut().pop_front()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.commands.borrow_mut().clear();
    }
}

#[test]
fn a_peer_that_resets_while_being_sent_to_is_reported_once() {
    let closed = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&closed);
    let shard = Running::start(|config| config.connections_max = 100, move |_| Flood::new(&theirs, false));
    for round in 0..200 {
        let mut stream = shard.connect();
        stream.read_exact(&mut vec![0; 1 << (round % 18)]).unwrap();
        if round % 2 == 0 {
            reset(stream);
        }
    }
    eventually("all are reported", || closed.load(Ordering::SeqCst) == 200);
    eventually("all slots are free", || shard.counters.connections.get() == 0);
    assert_eq!(shard.counters.sends_in_flight.get(), 0);
}

#[test]
fn a_connection_is_closed_with_its_send_and_receive_in_flight() {
    let closed = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&closed);
    let shard = Running::start(|_| {}, move |_| Flood::new(&theirs, true));
    let streams: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = shard.connect();
            // It reads nothing, so the send stays in flight.
            stream.write_all(b"close me").unwrap();
            stream
        })
        .collect();
    eventually("all are accepted", || shard.counters.accepts.get() == 100);
    eventually("all slots are free, though no peer has read or closed", || shard.counters.connections.get() == 0);
    assert_eq!(closed.load(Ordering::SeqCst), 0, "`closed` is not called for what the handler closed");
    drop(streams);
}

#[test]
fn a_stopping_shard_takes_back_what_is_in_flight() {
    let closed = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&closed);
    let shard = Running::start(|_| {}, move |_| Flood::new(&theirs, false));
    let streams: Vec<TcpStream> = (0..100).map(|_| shard.connect()).collect();
    eventually("sends are in flight", || shard.counters.sends_in_flight.get() == 100);
    let counters = Arc::clone(&shard.counters);
    shard.stop();
    assert_eq!(counters.connections.get(), 0);
    for mut stream in streams {
        // Whatever was under way, then the end.
        let end = std::io::copy(&mut stream, &mut std::io::sink());
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_peer_that_ends_its_direction_is_gone() {
    let shard = echo();
    let mut stream = shard.connect();
    round_trip(&mut stream, b"hello");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    eventually("its slot is free", || shard.counters.connections.get() == 0);
}

/// Sets what the first byte of a message says, and tells when it finds itself closed.
struct Gate(ShardContext, Option<mpsc::Sender<()>>);
impl Handler for Gate {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, bytes: &mut [u8]) {
        self.0.set_admission(match bytes[0] {
            b'h' => Admission::Hold,
            b'o' => Admission::Open,
            b'l' => Admission::Last,
            _ => Admission::Closed,
        });
    }
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}
    fn turn(&mut self, _: u64) -> Turn {
        if self.0.admission() == Admission::Closed
            && let Some(closed) = self.1.take()
        {
            closed.send(()).unwrap();
        }
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}

#[test]
fn admission_holds_opens_and_closes() {
    let shard = Running::start(|_| {}, |context| Gate(context.clone(), None));
    let accepts = || shard.counters.accepts.get();
    let received = || shard.counters.bytes_in.get();
    let mut gate = shard.connect();
    gate.write_all(b"h").unwrap();
    eventually("the gate is shut", || received() == 1);
    thread::sleep(Duration::from_millis(50));
    let _second = shard.connect();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(accepts(), 1, "it waits in the backlog");
    gate.write_all(b"o").unwrap();
    eventually("it was let in", || accepts() == 2);
    gate.write_all(b"c").unwrap();
    eventually("connections are refused", || TcpStream::connect(shard.address).is_err());
    gate.write_all(b"o").unwrap();
    eventually("the gate heard it", || received() == 4);
    assert!(TcpStream::connect(shard.address).is_err(), "closed is for good");
}

#[test]
fn a_connection_comes_with_its_listener_and_its_peer() {
    /// Tells every connection's origin to the test.
    struct Witness(mpsc::Sender<Origin>);
    impl Handler for Witness {
        fn accepted(&mut self, _: ConnectionKey, origin: Origin) {
            self.0.send(origin).unwrap();
        }
        fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
        fn sent(&mut self, _: ConnectionKey) {}
        fn closed(&mut self, _: ConnectionKey) {}
        fn turn(&mut self, _: u64) -> Turn {
            Turn { more: false, wake_at_ms: None }
        }
        fn poll_command(&mut self) -> Option<Command> {
            None
        }
    }
    let (origins, told) = mpsc::channel();
    let others = ["[::]:0", "[::1]:0"].map(|address| bind(address.parse().unwrap(), 1).unwrap().remove(0));
    let addresses = others.each_ref().map(|listener| listener.local_addr().unwrap());
    let shard = Running::start(|config| config.listeners.extend(others), |_| Witness(origins));
    let any = ("127.0.0.1", addresses[0].port()).to_socket_addrs().unwrap().next().unwrap();
    for (listener, address) in [(0, shard.address), (1, any), (2, addresses[1])] {
        for _ in 0..100 {
            let stream = TcpStream::connect(address).unwrap();
            let origin = told.recv_timeout(PATIENCE).unwrap();
            // An IPv4 peer of an IPv6 listener is told as an IPv4 peer.
            assert_eq!(origin, Origin { listener, peer: stream.local_addr().unwrap() });
        }
    }
}

#[test]
fn the_last_are_those_in_the_backlog() {
    // More than one round of accepts takes.
    const WAITING: u64 = 200;
    let (closed, told) = mpsc::channel();
    let shard = Running::start(|_| {}, |context| Gate(context.clone(), Some(closed)));
    let accepts = || shard.counters.accepts.get();
    let mut gate = shard.connect();
    gate.write_all(b"h").unwrap();
    eventually("the gate is shut", || shard.counters.bytes_in.get() == 1);
    // Accepts that were with the kernel are taken back in that turn; one that was quicker is let in all the same.
    let waiting: Vec<_> = (0..WAITING).map(|_| shard.connect()).collect();
    assert!(accepts() < WAITING / 2, "they wait in the backlog");
    gate.write_all(b"l").unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    assert!(TcpStream::connect(shard.address).is_err(), "when the handler is told, no listener is left");
    assert!(accepts() > WAITING, "{} of {WAITING} that waited were let in", accepts());
    gate.write_all(b"o").unwrap();
    eventually("the gate heard it", || shard.counters.bytes_in.get() == 3);
    assert!(TcpStream::connect(shard.address).is_err(), "the last are the last");
    drop(waiting);
}
