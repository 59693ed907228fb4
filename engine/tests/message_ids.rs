//! Message ids and their window: a retry within it is answered as the first send was, nothing is stored twice after it, old ids go, and
//! neither restarts, crashes, merges nor a clock that is set change what a retry is told.

mod support;

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind},
    offline,
    partitions::lane_of,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content},
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs},
};
use support::{Lane, block_on, small_options, user};

const MINUTE_MS: u64 = 60_000;
const WINDOW_MS: u64 = 10 * MINUTE_MS;
const YEAR_MS: u64 = 365 * 24 * 60 * MINUTE_MS;
const START_MS: u64 = 1_700_000_000_000;

fn options() -> EngineOptions {
    EngineOptions { message_ids_window_ms: WINDOW_MS, memtable_age_ms_max: 1_000, ..small_options() }
}

fn lane(seed: u64, options: EngineOptions) -> Lane {
    let lane = Lane::with_options(seed, options);
    lane.clock.set(START_MS);
    lane
}

/// Seconds pass, with a tick each ten.
fn pass(lane: &mut Lane, seconds: u64) {
    for _ in 0..seconds.div_ceil(10) {
        lane.clock.advance(10_000);
        lane.engine.tick();
        lane.settle_queued();
    }
}

/// What is in memory becomes segments, and what is worth merging is merged.
fn flush(lane: &mut Lane) {
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle_queued();
}

fn timed(made_ms: u64, number: u64) -> ClientMessageId {
    ClientMessageId::timed(TimestampMs(made_ms), u128::from(number))
}

