//! A run from beginning to end: threads are started, led through the phases of a run, and what they found becomes one
//! [`Outcome`]. What happens during the load is a [`script`]; what the figures are made of is in [`figures`].

pub mod figures;
pub mod outcome;
pub mod script;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};

use crate::{
    checker::Violations,
    clock::{Clock, MILLISECOND_NS, Nanoseconds, SECOND_NS},
    measure::{Latencies, Second},
    options::{Load, Slice, StormOptions},
    process::{Process, settle, slab_bytes},
    progress::Progress,
    report::Report,
    transport::TlsOutcome,
    workload::{
        control::{Control, Counters, Counts, Phase},
        large::plan::LargePlan,
        plan::{OPEN_END_NS, Plan},
        worker::{self, WorkerOptions, WorkerResult},
    },
};
use outcome::{Milestones, Outcome, RowSample, Sample};
use script::{Script, Step, Storm, StormPlan};

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

/// Rows that wait for all threads: a row is over when the third after it has begun.
const ROWS_OPEN: u64 = 3;

/// Where processes that make a run together wait for each other.
pub trait Gate {
    /// Returns when all have come to this point.
    fn pass(&mut self, point: &str) -> anyhow::Result<()>;
}

/// A run that one process makes alone.
#[derive(Debug)]
pub struct Alone;

impl Gate for Alone {
    fn pass(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Run<'a> {
    load: &'a Load,
    slice: Slice,
    gate: &'a mut dyn Gate,
    plan: Arc<Plan>,
    control: Arc<Control>,
    counters: Vec<Arc<Counters>>,
    clock: Clock,
    threads: Vec<JoinHandle<std::io::Result<WorkerResult>>>,
    seconds: mpsc::Receiver<Second>,
    open_rows: BTreeMap<u64, Second>,
    rows: Vec<String>,
    samples: Vec<RowSample>,
    last_sample: Option<(u64, Nanoseconds, Sample)>,
    part_starts_ns: Vec<Nanoseconds>,
    part_samples: Vec<(Nanoseconds, Sample)>,
    load_end_ns: Nanoseconds,
    progress: Progress,
    server: Option<Process>,
    restarted_pid: Option<u32>,
    problems: Vec<String>,
    failures: Vec<String>,
    storm: Option<script::StormOutcome>,
}

/// Makes a run and reports.
pub fn run(load: &Load) -> anyhow::Result<Report> {
    let started = SystemTime::now();
    let outcome = outcome(load, Slice::WHOLE, &mut Alone)?;
    figures::report(load, started, outcome)
}

/// Makes a slice of a run.
pub fn outcome(load: &Load, slice: Slice, gate: &mut dyn Gate) -> anyhow::Result<Outcome> {
    let mut run = Run::start(load, slice, gate)?;
    let led = run.lead();
    // Also after a failure: threads must not outlive the run.
    run.control.set_phase(Phase::Stop);
    let results = run.join();
    run.progress.finish();
    let milestones = led?;
    Ok(run.outcome(milestones, results?))
}

impl<'a> Run<'a> {
    fn start(load: &'a Load, slice: Slice, gate: &'a mut dyn Gate) -> anyhow::Result<Self> {
        let plan = Arc::new(load.plan(slice)?);
        let watched = if plan.habits.watch > 0 { plan.connections } else { 0 };
        let shares = plan.shares(load.threads(&plan));
        let (sender, seconds) = mpsc::channel();
        let servers = match load.common().server_pid {
            Some(pid) => vec![Process { pid }],
            None => Process::listening_on(plan.target),
        };
        let problem = (servers.len() > 1).then(|| format!("{} processes share the target's port", servers.len()));
        let mut run = Self {
            load,
            slice,
            gate,
            control: Arc::new(Control::new(watched, plan.large.as_ref().map(LargePlan::messages))),
            counters: shares.iter().map(|_| Arc::new(Counters::default())).collect(),
            clock: Clock::start(),
            threads: Vec::new(),
            seconds,
            open_rows: BTreeMap::new(),
            rows: Vec::new(),
            samples: Vec::new(),
            last_sample: None,
            part_starts_ns: Vec::new(),
            part_samples: Vec::new(),
            load_end_ns: 0,
            progress: Progress::new(),
            server: servers.first().copied(),
            restarted_pid: None,
            problems: problem.into_iter().collect(),
            failures: Vec::new(),
            storm: None,
            plan,
        };
        let buffers = if shares.len() <= 4 { BUFFERS_FEW_THREADS } else { BUFFERS_MANY_THREADS };
        run.progress.phase(&format!(
            "loadgen {}: {} connections to {} on {} threads, seed {}",
            load.name(),
            run.plan.connections,
            load.common().target,
            shares.len(),
            run.plan.seed,
        ));
        for (&share, counters) in shares.iter().zip(run.counters.clone()) {
            let options = WorkerOptions {
                plan: run.plan.clone(),
                share,
                control: run.control.clone(),
                counters,
                clock: run.clock,
                seconds: sender.clone(),
                buffers,
            };
            let name = format!("client-{}", share.thread);
            let thread = std::thread::Builder::new().name(name).spawn(move || worker::run(options))?;
            run.threads.push(thread);
        }
        Ok(run)
    }

