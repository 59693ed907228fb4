//! Gaps: entries that came before their predecessors, and stretches that only history can fill.
//!
//! Invariants: the entries that wait are bounded in number and bytes over all conversations; when there is no room the newest is
//! let go and its sequence remembered, so that history brings it; a gap closes when nothing waits and its target is reached.
//! While a gap is open the session's position does not move, so a broken connection may throw all gaps away: the resume
//! sends that stretch again.

use std::collections::BTreeMap;

use crate::{
    frame::{EntryBytes, PositionBytes},
    ids::{ConversationId, Sequence},
};

/// How often history may bring nothing new before a gap is given up: the server contradicts itself then.
const STALLS_MAX: u8 = 5;

/// Bounds of what waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) items_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug, Default)]
pub(super) struct Reorder {
    gaps: BTreeMap<ConversationId, Gap>,
    items: usize,
    bytes: usize,
    in_flight: usize,
    /// The last position that came while a gap was open.
    position: Option<PositionBytes>,
}

#[derive(Debug)]
struct Gap {
    waiting: BTreeMap<Sequence, EntryBytes>,
    /// History is to be read up to here, whatever waits. Pages do not lower it: one may be older than an entry that was let go.
    target: Sequence,
    /// It is to be read up to the conversation's last entry, which the next page tells.
    to_the_end: bool,
    /// When to ask history; `None` while a page is on its way.
    fetch_at_ms: Option<u64>,
    stalls: u8,
}

/// What a page of history did to a gap.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progressed {
    /// It is closed, or more will be asked.
    Goes,
    /// History has nothing up to here and never will.
    GiveUp(Sequence),
}

