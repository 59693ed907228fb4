//! A flush moves every conversation, wherever its id falls among the buckets that are sorted one by one.

mod support;

use support::Lane;

/// Ids are digests: so many leave no bucket of 256 empty but by a chance that these names don't take.
const CONVERSATIONS: usize = 2_000;

#[test]
fn a_flush_moves_every_conversation() {
    let mut lane = Lane::new(1);
    let mut first_bytes = vec![false; 256];
    let mut made = Vec::new();
    for number in 0..CONVERSATIONS {
        let peer = format!("peer-{number}");
        let id = lane.create_direct("ann", &peer);
        lane.outputs.clear();
        first_bytes[usize::from(id.0[0])] = true;
        made.push((peer, id));
    }
    assert!(first_bytes[0] && first_bytes[255], "the first and the last bucket are used");
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    assert_eq!(lane.engine.status().flushed_position, lane.engine.position());
    lane.reopen();
    for (peer, id) in &made {
        assert_eq!(lane.whole_history(peer, *id).len(), 1, "{peer}");
        lane.outputs.clear();
    }
}
