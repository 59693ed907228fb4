//! `kill -9` under load, again and again: what was acknowledged is there, once, in its place, and nothing is missing between.
//!
//! `ANTIPHON_KILLS` says how often (10 if it does not), `ANTIPHON_KILL_NODES` how many nodes side by side (one for each 50 kills up to
//! [`NODES`] if it does not), each with a store, clients and an address of its own; `ANTIPHON_SEED` repeats the moments. A store is read
//! to its end and judged after [`STORE_KILLS`] kills at most, and another begun. The check itself is shown able to fail:
//! on made-up data, and on a store whose last writes were undone by hand, as a skipped sync would leave it.

mod process_common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use process_common::{
    DEADLINE, Folder, Node, Random,
    client::{Client, Gone, group, whole_history},
    number_from_environment, report, until, until_ok,
};
use serde_json::{Value, json};

const WRITERS: usize = 4;
const GROUPS: usize = 3;
/// Sends of one writer that may be without an answer.
const WINDOW: usize = 32;
/// Nodes side by side in a long run: a kill mostly waits for its moment, and for clients to come back.
const NODES: u64 = 4;
/// Kills of one store before it is judged: what a run keeps in memory to judge by is bounded so.
const STORE_KILLS: u64 = 200;
/// Sends a second of one writer: enough that every moment has some under way, few enough that a long run can be checked.
const RATE: u64 = 300;

/// An entry as the check sees it. Entries other than messages have no id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    sequence: u64,
    id: String,
    text: String,
}

impl Entry {
    fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self { sequence: value["sequence"].as_u64().unwrap(), id: text("client_message_id"), text: text("text") }
    }
}

/// By conversation.
type Log = BTreeMap<String, Vec<Entry>>;

/// What the check found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    verified: usize,
    lost: usize,
    changed: usize,
    gaps: usize,
    duplicates: usize,
    /// Entries that the reader did not see in their place.
    unseen: usize,
}

impl Verdict {
    fn add(&mut self, other: &Self) {
        self.verified += other.verified;
        self.lost += other.lost;
        self.changed += other.changed;
        self.gaps += other.gaps;
        self.duplicates += other.duplicates;
        self.unseen += other.unseen;
    }

    fn is_clean(&self) -> bool {
        *self == Self { verified: self.verified, ..Self::default() }
    }
}

/// Compares what was acknowledged and what a reader saw with what history says.
fn verify(acked: &Log, history: &Log, seen: &Log) -> Verdict {
    let mut verdict = Verdict::default();
    for (conversation, entries) in history {
        let mut ids = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            verdict.gaps += usize::from(entry.sequence != index as u64 + 1);
            verdict.duplicates += usize::from(!entry.id.is_empty() && !ids.insert(&entry.id));
        }
        let seen = seen.get(conversation).map_or(&[][..], Vec::as_slice);
        let differing = seen.iter().zip(entries).filter(|(seen, entry)| seen != entry).count();
        verdict.unseen += differing + seen.len().abs_diff(entries.len());
    }
    for (conversation, acked) in acked {
        let stored = history.get(conversation).map_or(&[][..], Vec::as_slice);
        let by_sequence: HashMap<u64, &Entry> = stored.iter().map(|entry| (entry.sequence, entry)).collect();
        for ack in acked {
            match by_sequence.get(&ack.sequence) {
                Some(entry) if *entry == ack => verdict.verified += 1,
                Some(entry) if entry.id == ack.id => verdict.changed += 1,
                // Another message in its place, or none.
                Some(_) | None => verdict.lost += 1,
            }
        }
    }
    verdict
}

/// What the threads share.
struct Shared {
    address: Mutex<SocketAddr>,
    conversations: Vec<String>,
    acks: AtomicU64,
    /// Writers begin nothing new.
    stop: AtomicBool,
    /// The reader has to be level with this (by conversation) and may then end.
    goal: Mutex<Option<BTreeMap<String, u64>>>,
}

