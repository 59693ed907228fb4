//! What a client's request asks of the engine, and the frame that its answer is made into.
//!
//! Must not do: know of sessions or shards.

use antiphon_engine::door::{self, Command, Done, HistoryRange, Refusal};
use antiphon_wire::{
    frame::{
        Account, AccountAction, AccountAnswer, Ack, AskBans, AskSettings, BansAction, BansAnswer, Change,
        ConversationsAnswer, Create, Created, EntryBytes, ErrorFrame, EventSent, HistoryAnswer, Invites, InvitesAction,
        InvitesAnswer, Join, Marked, Member, MembersAction, MembersAnswer, PinsAnswer, ReactionsAnswer, Request, Roles,
        RolesAction, RolesAnswer, SERVER_KEYS, SendEvent, ServerFrame, SettingsAnswer, Summary, TitleAnswer,
        ViewAnswer,
    },
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
    limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX},
};

/// What the answer to a request is made into.
pub(super) enum RequestKind {
    Create,
    Members,
    Title,
    Send,
    History(ConversationId),
    Read,
    Delivered,
    Conversations,
    Edit,
    Delete,
    React,
    Pin,
    Retain,
    Reactions,
    Pins,
    Roles,
    Settings,
    Bans,
    Invites,
    Join,
    /// Of this account; of whom, if something is set in it that has a meaning for the server.
    Account(ConversationId, Option<UserId>),
    Event,
    View(ConversationId),
    Devices,
}

/// The engine's command for a request, and what its answer will be made into.
pub(super) fn command(user: UserId, request: Request) -> (RequestKind, Command) {
    match request {
        Request::Create(Create::Direct(peer)) => (RequestKind::Create, Command::CreateDirect { user, peer }),
        Request::Create(Create::Group(group)) => {
            let (key, title, members) = (group.key, group.title, group.members);
            (RequestKind::Create, Command::CreateGroup { user, key, title, members })
        }
        Request::Members(members) => {
            let conversation = members.conversation;
            let command = match members.action {
                MembersAction::Add(members) => Command::AddMembers { user, conversation, members },
                MembersAction::Remove(members) => Command::RemoveMembers { user, conversation, members },
                MembersAction::List(list) => {
                    Command::Members { user, conversation, after: list.after, limit: limit_of(list.limit) }
                }
            };
            (RequestKind::Members, command)
        }
        Request::Conversations(list) => (
            RequestKind::Conversations,
            Command::Conversations { user, after: list.after, limit: limit_of(list.limit) },
        ),
        Request::Title(title) => {
            (RequestKind::Title, Command::SetTitle { user, conversation: title.conversation, title: title.title })
        }
        Request::Send(send) => {
            let (conversation, client_message_id, body) = (send.conversation, send.client_message_id, send.content.0);
            (RequestKind::Send, Command::Send { user, conversation, client_message_id, body })
        }
        Request::History(history) => {
            let range = match (history.before, history.after, history.around) {
                (Some(sequence), ..) => HistoryRange::Before(sequence),
                (None, Some(sequence), _) => HistoryRange::After(sequence),
                (None, None, Some(sequence)) => HistoryRange::Around(sequence),
                (None, None, None) => HistoryRange::Latest,
            };
            let conversation = history.conversation;
            let command = Command::History { user, conversation, range, limit: limit_of(history.limit) };
            (RequestKind::History(conversation), command)
        }
        Request::Read(read) => (RequestKind::Read, mark(user, read.conversation, Some(read.sequence), None)),
        Request::Delivered(delivered) => {
            (RequestKind::Delivered, mark(user, delivered.conversation, None, Some(delivered.sequence)))
        }
        Request::Edit(edit) => {
            let change = Change::Edit { target: edit.target, content: edit.content };
            (RequestKind::Edit, change_of(user, edit.conversation, edit.client_message_id, change))
        }
        Request::Delete(delete) => {
            let change = Change::Delete { target: delete.target };
            (RequestKind::Delete, change_of(user, delete.conversation, delete.client_message_id, change))
        }
        Request::React(react) => {
            let change = Change::React { target: react.target, text: react.reaction, on: react.on };
            (RequestKind::React, change_of(user, react.conversation, react.client_message_id, change))
        }
        Request::Pin(pin) => {
            let change = Change::Pin { target: pin.target, on: pin.on };
            (RequestKind::Pin, change_of(user, pin.conversation, pin.client_message_id, change))
        }
        Request::Retain(retain) => {
            let change = Change::Retain { before: retain.before };
            (RequestKind::Retain, change_of(user, retain.conversation, retain.client_message_id, change))
        }
        Request::Reactions(list) => {
            let (conversation, target, after) = (list.conversation, list.target, list.after);
            let command = Command::Reactions { user, conversation, target, after, limit: limit_of(list.limit) };
            (RequestKind::Reactions, command)
        }
        Request::Pins(pins) => (RequestKind::Pins, Command::Pins { user, conversation: pins.conversation }),
        Request::Roles(Roles { conversation, action }) => {
            let command = match action {
                RolesAction::Set(roles) => Command::SetRoles { user, conversation, roles },
                RolesAction::List(list) => {
                    Command::Roles { user, conversation, after: list.after, limit: limit_of(list.limit) }
                }
            };
            (RequestKind::Roles, command)
        }
        Request::Settings(AskSettings { conversation, set }) => {
            (RequestKind::Settings, Command::Settings { user, conversation, set })
        }
        Request::Bans(AskBans { conversation, action }) => {
            let command = match action {
                BansAction::Add(users) => Command::Ban { user, conversation, users, on: true },
                BansAction::Remove(users) => Command::Ban { user, conversation, users, on: false },
                BansAction::List(list) => {
                    Command::Bans { user, conversation, after: list.after, limit: limit_of(list.limit) }
                }
            };
            (RequestKind::Bans, command)
        }
        Request::Invites(Invites { conversation, action }) => {
            let command = match action {
                InvitesAction::Make(make) => Command::MakeInvite { user, conversation, make },
                InvitesAction::Revoke(invites) => Command::RevokeInvites { user, conversation, invites },
                InvitesAction::List(list) => {
                    Command::Invites { user, conversation, after: list.after, limit: limit_of(list.limit) }
                }
            };
            (RequestKind::Invites, command)
        }
        Request::Join(Join { code, look }) => (RequestKind::Join, Command::Join { user, code, look }),
        Request::Account(Account { action }) => {
            let account = ConversationId::account(&user);
            let ruled = match &action {
                AccountAction::Set(set) if set.key.starts_with(SERVER_KEYS) => Some(user.clone()),
                AccountAction::Set(_) | AccountAction::List(_) => None,
            };
            let command = match action {
                AccountAction::Set(set) => Command::SetAccount { user, set },
                AccountAction::List(list) => Command::Account { user, after: list.after, limit: limit_of(list.limit) },
            };
            (RequestKind::Account(account, ruled), command)
        }
        Request::Event(SendEvent { conversation, event, data }) => {
            (RequestKind::Event, Command::Tell { user, conversation, event, data: data.map(|data| data.0) })
        }
        Request::Connect(_)
        | Request::Ping(_)
        | Request::Refresh(_)
        | Request::Presence(_)
        | Request::View(_)
        | Request::Devices(_) => {
            unreachable!("a session or a lane answers these itself")
        }
    }
}

