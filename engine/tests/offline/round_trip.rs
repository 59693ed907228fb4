//! A dump, loaded into a new folder and dumped again, is the same bytes; what does not fit together is not loaded.

use antiphon_engine::{
    door::HistoryRange,
    memory_files::{MemoryClock, MemoryRandom},
    offline::LoadError,
};
use antiphon_wire::ids::{LanePosition, Sequence};
use proptest::{collection::vec, prelude::*};

use crate::{
    support::{Lane, small_options},
    tools::{assert_sound, dump, flush, group, lane, load, load_limited, step},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_dumped_is_what_is_loaded(
        steps in vec((any::<u8>(), any::<u64>()), 1..60),
        segment_bytes in prop_oneof![Just(1usize), Just(4_000), Just(1 << 26)],
    ) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
        }
        let lines = dump(&lane.files);
        let (files, loaded) = load(&lines, segment_bytes).unwrap();
        prop_assert_eq!(dump(&files), lines);
        let (before, after) = (assert_sound(&lane.files), assert_sound(&files));
        prop_assert_eq!((after.conversations, after.entries), (loaded.conversations, loaded.entries));
        prop_assert_eq!(
            (before.conversations, before.entries, before.user_rows, before.position),
            (after.conversations, after.entries, after.user_rows, after.position)
        );
    }
}

#[test]
fn a_loaded_store_goes_on_where_the_dump_ended() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    flush(&mut lane);
    let history = lane.whole_history("ann", id);
    let (files, _) = load(&dump(&lane.files), 1_000).unwrap();
    let clock = MemoryClock::new(5);
    let mut again = Lane::open(files, clock, MemoryRandom::new(9), small_options()).unwrap();
    assert_eq!((again.report.position, again.engine.store_id()), (LanePosition(9), lane.engine.store_id()));
    assert_eq!(again.whole_history("ann", id), history);
    // A message that was sent before is known, times do not go back, and what comes next follows.
    assert!(matches!(again.send("ann", id, 1, "one"), Ok(antiphon_engine::door::Done::Sent { duplicate: true, .. })));
    assert_eq!(again.sent("ann", id, 50, "more"), Sequence(9));
    let last = again.history("bob", id, HistoryRange::Latest, 2).unwrap();
    let times: Vec<u64> = last.entries.iter().map(|archive| crate::support::entry(archive).time_ms.0).collect();
    assert!(times[0] <= times[1], "{times:?}");
    let caught_up = again.catch_up("dan", 9, &[]).unwrap();
    assert_eq!(caught_up.entries.len(), 1, "positions are kept");
    assert_sound(&again.files);
}

#[test]
fn a_dump_can_be_read_by_people() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    let lines = dump(&lane.files);
    assert!(lines[0].starts_with(r#"{"lane":{"version":1,"lane":0,"store":""#), "{lines:?}");
    let about = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(about(&format!(r#"{{"conversation":{{"conversation":"{id}""#)), 1);
    assert_eq!((about(r#"{"member":"#), about(r#"{"pointer":"#), about(r#"{"entry":"#)), (3, 3, 8));
    assert_eq!((about(r#""text":"three""#), about(r#""removed":["cid"]"#), about(r#""archive""#)), (1, 1, 0));
    assert_eq!(lines.last().unwrap(), r#"{"end":{"lane":0,"conversations":1,"entries":8}}"#);
}

/// What loading says to a dump that was changed.
fn refused(lines: &[String]) -> String {
    match load(lines, 1 << 20) {
        Err(LoadError::Line { what, .. }) => what,
        other => panic!("{:?}", other.map(|(_, loaded)| loaded)),
    }
}

#[test]
fn a_dump_that_contradicts_itself_is_not_loaded() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    group(&mut lane, 2);
    let whole = dump(&lane.files);
    load(&whole, 1 << 20).unwrap();
    let at = |part: &str| whole.iter().position(|line| line.contains(part)).unwrap();
    let without = |part: &str| {
        let mut lines = whole.clone();
        lines.remove(at(part));
        lines
    };
    let with = |part: &str, from: &str, to: &str| {
        let mut lines = whole.clone();
        let line = &mut lines[at(part)];
        assert!(line.contains(from), "{line}");
        *line = line.replacen(from, to, 1);
        lines
    };
    for (lines, part) in [
        (without(r#""text":"two""#), "entries 3 to 3 are missing"),
        (without(r#""text":"four""#), "its line is not what its entries say"),
        (without(r#"{"member":"#), "its members are not those"),
        (without(r#"{"conversation":"#), "not of the conversation at hand"),
        (with(r#"{"lane":"#, r#""version":1"#, r#""version":2"#), "version 2 is not 1"),
        (with(r#"{"lane":"#, r#""store":""#, r#""store":"x"#), "sixteen hexadecimal digits"),
        (with(r#"{"lane":"#, r#""position":18"#, r#""position":8"#), "position is beyond the lane's"),
        (with(r#"{"end":"#, r#""entries":16"#, r#""entries":17"#), "lines are missing"),
        (with(r#"{"pointer":"#, r#""user":"ann""#, r#""user":"zoe""#), "the pointers of zoe do not fit"),
        (with(r#"{"pointer":"#, r#""delivered":8"#, r#""delivered":80"#), "the pointers of ann do not fit"),
        (with(r#""text":"two""#, r#""sender":"bob""#, r#""sender":"b b""#), "character"),
        (with(r#""text":"two""#, r#","text":"two""#, ""), "without what its kind consists of"),
        (with(r#""text":"two""#, r#""ordinal":2"#, r#""ordinal":3"#), "ordinal does not follow"),
        (with(r#""text":"two""#, r#""client_message_id":"02"#, r#""client_message_id":"01"#), "same client_message_id"),
        (
            with(r#"{"conversation":"#, r#""creator":"ann""#, r#""creator":"bob""#),
            "its line is not what its entries say",
        ),
    ] {
        let what = refused(&lines);
        assert!(what.contains(part), "{part}: {what}");
    }
    // Conversations in another order, and lines where none may be.
    let second = whole.iter().rposition(|line| line.starts_with(r#"{"conversation":"#)).unwrap();
    let end = whole.len() - 1;
    let swapped = [&whole[..1], &whole[second..end], &whole[1..second], &whole[end..]].concat();
    assert!(refused(&swapped).contains("order of their ids"));
    assert!(refused(&[&whole[..], &whole[end..]].concat()).contains("after the end"));
    let member = whole.iter().position(|line| line.starts_with(r#"{"member":"#)).unwrap();
    let late = [&whole[..second], &whole[member..=member], &whole[second..]].concat();
    assert!(refused(&late).contains("members and pointers stand before entries"));
    assert!(refused(&[whole[0].clone(), whole[0].clone()]).contains("has not ended"));
    assert!(refused(&whole[1..]).contains("begins with its lane line"));
}

#[test]
fn a_dump_of_more_segments_than_a_store_can_have_is_not_loaded() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    let lines = dump(&lane.files);
    let (files, _) = load(&lines, 1).unwrap();
    let segments = assert_sound(&files).segments as usize;
    assert!(segments > 4, "{segments}");
    load_limited(&lines, 1, segments).unwrap();
    let refused = load_limited(&lines, 1, segments - 1).map(drop).unwrap_err().to_string();
    assert!(refused.contains("larger than a store can take in at once"), "{refused}");
}
