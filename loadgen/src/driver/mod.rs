//! The connections of one client thread on one io_uring. The driver has no policy: completions become calls of a [`Handler`],
//! and what the handler asks of [`Links`] becomes submissions. All `unsafe` of the crate is in here.
//!
//! Order of calls for a slot: [`Links::connect`], then `connected`, `received` …, and `closed` exactly once; then it may connect
//! again. Bytes written for a slot while a send is in flight leave together in the next one. A slot that is told to
//! [`Links::pause`] reads nothing more, so what the server sends fills the kernel's buffers, until it is told to go on.

mod buffers;
mod ring;

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ring::{Completion, Ring, Tag};

/// Connections that one source address is used for. It has about 28,000 ports by default; `connect` looks for a free one among
/// the half of them with one parity first, one after the other, and takes 600 µs when that half is full (measured at 18,000).
const CONNECTIONS_PER_SOURCE: u32 = 7_000;

/// Completions between two calls of the handler's own loop: what is to be sent must not wait for all that has come.
const COMPLETIONS_PER_TURN_MAX: usize = 512;

/// What to drive.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// The server.
    pub target: SocketAddr,
    /// How many connections this thread has: slots 0 to `slots` - 1.
    pub slots: u32,
    /// The number of slot 0 among the connections of all threads; source addresses follow from it.
    pub first: u32,
    /// Receive buffers; a power of two.
    pub buffers: u16,
    /// SO_RCVBUF of the connections that ask for a small one.
    pub small_receive_bytes: Option<u32>,
}

/// The logic that a driver drives.
pub trait Handler {
    /// The TCP connection stands.
    fn connected(&mut self, links: &mut Links, slot: u32);

    /// Bytes came.
    fn received(&mut self, links: &mut Links, slot: u32, bytes: &[u8]);

    /// The connection is gone, or never came to be: the errno, or 0 if an end closed it in good order.
    fn closed(&mut self, links: &mut Links, slot: u32, errno: i32);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Connecting,
    Open,
    /// The close is submitted.
    Closing,
}

#[derive(Debug)]
struct Link {
    queue: Vec<u8>,
    generation: u32,
    errno: i32,
    state: State,
    sending: bool,
    dirty: bool,
    /// A receive is armed.
    receiving: bool,
    /// None is to be.
    paused: bool,
    /// A shutdown is submitted.
    ending: bool,
}

impl Link {
    fn free(generation: u32, dirty: bool) -> Self {
        Self {
            queue: Vec::new(),
            generation,
            errno: 0,
            state: State::Free,
            sending: false,
            dirty,
            receiving: false,
            paused: false,
            ending: false,
        }
    }
}

/// The connections, for the handler to act on.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
    dirty: Vec<u32>,
    connects: VecDeque<(u32, bool)>,
    shutdowns: Vec<Tag>,
    pauses: Vec<Tag>,
    receives: Vec<Tag>,
}

/// Bytes that a connection takes in the driver while nothing is queued for it.
pub const LINK_BYTES: usize = size_of::<Link>();

impl Links {
    /// Opens the slot's connection. It must not have one.
    pub fn connect(&mut self, slot: u32, small_receive: bool) {
        let link = &mut self.links[slot as usize];
        assert!(link.state == State::Free, "a slot has one connection at a time");
        link.state = State::Connecting;
        self.connects.push_back((slot, small_receive));
    }

    /// Reads nothing more from the slot's connection. What is on its way from the kernel may still come.
    pub fn pause(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if link.state == State::Open && !link.paused {
            link.paused = true;
            let tag = self.tag(slot);
            self.pauses.push(tag);
        }
    }

    /// Reads again.
    pub fn unpause(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if link.state == State::Open && std::mem::take(&mut link.paused) && !link.receiving {
            let tag = self.tag(slot);
            self.receives.push(tag);
        }
    }

