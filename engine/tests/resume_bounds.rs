//! Where a resume ends: at the lane's position, and at the most that is streamed of one conversation.

mod support;

use antiphon_wire::{codes::ErrorCode, ids::Sequence, limits::RESUME_ENTRIES_PER_CONVERSATION_MAX};
use support::{Lane, entry};

#[test]
fn a_position_beyond_the_end_is_refused() {
    let mut lane = Lane::new(1);
    let conversation = lane.create_direct("ann", "bob");
    lane.sent("ann", conversation, 1, "hello");
    let end = lane.engine.position().0;
    assert!(lane.catch_up("bob", end, &[]).unwrap().entries.is_empty());
    for beyond in [end + 1, end + 1_000, u64::MAX] {
        assert_eq!(lane.catch_up("bob", beyond, &[]).unwrap_err().code, ErrorCode::Invalid, "{beyond}");
    }
}

/// Up to the most, all is streamed; one more, and the conversation is named instead, with nothing of it given.
#[test]
fn too_much_is_named_and_never_given_in_part() {
    let most = RESUME_ENTRIES_PER_CONVERSATION_MAX as u64;
    for flushed in [false, true] {
        let mut lane = Lane::new(2);
        let conversation = lane.create_direct("ann", "bob");
        let other = lane.create_direct("ann", "cid");
        let start = lane.engine.position().0;
        for number in 0..=most {
            lane.sent("ann", conversation, number, "hello");
        }
        lane.sent("ann", other, 1, "elsewhere");
        if flushed {
            lane.clock.advance(2_000_000);
            lane.engine.tick();
            lane.settle();
            assert_eq!(lane.engine.status().flushed_position, lane.engine.position());
        }
        let all = lane.catch_up("bob", start + 1, &[]).unwrap();
        let sequences: Vec<u64> = all.entries.iter().map(|archive| entry(archive).sequence.0).collect();
        assert_eq!(sequences, (3..=most + 2).collect::<Vec<_>>(), "flushed: {flushed}");
        assert!(all.too_far.is_empty());
        let too_much = lane.catch_up("ann", start, &[]).unwrap();
        assert!(too_much.entries.iter().all(|archive| entry(archive).conversation == other), "flushed: {flushed}");
        assert_eq!(too_much.entries.len(), 1);
        let [too_far] = too_much.too_far.as_slice() else { panic!("{too_much:?}") };
        assert_eq!(
            (too_far.conversation, too_far.first, too_far.last),
            (conversation, Sequence(1), Sequence(most + 2))
        );
    }
}
