//! Order where reads are slow and messages keep coming: commands of a conversation, and a resume's exact place among the outputs.

mod support;

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryRange, Output, Token},
    memory_files::{MemoryRandom, OperationKind},
};
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, Epoch, LanePosition, Sequence},
};
use support::{Lane, entry, send, small_options, user};

/// A lane whose conversations are in segments only.
fn cold_lane(conversations: &[(&str, &str)]) -> (Lane, Vec<ConversationId>) {
    let mut lane = Lane::new(5);
    let ids: Vec<_> = conversations.iter().map(|(one, other)| lane.create_direct(one, other)).collect();
    for id in &ids {
        for number in 0..5 {
            lane.sent(conversations[ids.iter().position(|of| of == id).unwrap()].0, *id, number, "cold");
        }
    }
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    lane.reopen();
    lane.settle();
    lane.files.set_queued(true);
    (lane, ids)
}

fn pending_reads(lane: &Lane) -> usize {
    lane.files.pending().iter().filter(|operation| operation.kind == OperationKind::Read).count()
}

#[test]
fn a_conversation_waits_for_its_load_and_others_go_on() {
    let (mut lane, ids) = cold_lane(&[("ann", "bob"), ("ann", "cid")]);
    let cold: Vec<Token> = (10..14).map(|key| lane.submit(send("ann", ids[0], key, "one"))).collect();
    let fresh = lane.submit(Command::CreateDirect { user: user("dan"), peer: user("eve") });
    lane.settle();
    assert!(pending_reads(&lane) > 0, "the load waits for the disk");
    for operation in lane.files.pending() {
        if operation.kind == OperationKind::Write {
            lane.files.release(operation.ticket);
        }
    }
    lane.settle();
    assert!(matches!(lane.answer(fresh), Some(Ok(Done::Created { existing: false, .. }))));
    assert!(cold.iter().all(|token| lane.answer(*token).is_none()));
    lane.settle_queued();
    let sequences: Vec<_> = cold
        .iter()
        .map(|token| match lane.answer(*token) {
            Some(Ok(Done::Sent { sequence, .. })) => sequence.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sequences, [7, 8, 9, 10]);
}

/// A lane whose two conversations are in segments only, and whose files wait.
fn crowded_lane(options: EngineOptions) -> (Lane, [ConversationId; 2]) {
    let mut lane = Lane::with_options(6, options);
    let ids = [lane.create_direct("ann", "bob"), lane.create_direct("ann", "cid")];
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    lane.reopen();
    lane.files.set_queued(true);
    (lane, ids)
}

#[test]
fn queues_are_bounded_and_say_so() {
    let options =
        EngineOptions { commands_waiting_per_conversation_max: 8, commands_waiting_max: 12, ..small_options() };
    let (mut lane, ids) = crowded_lane(options);
    let commands = ids.iter().flat_map(|id| (0..10).map(|key| send("ann", *id, key, "x")));
    let tokens: Vec<Token> = commands.map(|command| lane.submit(command)).collect();
    lane.drain();
    let refused = |lane: &Lane, tokens: &[Token]| {
        let overloaded = |token: &&Token| matches!(lane.answer(**token), Some(Err(refusal)) if refusal.code == ErrorCode::Overloaded);
        tokens.iter().filter(overloaded).count()
    };
    assert_eq!(refused(&lane, &tokens[..10]), 2);
    assert_eq!(refused(&lane, &tokens[10..]), 6);
    assert_eq!(lane.engine.status().commands_waiting, 12);
    lane.settle_queued();
    assert!(tokens.iter().all(|token| lane.answer(*token).is_some()));
    assert_eq!(lane.engine.status().commands_waiting, 0);
}

#[test]
fn pages_that_wait_leave_room_for_messages() {
    let (mut lane, ids) = crowded_lane(EngineOptions { commands_waiting_max: 8, ..small_options() });
    let page = || Command::History { user: user("ann"), conversation: ids[0], range: HistoryRange::Latest, limit: 50 };
    let pages: Vec<Token> = (0..8).map(|_| lane.submit(page())).collect();
    let sends: Vec<Token> = (0..3).map(|key| lane.submit(send("ann", ids[1], key, "x"))).collect();
    lane.drain();
    let is_refused =
        |token: &Token| matches!(lane.answer(*token), Some(Err(refusal)) if refusal.code == ErrorCode::Overloaded);
    let refused = |tokens: &[Token]| tokens.iter().map(is_refused).collect::<Vec<_>>();
    assert_eq!(refused(&pages), [[false; 6].as_slice(), &[true; 2]].concat());
    assert_eq!(refused(&sends), [false, false, true]);
    lane.settle_queued();
    assert!(sends[..2].iter().all(|token| matches!(lane.answer(*token), Some(Ok(Done::Sent { .. })))));
    assert!(pages[..6].iter().all(|token| matches!(lane.answer(*token), Some(Ok(Done::History(_))))));
}

#[test]
fn pages_that_wait_for_nothing_leave_commits_their_turn() {
    let mut lane = Lane::new(6);
    let ids = [lane.create_direct("ann", "bob"), lane.create_direct("ann", "cid")];
    lane.sent("ann", ids[0], 1, "cold");
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    let page = || Command::History { user: user("ann"), conversation: ids[0], range: HistoryRange::Latest, limit: 50 };
    lane.submit(page());
    lane.settle();
    let pages: Vec<Token> = (0..100).map(|_| lane.submit(page())).collect();
    let answered = |lane: &Lane, tokens: &[Token]| tokens.iter().filter(|token| lane.answer(**token).is_some()).count();
    lane.turn();
    let first = answered(&lane, &pages);
    assert!(first > 0 && first < 20, "{first} in one turn");
    let sent = lane.submit(send("ann", ids[1], 1, "x"));
    lane.turn();
    assert!(lane.answer(sent).is_some() && answered(&lane, &pages) < 40);
    lane.settle();
    assert_eq!(answered(&lane, &pages), 100);
}

#[test]
fn a_batch_that_is_full_refuses_and_stores_what_it_took() {
    // One memtable holds all of it: a flush would forget what was wrongly remembered.
    let mut lane = Lane::with_options(7, EngineOptions { memtable_bytes: 1 << 20, ..small_options() });
    let conversation = lane.create_direct("ann", "bob");
    lane.files.set_queued(true);
    let text = "x".repeat(16_000);
    let tokens: Vec<Token> = (0..40).map(|key| lane.submit(send("ann", conversation, key, &text))).collect();
    lane.settle_queued();
    let stored = tokens.iter().filter(|token| matches!(lane.answer(**token), Some(Ok(_)))).count();
    assert!((10..40).contains(&stored), "{stored}");
    assert_eq!(lane.whole_history("bob", conversation).len(), 1 + stored);
    let again = lane.sent("ann", conversation, 99, "fits");
    assert_eq!(again, Sequence(2 + stored as u64));
    // What was refused was not remembered: sent again it is stored, and no conflict with what took its place meanwhile.
    let mut sequences = Vec::new();
    let refused = |key: &u64| !matches!(lane.answer(tokens[*key as usize]), Some(Ok(_)));
    for key in (0..40).filter(refused).collect::<Vec<_>>() {
        match lane.send("ann", conversation, key, &text) {
            Ok(Done::Sent { sequence, duplicate: false, .. }) => sequences.push(sequence.0),
            other => panic!("{key}: {other:?}"),
        }
    }
    assert_eq!(sequences, (3 + stored as u64..43).collect::<Vec<_>>());
}

const NAMES: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// What one client has, and how it listens.
struct Client {
    name: &'static str,
    /// Last entry of each conversation.
    has: BTreeMap<ConversationId, u64>,
    position: LanePosition,
    listens: bool,
    resume: Option<Token>,
}

impl Client {
    fn receive(&mut self, conversation: ConversationId, sequence: u64, first: bool) {
        let last = self.has.insert(conversation, sequence);
        // An entry that adds the user begins anew.
        let expected = if first { sequence } else { last.expect("it has the beginning") + 1 };
        assert_eq!(sequence, expected, "{} in {conversation}", self.name);
    }
}

/// Clients go and come back at any moment, while messages and members change, memtables are flushed and reads are slow: each
/// gets each entry once, in order.
#[test]
fn a_resume_is_exact_whatever_happens_meanwhile() {
    let mut resumes = 0;
    for seed in 0..60 {
        resumes += exactness(seed);
    }
    assert!(resumes > 1_000, "{resumes}");
}

fn exactness(seed: u64) -> u64 {
    let random = MemoryRandom::new(seed);
    let mut lane = Lane::new(seed);
    let ids: Vec<_> = (0..5u8).map(|key| lane.create_group(NAMES[usize::from(key) % 4], key, &NAMES)).collect();
    lane.outputs.clear();
    lane.files.set_queued(true);
    let start = lane.engine.position();
    let mut clients: Vec<Client> = NAMES
        .iter()
        .map(|name| Client {
            name,
            has: ids.iter().map(|id| (*id, 1)).collect(),
            position: start,
            listens: true,
            resume: None,
        })
        .collect();
    let mut resumes = 0;
    let mut key = 0;
    for step in 0..600 {
        let id = ids[random.below(5) as usize];
        let name = NAMES[random.below(4) as usize];
        match random.below(12) {
            0..6 if step < 500 => {
                key += 1;
                let text = "x".repeat(1 + random.below(500) as usize);
                lane.submit(send(name, id, key, &text));
            }
            6 if step < 500 => {
                let (user, members) = (user(name), vec![user(NAMES[random.below(4) as usize])]);
                let command = if random.below(3) == 0 {
                    Command::RemoveMembers { user, conversation: id, members }
                } else {
                    Command::AddMembers { user, conversation: id, members }
                };
                lane.submit(command);
            }
            7 => {
                let client = &mut clients[random.below(4) as usize];
                if client.listens {
                    client.listens = false;
                } else if client.resume.is_none() {
                    let known = client.has.iter().map(|(id, sequence)| (*id, Epoch(1), Sequence(*sequence))).collect();
                    let command = Command::CatchUp { user: user(client.name), since: Some(client.position), known };
                    client.resume = Some(lane.submit(command));
                    resumes += 1;
                }
            }
            _ => {
                let pending = lane.files.pending();
                if !pending.is_empty() {
                    lane.files.release(pending[random.below(pending.len() as u64) as usize].ticket);
                }
            }
        }
        if step == 520 {
            lane.settle_queued();
        }
        lane.settle();
        for output in std::mem::take(&mut lane.outputs) {
            deliver(&mut clients, &output);
        }
    }
    lane.files.set_queued(false);
    for at in 0..clients.len() {
        let name = clients[at].name;
        if clients[at].resume.is_none() && !clients[at].listens {
            let known = clients[at].has.iter().map(|(id, sequence)| (*id, Epoch(1), Sequence(*sequence))).collect();
            let since = Some(clients[at].position);
            clients[at].resume = Some(lane.submit(Command::CatchUp { user: user(name), since, known }));
        }
        lane.settle_queued();
        for output in std::mem::take(&mut lane.outputs) {
            deliver(&mut clients, &output);
        }
        let client = &clients[at];
        assert!(client.listens);
        for id in &ids {
            let latest = lane.history(name, *id, antiphon_engine::door::HistoryRange::Latest, 1);
            if let Ok(page) = latest {
                assert_eq!(client.has.get(id), Some(&page.last.0), "seed {seed}: {name} has all of {id}");
            }
        }
        lane.outputs.clear();
    }
    resumes
}

fn deliver(clients: &mut [Client], output: &Output) {
    for client in clients {
        let me = user(client.name);
        match output {
            Output::Entry { conversation, sequence, archive, recipients, .. }
                if client.listens && recipients.contains(&me) =>
            {
                client.receive(*conversation, sequence.0, adds(archive, client.name));
            }
            Output::Committed { position } if client.listens => client.position = *position,
            Output::Answer { token, result } if client.resume == Some(*token) => {
                let Ok(Done::CaughtUp(caught_up)) = result else { panic!("{result:?}") };
                for archive in &caught_up.entries {
                    let entry = entry(archive);
                    client.receive(entry.conversation, entry.sequence.0, adds(archive, client.name));
                }
                for too_far in &caught_up.too_far {
                    client.has.insert(too_far.conversation, too_far.last.0);
                }
                client.position = caught_up.position;
                client.listens = true;
                client.resume = None;
            }
            _ => {}
        }
    }
}

/// Whether an entry adds the user.
fn adds(archive: &[u8], name: &str) -> bool {
    let entry = entry(archive);
    entry.kind == antiphon_wire::frame::EntryKind::Membership
        && antiphon_wire::frame::MembershipChange::from_body(&entry.body).unwrap().added.contains(&user(name))
}

/// A load that began before a memtable became a segment, and ends after it, must see what moved.
#[test]
fn a_load_across_a_flush_sees_what_moved() {
    let options = EngineOptions { conversations_bytes_max: 1, cache_bytes: 0, ..small_options() };
    let mut lane = Lane::with_options(8, options);
    let id = lane.create_direct("ann", "bob");
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle();
    assert_eq!(lane.sent("ann", id, 1, "in memory"), Sequence(2));
    // Others push the conversation out of memory.
    for peer in ["cid", "dan", "eve"] {
        lane.create_direct("bob", peer);
    }
    lane.files.set_queued(true);
    let (loads, flushes) = (lane.engine.status().loads, lane.engine.status().flushes);
    let token = lane.submit(send("ann", id, 2, "next"));
    lane.settle();
    assert!(pending_reads(&lane) > 0, "the load waits for the disk");
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    while lane.engine.status().flushes == flushes {
        lane.settle();
        let pending = lane.files.pending();
        let other = pending.iter().find(|operation| operation.kind != OperationKind::Read);
        // The flush reads its own file back; the load's read came first and is kept.
        let chosen = other.or(pending.get(1)).expect("the flush goes on");
        lane.files.release(chosen.ticket);
        lane.settle();
    }
    lane.settle_queued();
    assert!(lane.engine.status().loads > loads);
    assert!(matches!(lane.answer(token), Some(Ok(Done::Sent { sequence: Sequence(3), .. }))));
}

#[test]
fn a_message_on_its_way_while_the_memtable_is_sealed_is_not_taken_twice() {
    let mut lane = Lane::new(8);
    let id = lane.create_direct("ann", "bob");
    lane.files.set_queued(true);
    let first = lane.submit(send("ann", id, 1, "first"));
    lane.settle();
    // Staged behind a write, whose end seals the memtable.
    let second = lane.submit(send("ann", id, 2, "second"));
    let again = lane.submit(send("ann", id, 2, "second"));
    lane.clock.advance(2_000_000);
    lane.settle_queued();
    let later = lane.submit(send("ann", id, 2, "second"));
    lane.settle_queued();
    assert!(lane.engine.status().flushes > 0);
    let duplicates = [first, second, again, later].map(|token| match lane.answer(token) {
        Some(Ok(Done::Sent { sequence, duplicate, .. })) => (sequence.0, duplicate),
        other => panic!("{other:?}"),
    });
    assert_eq!(duplicates, [(2, false), (3, false), (3, true), (3, true)]);
    // And when it is in no map any more, but in a segment.
    lane.clock.advance(2_000_000);
    lane.engine.tick();
    lane.settle_queued();
    let last = lane.submit(send("ann", id, 2, "second"));
    lane.settle_queued();
    assert!(matches!(lane.answer(last), Some(Ok(Done::Sent { sequence: Sequence(3), duplicate: true, .. }))));
}

/// Whoever asks for the same again while it is on its way to the disk hears nothing before it is there.
#[test]
fn a_repeat_is_answered_when_the_first_is_durable() {
    let mut lane = Lane::new(9);
    lane.files.set_queued(true);
    let twice = |lane: &mut Lane, command: &Command| {
        let tokens = [lane.submit(command.clone()), lane.submit(command.clone())];
        lane.settle();
        assert!(
            tokens.iter().all(|token| lane.answer(*token).is_none()),
            "not before the write has completed: {command:?}"
        );
        lane.settle_queued();
        tokens.map(|token| lane.answer(token).expect("an answer"))
    };
    let created = twice(&mut lane, &Command::CreateDirect { user: user("ann"), peer: user("bob") });
    let [Ok(Done::Created { conversation, existing: false, .. }), Ok(Done::Created { existing: true, .. })] = created
    else {
        panic!("{created:?}")
    };
    let sent = twice(&mut lane, &send("ann", conversation, 1, "hello"));
    let [
        Ok(Done::Sent { sequence: Sequence(2), duplicate: false, .. }),
        Ok(Done::Sent { sequence: Sequence(2), duplicate: true, .. }),
    ] = sent
    else {
        panic!("{sent:?}")
    };
}
