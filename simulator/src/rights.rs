//! The oracle of who may do what in a group: the rules of docs/protocol.md, by entries alone.
//!
//! Each entry of a log that is known whole was allowed to who did it, by what the entries before it say ([`judge`]). Somebody who was refused as
//! not allowed was not, as far as that is sure ([`Model::may_be_forbidden`]).

use std::collections::{BTreeMap, BTreeSet};

use antiphon_wire::{
    frame::{
        Bans, BansAction, ConversationStart, EntryKind, HistoryFrom, InviteChange, InviteHash, Joined,
        MembershipChange, Role, RoleOf, Settings, SettingsChange, Who, roles_from_body,
    },
    ids::{ConversationId, UserId},
};

use crate::{
    contents::said,
    invites::Invites,
    model::{Conversation, Known, Model},
};

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Send a message.
    Send,
    /// Send one by which everybody is meant.
    SendToAll,
    /// Tell something for the moment.
    Tell,
    /// Do something to a message, or to all before one: by an entry of this kind.
    Change(EntryKind, Option<u64>),
    /// Let these join.
    Add(Vec<UserId>),
    /// Have these go.
    Remove(Vec<UserId>),
    /// Give another title.
    Title,
    /// Give members roles.
    Roles(Vec<RoleOf>),
    /// Change settings.
    Settings(SettingsChange),
    /// Keep users out, or let them come again.
    Bans(BansAction),
    /// Make an invite, or see which there are.
    Invite,
    /// Revoke some.
    Revoke(Vec<u64>),
    /// Join by the one with this hash.
    Join(InviteHash),
    /// See, as every member may.
    See,
}

impl Deed {
    /// Whether it changes what somebody may do.
    #[must_use]
    pub fn is_of_rights(&self) -> bool {
        use Deed::{Add, Bans, Invite, Join, Remove, Revoke, Roles, Settings};
        matches!(self, Add(_) | Remove(_) | Roles(_) | Settings(_) | Bans(_) | Invite | Revoke(_) | Join(_))
    }

    /// The sender of the message that it is done to.
    fn whose<'a>(&self, conversation: &'a Conversation) -> Option<&'a UserId> {
        let Self::Change(_, Some(target)) = self else { return None };
        conversation.entries.get(target).map(|message| &message.sender)
    }
}

/// How much was known of what may change rights, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    version: u64,
    /// Nothing else was under way that changes them.
    quiet: bool,
}

/// A group as its entries make it.
#[derive(Debug, Clone)]
pub struct Rights {
    direct: bool,
    members: BTreeMap<UserId, Role>,
    settings: Settings,
    bans: BTreeSet<UserId>,
    /// What users join by.
    pub invites: Invites,
}

impl Rights {
    fn begun(first: &Known) -> Option<Self> {
        let start = ConversationStart::from_body(&first.body).ok().filter(|_| first.kind == EntryKind::Created)?;
        let role = |user: &UserId| if *user == first.sender && !start.direct { Role::Owner } else { Role::Member };
        let members = start.members.iter().map(|user| (user.clone(), role(user))).collect();
        Some(Self {
            direct: start.direct,
            members,
            settings: Settings::default(),
            bans: BTreeSet::new(),
            invites: Invites::default(),
        })
    }

    /// What the first entries of a conversation make of it, up to one; none if not all of them are known.
    #[must_use]
    pub fn of(conversation: &Conversation, last: u64) -> Option<Self> {
        let mut rights = Self::begun(conversation.entries.get(&1)?)?;
        for place in 2..=last {
            rights.take(place, conversation.entries.get(&place)?);
        }
        Some(rights)
    }

