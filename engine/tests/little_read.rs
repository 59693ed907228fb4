//! A start reads what it needs of the log and little more, and is told as much by it as by all of the log.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{HistoryRange, Token},
    memory_files::{MemoryFiles, OperationKind},
    offline,
};
use antiphon_wire::ids::{ConversationId, LanePosition};
use support::{Lane, block_on, send, small_options};

const PAGE: usize = 4096;
const MIB: usize = 1024 * 1024;
const FILE_BYTES: usize = 16 * MIB;
/// The last page.
const LIMIT: usize = FILE_BYTES - PAGE;
/// How far a limit is ahead.
const STEP: usize = FILE_BYTES / 64;
/// The longest batch.
const BATCH_BYTES_MAX: usize = MIB;
/// How far behind the limit a search goes.
const REACH: usize = BATCH_BYTES_MAX + STEP;
/// A batch of one message.
const BATCH_BYTES: usize = 3 * PAGE;
const LOG: &str = "log-00000000";

fn options() -> EngineOptions {
    EngineOptions {
        log_file_bytes: FILE_BYTES as u64,
        log_files_max: 5,
        memtable_bytes: 64 * MIB,
        batch_bytes_max: BATCH_BYTES_MAX,
        ..small_options()
    }
}

/// A lane, and whom its messages go to.
struct Filled {
    lane: Lane,
    conversation: ConversationId,
    messages: u64,
}

impl Filled {
    fn new() -> Self {
        let mut lane = Lane::with_options(1, options());
        let conversation = lane.create_direct("ann", "bob");
        Self { lane, conversation, messages: 0 }
    }

    fn say(&mut self) {
        self.lane.sent("ann", self.conversation, self.messages, &"x".repeat(10_000));
        self.lane.outputs.clear();
        self.messages += 1;
    }

    /// Messages of as many bytes of the log.
    fn fill(&mut self, bytes: usize) {
        (0..bytes / BATCH_BYTES).for_each(|_| self.say());
    }

    /// Until a file is in use that was not.
    fn fill_up(&mut self, name: &str) {
        while generation(&self.lane.files, name, 0) == 0 {
            self.say();
        }
    }

    fn flush(&mut self) {
        self.lane.clock.advance(2_000_000);
        self.lane.engine.tick();
        self.lane.settle();
        assert_eq!(self.lane.engine.status().memtable_bytes, 0);
    }

    fn position(&self) -> LanePosition {
        self.lane.engine.position()
    }

    fn image(&self) -> MemoryFiles {
        self.lane.files.crash_image(1)
    }

    /// Opens an image of it, which is to hold all, and tells how much of the log was read.
    fn opened(&self, image: MemoryFiles) -> Lane {
        let mut lane = self.lane.opened_again(image).unwrap();
        assert_eq!(lane.report.position, self.position(), "{:?}", lane.report);
        assert!(lane.report.damage.is_empty() && lane.report.torn_tail.is_none(), "{:?}", lane.report);
        let page = lane.history("bob", self.conversation, HistoryRange::Latest, 50).unwrap();
        assert_eq!(page.last.0, self.messages + 1);
        lane
    }
}

/// Where batches of a file begin, from its beginning.
fn batches(files: &MemoryFiles, name: &str) -> Vec<usize> {
    let log = files.contents(name).unwrap();
    let number =
        |at: usize, size: usize| log[at..at + size].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (mut found, mut at) = (Vec::new(), 0);
    while log[at..].starts_with(b"ANTILOG\n") && number(at + 32, 8) == number(32, 8) {
        found.push(at);
        at = (at + number(at + 12, 4)).next_multiple_of(PAGE);
    }
    found
}

/// The generation that a batch or a limit tells.
fn generation(files: &MemoryFiles, name: &str, at: usize) -> u64 {
    let field = files.peek(name, at as u64 + 32, 8).unwrap();
    u64::from_le_bytes(field.try_into().unwrap())
}

fn wipe(files: &MemoryFiles, name: &str, at: usize, bytes: usize) {
    assert!(files.overwrite(name, at as u64, &vec![0; bytes]));
}

fn log_bytes_read(lane: &Lane) -> usize {
    lane.report.log_bytes_read as usize
}

#[test]
fn a_start_reads_no_further_than_the_limit() {
    let mut filled = Filled::new();
    for _ in 0..3 {
        filled.fill(MIB);
        let used = batches(&filled.lane.files, LOG).last().unwrap() + BATCH_BYTES;
        let lane = filled.opened(filled.image());
        // The first batch and the last page of each file come to it; and what the page behind the limit would allow.
        let least = used + 4 * PAGE;
        assert!((least..used + STEP + REACH + 12 * PAGE).contains(&log_bytes_read(&lane)), "{:?}", lane.report);
        // Without a limit that holds, all is read; and then all files are looked at for a hidden one.
        for spoil in [
            |image: &MemoryFiles| wipe(image, LOG, LIMIT, PAGE),
            |image: &MemoryFiles| assert!(image.flip_bit(LOG, LIMIT as u64 + 40, 5)),
        ] {
            let image = filled.image();
            spoil(&image);
            let lane = filled.opened(image);
            assert!(log_bytes_read(&lane) > FILE_BYTES, "{:?}", lane.report);
        }
    }
}

