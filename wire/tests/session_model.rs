//! Many sessions against a small model of a server that is as unkind as the protocol allows: connections break at any time, frames
//! are late, entries of different conversations overtake each other, come twice, or not at all; sends are refused for now. After
//! quiet every conversation was delivered exactly once and in order, and every send acknowledged exactly once.

mod model;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use antiphon_wire::{
    codec::Encoding,
    codes::CloseCode,
    frame::Content,
    ids::{ClientMessageId, ConversationId, Epoch, Sequence},
    session::{Event, Output, Session, SessionConfig},
};
use model::{Pipe, Random, Server};

const CONVERSATIONS: u8 = 5;
const TROUBLE_STEPS: u64 = 1_500;
const QUIET_STEPS: u64 = 2_000;

struct World {
    random: Random,
    now_ms: u64,
    server: Server,
    session: Session,
    /// What the client sends, while a transport is open.
    up: Option<Pipe>,
    connecting: bool,
    delivered: BTreeMap<ConversationId, Vec<u64>>,
    acked: BTreeMap<ClientMessageId, (ConversationId, u64)>,
    sent: u64,
    trace: DefaultHasher,
    connections: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut config = SessionConfig::new(if random.one_in(2) { Encoding::Json } else { Encoding::Rkyv });
        config.reorder_items_max = 1 + random.below(8) as usize;
        config.history_page_items = 1 + random.below(6) as u32;
        config.sends_in_flight_max = 1 + random.below(4) as usize;
        config.backoff_cap_ms = 2_000;
        config.delivered_after_ms = random.one_in(2).then_some(50);
        let encoding = config.encoding;
        let mut session = Session::new(Arc::new(config), None, None, random.next());
        let server = Server::new(encoding, CONVERSATIONS, random.one_in(2));
        // What the client is told of it follows from its beginning; the last conversation is made while it is connected.
        for conversation in server.conversations().filter(|id| id.0[0] < CONVERSATIONS) {
            session.open(conversation, Epoch(1), Sequence(0));
        }
        session.start(0);
        Self {
            random,
            now_ms: 0,
            server,
            session,
            up: None,
            connecting: false,
            delivered: BTreeMap::new(),
            acked: BTreeMap::new(),
            sent: 0,
            trace: DefaultHasher::new(),
            connections: 0,
        }
    }

    fn step(&mut self, trouble: bool) {
        self.now_ms += 1 + self.random.below(20);
        if self.connecting && self.random.one_in(4) {
            self.connecting = false;
            if trouble && self.random.one_in(3) {
                self.session.disconnected(self.now_ms, None);
            } else {
                self.up = Some(Pipe::default());
                self.connections += 1;
                self.server.accept();
                self.session.connected(self.now_ms);
            }
        }
        if trouble {
            self.make_trouble();
        }
        self.carry_out();
        self.move_frames(trouble);
        if self.session.next_wake_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.session.tick(self.now_ms);
        }
        self.carry_out();
    }

    fn make_trouble(&mut self) {
        if self.random.one_in(6) {
            // Without a position a client starts afresh: it can't know of a conversation that it was never told of.
            let last_too = self.session.position().is_some();
            let count = u64::from(if last_too { CONVERSATIONS } else { CONVERSATIONS - 1 });
            let conversation = Server::conversation(1 + self.random.below(count) as u8);
            let entries_max = if self.random.one_in(20) { 12 } else { 2 };
            for _ in 0..=self.random.below(entries_max) {
                self.server.append(conversation, "bob", ClientMessageId([0xff; 16]));
            }
        }
        if self.random.one_in(10) {
            self.sent += 1;
            let mut name = [0; 16];
            name[..8].copy_from_slice(&self.sent.to_be_bytes());
            let conversation = Server::conversation(1 + self.random.below(u64::from(CONVERSATIONS - 1)) as u8);
            let sent = self.session.send(self.now_ms, conversation, Content::text("hi"), ClientMessageId(name));
            self.sent -= u64::from(sent.is_err());
        }
        if self.up.is_some() && self.random.one_in(60) {
            let close = self.random.one_in(2).then_some(CloseCode::SlowConsumer);
            self.up = None;
            self.server.cut();
            self.session.disconnected(self.now_ms, close.map(CloseCode::number));
        }
    }

    fn move_frames(&mut self, trouble: bool) {
        let Some(up) = &mut self.up else { return };
        while let Some(frame) = up.take(self.now_ms) {
            self.server.receive(&mut self.random, self.now_ms, trouble, &frame);
        }
        self.server.emit(&mut self.random, self.now_ms, trouble);
        while let Some(frame) = self.server.down.take(self.now_ms) {
            self.session.frame(self.now_ms, &frame);
            self.carry_out();
            self.check_position();
            if self.up.is_none() {
                return;
            }
        }
    }

    /// The position stands only for what was delivered. (Where entries are lost, the server itself breaks that promise.)
    fn check_position(&self) {
        let Some(position) = self.session.position().filter(|_| !self.server.lossy) else { return };
        let conversations = self.server.conversations();
        for (conversation, count) in conversations.zip(self.server.counts_at(&position.position)) {
            let delivered = self.delivered.get(&conversation).map_or(0, Vec::len);
            assert!(
                delivered >= count,
                "of {conversation} {delivered} were delivered, the position stands for {count}"
            );
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            format!("{} {output:?}", self.now_ms).hash(&mut self.trace);
            match output {
                Output::Connect => self.connecting = true,
                Output::Close => {
                    (self.up, self.connecting) = (None, false);
                    self.server.cut();
                }
                Output::Transmit(bytes) => {
                    let delay = self.random.below(30);
                    self.up.as_mut().expect("bytes need a transport").put(self.now_ms + delay, bytes);
                }
                Output::Deliver(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Entry { conversation, sequence, .. } => {
                self.delivered.entry(conversation).or_default().push(sequence.0);
            }
            Event::Acked { client_message_id, conversation, ack } => {
                let before = self.acked.insert(client_message_id, (conversation, ack.sequence.0));
                assert_eq!(before, None, "acknowledged twice");
            }
            Event::Connected(_)
            | Event::CaughtUp
            | Event::Disconnected { .. }
            | Event::Trouble(_)
            | Event::Answer { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Runs it all; the trace's hash and the number of connections.
    fn run(mut self) -> (u64, u64) {
        for _ in 0..TROUBLE_STEPS {
            self.step(true);
        }
        for _ in 0..QUIET_STEPS {
            self.step(false);
        }
        // A last entry each, for what never came to be missed.
        let conversations: Vec<_> = self.server.conversations().collect();
        let lossy = self.server.lossy;
        for conversation in conversations.iter().copied().filter(|_| lossy) {
            self.server.append(conversation, "bob", ClientMessageId([0xff; 16]));
        }
        for _ in 0..QUIET_STEPS {
            self.step(false);
        }
        for conversation in conversations {
            let log = self.server.last(conversation);
            let got = self.delivered.remove(&conversation).unwrap_or_default();
            assert!(got.iter().copied().eq(1..=log), "of {conversation} 1 to {log} came as {got:?}");
        }
        assert_eq!(self.acked.len() as u64, self.sent, "waiting: {:?}", self.session.pending_sends().count());
        for (name, (conversation, sequence)) in &self.acked {
            assert_eq!(self.server.places_of(*conversation, *name), [*sequence]);
        }
        (self.trace.finish(), self.connections)
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    let mut connections = 0;
    for seed in 0..150 {
        println!("seed {seed}");
        connections += World::new(seed).run().1;
    }
    assert!(connections > 150 * 5, "the trouble was not much: {connections} connections");
}

#[test]
fn the_same_seed_has_the_same_trace() {
    assert_eq!(World::new(42).run(), World::new(42).run());
    assert_ne!(World::new(42).run(), World::new(43).run());
}
