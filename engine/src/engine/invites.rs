//! Invites: who makes and revokes them, and users who become members by them.
//!
//! An invite is good while it has not ended, has uses left, and who made it is a member who may add others. To everybody else it does not
//! exist: what a code cannot do is answered as if there were no such code, whatever the reason.
//!
//! Must not do: I/O.

use std::rc::Rc;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{EntryKind, Invite, InviteChange, InviteCode, JoinAnswer, Joined, MakeInvite},
    ids::{Sequence, TimestampMs, UserId},
    limits::{GROUP_MEMBERS_MAX, INVITES_PER_GROUP_MAX},
};

use crate::{
    conversation::Conversation,
    door::{Command, Done, Refusal},
    engine::{
        commands::{Step, Turn},
        refusal::refuse,
        state::Block,
    },
    group::InviteRow,
    seams::{Clock, Files, Random},
};

impl<F: Files, C: Clock, R: Random> Turn<'_, F, C, R> {
    /// Makes an invite, and gives its code.
    pub(super) fn make_invite(&mut self, user: UserId, make: &MakeInvite) -> Step {
        let now = self.core.stage.time_at(self.shared.clock.now());
        let conversation = match self.group_of(&user) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        if !may_invite(conversation, &user) {
            return refuse(ErrorCode::Forbidden).into();
        }
        let invites = conversation.group.invites();
        if invites.len() >= INVITES_PER_GROUP_MAX {
            let over = invites.iter().filter(|(_, row)| row.is_over(now)).map(|(invite, _)| *invite);
            let over: Vec<Sequence> = over.collect();
            if over.is_empty() {
                return refuse(ErrorCode::LimitReached).into();
            }
            let body = InviteChange::Revoked(over).to_body();
            match self.change_group(user.clone(), EntryKind::Invite, body, Rc::from([])) {
                Step::Staged => self.answers_later(),
                other => return other,
            }
        }
        let mut secret = [0; 16];
        secret.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.shared.random.next().to_le_bytes()));
        let code = InviteCode { conversation: self.id, secret };
        let expires_ms = make.expires_in_s.map(|seconds| TimestampMs(now.0 + u64::from(seconds) * 1_000));
        let made = InviteChange::Made { hash: code.hash(), expires_ms, uses: make.uses };
        let step = self.change_group(user, EntryKind::Invite, made.to_body(), Rc::from([]));
        self.answers(&step, |sequence| Done::Invited { sequence, code });
        step
    }
}

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// Nobody joins by these any more: one's own, or anybody's if one may make some.
    pub(super) fn revoke_invites(&mut self, user: UserId, mut invites: Vec<Sequence>) -> Step {
        let conversation = match self.group_of(&user) {
            Ok(conversation) => conversation,
            Err(refusal) => return refusal.into(),
        };
        let rows = conversation.group.invites();
        let is_own = |invite: &Sequence| rows.get(invite).is_some_and(|row| row.user == user);
        if !may_invite(conversation, &user) && !invites.iter().all(is_own) {
            return refuse(ErrorCode::Forbidden).into();
        }
        invites.retain(|invite| rows.contains_key(invite));
        if invites.is_empty() {
            let done = Done::Changed { sequence: conversation.last.sequence };
            return Step::When(conversation.record, Ok(done));
        }
        let body = InviteChange::Revoked(invites).to_body();
        self.change_group(user, EntryKind::Invite, body, Rc::from([]))
    }

    /// A page of the invites that are good, or would be if who made them still might.
    pub(super) fn invites_page(
        &self,
        user: &UserId,
        after: Option<Sequence>,
        limit: u32,
    ) -> Result<Done, Result<Block, Refusal>> {
        let (conversation, _) = self.settled_member(user, false)?;
        if conversation.start.direct || !may_invite(conversation, user) {
            return Err(Err(refuse(ErrorCode::Forbidden)));
        }
        let now = self.core.stage.time_at(self.shared.clock.now());
        let is_next =
            |(invite, row): &(&Sequence, &InviteRow)| after.is_none_or(|after| **invite > after) && !row.is_over(now);
        let mut rows = conversation.group.invites().iter().filter(is_next);
        let page = rows.by_ref().take(limit as usize).map(|(invite, row)| Invite {
            invite: *invite,
            user: row.user.clone(),
            expires_ms: row.expires,
            uses: row.uses,
        });
        let invites = page.collect();
        Ok(Done::Invites { invites, more: rows.next().is_some() })
    }

    /// Makes the user a member by an invite, or only tells what it is to.
    pub(super) fn join(&mut self, user: UserId, code: InviteCode, look: bool) -> Step {
        let invite = match self.invite_of(&user, &code) {
            Ok(invite) => invite,
            Err(refusal) => return refusal.into(),
        };
        let conversation = self.slot.conversation.as_deref().expect("it has the invite");
        let Some(invite) = invite else {
            let done = Done::Join(Box::new(told_of(conversation, Some(conversation.last.sequence))));
            return Step::When(conversation.record, Ok(done));
        };
        if look {
            if !self.core.stage.durable(conversation.change) {
                return Step::Wait(Block::Settle(conversation.change), Command::Join { user, code, look });
            }
            return Step::Done(Ok(Done::Join(Box::new(told_of(conversation, None)))));
        }
        let (body, position) = (Joined { invite, user: user.clone() }.to_body(), self.core.stage.next());
        let mut group = conversation.group.clone();
        let (at, messages) = (conversation.last.sequence.next(), conversation.last.ordinal);
        let taken = group.take(EntryKind::Joined, at, &user, &body, &conversation.start.creator);
        let mut rows = taken.expect("it was made here");
        rows.extend(group.member_rows(at, messages, std::slice::from_ref(&user)));
        let came = [user.clone()];
        let step = self.change(user, EntryKind::Joined, body, rows, |conversation| {
            conversation.group = group;
            conversation.changed(&came, &[]);
            Rc::from([])
        });
        if matches!(step, Step::Staged) {
            self.core.members_changed(&came, &[], position);
        }
        let conversation = self.slot.conversation.as_deref().expect("it has the invite");
        let mut told = told_of(conversation, None);
        self.answers(&step, |sequence| {
            told.sequence = Some(sequence);
            Done::Join(Box::new(told))
        });
        step
    }

    /// The invite by which a user who is no member would join; `None` for a member, who needs none.
    pub(super) fn invite_of(&self, user: &UserId, code: &InviteCode) -> Result<Option<Sequence>, Refusal> {
        let not_found = || refuse(ErrorCode::NotFound);
        let conversation = self.slot.conversation.as_deref().ok_or_else(not_found)?;
        if conversation.start.direct || self.core.memory.hides(self.id) {
            return Err(not_found());
        }
        if conversation.member(user).is_some() {
            return Ok(None);
        }
        let now = self.core.stage.time_at(self.shared.clock.now());
        let (hash, group) = (code.hash(), &conversation.group);
        let (invite, row) = group.invites().iter().find(|(_, row)| row.hash == hash).ok_or_else(not_found)?;
        let is_kept_out = group.bans().contains(user);
        let is_good = conversation.member(&row.user).is_some() && may_invite(conversation, &row.user);
        if row.is_over(now) || is_kept_out || !is_good {
            return Err(not_found());
        }
        if conversation.members().len() >= GROUP_MEMBERS_MAX {
            return Err(refuse(ErrorCode::LimitReached));
        }
        Ok(Some(*invite))
    }
}

fn may_invite(conversation: &Conversation, user: &UserId) -> bool {
    conversation.is_one_of(user, conversation.group.settings.add)
}

fn told_of(conversation: &Conversation, sequence: Option<Sequence>) -> JoinAnswer {
    let settings = &conversation.group.settings;
    JoinAnswer {
        conversation: conversation.id,
        epoch: conversation.epoch(),
        title: conversation.title.to_string(),
        description: settings.description.clone(),
        picture: settings.picture.clone(),
        members: conversation.members().len() as u32,
        sequence,
    }
}
