//! What users show others of what they do, at the lanes: to whom a receipt or an event goes, and whose pointers a list shows.
//!
//! A user's home lane has the rules. Every session brings its user's to all lanes when it is let in, before anything that it asks, and again when
//! they have changed; so a lane knows them of all users who have a session, and looks nothing up when something is to be told. Invariant: a lane
//! tells others nothing of what a user does of whom it does not know them.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use antiphon_engine::{
    door::{Command, Done, Refusal},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{AccountItem, SERVER_KEYS, SERVER_KEYS_KNOWN},
    ids::UserId,
};

use super::{Lane, Pending};
use crate::core::{
    mesh::{ConnectionFrame, MeshConnection, ShardId},
    privacy::Privacy,
};

/// What they show who do not show everything to everybody, as sessions of theirs have said.
#[derive(Default)]
pub(super) struct Privacies {
    of: HashMap<UserId, (Privacy, Vec<(ShardId, MeshConnection)>)>,
}

impl Privacies {
    /// A session says what its user shows; `None`: everything to everybody, or it has gone.
    pub(super) fn set(&mut self, user: &UserId, session: (ShardId, MeshConnection), privacy: Option<Privacy>) {
        let Some(privacy) = privacy else {
            if let Some((_, sessions)) = self.of.get_mut(user) {
                sessions.retain(|other| *other != session);
                if sessions.is_empty() {
                    self.of.remove(user);
                }
            }
            return;
        };
        let (known, sessions) = self.of.entry(user.clone()).or_insert_with(|| (Privacy::nothing(), Vec::new()));
        *known = privacy;
        if !sessions.contains(&session) {
            sessions.push(session);
        }
    }

    /// What a user shows who has a session; `None`: everything to everybody.
    pub(super) fn get(&self, user: &UserId) -> Option<&Privacy> {
        self.of.get(user).map(|(privacy, _)| privacy)
    }

    /// Whether a receipt of a user, who shows this, is for another.
    pub(super) fn lets_receipt(&self, of: Option<&Privacy>, other: &UserId) -> bool {
        of.is_none_or(|privacy| privacy.shows_receipts_to(other)) && self.get(other).is_none_or(Privacy::has_receipts)
    }
}

/// A question about the receipts of some users, of whom not all have been looked up.
pub(super) struct AsksReceipts {
    shard: ShardId,
    connection: MeshConnection,
    gather: u32,
    observer: UserId,
    /// Who hides them; `None`: not all could be looked up now.
    hidden: Option<Vec<UserId>>,
}

/// Account data that the engine was asked for.
pub(super) fn account_items(result: Result<Done, Refusal>) -> Result<Vec<AccountItem>, Refusal> {
    match result? {
        Done::AccountItems { items, .. } => Ok(items),
        other => unreachable!("the engine answers a list of account data with one, not {other:?}"),
    }
}

/// The same of whom an account rules; one that was erased, with all that it said, rules nothing.
pub(super) fn ruling_items(result: Result<Done, Refusal>) -> Result<Vec<AccountItem>, Refusal> {
    match account_items(result) {
        Err(Refusal { code: ErrorCode::NotFound, .. }) => Ok(Vec::new()),
        items => items,
    }
}

impl<F: Files, C: Clock, R: Random> Lane<F, C, R> {
    /// Looks up what a user's account says that has a meaning for the server.
    pub(super) fn look_up_account(&mut self, user: &UserId, pending: Pending) {
        let (after, limit) = (Some(SERVER_KEYS.to_owned()), SERVER_KEYS_KNOWN.len() as u32);
        self.submit(pending, Command::Account { user: user.clone(), after, limit });
    }

    /// What a user shows by a request that others hear of; of one who has no session here it is not known.
    pub(super) fn shows(&self, user: &UserId) -> Option<Privacy> {
        if self.registry.has(user) { self.privacies.get(user).cloned() } else { Some(Privacy::nothing()) }
    }

    /// A session asks which of these users, whose home the lane is, hide from its user how far they have read.
    pub(super) fn ask_receipts(
        &mut self,
        (shard, connection): (ShardId, MeshConnection),
        gather: u32,
        observer: UserId,
        users: Vec<UserId>,
    ) {
        let asks = AsksReceipts { shard, connection, gather, observer, hidden: Some(Vec::new()) };
        let asks = Rc::new(RefCell::new(asks));
        for user in users {
            let pending = Pending::Receipts(Box::new((asks.clone(), user.clone())));
            self.look_up_account(&user, pending);
        }
    }

    /// One of them is looked up.
    pub(super) fn receipts_are(
        asks: Rc<RefCell<AsksReceipts>>,
        user: UserId,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        {
            let mut asks = asks.borrow_mut();
            let is_hidden = match ruling_items(result) {
                Ok(items) => Privacy::of(&items).is_some_and(|privacy| !privacy.shows_receipts_to(&asks.observer)),
                Err(refusal) if refusal.code.temporary() => {
                    asks.hidden = None;
                    false
                }
                Err(_) => true,
            };
            if let Some(hidden) = asks.hidden.as_mut().filter(|_| is_hidden) {
                hidden.push(user);
            }
        }
        if let Some(AsksReceipts { shard, connection, gather, hidden, .. }) =
            Rc::into_inner(asks).map(RefCell::into_inner)
        {
            send(shard, ConnectionFrame::Receipts { connection, gather, hidden });
        }
    }
}
