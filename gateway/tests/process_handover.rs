//! How a node ends under load, alone and with a successor: nothing is lost, everybody comes back once, no connection is refused.

mod process_common;

use std::{
    collections::VecDeque,
    fs, io,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use process_common::{
    Folder, Node,
    client::{Client, JSON, group, whole_history},
    command_at, http_get,
    load::{self, Fared},
    log_of, report, until,
};
use serde_json::{Value, json};

const WRITERS: u128 = 3;
const READERS: usize = 2;

/// Short enough for a test, long enough that returns are spread.
/// All clients here come from one address, and as fast as they can.
const EXEMPT: &str = "admission.exempt=127.0.0.0/8";

const SETTINGS: &[&str] = &["timing.drain_ms=1500", "node.shards=2", EXEMPT];

const TAKEOVER: &[&str] = &["timing.drain_ms=1500", "node.shards=2", "node.takeover=true", EXEMPT];

/// How all clients fared, and what is in the conversation at the end.
struct Seen {
    sent: Vec<u128>,
    writers: Vec<Fared>,
    readers: Vec<Fared>,
    history: Vec<Value>,
}

/// Sets a flag when it goes, also by a panic: whoever waits for the flag must not wait for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Has writers and readers at work while `happens`, and for a while before and after.
fn under_load(address: SocketAddr, happens: impl FnOnce()) -> Seen {
    let mut founder = Client::fresh(address, "founder");
    let names = (0..WRITERS).map(|writer| format!("writer-{writer}"));
    let members: Vec<String> = names.chain((0..READERS).map(|reader| format!("reader-{reader}"))).collect();
    let choir = group(&mut founder, 1, &members.iter().map(String::as_str).collect::<Vec<_>>());
    drop(founder);
    let (stop, last) = (AtomicBool::new(false), OnceLock::new());
    let (choir, stop, last) = (choir.as_str(), &stop, &last);
    thread::scope(|scope| {
        let ends = Ends(stop);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || load::write(address, writer, choir, stop))).collect();
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || load::read(address, &format!("reader-{reader}"), choir, &|| last.get().copied()))
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        happens();
        // All are back by then, whatever they were told.
        thread::sleep(Duration::from_secs(2));
        drop(ends);
        let (sent, writers): (Vec<_>, Vec<_>) = writers.into_iter().map(|writer| writer.join().unwrap()).unzip();
        let history = whole_history(&mut Client::fresh(address, "founder"), choir);
        last.set(history.last().unwrap()["sequence"].as_u64().unwrap()).unwrap();
        let readers = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        Seen { sent, writers, readers, history }
    })
}

impl Seen {
    /// Nothing was lost, everybody was told and came back so often.
    fn check(&self, what: &str, reconnects: usize) {
        load::check_history(&self.history, &self.sent);
        let all = || self.writers.iter().chain(&self.readers);
        let sent: u128 = self.sent.iter().sum();
        let gaps: Vec<_> = self.writers.iter().map(|fared| fared.gap_ms_max).collect();
        let stalls: Vec<_> = self.writers.iter().map(|fared| fared.stall_ms_max).collect();
        let unanswered: usize = self.writers.iter().map(|fared| fared.unanswered).sum();
        let failed: usize = all().map(|fared| fared.failed_attempts).sum();
        report(&format!(
            "{what}: {sent} messages, longest silence of each writer {gaps:?} ms with a return and {stalls:?} ms without, {failed} failed attempts, {unanswered} requests \
             without an answer"
        ));
        assert!(sent > 100, "{sent} messages are too few to tell");
        assert!(all().all(|fared| fared.reconnects == reconnects), "{:?} {:?}", self.writers, self.readers);
        assert!(all().all(|fared| fared.without_goodbye == 0), "{:?} {:?}", self.writers, self.readers);
    }
}

#[test]
fn a_restart_under_load_loses_nothing_and_everybody_comes_back_once() {
    let folder = Folder::new("restart");
    let mut node = Node::start_with(&folder.data(), SETTINGS);
    let (listen, console) = (node.listen, node.console);
    let mut next = None;
    let seen = under_load(listen, || {
        node.terminate();
        assert_eq!(node.wait().code(), Some(0));
        next = Some(Node::start_at(&folder.data(), listen, console, SETTINGS));
    });
    seen.check("restart", 1);
}

fn wait_for_log(data: &Path, text: &str) {
    until(text, || fs::read_to_string(log_of(data)).unwrap_or_default().contains(text).then_some(()));
}

#[test]
fn a_second_signal_hurries_and_a_third_ends_at_once() {
    for signals in [2, 3] {
        let folder = Folder::new("signals");
        let mut node = Node::start_with(&folder.data(), &["timing.drain_ms=60000"]);
        // One that never answers its close.
        let _stubborn = Client::fresh(node.listen, "stubborn");
        node.terminate();
        let (status, why) = until("it is not ready any more", || {
            let answer = http_get(node.console, "/readyz");
            (answer.0 != 200).then_some(answer)
        });
        assert!(status == 503 && why.contains("draining"), "{status} {why}");
        assert_eq!(http_get(node.console, "/healthz").0, 200);
        wait_for_log(&folder.data(), "waiting for clients to go");
        let hurried = Instant::now();
        node.terminate();
        wait_for_log(&folder.data(), "hurrying");
        if signals == 3 {
            node.terminate();
        }
        let code = node.wait().code();
        // A shard gives a client five seconds.
        assert!(hurried.elapsed() < Duration::from_secs(3), "{:?}", hurried.elapsed());
        assert_eq!(code, Some(if signals == 3 { 130 } else { 0 }));
        drop(Node::start(&folder.data()));
    }
}

