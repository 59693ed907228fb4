//! Account data: what a user sets under keys, for all of the user's devices and nobody else.

mod support;

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryRange, Output, Refusal, Token},
    offline,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        AccountChange, AccountItem, Change, EntryKind, InviteCode, JsonText, MakeInvite, SetAccount, SettingsChange,
    },
    ids::{ClientMessageId, ConversationId, Epoch, Sequence},
    limits::{ACCOUNT_BYTES_MAX, ACCOUNT_KEYS_MAX, ACCOUNT_VALUE_BYTES_MAX, PAGE_BYTES_MAX},
};
use support::{Lane, assert_sound, block_on, change, dump, entry, load, send, small_options, user};

fn set(name: &str, key: &str, value: Option<&str>, if_sequence: Option<u64>) -> Command {
    let value = value.map(|value| JsonText(value.to_owned()));
    let set = SetAccount { key: key.to_owned(), value, if_sequence: if_sequence.map(Sequence) };
    Command::SetAccount { user: user(name), set }
}

/// The change's sequence, and that of what it replaced.
fn told(answer: Result<Done, Refusal>) -> Result<(u64, Option<u64>), ErrorCode> {
    match answer {
        Ok(Done::AccountSet { epoch: Epoch(1), sequence, replaced }) => Ok((sequence.0, replaced.map(|of| of.0))),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn put(lane: &mut Lane, name: &str, key: &str, value: &str) -> Result<(u64, Option<u64>), ErrorCode> {
    told(lane.ask(set(name, key, Some(value), None)))
}

fn take_away(lane: &mut Lane, name: &str, key: &str) -> Result<(u64, Option<u64>), ErrorCode> {
    told(lane.ask(set(name, key, None, None)))
}

fn page(lane: &mut Lane, name: &str, after: Option<&str>, limit: u32) -> (u64, Vec<AccountItem>, bool) {
    match lane.ask(Command::Account { user: user(name), after: after.map(str::to_owned), limit }).unwrap() {
        Done::AccountItems { sequence, items, more, .. } => (sequence.0, items, more),
        other => panic!("{other:?}"),
    }
}

/// All keys, with what they are and which entry set them.
fn listed(lane: &mut Lane, name: &str) -> BTreeMap<String, (String, u64)> {
    let (_, items, more) = page(lane, name, None, 200);
    assert!(!more);
    items.into_iter().map(|item| (item.key, (item.value.0, item.sequence.0))).collect()
}

fn items(of: &[(&str, &str, u64)]) -> BTreeMap<String, (String, u64)> {
    of.iter().map(|(key, value, at)| ((*key).to_owned(), ((*value).to_owned(), *at))).collect()
}

/// What the entries of the account say, as they are now.
fn log(lane: &mut Lane, name: &str) -> Vec<(String, Option<String>)> {
    let entries = lane.whole_history(name, ConversationId::account(&user(name)));
    let changes = entries.iter().filter(|entry| entry.kind == EntryKind::AccountData);
    let said = changes.map(|entry| AccountChange::from_body(&entry.body).unwrap());
    said.map(|change| (change.key, change.value.map(|value| value.0))).collect()
}

#[test]
fn the_last_who_sets_a_key_wins_and_hears_what_it_replaced() {
    let mut lane = Lane::new(1);
    assert_eq!(page(&mut lane, "ann", None, 10), (0, vec![], false), "before anything is set");
    assert_eq!(take_away(&mut lane, "ann", "theme"), Ok((0, None)), "nothing begins by taking away");
    assert_eq!(put(&mut lane, "ann", "theme", "\"dark\""), Ok((2, None)));
    assert_eq!(put(&mut lane, "ann", "draft:x", "{\"text\":\"Hi\"}"), Ok((3, None)));
    assert_eq!(put(&mut lane, "ann", "theme", "\"light\""), Ok((4, Some(2))));
    // The same again is the same.
    assert_eq!(put(&mut lane, "ann", "theme", "\"light\""), Ok((4, None)));
    assert_eq!(listed(&mut lane, "ann"), items(&[("theme", "\"light\"", 4), ("draft:x", "{\"text\":\"Hi\"}", 3)]));
    assert_eq!(take_away(&mut lane, "ann", "draft:x"), Ok((5, Some(3))));
    assert_eq!(take_away(&mut lane, "ann", "draft:x"), Ok((5, None)));
    assert_eq!(listed(&mut lane, "ann"), items(&[("theme", "\"light\"", 4)]));
    let now = [("theme", None), ("draft:x", None), ("theme", Some("\"light\"")), ("draft:x", None)];
    let now = now.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    assert_eq!(log(&mut lane, "ann"), now, "an entry says nothing of what was set anew");
    // To another user all of this is nothing.
    assert_eq!(page(&mut lane, "bob", None, 10), (0, vec![], false));
}

#[test]
fn a_condition_holds_or_nothing_changes() {
    let mut lane = Lane::new(1);
    for absent in ["allowed", "other"] {
        assert_eq!(told(lane.ask(set("ann", absent, Some("[]"), Some(7)))), Err(ErrorCode::Conflict));
    }
    assert_eq!(told(lane.ask(set("ann", "allowed", Some("[1]"), Some(0)))), Ok((2, None)));
    assert_eq!(told(lane.ask(set("ann", "allowed", Some("[2]"), Some(0)))), Err(ErrorCode::Conflict));
    assert_eq!(told(lane.ask(set("ann", "allowed", Some("[2]"), Some(2)))), Ok((3, Some(2))));
    let refusal = lane.ask(set("ann", "allowed", None, Some(2))).unwrap_err();
    assert_eq!((refusal.code, refusal.text.as_str()), (ErrorCode::Conflict, "the key was last set by entry 3"));
    // Two devices at once: the first one wins, the other hears of it.
    let both = [("[3]", 3), ("[4]", 3)].map(|(value, at)| lane.submit(set("ann", "allowed", Some(value), Some(at))));
    lane.settle_queued();
    let answers = both.map(|token| told(lane.answer(token).unwrap()));
    assert_eq!(answers, [Ok((4, Some(3))), Err(ErrorCode::Conflict)]);
    assert_eq!(listed(&mut lane, "ann"), items(&[("allowed", "[3]", 4)]));
    assert_eq!(told(lane.ask(set("ann", "allowed", None, Some(4)))), Ok((5, Some(4))));
}

#[test]
fn every_device_is_pushed_what_another_set_and_resumes_it() {
    let mut lane = Lane::new(1);
    put(&mut lane, "ann", "a", "1").unwrap();
    let position = match lane.ask(Command::CatchUp { user: user("ann"), since: None, known: vec![] }) {
        Ok(Done::CaughtUp(caught_up)) => caught_up.position.0,
        other => panic!("{other:?}"),
    };
    lane.outputs.clear();
    put(&mut lane, "ann", "a", "2").unwrap();
    put(&mut lane, "ann", "b", "3").unwrap();
    let pushed: Vec<_> = lane
        .outputs
        .iter()
        .filter_map(|output| match output {
            Output::Entry { archive, recipients, .. } => Some((entry(archive), recipients.to_vec())),
            _ => None,
        })
        .collect();
    assert!(pushed.iter().all(|(_, recipients)| *recipients == [user("ann")]));
    let said: Vec<_> = pushed.iter().map(|(entry, _)| AccountChange::from_body(&entry.body).unwrap()).collect();
    assert_eq!(said.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    put(&mut lane, "ann", "b", "4").unwrap();
    let missed = lane.catch_up("ann", position, &[]).unwrap();
    let missed: Vec<_> = missed.entries.iter().map(|archive| entry(archive)).collect();
    assert_eq!(missed.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(), [3, 4, 5]);
    let last = AccountChange::from_body(&missed[2].body).unwrap();
    assert_eq!((last.key.as_str(), last.value.unwrap().0.as_str()), ("b", "4"));
    assert_eq!(AccountChange::from_body(&missed[1].body).unwrap().value, None, "set anew since");
}

#[test]
fn an_account_is_no_conversation_that_anybody_talks_in() {
    let mut lane = Lane::new(1);
    put(&mut lane, "ann", "a", "1").unwrap();
    let group = lane.create_group("ann", 1, &["bob"]);
    let conversation = ConversationId::account(&user("ann"));
    match lane.ask(Command::Conversations { user: user("ann"), after: None, limit: 10 }).unwrap() {
        Done::Conversations { conversations, more: false } => {
            assert_eq!(conversations.iter().map(|of| of.conversation).collect::<Vec<_>>(), [group]);
        }
        other => panic!("{other:?}"),
    }
    let commands = |name: &str| {
        let user = user(name);
        let pin = Change::Pin { target: Sequence(1), on: true };
        let (users, after) = (vec![support::user("bob")], None);
        let code = InviteCode { conversation, secret: [0; 16] };
        [
            send(name, conversation, 1, "to myself"),
            change(name, conversation, 2, pin),
            Command::AddMembers { user: user.clone(), conversation, members: users.clone() },
            Command::RemoveMembers { user: user.clone(), conversation, members: vec![user.clone()] },
            Command::SetTitle { user: user.clone(), conversation, title: "mine".into() },
            Command::Settings { user: user.clone(), conversation, set: Some(SettingsChange::default()) },
            Command::Settings { user: user.clone(), conversation, set: None },
            Command::Ban { user: user.clone(), conversation, users, on: true },
            Command::MakeInvite { user: user.clone(), conversation, make: MakeInvite::default() },
            Command::Join { user: user.clone(), code, look: false },
            Command::Mark { user: user.clone(), conversation, read: Some(Sequence(1)), delivered: None },
            Command::Members { user: user.clone(), conversation, after: after.clone(), limit: 9 },
            Command::Tell { user, conversation, event: "typing".into(), data: after.map(|_| String::new()) },
        ]
    };
    for (name, code) in [("ann", ErrorCode::Forbidden), ("bob", ErrorCode::NotFound)] {
        for command in commands(name) {
            let text = format!("{command:?}");
            assert_eq!(lane.ask(command).unwrap_err().code, code, "{text}");
        }
    }
    let strange = lane.history("bob", conversation, HistoryRange::Latest, 9).unwrap_err();
    assert_eq!(strange.code, ErrorCode::NotFound);
    assert_eq!(lane.history("ann", conversation, HistoryRange::Latest, 9).unwrap().last, Sequence(2));
    let (name, key) = (user("ann"), ClientMessageId([9; 16]));
    assert_ne!(ConversationId::group(&name, key), conversation);
}

#[test]
fn there_are_so_many_keys_and_so_many_bytes() {
    let mut lane = Lane::new(1);
    let long = format!("\"{}\"", "x".repeat(ACCOUNT_VALUE_BYTES_MAX - 2));
    let fit = ACCOUNT_BYTES_MAX / (long.len() + 3);
    for number in 0..fit {
        put(&mut lane, "ann", &format!("k{number:02}"), &long).unwrap();
    }
    assert_eq!(put(&mut lane, "ann", "more", &long), Err(ErrorCode::LimitReached));
    assert!(put(&mut lane, "ann", "k00", "1").is_ok(), "another value in the place of a long one");
    assert!(put(&mut lane, "ann", "more", &long).is_ok());
    assert!(take_away(&mut lane, "ann", "more").is_ok());
    // A page is no longer than pages are, but has one item at least.
    let (_, first, more) = page(&mut lane, "ann", Some("k00"), 200);
    let bytes: usize = first.iter().map(|item| item.key.len() + item.value.0.len()).sum();
    assert!(more && bytes <= PAGE_BYTES_MAX && bytes + long.len() + 3 > PAGE_BYTES_MAX);
    let (_, second, more) = page(&mut lane, "ann", Some(&first.last().unwrap().key), 3);
    assert!(more && second.len() == 3 && second[0].key > first.last().unwrap().key);
    for number in 0..ACCOUNT_KEYS_MAX {
        put(&mut lane, "bob", &format!("k{number}"), "1").unwrap();
    }
    assert_eq!(put(&mut lane, "bob", "more", "1"), Err(ErrorCode::LimitReached));
    assert!(put(&mut lane, "bob", "k7", "2").is_ok());
    take_away(&mut lane, "bob", "k8").unwrap();
    assert!(put(&mut lane, "bob", "more", "1").is_ok());
}

#[test]
fn account_data_survives_restarts_dumps_and_repairs() {
    let mut lane = Lane::new(1);
    put(&mut lane, "ann", "a", "1").unwrap();
    put(&mut lane, "ann", "b", "{\"of\":[2]}").unwrap();
    // What was set before a flush is set anew, and taken away, after it.
    lane.reopen();
    put(&mut lane, "ann", "a", "3").unwrap();
    take_away(&mut lane, "ann", "b").unwrap();
    put(&mut lane, "ann", "c", "\"ü\"").unwrap();
    let expected = items(&[("a", "3", 4), ("c", "\"ü\"", 6)]);
    let said = log(&mut lane, "ann");
    assert_eq!(said.iter().filter(|(_, value)| value.is_some()).count(), 2);
    lane.check_wherever_it_is(|lane, what| {
        assert_eq!(listed(lane, "ann"), expected, "{what}");
        assert_eq!(log(lane, "ann"), said, "{what}");
        assert_eq!(put(lane, "ann", "c", "\"ü\""), Ok((6, None)), "{what}");
        assert_eq!(
            lane.send("ann", ConversationId::account(&user("ann")), 1, "x").unwrap_err().code,
            ErrorCode::Forbidden
        );
    });
}

#[test]
fn what_a_memtable_knows_counts_when_the_account_is_loaded_anew() {
    let mut lane = Lane::with_options(1, EngineOptions { memtable_bytes: 1024 * 1024, ..small_options() });
    put(&mut lane, "ann", "a", "1").unwrap();
    put(&mut lane, "ann", "b", "2").unwrap();
    // Both are in a segment; what becomes of them is not.
    lane.clock.advance(10_000_000);
    lane.engine.tick();
    lane.settle_queued();
    put(&mut lane, "ann", "a", "3").unwrap();
    take_away(&mut lane, "ann", "b").unwrap();
    for key in 0..100 {
        lane.create_group("cid", key, &["bob"]);
    }
    let before = lane.engine.status();
    assert_eq!(listed(&mut lane, "ann"), items(&[("a", "3", 4)]));
    let after = lane.engine.status();
    assert_eq!((after.loads - before.loads, after.flushes), (1, before.flushes), "it had left memory");
}

/// Key after key, for long: what entries said goes by merges alone, and no segment is written anew for it.
#[test]
fn what_was_set_anew_goes_with_merges() {
    let mut lane = Lane::new(1);
    for round in 0..60_u64 {
        for key in 0..20 {
            put(
                &mut lane,
                "ann",
                &format!("key-{key}"),
                &format!("\"round {round} {}\"", support::noise(round, 60).replace(['"', '\\'], "_")),
            )
            .unwrap();
        }
    }
    lane.reopen();
    let segments = block_on(offline::inspect(lane.files.clone(), 0_u16, false, |_| ())).unwrap().segments;
    assert!(segments.len() > 1 && segments.iter().all(|segment| segment.erasing == 0), "{segments:?}");
    let all = listed(&mut lane, "ann");
    assert!(all.len() == 20 && all.values().all(|(value, _)| value.starts_with("\"round 59 ")));
    lane.close().unwrap();
    assert_sound(&lane.files);
    let lines = dump(&lane.files);
    assert_eq!(lines.iter().filter(|line| line.contains("\"round ")).count(), 20, "as many as are set");
    assert_sound(&load(&lines));
}

/// What comes behind a change is answered when that is durable.
#[test]
fn answers_wait_until_what_they_tell_is_durable() {
    let mut lane = Lane::new(1);
    put(&mut lane, "ann", "a", "1").unwrap();
    lane.files.set_queued(true);
    let asked: [Token; 3] = [
        lane.submit(set("ann", "a", Some("2"), None)),
        lane.submit(set("ann", "a", Some("2"), None)),
        lane.submit(Command::Account { user: user("ann"), after: None, limit: 9 }),
    ];
    lane.settle();
    assert!(asked.iter().all(|token| lane.answer(*token).is_none()));
    lane.settle_queued();
    let [first, same, list] = asked.map(|token| lane.answer(token).unwrap());
    assert_eq!((told(first), told(same)), (Ok((3, Some(2))), Ok((3, None))));
    assert!(matches!(list, Ok(Done::AccountItems { sequence: Sequence(3), items, .. }) if items[0].value.0 == "2"));
}
