//! The workload of messages alone: one after the other, each acknowledged as new.

use std::sync::Arc;

use antiphon_engine::door::{Command, Done};
use anyhow::bail;

use super::{load::Workload, messages::Messages};
use crate::lane::{People, now};

/// Messages from a number on.
#[derive(Debug)]
pub(crate) struct Appends {
    pub(crate) messages: Arc<Messages>,
    /// The number of the next.
    pub(crate) next: u64,
}

impl Workload for Appends {
    type Order = u64;

    fn order(&mut self, _: usize) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn command(&self, number: &u64, people: &mut People) -> Command {
        self.messages.send(*number, now(), people)
    }

    fn done(&mut self, number: u64, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Sent { duplicate: false, .. } => Ok(()),
            other => bail!("message {number} was answered with {other:?}"),
        }
    }
}
