//! What messages say beside text: what they answer, threads, who is meant; and what becomes of it over edits, deletions, restarts and dumps.

mod support;

use antiphon_engine::{
    door::{Command, Done, HistoryRange},
    memory_files::{MemoryFiles, MemoryRandom},
    offline,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, ContentView, Data, Place, SettingsChange, Who},
    ids::{ClientMessageId, ConversationId, Sequence},
};
use support::{Lane, assert_sound, block_on, change, dump, entry, load, user};

const PLAIN: ContentView<'static> = ContentView {
    text: None,
    data: None,
    reply_to: None,
    thread: None,
    forwarded: None,
    mentions: antiphon_wire::frame::Mentions::NOBODY,
    everybody: false,
};

fn says(text: &str) -> ContentView<'_> {
    ContentView { text: Some(text), ..PLAIN }
}

fn in_thread(text: &str, root: Sequence) -> ContentView<'_> {
    ContentView { thread: Some(root), ..says(text) }
}

fn send(from: &str, conversation: ConversationId, key: u8, content: ContentView<'_>) -> Command {
    let client_message_id = ClientMessageId([key; 16]);
    Command::Send { user: user(from), conversation, client_message_id, body: content.to_content().0 }
}

fn sent(
    lane: &mut Lane,
    from: &str,
    conversation: ConversationId,
    key: u8,
    content: ContentView<'_>,
) -> Result<Sequence, ErrorCode> {
    match lane.ask(send(from, conversation, key, content)) {
        Ok(Done::Sent { sequence, .. }) => Ok(sequence),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

/// How many replies a message is said to have.
fn replies(lane: &mut Lane, by: &str, conversation: ConversationId, message: Sequence) -> u32 {
    let page = lane.history(by, conversation, HistoryRange::After(Sequence(message.0 - 1)), 1).unwrap();
    page.states.iter().find(|state| state.sequence == message).map_or(0, |state| state.replies)
}

fn content(lane: &mut Lane, by: &str, conversation: ConversationId, message: Sequence) -> Content {
    let page = lane.history(by, conversation, HistoryRange::After(Sequence(message.0 - 1)), 1).unwrap();
    Content(entry(&page.entries[0]).body)
}

fn flush(lane: &mut Lane) {
    lane.clock.advance(10_000_000);
    lane.engine.tick();
    lane.settle();
}

#[test]
fn a_thread_counts_its_replies() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob", "cid"]);
    let root = lane.sent("ann", id, 1, "who comes?");
    let other = lane.sent("bob", id, 2, "something else");
    let first = sent(&mut lane, "bob", id, 3, in_thread("I do", root)).unwrap();
    sent(&mut lane, "cid", id, 4, in_thread("me too", root)).unwrap();
    // One after the other in one batch: each counts.
    let tokens: Vec<_> = (5..9).map(|key| lane.submit(send("ann", id, key, in_thread("and", root)))).collect();
    let behind = lane.submit(support::send("ann", id, 99, "behind them"));
    lane.settle_queued();
    let sequence = |lane: &Lane, token| match lane.answer(token) {
        Some(Ok(Done::Sent { sequence, .. })) => sequence,
        other => panic!("{other:?}"),
    };
    let last = tokens.iter().map(|token| sequence(&lane, *token)).max().unwrap();
    assert!(sequence(&lane, behind) > last, "what was sent behind them is stored behind them");
    lane.changed("cid", id, 20, Change::React { target: root, text: "+1".into(), on: true });
    for reopened in 0..3 {
        assert_eq!((replies(&mut lane, "cid", id, root), replies(&mut lane, "cid", id, other)), (6, 0), "{reopened}");
        assert_eq!(content(&mut lane, "cid", id, first).view().unwrap().thread, Some(root));
        if reopened == 1 {
            flush(&mut lane);
        }
        lane.reopen();
    }
    // A retry is none more, from memory or from a segment.
    assert_eq!(sent(&mut lane, "bob", id, 3, in_thread("I do", root)), Ok(first));
    assert_eq!(sent(&mut lane, "bob", id, 3, in_thread("I do", other)), Err(ErrorCode::Conflict));
    lane.changed("bob", id, 21, Change::Delete { target: first });
    assert_eq!(replies(&mut lane, "ann", id, root), 5);
    assert_eq!(sent(&mut lane, "bob", id, 3, in_thread("I do", root)), Ok(first), "it is deleted, and was stored");
    flush(&mut lane);
    lane.reopen();
    assert_eq!(replies(&mut lane, "ann", id, root), 5);
    // Of a deleted message nothing is told, and nobody answers it in its thread any more.
    lane.changed("ann", id, 22, Change::Delete { target: root });
    assert_eq!(replies(&mut lane, "ann", id, root), 0);
    assert_eq!(sent(&mut lane, "bob", id, 30, in_thread("late", root)), Err(ErrorCode::Deleted));
    lane.changed("ann", id, 23, Change::Delete { target: last });
    assert_eq!(replies(&mut lane, "ann", id, root), 0);
    lane.close().unwrap();
    assert_sound(&lane.files);
}

#[test]
fn what_a_message_refers_to_is_there_for_its_sender() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob"]);
    let root = lane.sent("ann", id, 1, "before cid came");
    let reply = sent(&mut lane, "bob", id, 2, in_thread("in its thread", root)).unwrap();
    let add = Command::AddMembers { user: user("ann"), conversation: id, members: vec![user("cid")] };
    let Ok(Done::Changed { sequence: joined }) = lane.ask(add) else { panic!() };
    let (zero, far) = (Sequence(joined.0 + 5), Sequence(1 << 40));
    for flushed in [false, true] {
        let of = |view: ContentView<'static>, error: ErrorCode| (view, error);
        for (index, (view, error)) in [
            of(ContentView { reply_to: Some(root), ..says("a") }, ErrorCode::NoMessage),
            of(ContentView { thread: Some(root), ..says("a") }, ErrorCode::NoMessage),
            of(ContentView { reply_to: Some(zero), ..says("a") }, ErrorCode::NoMessage),
            of(ContentView { thread: Some(far), ..says("a") }, ErrorCode::NoMessage),
            // It is no message.
            of(ContentView { thread: Some(joined), ..says("a") }, ErrorCode::NoMessage),
            of(ContentView { everybody: true, ..says("a") }, ErrorCode::Forbidden),
        ]
        .into_iter()
        .enumerate()
        {
            let key = 10 + index as u8 + 50 * u8::from(flushed);
            assert_eq!(sent(&mut lane, "cid", id, key, view), Err(error), "{view:?} {flushed}");
        }
        let nested = in_thread("no threads in threads", reply);
        assert_eq!(sent(&mut lane, "bob", id, 30 + u8::from(flushed), nested), Err(ErrorCode::Invalid));
        let stranger = in_thread("a stranger learns nothing", root);
        assert_eq!(sent(&mut lane, "zoe", id, 40 + u8::from(flushed), stranger), Err(ErrorCode::NotFound));
        flush(&mut lane);
    }
    let answer = ContentView { reply_to: Some(reply), thread: Some(root), ..says("both") };
    assert!(sent(&mut lane, "bob", id, 50, answer).is_ok());
    assert_eq!(replies(&mut lane, "ann", id, root), 2);
    assert_sound(&lane.files);
}

