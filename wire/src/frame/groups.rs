//! What a group allows whom: roles, settings, and who is kept out.
//!
//! Bodies of the entries, little endian; lists are in order of ids and name each user once:
//!
//! ```text
//! roles     (role u8 · length u8 · user)…              as they are from now on
//! settings  (key u8 · length u16 · value)…             all of them; one that is not there has its default, keys ascend
//! bans      on u8 · (removed u8 · length u8 · user)…   removed: the user was a member, and is none any more
//! ```
//! Keys of settings: 1 description, 2 picture, 3 history u8; who may (u8): 4 send, 5 add, 6 remove, 7 info, 8 pin, 9 everybody.
//!
//! Must not do: know who may do what; the engine judges.

use rkyv::{Archive, Deserialize, Serialize};

use super::{ConversationStart, Each, EntryError, EntryKind, Joined, MembershipChange};
use crate::{
    ids::{ConversationId, Sequence, UserId},
    limits::{DESCRIPTION_BYTES_MAX, MEMBERS_PER_REQUEST_MAX, PICTURE_BYTES_MAX},
};

/// What a member of a group may do. Numbers are for ever.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Role {
    /// Everything; there is one.
    Owner = 1,
    /// Everything but what is about the owner.
    Admin = 2,
    /// What the group's settings leave to members.
    #[default]
    Member = 3,
    /// Reads, and nothing else.
    Reader = 4,
}

impl Role {
    /// The role of this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member, Self::Reader].into_iter().find(|role| *role as u8 == number)
    }

    /// Whether it runs the group.
    #[must_use]
    pub fn is_admin(self) -> bool {
        self <= Self::Admin
    }
}

/// Who may do something in a group; readers never may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Who {
    /// Members and admins.
    Members = 1,
    /// Admins and the owner.
    Admins = 2,
}

/// From where on new members see a group's entries.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum HistoryFrom {
    /// From the entry that added them.
    Joining = 1,
    /// From the first that is left.
    Start = 2,
}

/// How a group is: what its members see of it, and who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What it is about; may be empty.
    pub description: String,
    /// A reference to its picture, which the application understands; may be empty.
    pub picture: String,
    /// What new members see.
    pub history: HistoryFrom,
    /// Who may send messages.
    pub send: Who,
    /// Who may add members.
    pub add: Who,
    /// Who may remove members, and keep users out.
    pub remove: Who,
    /// Who may change title, description and picture.
    pub info: Who,
    /// Who may pin messages.
    pub pin: Who,
    /// Who may mean everybody by a message.
    pub everybody: Who,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            description: String::new(),
            picture: String::new(),
            history: HistoryFrom::Joining,
            send: Who::Members,
            add: Who::Members,
            remove: Who::Admins,
            info: Who::Members,
            pin: Who::Members,
            everybody: Who::Admins,
        }
    }
}

/// What of a group's settings is to be another.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct SettingsChange {
    /// See [`Settings`], for all of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// What new members see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryFrom>,
    /// Who may send messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<Who>,
    /// Who may add members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Who>,
    /// Who may remove members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Who>,
    /// Who may change title, description and picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Who>,
    /// Who may pin messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Who>,
    /// Who may mean everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everybody: Option<Who>,
}

impl SettingsChange {
    /// Whether it changes who may do what, not only what members see.
    #[must_use]
    pub fn is_of_rights(&self) -> bool {
        let of_who = [self.send, self.add, self.remove, self.info, self.pin, self.everybody];
        self.history.is_some() || of_who.iter().any(Option::is_some)
    }

    /// The settings with these changes.
    #[must_use]
    pub fn applied_to(&self, settings: &Settings) -> Settings {
        Settings {
            description: self.description.as_ref().unwrap_or(&settings.description).clone(),
            picture: self.picture.as_ref().unwrap_or(&settings.picture).clone(),
            history: self.history.unwrap_or(settings.history),
            send: self.send.unwrap_or(settings.send),
            add: self.add.unwrap_or(settings.add),
            remove: self.remove.unwrap_or(settings.remove),
            info: self.info.unwrap_or(settings.info),
            pin: self.pin.unwrap_or(settings.pin),
            everybody: self.everybody.unwrap_or(settings.everybody),
        }
    }
}

/// A user and the user's role.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct RoleOf {
    /// Who.
    pub user: UserId,
    /// From now on.
    pub role: Role,
}

/// The body of an [`EntryKind::Bans`] entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bans {
    /// Whether these are kept out from now on, or may come again.
    pub on: bool,
    /// Who, and whether each was a member and was removed by it.
    pub users: Vec<(UserId, bool)>,
}

