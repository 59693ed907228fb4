//! Up to when ids that are in segments were made: one that was made later is in none of them, and no filter is asked for it.
//!
//! Most messages are sent as soon as they are named, so hardly one has to be looked for. A few clients whose clocks are ahead must not spoil
//! that for all others: ids that were made later than their messages were stored are kept one by one, the latest of them.
//!
//! Invariant: each id that says when it was made, and of which [`NewestIds::note`] or [`NewestIds::note_key`] was told, was made at or before
//! [`NewestIds::until`], or is one of [`NewestIds::ahead`].
//! Must not do: I/O.

use std::collections::BTreeSet;

use antiphon_wire::ids::{ClientMessageId, ConversationId, TimestampMs};

use crate::keys::{self, Key, MINUTE_MS};

/// Ids that are kept one by one: so many of clients that are far ahead do no harm, at 10 kB. Beyond, the least of them counts for all.
const AHEAD_MAX: usize = 256;

/// What is known of the newest ids of some rows.
#[derive(Debug, Default)]
pub(crate) struct NewestIds {
    until: u64,
    /// Made later, in order of that.
    ahead: BTreeSet<(u64, ConversationId, ClientMessageId)>,
}

impl NewestIds {
    /// Takes in an id whose message was stored at this time.
    pub(crate) fn note(&mut self, conversation: ConversationId, id: ClientMessageId, stored: TimestampMs) {
        let Some(TimestampMs(made)) = id.made() else { return };
        if made <= stored.0 {
            self.until = self.until.max(made);
        } else {
            self.note_ahead((made, conversation, id));
        }
    }

    /// Takes in the last key of rows that are not known otherwise.
    pub(crate) fn note_key(&mut self, last: &[u8]) {
        if let Some(Key::MessageId(_, id)) = keys::parse(last)
            && let Some(minute) = keys::minute_of(id)
        {
            // Of rows of one minute the last need not be the latest.
            let end = if minute == u32::MAX { u64::MAX } else { (u64::from(minute) + 1) * MINUTE_MS - 1 };
            self.until = self.until.max(end);
        }
    }

    /// Takes in all that is known of others.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.until = self.until.max(other.until);
        for ahead in &other.ahead {
            self.note_ahead(*ahead);
        }
        // Time has passed for these.
        while self.ahead.first().is_some_and(|(made, ..)| *made <= self.until) {
            self.ahead.pop_first();
        }
    }

    /// Whether the id is none of them for certain.
    pub(crate) fn exclude(&self, conversation: ConversationId, id: ClientMessageId) -> bool {
        id.made().is_some_and(|TimestampMs(made)| made > self.until && !self.ahead.contains(&(made, conversation, id)))
    }

    fn note_ahead(&mut self, id: (u64, ConversationId, ClientMessageId)) {
        if id.0 <= self.until {
            return;
        }
        if self.ahead.len() == AHEAD_MAX {
            let least = *self.ahead.first().expect("there are some");
            let lesser = least.min(id);
            self.until = self.until.max(lesser.0);
            if lesser == id {
                return;
            }
            self.ahead.pop_first();
        }
        self.ahead.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn id(made: u64, number: u64) -> (ConversationId, ClientMessageId) {
        (ConversationId([number as u8; 16]), ClientMessageId::timed(TimestampMs(made), number.into()))
    }

    #[test]
    fn an_id_that_was_noted_is_never_excluded() {
        // Clients ahead, behind, and far ahead, more of them than are kept; in several parts.
        let mut random = 7_u64;
        let mut draw = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        let (mut all, mut noted) = (NewestIds::default(), Vec::new());
        for part in 0..40 {
            let mut newest = NewestIds::default();
            for number in 0..100 {
                let stored = NOW + part * 1_000 + number;
                let made = match draw() % 8 {
                    0..4 => stored - draw() % 100,
                    4..6 => stored + draw() % 100,
                    6 => stored + draw() % 100_000_000,
                    _ => stored - draw() % 100_000_000,
                };
                let (conversation, id) = id(made, part * 1_000 + number);
                newest.note(conversation, id, TimestampMs(stored));
                assert!(!newest.exclude(conversation, id));
                noted.push((conversation, id));
            }
            all.absorb(&newest);
            assert!(all.ahead.len() <= AHEAD_MAX);
            assert!(noted.iter().all(|(conversation, id)| !all.exclude(*conversation, *id)), "part {part}");
        }
    }

    #[test]
    fn a_fresh_id_is_excluded_though_some_clients_are_ahead() {
        let mut newest = NewestIds::default();
        for number in 0..200 {
            let (conversation, ahead) = id(NOW + 1_000_000 + number, number);
            newest.note(conversation, ahead, TimestampMs(NOW));
        }
        let (conversation, of_now) = id(NOW, 300);
        newest.note(conversation, of_now, TimestampMs(NOW));
        let (conversation, fresh) = id(NOW + 1, 301);
        assert!(newest.exclude(conversation, fresh));
        assert!(!newest.exclude(conversation, id(NOW, 302).1), "as old as one that is there");
        assert!(!newest.exclude(conversation, ClientMessageId([4; 16])), "it says no time");
        let (conversation, ahead) = id(NOW + 1_000_050, 50);
        assert!(!newest.exclude(conversation, ahead));
        assert!(newest.exclude(ConversationId([9; 16]), ahead), "of another conversation");
    }

    #[test]
    fn the_last_key_of_a_segment_counts_for_its_whole_minute() {
        let mut newest = NewestIds::default();
        let (conversation, last) = id(NOW, 1);
        newest.note_key(&keys::message_id(conversation, last));
        let minute_end = NOW / MINUTE_MS * MINUTE_MS + MINUTE_MS;
        assert!(!newest.exclude(conversation, id(minute_end - 1, 2).1));
        assert!(newest.exclude(conversation, id(minute_end, 2).1));
        newest.note_key(&keys::entry(conversation, antiphon_wire::ids::Sequence(1)));
        assert!(newest.exclude(conversation, id(minute_end, 2).1), "no id's key");
    }
}