/// Between two connections that only knock, and how many of them are held: two seconds' worth, longer than a handover takes, within the usual
/// limit on open files.
const KNOCK_EVERY: Duration = Duration::from_millis(4);
const HELD_MAX: usize = 500;

/// How connections fared that did nothing but connect, and those that wanted a WebSocket.
#[derive(Debug, Default)]
struct Doors {
    connects: AtomicUsize,
    refused: AtomicUsize,
    reset: AtomicUsize,
    upgraded: AtomicUsize,
    told_later: AtomicUsize,
}

impl Doors {
    /// Connects again and again, and reads later what became of it.
    fn knock(&self, address: SocketAddr, stop: &AtomicBool) {
        let mut streams = VecDeque::new();
        while !stop.load(Ordering::Acquire) {
            self.connects.fetch_add(1, Ordering::Relaxed);
            match TcpStream::connect(address) {
                Ok(stream) => streams.push_back(stream),
                Err(error) => {
                    report(&format!("a connection did not come about: {error}"));
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            if streams.len() > HELD_MAX
                && let Some(oldest) = streams.pop_front()
            {
                self.look(oldest);
            }
            thread::sleep(KNOCK_EVERY);
        }
        streams.into_iter().for_each(|stream| self.look(stream));
    }

    fn look(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        if stream.read_to_end(&mut Vec::new()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
            self.reset.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn upgrade(&self, address: SocketAddr, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            match Client::open(address, JSON) {
                Ok(_) => drop(self.upgraded.fetch_add(1, Ordering::Relaxed)),
                Err(gone) if gone.why.contains("503") => drop(self.told_later.fetch_add(1, Ordering::Relaxed)),
                Err(gone) if gone.why.contains("refused") => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
                Err(gone) => {
                    thread::sleep(KNOCK_EVERY);
                    report(&format!("an upgrade ended: {gone}"));
                    self.reset.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[test]
fn a_handover_under_load_refuses_nobody_and_loses_nothing() {
    let folder = Folder::new("handover");
    let data = folder.data();
    let first = Node::start_with(&data, SETTINGS);
    let (listen, console) = (first.listen, first.console);
    let (doors, stop) = (Doors::default(), AtomicBool::new(false));
    let mut node = first;
    let seen = thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| doors.knock(listen, &stop));
        for _ in 0..2 {
            scope.spawn(|| doors.upgrade(listen, &stop));
        }
        under_load(listen, || {
            // Twice: the second hands over what it took over. And with another number of listeners.
            for shards in ["node.shards=3", "node.shards=1"] {
                let started = Instant::now();
                let next = Node::start_at(&data, listen, console, &[TAKEOVER, &[shards]].concat());
                report(&format!("handover: ready {} ms after the start", started.elapsed().as_millis()));
                assert_eq!(node.wait().code(), Some(0));
                node = next;
                thread::sleep(Duration::from_secs(2));
            }
        })
    });
    report(&format!("{doors:?}"));
    seen.check("handover", 2);
    let failed: usize = seen.writers.iter().chain(&seen.readers).map(|fared| fared.failed_attempts).sum();
    assert_eq!((failed, doors.refused.into_inner(), doors.reset.into_inner()), (0, 0, 0));
    assert!(doors.connects.into_inner() > 500 && doors.upgraded.into_inner() > 50);
    let text = fs::read_to_string(log_of(&data)).unwrap();
    text.lines().filter(|line| line.contains("after_ms") || line.contains("after_lock_ms")).for_each(report);
}

#[test]
fn a_newcomer_that_cannot_serve_leaves_the_old_one_serving() {
    let folder = Folder::new("newcomer");
    let data = folder.data();
    let node = Node::start_with(&data, SETTINGS);
    let mut client = Client::fresh(node.listen, "alice");
    let refused = |listen, settings: &[&str], code, text: &str| {
        let output = command_at(&data, listen, node.console, &[TAKEOVER, settings].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(text), "{:?}: {said}", output.status);
    };
    refused(node.listen, &["limits.page_items_default=0"], 2, "limits.page_items_default");
    refused(node.listen, &["node.lanes=2"], 1, "has 1 log lanes, and a node that takes over");
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    refused(elsewhere, &[], 1, &format!("it has listen={} tls=none", node.listen));
    // Nor may an address for TLS come or go: clients would find nobody there for a while.
    refused(node.listen, &["tls.listen=127.0.0.1:1"], 1, &format!("it has listen={} tls=none", node.listen));
    // Without being told, a second node is refused as ever.
    let output = command_at(&data, node.listen, node.console, SETTINGS).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("--takeover"), "{said}");
    // One of other data is a stranger, whatever it asks for.
    let stranger = Folder::new("stranger");
    let output = command_at(&stranger.data(), node.listen, node.console, TAKEOVER).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("listen on"), "{said}");
    client.must("ping", json!({}));
    for number in 0..20 {
        Client::fresh(node.listen, &format!("guest-{number}")).must("ping", json!({}));
    }
}

#[test]
fn taking_over_from_nobody_starts_as_usual() {
    let folder = Folder::new("nobody");
    let node = Node::start_with(&folder.data(), TAKEOVER);
    Client::fresh(node.listen, "alice").must("ping", json!({}));
    // Nor does what a killed one has left matter.
    let (listen, console) = (node.listen, node.console);
    node.kill();
    let node = Node::start_at(&folder.data(), listen, console, TAKEOVER);
    Client::fresh(node.listen, "alice").must("ping", json!({}));
}
