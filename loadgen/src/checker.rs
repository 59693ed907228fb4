//! What the node promises, checked on every message while it is measured, in bounded memory.
//!
//! - **order**: a connection gets a conversation's entries in the order of their sequences. An entry that comes after a later one
//!   (and was not announced as to be paged by `too_far`) is one violation.
//! - **gap**: a sequence below one that a member got never came to that member, by the end of the drain.
//! - **duplicate**: a member got a sequence twice, or one message was stored under two sequences.
//! - **lost**: a message was acknowledged, and a member did not get it by the end of the drain; one for each such member.
//! - **mismatch**: two observers (a member, or the acknowledgement) saw different messages under one sequence.
//! - **foreign**: a message of a conversation that the connection's user is not a member of.
//! - **missing**: a message was acknowledged, and the conversation's history does not have it at the end (where that is read).
//! - **presence**: somebody is there at the end, and a connection that watches them was not told so.
//! - **unheard**, **hint**, **body**: of a large group, seen in [`crate::workload::large`] and counted here with the others.
//!
//! A member here is a membership of the [`Layout`]: a user has one a layer, and it belongs to one conversation. Memory: 24 bytes a member; a conversation keeps a sequence
//! only until all its members have it, and at most [`SLOTS_MAX`] of them; a member's holes are at most [`HOLES_MAX`] ranges.

use std::{collections::VecDeque, sync::Arc};

use crate::{layout::Layout, random::mix};

/// Most sequences that a conversation keeps at once. Beyond, the oldest is let go: order, gaps, duplicates and losses in it are
/// still counted, but no longer what it said.
pub const SLOTS_MAX: usize = 4096;

/// Most ranges that a member may miss at once. Beyond, the oldest counts as a gap at once.
pub const HOLES_MAX: usize = 64;

/// Messages that are remembered as stored, to notice one that is stored twice.
const STORED_WINDOW: u64 = 1 << 20;

/// What broke, how often. All zero is the only good outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violations {
    /// Entries that came after a later one.
    pub order: u64,
    /// Entries that never came though later ones did.
    pub gap: u64,
    /// Entries that came twice, and messages stored twice.
    pub duplicate: u64,
    /// Acknowledged messages that a member did not get.
    pub lost: u64,
    /// Sequences under which two different messages were seen.
    pub mismatch: u64,
    /// Entries of conversations that are none of the user's.
    pub foreign: u64,
    /// Acknowledged messages that the history does not have.
    pub missing: u64,
    /// Users who are there at the end, and of whom a connection that watches them was not told so.
    #[serde(default)]
    pub presence: u64,
    /// Members of a large group who had not heard of a burst's last message when all should have.
    #[serde(default)]
    pub unheard: u64,
    /// Hints that went back, or named an entry that there is not.
    #[serde(default)]
    pub hint: u64,
    /// Messages of a large group that were given to somebody who did not look at it and was not meant.
    #[serde(default)]
    pub body: u64,
}

impl Violations {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let of_messages = self.order + self.gap + self.duplicate + self.lost + self.mismatch + self.foreign;
        of_messages + self.missing + self.presence + self.unheard + self.hint + self.body
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.order += other.order;
        self.gap += other.gap;
        self.duplicate += other.duplicate;
        self.lost += other.lost;
        self.mismatch += other.mismatch;
        self.foreign += other.foreign;
        self.missing += other.missing;
        self.presence += other.presence;
        self.unheard += other.unheard;
        self.hint += other.hint;
        self.body += other.body;
    }
}

/// What an entry is: a message of this run, named by its sender and number, or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Message `number` of the thread's messages, sent by the thread's member `sender`.
    Message {
        /// Which member.
        sender: u32,
        /// Counted over all members of the thread.
        number: u32,
    },
    /// A membership or title change, or a message that is not of this run.
    Other,
}

/// How an entry came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The server pushed it: it must come in order.
    Pushed,
    /// The client asked for it to fill a hole that the server had announced.
    Paged,
}

/// What an entry was to its member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The first time.
    First,
    /// It was there before: a duplicate, if it was pushed.
    Again,
    /// Before the run began; not checked.
    Early,
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    from: u64,
    to: u64,
    announced: bool,
}

