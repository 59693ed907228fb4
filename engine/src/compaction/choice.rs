//! Which runs to merge: a pure function of their sizes.
//!
//! Only neighbours in age are merged, so that newest-wins stays a matter of order. A window of runs is worth merging when its total
//! is at least [`Settings::growth`] times its largest run: then every row of it lands in a run `growth` times as large as the one
//! it came from, and is rewritten at most log(final ÷ flushed) ÷ log(growth) times. With the defaults and flushes of 8 MiB and
//! more (those of a memtable of 64 MiB are some 11) that is two merges, a write amplification of three with the flush; a run of
//! [`Settings::final_bytes`] is never touched again, unless it was adopted with rows of other lanes ([`choose_rewrite`]).
//! Of all such windows the cheapest is taken, the newest among equals.
//!
//! Many small runs that never add up (a nearly idle store that flushes by age) would slow reads down, so beyond
//! [`Settings::runs_max`] unfinished runs the growth asked for is halved, and halved again.

/// When and what to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A window's total must be at least this many times its largest run.
    pub growth: u64,
    /// At least so many runs are merged at once.
    pub inputs_min: usize,
    /// At most so many: each costs a read buffer of 256 KiB while the job runs.
    pub inputs_max: usize,
    /// A run of at least this size is not merged any more.
    pub final_bytes: u64,
    /// Beyond so many runs below `final_bytes`, smaller gains are good enough.
    pub runs_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { growth: 12, inputs_min: 4, inputs_max: 16, final_bytes: 1 << 30, runs_max: 24 }
    }
}

/// A run as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInfo {
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether it may be merged: not damaged, and not being merged already.
    pub mergeable: bool,
    /// Whether some of its rows do not count: it was adopted from a lane that had others, too.
    pub holds_others: bool,
}

/// A window of runs to merge, counted from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index of the newest run of the window.
    pub newest: usize,
    /// How many runs, from there to older ones.
    pub count: usize,
    /// Whether the window ends with the oldest run of all: then delete markers hide nothing and are dropped.
    pub reaches_oldest: bool,
}

/// What to merge of `newest_first`, or `None` if nothing is worth it.
#[must_use]
pub fn choose(newest_first: &[RunInfo], settings: &Settings) -> Option<Choice> {
    let open = newest_first.iter().filter(|run| run.mergeable && run.bytes < settings.final_bytes).count();
    let pressure = open / settings.runs_max.max(1);
    let growth = (settings.growth >> pressure.min(63)).max(1);
    let mut best: Option<(u64, Choice)> = None;
    for newest in 0..newest_first.len() {
        let Some((total, count)) = cheapest_from(&newest_first[newest..], growth, settings) else { continue };
        if best.as_ref().is_none_or(|(least, _)| total < *least) {
            let reaches_oldest = newest + count == newest_first.len();
            best = Some((total, Choice { newest, count, reaches_oldest }));
        }
    }
    best.map(|(_, choice)| choice)
}

/// A run to be written anew by itself where nothing is worth merging: the smallest with rows that do not count. Until every lane that has
/// adopted a file has done so, the file's room is not free.
#[must_use]
pub fn choose_rewrite(newest_first: &[RunInfo]) -> Option<Choice> {
    let others = newest_first.iter().enumerate().filter(|(_, run)| run.mergeable && run.holds_others);
    let (newest, _) = others.min_by_key(|(_, run)| run.bytes)?;
    Some(Choice { newest, count: 1, reaches_oldest: newest + 1 == newest_first.len() })
}

/// The shortest window worth merging that begins with the first of `runs`: (total, count).
fn cheapest_from(runs: &[RunInfo], growth: u64, settings: &Settings) -> Option<(u64, usize)> {
    let (mut total, mut largest) = (0u64, 0u64);
    let open = runs.iter().take_while(|run| run.mergeable && run.bytes < settings.final_bytes);
    for (index, run) in open.take(settings.inputs_max).enumerate() {
        total = total.saturating_add(run.bytes);
        largest = largest.max(run.bytes);
        if index + 1 >= settings.inputs_min.max(2) && total >= growth.saturating_mul(largest) {
            return Some((total, index + 1));
        }
    }
    None
}

/// A run as reclaiming sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErasingInfo {
    /// Since when it has rows that erase what older runs say; `None` without any, and if all of it is reclaimed.
    pub since: Option<u64>,
    /// Whether it may be written anew: not damaged, and not being merged.
    pub mergeable: bool,
}