#[test]
fn what_segments_hold_is_not_read_again() {
    let mut filled = Filled::new();
    filled.fill(6 * MIB);
    filled.flush();
    filled.fill(2 * MIB);
    let lane = filled.opened(filled.image());
    assert!(log_bytes_read(&lane) < 2 * MIB + 2 * STEP + REACH + 20 * PAGE, "{:?}", lane.report);
    // What is lost of what is to be replayed is told; of the rest it is by who verifies. One batch has one record, and one was a seal.
    let flushed = lane.report.flushed_position.0 as usize;
    let begin = batches(&filled.lane.files, LOG);
    for (batch, is_lost) in [(begin[1], false), (begin[flushed + 2], true)] {
        let image = filled.image();
        wipe(&image, LOG, batch, PAGE);
        let lane = filled.lane.opened_again(image.clone()).unwrap();
        assert_eq!(lane.report.read_only, is_lost, "{:?}", lane.report);
        assert_eq!(lane.report.damage.len(), usize::from(is_lost), "{:?}", lane.report);
        let verified = block_on(offline::verify(image, 0, |_| ())).unwrap();
        let [finding] = verified.findings.as_slice() else { panic!("{:?}", verified.findings) };
        assert_eq!(finding.harmless, !is_lost, "{finding:?}");
    }
}

/// However far the next batch that can be read is.
#[test]
fn rot_is_told_from_a_torn_write_by_whatever_follows_it() {
    let mut filled = Filled::new();
    filled.fill(5 * MIB);
    let begin = batches(&filled.lane.files, LOG);
    let (last, count) = (*begin.last().unwrap(), begin.len());
    for first in [count - 2, count / 2, 2] {
        for spoils_limit in [false, true] {
            let image = filled.image();
            begin[first..count - 1].iter().for_each(|at| wipe(&image, LOG, *at, PAGE));
            if spoils_limit {
                wipe(&image, LOG, LIMIT, PAGE);
            }
            let lane = filled.lane.opened_again(image).unwrap();
            let [damage] = lane.report.damage.as_slice() else { panic!("{:?}", lane.report) };
            assert!(lane.report.read_only && damage.offset == begin[first] as u64, "{damage:?}");
            assert_eq!((damage.first.0, lane.report.position), (first as u64 + 1, filled.position()), "{damage:?}");
        }
    }
    // Where nothing follows it was the last write.
    let image = filled.image();
    assert!(image.flip_bit(LOG, last as u64 + 70, 2));
    let lane = filled.lane.opened_again(image).unwrap();
    assert_eq!(lane.report.torn_tail.as_ref().map(|torn| torn.offset), Some(last as u64));
    assert!(!lane.report.read_only && lane.report.position.0 == filled.position().0 - 1, "{:?}", lane.report);
}

/// The page that gave the limit may be as it was before the batches that moved it.
#[test]
fn batches_beyond_the_limit_are_read_and_what_rots_there_is_told() {
    let mut filled = Filled::new();
    filled.fill(MIB);
    let old = filled.lane.files.peek(LOG, LIMIT as u64, PAGE).unwrap();
    // Further than a search goes.
    filled.fill(2 * STEP + REACH);
    let image = filled.image();
    assert!(image.overwrite(LOG, LIMIT as u64, &old));
    filled.opened(image.clone());
    let begin = batches(&filled.lane.files, LOG);
    let middle = begin[begin.len() - 40];
    begin[begin.len() - 40..begin.len() - 1].iter().for_each(|at| wipe(&image, LOG, *at, PAGE));
    let lane = filled.lane.opened_again(image).unwrap();
    assert!(lane.report.read_only && lane.report.damage[0].offset == middle as u64, "{:?}", lane.report);
}

/// The last write of the page may have gone astray: what it said before bounds no search for what follows rot.
#[test]
fn a_limit_that_is_one_write_old_hides_nothing_behind_rot() {
    let mut filled = Filled::new();
    filled.fill(2 * MIB);
    let page = |filled: &Filled| filled.lane.files.peek(LOG, LIMIT as u64, PAGE).unwrap();
    let old = page(&filled);
    while page(&filled) == old {
        filled.say();
    }
    filled.fill(STEP / 2);
    let end = u64::from_le_bytes(old[40..48].try_into().unwrap()) as usize;
    let begin = batches(&filled.lane.files, LOG);
    let crossing = begin.iter().rposition(|at| *at < end).unwrap();
    for lost in [crossing..crossing + 1, crossing - 3..crossing + 1, crossing - 3..begin.len() - 1] {
        let image = filled.image();
        assert!(image.overwrite(LOG, LIMIT as u64, &old));
        begin[lost.clone()].iter().for_each(|at| wipe(&image, LOG, *at, PAGE));
        let lane = filled.lane.opened_again(image).unwrap();
        let [damage] = lane.report.damage.as_slice() else { panic!("{lost:?}: {:?}", lane.report) };
        assert!(lane.report.read_only && damage.offset == begin[lost.start] as u64, "{damage:?}");
        assert_eq!(lane.report.position, filled.position(), "{damage:?}");
    }
}