    /// A member's role.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Option<Role> {
        self.members.get(user).copied()
    }

    /// Whether rows say the same of a group that `creator` made: docs/format.md has their keys.
    #[must_use]
    pub fn are_told_by(&self, creator: &UserId, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
        let users = |family: [u8; 2]| {
            let told = rows.iter().filter_map(|(suffix, value)| Some((suffix.strip_prefix(&family[..])?, value)));
            told.filter_map(|(user, value)| Some((std::str::from_utf8(user).ok()?, value)))
                .collect::<BTreeMap<&str, &Vec<u8>>>()
        };
        let (roles, bans) = (users([3, 4]), users([3, 5]));
        let default = |user: &UserId| if user == creator { Role::Owner } else { Role::Member };
        let is_told = |(user, role): (&UserId, &Role)| {
            roles.get(user.as_str()).map_or(default(user) == *role, |value| **value == [*role as u8])
        };
        let may_have_a_role =
            |user: &&str| *user == creator.as_str() || self.members.keys().any(|of| of.as_str() == *user);
        let settings = rows.get(&[3, 3][..]).and_then(|value| Settings::from_body(value).ok()).unwrap_or_default();
        let are_roles = self.direct || (self.members.iter().all(is_told) && roles.keys().all(may_have_a_role));
        let are_bans = bans.into_keys().eq(self.bans.iter().map(UserId::as_str));
        are_roles && are_bans && settings == self.settings && self.invites.are_told_by(rows)
    }

    /// What who joins now sees.
    #[must_use]
    pub fn history(&self) -> HistoryFrom {
        self.settings.history
    }

    fn is_one_of(&self, user: &UserId, who: Who) -> bool {
        let role = self.role(user);
        match who {
            Who::Members => role.is_some_and(|role| role != Role::Reader),
            Who::Admins => role.is_some_and(|role| self.direct || matches!(role, Role::Owner | Role::Admin)),
        }
    }

    fn is_admin(&self, user: &UserId) -> bool {
        !self.direct && self.is_one_of(user, Who::Admins)
    }

    /// Whether a user may do it, to a message of `sender` if to one.
    #[must_use]
    pub fn may(&self, user: &UserId, deed: &Deed, sender: Option<&UserId>) -> bool {
        let (own, is_own) = (self.role(user), sender == Some(user));
        match deed {
            Deed::See => own.is_some(),
            Deed::Send => self.is_one_of(user, self.settings.send),
            Deed::SendToAll => {
                [self.settings.send, self.settings.everybody].iter().all(|who| self.is_one_of(user, *who))
            }
            Deed::Change(EntryKind::Edit, _) => is_own && self.is_one_of(user, self.settings.send),
            Deed::Change(EntryKind::Deletion, _) => is_own || self.is_admin(user),
            Deed::Tell | Deed::Change(EntryKind::Reaction, _) => self.is_one_of(user, Who::Members),
            Deed::Change(EntryKind::Pin, _) => self.is_one_of(user, self.settings.pin),
            Deed::Change(..) => own == Some(Role::Owner),
            _ if self.direct => false,
            Deed::Title => self.is_one_of(user, self.settings.info),
            Deed::Add(users) => {
                self.is_one_of(user, self.settings.add) && !users.iter().any(|user| self.bans.contains(user))
            }
            Deed::Remove(users) => {
                users == std::slice::from_ref(user)
                    || (self.is_one_of(user, self.settings.remove) && !self.has_above(user, users))
            }
            Deed::Invite => self.is_one_of(user, self.settings.add),
            Deed::Revoke(invites) => {
                let is_own = |invite: &u64| self.invites.maker(*invite) == Some(user);
                own.is_some() && (self.is_one_of(user, self.settings.add) || invites.iter().all(is_own))
            }
            Deed::Join(hash) => {
                let may_add = |maker: &UserId| self.is_one_of(maker, self.settings.add);
                own.is_some() || (self.invites.maker_of(*hash).is_some_and(may_add) && !self.bans.contains(user))
            }
            Deed::Roles(roles) => {
                let is_low = |of: &RoleOf| of.role >= Role::Member && self.role(&of.user) >= Some(Role::Member);
                own == Some(Role::Owner) || (own == Some(Role::Admin) && roles.iter().all(is_low))
            }
            Deed::Settings(change) if change.is_of_rights() => self.is_admin(user),
            Deed::Settings(_) => self.is_one_of(user, self.settings.info),
            Deed::Bans(action) => {
                let whom = if let BansAction::Add(users) = action { users.as_slice() } else { &[] };
                self.is_one_of(user, self.settings.remove) && !self.has_above(user, whom)
            }
        }
    }

    fn has_above(&self, user: &UserId, others: &[UserId]) -> bool {
        others.iter().any(|other| self.role(other).is_some_and(|role| Some(role) < self.role(user)))
    }

    /// What is wrong with an entry that comes next: who did it may not, or it says what was not so.
    fn wrong(&self, entry: &Known, conversation: &Conversation) -> Option<&'static str> {
        let (deed, is_so) = match entry.kind {
            // By an edit everybody may be meant by who may only then; these mean nobody.
            EntryKind::Message if said(&entry.body).everybody => (Deed::SendToAll, true),
            EntryKind::Message => (Deed::Send, true),
            EntryKind::Title => (Deed::Title, true),
            EntryKind::Membership => {
                let change = MembershipChange::from_body(&entry.body).ok()?;
                let is_so = !change.added.iter().any(|user| self.members.contains_key(user))
                    && change.removed.iter().all(|user| self.members.contains_key(user));
                (if change.added.is_empty() { Deed::Remove(change.removed) } else { Deed::Add(change.added) }, is_so)
            }
            EntryKind::Roles => {
                let roles = roles_from_body(&entry.body).ok()?;
                (
                    Deed::Roles(roles.clone()),
                    roles.iter().all(|of| self.role(&of.user).is_some_and(|was| was != of.role)),
                )
            }
            EntryKind::Settings => {
                let (settings, now) = (Settings::from_body(&entry.body).ok()?, &self.settings);
                let of_info = Settings {
                    description: settings.description.clone(),
                    picture: settings.picture.clone(),
                    ..now.clone()
                };
                let send = (of_info != settings).then_some(settings.send);
                (Deed::Settings(SettingsChange { send, ..SettingsChange::default() }), settings != *now)
            }
            EntryKind::Bans => {
                let bans = Bans::from_body(&entry.body).ok()?;
                let is_so = bans.users.iter().all(|(user, removed)| {
                    self.bans.contains(user) != bans.on && *removed == (bans.on && self.members.contains_key(user))
                });
                let is_so = is_so && !bans.removed().any(|user| *user == entry.sender);
                let users = bans.users.iter().map(|(user, _)| user.clone()).collect();
                (Deed::Bans(if bans.on { BansAction::Add(users) } else { BansAction::Remove(users) }), is_so)
            }
            EntryKind::Invite => match InviteChange::from_body(&entry.body).ok()? {
                InviteChange::Made { .. } => (Deed::Invite, true),
                InviteChange::Revoked(invites) => {
                    let invites: Vec<u64> = invites.iter().map(|invite| invite.0).collect();
                    let is_so = invites.iter().all(|invite| self.invites.maker(*invite).is_some());
                    (Deed::Revoke(invites), is_so)
                }
            },
            EntryKind::Joined => {
                let Joined { invite, user } = Joined::from_body(&entry.body).ok()?;
                let good = self.invites.good_at(invite.0, entry.time_ms);
                let is_so = good.is_some() && user == entry.sender && !self.members.contains_key(&user);
                (Deed::Join(good.unwrap_or(InviteHash([0; 32]))), is_so)
            }
            // One's own, in what was made for it.
            EntryKind::AccountData => (Deed::See, conversation.account.is_some()),
            kind => {
                let target = entry.body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                (Deed::Change(kind, target.filter(|_| kind != EntryKind::Retention)), true)
            }
        };
        match (self.may(&entry.sender, &deed, deed.whose(conversation)), is_so) {
            (false, _) => Some("who did it may not"),
            (true, false) => Some("it says what was not so"),
            (true, true) => None,
        }
    }

    fn take(&mut self, place: u64, entry: &Known) {
        self.invites.take(place, entry);
        match entry.kind {
            EntryKind::Membership | EntryKind::Bans | EntryKind::Joined => {
                let (came, went) = entry.members();
                self.members.retain(|user, _| !went.contains(user));
                self.members.extend(came.into_iter().map(|user| (user, Role::Member)));
                match Bans::from_body(&entry.body).ok().filter(|_| entry.kind == EntryKind::Bans) {
                    Some(bans) if bans.on => self.bans.extend(bans.users.into_iter().map(|(user, _)| user)),
                    Some(bans) => self.bans.retain(|user| !bans.users.iter().any(|(of, _)| of == user)),
                    None => {}
                }
            }
            EntryKind::Roles => {
                let roles = roles_from_body(&entry.body).unwrap_or_default();
                self.members.extend(roles.into_iter().map(|of| (of.user, of.role)));
            }
            EntryKind::Settings => self.settings = Settings::from_body(&entry.body).unwrap_or_default(),
            _ => {}
        }
    }

    /// Whether a group has the one owner that it can have.
    fn is_owned(&self) -> bool {
        let owners = self.members.values().filter(|role| **role == Role::Owner).count();
        let can_be_owned = self.members.values().any(|role| *role != Role::Reader);
        self.direct || owners == usize::from(can_be_owned)
    }
}

