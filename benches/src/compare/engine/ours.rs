//! Our engine as one of those compared: a log lane on a shard of its own ([`crate::lane`]), with the node's files,
//! clock and options.
//!
//! The shard carries out all batches or questions that it is given, one after the other: what is timed lies between a
//! command's submission and its last answer, on the shard, as a node's own handler would see it. What other threads ask
//! of it is not.
//!
//! Each conversation is a direct one of two users, made before anything is measured.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use antiphon_bench_store::{Ask, Data, Message, Page, Row, Store, data::named_at};
use antiphon_engine::door::{Command, Done, HistoryPage, HistoryRange, Refusal, Token};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Content, EntryKind, view_content, view_entry},
    ids::{ClientMessageId, Sequence},
};
use anyhow::bail;

use crate::lane::{Lane, LaneOptions, NodeEngine, People, Reply, Step, Task, now, unexpected};

/// The engine, seen from the process's main thread.
pub(crate) struct Ours(Lane);

impl Store for Ours {
    fn open(folder: &Path, data: &Data) -> anyhow::Result<Self> {
        Ok(Self(Lane::open(folder, &LaneOptions::new(data.conversations))?))
    }

    fn append(&mut self, batches: &[Vec<Message>]) -> anyhow::Result<Vec<Duration>> {
        let (batches, took) = (VecDeque::from(batches.to_vec()), Vec::with_capacity(batches.len()));
        let (batch, unanswered, refused, begin) = (Vec::new(), 0, Vec::new(), Instant::now());
        self.0.run(|reply| Box::new(Append { batches, batch, unanswered, refused, begin, took, reply }))
    }

    fn read(&mut self, asks: &[Ask]) -> anyhow::Result<Vec<Page>> {
        let (asks, pages) = (VecDeque::from(asks.to_vec()), Vec::new());
        self.0.run(|reply| Box::new(Read { asks, waiting: false, begin: Instant::now(), pages, reply }))
    }

    fn log_bytes(&self) -> Option<u64> {
        self.0.status().ok().map(|status| status.batch_bytes)
    }

    fn is_log(name: &str) -> bool {
        name.starts_with("log-")
    }

    fn close(self) -> anyhow::Result<()> {
        self.0.close()
    }
}

/// The messages of a page; a conversation's first entry is none.
fn rows(page: &HistoryPage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for archive in &page.entries {
        let entry = view_entry(archive)?;
        if EntryKind::from(&entry.kind) != EntryKind::Message {
            continue;
        }
        let text = view_content(&entry.body)?.text.unwrap_or_default().to_owned();
        rows.push(Row { ordinal: entry.ordinal.0.to_native(), id: entry.client_message_id.0, text });
    }
    Ok(rows)
}

struct Append {
    batches: VecDeque<Vec<Message>>,
    /// The batch that is not wholly answered; tokens are places in it.
    batch: Vec<Message>,
    unanswered: usize,
    /// Places of messages that were refused because flushes are behind, to be sent again. The time is the engine's.
    refused: Vec<usize>,
    begin: Instant,
    took: Vec<Duration>,
    reply: Reply<Vec<Duration>>,
}

impl Task for Append {
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step> {
        if !self.refused.is_empty() {
            if engine.status().memtable_sealed_bytes > 0 {
                return Ok(Step::Look);
            }
            for place in std::mem::take(&mut self.refused) {
                send(engine, people, place, &self.batch[place]);
            }
            return Ok(Step::Submitted);
        }
        if self.unanswered > 0 {
            return Ok(Step::Wait);
        }
        let Some(batch) = self.batches.pop_front() else { return Ok(Step::Done) };
        (self.batch, self.begin) = (batch, Instant::now());
        self.unanswered = self.batch.len();
        for (place, message) in self.batch.iter().enumerate() {
            send(engine, people, place, message);
        }
        Ok(Step::Submitted)
    }

    fn answered(&mut self, _: &NodeEngine, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        match result {
            Ok(Done::Sent { duplicate: false, .. }) => self.unanswered -= 1,
            Err(refusal) if refusal.code == ErrorCode::Overloaded => self.refused.push(token.0 as usize),
            other => bail!(unexpected(&other)),
        }
        if self.unanswered == 0 {
            self.took.push(self.begin.elapsed());
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &NodeEngine, outcome: anyhow::Result<()>) {
        // Who asked may be gone.
        let Self { took, reply, .. } = *self;
        let _ = reply.send(outcome.map(|()| took));
    }
}

struct Read {
    asks: VecDeque<Ask>,
    waiting: bool,
    begin: Instant,
    pages: Vec<Page>,
    reply: Reply<Vec<Page>>,
}

impl Task for Read {
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step> {
        if self.waiting {
            return Ok(Step::Wait);
        }
        let Some(ask) = self.asks.pop_front() else { return Ok(Step::Done) };
        let target = people.of(ask.conversation);
        let ([user, _], conversation) = (target.members, target.conversation);
        self.begin = Instant::now();
        self.waiting = true;
        // The first entry of a conversation is no message, so sequences are ordinals and one.
        let range = ask.before.map_or(HistoryRange::Latest, |before| HistoryRange::Before(Sequence(before + 1)));
        engine.submit(Token(0), Command::History { user, conversation, range, limit: ask.limit });
        Ok(Step::Submitted)
    }

    fn answered(&mut self, _: &NodeEngine, _: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        let Ok(Done::History(page)) = result else { bail!(unexpected(&result)) };
        let took = self.begin.elapsed();
        self.pages.push(Page { took, rows: rows(&page)? });
        self.waiting = false;
        Ok(())
    }

    fn finish(self: Box<Self>, _: &NodeEngine, outcome: anyhow::Result<()>) {
        let Self { pages, reply, .. } = *self;
        let _ = reply.send(outcome.map(|()| pages));
    }
}

/// The token is the message's place in its batch.
fn send(engine: &NodeEngine, people: &mut People, place: usize, message: &Message) {
    let target = people.of(message.conversation);
    let [from, to] = target.members;
    let command = Command::Send {
        user: if message.sender == 0 { from } else { to },
        conversation: target.conversation,
        client_message_id: ClientMessageId(named_at(now().0, message.id)),
        body: Content::text(&message.text).0,
    };
    engine.submit(Token(place as u64), command);
}
