//! Several rigs side by side: each a run of its own, on images and mounts of its own, with a seed that follows from the
//! run's and a share of its cuts. They share a board, on which each keeps its figures, and nothing else.
//!
//! A cut waits for the kernel most of the time (mounts that come and go, a device that ends); meanwhile others work.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use antiphon_simulator::dice::Dice;

use super::{
    RunArguments,
    run::{Run, RunError},
    tally::Tally,
};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What the rigs of a run tell.
pub(crate) struct Board {
    cuts: u64,
    figures: Mutex<Figures>,
    failed: AtomicBool,
}

struct Figures {
    /// By the number of the rig.
    tallies: Vec<Tally>,
    told_at: Instant,
}

impl Board {
    fn new(arguments: &RunArguments) -> Self {
        let tallies = (0..arguments.rigs).map(|_| Tally::new(arguments.file_system)).collect();
        let figures = Mutex::new(Figures { tallies, told_at: Instant::now() });
        Self { cuts: arguments.cuts, figures, failed: AtomicBool::new(false) }
    }

    /// A rig's figures so far. Now and then a line tells everybody's.
    pub(crate) fn tell(&self, rig: usize, tally: &Tally) {
        let mut figures = self.figures();
        figures.tallies[rig] = tally.clone();
        if figures.told_at.elapsed() >= PROGRESS_INTERVAL {
            figures.told_at = Instant::now();
            println!("{}", figures.sum().progress(self.cuts));
        }
    }

    /// Some rig's run has failed: the others end.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether one has.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    fn sum(&self) -> Tally {
        let (first, others) = self.tallies.split_first().expect("a run has a rig");
        let mut sum = first.clone();
        others.iter().for_each(|other| sum.join(other));
        sum
    }
}

/// Runs all rigs to their end. The error is a broken promise if there is one.
pub(crate) fn run(arguments: &RunArguments, folder: &Path) -> (Tally, Result<(), RunError>) {
    let board = Board::new(arguments);
    let results: Vec<Result<(), RunError>> = thread::scope(|scope| {
        let rigs: Vec<_> = (0..arguments.rigs)
            .map(|rig| {
                let (board, folder) = (&board, folder.join(format!("rig-{rig:02}")));
                let arguments = of_rig(arguments, rig);
                scope.spawn(move || {
                    // Another rig's run must end, too, if this one can't begin.
                    let run = Run::new(arguments, folder).inspect_err(|_| board.fail())?;
                    run.run(usize::from(rig), board)
                })
            })
            .collect();
        rigs.into_iter().map(|rig| rig.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let failures = results.into_iter().filter_map(Result::err);
    // `min_by_key` gives the first of equals.
    let worst = failures.min_by_key(|error| !matches!(error, RunError::Violation(_)));
    let sum = board.figures().sum();
    (sum, worst.map_or(Ok(()), Err))
}

/// What one rig is told: the first has the run's own seed, so that each can be run alone by the seed that it tells.
fn of_rig(arguments: &RunArguments, rig: u16) -> RunArguments {
    let (cuts, rigs, number) = (arguments.cuts, u64::from(arguments.rigs), u64::from(rig));
    let seed = match rig {
        0 => arguments.seed,
        rig => Dice::new(arguments.seed, &format!("rig {rig}")).number(),
    };
    RunArguments { seed, cuts: cuts / rigs + u64::from(number < cuts % rigs), ..arguments.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;

    #[test]
    fn rigs_share_the_cuts_and_have_seeds_of_their_own() {
        let words = ["antiphon-power-cuts", "--cuts", "22", "--rigs", "4", "--seed", "9"];
        let arguments = crate::Arguments::parse_from(words).run;
        let rigs: Vec<_> = (0..4).map(|rig| of_rig(&arguments, rig)).collect();
        assert_eq!(rigs.iter().map(|rig| rig.cuts).collect::<Vec<_>>(), [6, 6, 5, 5]);
        assert_eq!(rigs[0].seed, 9);
        assert_eq!(rigs.iter().map(|rig| rig.seed).collect::<BTreeSet<_>>().len(), 4);
    }
}