impl Conversation {
    /// How much is known now of what may change rights, by who asked for so many of these changes.
    #[must_use]
    pub fn moment(&self, own: u32) -> Moment {
        Moment { version: self.rights_version, quiet: self.rights_under_way == own }
    }

    /// Rights as they were at a moment and still are, if that is sure.
    #[must_use]
    pub fn rights_since(&self, moment: Moment) -> Option<Rights> {
        let is_sure = moment.quiet && moment.version == self.rights_version;
        Rights::of(self, self.durable).filter(|_| is_sure)
    }
}

impl Model {
    /// How much is known now of what may change rights in a conversation.
    #[must_use]
    pub fn moment(&self, id: ConversationId, own: u32) -> Moment {
        self.conversations.get(&id).map_or(Moment { version: 0, quiet: false }, |conversation| conversation.moment(own))
    }

    /// Somebody asks for something that changes rights.
    pub fn rights_asked(&mut self, id: ConversationId) {
        let conversation = self.conversations.entry(id).or_default();
        conversation.rights_version += 1;
        conversation.rights_under_way += 1;
    }

    /// It was answered, whatever the answer.
    pub fn rights_answered(&mut self, id: ConversationId) {
        let conversation = self.conversations.entry(id).or_default();
        conversation.rights_version += 1;
        conversation.rights_under_way -= 1;
    }

