//! What can be checked of a frame without knowing anything but the frame: limits, exclusive fields, nested bytes.
//!
//! Both encodings pass every decoded frame through here, so a frame means the same however it came. Invariants: a request that
//! passed is within every limit of [`crate::limits`], and every sequence of a frame that passed can be counted on from without
//! overflow. Must not do: look at anything outside the frame.

use crate::{
    codec::DecodeError,
    codes::ErrorCode,
    frame::{
        AccountAction, AccountAnswer, AccountChange, Bans, BansAction, Connect, ConversationStart, Create,
        DevicesAction, EntryBytes, EntryError, EntryKind, History, InviteChange, InvitesAction, Joined, JsonText,
        MakeInvite, MembersAction, MembershipChange, Request, RolesAction, ServerFrame, SetAccount, Settings,
        check_reaction, is_account_key, is_event_name, misfit, roles_from_body, view_change, view_content, view_entry,
    },
    ids::{RequestId, Sequence, UserId},
    limits::{
        ACCOUNT_KEY_BYTES_MAX, ACCOUNT_VALUE_BYTES_MAX, CLIENT_NAME_BYTES_MAX, DESCRIPTION_BYTES_MAX,
        DEVICE_NAME_BYTES_MAX, DEVICES_MAX, EVENT_DATA_BYTES_MAX, EVENT_NAME_BYTES_MAX, INVITE_EXPIRES_IN_S_MAX,
        INVITES_PER_GROUP_MAX, JSON_INTEGER_MAX, MEMBERS_PER_REQUEST_MAX, PAGE_ITEMS_MAX, PICTURE_BYTES_MAX,
        POSITION_BYTES_MAX, PRESENCE_PER_REQUEST_MAX, RESUME_KNOWN_MAX, TITLE_BYTES_MAX, TOKEN_BYTES_MAX,
    },
};

/// Longest explanation in a [`DecodeError`]: it may quote what a client sent.
const TEXT_BYTES_MAX: usize = 200;

/// A [`DecodeError`] whose request is not known yet.
#[derive(Debug)]
pub(crate) struct Problem {
    code: ErrorCode,
    text: String,
}

impl Problem {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        Self { code, text }
    }

    /// The problem of the request with that id.
    pub(crate) fn of(self, id: Option<RequestId>) -> DecodeError {
        DecodeError { id, code: self.code, text: self.text }
    }
}

/// Checks a request. A page's length is cut to the longest.
pub(crate) fn request(request: &mut Request) -> Result<(), Problem> {
    match request {
        Request::Connect(frame) => connect(frame),
        Request::Ping(_) => Ok(()),
        Request::Create(Create::Direct(_)) => Ok(()),
        Request::Create(Create::Group(group)) => {
            longest("title", group.title.len(), TITLE_BYTES_MAX)?;
            longest("members", group.members.len(), MEMBERS_PER_REQUEST_MAX)
        }
        Request::Members(frame) => match &mut frame.action {
            MembersAction::Add(users) => named("add", users),
            MembersAction::Remove(users) => named("remove", users),
            MembersAction::List(list) => page(&mut list.limit),
        },
        Request::Conversations(frame) => page(&mut frame.limit),
        Request::Title(frame) => longest("title", frame.title.len(), TITLE_BYTES_MAX),
        Request::Send(frame) => frame.content.view().map(|_| ()).map_err(|error| entry_problem("content", error)),
        Request::History(frame) => history(frame),
        Request::Read(frame) => sequence("sequence", frame.sequence),
        Request::Delivered(frame) => sequence("sequence", frame.sequence),
        Request::Edit(frame) => {
            entry_at("target", frame.target)?;
            let view = frame.content.view().map_err(|error| entry_problem("content", error))?;
            if view.refers() {
                let text = "an edit keeps what the message answers, its thread and where it was forwarded from";
                return Err(Problem::new(ErrorCode::Invalid, text));
            }
            Ok(())
        }
        Request::Delete(frame) => entry_at("target", frame.target),
        Request::React(frame) => {
            entry_at("target", frame.target)?;
            check_reaction(&frame.reaction).map_err(|error| entry_problem("reaction", error))
        }
        Request::Pin(frame) => entry_at("target", frame.target),
        Request::Retain(frame) => entry_at("before", frame.before),
        Request::Reactions(frame) => {
            entry_at("target", frame.target)?;
            page(&mut frame.limit)
        }
        Request::Pins(_) => Ok(()),
        Request::Roles(frame) => match &mut frame.action {
            RolesAction::Set(roles) => {
                roles.sort_by(|one, other| one.user.cmp(&other.user));
                if roles.windows(2).any(|pair| pair[0].user == pair[1].user) {
                    return Err(Problem::new(ErrorCode::Invalid, "set names a user twice"));
                }
                some("set", roles.len())
            }
            RolesAction::List(list) => page(&mut list.limit),
        },
        Request::Settings(frame) => frame.set.as_ref().map_or(Ok(()), |set| {
            longest("set.description", set.description.as_ref().map_or(0, String::len), DESCRIPTION_BYTES_MAX)?;
            longest("set.picture", set.picture.as_ref().map_or(0, String::len), PICTURE_BYTES_MAX)
        }),
        Request::Bans(frame) => match &mut frame.action {
            BansAction::Add(users) => named("add", users),
            BansAction::Remove(users) => named("remove", users),
            BansAction::List(list) => page(&mut list.limit),
        },
        Request::Event(frame) => event(&frame.event, frame.data.as_ref()),
        Request::Refresh(frame) => longest("token", frame.token.len(), TOKEN_BYTES_MAX),
        Request::Invites(frame) => match &mut frame.action {
            InvitesAction::Make(make) => make_invite(make),
            InvitesAction::Revoke(invites) => revoke(invites),
            InvitesAction::List(list) => {
                sequence("after", list.after.unwrap_or_default())?;
                page(&mut list.limit)
            }
        },
        Request::Join(_) | Request::View(_) => Ok(()),
        Request::Account(frame) => match &mut frame.action {
            AccountAction::Set(set) => set_account(set),
            AccountAction::List(list) => {
                longest("after", list.after.as_ref().map_or(0, String::len), ACCOUNT_KEY_BYTES_MAX)?;
                page(&mut list.limit)
            }
        },
        Request::Devices(frame) => devices(&mut frame.action),
        Request::Presence(frame) => {
            longest("watch", frame.watch.len(), PRESENCE_PER_REQUEST_MAX)?;
            longest("unwatch", frame.unwatch.len(), PRESENCE_PER_REQUEST_MAX)
        }
    }
}

