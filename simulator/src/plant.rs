//! Bugs that can be planted, to show that the simulator finds them. None exists in a normal build: some need the feature `planted`, which
//! compiles hooks into engine and gateway, the others are lies of the simulated disk.

use crate::{
    plan::{Fault, Plan, Reduction},
    run,
    trace::Detail,
};

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The disk says that a log write is durable when it was only submitted.
    AckBeforeSync,
    /// Entries are delivered to everybody who is online.
    NoMembershipCheck,
    /// After a restart nothing is known of the ids of messages stored before.
    IdempotencyLostAtRestart,
    /// A log write that failed is said to be done.
    FailedWriteAcknowledged,
    /// What a read gave by mistake is what stands there from then on.
    MisreadsStay,
    /// An operation that waited for a hung disk is never answered.
    HeldOperationForgotten,
    /// Blocks of segments are used whatever their checksum says.
    ChecksumsIgnored,
    /// The time of an entry is what the clock says, though it was set back.
    ClockTrusted,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeSync,
        Self::NoMembershipCheck,
        Self::IdempotencyLostAtRestart,
        Self::FailedWriteAcknowledged,
        Self::MisreadsStay,
        Self::HeldOperationForgotten,
        Self::ChecksumsIgnored,
        Self::ClockTrusted,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::NoMembershipCheck => "no-membership-check",
            Self::IdempotencyLostAtRestart => "idempotency-lost-at-restart",
            Self::FailedWriteAcknowledged => "failed-write-acknowledged",
            Self::MisreadsStay => "misreads-stay",
            Self::HeldOperationForgotten => "held-operation-forgotten",
            Self::ChecksumsIgnored => "checksums-ignored",
            Self::ClockTrusted => "clock-trusted",
        }
    }
}

impl Plant {
    /// The faults of which a run must have one to show it; none if any run may.
    fn shown_by(self) -> &'static [Fault] {
        match self {
            Self::AckBeforeSync | Self::NoMembershipCheck | Self::IdempotencyLostAtRestart => &[],
            Self::FailedWriteAcknowledged => &[Fault::WriteError, Fault::LateWrite],
            Self::MisreadsStay => &[Fault::MisdirectRead],
            Self::HeldOperationForgotten => &[Fault::Hang],
            Self::ChecksumsIgnored => {
                &[Fault::FlipSegment, Fault::FlipOther, Fault::MisdirectWrite, Fault::MisdirectRead]
            }
            Self::ClockTrusted => &[Fault::ClockJump, Fault::ClockStop],
        }
    }

    fn may_show(self, seed: u64) -> bool {
        let (faults, plan) = (self.shown_by(), Plan::new(seed, &Reduction::default()));
        faults.is_empty() || faults.iter().any(|fault| plan.rate(*fault) > 0)
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

/// Plants a bug and runs seeds until it is found, `rounds` times, each from another first seed on. Seeds that can't show it count, but need
/// not run.
#[must_use]
pub fn hunt(plant: Plant, rounds: u64, seeds_max: u64) -> Found {
    let mut found = Found::default();
    for round in 0..rounds {
        let first = round * 1_000_000;
        let mut outcomes = (first..first + seeds_max)
            .filter(|seed| plant.may_show(*seed))
            .map(|seed| run(seed, &Reduction::default(), Some(plant), Detail::Hash));
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
        antiphon_engine::planted::ignore_checksums(plant == Some(Plant::ChecksumsIgnored));
        antiphon_engine::planted::trust_the_clock(plant == Some(Plant::ClockTrusted));
    }
    #[cfg(not(feature = "planted"))]
    let _ = plant;
}

/// Whether this build can plant it.
#[must_use]
pub fn is_available(plant: Plant) -> bool {
    let of_the_disk = matches!(
        plant,
        Plant::AckBeforeSync | Plant::FailedWriteAcknowledged | Plant::MisreadsStay | Plant::HeldOperationForgotten
    );
    of_the_disk || cfg!(feature = "planted")
}
