//! An entry's JSON form: the archive's fields, and the body's own fields beside them.

//!
//! Invariants: an archive that [`crate::validate`] let pass has a JSON form, and that form read again is the same archive.

use rkyv::string::ArchivedString;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de,
    ser::{self, SerializeStruct},
};

use crate::{
    frame::{
        AccountChange, ArchivedConversationStart, ArchivedEntryKind, ArchivedMembershipChange, Bans, Change,
        ChangeView, Content, ConversationStart, Entry, EntryBytes, EntryKind, InviteChange, Joined, JsonText,
        MembershipChange, RoleOf, Settings, roles_from_body, roles_to_body, view_body, view_change, view_entry,
    },
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
    json::content::{self, with_content},
};

with_content! {
    /// An entry as JSON has it, to be read. `kind` tells which of the optional fields are there.
    struct JsonEntry<'a> {
        conversation: ConversationId,
        epoch: Epoch,
        sequence: Sequence,
        ordinal: Ordinal,
        time_ms: TimestampMs,
        sender: UserId,
        kind: JsonKind,
        #[serde(default)]
        client_message_id: Option<ClientMessageId>,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        direct: Option<bool>,
        #[serde(default)]
        members: Option<Vec<UserId>>,
        #[serde(default)]
        added: Option<Vec<UserId>>,
        #[serde(default)]
        removed: Option<Vec<UserId>>,
        #[serde(default)]
        target: Option<Sequence>,
        #[serde(default)]
        reaction: Option<String>,
        #[serde(default)]
        on: Option<bool>,
        #[serde(default)]
        before: Option<Sequence>,
        #[serde(default)]
        messages: Option<Ordinal>,
        #[serde(default)]
        roles: Option<Vec<RoleOf>>,
        #[serde(default)]
        settings: Option<Settings>,
        #[serde(default)]
        banned: Option<Vec<UserId>>,
        #[serde(default)]
        unbanned: Option<Vec<UserId>>,
        #[serde(default)]
        change: Option<InviteChange>,
        #[serde(default)]
        invite: Option<Sequence>,
        #[serde(default)]
        key: Option<String>,
        #[serde(default)]
        value: Option<JsonText>,
    }
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum JsonKind {
    Message,
    Membership,
    Title,
    Created,
    Edit,
    Deletion,
    Reaction,
    Pin,
    Retention,
    Roles,
    Settings,
    Bans,
    Invite,
    Joined,
    AccountData,
    /// Of a later version.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Serialize for EntryBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ArchiveAsJson(&self.0).serialize(serializer)
    }
}

/// An entry's archive that serializes as its JSON form, read in place: nothing but the output is allocated.
pub(crate) struct ArchiveAsJson<'a>(pub(crate) &'a [u8]);

