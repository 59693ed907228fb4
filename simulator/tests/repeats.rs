//! One seed is one run: a second one is the same to the last byte.

use antiphon_simulator::{plan::Reduction, run, trace::Detail};

/// Enough that every theme of a plan is among them.
const SEEDS: u64 = 24;

#[test]
fn the_same_seed_makes_the_same_trace() {
    let mut hashes = Vec::new();
    for seed in 0..SEEDS {
        let once = run(seed, &Reduction::default(), None, Detail::Hash);
        let twice = run(seed, &Reduction::default(), None, Detail::Tail);
        assert_eq!(once.violation, None, "repeat with: cargo xtask sim --seed {seed} --trace");
        assert_eq!((once.hash, once.events), (twice.hash, twice.events), "seed {seed}");
        hashes.push(once.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len() as u64, SEEDS, "two seeds made one trace");
}
