//! Invites: who makes them, who joins by them, and when they are none any more.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryRange},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{HistoryFrom, Invite, InviteCode, JoinAnswer, MakeInvite, Role, RoleOf, SettingsChange, Who},
    ids::{ConversationId, Sequence, TimestampMs, UserId},
    limits::{GROUP_MEMBERS_MAX, INVITES_PER_GROUP_MAX},
};
use support::{Lane, small_options, user};

/// A group of the owner ann, the member bob and the reader cid.
fn choir() -> (Lane, ConversationId) {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob", "cid"]);
    set_role(&mut lane, id, "cid", Role::Reader);
    (lane, id)
}

fn set_role(lane: &mut Lane, conversation: ConversationId, name: &str, role: Role) {
    let roles = vec![RoleOf { user: user(name), role }];
    lane.ask(Command::SetRoles { user: user("ann"), conversation, roles }).unwrap();
}

fn set(lane: &mut Lane, conversation: ConversationId, set: SettingsChange) {
    lane.ask(Command::Settings { user: user("ann"), conversation, set: Some(set) }).unwrap();
}

fn make(lane: &mut Lane, by: &str, id: ConversationId, make: MakeInvite) -> Result<(Sequence, InviteCode), ErrorCode> {
    match lane.ask(Command::MakeInvite { user: user(by), conversation: id, make }) {
        Ok(Done::Invited { sequence, code }) => Ok((sequence, code)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn open(lane: &mut Lane, by: &str, id: ConversationId) -> (Sequence, InviteCode) {
    make(lane, by, id, MakeInvite::default()).unwrap()
}

fn revoke(
    lane: &mut Lane,
    by: &str,
    conversation: ConversationId,
    invites: &[Sequence],
) -> Result<Sequence, ErrorCode> {
    match lane.ask(Command::RevokeInvites { user: user(by), conversation, invites: invites.to_vec() }) {
        Ok(Done::Changed { sequence }) => Ok(sequence),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn list(lane: &mut Lane, by: &str, conversation: ConversationId) -> Result<Vec<Invite>, ErrorCode> {
    match lane.ask(Command::Invites { user: user(by), conversation, after: None, limit: 200 }) {
        Ok(Done::Invites { invites, more: false }) => Ok(invites),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn ask(lane: &mut Lane, name: &str, code: InviteCode, look: bool) -> Result<JoinAnswer, ErrorCode> {
    match lane.ask(Command::Join { user: user(name), code, look }) {
        Ok(Done::Join(told)) => Ok(*told),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn join(lane: &mut Lane, name: &str, code: InviteCode) -> Result<u64, ErrorCode> {
    ask(lane, name, code, false).map(|told| told.sequence.expect("a member sees where").0)
}

fn remove(lane: &mut Lane, conversation: ConversationId, name: &str) {
    lane.ask(Command::RemoveMembers { user: user("ann"), conversation, members: vec![user(name)] }).unwrap();
}

#[test]
fn who_has_a_code_joins() {
    let (mut lane, id) = choir();
    let description = Some("We sing".to_owned());
    set(&mut lane, id, SettingsChange { description, ..SettingsChange::default() });
    let (made, code) = open(&mut lane, "bob", id);
    assert_eq!(made, Sequence(4));
    let looked = ask(&mut lane, "zoe", code, true).unwrap();
    assert_eq!((looked.conversation, looked.members, looked.sequence), (id, 3, None));
    assert_eq!((looked.title.as_str(), looked.description.as_str()), ("group", "We sing"));
    assert_eq!(join(&mut lane, "zoe", code), Ok(5));
    // Once more is the same, whatever became of the invite; a look tells that one is there.
    revoke(&mut lane, "ann", id, &[made]).unwrap();
    assert_eq!(join(&mut lane, "zoe", code), Ok(6));
    assert_eq!(ask(&mut lane, "zoe", code, true).unwrap().sequence, Some(Sequence(6)));
    let seen = lane.whole_history("zoe", id);
    assert_eq!(seen[0].sequence, Sequence(5), "from joining on");
    // Neither the log nor what is told of it has what one joins by.
    let all = lane.whole_history("ann", id);
    let holds = |archive: &[u8]| archive.windows(16).any(|bytes| bytes == code.secret);
    assert!(all.iter().all(|entry| !holds(&entry.to_archive())));
    let files = lane.files.names().into_iter().map(|name| lane.files.contents(&name).unwrap());
    assert!(files.into_iter().all(|contents| !holds(&contents)));
}

#[test]
fn an_invite_is_none_where_it_is_not_good() {
    let (mut lane, id) = choir();
    let (made, code) = open(&mut lane, "bob", id);
    let other = lane.create_group("ann", 2, &[]);
    let (_, of_other) = open(&mut lane, "ann", other);
    let forged = InviteCode { secret: of_other.secret, ..code };
    let none = InviteCode { conversation: ConversationId([7; 16]), ..code };
    for (code, what) in [(forged, "another group's secret"), (none, "no such group")] {
        for look in [true, false] {
            assert_eq!(ask(&mut lane, "zoe", code, look), Err(ErrorCode::NotFound), "{what}");
        }
    }
    let refused = |lane: &mut Lane, name: &str, what: &str| {
        for look in [true, false] {
            assert_eq!(ask(lane, name, code, look), Err(ErrorCode::NotFound), "{what}");
        }
    };
    lane.ask(Command::Ban { user: user("ann"), conversation: id, users: vec![user("mal")], on: true }).unwrap();
    refused(&mut lane, "mal", "who is kept out");
    // It is as good as who made it.
    set_role(&mut lane, id, "bob", Role::Reader);
    refused(&mut lane, "zoe", "its maker only reads");
    set_role(&mut lane, id, "bob", Role::Member);
    set(&mut lane, id, SettingsChange { add: Some(Who::Admins), ..SettingsChange::default() });
    refused(&mut lane, "zoe", "its maker may add nobody");
    set(&mut lane, id, SettingsChange { add: Some(Who::Members), ..SettingsChange::default() });
    remove(&mut lane, id, "bob");
    refused(&mut lane, "zoe", "its maker went");
    lane.ask(Command::AddMembers { user: user("ann"), conversation: id, members: vec![user("bob")] }).unwrap();
    assert!(join(&mut lane, "zoe", code).is_ok(), "its maker is there again");
    remove(&mut lane, id, "zoe");
    assert!(join(&mut lane, "zoe", code).is_ok(), "who was removed is not kept out");
    remove(&mut lane, id, "zoe");
    revoke(&mut lane, "ann", id, &[made]).unwrap();
    refused(&mut lane, "zoe", "revoked");
}

#[test]
fn uses_run_out_and_time_passes() {
    let (mut lane, id) = choir();
    let two = MakeInvite { uses: Some(2), expires_in_s: None };
    let (_, code) = make(&mut lane, "ann", id, two).unwrap();
    // Three who ask at once are two.
    let asked = ["dan", "eve", "fay"].map(|name| lane.submit(Command::Join { user: user(name), code, look: false }));
    lane.settle_queued();
    let answers = asked.map(|token| lane.answer(token).unwrap().map(|_| ()).map_err(|refusal| refusal.code));
    assert_eq!(answers, [Ok(()), Ok(()), Err(ErrorCode::NotFound)]);
    let hour = MakeInvite { uses: Some(9), expires_in_s: Some(3_600) };
    let (made, code) = make(&mut lane, "ann", id, hour).unwrap();
    let ends = TimestampMs(lane.clock_ms() + 3_600_000);
    let expected = Invite { invite: made, user: user("ann"), expires_ms: Some(ends), uses: Some(8) };
    lane.clock.advance(3_599_999);
    assert!(join(&mut lane, "gus", code).is_ok());
    assert_eq!(list(&mut lane, "ann", id), Ok(vec![expected]));
    lane.clock.advance(1);
    assert_eq!(join(&mut lane, "hal", code), Err(ErrorCode::NotFound));
    assert_eq!(list(&mut lane, "ann", id), Ok(vec![]));
}

#[test]
fn who_may_make_list_and_revoke() {
    let (mut lane, id) = choir();
    let (of_ann, _) = open(&mut lane, "ann", id);
    for (name, code) in [("cid", ErrorCode::Forbidden), ("zoe", ErrorCode::NotFound)] {
        assert_eq!(make(&mut lane, name, id, MakeInvite::default()), Err(code));
        assert_eq!(list(&mut lane, name, id), Err(code));
        assert_eq!(revoke(&mut lane, name, id, &[of_ann]), Err(code));
    }
    let (of_bob, _) = open(&mut lane, "bob", id);
    let (second, _) = open(&mut lane, "bob", id);
    set(&mut lane, id, SettingsChange { add: Some(Who::Admins), ..SettingsChange::default() });
    assert_eq!(list(&mut lane, "bob", id), Err(ErrorCode::Forbidden));
    assert_eq!(revoke(&mut lane, "bob", id, &[of_ann, of_bob]), Err(ErrorCode::Forbidden));
    let last = revoke(&mut lane, "bob", id, &[of_bob]).unwrap();
    // One that is gone, or never was, changes nothing.
    assert_eq!(revoke(&mut lane, "ann", id, &[of_bob, Sequence(1_000)]), Ok(last));
    let listed = |lane: &mut Lane| list(lane, "ann", id).unwrap().iter().map(|of| of.invite).collect::<Vec<_>>();
    assert_eq!(listed(&mut lane), [of_ann, second]);
    let page = Command::Invites { user: user("ann"), conversation: id, after: None, limit: 1 };
    assert!(matches!(lane.ask(page), Ok(Done::Invites { invites, more: true }) if invites[0].invite == of_ann));
    let direct = lane.create_direct("ann", "bob");
    assert_eq!(make(&mut lane, "ann", direct, MakeInvite::default()), Err(ErrorCode::Forbidden));
    assert_eq!(list(&mut lane, "ann", direct), Err(ErrorCode::Forbidden));
}

#[test]
fn there_are_so_many_and_those_that_are_over_make_room() {
    let (mut lane, id) = choir();
    let minute = MakeInvite { uses: None, expires_in_s: Some(60) };
    let (first, _) = make(&mut lane, "ann", id, minute).unwrap();
    for _ in 1..INVITES_PER_GROUP_MAX {
        open(&mut lane, "ann", id);
    }
    assert_eq!(make(&mut lane, "ann", id, MakeInvite::default()), Err(ErrorCode::LimitReached));
    lane.clock.advance(60_000);
    let (made, code) = open(&mut lane, "ann", id);
    assert_eq!(made.0, first.0 + INVITES_PER_GROUP_MAX as u64 + 1, "behind the one that revokes what is over");
    assert!(join(&mut lane, "zoe", code).is_ok());
    assert_eq!(list(&mut lane, "ann", id).unwrap().len(), INVITES_PER_GROUP_MAX);
    assert_eq!(make(&mut lane, "ann", id, MakeInvite::default()), Err(ErrorCode::LimitReached));
}

#[test]
fn nobody_joins_beyond_the_limits() {
    let mut lane = Lane::with_options(1, EngineOptions { conversations_per_user_max: 1, ..small_options() });
    let id = lane.create_group("ann", 1, &[]);
    let (_, code) = open(&mut lane, "ann", id);
    lane.create_group("zoe", 2, &[]);
    assert_eq!(join(&mut lane, "zoe", code), Err(ErrorCode::LimitReached));
    // In order, and more at a time than a client may: in a group this large each change of who is in it takes long.
    let members: Vec<UserId> = (1..GROUP_MEMBERS_MAX).map(|number| user(&format!("user-{number:06}"))).collect();
    for members in members.chunks(500) {
        let (user, members) = (user("ann"), members.to_vec());
        lane.ask(Command::AddMembers { user, conversation: id, members }).unwrap();
    }
    assert_eq!(join(&mut lane, "gus", code), Err(ErrorCode::LimitReached));
    remove(&mut lane, id, "user-000001");
    assert!(join(&mut lane, "gus", code).is_ok());
    let another = Command::CreateDirect { user: user("gus"), peer: user("hal") };
    assert_eq!(lane.ask(another).unwrap_err().code, ErrorCode::LimitReached, "who joined is counted");
}

#[test]
fn invites_survive_restarts_dumps_and_repairs() {
    let (mut lane, id) = choir();
    set(&mut lane, id, SettingsChange { history: Some(HistoryFrom::Start), ..SettingsChange::default() });
    let (_, once) = make(&mut lane, "ann", id, MakeInvite { uses: Some(1), expires_in_s: None }).unwrap();
    let (_, thrice) = make(&mut lane, "bob", id, MakeInvite { uses: Some(3), expires_in_s: None }).unwrap();
    let (gone, revoked) = open(&mut lane, "ann", id);
    join(&mut lane, "dan", once).unwrap();
    join(&mut lane, "eve", thrice).unwrap();
    revoke(&mut lane, "ann", id, &[gone]).unwrap();
    let expected = list(&mut lane, "ann", id).unwrap();
    assert_eq!(expected.iter().map(|of| of.uses).collect::<Vec<_>>(), [Some(2)]);
    let seen = lane.whole_history("eve", id).len();
    let check = |lane: &mut Lane, what: &str| {
        assert_eq!(list(lane, "ann", id).unwrap(), expected, "{what}");
        assert_eq!(lane.whole_history("eve", id).len(), seen, "{what}");
        for code in [once, revoked] {
            assert_eq!(join(lane, "zoe", code), Err(ErrorCode::NotFound), "{what}");
        }
        assert!(ask(lane, "zoe", thrice, true).is_ok(), "{what}");
    };
    lane.check_wherever_it_is(check);
}

/// What comes behind a change waits for it: an invite that is being revoked lets nobody in, and a look shows what is durable.
#[test]
fn what_comes_behind_a_change_waits_for_it() {
    let (mut lane, id) = choir();
    let (made, code) = open(&mut lane, "ann", id);
    lane.submit(Command::SetTitle { user: user("ann"), conversation: id, title: "Singers".into() });
    let looks = lane.submit(Command::Join { user: user("zoe"), code, look: true });
    lane.drain();
    assert!(lane.answer(looks).is_none());
    lane.settle_queued();
    assert!(matches!(lane.answer(looks), Some(Ok(Done::Join(told))) if told.title == "Singers"));
    lane.submit(Command::RevokeInvites { user: user("ann"), conversation: id, invites: vec![made] });
    let looks = lane.submit(Command::Join { user: user("zoe"), code, look: true });
    let joins = lane.submit(Command::Join { user: user("zoe"), code, look: false });
    lane.settle_queued();
    for token in [looks, joins] {
        assert_eq!(lane.answer(token).unwrap().unwrap_err().code, ErrorCode::NotFound);
    }
    let page = lane.history("ann", id, HistoryRange::Latest, 10).unwrap();
    assert_eq!(page.as_of, Sequence(5));
}
