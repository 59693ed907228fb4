//! A store of several lanes over files in memory, and what these tests ask of it whatever the number of its lanes.

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineError, EngineOptions,
    door::{Command, Done, HistoryRange},
    manifest::{self, Manifest},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
    offline::{self, LanesError, NewLane, VerifyReport},
    partitions::lane_of,
    seams::Random as _,
};
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
};

use crate::support::{
    Lane, block_on, entry,
    model::{Expected, Missing, Model},
    send, small_options, user,
};

pub(crate) const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];

/// All lanes, with what they must answer.
pub(crate) struct World {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) random: MemoryRandom,
    pub(crate) model: Model,
    /// The last position of all lanes when their number last changed.
    pub(crate) base: u64,
    /// Lanes end in order or not before their number changes; or never, so that they do nothing more.
    pub(crate) closes: bool,
    /// Messages so far: each has another key.
    keys: u64,
}

fn options(lane: u16) -> EngineOptions {
    // What is flushed is flushed by age, when a test says so.
    EngineOptions { lane, memtable_age_ms_max: 1, memtable_bytes: 4 << 20, ..small_options() }
}

fn open(lane: u16, files: MemoryFiles, clock: MemoryClock, random: MemoryRandom) -> Lane {
    Lane::open(files, clock, random, options(lane)).unwrap()
}

pub(crate) fn verify(lane: u16, files: &MemoryFiles) -> Result<VerifyReport, EngineError> {
    block_on(offline::verify(files.clone(), lane, |_| ()))
}

/// A lane's dump, but for the lines that tell of the lane.
pub(crate) fn dump(lane: u16, files: &MemoryFiles) -> Vec<String> {
    let mut lines = Vec::new();
    let mut sink = |line: &str| {
        if !line.starts_with("{\"lane\":") && !line.starts_with("{\"end\":") {
            lines.push(line.to_owned());
        }
        true
    };
    block_on(offline::dump(files.clone(), lane, |_| (), &mut sink)).unwrap();
    lines
}

/// Each line of all lanes, in an order of its own.
pub(crate) fn dump_all(folders: &[MemoryFiles]) -> Vec<String> {
    let mut lines: Vec<String> = (0..).zip(folders).flat_map(|(lane, files)| dump(lane, files)).collect();
    lines.sort();
    lines
}

pub(crate) fn spread(
    old: &[MemoryFiles],
    lanes: u16,
    seed: u64,
) -> (Vec<MemoryFiles>, Result<Vec<NewLane>, LanesError>) {
    let new: Vec<MemoryFiles> = (0..lanes).map(|lane| MemoryFiles::new(seed + u64::from(lane))).collect();
    let made = block_on(offline::spread(old, &new, &MemoryRandom::new(seed), |_| ()));
    (new, made)
}

pub(crate) fn manifest(files: &MemoryFiles) -> Manifest {
    block_on(manifest::read(files)).unwrap()
}

pub(crate) fn image(files: &MemoryFiles) -> Vec<(String, Vec<u8>)> {
    files.names().into_iter().map(|name| (name.clone(), files.contents(&name).unwrap())).collect()
}

impl World {
    pub(crate) fn new(seed: u64, lanes: u16) -> Self {
        let (random, clock) = (MemoryRandom::new(seed), MemoryClock::new(1_000_000));
        let open = |lane: u16| {
            let files = MemoryFiles::new(seed + u64::from(lane));
            open(lane, files, clock.clone(), MemoryRandom::new(random.next()))
        };
        let lanes = (0..lanes).map(open).collect();
        Self { lanes, random, model: Model::default(), base: 0, closes: true, keys: 0 }
    }

    fn lane_of(&self, id: ConversationId) -> usize {
        usize::from(lane_of(id, self.lanes.len() as u16))
    }

    pub(crate) fn folders(&self) -> Vec<MemoryFiles> {
        self.lanes.iter().map(|lane| lane.files.clone()).collect()
    }

    /// Has the lane that it is for carry out a command that changes something, and compares the answer.
    pub(crate) fn change(&mut self, command: Command) -> Expected {
        let id = match &command {
            Command::CreateDirect { user, peer } => ConversationId::direct(user, peer),
            Command::CreateGroup { user, key, .. } => ConversationId::group(user, *key),
            Command::Send { conversation, .. }
            | Command::AddMembers { conversation, .. }
            | Command::RemoveMembers { conversation, .. }
            | Command::SetTitle { conversation, .. }
            | Command::Mark { conversation, .. } => *conversation,
            other => panic!("no change: {other:?}"),
        };
        let expected = self.model.change(&command);
        let lane = self.lane_of(id);
        let text = format!("{command:?}");
        let found = Expected::of(&self.lanes[lane].ask(command));
        assert_eq!(found, expected, "{text}");
        while self.model.pending() > 0 {
            self.model.commit(id, self.lanes[lane].engine.position().0);
        }
        expected
    }