impl Serialize for ArchiveAsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = view_entry(self.0).map_err(ser::Error::custom)?;
        let body = entry.body.as_slice();
        let mut json = serializer.serialize_struct("Entry", 8 + content::FIELDS_MAX)?;
        json.serialize_field("conversation", &ConversationId(entry.conversation.0))?;
        json.serialize_field("epoch", &entry.epoch.0.to_native())?;
        json.serialize_field("sequence", &entry.sequence.0.to_native())?;
        json.serialize_field("ordinal", &entry.ordinal.0.to_native())?;
        json.serialize_field("time_ms", &entry.time_ms.0.to_native())?;
        json.serialize_field("sender", entry.sender.as_str())?;
        match &entry.kind {
            ArchivedEntryKind::Message => {
                json.serialize_field("kind", &JsonKind::Message)?;
                json.serialize_field("client_message_id", &ClientMessageId(entry.client_message_id.0))?;
                // One whose content was taken away has no text.
                if !body.is_empty() {
                    content::put(body, &mut json)?;
                }
            }
            ArchivedEntryKind::Membership => {
                let change = view_body::<ArchivedMembershipChange>(body).map_err(ser::Error::custom)?;
                json.serialize_field("kind", &JsonKind::Membership)?;
                json.serialize_field("added", &Names(&change.added))?;
                json.serialize_field("removed", &Names(&change.removed))?;
            }
            ArchivedEntryKind::Title => {
                json.serialize_field("kind", &JsonKind::Title)?;
                json.serialize_field("title", std::str::from_utf8(body).map_err(ser::Error::custom)?)?;
            }
            ArchivedEntryKind::Created => {
                let start = view_body::<ArchivedConversationStart>(body).map_err(ser::Error::custom)?;
                json.serialize_field("kind", &JsonKind::Created)?;
                json.serialize_field("direct", &start.direct)?;
                json.serialize_field("title", start.title.as_str())?;
                json.serialize_field("members", &Names(&start.members))?;
            }
            ArchivedEntryKind::Roles => {
                json.serialize_field("kind", &JsonKind::Roles)?;
                json.serialize_field("roles", &roles_from_body(body).map_err(ser::Error::custom)?)?;
            }
            ArchivedEntryKind::Settings => {
                json.serialize_field("kind", &JsonKind::Settings)?;
                json.serialize_field("settings", &Settings::from_body(body).map_err(ser::Error::custom)?)?;
            }
            ArchivedEntryKind::Bans => {
                let bans = Bans::from_body(body).map_err(ser::Error::custom)?;
                let users: Vec<&UserId> = bans.users.iter().map(|(user, _)| user).collect();
                json.serialize_field("kind", &JsonKind::Bans)?;
                json.serialize_field(if bans.on { "banned" } else { "unbanned" }, &users)?;
                if bans.on {
                    json.serialize_field("removed", &bans.removed().collect::<Vec<_>>())?;
                }
            }
            ArchivedEntryKind::Invite => {
                json.serialize_field("kind", &JsonKind::Invite)?;
                json.serialize_field("change", &InviteChange::from_body(body).map_err(ser::Error::custom)?)?;
            }
            ArchivedEntryKind::Joined => {
                let joined = Joined::from_body(body).map_err(ser::Error::custom)?;
                json.serialize_field("kind", &JsonKind::Joined)?;
                json.serialize_field("invite", &joined.invite)?;
                json.serialize_field("added", &[joined.user])?;
            }
            ArchivedEntryKind::AccountData => {
                let change = AccountChange::from_body(body).map_err(ser::Error::custom)?;
                json.serialize_field("kind", &JsonKind::AccountData)?;
                json.serialize_field("key", &change.key)?;
                if let Some(value) = change.value {
                    json.serialize_field("value", &value)?;
                }
            }
            kind => {
                let id = ClientMessageId(entry.client_message_id.0);
                change_fields(&mut json, EntryKind::from(kind), id, body)?;
            }
        }
        json.end()
    }
}

/// The fields of an entry that changes a message.
fn change_fields<S: SerializeStruct>(
    json: &mut S,
    kind: EntryKind,
    id: ClientMessageId,
    body: &[u8],
) -> Result<(), S::Error> {
    let change = view_change(kind, body).map_err(ser::Error::custom)?;
    let name = match change {
        ChangeView::Edit { .. } => JsonKind::Edit,
        ChangeView::Delete { .. } => JsonKind::Deletion,
        ChangeView::React { .. } => JsonKind::Reaction,
        ChangeView::Pin { .. } => JsonKind::Pin,
        ChangeView::Retain { .. } => JsonKind::Retention,
    };
    json.serialize_field("kind", &name)?;
    json.serialize_field("client_message_id", &id)?;
    match change {
        ChangeView::Edit { target, content } => {
            json.serialize_field("target", &target)?;
            if let Some(content) = content {
                content::put(content, json)?;
            }
        }
        ChangeView::Delete { target } => json.serialize_field("target", &target)?,
        ChangeView::React { target, text, on } => {
            json.serialize_field("target", &target)?;
            json.serialize_field("reaction", text)?;
            json.serialize_field("on", &on)?;
        }
        ChangeView::Pin { target, on } => {
            json.serialize_field("target", &target)?;
            json.serialize_field("on", &on)?;
        }
        ChangeView::Retain { before, messages } => {
            json.serialize_field("before", &before)?;
            json.serialize_field("messages", &messages)?;
        }
    }
    Ok(())
}