fn make_invite(make: &MakeInvite) -> Result<(), Problem> {
    if make.uses == Some(0) || make.expires_in_s == Some(0) {
        return Err(Problem::new(ErrorCode::Invalid, "uses and expires_in_s are at least 1, or left out"));
    }
    longest("expires_in_s", make.expires_in_s.unwrap_or_default() as usize, INVITE_EXPIRES_IN_S_MAX as usize)
}

fn revoke(invites: &mut Vec<Sequence>) -> Result<(), Problem> {
    longest("revoke", invites.len(), INVITES_PER_GROUP_MAX)?;
    if invites.is_empty() {
        return Err(Problem::new(ErrorCode::Invalid, "revoke must name an invite"));
    }
    invites.sort_unstable();
    invites.dedup();
    invites.iter().try_for_each(|invite| entry_at("revoke", *invite))
}

fn devices(action: &mut DevicesAction) -> Result<(), Problem> {
    match action {
        DevicesAction::List(_) | DevicesAction::RevokeAll(_) => Ok(()),
        DevicesAction::Name(name) if name.chars().any(char::is_control) => {
            Err(Problem::new(ErrorCode::Invalid, "name has a control character"))
        }
        DevicesAction::Name(name) => longest("name", name.len(), DEVICE_NAME_BYTES_MAX),
        DevicesAction::Revoke(devices) => {
            longest("revoke", devices.len(), DEVICES_MAX)?;
            devices.sort_unstable();
            devices.dedup();
            if devices.is_empty() {
                return Err(Problem::new(ErrorCode::Invalid, "revoke must name a device"));
            }
            Ok(())
        }
    }
}

fn set_account(set: &mut SetAccount) -> Result<(), Problem> {
    set.value.take_if(|value| value.0 == "null");
    if !is_account_key(&set.key) {
        let text = format!("key is not 1 to {ACCOUNT_KEY_BYTES_MAX} visible ASCII characters");
        return Err(Problem::new(ErrorCode::Invalid, text));
    }
    json_text("value", set.value.as_ref(), ACCOUNT_VALUE_BYTES_MAX)?;
    if let Some(text) = misfit(&set.key, set.value.as_ref()) {
        return Err(Problem::new(ErrorCode::Invalid, text));
    }
    sequence("if_sequence", set.if_sequence.unwrap_or_default())
}

/// One JSON value, in the binary form too.
fn json_text(field: &str, text: Option<&JsonText>, length_max: usize) -> Result<(), Problem> {
    longest(field, text.map_or(0, |text| text.0.len()), length_max)?;
    match text {
        Some(text) if text.value().is_none() => {
            Err(Problem::new(ErrorCode::Invalid, format!("{field} is not one JSON value")))
        }
        _ => Ok(()),
    }
}

