//! The oracle of what is told for the moment: it is heard as it was told, by others than who told it, and by nobody who was no member since.
//!
//! It may be lost, or come twice where a session is attached anew; what came of it in order is nobody's promise.

use std::collections::BTreeMap;

use antiphon_wire::{
    frame::{self, JsonText},
    ids::{ConversationId, UserId},
};

use crate::model::Model;

/// What was told, by its number.
#[derive(Debug, Default)]
pub struct Tells {
    told: BTreeMap<u64, Told>,
}

/// One of them.
#[derive(Debug)]
struct Told {
    conversation: ConversationId,
    user: UserId,
    name: String,
    /// When, as the oracle counts time.
    at: u64,
}

/// The data that bears a number.
#[must_use]
pub fn data(number: u64) -> JsonText {
    JsonText(format!("{{\"number\":{number}}}"))
}

fn number(data: &JsonText) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_str(&data.0).ok()?;
    value["number"].as_u64()
}

impl Model {
    /// A member, or somebody who would be one, is about to tell something.
    pub fn telling(&mut self, number: u64, conversation: ConversationId, user: &UserId, name: &str) {
        let (user, name, at) = (user.clone(), name.to_owned(), self.asking());
        self.tells.told.insert(number, Told { conversation, user, name, at });
    }

    /// A client hears of it.
    pub fn heard(&mut self, by: &UserId, event: &frame::Event) {
        let of = event.data.as_ref().and_then(number).and_then(|number| self.tells.told.get(&number));
        let is_so = of
            .is_some_and(|of| (of.conversation, &of.user, &of.name) == (event.conversation, &event.user, &event.event));
        let since = of.map_or(0, |of| of.at);
        let may_hear = *by != event.user
            && self.conversations.get(&event.conversation).is_some_and(|of| of.may_have_had(by, since));
        self.check(is_so, || format!("{by} hears what nobody told: {event:?}"));
        self.check(may_hear, || format!("{by} hears {event:?}, and was no member"));
        self.check_not_erased(by, event.conversation, "an event");
    }
}
