//! Makes a failing run smaller: leaves out faults, steps and clients as long as the same seed fails in some way.

use crate::{
    Outcome,
    plan::{Fault, Plan, Reduction},
    plant::Plant,
    run,
    trace::Detail,
};

/// A smaller run that fails.
#[derive(Debug)]
pub struct Shrunk {
    /// What was left out.
    pub reduction: Reduction,
    /// The run.
    pub outcome: Outcome,
    /// Runs that it took.
    pub runs: u32,
}

/// Shrinks a failing seed.
#[must_use]
pub fn shrink(seed: u64, plant: Option<Plant>) -> Shrunk {
    let mut best = Reduction::default();
    let mut runs = 0;
    let mut fails = |reduction: &Reduction| {
        runs += 1;
        run(seed, reduction, plant, Detail::Hash).violation.is_some()
    };
    for (index, _) in Fault::ALL.iter().enumerate() {
        let fewer = Reduction { without: best.without | (1 << index), ..best };
        if Plan::new(seed, &best).faults[index] > 0 && fails(&fewer) {
            best = fewer;
        }
    }
    let one_lane = Reduction { one_lane: true, ..best };
    if fails(&one_lane) {
        best = one_lane;
    }
    let text_only = Reduction { text_only: true, ..best };
    if Plan::new(seed, &best).contents_per_thousand > 0 && fails(&text_only) {
        best = text_only;
    }
    for clients_max in 1..Plan::new(seed, &best).clients.len() as u32 {
        let fewer = Reduction { clients_max, ..best };
        if fails(&fewer) {
            best = fewer;
            break;
        }
    }
    let mut steps_max = Plan::new(seed, &best).steps;
    while steps_max > 1 {
        let shorter = [steps_max / 2, steps_max * 3 / 4, steps_max - 1]
            .into_iter()
            .find(|steps_max| *steps_max > 0 && fails(&Reduction { steps_max: *steps_max, ..best }));
        let Some(shorter) = shorter else { break };
        (steps_max, best.steps_max) = (shorter, shorter);
    }
    let outcome = run(seed, &best, plant, Detail::Tail);
    Shrunk { reduction: best, outcome, runs }
}

/// The reduction as arguments of the command line.
#[must_use]
pub fn arguments(reduction: &Reduction) -> String {
    let mut text = String::new();
    for (index, fault) in Fault::ALL.iter().enumerate() {
        if reduction.without & (1 << index) != 0 {
            text.push_str(&format!(" --without {}", fault.name()));
        }
    }
    if reduction.steps_max > 0 {
        text.push_str(&format!(" --steps {}", reduction.steps_max));
    }
    if reduction.clients_max > 0 {
        text.push_str(&format!(" --clients {}", reduction.clients_max));
    }
    if reduction.one_lane {
        text.push_str(" --one-lane");
    }
    if reduction.text_only {
        text.push_str(" --text-only");
    }
    text
}
