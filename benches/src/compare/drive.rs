//! One server under the driver: connects, puts one load after another on it, and prints an [`Outcome`] for each, a line
//! of JSON.
//!
//! It is a process of its own, so that it can have a core of its own. An open loop: messages have intended times, and
//! latency counts from them. A load counts only if everything that was sent came back, once and in order.

use std::{net::SocketAddr, time::Duration};

use antiphon_loadgen::{
    arrivals::{Arrivals, Spread},
    clock::{Clock, MILLISECOND_NS, Nanoseconds, SECOND_NS},
    driver::{Driver, DriverOptions},
    process,
    random::Random,
};
use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    client::{Client, Kind},
    cpu::{self, Times},
};

/// Longest wait for all connections: 19,000 take a few seconds, on a busy machine more.
const CONNECT_MAX_NS: Nanoseconds = 60 * SECOND_NS;

/// Longest wait for what is still under way when a load ends.
const DRAIN_MAX_NS: Nanoseconds = 20 * SECOND_NS;

/// Longest sleep: how late an end may be noticed.
const STEP: Duration = Duration::from_millis(5);

/// Messages sent before completions are looked at again.
const SENDS_PER_TURN_MAX: usize = 256;

/// Receive buffers: as many as completions fit into the ring, so that a broadcast to all finds enough.
const BUFFERS: u16 = 8_192;

/// Options of the driver's process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DriveOptions {
    /// The server
    #[arg(long)]
    pub(super) target: SocketAddr,
    /// Its process
    #[arg(long)]
    pub(super) pid: u32,
    /// What it does
    #[arg(long, value_enum)]
    pub(super) kind: Kind,
    /// How many connections; a broadcast has one more, which publishes
    #[arg(long)]
    pub(super) connections: u32,
    /// Messages a second of each load; 0 is a closed loop with one message of each connection under way
    #[arg(long, value_delimiter = ',')]
    pub(super) rates: Vec<f64>,
    /// How long each load is measured
    #[arg(long)]
    pub(super) seconds: f64,
    /// How long each load runs before
    #[arg(long)]
    pub(super) warmup_seconds: f64,
    /// Decides arrivals and their connections
    #[arg(long)]
    pub(super) seed: u64,
}

/// What one load gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Echoes or deliveries that came within the window.
    pub(super) received: u64,
    /// The server's CPU time within the window.
    pub(super) server_cpu_ns: u64,
    /// How long it wanted a core within the window and had none. On a machine of our own: next to nothing.
    pub(super) server_waited_ns: u64,
    /// Length of the window.
    pub(super) window_ns: u64,
    /// The driver's CPU time within the window.
    pub(super) driver_cpu_ns: u64,
    /// How long it wanted a core and had none.
    pub(super) driver_waited_ns: u64,
    /// From the intended time, 50 of 100.
    pub(super) p50_ns: u64,
    /// From the intended time, 99 of 100.
    pub(super) p99_ns: u64,
    /// How late the driver itself was, 99 of 100.
    pub(super) late_p99_ns: u64,
    /// The server's resident memory before the first connection.
    pub(super) resident_before_bytes: u64,
    /// And after the load.
    pub(super) resident_after_bytes: u64,
}

/// Runs all loads. Standard output is for a program to read.
pub(crate) fn run(options: &DriveOptions) -> anyhow::Result<()> {
    let mut session = Session::new(options)?;
    session.connect()?;
    // What the handshakes left behind is worked on, and memory is given back, before anything counts.
    process::settle();
    for (index, &rate) in options.rates.iter().enumerate() {
        println!("{}", serde_json::to_string(&session.load(index as u64, rate)?)?);
    }
    Ok(())
}

struct Session<'a> {
    options: &'a DriveOptions,
    clock: Clock,
    driver: Driver,
    client: Client,
    resident_before_bytes: u64,
}

