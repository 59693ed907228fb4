//! What a group allows whom: roles, settings, who is kept out, and invites; as rows, and as entries make it.
//!
//! ```text
//! role       role u8          of a member who has another than the default: of the creator that is owner, of all others member
//! settings   their entry's body
//! ban        sequence u64     of the entry that keeps the user out
//! invite     hash (32 bytes) · expires u64 · uses u32 · user     as in its entry; uses: how many are left
//! ```
//! [`Group::take`] is the one function that says what an entry does to it: to the state that commands are judged by, and to what stores are
//! made and verified by. Invariant: a role that is the default has no row. Must not do: judge who may do what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_wire::{
    frame::{
        Bans, EntryError, EntryKind, HistoryFrom, InviteChange, InviteHash, Joined, Role, RoleOf, Settings,
        roles_from_body,
    },
    ids::{Ordinal, Sequence, TimestampMs, UserId},
};

use crate::{
    bytes::Reader,
    changes::ChangedRow,
    keys,
    rows::{MemberRow, decode_sequence, put_sequence},
};

/// A group beyond its members and title. A conversation of two has the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Group {
    pub(crate) settings: Settings,
    /// Of members who have another than the default.
    roles: BTreeMap<UserId, Role>,
    bans: BTreeSet<UserId>,
    invites: BTreeMap<Sequence, InviteRow>,
}

/// What users join by, at the sequence of the entry that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InviteRow {
    pub(crate) hash: InviteHash,
    pub(crate) expires: Option<TimestampMs>,
    /// How many more may join by it.
    pub(crate) uses: Option<u32>,
    /// Who made it.
    pub(crate) user: UserId,
}

impl InviteRow {
    /// Whether it has ended by itself.
    pub(crate) fn is_over(&self, now: TimestampMs) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.hash.0.to_vec();
        bytes.extend(self.expires.map_or(0, |expires| expires.0).to_le_bytes());
        bytes.extend(self.uses.unwrap_or(0).to_le_bytes());
        bytes.extend(self.user.as_str().as_bytes());
        bytes
    }

    /// Reads the row of an invite.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (hash, expires, uses) = (InviteHash(reader.array()?), reader.u64()?, reader.u32()?);
        let user = UserId::new(std::str::from_utf8(reader.rest()).ok()?).ok()?;
        let expires = (expires > 0).then_some(TimestampMs(expires));
        Some(Self { hash, expires, uses: (uses > 0).then_some(uses), user })
    }
}

impl Group {
    /// A member's role, in a group that `creator` made.
    pub(crate) fn role(&self, user: &UserId, creator: &UserId) -> Role {
        self.roles.get(user).copied().unwrap_or_else(|| default_role(user, creator))
    }

    /// Those who have another role than the default.
    pub(crate) fn roles(&self) -> &BTreeMap<UserId, Role> {
        &self.roles
    }

    /// Who is kept out.
    pub(crate) fn bans(&self) -> &BTreeSet<UserId> {
        &self.bans
    }

    /// What users join by, in the order in which it was made.
    pub(crate) fn invites(&self) -> &BTreeMap<Sequence, InviteRow> {
        &self.invites
    }

    /// The row of somebody who becomes a member by the entry at `at`, when there are `messages`.
    pub(crate) fn joined(&self, at: Sequence, messages: Ordinal) -> MemberRow {
        match self.settings.history {
            HistoryFrom::Joining => MemberRow { visible_from: at, ordinal: messages },
            HistoryFrom::Start => MemberRow { visible_from: Sequence(1), ordinal: Ordinal(0) },
        }
    }

    /// Rows of those who join so, where they see more than from that entry on.
    pub(crate) fn member_rows(&self, at: Sequence, messages: Ordinal, added: &[UserId]) -> Vec<ChangedRow> {
        let row = self.joined(at, messages);
        if row.visible_from == at {
            return Vec::new();
        }
        added.iter().map(|user| ChangedRow::new(keys::member_suffix(user), row.encode())).collect()
    }