    pub(crate) fn any_user(&self) -> UserId {
        user(USERS[self.random.below(USERS.len() as u64) as usize])
    }

    pub(crate) fn any_conversation(&self) -> ConversationId {
        let count = self.model.conversations.len() as u64;
        let any =
            count.checked_sub(1).and_then(|_| self.model.conversations.keys().nth(self.random.below(count) as usize));
        any.copied().unwrap_or(ConversationId([1; 16]))
    }

    /// Something random happens.
    pub(crate) fn step(&mut self) {
        let (user, id) = (self.any_user(), self.any_conversation());
        let number = self.random.next();
        let members = || vec![self.any_user(), self.any_user()];
        let command = match self.random.below(100) {
            0..4 => Command::CreateDirect { user, peer: self.any_user() },
            4..16 => {
                let key = ClientMessageId([(number % 6) as u8; 16]);
                Command::CreateGroup { user, key, title: "t".repeat(number as usize % 3), members: members() }
            }
            16..30 => return self.flush(number as usize),
            30..33 => return self.restart(number as usize),
            33..36 => return self.crash(number as usize, number),
            36..72 => {
                // Some are sent again.
                self.keys += u64::from(!number.is_multiple_of(8));
                let key = self.keys;
                send(user.as_str(), id, key, &"x".repeat(1 + key as usize * 37 % 300))
            }
            72..82 => Command::AddMembers { user, conversation: id, members: members() },
            82..88 => Command::RemoveMembers { user, conversation: id, members: vec![self.any_user()] },
            88..91 => Command::SetTitle { user, conversation: id, title: format!("{}", number % 5) },
            _ => {
                let pointer = |shift: u32| Some(Sequence((number >> shift) % 9)).filter(|read| read.0 > 0);
                Command::Mark { user, conversation: id, read: pointer(8), delivered: pointer(16) }
            }
        };
        self.change(command);
    }

    /// A message in each conversation that has a member.
    pub(crate) fn speak_everywhere(&mut self) {
        let all = self.model.conversations.iter();
        let members: Vec<_> = all.filter_map(|(id, of)| Some((*id, of.members.keys().next()?.clone()))).collect();
        for (id, member) in members {
            self.keys += 1;
            self.change(send(member.as_str(), id, self.keys, "everywhere"));
        }
    }

    /// A lane's log becomes a segment, and is merged with others.
    pub(crate) fn flush(&mut self, lane: usize) {
        let count = self.lanes.len();
        let lane = &mut self.lanes[lane % count];
        lane.clock.advance(2_000);
        lane.engine.tick();
        lane.settle_queued();
        assert_eq!(lane.engine.status().memtable_bytes, 0);
    }

    fn restart(&mut self, lane: usize) {
        let count = self.lanes.len();
        self.lanes[lane % count].reopen();
    }

    fn crash(&mut self, lane: usize, seed: u64) {
        let count = self.lanes.len();
        self.lanes[lane % count].crash(seed);
    }

    /// Every lane ends, in order or not, and other lanes begin.
    pub(crate) fn change_lanes(&mut self, lanes: u16) {
        let seed = self.random.next() % (1 << 40);
        for lane in &mut self.lanes {
            if self.closes && self.random.below(2) == 0 {
                lane.close().unwrap();
            }
        }
        let old: Vec<MemoryFiles> = self.lanes.iter().map(|lane| lane.files.crash_image(seed)).collect();
        let images: Vec<_> = old.iter().map(image).collect();
        let before = dump_all(&old);
        let (new, made) = spread(&old, lanes, seed);
        let made = made.unwrap();
        assert!(old.iter().map(image).eq(images), "the old lanes are as they were");
        // What is not durable is gone.
        let new: Vec<MemoryFiles> = new.iter().map(|files| files.crash_image(seed)).collect();
        assert_eq!(dump_all(&new), before);
        for (lane, files) in (0..).zip(&new) {
            assert_sound(lane, files);
        }
        self.base = made[0].position.0;
        let clock = self.lanes[0].clock.clone();
        let open = |(lane, files): (u16, MemoryFiles)| {
            let lane = open(lane, files, clock.clone(), MemoryRandom::new(self.random.next()));
            assert!(!lane.report.created && lane.report.position.0 == self.base, "{:?}", lane.report);
            lane
        };
        self.lanes = (0..).zip(new).map(open).collect();
    }

