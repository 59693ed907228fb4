//! A server in a few lines, for one client: logs, a commit counter as position, resume with `too_far`, history, idempotency.
//!
//! Entries wait by conversation and leave in any order between conversations, never within one. A `pong`'s or `caught_up`'s
//! position is below every entry that still waits, as the protocol promises.

use std::collections::{BTreeMap, VecDeque};

use antiphon_wire::{
    codec::Encoding,
    codes::ErrorCode,
    frame::{
        Ack, CaughtUp, Connect, Content, Entry, EntryBytes, EntryKind, ErrorFrame, HistoryAnswer, Limits, Pong,
        PositionBytes, Request, ResumeOutcome, ServerFrame, TooFar, Welcome,
    },
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Ordinal, RequestId, Sequence, TimestampMs, UserId},
};

/// Most entries of a conversation that a resume streams here.
const RESUME_ENTRIES_MAX: usize = 4;

/// splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// One direction of a connection: late, but in order.
#[derive(Default)]
pub(crate) struct Pipe(VecDeque<(u64, Vec<u8>)>);

impl Pipe {
    pub(crate) fn put(&mut self, at_ms: u64, bytes: Vec<u8>) {
        let after = self.0.back().map_or(0, |(at_ms, _)| *at_ms);
        self.0.push_back((at_ms.max(after), bytes));
    }

    pub(crate) fn take(&mut self, now_ms: u64) -> Option<Vec<u8>> {
        self.0.pop_front_if(|(at_ms, _)| *at_ms <= now_ms).map(|(_, bytes)| bytes)
    }
}

struct Stored {
    commit: u64,
    name: ClientMessageId,
    sender: String,
}

pub(crate) struct Server {
    encoding: Encoding,
    /// Some entries are never pushed, against the protocol: only history brings them.
    pub(crate) lossy: bool,
    logs: BTreeMap<ConversationId, Vec<Stored>>,
    commit: u64,
    /// Sequences that wait to be sent, by conversation.
    waiting: BTreeMap<ConversationId, VecDeque<u64>>,
    /// Entries up to here belong to the resume that runs.
    catching_up: Option<u64>,
    live: bool,
    pub(crate) down: Pipe,
}

impl Server {
    pub(crate) fn new(encoding: Encoding, conversations: u8, lossy: bool) -> Self {
        Self {
            encoding,
            lossy,
            logs: (1..=conversations).map(|number| (Self::conversation(number), Vec::new())).collect(),
            commit: 0,
            waiting: BTreeMap::new(),
            catching_up: None,
            live: false,
            down: Pipe::default(),
        }
    }

    pub(crate) fn conversation(number: u8) -> ConversationId {
        ConversationId([number; 16])
    }

    pub(crate) fn conversations(&self) -> impl Iterator<Item = ConversationId> {
        self.logs.keys().copied()
    }

    pub(crate) fn last(&self, conversation: ConversationId) -> u64 {
        self.logs[&conversation].len() as u64
    }

    pub(crate) fn places_of(&self, conversation: ConversationId, name: ClientMessageId) -> Vec<u64> {
        let places = (1..).zip(&self.logs[&conversation]).filter(|(_, stored)| stored.name == name);
        places.map(|(place, _)| place).collect()
    }

    /// How many entries of each conversation a position stands for.
    pub(crate) fn counts_at(&self, position: &PositionBytes) -> impl Iterator<Item = usize> {
        let commit = commit_of(position);
        self.logs.values().map(move |log| log.partition_point(|stored| stored.commit <= commit))
    }

    pub(crate) fn accept(&mut self) {
        self.down = Pipe::default();
    }

    pub(crate) fn cut(&mut self) {
        self.down = Pipe::default();
        self.waiting.clear();
        (self.live, self.catching_up) = (false, None);
    }

    pub(crate) fn append(&mut self, conversation: ConversationId, sender: &str, name: ClientMessageId) -> u64 {
        self.commit += 1;
        let log = self.logs.get_mut(&conversation).unwrap();
        log.push(Stored { commit: self.commit, name, sender: sender.to_owned() });
        let sequence = log.len() as u64;
        if self.live {
            self.waiting.entry(conversation).or_default().push_back(sequence);
        }
        sequence
    }

    pub(crate) fn receive(&mut self, random: &mut Random, now_ms: u64, trouble: bool, bytes: &[u8]) {
        let (id, request) = self.encoding.decode_request(bytes).expect("a session's requests are sound");
        let answer = match request {
            Request::Connect(connect) => return self.connect(random, now_ms, id, &connect),
            Request::Ping(_) => {
                let position = self.catching_up.is_none().then(|| self.position());
                ServerFrame::Pong(Pong { time_ms: TimestampMs(now_ms), position })
            }
            Request::Send(_) | Request::History(_) if trouble && random.one_in(8) => {
                let retry_after_ms = random.one_in(2).then_some(40);
                ServerFrame::Error(ErrorFrame { code: ErrorCode::Overloaded, text: String::new(), retry_after_ms })
            }
            Request::Send(send) => {
                let known = self.places_of(send.conversation, send.client_message_id).first().copied();
                let place = known.unwrap_or_else(|| self.append(send.conversation, "me", send.client_message_id));
                if random.one_in(2) {
                    self.emit(random, now_ms, trouble);
                }
                ServerFrame::Ack(Ack {
                    sequence: Sequence(place),
                    ordinal: Ordinal(place),
                    time_ms: TimestampMs(now_ms),
                    duplicate: known.is_some(),
                })
            }
            Request::History(history) => {
                let (conversation, last) = (history.conversation, self.last(history.conversation));
                let first = history.after.unwrap().0 + 1;
                let entries = (first..=last).take(history.limit.unwrap() as usize);
                ServerFrame::HistoryAnswer(HistoryAnswer {
                    conversation,
                    epoch: Epoch(1),
                    first: Sequence(1),
                    last: Sequence(last),
                    entries: entries.map(|sequence| self.entry(conversation, sequence)).collect(),
                })
            }
            Request::Delivered(_) => return,
            other => panic!("not a session's request: {other:?}"),
        };
        self.say(random, now_ms, id, &answer);
    }

