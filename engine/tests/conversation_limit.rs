//! Nobody is a member of more conversations of a lane than the limit says, whatever is in memory, in segments or on its way; and nobody
//! is refused below it.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, Refusal},
    memory_files::MemoryRandom,
    seams::Random as _,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{SettingsChange, Who},
    ids::{ClientMessageId, ConversationId, UserId},
};
use support::{
    Lane,
    model::{Expected, Model},
    small_options, user,
};

const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];

fn options(conversations_per_user_max: usize) -> EngineOptions {
    EngineOptions { conversations_per_user_max, ..small_options() }
}

fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> ErrorCode {
    answer.expect_err("a refusal").code
}

fn direct(one: &str, other: &str) -> Command {
    Command::CreateDirect { user: user(one), peer: user(other) }
}

fn group(creator: &str, key: u8, members: &[&str]) -> Command {
    let members = members.iter().map(|name| user(name)).collect();
    Command::CreateGroup { user: user(creator), key: ClientMessageId([key; 16]), title: String::new(), members }
}

fn add(by: &str, conversation: ConversationId, name: &str) -> Command {
    Command::AddMembers { user: user(by), conversation, members: vec![user(name)] }
}

fn remove(by: &str, conversation: ConversationId, name: &str) -> Command {
    Command::RemoveMembers { user: user(by), conversation, members: vec![user(name)] }
}

/// Everything of it in memory; everything in segments; and after a start.
#[test]
fn whoever_has_enough_conversations_joins_no_more() {
    for flushed in [false, true] {
        for restarted in [false, true] {
            let mut lane = Lane::with_options(1, EngineOptions { memtable_age_ms_max: 1, ..options(3) });
            let groups: Vec<_> = (0..2).map(|key| lane.create_group("ann", key, &["bob"])).collect();
            lane.create_direct("ann", "cid");
            let other = lane.create_group("dan", 9, &[]);
            if flushed {
                lane.clock.set(1_000_010);
                lane.engine.tick();
                lane.settle_queued();
                assert!(lane.engine.status().memtable_bytes == 0 && lane.engine.status().segments > 0);
            }
            if restarted {
                lane.reopen();
            }
            for command in
                [direct("ann", "eve"), direct("eve", "ann"), group("ann", 7, &[]), group("eve", 7, &["cid", "ann"])]
            {
                assert_eq!(code(lane.ask(command)), ErrorCode::LimitReached);
            }
            assert_eq!(code(lane.ask(add("dan", other, "ann"))), ErrorCode::LimitReached);
            // What is there is found, and whoever is a member already is passed over.
            let Ok(Done::Created { existing: true, .. }) = lane.ask(direct("cid", "ann")) else { panic!() };
            let Ok(Done::Changed { .. }) = lane.ask(add("bob", groups[0], "ann")) else { panic!() };
            // Whoever leaves has room again, for one.
            lane.ask(remove("ann", groups[1], "ann")).expect("a member may leave");
            lane.ask(add("dan", other, "ann")).expect("there is room again");
            assert_eq!(code(lane.ask(add("bob", groups[1], "ann"))), ErrorCode::LimitReached);
        }
    }
}

/// Counted while all of it is on its way: who is kept out has room elsewhere, and is told of no limit where it may not come.
#[test]
fn who_is_kept_out_has_left() {
    let mut lane = Lane::with_options(1, EngineOptions { user_counts_max: 1, ..options(1) });
    let other = lane.create_group("dan", 9, &[]);
    lane.files.set_queued(true);
    let id = ConversationId::group(&user("ann"), ClientMessageId([1; 16]));
    let keep_out = Command::Ban { user: user("ann"), conversation: id, users: vec![user("bob")], on: true };
    let commands = [group("ann", 1, &["bob"]), keep_out, add("ann", id, "bob"), add("dan", other, "bob")];
    let tokens = commands.map(|command| lane.submit(command));
    lane.settle_queued();
    let codes = tokens.map(|token| lane.answer(token).expect("an answer").err().map(|refusal| refusal.code));
    assert_eq!(codes, [None, None, Some(ErrorCode::Forbidden), None]);
}

