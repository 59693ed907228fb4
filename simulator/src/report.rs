//! What a command prints: progress, a failure that can be repeated, and what was covered.

use std::fmt::Write as _;

use crate::{
    Outcome,
    coverage::{Count, Coverage},
    shrink::{Shrunk, arguments},
};

/// Longest line of a trace's tail.
const LINE_CHARACTERS_MAX: usize = 400;

/// Sums over runs.
#[derive(Debug, Default)]
pub struct Totals {
    /// Seeds that ran.
    pub seeds: u64,
    /// Events in them.
    pub events: u64,
    /// What was done and met.
    pub coverage: Coverage,
    /// In how many seeds.
    pub seeds_with: Coverage,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.coverage.join(&outcome.coverage);
        self.seeds_with.mark(&outcome.coverage);
    }

    /// Adds other runs' sums.
    pub fn join(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.coverage.join(&other.coverage);
        self.seeds_with.join(&other.seeds_with);
    }
}

/// One line while it runs: `of` are the seeds that were asked for, or else the minutes.
#[must_use]
pub fn progress(seeds: u64, seconds: f64, of: Result<u64, f64>) -> String {
    let rate = seeds as f64 * 60.0 / seconds.max(0.001);
    match of {
        Ok(of) => format!("{seeds} of {of} seeds, {rate:.0} a minute"),
        Err(minutes) => format!("{seeds} seeds in {:.1} of {minutes} minutes, {rate:.0} a minute", seconds / 60.0),
    }
}

/// The table of everything that was counted.
#[must_use]
pub fn table(totals: &Totals) -> String {
    let mut text = format!("{:<46} {:>13} {:>10}\n", "covered", "times", "in seeds");
    for (kind, name) in Count::ALL {
        let (count, seeds) = (totals.coverage.get(*kind), totals.seeds_with.get(*kind));
        let hole = if count == 0 { "   <- never" } else { "" };
        let _ = writeln!(text, "  {name:<44} {count:>13} {seeds:>10}{hole}");
    }
    text
}

/// What should have happened in so many seeds, and did not.
#[must_use]
pub fn never(totals: &Totals) -> Vec<&'static str> {
    let missing =
        Count::ALL.iter().filter(|(kind, _)| totals.coverage.get(*kind) == 0 && totals.seeds >= kind.within());
    missing.map(|(_, name)| *name).collect()
}

/// The last line.
#[must_use]
pub fn last_line(totals: &Totals, violations: u64, seconds: f64) -> String {
    let (of, coverage) = (|kind| totals.coverage.get(kind), &totals.coverage);
    let faults: u64 =
        Count::ALL.iter().filter(|(_, name)| name.starts_with("fault")).map(|(kind, _)| coverage.get(*kind)).sum();
    format!(
        "simulated: {} seeds, {} events, {} sends, {} acknowledged, {} entries delivered, {} read at the end, {} crashes and kills, \
         {faults} faults, {violations} violations, {seconds:.1} s, {:.0} seeds a minute",
        totals.seeds,
        totals.events,
        of(Count::Sends),
        of(Count::Acks),
        of(Count::Entries),
        of(Count::Audited),
        of(Count::Crashes) + of(Count::Kills),
        totals.seeds as f64 * 60.0 / seconds.max(0.001),
    )
}

/// A failing run: what broke, how to see it again, and the smaller run if there is one.
#[must_use]
pub fn failure(outcome: &Outcome, shrunk: Option<&Shrunk>, plant: &str) -> String {
    let mut text = String::new();
    let seed = outcome.seed;
    for line in outcome.tail.iter().map(|line| line.chars().take(LINE_CHARACTERS_MAX).collect::<String>()) {
        let _ = writeln!(text, "  {line}");
    }
    let violation = outcome.violation.as_deref().unwrap_or("nothing");
    let _ = writeln!(text, "seed {seed} breaks a promise: {violation}");
    let _ = writeln!(text, "repeat with: cargo xtask sim --seed {seed}{plant} --trace");
    if let Some(shrunk) = shrunk {
        let smaller = shrunk.outcome.violation.as_deref().unwrap_or("nothing");
        let _ = writeln!(text, "smaller, after {} runs: {smaller}", shrunk.runs);
        let _ =
            writeln!(text, "repeat with: cargo xtask sim --seed {seed}{plant}{} --trace", arguments(&shrunk.reduction));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_seeds_of_seeds_or_minutes_of_minutes() {
        assert_eq!(progress(1_997, 60.0, Ok(5_000)), "1997 of 5000 seeds, 1997 a minute");
        assert_eq!(progress(1_997, 42.0, Err(70.0)), "1997 seeds in 0.7 of 70 minutes, 2853 a minute");
    }
}
