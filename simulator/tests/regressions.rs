//! Seeds that found a bug once, each with the bug, run as they found it.

use antiphon_simulator::{
    plan::{Fault, Reduction},
    run,
    shrink::arguments,
    trace::Detail,
};

#[test]
fn seeds_that_found_a_bug_find_none() {
    let text_only = Reduction { text_only: true, ..Reduction::default() };
    // As they were before there were more faults, and before stores could be encrypted.
    let first = Reduction { without: Fault::later(), ..text_only };
    let plain = Reduction { without: Fault::of_encryption(), ..text_only };
    let unused =
        "a log file whose first batch never arrived was taken for one that was not used, with all that it held";
    for (seed, of, bug) in [
        (
            1_067_999,
            first,
            "a resume put an older tail of a conversation back into the cache and left its last entries out",
        ),
        (4_282, first, "a conversation found again answered history with an older last entry"),
        (
            13_419,
            first,
            "rot of the log took a removal with it, and the removed member was shown the conversation again",
        ),
        (568, plain, "a list lacked the last entry of a conversation, since a flush had overtaken its reading"),
        (
            1_810,
            plain,
            "a page from the end down left out a run that is newer than one it read, and showed what an edit had replaced",
        ),
        (10_004_303, plain, unused),
        (10_043_711, plain, unused),
        (
            8_004_581,
            text_only,
            "an id that was taken for one with a time, and a clock a year ahead, had everybody's ids refused as too old",
        ),
        (
            16_018_955,
            text_only,
            "an id without a time was forgotten at once, since the clock had leapt before the first flush, and a retry stored",
        ),
        (
            20_102_822,
            text_only,
            "rot of a batch hid all that was stored behind it, since the write of the log's limit beside it had gone astray",
        ),
        (
            20_303_385,
            text_only,
            "a page was being read when a retention mark left nothing of it, and was empty though there were newer entries",
        ),
        (
            42_014_431,
            text_only,
            "a repaired store said that who was removed by a lost entry at the end had no row, and gave back roles and pins",
        ),
    ] {
        let violation = run(seed, &of, None, Detail::Hash).violation;
        let arguments = arguments(&of);
        assert_eq!(violation, None, "{bug}; repeat with: cargo xtask sim --seed {seed}{arguments} --trace");
    }
}
