//! Clients that look at conversations, and what comes of large ones to those who do not: hints, and messages that mean them.
//!
//! Whoever is told that there is an entry may see it. At the end whoever does not have an entry has heard of it, and has it once it looks.

use antiphon_wire::{
    frame::{Advanced, EntryBytes},
    ids::{ConversationId, UserId},
};

use crate::{
    clients::Client,
    contents::said,
    coverage::{Count, Coverage},
    dice::Dice,
    model::Model,
    world::World,
};

impl Model {
    /// A user is told how far a conversation is.
    pub fn hinted(&mut self, user: &UserId, advanced: &Advanced, coverage: &mut Coverage) {
        coverage.one(Count::Hints);
        let (id, place) = (advanced.conversation, advanced.sequence.0);
        self.check_not_erased(user, id, "a hint");
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return self.fail(|| format!("{user} is told of {id}, which nobody has made"));
        };
        conversation.durable = conversation.durable.max(place);
        let known = conversation.entries.get(&place).map(|known| (known.ordinal, known.time_ms));
        let epoch = *conversation.epoch.get_or_insert(advanced.epoch.0);
        let told = (advanced.ordinal.0, advanced.time_ms.0);
        self.check(epoch == advanced.epoch.0 && known.is_none_or(|known| known == told), || {
            format!("{user} is told of {id} {advanced:?}, which is {known:?} in epoch {epoch}")
        });
        self.hints.insert((id, user.clone(), place));
    }

    /// A user is given an entry that means it.
    pub fn mentioned(&mut self, user: &UserId, entry: &EntryBytes, coverage: &mut Coverage) {
        coverage.one(Count::Mentioned);
        let Some((id, place)) = self.entry(user, &entry.0) else { return };
        let view = entry.view().expect("a session gives entries that are sound");
        let content = said(&view.body);
        let is_meant = (content.everybody || content.mentions.has(user)) && view.sender.as_str() != user.as_str();
        self.check(is_meant, || format!("{user} is given {id} #{place}, which does not mean it"));
        self.pushes.insert((id, user.clone(), place));
    }
}

impl Client {
    /// Whether the client leaves entries with the server, and knows of those up to there.
    #[must_use]
    pub fn has_heard_of(&self, id: ConversationId, place: u64) -> bool {
        self.is_lazy() && self.app.ends.get(&id) == Some(&place)
    }
}

impl World {
    /// Sometimes somebody begins or ends to look at a conversation, its own or not.
    pub fn look_into(&mut self, step: u32) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(step) << 40), "views");
        let conversations = self.model.talked_in();
        let client = dice.index(self.clients.len());
        if conversations.is_empty() || !self.clients[client].running || !dice.chance(self.plan.views_per_thousand) {
            return;
        }
        let (id, open) = (dice.pick(&conversations), dice.chance(600));
        self.coverage.add(Count::Views, u64::from(open));
        let now_ms = self.now_ms();
        self.clients[client].session.view(now_ms, id, open);
        self.pump(client);
    }

    /// Everybody looks at everything.
    pub fn look_into_everything(&mut self) {
        let (now_ms, conversations) = (self.now_ms(), self.model.talked_in());
        for client in 0..self.clients.len() {
            if self.clients[client].wanted && self.clients[client].is_lazy() {
                for id in &conversations {
                    self.clients[client].session.view(now_ms, *id, true);
                }
                self.pump(client);
            }
        }
    }
}
