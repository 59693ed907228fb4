//! Seeds that found a bug once, each with the bug, run as they found it.

use antiphon_simulator::{
    plan::{Fault, Reduction},
    run,
    trace::Detail,
};

#[test]
fn seeds_that_found_a_bug_find_none() {
    // As they were before there were more faults.
    let first = Reduction { without: Fault::later(), ..Reduction::default() };
    for (seed, bug) in [
        (1_067_999, "a resume put an older tail of a conversation back into the cache and left its last entries out"),
        (4_282, "a conversation found again answered history with an older last entry"),
        (13_419, "rot of the log took a removal with it, and the removed member was shown the conversation again"),
    ] {
        let violation = run(seed, &first, None, Detail::Hash).violation;
        assert_eq!(violation, None, "{bug}; repeat with: cargo xtask sim --seed {seed} --trace");
    }
    // As they were before stores could be encrypted.
    let plain = Reduction { without: Fault::of_encryption(), ..Reduction::default() };
    let list = "a list lacked the last entry of a conversation, since a flush had overtaken its reading";
    let violation = run(568, &plain, None, Detail::Hash).violation;
    assert_eq!(violation, None, "{list}; repeat with: cargo xtask sim --seed 568 --trace");
    let edited =
        "a page from the end down left out a run that is newer than one it read, and showed what an edit had replaced";
    let violation = run(1_810, &plain, None, Detail::Hash).violation;
    assert_eq!(violation, None, "{edited}; repeat with: cargo xtask sim --seed 1810 --trace");
    let leapt =
        "an id that was taken for one with a time, and a clock a year ahead, had everybody's ids refused as too old";
    let violation = run(8_004_581, &Reduction::default(), None, Detail::Hash).violation;
    assert_eq!(violation, None, "{leapt}; repeat with: cargo xtask sim --seed 8004581 --trace");
    let forgotten = "an id without a time was forgotten at once, since the clock had leapt before the first flush, and a retry stored";
    let violation = run(16_018_955, &Reduction::default(), None, Detail::Hash).violation;
    assert_eq!(violation, None, "{forgotten}; repeat with: cargo xtask sim --seed 16018955 --trace");
    let hidden = "rot of a batch hid all that was stored behind it, since the write of the log's limit beside it had gone astray";
    let violation = run(20_102_822, &Reduction::default(), None, Detail::Hash).violation;
    assert_eq!(violation, None, "{hidden}; repeat with: cargo xtask sim --seed 20102822 --trace");
    let empty =
        "a page was being read when a retention mark left nothing of it, and was empty though there were newer entries";
    let violation = run(20_303_385, &Reduction::default(), None, Detail::Hash).violation;
    assert_eq!(violation, None, "{empty}; repeat with: cargo xtask sim --seed 20303385 --trace");
    let undone = "a repaired store said that who was removed by a lost entry at the end had no row, and gave back roles and pins";
    let violation = run(42_014_431, &Reduction::default(), None, Detail::Hash).violation;
    assert_eq!(violation, None, "{undone}; repeat with: cargo xtask sim --seed 42014431 --trace");
    let lost = "a log file whose first batch never arrived was taken for one that was not used, with all that it held";
    for seed in [10_004_303, 10_043_711] {
        let violation = run(seed, &plain, None, Detail::Hash).violation;
        assert_eq!(violation, None, "{lost}; repeat with: cargo xtask sim --seed {seed} --trace");
    }
}