impl Reorder {
    /// Whether anything is missing.
    pub(super) fn is_open(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_idle(&self) -> bool {
        self.gaps.is_empty() && self.in_flight == 0 && self.position.is_none()
    }

    /// An entry came before its predecessor: it waits, or its sequence is remembered.
    pub(super) fn hold(
        &mut self,
        room: Room,
        fetch_at_ms: u64,
        conversation: ConversationId,
        sequence: Sequence,
        entry: EntryBytes,
    ) {
        let has_room = self.items < room.items_max && self.bytes + entry.0.len() <= room.bytes_max;
        let gap = self.gap(conversation, fetch_at_ms);
        if !has_room {
            gap.target = gap.target.max(sequence);
            return;
        }
        let length = entry.0.len();
        if let std::collections::btree_map::Entry::Vacant(place) = gap.waiting.entry(sequence) {
            place.insert(entry);
            self.items += 1;
            self.bytes += length;
        }
    }

    /// History is to be read up to `target`, from `fetch_at_ms` on.
    pub(super) fn fetch(&mut self, conversation: ConversationId, target: Sequence, fetch_at_ms: u64) {
        let gap = self.gap(conversation, fetch_at_ms);
        gap.target = gap.target.max(target);
        gap.fetch_at_ms = gap.fetch_at_ms.map(|at_ms| at_ms.min(fetch_at_ms));
    }

    /// History is to be read up to the conversation's last entry, from `fetch_at_ms` on.
    pub(super) fn fetch_to_the_end(&mut self, conversation: ConversationId, fetch_at_ms: u64) {
        self.fetch(conversation, Sequence(0), fetch_at_ms);
        self.gap(conversation, fetch_at_ms).to_the_end = true;
    }

    /// The next entry that may be delivered after `sequence`; what is not after it is dropped on the way.
    pub(super) fn next_after(&mut self, conversation: ConversationId, sequence: Sequence) -> Option<EntryBytes> {
        let gap = self.gaps.get_mut(&conversation)?;
        loop {
            let first = gap.waiting.first_entry().filter(|first| *first.key() <= sequence.next())?;
            let (key, entry) = first.remove_entry();
            self.items -= 1;
            self.bytes -= entry.0.len();
            if key > sequence {
                return Some(entry);
            }
        }
    }

    /// Closes the gap if everything up to its target was delivered and nothing waits.
    pub(super) fn settle(&mut self, conversation: ConversationId, sequence: Sequence) {
        if let Some(gap) = self.gaps.get(&conversation)
            && gap.waiting.is_empty()
            && gap.target <= sequence
            && !gap.to_the_end
        {
            self.gaps.remove(&conversation);
        }
    }

    /// A conversation to ask history for now; its page counts as on its way.
    pub(super) fn take_due(&mut self, now_ms: u64, in_flight_max: usize) -> Option<ConversationId> {
        if self.in_flight >= in_flight_max {
            return None;
        }
        let due = |gap: &Gap| gap.fetch_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let (conversation, gap) = self.gaps.iter_mut().find(|(_, gap)| due(gap))?;
        gap.fetch_at_ms = None;
        self.in_flight += 1;
        Some(*conversation)
    }

    /// When the next page is to be asked for.
    pub(super) fn next_due_ms(&self, in_flight_max: usize) -> Option<u64> {
        if self.in_flight >= in_flight_max {
            return None;
        }
        self.gaps.values().filter_map(|gap| gap.fetch_at_ms).min()
    }

    /// A page was answered or refused.
    pub(super) fn landed(&mut self) {
        self.in_flight -= 1;
    }

    /// After a page: `last` is the conversation's last sequence, `advanced` whether the page brought anything. Asks for the next
    /// page at `next_ms`, or, if nothing came, at `later_ms`.
    pub(super) fn progressed(
        &mut self,
        conversation: ConversationId,
        last: Sequence,
        advanced: bool,
        next_ms: u64,
        later_ms: u64,
    ) -> Progressed {
        let Some(gap) = self.gaps.get_mut(&conversation) else { return Progressed::Goes };
        if std::mem::take(&mut gap.to_the_end) {
            gap.target = gap.target.max(last);
        }
        gap.stalls = if advanced { 0 } else { gap.stalls + 1 };
        gap.fetch_at_ms = Some(if advanced { next_ms } else { later_ms });
        if gap.stalls < STALLS_MAX {
            return Progressed::Goes;
        }
        Progressed::GiveUp(self.end_of_gap(conversation))
    }

    /// Asks again later: the page was refused for now.
    pub(super) fn retry(&mut self, conversation: ConversationId, at_ms: u64) {
        if let Some(gap) = self.gaps.get_mut(&conversation) {
            gap.fetch_at_ms = Some(at_ms);
        }
    }

    /// Up to where a gap that history can't fill is to be skipped.
    pub(super) fn end_of_gap(&mut self, conversation: ConversationId) -> Sequence {
        let Some(gap) = self.gaps.get_mut(&conversation) else { return Sequence(0) };
        gap.to_the_end = false;
        // What waits can still be delivered, so the gap ends before it.
        gap.waiting.keys().next().map_or(gap.target, |first| Sequence(first.0 - 1))
    }

    pub(super) fn remove(&mut self, conversation: ConversationId) {
        if let Some(gap) = self.gaps.remove(&conversation) {
            self.items -= gap.waiting.len();
            self.bytes -= gap.waiting.values().map(|entry| entry.0.len()).sum::<usize>();
        }
    }

    /// A position came while a gap was open.
    pub(super) fn keep_position(&mut self, position: PositionBytes) {
        self.position = Some(position);
    }

    /// The position that was kept, once no gap is open.
    pub(super) fn take_position(&mut self) -> Option<PositionBytes> {
        if self.is_open() { None } else { self.position.take() }
    }

    fn gap(&mut self, conversation: ConversationId, fetch_at_ms: u64) -> &mut Gap {
        self.gaps.entry(conversation).or_insert_with(|| Gap {
            waiting: BTreeMap::new(),
            target: Sequence(0),
            to_the_end: false,
            fetch_at_ms: Some(fetch_at_ms),
            stalls: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: ConversationId = ConversationId([1; 16]);
    const OTHER: ConversationId = ConversationId([2; 16]);
    const ROOM: Room = Room { items_max: 3, bytes_max: 10 };

    fn entry(length: usize) -> EntryBytes {
        EntryBytes(vec![0; length])
    }

    fn hold(reorder: &mut Reorder, sequence: u64, length: usize) {
        reorder.hold(ROOM, 2_000, CONVERSATION, Sequence(sequence), entry(length));
    }

    #[test]
    fn entries_wait_for_their_predecessors() {
        let mut reorder = Reorder::default();
        hold(&mut reorder, 5, 1);
        hold(&mut reorder, 4, 2);
        hold(&mut reorder, 4, 2);
        assert_eq!((reorder.items, reorder.bytes), (2, 3));
        assert_eq!(reorder.next_after(CONVERSATION, Sequence(2)), None);
        assert_eq!(reorder.next_after(CONVERSATION, Sequence(3)), Some(entry(2)));
        assert_eq!(reorder.next_after(CONVERSATION, Sequence(4)), Some(entry(1)));
        assert!(reorder.is_open());
        reorder.settle(CONVERSATION, Sequence(5));
        assert!(reorder.is_idle() && reorder.items == 0 && reorder.bytes == 0);
    }

    #[test]
    fn what_has_no_room_is_remembered() {
        let mut reorder = Reorder::default();
        for sequence in [5, 6, 7, 9] {
            hold(&mut reorder, sequence, 1);
        }
        reorder.hold(ROOM, 2_000, OTHER, Sequence(3), entry(11));
        assert_eq!(reorder.items, 3);
        assert_eq!(reorder.next_after(CONVERSATION, Sequence(6)), Some(entry(1)));
        assert_eq!(reorder.items, 0);
        reorder.settle(CONVERSATION, Sequence(7));
        assert!(reorder.gaps[&CONVERSATION].target == Sequence(9));
        reorder.remove(CONVERSATION);
        reorder.settle(OTHER, Sequence(3));
        assert!(reorder.is_idle());
    }

    #[test]
    fn history_is_asked_in_time_and_not_too_much_at_once() {
        let mut reorder = Reorder::default();
        hold(&mut reorder, 5, 1);
        reorder.fetch(OTHER, Sequence(9), 100);
        assert_eq!(reorder.next_due_ms(1), Some(100));
        assert_eq!(reorder.take_due(99, 1), None);
        assert_eq!(reorder.take_due(2_000, 1), Some(CONVERSATION));
        assert_eq!((reorder.take_due(2_000, 1), reorder.next_due_ms(1)), (None, None));
        assert_eq!(reorder.take_due(2_000, 2), Some(OTHER));
        reorder.landed();
        assert_eq!(reorder.progressed(OTHER, Sequence(20), true, 2_100, 4_000), Progressed::Goes);
        assert_eq!(reorder.next_due_ms(2), Some(2_100));
        reorder.retry(OTHER, 7_000);
        assert_eq!(reorder.next_due_ms(2), Some(7_000));
    }

    #[test]
    fn a_page_older_than_what_was_let_go_does_not_close_the_gap() {
        let mut reorder = Reorder::default();
        for sequence in [5, 6, 7, 9] {
            hold(&mut reorder, sequence, 1);
        }
        assert_eq!(reorder.progressed(CONVERSATION, Sequence(7), true, 0, 0), Progressed::Goes);
        while reorder.next_after(CONVERSATION, Sequence(7)).is_some() {}
        reorder.settle(CONVERSATION, Sequence(7));
        assert!(reorder.is_open());
        reorder.settle(CONVERSATION, Sequence(9));
        assert!(reorder.is_idle());
    }

    #[test]
    fn the_end_is_what_the_first_page_says() {
        let mut reorder = Reorder::default();
        reorder.fetch_to_the_end(CONVERSATION, 0);
        reorder.settle(CONVERSATION, Sequence(7));
        assert!(reorder.is_open());
        assert_eq!(reorder.progressed(CONVERSATION, Sequence(8), true, 0, 0), Progressed::Goes);
        reorder.settle(CONVERSATION, Sequence(7));
        assert!(reorder.is_open());
        reorder.settle(CONVERSATION, Sequence(8));
        assert!(reorder.is_idle());
    }

    #[test]
    fn a_gap_that_history_contradicts_is_given_up() {
        let mut reorder = Reorder::default();
        hold(&mut reorder, 5, 1);
        for _ in 1..STALLS_MAX {
            assert_eq!(reorder.progressed(CONVERSATION, Sequence(3), false, 0, 0), Progressed::Goes);
        }
        let given_up = Progressed::GiveUp(Sequence(4));
        assert_eq!(reorder.progressed(CONVERSATION, Sequence(3), false, 0, 0), given_up);
    }

    #[test]
    fn a_position_waits_for_gaps_to_close() {
        let mut reorder = Reorder::default();
        reorder.fetch(CONVERSATION, Sequence(9), 0);
        reorder.keep_position(PositionBytes(vec![1]));
        assert_eq!(reorder.take_position(), None);
        reorder.settle(CONVERSATION, Sequence(9));
        assert_eq!(reorder.take_position(), Some(PositionBytes(vec![1])));
        assert!(reorder.is_idle());
    }
}
