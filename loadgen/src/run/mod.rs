//! A run from beginning to end: threads are started, led through the phases, and what they found becomes one report.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};

use crate::{
    checker::{MEMBER_BYTES, Violations},
    clock::{Clock, MILLISECOND_NS, Nanoseconds, SECOND_NS},
    driver::LINK_BYTES,
    machine::Machine,
    measure::{Latencies, Second},
    options::Command,
    process::{Process, Usage, settle, slab_bytes},
    progress::Progress,
    report::{
        ConnectionFigures, GeneratorFigures, KernelFigures, LATE_US_MAX, Latency, MessageFigures, Percentiles,
        Quantiles, Report, Row, RunOptions, SCHEMA, ServerFigures, Throughput, curve,
    },
    workload::{
        connections::CONNECTION_BYTES,
        control::{Control, Counters, Counts, Phase},
        plan::Plan,
        worker::{self, WorkerOptions, WorkerResult},
    },
};

/// How often the run looks at its threads.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A phase that makes no progress for so long is given up.
const PATIENCE_NS: Nanoseconds = 45 * SECOND_NS;

/// Between the announcement of the load and its start, so that all threads know in time.
const LOAD_NOTICE_NS: Nanoseconds = 200 * MILLISECOND_NS;

/// After everything has come, how long to listen for what should not come: duplicates.
const QUIET_NS: Nanoseconds = 500 * MILLISECOND_NS;

/// Receive buffers of a thread: many for few busy threads, fewer where there are many.
const BUFFERS_FEW_THREADS: u16 = 4096;
const BUFFERS_MANY_THREADS: u16 = 512;

/// What was used at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    /// `None`: not found, or gone meanwhile.
    server: Option<Usage>,
    own: Usage,
    slab_bytes: u64,
}

struct Run<'a> {
    command: &'a Command,
    plan: Arc<Plan>,
    control: Arc<Control>,
    counters: Vec<Arc<Counters>>,
    clock: Clock,
    threads: Vec<JoinHandle<std::io::Result<WorkerResult>>>,
    seconds: mpsc::Receiver<Second>,
    open_seconds: BTreeMap<u64, Second>,
    rows: Vec<Row>,
    progress: Progress,
    server: Option<Process>,
    problems: Vec<String>,
}

/// Samples at the run's milestones.
#[derive(Debug, Default)]
struct Milestones {
    before: Sample,
    established: Sample,
    measured_from: Sample,
    measured_to: Sample,
    establish_ns: Nanoseconds,
}

/// Makes a run and reports.
pub fn run(command: &Command) -> anyhow::Result<Report> {
    let started = SystemTime::now();
    let mut run = Run::start(command)?;
    let outcome = run.lead();
    // Also after a failure: threads must not outlive the run.
    run.control.set_phase(Phase::Stop);
    let results = run.join();
    run.progress.finish();
    let milestones = outcome?;
    let results = results?;
    Ok(run.report(started, &milestones, &results))
}

impl<'a> Run<'a> {
    fn start(command: &'a Command) -> anyhow::Result<Self> {
        let plan = Arc::new(command.plan()?);
        let shares = plan.shares(command.threads());
        let (sender, seconds) = mpsc::channel();
        let servers = match command.common().server_pid {
            Some(pid) => vec![Process { pid }],
            None => Process::listening_on(plan.target),
        };
        let problem = (servers.len() > 1).then(|| format!("{} processes share the target's port", servers.len()));
        let mut run = Self {
            command,
            control: Arc::new(Control::default()),
            counters: shares.iter().map(|_| Arc::new(Counters::default())).collect(),
            clock: Clock::start(),
            threads: Vec::new(),
            seconds,
            open_seconds: BTreeMap::new(),
            rows: Vec::new(),
            progress: Progress::new(),
            server: servers.first().copied(),
            problems: problem.into_iter().collect(),
            plan,
        };
        let buffers = if shares.len() <= 4 { BUFFERS_FEW_THREADS } else { BUFFERS_MANY_THREADS };
        let options = shares.iter().zip(&run.counters).map(|(&share, counters)| WorkerOptions {
            plan: run.plan.clone(),
            share,
            control: run.control.clone(),
            counters: counters.clone(),
            clock: run.clock,
            seconds: sender.clone(),
            buffers,
        });
        let options: Vec<WorkerOptions> = options.collect();
        run.progress.phase(&format!(
            "loadgen {}: {} connections to {} on {} threads, seed {}",
            command.name(),
            run.plan.connections,
            command.common().target,
            shares.len(),
            run.plan.seed,
        ));
        for options in options {
            let name = format!("client-{}", options.share.thread);
            let thread = std::thread::Builder::new().name(name).spawn(move || worker::run(options))?;
            run.threads.push(thread);
        }
        Ok(run)
    }

