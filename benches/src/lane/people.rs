//! Who talks where: conversation number `n` is the direct one of users `from-n` and `to-n`. Pure.

use antiphon_wire::ids::{ConversationId, UserId};

/// Conversations of which the ids are kept: deriving one is a SHA-256. Of more conversations none is, so that a
/// benchmark of the engine's memory does not measure this.
const KEPT_MAX: u32 = 100_000;

/// A conversation and its members.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) members: [UserId; 2],
    pub(crate) conversation: ConversationId,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct People {
    conversations: u32,
    kept: Vec<Option<Target>>,
}

impl People {
    pub(crate) fn new(conversations: u32) -> Self {
        let kept = if conversations > KEPT_MAX { Vec::new() } else { vec![None; conversations as usize] };
        Self { conversations, kept }
    }

    pub(crate) fn conversations(&self) -> u32 {
        self.conversations
    }

    /// The conversation of a number.
    pub(crate) fn of(&mut self, number: u32) -> Target {
        match self.kept.get_mut(number as usize) {
            Some(kept) => kept.get_or_insert_with(|| target(number)).clone(),
            None => target(number),
        }
    }
}

fn target(number: u32) -> Target {
    let user = |side: &str| UserId::new(&format!("{side}-{number}")).expect("a short plain name");
    let members = [user("from"), user("to")];
    Target { conversation: ConversationId::direct(&members[0], &members[1]), members }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_or_not_a_number_names_the_same_conversation() {
        let (mut few, mut many) = (People::new(10), People::new(KEPT_MAX + 1));
        for number in [0, 7, 9, 7] {
            assert_eq!(few.of(number).conversation, many.of(number).conversation);
        }
        assert_ne!(few.of(1).conversation, few.of(2).conversation);
        assert!(many.kept.is_empty() && few.kept.iter().flatten().count() == 5);
    }
}
