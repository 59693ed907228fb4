//! Edits, deletions, reactions, pins and retention marks, one promise after the other: what is refused and how, what is shown from memory
//! and from segments, what is gone once it was taken away, who sees what of it, and what a crash leaves.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryPage, HistoryRange, Output, Refusal},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind, Ticket},
    stored_rows::{StoredRow, stored_rows},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, MessageState},
    ids::{ClientMessageId, ConversationId, Sequence},
    limits::{PINS_PER_CONVERSATION_MAX, REACTIONS_PER_MESSAGE_MAX},
};
use support::{Lane, block_on, change, entry, small_options, user};

fn edit(target: u64, text: &str) -> Change {
    Change::Edit { target: Sequence(target), content: Content::text(text) }
}

fn delete(target: u64) -> Change {
    Change::Delete { target: Sequence(target) }
}

fn react(target: u64, text: &str, on: bool) -> Change {
    Change::React { target: Sequence(target), text: text.into(), on }
}

fn pin(target: u64, on: bool) -> Change {
    Change::Pin { target: Sequence(target), on }
}

fn retain(before: u64) -> Change {
    Change::Retain { before: Sequence(before) }
}

fn refused(lane: &mut Lane, from: &str, conversation: ConversationId, key: u64, what: Change) -> Refusal {
    match lane.ask(change(from, conversation, key, what)) {
        Err(refusal) => refusal,
        Ok(done) => panic!("{done:?}"),
    }
}

/// Everything becomes a segment.
fn flush(lane: &mut Lane) {
    let target = MemoryFiles::new(7);
    lane.checkpoint(&target).unwrap();
}

/// What a page says of a message: its text, if it has any, and what became of it.
fn shown(page: &HistoryPage, sequence: u64) -> (Option<String>, Option<MessageState>) {
    let archive = page.entries.iter().find(|archive| entry(archive).sequence.0 == sequence).expect("it is in the page");
    let body = entry(archive).body;
    let text = (!body.is_empty()).then(|| String::from_utf8(body[1..].to_vec()).unwrap());
    (text, page.states.iter().find(|state| state.sequence.0 == sequence).cloned())
}

fn latest(lane: &mut Lane, name: &str, conversation: ConversationId) -> HistoryPage {
    lane.history(name, conversation, HistoryRange::Latest, 200).unwrap()
}

/// Every byte that any read gives a member.
fn everything(lane: &mut Lane, name: &str, conversation: ConversationId) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in [HistoryRange::Latest, HistoryRange::After(Sequence(0)), HistoryRange::Around(Sequence(3))] {
        let page = lane.history(name, conversation, range, 200).unwrap();
        page.entries.iter().for_each(|archive| bytes.extend_from_slice(archive));
    }
    let caught_up = lane.catch_up(name, 0, &[]).unwrap();
    caught_up.entries.iter().for_each(|archive| bytes.extend_from_slice(archive));
    let command = Command::Conversations { user: user(name), after: None, limit: 10 };
    let Ok(Done::Conversations { conversations, .. }) = lane.ask(command) else { panic!() };
    conversations.iter().flat_map(|of| &of.last_entry).for_each(|archive| bytes.extend_from_slice(archive));
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A group of three with three messages of ann's (2, 3, 4) and one of bob's (5).
fn group() -> (Lane, ConversationId) {
    let mut lane = Lane::new(1);
    let conversation = lane.create_group("ann", 1, &["bob", "cid"]);
    for number in 0..3 {
        lane.sent("ann", conversation, number, &format!("text-{number}"));
    }
    lane.sent("bob", conversation, 3, "of bob");
    (lane, conversation)
}