    fn lead(&mut self) -> anyhow::Result<Milestones> {
        let mut milestones = Milestones::default();
        self.until_ready()?;
        milestones.before = self.sample();
        let start_ns = self.clock.now_ns();
        self.control.set_phase(Phase::Connect);
        let all_up = self.connect()?;
        milestones.establish_ns = self.clock.now_ns() - start_ns;
        if self.plan.group_size > 0 {
            let ready = all_up && self.make_groups()?;
            if !ready {
                let now = self.sample();
                (milestones.established, milestones.measured_from, milestones.measured_to) = (now, now, now);
                return Ok(milestones);
            }
        }
        settle();
        milestones.established = self.sample();
        self.load(&mut milestones)?;
        self.drain()?;
        Ok(milestones)
    }

    /// Until every thread has made its ring: its memory is no connection's.
    fn until_ready(&mut self) -> anyhow::Result<()> {
        while self.counts().ready < self.threads.len() as u64 {
            self.look()?;
        }
        Ok(())
    }

    fn connect(&mut self) -> anyhow::Result<bool> {
        self.progress.phase("connecting");
        let requested = u64::from(self.plan.connections);
        self.progressing(|counts| counts.established, requested, "established")
    }

    fn make_groups(&mut self) -> anyhow::Result<bool> {
        let groups = u64::from(self.plan.connections.div_ceil(self.plan.group_size));
        self.progress.phase(&format!("making {groups} groups of {}", self.plan.group_size));
        self.control.set_phase(Phase::Groups);
        self.progressing(|counts| counts.groups, groups, "groups")
    }

    /// Waits until a count reaches its goal; `false` if it stands still for too long.
    fn progressing(&mut self, count: fn(&Counts) -> u64, goal: u64, name: &str) -> anyhow::Result<bool> {
        let (mut best, mut best_ns) = (0, self.clock.now_ns());
        loop {
            self.look()?;
            let counts = self.counts();
            let (now, now_ns) = (count(&counts), self.clock.now_ns());
            if now >= goal {
                return Ok(true);
            }
            if now > best {
                (best, best_ns) = (now, now_ns);
            } else if now_ns - best_ns > PATIENCE_NS {
                self.problems.push(format!("{now} of {goal} {name}, and no more for {} s", PATIENCE_NS / SECOND_NS));
                return Ok(false);
            }
            self.progress.show(|| format!("{now} of {goal} {name}, {} failed attempts", counts.failed_attempts));
        }
    }

    fn load(&mut self, milestones: &mut Milestones) -> anyhow::Result<()> {
        let start_ns = self.clock.now_ns() + LOAD_NOTICE_NS;
        let measured_ns = start_ns + self.plan.warmup_ns;
        let end_ns = measured_ns + self.plan.measured_ns;
        let seconds = (self.plan.warmup_ns + self.plan.measured_ns) as f64 / SECOND_NS as f64;
        self.progress.phase(&match self.plan.group_size {
            0 => format!("idle for {seconds} s"),
            _ => format!("{} messages a second for {seconds} s", self.plan.rate_per_second),
        });
        self.control.start_load(start_ns);
        let mut last = (self.clock.now_ns(), self.counts());
        let mut measuring = false;
        loop {
            self.look()?;
            let now_ns = self.clock.now_ns();
            if !measuring && now_ns >= measured_ns {
                measuring = true;
                milestones.measured_from = self.sample();
            }
            if now_ns >= end_ns {
                break;
            }
            let counts = self.counts();
            self.collect_seconds(false);
            let (then_ns, then) = last;
            let mut shown = false;
            let chat = self.plan.group_size > 0;
            self.progress.show(|| {
                shown = true;
                progress_line(&counts, &then, (now_ns - then_ns) as f64 / SECOND_NS as f64, chat)
            });
            if shown {
                last = (now_ns, counts);
            }
        }
        milestones.measured_to = self.sample();
        Ok(())
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        if self.plan.group_size == 0 {
            return Ok(());
        }
        self.progress.phase("draining");
        self.control.set_phase(Phase::Drain);
        let end_ns = self.clock.now_ns() + self.command.drain_ns();
        let mut empty_since_ns = None;
        loop {
            self.look()?;
            let (counts, now_ns) = (self.counts(), self.clock.now_ns());
            let empty = counts.unacked == 0 && counts.undelivered == 0;
            let since_ns = *empty_since_ns.get_or_insert(now_ns);
            if !empty {
                empty_since_ns = None;
            } else if now_ns - since_ns >= QUIET_NS {
                return Ok(());
            }
            if now_ns >= end_ns {
                return Ok(());
            }
            self.progress.show(|| format!("{} unacked, {} deliveries to come", counts.unacked, counts.undelivered));
        }
    }

