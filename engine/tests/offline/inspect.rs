//! What inspecting shows.

use antiphon_engine::offline::{self, Neighbours};
use antiphon_wire::ids::LanePosition;

use crate::{
    support::block_on,
    tools::{LOG, flush, group, lane, verify},
};

#[test]
fn inspecting_shows_what_is_where_and_what_it_costs() {
    let mut lane = lane(1);
    let first = group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    let shown = block_on(offline::inspect(lane.files.clone(), 0_u16, true, |_| ())).unwrap();
    let (status, totals) = (lane.engine.status(), shown.totals.clone().unwrap());
    assert_eq!((shown.flushed_position, shown.segment_bytes), (status.flushed_position, status.segment_bytes));
    let [segment, ids] = shown.segments.as_slice() else { panic!("{shown:?}") };
    assert_eq!((&ids.range, ids.rows), (&(Neighbours::MessageIds, Neighbours::MessageIds), 4));
    assert_eq!(segment.range.0, Neighbours::Conversation(first));
    assert!(matches!(&segment.range.1, Neighbours::User(user) if user.as_str() == "dan"), "{segment:?}");
    assert!(segment.blocks >= 1 && segment.raw_bytes > 0 && segment.times.is_some() && segment.damage.is_none());
    let log = shown.log_files.iter().find(|file| file.file == LOG).unwrap();
    assert_eq!((log.generation, log.records, log.last, log.flushed), (1, 18, LanePosition(18), false), "{log:?}");
    assert!(log.batches >= 18 && log.used_bytes == log.batches * 4096);
    let report = verify(&lane.files);
    assert_eq!((totals.conversations, totals.entries), (report.conversations, report.entries));
    assert_eq!((totals.conversations, totals.direct, totals.entries, totals.messages), (2, 0, 16, 8));
    assert_eq!((totals.members, totals.position), (6, LanePosition(18)));
    assert!(
        totals.archive_bytes > totals.body_bytes && totals.body_bytes > 0 && totals.row_bytes > totals.archive_bytes
    );
    assert!(totals.amplification_percent > 100, "pages are mostly empty here");

    lane.files.flip_bit(&segment.file, 3, 1);
    let shown = block_on(offline::inspect(lane.files.clone(), 0_u16, false, |_| ())).unwrap();
    assert!(shown.segments[0].damage.is_some() && shown.totals.is_none());
}

#[test]
fn damage_that_totals_lack_is_counted() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let damaged = |places: &[(&str, u64)]| {
        let files = lane.files.crash_image(1);
        places.iter().for_each(|(name, at)| assert!(files.flip_bit(name, *at, 1)));
        block_on(offline::inspect(files, 0_u16, true, |_| ())).unwrap().totals.unwrap().damaged
    };
    assert_eq!(damaged(&[]), 0);
    assert_eq!(damaged(&[(&name, 3)]), 1, "a segment's header");
    assert_eq!(damaged(&[(&name, 4096 + 20)]), 1, "a block");
    assert_eq!(damaged(&[(LOG, 2 * 4096 + 20)]), 0, "segments hold it");
    assert_eq!(damaged(&[(&name, 4096 + 20), (LOG, 12 * 4096 + 20)]), 2, "a batch that segments do not hold");
}
