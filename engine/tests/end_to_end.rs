//! A few conversations from beginning to end: over the log alone, over segments, after a restart, after a crash.

mod support;

use antiphon_engine::door::{Command, Done, HistoryRange, Output};
use antiphon_wire::{codes::ErrorCode, ids::Sequence};
use support::{Lane, entry, send, user};

#[test]
fn a_message_is_stored_delivered_and_read_again() {
    let mut lane = Lane::new(1);
    assert!(lane.report.created);
    let conversation = lane.create_direct("ann", "bob");
    assert_eq!(lane.sent("ann", conversation, 1, "hello"), Sequence(2));
    let delivered = lane.outputs.iter().find_map(|output| match output {
        Output::Entry { sequence: Sequence(2), archive, recipients, .. } => Some((archive.clone(), recipients.clone())),
        _ => None,
    });
    let (archive, recipients) = delivered.unwrap();
    assert_eq!(&*recipients, [user("ann"), user("bob")]);
    for restart in 0..3 {
        let page = lane.history("bob", conversation, HistoryRange::Latest, 10).unwrap();
        assert_eq!(page.entries.len(), 2, "{restart}");
        assert_eq!(page.entries[1], archive);
        match restart {
            0 => lane.reopen(),
            _ => lane.crash(restart),
        }
    }
    assert_eq!(lane.send("eve", conversation, 2, "hi").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_long_conversation_reads_the_same_from_every_place() {
    let mut lane = Lane::new(2);
    let conversation = lane.create_group("ann", 1, &["bob", "eve"]);
    for number in 0..600 {
        let text = format!("message {number} {}", "x".repeat(number % 300));
        assert_eq!(lane.sent("ann", conversation, number as u64, &text), Sequence(2 + number as u64));
    }
    let status = lane.engine.status();
    assert!(status.flushes > 2, "{status:?}");
    for round in 0..2 {
        let entries = lane.whole_history("eve", conversation);
        assert_eq!(entries.len(), 601, "{round}");
        assert!(entries.iter().zip(1..).all(|(entry, sequence)| entry.sequence == Sequence(sequence)));
        for middle in [1, 2, 100, 400, 599, 601, 700] {
            let page = lane.history("bob", conversation, HistoryRange::Around(Sequence(middle)), 20).unwrap();
            let sequences: Vec<u64> = page.entries.iter().map(|archive| entry(archive).sequence.0).collect();
            // Ten up to the middle, ten after it, as far as there are so many.
            let end = middle.min(601);
            let expected: Vec<u64> = (end.saturating_sub(9).max(1)..=601.min(middle + 10)).collect();
            assert_eq!(sequences, expected, "{middle}");
        }
        lane.reopen();
    }
    // A retry long after, found by a segment's filter and index.
    let text = format!("message 3 {}", "x".repeat(3));
    match lane.send("ann", conversation, 3, &text) {
        Ok(Done::Sent { sequence: Sequence(5), duplicate: true, .. }) => {}
        other => panic!("{other:?}"),
    }
    // Of another length or of the same.
    for other in ["other".to_owned(), text.replace('x', "y")] {
        assert_eq!(lane.send("ann", conversation, 3, &other).unwrap_err().code, ErrorCode::Conflict, "{other}");
    }
    assert_eq!(lane.send("bob", conversation, 3, &text).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn pipelined_commands_take_effect_in_order() {
    let mut lane = Lane::new(3);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    lane.reopen();
    let commands = [
        send("ann", conversation, 1, "one"),
        Command::RemoveMembers { user: user("ann"), conversation, members: vec![user("bob")] },
        send("bob", conversation, 2, "two"),
        Command::AddMembers { user: user("ann"), conversation, members: vec![user("bob")] },
        send("bob", conversation, 3, "three"),
        Command::Members { user: user("bob"), conversation, after: None, limit: 10 },
        send("ann", conversation, 1, "one"),
    ];
    let tokens: Vec<_> = commands.into_iter().map(|command| lane.submit(command)).collect();
    lane.settle();
    let answers: Vec<_> = tokens.iter().map(|token| lane.answer(*token).unwrap()).collect();
    assert!(matches!(answers[0], Ok(Done::Sent { sequence: Sequence(2), .. })), "{answers:?}");
    assert!(matches!(answers[1], Ok(Done::Changed { sequence: Sequence(3) })), "{answers:?}");
    assert_eq!(answers[2].as_ref().unwrap_err().code, ErrorCode::NotFound);
    assert!(matches!(answers[3], Ok(Done::Changed { sequence: Sequence(4) })), "{answers:?}");
    assert!(matches!(answers[4], Ok(Done::Sent { sequence: Sequence(5), .. })), "{answers:?}");
    let Ok(Done::Members { members, more: false }) = &answers[5] else { panic!("{answers:?}") };
    assert_eq!(
        members.iter().map(|member| (member.visible_from.0, member.read.0)).collect::<Vec<_>>(),
        [(1, 2), (4, 5)]
    );
    assert!(matches!(answers[6], Ok(Done::Sent { sequence: Sequence(2), duplicate: true, .. })), "{answers:?}");
    // The one who came back sees nothing from before.
    assert_eq!(
        lane.whole_history("bob", conversation).iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(),
        [4, 5]
    );
}

#[test]
fn a_pointer_reaches_the_end_and_never_passes_it() {
    let mut lane = Lane::new(4);
    let conversation = lane.create_direct("ann", "bob");
    let last = lane.sent("ann", conversation, 1, "hello");
    let mut mark = |read, delivered| lane.ask(Command::Mark { user: user("bob"), conversation, read, delivered });
    let beyond = Some(last.next());
    for (read, delivered) in [(beyond, None), (None, beyond), (Some(last), beyond), (beyond, Some(last))] {
        assert_eq!(mark(read, delivered).unwrap_err().code, ErrorCode::Invalid, "{read:?} {delivered:?}");
    }
    let done = mark(Some(last), None);
    assert!(
        matches!(done, Ok(Done::Marked { read, delivered, unread: 0 }) if read == last && delivered == last),
        "{done:?}"
    );
}