    /// A moment of sleep; fails if a thread did.
    fn look(&mut self) -> anyhow::Result<()> {
        std::thread::sleep(LOOK_EVERY);
        if let Some(failure) = self.control.failure() {
            bail!(failure);
        }
        if self.threads.iter().any(JoinHandle::is_finished) {
            bail!("a client thread ended early");
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.counters.iter().for_each(|counters| counts.add(&counters.read()));
        counts
    }

    fn sample(&self) -> Sample {
        Sample {
            server: self.server.and_then(|server| server.usage()),
            own: Process::own().usage().unwrap_or_default(),
            slab_bytes: slab_bytes().unwrap_or_default(),
        }
    }

    /// Merges the threads' samples; a second is over for all threads when the third after it has begun.
    fn collect_seconds(&mut self, all: bool) {
        for second in self.seconds.try_iter() {
            match self.open_seconds.entry(second.index) {
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().add(&second),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(second);
                }
            }
        }
        let newest = self.open_seconds.keys().next_back().copied().unwrap_or(0);
        while let Some((&index, second)) = self.open_seconds.first_key_value() {
            if !all && index + 3 > newest {
                break;
            }
            self.rows.push(Row::of(second));
            self.open_seconds.remove(&index);
        }
    }

    fn join(&mut self) -> anyhow::Result<Vec<WorkerResult>> {
        let join = |thread: JoinHandle<std::io::Result<WorkerResult>>| {
            let result = thread.join().map_err(|_| anyhow::anyhow!("a client thread panicked"))?;
            result.context("a client thread's ring failed (is io_uring allowed here, and the kernel at least 6.11?)")
        };
        let results = std::mem::take(&mut self.threads).into_iter().map(join).collect();
        self.collect_seconds(true);
        results
    }

    fn report(mut self, started: SystemTime, milestones: &Milestones, results: &[WorkerResult]) -> Report {
        let (mut latencies, mut violations, mut errors) =
            (Latencies::default(), Violations::default(), BTreeMap::new());
        for result in results {
            latencies.add(&result.latencies);
            violations.add(&result.violations);
            for (error, count) in &result.errors {
                *errors.entry(error.clone()).or_insert(0) += count;
            }
        }
        let counts = self.counts();
        let late_us = Quantiles::of(&latencies.late);
        if late_us.p99 > LATE_US_MAX {
            let late_ms = late_us.p99 as f64 / 1_000.0;
            self.problems
                .push(format!("the generator was late: p99 {late_ms:.1} ms, beyond {} ms", LATE_US_MAX / 1_000));
        }
        let measured_seconds = self.plan.measured_ns as f64 / SECOND_NS as f64;
        let per_second = |count: u64| round(count as f64 / measured_seconds, 10.0);
        let load_seconds = (self.plan.warmup_ns + self.plan.measured_ns).div_ceil(SECOND_NS);
        self.rows.retain(|row| row.second < load_seconds);
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            command: self.command.name(),
            started_unix_ms: started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            seed: self.plan.seed,
            options: self.options(results.len()),
            machine: Machine::this(),
            valid: self.problems.is_empty(),
            invalid_because: std::mem::take(&mut self.problems),
            violations,
            connections: connection_figures(&self.plan, &counts, milestones),
            messages: message_figures(&counts),
            throughput: Throughput {
                offered_per_second: per_second(counts.measured_offered),
                acked_per_second: per_second(counts.measured_acked),
                delivered_per_second: per_second(counts.measured_delivered),
            },
            latency_us: Latency {
                send_to_ack: Quantiles::of(&latencies.send_to_ack),
                send_to_deliver: Quantiles::of(&latencies.send_to_deliver),
                connect: Quantiles::of(&latencies.connect),
                resume: Quantiles::of(&latencies.resume),
            },
            server: self
                .server
                .and_then(|server| server_figures(server, milestones, counts.established, measured_seconds)),
            kernel: kernel_figures(milestones, counts.established),
            generator: generator_figures(results.len(), milestones, counts.established, measured_seconds, late_us),
            errors,
            timeline: self.rows,
            percentiles: Percentiles {
                send_to_ack: curve(&latencies.send_to_ack),
                send_to_deliver: curve(&latencies.send_to_deliver),
                connect: curve(&latencies.connect),
                late: curve(&latencies.late),
            },
        }
    }

    fn options(&self, threads: usize) -> RunOptions {
        let seconds = |nanoseconds: Nanoseconds| nanoseconds as f64 / SECOND_NS as f64;
        RunOptions {
            target: self.command.common().target.clone(),
            connections: self.plan.connections,
            rate: self.plan.rate_per_second,
            seconds: seconds(self.plan.measured_ns),
            warmup_seconds: seconds(self.plan.warmup_ns),
            group_size: self.plan.group_size,
            text_bytes: self.plan.text_bytes,
            arrivals: self.plan.spread,
            encoding: self.command.common().encoding.name().to_owned(),
            threads: threads as u32,
        }
    }
}