    /// Whether somebody who asked at that moment may be refused as not allowed; the second: whether that is sure.
    #[must_use]
    pub fn may_be_forbidden(&self, id: ConversationId, user: &UserId, deed: &Deed, moment: Moment) -> (bool, bool) {
        let Some(conversation) = self.conversations.get(&id) else { return (true, false) };
        match conversation.rights_since(moment) {
            Some(rights) => (!rights.may(user, deed, deed.whose(conversation)), true),
            None => (true, false),
        }
    }
}

/// Holds each entry of a conversation that is known whole to what was allowed then, and gives what comes of all.
pub fn judge(conversation: &Conversation, id: ConversationId, problems: &mut Vec<String>) -> Option<Rights> {
    let mut entries = conversation.entries.iter();
    let mut rights = Rights::begun(entries.next()?.1)?;
    for (place, entry) in entries {
        if let Some(wrong) = rights.wrong(entry, conversation) {
            let (text, role) = (crate::model::describe(&entry.bytes), rights.role(&entry.sender));
            problems.push(format!("{id} #{place} {text}: {wrong}; {role:?}, {:?}", rights.settings));
        }
        rights.take(*place, entry);
        // Ownership goes on by an entry of its own, before that of who goes.
        if !rights.is_owned() {
            problems.push(format!("{id} after #{place}: {:?}", rights.members));
        }
    }
    Some(rights)
}
