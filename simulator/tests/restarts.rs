//! A node that can't open its store is started again as a supervisor would: with a pause that grows, not over and over.

use antiphon_simulator::{
    coverage::Count,
    plan::{Fault, Reduction},
    run,
    trace::Detail,
};

#[test]
fn a_node_that_cannot_open_is_not_started_over_and_over() {
    let mut refused = 0;
    // Seeds that destroy what opening needs, for good.
    for seed in [2_300, 2_408, 7_211, 7_274] {
        let outcome = run(seed, &Reduction { without: Fault::later(), ..Reduction::default() }, None, Detail::Hash);
        assert_eq!(outcome.violation, None, "seed {seed}");
        let of_seed = outcome.coverage.get(Count::OpenRefused);
        assert!(of_seed <= 30, "seed {seed}: {of_seed} lanes were not opened");
        refused += of_seed;
    }
    assert!(refused > 0, "these seeds are of no use any more");
}