impl Shared {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    /// Connects to the node that there is, or will be.
    fn connect(&self, user: &str, resume: impl Fn() -> Option<Value>) -> (Client, Value) {
        until_ok("a connection", || Client::login(self.address(), user, "device", resume().as_ref()))
    }
}

/// One writer: sends, keeps what is unanswered, sends it again after a reconnect.
struct Writer<'a> {
    shared: &'a Shared,
    user: String,
    random: Random,
    /// By client message id: conversation and text.
    pending: BTreeMap<String, (String, String)>,
    /// By request id of this connection.
    asked: HashMap<u64, String>,
    acked: Log,
    sent: u64,
    retried: u64,
}

impl Writer<'_> {
    fn run(mut self) -> (Log, u64) {
        let start = Instant::now();
        let mut give_up = None;
        loop {
            let (mut client, _) = self.shared.connect(&self.user, || None);
            self.asked.clear();
            if self.serve(&mut client, start, &mut give_up).is_ok() {
                return (self.acked, self.retried);
            }
        }
    }

    /// Until the connection ends, or all is answered and nothing more is to be sent.
    fn serve(&mut self, client: &mut Client, start: Instant, give_up: &mut Option<Instant>) -> Result<(), Gone> {
        for id in self.pending.keys().cloned().collect::<Vec<_>>() {
            self.retried += 1;
            self.post(client, &id)?;
        }
        loop {
            let stop = self.shared.stop.load(Ordering::Relaxed);
            if stop {
                let end = *give_up.get_or_insert_with(|| Instant::now() + DEADLINE);
                assert!(Instant::now() < end, "{} sends stay without an answer", self.pending.len());
                if self.pending.is_empty() {
                    return Ok(());
                }
            }
            let due = start.elapsed().as_millis() as u64 * RATE / 1_000;
            while !stop && self.sent < due && self.pending.len() < WINDOW {
                self.sent += 1;
                let conversation = self.shared.conversations[self.random.within(0..GROUPS as u64) as usize].clone();
                let length = self.random.within(0..200) as usize;
                let text = format!("{} says {} {}", self.user, self.sent, "x".repeat(length));
                let id = self.random.uuid();
                self.pending.insert(id.clone(), (conversation, text));
                self.post(client, &id)?;
            }
            client.pump(Duration::from_millis(2))?;
            client.pushes.clear();
            for (request, answer) in client.take_answers() {
                self.answered(client, request, &answer)?;
            }
        }
    }

    fn post(&mut self, client: &mut Client, id: &str) -> Result<(), Gone> {
        let (conversation, text) = &self.pending[id];
        let send = json!({"conversation": conversation, "client_message_id": id, "text": text});
        let request = client.post(json!({ "send": send }))?;
        self.asked.insert(request, id.to_owned());
        Ok(())
    }

    fn answered(&mut self, client: &mut Client, request: u64, answer: &Value) -> Result<(), Gone> {
        let Some(id) = self.asked.remove(&request) else { panic!("an answer to nothing: {answer}") };
        if answer.get("error").is_some() {
            assert_eq!(answer["error"]["temporary"], true, "{answer}");
            return self.post(client, &id);
        }
        let sequence = answer["send"]["sequence"].as_u64().unwrap_or_else(|| panic!("{answer}"));
        let (conversation, text) = self.pending.remove(&id).unwrap();
        self.acked.entry(conversation).or_default().push(Entry { sequence, id, text });
        self.shared.acks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Follows all conversations by pushes, resume and, where the server says so, history.
struct Reader<'a> {
    shared: &'a Shared,
    position: Option<Value>,
    epochs: BTreeMap<String, u64>,
    seen: Log,
    /// Pushes of what was seen already.
    repeated: usize,
    reconnects: u64,
}