    /// Where to append bytes to be sent. They are thrown away if the connection does not stand.
    pub fn write(&mut self, slot: u32) -> &mut Vec<u8> {
        let link = &mut self.links[slot as usize];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(slot);
        }
        &mut link.queue
    }

    /// Ends the slot's connection at once; `closed` follows.
    pub fn close(&mut self, slot: u32) {
        if matches!(self.links[slot as usize].state, State::Connecting | State::Open) {
            self.shutdowns.push(self.tag(slot));
        }
    }

    fn tag(&self, slot: u32) -> Tag {
        Tag { slot, generation: self.links[slot as usize].generation }
    }

    fn is(&self, tag: Tag, state: State) -> bool {
        let link = &self.links[tag.slot as usize];
        link.generation == tag.generation && link.state == state
    }
}

/// One thread's ring and connections.
pub struct Driver {
    ring: Ring,
    links: Links,
    first: u32,
}

impl Driver {
    /// Makes the ring. Must be called on the thread that drives it.
    pub fn new(options: &DriverOptions) -> io::Result<Self> {
        let sources = match options.target {
            SocketAddr::V4(target) if target.ip().is_loopback() => sources(options.first, options.slots),
            _ => Vec::new(),
        };
        let links = std::iter::repeat_with(|| Link::free(0, false)).take(options.slots as usize);
        Ok(Self {
            ring: Ring::new(options, &sources)?,
            links: Links {
                links: links.collect(),
                dirty: Vec::new(),
                connects: VecDeque::new(),
                shutdowns: Vec::new(),
                pauses: Vec::new(),
                receives: Vec::new(),
            },
            first: options.first,
        })
    }

