//! A memtable that is sealed, and becomes a segment, while records are on their way to the disk: they will be in the next one, and until
//! they are durable their ids must be known there, or a retry is stored a second time.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryRange, Token},
    memory_files::{MemoryFiles, OperationKind, Pending, Ticket},
    offline,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content},
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs},
};
use support::{Lane, block_on, entry, noise, send as message, small_options, user};

fn is_of_log(operation: &Pending) -> bool {
    operation.kind == OperationKind::Write && operation.name.starts_with("log-")
}

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

/// A message that nobody else has written, under an id that is used.
fn under_the_id_of(command: &Command) -> Command {
    let mut command = command.clone();
    let (Command::Send { user, conversation, client_message_id, .. }
    | Command::Change { user, conversation, client_message_id, .. }) = &mut command
    else {
        panic!("{command:?}")
    };
    let body = Content::text("something else").0;
    Command::Send { user: user.clone(), conversation: *conversation, client_message_id: *client_message_id, body }
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
        let held: Vec<Ticket> = lane.files.pending().into_iter().filter(is_of_log).map(|of| of.ticket).collect();
        assert_eq!(held.len(), 1, "{name}: the batch is on its way");

        // A checkpoint seals what there is, and has it flushed.
        let (flushes, target) = (lane.engine.status().flushes, MemoryFiles::new(0));
        let made = lane.start_checkpoint(&target);
        settle_but(&mut lane, &held);
        assert!(matches!(*made.borrow(), Some(Ok(_))), "{name}");
        let status = lane.engine.status();
        assert_eq!((status.flushes, status.memtable_sealed_bytes), (flushes + 1, 0), "{name}: it is a segment");
        assert!(lane.answer(first).is_none(), "{name}: it is on its way still");

        // First, since what comes behind a retry waits for it; and a message does not wait for a change as another change does.
        let other = lane.submit(under_the_id_of(&command));
        settle_but(&mut lane, &held);
        let retry = lane.submit(command.clone());
        settle_but(&mut lane, &held);
        assert!(lane.answer(retry).is_none(), "{name}: what is not durable is no answer");
        lane.settle_queued();
        lane.files.set_queued(false);
        assert_eq!((sent(&lane, first), sent(&lane, retry)), ((4, false), (4, true)), "{name}");
        let refused = lane.answer(other).unwrap().unwrap_err().code;
        assert_eq!(refused, ErrorCode::Conflict, "{name}: the id is used");

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

/// A log file that was begun may hold nothing after a crash: the manifest, written meanwhile, must not have spoken of it.
#[test]
fn a_log_file_is_spoken_of_once_there_is_a_batch_in_it() {
    let options = EngineOptions { log_file_bytes: 512 * 1024, ..small_options() };
    let mut lane = Lane::with_options(1, options);
    let conversation = lane.create_group("ann", 1, &["bob"]);
    lane.files.set_queued(true);
    let mut written = String::new();
    for number in 1..200 {
        let token = lane.submit(message("ann", conversation, number, &noise(number, 4_000)));
        lane.settle();
        let batch = lane.files.pending().into_iter().find(is_of_log).expect("a batch is on its way");
        let is_new = !written.is_empty() && batch.name != written;
        written.clone_from(&batch.name);
        if !is_new {
            lane.settle_queued();
            assert!(lane.answer(token).unwrap().is_ok());
            continue;
        }
        // A checkpoint has what there is flushed, which the manifest says, with the newest log file.
        let made = lane.start_checkpoint(&MemoryFiles::new(0));
        settle_but(&mut lane, &[batch.ticket]);
        assert!(matches!(*made.borrow(), Some(Ok(_))));
        // Whatever a crash leaves of the batch: mostly not all of it.
        for seed in 0..20 {
            let mut again = lane.opened_again(lane.files.crash_image(seed)).unwrap();
            assert!(!again.report.read_only, "seed {seed}");
            let last = again.history("ann", conversation, HistoryRange::Latest, 1).unwrap().last;
            assert!(last.0 >= number, "seed {seed}: {last:?} of {number}");
        }
        return;
    }
    panic!("no other log file was begun");
}

fn pins(lane: &mut Lane, conversation: ConversationId) -> Vec<Sequence> {
    match lane.ask(Command::Pins { user: user("ann"), conversation }) {
        Ok(Done::Pins(pins)) => pins,
        other => panic!("{other:?}"),
    }
}
