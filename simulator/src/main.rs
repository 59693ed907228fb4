//! The command line of the simulator; `cargo xtask sim` hands its arguments on to it.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_simulator::{
    Outcome,
    ledger::Ledger,
    plan::{Fault, Plan, Reduction},
    plant::{self, Plant},
    report::{self, Totals},
    run,
    shrink::shrink,
    trace::Detail,
};
use clap::Parser;

/// A seed makes and drops some hundred thousand small things, and whole disks at each crash.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Runs whole nodes under seeded faults and holds them to their promises.
#[derive(Debug, Parser)]
#[command(name = "antiphon-simulator", version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them; 0, or the first after those of `--add-to`, if it is not said.
    #[arg(long)]
    start: Option<u64>,
    /// Runs this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Goes on for so many minutes, however many seeds that makes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Adds what the run comes to to what the runs before it came to, in this file, and prints the sum. One run at a time.
    #[arg(long, conflicts_with_all = ["seed", "plant", "plants", "with", "without", "steps", "clients", "one_lane", "text_only"])]
    add_to: Option<PathBuf>,
    /// Plants a bug that must be found.
    #[arg(long)]
    plant: Option<Plant>,
    /// Plants each bug in turn and says how soon it is found.
    #[arg(long)]
    plants: bool,
    /// Leaves a fault out.
    #[arg(long, value_parser = fault)]
    without: Vec<Fault>,
    /// Passes over seeds that have none of these faults.
    #[arg(long, value_parser = fault)]
    with: Vec<Fault>,
    /// At most so many steps.
    #[arg(long, default_value_t = 0)]
    steps: u32,
    /// At most so many clients.
    #[arg(long, default_value_t = 0)]
    clients: u32,
    /// One shard with one lane.
    #[arg(long)]
    one_lane: bool,
    /// Messages say text alone, as in seeds from before they could say more.
    #[arg(long)]
    text_only: bool,
    /// Looks for no smaller run that fails as well.
    #[arg(long)]
    no_shrink: bool,
}

impl Arguments {
    fn wants(&self, seed: u64, reduction: &Reduction) -> bool {
        let has = |fault: &Fault| Plan::new(seed, reduction).rate(*fault) > 0;
        self.with.is_empty() || self.with.iter().any(has)
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.iter().copied().find(|fault| fault.name() == name);
    found.ok_or_else(|| Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", "))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(plant) = arguments.plant.filter(|plant| !plant::is_available(*plant)) {
        eprintln!("{plant:?} needs a build with --features planted");
        return ExitCode::from(2);
    }
    let without = arguments.without.iter().fold(0, |bits, fault| bits | (1 << *fault as u64));
    let Arguments { steps: steps_max, clients: clients_max, one_lane, text_only, .. } = arguments;
    let reduction = Reduction { without, steps_max, clients_max, one_lane, text_only };
    // A panic is a violation like others: it is caught and told with its seed. Where it can't be caught it is told at once.
    std::panic::set_hook(Box::new(|panic| {
        if cfg!(panic = "abort") {
            eprintln!("seed {} panics: {panic}", antiphon_simulator::seed_of_this_thread());
            std::process::exit(1);
        }
    }));
    if arguments.plants {
        return hunt_all();
    }
    let mut account = match Account::open(&arguments) {
        Ok(account) => account,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let (totals, failed) = match arguments.seed {
        Some(seed) => {
            let detail = if arguments.trace { Detail::Print } else { Detail::Hash };
            let outcome = run(seed, &reduction, arguments.plant, detail);
            println!("seed {seed}: {} events, hash {:016x}", outcome.events, outcome.hash);
            let mut totals = Totals::default();
            totals.add(&outcome);
            (totals, outcome.violation.is_some().then_some(outcome))
        }
        None => run_many(&arguments, &reduction, &mut account, started),
    };
    print!("{}", report::table(&totals));
    let seconds = started.elapsed().as_secs_f64();
    if let Err(error) = account.tell(&totals, u64::from(failed.is_some()), seconds) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    let Some(failed) = failed else {
        println!("{}", report::last_line(&totals, 0, seconds));
        // With a fault left out or a bug planted, less happens.
        let whole = reduction == Reduction::default() && arguments.plant.is_none() && arguments.with.is_empty();
        return if whole { holes(&totals) } else { ExitCode::SUCCESS };
    };
    tell(&arguments, &reduction, failed);
    println!("{}", report::last_line(&totals, 1, seconds));
    ExitCode::FAILURE
}

/// Says what no seed did though it should have: a fault or a state that is never met is not tested.
fn holes(totals: &Totals) -> ExitCode {
    let never = report::never(totals);
    if never.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("never happened: {}", never.join(", "));
    ExitCode::FAILURE
}

/// First seeds that each planted bug is hunted from, and seeds until the hunt is given up.
const HUNTS: u64 = 20;
const HUNT_SEEDS_MAX: u64 = 20_000;

fn hunt_all() -> ExitCode {
    let mut missed = 0;
    for plant in Plant::ALL {
        if !plant::is_available(plant) {
            eprintln!("{} needs a build with --features planted", plant.name());
            missed += 1;
            continue;
        }
        let found = plant::hunt(plant, HUNTS, HUNT_SEEDS_MAX);
        let hits: Vec<u64> = found.after.iter().flatten().copied().collect();
        let (sum, most) = (hits.iter().sum::<u64>(), hits.iter().max().copied().unwrap_or_default());
        let mean = sum as f64 / hits.len().max(1) as f64;
        println!(
            "{}: found {} of {HUNTS} times, after {mean:.1} seeds on average, {most} at most",
            plant.name(),
            hits.len()
        );
        println!("  as: {}", found.violation.chars().take(300).collect::<String>());
        missed += HUNTS as usize - hits.len();
    }
    println!("planted bugs: {} kinds, {HUNTS} hunts each, {missed} not found", Plant::ALL.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(arguments: &Arguments, reduction: &Reduction, failed: Outcome) {
    let plant = arguments.plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
    if arguments.trace {
        return print!("{}", report::failure(&failed, None, &plant));
    }
    let again = run(failed.seed, reduction, arguments.plant, Detail::Tail);
    if again.hash != failed.hash {
        println!("the same seed ran differently: hash {:016x}, then {:016x}", failed.hash, again.hash);
    }
    let shrunk =
        (!arguments.no_shrink && *reduction == Reduction::default()).then(|| shrink(failed.seed, arguments.plant));
    print!("{}", report::failure(&again, shrunk.as_ref(), &plant));
}

/// What threads share.
struct Shared<'a> {
    totals: Totals,
    failed: Option<Outcome>,
    /// The highest seed that ran.
    last: Option<u64>,
    told_at: Instant,
    account: &'a mut Account,
}

/// Runs seeds on all threads until one fails; of several failing ones the lowest.
fn run_many(
    arguments: &Arguments,
    reduction: &Reduction,
    account: &mut Account,
    started: Instant,
) -> (Totals, Option<Outcome>) {
    let next = AtomicU64::new(account.start);
    let wanted = arguments.minutes.map_or(arguments.seeds, |_| u64::MAX);
    let deadline = arguments.minutes.map(|minutes| started + Duration::from_secs_f64(minutes * 60.0));
    let stop = AtomicU64::new(account.start.saturating_add(wanted.min(account.room)));
    let shared = Mutex::new(Shared { totals: Totals::default(), failed: None, last: None, told_at: started, account });
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= stop.load(Ordering::Relaxed)
                        || deadline.is_some_and(|deadline| Instant::now() >= deadline)
                    {
                        return;
                    }
                    if !arguments.wants(seed, reduction) {
                        continue;
                    }
                    let outcome = run(seed, reduction, arguments.plant, Detail::Hash);
                    let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    shared.totals.add(&outcome);
                    shared.last = shared.last.max(Some(seed));
                    if outcome.violation.is_some() {
                        stop.fetch_min(seed, Ordering::Relaxed);
                        if shared.failed.as_ref().is_none_or(|first| seed < first.seed) {
                            shared.failed = Some(outcome);
                        }
                    }
                    progress(&mut shared, arguments, started);
                }
            });
        }
    });
    let Shared { totals, failed, last, account, .. } =
        shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    account.last = last;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    (totals, failed)
}

