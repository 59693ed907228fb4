//! Bugs that can be planted, to show that the simulator finds them. None exists in a normal build: two need the feature `planted`, which
//! compiles hooks into engine and gateway, and the third is a lie of the simulated disk.

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