impl Reader<'_> {
    fn run(mut self) -> (Log, usize) {
        loop {
            let (client, welcome) = self.shared.connect("reader", || self.resume());
            let expected = if self.position.is_some() { "resuming" } else { "fresh" };
            assert_eq!(welcome["resume"], expected, "after {} reconnects", self.reconnects);
            self.reconnects += 1;
            if self.follow(client).is_ok() {
                return (self.seen, self.repeated);
            }
        }
    }

    fn resume(&self) -> Option<Value> {
        let known = |(conversation, epoch): (&String, &u64)| {
            let last = self.seen[conversation].last()?.sequence;
            Some(json!({"conversation": conversation, "epoch": epoch, "sequence": last}))
        };
        let known: Vec<Value> = self.epochs.iter().filter_map(known).collect();
        Some(json!({"position": self.position.as_ref()?, "known": known}))
    }

    fn follow(&mut self, mut client: Client) -> Result<(), Gone> {
        let mut ping_at = Instant::now();
        let mut ping = None;
        loop {
            client.pump(Duration::from_millis(20))?;
            let answered = client.take_answers();
            // Before the answer's position: everything up to it came before it.
            while let Some(push) = client.pushes.pop_front() {
                self.pushed(&mut client, &push)?;
            }
            for (id, answer) in answered {
                if ping == Some(id) {
                    ping = None;
                    self.position = answer["ping"].get("position").cloned().or(self.position.take());
                }
            }
            if ping.is_none() && ping_at <= Instant::now() {
                ping = Some(client.post(json!({"ping": {}}))?);
                ping_at = Instant::now() + Duration::from_millis(200);
            }
            if self.is_done() {
                return Ok(());
            }
        }
    }

    fn is_done(&self) -> bool {
        let goal = self.shared.goal.lock().unwrap();
        let last = |conversation| self.seen.get(conversation).and_then(|seen| seen.last()).map_or(0, |e| e.sequence);
        goal.as_ref().is_some_and(|goal| goal.iter().all(|(conversation, goal)| last(conversation) >= *goal))
    }

    fn pushed(&mut self, client: &mut Client, push: &Value) -> Result<(), Gone> {
        if let Some(message) = push.get("message") {
            let conversation = message["conversation"].as_str().unwrap();
            let before = message["sequence"].as_u64().unwrap() - 1;
            self.fill(client, conversation, before)?;
            self.entry(message);
        } else if let Some(too_far) = push.get("too_far") {
            let last = too_far["last"].as_u64().unwrap();
            self.fill(client, too_far["conversation"].as_str().unwrap(), last)?;
        } else if let Some(caught_up) = push.get("caught_up") {
            self.position = Some(caught_up["position"].clone());
        } else if let Some(error) = push.get("error") {
            panic!("unasked: {error}");
        }
        Ok(())
    }

    /// Reads by history what is missing up to `last`.
    fn fill(&mut self, client: &mut Client, conversation: &str, last: u64) -> Result<(), Gone> {
        loop {
            let seen = self.seen.get(conversation).and_then(|seen| seen.last()).map_or(0, |entry| entry.sequence);
            if seen >= last {
                return Ok(());
            }
            let limit = (last - seen).min(200);
            let request = json!({"history": {"conversation": conversation, "after": seen, "limit": limit}});
            let answer = client.ask(request)?;
            let entries = answer["history"]["entries"].as_array().unwrap_or_else(|| panic!("{answer}"));
            assert!(!entries.is_empty(), "history has nothing after {seen}: {answer}");
            entries.iter().for_each(|entry| self.entry(entry));
        }
    }

    fn entry(&mut self, value: &Value) {
        let conversation = value["conversation"].as_str().unwrap().to_owned();
        self.epochs.insert(conversation.clone(), value["epoch"].as_u64().unwrap());
        let seen = self.seen.entry(conversation).or_default();
        let entry = Entry::of(value);
        // As a client does: what is not after the last one is dropped, but here it must be the same.
        if let Some(old) = seen.get(entry.sequence as usize - 1) {
            assert_eq!(*old, entry, "another entry in its place");
            self.repeated += 1;
        } else {
            seen.push(entry);
        }
    }
}

fn histories(address: SocketAddr, conversations: &[String]) -> Log {
    let mut client = Client::fresh(address, "checker");
    let mut read = |conversation: &String| {
        let entries = whole_history(&mut client, conversation);
        (conversation.clone(), entries.iter().map(Entry::of).collect())
    };
    conversations.iter().map(&mut read).collect()
}