fn progress(shared: &mut Shared<'_>, arguments: &Arguments, started: Instant) {
    if shared.told_at.elapsed() < PROGRESS_INTERVAL {
        return;
    }
    shared.told_at = Instant::now();
    let seconds = started.elapsed().as_secs_f64();
    let of = arguments.minutes.map_or(Ok(arguments.seeds), Err);
    let line = report::progress(shared.totals.seeds, seconds, of);
    let is_half_minute = (seconds as u64).is_multiple_of(30);
    if std::io::stderr().is_terminal() {
        eprint!("\r{line}   ");
    } else if is_half_minute {
        eprintln!("{line}");
    }
    if is_half_minute {
        // A long run that is ended from outside has come to something, too. What can't be written is told at the end.
        shared.account.last = shared.last;
        let _ = shared.account.keep(&shared.totals, u64::from(shared.failed.is_some()), seconds);
    }
}

/// The file that runs are added up in, if there is one, and the seeds that are left.
struct Account {
    file: Option<PathBuf>,
    before: Ledger,
    start: u64,
    room: u64,
    last: Option<u64>,
}

impl Account {
    fn open(arguments: &Arguments) -> Result<Self, String> {
        let file = arguments.add_to.clone();
        let told =
            |error: &dyn std::fmt::Display| format!("{}: {error}", file.as_deref().unwrap_or(Path::new("")).display());
        let before = match file.as_ref().map(std::fs::read_to_string) {
            None => Ledger::default(),
            Some(Ok(text)) => Ledger::from_json(&text).map_err(|error| told(&error))?,
            Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ledger::default(),
            Some(Err(error)) => return Err(told(&error)),
        };
        let start = arguments.start.unwrap_or_else(|| before.next_seed());
        let room = before.room(start).map_err(|error| told(&error))?;
        let account = Self { file, before, start, room, last: None };
        // Whoever can't write finds out now, and not after hours.
        account.keep(&Totals::default(), 0, 0.0)?;
        Ok(account)
    }

    /// Writes the sum, whole or not at all.
    fn keep(&self, totals: &Totals, violations: u64, seconds: f64) -> Result<Ledger, String> {
        let range = self.last.map(|last| (self.start, last));
        let sum = self.before.with(totals, violations, seconds, range);
        if let Some(file) = &self.file {
            let new = file.with_extension("new");
            let written = std::fs::write(&new, sum.to_json()).and_then(|()| std::fs::rename(&new, file));
            written.map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(sum)
    }

    /// The same, and prints it.
    fn tell(&self, totals: &Totals, violations: u64, seconds: f64) -> Result<(), String> {
        let sum = self.keep(totals, violations, seconds)?;
        if let Some(file) = &self.file {
            println!("\nall runs of {}:\n{}", file.display(), sum.table());
        }
        Ok(())
    }
}