#[test]
fn everybody_is_meant_by_who_may() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob"]);
    let all = ContentView { everybody: true, ..says("listen") };
    assert!(sent(&mut lane, "ann", id, 1, all).is_ok());
    assert_eq!(sent(&mut lane, "bob", id, 2, all), Err(ErrorCode::Forbidden));
    let own = lane.sent("bob", id, 3, "quietly");
    let edit = |key| change("bob", id, key, Change::Edit { target: own, content: all.to_content() });
    assert_eq!(lane.ask(edit(4)).unwrap_err().code, ErrorCode::Forbidden);
    let set = SettingsChange { everybody: Some(Who::Members), ..SettingsChange::default() };
    lane.ask(Command::Settings { user: user("ann"), conversation: id, set: Some(set) }).unwrap();
    assert!(sent(&mut lane, "bob", id, 2, all).is_ok());
    assert!(lane.ask(edit(4)).is_ok());
    let direct = lane.create_direct("ann", "bob");
    assert!(sent(&mut lane, "bob", direct, 5, all).is_ok());
    assert_sound(&lane.files);
}

#[test]
fn an_edit_changes_words_and_keeps_what_they_refer_to() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob"]);
    let root = lane.sent("ann", id, 1, "root");
    let place = Place { conversation: ConversationId([9; 16]), sequence: Sequence(4) };
    let first = ContentView { reply_to: Some(root), forwarded: Some(place), ..in_thread("wrods", root) };
    let message = sent(&mut lane, "bob", id, 2, first).unwrap();
    let data = Data { content_type: "application/x", bytes: &[1, 2] };
    let second = ContentView { data: Some(data), ..says("words") };
    for (key, view) in [(3, second), (4, says("words, too"))] {
        let command = change("bob", id, key, Change::Edit { target: message, content: view.to_content() });
        let Ok(Done::Sent { sequence, .. }) = lane.ask(command.clone()) else { panic!() };
        let expected = view.in_place_of(&first);
        for restarted in 0..3 {
            assert_eq!(content(&mut lane, "ann", id, message).view(), Ok(expected), "{restarted}");
            let edit = content(&mut lane, "ann", id, sequence).0;
            assert_eq!(edit[8..], expected.to_content().0, "the edit's own entry says the same");
            let Ok(Done::Sent { sequence: again, duplicate: true, .. }) = lane.ask(command.clone()) else { panic!() };
            assert_eq!(again, sequence, "a retry");
            let other = Change::Edit { target: message, content: says("other").to_content() };
            assert_eq!(lane.ask(change("bob", id, key, other)).unwrap_err().code, ErrorCode::Conflict);
            if restarted == 1 {
                flush(&mut lane);
            }
            lane.reopen();
        }
        assert_eq!(replies(&mut lane, "ann", id, root), 1);
    }
    lane.changed("bob", id, 5, Change::Delete { target: message });
    assert_eq!(replies(&mut lane, "ann", id, root), 0);
    lane.close().unwrap();
    assert_sound(&lane.files);
}