#[derive(Debug, Default)]
struct Member {
    // The highest sequence seen; all below were seen too, but for the holes.
    last: u64,
    // Boxed: hardly a member ever has one.
    holes: Option<Box<Holes>>,
}

#[derive(Debug, Default)]
struct Holes {
    list: Vec<Hole>,
    // A resume was asked for from before the first hole: what came after it, up to here, comes again and is no duplicate.
    replay_to: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    identity: Option<Identity>,
    members_left: u32,
    acked: bool,
}

#[derive(Debug, Default)]
struct Conversation {
    baseline: Option<u64>,
    members: u32,
    // The sequence of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    let_go_left: u64,
    stored: Tally,
}

/// A set of stored messages, as their number and the sum of their hashes: enough to compare two sets that should be the same,
/// however many messages they have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    digest: u64,
}

impl Tally {
    /// Adds a message at its place.
    pub fn add(&mut self, sequence: u64, sender: u32, number: u32) {
        self.count += 1;
        let name = u64::from(sender) << 32 | u64::from(number);
        self.digest = self.digest.wrapping_add(mix(name ^ mix(sequence)));
    }
}

/// The checks of one client thread.
#[derive(Debug)]
pub struct Checker {
    layout: Arc<Layout>,
    members: Vec<Member>,
    conversations: Vec<Conversation>,
    stored: Box<[u64]>,
    violations: Violations,
    undelivered: u64,
}

/// Bytes that the checker keeps for a member without holes.
pub const MEMBER_BYTES: usize = size_of::<Member>();

impl Checker {
    /// Checks the conversations of a layout.
    #[must_use]
    pub fn new(layout: Arc<Layout>) -> Self {
        let conversation = |members: u32| Conversation { members, ..Conversation::default() };
        Self {
            members: std::iter::repeat_with(Member::default).take(layout.sizes().sum::<u32>() as usize).collect(),
            conversations: layout.sizes().map(conversation).collect(),
            layout,
            stored: vec![0; (STORED_WINDOW / 64) as usize].into(),
            violations: Violations::default(),
            undelivered: 0,
        }
    }

    /// Everything after `baseline` is checked from now on.
    pub fn start(&mut self, conversation: u32, baseline: u64) {
        for member in self.layout.members_of(conversation) {
            self.members[member as usize].last = baseline;
        }
        let conversation = &mut self.conversations[conversation as usize];
        (conversation.baseline, conversation.first) = (Some(baseline), baseline + 1);
    }

    /// Whether a conversation is checked already.
    #[must_use]
    pub fn is_started(&self, conversation: u32) -> bool {
        self.conversations[conversation as usize].baseline.is_some()
    }

    /// Up to where a member has everything, or 0 before the start.
    #[must_use]
    pub fn contiguous(&self, member: u32) -> u64 {
        let member = &self.members[member as usize];
        let first_hole = member.holes.iter().flat_map(|holes| &holes.list).map(|hole| hole.from - 1).min();
        first_hole.unwrap_or(member.last)
    }

    /// Whether something before the newest that a member has is still to come.
    #[must_use]
    pub fn has_holes(&self, member: u32) -> bool {
        self.members[member as usize].holes.as_ref().is_some_and(|holes| !holes.list.is_empty())
    }

    /// The member's session resumes from [`Checker::contiguous`]: holes are filled by what the server streams.
    pub fn resuming(&mut self, member: u32) {
        let state = &mut self.members[member as usize];
        if let Some(holes) = &mut state.holes {
            holes.replay_to = state.last;
            holes.list.iter_mut().for_each(|hole| hole.announced = true);
        }
    }

    /// A message is about to be sent for the first time.
    pub fn sending(&mut self, number: u32) {
        let (word, bit) = stored_place(number);
        self.stored[word] &= !bit;
    }