    /// Sends some of what waits, of any conversation.
    pub(crate) fn emit(&mut self, random: &mut Random, now_ms: u64, trouble: bool) {
        for _ in 0..random.below(6) {
            let conversations: Vec<_> = self.waiting.keys().copied().collect();
            if conversations.is_empty() {
                break;
            }
            let conversation = conversations[random.below(conversations.len() as u64) as usize];
            let waiting = self.waiting.get_mut(&conversation).unwrap();
            let sequence = waiting.pop_front().unwrap();
            if waiting.is_empty() {
                self.waiting.remove(&conversation);
            }
            // The first entry of the last conversation tells the client where it begins, so it comes for certain.
            let lost = self.lossy && trouble && sequence > 1 && random.one_in(15);
            if !lost {
                self.push_entry(random, now_ms, conversation, sequence);
                if trouble && random.one_in(8) {
                    let again = 1 + random.below(sequence);
                    self.push_entry(random, now_ms, conversation, again);
                }
            }
        }
        if self.catching_up.is_some_and(|commit| self.sent_up_to() >= commit) {
            self.catching_up = None;
            let caught_up = ServerFrame::CaughtUp(CaughtUp { position: self.position() });
            self.say(random, now_ms, None, &caught_up);
        }
    }

    fn connect(&mut self, random: &mut Random, now_ms: u64, id: Option<RequestId>, connect: &Connect) {
        let resume = if connect.resume.is_some() { ResumeOutcome::Resuming } else { ResumeOutcome::Fresh };
        let welcome = Welcome {
            user: UserId::new("me").unwrap(),
            device: DeviceId::new("phone").unwrap(),
            session: "s".to_owned(),
            time_ms: TimestampMs(now_ms),
            heartbeat_interval_ms: 1_000,
            resume,
            limits: Limits {
                frame_bytes_max: 1,
                text_bytes_max: 1,
                members_per_request_max: 1,
                group_members_max: 1,
                page_items_max: 1,
                requests_per_second_max: 1,
            },
        };
        self.say(random, now_ms, id, &ServerFrame::Welcome(welcome));
        (self.live, self.catching_up) = (true, Some(self.commit));
        let Some(resume) = &connect.resume else { return };
        let since = commit_of(&resume.position);
        let conversations: Vec<_> = self.conversations().collect();
        for conversation in conversations {
            let known = resume.known.iter().find(|known| known.conversation == conversation);
            let known = known.map_or(0, |known| known.sequence.0);
            let missing = (1..).zip(&self.logs[&conversation]);
            let missing = missing.filter(|(sequence, stored)| stored.commit > since && *sequence > known);
            let missing: VecDeque<u64> = missing.map(|(sequence, _)| sequence).collect();
            if missing.len() > RESUME_ENTRIES_MAX {
                let last = Sequence(self.last(conversation));
                let too_far = TooFar { conversation, epoch: Epoch(1), first: Sequence(1), last };
                self.say(random, now_ms, None, &ServerFrame::TooFar(too_far));
            } else if !missing.is_empty() {
                self.waiting.insert(conversation, missing);
            }
        }
    }

    /// Every entry with at most this commit has left or was left out on purpose.
    fn sent_up_to(&self) -> u64 {
        let commit = |(conversation, waiting): (&ConversationId, &VecDeque<u64>)| {
            self.logs[conversation][waiting[0] as usize - 1].commit - 1
        };
        self.waiting.iter().map(commit).min().unwrap_or(self.commit)
    }

    fn position(&self) -> PositionBytes {
        PositionBytes(self.sent_up_to().to_le_bytes().to_vec())
    }

    fn push_entry(&mut self, random: &mut Random, now_ms: u64, conversation: ConversationId, sequence: u64) {
        let frame = self.encoding.encode_message(&self.entry(conversation, sequence).0);
        self.down.put(now_ms + random.below(30), frame);
    }

    fn say(&mut self, random: &mut Random, now_ms: u64, id: Option<RequestId>, frame: &ServerFrame) {
        self.down.put(now_ms + random.below(30), self.encoding.encode_server(id, frame));
    }

    fn entry(&self, conversation: ConversationId, sequence: u64) -> EntryBytes {
        let stored = &self.logs[&conversation][sequence as usize - 1];
        let entry = Entry {
            conversation,
            epoch: Epoch(1),
            sequence: Sequence(sequence),
            ordinal: Ordinal(sequence),
            time_ms: TimestampMs(stored.commit),
            kind: EntryKind::Message,
            client_message_id: stored.name,
            sender: UserId::new(&stored.sender).unwrap(),
            body: Content::text("hi").0,
        };
        EntryBytes(entry.to_archive().to_vec())
    }
}

fn commit_of(position: &PositionBytes) -> u64 {
    u64::from_le_bytes(position.0.as_slice().try_into().unwrap())
}
