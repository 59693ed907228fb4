//! How long client message ids are remembered: the window, and the horizon that moves through it.
//!
//! The *horizon* is two times. An id that says when it was made is forgotten if that is before the one, an id that does not if its message
//! was stored before the other. A forgotten id of the first kind is refused ([`Horizon::is_too_old`]), so that it is never stored twice,
//! whatever was dropped; one of the second is as good as new. The horizon stands in the manifest and counts from when it is durable there:
//! refusals, reads and merges all go by that one, so that a row means the same before and after the merge that drops it, and after a crash.
//!
//! It follows the clock, a window behind, by whole minutes, and never goes back: a clock that is set back stops it. One that leaps ahead
//! must not make clients' ids look old, nor forget what was stored today. So the horizon of ids moves as far as two clocks agree, the
//! server's and that of most clients, as the ids of a memtable tell it ([`MadeTimes`]); and where they are too few to tell, and for what
//! was stored, at most twice as fast as time is seen to pass ([`Pacer`]): after a long stop it catches up.
//!
//! Must not do: read a clock, or drop anything.

use antiphon_wire::ids::{ClientMessageId, TimestampMs};

use crate::{
    compaction::Expiry,
    keys::{self, Key, MINUTE_MS},
    rows::decode_message_id,
};

/// Most time that one look at the clock counts for. Looks come about once a second; one that comes ten seconds late is a busy node, more
/// is a clock that was set.
const LOOK_MS_MAX: u64 = 10_000;

/// Most time that is saved up: what a leap of the clock forward can bring forth at once is twice this.
const SAVED_MS_MAX: u64 = 60 * 60 * 1_000;

/// So many ids tell what time it is for most clients: a few whose clocks are wrong do not change the middle of them.
const WITNESSES_MIN: u64 = 16;

/// So far ahead of the server's clock a few ids may be, and be believed: what clients' clocks are wrong by.
const AHEAD_MS_MAX: u64 = 60 * 60 * 1_000;

/// Times that are kept of a memtable's ids: enough for their middle, at two kilobytes.
const SAMPLE_MAX: usize = 256;

/// What is forgotten. As the manifest has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Horizon {
    /// Ids that were made before are forgotten; whole minutes, 0 for none yet.
    pub(crate) made: TimestampMs,
    /// Ids that do not say when they were made are forgotten if their message was stored before; the same.
    pub(crate) stored: TimestampMs,
    /// Rows of the old form do not say when they were stored: all of them were before this. 0 if the store has none; as long as it is
    /// not known, the end of time.
    pub(crate) old_rows_until: TimestampMs,
}

impl Horizon {
    /// Of a store that was written before ids were forgotten.
    pub(crate) const OF_OLD_STORE: Self =
        Self { made: TimestampMs(0), stored: TimestampMs(0), old_rows_until: TimestampMs(u64::MAX) };

    /// The same in a store that has no rows of the old form.
    pub(crate) const fn of_new_rows(self) -> Self {
        Self { old_rows_until: TimestampMs(0), ..self }
    }

    /// The same for a store whose last entry has this time: no row of the old form is later.
    pub(crate) fn of_store_until(self, time: TimestampMs) -> Self {
        let is_known = self.old_rows_until != Self::OF_OLD_STORE.old_rows_until;
        // 0 stands for a store without such rows.
        let until = if is_known { self.old_rows_until } else { time.max(TimestampMs(1)) };
        Self { old_rows_until: until, ..self }
    }

    /// Of a store that has the rows of two: what either has forgotten is forgotten.
    pub(crate) fn later(self, other: Self) -> Self {
        Self {
            made: self.made.max(other.made),
            stored: self.stored.max(other.stored),
            old_rows_until: self.old_rows_until.max(other.old_rows_until),
        }
    }

    /// Whether an id that a client sends cannot be told from one that was forgotten.
    pub(crate) fn is_too_old(&self, id: ClientMessageId) -> bool {
        keys::minute_of(id).is_some_and(|minute| minute < self.minute())
    }

    /// Whether segments may have rows of the old form.
    pub(crate) fn has_old_rows(&self) -> bool {
        self.old_rows_until.0 > 0
    }

    /// Before which all rows of the old form were stored, as far as it is known.
    fn old_rows_end(&self) -> TimestampMs {
        if self.has_old_rows() { self.old_rows_until } else { TimestampMs(u64::MAX) }
    }