    /// An entry came to a member.
    pub fn received(&mut self, member: u32, sequence: u64, identity: Identity, path: Path) -> Verdict {
        let index = self.layout.conversation_of(member);
        match self.conversations[index as usize].baseline {
            Some(baseline) if sequence > baseline => {}
            _ => return Verdict::Early,
        }
        let first = self.place(member, sequence, path);
        self.observe(index, sequence, identity, |slot| {
            if first {
                slot.members_left = slot.members_left.saturating_sub(1);
            }
        });
        if first {
            self.delivered(index, sequence);
            Verdict::First
        } else {
            if path == Path::Pushed && !self.is_replay(member, sequence) {
                self.violations.duplicate += 1;
            }
            Verdict::Again
        }
    }

    /// A message was acknowledged.
    pub fn acked(&mut self, conversation: u32, sequence: u64, identity: Identity) {
        let state = &self.conversations[conversation as usize];
        if state.baseline.is_none_or(|baseline| sequence <= baseline) {
            self.violations.mismatch += 1;
            return;
        }
        if let Identity::Message { sender, number } = identity {
            self.conversations[conversation as usize].stored.add(sequence, sender, number);
        }
        let mut newly_undelivered = 0;
        self.observe(conversation, sequence, identity, |slot| {
            if !slot.acked {
                newly_undelivered = u64::from(slot.members_left);
            }
            slot.acked = true;
        });
        self.undelivered += newly_undelivered;
        self.forget_finished(conversation);
    }

    /// Up to which sequence nothing of a conversation was checked; `None` before the start.
    #[must_use]
    pub fn baseline(&self, conversation: u32) -> Option<u64> {
        self.conversations[conversation as usize].baseline
    }

    /// The messages of a conversation that were acknowledged so far.
    #[must_use]
    pub fn stored(&self, conversation: u32) -> Tally {
        self.conversations[conversation as usize].stored
    }

    /// A conversation's history was read to its end, and these messages of acknowledged sends were in it. `surplus_possible`: some
    /// sends had no clear outcome, so there may be more than was acknowledged.
    pub fn compare_history(&mut self, conversation: u32, found: Tally, surplus_possible: bool) {
        let acked = self.conversations[conversation as usize].stored;
        if found.count < acked.count {
            self.violations.missing += acked.count - found.count;
        } else if found != acked && !surplus_possible {
            self.violations.mismatch += 1;
        }
    }

    /// The server announced that a member has to page everything up to `last` by itself.
    pub fn announced(&mut self, member: u32, last: u64) {
        let from = self.members[member as usize].last + 1;
        if last >= from {
            self.open_hole(member, Hole { from, to: last, announced: true });
            self.members[member as usize].last = last;
        }
    }

    /// An entry of somebody else's conversation came.
    pub fn foreign(&mut self) {
        self.violations.foreign += 1;
    }

    /// Deliveries of acknowledged messages that are still to come.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// What broke so far; gaps and losses are known only at the end.
    #[must_use]
    pub fn violations(&self) -> &Violations {
        &self.violations
    }

    /// The end of the drain: what has not come now is a gap or lost.
    #[must_use]
    pub fn finish(&self) -> Violations {
        let mut violations = self.violations;
        let holes = self.members.iter().flat_map(|member| member.holes.iter()).flat_map(|holes| &holes.list);
        violations.gap += holes.map(|hole| hole.to - hole.from + 1).sum::<u64>();
        for conversation in &self.conversations {
            let missing = |slot: &Slot| {
                if slot.acked { u64::from(slot.members_left) } else { 0 }
            };
            violations.lost += conversation.slots.iter().map(missing).sum::<u64>() + conversation.let_go_left;
        }
        violations
    }

    /// Notes in the member's own view; `true` if it had not come before.
    fn place(&mut self, member: u32, sequence: u64, path: Path) -> bool {
        let state = &mut self.members[member as usize];
        if sequence > state.last {
            let from = state.last + 1;
            state.last = sequence;
            if sequence > from {
                self.open_hole(member, Hole { from, to: sequence - 1, announced: false });
            }
            return true;
        }
        let Some(holes) = &mut state.holes else {
            return false;
        };
        let Some(index) = holes.list.iter().position(|hole| (hole.from..=hole.to).contains(&sequence)) else {
            return false;
        };
        let hole = holes.list.swap_remove(index);
        let rest = [Hole { to: sequence - 1, ..hole }, Hole { from: sequence + 1, ..hole }];
        holes.list.extend(rest.into_iter().filter(|rest| rest.from <= rest.to));
        if holes.list.is_empty() && holes.replay_to <= sequence {
            state.holes = None;
        }
        if path == Path::Pushed && !hole.announced {
            self.violations.order += 1;
        }
        true
    }

