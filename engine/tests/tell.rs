//! What is told for the moment: to whom, by whom, and that nothing of it stays.

mod support;

use antiphon_engine::door::{Command, Done, Output};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Role, RoleOf},
    ids::ConversationId,
};
use support::{Lane, user};

fn tell(from: &str, conversation: ConversationId, event: &str) -> Command {
    let data = Some("{\"on\":true}".to_owned());
    Command::Tell { user: user(from), conversation, event: event.to_owned(), data }
}

fn remove(by: &str, conversation: ConversationId, name: &str) -> Command {
    Command::RemoveMembers { user: user(by), conversation, members: vec![user(name)] }
}

/// Who was told of what by whom.
fn told(lane: &Lane) -> Vec<(String, String, Vec<String>)> {
    let told = lane.outputs.iter().filter_map(|output| match output {
        Output::Told { user, event, recipients, data, .. } => {
            assert_eq!(data.as_deref(), Some("{\"on\":true}"));
            let recipients = recipients.iter().map(ToString::to_string).collect();
            Some((user.to_string(), event.clone(), recipients))
        }
        _ => None,
    });
    told.collect()
}

#[test]
fn members_are_told_and_nothing_stays() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob", "cid"]);
    lane.sent("ann", id, 1, "before");
    let files: Vec<_> = lane.files.names().into_iter().map(|name| lane.files.contents(&name)).collect();
    for event in ["typing", "cursor"] {
        assert!(matches!(lane.ask(tell("bob", id, event)), Ok(Done::Told)));
    }
    let all = ["ann", "bob", "cid"].map(str::to_owned).to_vec();
    let by_bob = |event: &str| ("bob".to_owned(), event.to_owned(), all.clone());
    assert_eq!(told(&lane), [by_bob("typing"), by_bob("cursor")]);
    let after: Vec<_> = lane.files.names().into_iter().map(|name| lane.files.contents(&name)).collect();
    assert!(files == after, "nothing was written");
    lane.reopen();
    assert_eq!(lane.whole_history("ann", id).len(), 2);
}

#[test]
fn who_may_not_tell_is_refused() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob", "cid"]);
    let roles = vec![RoleOf { user: user("bob"), role: Role::Reader }];
    lane.ask(Command::SetRoles { user: user("ann"), conversation: id, roles }).unwrap();
    lane.ask(remove("ann", id, "cid")).unwrap();
    for (from, code) in [("bob", ErrorCode::Forbidden), ("cid", ErrorCode::NotFound), ("zoe", ErrorCode::NotFound)] {
        assert_eq!(lane.ask(tell(from, id, "typing")).unwrap_err().code, code, "{from}");
    }
    let direct = lane.create_direct("cid", "bob");
    assert!(matches!(lane.ask(tell("bob", direct, "typing")), Ok(Done::Told)));
    assert_eq!(told(&lane).len(), 1);
}

/// The members that count are those who are durable: who goes at the same time is told nothing, and tells nothing.
#[test]
fn what_comes_behind_a_removal_waits_for_it() {
    let mut lane = Lane::new(1);
    let id = lane.create_group("ann", 1, &["bob", "cid"]);
    let removal = lane.submit(remove("ann", id, "cid"));
    let of_bob = lane.submit(tell("bob", id, "typing"));
    let of_cid = lane.submit(tell("cid", id, "typing"));
    lane.drain();
    assert!(lane.answer(of_bob).is_none() && lane.answer(of_cid).is_none());
    lane.settle_queued();
    assert!(lane.answer(removal).unwrap().is_ok() && lane.answer(of_bob).unwrap().is_ok());
    assert_eq!(lane.answer(of_cid).unwrap().unwrap_err().code, ErrorCode::NotFound);
    let [(_, _, recipients)] = &told(&lane)[..] else { panic!("one was told") };
    assert_eq!(recipients, &["ann", "bob"]);
}
