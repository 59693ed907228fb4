//! How an operator's questions reach shards, and answers come back: a bounded queue a shard, and a channel of its own for each answer.
//!
//! Not over the mesh: that leads to lanes' shards only, has one end for the outside thread, which the HTTP API has, and would have to carry
//! what stays in this process as archived frames. Invariants: nobody waits for a shard, and no shard for anybody; a shard that is not asked pays
//! a look at an empty queue in each turn. Must not do: know what is asked.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use tokio::sync::oneshot;

use crate::{
    core::{
        enquiry::{Answer, Question},
        mesh::ShardId,
    },
    uring::Waker,
};

/// Questions that wait for a shard. A page asks three a second; all are answered in the shard's next turn.
const QUESTIONS_MAX: usize = 64;

/// A question that was asked.
#[derive(Debug)]
struct Asked {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// The queues of all shards.
#[derive(Debug)]
pub struct Enquiries {
    queues: Box<[ArrayQueue<Asked>]>,
    wakers: Arc<[Waker]>,
}

impl Enquiries {
    /// A queue for each shard, given all shards' wakers by number.
    #[must_use]
    pub fn new(wakers: Arc<[Waker]>) -> Arc<Self> {
        Arc::new(Self { queues: wakers.iter().map(|_| ArrayQueue::new(QUESTIONS_MAX)).collect(), wakers })
    }

    /// How many shards there are to ask.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Asks a shard; `None` if too many questions wait for it, or there is no such shard. The answer does not come if the shard ends.
    #[must_use]
    pub fn ask(&self, shard: ShardId, question: Question) -> Option<oneshot::Receiver<Answer>> {
        let index = usize::from(shard.0);
        let (answer, answered) = oneshot::channel();
        self.queues.get(index)?.push(Asked { question, answer }).ok()?;
        self.wakers[index].wake();
        Some(answered)
    }

    /// Has a shard answer all that it was asked. For that shard.
    pub fn answer(&self, shard: ShardId, mut of: impl FnMut(Question) -> Answer) {
        let queue = &self.queues[usize::from(shard.0)];
        for _ in 0..queue.len() {
            let Some(Asked { question, answer }) = queue.pop() else { return };
            // Whoever asked and has given up since is not worth the work.
            if !answer.is_closed() {
                let _ = answer.send(of(question));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_once_and_too_many_are_refused() {
        let enquiries = Enquiries::new((0..2).map(|_| Waker::new().unwrap()).collect());
        assert!(enquiries.ask(ShardId(2), Question::Slow).is_none());
        let mut answers: Vec<_> = (0..QUESTIONS_MAX as u64)
            .map(|number| enquiries.ask(ShardId(1), Question::EndTrace(number)).unwrap())
            .collect();
        assert!(enquiries.ask(ShardId(1), Question::Slow).is_none());
        // One has given up.
        drop(answers.pop());
        let mut asked = Vec::new();
        enquiries.answer(ShardId(0), |_| unreachable!("this shard was not asked"));
        enquiries.answer(ShardId(1), |question| {
            asked.push(question);
            Answer::EndTrace
        });
        let expected: Vec<Question> = (0..QUESTIONS_MAX as u64 - 1).map(Question::EndTrace).collect();
        assert_eq!(asked, expected);
        assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(Answer::EndTrace)));
        assert!(enquiries.ask(ShardId(1), Question::Slow).is_some());
    }
}
