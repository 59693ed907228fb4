//! What happens in a large conversation: whole to those who look at it or are meant by it, to the others a hint that there is something.

use std::rc::Rc;

use antiphon_engine::{
    door::{Command, Done, HistoryRange, Partly, Refusal},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    binary,
    codes::ErrorCode,
    frame::{
        Advanced, ArchivedEntry, ArchivedEntryKind, EntryKind, MembershipChange, Receipt, ServerFrame, View,
        ViewAnswer, members_changed, view_content, view_entry,
    },
    ids::{ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
    limits::VIEWS_MAX,
};

use super::{Asked, Lane, Pending, SLICE_MS, conflation_key, error_frame};
use crate::core::{
    mesh::{ConnectionFrame, MeshConnection, ShardId},
    requests::RequestKind,
    views::Viewer,
};

/// Who is meant by an entry, beside those who look at the conversation.
enum Meant {
    Everybody,
    These(Vec<UserId>),
}

impl<F: Files, C: Clock, R: Random> Lane<F, C, R> {
    /// Whether a conversation is so large that only who looks at it is given what happens.
    pub(super) fn is_hinted(&self, members: &[UserId]) -> bool {
        members.len() > self.rules.bodies_members
    }

    /// A session looks at a conversation from now on, or does not any more.
    pub(super) fn view(
        &mut self,
        user: UserId,
        View { conversation, open }: View,
        asked: Asked,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let session = (asked.shard, asked.connection);
        if !open {
            self.views.close(session, conversation);
            let answer = ServerFrame::ViewAnswer(ViewAnswer { sequence: None });
            return reply(&asked, &answer, send);
        }
        if !self.views.has_room(session, conversation) {
            let text = format!("at most {VIEWS_MAX} conversations are open on one connection");
            let refusal = Refusal { code: ErrorCode::LimitReached, text };
            return reply(&asked, &error_frame(refusal), send);
        }
        self.views.open(&user, session, conversation);
        // It says whether the user may look, and where the conversation ends.
        let command = Command::History { user, conversation, range: HistoryRange::Latest, limit: 1 };
        self.submit(Pending::Request(asked), command);
    }

    /// The engine has answered whether a session may look at a conversation.
    pub(super) fn viewed(
        &mut self,
        kind: &RequestKind,
        result: &Result<Done, Refusal>,
        session: (ShardId, MeshConnection),
    ) {
        match (kind, result) {
            (RequestKind::View(conversation), Ok(_)) => self.views.confirm(session, *conversation),
            (RequestKind::View(conversation), Err(_)) => self.views.close(session, *conversation),
            _ => {}
        }
    }

    /// Takes in who has come and gone by an entry.
    pub(super) fn changed_members(
        &mut self,
        conversation: ConversationId,
        entry: &ArchivedEntry,
        members: &Rc<[UserId]>,
    ) -> Vec<UserId> {
        let nobody = MembershipChange { added: Vec::new(), removed: Vec::new() };
        // The engine wrote it.
        let MembershipChange { added, removed } =
            members_changed(EntryKind::from(&entry.kind), &entry.body).unwrap_or(nobody);
        self.fanout.changed(conversation, added.iter().chain(&removed), members, &self.registry);
        self.hints.changed(conversation, members);
        self.views.removed(conversation, &removed);
        added
    }

    /// Gives an entry to those who look at the conversation, and to those whom it is about; the others will hear how far it is.
    pub(super) fn push_to_viewers(
        &mut self,
        members: &Rc<[UserId]>,
        added: &[UserId],
        archive: &[u8],
        partly: Option<&Partly>,
        now_ms: u64,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let Ok(entry) = view_entry(archive) else { return };
        let last = advanced(entry);
        let conversation = last.conversation;
        let sender = UserId::new(&entry.sender).ok();
        let sees_all = |user: &UserId| partly.is_none_or(|partly| partly.recipients.binary_search(user).is_err());
        let looks = |viewer: &&Viewer| viewer.is_member || members.binary_search(&viewer.user).is_ok();
        let viewers = self.views.of(conversation).iter().filter(looks);
        for Viewer { session, .. } in viewers.filter(|viewer| sees_all(&viewer.user)) {
            super::address(&mut self.recipients, *session);
        }
        self.address_unless_viewing(conversation, added.iter());
        self.give(conversation, 0, || binary::encode_message(archive), send);
        if let Some(partly) = partly {
            let viewers = self.views.of(conversation).iter().filter(looks);
            for Viewer { session, .. } in viewers.filter(|viewer| !sees_all(&viewer.user)) {
                super::address(&mut self.recipients, *session);
            }
            self.give(conversation, 0, || binary::encode_message(&partly.archive), send);
        }
        match meant(entry, members) {
            Meant::Everybody => {
                let there = self.fanout.there(conversation, members, &self.registry).to_vec();
                self.address_unless_viewing(conversation, there.iter().filter(|user| user.as_str() != &*entry.sender));
            }
            Meant::These(users) => self.address_unless_viewing(conversation, users.iter()),
        }
        self.give(conversation, 0, || binary::encode_mentioned(archive), send);
        if matches!(entry.kind, ArchivedEntryKind::Message) {
            // Whoever writes has read everything, on all devices; those who look see the message itself.
            self.address_unless_viewing(conversation, sender.iter());
            let receipt = || {
                let (user, read) = (sender.clone().expect("it is addressed"), last.sequence);
                ServerFrame::Receipt(Receipt { conversation, user, read, delivered: read })
            };
            let key = conflation_key(conversation, sender.as_ref(), "");
            self.give(conversation, key, || binary::encode_server(None, &receipt()), send);
        }
        self.hints.note(members.clone(), last, self.position, now_ms);
    }

    /// Those who look at a conversation are told something by the way.
    pub(super) fn address_viewers(&mut self, conversation: ConversationId, tells: impl Fn(&UserId) -> bool) {
        let viewers = self.views.of(conversation).iter().filter(|viewer| viewer.is_member && tells(&viewer.user));
        for Viewer { session, .. } in viewers {
            super::address(&mut self.recipients, *session);
        }
    }

    /// Tells some of those who do not look at large conversations that these have gone on, if it is time for that, `slower` times as slowly as
    /// at rest.
    pub fn tell_hints(&mut self, now_ms: u64, slower: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
        if self.hints_at_ms > now_ms {
            return;
        }
        let (at_a_time, apart_ms) = (self.rules.at_a_time, self.rules.hint_ms);
        let floor = self.hints.floor();
        let slice = self.hints.slice(now_ms, at_a_time, apart_ms, &mut self.fanout, &self.registry);
        let Some((last, users)) = slice else { return };
        self.hints_at_ms = now_ms + SLICE_MS * slower;
        let conversation = last.conversation;
        self.address_unless_viewing(conversation, users.iter());
        // One that is about a later entry says all.
        let key = conflation_key(conversation, None, "");
        self.give(conversation, key, || binary::encode_server(None, &ServerFrame::Advanced(last)), send);
        if self.hints.floor() != floor {
            self.tell_position_now(now_ms, send);
        }
    }

    /// When [`Self::tell_hints`] has something to do.
    #[must_use]
    pub fn hints_wake_at_ms(&self) -> Option<u64> {
        self.hints.due_ms().map(|due_ms| due_ms.max(self.hints_at_ms))
    }

    fn address_unless_viewing<'a>(&mut self, conversation: ConversationId, users: impl Iterator<Item = &'a UserId>) {
        for user in users {
            for route in self.registry.routes(user) {
                let session = (route.shard, route.connection);
                if !self.views.is_open(session, conversation) {
                    super::address(&mut self.recipients, session);
                }
            }
        }
    }
}

