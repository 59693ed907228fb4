//! Who is looking at which conversation: the sessions that are given whatever happens in a large one.
//!
//! A session looks from the moment at which it asks to, so that nothing escapes it that comes before its answer; until the engine has answered
//! it is for each entry to be seen whether the user is a member.
//!
//! Invariant: a viewer who is said to be a member is one; who is removed does not look any more.
//! Must not do: I/O, or read a clock.

use std::collections::HashMap;

use antiphon_wire::{
    ids::{ConversationId, UserId},
    limits::VIEWS_MAX,
};

use super::mesh::{MeshConnection, ShardId};

/// A session that looks at a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) user: UserId,
    pub(crate) session: (ShardId, MeshConnection),
    /// The engine has said so.
    pub(crate) is_member: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Views {
    conversations: HashMap<ConversationId, Vec<Viewer>>,
    sessions: HashMap<(ShardId, MeshConnection), Vec<ConversationId>>,
}

impl Views {
    /// Whether a session may look at this one, too.
    pub(crate) fn has_room(&self, session: (ShardId, MeshConnection), conversation: ConversationId) -> bool {
        self.sessions.get(&session).is_none_or(|all| all.len() < VIEWS_MAX || all.contains(&conversation))
    }

    /// A session looks at a conversation from now on, if its user may.
    pub(crate) fn open(&mut self, user: &UserId, session: (ShardId, MeshConnection), conversation: ConversationId) {
        let all = self.sessions.entry(session).or_default();
        if !all.contains(&conversation) {
            all.push(conversation);
            self.conversations.entry(conversation).or_default().push(Viewer {
                user: user.clone(),
                session,
                is_member: false,
            });
        }
    }

    /// The user of a session may look at a conversation, if it does not look away meanwhile.
    pub(crate) fn confirm(&mut self, session: (ShardId, MeshConnection), conversation: ConversationId) {
        let viewers = self.conversations.get_mut(&conversation).into_iter().flatten();
        viewers.filter(|viewer| viewer.session == session).for_each(|viewer| viewer.is_member = true);
    }

    /// A session does not look at a conversation any more.
    pub(crate) fn close(&mut self, session: (ShardId, MeshConnection), conversation: ConversationId) {
        let Some(all) = self.sessions.get_mut(&session) else { return };
        all.retain(|open| *open != conversation);
        if all.is_empty() {
            self.sessions.remove(&session);
        }
        self.drop_viewers(conversation, |viewer| viewer.session == session);
    }

    /// A session has gone.
    pub(crate) fn forget(&mut self, session: (ShardId, MeshConnection)) {
        for conversation in self.sessions.remove(&session).unwrap_or_default() {
            self.drop_viewers(conversation, |viewer| viewer.session == session);
        }
    }

    /// Users are no members any more.
    pub(crate) fn removed(&mut self, conversation: ConversationId, users: &[UserId]) {
        let viewers = self.conversations.get(&conversation).into_iter().flatten();
        let gone: Vec<_> = viewers.filter(|viewer| users.contains(&viewer.user)).map(|viewer| viewer.session).collect();
        gone.into_iter().for_each(|session| self.close(session, conversation));
    }

    /// Who looks at a conversation.
    pub(crate) fn of(&self, conversation: ConversationId) -> &[Viewer] {
        self.conversations.get(&conversation).map_or(&[], Vec::as_slice)
    }

    /// Whether a session looks at a conversation.
    pub(crate) fn is_open(&self, session: (ShardId, MeshConnection), conversation: ConversationId) -> bool {
        self.sessions.get(&session).is_some_and(|all| all.contains(&conversation))
    }

    fn drop_viewers(&mut self, conversation: ConversationId, goes: impl Fn(&Viewer) -> bool) {
        let Some(viewers) = self.conversations.get_mut(&conversation) else { return };
        viewers.retain(|viewer| !goes(viewer));
        if viewers.is_empty() {
            self.conversations.remove(&conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALL: ConversationId = ConversationId([1; 16]);

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn session(slot: u32) -> (ShardId, MeshConnection) {
        (ShardId(0), MeshConnection { slot, generation: 0 })
    }

    fn sessions(views: &Views, conversation: ConversationId) -> Vec<u32> {
        views.of(conversation).iter().map(|viewer| viewer.session.1.slot).collect()
    }

    #[test]
    fn who_looks_does_so_until_the_end_of_one_of_three_things() {
        let mut views = Views::default();
        let room = ConversationId([2; 16]);
        for (name, slot) in [("ann", 1), ("ann", 2), ("bob", 3), ("cleo", 4)] {
            views.open(&user(name), session(slot), HALL);
            views.open(&user(name), session(slot), HALL);
            views.open(&user(name), session(slot), room);
        }
        views.confirm(session(1), HALL);
        views.confirm(session(9), HALL);
        views.open(&user("ann"), session(1), HALL);
        let sure: Vec<bool> = views.of(HALL).iter().map(|viewer| viewer.is_member).collect();
        assert_eq!(sure, [true, false, false, false]);
        views.close(session(4), HALL);
        views.close(session(4), HALL);
        assert_eq!((sessions(&views, HALL), sessions(&views, room)), (vec![1, 2, 3], vec![1, 2, 3, 4]));
        views.removed(HALL, &[user("ann"), user("nobody")]);
        assert_eq!((sessions(&views, HALL), sessions(&views, room)), (vec![3], vec![1, 2, 3, 4]));
        assert!(views.is_open(session(3), HALL) && !views.is_open(session(1), HALL));
        (1..=4).for_each(|slot| views.forget(session(slot)));
        assert!(views.conversations.is_empty() && views.sessions.is_empty());
    }

    #[test]
    fn a_session_looks_at_so_many() {
        let mut views = Views::default();
        let conversation = |number: usize| ConversationId([number as u8; 16]);
        for number in 0..VIEWS_MAX {
            assert!(views.has_room(session(1), conversation(number)));
            views.open(&user("ann"), session(1), conversation(number));
        }
        assert!(!views.has_room(session(1), conversation(VIEWS_MAX)));
        assert!(views.has_room(session(1), conversation(3)) && views.has_room(session(2), conversation(3)));
        views.close(session(1), conversation(3));
        assert!(views.has_room(session(1), conversation(VIEWS_MAX)));
    }
}