    /// The connections, to ask something of them outside of a completion.
    pub fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    /// Submits what was asked, waits for completions for at most `timeout`, and passes on what has come; what is
    /// beyond a turn's share waits for the next.
    pub fn turn<H: Handler>(&mut self, handler: &mut H, timeout: Duration) -> io::Result<()> {
        self.flush()?;
        self.ring.wait(timeout)?;
        for _ in 0..COMPLETIONS_PER_TURN_MAX {
            let Some(completion) = self.ring.next_completion()? else { break };
            self.complete(handler, completion)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for tag in std::mem::take(&mut self.links.receives) {
            let is_open = self.links.is(tag, State::Open);
            let link = &mut self.links.links[tag.slot as usize];
            if is_open && !link.receiving && !link.paused {
                link.receiving = true;
                self.ring.receive(tag)?;
            }
        }
        while let Some((slot, small_receive)) = self.links.connects.pop_front() {
            let source = (self.first % CONNECTIONS_PER_SOURCE + slot) / CONNECTIONS_PER_SOURCE;
            self.ring.connect(self.links.tag(slot), source as usize, small_receive)?;
        }
        for tag in std::mem::take(&mut self.links.pauses) {
            let link = &self.links.links[tag.slot as usize];
            if self.links.is(tag, State::Open) && link.paused && link.receiving {
                self.ring.cancel_receive(tag)?;
            }
        }
        for slot in std::mem::take(&mut self.links.dirty) {
            self.send(slot)?;
        }
        for tag in std::mem::take(&mut self.links.shutdowns) {
            // A slot may have been closed, and taken again, since.
            if !self.links.is(tag, State::Open) && !self.links.is(tag, State::Connecting) {
                continue;
            }
            let link = &mut self.links.links[tag.slot as usize];
            if link.state == State::Open && link.paused && !link.receiving {
                // Nothing is armed that the shutdown could end.
                self.close(tag, 0)?;
            } else {
                link.ending = true;
                self.ring.shutdown(tag)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, slot: u32) -> io::Result<()> {
        let link = &mut self.links.links[slot as usize];
        link.dirty = false;
        if link.sending {
            return Ok(());
        }
        let bytes = std::mem::take(&mut link.queue);
        if link.state != State::Open || bytes.is_empty() {
            return Ok(());
        }
        link.sending = true;
        self.ring.send(self.links.tag(slot), bytes)
    }

    fn complete<H: Handler>(&mut self, handler: &mut H, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Connected { tag, result: Ok(()) } => {
                self.links.links[tag.slot as usize].state = State::Open;
                self.links.receives.push(tag);
                handler.connected(&mut self.links, tag.slot);
            }
            Completion::Connected { tag, result: Err(errno) } => self.close(tag, errno)?,
            Completion::Received { tag, buffer, length, more } => {
                if self.links.is(tag, State::Open) {
                    if !more {
                        self.disarmed(tag);
                    }
                    handler.received(&mut self.links, tag.slot, self.ring.bytes(buffer, length));
                }
                self.ring.give_back(buffer);
            }
            Completion::NoBuffers { tag } => {
                if self.links.is(tag, State::Open) {
                    self.disarmed(tag);
                }
            }
            Completion::Ended { tag, errno } => {
                if self.links.is(tag, State::Open) {
                    self.ended(tag, errno)?;
                }
            }
            Completion::Sent { tag, result } => {
                if self.links.is(tag, State::Open) {
                    self.links.links[tag.slot as usize].sending = false;
                    match result {
                        // A reset is told by the receive as well, but not every failure of a send is.
                        Err(_) => self.links.close(tag.slot),
                        Ok(()) => self.send(tag.slot)?,
                    }
                }
            }
            Completion::Closed { tag } => {
                let link = &mut self.links.links[tag.slot as usize];
                let errno = link.errno;
                *link = Link::free(link.generation.wrapping_add(1) & 0x00FF_FFFF, link.dirty);
                handler.closed(&mut self.links, tag.slot, errno);
            }
        }
        Ok(())
    }

    /// The receive is not armed any more: arms it again, if it should be.
    fn disarmed(&mut self, tag: Tag) {
        let link = &mut self.links.links[tag.slot as usize];
        link.receiving = false;
        if !link.paused {
            self.links.receives.push(tag);
        } else if link.ending {
            self.links.shutdowns.push(tag);
        }
    }

    /// The peer ended the connection, or the receive was taken back for a pause.
    fn ended(&mut self, tag: Tag, errno: i32) -> io::Result<()> {
        let link = &mut self.links.links[tag.slot as usize];
        if errno == libc::ECANCELED && !link.ending {
            self.disarmed(tag);
            return Ok(());
        }
        link.receiving = false;
        self.close(tag, errno)
    }

    fn close(&mut self, tag: Tag, errno: i32) -> io::Result<()> {
        let link = &mut self.links.links[tag.slot as usize];
        (link.state, link.errno) = (State::Closing, errno);
        self.ring.close(tag)
    }
}

/// 127.0.0.2, 127.0.0.3, … as far as these connections need them.
fn sources(first: u32, slots: u32) -> Vec<Ipv4Addr> {
    let (from, to) = (first / CONNECTIONS_PER_SOURCE, (first + slots.max(1) - 1) / CONNECTIONS_PER_SOURCE);
    (from..=to).map(|index| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 2)) + index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_follow_the_number_of_the_connection() {
        assert_eq!(sources(0, 7_000), [Ipv4Addr::new(127, 0, 0, 2)]);
        assert_eq!(sources(6_999, 2), [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)]);
        assert_eq!(sources(7_000 * 254, 1), [Ipv4Addr::new(127, 0, 1, 0)]);
    }

    /// Sends its slot's number on every connection and expects it back, twice, the second time after a reconnect.
    #[derive(Default)]
    struct Echo {
        received: Vec<Vec<u8>>,
        closed: u32,
    }

    impl Handler for Echo {
        fn connected(&mut self, links: &mut Links, slot: u32) {
            links.write(slot).extend(vec![slot as u8; 100_000]);
        }

        fn received(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) {
            assert!(bytes.iter().all(|&byte| byte == slot as u8));
            self.received[slot as usize].extend(bytes);
            if self.received[slot as usize].len().is_multiple_of(100_000) {
                links.close(slot);
            }
        }

        fn closed(&mut self, links: &mut Links, slot: u32, _errno: i32) {
            self.closed += 1;
            if self.received[slot as usize].len() == 100_000 {
                links.connect(slot, false);
            }
        }
    }

