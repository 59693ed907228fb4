//! Commands that change a group: who is in it, who may do what, how it is.
//!
//! Members come and go, roles, settings and bans are entries like all others, each with the rows that follow from it. Where the owner leaves,
//! ownership goes to somebody else by an entry of its own, right before.
//!
//! Must not do: I/O.

use std::rc::Rc;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{Bans, EntryKind, MembershipChange, Role, RoleOf, Settings, SettingsChange, Who, roles_to_body},
    ids::{Sequence, UserId},
    limits::{BANS_PER_GROUP_MAX, GROUP_MEMBERS_MAX},
};

use crate::{
    changes::ChangedRow,
    conversation::{Conversation, MemberState},
    door::{Command, Done, Refusal},
    engine::{
        commands::{Step, Turn},
        refusal::{refuse, refuse_because},
        state::Block,
    },
    group::Group,
    seams::{Clock, Files},
};

/// What a change of a group comes to: its state, and rows beside the entry's own.
struct Changed {
    group: Group,
    rows: Vec<ChangedRow>,
}

impl Conversation {
    /// What a member may do; in a conversation of two both are members.
    pub(crate) fn role(&self, user: &UserId) -> Role {
        if self.start.direct { Role::Member } else { self.group.role(user, &self.start.creator) }
    }

    /// Whether a member is one of those; in a conversation of two both are.
    pub(crate) fn is_one_of(&self, user: &UserId, who: Who) -> bool {
        match who {
            Who::Members => self.role(user) <= Role::Member,
            Who::Admins => self.start.direct || self.role(user).is_admin(),
        }
    }

