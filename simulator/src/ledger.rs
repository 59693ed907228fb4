//! What several runs came to, added up in a file: seeds, events and everything that was counted, each seed once.
//!
//! Must not do: read or write the file; [`Ledger::from_json`] and [`Ledger::to_json`] are its text.

use serde_json::{Map, Value, json};

use crate::{
    coverage::Count,
    report::{self, Totals},
};

/// Sums over runs, and which seeds they ran.
#[derive(Debug, Default)]
pub struct Ledger {
    totals: Totals,
    violations: u64,
    seconds: f64,
    /// First and last seed of each run, in order and apart from each other.
    ranges: Vec<(u64, u64)>,
}

/// Why a run can't be added, or a file is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Give another file.
    #[error("it is no sum of runs: {0}")]
    Malformed(&'static str),
    /// Begin another file: this version counts other things.
    #[error("it counts {0:?}, which this version does not")]
    UnknownCount(String),
    /// Begin with `--start` elsewhere: a seed that ran twice shows nothing more.
    #[error("seeds {first} to {last} were run already")]
    Overlap {
        /// The first of the earlier run.
        first: u64,
        /// The last of it.
        last: u64,
    },
}

impl Ledger {
    /// Reads a file's text.
    ///
    /// # Errors
    /// If it is not one of ours.
    pub fn from_json(text: &str) -> Result<Self, LedgerError> {
        let malformed = |what| move || LedgerError::Malformed(what);
        let value: Value = serde_json::from_str(text).map_err(|_| LedgerError::Malformed("not JSON"))?;
        let number = |of: &Value, name: &str| of[name].as_u64();
        let mut ledger = Self {
            violations: number(&value, "violations").ok_or_else(malformed("violations"))?,
            seconds: value["seconds"].as_f64().ok_or_else(malformed("seconds"))?,
            ..Self::default()
        };
        ledger.totals.seeds = number(&value, "seeds").ok_or_else(malformed("seeds"))?;
        ledger.totals.events = number(&value, "events").ok_or_else(malformed("events"))?;
        for range in value["ranges"].as_array().ok_or_else(malformed("ranges"))? {
            let range = (range[0].as_u64(), range[1].as_u64());
            let (Some(first), Some(last)) = range else { return Err(LedgerError::Malformed("ranges")) };
            ledger.ranges.push((first, last));
        }
        for (name, counted) in value["counted"].as_object().ok_or_else(malformed("counted"))? {
            let kind = Count::ALL.iter().find(|(_, known)| known == name).map(|(kind, _)| *kind);
            let kind = kind.ok_or_else(|| LedgerError::UnknownCount(name.clone()))?;
            ledger.totals.coverage.add(kind, number(counted, "times").ok_or_else(malformed("times"))?);
            ledger.totals.seeds_with.add(kind, number(counted, "in_seeds").ok_or_else(malformed("in_seeds"))?);
        }
        Ok(ledger)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Totals { seeds, events, coverage, seeds_with } = &self.totals;
        let counted = Count::ALL.iter().map(|(kind, name)| {
            let counted = json!({"times": coverage.get(*kind), "in_seeds": seeds_with.get(*kind)});
            ((*name).to_owned(), counted)
        });
        let counted: Map<String, Value> = counted.collect();
        let (ranges, violations, seconds) = (&self.ranges, self.violations, self.seconds);
        let value = json!({
            "seeds": seeds,
            "events": events,
            "violations": violations,
            "seconds": seconds,
            "ranges": ranges,
            "counted": counted,
        });
        format!("{value:#}\n")
    }

    /// The first seed after all that ran.
    #[must_use]
    pub fn next_seed(&self) -> u64 {
        self.ranges.iter().map(|(_, last)| last + 1).max().unwrap_or_default()
    }

    /// How many seeds from `start` on have not run, up to the next that has.
    ///
    /// # Errors
    /// If `start` itself has.
    pub fn room(&self, start: u64) -> Result<u64, LedgerError> {
        if let Some((first, last)) = self.ranges.iter().copied().find(|(first, last)| (*first..=*last).contains(&start))
        {
            return Err(LedgerError::Overlap { first, last });
        }
        let next = self.ranges.iter().map(|(first, _)| *first).filter(|first| *first > start).min();
        Ok(next.unwrap_or(u64::MAX) - start)
    }

    /// This and a run that went from `first` to `last`.
    #[must_use]
    pub fn with(&self, totals: &Totals, violations: u64, seconds: f64, range: Option<(u64, u64)>) -> Self {
        let mut sum = Self { ranges: self.ranges.clone(), ..Self::default() };
        for of in [&self.totals, totals] {
            sum.totals.join(of);
        }
        sum.violations = self.violations + violations;
        sum.seconds = self.seconds + seconds;
        sum.ranges.extend(range);
        sum.ranges.sort_unstable();
        sum.ranges.dedup_by(|later, earlier| {
            let follows = earlier.1.checked_add(1) == Some(later.0);
            if follows {
                earlier.1 = later.1;
            }
            follows
        });
        sum
    }

    /// The table of all runs together, with their last line.
    #[must_use]
    pub fn table(&self) -> String {
        report::table(&self.totals) + &report::last_line(&self.totals, self.violations, self.seconds) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Coverage;

    fn totals(seeds: u64) -> Totals {
        let mut totals = Totals { seeds, events: 10 * seeds, ..Totals::default() };
        Count::ALL.iter().for_each(|(kind, _)| totals.coverage.add(*kind, 3 * seeds));
        let mut once = Coverage::default();
        once.one(Count::Crashes);
        totals.seeds_with.mark(&once);
        totals
    }

    #[test]
    fn runs_add_up_and_come_back_from_the_file() {
        let empty = Ledger::default();
        assert_eq!((empty.next_seed(), empty.room(7)), (0, Ok(u64::MAX - 7)));
        let one = empty.with(&totals(100), 0, 1.5, Some((0, 99)));
        let two = one.with(&totals(50), 1, 2.0, Some((200, 249)));
        let read = Ledger::from_json(&two.to_json()).unwrap();
        assert_eq!(read.to_json(), two.to_json());
        assert_eq!((read.totals.seeds, read.totals.events, read.violations), (150, 1_500, 1));
        assert_eq!(read.seconds, 3.5);
        assert!(Count::ALL.iter().all(|(kind, _)| read.totals.coverage.get(*kind) == 450));
        assert_eq!(read.totals.seeds_with.get(Count::Crashes), 2);
        assert_eq!(read.next_seed(), 250);
        assert_eq!(read.room(100), Ok(100));
        assert_eq!(read.room(99), Err(LedgerError::Overlap { first: 0, last: 99 }));
        // What lies between joins them.
        assert_eq!(two.with(&totals(1), 0, 0.0, Some((100, 199))).ranges, [(0, 249)]);
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(Ledger::from_json("").unwrap_err(), LedgerError::Malformed("not JSON"));
        assert_eq!(Ledger::from_json("{}").unwrap_err(), LedgerError::Malformed("violations"));
        let other = Ledger::default().to_json().replace("fault: power lost", "fault: hail");
        assert_eq!(Ledger::from_json(&other).unwrap_err(), LedgerError::UnknownCount("fault: hail".to_owned()));
    }
}
