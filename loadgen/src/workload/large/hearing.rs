//! What members who do not look at the large group have heard of it, and what that should have been.

/// One member.
#[derive(Debug, Clone, Copy, Default)]
struct Ear {
    /// The last sequence that was named.
    heard: u64,
    /// Hints since the burst began.
    hints: u32,
}

/// What a hint was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Heard {
    /// It covers entries that were not known of; the first of them.
    News(u64),
    /// It says again what was known: a hint that was overtaken by what it tells.
    Again,
    /// It names an earlier entry than one before.
    Back,
}

/// The members of one thread.
#[derive(Debug)]
pub(in super::super) struct Hearing(Vec<Ear>);

impl Hearing {
    /// So many of them, who have heard nothing.
    pub(in super::super) fn new(members: u32) -> Self {
        Self(vec![Ear::default(); members as usize])
    }

    /// The load is about to begin: what was told so far belongs to no burst.
    pub(in super::super) fn begin(&mut self) {
        self.0.iter_mut().for_each(|ear| ear.hints = 0);
    }

    /// A hint names a sequence; up to `baseline` everything was there before the load.
    pub(in super::super) fn hint(&mut self, slot: u32, sequence: u64, baseline: u64) -> Heard {
        let ear = &mut self.0[slot as usize];
        // What may still be told of the filling belongs to no burst.
        ear.hints += u32::from(sequence > baseline);
        if sequence < ear.heard {
            return Heard::Back;
        }
        let known = ear.heard.max(baseline);
        ear.heard = sequence;
        if sequence > known { Heard::News(known + 1) } else { Heard::Again }
    }

    /// A burst is over: how many hints a member got, and whether it has heard of everything up to `last`.
    pub(in super::super) fn close(&mut self, slot: u32, last: u64) -> (u32, bool) {
        let ear = &mut self.0[slot as usize];
        (std::mem::take(&mut ear.hints), ear.heard >= last)
    }

    /// Members who were told of an entry beyond the last one that there is.
    pub(in super::super) fn beyond(&self, last: u64) -> u64 {
        self.0.iter().filter(|ear| ear.heard > last).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_news_from_the_oldest_that_was_not_known() {
        let mut hearing = Hearing::new(2);
        let hint = |hearing: &mut Hearing, sequence| hearing.hint(1, sequence, 100);
        assert_eq!(hint(&mut hearing, 99), Heard::Again, "before the load");
        assert_eq!(hint(&mut hearing, 103), Heard::News(101));
        assert_eq!(hint(&mut hearing, 103), Heard::Again);
        assert_eq!(hint(&mut hearing, 150), Heard::News(104));
        assert_eq!(hint(&mut hearing, 149), Heard::Back);
        assert_eq!(hint(&mut hearing, 150), Heard::Again, "what went back is not what is known");
    }

    #[test]
    fn who_has_not_heard_the_last_and_who_heard_too_much_is_found() {
        let mut hearing = Hearing::new(3);
        hearing.hint(0, 90, 0);
        hearing.begin();
        hearing.hint(0, 100, 100);
        hearing.hint(0, 150, 100);
        hearing.hint(0, 200, 100);
        hearing.hint(1, 199, 100);
        assert_eq!([0, 1, 2].map(|slot| hearing.close(slot, 200)), [(2, true), (1, false), (0, false)]);
        assert_eq!(hearing.close(0, 200), (0, true), "counted anew");
        assert_eq!((hearing.beyond(200), hearing.beyond(198)), (0, 2));
    }
}