#[test]
fn contents_survive_dumps_and_repairs() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob"]);
    let root = lane.sent("ann", id, 1, "root");
    let gone = sent(&mut lane, "bob", id, 2, in_thread("gone", root)).unwrap();
    let lonely = lane.sent("ann", id, 3, "its only reply goes");
    let only = sent(&mut lane, "bob", id, 4, in_thread("only", lonely)).unwrap();
    flush(&mut lane);
    let data = Data { content_type: "application/json", bytes: b"{\"a\":[1]}" };
    sent(&mut lane, "bob", id, 5, ContentView { data: Some(data), ..in_thread("stays", root) }).unwrap();
    lane.changed("bob", id, 6, Change::Delete { target: gone });
    lane.changed("bob", id, 7, Change::Delete { target: only });
    lane.close().unwrap();
    assert_sound(&lane.files);
    let lines = dump(&lane.files);
    let loaded = load(&lines);
    assert_eq!(dump(&loaded), lines);
    let repaired = MemoryFiles::new(0);
    block_on(offline::repair(lane.files.clone(), repaired.clone(), 0_u16, &MemoryRandom::new(7), |_| ())).unwrap();
    for files in [loaded, repaired] {
        assert_sound(&files);
        let mut again = lane.opened_again(files).unwrap();
        assert_eq!((replies(&mut again, "ann", id, root), replies(&mut again, "ann", id, lonely)), (1, 0));
        assert!(sent(&mut again, "ann", id, 8, in_thread("more", lonely)).is_ok());
        assert_eq!(replies(&mut again, "ann", id, lonely), 1);
    }
}
