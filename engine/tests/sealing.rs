//! A memtable that is sealed, and becomes a segment, while records are on their way to the disk: they will be in the next one, and until
//! they are durable their ids must be known there, or a retry is stored a second time.

mod support;

use antiphon_engine::{
    door::{Command, Done, HistoryRange, Token},
    memory_files::{MemoryFiles, OperationKind, Ticket},
    offline,
};
use antiphon_wire::{
    frame::{Change, Content},
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs},
};
use support::{Lane, block_on, entry, user};

/// Carries out all operations but those that are held back.
fn settle_but(lane: &mut Lane, held: &[Ticket]) {
    lane.settle();
    while let Some(other) = lane.files.pending().into_iter().find(|operation| !held.contains(&operation.ticket)) {
        lane.files.release(other.ticket);
        lane.settle();
    }
}

/// What an answer says: the sequence, and whether it was stored before.
fn sent(lane: &Lane, token: Token) -> (u64, bool) {
    match lane.answer(token) {
        Some(Ok(Done::Sent { sequence, duplicate, .. })) => (sequence.0, duplicate),
        other => panic!("{other:?}"),
    }
}

/// Messages and changes of a group in which ann's messages are 2 and 3, with ids that say their time and ids that do not.
fn commands(conversation: ConversationId) -> Vec<(&'static str, Command)> {
    let target = Sequence(2);
    let changes = [
        ("edit", Change::Edit { target, content: Content::text("edited") }),
        ("deletion", Change::Delete { target }),
        ("reaction", Change::React { target, text: "x".into(), on: true }),
        ("pin", Change::Pin { target, on: true }),
        ("retention", Change::Retain { before: Sequence(2) }),
    ];
    let ids = [ClientMessageId([0x40; 16]), ClientMessageId::timed(TimestampMs(1_000_000), 77)];
    let user = user("ann");
    let mut commands = Vec::new();
    for client_message_id in ids {
        let body = Content::text("on its way").0;
        commands.push(("message", Command::Send { user: user.clone(), conversation, client_message_id, body }));
        commands.extend(changes.clone().map(|(name, change)| {
            (name, Command::Change { user: user.clone(), conversation, client_message_id, change })
        }));
    }
    commands
}

#[test]
fn what_is_on_its_way_while_a_memtable_becomes_a_segment_is_stored_once() {
    let conversation = ConversationId::group(&user("ann"), ClientMessageId([1; 16]));
    for (name, command) in commands(conversation) {
        let mut lane = Lane::new(1);
        assert_eq!(lane.create_group("ann", 1, &["bob"]), conversation);
        lane.sent("ann", conversation, 1, "first");
        lane.sent("ann", conversation, 2, "second");
        lane.files.set_queued(true);
        let first = lane.submit(command.clone());
        lane.settle();
        let is_of_log = |of: &antiphon_engine::memory_files::Pending| {
            of.kind == OperationKind::Write && of.name.starts_with("log-")
        };
        let held: Vec<Ticket> = lane.files.pending().iter().filter(|of| is_of_log(of)).map(|of| of.ticket).collect();
        assert_eq!(held.len(), 1, "{name}: the batch is on its way");

        // A checkpoint seals what there is, and has it flushed.
        let (flushes, target) = (lane.engine.status().flushes, MemoryFiles::new(0));
        let made = lane.start_checkpoint(&target);
        settle_but(&mut lane, &held);
        assert!(matches!(*made.borrow(), Some(Ok(_))), "{name}");
        let status = lane.engine.status();
        assert_eq!((status.flushes, status.memtable_sealed_bytes), (flushes + 1, 0), "{name}: it is a segment");
        assert!(lane.answer(first).is_none(), "{name}: it is on its way still");

        let retry = lane.submit(command.clone());
        settle_but(&mut lane, &held);
        assert!(lane.answer(retry).is_none(), "{name}: what is not durable is no answer");
        lane.settle_queued();
        lane.files.set_queued(false);
        assert_eq!((sent(&lane, first), sent(&lane, retry)), ((4, false), (4, true)), "{name}");

        // In memory, in a segment, and after a start.
        for _ in 0..2 {
            let again = lane.submit(command.clone());
            lane.settle_queued();
            assert_eq!(sent(&lane, again), (4, true), "{name}");
            lane.checkpoint(&MemoryFiles::new(0)).unwrap();
            lane.reopen();
        }
        let page = lane.history("ann", conversation, HistoryRange::Latest, 50).unwrap();
        assert_eq!(page.last, Sequence(4), "{name}");
        let bodies: Vec<Vec<u8>> = page.entries.iter().map(|archive| entry(archive).body).collect();
        let holds = |text: &[u8]| bodies.iter().any(|body| body.ends_with(text));
        let state = page.states.iter().find(|state| state.sequence == Sequence(2));
        // What the change made of its message was in no memtable when the one with the message was sealed.
        match name {
            "message" => assert!(holds(b"first") && holds(b"on its way"), "{name}"),
            "edit" => assert!(holds(b"edited") && !holds(b"first"), "{name}"),
            "deletion" => assert!(!holds(b"first") && state.is_some_and(|state| state.deleted), "{name}"),
            "reaction" => assert!(state.is_some_and(|state| !state.reactions.is_empty()), "{name}"),
            "pin" => assert!(matches!(pins(&mut lane, conversation)[..], [Sequence(2)]), "{name}"),
            _ => assert_eq!(page.first, Sequence(2), "{name}"),
        }
        let report = block_on(offline::verify(lane.files.clone(), lane.options.lane, |_| ())).unwrap();
        assert!(report.is_sound(), "{name}: {:?}", report.findings);
    }
}

fn pins(lane: &mut Lane, conversation: ConversationId) -> Vec<Sequence> {
    match lane.ask(Command::Pins { user: user("ann"), conversation }) {
        Ok(Done::Pins(pins)) => pins,
        other => panic!("{other:?}"),
    }
}
