//! What rot of the log takes with it: every lost entry is put down to its conversation, also where no later one tells of it, and what
//! may have lost a change of members is shown to nobody.

mod support;

use antiphon_engine::{
    EngineOptions, LostRange,
    door::{Command, Done, HistoryRange},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
};
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, LanePosition, Sequence},
};
use support::{Lane, small_options, user};

const LOG: &str = "log-00000000";
const PAGE: u64 = 4096;

/// Where the log's batches begin, and how many records each holds.
fn batches(files: &MemoryFiles) -> Vec<(u64, u32)> {
    let log = files.contents(LOG).unwrap();
    let number = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap());
    let mut found = Vec::new();
    let mut at = 0;
    while log[at..].starts_with(b"ANTILOG\n") {
        found.push((at as u64, number(at + 48)));
        at = (at + number(at + 12) as usize).next_multiple_of(PAGE as usize);
    }
    found
}

fn rotten(lane: &Lane, batches: &[u64]) -> Lane {
    let files = lane.files.crash_image(1);
    for offset in batches {
        assert!(files.flip_bit(LOG, offset + 70, 2));
    }
    Lane::open(files, MemoryClock::new(1_000_000), MemoryRandom::new(9), small_options()).unwrap()
}

fn remove(lane: &mut Lane, conversation: ConversationId, name: &str) {
    let members = vec![user(name)];
    lane.ask(Command::RemoveMembers { user: user("ann"), conversation, members }).unwrap();
}

fn listed(lane: &mut Lane, name: &str) -> Vec<ConversationId> {
    let answer = lane.ask(Command::Conversations { user: user(name), after: None, limit: 50 }).unwrap();
    let Done::Conversations { conversations, .. } = answer else { panic!("{answer:?}") };
    conversations.iter().map(|summary| summary.conversation).collect()
}

fn code(lane: &mut Lane, name: &str, conversation: ConversationId) -> Option<ErrorCode> {
    lane.history(name, conversation, HistoryRange::Latest, 50).err().map(|refusal| refusal.code)
}

#[test]
fn a_lost_removal_hides_its_conversation_and_no_other() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    let other = lane.create_group("ann", 2, &["bob"]);
    lane.sent("ann", group, 1, "for bob's eyes");
    remove(&mut lane, group, "bob");
    let (removal, _) = *batches(&lane.files).last().unwrap();
    lane.sent("ann", other, 2, "later, elsewhere");
    let mut lane = rotten(&lane, &[removal]);
    assert!(lane.report.read_only);
    let [damage] = lane.report.damage.as_slice() else { panic!("{:?}", lane.report) };
    assert!(damage.all_known);
    let lost = LostRange { conversation: group, first: Sequence(3), last: Sequence(3) };
    assert_eq!((damage.offset, damage.conversations.as_slice()), (removal, [lost].as_slice()));
    for name in ["ann", "bob"] {
        assert_eq!(code(&mut lane, name, group), Some(ErrorCode::Damaged));
        assert_eq!(code(&mut lane, name, other), None);
        assert_eq!(listed(&mut lane, name), [other]);
    }
    assert_eq!(code(&mut lane, "cid", group), Some(ErrorCode::NotFound));
    let caught_up = lane.catch_up("bob", 0, &[]).unwrap();
    assert!(caught_up.entries.iter().all(|archive| support::entry(archive).conversation == other));
    assert!(caught_up.too_far.is_empty());
}

#[test]
fn a_lost_message_is_told_though_nothing_follows_it() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    let other = lane.create_group("ann", 2, &["bob"]);
    lane.sent("ann", group, 1, "one");
    lane.sent("ann", group, 2, "two");
    let (message, _) = *batches(&lane.files).last().unwrap();
    lane.sent("ann", other, 3, "elsewhere");
    let mut lane = rotten(&lane, &[message]);
    let lost = LostRange { conversation: group, first: Sequence(3), last: Sequence(3) };
    assert_eq!(lane.report.damage[0].conversations, [lost]);
    assert_eq!(code(&mut lane, "bob", group), Some(ErrorCode::Damaged), "the latest page begins with what is lost");
    let page = lane.history("bob", group, HistoryRange::Before(Sequence(3)), 50).unwrap();
    assert_eq!((page.entries.len(), page.last), (2, Sequence(3)));
    let mut both = [group, other];
    both.sort_unstable();
    assert_eq!(listed(&mut lane, "bob"), both);
}

#[test]
fn two_batches_lost_in_a_row_hide_the_whole_lane() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    let other = lane.create_group("ann", 2, &["bob"]);
    lane.sent("ann", group, 1, "one");
    let (first, _) = *batches(&lane.files).last().unwrap();
    lane.sent("ann", group, 2, "two");
    let (second, _) = *batches(&lane.files).last().unwrap();
    lane.sent("ann", other, 3, "elsewhere");
    let mut lane = rotten(&lane, &[first, second]);
    let [damage] = lane.report.damage.as_slice() else { panic!("{:?}", lane.report) };
    assert!(!damage.all_known);
    assert_eq!((damage.first, damage.last), (LanePosition(3), LanePosition(4)));
    for conversation in [group, other] {
        assert_eq!(code(&mut lane, "bob", conversation), Some(ErrorCode::Damaged));
        assert_eq!(code(&mut lane, "cid", conversation), Some(ErrorCode::NotFound));
    }
    assert!(listed(&mut lane, "bob").is_empty());
}