fn merge(logs: Vec<Log>) -> Log {
    let mut all = Log::new();
    for (conversation, entries) in logs.into_iter().flatten() {
        all.entry(conversation).or_default().extend(entries);
    }
    all
}

fn make_groups(address: SocketAddr) -> Vec<String> {
    let users: Vec<String> = (0..WRITERS).map(|index| format!("writer-{index}")).collect();
    let mut members: Vec<&str> = users.iter().map(String::as_str).collect();
    members.push("checker");
    let mut client = Client::fresh(address, "reader");
    (1..=GROUPS).map(|key| group(&mut client, key as u128, &members)).collect()
}

/// What a run over one or more stores came to.
#[derive(Debug, Default)]
struct Tally {
    stores: u64,
    kills: u64,
    acked: usize,
    retried: u64,
    repeated: usize,
    slowest: Duration,
    verdict: Verdict,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.stores += other.stores;
        self.kills += other.kills;
        self.acked += other.acked;
        self.retried += other.retried;
        self.repeated += other.repeated;
        self.slowest = self.slowest.max(other.slowest);
        self.verdict.add(&other.verdict);
    }

    fn line(&self, nodes: u64, begun: Instant) -> String {
        let Self { stores, kills, acked, retried, repeated, slowest, verdict } = self;
        let Verdict { verified, lost, changed, gaps, duplicates, unseen } = verdict;
        format!(
            "kills={kills} acked={acked} verified={verified} lost={lost} changed={changed} gaps={gaps} \
             duplicates={duplicates} unseen={unseen} retried={retried} repeated_pushes={repeated} stores={stores} \
             nodes={nodes} slowest_restart_ms={} seconds={:.1}",
            slowest.as_millis(),
            begun.elapsed().as_secs_f64(),
        )
    }
}

/// One place of a run: the nodes that follow each other in it, and what all places have killed so far.
struct Place<'a> {
    /// Of its own, so that no client comes back to another place's node that was given the same port.
    address: SocketAddr,
    killed: &'a AtomicU64,
    kills_in_all: u64,
}

impl Place<'_> {
    fn start(&self, data: &Path) -> Node {
        Node::start_at(data, self.address, self.address, &["store.memtable_bytes=2097152"])
    }
}

/// Kills and restarts while the others are at it; returns the last node, and the longest time to be ready again.
fn kill_in_a_loop(
    mut node: Node,
    place: &Place<'_>,
    data: &Path,
    kills: u64,
    shared: &Shared,
    random: &mut Random,
) -> (Node, Duration) {
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        let before = shared.acks.load(Ordering::Relaxed);
        until("writers get on", || (shared.acks.load(Ordering::Relaxed) > before + 20).then_some(()));
        // The moment of the kill is what chance decides: a wait for nothing is the point.
        thread::sleep(Duration::from_micros(random.within(0..400_000)));
        node.kill();
        let start = Instant::now();
        node = place.start(data);
        slowest = slowest.max(start.elapsed());
        *shared.address.lock().unwrap() = node.listen;
        let killed = place.killed.fetch_add(1, Ordering::Relaxed) + 1;
        if killed.is_multiple_of((place.kills_in_all / 50).max(20)) {
            report(&format!("killed {killed} times of {}", place.kills_in_all));
        }
    }
    (node, slowest)
}