    /// All that there is to be merged is merged.
    pub(crate) fn merge_all(&mut self) {
        for lane in 0..self.lanes.len() {
            // Each round ends with nothing to merge; a failure is waited for.
            self.flush(lane);
            self.flush(lane);
        }
    }

    /// As [`World::check`], while disks are too full for anything to be merged.
    pub(crate) fn check_unmerged(&mut self) {
        let adopted = |world: &Self| -> Vec<_> {
            let folders = world.folders();
            folders
                .iter()
                .map(|files| manifest(files).segments.iter().filter(|of| of.adopted.is_some()).count())
                .collect()
        };
        for lane in &self.lanes {
            let bytes = lane.files.names().iter().filter_map(|name| lane.files.size_of(name)).sum();
            lane.files.set_capacity(Some(bytes));
        }
        let before = adopted(self);
        self.check();
        assert_eq!(adopted(self), before, "nothing was merged");
        for lane in &mut self.lanes {
            lane.files.set_capacity(None);
            lane.clock.advance(2_000);
            lane.engine.tick();
            lane.settle_queued();
        }
    }

    /// Asks for all that users may ask for.
    pub(crate) fn check(&mut self) {
        let ids: Vec<ConversationId> = self.model.conversations.keys().copied().collect();
        for name in USERS {
            let lists: Vec<BTreeMap<ConversationId, u64>> =
                (0..self.lanes.len()).map(|lane| self.listed(lane, name)).collect();
            for id in &ids {
                let lane = self.lane_of(*id);
                let expected = self.model.history(&user(name), *id, HistoryRange::After(Sequence(0)), u64::MAX);
                let Some(expected) = expected else {
                    let refused = self.lanes[lane].history(name, *id, HistoryRange::Latest, 1).unwrap_err();
                    assert_eq!(refused.code, ErrorCode::NotFound, "{name} and {id}");
                    continue;
                };
                let found = self.lanes[lane].whole_history(name, *id);
                let sequences: Vec<u64> = found.iter().map(|entry| entry.sequence.0).collect();
                assert_eq!(sequences, expected, "{name} in {id}");
                let conversation = &self.model.conversations[id];
                for entry in &found {
                    assert_eq!(entry.ordinal.0, conversation.entries[entry.sequence.0 as usize - 1].ordinal);
                }
                let unread = conversation.unread(&conversation.members[&user(name)]);
                assert_eq!(lists[lane].get(id), Some(&unread), "{name} in {id}");
            }
            let joined = self.model.joined(&user(name));
            assert_eq!(lists.iter().map(BTreeMap::len).sum::<usize>(), joined, "{name}");
            for (lane, list) in lists.iter().enumerate() {
                assert!(list.keys().all(|id| self.lane_of(*id) == lane), "{name}: {list:?} in lane {lane}");
                self.check_catch_up(lane, name);
            }
        }
    }

    /// The conversations that a lane lists for a user, and how many messages the user has not read.
    fn listed(&mut self, lane: usize, name: &str) -> BTreeMap<ConversationId, u64> {
        match self.lanes[lane].ask(Command::Conversations { user: user(name), after: None, limit: 200 }) {
            Ok(Done::Conversations { conversations, more: false }) => {
                conversations.iter().map(|summary| (summary.conversation, summary.unread)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A client that was told a position since the lanes changed misses exactly what came after it.
    fn check_catch_up(&mut self, lane: usize, name: &str) {
        let end = self.lanes[lane].engine.position().0;
        let since = self.base + self.random.below(end - self.base + 1);
        let missing = self.model.missing(&user(name), since, &BTreeMap::new());
        let here = |id: &ConversationId| self.lane_of(*id) == lane;
        let expected = Missing {
            entries: missing.entries.into_iter().filter(|(id, _)| here(id)).collect(),
            too_far: missing.too_far.into_iter().filter(|(id, ..)| here(id)).collect(),
            left: missing.left.into_iter().filter(|(id, _)| here(id)).collect(),
        };
        let caught_up = self.lanes[lane].catch_up(name, since, &[]).unwrap();
        let mut found = Missing {
            entries: caught_up
                .entries
                .iter()
                .map(|archive| entry(archive))
                .map(|of| (of.conversation, of.sequence.0))
                .collect(),
            too_far: caught_up.too_far.iter().map(|of| (of.conversation, of.first.0, of.last.0)).collect(),
            left: caught_up.left,
        };
        found.entries.sort_unstable();
        assert_eq!(found, expected, "{name} since {since} in lane {lane}");
    }
}

pub(crate) fn assert_sound(lane: u16, files: &MemoryFiles) -> VerifyReport {
    let report = verify(lane, files).unwrap();
    assert!(report.is_sound(), "lane {lane}: {:?}", report.findings);
    report
}