#[test]
fn an_idle_lane_seals_its_last_batch_once() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", group, 1, "one");
    let before = batches(&lane.files);
    for _ in 0..5 {
        lane.engine.tick();
        lane.settle();
    }
    let after = batches(&lane.files);
    assert_eq!((after.len(), after.last().unwrap().1), (before.len() + 1, 0), "one empty batch");
    let (message, seal) = (before.last().unwrap().0, after.last().unwrap().0);

    let told = rotten(&lane, &[message]);
    assert!(told.report.read_only && told.report.torn_tail.is_none(), "{:?}", told.report);
    let lost = LostRange { conversation: group, first: Sequence(2), last: Sequence(2) };
    assert_eq!(told.report.damage[0].conversations, [lost]);

    // A seal that is lost takes nothing with it, and what comes after it tells of the batch before it.
    let mut harmless = rotten(&lane, &[seal]);
    assert!(!harmless.report.read_only, "{:?}", harmless.report);
    harmless.sent("bob", group, 2, "on");
    lane.sent("bob", group, 2, "on");
    let without_the_seal = rotten(&lane, &[seal]);
    let [damage] = without_the_seal.report.damage.as_slice() else { panic!("{:?}", without_the_seal.report) };
    assert!(damage.harmless && !without_the_seal.report.read_only, "{damage:?}");
    assert_eq!(
        damage.offset, seal,
        "what names another batch as the one before it is told, though no record is missing"
    );
    let told = rotten(&lane, &[message, seal]);
    assert_eq!(told.report.damage[0].conversations, [lost]);
    assert!(told.report.damage[0].all_known);
}

#[test]
fn a_restart_goes_on_telling() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", group, 1, "one");
    let (message, _) = *batches(&lane.files).last().unwrap();
    lane.crash(1);
    lane.sent("ann", group, 2, "two");
    let told = rotten(&lane, &[message]);
    let lost = LostRange { conversation: group, first: Sequence(2), last: Sequence(2) };
    assert_eq!(told.report.damage[0].conversations, [lost]);
    assert!(told.report.damage[0].all_known);
}

/// What stands there instead says that the file was never used.
#[test]
fn the_first_batch_of_a_file_that_never_arrived_takes_no_other_with_it() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    let other = lane.create_group("ann", 2, &["bob"]);
    lane.sent("ann", other, 1, "one");
    let image = lane.files.crash_image(1);
    let blank = image.peek("log-00000001", 0, PAGE as usize).unwrap();
    assert!(image.overwrite(LOG, 0, &blank));
    let mut told = Lane::open(image, MemoryClock::new(1_000_000), MemoryRandom::new(9), small_options()).unwrap();
    assert_eq!(told.report.position, lane.engine.position(), "{:?}", told.report);
    let [damage] = told.report.damage.as_slice() else { panic!("{:?}", told.report) };
    let lost = LostRange { conversation: group, first: Sequence(1), last: Sequence(1) };
    assert_eq!((damage.offset, damage.harmless, damage.conversations.as_slice()), (0, false, [lost].as_slice()));
    assert_eq!(code(&mut told, "bob", group), Some(ErrorCode::NotFound), "who belongs to it was in what is lost");
    assert_eq!(code(&mut told, "bob", other), None);
}

/// It makes that file seem to be of its own generation, of which there is one already.
#[test]
fn a_batch_that_went_to_the_beginning_of_a_free_file_takes_nothing_with_it() {
    let mut lane = Lane::new(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    let text = "x".repeat(1_000);
    for number in 0.. {
        if lane.engine.status().flushes > 0 {
            break;
        }
        lane.sent("ann", group, number, &text);
    }
    lane.sent("ann", group, 1_000, "in no segment yet");
    let image = lane.files.crash_image(1);
    let (astray, _) = batches(&lane.files)[1];
    let batch = image.peek(LOG, astray, PAGE as usize).unwrap();
    assert!(image.overwrite("log-00000001", 0, &batch) && image.overwrite(LOG, astray, &[0; PAGE as usize]));
    let mut again = Lane::open(image, MemoryClock::new(1_000_000), MemoryRandom::new(9), small_options()).unwrap();
    assert_eq!(again.report.position, lane.engine.position(), "{:?}", again.report);
    assert!(again.report.damage.iter().all(|damage| damage.harmless), "{:?}", again.report);
    assert_eq!(again.whole_history("bob", group), lane.whole_history("bob", group));
    again.sent("ann", group, 1_001, "on");
    let once_more = again.opened_again(again.files.crash_image(2)).unwrap();
    assert_eq!(once_more.report.position, again.engine.position(), "{:?}", once_more.report);
}

/// The beginning of a log file that was written over tells which generation the file is of; where it rots, the rest does.
#[test]
fn rot_at_the_beginning_of_a_file_that_went_round_is_told() {
    let options = EngineOptions { log_file_bytes: 512 * 1024, log_files_max: 3, ..small_options() };
    let mut lane = Lane::with_options(1, options.clone());
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..800 {
        lane.sent("ann", conversation, number, "one page of the log");
        lane.outputs.clear();
    }
    let generation = |name: &String| {
        let log = lane.files.contents(name).unwrap();
        let of = |page: usize| u64::from_le_bytes(log[page * PAGE as usize + 32..][..8].try_into().unwrap());
        // Behind the last batch that has room there is the limit's page.
        (of(0), of(1), of(126))
    };
    let names: Vec<String> = lane.files.names().into_iter().filter(|name| name.starts_with("log-")).collect();
    let current = names.iter().max_by_key(|name| generation(name).0).unwrap();
    let (first, second, last) = generation(current);
    assert!(first == second && last > 0 && last < second, "it went round, and is neither empty nor full");
    let image = lane.files.crash_image(1);
    assert!(image.flip_bit(current, 70, 2));
    let again = Lane::open(image, MemoryClock::new(1_000_000), MemoryRandom::new(9), options).unwrap();
    assert_eq!(again.report.position, lane.engine.position());
}