const DESCRIPTION: u8 = 1;
const PICTURE: u8 = 2;
const HISTORY: u8 = 3;
const SEND: u8 = 4;
const ADD: u8 = 5;
const REMOVE: u8 = 6;
const INFO: u8 = 7;
const PIN: u8 = 8;
const EVERYBODY: u8 = 9;

impl Settings {
    /// The body of an entry that says so.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let default = Self::default();
        let mut body = Vec::new();
        let mut put = |key: u8, value: &[u8], of_default: &[u8]| {
            if value != of_default {
                body.push(key);
                body.extend((value.len() as u16).to_le_bytes());
                body.extend(value);
            }
        };
        put(DESCRIPTION, self.description.as_bytes(), default.description.as_bytes());
        put(PICTURE, self.picture.as_bytes(), default.picture.as_bytes());
        put(HISTORY, &[self.history as u8], &[default.history as u8]);
        for (key, who, of_default) in [
            (SEND, self.send, default.send),
            (ADD, self.add, default.add),
            (REMOVE, self.remove, default.remove),
            (INFO, self.info, default.info),
            (PIN, self.pin, default.pin),
            (EVERYBODY, self.everybody, default.everybody),
        ] {
            put(key, &[who as u8], &[of_default as u8]);
        }
        body
    }

    /// Reads such a body. A key that is not known is passed over: a later version wrote it.
    ///
    /// # Errors
    /// [`EntryError::Group`] if it does not have its form, and those of text that is too long or no text.
    pub fn from_body(body: &[u8]) -> Result<Self, EntryError> {
        let mut settings = Self::default();
        let (mut rest, mut last) = (body, 0);
        while let Some((&[key, low, high], after)) = rest.split_first_chunk::<3>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let (value, after) = after.split_at_checked(length).ok_or(EntryError::Group)?;
            if key <= last {
                return Err(EntryError::Group);
            }
            (rest, last) = (after, key);
            let text = |longest: usize| match std::str::from_utf8(value) {
                Ok(text) if text.len() <= longest => Ok(text.to_owned()),
                Ok(_) => Err(EntryError::Group),
                Err(_) => Err(EntryError::Text),
            };
            let who = || match value {
                [number] => Who::of_number(*number).ok_or(EntryError::Group),
                _ => Err(EntryError::Group),
            };
            match key {
                DESCRIPTION => settings.description = text(DESCRIPTION_BYTES_MAX)?,
                PICTURE => settings.picture = text(PICTURE_BYTES_MAX)?,
                HISTORY => {
                    settings.history = match value {
                        [1] => HistoryFrom::Joining,
                        [2] => HistoryFrom::Start,
                        _ => return Err(EntryError::Group),
                    };
                }
                SEND => settings.send = who()?,
                ADD => settings.add = who()?,
                REMOVE => settings.remove = who()?,
                INFO => settings.info = who()?,
                PIN => settings.pin = who()?,
                EVERYBODY => settings.everybody = who()?,
                _ => {}
            }
        }
        if rest.is_empty() { Ok(settings) } else { Err(EntryError::Group) }
    }
}

impl Who {
    fn of_number(number: u8) -> Option<Self> {
        [Self::Members, Self::Admins].into_iter().find(|who| *who as u8 == number)
    }
}

/// The body of an [`EntryKind::Roles`] entry; in order of ids.
#[must_use]
pub fn roles_to_body(roles: &[RoleOf]) -> Vec<u8> {
    let mut body = Vec::new();
    for RoleOf { user, role } in roles {
        body.push(*role as u8);
        put_user(user, &mut body);
    }
    body
}

/// Reads such a body.
///
/// # Errors
/// [`EntryError::Group`] if it does not have its form.
pub fn roles_from_body(body: &[u8]) -> Result<Vec<RoleOf>, EntryError> {
    let (mut roles, mut rest) = (Vec::<RoleOf>::new(), body);
    while let Some((number, after)) = rest.split_first() {
        let (user, after) = take_user(after)?;
        let role = Role::of_number(*number).ok_or(EntryError::Group)?;
        if roles.last().is_some_and(|last| last.user >= user) || roles.len() == NAMED_MAX {
            return Err(EntryError::Group);
        }
        roles.push(RoleOf { user, role });
        rest = after;
    }
    if roles.is_empty() { Err(EntryError::Group) } else { Ok(roles) }
}