    fn lead(&mut self) -> anyhow::Result<Milestones> {
        let mut milestones = Milestones::default();
        self.until_ready()?;
        if !self.fill(&mut milestones)? {
            return Ok(milestones);
        }
        milestones.before = self.sample();
        self.gate.pass("connect")?;
        let start_ns = self.clock.now_ns();
        self.control.set_phase(Phase::Connect);
        let all_up = self.connect()?;
        milestones.establish_ns = self.clock.now_ns() - start_ns;
        let ready = if self.plan.layers.is_empty() && self.plan.large.is_none() {
            all_up || self.plan.echo.is_none()
        } else {
            all_up && self.make_groups()?
        };
        settle();
        milestones.established = self.sample();
        self.gate.pass("load")?;
        if !ready {
            (milestones.measured_from, milestones.measured_to) = (milestones.established, milestones.established);
            milestones.measured_ns = self.plan.measured_ns.min(SECOND_NS);
            return Ok(milestones);
        }
        self.load(&mut milestones)?;
        self.drain()?;
        self.verify()?;
        Ok(milestones)
    }

    /// Until every thread has made its ring: its memory is no connection's.
    fn until_ready(&mut self) -> anyhow::Result<()> {
        while self.counts().ready < self.threads.len() as u64 {
            self.look()?;
        }
        Ok(())
    }

    /// Gives the large group its members; `false` if that can't be done.
    fn fill(&mut self, milestones: &mut Milestones) -> anyhow::Result<bool> {
        let Some(members) = self.plan.large.as_ref().map(|large| large.members) else { return Ok(true) };
        milestones.empty = self.sample();
        self.progress.phase(&format!("filling a group with {members} members"));
        let start_ns = self.clock.now_ns();
        self.control.set_phase(Phase::Fill);
        let is_filled = self.progressing(|counts| counts.filled, members.into(), "members")?;
        milestones.fill_ns = self.clock.now_ns() - start_ns;
        let seconds = milestones.fill_ns as f64 / SECOND_NS as f64;
        self.progress.phase(&match self.counts().fill_added {
            0 => format!("the group was there, with all of its members ({seconds:.1} s)"),
            requests => format!("filled in {seconds:.1} s by {requests} requests"),
        });
        settle();
        Ok(is_filled)
    }

    fn connect(&mut self) -> anyhow::Result<bool> {
        self.progress.phase("connecting");
        let requested = u64::from(self.plan.connections);
        self.progressing(|counts| counts.established, requested, "established")
    }

    fn make_groups(&mut self) -> anyhow::Result<bool> {
        let conversations = self.counts().conversations;
        self.progress.phase(&format!("making {conversations} conversations"));
        self.control.set_phase(Phase::Groups);
        self.progressing(|counts| counts.groups, conversations, "conversations")
    }

    /// Waits until a count reaches its goal; `false` if it stands still for too long.
    fn progressing(&mut self, count: fn(&Counts) -> u64, goal: u64, name: &str) -> anyhow::Result<bool> {
        let (mut best, mut best_ns) = (0, self.clock.now_ns());
        self.progress.goal(goal);
        loop {
            self.look()?;
            let counts = self.counts();
            let (now, now_ns) = (count(&counts), self.clock.now_ns());
            if now >= goal {
                self.progress.no_goal();
                return Ok(true);
            }
            if now > best {
                (best, best_ns) = (now, now_ns);
            } else if now_ns - best_ns > PATIENCE_NS {
                self.problems.push(format!("{now} of {goal} {name}, and no more for {} s", PATIENCE_NS / SECOND_NS));
                self.progress.no_goal();
                return Ok(false);
            }
            let text = || format!("{now} of {goal} {name}, {} failed attempts", counts.failed_attempts);
            self.progress.show_at(now, text);
        }
    }

