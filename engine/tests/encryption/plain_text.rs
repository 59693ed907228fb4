//! What somebody wrote is in no file, and the key that is needed is the one that was there from the beginning.

use antiphon_engine::{
    EngineError,
    encryption::NodeKey,
    memory_files::{MemoryFiles, MemoryRandom},
    offline,
};

use crate::{
    support::{Lane, block_on, small_options},
    world::{access, assert_sound, dump, options, talk, verify, with_marker},
};

#[test]
fn nothing_that_was_written_is_in_a_file_and_everything_is_read() {
    let (mut plain, mut sealed) = (Lane::with_options(1, small_options()), Lane::with_options(1, options()));
    let mut ids = Vec::new();
    let (mut flushes, mut merges) = (0, 0);
    for round in 1..16 {
        ids = talk(&mut plain, round, 40);
        assert_eq!(talk(&mut sealed, round, 40), ids);
        assert_eq!(with_marker(&sealed.files), [""; 0], "round {round}");
        if round % 3 == 0 {
            let status = sealed.engine.status();
            (flushes, merges) = (flushes + status.flushes, merges + status.compactions);
            plain.reopen();
            sealed.reopen();
        }
    }
    assert!(!with_marker(&plain.files).is_empty(), "the search finds what is not sealed");
    assert!(flushes > 3 && merges > 0, "{flushes} {merges}");
    for id in &ids {
        for name in ["ann", "bob", "ann15"] {
            let both = [&mut plain, &mut sealed].map(|lane| {
                lane.history(name, *id, antiphon_engine::door::HistoryRange::After(antiphon_wire::ids::Sequence(0)), 50)
                    .map_err(|refusal| refusal.code)
            });
            assert_eq!(format!("{:?}", both[0]), format!("{:?}", both[1]));
        }
    }
    plain.close().unwrap();
    sealed.close().unwrap();
    assert_eq!(with_marker(&sealed.files), [""; 0]);
    assert_sound(&sealed.files);
    // But for the store's identity both say the same.
    let (plain, sealed) = (dump(&plain.files, 0_u16), dump(&sealed.files, access()));
    assert_eq!(plain[1..], sealed[1..]);
}

fn left(lane: &mut Lane) -> MemoryFiles {
    talk(lane, 1, 30);
    lane.close().unwrap();
    lane.files.clone()
}

fn opened(files: &MemoryFiles, key: Option<NodeKey>) -> Result<(), EngineError> {
    let before: Vec<_> = files.names().into_iter().map(|name| (files.contents(&name), name)).collect();
    let lane = Lane::open(
        files.clone(),
        antiphon_engine::memory_files::MemoryClock::new(1_000_000),
        MemoryRandom::new(9),
        antiphon_engine::EngineOptions { encryption: key, ..small_options() },
    );
    let lane = lane.map(drop);
    if lane.is_err() {
        let after: Vec<_> = files.names().into_iter().map(|name| (files.contents(&name), name)).collect();
        assert!(before == after, "what is refused is as it was");
    }
    lane
}

#[test]
fn another_key_or_none_is_told_by_name_and_changes_nothing() {
    let files = left(&mut Lane::with_options(1, options()));
    let other = NodeKey::new([1; 32]);
    assert_eq!(opened(&files, None), Err(EngineError::KeyNeeded));
    let (found, expected) = (other.id(), crate::world::node_key().id());
    assert_eq!(opened(&files, Some(other)), Err(EngineError::OtherKey { found, expected }));
    opened(&files, Some(crate::world::node_key())).unwrap();
    let plain = left(&mut Lane::new(1));
    assert_eq!(opened(&plain, Some(crate::world::node_key())), Err(EngineError::NotEncrypted));
    opened(&plain, None).unwrap();
}

#[test]
fn without_a_key_all_is_checked_that_can_be() {
    let files = left(&mut Lane::with_options(1, options()));
    let report = block_on(offline::verify(files.clone(), 0_u16, |_| ())).unwrap();
    assert!(report.is_sound() && report.not_opened && report.rows > 0, "{report:?}");
    let report = verify(&files);
    assert!(!report.not_opened && report.conversations == 2 && report.entries > 60);
    let shown = block_on(offline::inspect(files.clone(), 0_u16, true, |_| ())).unwrap();
    assert_eq!((shown.key.is_some(), shown.data_keys, shown.erased, shown.totals), (true, Some(2), Some(0), None));
    let shown = block_on(offline::inspect(files.clone(), access(), true, |_| ())).unwrap();
    assert_eq!(shown.totals.map(|totals| totals.conversations), Some(2));
    let refused = block_on(offline::dump(files.clone(), 0_u16, |_| (), &mut |_| true));
    assert_eq!(refused, Err(EngineError::KeyNeeded));
}

#[test]
fn no_nonce_comes_twice() {
    let mut lane = Lane::with_options(3, options());
    for round in 1..4 {
        talk(&mut lane, round, 40);
        lane.reopen();
    }
    // Of sealed records: behind the conversation, which stands behind length and kind.
    let log = lane.files.contents("log-00000000").unwrap();
    let mut nonces = Vec::new();
    for batch in
        log.chunks(4096).enumerate().filter(|(_, page)| page.starts_with(b"ANTILOG\n")).map(|(at, _)| at * 4096)
    {
        let field = |at: usize| u32::from_le_bytes(log[batch + at..batch + at + 4].try_into().unwrap()) as usize;
        let (records, mut at) = (field(48), batch + 64 + 25 * field(56));
        for _ in 0..records {
            let length = u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
            assert_eq!(log[at + 4], 4, "a record that is not sealed");
            nonces.push(log[at + 21..at + 33].to_vec());
            at += 5 + length;
        }
    }
    let count = nonces.len();
    assert!(count > 200, "{count}");
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), count);
}
