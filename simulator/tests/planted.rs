//! Bugs that are planted are found, and what finds them can be made smaller. Those that need hooks run with `--features planted`.

use antiphon_simulator::{
    plan::Reduction,
    plant::{Plant, hunt, is_available},
    run,
    shrink::shrink,
    trace::Detail,
};

#[test]
fn every_planted_bug_is_found_soon() {
    for plant in Plant::ALL.into_iter().filter(|plant| is_available(*plant)) {
        // Those that one kind of fault shows need seeds that have it.
        let found = hunt(plant, 2, 5_000);
        assert!(found.after.iter().all(Option::is_some), "{plant:?}: {found:?}");
    }
}

#[test]
fn a_failing_seed_shrinks_and_fails_still() {
    let plant = Plant::AckBeforeSync;
    let fails = |seed: &u64| run(*seed, &Reduction::default(), Some(plant), Detail::Hash).violation.is_some();
    let seed = (0..100).find(fails).expect("a planted bug is found");
    let shrunk = shrink(seed, Some(plant));
    assert!(shrunk.outcome.violation.is_some() && shrunk.reduction != Reduction::default(), "seed {seed}: {shrunk:?}");
}