/// One store: written to and killed, then read to its end and judged.
fn kill_a_store(place: &Place<'_>, kills: u64, random: &mut Random) -> Tally {
    let folder = Folder::new("kill");
    let node = place.start(&folder.data());
    let shared = Shared {
        address: Mutex::new(node.listen),
        conversations: make_groups(node.listen),
        acks: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        goal: Mutex::new(None),
    };
    let (acked, retried, history, (seen, repeated), slowest) = thread::scope(|scope| {
        let reader = Reader {
            shared: &shared,
            position: None,
            epochs: BTreeMap::new(),
            seen: Log::new(),
            repeated: 0,
            reconnects: 0,
        };
        // Entries of before the first position are history's: the groups' own first ones.
        let reader = scope.spawn(move || reader.run());
        let writers: Vec<_> = (0..WRITERS)
            .map(|index| Writer {
                shared: &shared,
                user: format!("writer-{index}"),
                random: Random::new(random.next()),
                pending: BTreeMap::new(),
                asked: HashMap::new(),
                acked: Log::new(),
                sent: 0,
                retried: 0,
            })
            .map(|writer| scope.spawn(move || writer.run()))
            .collect();
        let (node, slowest) = kill_in_a_loop(node, place, &folder.data(), kills, &shared, random);
        shared.stop.store(true, Ordering::Relaxed);
        let (acked, retried): (Vec<Log>, Vec<u64>) =
            writers.into_iter().map(|writer| writer.join().expect("a writer")).unzip();
        let history = histories(node.listen, &shared.conversations);
        let last = |entries: &Vec<Entry>| entries.last().map_or(0, |entry| entry.sequence);
        let goal = history.iter().map(|(conversation, entries)| (conversation.clone(), last(entries))).collect();
        *shared.goal.lock().unwrap() = Some(goal);
        let seen = reader.join().expect("the reader");
        (merge(acked), retried.iter().sum::<u64>(), history, seen, slowest)
    });
    let verdict = verify(&acked, &history, &seen);
    assert!(!verdict.is_clean() || verdict.verified as u64 > kills * 20, "too little to judge: {verdict:?}");
    if !verdict.is_clean() {
        report(&format!("a store that is not as it must be is kept: {}: {verdict:?}", folder.0.display()));
        std::mem::forget(folder);
    }
    let acked = acked.values().map(Vec::len).sum();
    Tally { stores: 1, kills, acked, retried, repeated, slowest, verdict }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let mut random = Random::from_environment();
    let kills = number_from_environment("ANTIPHON_KILLS").unwrap_or(10);
    let nodes = number_from_environment("ANTIPHON_KILL_NODES").unwrap_or_else(|| kills.div_ceil(50).clamp(1, NODES));
    let (begun, killed) = (Instant::now(), AtomicU64::new(0));
    let tally = thread::scope(|scope| {
        let places: Vec<_> = (0..nodes)
            .map(|number| {
                let address = SocketAddr::from(([127, 0, 1, 1 + number as u8], 0));
                let place = Place { address, killed: &killed, kills_in_all: kills };
                let mut left = kills / nodes + u64::from(number < kills % nodes);
                let mut random = Random::new(random.next());
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    // Who has found something needs no more.
                    while left > 0 && tally.verdict.is_clean() {
                        let kills = left.min(STORE_KILLS);
                        tally.add(&kill_a_store(&place, kills, &mut random));
                        left -= kills;
                    }
                    tally
                })
            })
            .collect();
        let mut sum = Tally::default();
        places.into_iter().for_each(|place| sum.add(&place.join().expect("a place")));
        sum
    });
    report(&tally.line(nodes, begun));
    assert!(tally.verdict.is_clean(), "{tally:?}");
    assert_eq!(tally.kills, kills);
}

/// Overwrites the end of the log with zeros, as if its last `pages` written pages had never reached the disk.
fn undo_last_writes(data: &Path, pages: usize) {
    const PAGE: u64 = 4096;
    let files = fs::read_dir(data.join("lane-00")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log-")));
    let open = |path: &Path| File::options().read(true).write(true).open(path).unwrap();
    // A log file's generation stands at byte 32 of its first page; the highest is the newest.
    let generation = |path: &Path| {
        let mut bytes = [0; 8];
        open(path).read_exact_at(&mut bytes, 32).unwrap();
        u64::from_le_bytes(bytes)
    };
    let newest = logs.max_by_key(|path| generation(path)).expect("a log file");
    let file = open(&newest);
    let mut left = pages;
    // The last page is no batch: it says how far the file is written.
    for page in (1..file.metadata().unwrap().len() / PAGE - 1).rev() {
        let mut bytes = [0; PAGE as usize];
        file.read_exact_at(&mut bytes, page * PAGE).unwrap();
        if left > 0 && bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(&[0; PAGE as usize], page * PAGE).unwrap();
            left -= 1;
        }
    }
    file.sync_all().unwrap();
    assert_eq!(left, 0, "the log has fewer pages");
}

