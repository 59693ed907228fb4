//! Damage in segments is told: what opening finds is in its report, what reads meet is counted, and both say so to whoever asks for it.

mod support;

use antiphon_engine::{door::HistoryRange, error::StoreError, memory_files::MemoryFiles};
use antiphon_wire::{codes::ErrorCode, ids::ConversationId};
use support::Lane;

/// A lane with everything in one segment, and the segment's name.
fn flushed() -> (Lane, ConversationId, String) {
    let mut lane = Lane::new(1);
    lane.options.memtable_age_ms_max = 1;
    lane.reopen();
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..20 {
        lane.sent("ann", conversation, number, "0123456789");
    }
    lane.clock.set(2_000_000);
    lane.engine.tick();
    lane.settle_queued();
    assert_eq!((lane.engine.status().memtable_bytes, lane.engine.status().segments), (0, 2), "message ids have one");
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).expect("a segment");
    (lane, conversation, name)
}

fn opened_after(lane: &Lane, damage: impl FnOnce(&MemoryFiles)) -> Lane {
    let files = lane.files.crash_image(1);
    damage(&files);
    lane.opened_again(files).expect("a damaged segment does not keep the lane from opening")
}

fn told(lane: &mut Lane, conversation: ConversationId) -> ErrorCode {
    lane.history("ann", conversation, HistoryRange::Latest, 50).expect_err("it cannot be read").code
}

#[test]
fn a_segment_that_cannot_be_read_is_in_the_report_of_opening() {
    let (lane, conversation, name) = flushed();
    let mut lane = opened_after(&lane, |files| {
        let length = files.contents(&name).expect("a segment").len() as u64;
        assert!(files.flip_bit(&name, length - 4096 + 20, 1), "in the footer");
    });
    let [StoreError::Damaged { file, .. }] = lane.report.segments_damaged.as_slice() else {
        panic!("{:?}", lane.report)
    };
    assert_eq!(*file, name);
    assert!(!lane.report.read_only, "the log is whole: the lane stores");
    assert_eq!((lane.engine.status().segments_damaged, lane.engine.status().log_damaged), (1, 0));
    assert_eq!(told(&mut lane, conversation), ErrorCode::Damaged);
}

#[test]
fn a_damaged_block_is_counted_when_it_is_met() {
    let (lane, conversation, name) = flushed();
    let mut lane = opened_after(&lane, |files| assert!(files.flip_bit(&name, 4096 + 30, 1), "in the first block"));
    assert!(lane.report.segments_damaged.is_empty(), "opening reads no data");
    assert_eq!(lane.engine.status().blocks_damaged, 0);
    assert_eq!(told(&mut lane, conversation), ErrorCode::Damaged);
    let met = lane.engine.status().blocks_damaged;
    assert!(met > 0);
    assert_eq!(told(&mut lane, conversation), ErrorCode::Damaged);
    assert!(lane.engine.status().blocks_damaged > met, "it is met again");
}

#[test]
fn what_an_interrupted_flush_left_is_in_the_report() {
    let (lane, _, _) = flushed();
    let lane = opened_after(&lane, |files| files.put("segment-00000000000000ff", vec![0; 4096]));
    assert_eq!(lane.report.leftovers_removed, ["segment-00000000000000ff"]);
    assert!(lane.report.segments_damaged.is_empty());
}