    /// Whether an id's row is one of those that are forgotten: `stored` is the time of its message, if the row has it or the entry is at
    /// hand; `is_old` of a row of the old form.
    pub(crate) fn forgets(&self, id: ClientMessageId, stored: Option<TimestampMs>, is_old: bool) -> bool {
        let by_id = match keys::minute_of(id) {
            Some(minute) => minute < self.minute(),
            None => is_old || stored.is_some_and(|stored| stored < self.stored),
        };
        by_id && (!is_old || self.old_rows_until < self.stored)
    }

    fn minute(&self) -> u32 {
        u32::try_from(self.made.0 / MINUTE_MS).unwrap_or(u32::MAX)
    }
}

impl Expiry for Horizon {
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool {
        match keys::parse(key) {
            // One that does not have its form stays: who verifies is to see it.
            Some(Key::MessageId(_, id)) => {
                decode_message_id(id, value).is_some_and(|(_, stored)| self.forgets(id, stored, false))
            }
            Some(Key::OldMessageId(id)) => self.forgets(id, None, true),
            _ => false,
        }
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool {
        let are_ids = keys::is_apart(first_key) && keys::is_apart(last_key);
        let has_untimed = first_key < keys::timed_ids_from(0).as_slice();
        let all_stored_before = times.is_some_and(|(_, latest)| latest < self.stored.0);
        let all_made_before = last_key < keys::timed_ids_from(self.minute()).as_slice();
        are_ids && all_made_before && (!has_untimed || all_stored_before)
    }
}

/// When the ids of a memtable were made, as far as they say it: an even sample of them.
#[derive(Debug, Default)]
pub(crate) struct MadeTimes {
    seen: u64,
    /// Every so many-th is kept, as a power of two.
    stride_bits: u32,
    sample: Vec<u64>,
}

impl MadeTimes {
    /// Takes in an id.
    pub(crate) fn note(&mut self, id: ClientMessageId) {
        let Some(made) = id.made() else { return };
        if self.seen.trailing_zeros() >= self.stride_bits {
            if self.sample.len() == SAMPLE_MAX {
                let mut is_kept = false;
                self.sample.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                self.stride_bits += 1;
            }
            self.sample.push(made.0);
        }
        self.seen += 1;
    }

    /// The time in the middle of them, and how many there are.
    pub(crate) fn middle(&self) -> Option<(TimestampMs, u64)> {
        let mut sample = self.sample.clone();
        sample.sort_unstable();
        sample.get(sample.len() / 2).map(|made| (TimestampMs(*made), self.seen))
    }
}

/// How far the horizon may move: time that was seen to pass since it last did.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    looked: Option<TimestampMs>,
    saved_ms: u64,
}

impl Pacer {
    /// A look at the clock.
    pub(crate) fn look(&mut self, now: TimestampMs) {
        let passed = self.looked.map_or(0, |before| now.0.saturating_sub(before.0)).min(LOOK_MS_MAX);
        self.saved_ms = (self.saved_ms + passed).min(SAVED_MS_MAX);
        self.looked = Some(now);
    }

    /// Where the horizon is to be, `window_ms` behind the clock; `made` is what the ids say that are stored beside it, and `oldest` the time
    /// of the first entry in memory.
    pub(crate) fn next(
        &self,
        horizon: Horizon,
        now: TimestampMs,
        window_ms: u64,
        made: &MadeTimes,
        oldest: Option<TimestampMs>,
    ) -> Horizon {
        let behind = |time: TimestampMs| time.0.saturating_sub(window_ms);
        let paced = |before: TimestampMs, wanted: u64| wanted.min(before.0.saturating_add(2 * self.saved_ms));
        let whole = |before: TimestampMs, time: u64| TimestampMs((time / MINUTE_MS * MINUTE_MS).max(before.0));
        let stored = match (horizon.stored, oldest) {
            (TimestampMs(0), None) => 0,
            // The clock may have leapt since something was stored; before the first horizon that is all in memory, or of the old form.
            (TimestampMs(0), Some(oldest)) => behind(now.min(oldest).min(horizon.old_rows_end())),
            (before, _) => paced(before, behind(now)),
        };
        let made = match (horizon.made, made.middle()) {
            (_, Some((middle, count))) if count >= WITNESSES_MIN => behind(middle.min(now)),
            (TimestampMs(0), None) => 0,
            // The clock is wrong, or a random id was taken for one with a time. If both are, a first horizon of it would refuse everybody's
            // ids; without one nothing is forgotten.
            (TimestampMs(0), Some((middle, _))) if middle.0 > now.0.saturating_add(AHEAD_MS_MAX) => 0,
            (TimestampMs(0), Some((middle, _))) => behind(middle.min(now)),
            (before, None) => paced(before, behind(now)),
            (before, Some((middle, _))) => paced(before, behind(middle.min(now))),
        };
        Horizon { made: whole(horizon.made, made), stored: whole(horizon.stored, stored), ..horizon }
    }