#[test]
fn a_skipped_sync_would_be_found() {
    let folder = Folder::new("sabotage");
    let node = Node::start(&folder.data());
    let conversations = make_groups(node.listen);
    let mut writer = Client::fresh(node.listen, "writer-0");
    let mut acked = Log::new();
    for number in 0..50_u128 {
        let (id, text) = (process_common::uuid(number + 1), format!("number {number}"));
        let send = json!({"conversation": conversations[0], "client_message_id": id, "text": text});
        let sequence = writer.must("send", send)["sequence"].as_u64().unwrap();
        acked.entry(conversations[0].clone()).or_default().push(Entry { sequence, id, text });
    }
    let honest = histories(node.listen, &conversations);
    node.kill();
    let node = Node::start(&folder.data());
    let restarted = histories(node.listen, &conversations);
    assert_eq!(verify(&acked, &restarted, &honest), Verdict { verified: 50, ..Verdict::default() });
    let send = json!({"conversation": conversations[0], "client_message_id": process_common::uuid(99), "text": "last"});
    let mut writer = Client::fresh(node.listen, "writer-0");
    let sequence = writer.must("send", send)["sequence"].as_u64().unwrap();
    let last = Entry { sequence, id: process_common::uuid(99), text: "last".to_owned() };
    acked.entry(conversations[0].clone()).or_default().push(last);
    let honest = histories(node.listen, &conversations);
    node.kill();
    undo_last_writes(&folder.data(), 1);
    let node = Node::start(&folder.data());
    let verdict = verify(&acked, &histories(node.listen, &conversations), &honest);
    report(&format!("with the log's last page undone: {verdict:?}"));
    assert!(verdict.lost > 0 && verdict.unseen > 0 && !verdict.is_clean(), "not found: {verdict:?}");
}

#[test]
fn the_check_can_fail() {
    let entry = |sequence: u64, id: &str| Entry { sequence, id: id.to_owned(), text: format!("text of {id}") };
    let log = |entries: &[Entry]| Log::from([("choir".to_owned(), entries.to_vec())]);
    let good = [entry(1, ""), entry(2, "a"), entry(3, "b"), entry(4, "c")];
    let acked = log(&[entry(2, "a"), entry(4, "c")]);
    let judge = |history: &[Entry]| verify(&acked, &log(history), &log(history));
    assert!(judge(&good).is_clean());
    let lost = Verdict { verified: 1, lost: 1, ..Verdict::default() };
    assert_eq!(judge(&good[..3]), lost);
    let replaced = [entry(1, ""), entry(2, "a"), entry(3, "b"), entry(4, "d")];
    assert_eq!(judge(&replaced), lost);
    assert_eq!(verify(&acked, &Log::new(), &Log::new()).lost, 2);
    let gap = [entry(1, ""), entry(2, "a"), entry(4, "c")];
    assert_eq!(judge(&gap), Verdict { verified: 2, gaps: 1, ..Verdict::default() });
    let twice = [entry(1, ""), entry(2, "a"), entry(3, "a"), entry(4, "c")];
    assert_eq!(judge(&twice), Verdict { verified: 2, duplicates: 1, ..Verdict::default() });
    let mut changed = good.to_vec();
    changed[3].text.push('!');
    assert_eq!(judge(&changed), Verdict { verified: 1, changed: 1, ..Verdict::default() });
    let unseen = |seen: &[Entry]| verify(&acked, &log(&good), &log(seen)).unseen;
    assert_eq!([unseen(&good), unseen(&good[..3]), unseen(&[])], [0, 1, 4]);
    assert_eq!(unseen(&[good[0].clone(), good[2].clone(), good[1].clone(), good[3].clone()]), 2);
}
