//! Frames about conversations and their members.

use rkyv::{Archive, Deserialize, Serialize};

use super::{Each, EachIfAny, EntryBytes, Role};
use crate::ids::{ClientMessageId, ConversationId, Epoch, Sequence, TimestampMs, UserId};

/// `create`: makes a conversation, or finds the same one again.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", try_from = "CreateFields")]
pub enum Create {
    /// `{"direct":"bob"}`: the one conversation with another user.
    Direct(UserId),
    /// `{"group":{…}}`: a group.
    Group(CreateGroup),
}

/// [`Create`] as JSON has it: a later version's fields may stand beside, so it can't be an enum there.
#[derive(serde::Deserialize)]
struct CreateFields {
    direct: Option<UserId>,
    group: Option<CreateGroup>,
}

impl TryFrom<CreateFields> for Create {
    type Error = &'static str;

    fn try_from(fields: CreateFields) -> Result<Self, Self::Error> {
        match (fields.direct, fields.group) {
            (Some(user), None) => Ok(Self::Direct(user)),
            (None, Some(group)) => Ok(Self::Group(group)),
            _ => Err("create needs exactly one of direct and group"),
        }
    }
}

/// A new group.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct CreateGroup {
    /// The client's own name for this request: a retry with it finds the same group.
    pub key: ClientMessageId,
    /// May be empty.
    #[serde(default, deserialize_with = "crate::json::absent_if_null")]
    pub title: String,
    /// The other members.
    #[serde(default, deserialize_with = "crate::json::absent_if_null")]
    #[rkyv(with = Each)]
    pub members: Vec<UserId>,
}

/// Answers `create`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Created {
    /// Its id.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// Its last sequence.
    pub sequence: Sequence,
    /// Whether it existed before.
    pub existing: bool,
}

/// `members`: adds, removes or lists.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "MembersFields")]
pub struct Members {
    /// Of what.
    pub conversation: ConversationId,
    /// Exactly one of these stands beside `conversation` in JSON.
    #[serde(flatten)]
    pub action: MembersAction,
}

/// [`Members`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct MembersFields {
    conversation: ConversationId,
    add: Option<Vec<UserId>>,
    remove: Option<Vec<UserId>>,
    list: Option<MembersList>,
}

impl TryFrom<MembersFields> for Members {
    type Error = &'static str;

    fn try_from(fields: MembersFields) -> Result<Self, Self::Error> {
        let action = match (fields.add, fields.remove, fields.list) {
            (Some(users), None, None) => MembersAction::Add(users),
            (None, Some(users), None) => MembersAction::Remove(users),
            (None, None, Some(list)) => MembersAction::List(list),
            _ => return Err("members needs exactly one of add, remove and list"),
        };
        Ok(Self { conversation: fields.conversation, action })
    }
}

/// What `members` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MembersAction {
    /// Adds users to a group.
    Add(#[rkyv(with = Each)] Vec<UserId>),
    /// Removes users from a group; oneself is leaving.
    Remove(#[rkyv(with = Each)] Vec<UserId>),
    /// Lists members in order of their ids.
    List(MembersList),
}

/// Which page of members.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct MembersList {
    /// Only members after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<UserId>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answers `members`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct MembersAnswer {
    /// To `add` and `remove`: the sequence of the change, or the last one if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// To `list`: the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = EachIfAny)]
    pub members: Option<Vec<Member>>,
    /// To `list`: what to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// A member of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What the member may do.
    pub role: Role,
    /// Has read up to here.
    pub read: Sequence,
    /// Was delivered up to here.
    pub delivered: Sequence,
}

/// `conversations`: lists the user's own, in order of their ids.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct Conversations {
    /// Only conversations after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ConversationId>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answers `conversations`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ConversationsAnswer {
    /// The page.
    #[rkyv(with = Each)]
    pub conversations: Vec<Summary>,
    /// What to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ConversationId>,
}

/// A conversation in its member's list.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Its id.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// The other member of a direct conversation; absent for a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<UserId>,
    /// Empty for a direct conversation.
    pub title: String,
    /// A reference to its picture; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub picture: String,
    /// The user's own role.
    pub role: Role,
    /// Its last entry's sequence.
    pub last_sequence: Sequence,
    /// Its last entry's time.
    pub last_time_ms: TimestampMs,
    /// How many members.
    pub members: u32,
    /// The user's read pointer.
    pub read: Sequence,
    /// Messages after it.
    pub unread: u64,
    /// The last entry, if the user may see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<EntryBytes>,
}

/// `title`: gives a group a new one.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Title {
    /// Of what.
    pub conversation: ConversationId,
    /// May be empty.
    pub title: String,
}

/// Answers `title`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct TitleAnswer {
    /// The change's sequence, or the last one if nothing changed.
    pub sequence: Sequence,
}

/// The user is no longer a member of a conversation; it is as if it did not exist.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Left {
    /// Which.
    pub conversation: ConversationId,
    /// The removal's sequence.
    pub sequence: Sequence,
}