#[test]
fn what_makes_no_sense_is_refused() {
    for is_cold in [false, true] {
        let (mut lane, conversation) = group();
        lane.changed("ann", conversation, 10, delete(3));
        let direct = lane.create_direct("ann", "bob");
        lane.sent("ann", direct, 1, "hi");
        lane.ask(Command::AddMembers { user: user("ann"), conversation, members: vec![user("dan")] }).unwrap();
        if is_cold {
            flush(&mut lane);
        }
        let table = [
            ("a stranger", "eve", conversation, react(2, "a", true), ErrorCode::NotFound),
            ("no conversation", "ann", ConversationId([9; 16]), react(2, "a", true), ErrorCode::NotFound),
            ("beyond the end", "ann", conversation, react(99, "a", true), ErrorCode::NoMessage),
            ("before the first", "ann", conversation, react(0, "a", true), ErrorCode::NoMessage),
            ("no message", "ann", conversation, react(1, "a", true), ErrorCode::NoMessage),
            ("another change", "ann", conversation, react(6, "a", true), ErrorCode::NoMessage),
            ("from before one came", "dan", conversation, react(2, "a", true), ErrorCode::NoMessage),
            ("an edit of another's", "bob", conversation, edit(2, "x"), ErrorCode::Forbidden),
            ("a deletion of another's", "bob", conversation, delete(2), ErrorCode::Forbidden),
            ("an edit of what was deleted", "ann", conversation, edit(3, "x"), ErrorCode::Deleted),
            ("a second deletion", "ann", conversation, delete(3), ErrorCode::Deleted),
            ("a reaction to what was deleted", "bob", conversation, react(3, "a", true), ErrorCode::Deleted),
            ("a pin of what was deleted", "bob", conversation, pin(3, true), ErrorCode::Deleted),
            ("retention by another", "bob", conversation, retain(3), ErrorCode::Forbidden),
            ("retention of two", "ann", direct, retain(2), ErrorCode::Forbidden),
            ("retention beyond the end", "ann", conversation, retain(99), ErrorCode::Invalid),
            ("retention of nothing", "ann", conversation, retain(0), ErrorCode::Invalid),
        ];
        for (what, name, of, change, code) in table {
            assert_eq!(refused(&mut lane, name, of, 50, change).code, code, "{what}, cold: {is_cold}");
        }
        // The id of what was refused is free.
        let sequence = lane.changed("ann", conversation, 50, react(2, "a", true));
        let last = latest(&mut lane, "ann", conversation).last;
        assert_eq!(sequence, last, "nothing that was refused took a sequence");
    }
}