fn untimed(number: u64) -> ClientMessageId {
    let mut id = [0x40; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ClientMessageId(id)
}

fn send(lane: &mut Lane, conversation: ConversationId, id: ClientMessageId) -> Result<(Sequence, bool), ErrorCode> {
    let body = Content::text(&format!("message {id}")).0;
    match lane.ask(Command::Send { user: user("ann"), conversation, client_message_id: id, body }) {
        Ok(Done::Sent { sequence, duplicate, .. }) => Ok((sequence, duplicate)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

/// Rows of message ids in segments.
fn rows_of_ids(lane: &Lane) -> u64 {
    let shown = block_on(offline::inspect(lane.files.clone(), lane.options.lane, false, |_| ())).unwrap();
    let of_ids = shown.segments.iter().filter(|segment| segment.range.0 == offline::Neighbours::MessageIds);
    of_ids.map(|segment| segment.rows).sum()
}

fn assert_sound(lane: &mut Lane) {
    let report = block_on(offline::verify(lane.files.clone(), lane.options.lane, |_| ())).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[test]
fn a_retry_is_answered_within_the_window_and_refused_after_it() {
    let mut lane = lane(1, options());
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let made = lane.clock_ms();
    let id = timed(made, 1);
    assert_eq!(send(&mut lane, conversation, id), Ok((Sequence(2), false)));
    for _ in 0..9 {
        pass(&mut lane, 60);
        assert_eq!(send(&mut lane, conversation, id), Ok((Sequence(2), true)), "{} ms", lane.clock_ms() - made);
        let key = lane.clock_ms();
        lane.sent("bob", conversation, key, "meanwhile");
        flush(&mut lane);
        lane.reopen();
    }
    pass(&mut lane, 180);
    lane.sent("bob", conversation, 5, "later");
    flush(&mut lane);
    let before = lane.whole_history("ann", conversation).len();
    for _ in 0..3 {
        assert_eq!(send(&mut lane, conversation, id), Err(ErrorCode::TooOld));
        // One that was never stored cannot be told from it.
        assert_eq!(send(&mut lane, conversation, timed(made, 2)), Err(ErrorCode::TooOld));
        assert_eq!(lane.engine.status().too_old, 2);
        lane.crash(7);
    }
    assert_eq!(lane.whole_history("ann", conversation).len(), before);
    assert_sound(&mut lane);
}

#[test]
fn an_id_without_a_time_is_new_again_after_the_window() {
    let mut lane = lane(2, options());
    let conversation = lane.create_group("ann", 1, &["bob"]);
    assert_eq!(send(&mut lane, conversation, untimed(1)), Ok((Sequence(2), false)));
    flush(&mut lane);
    pass(&mut lane, 8 * 60);
    assert_eq!(send(&mut lane, conversation, untimed(1)), Ok((Sequence(2), true)));
    pass(&mut lane, 4 * 60);
    lane.sent("bob", conversation, 1, "so that the horizon moves");
    flush(&mut lane);
    let (sequence, duplicate) = send(&mut lane, conversation, untimed(1)).unwrap();
    assert!(sequence > Sequence(2) && !duplicate);
    // From now on it is the second.
    for _ in 0..3 {
        assert_eq!(send(&mut lane, conversation, untimed(1)), Ok((sequence, true)));
        flush(&mut lane);
        lane.reopen();
        assert_sound(&mut lane);
    }
}

/// Also while its row lies in a segment that is kept for the sake of others.
#[test]
fn an_id_is_new_again_before_its_row_is_dropped() {
    let options = EngineOptions { memtable_age_ms_max: YEAR_MS, ..options() };
    let mut lane = lane(13, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    assert_eq!(send(&mut lane, conversation, untimed(1)), Ok((Sequence(2), false)));
    pass(&mut lane, 9 * 60);
    assert_eq!(send(&mut lane, conversation, untimed(2)), Ok((Sequence(3), false)));
    // A checkpoint has what there is flushed.
    lane.checkpoint(&MemoryFiles::new(0)).unwrap();
    pass(&mut lane, 4 * 60);
    lane.sent("bob", conversation, 1, "so that the horizon moves");
    lane.checkpoint(&MemoryFiles::new(0)).unwrap();
    assert_eq!(rows_of_ids(&lane), 3, "nothing was dropped yet");
    assert_eq!(send(&mut lane, conversation, untimed(2)), Ok((Sequence(3), true)));
    assert_eq!(send(&mut lane, conversation, untimed(1)), Ok((Sequence(5), false)));
}

#[test]
fn rows_of_old_ids_go_whether_they_are_merged_or_dropped_whole() {
    let mut lane = lane(3, options());
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let mut most = 0;
    for number in 0..600 {
        let id = if number % 3 == 0 { untimed(number) } else { timed(lane.clock_ms(), number) };
        send(&mut lane, conversation, id).unwrap();
        lane.outputs.clear();
        pass(&mut lane, 10);
        most = most.max(rows_of_ids(&lane));
    }
    // Six a minute: what the window holds, and what waits for a merge.
    assert!(most < 3 * 6 * (WINDOW_MS / MINUTE_MS), "{most} rows");
    let status = lane.engine.status();
    assert!(status.compactions > 10, "{status:?}");
    // All of them, when nothing more is sent but for one message.
    pass(&mut lane, 2 * 3_600);
    let last = timed(lane.clock_ms(), 9_999);
    send(&mut lane, conversation, last).unwrap();
    flush(&mut lane);
    assert_eq!(rows_of_ids(&lane), 1);
    assert!(lane.engine.status().segments_expired > 0, "{:?}", lane.engine.status());
    assert_eq!(lane.whole_history("bob", conversation).len(), 602, "messages stay");
    assert_sound(&mut lane);
}

/// A lane that nobody writes to says by itself what is forgotten, and drops it.
#[test]
fn a_quiet_lane_forgets_too() {
    let mut lane = lane(4, options());
    let conversation = lane.create_group("ann", 1, &["bob"]);
    send(&mut lane, conversation, timed(START_MS, 1)).unwrap();
    flush(&mut lane);
    assert_eq!(rows_of_ids(&lane), 1);
    pass(&mut lane, 2 * 3_600);
    assert_eq!(rows_of_ids(&lane), 0);
    lane.reopen();
    assert_eq!(send(&mut lane, conversation, timed(START_MS, 1)), Err(ErrorCode::TooOld));
}

#[test]
fn a_clock_that_is_set_changes_no_answer() {
    for (by, back) in [(YEAR_MS, true), (YEAR_MS, false), (YEAR_MS / 12, false)] {
        let mut lane = lane(5, options());
        let conversation = lane.create_group("ann", 1, &["bob"]);
        let real = lane.clock_ms();
        let ids = [timed(real, 1), untimed(1)];
        let first = ids.map(|id| send(&mut lane, conversation, id).unwrap().0);
        flush(&mut lane);
        lane.clock.set(if back { real - by } else { real + by });
        for number in 0..5 {
            pass(&mut lane, 10);
            // Clients' clocks are right.
            send(&mut lane, conversation, timed(real + number, 100 + number)).unwrap();
            send(&mut lane, conversation, untimed(100 + number)).unwrap();
            flush(&mut lane);
            assert_eq!(ids.map(|id| send(&mut lane, conversation, id).unwrap()), first.map(|of| (of, true)));
            lane.crash(number);
        }
        lane.clock.set(real + 2 * MINUTE_MS);
        pass(&mut lane, 60);
        assert_eq!(ids.map(|id| send(&mut lane, conversation, id).unwrap()), first.map(|of| (of, true)));
        let status = lane.engine.status();
        assert!(status.ids_forgotten_until_ms <= real - WINDOW_MS + 10 * MINUTE_MS, "{status:?}");
        // And ids are forgotten when their time has come.
        pass(&mut lane, 2 * 3_600);
        lane.sent("bob", conversation, 7, "so that the horizon moves");
        flush(&mut lane);
        assert_eq!(send(&mut lane, conversation, ids[0]), Err(ErrorCode::TooOld), "{by} {back}");
        assert_sound(&mut lane);
    }
}

/// Filters that are not in memory cost reads, and nothing else.
#[test]
fn without_memory_for_filters_a_fresh_id_costs_one_read_of_each_run_at_most() {
    for filter_bytes in [0, 1 << 20] {
        // All that is sent later stays in memory.
        let (message_id_filter_bytes, memtable_bytes) = (filter_bytes, 1 << 20);
        let options = EngineOptions { message_id_filter_bytes, memtable_bytes, cache_bytes: 0, ..options() };
        let mut lane = lane(6, options);
        let conversation = lane.create_group("ann", 1, &["bob"]);
        for number in 0..30 {
            send(&mut lane, conversation, untimed(2 * number)).unwrap();
            if number % 10 == 9 {
                flush(&mut lane);
            }
        }
        let runs = lane.engine.status().segments as u64;
        let reads = |lane: &Lane| lane.files.operations()[OperationKind::Read as usize];
        for number in 0..29 {
            let before = reads(&lane);
            assert!(!send(&mut lane, conversation, untimed(2 * number + 1)).unwrap().1);
            let most = if filter_bytes == 0 { runs } else { 0 };
            assert!(reads(&lane) - before <= most, "{} reads of {runs} runs", reads(&lane) - before);
            let before = reads(&lane);
            // One that says its time is looked for among those of its minute: there are none.
            let of_later = timed(lane.clock_ms() + MINUTE_MS, number);
            assert!(!send(&mut lane, conversation, of_later).unwrap().1);
            assert_eq!(reads(&lane), before);
            assert!(send(&mut lane, conversation, untimed(2 * number)).unwrap().1);
        }
        assert!(lane.engine.status().message_id_filter_bytes <= filter_bytes);
    }
}

/// What the model knows of an id.
struct Known {
    sequence: Sequence,
    stored_ms: u64,
}

/// Sends, retries, crashes, restarts and clocks by chance; whatever happens, an id with a time is stored at most once, one without again
/// only when it is forgotten, and what is within the window is answered as the first time.
fn act_by_chance(seed: u64, steps: u32) {
    let random = MemoryRandom::new(seed);
    let below = |most: u64| random.below(most);
    let filter_bytes = [0, 4_096, 1 << 20][below(3) as usize];
    let options = EngineOptions { message_id_filter_bytes: filter_bytes, ..options() };
    let mut lane = lane(seed, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let mut known: BTreeMap<ClientMessageId, Known> = BTreeMap::new();
    let (mut real, mut horizon) = (lane.clock_ms(), 0);
    for step in 0..steps {
        let number = u64::from(step);
        match below(20) {
            0..9 => {
                let id = match below(4) {
                    0 => untimed(number),
                    1 => timed(real - below(WINDOW_MS * 3 / 2), number),
                    2 => timed(real + below(WINDOW_MS), number),
                    _ => timed(real, number),
                };
                try_id(&mut lane, conversation, id, &mut known);
            }
            9..14 => {
                let index = below(known.len().max(1) as u64) as usize;
                if let Some(id) = known.keys().nth(index).copied() {
                    try_id(&mut lane, conversation, id, &mut known);
                }
            }
            14 => {
                // Wrong for a moment.
                let wrong = below(2 * YEAR_MS);
                lane.clock.set((lane.clock_ms() + wrong).saturating_sub(YEAR_MS));
                flush(&mut lane);
                lane.clock.set(real);
            }
            15 => lane.crash(number),
            16 => lane.reopen(),
            17 => flush(&mut lane),
            _ => pass(&mut lane, 10 + below(120)),
        }
        lane.outputs.clear();
        real = real.max(lane.clock_ms());
        let now = lane.engine.status().ids_forgotten_until_ms;
        assert!(now >= horizon, "seed {seed}, step {step}: what was forgotten is known again");
        horizon = now;
    }
    let entries = lane.whole_history("ann", conversation);
    let mut stored: BTreeMap<ClientMessageId, u32> = BTreeMap::new();
    entries.iter().filter(|entry| entry.client_message_id.made().is_some()).for_each(|entry| {
        *stored.entry(entry.client_message_id).or_default() += 1;
    });
    assert!(stored.values().all(|times| *times == 1), "seed {seed}: stored twice");
    assert_sound(&mut lane);
}

fn try_id(
    lane: &mut Lane,
    conversation: ConversationId,
    id: ClientMessageId,
    known: &mut BTreeMap<ClientMessageId, Known>,
) {
    let horizon = lane.engine.status().ids_forgotten_until_ms;
    let before = known.get(&id);
    let is_forgotten = id.made().map_or_else(
        || before.is_some_and(|known| known.stored_ms < lane.engine.status().untimed_ids_forgotten_until_ms),
        |made| made.0 / MINUTE_MS < horizon / MINUTE_MS,
    );
    let answer = send(lane, conversation, id);
    match (answer, before) {
        (Ok((sequence, true)), Some(known)) => assert_eq!(sequence, known.sequence, "{id}"),
        (Ok((sequence, false)), before) => {
            // Only what was never stored, or is forgotten and has no time.
            assert!(before.is_none() || (is_forgotten && id.made().is_none()), "{id} is stored twice");
            assert!(!is_forgotten || id.made().is_none(), "{id} is too old");
            let last = lane.whole_history("ann", conversation).pop().unwrap();
            assert_eq!(last.sequence, sequence);
            known.insert(id, Known { sequence, stored_ms: last.time_ms.0 });
        }
        (Err(ErrorCode::TooOld), _) => assert!(is_forgotten && id.made().is_some(), "{id} is not too old"),
        (answer, _) => panic!("{id}: {answer:?}"),
    }
}

#[test]
fn whatever_happens_nothing_is_stored_twice() {
    let (seeds, steps) = if cfg!(debug_assertions) { (12, 150) } else { (200, 400) };
    for seed in 0..seeds {
        act_by_chance(seed, steps);
    }
}

/// A crash at every operation around the edit that moves the horizon and the one that drops what is forgotten.
#[test]
fn a_crash_anywhere_leaves_what_is_forgotten_forgotten_and_the_rest_known() {
    let begun = |seed| {
        let mut lane = lane(seed, options());
        let conversation = lane.create_group("ann", 1, &["bob"]);
        for number in 0..5 {
            let id = timed(lane.clock_ms(), number);
            send(&mut lane, conversation, id).unwrap();
            send(&mut lane, conversation, untimed(number)).unwrap();
            flush(&mut lane);
        }
        pass(&mut lane, 11 * 60);
        let kept = timed(lane.clock_ms(), 77);
        let sequence = send(&mut lane, conversation, kept).unwrap().0;
        (lane, conversation, kept, sequence)
    };
    let mut crashes = 0;
    for operations in 0.. {
        let (mut lane, conversation, kept, sequence) = begun(operations);
        let horizon = lane.engine.status().ids_forgotten_until_ms;
        lane.clock.advance(150_000);
        lane.files.set_queued(true);
        lane.engine.tick();
        lane.settle();
        let mut ended = false;
        for _ in 0..operations {
            let pending = lane.files.pending();
            let Some(first) = pending.first() else {
                ended = true;
                break;
            };
            lane.files.release(first.ticket);
            lane.settle();
        }
        lane.crash(operations);
        let now = lane.engine.status().ids_forgotten_until_ms;
        assert!(now >= horizon);
        assert_eq!(send(&mut lane, conversation, kept), Ok((sequence, true)), "{operations} operations");
        for number in 0..5 {
            let id = timed(START_MS + number * 1_000, number);
            match send(&mut lane, conversation, id) {
                Ok((sequence, true)) => assert_eq!(sequence.0, 2 + 2 * number),
                Err(ErrorCode::TooOld) => {}
                other => panic!("{operations} operations, message {number}: {other:?}"),
            }
        }
        assert_sound(&mut lane);
        crashes += 1;
        if ended {
            break;
        }
    }
    assert!(crashes > 10, "{crashes}");
}

fn unreact(
    lane: &mut Lane,
    conversation: ConversationId,
    id: ClientMessageId,
    target: Sequence,
) -> Result<(Sequence, bool), ErrorCode> {
    let change = Change::React { target, text: "👍".into(), on: false };
    match lane.ask(Command::Change { user: user("ann"), conversation, client_message_id: id, change }) {
        Ok(Done::Sent { sequence, duplicate, .. }) => Ok((sequence, duplicate)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

#[test]
fn ids_of_changes_are_remembered_as_those_of_messages_are() {
    let mut lane = lane(11, options());
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let made = lane.clock_ms();
    let (of_message, of_change) = (timed(made, 1), timed(made, 2));
    let target = send(&mut lane, conversation, of_message).unwrap().0;
    let first = unreact(&mut lane, conversation, of_change, target).unwrap();
    assert!(!first.1);
    assert_eq!(unreact(&mut lane, conversation, untimed(3), target), Ok((Sequence(4), false)));
    for _ in 0..9 {
        pass(&mut lane, 60);
        assert_eq!(unreact(&mut lane, conversation, of_change, target), Ok((first.0, true)));
        assert_eq!(unreact(&mut lane, conversation, untimed(3), target), Ok((Sequence(4), true)));
        // An id is of one thing, whatever that is.
        assert_eq!(send(&mut lane, conversation, of_change), Err(ErrorCode::Conflict));
        assert_eq!(unreact(&mut lane, conversation, of_message, target), Err(ErrorCode::Conflict));
        let key = lane.clock_ms();
        lane.sent("bob", conversation, key, "meanwhile");
        flush(&mut lane);
        assert_sound(&mut lane);
        lane.reopen();
    }
    pass(&mut lane, 180);
    lane.sent("bob", conversation, 5, "later");
    flush(&mut lane);
    for _ in 0..3 {
        assert_eq!(unreact(&mut lane, conversation, of_change, target), Err(ErrorCode::TooOld));
        assert_eq!(lane.engine.status().too_old, 1);
        lane.crash(7);
    }
    let (sequence, duplicate) = unreact(&mut lane, conversation, untimed(3), target).unwrap();
    assert!(sequence > Sequence(4) && !duplicate, "forgotten, and as good as new");
    assert_sound(&mut lane);
}

/// Lanes of a store do not move their horizons at once; what one has forgotten, lanes that are made of it do not know.
#[test]
fn new_lanes_know_what_the_old_ones_knew_and_forget_what_one_of_them_forgot() {
    let of_lane = |number| EngineOptions { lane: number, ..options() };
    let mut old: Vec<Lane> = (0..2).map(|number| lane(20 + u64::from(number), of_lane(number))).collect();
    // Which lane they are in does not change their ids: those of one lane of two have even partitions.
    let mut conversations = [Vec::new(), Vec::new()];
    for key in 1..9 {
        let id = ConversationId::group(&user("ann"), ClientMessageId([key; 16]));
        let number = usize::from(lane_of(id, 2));
        assert_eq!(old[number].create_group("ann", key, &["bob"]), id);
        conversations[number].push(id);
    }
    assert!(conversations.iter().all(|of| of.len() > 1));
    let ids = [timed(START_MS, 1), untimed(2)];
    for (lane, of) in old.iter_mut().zip(&conversations) {
        for id in of {
            assert!(ids.iter().all(|message| send(lane, *id, *message).is_ok_and(|(_, duplicate)| !duplicate)));
        }
        flush(lane);
    }
    // Time passes for both, but only the first stores something, and forgets.
    pass(&mut old[0], 8 * 60);
    let recent = [timed(old[0].clock_ms(), 3), untimed(4)];
    old[1].clock.set(old[0].clock_ms());
    for (lane, of) in old.iter_mut().zip(&conversations) {
        for id in of {
            assert!(recent.iter().all(|message| send(lane, *id, *message).is_ok_and(|(_, duplicate)| !duplicate)));
        }
    }
    pass(&mut old[0], 4 * 60);
    old[0].sent("bob", conversations[0][0], 5, "so that the horizon moves");
    flush(&mut old[0]);
    assert_eq!(send(&mut old[0], conversations[0][0], ids[0]), Err(ErrorCode::TooOld));
    let now = old[0].clock_ms();
    let folders: Vec<_> = old.iter().map(|lane| lane.files.clone()).collect();
    for count in [1, 3] {
        let new: Vec<MemoryFiles> = (0..count).map(|lane| MemoryFiles::new(40 + u64::from(lane))).collect();
        block_on(offline::spread(&folders, &new, &MemoryRandom::new(9), |_| ())).unwrap();
        let mut lanes: Vec<Lane> = (0..)
            .zip(new)
            .map(|(number, files)| {
                let clock = MemoryClock::new(now * 1_000);
                Lane::open(files, clock, MemoryRandom::new(3), of_lane(number)).unwrap()
            })
            .collect();
        for round in 0..3 {
            for id in conversations.iter().flatten() {
                let lane = &mut lanes[usize::from(lane_of(*id, count))];
                assert_eq!(send(lane, *id, ids[0]), Err(ErrorCode::TooOld), "{count} lanes, round {round}");
                for message in recent {
                    let again = send(lane, *id, message);
                    assert!(matches!(again, Ok((_, true))), "{count} lanes, round {round}: {again:?}");
                }
            }
            for lane in &mut lanes {
                assert_sound(lane);
                flush(lane);
                lane.reopen();
            }
        }
        let rows: u64 = lanes.iter().map(rows_of_ids).sum();
        assert!(rows >= 2 * 8, "{rows}");
    }
}

/// What is reclaimed is reclaimed by the time of the clock, and forgotten by that of the manifest.
#[test]
fn rows_go_by_the_horizon_that_is_durable() {
    let options = EngineOptions { reclaim_ms_max: 24 * MINUTE_MS, ..options() };
    let mut lane = lane(12, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let id = timed(START_MS, 1);
    let (target, _) = send(&mut lane, conversation, id).unwrap();
    flush(&mut lane);
    lane.changed("ann", conversation, 2, Change::Edit { target, content: Content::text("another") });
    flush(&mut lane);
    let horizon = lane.engine.status().ids_forgotten_until_ms;
    // Nothing is stored, so that the horizon stays where it is; what the edit has erased goes meanwhile.
    pass(&mut lane, 14 * 60);
    let status = lane.engine.status();
    assert!(status.segments_reclaimed > 0 && status.ids_forgotten_until_ms == horizon, "{status:?}");
    assert_eq!(send(&mut lane, conversation, id), Ok((target, true)));
}
