//! The rows that entries about groups and accounts bring, by the rules of the document.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_wire::frame::{Bans, Entry, EntryKind, HistoryFrom, MembershipChange, Role, Settings, roles_from_body};

use crate::{files::Row, world::replaced};

/// Who has which role, and what those who join see, by conversation.
#[derive(Default)]
pub(crate) struct Groups {
    creators: BTreeMap<[u8; 16], String>,
    roles: BTreeMap<([u8; 16], String), Role>,
    from_the_start: BTreeSet<[u8; 16]>,
    /// Rows of invites, by conversation and sequence.
    invites: BTreeMap<([u8; 16], u64), Vec<u8>>,
}

/// What is set in accounts: the entry that set it and where that stands, by conversation and key.
#[derive(Default)]
pub(crate) struct Accounts(BTreeMap<([u8; 16], Vec<u8>), (u64, Entry)>);

impl Accounts {
    /// The rows that an entry brings, by their suffixes, in order.
    pub(crate) fn take(&mut self, position: u64, entry: &Entry) -> Vec<Row> {
        let (name, value) = entry.body[1..].split_at(usize::from(entry.body[0]));
        let suffix = [&[3, 7], name].concat();
        let key = (entry.conversation.0, name.to_vec());
        let places = [entry.sequence.0, position, entry.time_ms.0].map(u64::to_le_bytes).concat();
        let before = match value {
            [] => self.0.remove(&key),
            _ => self.0.insert(key, (position, entry.clone())),
        };
        let mut rows = vec![(suffix, (!value.is_empty()).then(|| [&places, value].concat()))];
        rows.extend(before.map(|(position, of)| {
            let body = of.body[..=usize::from(of.body[0])].to_vec();
            replaced(position, &of, body)
        }));
        rows
    }
}

fn invite_key(sequence: u64) -> Vec<u8> {
    [&[3, 6], &sequence.to_be_bytes()[..]].concat()
}

impl Groups {
    /// The rows that an entry brings, by their suffixes, in order.
    pub(crate) fn take(&mut self, entry: &Entry) -> Vec<Row> {
        let (id, body) = (entry.conversation.0, &entry.body);
        match entry.kind {
            EntryKind::Created => {
                self.creators.insert(id, entry.sender.as_str().to_owned());
                Vec::new()
            }
            EntryKind::Roles => {
                let roles = roles_from_body(body).unwrap();
                roles.iter().map(|of| self.set(id, of.user.as_str(), of.role)).collect()
            }
            EntryKind::Settings => {
                match Settings::from_body(body).unwrap().history {
                    HistoryFrom::Start => self.from_the_start.insert(id),
                    HistoryFrom::Joining => self.from_the_start.remove(&id),
                };
                vec![(vec![3, 3], Some(body.clone()))]
            }
            EntryKind::Bans => {
                let bans = Bans::from_body(body).unwrap();
                let mut rows: Vec<Row> = bans.removed().filter_map(|user| self.gone(id, user.as_str())).collect();
                let value = bans.on.then(|| entry.sequence.0.to_le_bytes().to_vec());
                let row = |user: &str| ([&[3, 5], user.as_bytes()].concat(), value.clone());
                rows.extend(bans.users.iter().map(|(user, _)| row(user.as_str())));
                rows
            }
            EntryKind::Membership => {
                let change = MembershipChange::from_body(body).unwrap();
                let mut rows: Vec<Row> =
                    change.removed.iter().filter_map(|user| self.gone(id, user.as_str())).collect();
                let added = change.added.iter().filter(|_| self.from_the_start.contains(&id));
                let value = [1u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
                rows.extend(added.map(|user| ([&[4], user.as_str().as_bytes()].concat(), Some(value.clone()))));
                rows
            }
            EntryKind::Invite if body[0] == 1 => {
                // As in the entry, with who made it.
                let row = [&body[1..], entry.sender.as_str().as_bytes()].concat();
                self.invites.insert((id, entry.sequence.0), row.clone());
                vec![(invite_key(entry.sequence.0), Some(row))]
            }
            EntryKind::Invite => {
                let invites = body[1..].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
                invites
                    .map(|invite| {
                        self.invites.remove(&(id, invite));
                        (invite_key(invite), None)
                    })
                    .collect()
            }
            EntryKind::Joined => {
                let invite = u64::from_le_bytes(body[..8].try_into().unwrap());
                let mut rows: Vec<Row> = self.used(id, invite).into_iter().collect();
                if self.from_the_start.contains(&id) {
                    let value = [1u64.to_le_bytes(), 0u64.to_le_bytes()].concat();
                    rows.push(([&[4], &body[9..]].concat(), Some(value)));
                }
                rows
            }
            _ => Vec::new(),
        }
    }

    /// One more has joined by an invite: 40 bytes into its row stands how many still may.
    fn used(&mut self, id: [u8; 16], invite: u64) -> Option<Row> {
        let row = self.invites.get_mut(&(id, invite))?;
        let uses = u32::from_le_bytes(row[40..44].try_into().unwrap());
        if uses == 0 {
            return None;
        }
        row[40..44].copy_from_slice(&(uses - 1).to_le_bytes());
        let row = (uses > 1).then(|| row.clone());
        if row.is_none() {
            self.invites.remove(&(id, invite));
        }
        Some((invite_key(invite), row))
    }

    fn at_first(&self, id: [u8; 16], user: &str) -> Role {
        if self.creators[&id] == user { Role::Owner } else { Role::Member }
    }

    fn set(&mut self, id: [u8; 16], user: &str, role: Role) -> Row {
        self.roles.insert((id, user.to_owned()), role);
        let value = (role != self.at_first(id, user)).then(|| vec![role as u8]);
        ([&[3, 4], user.as_bytes()].concat(), value)
    }

    /// Who goes is a member like all others when it comes again.
    fn gone(&mut self, id: [u8; 16], user: &str) -> Option<Row> {
        let role = self.roles.get(&(id, user.to_owned())).copied().unwrap_or_else(|| self.at_first(id, user));
        (role != Role::Member).then(|| self.set(id, user, Role::Member))
    }
}
