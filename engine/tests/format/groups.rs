//! The rows that entries about groups bring, by the rules of the document.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_wire::frame::{Bans, Entry, EntryKind, HistoryFrom, MembershipChange, Role, Settings, roles_from_body};

use crate::files::Row;

/// Who has which role, and what those who join see, by conversation.
#[derive(Default)]
pub(crate) struct Groups {
    creators: BTreeMap<[u8; 16], String>,
    roles: BTreeMap<([u8; 16], String), Role>,
    from_the_start: BTreeSet<[u8; 16]>,
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
            _ => Vec::new(),
        }
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
