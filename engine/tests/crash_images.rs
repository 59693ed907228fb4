//! Crash images: every prefix, at sectors, of every log write of a small workload; and a crash after every operation of one that
//! flushes. Each image is opened and checked: what was acknowledged is there, sequences have no gap, a retry is recognised.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{Done, Token},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind},
};
use antiphon_wire::ids::{ConversationId, Sequence};
use support::{Lane, send, small_options};

const SECTOR: usize = 512;
const PAGE: usize = 4096;
const LOG: &str = "log-00000000";

/// A folder with these files, durable.
fn folder(files: &[(String, Vec<u8>)]) -> MemoryFiles {
    let folder = MemoryFiles::new(0);
    for (name, bytes) in files {
        folder.put(name, bytes.clone());
    }
    folder
}

fn copy(files: &MemoryFiles) -> Vec<(String, Vec<u8>)> {
    files.names().into_iter().map(|name| (name.clone(), files.contents(&name).unwrap())).collect()
}

fn open(files: MemoryFiles) -> Lane {
    Lane::open(files, MemoryClock::new(1_000_000), MemoryRandom::new(9), small_options()).unwrap()
}

fn text(number: u64) -> String {
    format!("message {number} {}", "x".repeat(number as usize % 7 * 800))
}

/// What a reopened lane has to show: messages 0 to `least`, perhaps up to `most`, all or none of a batch; and that a retry of each is
/// answered as the first time.
fn check(lane: &mut Lane, conversation: ConversationId, least: u64, most: u64) -> u64 {
    assert!(lane.report.damage.is_empty(), "{:?}", lane.report);
    let stored = lane.whole_history("ann", conversation).len() as u64 - 1;
    assert!((least..=most).contains(&stored), "{stored} of {least} to {most}: {:?}", lane.report);
    for number in 0..most {
        match lane.send("ann", conversation, number, &text(number)) {
            Ok(Done::Sent { sequence, duplicate, .. }) => {
                assert_eq!(duplicate, number < stored, "{number}");
                assert_eq!(sequence, Sequence(number + 2));
            }
            other => panic!("{other:?}"),
        }
    }
    stored
}

#[test]
fn every_sector_prefix_of_every_log_write_is_all_or_nothing() {
    let mut lane = Lane::new(1);
    let conversation = lane.create_direct("ann", "bob");
    let mut before = copy(&lane.files);
    let mut images = 0;
    let mut next = 0;
    for batch in 1..7 {
        let most = next + batch;
        let tokens: Vec<Token> =
            (next..most).map(|number| lane.submit(send("ann", conversation, number, &text(number)))).collect();
        lane.settle();
        assert!(tokens.iter().all(|token| lane.answer(*token).is_some()));
        let after = copy(&lane.files);
        let log = |files: &[(String, Vec<u8>)]| files.iter().find(|(name, _)| name == LOG).unwrap().1.clone();
        let (old, new) = (log(&before), log(&after));
        let changed: Vec<usize> =
            (0..new.len() / SECTOR).filter(|at| old[at * SECTOR..][..SECTOR] != new[at * SECTOR..][..SECTOR]).collect();
        let random = MemoryRandom::new(batch);
        // Every prefix, then every single sector alone, then any subsets.
        let prefixes = (0..=changed.len()).map(|count| changed[..count].to_vec());
        let singles = changed.iter().map(|sector| vec![*sector]);
        let subsets = (0..20).map(|_| changed.iter().copied().filter(|_| random.below(2) == 0).collect());
        for sectors in prefixes.chain(singles).chain(subsets) {
            let mut image = old.clone();
            for sector in &sectors {
                image[sector * SECTOR..][..SECTOR].copy_from_slice(&new[sector * SECTOR..][..SECTOR]);
            }
            let mut files = before.clone();
            files.iter_mut().find(|(name, _)| name == LOG).unwrap().1 = image;
            let mut reopened = open(folder(&files));
            let stored = check(&mut reopened, conversation, next, most);
            assert!(stored == next || stored == most, "a batch is whole or not there");
            // The last page, which some batches are written beside, says how far they may go, not what is there.
            let of_batch = |sectors: &[usize]| sectors.iter().filter(|at| *at * SECTOR < new.len() - PAGE).count();
            assert_eq!(stored == most, of_batch(&sectors) == of_batch(&changed));
            // And once more on what the reopened lane wrote over the torn end.
            reopened.reopen();
            check(&mut reopened, conversation, most, most);
            images += 1;
        }
        (before, next) = (after, most);
    }
    assert!(images > 200, "{images}");
}

#[test]
fn a_crash_after_any_operation_loses_nothing_acknowledged() {
    let mut crashes = 0;
    for stop in 0.. {
        let options = EngineOptions { memtable_bytes: 6_000, ..small_options() };
        let mut lane = Lane::with_options(stop, options);
        lane.files.set_queued(true);
        let conversation = lane.create_group("ann", 1, &["bob"]);
        let (mut operations, mut submitted) = (0, 0);
        let mut tokens = Vec::new();
        let finished = 'run: loop {
            while submitted < 40 && tokens.len() < submitted as usize / 2 + 3 {
                tokens.push(lane.submit(send("ann", conversation, submitted, &text(submitted))));
                submitted += 1;
            }
            lane.settle();
            let pending = lane.files.pending();
            if pending.is_empty() {
                if submitted == 40 {
                    break 'run true;
                }
                tokens.push(lane.submit(send("ann", conversation, submitted, &text(submitted))));
                submitted += 1;
                continue;
            }
            if operations == stop {
                break 'run false;
            }
            lane.files.release(pending[lane.random.below(pending.len() as u64) as usize].ticket);
            operations += 1;
        };
        lane.drain();
        let acknowledged = tokens.iter().filter(|token| lane.answer(**token).is_some()).count() as u64;
        lane.crash(stop);
        check(&mut lane, conversation, acknowledged, submitted);
        crashes += 1;
        if finished {
            assert!(lane.report.flushed_position.0 > 0, "the workload flushes: {:?}", lane.report);
            break;
        }
    }
    assert!(crashes > 50, "{crashes}");
}

