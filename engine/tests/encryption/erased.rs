//! A key that was destroyed takes its conversation along; another node key leaves everything as it was.

use antiphon_engine::{
    EngineError, EngineOptions,
    door::{Command, Done},
    encryption::NodeKey,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Access, Until},
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