/// Whose erased rows are to be reclaimed next: the oldest run that has had some since before this time. `None` if there is none, which is
/// all that it costs where nothing is erased.
#[must_use]
pub fn choose_reclaim(newest_first: &[ErasingInfo], before: u64) -> Option<usize> {
    newest_first.iter().rposition(|run| run.mergeable && run.since.is_some_and(|since| since < before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn runs(sizes: &[u64]) -> Vec<RunInfo> {
        sizes.iter().map(|mib| RunInfo { bytes: mib * MIB, mergeable: *mib > 0, holds_others: false }).collect()
    }

    const fn run(bytes: u64) -> RunInfo {
        RunInfo { bytes, mergeable: true, holds_others: false }
    }

    #[test]
    fn what_holds_rows_of_others_is_written_anew_the_smallest_first() {
        let mut runs = runs(&[10, 3000, 0, 7, 5]);
        assert_eq!(choose_rewrite(&runs), None);
        for index in [1, 2, 3] {
            runs[index].holds_others = true;
        }
        let chosen = |runs: &[RunInfo]| choose_rewrite(runs).map(|of| (of.newest, of.count, of.reaches_oldest));
        assert_eq!(chosen(&runs), Some((3, 1, false)), "what may not be merged is left alone");
        runs[3].holds_others = false;
        assert_eq!(chosen(&runs), Some((1, 1, false)), "however large it is");
        runs[4].holds_others = true;
        assert_eq!(chosen(&runs), Some((4, 1, true)));
    }

    #[test]
    fn windows() {
        for (sizes, expected) in [
            (&[10; 11][..], None),
            (&[10; 12], Some((0, 12, true))),
            (&[10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 120], Some((0, 12, false))),
            // Small ones between large ones do not stand in the way.
            (&[10, 10, 1, 10, 10, 1, 10, 10, 10, 1, 10, 10, 10, 10, 10], Some((0, 15, true))),
            // A finished run, and one that may not be merged (0), part the windows.
            (&[10, 10, 10, 10, 10, 10, 2000, 10, 10, 10, 10, 10, 10], None),
            (&[10, 10, 10, 10, 10, 10, 0, 10, 10, 10, 10, 10, 10], None),
            (&[10, 10, 2000, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10], Some((3, 12, true))),
            (&[], None),
        ] {
            let choice = choose(&runs(sizes), &Settings::default());
            let found = choice.map(|choice| (choice.newest, choice.count, choice.reaches_oldest));
            assert_eq!(found, expected, "{sizes:?}");
        }
    }

    #[test]
    fn the_oldest_run_that_erases_comes_first_when_its_time_has_come() {
        let run = |since: u64| ErasingInfo { since: Some(since).filter(|since| *since > 0), mergeable: true };
        let damaged = ErasingInfo { mergeable: false, ..run(1) };
        for (runs, before, expected) in [
            (&[run(9), run(5), run(7), run(0)][..], 8, Some(2)),
            (&[run(9), run(5), run(8), run(0)], 8, Some(1)),
            (&[run(9), run(8)], 8, None),
            (&[run(3), damaged], 8, Some(0)),
            (&[run(0), run(0)], u64::MAX, None),
            (&[], 8, None),
        ] {
            assert_eq!(choose_reclaim(runs, before), expected, "{runs:?}");
        }
    }

    #[test]
    fn an_append_only_load_is_written_three_times_at_most() {
        let settings = Settings::default();
        for flush_mib in [8, 11, 16, 28, 64] {
            let mut sizes: Vec<RunInfo> = Vec::new();
            let (mut flushed, mut written, mut most) = (0, 0, 0);
            for _ in 0..3000 {
                sizes.insert(0, run(flush_mib * MIB));
                flushed += flush_mib * MIB;
                written += flush_mib * MIB;
                while let Some(choice) = choose(&sizes, &settings) {
                    let window = choice.newest..choice.newest + choice.count;
                    let total: u64 = sizes[window.clone()].iter().map(|run| run.bytes).sum();
                    sizes.splice(window, [run(total)]);
                    written += total;
                }
                most = most.max(sizes.iter().filter(|run| run.bytes < settings.final_bytes).count());
            }
            let amplification = written as f64 / flushed as f64;
            assert!(amplification <= 3.0, "flushes of {flush_mib} MiB: {amplification}");
            assert!(most <= 24, "flushes of {flush_mib} MiB: {most} unfinished runs");
        }
    }

    #[test]
    fn tiny_flushes_for_ever_keep_the_runs_few() {
        let settings = Settings::default();
        let mut sizes: Vec<RunInfo> = Vec::new();
        let mut most = 0;
        for step in 0..20_000u64 {
            sizes.insert(0, run(4096 + (step * 7919) % 50_000));
            while let Some(choice) = choose(&sizes, &settings) {
                let window = choice.newest..choice.newest + choice.count;
                let total: u64 = sizes[window.clone()].iter().map(|run| run.bytes).sum();
                sizes.splice(window, [run(total)]);
            }
            most = most.max(sizes.len());
        }
        assert!(most <= 48, "{most} runs");
    }
}