impl<'a> Session<'a> {
    fn new(options: &'a DriveOptions) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let random = Random::new(options.seed, 0);
        let client = Client::new(options.kind, options.connections, options.target.to_string(), clock, random);
        let driver = Driver::new(&DriverOptions {
            target: options.target,
            slots: Client::slots_for(options.kind, options.connections),
            first: 0,
            buffers: BUFFERS,
            small_receive_bytes: None,
        })?;
        Ok(Self { options, clock, driver, client, resident_before_bytes: cpu::resident_bytes(options.pid)? })
    }

    fn turn(&mut self, timeout: Duration) -> anyhow::Result<()> {
        self.driver.turn(&mut self.client, timeout)?;
        match self.client.fault.take() {
            None => Ok(()),
            Some(fault) => Err(fault.into()),
        }
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        while !self.client.all_open() {
            ensure!(self.clock.now_ns() < CONNECT_MAX_NS, "not all connections stand after a minute");
            self.client.connect_more(self.driver.links());
            self.turn(STEP)?;
        }
        Ok(())
    }

    fn load(&mut self, index: u64, rate: f64) -> anyhow::Result<Outcome> {
        let start_ns = self.clock.now_ns() + MILLISECOND_NS;
        let measured_ns = start_ns + (self.options.warmup_seconds * SECOND_NS as f64) as u64;
        let end_ns = measured_ns + (self.options.seconds * SECOND_NS as f64) as u64;
        self.client.measure(measured_ns..end_ns);
        // Broadcasts are few, so chance would make two runs unlike.
        let spread = if self.options.kind == Kind::Echo { Spread::Poisson } else { Spread::Fixed };
        let random = Random::new(self.options.seed, 1 + index);
        let mut arrivals = Arrivals::new(spread, rate, start_ns, end_ns, random);
        if rate <= 0.0 {
            self.client.close_loop(self.driver.links(), end_ns);
        }
        self.run_until(measured_ns, &mut arrivals)?;
        let (server, driver) = self.times()?;
        self.run_until(end_ns, &mut arrivals)?;
        let (server_after, driver_after) = self.times()?;
        let (server, driver) = (server_after.since(server), driver_after.since(driver));
        self.drain()?;
        let counts = &self.client.counts;
        ensure!(counts.received > 0, "nothing came within the window");
        Ok(Outcome {
            received: counts.received,
            server_cpu_ns: server.run_ns,
            server_waited_ns: server.waited_ns,
            window_ns: end_ns - measured_ns,
            driver_cpu_ns: driver.run_ns,
            driver_waited_ns: driver.waited_ns,
            p50_ns: counts.latency.value_at_quantile(0.5),
            p99_ns: counts.latency.value_at_quantile(0.99),
            late_p99_ns: counts.late.value_at_quantile(0.99),
            resident_before_bytes: self.resident_before_bytes,
            resident_after_bytes: cpu::resident_bytes(self.options.pid)?,
        })
    }

    /// The server's and our own.
    fn times(&self) -> anyhow::Result<(Times, Times)> {
        Ok((Times::of(self.options.pid)?, Times::of(std::process::id())?))
    }

    /// Sends what is due and takes what comes, until then.
    fn run_until(&mut self, until_ns: Nanoseconds, arrivals: &mut Arrivals) -> anyhow::Result<()> {
        loop {
            let now_ns = self.clock.now_ns();
            if now_ns >= until_ns {
                return Ok(());
            }
            for _ in 0..SENDS_PER_TURN_MAX {
                let Some(intended_ns) = arrivals.take_due(now_ns) else { break };
                self.client.send_due(self.driver.links(), intended_ns);
            }
            let next_ns = arrivals.peek_ns().unwrap_or(until_ns).min(until_ns);
            self.turn(Duration::from_nanos(next_ns.saturating_sub(now_ns)).min(STEP))?;
        }
    }

    /// Waits for all that is under way.
    fn drain(&mut self) -> anyhow::Result<()> {
        let limit_ns = self.clock.now_ns() + DRAIN_MAX_NS;
        while self.client.under_way > 0 {
            if self.clock.now_ns() > limit_ns {
                bail!("{} messages are lost", self.client.under_way);
            }
            self.turn(STEP)?;
        }
        Ok(())
    }
}