fn progress_line(counts: &Counts, then: &Counts, seconds: f64, chat: bool) -> String {
    let rate = |now: u64, then: u64| (now - then) as f64 / seconds.max(0.001);
    let connections = format!("{} up, {} lost", counts.up, counts.lost);
    if !chat {
        return connections;
    }
    format!(
        "{:.0}/s offered  {:.0}/s acked  {:.0}/s delivered  {} unacked  {connections}  {} violations",
        rate(counts.offered, then.offered),
        rate(counts.acked, then.acked),
        rate(counts.delivered, then.delivered),
        counts.unacked,
        counts.violations,
    )
}

fn connection_figures(plan: &Plan, counts: &Counts, milestones: &Milestones) -> ConnectionFigures {
    let establish_seconds = milestones.establish_ns as f64 / SECOND_NS as f64;
    ConnectionFigures {
        requested: u64::from(plan.connections),
        established: counts.established,
        lost: counts.lost,
        resumed: counts.resumed,
        up_at_end: counts.up,
        failed_attempts: counts.failed_attempts,
        resets: counts.resets,
        establish_seconds: round(establish_seconds, 100.0),
        established_per_second: round(counts.established as f64 / establish_seconds.max(0.001), 1.0),
    }
}

fn message_figures(counts: &Counts) -> MessageFigures {
    MessageFigures {
        offered: counts.offered,
        acked: counts.acked,
        unacked: counts.unacked,
        rejected: counts.rejected,
        retried: counts.retried,
        acked_as_duplicate: counts.acked_again,
        delivered: counts.delivered,
        too_far: counts.too_far,
        protocol_errors: counts.protocol_errors,
    }
}

/// `None` if the process was not there all the time: figures of two processes make no sum.
fn server_figures(
    server: Process,
    milestones: &Milestones,
    established: u64,
    measured_seconds: f64,
) -> Option<ServerFigures> {
    let (before, after) = (milestones.before.server?, milestones.established.server?);
    let (from, to) = (milestones.measured_from.server?, milestones.measured_to.server?);
    let cpu_seconds = to.cpu_seconds - from.cpu_seconds;
    Some(ServerFigures {
        pid: server.pid,
        rss_bytes: to.rss_bytes,
        cpu_seconds: round(cpu_seconds, 100.0),
        cpu_cores: round(cpu_seconds / measured_seconds, 1_000.0),
        rss_bytes_before: before.rss_bytes,
        rss_bytes_after: after.rss_bytes,
        bytes_per_connection: per_connection(before.rss_bytes, after.rss_bytes, established),
        connect_cpu_seconds: round(after.cpu_seconds - before.cpu_seconds, 100.0),
    })
}

fn generator_figures(
    threads: usize,
    milestones: &Milestones,
    established: u64,
    measured_seconds: f64,
    late_us: Quantiles,
) -> GeneratorFigures {
    let cpu_seconds = milestones.measured_to.own.cpu_seconds - milestones.measured_from.own.cpu_seconds;
    let (before, after) = (milestones.before.own, milestones.established.own);
    let structure_bytes = CONNECTION_BYTES + LINK_BYTES + MEMBER_BYTES;
    GeneratorFigures {
        threads: threads as u32,
        cpu_seconds: round(cpu_seconds, 100.0),
        cpu_cores: round(cpu_seconds / measured_seconds, 1_000.0),
        rss_bytes: milestones.measured_to.own.rss_bytes,
        bytes_per_connection: structure_bytes as f64 + per_connection(before.rss_bytes, after.rss_bytes, established),
        bytes_per_connection_structures: structure_bytes,
        late_us,
    }
}

fn kernel_figures(milestones: &Milestones, established: u64) -> KernelFigures {
    let (before, after) = (milestones.before.slab_bytes, milestones.established.slab_bytes);
    KernelFigures {
        slab_bytes_before: before,
        slab_bytes_after: after,
        slab_bytes_per_connection: per_connection(before, after, established),
    }
}

fn per_connection(before_bytes: u64, after_bytes: u64, connections: u64) -> f64 {
    round((after_bytes as f64 - before_bytes as f64) / connections.max(1) as f64, 10.0)
}

/// Rounds to a fraction: figures in reports have no false digits.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