pub(super) fn reply(asked: &Asked, frame: &ServerFrame, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
    let Asked { shard, connection, gather, id, .. } = *asked;
    send(shard, ConnectionFrame::Reply { connection, gather, frame: binary::encode_server(id, frame) });
}

/// How far a conversation is by its last entry.
fn advanced(entry: &ArchivedEntry) -> Advanced {
    Advanced {
        conversation: ConversationId(entry.conversation.0),
        epoch: Epoch(entry.epoch.0.to_native()),
        sequence: Sequence(entry.sequence.0.to_native()),
        ordinal: Ordinal(entry.ordinal.0.to_native()),
        time_ms: TimestampMs(entry.time_ms.0.to_native()),
    }
}

/// Which other members a message means.
fn meant(entry: &ArchivedEntry, members: &[UserId]) -> Meant {
    let content = match EntryKind::from(&entry.kind) {
        EntryKind::Message => view_content(&entry.body).ok(),
        _ => None,
    };
    match content {
        Some(content) if content.everybody => Meant::Everybody,
        content => {
            let names = content.iter().flat_map(|content| content.mentions.names());
            let users = names.filter(|name| **name != *entry.sender).filter_map(|name| UserId::new(name).ok());
            Meant::These(users.filter(|user| members.binary_search(user).is_ok()).collect())
        }
    }
}
