//! `loadgen large`: its options, and their plan.

use anyhow::ensure;
use clap::Args;

use super::{
    CommonOptions, TrafficOptions,
    planning::{base, groups, not_negative, positive, traffic},
};
use crate::{
    clock::{Nanoseconds, SECOND_NS},
    law::Law,
    workload::{
        large::plan::LargePlan,
        plan::{PARTS_MAX, Plan},
    },
};

/// Most members that a plan is made for; the server says what it takes.
const MEMBERS_MAX: u32 = 10_000_000;

/// Most messages of a run: each is remembered.
const MESSAGES_MAX: u32 = 1 << 19;

/// A node tells 256 members of the hint every 10 ms.
const TOLD_PER_SECOND: u64 = 25_600;

/// Longest wait of a hint for the end of the second since the one before, and some time to spare.
const TAIL_NS_MIN: Nanoseconds = 2 * SECOND_NS;

/// `loadgen large`.
#[derive(Debug, Clone, Args)]
pub struct LargeOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// Members of the large group
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(2..=MEMBERS_MAX as i64))]
    pub members: u32,
    /// How many of them are connected; those who send are in any case
    #[arg(long, default_value_t = 2_000)]
    pub online: u32,
    /// How many of those who are connected have it open
    #[arg(long, default_value_t = 200)]
    pub viewers: u32,
    /// Who sends: half of them have it open, as far as there are such
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub senders: u32,
    /// Messages of a burst
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub burst: u32,
    /// Messages a second in a burst, evenly spread
    #[arg(long, default_value_t = 50.0)]
    pub burst_rate: f64,
    /// How many bursts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub bursts: u32,
    /// Quiet before, between and behind the bursts, when no member is told anything
    #[arg(long, default_value_t = 10.0)]
    pub quiet_seconds: f64,
    /// After a burst, before it is quiet: until all have heard (without it: 2, and twice what a node takes to tell all who are connected)
    #[arg(long)]
    pub tail_seconds: Option<f64>,
    /// Members beyond which the node tells by hints: its fanout.bodies_members
    #[arg(long, default_value_t = 10_000)]
    pub bodies_members: u32,
    /// Connections of ordinary chat beside it, on a thread of their own; 0: none
    #[arg(long, default_value_t = 500)]
    pub chat_connections: u32,
    /// Members of a group of the chat
    #[arg(long, default_value = "20")]
    pub chat_group_size: Law,
    /// Messages a second of the chat, all the while
    #[arg(long, default_value_t = 500.0)]
    pub chat_rate: f64,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
}

impl LargeOptions {
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let connected = self.online.max(self.senders);
        ensure!(connected <= self.members, "--online and --senders are members: {} at most", self.members);
        ensure!(self.viewers <= self.online, "--viewers are some of --online");
        ensure!(self.burst * self.bursts <= MESSAGES_MAX, "at most {MESSAGES_MAX} messages in all bursts");
        let mut plan = base(&self.common, self.chat_connections)?;
        if self.chat_connections > 0 {
            groups(&mut plan, self.chat_group_size)?;
        }
        traffic(&mut plan, &self.traffic, if self.chat_connections > 0 { self.chat_rate } else { 0.0 })?;
        let mut large = LargePlan::new(self.members, connected, self.viewers, self.burst, self.bursts);
        large.hinted = self.members > self.bodies_members;
        large.first = self.chat_connections;
        positive(self.burst_rate, "--burst-rate")?;
        large.apart_ns = (SECOND_NS as f64 / self.burst_rate) as Nanoseconds;
        large.quiet_ns = positive(self.quiet_seconds, "--quiet-seconds")?;
        large.tail_ns = match self.tail_seconds {
            Some(seconds) => not_negative(seconds)?,
            None => TAIL_NS_MIN + 2 * u64::from(connected) * SECOND_NS / TOLD_PER_SECOND,
        };
        large.choose_senders(self.senders);
        plan.parts = large.parts();
        assert!(plan.parts.len() <= PARTS_MAX, "bursts are limited");
        plan.measured_ns = plan.parts.iter().map(|part| part.length_ns).sum();
        plan.connections += connected;
        plan.large = Some(large);
        Ok(plan)
    }
}