/// Small log files go round many times while flushes lag behind, and the power fails at any moment.
#[test]
fn log_files_go_round_and_nothing_is_lost() {
    for seed in 0..20 {
        let random = MemoryRandom::new(seed);
        let options =
            EngineOptions { log_file_bytes: 512 * 1024, log_files_max: 3, memtable_bytes: 1 << 20, ..small_options() };
        let mut lane = Lane::with_options(seed, options);
        let conversation = lane.create_direct("ann", "bob");
        let (mut stored, mut flushes) = (0, 0);
        for _ in 0..6 {
            lane.files.set_queued(true);
            let (crash_at, lag) = (random.below(700), [3, 20, 200][random.below(3) as usize]);
            for round in 0.. {
                if random.below(60) == 0 {
                    // A flush that begins anywhere in a file.
                    lane.clock.advance(2_000_000);
                    lane.engine.tick();
                }
                let token = lane.submit(send("ann", conversation, stored, "one page of the log"));
                lane.settle();
                // Log writes at once, anything else seldom: the flush lags as far as the log allows.
                while lane.answer(token).is_none() || random.below(lag) == 0 {
                    let pending = lane.files.pending();
                    let write =
                        pending.iter().find(|of| of.kind == OperationKind::Write && of.name.starts_with("log-"));
                    let Some(chosen) = write.or_else(|| pending.get(random.below(pending.len() as u64) as usize))
                    else {
                        break;
                    };
                    lane.files.release(chosen.ticket);
                    lane.settle();
                }
                match lane.answer(token) {
                    Some(Ok(Done::Sent { sequence, duplicate: false, .. })) => {
                        assert_eq!(sequence, Sequence(stored + 2))
                    }
                    other => panic!("seed {seed}: {other:?} {:?}", lane.engine.status()),
                }
                stored += 1;
                if round == crash_at {
                    break;
                }
            }
            flushes += lane.engine.status().flushes;
            lane.outputs.clear();
            lane.crash(random.below(u64::MAX));
            assert!(lane.report.damage.is_empty() && !lane.report.read_only, "seed {seed}: {:?}", lane.report);
            assert_eq!(lane.whole_history("bob", conversation).len() as u64, 1 + stored, "seed {seed}");
            // Each once to tell its generation, as far as a batch may reach, and once to replay it.
            assert!(lane.report.log_bytes_read <= 2 * 4 * 512 * 1024, "{:?}", lane.report);
        }
        assert!(flushes > 2, "seed {seed}: {flushes} flushes of {stored} messages");
    }
}

/// The first write of a log file may be under way, and never complete, while a flush becomes durable: the manifest does not speak of a
/// file that recovery may not find.
#[test]
fn a_flush_during_the_first_write_of_a_log_file_does_not_ask_for_it() {
    // A file holds 128 batches of a page.
    let options = EngineOptions { log_file_bytes: 512 * 1024, memtable_bytes: 1 << 20, ..small_options() };
    let mut lane = Lane::with_options(3, options);
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..127 {
        lane.sent("ann", conversation, number, "one page of the log");
    }
    lane.files.set_queued(true);
    lane.submit(send("ann", conversation, 127, "the first of the next file"));
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    let is_log_write =
        |name: &str, kind| kind == OperationKind::Write && name.starts_with("log-") && !name.ends_with(".new");
    while let Some(other) = lane.files.pending().iter().find(|of| !is_log_write(&of.name, of.kind)) {
        lane.files.release(other.ticket);
        lane.settle();
    }
    assert_eq!(lane.engine.status().flushed_position.0, 128);
    assert!(lane.engine.status().write_in_flight);
    for seed in 0..20 {
        let mut again = lane.opened_again(lane.files.crash_image(seed)).unwrap_or_else(|error| panic!("{error}"));
        assert!(again.report.damage.is_empty(), "{:?}", again.report);
        assert!((128..=129).contains(&again.whole_history("bob", conversation).len()));
    }
}

/// A flush may end with any record of a log file: also with the one before the file's last, which then is all that is to be replayed of it.
#[test]
fn a_flush_that_ends_near_the_end_of_a_log_file_leaves_nothing_out() {
    for flushed_after in 118..132 {
        // A file holds 128 batches of a page.
        let options = EngineOptions { log_file_bytes: 512 * 1024, memtable_bytes: 1 << 20, ..small_options() };
        let mut lane = Lane::with_options(flushed_after, options);
        let conversation = lane.create_direct("ann", "bob");
        for number in 0..140 {
            lane.sent("ann", conversation, number, "one page of the log");
            if number == flushed_after {
                lane.clock.advance(2_000_000);
                lane.engine.tick();
                lane.settle();
            }
        }
        let flushed = lane.engine.status().flushed_position.0;
        assert!(flushed > flushed_after && flushed < 141, "{flushed}");
        lane.crash(flushed_after);
        assert!(lane.report.damage.is_empty(), "flushed to {flushed}: {:?}", lane.report);
        assert_eq!(lane.whole_history("bob", conversation).len(), 141, "flushed to {flushed}");
    }
}
