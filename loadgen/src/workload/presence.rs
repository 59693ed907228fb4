//! Presence: each user watches those that come next in the order of the run, and what the server tells of them is held against who has come
//! and gone, and at the end against who is there.

use std::sync::atomic::{AtomicU64, Ordering};

use antiphon_wire::{
    frame::{Request, UserPresence, WatchPresence},
    ids::UserId,
    limits::PRESENCE_PER_REQUEST_MAX,
};

use super::worker::{Worker, request};
use crate::{clock::Nanoseconds, driver::Links, measure::record};

/// When each user of this process last came or went: written by the thread that has the user's connection, read by all.
#[derive(Debug)]
pub struct Board(Vec<AtomicU64>);

impl Board {
    /// Of so many users, none of whom is there.
    #[must_use]
    pub fn new(users: u32) -> Self {
        Self((0..users).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn set(&self, user: u32, at_ns: Nanoseconds, is_there: bool) {
        if let Some(place) = self.0.get(user as usize) {
            place.store(at_ns << 1 | u64::from(is_there), Ordering::Relaxed);
        }
    }

    /// Whether a user is there, and since when that is so.
    fn get(&self, user: u32) -> Option<(bool, Nanoseconds)> {
        let value = self.0.get(user as usize)?.load(Ordering::Relaxed);
        (value > 0).then_some((value & 1 == 1, value >> 1))
    }
}

/// What the connections of a thread were told: a bit for each user that each of them watches.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: usize,
    bits: Vec<u64>,
}

impl Seen {
    /// Of so many connections that watch so many users each.
    pub(super) fn new(connections: u32, watched: u32) -> Self {
        let words = watched.div_ceil(64) as usize;
        Self { words, bits: vec![0; words * connections as usize] }
    }

    fn of(&mut self, slot: u32) -> &mut [u64] {
        let start = self.words * slot as usize;
        &mut self.bits[start..start + self.words]
    }

    fn set(&mut self, slot: u32, place: u32, is_there: bool) {
        let word = &mut self.of(slot)[place as usize / 64];
        let bit = 1 << (place % 64);
        *word = if is_there { *word | bit } else { *word & !bit };
    }

    /// How many of those that a connection watches it was told to be there.
    fn there(&mut self, slot: u32) -> u32 {
        self.of(slot).iter().map(|word| word.count_ones()).sum()
    }
}

impl Worker {
    /// The user of a connection has come: tells the others of this process, and asks about those whom it watches.
    pub(super) fn presence_came(&mut self, links: &mut Links, slot: u32, now_ns: Nanoseconds) {
        let watched = self.plan.habits.watch;
        if watched == 0 {
            return;
        }
        let user = self.share.first + slot;
        self.control.board.set(user, now_ns, true);
        self.seen.of(slot).fill(0);
        let users: Vec<UserId> =
            (1..=watched).map(|place| self.plan.user((user + place) % self.plan.connections)).collect();
        for part in users.chunks(PRESENCE_PER_REQUEST_MAX) {
            let watch = WatchPresence { watch: part.to_vec(), unwatch: Vec::new() };
            self.write(links, slot, request::PRESENCE, &Request::Presence(watch));
        }
    }

    /// The server tells a connection of users; `is_news`, of those who have come or gone since it asked.
    pub(super) fn presence_told(&mut self, slot: u32, users: &[UserPresence], is_news: bool, now_ns: Nanoseconds) {
        for told in users {
            let place = self.watched_place(slot, &told.user);
            let Some((user, place)) = place else {
                self.counters.protocol_errors.add(1);
                self.note_error("presence of somebody who is not watched".to_owned());
                continue;
            };
            self.seen.set(slot, place, told.online);
            self.counters.presence_told.add(u64::from(is_news));
            // One that is over again is not told, or is told late for a reason.
            let since = self.control.board.get(user).filter(|(is_there, _)| is_news && *is_there == told.online);
            if let Some((_, at_ns)) = since.filter(|(_, at_ns)| self.measured.contains(at_ns)) {
                record(&mut self.latencies.presence, at_ns, now_ns);
            }
        }
    }

    /// The number of a user in this run, and which of those it is that a connection watches.
    fn watched_place(&self, slot: u32, user: &UserId) -> Option<(u32, u32)> {
        let number: u32 = user.as_str().rsplit('-').next()?.parse().ok()?;
        let user = number.checked_sub(self.plan.first_user).filter(|user| *user < self.plan.connections)?;
        let own = self.share.first + slot;
        let place = (user + self.plan.connections - own) % self.plan.connections;
        (1..=self.plan.habits.watch).contains(&place).then(|| (user, place - 1))
    }

    /// At the end all are there: how many of those whom connections watch they were not told to be.
    pub(super) fn presence_missing(&mut self) -> u64 {
        let watched = self.plan.habits.watch;
        if watched == 0 {
            return 0;
        }
        (0..self.share.count).map(|slot| u64::from(watched - self.seen.there(slot))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_one_connection() {
        let mut seen = Seen::new(3, 70);
        seen.set(1, 0, true);
        seen.set(1, 69, true);
        seen.set(2, 64, true);
        seen.set(1, 69, true);
        assert_eq!([0, 1, 2].map(|slot| seen.there(slot)), [0, 2, 1]);
        seen.set(1, 0, false);
        seen.of(2).fill(0);
        assert_eq!([0, 1, 2].map(|slot| seen.there(slot)), [0, 1, 0]);
    }

    #[test]
    fn a_board_says_what_is_so_and_since_when() {
        let board = Board::new(2);
        assert_eq!(board.get(0), None);
        board.set(0, 7, true);
        board.set(1, 9, false);
        board.set(2, 9, true);
        assert_eq!([0, 1, 2].map(|user| board.get(user)), [Some((true, 7)), Some((false, 9)), None]);
    }
}
