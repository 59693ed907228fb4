//! A deterministic simulation of whole nodes: the same `engine` and `gateway::core` as in production, with clients of `wire::session`, on a
//! virtual clock, a disk, a network and a mesh that fail as a seed has it. One seed is one run.
//!
//! Start at [`run`]; [`world::World`] is the loop, [`plan::Plan`] what a seed picks, [`model::Model`] and [`verdict`] what must hold.
//!
//! Must not do: read a clock, use a random source that is not seeded, or depend on the order of a hash map.

pub mod accounts;
pub mod answers;
pub mod changes;
pub mod clients;
pub mod contents;
pub mod copies;
pub mod coverage;
pub mod dice;
pub mod disk;
pub mod dump;
mod encrypted;
pub mod events;
pub mod faults;
pub mod files;
pub mod finish;
pub mod invites;
pub mod lasting;
pub mod ledger;
pub mod logins;
pub mod looks;
pub mod model;
pub mod network;
pub mod node;
pub mod plan;
pub mod plant;
pub mod presences;
pub mod receipts;
mod relane;
pub mod report;
pub mod rights;
pub mod shrink;
pub mod tasks;
pub mod tells;
pub mod trace;
pub mod verdict;
pub mod wires;
pub mod workload;
pub mod world;

use coverage::Coverage;
use plan::{Plan, Reduction};
use plant::Plant;
use trace::Detail;

/// What one run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash of all that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// What was done and met.
    pub coverage: Coverage,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// The last events before it, if they were kept.
    pub tail: Vec<String>,
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The seed that this thread runs or ran last, for whoever tells of a panic.
#[must_use]
pub fn seed_of_this_thread() -> u64 {
    SEED.get()
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, reduction: &Reduction, plant: Option<Plant>, detail: Detail) -> Outcome {
    let plan = Plan::new(seed, reduction);
    if detail == Detail::Print {
        println!("{plan:#?}");
    }
    plant::arm(plant);
    SEED.set(seed);
    let mut world = world::World::new(plan, detail, plant);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if let Err(panic) = panicked {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.model.fail(|| format!("panic: {}", text.unwrap_or_default()));
    }
    Outcome {
        seed,
        hash: world.trace.hash(),
        events: world.trace.events(),
        coverage: world.coverage.clone(),
        violation: world.model.violation.clone(),
        tail: world.trace.tail(),
    }
}
