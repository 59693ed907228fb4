//! What fuzzers call: every decoder, and the session, with what must hold for any bytes.
//!
//! Not for programs. Invariants checked: nothing panics; a frame that was read is written and read as the same frame, by either
//! encoding; a session delivers in order, acknowledges once, and asks to be woken at a time that brings it on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
    frame::{
        Ack, CaughtUp, Content, Conversations, Entry, EntryBytes, EntryKind, ErrorFrame, Goodbye, HistoryAnswer, Left,
        Limits, Pong, PositionBytes, Request, ResumeOutcome, ServerFrame, TooFar, Welcome,
    },
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Ordinal, RequestId, Sequence, TimestampMs, UserId},
    limits::{CLIENT_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX},
    session::{Event, Output, Phase, Session, SessionConfig},
};

/// Bytes as a client's JSON frame.
pub fn fuzz_json_request(bytes: &[u8]) {
    request(Encoding::Json, bytes);
}

/// Bytes as a server's JSON frame.
pub fn fuzz_json_server(bytes: &[u8]) {
    server(Encoding::Json, bytes);
}

/// Bytes as a client's rkyv frame.
pub fn fuzz_binary_request(bytes: &[u8]) {
    request(Encoding::Rkyv, bytes);
}

/// Bytes as a server's rkyv frame.
pub fn fuzz_binary_server(bytes: &[u8]) {
    server(Encoding::Rkyv, bytes);
}

/// Bytes as the life of a session: each operation is a byte and its few operands.
pub fn fuzz_session(bytes: &[u8]) {
    let mut life = Life::new(Reader(bytes));
    while !life.reader.0.is_empty() {
        life.step();
        life.drain();
    }
    life.session.stop();
    life.drain();
    assert_eq!(life.session.next_wake_ms(), None);
}

fn request(encoding: Encoding, bytes: &[u8]) {
    let Ok((id, frame)) = encoding.decode_request(bytes) else { return };
    for encoding in Encoding::ALL {
        let again = encoding.encode_request(id, &frame);
        // Another spelling of the same frame can be too long for a client to send.
        if again.len() <= CLIENT_FRAME_BYTES_MAX {
            assert_eq!(encoding.decode_request(&again), Ok((id, frame.clone())), "{encoding:?}");
        }
    }
}

fn server(encoding: Encoding, bytes: &[u8]) {
    let Ok((id, frame)) = encoding.decode_server(bytes) else { return };
    let again = Encoding::Rkyv.encode_server(id, &frame);
    if again.len() <= SERVER_FRAME_BYTES_MAX {
        assert_eq!(Encoding::Rkyv.decode_server(&again), Ok((id, frame.clone())));
    }
    // JSON knows one archive of an entry, rkyv takes any that is sound: the text is what stays.
    let text = Encoding::Json.encode_server(id, &frame);
    if text.len() <= SERVER_FRAME_BYTES_MAX {
        let (id, frame) = Encoding::Json.decode_server(&text).expect("what was written can be read");
        assert_eq!(Encoding::Json.encode_server(id, &frame), text);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let length = length.min(self.0.len());
        self.0.split_off(..length).expect("there are that many")
    }
}

struct Life<'a> {
    reader: Reader<'a>,
    session: Session,
    encoding: Encoding,
    now_ms: u64,
    last: BTreeMap<ConversationId, Sequence>,
    waiting: BTreeSet<ClientMessageId>,
    /// Requests of this connection that have no answer yet.
    asked: Vec<(RequestId, Request)>,
}

impl<'a> Life<'a> {
    fn new(mut reader: Reader<'a>) -> Self {
        let flags = reader.byte();
        let encoding = if flags & 1 == 0 { Encoding::Json } else { Encoding::Rkyv };
        let mut config = SessionConfig::new(encoding);
        config.reorder_items_max = usize::from(flags >> 1 & 3);
        config.history_page_items = 2;
        config.history_in_flight_max = 1 + usize::from(flags >> 3 & 1);
        config.outbox_items_max = 4;
        config.sends_in_flight_max = 1 + usize::from(flags >> 4 & 3);
        config.delivered_after_ms = (flags & 64 != 0).then_some(100);
        let session = Session::new(Arc::new(config), None, None, u64::from(flags));
        Self {
            reader,
            session,
            encoding,
            now_ms: 0,
            last: BTreeMap::new(),
            waiting: BTreeSet::new(),
            asked: Vec::new(),
        }
    }