/// A file's second batch is found though an older generation, or none, stands at its beginning.
#[test]
fn a_file_whose_first_batch_never_arrived_is_found() {
    let mut filled = Filled::new();
    let (second, third) = ("log-00000001", "log-00000002");
    let blank = filled.lane.files.peek(second, 0, PAGE).unwrap();
    filled.fill(MIB);
    let old_limit = filled.lane.files.peek(LOG, LIMIT as u64, PAGE).unwrap();
    let never_told = filled.lane.files.peek(second, LIMIT as u64, PAGE).unwrap();
    filled.fill_up(second);
    filled.fill(MIB / 4);
    let first_batch = filled.lane.files.peek(second, 0, BATCH_BYTES).unwrap();
    for (limit_arrived, goes_to_third) in [(true, false), (false, false), (true, true), (false, true)] {
        let image = filled.image();
        wipe(&image, second, 0, BATCH_BYTES);
        assert!(image.overwrite(second, 0, &blank));
        if !limit_arrived {
            assert!(image.overwrite(second, LIMIT as u64, &never_told));
        }
        if goes_to_third {
            assert!(image.overwrite(third, 0, &first_batch));
        }
        // The last limits of the file before went astray, too; the second's tells.
        let is_old = limit_arrived && image.overwrite(LOG, LIMIT as u64, &old_limit);
        let case =
            format!("limit arrived: {limit_arrived}, went to the third: {goes_to_third}, the first's is old: {is_old}");
        let lane = filled.lane.opened_again(image).unwrap();
        assert_eq!(lane.report.position, filled.position(), "{case}: {:?}", lane.report);
        assert_eq!(lane.report.read_only, !goes_to_third, "{case}: {:?}", lane.report);
    }
}

/// What the last page says of an older generation of its file counts for nothing.
#[test]
fn the_limit_of_another_generation_is_not_believed() {
    let mut filled = Filled::new();
    let old = loop {
        let old = filled.lane.files.peek(LOG, LIMIT as u64, PAGE).unwrap();
        filled.fill(8 * MIB);
        filled.flush();
        if generation(&filled.lane.files, LOG, 0) > 1 {
            break old;
        }
    };
    filled.say();
    let image = filled.image();
    assert_eq!(generation(&image, LOG, LIMIT), generation(&image, LOG, 0));
    assert!(image.overwrite(LOG, LIMIT as u64, &old));
    assert!(generation(&image, LOG, LIMIT) < generation(&image, LOG, 0));
    filled.opened(image);
}

/// A batch that moves the limit is acknowledged when both are durable.
#[test]
fn nothing_beyond_a_limit_is_acknowledged_before_the_limit_is_durable() {
    let mut filled = Filled::new();
    filled.fill(MIB / 2);
    let answered = |lane: &Lane, token: Token| lane.answer(token).is_some();
    // Until a message takes two writes.
    let (token, writes) = loop {
        filled.lane.files.set_queued(true);
        let token = filled.lane.submit(send("ann", filled.conversation, filled.messages, &"x".repeat(10_000)));
        filled.lane.settle();
        let writes = filled.lane.files.pending();
        if writes.len() > 1 {
            break (token, writes);
        }
        filled.lane.settle_queued();
        filled.messages += 1;
    };
    assert!(writes.iter().all(|of| of.kind == OperationKind::Write && of.name == LOG), "{writes:?}");
    for write in writes {
        assert!(!answered(&filled.lane, token));
        filled.lane.files.release(write.ticket);
        filled.lane.settle();
    }
    assert!(answered(&filled.lane, token));
}

#[test]
fn a_limit_that_cannot_be_written_fences_the_lane() {
    for nth in [1, 2] {
        let mut lane = Lane::with_options(1, options());
        lane.files.fail_nth(OperationKind::Write, nth);
        let token = lane.submit(antiphon_engine::door::Command::CreateDirect {
            user: support::user("ann"),
            peer: support::user("bob"),
        });
        lane.settle();
        assert!(lane.answer(token).unwrap().is_err(), "write {nth}");
        assert!(lane.engine.status().fenced.is_some(), "write {nth}");
    }
}

/// A lane that goes on after a start keeps what is known of the file, and says the limit anew.
#[test]
fn a_start_that_follows_another_reads_as_little() {
    let mut filled = Filled::new();
    filled.fill(6 * MIB);
    filled.flush();
    filled.lane.crash(3);
    filled.fill(MIB);
    let lane = filled.opened(filled.image());
    assert!(log_bytes_read(&lane) < MIB + 3 * STEP + REACH, "{:?}", lane.report);
    assert_eq!(generation(&filled.lane.files, LOG, LIMIT), 1);
}