    /// Does what an entry about the group does, and gives the rows that follow; none for entries of other kinds.
    ///
    /// # Errors
    /// If the body does not have its form.
    pub(crate) fn take(
        &mut self,
        kind: EntryKind,
        at: Sequence,
        sender: &UserId,
        body: &[u8],
        creator: &UserId,
    ) -> Result<Vec<ChangedRow>, EntryError> {
        Ok(match kind {
            EntryKind::Roles => {
                let roles = roles_from_body(body)?;
                roles.into_iter().map(|RoleOf { user, role }| self.set_role(user, role, creator)).collect()
            }
            EntryKind::Settings => {
                self.settings = Settings::from_body(body)?;
                vec![ChangedRow::new(keys::SETTINGS, body.to_vec())]
            }
            EntryKind::Bans => {
                let bans = Bans::from_body(body)?;
                let removed: Vec<UserId> = bans.removed().cloned().collect();
                let mut rows = self.removed(&removed, creator);
                rows.extend(bans.users.into_iter().map(|(user, _)| self.set_ban(user, bans.on, at)));
                rows
            }
            EntryKind::Invite => match InviteChange::from_body(body)? {
                InviteChange::Made { hash, expires_ms: expires, uses } => {
                    let row = InviteRow { hash, expires, uses, user: sender.clone() };
                    vec![self.set_invite(at, Some(row))]
                }
                InviteChange::Revoked(invites) => {
                    invites.into_iter().map(|invite| self.set_invite(invite, None)).collect()
                }
            },
            EntryKind::Joined => {
                let Joined { invite, .. } = Joined::from_body(body)?;
                self.used(invite).into_iter().collect()
            }
            _ => Vec::new(),
        })
    }

    /// Takes in that members went: if they come again, it is with the default role of everybody.
    pub(crate) fn removed(&mut self, users: &[UserId], creator: &UserId) -> Vec<ChangedRow> {
        let is_other = |user: &&UserId| self.role(user, creator) != Role::Member;
        let others: Vec<UserId> = users.iter().filter(is_other).cloned().collect();
        others.into_iter().map(|user| self.set_role(user, Role::Member, creator)).collect()
    }

    /// Takes in that somebody joined by an invite: the last one who may takes it away.
    fn used(&mut self, invite: Sequence) -> Option<ChangedRow> {
        let row = self.invites.get(&invite)?;
        let left = row.uses?.saturating_sub(1);
        let row = (left > 0).then(|| InviteRow { uses: Some(left), ..row.clone() });
        Some(self.set_invite(invite, row))
    }

    fn set_invite(&mut self, at: Sequence, row: Option<InviteRow>) -> ChangedRow {
        let suffix = keys::invite_suffix(at);
        let Some(row) = row else {
            self.invites.remove(&at);
            return ChangedRow { suffix, value: None };
        };
        let value = row.encode();
        self.invites.insert(at, row);
        ChangedRow::new(suffix, value)
    }

    /// Takes in a row by which the state is loaded.
    pub(crate) fn load_role(&mut self, user: UserId, role: Role) {
        self.roles.insert(user, role);
    }

    /// The same.
    pub(crate) fn load_ban(&mut self, user: UserId) {
        self.bans.insert(user);
    }

    /// The same.
    pub(crate) fn load_invite(&mut self, at: Sequence, row: InviteRow) {
        self.invites.insert(at, row);
    }

    fn set_role(&mut self, user: UserId, role: Role, creator: &UserId) -> ChangedRow {
        let suffix = keys::role_suffix(&user);
        if role == default_role(&user, creator) {
            self.roles.remove(&user);
            return ChangedRow { suffix, value: None };
        }
        self.roles.insert(user, role);
        ChangedRow::new(suffix, vec![role as u8])
    }

    fn set_ban(&mut self, user: UserId, on: bool, at: Sequence) -> ChangedRow {
        let suffix = keys::ban_suffix(&user);
        if !on {
            self.bans.remove(&user);
            return ChangedRow { suffix, value: None };
        }
        self.bans.insert(user);
        let mut value = Vec::new();
        put_sequence(at, &mut value);
        ChangedRow { suffix, value: Some(Arc::from(value)) }
    }
}

/// What a member is of whom no row says anything.
fn default_role(user: &UserId, creator: &UserId) -> Role {
    if user == creator { Role::Owner } else { Role::Member }
}

/// Reads the row of a role.
pub(crate) fn decode_role(bytes: &[u8]) -> Option<Role> {
    match bytes {
        [number] => Role::of_number(*number),
        _ => None,
    }
}

/// Reads the row of a ban: the entry that made it.
pub(crate) fn decode_ban(bytes: &[u8]) -> Option<Sequence> {
    decode_sequence(bytes)
}

#[cfg(test)]
mod tests {
    use antiphon_wire::frame::{Who, roles_to_body};

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn take(group: &mut Group, kind: EntryKind, body: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let rows = group.take(kind, Sequence(9), &user("bob"), body, &user("ann")).unwrap();
        rows.into_iter().map(|row| (row.suffix, row.value.map(|value| value.to_vec()))).collect()
    }

