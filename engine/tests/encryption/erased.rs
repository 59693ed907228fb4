//! A key that was destroyed takes its conversation along; another node key leaves everything as it was.

use antiphon_engine::{
    EngineError, EngineOptions,
    door::{Command, Done},
    encryption::NodeKey,
    memory_files::{MemoryFiles, MemoryRandom, OperationKind},
    offline::{self, Access, Until},
    stored_rows::{StoredRow, stored_rows},
};
use antiphon_wire::{codes::ErrorCode, ids::ConversationId};

use crate::{
    support::{Lane, block_on, send, user},
    world::{access, assert_sound, dump, options, run_until_operation, talk},
};

fn erase(files: &MemoryFiles, ids: &[ConversationId]) -> offline::Erased {
    block_on(offline::erase(files.clone(), 0, ids)).unwrap()
}

fn listed(lane: &mut Lane, name: &str) -> Vec<ConversationId> {
    match lane.ask(Command::Conversations { user: user(name), after: None, limit: 100 }) {
        Ok(Done::Conversations { conversations, .. }) => conversations.iter().map(|of| of.conversation).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_erased_conversation_is_gone_for_everybody_and_for_good() {
    let mut lane = Lane::with_options(1, options());
    let kept = talk(&mut lane, 1, 30);
    // One lies in segments and in the log, one in the log alone.
    let [group, direct] = talk(&mut lane, 2, 30)[..] else { unreachable!() };
    lane.close().unwrap();
    let before = dump(&lane.files, access());
    let old_copy = MemoryFiles::new(9);
    block_on(offline::checkpoint(lane.files.clone(), old_copy.clone(), access(), |_| ())).unwrap();
    let old_keys = lane.files.contents("keys").unwrap();
    let unknown = ConversationId([1; 16]);
    let told = erase(&lane.files, &[group, direct, unknown]);
    assert_eq!((told.erased, told.before, told.unknown), (2, 0, 1));
    assert_eq!(erase(&lane.files, &[group]).before, 1);
    assert_sound(&lane.files);
    let after = dump(&lane.files, access());
    let is_gone = |line: &String| [group, direct].iter().any(|id| line.contains(&id.to_string()));
    let left: Vec<_> = before.iter().filter(|line| !is_gone(line)).collect();
    assert!(
        after[1..after.len() - 1].iter().eq(left[1..left.len() - 1].iter().copied()),
        "the others are as they were"
    );
    let mut lane = lane.opened_again(lane.files.clone()).unwrap();
    for id in [group, direct] {
        for name in ["ann", "bob", "ann2"] {
            let range = antiphon_engine::door::HistoryRange::Latest;
            assert_eq!(lane.history(name, id, range, 5).unwrap_err().code, ErrorCode::NotFound);
            assert!(!listed(&mut lane, name).contains(&id));
            assert!(
                lane.catch_up(name, 0, &[])
                    .unwrap()
                    .entries
                    .iter()
                    .all(|archive| crate::support::entry(archive).conversation != id)
            );
        }
        assert_eq!(lane.ask(send("bob", id, 99_999, "x")).unwrap_err().code, ErrorCode::NotFound);
    }
    let again = lane.ask(Command::CreateDirect { user: user("ann2"), peer: user("bob") });
    assert_eq!(again.unwrap_err().code, ErrorCode::Forbidden);
    assert!(listed(&mut lane, "ann").contains(&kept[0]));
    // It stays so in what is made of the store from here on, and after merges.
    let running = MemoryFiles::new(3);
    lane.checkpoint(&running).unwrap();
    for round in 3..9 {
        talk(&mut lane, round, 30);
    }
    lane.close().unwrap();
    let restored = MemoryFiles::new(4);
    let random = MemoryRandom::new(3);
    block_on(offline::restore(lane.files.clone(), restored.clone(), access(), &random, Until::End, |_| ())).unwrap();
    for files in [&lane.files, &running, &restored] {
        assert_sound(files);
        assert!(!dump(files, access()).iter().any(&is_gone));
        let keys = files.contents("keys").unwrap();
        for page in old_keys.chunks(4096).skip(1) {
            for entry in page[40..].chunks_exact(80).filter(|entry| entry[..16] == group.0 || entry[..16] == direct.0) {
                assert!(!keys.windows(48).any(|window| window == &entry[32..]), "a wrapped key is still there");
            }
        }
    }
    // An earlier copy has its own keys, until it is erased there, too.
    assert_eq!(dump(&old_copy, access())[1..], before[1..]);
    assert_eq!(erase(&old_copy, &[group, direct]).erased, 2);
    assert!(!dump(&old_copy, access()).iter().any(is_gone));
    // The old file in its place again is not taken for it.
    lane.files.put("keys", old_keys);
    assert!(lane.opened_again(lane.files.clone()).is_err());
}

/// How many rows of segments are of these conversations.
fn rows_of(files: &MemoryFiles, ids: &[ConversationId]) -> usize {
    let is_of = |row: &StoredRow| ids.iter().any(|id| row.key.windows(16).any(|part| part == id.0));
    block_on(stored_rows(files)).unwrap().iter().filter(|row| is_of(row)).count()
}

#[test]
fn merges_leave_out_what_was_erased() {
    let options = EngineOptions { memtable_age_ms_max: 1, memtable_bytes: 4 << 20, ..options() };
    let mut lane = Lane::with_options(1, options);
    let flush = |lane: &mut Lane| {
        lane.clock.advance(1_000);
        lane.engine.tick();
        lane.settle();
        assert_eq!(lane.engine.status().memtable_bytes, 0);
    };
    let mut kept = talk(&mut lane, 1, 10);
    flush(&mut lane);
    let erased = talk(&mut lane, 2, 10);
    lane.ask(Command::RemoveMembers { user: user("ann"), conversation: erased[0], members: vec![user("cid")] })
        .unwrap();
    flush(&mut lane);
    lane.close().unwrap();
    assert_eq!(erase(&lane.files, &erased).erased, 2);
    let before = rows_of(&lane.files, &erased);
    // Entries, members, pointers, lists and message ids.
    assert!(before > 50, "{before} rows");
    lane = lane.opened_again(lane.files.clone()).unwrap();
    let mut round = 3;
    while rows_of(&lane.files, &erased) > 0 {
        assert!(round < 60, "no merge has left them out: {} of {before}", rows_of(&lane.files, &erased));
        kept.extend(talk(&mut lane, round, 10));
        flush(&mut lane);
        round += 1;
    }
    assert!(lane.engine.status().compactions > 0 && rows_of(&lane.files, &kept) > 50 * kept.len() / 2);
    for again in 0..2 {
        for id in &erased {
            let range = antiphon_engine::door::HistoryRange::Latest;
            assert_eq!(lane.history("ann", *id, range, 5).unwrap_err().code, ErrorCode::NotFound);
            assert_eq!(lane.ask(send("bob", *id, 99_999, "x")).unwrap_err().code, ErrorCode::NotFound);
        }
        let again_begun = lane.ask(Command::CreateDirect { user: user("ann2"), peer: user("bob") });
        assert_eq!(again_begun.unwrap_err().code, ErrorCode::Forbidden);
        for name in ["ann", "bob", "cid"] {
            let caught_up = lane.catch_up(name, 0, &[]).unwrap();
            let of = |archive: &std::sync::Arc<[u8]>| crate::support::entry(archive).conversation;
            assert!(caught_up.entries.iter().all(|archive| !erased.contains(&of(archive))));
            assert!(caught_up.left.iter().all(|(id, _)| !erased.contains(id)), "{name} {again}");
            assert!(listed(&mut lane, name).iter().all(|id| kept.contains(id)));
        }
        for id in &kept {
            assert!(lane.whole_history("bob", *id).len() > 9, "a conversation that was not erased");
        }
        lane.reopen();
    }
    lane.close().unwrap();
    assert_sound(&lane.files);
    // Who looks without the key finds nothing to tell either.
    let report = block_on(offline::verify(lane.files.clone(), 0_u16, |_| ())).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    let (restored, random) = (MemoryFiles::new(4), MemoryRandom::new(3));
    block_on(offline::restore(lane.files.clone(), restored.clone(), access(), &random, Until::End, |_| ())).unwrap();
    assert_sound(&restored);
    assert_eq!(dump(&restored, access())[1..], dump(&lane.files, access())[1..]);
}

/// Some rows are left out by a merge, and some, newer or older, are still there.
#[test]
fn what_is_left_of_an_erased_conversation_between_merges_is_nothing_to_anybody() {
    let mut lane = Lane::with_options(1, EngineOptions { memtable_bytes: 8 * 1024, ..options() });
    let erased = talk(&mut lane, 1, 60);
    lane.close().unwrap();
    assert_eq!(erase(&lane.files, &erased).erased, 2);
    lane = lane.opened_again(lane.files.clone()).unwrap();
    let (all, mut parts) = (rows_of(&lane.files, &erased), 0);
    for round in 2..30 {
        talk(&mut lane, round, 4);
        parts += u32::from((1..all).contains(&rows_of(&lane.files, &erased)));
        if round % 9 == 0 {
            lane.close().unwrap();
            assert_sound(&lane.files);
            let report = block_on(offline::verify(lane.files.clone(), 0_u16, |_| ())).unwrap();
            assert!(report.is_sound(), "{:?}", report.findings);
            let is_gone = |line: &String| erased.iter().any(|id| line.contains(&id.to_string()));
            assert!(!dump(&lane.files, access()).iter().any(is_gone));
            lane = lane.opened_again(lane.files.clone()).unwrap();
        }
        assert!(listed(&mut lane, "bob").iter().all(|id| !erased.contains(id)));
    }
    assert!(parts > 1, "never a part of {all}");
}

fn new_key() -> NodeKey {
    NodeKey::new([0x77; 32])
}

#[test]
fn another_node_key_opens_the_same_store_and_the_old_one_does_not() {
    let mut lane = Lane::with_options(1, options());
    let ids = talk(&mut lane, 1, 30);
    talk(&mut lane, 2, 30);
    lane.close().unwrap();
    erase(&lane.files, &ids[1..]);
    let before = dump(&lane.files, access());
    let random = MemoryRandom::new(5);
    let other = Access::with_key(0, NodeKey::new([1; 32]), &random);
    assert!(matches!(
        block_on(offline::rewrap(lane.files.clone(), other, &new_key(), &random)),
        Err(EngineError::OtherKey { .. })
    ));
    assert!(block_on(offline::rewrap(lane.files.clone(), access(), &new_key(), &random)).unwrap());
    assert!(!block_on(offline::rewrap(lane.files.clone(), access(), &new_key(), &random)).unwrap(), "it was already");
    let by_new = Access::with_key(0, new_key(), &random);
    assert_eq!(dump(&lane.files, by_new), before);
    assert!(matches!(lane.opened_again(lane.files.clone()).err(), Some(EngineError::OtherKey { .. })));
    let options = EngineOptions { encryption: Some(new_key()), ..options() };
    let mut again = Lane::open(lane.files.clone(), lane.clock.clone(), random, options).unwrap();
    talk(&mut again, 3, 10);
    again.close().unwrap();
}

#[test]
fn a_crash_leaves_the_old_keys_or_the_new_ones() {
    let mut lane = Lane::with_options(1, options());
    let ids = talk(&mut lane, 1, 10);
    lane.close().unwrap();
    let whole: Vec<_> =
        lane.files.names().into_iter().map(|name| (lane.files.contents(&name).unwrap(), name)).collect();
    let (mut old, mut new) = (0, 0);
    for cut in 0..60 {
        for rewraps in [false, true] {
            let files = MemoryFiles::new(cut);
            whole.iter().for_each(|(bytes, name)| files.put(name, bytes.clone()));
            files.set_queued(true);
            let random = MemoryRandom::new(cut);
            let doing: std::pin::Pin<Box<dyn Future<Output = ()>>> = if rewraps {
                let files = files.clone();
                Box::pin(async move { drop(offline::rewrap(files, access(), &new_key(), &random).await) })
            } else {
                let (files, ids) = (files.clone(), ids.clone());
                Box::pin(async move { drop(offline::erase(files, 0, &ids[..1]).await) })
            };
            let _ = run_until_operation(&files, doing, cut);
            files.crash(cut);
            let files = files.reopen();
            let by = |key: NodeKey| EngineOptions { encryption: Some(key), ..options() };
            let open = |key| Lane::open(files.clone(), lane.clock.clone(), MemoryRandom::new(7), by(key));
            let opened = match open(crate::world::node_key()) {
                Err(EngineError::OtherKey { .. }) if rewraps => {
                    new += 1;
                    open(new_key())
                }
                other => other,
            };
            let mut opened = opened.unwrap_or_else(|error| panic!("{cut} {rewraps}: {error}"));
            let is_erased = !listed(&mut opened, "ann").contains(&ids[0]);
            assert!(!is_erased || !rewraps);
            new += usize::from(is_erased);
            old += usize::from(!is_erased);
        }
    }
    assert!(old > 5 && new > 5, "{old} {new}");
}

#[test]
fn the_old_keys_are_written_over_once_the_new_ones_are_in_their_place() {
    let mut lane = Lane::with_options(1, options());
    let ids = talk(&mut lane, 1, 10);
    lane.close().unwrap();
    let files = &lane.files;
    files.set_queued(true);
    let mut erasing = Box::pin(offline::erase(files.clone(), 0, &ids[..1]));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut done = Vec::new();
    while erasing.as_mut().poll(&mut context).is_pending() {
        let next = files.pending()[0].clone();
        done.push((next.kind, next.name));
        files.release(next.ticket);
    }
    files.set_queued(false);
    let of = |wanted: OperationKind, name: &str| done.iter().rposition(|(kind, of)| *kind == wanted && of == name);
    let named = done.iter().rposition(|(kind, _)| *kind == OperationKind::Rename);
    let (written, synced) = (of(OperationKind::Write, "keys"), of(OperationKind::Sync, "keys"));
    assert!(named.is_some() && named < written && written < synced, "{done:?}");
}

#[test]
fn old_keys_in_the_place_of_those_that_an_erasure_left_are_told() {
    let mut lane = Lane::with_options(1, options());
    let ids = talk(&mut lane, 1, 10);
    lane.close().unwrap();
    let old = lane.files.contents("keys").unwrap();
    erase(&lane.files, &ids[..1]);
    lane.files.put("keys", old);
    assert!(lane.opened_again(lane.files.clone()).is_err(), "the erased conversation is there again");
}
