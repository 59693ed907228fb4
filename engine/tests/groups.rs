//! Groups: who may do what, who is in and who is kept out, and what becomes of it over restarts, dumps and rights that change.

mod support;

use antiphon_engine::door::{Command, Done, HistoryRange, Output};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, EntryKind, HistoryFrom, Role, RoleOf, Settings, SettingsChange, Who},
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
};
use support::{Lane, assert_sound, change, entry, send, user};

/// A group of the owner ann, the admins bob and cid, the members dan and eve, and the reader fay.
fn choir() -> (Lane, ConversationId) {
    let mut lane = Lane::new(1);
    let conversation = lane.create_group("ann", 1, &["bob", "cid", "dan", "eve", "fay"]);
    let roles = [("bob", Role::Admin), ("cid", Role::Admin), ("fay", Role::Reader)];
    set_roles(&mut lane, "ann", conversation, &roles).unwrap();
    (lane, conversation)
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn roles_of(roles: &[(&str, Role)]) -> Vec<RoleOf> {
    roles.iter().map(|(name, role)| RoleOf { user: user(name), role: *role }).collect()
}

fn set_roles(
    lane: &mut Lane,
    by: &str,
    conversation: ConversationId,
    roles: &[(&str, Role)],
) -> Result<Sequence, ErrorCode> {
    changed(lane, Command::SetRoles { user: user(by), conversation, roles: roles_of(roles) })
}

fn changed(lane: &mut Lane, command: Command) -> Result<Sequence, ErrorCode> {
    match lane.ask(command) {
        Ok(Done::Changed { sequence } | Done::Settings { sequence, .. } | Done::Sent { sequence, .. }) => Ok(sequence),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn add(by: &str, conversation: ConversationId, names: &[&str]) -> Command {
    Command::AddMembers { user: user(by), conversation, members: users(names) }
}

fn remove(by: &str, conversation: ConversationId, names: &[&str]) -> Command {
    Command::RemoveMembers { user: user(by), conversation, members: users(names) }
}

fn ban(by: &str, conversation: ConversationId, names: &[&str], on: bool) -> Command {
    Command::Ban { user: user(by), conversation, users: users(names), on }
}

fn settings(by: &str, conversation: ConversationId, set: SettingsChange) -> Command {
    Command::Settings { user: user(by), conversation, set: Some(set) }
}

/// Members and their roles, as one of them is told.
fn roles(lane: &mut Lane, by: &str, conversation: ConversationId) -> Vec<(String, Role)> {
    let command = Command::Members { user: user(by), conversation, after: None, limit: 200 };
    let Ok(Done::Members { members, .. }) = lane.ask(command) else { panic!("{by} is a member") };
    members.into_iter().map(|member| (member.user.to_string(), member.role)).collect()
}

fn settings_now(lane: &mut Lane, by: &str, conversation: ConversationId) -> (Settings, Role) {
    match lane.ask(Command::Settings { user: user(by), conversation, set: None }) {
        Ok(Done::Settings { settings, role, .. }) => (*settings, role),
        other => panic!("{other:?}"),
    }
}

fn banned(lane: &mut Lane, by: &str, conversation: ConversationId) -> Result<Vec<String>, ErrorCode> {
    match lane.ask(Command::Bans { user: user(by), conversation, after: None, limit: 200 }) {
        Ok(Done::Bans { users, more: false }) => Ok(users.iter().map(ToString::to_string).collect()),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

#[test]
fn who_may_do_what() {
    const ALL: [&str; 6] = ["ann", "bob", "cid", "dan", "eve", "fay"];
    let info = || SettingsChange { description: Some("we sing".into()), ..SettingsChange::default() };
    let rights = || SettingsChange { send: Some(Who::Admins), ..SettingsChange::default() };
    type Make = Box<dyn Fn(&str, ConversationId) -> Command>;
    let cases: Vec<(&str, Make, &[&str])> = vec![
        ("send", Box::new(|by, id| send(by, id, 900, "hi")), &["ann", "bob", "cid", "dan", "eve"]),
        ("add", Box::new(|by, id| add(by, id, &["gus"])), &["ann", "bob", "cid", "dan", "eve"]),
        ("remove a member", Box::new(|by, id| remove(by, id, &["eve"])), &["ann", "bob", "cid", "eve"]),
        ("remove an admin", Box::new(|by, id| remove(by, id, &["cid"])), &["ann", "bob", "cid"]),
        ("remove the owner", Box::new(|by, id| remove(by, id, &["ann"])), &["ann"]),
        ("remove some", Box::new(|by, id| remove(by, id, &["dan", "eve"])), &["ann", "bob", "cid"]),
        ("leave", Box::new(|by, id| remove(by, id, &[by])), &ALL),
        ("keep a member out", Box::new(|by, id| ban(by, id, &["gus"], true)), &["ann", "bob", "cid"]),
        ("keep an owner out", Box::new(|by, id| ban(by, id, &["ann"], true)), &[]),
        (
            "title",
            Box::new(|by, id| Command::SetTitle { user: user(by), conversation: id, title: "x".into() }),
            &["ann", "bob", "cid", "dan", "eve"],
        ),
        ("description", Box::new(move |by, id| settings(by, id, info())), &["ann", "bob", "cid", "dan", "eve"]),
        ("rights", Box::new(move |by, id| settings(by, id, rights())), &["ann", "bob", "cid"]),
        (
            "make a reader",
            Box::new(|by, id| Command::SetRoles {
                user: user(by),
                conversation: id,
                roles: roles_of(&[("dan", Role::Reader)]),
            }),
            &["ann", "bob", "cid"],
        ),
        (
            "make an admin",
            Box::new(|by, id| Command::SetRoles {
                user: user(by),
                conversation: id,
                roles: roles_of(&[("dan", Role::Admin)]),
            }),
            &["ann"],
        ),
        (
            "unmake an admin",
            Box::new(|by, id| Command::SetRoles {
                user: user(by),
                conversation: id,
                roles: roles_of(&[("cid", Role::Member)]),
            }),
            &["ann"],
        ),
        (
            "hand over",
            Box::new(|by, id| Command::SetRoles {
                user: user(by),
                conversation: id,
                roles: roles_of(&[("dan", Role::Owner)]),
            }),
            &["ann"],
        ),
        (
            "react",
            Box::new(|by, id| change(by, id, 901, Change::React { target: Sequence(3), text: "ok".into(), on: true })),
            &["ann", "bob", "cid", "dan", "eve"],
        ),
        (
            "pin",
            Box::new(|by, id| change(by, id, 902, Change::Pin { target: Sequence(3), on: true })),
            &["ann", "bob", "cid", "dan", "eve"],
        ),
        (
            "delete",
            Box::new(|by, id| change(by, id, 903, Change::Delete { target: Sequence(3) })),
            &["ann", "bob", "cid", "dan"],
        ),
        (
            "edit",
            Box::new(|by, id| change(by, id, 904, Change::Edit { target: Sequence(3), content: Content::text("y") })),
            &["dan"],
        ),
        ("retain", Box::new(|by, id| change(by, id, 905, Change::Retain { before: Sequence(3) })), &["ann"]),
    ];
    for (what, command, allowed) in &cases {
        for by in ALL {
            let (mut lane, id) = choir();
            assert_eq!(lane.sent("dan", id, 1, "of dan"), Sequence(3));
            let result = changed(&mut lane, command(by, id));
            let expected = if allowed.contains(&by) { None } else { Some(ErrorCode::Forbidden) };
            let expected =
                if (*what, by) == ("keep an owner out", "ann") { Some(ErrorCode::Invalid) } else { expected };
            assert_eq!(result.err(), expected, "{by}: {what}");
        }
        let (mut lane, id) = choir();
        assert_eq!(lane.ask(command("zoe", id)).unwrap_err().code, ErrorCode::NotFound, "a stranger: {what}");
    }
}

#[test]
fn rights_can_be_others() {
    let set = |rights: SettingsChange| {
        let (mut lane, id) = choir();
        changed(&mut lane, settings("ann", id, rights)).unwrap();
        (lane, id)
    };
    let who = Some(Who::Admins);
    for (rights, command) in [
        (SettingsChange { send: who, ..SettingsChange::default() }, send("dan", ConversationId([0; 16]), 900, "hi")),
        (SettingsChange { add: who, ..SettingsChange::default() }, add("dan", ConversationId([0; 16]), &["gus"])),
        (
            SettingsChange { info: who, ..SettingsChange::default() },
            Command::SetTitle { user: user("dan"), conversation: ConversationId([0; 16]), title: "x".into() },
        ),
        (
            SettingsChange { pin: who, ..SettingsChange::default() },
            change("dan", ConversationId([0; 16]), 901, Change::Pin { target: Sequence(4), on: true }),
        ),
    ] {
        let (mut lane, id) = set(rights.clone());
        lane.sent("bob", id, 1, "of an admin");
        assert_eq!(changed(&mut lane, of(command.clone(), id, "dan")).err(), Some(ErrorCode::Forbidden), "{rights:?}");
        assert!(changed(&mut lane, of(command, id, "bob")).is_ok(), "{rights:?}");
    }
    // Members may remove each other where they are let, but nobody above them.
    let (mut lane, id) = set(SettingsChange { remove: Some(Who::Members), ..SettingsChange::default() });
    assert!(changed(&mut lane, remove("dan", id, &["eve"])).is_ok());
    for (by, whom) in [("dan", "bob"), ("dan", "ann"), ("fay", "dan"), ("bob", "ann")] {
        assert_eq!(changed(&mut lane, remove(by, id, &[whom])), Err(ErrorCode::Forbidden), "{by} removes {whom}");
    }
}

/// The same command, in this conversation and by this user.
fn of(command: Command, conversation: ConversationId, by: &str) -> Command {
    let user = user(by);
    match command {
        Command::Send { client_message_id, body, .. } => Command::Send { user, conversation, client_message_id, body },
        Command::AddMembers { members, .. } => Command::AddMembers { user, conversation, members },
        Command::SetTitle { title, .. } => Command::SetTitle { user, conversation, title },
        Command::Change { client_message_id, change, .. } => {
            Command::Change { user, conversation, client_message_id, change }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_sent_while_it_was_allowed_is_answered_afterwards() {
    for flushes in [false, true] {
        let (mut lane, id) = choir();
        let sequence = lane.sent("dan", id, 7, "before");
        set_roles(&mut lane, "ann", id, &[("dan", Role::Reader)]).unwrap();
        if flushes {
            lane.clock.advance(10_000_000);
            lane.engine.tick();
            lane.settle();
            lane.reopen();
        }
        let again = lane.send("dan", id, 7, "before");
        assert!(
            matches!(again, Ok(Done::Sent { sequence: of, duplicate: true, .. }) if of == sequence),
            "flushed {flushes}: {again:?}"
        );
        assert_eq!(lane.send("dan", id, 8, "after").unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(lane.send("dan", id, 7, "another").unwrap_err().code, ErrorCode::Conflict);
    }
}

#[test]
fn a_group_whose_owner_goes_has_another() {
    let (mut lane, id) = choir();
    // First the admins in the order in which they came, then members; a reader is nobody's heir.
    for (leaves, heir) in
        [("ann", Some("bob")), ("bob", Some("cid")), ("cid", Some("dan")), ("dan", Some("eve")), ("eve", None)]
    {
        changed(&mut lane, remove(leaves, id, &[leaves])).unwrap();
        let now = roles(&mut lane, "fay", id);
        let owner = now.iter().find(|(_, role)| *role == Role::Owner).map(|(name, _)| name.as_str());
        assert_eq!(owner, heir, "after {leaves}");
    }
    assert_eq!(roles(&mut lane, "fay", id), [("fay".to_owned(), Role::Reader)]);
    assert_sound(&lane.files);
    // The creator comes again as anybody does.
    let (mut lane, id) = choir();
    changed(&mut lane, remove("ann", id, &["ann"])).unwrap();
    changed(&mut lane, add("bob", id, &["ann"])).unwrap();
    for reopened in [false, true] {
        let now = roles(&mut lane, "dan", id);
        assert_eq!(now[..2], [("ann".to_owned(), Role::Member), ("bob".to_owned(), Role::Owner)], "{reopened}");
        lane.reopen();
    }
}

#[test]
fn an_owner_hands_over_and_stays_an_admin() {
    let (mut lane, id) = choir();
    assert_eq!(set_roles(&mut lane, "ann", id, &[("ann", Role::Member)]), Err(ErrorCode::Invalid));
    let two = [("bob", Role::Owner), ("cid", Role::Owner)];
    assert_eq!(set_roles(&mut lane, "ann", id, &two), Err(ErrorCode::Invalid));
    set_roles(&mut lane, "ann", id, &[("dan", Role::Owner)]).unwrap();
    let now = roles(&mut lane, "dan", id);
    assert_eq!((now[0].1, now[3].1), (Role::Admin, Role::Owner));
    // Nothing changes by what is so already, nor by who is no member.
    let last = lane.history("dan", id, HistoryRange::Latest, 1).unwrap().last;
    assert_eq!(set_roles(&mut lane, "dan", id, &[("ann", Role::Admin), ("zoe", Role::Admin)]), Ok(last));
}

#[test]
fn who_is_kept_out_does_not_come_again_until_it_may() {
    let (mut lane, id) = choir();
    lane.outputs.clear();
    let at = changed(&mut lane, ban("bob", id, &["dan", "zoe"], true)).unwrap();
    let told = lane.outputs.iter().find_map(|output| match output {
        Output::Entry { sequence, recipients, removed, .. } if *sequence == at => {
            Some((recipients.len(), removed.clone()))
        }
        _ => None,
    });
    assert_eq!(told.map(|(recipients, removed)| (recipients, removed.to_vec())), Some((5, users(&["dan"]))));
    for names in [&["dan"][..], &["gus", "zoe"]] {
        assert_eq!(changed(&mut lane, add("ann", id, names)), Err(ErrorCode::Forbidden), "{names:?}");
    }
    for reopened in [false, true] {
        assert_eq!(banned(&mut lane, "cid", id).unwrap(), ["dan", "zoe"], "{reopened}");
        assert_eq!(banned(&mut lane, "eve", id), Err(ErrorCode::Forbidden));
        assert_eq!(lane.history("dan", id, HistoryRange::Latest, 1).unwrap_err().code, ErrorCode::NotFound);
        lane.reopen();
    }
    changed(&mut lane, ban("bob", id, &["dan"], false)).unwrap();
    changed(&mut lane, add("ann", id, &["dan"])).unwrap();
    assert_eq!(banned(&mut lane, "cid", id).unwrap(), ["zoe"]);
    assert_sound(&lane.files);
}

#[test]
fn new_members_see_the_history_that_the_group_lets_them() {
    let (mut lane, id) = choir();
    lane.sent("dan", id, 1, "before");
    changed(&mut lane, add("ann", id, &["gus"])).unwrap();
    let start = SettingsChange { history: Some(HistoryFrom::Start), ..SettingsChange::default() };
    changed(&mut lane, settings("ann", id, start)).unwrap();
    changed(&mut lane, add("ann", id, &["hal"])).unwrap();
    for reopened in [false, true] {
        assert_eq!(lane.whole_history("gus", id)[0].kind, EntryKind::Membership, "{reopened}");
        let of_hal = lane.whole_history("hal", id);
        assert_eq!((of_hal[0].kind, of_hal[0].sequence), (EntryKind::Created, Sequence(1)), "{reopened}");
        assert_eq!(of_hal.len() as u64, of_hal.last().unwrap().sequence.0);
        lane.clock.advance(10_000_000);
        lane.engine.tick();
        lane.settle();
        lane.reopen();
    }
    assert_sound(&lane.files);
}

#[test]
fn what_a_group_is_survives_restarts_and_dumps() {
    let (mut lane, id) = choir();
    let all = SettingsChange {
        description: Some("Tuesdays".into()),
        picture: Some("https://example.org/choir.png".into()),
        history: Some(HistoryFrom::Start),
        send: Some(Who::Admins),
        add: Some(Who::Admins),
        remove: Some(Who::Members),
        info: Some(Who::Admins),
        pin: Some(Who::Admins),
        everybody: Some(Who::Members),
    };
    changed(&mut lane, settings("ann", id, all.clone())).unwrap();
    changed(&mut lane, ban("bob", id, &["dan", "zoe"], true)).unwrap();
    changed(&mut lane, add("cid", id, &["gus"])).unwrap();
    let expected = (all.applied_to(&Settings::default()), Role::Reader);
    let members = roles(&mut lane, "fay", id);
    let check = |lane: &mut Lane, what: &str| {
        assert_eq!(settings_now(lane, "fay", id), expected, "{what}");
        assert_eq!(roles(lane, "fay", id), members, "{what}");
        assert_eq!(banned(lane, "bob", id).unwrap(), ["dan", "zoe"], "{what}");
    };
    lane.check_wherever_it_is(check);
}

#[test]
fn admins_who_remove_each_other_at_once_are_not_both_gone() {
    let (mut lane, id) = choir();
    let one = lane.submit(remove("bob", id, &["cid"]));
    let other = lane.submit(remove("cid", id, &["bob"]));
    lane.settle();
    assert!(lane.answer(one).unwrap().is_ok());
    assert_eq!(lane.answer(other).unwrap().unwrap_err().code, ErrorCode::NotFound);
    let names: Vec<String> = roles(&mut lane, "ann", id).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ann", "bob", "dan", "eve", "fay"]);
}

#[test]
fn a_conversation_of_two_has_no_roles_and_no_settings() {
    let mut lane = Lane::new(1);
    let id = lane.create_direct("ann", "bob");
    for command in [
        Command::SetRoles { user: user("ann"), conversation: id, roles: roles_of(&[("bob", Role::Reader)]) },
        settings("ann", id, SettingsChange { send: Some(Who::Admins), ..SettingsChange::default() }),
        ban("ann", id, &["bob"], true),
    ] {
        assert_eq!(changed(&mut lane, command), Err(ErrorCode::Forbidden));
    }
    assert_eq!(settings_now(&mut lane, "bob", id), (Settings::default(), Role::Member));
    let text = lane.whole_history("ann", id).len();
    assert_eq!(text, 1);
    let key = ClientMessageId([9; 16]);
    let pinned = Command::Change {
        user: user("bob"),
        conversation: id,
        client_message_id: key,
        change: Change::Pin { target: Sequence(2), on: true },
    };
    lane.sent("ann", id, 1, "hi");
    assert!(changed(&mut lane, pinned).is_ok());
    assert_eq!(entry(&lane.history("bob", id, HistoryRange::Latest, 1).unwrap().entries[0]).kind, EntryKind::Pin);
}