    fn load(&mut self, milestones: &mut Milestones) -> anyhow::Result<()> {
        let start_ns = self.clock.now_ns() + LOAD_NOTICE_NS;
        let measured_ns = start_ns + self.plan.warmup_ns;
        let mut script = self.script(measured_ns);
        self.progress.phase(&self.describe());
        self.control.start_load(start_ns);
        let mut last = (self.clock.now_ns(), self.counts());
        let mut measured_from_ns = None;
        loop {
            self.look()?;
            let (now_ns, counts) = (self.clock.now_ns(), self.counts());
            if measured_from_ns.is_none() && now_ns >= measured_ns {
                measured_from_ns = Some(now_ns);
                milestones.measured_from = self.sample();
            }
            let steps = script.step(now_ns, &counts);
            let over = steps.contains(&Step::End);
            for step in steps {
                self.carry_out(step)?;
            }
            self.sample_row(now_ns, start_ns, &counts);
            if over {
                self.load_end_ns = now_ns - start_ns;
                break;
            }
            self.collect_rows(false);
            self.show_rates(&mut last, now_ns, counts);
        }
        self.control.set_slow(false);
        if let Script::Storm(storm) = script {
            self.storm = Some(storm.outcome().clone());
        }
        milestones.measured_ns = match self.plan.measured_ns {
            OPEN_END_NS => self.clock.now_ns() - measured_from_ns.unwrap_or(measured_ns),
            planned_ns => planned_ns,
        };
        milestones.measured_to = self.sample();
        self.part_samples.push((self.clock.now_ns().saturating_sub(start_ns), milestones.measured_to));
        if self.restarted_pid.is_some() {
            // What two processes used makes no sum.
            milestones.measured_to.server = None;
        }
        Ok(())
    }

    fn script(&self, measured_ns: Nanoseconds) -> Script {
        let nanoseconds = |seconds: f64| (seconds * SECOND_NS as f64) as Nanoseconds;
        if let Load::Storm(options) = self.load {
            // One process of several kills; the others see their sessions go.
            let stops = options.kill_pid.is_some() || options.stop_command.is_some();
            let kills = stops && self.slice.index == 0;
            return Script::Storm(Box::new(Storm::new(StormPlan {
                measured_ns,
                before_ns: nanoseconds(options.before_seconds),
                after_ns: nanoseconds(options.after_seconds),
                down_ns: nanoseconds(options.down_seconds),
                limit_ns: nanoseconds(options.limit_seconds),
                kills,
                restarts: kills && options.restart_command.is_some(),
            })));
        }
        let starts = self.plan.parts.iter().scan(measured_ns, |next_ns, part| {
            let at_ns = *next_ns;
            *next_ns += part.length_ns;
            Some(at_ns)
        });
        let slow = (self.plan.slow_share > 0.0).then_some((1, 2));
        Script::Steady { end_ns: measured_ns + self.plan.measured_ns, parts_ns: starts.collect(), slow, next: 0 }
    }

    fn carry_out(&mut self, step: Step) -> anyhow::Result<()> {
        let Load::Storm(options) = self.load else {
            match step {
                Step::Part(index, at_ns) => self.begin_part(index, at_ns),
                Step::Slow(slow) => self.control.set_slow(slow),
                Step::Fail(text) => self.failures.push(text),
                Step::Kill | Step::Restart | Step::Returned | Step::End => {}
            }
            return Ok(());
        };
        match step {
            Step::Part(index, at_ns) => self.begin_part(index, at_ns),
            Step::Kill => self.stop_node(options)?,
            Step::Restart => self.restart_node(options)?,
            Step::Returned => {
                let before = self.server;
                self.server = Process::listening_on(self.plan.target).first().copied();
                if self.server != before {
                    self.restarted_pid = self.restarted_pid.or(self.server.map(|server| server.pid));
                }
                self.last_sample = None;
            }
            Step::Fail(text) => self.failures.push(text),
            Step::Slow(_) | Step::End => {}
        }
        Ok(())
    }