#[test]
fn who_may_not_add_is_told_no_limit() {
    let mut lane = Lane::with_options(1, options(1));
    lane.create_direct("bob", "cid");
    let id = lane.create_group("ann", 1, &["dan"]);
    let set = Some(SettingsChange { add: Some(Who::Admins), ..SettingsChange::default() });
    lane.ask(Command::Settings { user: user("ann"), conversation: id, set }).expect("the owner may");
    assert_eq!(code(lane.ask(add("dan", id, "bob"))), ErrorCode::Forbidden);
    assert_eq!(code(lane.ask(add("ann", id, "bob"))), ErrorCode::LimitReached);
}

#[test]
fn a_stranger_is_told_no_limit() {
    let mut lane = Lane::with_options(1, options(1));
    let group = lane.create_group("ann", 1, &[]);
    assert_eq!(code(lane.ask(add("bob", group, "ann"))), ErrorCode::NotFound);
    let direct = lane.create_direct("cid", "dan");
    assert_eq!(code(lane.ask(add("cid", direct, "ann"))), ErrorCode::Forbidden);
}

/// Commands on different conversations overtake each other where reads are slow: exactly as many get in as there is room for.
#[test]
fn commands_at_once_fill_the_room_and_no_more() {
    for seed in 0..60 {
        let mut lane = Lane::with_options(
            seed,
            EngineOptions { cache_bytes: 0, user_counts_max: 1, memtable_bytes: 3_000, ..options(5) },
        );
        lane.files.set_queued(true);
        lane.reads_last = seed % 2 == 1;
        for key in 0..3 {
            lane.create_group("ann", key, &["bob"]);
        }
        lane.reopen();
        lane.files.set_queued(true);
        let tokens: Vec<_> = (10..20).map(|key| lane.submit(group("ann", key, &["eve"]))).collect();
        lane.settle_queued();
        let (made, refused): (Vec<_>, Vec<_>) =
            tokens.into_iter().map(|token| lane.answer(token).expect("an answer")).partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (2, 8), "seed {seed}");
        assert!(refused.into_iter().all(|answer| code(answer) == ErrorCode::LimitReached), "seed {seed}");
    }
}

/// Whatever comes in whatever order, with restarts and power cuts: as the model says.
#[test]
fn the_limit_is_that_of_the_model() {
    for seed in 0..120 {
        let random = MemoryRandom::new(seed ^ 0x11);
        let user_counts_max = [1, 2, 1_000][seed as usize % 3];
        let limited = EngineOptions { user_counts_max, cache_bytes: 0, memtable_bytes: 6_000, ..options(4) };
        let mut lane = Lane::with_options(seed, limited);
        lane.files.set_queued(true);
        let mut model = Model { per_user_max: Some(4), ..Model::default() };
        let any = |random: &MemoryRandom| USERS[random.below(USERS.len() as u64) as usize];
        let mut refused = 0;
        for step in 0..150 {
            let known: Vec<_> = model.conversations.keys().copied().collect();
            let command = match (random.below(100), known.is_empty()) {
                (0..25, _) | (_, true) => direct(any(&random), any(&random)),
                (25..45, _) => {
                    let names: Vec<_> = (0..random.below(3)).map(|_| any(&random)).collect();
                    group(any(&random), random.below(3) as u8, &names)
                }
                (kind, _) => {
                    let (by, name) = (any(&random), any(&random));
                    let id = known[random.below(known.len() as u64) as usize];
                    if kind < 70 { add(by, id, name) } else { remove(by, id, name) }
                }
            };
            let expected = model.change(&command);
            refused += u32::from(expected == Expected::Refused(ErrorCode::LimitReached));
            let answer = lane.ask(command.clone());
            assert_eq!(Expected::of(&answer), expected, "seed {seed}, step {step}: {command:?}");
            match random.below(40) {
                0 => lane.reopen(),
                1 => lane.crash(random.next()),
                _ => continue,
            }
            lane.files.set_queued(true);
        }
        assert!(refused > 0, "seed {seed}: the limit was never met");
        let users: Vec<UserId> = USERS.iter().map(|name| user(name)).collect();
        assert!(users.iter().all(|user| model.joined(user) <= 4));
    }
}