impl Bans {
    /// The body of the entry.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut body = vec![u8::from(self.on)];
        for (user, removed) in &self.users {
            body.push(u8::from(*removed));
            put_user(user, &mut body);
        }
        body
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// [`EntryError::Group`] if it does not have its form.
    pub fn from_body(body: &[u8]) -> Result<Self, EntryError> {
        let (on, mut rest) = match body.split_first() {
            Some((on @ (0 | 1), rest)) => (*on == 1, rest),
            _ => return Err(EntryError::Group),
        };
        let mut users = Vec::<(UserId, bool)>::new();
        while let Some((removed @ (0 | 1), after)) = rest.split_first() {
            let (user, after) = take_user(after)?;
            let is_next = users.last().is_none_or(|(last, _)| *last < user);
            // Who may come again was no member.
            if !is_next || users.len() == NAMED_MAX || (*removed == 1 && !on) {
                return Err(EntryError::Group);
            }
            users.push((user, *removed == 1));
            rest = after;
        }
        if users.is_empty() || !rest.is_empty() { Err(EntryError::Group) } else { Ok(Self { on, users }) }
    }

    /// Those whom it removed.
    pub fn removed(&self) -> impl Iterator<Item = &UserId> {
        self.users.iter().filter(|(_, removed)| *removed).map(|(user, _)| user)
    }
}

/// Who comes and who goes by an entry of any kind, from its body: nobody, by most.
///
/// # Errors
/// If the body does not have its form.
pub fn members_changed(kind: EntryKind, body: &[u8]) -> Result<MembershipChange, EntryError> {
    let nobody = MembershipChange { added: Vec::new(), removed: Vec::new() };
    Ok(match kind {
        EntryKind::Created => MembershipChange { added: ConversationStart::from_body(body)?.members, ..nobody },
        EntryKind::Membership => MembershipChange::from_body(body)?,
        EntryKind::Bans => MembershipChange { removed: Bans::from_body(body)?.removed().cloned().collect(), ..nobody },
        EntryKind::Joined => MembershipChange { added: vec![Joined::from_body(body)?.user], ..nobody },
        _ => nobody,
    })
}

/// Most users in one entry: those of a request, and one more to whom ownership goes.
const NAMED_MAX: usize = MEMBERS_PER_REQUEST_MAX + 1;

pub(super) fn put_user(user: &UserId, body: &mut Vec<u8>) {
    body.push(user.as_str().len() as u8);
    body.extend(user.as_str().as_bytes());
}

pub(super) fn take_user(bytes: &[u8]) -> Result<(UserId, &[u8]), EntryError> {
    let (length, rest) = bytes.split_first().ok_or(EntryError::Group)?;
    let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(EntryError::Group)?;
    let name = std::str::from_utf8(name).map_err(|_| EntryError::Text)?;
    let user = UserId::new(name).map_err(|_| EntryError::Group)?;
    Ok((user, rest))
}

/// `roles`: gives members of a group other roles, or lists who has one.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "RolesFields")]
pub struct Roles {
    /// Of what.
    pub conversation: ConversationId,
    /// Exactly one of these stands beside `conversation` in JSON.
    #[serde(flatten)]
    pub action: RolesAction,
}

/// What `roles` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RolesAction {
    /// Gives members these roles.
    Set(#[rkyv(with = Each)] Vec<RoleOf>),
    /// Lists who is owner, admin or reader, in order of ids.
    List(UsersPage),
}

/// [`Roles`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct RolesFields {
    conversation: ConversationId,
    set: Option<Vec<RoleOf>>,
    list: Option<UsersPage>,
}

impl TryFrom<RolesFields> for Roles {
    type Error = &'static str;

    fn try_from(fields: RolesFields) -> Result<Self, Self::Error> {
        let action = match (fields.set, fields.list) {
            (Some(roles), None) => RolesAction::Set(roles),
            (None, Some(list)) => RolesAction::List(list),
            _ => return Err("roles needs exactly one of set and list"),
        };
        Ok(Self { conversation: fields.conversation, action })
    }
}

/// Which page of users.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct UsersPage {
    /// Only users after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<UserId>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answers `roles`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct RolesAnswer {
    /// To `set`: the sequence of the change, or the last one if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// To `list`: the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = super::EachIfAny)]
    pub roles: Option<Vec<RoleOf>>,
    /// To `list`: what to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// `settings`: tells how a group is, and changes it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct AskSettings {
    /// Of what.
    pub conversation: ConversationId,
    /// What is to be another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SettingsChange>,
}

/// Answers `settings`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct SettingsAnswer {
    /// The change's sequence, or the last one if nothing changed.
    pub sequence: Sequence,
    /// As they are now.
    pub settings: Settings,
    /// The asking user's own role.
    pub role: Role,
}

/// `bans`: keeps users out of a group, lets them come again, or lists them.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "BansFields")]
pub struct AskBans {
    /// Of what.
    pub conversation: ConversationId,
    /// Exactly one of these stands beside `conversation` in JSON.
    #[serde(flatten)]
    pub action: BansAction,
}