    #[test]
    fn bytes_go_both_ways_and_slots_are_used_again() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 5000];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        let mut driver =
            Driver::new(&DriverOptions { target, slots: 8, first: 6_996, buffers: 8, small_receive_bytes: None })
                .unwrap();
        let mut echo = Echo { received: vec![Vec::new(); 8], closed: 0 };
        (0..8).for_each(|slot| driver.links().connect(slot, false));
        let start = std::time::Instant::now();
        while echo.closed < 16 {
            driver.turn(&mut echo, Duration::from_millis(10)).unwrap();
            assert!(start.elapsed() < Duration::from_secs(20), "closed {}", echo.closed);
        }
        assert!(echo.received.iter().all(|bytes| bytes.len() == 200_000));
    }

    #[test]
    fn a_refused_connection_is_told_with_its_errno() {
        struct Refused(Option<i32>);
        impl Handler for Refused {
            fn connected(&mut self, _: &mut Links, _: u32) {}
            fn received(&mut self, _: &mut Links, _: u32, _: &[u8]) {}
            fn closed(&mut self, _: &mut Links, _: u32, errno: i32) {
                self.0 = Some(errno);
            }
        }
        let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut driver =
            Driver::new(&DriverOptions { target, slots: 1, first: 0, buffers: 8, small_receive_bytes: None }).unwrap();
        let mut refused = Refused(None);
        driver.links().connect(0, false);
        for _ in 0..100 {
            if refused.0.is_none() {
                driver.turn(&mut refused, Duration::from_millis(10)).unwrap();
            }
        }
        assert_eq!(refused.0, Some(libc::ECONNREFUSED));
    }

    /// Counts what comes.
    #[derive(Default)]
    struct Sink {
        bytes: usize,
        closed: u32,
    }

    impl Handler for Sink {
        fn connected(&mut self, _: &mut Links, _: u32) {}
        fn received(&mut self, _: &mut Links, _: u32, bytes: &[u8]) {
            self.bytes += bytes.len();
        }
        fn closed(&mut self, _: &mut Links, _: u32, _: i32) {
            self.closed += 1;
        }
    }

    fn turn_until(driver: &mut Driver, sink: &mut Sink, done: impl Fn(&Sink) -> bool) {
        let start = std::time::Instant::now();
        while !done(sink) {
            driver.turn(sink, Duration::from_millis(10)).unwrap();
            assert!(start.elapsed() < Duration::from_secs(20), "{} bytes", sink.bytes);
        }
    }

    #[test]
    fn a_paused_slot_reads_nothing_until_it_goes_on_and_can_be_closed() {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let options = DriverOptions { target, slots: 1, first: 0, buffers: 64, small_receive_bytes: Some(4_096) };
        let mut driver = Driver::new(&options).unwrap();
        let mut sink = Sink::default();
        driver.links().connect(0, true);
        let mut peer = std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().unwrap().0);
            while !accepting.is_finished() {
                driver.turn(&mut sink, Duration::from_millis(5)).unwrap();
            }
            accepting.join().unwrap()
        });
        peer.write_all(&[1; 100]).unwrap();
        turn_until(&mut driver, &mut sink, |sink| sink.bytes == 100);
        driver.links().pause(0);
        for _ in 0..5 {
            driver.turn(&mut sink, Duration::from_millis(5)).unwrap();
        }
        peer.write_all(&[2; 1_000]).unwrap();
        for _ in 0..20 {
            driver.turn(&mut sink, Duration::from_millis(5)).unwrap();
        }
        assert_eq!(sink.bytes, 100, "paused");
        driver.links().unpause(0);
        turn_until(&mut driver, &mut sink, |sink| sink.bytes == 1_100);
        driver.links().pause(0);
        for _ in 0..5 {
            driver.turn(&mut sink, Duration::from_millis(5)).unwrap();
        }
        driver.links().close(0);
        turn_until(&mut driver, &mut sink, |sink| sink.closed == 1);
    }
}
