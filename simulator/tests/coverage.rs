//! A fault or a state that is never met is told, and how soon it should have been.

use antiphon_simulator::{
    coverage::Count,
    plan::Reduction,
    report::{Totals, never, table},
    run,
    trace::Detail,
};

#[test]
fn what_never_happens_is_told_when_there_were_seeds_enough() {
    let mut totals = Totals::default();
    assert_eq!(never(&totals), [""; 0], "no seeds, no holes");
    totals.seeds = Count::Sends.within();
    assert!(never(&totals).contains(&"sends"));
    for seed in 0..5 {
        totals.add(&run(seed, &Reduction::default(), None, Detail::Hash));
    }
    assert!(totals.seeds_with.get(Count::Sends) <= 5 && totals.coverage.get(Count::Sends) > 5);
    assert!(!never(&totals).contains(&"sends"));
    totals.seeds = u64::MAX;
    let holes = never(&totals);
    assert!(holes.len() > 5 && holes.iter().all(|hole| table(&totals).contains(hole)));
    let zero = Count::ALL.iter().filter(|(kind, _)| totals.coverage.get(*kind) == 0).count();
    assert_eq!(holes.len(), zero);
}
