//! How near a node is to its memory limit, and what follows for those who come.
//!
//! Pure: a sampler measures and asks, shards read the answer. Established sessions go on whatever it is. Each mark is left five
//! hundredths below where it was reached, so that connections which end, or a sample that wavers, do not open and shut the door in turn.

/// From here on newcomers are told to come back later: a tenth of the memory is left for what sessions do.
const REFUSE_PERCENT: u64 = 90;

/// From here on not even an answer is made for them: they wait in the listeners' backlogs, which the kernel bounds.
const HOLD_PERCENT: u64 = 95;

/// How far below a mark the use must fall to leave it.
const HYSTERESIS_PERCENT: u64 = 5;

/// What becomes of newcomers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Pressure {
    /// They are taken.
    #[default]
    None = 0,
    /// They are told to come back later.
    Refuse = 1,
    /// They wait in the backlog.
    Hold = 2,
}

impl Pressure {
    /// What follows a sample of the use. A limit of 0 is none.
    #[must_use]
    pub const fn next(self, used_bytes: u64, limit_bytes: u64) -> Self {
        if limit_bytes == 0 {
            return Self::None;
        }
        let percent = (used_bytes as u128 * 100 / limit_bytes as u128) as u64;
        let hold = HOLD_PERCENT - if matches!(self, Self::Hold) { HYSTERESIS_PERCENT } else { 0 };
        let refuse = REFUSE_PERCENT - if matches!(self, Self::None) { 0 } else { HYSTERESIS_PERCENT };
        if percent >= hold {
            Self::Hold
        } else if percent >= refuse {
            Self::Refuse
        } else {
            Self::None
        }
    }

    /// The pressure of that number; anything unknown is none.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Refuse,
            2 => Self::Hold,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_left_lower_than_it_was_reached() {
        use Pressure::{Hold, None, Refuse};
        let mut pressure = None;
        for (used, expected) in [
            (50, None),
            (89, None),
            (90, Refuse),
            (86, Refuse),
            (94, Refuse),
            (85, Refuse),
            (84, None),
            (89, None),
            (95, Hold),
            (91, Hold),
            (90, Hold),
            (89, Refuse),
            (94, Refuse),
            (120, Hold),
            (84, None),
        ] {
            pressure = pressure.next(used * 1_000, 100_000);
            assert_eq!(pressure, expected, "{used} %");
        }
        assert_eq!(Hold.next(u64::MAX, 0), None);
        assert_eq!(None.next(u64::MAX, u64::MAX / 2), Hold, "no overflow opens the door");
        for pressure in [None, Refuse, Hold] {
            assert_eq!(Pressure::from_number(pressure as u8), pressure);
        }
    }
}
