//! Up to where an application has everything.

use antiphon_wire::{
    frame::{Known, PositionBytes},
    ids::ConversationId,
};

use crate::entry::Entry;

/// Up to where an application has everything, as it keeps it over a restart.
///
/// Store one with what came before it, in one transaction where there is one, and give it to
/// [`Options::go_on_from`](crate::Options::go_on_from): the server then sends what came after it, and nothing before. An application
/// that stores single entries may [`note`](Self::note) each in the progress that it keeps; one that does not gets those that came after the
/// last [`Event::Progress`](crate::Event::Progress) again. Never store one before the entries that it stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The server's own word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionBytes>,
    /// The last entry of each conversation, in order of their ids.
    #[serde(default)]
    pub conversations: Vec<Known>,
}

impl Progress {
    /// The entry is stored too.
    pub fn note(&mut self, entry: &Entry) {
        let Entry { conversation, epoch, sequence, .. } = *entry;
        let known = Known { conversation, epoch, sequence };
        match self.place(conversation) {
            Ok(index) => self.conversations[index] = known,
            Err(index) => self.conversations.insert(index, known),
        }
    }

    /// Nothing of a conversation is kept any more.
    pub fn forget(&mut self, conversation: ConversationId) {
        if let Ok(index) = self.place(conversation) {
            self.conversations.remove(index);
        }
    }

    fn place(&self, conversation: ConversationId) -> Result<usize, usize> {
        self.conversations.binary_search_by_key(&conversation, |known| known.conversation)
    }
}