impl JsonEntry<'_> {
    /// The body of an entry about who is kept out; an error names what is wrong.
    fn bans_body<E: de::Error>(&self) -> Result<Vec<u8>, E> {
        let (on, users) = match (&self.banned, &self.unbanned) {
            (Some(users), None) => (true, users),
            (None, Some(users)) => (false, users),
            _ => return Err(E::custom("needs exactly one of banned and unbanned")),
        };
        let removed = self.removed.as_deref().unwrap_or_default();
        let users = users.iter().map(|user| (user.clone(), removed.contains(user))).collect();
        let body = Bans { on, users }.to_body();
        Bans::from_body(&body).map_err(E::custom)?;
        Ok(body)
    }

    /// The body of an entry that changes a message; an error names the field that is missing.
    fn change_body<E: de::Error>(&self) -> Result<(EntryKind, Vec<u8>), E> {
        let missing = |field| move || E::missing_field(field);
        let target = || self.target.ok_or_else(missing("target"));
        let on = || self.on.ok_or_else(missing("on"));
        let change = match self.kind {
            JsonKind::Edit => {
                let content = self.parts().content()?.unwrap_or_else(|| Content(Vec::new()));
                Change::Edit { target: target()?, content }
            }
            JsonKind::Deletion => Change::Delete { target: target()? },
            JsonKind::Reaction => {
                let text = self.reaction.clone().ok_or_else(missing("reaction"))?;
                Change::React { target: target()?, text, on: on()? }
            }
            JsonKind::Pin => Change::Pin { target: target()?, on: on()? },
            JsonKind::Retention => Change::Retain { before: self.before.ok_or_else(missing("before"))? },
            JsonKind::Message
            | JsonKind::Membership
            | JsonKind::Title
            | JsonKind::Created
            | JsonKind::Roles
            | JsonKind::Settings
            | JsonKind::Bans
            | JsonKind::Invite
            | JsonKind::Joined
            | JsonKind::AccountData
            | JsonKind::Unknown => {
                return Err(E::custom("not a change of a message"));
            }
        };
        let body = change.to_body(self.messages.unwrap_or_default());
        view_change(change.kind(), &body).map_err(E::custom)?;
        Ok((change.kind(), body))
    }
}

/// Archived user ids as a list of text.
struct Names<'a>(&'a [ArchivedString]);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ArchivedString::as_str))
    }
}

impl<'de> Deserialize<'de> for EntryBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = JsonEntry::deserialize(deserializer)?;
        let missing = |field| move || de::Error::missing_field(field);
        let (kind, body) = match json.kind {
            JsonKind::Message => match json.parts().content()? {
                Some(content) => {
                    content.view().map_err(de::Error::custom)?;
                    (EntryKind::Message, content.0)
                }
                None => (EntryKind::Message, Vec::new()),
            },
            JsonKind::Membership => {
                let (added, removed) = (json.added.unwrap_or_default(), json.removed.unwrap_or_default());
                (EntryKind::Membership, MembershipChange { added, removed }.to_body())
            }
            JsonKind::Title => (EntryKind::Title, json.title.ok_or_else(missing("title"))?.into_bytes()),
            JsonKind::Created => {
                let start = ConversationStart {
                    direct: json.direct.ok_or_else(missing("direct"))?,
                    title: json.title.unwrap_or_default(),
                    members: json.members.ok_or_else(missing("members"))?,
                };
                (EntryKind::Created, start.to_body())
            }
            JsonKind::Roles => {
                let body = roles_to_body(json.roles.as_deref().ok_or_else(missing("roles"))?);
                roles_from_body(&body).map_err(de::Error::custom)?;
                (EntryKind::Roles, body)
            }
            JsonKind::Settings => {
                let body = json.settings.as_ref().ok_or_else(missing("settings"))?.to_body();
                Settings::from_body(&body).map_err(de::Error::custom)?;
                (EntryKind::Settings, body)
            }
            JsonKind::Bans => (EntryKind::Bans, json.bans_body()?),
            JsonKind::Invite => {
                let body = json.change.as_ref().ok_or_else(missing("change"))?.to_body();
                InviteChange::from_body(&body).map_err(de::Error::custom)?;
                (EntryKind::Invite, body)
            }
            JsonKind::Joined => {
                let Some([user]) = json.added.as_deref() else { return Err(de::Error::custom("one user joins")) };
                let invite = json.invite.ok_or_else(missing("invite"))?;
                let body = Joined { invite, user: user.clone() }.to_body();
                Joined::from_body(&body).map_err(de::Error::custom)?;
                (EntryKind::Joined, body)
            }
            JsonKind::AccountData => {
                let key = json.key.ok_or_else(missing("key"))?;
                let body = AccountChange { key, value: json.value }.to_body();
                AccountChange::from_body(&body).map_err(de::Error::custom)?;
                (EntryKind::AccountData, body)
            }
            // It has its place, and says nothing that is understood here.
            JsonKind::Unknown => (EntryKind::Membership, MembershipChange::default().to_body()),
            _ => json.change_body()?,
        };
        let entry = Entry {
            conversation: json.conversation,
            epoch: json.epoch,
            sequence: json.sequence,
            ordinal: json.ordinal,
            time_ms: json.time_ms,
            kind,
            client_message_id: json.client_message_id.unwrap_or(ClientMessageId([0; 16])),
            sender: json.sender,
            body,
        };
        Ok(Self(entry.to_archive().to_vec()))
    }
}