    /// To whom a group goes when its owner leaves: of the admins, or else of the members, to the one who sees furthest back.
    fn heir(&self, leaving: &[UserId]) -> Option<&UserId> {
        let stays = |member: &&MemberState| !leaving.contains(&member.user) && self.role(&member.user) <= Role::Member;
        let first =
            |member: &&MemberState| (!self.role(&member.user).is_admin(), member.visible_from, member.user.clone());
        self.members().iter().filter(stays).min_by_key(first).map(|member| &member.user)
    }
}

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// Adds members, or removes them.
    pub(super) fn change_members(&mut self, user: &UserId, mut names: Vec<UserId>, add: bool) -> Step {
        let conversation = match self.group_of(user) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        names.sort_unstable();
        names.dedup();
        names.retain(|name| conversation.member(name).is_some() != add);
        if names.is_empty() {
            let done = Done::Changed { sequence: conversation.last.sequence };
            return Step::When(conversation.record, Ok(done));
        }
        let is_allowed = if add { may_add(conversation, user, &names) } else { may_remove(conversation, user, &names) };
        if let Err(refusal) = is_allowed {
            return refusal.into();
        }
        let owner_leaves = !add && names.iter().any(|name| conversation.role(name) == Role::Owner);
        let heir = if owner_leaves { conversation.heir(&names).cloned() } else { None };
        if let Some(heir) = heir {
            // The owner stays an admin for this one entry.
            let mut roles =
                vec![RoleOf { user: heir, role: Role::Owner }, RoleOf { user: user.clone(), role: Role::Admin }];
            roles.sort_by(|one, other| one.user.cmp(&other.user));
            match self.change_group(user.clone(), EntryKind::Roles, roles_to_body(&roles), Rc::from([])) {
                Step::Staged => self.answers_later(),
                other => return other,
            }
        }
        let position = self.core.stage.next();
        let change = match add {
            true => MembershipChange { added: names, removed: Vec::new() },
            false => MembershipChange { added: Vec::new(), removed: names },
        };
        let conversation = self.slot.conversation.as_deref().expect("its member was found");
        let mut changed = Changed { group: conversation.group.clone(), rows: Vec::new() };
        changed.rows = changed.group.removed(&change.removed, &conversation.start.creator);
        let (at, messages) = (conversation.last.sequence.next(), conversation.last.ordinal);
        changed.rows.extend(changed.group.member_rows(at, messages, &change.added));
        let step = self.change(user.clone(), EntryKind::Membership, change.to_body(), changed.rows, |conversation| {
            conversation.group = changed.group;
            conversation.changed(&change.added, &change.removed);
            change.removed.as_slice().into()
        });
        if matches!(step, Step::Staged) {
            self.core.members_changed(&change.added, &change.removed, position);
        }
        step
    }

    /// Gives a group another title.
    pub(super) fn set_title(&mut self, user: UserId, title: String) -> Step {
        let conversation = match self.group_of(&user) {
            Ok(conversation) if !conversation.is_one_of(&user, conversation.group.settings.info) => {
                return refuse(ErrorCode::Forbidden).into();
            }
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        if *conversation.title == *title {
            let done = Done::Changed { sequence: conversation.last.sequence };
            return Step::When(conversation.record, Ok(done));
        }
        let body = title.as_bytes().to_vec();
        self.change(user, EntryKind::Title, body, Vec::new(), |conversation| {
            conversation.title = title.into();
            Rc::from([])
        })
    }

    /// Gives members other roles.
    pub(super) fn set_roles(&mut self, user: UserId, mut roles: Vec<RoleOf>) -> Step {
        let conversation = match self.group_of(&user) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        roles.retain(|of| conversation.member(&of.user).is_some() && conversation.role(&of.user) != of.role);
        if roles.is_empty() {
            let done = Done::Changed { sequence: conversation.last.sequence };
            return Step::When(conversation.record, Ok(done));
        }
        if let Err(refusal) = may_set_roles(conversation, &user, &mut roles) {
            return refusal.into();
        }
        self.change_group(user, EntryKind::Roles, roles_to_body(&roles), Rc::from([]))
    }

    /// Tells how a group is, or changes it.
    pub(super) fn settings(&mut self, user: UserId, set: Option<SettingsChange>) -> Step {
        let again = |user, set| Command::Settings { user, conversation: self.id, set };
        let conversation = match self.settled_member(&user, false) {
            Ok((conversation, _)) => conversation,
            Err(Ok(block)) => return Step::Wait(block, again(user, set)),
            Err(Err(refusal)) => return refusal.into(),
        };
        let (now, role) = (&conversation.group.settings, conversation.role(&user));
        let Some(set) = set else {
            let (sequence, settings) = (conversation.last.sequence, now.clone());
            return Step::Done(Ok(Done::Settings { sequence, settings: Box::new(settings), role }));
        };
        if conversation.start.direct {
            return refuse_because(ErrorCode::Forbidden, "a direct conversation has no settings").into();
        }
        let is_allowed = if set.is_of_rights() { role.is_admin() } else { conversation.is_one_of(&user, now.info) };
        if !is_allowed {
            return refuse(ErrorCode::Forbidden).into();
        }
        let settings = set.applied_to(now);
        if settings == *now {
            let done = Done::Settings { sequence: conversation.last.sequence, settings: Box::new(settings), role };
            return Step::When(conversation.record, Ok(done));
        }
        let step = self.change_group(user, EntryKind::Settings, settings.to_body(), Rc::from([]));
        self.answers(&step, |sequence| Done::Settings { sequence, settings: Box::new(settings), role });
        step
    }

    /// Keeps users out of a group, or lets them come again.
    pub(super) fn ban(&mut self, user: &UserId, mut names: Vec<UserId>, on: bool) -> Step {
        let conversation = match self.group_of(user) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        names.sort_unstable();
        names.dedup();
        names.retain(|name| conversation.group.bans().contains(name) != on);
        if let Err(refusal) = may_remove(conversation, user, &names) {
            return refusal.into();
        }
        if names.is_empty() {
            let done = Done::Changed { sequence: conversation.last.sequence };
            return Step::When(conversation.record, Ok(done));
        }
        if names.contains(user) {
            return refuse_because(ErrorCode::Invalid, "nobody keeps oneself out").into();
        }
        if on && conversation.group.bans().len() + names.len() > BANS_PER_GROUP_MAX {
            return refuse(ErrorCode::LimitReached).into();
        }
        let users: Vec<_> = names.into_iter().map(|name| (conversation.member(&name).is_some(), name)).collect();
        let bans = Bans { on, users: users.into_iter().map(|(is_member, name)| (name, is_member)).collect() };
        let removed: Vec<UserId> = bans.removed().cloned().collect();
        let position = self.core.stage.next();
        let step = self.change_group(user.clone(), EntryKind::Bans, bans.to_body(), Rc::from(removed.as_slice()));
        if matches!(step, Step::Staged) && !removed.is_empty() {
            self.core.members_changed(&[], &removed, position);
        }
        step
    }

    /// A page of those who have another role than member.
    pub(super) fn roles_page(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Done, Result<Block, Refusal>> {
        let (conversation, _) = self.settled_member(user, false)?;
        let is_after = |of: &UserId| after.is_none_or(|after| of > after);
        // The creator may be owner without a row; members are in order.
        let of_members = conversation.members().iter().map(|member| &member.user).filter(|of| is_after(of));
        let mut roles = of_members
            .map(|of| RoleOf { user: of.clone(), role: conversation.role(of) })
            .filter(|of| of.role != Role::Member && !conversation.start.direct);
        let page = roles.by_ref().take(limit as usize).collect();
        let more = roles.next().is_some();
        Ok(Done::Roles { roles: page, more })
    }

    /// A page of those who are kept out.
    pub(super) fn bans_page(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: u32,
    ) -> Result<Done, Result<Block, Refusal>> {
        let (conversation, _) = self.settled_member(user, false)?;
        if !conversation.is_one_of(user, conversation.group.settings.remove) {
            return Err(Err(refuse(ErrorCode::Forbidden)));
        }
        let is_after = |of: &&UserId| after.is_none_or(|after| *of > after);
        let mut bans = conversation.group.bans().iter().filter(is_after);
        let users = bans.by_ref().take(limit as usize).cloned().collect();
        Ok(Done::Bans { users, more: bans.next().is_some() })
    }

    /// Stages an entry about the group, with the rows that follow from it.
    pub(super) fn change_group(&mut self, user: UserId, kind: EntryKind, body: Vec<u8>, removed: Rc<[UserId]>) -> Step {
        let conversation = self.slot.conversation.as_deref().expect("its member was found");
        let mut group = conversation.group.clone();
        let at = conversation.last.sequence.next();
        let rows = group.take(kind, at, &user, &body, &conversation.start.creator).expect("it was made here");
        self.change(user, kind, body, rows, |conversation| {
            conversation.group = group;
            conversation.changed(&[], &removed);
            removed
        })
    }

    /// The change that was staged last, if it was, is answered so.
    pub(super) fn answers(&mut self, step: &Step, done: impl FnOnce(Sequence) -> Done) {
        if let (Step::Staged, Some(staged)) = (step, self.core.stage.staged.back_mut()) {
            let Done::Changed { sequence } = staged.done else { unreachable!("as every change of a group") };
            staged.done = done(sequence);
        }
    }

    /// The entry that was staged last is a part of a command that another answers.
    pub(super) fn answers_later(&mut self) {
        if let Some(staged) = self.core.stage.staged.back_mut() {
            staged.token = None;
        }
    }
}

/// Whether a user may add these, who are no members.
pub(super) fn may_add(conversation: &Conversation, user: &UserId, names: &[UserId]) -> Result<(), Refusal> {
    if !conversation.is_one_of(user, conversation.group.settings.add) {
        return Err(refuse(ErrorCode::Forbidden));
    }
    if names.iter().any(|name| conversation.group.bans().contains(name)) {
        return Err(refuse_because(ErrorCode::Forbidden, "somebody of these is kept out"));
    }
    if conversation.members().len() + names.len() > GROUP_MEMBERS_MAX {
        return Err(refuse(ErrorCode::LimitReached));
    }
    Ok(())
}

/// Whether a user may remove these: oneself always, others as the settings say, and nobody above oneself.
fn may_remove(conversation: &Conversation, user: &UserId, names: &[UserId]) -> Result<(), Refusal> {
    if names == [user.clone()] {
        return Ok(());
    }
    let own = conversation.role(user);
    let is_above = |name: &UserId| conversation.member(name).is_some() && conversation.role(name) < own;
    if !conversation.is_one_of(user, conversation.group.settings.remove) || names.iter().any(is_above) {
        return Err(refuse(ErrorCode::Forbidden));
    }
    Ok(())
}

/// Whether a user may give these roles; a new owner makes the old one an admin.
fn may_set_roles(conversation: &Conversation, user: &UserId, roles: &mut Vec<RoleOf>) -> Result<(), Refusal> {
    let own = conversation.role(user);
    let is_below = |of: &RoleOf| !conversation.role(&of.user).is_admin() && !of.role.is_admin();
    let owners = roles.iter().filter(|of| of.role == Role::Owner).count();
    match own {
        Role::Owner if owners > 1 => Err(refuse_because(ErrorCode::Invalid, "a group has one owner")),
        Role::Owner => {
            let own = roles.iter().position(|of| of.user == *user);
            match (owners, own) {
                (0, Some(_)) => return Err(refuse_because(ErrorCode::Invalid, "a group needs an owner")),
                (1, None) => {
                    let old = RoleOf { user: user.clone(), role: Role::Admin };
                    let place = roles.partition_point(|of| of.user < *user);
                    roles.insert(place, old);
                }
                _ => {}
            }
            Ok(())
        }
        Role::Admin if roles.iter().all(is_below) => Ok(()),
        Role::Admin | Role::Member | Role::Reader => Err(refuse(ErrorCode::Forbidden)),
    }
}

/// Whether settings let a member send, in words for who may not.
pub(super) fn may_send(conversation: &Conversation, user: &UserId) -> Result<(), Refusal> {
    let Settings { send, .. } = &conversation.group.settings;
    if conversation.is_one_of(user, *send) {
        return Ok(());
    }
    Err(refuse_because(ErrorCode::Forbidden, "only some of the group may write"))
}