    fn stop_node(&mut self, options: &StormOptions) -> anyhow::Result<()> {
        if let Some(command) = &options.stop_command {
            self.progress.phase(&format!("stopping: {command}"));
            return by_shell(command).map(drop).context("can't stop the node");
        }
        let pid = options.kill_pid.context("a storm that kills knows whom")?;
        let signal = &options.kill_signal;
        self.progress.phase(&format!("killing {pid} by {signal}"));
        let killed = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        anyhow::ensure!(killed.context("can't run kill")?.success(), "can't kill {pid}");
        Ok(())
    }

    fn restart_node(&mut self, options: &StormOptions) -> anyhow::Result<()> {
        let command = options.restart_command.as_deref().context("a storm that restarts knows how")?;
        self.progress.phase(&format!("restarting: {command}"));
        // One that was not killed outright has its data for a while yet. A zombie is gone.
        let waits = match options.kill_pid {
            Some(pid) if !matches!(options.kill_signal.as_str(), "KILL" | "SIGKILL" | "9") => {
                format!("while readlink /proc/{pid}/exe >/dev/null; do sleep 0.02; done; ")
            }
            _ => String::new(),
        };
        let started = by_shell(&format!("{waits}exec {command}")).context("can't start the node again")?;
        self.restarted_pid = Some(started.id());
        Ok(())
    }