    /// Whether a known entry was to be expected once more; the last of them ends that.
    fn is_replay(&mut self, member: u32, sequence: u64) -> bool {
        let state = &mut self.members[member as usize];
        let Some(holes) = &mut state.holes else { return false };
        let is_replay = sequence <= holes.replay_to;
        if holes.list.is_empty() && sequence >= holes.replay_to {
            state.holes = None;
        }
        is_replay
    }

    fn open_hole(&mut self, member: u32, hole: Hole) {
        let holes = &mut self.members[member as usize].holes.get_or_insert_default().list;
        holes.push(hole);
        if holes.len() > HOLES_MAX {
            let oldest = holes.iter().enumerate().min_by_key(|(_, hole)| hole.from).map_or(0, |(index, _)| index);
            let given_up = holes.swap_remove(oldest);
            self.violations.gap += given_up.to - given_up.from + 1;
        }
    }

    /// Brings what was seen under a sequence together with what others saw, and lets `note` mark the slot, if it is still kept.
    fn observe(&mut self, conversation: u32, sequence: u64, identity: Identity, note: impl FnOnce(&mut Slot)) {
        let state = &mut self.conversations[conversation as usize];
        let Some(offset) = sequence.checked_sub(state.first) else {
            return;
        };
        if offset >= 2 * SLOTS_MAX as u64 {
            // No honest server is so far ahead of its slowest member; keep memory bounded.
            self.violations.mismatch += 1;
            return;
        }
        while state.slots.len() as u64 <= offset {
            state.slots.push_back(Slot { identity: None, members_left: state.members, acked: false });
        }
        let slot = &mut state.slots[offset as usize];
        match slot.identity {
            None => {
                slot.identity = Some(identity);
                note(slot);
                if let Identity::Message { number, .. } = identity {
                    let (word, bit) = stored_place(number);
                    if self.stored[word] & bit != 0 {
                        self.violations.duplicate += 1;
                    }
                    self.stored[word] |= bit;
                }
            }
            Some(known) => {
                if known != identity {
                    self.violations.mismatch += 1;
                }
                note(slot);
            }
        }
    }

    fn delivered(&mut self, conversation: u32, sequence: u64) {
        let state = &mut self.conversations[conversation as usize];
        match sequence.checked_sub(state.first) {
            None if state.let_go_left > 0 => {
                state.let_go_left -= 1;
                self.undelivered = self.undelivered.saturating_sub(1);
            }
            Some(offset) if state.slots.get(offset as usize).is_some_and(|slot| slot.acked) => {
                self.undelivered = self.undelivered.saturating_sub(1);
            }
            _ => {}
        }
        self.forget_finished(conversation);
    }

    /// Lets go of what everybody has seen, and of the oldest beyond the limit.
    fn forget_finished(&mut self, conversation: u32) {
        let state = &mut self.conversations[conversation as usize];
        while let Some(slot) = state.slots.front().copied() {
            let finished = slot.members_left == 0 && (slot.acked || slot.identity == Some(Identity::Other));
            if !finished && state.slots.len() <= SLOTS_MAX {
                break;
            }
            if slot.acked {
                state.let_go_left += u64::from(slot.members_left);
            }
            state.slots.pop_front();
            state.first += 1;
        }
    }
}