/// What `bans` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BansAction {
    /// Keeps users out; those who are members are removed.
    Add(#[rkyv(with = Each)] Vec<UserId>),
    /// Lets users come again.
    Remove(#[rkyv(with = Each)] Vec<UserId>),
    /// Lists who is kept out, in order of ids.
    List(UsersPage),
}

/// [`AskBans`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct BansFields {
    conversation: ConversationId,
    add: Option<Vec<UserId>>,
    remove: Option<Vec<UserId>>,
    list: Option<UsersPage>,
}

impl TryFrom<BansFields> for AskBans {
    type Error = &'static str;

    fn try_from(fields: BansFields) -> Result<Self, Self::Error> {
        let action = match (fields.add, fields.remove, fields.list) {
            (Some(users), None, None) => BansAction::Add(users),
            (None, Some(users), None) => BansAction::Remove(users),
            (None, None, Some(list)) => BansAction::List(list),
            _ => return Err("bans needs exactly one of add, remove and list"),
        };
        Ok(Self { conversation: fields.conversation, action })
    }
}

/// Answers `bans`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct BansAnswer {
    /// To `add` and `remove`: the sequence of the change, or the last one if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// To `list`: the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = super::EachIfAny)]
    pub users: Option<Vec<UserId>>,
    /// To `list`: what to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn bodies_come_back_and_their_bytes_stand() {
        let roles = [RoleOf { user: user("ann"), role: Role::Admin }, RoleOf { user: user("bob"), role: Role::Reader }];
        assert_eq!(roles_to_body(&roles), *b"\x02\x03ann\x04\x03bob");
        assert_eq!(roles_from_body(&roles_to_body(&roles)), Ok(roles.to_vec()));
        let bans = Bans { on: true, users: vec![(user("ann"), true), (user("bob"), false)] };
        assert_eq!(bans.to_body(), *b"\x01\x01\x03ann\0\x03bob");
        assert_eq!(Bans::from_body(&bans.to_body()), Ok(bans));
        let settings = Settings {
            description: "we sing".into(),
            picture: "p".into(),
            history: HistoryFrom::Start,
            send: Who::Admins,
            remove: Who::Members,
            ..Settings::default()
        };
        assert_eq!(settings.to_body(), *b"\x01\x07\0we sing\x02\x01\0p\x03\x01\0\x02\x04\x01\0\x02\x06\x01\0\x01");
        assert_eq!(Settings::from_body(&settings.to_body()), Ok(settings));
        assert_eq!(Settings::default().to_body(), [0; 0]);
    }

    #[test]
    fn what_a_later_version_says_of_a_group_is_passed_over() {
        let expected = Settings { send: Who::Admins, ..Settings::default() };
        assert_eq!(Settings::from_body(b"\x04\x01\0\x02\xc8\x02\0xy"), Ok(expected));
    }

    #[test]
    fn bodies_that_do_not_have_their_form_are_refused() {
        for bad in [
            &b"\x04\x01\0\x03"[..],
            b"\x04\x02\0\x01\x01",
            b"\x04\x01\0\x01\x04\x01\0\x01",
            b"\x05\x01\0\x01\x04\x01\0\x01",
            b"\x04",
            b"\x03\x01\0\0",
        ] {
            assert_eq!(Settings::from_body(bad), Err(EntryError::Group), "{bad:?}");
        }
        for bad in
            [&b""[..], b"\x05\x03ann", b"\x02\x03an", b"\x02\x03ann\x02\x03ann", b"\x02\x03bob\x02\x03ann", b"\x02\x00"]
        {
            assert_eq!(roles_from_body(bad), Err(EntryError::Group), "{bad:?}");
        }
        for bad in
            [&b""[..], b"\x01", b"\x02\0\x03ann", b"\x01\x02\x03ann", b"\0\x01\x03ann", b"\x01\0\x03bob\0\x03ann"]
        {
            assert_eq!(Bans::from_body(bad), Err(EntryError::Group), "{bad:?}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let settings = Settings { picture: "p".into(), pin: Who::Admins, ..Settings::default() };
        let change = SettingsChange { description: Some("d".into()), ..SettingsChange::default() };
        assert_eq!(change.applied_to(&settings), Settings { description: "d".into(), ..settings.clone() });
        assert!(!change.is_of_rights());
        for of_rights in [
            SettingsChange { pin: Some(Who::Members), ..SettingsChange::default() },
            SettingsChange { history: Some(HistoryFrom::Start), ..SettingsChange::default() },
        ] {
            assert!(of_rights.is_of_rights());
        }
        assert_eq!(SettingsChange::default().applied_to(&settings), settings);
    }
}