#[test]
fn a_retry_is_answered_with_the_first_sequence() {
    let (mut lane, conversation) = group();
    let changes =
        [(20, edit(2, "new")), (21, react(2, "a", true)), (22, pin(2, true)), (23, delete(3)), (24, retain(2))];
    let sequences: Vec<Sequence> =
        changes.iter().map(|(key, change)| lane.changed("ann", conversation, *key, change.clone())).collect();
    for is_cold in [false, true] {
        if is_cold {
            flush(&mut lane);
            lane.reopen();
        }
        for ((key, change), first) in changes.iter().zip(&sequences) {
            match lane.ask(support::change("ann", conversation, *key, change.clone())) {
                Ok(Done::Sent { sequence, duplicate: true, .. }) => assert_eq!(sequence, *first),
                other => panic!("{other:?}"),
            }
            for (name, other) in [("ann", react(2, "b", true)), ("bob", change.clone())] {
                let refusal = refused(&mut lane, name, conversation, *key, other);
                assert_eq!(refusal.code, ErrorCode::Conflict);
            }
        }
        // Of the messages themselves: one that says something else now, and one that says nothing.
        for (key, text, sequence) in [(0, "text-0", 2), (1, "text-1", 3)] {
            match lane.send("ann", conversation, key, text) {
                Ok(Done::Sent { sequence: first, duplicate: true, .. }) => assert_eq!(first.0, sequence),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lane.send("bob", conversation, 0, "text-0").unwrap_err().code, ErrorCode::Conflict);
    }
}

/// docs/protocol.md, "What a retry is held against", row by row.
#[test]
fn a_retry_is_held_against_what_is_left() {
    // Where each is: what was sent first, what was done to it, in memory or in segments.
    for flushes in 0..4_u32 {
        let (mut lane, conversation) = group();
        lane.changed("ann", conversation, 10, edit(2, "one"));
        lane.changed("ann", conversation, 11, edit(3, "of another"));
        lane.changed("ann", conversation, 12, react(4, "a", true));
        if flushes & 1 != 0 {
            flush(&mut lane);
        }
        lane.changed("ann", conversation, 13, edit(2, "two"));
        lane.changed("ann", conversation, 14, delete(3));
        lane.changed("ann", conversation, 15, retain(2));
        if flushes & 2 != 0 {
            flush(&mut lane);
        }
        let sends = [
            ("what it was sent with", "ann", 2, "text-2", true),
            ("another text for what says what it said", "ann", 2, "other", false),
            ("what was edited", "ann", 0, "text-0", true),
            ("any text for what was edited", "ann", 0, "other", true),
            ("any text for what was deleted", "ann", 1, "other", true),
            ("another's id", "bob", 0, "text-0", false),
            ("the id of an edit", "ann", 13, "two", false),
        ];
        for (what, name, key, text, is_known) in sends {
            let answer = lane.send(name, conversation, key, text);
            let is_so = match answer {
                Ok(Done::Sent { duplicate, .. }) => duplicate && is_known,
                Err(refusal) => refusal.code == ErrorCode::Conflict && !is_known,
                _ => false,
            };
            assert!(is_so, "{what}, flushes {flushes}");
        }
        let changes = [
            ("the last edit", "ann", 13, edit(2, "two"), true),
            ("another text for the last edit", "ann", 13, edit(2, "other"), false),
            ("an edit before it", "ann", 10, edit(2, "one"), true),
            ("any text for an edit before it", "ann", 10, edit(2, "other"), true),
            ("any text for an edit of what was deleted", "ann", 11, edit(3, "other"), true),
            ("another target for an edit before it", "ann", 10, edit(3, "one"), false),
            ("another's edit", "bob", 10, edit(2, "one"), false),
            ("the id of a message", "ann", 0, edit(2, "text-0"), false),
            ("a deletion", "ann", 14, delete(3), true),
            ("a deletion of another", "ann", 14, delete(2), false),
            ("another kind", "ann", 10, delete(2), false),
            ("a reaction", "ann", 12, react(4, "a", true), true),
            ("another reaction", "ann", 12, react(4, "a", false), false),
            ("a mark", "ann", 15, retain(2), true),
            ("another mark", "ann", 15, retain(3), false),
        ];
        for (what, name, key, change, is_known) in changes {
            let is_so = match lane.ask(support::change(name, conversation, key, change)) {
                Ok(Done::Sent { duplicate, .. }) => duplicate && is_known,
                Err(refusal) => refusal.code == ErrorCode::Conflict && !is_known,
                _ => false,
            };
            assert!(is_so, "{what}, flushes {flushes}");
        }
        let last = latest(&mut lane, "ann", conversation).last;
        assert_eq!(last, Sequence(11), "nothing was stored twice, nor anything else");
    }
}

#[test]
fn what_was_taken_away_is_given_by_no_read() {
    // Where the message, its edit and its deletion are when they are read: all in memory, or each in a segment of its own, or merged.
    for flushes in 0..8_u32 {
        let mut lane = Lane::new(u64::from(flushes));
        let conversation = lane.create_group("ann", 1, &["bob"]);
        let flush_if = |lane: &mut Lane, bit: u32| {
            if flushes & (1 << bit) != 0 {
                flush(lane);
            }
        };
        lane.sent("ann", conversation, 1, "first-secret");
        lane.sent("ann", conversation, 2, "kept");
        flush_if(&mut lane, 0);
        lane.changed("ann", conversation, 3, edit(2, "second-secret"));
        lane.changed("ann", conversation, 4, edit(2, "third-secret"));
        let bytes = everything(&mut lane, "bob", conversation);
        assert!(holds(&bytes, "third-secret") && !holds(&bytes, "first-secret") && !holds(&bytes, "second-secret"));
        flush_if(&mut lane, 1);
        lane.changed("ann", conversation, 5, delete(2));
        flush_if(&mut lane, 2);
        for _ in 0..2 {
            let bytes = everything(&mut lane, "bob", conversation);
            assert!(holds(&bytes, "kept") && !holds(&bytes, "secret"), "flushes {flushes}");
            let (text, state) = shown(&latest(&mut lane, "bob", conversation), 2);
            assert_eq!(text, None);
            assert!(state.is_some_and(|state| state.deleted && state.edited.is_none()));
            lane.reopen();
        }
    }
}

#[test]
fn a_message_says_what_its_last_edit_said() {
    for is_cold in [false, true] {
        let (mut lane, conversation) = group();
        lane.changed("ann", conversation, 10, edit(2, "one"));
        if is_cold {
            flush(&mut lane);
        }
        let last = lane.changed("ann", conversation, 11, edit(2, "two"));
        lane.changed("bob", conversation, 12, react(2, "a", true));
        lane.changed("ann", conversation, 13, react(2, "a", true));
        lane.changed("ann", conversation, 14, react(2, "b", true));
        lane.changed("bob", conversation, 15, pin(2, true));
        if is_cold {
            flush(&mut lane);
        }
        let page = latest(&mut lane, "bob", conversation);
        let (text, state) = shown(&page, 2);
        let state = state.unwrap();
        assert_eq!(text.as_deref(), Some("two"));
        assert_eq!(state.edited.unwrap().sequence, last);
        assert!(state.pinned && !state.deleted);
        let reactions: Vec<_> = state.reactions.iter().map(|of| (of.reaction.as_str(), of.count, of.mine)).collect();
        assert_eq!(reactions, [("a", 2, true), ("b", 1, false)]);
        assert_eq!(page.states.len(), 1, "of the others there is nothing to tell");
        assert_eq!(page.as_of, page.last);
        assert_eq!(entry(&page.entries[5]).body.len(), 8, "of the edit before only its target is left");
    }
}

#[test]
fn changes_are_entries_that_are_no_messages() {
    let (mut lane, conversation) = group();
    let before = latest(&mut lane, "ann", conversation);
    let ordinal = entry(before.entries.last().unwrap()).ordinal;
    lane.changed("ann", conversation, 10, pin(2, true));
    let page = latest(&mut lane, "ann", conversation);
    let last = entry(page.entries.last().unwrap());
    assert_eq!((last.sequence, last.ordinal), (before.last.next(), ordinal));
    let Ok(Done::Conversations { conversations, .. }) =
        lane.ask(Command::Conversations { user: user("cid"), after: None, limit: 1 })
    else {
        panic!()
    };
    assert_eq!(conversations[0].unread, 4, "a pin is nothing to read");
}

#[test]
fn limits_are_kept() {
    let (mut lane, conversation) = group();
    for number in 0..REACTIONS_PER_MESSAGE_MAX as u64 {
        lane.changed("ann", conversation, 100 + number, react(2, &format!("{number}"), true));
    }
    assert_eq!(refused(&mut lane, "bob", conversation, 99, react(2, "x", true)).code, ErrorCode::LimitReached);
    lane.changed("bob", conversation, 99, react(2, "7", true));
    lane.changed("ann", conversation, 98, react(2, "8", false));
    lane.changed("bob", conversation, 97, react(2, "x", true));
    let first = latest(&mut lane, "ann", conversation).last.0 + 1;
    for number in 0..=PINS_PER_CONVERSATION_MAX as u64 {
        lane.sent("ann", conversation, 1_000 + number, "to pin");
    }
    for number in 0..PINS_PER_CONVERSATION_MAX as u64 {
        lane.changed("bob", conversation, 2_000 + number, pin(first + number, true));
    }
    let last = first + PINS_PER_CONVERSATION_MAX as u64;
    assert_eq!(refused(&mut lane, "bob", conversation, 96, pin(last, true)).code, ErrorCode::LimitReached);
    flush(&mut lane);
    lane.reopen();
    assert_eq!(refused(&mut lane, "bob", conversation, 96, pin(last, true)).code, ErrorCode::LimitReached);
    lane.changed("ann", conversation, 95, delete(first));
    lane.changed("bob", conversation, 96, pin(last, true));
    let Ok(Done::Pins(pins)) = lane.ask(Command::Pins { user: user("cid"), conversation }) else { panic!() };
    let expected: Vec<Sequence> = (first + 1..=last).map(Sequence).collect();
    assert_eq!(pins, expected);
}

#[test]
fn a_crowd_that_reacted_is_passed_by() {
    let mut lane = Lane::with_options(3, EngineOptions { memtable_bytes: 256 * 1024, ..small_options() });
    let names: Vec<String> = (0..150).map(|number| format!("user-{number:03}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let conversation = lane.create_group("ann", 1, &members[..100]);
    lane.ask(Command::AddMembers {
        user: user("ann"),
        conversation,
        members: members[100..].iter().map(|name| user(name)).collect(),
    })
    .unwrap();
    for number in 0..5 {
        lane.sent("ann", conversation, number, "here");
    }
    let target = 5;
    for (number, name) in (100..).zip(&members) {
        let text = if number % 2 == 0 { "even" } else { "odd" };
        lane.changed(name, conversation, number, react(target, text, true));
    }
    for is_cold in [false, true] {
        if is_cold {
            flush(&mut lane);
        }
        for (name, mine) in [("user-000", Some("even")), ("user-149", Some("odd")), ("ann", None)] {
            for range in [HistoryRange::Before(Sequence(8)), HistoryRange::After(Sequence(2))] {
                let page = lane.history(name, conversation, range, 5).unwrap();
                assert_eq!(page.entries.len(), 5, "{range:?}");
                let state = shown(&page, target).1.unwrap();
                let found: Vec<_> = state.reactions.iter().map(|of| (of.reaction.as_str(), of.count)).collect();
                assert_eq!(found, [("even", 75), ("odd", 75)]);
                let of_mine = state.reactions.iter().find(|of| of.mine).map(|of| of.reaction.as_str());
                assert_eq!(of_mine, mine, "{name} {range:?} cold: {is_cold}");
            }
        }
        let (mut after, mut all) = (None, Vec::new());
        loop {
            let command =
                Command::Reactions { user: user("ann"), conversation, target: Sequence(target), after, limit: 40 };
            let Ok(Done::Reactions { reactions, more }) = lane.ask(command) else { panic!() };
            all.extend(reactions.iter().map(|of| of.user.as_str().to_owned()));
            after = reactions.last().map(|of| of.user.clone());
            if !more {
                break;
            }
        }
        assert_eq!(all, names);
    }
}

#[test]
fn who_does_not_see_a_message_is_not_told_what_it_says_now() {
    let (mut lane, conversation) = group();
    lane.ask(Command::AddMembers { user: user("ann"), conversation, members: vec![user("dan")] }).unwrap();
    lane.outputs.clear();
    lane.changed("ann", conversation, 10, edit(2, "not for dan"));
    let pushed = lane.outputs.iter().find_map(|output| match output {
        Output::Entry { recipients, partly: Some(partly), archive, .. } => Some((recipients, partly, archive)),
        _ => None,
    });
    let (recipients, partly, archive) = pushed.expect("it is told in two ways");
    assert_eq!(&*partly.recipients, [user("dan")]);
    assert!(recipients.contains(&user("dan")) && recipients.contains(&user("bob")));
    assert!(holds(archive, "not for dan") && !holds(&partly.archive, "not for dan"));
    for is_cold in [false, true] {
        if is_cold {
            flush(&mut lane);
        }
        let bytes = everything(&mut lane, "dan", conversation);
        assert!(!holds(&bytes, "not for dan"), "cold: {is_cold}");
        assert!(holds(&everything(&mut lane, "cid", conversation), "not for dan"));
    }
}

#[test]
fn a_retention_mark_hides_all_before_it_at_once() {
    for is_cold in [false, true] {
        let (mut lane, conversation) = group();
        lane.changed("bob", conversation, 10, pin(2, true));
        lane.changed("bob", conversation, 11, pin(5, true));
        lane.changed("ann", conversation, 12, edit(2, "edited text-0"));
        if is_cold {
            flush(&mut lane);
        }
        lane.changed("ann", conversation, 13, retain(5));
        for _ in 0..2 {
            let page = latest(&mut lane, "cid", conversation);
            assert_eq!(page.first, Sequence(5));
            assert_eq!(entry(&page.entries[0]).sequence, Sequence(5));
            let bytes = everything(&mut lane, "cid", conversation);
            assert!(!holds(&bytes, "text-") && holds(&bytes, "of bob"));
            let Ok(Done::Pins(pins)) = lane.ask(Command::Pins { user: user("cid"), conversation }) else { panic!() };
            assert_eq!(pins, [Sequence(5)]);
            let command = Command::Conversations { user: user("cid"), after: None, limit: 1 };
            let Ok(Done::Conversations { conversations, .. }) = lane.ask(command) else { panic!() };
            assert_eq!(conversations[0].unread, 1, "what is gone is not unread");
            assert_eq!(refused(&mut lane, "ann", conversation, 14, edit(2, "x")).code, ErrorCode::NoMessage);
            assert_eq!(refused(&mut lane, "ann", conversation, 14, retain(5)).code, ErrorCode::Invalid);
            flush(&mut lane);
            lane.reopen();
        }
    }
}

#[test]
fn a_deletion_during_a_read_counts_for_it() {
    // The page is being read from segments when the deletion becomes durable, and perhaps a segment.
    for is_flushed in [false, true] {
        let mut lane = Lane::new(5);
        let conversation = lane.create_group("ann", 1, &["bob"]);
        lane.sent("ann", conversation, 1, "secret");
        lane.sent("ann", conversation, 2, "kept");
        flush(&mut lane);
        lane.files.set_queued(true);
        let page =
            lane.submit(Command::History { user: user("bob"), conversation, range: HistoryRange::Latest, limit: 10 });
        lane.settle();
        let held: Vec<_> = lane.files.pending().into_iter().map(|operation| operation.ticket).collect();
        assert!(!held.is_empty(), "the page is read");
        let deletion = lane.submit(change("ann", conversation, 3, delete(2)));
        settle_but(&mut lane, &held);
        assert!(matches!(lane.answer(deletion), Some(Ok(Done::Sent { .. }))));
        if is_flushed {
            let target = MemoryFiles::new(7);
            let made = lane.start_checkpoint(&target);
            settle_but(&mut lane, &held);
            made.take().expect("it ends").unwrap();
        }
        assert!(lane.answer(page).is_none(), "its read is held back");
        lane.settle_queued();
        let Some(Ok(Done::History(page))) = lane.answer(page) else { panic!() };
        assert!(page.entries.iter().all(|archive| !holds(archive, "secret")), "flushed: {is_flushed}");
        lane.files.set_queued(false);
    }
}

#[test]
fn a_list_tells_the_last_entry_though_a_flush_overtakes_it() {
    // The list, or the last entry, is being read from segments when the entry is deleted or not, and a memtable becomes a segment.
    for (released, is_deleted) in (0..12).flat_map(|released| [(released, false), (released, true)]) {
        let mut lane = Lane::with_options(5, EngineOptions { cache_bytes: 0, ..small_options() });
        let conversation = lane.create_group("ann", 1, &["bob"]);
        lane.sent("ann", conversation, 1, "secret");
        let other = lane.create_group("ann", 2, &["bob"]);
        lane.sent("ann", other, 1, "another");
        flush(&mut lane);
        lane.files.set_queued(true);
        let list = lane.submit(Command::Conversations { user: user("bob"), after: None, limit: 10 });
        lane.settle();
        for _ in 0..released {
            if let Some(next) = lane.files.pending().first() {
                lane.files.release(next.ticket);
                lane.settle();
            }
        }
        let held: Vec<_> = lane.files.pending().into_iter().map(|operation| operation.ticket).collect();
        let token = match is_deleted {
            true => lane.submit(change("ann", conversation, 3, delete(2))),
            false => lane.submit(support::send("ann", other, 3, "more")),
        };
        settle_but(&mut lane, &held);
        assert!(matches!(lane.answer(token), Some(Ok(Done::Sent { .. }))));
        let target = MemoryFiles::new(7);
        let made = lane.start_checkpoint(&target);
        settle_but(&mut lane, &held);
        made.take().expect("it ends").unwrap();
        lane.settle_queued();
        let Some(Ok(Done::Conversations { conversations, .. })) = lane.answer(list) else { panic!() };
        assert_eq!(conversations.len(), 2);
        for of in conversations {
            let last = of.last_entry.as_ref().expect("it can be read");
            assert_eq!(entry(last).sequence, of.last_sequence, "{released} {is_deleted}");
            assert!(held.is_empty() || !is_deleted || !holds(last, "secret"), "{released} {is_deleted}");
        }
        lane.files.set_queued(false);
    }
}

#[test]
fn a_page_of_which_nothing_stays_while_it_is_read_is_read_anew() {
    let mut lane = Lane::with_options(5, EngineOptions { cache_bytes: 0, ..small_options() });
    let conversation = lane.create_group("ann", 1, &["bob"]);
    for key in 1..4 {
        lane.sent("ann", conversation, key, "old");
    }
    flush(&mut lane);
    lane.files.set_queued(true);
    let (user, range) = (user("bob"), HistoryRange::Latest);
    let page = lane.submit(Command::History { user, conversation, range, limit: 3 });
    lane.settle();
    let held: Vec<_> = lane.files.pending().into_iter().map(|operation| operation.ticket).collect();
    assert!(!held.is_empty() && lane.answer(page).is_none(), "it is being read");
    let (sent, mark) = (
        lane.submit(support::send("ann", conversation, 4, "new")),
        lane.submit(change("ann", conversation, 5, retain(5))),
    );
    settle_but(&mut lane, &held);
    assert!([sent, mark].iter().all(|token| matches!(lane.answer(*token), Some(Ok(Done::Sent { .. })))));
    lane.settle_queued();
    let Some(Ok(Done::History(page))) = lane.answer(page) else { panic!() };
    let sequences: Vec<u64> = page.entries.iter().map(|archive| entry(archive).sequence.0).collect();
    assert_eq!((page.first.0, page.last.0, sequences), (5, 6, vec![5, 6]));
}

/// Carries out all operations except those held back.
fn settle_but(lane: &mut Lane, held: &[Ticket]) {
    lane.settle();
    while let Some(other) = lane.files.pending().into_iter().find(|operation| !held.contains(&operation.ticket)) {
        lane.files.release(other.ticket);
        lane.settle();
    }
}

#[test]
fn what_is_taken_away_during_a_flush_is_gone_at_once() {
    let options = EngineOptions { memtable_age_ms_max: 1, ..small_options() };
    let mut lane = Lane::with_options(6, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", conversation, 1, "secret");
    lane.sent("ann", conversation, 2, "another secret");
    lane.files.set_queued(true);
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle();
    assert!(lane.engine.status().memtable_sealed_bytes > 0, "the flush is under way");
    for (key, what) in [(3, delete(2)), (4, edit(3, "kept"))] {
        let token = lane.submit(change("ann", conversation, key, what));
        lane.settle_log();
        assert!(matches!(lane.answer(token), Some(Ok(Done::Sent { .. }))));
    }
    let range = HistoryRange::Latest;
    let token = lane.submit(Command::History { user: user("bob"), conversation, range, limit: 10 });
    lane.settle_log();
    assert!(lane.engine.status().memtable_sealed_bytes > 0, "the flush is under way still");
    let Some(Ok(Done::History(page))) = lane.answer(token) else { panic!("it is answered from memory") };
    assert!(page.entries.iter().all(|archive| !holds(archive, "secret")));
    assert_eq!(shown(&page, 3).0.as_deref(), Some("kept"));
    assert!(shown(&page, 2).1.is_some_and(|state| state.deleted));
    lane.settle_queued();
    lane.files.set_queued(false);
    assert!(!holds(&everything(&mut lane, "bob", conversation), "secret"));
}

#[test]
fn what_became_of_messages_stays_through_merges() {
    let (mut lane, conversation) = group();
    lane.changed("ann", conversation, 10, edit(2, "new"));
    lane.changed("bob", conversation, 11, react(2, "a", true));
    lane.changed("bob", conversation, 12, pin(2, true));
    lane.changed("ann", conversation, 13, delete(3));
    let before = latest(&mut lane, "bob", conversation);
    while lane.engine.status().compactions < 3 {
        lane.sent("cid", conversation, 1_000 + lane.engine.status().flushes, "more");
        flush(&mut lane);
    }
    lane.reopen();
    let after = latest(&mut lane, "bob", conversation);
    assert_eq!((&after.entries[..9], after.states), (&before.entries[..9], before.states));
}

#[test]
fn a_store_says_whether_messages_may_have_changed() {
    // The last byte of the engine's part of the manifest, which is the manifest's last.
    let has_changes = |lane: &Lane| {
        let manifest = lane.files.contents("manifest").unwrap();
        manifest[u32::from_le_bytes(manifest[12..16].try_into().unwrap()) as usize - 1]
    };
    let (mut lane, conversation) = group();
    flush(&mut lane);
    assert_eq!(has_changes(&lane), 0);
    lane.changed("ann", conversation, 10, react(2, "a", true));
    flush(&mut lane);
    assert_eq!(has_changes(&lane), 1);
    lane.reopen();
    lane.sent("ann", conversation, 11, "plain");
    flush(&mut lane);
    assert_eq!(has_changes(&lane), 1, "what segments hold stays");
}

#[test]
fn every_sector_prefix_of_a_change_is_all_or_nothing() {
    const SECTOR: usize = 512;
    const PAGE: usize = 4096;
    let log = "log-00000000";
    for what in [edit(2, &"new ".repeat(400)), delete(2), react(2, "a", true), pin(2, true), retain(3)] {
        let (mut lane, conversation) = group();
        let files = |lane: &Lane| -> Vec<(String, Vec<u8>)> {
            lane.files.names().into_iter().map(|name| (name.clone(), lane.files.contents(&name).unwrap())).collect()
        };
        let mut folder = files(&lane);
        let before = lane.files.contents(log).unwrap();
        lane.changed("ann", conversation, 10, what.clone());
        let after = lane.files.contents(log).unwrap();
        let whole = latest(&mut lane, "bob", conversation);
        // But for the last page, which some batches are written beside.
        let changed: Vec<usize> = (0..(after.len() - PAGE) / SECTOR)
            .filter(|at| before[at * SECTOR..][..SECTOR] != after[at * SECTOR..][..SECTOR])
            .collect();
        for count in 0..=changed.len() {
            let mut image = before.clone();
            for sector in &changed[..count] {
                image[sector * SECTOR..][..SECTOR].copy_from_slice(&after[sector * SECTOR..][..SECTOR]);
            }
            folder.iter_mut().find(|(name, _)| name == log).unwrap().1 = image;
            let copy = MemoryFiles::new(0);
            folder.iter().for_each(|(name, bytes)| copy.put(name, bytes.clone()));
            let clock = MemoryClock::new(1_000_000);
            let mut reopened = Lane::open(copy, clock, MemoryRandom::new(9), small_options()).unwrap();
            let page = latest(&mut reopened, "bob", conversation);
            if count == changed.len() {
                assert_eq!((&page.entries, &page.states, page.first), (&whole.entries, &whole.states, whole.first));
            } else {
                assert_eq!((page.last, page.states.len(), page.first), (Sequence(5), 0, Sequence(1)), "{what:?}");
                assert_eq!(shown(&page, 2).0.as_deref(), Some("text-0"));
            }
        }
    }
}

/// Reads of files that a page takes when nothing is in memory but the conversation itself.
fn cold_reads(lane: &mut Lane, conversation: ConversationId) -> u64 {
    lane.reopen();
    lane.ask(Command::Members { user: user("ann"), conversation, after: None, limit: 1 }).unwrap();
    let reads = |lane: &Lane| lane.files.operations()[OperationKind::Read as usize];
    let before = reads(lane);
    let page = lane.history("ann", conversation, HistoryRange::Latest, 50).unwrap();
    assert_eq!(page.entries.len(), 50);
    reads(lane) - before
}

#[test]
fn what_became_of_messages_costs_no_further_read() {
    let mut lane = Lane::new(1);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    for number in 0..100 {
        lane.sent("ann", conversation, number, "some text");
    }
    while lane.engine.status().compactions == 0 {
        lane.sent("ann", conversation, 1_000 + lane.engine.status().flushes, "more");
        flush(&mut lane);
    }
    let plain = cold_reads(&mut lane, conversation);
    let last = latest(&mut lane, "ann", conversation).last.0;
    for number in 0..10 {
        lane.changed("bob", conversation, 2_000 + number, react(last - number, "a", true));
        lane.changed("ann", conversation, 3_000 + number, edit(last - number, "new text"));
    }
    let compactions = lane.engine.status().compactions;
    while lane.engine.status().compactions == compactions {
        lane.sent("ann", conversation, 4_000 + lane.engine.status().flushes, "more");
        flush(&mut lane);
    }
    let changed = cold_reads(&mut lane, conversation);
    assert!(changed <= plain + 1, "{changed} reads, {plain} without changes");
}

#[test]
fn the_latest_page_is_one_or_two_reads_however_many_runs_know_the_conversation() {
    let mut lane = Lane::new(1);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    let mut number = 0;
    let mut fill = |lane: &mut Lane, messages: u64| {
        for _ in 0..messages {
            number += 1;
            lane.sent("ann", conversation, number, "some text");
        }
        flush(lane);
    };
    for _ in 0..3 {
        fill(&mut lane, 60);
    }
    assert!(lane.engine.status().segments >= 4, "message ids lie in segments of their own");
    assert!(cold_reads(&mut lane, conversation) <= 2, "a block may end within the page");
    // What a reaction in a newer run is about is found, and what an edit in a newer run left in older ones, too.
    let last = latest(&mut lane, "bob", conversation).last.0;
    lane.changed("bob", conversation, 1_001, react(last - 5, "a", true));
    lane.changed("bob", conversation, 1_002, react(last - 6, "a", true));
    flush(&mut lane);
    lane.changed("ann", conversation, 1_003, edit(last - 5, "new text"));
    lane.changed("bob", conversation, 1_004, react(last - 6, "a", false));
    flush(&mut lane);
    lane.reopen();
    let page = lane.history("bob", conversation, HistoryRange::Latest, 50).unwrap();
    assert_eq!((page.entries.len(), page.last.0), (50, last + 4));
    assert_eq!(shown(&page, last - 5).0.as_deref(), Some("new text"));
    let state = page.states.iter().find(|state| state.sequence.0 == last - 5).unwrap();
    assert!(state.reactions.iter().any(|reaction| reaction.mine), "the reaction is in a run older than the edit's");
    assert!(page.states.iter().all(|state| state.sequence.0 != last - 6), "a reaction that was taken back is none");
}

#[test]
fn an_id_is_one_for_messages_and_changes() {
    let (mut lane, conversation) = group();
    let text = Content::text("x").0;
    let client_message_id = ClientMessageId([7; 16]);
    let sent = Command::Send { user: user("ann"), conversation, client_message_id, body: text };
    let changed = Command::Change { user: user("ann"), conversation, client_message_id, change: pin(2, true) };
    lane.ask(sent.clone()).unwrap();
    assert_eq!(lane.ask(changed).unwrap_err().code, ErrorCode::Conflict);
    let other = Command::Change {
        user: user("ann"),
        conversation,
        client_message_id: ClientMessageId([8; 16]),
        change: pin(2, true),
    };
    lane.ask(other).unwrap();
    let sent = Command::Send {
        user: user("ann"),
        conversation,
        client_message_id: ClientMessageId([8; 16]),
        body: Content::text("x").0,
    };
    assert_eq!(lane.ask(sent).unwrap_err().code, ErrorCode::Conflict);
}

/// Every row of all segments.
fn in_segments(lane: &Lane) -> Vec<StoredRow> {
    block_on(stored_rows(&lane.files)).unwrap()
}

#[test]
fn what_was_deleted_or_edited_is_gone_from_the_disk_in_its_time() {
    let options = EngineOptions { reclaim_ms_max: 100_000, ..small_options() };
    let mut lane = Lane::with_options(44, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    for (key, text) in [(1, "it stays"), (2, "x7Qw-deleted"), (3, "k9Zp-edited")] {
        lane.sent("ann", conversation, key, text);
    }
    lane.changed("ann", conversation, 4, edit(4, "m2Vb-edited"));
    flush(&mut lane);
    // The first edit was of a message in memory: what it took the place of was never in a segment.
    let gone = ["x7Qw-deleted", "m2Vb-edited"];
    let holds = |rows: &[StoredRow], text: &str| rows.iter().any(|row| row.holds(text.as_bytes()));
    assert!(gone.iter().all(|text| holds(&in_segments(&lane), text)) && !holds(&in_segments(&lane), "k9Zp-edited"));
    lane.clock.advance(10_000_000);
    lane.changed("ann", conversation, 5, delete(3));
    lane.changed("ann", conversation, 6, edit(4, "r5Tn-edited"));
    flush(&mut lane);
    let rewritten = |lane: &Lane| lane.engine.status().segments_reclaimed;
    let waits = in_segments(&lane);
    assert!(gone.iter().all(|text| holds(&waits, text)), "half of the time is waited, however old the message is");
    for _ in 0..6 {
        lane.clock.advance(10_000);
        lane.engine.tick();
        lane.settle_queued();
    }
    let left = in_segments(&lane);
    assert!(gone.iter().all(|text| !holds(&left, text)), "after {} rewrites", rewritten(&lane));
    assert!(rewritten(&lane) >= 2);
    for _ in 0..2 {
        let page = latest(&mut lane, "bob", conversation);
        assert_eq!(shown(&page, 2).0.as_deref(), Some("it stays"));
        assert_eq!(shown(&page, 3).0, None);
        assert_eq!(shown(&page, 4).0.as_deref(), Some("r5Tn-edited"));
        lane.crash(3);
    }
    // It is done once.
    let before = rewritten(&lane);
    lane.clock.advance(10_000_000);
    lane.engine.tick();
    lane.settle_queued();
    assert_eq!(rewritten(&lane), before);
}
