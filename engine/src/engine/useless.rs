//! Which rows merges leave out: message ids that are forgotten, and whatever there is of a conversation that was erased.
//!
//! Nobody reads either of them. Must not do: I/O.

use std::sync::Arc;

use antiphon_wire::ids::ConversationId;

use crate::{compaction::Expiry, keys, window::Horizon};

/// Rows that are of no use any more.
#[derive(Debug, Clone)]
pub(super) struct Useless {
    pub(super) horizon: Horizon,
    /// Conversations that were erased, ascending.
    pub(super) erased: Arc<[ConversationId]>,
}

impl Useless {
    fn is_of_erased(&self, key: &[u8]) -> bool {
        !self.erased.is_empty() && keys::conversation_of(key).is_some_and(|id| self.erased.binary_search(&id).is_ok())
    }
}

impl Expiry for Useless {
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool {
        self.is_of_erased(key) || self.horizon.is_expired(key, value)
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool {
        self.horizon.covers(first_key, last_key, times)
    }

    fn hides_nothing(&self, key: &[u8]) -> bool {
        // What it would hide is of no use either.
        self.is_of_erased(key)
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{ClientMessageId, Sequence, UserId};

    use super::*;

    #[test]
    fn all_rows_of_an_erased_conversation_are_of_no_use_and_no_others() {
        let [one, erased, other] = [3, 7, 9].map(|byte| ConversationId([byte; 16]));
        let useless = Useless { horizon: Horizon::default(), erased: Arc::new([erased]) };
        let user = UserId::new("ann").unwrap();
        for (id, is_useless) in [(one, false), (erased, true), (other, false)] {
            for key in [
                keys::lost(id, Sequence(1)),
                keys::single(id, keys::Family::Tail),
                keys::of_user(id, keys::Family::Member, &user),
                keys::entry(id, Sequence(4)),
                keys::within(id, &keys::reactor_suffix(Sequence(4), &user)),
                keys::user_conversation(&user, id),
                keys::message_id(id, ClientMessageId([5; 16])).to_vec(),
                keys::old_message_id(id, ClientMessageId([5; 16])).to_vec(),
            ] {
                let found = (useless.is_expired(&key, &[]), useless.hides_nothing(&key));
                assert_eq!(found, (is_useless, is_useless), "{key:02x?}");
            }
        }
    }
}