    fn begin_part(&mut self, index: usize, at_ns: Nanoseconds) {
        self.control.start_part(index, at_ns);
        let start_ns = self.control.load_start_ns();
        self.part_starts_ns.push(at_ns.saturating_sub(start_ns));
        self.part_samples.push((self.clock.now_ns().saturating_sub(start_ns), self.sample()));
        let name = self.plan.parts[index].name.clone();
        self.progress.phase(&format!("part {name}"));
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        if self.plan.layers.is_empty() && self.plan.echo.is_none() && self.plan.large.is_none() {
            return Ok(());
        }
        self.progress.phase("draining");
        self.control.set_phase(Phase::Drain);
        let end_ns = self.clock.now_ns() + self.load.drain_ns()?;
        let mut empty_since_ns = None;
        loop {
            self.look()?;
            let (counts, now_ns) = (self.counts(), self.clock.now_ns());
            let empty = counts.unacked == 0 && counts.undelivered == 0 && counts.presence_missing == 0;
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

    fn verify(&mut self) -> anyhow::Result<()> {
        if !self.plan.verifies {
            return Ok(());
        }
        let conversations = self.counts().conversations;
        self.progress.phase(&format!("reading the history of {conversations} conversations"));
        self.control.set_phase(Phase::Verify);
        if !self.progressing(|counts| counts.verified, conversations, "histories")? {
            self.failures.push("not all histories could be read".to_owned());
        }
        Ok(())
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

    /// Once a row: what the node and the generator use, and how many sessions there are.
    fn sample_row(&mut self, now_ns: Nanoseconds, start_ns: Nanoseconds, counts: &Counts) {
        let row = now_ns.saturating_sub(start_ns) / self.plan.row_ns;
        if now_ns < start_ns || self.last_sample.is_some_and(|(last, ..)| last == row) {
            return;
        }
        let sample = self.sample();
        let last = self.last_sample.replace((row, now_ns, sample));
        let since = last.map(|(_, then_ns, then)| ((now_ns - then_ns) as f64 / SECOND_NS as f64, then));
        self.samples.push(RowSample::between(row, since, &sample, counts));
    }

    /// Merges the threads' samples.
    fn collect_rows(&mut self, all: bool) {
        for second in self.seconds.try_iter() {
            match self.open_rows.entry(second.index) {
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().add(&second),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(second);
                }
            }
        }
        let newest = self.open_rows.keys().next_back().copied().unwrap_or(0);
        while let Some((&index, second)) = self.open_rows.first_key_value() {
            if !all && index + ROWS_OPEN > newest {
                break;
            }
            // As text, an hour of rows is small.
            self.rows.push(serde_json::to_string(second).expect("histograms can be written"));
            self.open_rows.remove(&index);
        }
    }

    fn join(&mut self) -> anyhow::Result<Vec<WorkerResult>> {
        let join = |thread: JoinHandle<std::io::Result<WorkerResult>>| {
            let result = thread.join().map_err(|_| anyhow::anyhow!("a client thread panicked"))?;
            result.context("a client thread's ring failed (is io_uring allowed here, and the kernel at least 6.11?)")
        };
        let results = std::mem::take(&mut self.threads).into_iter().map(join).collect();
        self.collect_rows(true);
        results
    }

    fn outcome(self, milestones: Milestones, results: Vec<WorkerResult>) -> Outcome {
        let mut latencies = Latencies::new(self.plan.parts.len());
        let (mut violations, mut errors) = (Violations::default(), BTreeMap::new());
        let mut tls = TlsOutcome::default();
        let threads = results.len() as u32;
        for result in results {
            latencies.add(&result.latencies);
            violations.add(&result.violations);
            tls.add(result.tls);
            for (error, count) in result.errors {
                *errors.entry(error).or_insert(0) += count;
            }
        }
        Outcome {
            seed: self.plan.seed,
            threads,
            requested: u64::from(self.plan.connections),
            counts: self.counts(),
            latencies,
            violations,
            errors,
            tls,
            rows: self.rows,
            samples: self.samples,
            milestones,
            part_starts_ns: self.part_starts_ns,
            part_samples: self.part_samples,
            load_end_ns: self.load_end_ns,
            layers: self.plan.layers.len(),
            problems: self.problems,
            failures: self.failures,
            storm: self.storm,
            server_pid: self.server.map(|server| server.pid),
            restarted_pid: self.restarted_pid,
        }
    }

    fn describe(&self) -> String {
        let plan = &self.plan;
        let seconds = (plan.warmup_ns + plan.measured_ns) as f64 / SECOND_NS as f64;
        match self.load {
            Load::Idle(_) => format!("idle for {seconds} s"),
            Load::Storm(_) => format!("{} messages a second until the storm is over", plan.rate_per_second),
            Load::Echo(options) => match options.in_flight {
                Some(in_flight) => format!("{in_flight} echoes of each connection under way for {seconds} s"),
                None => format!("{} echoes a second for {seconds} s", plan.rate_per_second),
            },
            Load::Large(options) => format!(
                "{} bursts of {} messages in {seconds} s, and {} a second of chat",
                options.bursts, options.burst, plan.rate_per_second
            ),
            _ => format!("{} messages a second for {seconds} s", plan.rate_per_second),
        }
    }

    fn show_rates(&mut self, last: &mut (Nanoseconds, Counts), now_ns: Nanoseconds, counts: Counts) {
        let (then_ns, then) = *last;
        let (plan, mut shown) = (self.plan.clone(), false);
        self.progress.show(|| {
            shown = true;
            progress_line(&counts, &then, (now_ns - then_ns) as f64 / SECOND_NS as f64, &plan)
        });
        if shown {
            *last = (now_ns, counts);
        }
    }
}

/// Starts a command that may outlive this run, and must not hold its pipes open.
fn by_shell(command: &str) -> std::io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn progress_line(counts: &Counts, then: &Counts, seconds: f64, plan: &Plan) -> String {
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(0.001);
    let large = plan.large.as_ref().map(|_| {
        format!(
            "{:.0}/s given, {:.0}/s hints  ",
            rate(counts.large_delivered, then.large_delivered),
            rate(counts.hints, then.hints)
        )
    });
    let mut connections = format!("{} up, {} lost", counts.up, counts.lost);
    if counts.paused > 0 {
        connections = format!("{connections}, {} not reading", counts.paused);
    }
    if plan.echo.is_some() {
        let echoes = rate(counts.acked, then.acked);
        return format!("{echoes:.0}/s echoed  {} under way  {connections}", counts.unacked);
    }
    if plan.layers.is_empty() && plan.large.is_none() {
        return connections;
    }
    format!(
        "{}{:.0}/s offered  {:.0}/s acked  {:.0}/s delivered  {} unacked  {connections}  {} violations",
        large.unwrap_or_default(),
        rate(counts.offered, then.offered),
        rate(counts.acked, then.acked),
        rate(counts.delivered, then.delivered),
        counts.unacked,
        counts.violations,
    )
}