fn event(name: &str, data: Option<&JsonText>) -> Result<(), Problem> {
    if !is_event_name(name) {
        let text = format!("event is not 1 to {EVENT_NAME_BYTES_MAX} visible ASCII characters");
        return Err(Problem::new(ErrorCode::Invalid, text));
    }
    json_text("data", data, EVENT_DATA_BYTES_MAX)
}

/// Checks a server's frame: its sequences, and entries down to their bodies.
pub(crate) fn server(frame: &ServerFrame) -> Result<(), Problem> {
    match frame {
        ServerFrame::Message(bytes) | ServerFrame::Mentioned(bytes) => entry(bytes),
        ServerFrame::HistoryAnswer(frame) => {
            sequence("first", frame.first)?;
            sequence("last", frame.last)?;
            frame.entries.iter().try_for_each(entry)
        }
        ServerFrame::ConversationsAnswer(frame) => frame.conversations.iter().try_for_each(|summary| {
            sequence("last_sequence", summary.last_sequence)?;
            sequence("read", summary.read)?;
            summary.last.as_ref().map_or(Ok(()), entry)
        }),
        ServerFrame::MembersAnswer(frame) => {
            sequence("sequence", frame.sequence.unwrap_or_default())?;
            frame.members.iter().flatten().try_for_each(|member| {
                sequence("read", member.read)?;
                sequence("delivered", member.delivered)
            })
        }
        ServerFrame::Created(frame) => sequence("sequence", frame.sequence),
        ServerFrame::TitleAnswer(frame) => sequence("sequence", frame.sequence),
        ServerFrame::Ack(frame) => sequence("sequence", frame.sequence),
        ServerFrame::Left(frame) => sequence("sequence", frame.sequence),
        ServerFrame::ViewAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::DevicesAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::Advanced(frame) => sequence("sequence", frame.sequence),
        ServerFrame::ReadAnswer(frame) | ServerFrame::DeliveredAnswer(frame) => {
            sequence("read", frame.read)?;
            sequence("delivered", frame.delivered)
        }
        ServerFrame::Receipt(frame) => {
            sequence("read", frame.read)?;
            sequence("delivered", frame.delivered)
        }
        ServerFrame::Event(frame) => event(&frame.event, frame.data.as_ref()),
        ServerFrame::InvitesAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::JoinAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::AccountAnswer(frame) => account_answer(frame),
        ServerFrame::TooFar(frame) => {
            sequence("first", frame.first)?;
            sequence("last", frame.last)
        }
        ServerFrame::EditAnswer(frame)
        | ServerFrame::DeleteAnswer(frame)
        | ServerFrame::ReactAnswer(frame)
        | ServerFrame::PinAnswer(frame)
        | ServerFrame::RetainAnswer(frame) => sequence("sequence", frame.sequence),
        ServerFrame::RolesAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::BansAnswer(frame) => sequence("sequence", frame.sequence.unwrap_or_default()),
        ServerFrame::SettingsAnswer(frame) => sequence("sequence", frame.sequence),
        ServerFrame::PinsAnswer(frame) => frame.pins.iter().try_for_each(|pin| sequence("pins", *pin)),
        ServerFrame::States(frame) => {
            sequence("as_of", frame.as_of)?;
            frame.states.iter().try_for_each(|state| {
                sequence("states.sequence", state.sequence)?;
                state.edited.as_ref().map_or(Ok(()), |edited| sequence("states.edited.sequence", edited.sequence))
            })
        }
        ServerFrame::ReactionsAnswer(_)
        | ServerFrame::EventAnswer(_)
        | ServerFrame::RefreshAnswer(_)
        | ServerFrame::Expiring(_)
        | ServerFrame::PresenceAnswer(_)
        | ServerFrame::Present(_)
        | ServerFrame::Welcome(_)
        | ServerFrame::Pong(_)
        | ServerFrame::Error(_)
        | ServerFrame::CaughtUp(_)
        | ServerFrame::Goodbye(_) => Ok(()),
    }
}

fn account_answer(frame: &AccountAnswer) -> Result<(), Problem> {
    sequence("sequence", frame.sequence)?;
    sequence("replaced", frame.replaced.unwrap_or_default())?;
    frame.items.iter().flatten().try_for_each(|item| {
        sequence("items.sequence", item.sequence)?;
        json_text("items.value", Some(&item.value), ACCOUNT_VALUE_BYTES_MAX)
    })
}