    #[test]
    fn roles_are_rows_where_they_are_not_the_default() {
        let (ann, bob) = (user("ann"), user("bob"));
        let mut group = Group::default();
        assert_eq!((group.role(&ann, &ann), group.role(&bob, &ann)), (Role::Owner, Role::Member));
        let body = |ann_is, bob_is| {
            roles_to_body(&[RoleOf { user: user("ann"), role: ann_is }, RoleOf { user: user("bob"), role: bob_is }])
        };
        let rows = take(&mut group, EntryKind::Roles, &body(Role::Admin, Role::Owner));
        assert_eq!(rows, [(b"\x03\x04ann".to_vec(), Some(vec![2])), (b"\x03\x04bob".to_vec(), Some(vec![1]))]);
        assert_eq!((group.role(&ann, &ann), group.role(&bob, &ann)), (Role::Admin, Role::Owner));
        let rows = take(&mut group, EntryKind::Roles, &body(Role::Owner, Role::Member));
        assert!(rows.iter().all(|(_, value)| value.is_none()) && group == Group::default());
        // A creator who went comes again as everybody does.
        let rows = group.removed(&[ann.clone(), bob], &ann);
        assert_eq!((rows.len(), group.role(&ann, &ann)), (1, Role::Member));
    }

    #[test]
    fn who_is_kept_out_loses_role_and_place() {
        let mut group = Group::default();
        take(&mut group, EntryKind::Roles, &roles_to_body(&[RoleOf { user: user("bob"), role: Role::Admin }]));
        let mut bans = Bans { on: true, users: vec![(user("bob"), true), (user("cid"), false)] };
        let rows = take(&mut group, EntryKind::Bans, &bans.to_body());
        let (role, nine) = ((b"\x03\x04bob".to_vec(), None), Some(9u64.to_le_bytes().to_vec()));
        assert_eq!(rows, [role, (b"\x03\x05bob".to_vec(), nine.clone()), (b"\x03\x05cid".to_vec(), nine)]);
        assert_eq!(group.bans().len(), 2);
        bans = Bans { on: false, users: vec![(user("bob"), false), (user("cid"), false)] };
        let rows = take(&mut group, EntryKind::Bans, &bans.to_body());
        assert!(rows.iter().all(|(_, value)| value.is_none()) && group == Group::default());
    }

    #[test]
    fn new_members_see_what_the_settings_say() {
        let mut group = Group::default();
        assert_eq!(group.joined(Sequence(7), Ordinal(4)).visible_from, Sequence(7));
        let settings = Settings { history: HistoryFrom::Start, send: Who::Admins, ..Settings::default() };
        let rows = take(&mut group, EntryKind::Settings, &settings.to_body());
        assert_eq!(rows, [(keys::SETTINGS.to_vec(), Some(settings.to_body()))]);
        assert_eq!(group.joined(Sequence(7), Ordinal(4)), MemberRow { visible_from: Sequence(1), ordinal: Ordinal(0) });
        assert!(group.take(EntryKind::Roles, Sequence(1), &user("ann"), b"\x09", &user("ann")).is_err());
    }

    #[test]
    fn invites_go_when_they_are_used_up_or_revoked() {
        let mut group = Group::default();
        let made = InviteChange::Made { hash: InviteHash([7; 32]), expires_ms: Some(TimestampMs(5)), uses: Some(2) };
        let rows = take(&mut group, EntryKind::Invite, &made.to_body());
        let key = b"\x03\x06\0\0\0\0\0\0\0\x09".to_vec();
        let value = |uses: u8| {
            let ends = [5, 0, 0, 0, 0, 0, 0, 0, uses, 0, 0, 0];
            Some([&[7; 32][..], &ends, b"bob"].concat())
        };
        assert_eq!(rows, [(key.clone(), value(2))]);
        let row = group.invites()[&Sequence(9)].clone();
        assert_eq!(InviteRow::decode(&value(2).unwrap()), Some(row.clone()));
        assert!(!row.is_over(TimestampMs(4)) && row.is_over(TimestampMs(5)));
        let joined = |name: &str| Joined { invite: Sequence(9), user: user(name) }.to_body();
        assert_eq!(take(&mut group, EntryKind::Joined, &joined("cid")), [(key.clone(), value(1))]);
        assert_eq!(take(&mut group, EntryKind::Joined, &joined("dan")), [(key.clone(), None)]);
        assert!(group == Group::default() && take(&mut group, EntryKind::Joined, &joined("eve")).is_empty());
        let open = InviteChange::Made { hash: InviteHash([8; 32]), expires_ms: None, uses: None };
        take(&mut group, EntryKind::Invite, &open.to_body());
        assert!(take(&mut group, EntryKind::Joined, &joined("cid")).is_empty(), "any number may join");
        let revoked = InviteChange::Revoked(vec![Sequence(9)]);
        assert_eq!(take(&mut group, EntryKind::Invite, &revoked.to_body()), [(key, None)]);
        assert_eq!(group, Group::default());
    }
}
