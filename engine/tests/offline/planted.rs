//! Stores with right checksums whose rows contradict each other: each contradiction is found and named.

use std::collections::BTreeMap;

use antiphon_engine::{
    cache::Cache,
    compaction,
    manifest::Manifest,
    memory_files::MemoryFiles,
    row::{Change, Direction, KeyRange},
    segment::SegmentSettings,
    sorted::{FlushMark, Sorted, SortedSettings},
};
use antiphon_wire::ids::{ConversationId, Sequence};

use crate::{
    support::{self, block_on},
    tools::{assert_sound, findings, flush, group, lane, verify},
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn settings() -> SortedSettings {
    SortedSettings {
        segment: SegmentSettings::default(),
        compaction: compaction::Settings::default(),
        cache: Cache::new(1 << 20),
        apart: None,
    }
}

/// All rows of two groups' store, its manifest, and the groups.
fn rows() -> (Rows, Manifest, [ConversationId; 2]) {
    let mut lane = lane(1);
    let groups = [group(&mut lane, 1), group(&mut lane, 2)];
    flush(&mut lane);
    let (sorted, _) = block_on(Sorted::open(lane.files.crash_image(1), settings())).unwrap();
    let rows = block_on(async {
        let mut rows = Rows::new();
        let mut scan = sorted.runs().scan(&KeyRange::all(), Direction::Forward, None);
        while let Some(row) = scan.next().await.unwrap() {
            rows.insert(row.key.to_vec(), row.value.to_vec());
        }
        rows
    });
    (rows, Manifest::clone(&sorted.manifest()), groups)
}

/// A store of these rows in one segment, without a log.
fn store(rows: &Rows, manifest: &Manifest) -> MemoryFiles {
    let files = MemoryFiles::new(0);
    let mut blob = manifest.blob.clone();
    // The generation: no log is needed.
    blob[17..].fill(0);
    block_on(async {
        let sorted = Sorted::create(files.clone(), settings(), manifest.store, 0, blob).await.unwrap();
        let rows = rows.iter().map(|(key, value)| (key, Change::Put(value)));
        let mark = FlushMark { flushed_position: manifest.flushed_position, ..FlushMark::default() };
        sorted.flush(rows, mark).await.unwrap();
    });
    files
}

fn key(id: ConversationId, family: u8, rest: &[u8]) -> Vec<u8> {
    [&[1][..], &id.0, &[family], rest].concat()
}

fn entry(id: ConversationId, sequence: u64) -> Vec<u8> {
    key(id, 7, &sequence.to_be_bytes())
}

/// The row of the message that was sent under this number.
fn message(id: ConversationId, number: u64) -> Vec<u8> {
    let mut rest = [0; 16];
    rest[..8].copy_from_slice(&number.to_le_bytes());
    [&[3][..], &id.0, &rest].concat()
}

fn user(name: &str, id: ConversationId) -> Vec<u8> {
    [&[2][..], name.as_bytes(), &[0], &id.0].concat()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Replaces a number in a row that is there.
fn set(rows: &mut Rows, key: &[u8], at: usize, number: u64) {
    rows.get_mut(key).unwrap()[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn take(rows: &mut Rows, key: &[u8]) {
    assert!(rows.remove(key).is_some(), "{key:?}");
}

#[test]
fn a_store_by_hand_of_all_rows_is_sound() {
    let (rows, manifest, _) = rows();
    let report = assert_sound(&store(&rows, &manifest));
    assert_eq!((report.conversations, report.entries, report.rows), (2, 16, rows.len() as u64));
    assert_eq!(report.user_rows, 8);
}

/// A contradiction: what is done to the rows of the first group (the second stands by), and what is said.
type Plant = (fn(&mut Rows, ConversationId, ConversationId), &'static str);

const ENTRIES: &[Plant] = &[
    (|rows, id, _| take(rows, &entry(id, 3)), "entry 3: missing"),
    (|rows, id, _| [5, 6].iter().for_each(|at| take(rows, &entry(id, *at))), "entries 5 to 6: missing"),
    (|rows, id, _| take(rows, &entry(id, 8)), "entry 8: missing"),
    (|rows, id, _| take(rows, &entry(id, 1)), "entry 1: missing"),
    (|rows, id, _| (1..9).for_each(|at| take(rows, &entry(id, at))), "entries 1 to 8: missing"),
    (
        |rows, id, _| {
            let other = rows[&entry(id, 2)].clone();
            rows.insert(entry(id, 3), other);
        },
        "entry 3: the entry has another sequence than its key",
    ),
    (
        |rows, id, other| {
            let value = rows[&entry(other, 3)].clone();
            rows.insert(entry(id, 3), value);
        },
        "entry 3: the entry is of another conversation than its key",
    ),
    (|rows, id, _| rows.get_mut(&entry(id, 3)).unwrap().truncate(60), "entry 3: the entry's archive is not valid"),
    (|rows, id, _| rows.get_mut(&entry(id, 3)).unwrap().truncate(7), "entry 3: a row does not have its form"),
    (|rows, id, _| set(rows, &entry(id, 3), 0, 1), "entry 3: the entry's position does not follow the one before"),
    (
        |rows, id, _| {
            set(rows, &entry(id, 8), 0, 99);
            set(rows, &key(id, 3, &[]), 0, 99);
        },
        "entry 8: the entry's position is beyond the end of the lane",
    ),
    (|rows, _, _| drop(rows.insert(vec![9], Vec::new())), "a key that has no known form"),
    (|rows, id, _| drop(rows.insert(entry(id, u64::MAX), vec![0; 8])), "no entry can have this sequence"),
    (|rows, id, _| drop(rows.insert(entry(id, 0), vec![0; 8])), "no entry can have this sequence"),
    (|rows, id, _| set(rows, &key(id, 3, &[]), 8, u64::MAX), "entries 9 to 4611686018427387904: missing"),
];

const SINGLE: &[Plant] = &[
    (|rows, id, _| take(rows, &key(id, 3, &[])), "there is no tail row"),
    (|rows, id, _| set(rows, &key(id, 3, &[]), 8, 5), "entry 8: the tail row says that entry 5 is the last"),
    (|rows, id, _| set(rows, &key(id, 3, &[]), 8, 9), "entry 9: missing"),
    (|rows, id, _| set(rows, &key(id, 3, &[]), 16, 2), "entry 8: the tail row is not what the last entry says"),
    (|rows, id, _| take(rows, &key(id, 1, &[])), "there is no start row"),
    (
        |rows, id, _| rows.get_mut(&key(id, 1, &[])).unwrap().push(b'x'),
        "the start row is not what the first entry says",
    ),
    (|rows, id, _| rows.get_mut(&key(id, 1, &[])).unwrap().truncate(3), "a row does not have its form"),
    (|rows, id, _| take(rows, &key(id, 2, &[])), "there is no title row"),
    (|rows, id, _| drop(rows.insert(key(id, 2, &[]), b"x".to_vec())), "the title row is not what the entries say"),
    (|rows, id, _| take(rows, &message(id, 2)), "entry 3: no row remembers the id of this message"),
    (
        |rows, id, _| drop(rows.insert(message(id, 77), numbers(&[99, 1]))),
        "entry 99: a row says that this entry is message",
    ),
    (
        |rows, id, _| drop(rows.insert(message(id, 77), numbers(&[4, 1]))),
        "entry 4: a row says that this entry is message",
    ),
    (|rows, id, _| set(rows, &message(id, 1), 8, 1), "entry 2: a row says that this entry is message"),
    (
        |rows, id, _| drop(rows.insert(key(id, 6, &[0x40; 16]), numbers(&[4]))),
        "entry 4: a row says that this entry is message",
    ),
    (|rows, id, _| set(rows, &message(id, 1), 0, 3), "entry 2: no row remembers the id of this message"),
    (|rows, id, _| rows.get_mut(&message(id, 1)).unwrap().push(1), "does not have its form"),
];

const USERS: &[Plant] = &[
    (|rows, id, _| take(rows, &key(id, 4, b"bob")), "user bob: added by entry 1, but there is no member row"),
    (|rows, id, _| set(rows, &key(id, 4, b"dan"), 0, 4), "user dan: the member row begins at entry 4, but 5 added it"),
    (
        |rows, id, _| drop(rows.insert(key(id, 4, b"eve"), numbers(&[1, 0]))),
        "user eve: a member row, but no entry added the member",
    ),
    (
        |rows, id, _| drop(rows.insert(key(id, 4, b"cid"), numbers(&[1, 0]))),
        "user cid: removed by entry 4, but there is a member row",
    ),
    (|rows, id, _| rows.get_mut(&key(id, 4, b"bob")).unwrap().truncate(9), "user bob: a row does not have its form"),
    (|rows, id, _| set(rows, &key(id, 5, b"bob"), 16, 9), "user bob: the pointers are beyond the last entry"),
    (|rows, id, _| set(rows, &key(id, 5, b"bob"), 16, 2), "the delivered pointer is before the read pointer"),
    (|rows, id, _| set(rows, &key(id, 5, b"bob"), 8, 1), "entry 3: a read pointer to this entry has another ordinal"),
    (
        |rows, id, _| drop(rows.insert(key(id, 5, b"eve"), numbers(&[1, 0, 1]))),
        "user eve: pointers of somebody who was never a member",
    ),
    (|rows, id, _| take(rows, &user("bob", id)), "user bob: entry 1: there is no row of this user"),
    (|rows, id, _| take(rows, &user("cid", id)), "user cid: entry 4: there is no row of this user"),
    (
        |rows, id, _| rows.get_mut(&user("bob", id)).unwrap()[0] = 2,
        "user bob: entry 1: the user's row says left by entry 1, but entry 1 is the last",
    ),
    (|rows, id, _| set(rows, &user("dan", id), 1, 6), "user dan: entry 5: the user's row says joined by entry 6"),
    (|rows, id, _| rows.get_mut(&user("bob", id)).unwrap().truncate(9), "user bob: a row does not have its form"),
    (
        |rows, id, _| {
            let row = rows[&user("bob", id)].clone();
            rows.insert(user("eve", id), row);
        },
        "user eve: entry 1: the user's row says joined by this entry, which does not say so",
    ),
    (
        |rows, id, _| {
            let row = rows[&user("bob", id)].clone();
            rows.insert(user("eve", ConversationId([0xee; 16])), row);
        },
        "conversation eeeeeeee-eeee-eeee-eeee-eeeeeeeeeeee: user eve: entry 1: the user's row says joined by this \
         entry, which does not exist",
    ),
];

fn check(plants: &[Plant]) {
    let (whole, manifest, [one, other]) = rows();
    for (change, expected) in plants {
        let mut rows = whole.clone();
        change(&mut rows, one, other);
        assert!(rows != whole, "{expected}: nothing was changed");
        let texts = findings(&verify(&store(&rows, &manifest)));
        assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:?}");
        let named = format!("conversation {one}");
        let elsewhere = expected.contains("conversation") && !expected.contains("another conversation");
        let is_named = expected.contains("a key that") || elsewhere || texts.iter().any(|text| text.contains(&named));
        assert!(is_named, "{expected}: {texts:?}");
        assert!(!texts.iter().any(|text| text.contains(&format!("conversation {other}"))), "{expected}: {texts:?}");
    }
}

#[test]
fn entries_that_do_not_follow_each_other_are_named() {
    check(ENTRIES);
}

#[test]
fn rows_that_are_not_what_the_entries_say_are_named() {
    check(SINGLE);
}

#[test]
fn members_pointers_and_users_that_no_entry_made_are_named() {
    check(USERS);
}

#[test]
fn findings_beyond_those_that_are_kept_are_counted() {
    let (mut rows, manifest, _) = rows();
    rows.extend((0..10_003u32).map(|number| ([&[9][..], &number.to_be_bytes()].concat(), Vec::new())));
    let report = verify(&store(&rows, &manifest));
    assert_eq!((report.findings.len(), report.findings_left_out, report.is_sound()), (10_000, 3, false));
}

#[test]
fn stretches_of_missing_entries_beyond_those_that_are_kept_are_counted() {
    let (mut rows, manifest, [id, _]) = rows();
    let title = rows[&entry(id, 6)].clone();
    let mut template = support::entry(&title[8..]);
    template.ordinal = support::entry(&rows[&entry(id, 8)][8..]).ordinal;
    template.time_ms = support::entry(&rows[&entry(id, 8)][8..]).time_ms;
    for number in 0..1_002 {
        template.sequence = Sequence(10 + 2 * number);
        let position = manifest.flushed_position + number;
        rows.insert(entry(id, template.sequence.0), [&numbers(&[position])[..], &template.to_archive()].concat());
    }
    let report = verify(&store(&rows, &manifest));
    let missing = findings(&report).iter().filter(|text| text.ends_with(": missing")).count();
    assert_eq!((missing, report.findings_left_out), (1_000, 2), "{:?}", report.findings.last());
}
