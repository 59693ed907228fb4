//! Invites: clients that make, revoke and use them, and what the oracle holds that to.
//!
//! Who joins by an invite may: it was made by somebody who may add members, was not revoked, used up or over, and does not let in who is kept
//! out. Who was refused might not, as far as that is sure; of one that ends it never is, since clocks leap.

use std::collections::BTreeMap;

use antiphon_wire::{
    frame::{self, EntryKind, InviteChange, InviteCode, InviteHash, InvitesAction, Joined, MakeInvite, Request},
    ids::{ConversationId, Sequence, UserId},
};

use crate::{
    answers::AskedKind,
    dice::Dice,
    model::{Change, Known, Model},
    rights::{Deed, Moment},
    world::World,
};

/// The invites of a group, as its entries make them, by the sequences of those that made them.
#[derive(Debug, Clone, Default)]
pub struct Invites(BTreeMap<u64, Invite>);

#[derive(Debug, Clone)]
struct Invite {
    hash: InviteHash,
    expires: Option<u64>,
    uses: Option<u32>,
    user: UserId,
}

impl Invites {
    /// Who made one.
    #[must_use]
    pub fn maker(&self, invite: u64) -> Option<&UserId> {
        self.0.get(&invite).map(|of| &of.user)
    }

    /// Who made that of a code.
    #[must_use]
    pub fn maker_of(&self, hash: InviteHash) -> Option<&UserId> {
        self.0.values().find(|of| of.hash == hash).map(|of| &of.user)
    }

    /// The code's hash of one that is not over at a time.
    #[must_use]
    pub fn good_at(&self, invite: u64, time_ms: u64) -> Option<InviteHash> {
        let of = self.0.get(&invite)?;
        of.expires.is_none_or(|expires| expires > time_ms).then_some(of.hash)
    }

    fn ends(&self, hash: InviteHash) -> bool {
        self.0.values().any(|of| of.hash == hash && of.expires.is_some())
    }

    /// Takes in an entry at a place.
    pub fn take(&mut self, place: u64, entry: &Known) {
        match entry.kind {
            EntryKind::Invite => match InviteChange::from_body(&entry.body) {
                Ok(InviteChange::Made { hash, expires_ms, uses }) => {
                    let (expires, user) = (expires_ms.map(|expires| expires.0), entry.sender.clone());
                    self.0.insert(place, Invite { hash, expires, uses, user });
                }
                Ok(InviteChange::Revoked(invites)) => self.0.retain(|place, _| !invites.contains(&Sequence(*place))),
                Err(_) => {}
            },
            EntryKind::Joined => {
                let Ok(Joined { invite, .. }) = Joined::from_body(&entry.body) else { return };
                if let Some(Invite { uses: Some(uses), .. }) = self.0.get_mut(&invite.0) {
                    *uses = uses.saturating_sub(1);
                    if *uses == 0 {
                        self.0.remove(&invite.0);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether rows say the same: docs/format.md has their keys.
    #[must_use]
    pub fn are_told_by(&self, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
        let row = |(place, of): (&u64, &Invite)| {
            let mut value = of.hash.0.to_vec();
            value.extend(of.expires.unwrap_or(0).to_le_bytes());
            value.extend(of.uses.unwrap_or(0).to_le_bytes());
            value.extend(of.user.as_str().as_bytes());
            ([&[3, 6], &place.to_be_bytes()[..]].concat(), value)
        };
        let told = rows.iter().filter(|(suffix, _)| suffix.starts_with(&[3, 6]));
        told.map(|(suffix, value)| (suffix.clone(), value.clone())).eq(self.0.iter().map(row))
    }
}

impl Model {
    /// An invite was made, and somebody has its code.
    pub fn invited(&mut self, code: InviteCode, invite: Sequence) {
        self.codes.push((code, invite));
    }

    /// Whether somebody who asked at that moment may be told that there is no such invite.
    #[must_use]
    pub fn may_lack_invite(&self, id: ConversationId, user: &UserId, hash: InviteHash, moment: Moment) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return true };
        let Some(rights) = conversation.rights_since(moment) else { return true };
        !rights.may(user, &Deed::Join(hash), None) || rights.invites.ends(hash)
    }

    /// Whether somebody who asked at that moment may be told what it is to.
    #[must_use]
    pub fn may_have_invite(&self, id: ConversationId, user: &UserId, hash: InviteHash, moment: Moment) -> bool {
        let rights = self.conversations.get(&id).and_then(|conversation| conversation.rights_since(moment));
        rights.is_none_or(|rights| rights.may(user, &Deed::Join(hash), None))
    }
}

impl World {
    /// Sometimes somebody makes an invite, revokes some, lists them, or joins by one.
    pub fn invite(&mut self, step: u32) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(step) << 40), "invite");
        let conversations = self.model.talked_in();
        let client = dice.index(self.clients.len());
        if !dice.chance(self.plan.invites_per_thousand) || conversations.is_empty() || !self.clients[client].running {
            return;
        }
        let conversation = self.own_or(client, dice.pick(&conversations), &dice);
        let choice = dice.below(10);
        if choice >= 5 {
            self.join(client, &dice);
            return self.pump(client);
        }
        let (action, deed) = match choice {
            0..3 => {
                let uses = dice.pick(&[None, Some(1), Some(2)]);
                let expires_in_s = dice.pick(&[None, None, None, Some(1), Some(1_000)]);
                (InvitesAction::Make(MakeInvite { expires_in_s, uses }), Deed::Invite)
            }
            3 => {
                let made = self.model.codes.iter().filter(|(code, _)| code.conversation == conversation);
                let mut invites: Vec<Sequence> = made.map(|(_, invite)| *invite).filter(|_| dice.chance(500)).collect();
                invites.push(Sequence(1 + dice.below(20)));
                invites.sort();
                invites.dedup();
                let deed = Deed::Revoke(invites.iter().map(|invite| invite.0).collect());
                (InvitesAction::Revoke(invites), deed)
            }
            _ => (InvitesAction::List(frame::InvitesPage { after: None, limit: Some(2) }), Deed::Invite),
        };
        let kind = match action {
            InvitesAction::List(_) => AskedKind::GroupPage(deed),
            _ => AskedKind::Group(deed, Change::default()),
        };
        let request = Request::Invites(frame::Invites { conversation, action });
        self.ask(client, request, Some(conversation), kind);
        self.pump(client);
    }

    fn join(&mut self, client: usize, dice: &Dice) {
        if self.model.codes.is_empty() {
            return;
        }
        let (mut code, _) = dice.pick(&self.model.codes);
        if dice.chance(50) {
            code.secret[0] ^= 1;
        }
        let look = dice.chance(300);
        let change = Change { add: vec![self.clients[client].user.clone()], remove: Vec::new() };
        let kind = AskedKind::Join { change, hash: code.hash(), look };
        self.ask(client, Request::Join(frame::Join { code, look }), Some(code.conversation), kind);
    }
}
