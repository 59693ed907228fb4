//! What a client has: the session's position, and of each conversation the incarnation and the last contiguous sequence.
//!
//! Invariants: the position stands for nothing that was not delivered (the machine takes one over only when no gap is open);
//! a conversation that moved after the position is *touched*, and touched ones go into `connect`'s known list, as many as it
//! holds. What is left out is sent again and dropped by its sequence. Conversations stand in order of their ids in one vector:
//! 32 bytes each, nothing when there are none.

use crate::{
    frame::{Known, PositionBytes, Resume},
    ids::{ConversationId, Epoch, Sequence},
    limits::RESUME_KNOWN_MAX,
};

#[derive(Debug, Default)]
pub(super) struct Progress {
    position: Option<Box<[u8]>>,
    conversations: Vec<Conversation>,
    touched: u32,
}

#[derive(Debug)]
struct Conversation {
    id: ConversationId,
    sequence: Sequence,
    epoch: Epoch,
    touched: bool,
}

impl Progress {
    pub(super) fn position(&self) -> Option<PositionBytes> {
        self.position.as_ref().map(|bytes| PositionBytes(bytes.to_vec()))
    }

    pub(super) fn position_bytes(&self) -> Option<&[u8]> {
        self.position.as_deref()
    }

    /// Everything up to `position` was delivered, and so was everything that came before it: nothing is touched now.
    pub(super) fn adopt(&mut self, position: PositionBytes) {
        self.position = Some(position.0.into());
        if self.touched > 0 {
            self.conversations.iter_mut().for_each(|conversation| conversation.touched = false);
            self.touched = 0;
        }
    }

    /// The same for a position that came a while ago: what moved since stays touched.
    pub(super) fn adopt_late(&mut self, position: PositionBytes) {
        self.position = Some(position.0.into());
    }

    /// Whether a new position would be worth having.
    pub(super) fn is_touched(&self) -> bool {
        self.touched > 0
    }

    pub(super) fn get(&self, id: ConversationId) -> Option<(Epoch, Sequence)> {
        let index = self.index(id).ok()?;
        Some((self.conversations[index].epoch, self.conversations[index].sequence))
    }

    /// Everything of a conversation up to a sequence was delivered, or never will be.
    pub(super) fn set(&mut self, id: ConversationId, epoch: Epoch, sequence: Sequence) {
        let conversation = match self.index(id) {
            Ok(index) => &mut self.conversations[index],
            Err(index) => {
                self.conversations.insert(index, Conversation { id, sequence, epoch, touched: false });
                &mut self.conversations[index]
            }
        };
        (conversation.epoch, conversation.sequence) = (epoch, sequence);
        if !conversation.touched {
            conversation.touched = true;
            self.touched += 1;
        }
    }

    pub(super) fn remove(&mut self, id: ConversationId) {
        if let Ok(index) = self.index(id) {
            let conversation = self.conversations.remove(index);
            self.touched -= u32::from(conversation.touched);
        }
    }

    /// Nothing that the client has counts any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What `connect` says.
    pub(super) fn resume(&self) -> Option<Resume> {
        let position = self.position()?;
        let touched = self.conversations.iter().filter(|conversation| conversation.touched);
        Some(Resume { position, known: touched.take(RESUME_KNOWN_MAX).map(known).collect() })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Known> {
        self.conversations.iter().map(known)
    }

    fn index(&self, id: ConversationId) -> Result<usize, usize> {
        self.conversations.binary_search_by_key(&id, |conversation| conversation.id)
    }
}

fn known(conversation: &Conversation) -> Known {
    Known { conversation: conversation.id, epoch: conversation.epoch, sequence: conversation.sequence }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> ConversationId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        ConversationId(bytes)
    }

    fn known(progress: &Progress) -> Vec<(ConversationId, u64)> {
        let resume = progress.resume().expect("there is a position");
        resume.known.iter().map(|known| (known.conversation, known.sequence.0)).collect()
    }

    #[test]
    fn known_holds_what_moved_since_the_position() {
        let mut progress = Progress::default();
        progress.set(id(2), Epoch(1), Sequence(5));
        assert_eq!(progress.resume(), None);
        progress.adopt(PositionBytes(vec![1]));
        assert_eq!(known(&progress), []);
        progress.set(id(1), Epoch(1), Sequence(7));
        progress.set(id(1), Epoch(1), Sequence(8));
        assert_eq!(known(&progress), [(id(1), 8)]);
        progress.adopt_late(PositionBytes(vec![2]));
        progress.set(id(2), Epoch(1), Sequence(6));
        assert_eq!(known(&progress), [(id(1), 8), (id(2), 6)]);
        progress.remove(id(1));
        assert_eq!((known(&progress), progress.touched), (vec![(id(2), 6)], 1));
        progress.adopt(PositionBytes(vec![3]));
        assert!(!progress.is_touched());
        assert_eq!(progress.get(id(2)), Some((Epoch(1), Sequence(6))));
        progress.forget();
        assert_eq!((progress.position(), progress.get(id(2))), (None, None));
    }

    #[test]
    fn known_is_bounded() {
        let mut progress = Progress::default();
        progress.adopt(PositionBytes(vec![1]));
        for number in 0..RESUME_KNOWN_MAX as u16 + 10 {
            progress.set(id(number), Epoch(1), Sequence(1));
        }
        assert_eq!(known(&progress).len(), RESUME_KNOWN_MAX);
        assert_eq!(progress.all().count(), RESUME_KNOWN_MAX + 10);
    }

    #[test]
    fn a_conversation_is_small() {
        assert_eq!(size_of::<Conversation>(), 32);
    }
}