fn stored_place(number: u32) -> (usize, u64) {
    let place = u64::from(number) % STORED_WINDOW;
    ((place / 64) as usize, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        law::{Law, Sampler},
        layout::Layer,
        random::Random,
    };

    const MEMBERS: u32 = 3;

    fn message(number: u32) -> Identity {
        Identity::Message { sender: 0, number }
    }

    fn fresh() -> Checker {
        let groups = Layer::Groups(Sampler::new(Law::Fixed(MEMBERS)));
        Checker::new(Arc::new(Layout::new(MEMBERS, &[groups], &mut Random::new(1, 1))))
    }

    /// A checker of one conversation with three members, started at sequence 10.
    fn started() -> Checker {
        let mut checker = fresh();
        checker.start(0, 10);
        checker
    }

    fn push(checker: &mut Checker, member: u32, sequence: u64) -> Verdict {
        checker.received(member, sequence, message(sequence as u32), Path::Pushed)
    }

    fn check(events: impl FnOnce(&mut Checker), expect: Violations) {
        let mut checker = started();
        events(&mut checker);
        assert_eq!(checker.finish(), expect);
    }

    #[test]
    fn a_good_run_is_clean_and_keeps_nothing() {
        let mut checker = started();
        for sequence in 11..100_000 {
            checker.sending(sequence as u32);
            checker.acked(0, sequence, message(sequence as u32));
            assert_eq!(checker.undelivered(), 3);
            for member in 0..MEMBERS {
                assert_eq!(push(&mut checker, member, sequence), Verdict::First);
            }
        }
        assert_eq!((checker.finish(), checker.undelivered()), (Violations::default(), 0));
        assert!(checker.conversations[0].slots.is_empty());
    }

    #[test]
    fn an_acknowledgement_may_come_last() {
        check(
            |checker| {
                (0..MEMBERS).for_each(|member| {
                    push(checker, member, 11);
                });
                checker.acked(0, 11, message(11));
            },
            Violations::default(),
        );
    }

    #[test]
    fn what_came_before_the_start_is_not_checked() {
        let mut checker = fresh();
        assert_eq!(push(&mut checker, 0, 5), Verdict::Early);
        checker.start(0, 10);
        assert_eq!(push(&mut checker, 0, 10), Verdict::Early);
        assert_eq!(checker.finish(), Violations::default());
    }

    #[test]
    fn a_duplicate_is_found() {
        check(
            |checker| {
                push(checker, 0, 11);
                assert_eq!(push(checker, 0, 11), Verdict::Again);
            },
            Violations { duplicate: 1, ..Violations::default() },
        );
    }

    #[test]
    fn a_message_stored_twice_is_found() {
        check(
            |checker| {
                for sequence in [11, 12] {
                    (0..MEMBERS).for_each(|member| {
                        checker.received(member, sequence, message(1), Path::Pushed);
                    });
                }
            },
            Violations { duplicate: 1, ..Violations::default() },
        );
    }

    #[test]
    fn a_gap_is_found_and_is_a_loss_only_if_acknowledged() {
        check(
            |checker| {
                push(checker, 0, 11);
                push(checker, 0, 14);
            },
            Violations { gap: 2, ..Violations::default() },
        );
        check(
            |checker| {
                checker.acked(0, 11, message(11));
                checker.acked(0, 12, message(12));
                (0..MEMBERS).for_each(|member| {
                    push(checker, member, 12);
                });
            },
            Violations { gap: 3, lost: 3, ..Violations::default() },
        );
    }

    #[test]
    fn a_reorder_is_found_and_is_no_gap() {
        check(
            |checker| {
                [12, 11, 13].into_iter().for_each(|sequence| {
                    push(checker, 0, sequence);
                });
            },
            Violations { order: 1, ..Violations::default() },
        );
    }

    #[test]
    fn a_loss_at_the_tail_is_found_for_each_member() {
        let mut checker = started();
        checker.acked(0, 11, message(11));
        push(&mut checker, 0, 11);
        assert_eq!(checker.undelivered(), 2);
        assert_eq!(checker.finish(), Violations { lost: 2, ..Violations::default() });
    }

    #[test]
    fn a_loss_is_found_beyond_what_is_kept() {
        let mut checker = started();
        let count = 3 * SLOTS_MAX as u64;
        for sequence in 11..11 + count {
            checker.acked(0, sequence, message(sequence as u32));
            push(&mut checker, 0, sequence);
            push(&mut checker, 1, sequence);
        }
        assert!(checker.conversations[0].slots.len() <= SLOTS_MAX);
        assert_eq!(checker.finish(), Violations { lost: count, ..Violations::default() });
        (11..11 + count - 1).for_each(|sequence| {
            push(&mut checker, 2, sequence);
        });
        assert_eq!((checker.finish().lost, checker.undelivered()), (1, 1));
    }

    #[test]
    fn two_messages_under_one_sequence_are_found() {
        let mismatch = Violations { mismatch: 1, ..Violations::default() };
        check(
            |checker| {
                push(checker, 0, 11);
                checker.received(1, 11, message(99), Path::Pushed);
            },
            mismatch,
        );
        check(
            |checker| {
                (0..MEMBERS).for_each(|member| {
                    push(checker, member, 11);
                });
                checker.acked(0, 11, message(98));
            },
            mismatch,
        );
        check(|checker| checker.acked(0, 10, message(10)), mismatch);
    }

    #[test]
    fn an_announced_hole_is_filled_by_pages_without_blame_and_is_a_gap_otherwise() {
        let events = |checker: &mut Checker| {
            checker.announced(0, 20);
            push(checker, 0, 21);
            assert_eq!(checker.contiguous(0), 10);
            (11..=19).for_each(|sequence| {
                checker.received(0, sequence, message(sequence as u32), Path::Paged);
            });
            assert_eq!(checker.contiguous(0), 19);
        };
        check(events, Violations { gap: 1, ..Violations::default() });
        check(
            |checker| {
                events(checker);
                checker.received(0, 20, message(20), Path::Paged);
                assert_eq!(checker.contiguous(0), 21);
            },
            Violations::default(),
        );
    }

    #[test]
    fn holes_and_wild_sequences_stay_bounded() {
        let mut checker = started();
        (0..1_000).for_each(|step| {
            push(&mut checker, 0, 12 + 2 * step);
        });
        assert!(checker.members[0].holes.as_ref().unwrap().list.len() <= HOLES_MAX);
        assert_eq!(checker.finish().gap, 1_000);
        let mut checker = started();
        push(&mut checker, 0, u64::MAX / 2);
        assert!(checker.conversations[0].slots.len() <= 2 * SLOTS_MAX);
        assert_eq!(checker.finish().mismatch, 1);
    }

    #[test]
    fn what_the_history_lacks_is_missing_and_what_stands_elsewhere_does_not_match() {
        let tally = |sequences: &[u64]| {
            let mut tally = Tally::default();
            sequences.iter().for_each(|&sequence| tally.add(sequence, 0, sequence as u32));
            tally
        };
        for (found, surplus_possible, missing, mismatch) in [
            (tally(&[11, 12, 13]), false, 0, 0),
            (tally(&[13, 11, 12]), false, 0, 0),
            (tally(&[11, 13]), false, 1, 0),
            (tally(&[]), true, 3, 0),
            (tally(&[11, 12, 14]), false, 0, 1),
            (tally(&[11, 12, 13, 14]), true, 0, 0),
            (tally(&[11, 12, 13, 14]), false, 0, 1),
        ] {
            let mut checker = started();
            for sequence in 11..=13 {
                checker.acked(0, sequence, message(sequence as u32));
            }
            checker.compare_history(0, found, surplus_possible);
            let violations = checker.violations();
            assert_eq!((violations.missing, violations.mismatch), (missing, mismatch), "{found:?}");
        }
    }

    #[test]
    fn a_resume_from_before_a_hole_brings_known_entries_again_without_blame_and_only_once() {
        let events = |checker: &mut Checker| {
            checker.announced(0, 12);
            push(checker, 0, 13);
            assert!(checker.has_holes(0) && checker.contiguous(0) == 10);
            checker.resuming(0);
            (11..=14).for_each(|sequence| {
                push(checker, 0, sequence);
            });
            assert!(!checker.has_holes(0) && checker.members[0].holes.is_none());
        };
        check(events, Violations::default());
        check(
            |checker| {
                events(checker);
                push(checker, 0, 13);
            },
            Violations { duplicate: 1, ..Violations::default() },
        );
    }
}
