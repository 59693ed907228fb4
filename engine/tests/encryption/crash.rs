//! Crashes at every operation around keys that are made: what was acknowledged is there, and opens.

use antiphon_engine::{door::Output, memory_files::MemoryFiles};

use crate::{
    support::{Lane, send},
    world::{assert_sound, options, run_until_operation, with_marker},
};

/// Operations until the end of a run of commands, the last of which create conversations and send to them.
fn run(seed: u64, operations: Option<u64>) -> (Lane, u64, Vec<u64>) {
    let mut lane = Lane::with_options(seed, options());
    // One pair of pages is nearly full, so that the next keys go on in another.
    for number in 0..48 {
        lane.create_direct("ann", &format!("peer{number}"));
    }
    lane.files.set_queued(true);
    let mut released = 0;
    let mut pump = |lane: &mut Lane| {
        lane.settle();
        while operations.is_none_or(|most| released < most)
            && let Some(next) = lane.files.pending().first()
        {
            let ticket = next.ticket;
            lane.files.release(ticket);
            released += 1;
            lane.settle();
        }
    };
    let mut tokens = Vec::new();
    for group in 0..6_u64 {
        let created: Vec<_> = (0..=group)
            .map(|number| {
                let (user, peer) = (crate::support::user("bob"), crate::support::user(&format!("new{group}-{number}")));
                let id = antiphon_wire::ids::ConversationId::direct(&user, &peer);
                lane.submit(antiphon_engine::door::Command::CreateDirect { user, peer });
                id
            })
            .collect();
        for (number, id) in created.into_iter().enumerate() {
            tokens.push(lane.submit(send("bob", id, group * 100 + number as u64, crate::world::MARKER)));
        }
        pump(&mut lane);
    }
    lane.drain();
    let acknowledged = tokens.iter().enumerate().filter(|(_, token)| {
        lane.outputs.iter().any(|output| matches!(output, Output::Answer { token: of, result: Ok(_) } if of == *token))
    });
    let acknowledged = acknowledged.map(|(at, _)| at as u64).collect();
    (lane, released, acknowledged)
}

fn check(files: &MemoryFiles, lane: &Lane, acknowledged: &[u64]) {
    let mut again = lane.opened_again(files.clone()).unwrap();
    let mut at = 0;
    for group in 0..6_u64 {
        for number in 0..=group {
            if acknowledged.contains(&at) {
                let peer = format!("new{group}-{number}");
                let id = antiphon_wire::ids::ConversationId::direct(
                    &crate::support::user("bob"),
                    &crate::support::user(&peer),
                );
                let entries = again.whole_history(&peer, id);
                assert_eq!(entries.len(), 2, "{group} {number}");
                assert!(entries[1].body.ends_with(crate::world::MARKER.as_bytes()));
            }
            at += 1;
        }
    }
    // What was not acknowledged can be begun again.
    for group in 0..6 {
        let id = again.create_direct("bob", &format!("new{group}-0"));
        again.sent("bob", id, 77, crate::world::MARKER);
    }
    assert_eq!(with_marker(&again.files), [""; 0]);
    again.close().unwrap();
    assert_sound(&again.files);
}

#[test]
fn no_crash_parts_a_record_from_its_key() {
    let (_, operations, all) = run(1, None);
    assert!(operations > 20 && all.len() == 21, "{operations} {all:?}");
    let mut some = 0;
    for cut in 0..=operations {
        let (lane, _, acknowledged) = run(1, Some(cut));
        lane.files.crash(cut);
        check(&lane.files.reopen(), &lane, &acknowledged);
        some += usize::from(!acknowledged.is_empty() && acknowledged.len() < all.len());
    }
    assert!(some > 5, "{some}");
}

#[test]
fn a_key_that_cannot_be_stored_ends_the_log() {
    use antiphon_engine::memory_files::OperationKind;
    let mut lane = Lane::with_options(1, options());
    lane.create_direct("ann", "bob");
    lane.files.fail_nth(OperationKind::Write, 1);
    let (user, peer) = (crate::support::user("ann"), crate::support::user("cid"));
    let refused = lane.ask(antiphon_engine::door::Command::CreateDirect { user, peer });
    assert_eq!(refused.unwrap_err().code, antiphon_wire::codes::ErrorCode::StorageFailed);
    assert!(lane.engine.status().fenced.is_some());
    let again = lane.opened_again({
        lane.files.crash(1);
        lane.files.reopen()
    });
    again.unwrap();
}

#[test]
fn no_crash_of_a_creation_leaves_a_folder_that_does_not_open() {
    for cut in 0..40 {
        for seed in 0..4 {
            let files = MemoryFiles::new(seed);
            files.set_queued(true);
            let random = antiphon_engine::memory_files::MemoryRandom::new(seed);
            let clock = antiphon_engine::memory_files::MemoryClock::new(5);
            let opening = antiphon_engine::Engine::open(files.clone(), clock.clone(), random, options());
            let _ = run_until_operation(&files, opening, cut);
            files.crash(seed);
            let random = antiphon_engine::memory_files::MemoryRandom::new(seed + 100);
            let mut lane = Lane::open(files.reopen(), clock, random, options()).unwrap();
            let id = lane.create_direct("ann", "bob");
            lane.sent("ann", id, 1, "x");
        }
    }
}