    /// It has moved.
    pub(crate) fn moved(&mut self) {
        self.saved_ms = 0;
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{ConversationId, Sequence};

    use super::*;
    use crate::rows::{put_message_id, put_sequence};

    const WINDOW_MS: u64 = 60 * MINUTE_MS;
    const YEAR_MS: u64 = 365 * 24 * 60 * MINUTE_MS;
    const NOW_MS: u64 = 1_700_000_000_000 / MINUTE_MS * MINUTE_MS;

    fn timed(minute: u64) -> ClientMessageId {
        ClientMessageId::timed(TimestampMs(minute * MINUTE_MS + 59_999), 7)
    }

    fn horizon(minute: u64, old_rows_until: u64) -> Horizon {
        let time = TimestampMs(minute * MINUTE_MS);
        Horizon { made: time, stored: time, old_rows_until: TimestampMs(old_rows_until * MINUTE_MS) }
    }

    #[test]
    fn an_id_is_refused_from_when_its_row_may_be_gone() {
        let untimed = ClientMessageId([4; 16]);
        for (id, stored, is_old, of, forgotten) in [
            (timed(9), None, false, horizon(10, 0), true),
            (timed(10), None, false, horizon(10, 0), false),
            (timed(9), None, false, Horizon::default(), false),
            (untimed, Some(9), false, horizon(10, 0), true),
            (untimed, Some(10), false, horizon(10, 0), false),
            // Rows of the old form were stored at some time before the store had a window.
            (untimed, None, true, horizon(10, 9), true),
            (untimed, None, true, horizon(10, 10), false),
            (timed(9), None, true, horizon(10, 10), false),
            (timed(10), None, true, horizon(10, 9), false),
            (untimed, None, true, Horizon { old_rows_until: TimestampMs(u64::MAX), ..horizon(10, 0) }, false),
            (untimed, Some(9), false, Horizon { stored: TimestampMs(0), ..horizon(10, 0) }, false),
            (timed(9), None, false, Horizon { made: TimestampMs(0), ..horizon(10, 0) }, false),
        ] {
            let stored = stored.map(|minute: u64| TimestampMs(minute * MINUTE_MS));
            assert_eq!(of.forgets(id, stored, is_old), forgotten, "{id} {stored:?} {is_old} {of:?}");
            let (conversation, mut value) = (ConversationId([1; 16]), Vec::new());
            let key = if is_old {
                put_sequence(Sequence(1), &mut value);
                keys::old_message_id(conversation, id).to_vec()
            } else {
                put_message_id(Sequence(1), stored, &mut value);
                keys::message_id(conversation, id).to_vec()
            };
            assert_eq!(of.is_expired(&key, &value), forgotten, "{id}");
            if forgotten && id.made().is_some() {
                assert!(of.is_too_old(id), "{id} would be stored twice");
            }
        }
        assert!(!horizon(10, 0).is_too_old(untimed) && horizon(10, 0).is_too_old(timed(9)));
    }

    #[test]
    fn rows_that_do_not_have_their_form_and_other_rows_stay() {
        let (conversation, late) = (ConversationId([1; 16]), horizon(u64::from(u32::MAX), 0));
        let key = keys::message_id(conversation, timed(9));
        assert!(late.is_expired(&key, &[0; 8]) && !late.is_expired(&key, &[0; 7]));
        assert!(!late.is_expired(&keys::entry(conversation, Sequence(1)), &[0; 8]));
        assert!(!late.is_expired(b"", b""));
    }

    #[test]
    fn a_segment_goes_whole_if_every_id_of_it_is_forgotten() {
        let key = |id| keys::message_id(ConversationId([9; 16]), id).to_vec();
        let untimed = ClientMessageId([4; 16]);
        let of = horizon(10, 0);
        let at = |minute: u64| Some((0, minute * MINUTE_MS));
        for (first, last, times, covered) in [
            (key(timed(3)), key(timed(9)), None, true),
            (key(timed(3)), key(timed(10)), at(9), false),
            (key(untimed), key(timed(9)), at(9), true),
            (key(untimed), key(timed(9)), at(10), false),
            (key(untimed), key(untimed), at(9), true),
            (key(untimed), key(untimed), None, false),
            (keys::conversation(ConversationId([0; 16])).to_vec(), key(timed(3)), at(3), false),
        ] {
            assert_eq!(of.covers(&first, &last, times), covered, "{first:?} {last:?} {times:?}");
        }
        assert!(!Horizon::default().covers(&key(timed(1)), &key(timed(1)), at(0)));
    }

    /// The horizon after looks at the clock, each a second after the last by `clock`, while clients make an id now and then by theirs.
    fn after(
        seconds: u64,
        start: Horizon,
        pacer: &mut Pacer,
        clock: impl Fn(u64) -> u64,
        clients: impl Fn(u64) -> Option<u64>,
    ) -> Horizon {
        let mut horizon = start;
        for second in 0..seconds {
            let now = TimestampMs(clock(second));
            pacer.look(now);
            let mut made = MadeTimes::default();
            if let Some(time) = clients(second) {
                (0..20).for_each(|number| made.note(ClientMessageId::timed(TimestampMs(time), number)));
                // Some have clocks that are wrong.
                (0..9).for_each(|number| made.note(ClientMessageId::timed(TimestampMs(time + YEAR_MS), number)));
                (0..9).for_each(|number| made.note(ClientMessageId::timed(TimestampMs(time - YEAR_MS), number)));
            }
            let next = pacer.next(horizon, now, WINDOW_MS, &made, Some(TimestampMs(NOW_MS)));
            assert!(next.made >= horizon.made && next.stored >= horizon.stored, "it went back");
            if next != horizon {
                pacer.moved();
                horizon = next;
            }
        }
        horizon
    }

    fn start() -> Horizon {
        let time = TimestampMs(NOW_MS - WINDOW_MS);
        Horizon { made: time, stored: time, ..Horizon::default() }
    }

    /// Both are within two minutes of this.
    fn assert_near(horizon: Horizon, expected: u64) {
        for time in [horizon.made.0, horizon.stored.0] {
            assert!(time <= expected && time + 2 * MINUTE_MS > expected, "{} ms off", time as i64 - expected as i64);
        }
    }

    #[test]
    fn the_horizon_follows_the_clock_a_window_behind() {
        let clock = |second| NOW_MS + second * 1_000;
        let both: [fn(u64) -> Option<u64>; 2] = [|second| Some(NOW_MS + second * 1_000), |_| None];
        for clients in both {
            let mut pacer = Pacer::default();
            let begun = after(1, Horizon::default(), &mut pacer, clock, clients);
            assert_eq!(begun.stored.0, NOW_MS - WINDOW_MS);
            // Without ids there is nothing to refuse.
            assert_eq!(begun.made.0, if clients(0).is_some() { begun.stored.0 } else { 0 });
            let later = after(3 * 60 * 60, Horizon { made: begun.stored, ..begun }, &mut pacer, clock, clients);
            assert_near(later, NOW_MS + (3 * 60 * 60 - 1) * 1_000 - WINDOW_MS);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing_early_and_keeps_nothing_for_good() {
        let mut pacer = Pacer::default();
        let clients = |second| Some(NOW_MS + second * 1_000);
        let wrong = after(3_600, start(), &mut pacer, |second| NOW_MS - YEAR_MS + second * 1_000, clients);
        assert_eq!(wrong, start());
        let late = |second| NOW_MS + (3_600 + second) * 1_000;
        let right = after(3_600, wrong, &mut pacer, late, |second| Some(late(second)));
        assert_near(right, NOW_MS + 7_199 * 1_000 - WINDOW_MS);
    }

    #[test]
    fn a_clock_that_leaps_ahead_refuses_no_client_and_forgets_hardly_anything() {
        let ahead = |second| NOW_MS + YEAR_MS + second * 1_000;
        let clients = |second| Some(NOW_MS + second * 1_000);
        // Also if it is the first that a store knows.
        for begun in [start(), Horizon::default()] {
            let wrong = after(3_600, begun, &mut Pacer::default(), ahead, clients);
            assert!(wrong.made.0 <= NOW_MS + 3_600_000 - WINDOW_MS, "clients' ids look old");
        }
        let mut pacer = Pacer::default();
        let wrong = after(3_600, start(), &mut pacer, ahead, |_| None);
        for time in [wrong.made, wrong.stored] {
            assert!(time.0 <= start().made.0 + 2 * 3_600_000, "{} ms", time.0 - start().made.0);
        }
        let right = after(2 * 3_600, wrong, &mut pacer, |second| NOW_MS + (3_600 + second) * 1_000, |_| None);
        assert!(right.stored.0 <= NOW_MS + 3 * 3_600_000 - WINDOW_MS);
    }

    #[test]
    fn a_first_horizon_is_not_taken_from_a_few_ids_that_the_clock_knows_nothing_of() {
        // A random id is taken for one that says its time now and then: of any year.
        let ahead = TimestampMs(NOW_MS + YEAR_MS);
        let mut made = MadeTimes::default();
        for number in 1..=WITNESSES_MIN {
            let first = Pacer::default().next(Horizon::default(), ahead, WINDOW_MS, &made, None).made;
            assert_eq!(first, TimestampMs(0), "of {} ids", number - 1);
            made.note(ClientMessageId::timed(TimestampMs(NOW_MS + 2 * YEAR_MS), number.into()));
        }
        let agreed = Pacer::default().next(Horizon::default(), ahead, WINDOW_MS, &made, None).made;
        assert_eq!(agreed.0, NOW_MS + YEAR_MS - WINDOW_MS);
    }

    #[test]
    fn a_first_horizon_forgets_nothing_that_was_stored_before_the_clock_leapt() {
        let (before, ahead) = (TimestampMs(NOW_MS), TimestampMs(NOW_MS + YEAR_MS));
        let first = |of: Horizon, now, oldest| Pacer::default().next(of, now, WINDOW_MS, &MadeTimes::default(), oldest);
        for (of, now, oldest, stored) in [
            (Horizon::default(), ahead, Some(before), NOW_MS - WINDOW_MS),
            (Horizon::default(), before, Some(ahead), NOW_MS - WINDOW_MS),
            // An empty store has no horizon: the clock may be set back before there is anything in it.
            (Horizon::default(), ahead, None, 0),
            // Rows of the old form were stored before.
            (Horizon { old_rows_until: before, ..Horizon::default() }, ahead, Some(ahead), NOW_MS - WINDOW_MS),
            (Horizon::OF_OLD_STORE, ahead, Some(ahead), NOW_MS + YEAR_MS - WINDOW_MS),
        ] {
            let horizon = first(of, now, oldest);
            assert_eq!(horizon.stored.0, stored, "{of:?} {now} {oldest:?}");
            let id = ClientMessageId([4; 16]);
            let is_old_forgotten = of.has_old_rows() && horizon.forgets(id, None, true);
            assert!(!horizon.forgets(id, oldest, false) && !is_old_forgotten, "{of:?} {now} {oldest:?}");
        }
    }

    #[test]
    fn a_stop_of_a_day_is_caught_up_with() {
        let day = 24 * 60 * MINUTE_MS;
        let clock = |second| NOW_MS + day + second * 1_000;
        let mut pacer = Pacer::default();
        let half = after(12 * 3_600, start(), &mut pacer, clock, |_| None);
        assert!(half.stored.0 <= start().stored.0 + day + 2 * MINUTE_MS);
        let later = |second| clock(12 * 3_600 + second);
        let whole = after(13 * 3_600, half, &mut pacer, later, |_| None);
        assert_near(whole, NOW_MS + 2 * day + 3_600_000 - 1_000 - WINDOW_MS);
        // At once, where clients say so.
        let at_once = after(1, start(), &mut Pacer::default(), clock, |second| Some(clock(second)));
        assert_eq!(at_once.made.0, NOW_MS + day - WINDOW_MS);
    }

    #[test]
    fn a_sample_of_many_times_has_their_middle() {
        let mut made = MadeTimes::default();
        assert_eq!(made.middle(), None);
        for number in 0..100_000 {
            made.note(ClientMessageId::timed(TimestampMs(NOW_MS + number), number.into()));
            made.note(ClientMessageId([4; 16]));
        }
        let (middle, count) = made.middle().unwrap();
        assert!(made.sample.len() <= SAMPLE_MAX && count == 100_000);
        assert!(middle.0.abs_diff(NOW_MS + 50_000) < 2_000, "{middle}");
    }
}