fn change_of(
    user: UserId,
    conversation: ConversationId,
    client_message_id: ClientMessageId,
    change: Change,
) -> Command {
    Command::Change { user, conversation, client_message_id, change }
}

fn mark(user: UserId, conversation: ConversationId, read: Option<Sequence>, delivered: Option<Sequence>) -> Command {
    Command::Mark { user, conversation, read, delivered }
}

fn limit_of(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE_ITEMS_DEFAULT).clamp(1, PAGE_ITEMS_MAX)
}

pub(super) fn error_frame(refusal: Refusal) -> ServerFrame {
    let retry_after_ms = refusal.code.temporary().then_some(1_000);
    ServerFrame::Error(ErrorFrame { code: refusal.code, text: refusal.text, retry_after_ms })
}

pub(super) fn answer_frame(kind: &RequestKind, done: Done) -> ServerFrame {
    match (kind, done) {
        (RequestKind::Create, Done::Created { conversation, epoch, sequence, existing }) => {
            ServerFrame::Created(Created { conversation, epoch, sequence, existing })
        }
        (RequestKind::Members, Done::Changed { sequence }) => {
            ServerFrame::MembersAnswer(MembersAnswer { sequence: Some(sequence), members: None, next: None })
        }
        (RequestKind::Members, Done::Members { members, more }) => {
            let next = members.last().filter(|_| more).map(|last| last.user.clone());
            let member = |member: door::Member| {
                let door::Member { user, role, read, delivered, .. } = member;
                Member { user, role, read, delivered }
            };
            let members = Some(members.into_iter().map(member).collect());
            ServerFrame::MembersAnswer(MembersAnswer { sequence: None, members, next })
        }
        (RequestKind::Title, Done::Changed { sequence }) => ServerFrame::TitleAnswer(TitleAnswer { sequence }),
        (RequestKind::Send, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::Ack(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::Edit, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::EditAnswer(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::Delete, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::DeleteAnswer(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::React, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::ReactAnswer(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::Pin, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::PinAnswer(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::Retain, Done::Sent { sequence, ordinal, time, duplicate }) => {
            ServerFrame::RetainAnswer(Ack { sequence, ordinal, time_ms: time, duplicate })
        }
        (RequestKind::Reactions, Done::Reactions { reactions, more }) => {
            let next = reactions.last().filter(|_| more).map(|last| last.user.clone());
            ServerFrame::ReactionsAnswer(ReactionsAnswer { reactions, next })
        }
        (RequestKind::Invites, Done::Changed { sequence }) => {
            ServerFrame::InvitesAnswer(InvitesAnswer { sequence: Some(sequence), ..InvitesAnswer::default() })
        }
        (RequestKind::Invites, Done::Invited { sequence, code }) => ServerFrame::InvitesAnswer(InvitesAnswer {
            sequence: Some(sequence),
            code: Some(code),
            ..InvitesAnswer::default()
        }),
        (RequestKind::Invites, Done::Invites { invites, more }) => {
            let next = invites.last().filter(|_| more).map(|last| last.invite);
            ServerFrame::InvitesAnswer(InvitesAnswer { invites: Some(invites), next, ..InvitesAnswer::default() })
        }
        (RequestKind::Join, Done::Join(told)) => ServerFrame::JoinAnswer(*told),
        (&RequestKind::Account(conversation, _), Done::AccountSet { epoch, sequence, replaced }) => {
            let (items, next) = (None, None);
            ServerFrame::AccountAnswer(AccountAnswer { conversation, epoch, sequence, replaced, items, next })
        }
        (&RequestKind::Account(conversation, _), Done::AccountItems { epoch, sequence, items, more }) => {
            let (replaced, next) = (None, items.last().filter(|_| more).map(|last| last.key.clone()));
            let items = Some(items);
            ServerFrame::AccountAnswer(AccountAnswer { conversation, epoch, sequence, replaced, items, next })
        }
        (RequestKind::View(_), Done::History(page)) => {
            ServerFrame::ViewAnswer(ViewAnswer { sequence: Some(page.last) })
        }
        (RequestKind::Event, Done::Told) => ServerFrame::EventAnswer(EventSent {}),
        (RequestKind::Pins, Done::Pins(pins)) => ServerFrame::PinsAnswer(PinsAnswer { pins }),
        (RequestKind::Roles, Done::Changed { sequence }) => {
            ServerFrame::RolesAnswer(RolesAnswer { sequence: Some(sequence), roles: None, next: None })
        }
        (RequestKind::Roles, Done::Roles { roles, more }) => {
            let next = roles.last().filter(|_| more).map(|last| last.user.clone());
            ServerFrame::RolesAnswer(RolesAnswer { sequence: None, roles: Some(roles), next })
        }
        (RequestKind::Settings, Done::Settings { sequence, settings, role }) => {
            ServerFrame::SettingsAnswer(SettingsAnswer { sequence, settings: *settings, role })
        }
        (RequestKind::Bans, Done::Changed { sequence }) => {
            ServerFrame::BansAnswer(BansAnswer { sequence: Some(sequence), users: None, next: None })
        }
        (RequestKind::Bans, Done::Bans { users, more }) => {
            let next = users.last().filter(|_| more).cloned();
            ServerFrame::BansAnswer(BansAnswer { sequence: None, users: Some(users), next })
        }
        (RequestKind::History(conversation), Done::History(page)) => ServerFrame::HistoryAnswer(HistoryAnswer {
            conversation: *conversation,
            epoch: page.epoch,
            first: page.first,
            last: page.last,
            entries: page.entries.iter().map(|archive| EntryBytes(archive.to_vec())).collect(),
        }),
        (RequestKind::Read, Done::Marked { read, delivered, unread }) => {
            ServerFrame::ReadAnswer(Marked { read, delivered, unread })
        }
        (RequestKind::Delivered, Done::Marked { read, delivered, unread }) => {
            ServerFrame::DeliveredAnswer(Marked { read, delivered, unread })
        }
        (RequestKind::Conversations, Done::Conversations { conversations, more }) => {
            let next = conversations.last().filter(|_| more).map(|last| last.conversation);
            let conversations = conversations.into_iter().map(summary).collect();
            ServerFrame::ConversationsAnswer(ConversationsAnswer { conversations, next })
        }
        (_, done) => unreachable!("the engine answered another command: {done:?}"),
    }
}

fn summary(summary: door::Summary) -> Summary {
    Summary {
        conversation: summary.conversation,
        epoch: summary.epoch,
        direct: summary.peer,
        title: summary.title,
        picture: summary.picture,
        role: summary.role,
        last_sequence: summary.last_sequence,
        last_time_ms: summary.last_time,
        members: summary.members,
        read: summary.read,
        unread: summary.unread,
        last: summary.last_entry.map(|archive| EntryBytes(archive.to_vec())),
    }
}
