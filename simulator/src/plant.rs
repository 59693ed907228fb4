//! Bugs that can be planted, to show that the simulator finds them. None exists in a normal build: two need the feature `planted`, which
//! compiles hooks into engine and gateway, and the third is a lie of the simulated disk.

use crate::{plan::Reduction, run, trace::Detail};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The disk says that a log write is durable when it was only submitted.
    AckBeforeSync,
    /// Entries are delivered to everybody who is online.
    NoMembershipCheck,
    /// After a restart nothing is known of the ids of messages stored before.
    IdempotencyLostAtRestart,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AckBeforeSync, Self::NoMembershipCheck, Self::IdempotencyLostAtRestart];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::NoMembershipCheck => "no-membership-check",
            Self::IdempotencyLostAtRestart => "idempotency-lost-at-restart",
        }
    }
}

/// How soon a planted bug was found, from several first seeds on.
#[derive(Debug, Default)]
pub struct Found {
    /// By first seed: seeds until it was found; `None` if it was not.
    pub after: Vec<Option<u64>>,
    /// What the last finding said.
    pub violation: String,
}

/// Plants a bug and runs seeds until it is found, `rounds` times, each from another first seed on.
#[must_use]
pub fn hunt(plant: Plant, rounds: u64, seeds_max: u64) -> Found {
    let mut found = Found::default();
    for round in 0..rounds {
        let first = round * 1_000_000;
        let mut outcomes =
            (first..first + seeds_max).map(|seed| run(seed, &Reduction::default(), Some(plant), Detail::Hash));
        let hit = outcomes.find(|outcome| outcome.violation.is_some());
        found.after.push(hit.as_ref().map(|outcome| outcome.seed - first + 1));
        found.violation = hit.and_then(|outcome| outcome.violation).unwrap_or(found.violation);
    }
    found
}

/// Switches the hooks of a run on this thread.
pub fn arm(plant: Option<Plant>) {
    #[cfg(feature = "planted")]
    {
        antiphon_gateway::core::planted::deliver_to_everybody(plant == Some(Plant::NoMembershipCheck));
        antiphon_engine::planted::forget_idempotency_at_open(plant == Some(Plant::IdempotencyLostAtRestart));
    }
    #[cfg(not(feature = "planted"))]
    let _ = plant;
}

/// Whether this build can plant it.
#[must_use]
pub fn is_available(plant: Plant) -> bool {
    plant == Plant::AckBeforeSync || cfg!(feature = "planted")
}