    /// One operation. Those that bring a session on are likelier than those that throw it back.
    fn step(&mut self) {
        let now_ms = self.now_ms;
        match self.reader.below(32) {
            0..=2 => {
                self.session.start(now_ms);
                self.drain();
                self.session.connected(now_ms);
            }
            3 => {
                let code = CloseCode::ALL.get(usize::from(self.reader.below(64))).copied();
                self.session.disconnected(now_ms, code.map(CloseCode::number));
            }
            4 => self.now_ms += 50 * u64::from(self.reader.byte()),
            5..=7 => self.wake(),
            8 => {
                let length = usize::from(self.reader.byte());
                let bytes = self.reader.take(length);
                self.session.frame(now_ms, bytes);
            }
            9..=20 => {
                let frame = self.push();
                self.session.frame(now_ms, &self.encoding.encode_server(None, &frame));
            }
            21..=26 if !self.asked.is_empty() => {
                let index = usize::from(self.reader.byte()) % self.asked.len();
                let (id, request) = self.asked.swap_remove(index);
                let frame = self.answer(&request);
                self.session.frame(now_ms, &self.encoding.encode_server(Some(id), &frame));
            }
            21..=28 => self.send(),
            29 => drop(self.session.request(now_ms, Request::Conversations(Conversations::default()))),
            30 => self.open_or_forget(),
            _ => {
                if self.reader.below(16) == 0 {
                    self.session.stop();
                }
            }
        }
    }

    fn open_or_forget(&mut self) {
        let conversation = self.conversation();
        if self.reader.below(4) == 0 {
            self.session.forget(conversation);
            self.last.remove(&conversation);
        } else if self.session.conversations().all(|known| known.conversation != conversation) {
            let base = Sequence(u64::from(self.reader.byte()));
            self.session.open(conversation, Epoch(1), base);
            self.last.insert(conversation, base);
        }
    }

    /// Goes to the wanted time; a few calls must bring the session past it.
    fn wake(&mut self) {
        let Some(at_ms) = self.session.next_wake_ms() else { return };
        self.now_ms = self.now_ms.max(at_ms);
        for _ in 0..4 {
            self.session.tick(self.now_ms);
            self.drain();
            if self.session.next_wake_ms().is_none_or(|at_ms| at_ms > self.now_ms) {
                return;
            }
        }
        panic!("a session that wakes at {:?} does not get on at {}", self.session.next_wake_ms(), self.now_ms);
    }

    fn send(&mut self) {
        let name = ClientMessageId([self.reader.byte(); 16]);
        let conversation = self.conversation();
        if !self.waiting.contains(&name)
            && self.session.send(self.now_ms, conversation, Content::text("x"), name).is_ok()
        {
            self.waiting.insert(name);
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect => assert_eq!(self.session.phase(), Phase::Connecting),
                Output::Close => self.asked.clear(),
                Output::Transmit(bytes) => {
                    let (id, request) = self.encoding.decode_request(&bytes).expect("a session's requests are sound");
                    self.asked.extend(id.map(|id| (id, request)));
                }
                Output::Deliver(event) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Entry { conversation, sequence, .. } => {
                if let Some(last) = self.last.insert(conversation, sequence) {
                    assert_eq!(sequence, last.next());
                }
            }
            Event::Skipped { conversation, from, to } => {
                assert!(from <= to);
                if let Some(last) = self.last.insert(conversation, to) {
                    assert_eq!(from, last.next());
                }
            }
            Event::Acked { client_message_id, .. } | Event::SendFailed { client_message_id, .. } => {
                assert!(self.waiting.remove(&client_message_id), "told twice");
            }
            Event::Left(left) => drop(self.last.remove(&left.conversation)),
            Event::ConversationReset { conversation, .. } => drop(self.last.remove(&conversation)),
            Event::Reset => self.last.clear(),
            Event::Disconnected { .. } | Event::Stopped(_) => self.asked.clear(),
            _ => {}
        }
    }

