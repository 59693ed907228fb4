//! Random rows, flushes, merges and reopenings against a `BTreeMap`.

use antiphon_engine::{
    compaction::{Choice, NEVER_EXPIRED, YieldNow},
    memory_files::{MemoryFiles, block_on, block_on_releasing},
    row::{Direction, KeyRange},
    sorted::Sorted,
};
use proptest::{collection, option, prelude::*};

use crate::support::{Model, Rows, changes, check, create, expected, mark, scan, settings};

#[derive(Debug, Clone)]
enum Act {
    Flush(Rows),
    Merge { newest: usize, count: usize },
    Compact,
    Reopen,
    Get(Vec<u8>),
    Scan { start: Vec<u8>, end: Option<Vec<u8>>, backward: bool, memory: Rows },
    ScanPrefix { prefix: [u8; 2], backward: bool },
}

/// Few different bytes and lengths, so that keys meet, share prefixes, and are prefixes of each other.
fn key() -> impl Strategy<Value = Vec<u8>> {
    collection::vec(prop_oneof![Just(0u8), Just(1), Just(7), Just(255)], 0..7)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => collection::vec(any::<u8>(), 0..40), 1 => collection::vec(Just(5u8), 200..2000)]
}

fn rows(most: usize) -> impl Strategy<Value = Rows> {
    collection::btree_map(key(), option::weighted(0.8, value()), 0..most)
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => rows(120).prop_map(Act::Flush),
        2 => (0..6usize, 2..5usize).prop_map(|(newest, count)| Act::Merge { newest, count }),
        1 => Just(Act::Compact),
        1 => Just(Act::Reopen),
        4 => key().prop_map(Act::Get),
        4 => (key(), option::of(key()), any::<bool>(), rows(20))
            .prop_map(|(start, end, backward, memory)| Act::Scan { start, end, backward, memory }),
        2 => (prop_oneof![Just(0u8), Just(1), Just(7)], prop_oneof![Just(0u8), Just(1), Just(2)], any::<bool>())
            .prop_map(|(first, second, backward)| Act::ScanPrefix { prefix: [first, second], backward }),
    ]
}

fn direction(backward: bool) -> Direction {
    if backward { Direction::Backward } else { Direction::Forward }
}

async fn run(files: MemoryFiles, acts: Vec<Act>) {
    let mut sorted = create(&files).await;
    let mut model = Model::new();
    let mut position = 0;
    for act in acts {
        match act {
            Act::Flush(rows) => {
                position += rows.len() as u64;
                let id = sorted.flush(changes(&rows), mark(position)).await.unwrap();
                assert_eq!(id.is_none(), rows.is_empty());
                model.extend(rows);
            }
            Act::Merge { newest, count } => {
                let runs = sorted.runs().newest_first().len();
                if newest + count <= runs {
                    let choice = Choice { newest, count, reaches_oldest: newest + count == runs };
                    sorted.merge(choice, YieldNow, NEVER_EXPIRED).await.unwrap().unwrap();
                }
            }
            Act::Compact => drop(sorted.compact(YieldNow, NEVER_EXPIRED).await.unwrap()),
            Act::Reopen => {
                let (again, report) = Sorted::open(files.clone(), settings()).await.unwrap();
                assert!(report.damaged.is_empty() && report.removed.is_empty(), "{report:?}");
                assert_eq!(*again.manifest(), *sorted.manifest());
                assert_eq!(again.manifest().flushed_position, position);
                sorted = again;
            }
            Act::Get(key) => {
                let found = sorted.runs().get(&key).await.unwrap();
                let value = found.clone().and_then(|change| change.value().map(|value| value.to_vec()));
                assert_eq!(value, model.get(&key).cloned().flatten(), "{key:?}");
                if let Some(cached) = sorted.runs().get_cached(&key) {
                    assert_eq!(cached, found);
                }
            }
            Act::Scan { start, end, backward, memory } => {
                let range = KeyRange { start, end };
                let direction = direction(backward);
                let mut model = model.clone();
                model.extend(memory.clone());
                let found = scan(&sorted.runs(), &range, direction, None, &memory).await;
                assert_eq!(found, expected(&model, &range, direction));
            }
            Act::ScanPrefix { prefix, backward } => {
                let range = KeyRange::prefix(prefix);
                let direction = direction(backward);
                let found = scan(&sorted.runs(), &range, direction, Some(&prefix), &Rows::new()).await;
                assert_eq!(found, expected(&model, &range, direction));
            }
        }
    }
    check(&sorted, &model).await;
    assert_eq!(sorted.remove_unused().await, 0);
    // The manifest and its segments, nothing else.
    assert_eq!(files.names().len(), 1 + sorted.manifest().segments.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn a_store_does_what_a_map_does(acts in collection::vec(act(), 1..40)) {
        block_on(run(MemoryFiles::new(0), acts));
    }

    #[test]
    fn and_does_so_when_every_operation_waits(acts in collection::vec(act(), 1..12), seed in any::<u64>()) {
        let files = MemoryFiles::new(0);
        files.set_queued(true);
        block_on_releasing(&files, seed, run(files.clone(), acts));
    }
}
