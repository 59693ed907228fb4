//! What a resume tells of the user's own pointers, which another device may have moved meanwhile.

mod support;

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineOptions,
    door::{CaughtUp, Command, Done},
    memory_files::MemoryRandom,
};
use antiphon_wire::ids::{ConversationId, LanePosition, Sequence};
use support::{Lane, small_options, user};

fn read(lane: &mut Lane, name: &str, conversation: ConversationId, to: u64) {
    let (user, read) = (user(name), Some(Sequence(to)));
    let marked = lane.ask(Command::Mark { user, conversation, read, delivered: None }).unwrap();
    assert!(matches!(marked, Done::Marked { .. }));
}

fn pointers(caught_up: &CaughtUp) -> BTreeMap<ConversationId, (u64, u64)> {
    caught_up.pointers.iter().map(|(id, read, delivered)| (*id, (read.0, delivered.0))).collect()
}

fn flush(lane: &mut Lane) {
    lane.clock.advance(10_000_000);
    lane.engine.tick();
    lane.settle_queued();
}

#[test]
fn what_another_device_has_read_is_told_wherever_it_is() {
    for reopens in [false, true] {
        let mut lane = Lane::new(1);
        let ids: Vec<ConversationId> = (0..4).map(|key| lane.create_group("ann", key, &["bob"])).collect();
        for (number, id) in ids.iter().enumerate() {
            for key in 0..3 {
                lane.sent("ann", *id, number as u64 * 10 + key, "hello");
            }
        }
        let since = lane.engine.position().0;
        read(&mut lane, "bob", ids[0], 4);
        read(&mut lane, "bob", ids[1], 3);
        let mut expected = BTreeMap::from([(ids[0], (4, 4)), (ids[1], (3, 3))]);
        assert_eq!(pointers(&lane.catch_up("bob", since, &[]).unwrap()), expected, "in memory");
        flush(&mut lane);
        if reopens {
            lane.reopen();
        }
        assert_eq!(pointers(&lane.catch_up("bob", since, &[]).unwrap()), expected, "in segments");
        // Some in a segment, some in memory, one of them anew.
        let later = lane.engine.position().0;
        read(&mut lane, "bob", ids[1], 4);
        read(&mut lane, "bob", ids[2], 2);
        expected.extend([(ids[1], (4, 4)), (ids[2], (2, 2))]);
        let of_later = BTreeMap::from([(ids[1], (4, 4)), (ids[2], (2, 2))]);
        assert_eq!(pointers(&lane.catch_up("bob", since, &[]).unwrap()), expected);
        assert_eq!(pointers(&lane.catch_up("bob", later, &[]).unwrap()), of_later);
        let now = lane.engine.position().0;
        assert_eq!(pointers(&lane.catch_up("bob", now, &[]).unwrap()), BTreeMap::new(), "nothing has moved");
        // A flush that has marks and no entries.
        flush(&mut lane);
        assert_eq!(pointers(&lane.catch_up("bob", later, &[]).unwrap())[&ids[2]], (2, 2));
        assert_eq!(pointers(&lane.catch_up("bob", now, &[]).unwrap()), BTreeMap::new());
        // Of others' pointers nothing is told.
        assert!(!pointers(&lane.catch_up("ann", since, &[]).unwrap()).values().any(|of| *of == (2, 2)));
    }
}

#[test]
fn what_is_read_during_a_flush_is_told_as_it_is_now() {
    let mut lane = Lane::with_options(1, EngineOptions { memtable_age_ms_max: 1, ..small_options() });
    let id = lane.create_group("ann", 1, &["bob"]);
    for key in 0..3 {
        lane.sent("ann", id, key, "hello");
    }
    let since = lane.engine.position();
    read(&mut lane, "bob", id, 2);
    lane.files.set_queued(true);
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle();
    let (bob, delivered) = (user("bob"), None);
    let marked = lane.submit(Command::Mark { user: bob.clone(), conversation: id, read: Some(Sequence(4)), delivered });
    lane.settle_log();
    assert!(matches!(lane.answer(marked), Some(Ok(Done::Marked { .. }))));
    let resume = lane.submit(Command::CatchUp { user: bob, since: Some(since), known: Vec::new() });
    lane.settle_log();
    assert!(lane.engine.status().memtable_sealed_bytes > 0, "the flush is under way");
    let Some(Ok(Done::CaughtUp(caught_up))) = lane.answer(resume) else { panic!("it is answered from memory") };
    assert_eq!(pointers(&caught_up), BTreeMap::from([(id, (4, 4))]));
    lane.settle_queued();
}

#[test]
fn who_is_no_member_any_more_is_told_nothing() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", id, 1, "hello");
    let since = lane.engine.position().0;
    read(&mut lane, "bob", id, 2);
    lane.ask(Command::RemoveMembers { user: user("ann"), conversation: id, members: vec![user("bob")] }).unwrap();
    let caught_up = lane.catch_up("bob", since, &[]).unwrap();
    assert!(caught_up.pointers.is_empty() && caught_up.left == [(id, Sequence(3))]);
}

/// Whatever happened since a position: what has moved is told as it is now, by whatever flushes, restarts and crashes it came.
#[test]
fn whatever_happened_what_has_moved_is_told_as_it_is_now() {
    for seed in 0..30 {
        let random = MemoryRandom::new(seed);
        let mut lane = Lane::new(seed);
        let ids: Vec<ConversationId> = (0..6).map(|key| lane.create_group("ann", key, &["bob"])).collect();
        let mut now: BTreeMap<ConversationId, (u64, u64)> = BTreeMap::new();
        // When bob's pointers of each last moved.
        let mut moved: BTreeMap<ConversationId, u64> = BTreeMap::new();
        for step in 0..120_u64 {
            let id = ids[random.below(6) as usize];
            match random.below(12) {
                0..4 => drop(lane.sent("ann", id, step, "hello")),
                4..6 => {
                    let at = lane.sent("bob", id, step, "hello").0;
                    now.insert(id, (at, at));
                    moved.insert(id, lane.engine.position().0);
                }
                6..9 => {
                    let before = lane.engine.position().0;
                    let to = 1 + random.below(30);
                    let (user, read) = (user("bob"), Some(Sequence(to)));
                    let mark = Command::Mark { user, conversation: id, read, delivered: None };
                    if let Ok(Done::Marked { read, delivered, .. }) = lane.ask(mark)
                        && lane.engine.position().0 > before
                    {
                        now.insert(id, (read.0, delivered.0));
                        moved.insert(id, lane.engine.position().0);
                    }
                }
                9 => flush(&mut lane),
                10 if random.below(3) == 0 => lane.reopen(),
                10 => lane.crash(seed * 1_000 + step),
                _ => {
                    let since = random.below(lane.engine.position().0 + 1);
                    let told = pointers(&lane.catch_up("bob", since, &[]).unwrap());
                    for (id, at) in moved.iter().filter(|(_, at)| **at > since) {
                        assert_eq!(told.get(id), now.get(id), "seed {seed}, step {step}: moved at {at}, since {since}");
                    }
                    for (id, pointer) in &told {
                        assert!(now.get(id).is_none_or(|now| now == pointer), "seed {seed}, step {step}");
                    }
                }
            }
        }
        assert!(lane.engine.position() > LanePosition(40));
    }
}