    fn push(&mut self) -> ServerFrame {
        let conversation = self.conversation();
        match self.reader.below(64) {
            0..=3 => ServerFrame::CaughtUp(CaughtUp { position: PositionBytes(vec![self.reader.byte()]) }),
            4 => ServerFrame::Left(Left { conversation, sequence: self.sequence(conversation) }),
            5..=8 => {
                let epoch = self.epoch();
                let (first, last) = (self.sequence(conversation), self.sequence(conversation));
                ServerFrame::TooFar(TooFar { conversation, epoch, first, last })
            }
            9 => {
                let code = 4000 + 100 * u16::from(self.reader.below(8));
                let reconnect_after_ms = Some(u32::from(self.reader.byte()));
                ServerFrame::Goodbye(Goodbye { code, reason: String::new(), reconnect_after_ms })
            }
            10 => ServerFrame::Error(self.error()),
            _ => ServerFrame::Message(self.entry(conversation)),
        }
    }

    fn answer(&mut self, request: &Request) -> ServerFrame {
        match (self.reader.below(24), request) {
            (0, _) => ServerFrame::Error(self.error()),
            (_, Request::Connect(_)) => ServerFrame::Welcome(self.welcome()),
            (_, Request::Ping(_)) => {
                let position = Some(PositionBytes(vec![self.reader.byte()]));
                ServerFrame::Pong(Pong { time_ms: TimestampMs(0), position })
            }
            (_, Request::History(history)) => {
                let conversation = history.conversation;
                let (epoch, first) = (self.epoch(), Sequence(u64::from(self.reader.byte() / 64)));
                let after = history.after.unwrap_or_default();
                let count = u64::from(self.reader.below(4));
                let page = (1..=count).map(|step| self.entry_at(conversation, Sequence(after.0 + step)));
                let entries = page.collect();
                let last = Sequence(after.0 + u64::from(self.reader.below(8)));
                ServerFrame::HistoryAnswer(HistoryAnswer { conversation, epoch, first, last, entries })
            }
            _ => ServerFrame::Ack(Ack {
                sequence: Sequence(u64::from(self.reader.byte())),
                ordinal: Ordinal(1),
                time_ms: TimestampMs(1),
                duplicate: false,
            }),
        }
    }

    fn error(&mut self) -> ErrorFrame {
        let code = ErrorCode::ALL[usize::from(self.reader.byte()) % ErrorCode::ALL.len()];
        let retry_after_ms = (self.reader.below(2) == 0).then_some(300);
        ErrorFrame { code, text: String::new(), retry_after_ms }
    }

    fn entry(&mut self, conversation: ConversationId) -> EntryBytes {
        let sequence = self.sequence(conversation);
        self.entry_at(conversation, sequence)
    }

    fn entry_at(&mut self, conversation: ConversationId, sequence: Sequence) -> EntryBytes {
        let entry = Entry {
            conversation,
            epoch: self.epoch(),
            sequence,
            ordinal: Ordinal(1),
            time_ms: TimestampMs(1),
            kind: EntryKind::Message,
            client_message_id: ClientMessageId([self.reader.byte(); 16]),
            sender: name(if self.reader.below(2) == 0 { "me" } else { "bob" }, UserId::new),
            body: Content::text("x").0,
        };
        EntryBytes(entry.to_archive().to_vec())
    }

    fn welcome(&mut self) -> Welcome {
        let resume = match self.reader.below(16) {
            0 => ResumeOutcome::Reset,
            1 => ResumeOutcome::Fresh,
            _ => ResumeOutcome::Resuming,
        };
        let limits = Limits {
            frame_bytes_max: 1,
            text_bytes_max: 1,
            members_per_request_max: 1,
            group_members_max: 1,
            page_items_max: 1,
            requests_per_second_max: 1,
        };
        Welcome {
            user: name("me", UserId::new),
            device: name("phone", DeviceId::new),
            session: String::new(),
            time_ms: TimestampMs(0),
            heartbeat_interval_ms: 10 * u32::from(self.reader.byte()),
            resume,
            limits,
        }
    }

    fn conversation(&mut self) -> ConversationId {
        ConversationId([self.reader.below(3); 16])
    }

    fn epoch(&mut self) -> Epoch {
        Epoch(if self.reader.below(64) == 0 { 2 } else { 1 })
    }

    /// Near what came last: mostly the next one, or one within reach of a gap.
    fn sequence(&mut self, conversation: ConversationId) -> Sequence {
        let last = self.last.get(&conversation).copied().unwrap_or_default();
        Sequence(last.0 + [1, 1, 1, 1, 2, 3, 0, 7][usize::from(self.reader.below(8))])
    }
}

fn name<T, E: std::fmt::Debug>(text: &str, make: impl FnOnce(&str) -> Result<T, E>) -> T {
    make(text).expect("a name within the rules")
}