fn connect(frame: &Connect) -> Result<(), Problem> {
    longest("token", frame.token.as_ref().map_or(0, String::len), TOKEN_BYTES_MAX)?;
    if let Some(client) = &frame.client {
        longest("client.name", client.name.len(), CLIENT_NAME_BYTES_MAX)?;
        longest("client.version", client.version.len(), CLIENT_NAME_BYTES_MAX)?;
    }
    let Some(resume) = &frame.resume else { return Ok(()) };
    // What a position says is for the node to judge: one that it can't read resumes nothing, which is no mistake of the client's.
    longest("resume.position", resume.position.0.len(), POSITION_BYTES_MAX)?;
    longest("resume.known", resume.known.len(), RESUME_KNOWN_MAX)?;
    resume.known.iter().try_for_each(|known| sequence("resume.known.sequence", known.sequence))
}

fn history(frame: &mut History) -> Result<(), Problem> {
    page(&mut frame.limit)?;
    let anchors = [frame.before, frame.after, frame.around];
    if anchors.iter().flatten().count() > 1 {
        return Err(Problem::new(ErrorCode::Invalid, "at most one of before, after and around"));
    }
    anchors.into_iter().flatten().try_for_each(|anchor| sequence("before, after or around", anchor))
}

fn named(field: &str, users: &[UserId]) -> Result<(), Problem> {
    some(field, users.len())
}

fn some(field: &str, users: usize) -> Result<(), Problem> {
    if users == 0 {
        return Err(Problem::new(ErrorCode::Invalid, format!("{field} must name a user")));
    }
    longest(field, users, MEMBERS_PER_REQUEST_MAX)
}

fn longest(field: &str, length: usize, length_max: usize) -> Result<(), Problem> {
    if length <= length_max {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::TooLarge, format!("{field} has a length of {length}, beyond {length_max}")))
}

fn page(limit: &mut Option<u32>) -> Result<(), Problem> {
    if *limit == Some(0) {
        return Err(Problem::new(ErrorCode::Invalid, "limit must be at least 1"));
    }
    *limit = limit.map(|limit| limit.min(PAGE_ITEMS_MAX));
    Ok(())
}

fn sequence(field: &str, sequence: Sequence) -> Result<(), Problem> {
    if sequence.0 <= JSON_INTEGER_MAX {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::Invalid, format!("{field} is beyond {JSON_INTEGER_MAX}")))
}

/// A sequence that an entry can have.
fn entry_at(field: &str, of: Sequence) -> Result<(), Problem> {
    if of == Sequence(0) {
        return Err(Problem::new(ErrorCode::Invalid, format!("{field} must be at least 1")));
    }
    sequence(field, of)
}

fn entry(bytes: &EntryBytes) -> Result<(), Problem> {
    let entry = view_entry(&bytes.0).map_err(|error| entry_problem("entry", error))?;
    sequence("entry.sequence", Sequence(entry.sequence.0.to_native()))?;
    if let Err(error) = UserId::new(&entry.sender) {
        return Err(Problem::new(ErrorCode::Invalid, format!("entry.sender {error}")));
    }
    let body = entry.body.as_slice();
    match EntryKind::from(&entry.kind) {
        // Its content was taken away.
        EntryKind::Message if body.is_empty() => Ok(()),
        EntryKind::Message => view_content(body).map(|_| ()),
        EntryKind::Membership => MembershipChange::from_body(body).map(|_| ()),
        EntryKind::Title => std::str::from_utf8(body).map(|_| ()).map_err(|_| EntryError::Text),
        EntryKind::Created => ConversationStart::from_body(body).map(|_| ()),
        EntryKind::Roles => roles_from_body(body).map(|_| ()),
        EntryKind::Settings => Settings::from_body(body).map(|_| ()),
        EntryKind::Bans => Bans::from_body(body).map(|_| ()),
        EntryKind::Invite => InviteChange::from_body(body).map(|_| ()),
        EntryKind::Joined => Joined::from_body(body).map(|_| ()),
        EntryKind::AccountData => AccountChange::from_body(body).map(|_| ()),
        kind => view_change(kind, body).map(|_| ()),
    }
    .map_err(|error| entry_problem("entry.body", error))
}

fn entry_problem(field: &str, error: EntryError) -> Problem {
    let code = match error {
        EntryError::Archive | EntryError::Text | EntryError::Change | EntryError::Group | EntryError::Account => {
            ErrorCode::Malformed
        }
        EntryError::UnknownContent | EntryError::Content | EntryError::Json | EntryError::Empty => ErrorCode::Invalid,
        EntryError::TooLong | EntryError::TooManyMentions | EntryError::ReactionTooLong => ErrorCode::TooLarge,
    };
    Problem::new(code, format!("{field}: {error}"))
}
