//! The reads that are to be done, in two queues: those that hold up a conversation, and those that only their asker waits for.
//!
//! When all clients come back at once, thousands of them wait for reads of the second kind. A message to a conversation that has to be
//! loaded first must not queue behind them: reads of the first kind go first. Invariant: neither kind ever has all of the places, if
//! there are more than a few, so that neither waits for the other's end.

use std::collections::VecDeque;

use antiphon_wire::ids::{ClientMessageId, ConversationId, Sequence, UserId};

use super::{catch_up, history};
use crate::door::{HistoryRange, Token};

/// A read that is to be done. Data, not futures, so that a queue of them holds nothing alive.
#[derive(Debug)]
pub(super) enum Job {
    Load(ConversationId),
    Message(ConversationId, ClientMessageId),
    Ordinal(ConversationId, Sequence),
    Joined(ConversationId, Vec<UserId>),
    /// An entry that a user's command is about.
    Target(ConversationId, UserId, Sequence),
    History(Box<HistoryJob>),
    Reactions {
        token: Token,
        conversation: ConversationId,
        target: Sequence,
        after: Option<UserId>,
        limit: u32,
    },
    Conversations {
        token: Token,
        user: UserId,
        after: Option<ConversationId>,
        limit: u32,
    },
    CatchUp {
        token: Token,
        request: Box<catch_up::Request>,
    },
}

/// A page of history that is to be read, and the command that asked for it: it is asked again if what was collected may be void.
#[derive(Debug)]
pub(super) struct HistoryJob {
    pub(super) token: Token,
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) range: HistoryRange,
    pub(super) limit: u32,
    pub(super) page: history::Page,
}

/// Who waits for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A conversation's commands.
    Conversation,
    /// The one who asked.
    Asker,
}

impl Job {
    fn kind(&self) -> Kind {
        match self {
            Self::Load(_) | Self::Message(..) | Self::Ordinal(..) | Self::Joined(..) | Self::Target(..) => {
                Kind::Conversation
            }
            Self::History(_) | Self::Reactions { .. } | Self::Conversations { .. } | Self::CatchUp { .. } => {
                Kind::Asker
            }
        }
    }
}

/// Jobs that wait, by kind, and how many run. Bounded by the commands that may wait.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    conversations: VecDeque<Job>,
    askers: VecDeque<Job>,
    running: [usize; 2],
}

impl Jobs {
    pub(super) fn push(&mut self, job: Job) {
        match job.kind() {
            Kind::Conversation => self.conversations.push_back(job),
            Kind::Asker => self.askers.push_back(job),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty() && self.askers.is_empty()
    }

    /// The next to run, if there is a place for it: of `places`, a kind gets three quarters at most. To be ended by [`Self::finish`].
    pub(super) fn start(&mut self, places: usize) -> Option<(Kind, Job)> {
        if self.running() >= places {
            return None;
        }
        let most = places - places / 4;
        for kind in [Kind::Conversation, Kind::Asker] {
            if self.running[kind as usize] < most
                && let Some(job) = self.queue(kind).pop_front()
            {
                self.running[kind as usize] += 1;
                return Some((kind, job));
            }
        }
        None
    }

    pub(super) fn finish(&mut self, kind: Kind) {
        self.running[kind as usize] -= 1;
    }

    pub(super) fn running(&self) -> usize {
        self.running.iter().sum()
    }

    fn queue(&mut self, kind: Kind) -> &mut VecDeque<Job> {
        match kind {
            Kind::Conversation => &mut self.conversations,
            Kind::Asker => &mut self.askers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(number: u8) -> Job {
        Job::Load(ConversationId([number; 16]))
    }

    fn list() -> Job {
        Job::Conversations { token: Token(0), user: UserId::new("alice").unwrap(), after: None, limit: 1 }
    }

    fn started(jobs: &mut Jobs, places: usize) -> Vec<Kind> {
        std::iter::from_fn(|| jobs.start(places).map(|(kind, _)| kind)).collect()
    }

    #[test]
    fn what_holds_up_a_conversation_goes_first_and_neither_kind_takes_all_places() {
        let mut jobs = Jobs::default();
        (0..20).for_each(|_| jobs.push(list()));
        assert_eq!(started(&mut jobs, 8), [Kind::Asker; 6]);
        (0..20).for_each(|number| jobs.push(load(number)));
        assert_eq!(started(&mut jobs, 8), [Kind::Conversation; 2], "two places were kept for it");
        jobs.finish(Kind::Asker);
        assert_eq!(started(&mut jobs, 8), [Kind::Conversation]);
        (0..5).for_each(|_| jobs.finish(Kind::Asker));
        assert_eq!(started(&mut jobs, 8), [[Kind::Conversation; 3].as_slice(), &[Kind::Asker; 2]].concat());
        assert_eq!(jobs.running(), 8);
    }

    #[test]
    fn one_place_serves_both() {
        let mut jobs = Jobs::default();
        jobs.push(list());
        jobs.push(load(1));
        for kind in [Kind::Conversation, Kind::Asker] {
            assert_eq!(started(&mut jobs, 1), [kind]);
            jobs.finish(kind);
        }
        assert!(jobs.is_empty() && jobs.running() == 0);
    }
}
