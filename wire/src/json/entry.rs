//! An entry's JSON form: the archive's fields, and the body's own fields beside them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::{
    frame::{Content, ContentView, ConversationStart, Entry, EntryBytes, EntryKind, MembershipChange, view_content},
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
};

/// An entry as JSON shows it. `kind` tells which of the optional fields are there.
#[derive(Serialize, Deserialize)]
struct JsonEntry<'a> {
    conversation: ConversationId,
    epoch: Epoch,
    sequence: Sequence,
    ordinal: Ordinal,
    time_ms: TimestampMs,
    sender: UserId,
    kind: JsonKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_message_id: Option<ClientMessageId>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direct: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    members: Option<Vec<UserId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<Vec<UserId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<Vec<UserId>>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum JsonKind {
    Message,
    Membership,
    Title,
    Created,
}

impl Serialize for EntryBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_entry(&self.0, serializer)
    }
}

/// Serializes an entry's archive.
pub(crate) fn serialize_entry<S: Serializer>(archive: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let entry = rkyv::from_bytes::<Entry, rkyv::rancor::Error>(archive).map_err(ser::Error::custom)?;
    let mut json = JsonEntry {
        conversation: entry.conversation,
        epoch: entry.epoch,
        sequence: entry.sequence,
        ordinal: entry.ordinal,
        time_ms: entry.time_ms,
        sender: entry.sender,
        kind: JsonKind::Message,
        client_message_id: None,
        text: None,
        title: None,
        direct: None,
        members: None,
        added: None,
        removed: None,
    };
    match entry.kind {
        EntryKind::Message => {
            json.client_message_id = Some(entry.client_message_id);
            let ContentView::Text(text) = view_content(&entry.body).map_err(ser::Error::custom)?;
            json.text = Some(text.into());
            return json.serialize(serializer);
        }
        EntryKind::Membership => {
            let change = MembershipChange::from_body(&entry.body).map_err(ser::Error::custom)?;
            (json.kind, json.added, json.removed) = (JsonKind::Membership, Some(change.added), Some(change.removed));
        }
        EntryKind::Title => {
            json.kind = JsonKind::Title;
            json.title = Some(String::from_utf8(entry.body).map_err(ser::Error::custom)?);
        }
        EntryKind::Created => {
            let start = ConversationStart::from_body(&entry.body).map_err(ser::Error::custom)?;
            json.kind = JsonKind::Created;
            (json.direct, json.title, json.members) = (Some(start.direct), Some(start.title), Some(start.members));
        }
    }
    json.serialize(serializer)
}

impl<'de> Deserialize<'de> for EntryBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = JsonEntry::deserialize(deserializer)?;
        let missing = |field| move || de::Error::missing_field(field);
        let (kind, body) = match json.kind {
            JsonKind::Message => {
                let content = Content::text(&json.text.ok_or_else(missing("text"))?);
                content.view().map_err(de::Error::custom)?;
                (EntryKind::Message, content.0)
            }
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
