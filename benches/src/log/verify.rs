//! Reads a whole store back and holds it against what was sent: every acknowledged message is there once, in its
//! conversation, as it was sent, and sequences have no gap.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_engine::door::{Command, Done, HistoryPage, HistoryRange, Refusal, Token};
use antiphon_loadgen::progress::Progress;
use antiphon_wire::{
    frame::{EntryKind, view_entry},
    ids::{ConversationId, Sequence, UserId},
    limits::PAGE_ITEMS_MAX,
};
use anyhow::{bail, ensure};

use super::messages::{Messages, STREAM};
use crate::lane::{Lane, NodeEngine, People, Reply, Step, Task, unexpected};

/// Conversations that are read at a time.
const WALKS: usize = 16;

/// What must be there.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) messages: Arc<Messages>,
    /// Of each stream, how many were acknowledged, from its first one on.
    pub(crate) streams: Vec<u64>,
    /// There may be others of these streams: those that were under way when the store was killed.
    pub(crate) others: bool,
}

/// What was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Verified {
    /// Acknowledged messages that were read and are what was sent: all.
    pub(crate) messages: u64,
    /// Messages that were under way.
    pub(crate) others: u64,
}

/// Reads everything.
pub(crate) fn verify(lane: &Lane, expected: &Expected, progress: &mut Progress) -> anyhow::Result<Verified> {
    progress.phase("reading everything back");
    progress.goal(expected.messages.conversations().into());
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let task = |reply| -> Box<dyn Task> {
        let counts = vec![0; expected.streams.len()];
        let walks = (0..WALKS).map(|_| None).collect();
        let expected = expected.clone();
        Box::new(Verify { expected, next: 0, walks, counts, others: 0, read: counter, reply })
    };
    let verified = lane.run_watched(task, || {
        let done = read.load(Ordering::Relaxed);
        progress.show_at(done, || format!("reading back: {done} conversations"));
        Ok(())
    });
    progress.no_goal();
    verified
}

/// A conversation that is being read, from its end to its beginning.
struct Walk {
    number: u32,
    user: UserId,
    conversation: ConversationId,
    /// Everything from here on was read.
    from: Option<Sequence>,
    numbers: Vec<u64>,
}

impl Walk {
    fn ask(&self, engine: &NodeEngine, token: usize) {
        let range = self.from.map_or(HistoryRange::Latest, HistoryRange::Before);
        let (user, conversation, limit) = (self.user.clone(), self.conversation, PAGE_ITEMS_MAX);
        engine.submit(Token(token as u64), Command::History { user, conversation, range, limit });
    }

    /// Takes a page; whether it was the last one.
    fn take(&mut self, page: &HistoryPage, messages: &Messages) -> anyhow::Result<bool> {
        ensure!(!page.entries.is_empty(), "a page of conversation {} before {:?} is empty", self.number, self.from);
        let mut expected = self.from.map_or(page.last.0, |from| from.0 - 1);
        for archive in page.entries.iter().rev() {
            let entry = view_entry(archive)?;
            let sequence = entry.sequence.0.to_native();
            ensure!(sequence == expected, "conversation {} has {sequence} where {expected} is due", self.number);
            if EntryKind::from(&entry.kind) == EntryKind::Message {
                self.numbers.push(messages.number_of(self.number, entry)?);
            }
            expected = sequence - 1;
        }
        self.from = Some(Sequence(expected + 1));
        Ok(expected + 1 == page.first.0)
    }
}

struct Verify {
    expected: Expected,
    /// The next conversation.
    next: u32,
    walks: Vec<Option<Walk>>,
    counts: Vec<u64>,
    others: u64,
    read: Arc<AtomicU64>,
    reply: Reply<Verified>,
}

impl Verify {
    /// A conversation was read whole.
    fn end(&mut self, mut walk: Walk) -> anyhow::Result<()> {
        walk.numbers.sort_unstable();
        for pair in walk.numbers.windows(2) {
            ensure!(pair[0] != pair[1], "message {} is there twice", pair[0]);
        }
        for number in walk.numbers {
            let (stream, place) = ((number / STREAM) as usize, number % STREAM);
            let Some(count) = self.counts.get_mut(stream) else { bail!("message {number} was never sent") };
            if place < self.expected.streams[stream] {
                *count += 1;
            } else {
                self.others += 1;
            }
        }
        self.read.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn verified(&self) -> anyhow::Result<Verified> {
        for (stream, (found, acknowledged)) in self.counts.iter().zip(&self.expected.streams).enumerate() {
            // Each is there once at most, so as many are all.
            ensure!(
                found == acknowledged,
                "of stream {stream} {found} messages are there, {acknowledged} were acknowledged"
            );
        }
        ensure!(self.expected.others || self.others == 0, "{} messages are there that were never sent", self.others);
        Ok(Verified { messages: self.counts.iter().sum(), others: self.others })
    }
}

impl Task for Verify {
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step> {
        let mut submitted = false;
        for token in 0..self.walks.len() {
            if self.walks[token].is_some() || self.next >= self.expected.messages.conversations() {
                continue;
            }
            let target = people.of(self.next);
            let [user, _] = target.members;
            let walk =
                Walk { number: self.next, user, conversation: target.conversation, from: None, numbers: Vec::new() };
            walk.ask(engine, token);
            self.walks[token] = Some(walk);
            self.next += 1;
            submitted = true;
        }
        let idle = self.walks.iter().all(Option::is_none);
        Ok(if submitted {
            Step::Submitted
        } else if idle {
            Step::Done
        } else {
            Step::Wait
        })
    }

    fn answered(&mut self, engine: &NodeEngine, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        let Ok(Done::History(page)) = result else { bail!(unexpected(&result)) };
        let place = token.0 as usize;
        let Some(mut walk) = self.walks[place].take() else { bail!("a page was answered twice") };
        if walk.take(&page, &self.expected.messages)? {
            return self.end(walk);
        }
        walk.ask(engine, place);
        self.walks[place] = Some(walk);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &NodeEngine, outcome: anyhow::Result<()>) {
        let verified = outcome.and_then(|()| self.verified());
        // Who asked may be gone.
        let _ = self.reply.send(verified);
    }
}
