//! The data keys' file: what is missing there is told, and nothing is made anew over it.

use antiphon_engine::{
    EngineError,
    error::StoreError,
    memory_files::{MemoryFiles, MemoryRandom},
    offline,
};

use crate::{
    support::{Lane, block_on},
    world::{access, assert_sound, findings, options, talk, verify},
};

const KEYS: &str = "keys";

fn copy(files: &MemoryFiles) -> MemoryFiles {
    let copy = MemoryFiles::new(0);
    files.names().into_iter().for_each(|name| copy.put(&name, files.contents(&name).unwrap()));
    copy
}

fn open(lane: &Lane, files: &MemoryFiles) -> Result<Lane, EngineError> {
    lane.opened_again(files.clone())
}

/// A lane with keys of before and after the last flush.
fn world() -> Lane {
    let mut lane = Lane::with_options(1, options());
    for round in 1..30 {
        talk(&mut lane, round, 3);
    }
    lane.close().unwrap();
    assert_sound(&lane.files);
    lane
}

#[test]
fn every_flipped_byte_of_the_file_is_told() {
    let lane = world();
    let whole = lane.files.contents(KEYS).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut told, mut refused) = (0, 0);
    // One in the zeros behind, too.
    for at in (0..used).step_by(211).chain([used + 5_000]) {
        let files = copy(&lane.files);
        files.flip_bit(KEYS, at as u64, (at % 8) as u8);
        let report = verify(&files);
        assert!(!report.findings.is_empty(), "byte {at}: verify says nothing");
        let is_harmless = report.findings.iter().all(|finding| finding.harmless);
        match open(&lane, &files) {
            Ok(_) => told += 1,
            Err(EngineError::Store(StoreError::Damaged { file, .. })) => {
                assert!(file == KEYS || file.starts_with("log-"), "{file}");
                assert!(!is_harmless, "byte {at}");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
        assert!(is_harmless || open(&lane, &files).is_err(), "byte {at}: {:?}", findings(&report));
    }
    assert!(told > 5 && refused > 5, "{told} {refused}");
}

#[test]
fn a_file_that_is_missing_or_older_is_damage_and_is_not_made_anew() {
    let mut lane = Lane::with_options(1, options());
    talk(&mut lane, 1, 3);
    let early = lane.files.contents(KEYS).unwrap();
    for round in 2..30 {
        talk(&mut lane, round, 3);
    }
    lane.close().unwrap();
    let missing = copy(&lane.files);
    missing.take_away(KEYS);
    let older = copy(&lane.files);
    older.put(KEYS, early);
    for files in [missing, older] {
        let names = files.names();
        let refused = open(&lane, &files).err();
        assert!(matches!(refused, Some(EngineError::Store(StoreError::Damaged { .. }))), "{refused:?}");
        assert_eq!(files.names(), names);
        assert!(verify(&files).findings.iter().any(|finding| !finding.harmless));
        let dumped = block_on(offline::dump(files.clone(), access(), |_| (), &mut |_| true));
        assert!(dumped.is_err());
    }
}

#[test]
fn conversations_whose_keys_are_lost_are_named_and_left_out_by_a_repair() {
    let lane = world();
    // The last pages with keys go; what is before is read on.
    let whole = lane.files.contents(KEYS).unwrap();
    let pages: Vec<usize> = (1..whole.len() / 4096).filter(|page| whole[page * 4096] != 0).collect();
    let files = copy(&lane.files);
    for page in pages.iter().filter(|page| **page >= 3) {
        files.overwrite(KEYS, *page as u64 * 4096, &[0; 4096]);
    }
    let report = verify(&files);
    let mut named: Vec<_> = report.findings.iter().filter_map(|finding| finding.conversation).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), 58 - 50, "{:?}", findings(&report));
    let (to, random) = (MemoryFiles::new(0), MemoryRandom::new(5));
    let repaired = block_on(offline::repair(files, to.clone(), access(), &random, |_| ())).unwrap();
    assert_eq!(repaired.conversations, 50);
    assert_sound(&to);
}

#[test]
fn rows_and_records_cannot_be_moved() {
    // A store of the same conversations under other data keys: its files in the place of these do not open.
    let (mut one, mut other) = (Lane::with_options(1, options()), Lane::with_options(1, options()));
    talk(&mut one, 1, 30);
    talk(&mut other, 1, 30);
    one.close().unwrap();
    other.close().unwrap();
    let swapped = copy(&one.files);
    swapped.put(KEYS, other.files.contents(KEYS).unwrap());
    // The same seeds made the same identities and keys: this one opens.
    assert_sound(&swapped);
    let mut third = Lane::with_options(2, options());
    talk(&mut third, 1, 30);
    third.close().unwrap();
    swapped.put(KEYS, third.files.contents(KEYS).unwrap());
    assert!(matches!(open(&one, &swapped).err(), Some(EngineError::Store(StoreError::ForeignStore { .. }))));
}
