//! Measures what one of everything costs a node on this machine, for `tune capacity`, and checks what is predicted from
//! it.
//!
//! A node and the load generator run as processes of their own, as they are shipped. Three rounds of all runs take four
//! to five minutes; they take turns, so that what else goes on on the machine falls on all alike. Must not do: judge
//! latencies.

mod check;
mod fit;
pub(crate) mod load;
mod measure;
pub(crate) mod node;
mod sockets;
mod solve;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_tuning::{
    Machine,
    capacity::{Coefficients, MeasuredOn},
};
use anyhow::{Context, ensure};
use check::Scenario;
use measure::{Bench, CHATS, Chat, ChatShape, Ends, Idle};
use solve::Readings;

/// What stands above the figures.
const HEADER: &str = "\
# What a node's memory, processor, disk and network cost, for `tune capacity`; docs/tuning.md says what each figure is.
# Each has its source and how far it can be trusted: `measured` (on the machine below), `computed` (from sizes in the
# sources) or `assumed` (nobody has measured it yet). `cargo xtask bench capacity` measures again and writes such a
# file, to be given with `--coefficients`.

";

/// The command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to write the coefficients; with --check, where to read them.
    #[arg(long, default_value = "target/coefficients.toml")]
    out: PathBuf,
    /// Rounds of all runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// One round: to see whether it works.
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Compare a prediction with a run that no coefficient comes from.
    #[arg(long)]
    check: bool,
    /// Runs count in which the generator was late; what is measured here is not latency.
    #[arg(long)]
    allow_late: bool,
    /// The node; without it the one beside this program.
    #[arg(long)]
    node: Option<PathBuf>,
    /// The load generator; without it the one beside this program.
    #[arg(long)]
    loadgen: Option<PathBuf>,
    /// Where nodes keep their data meanwhile. It must be a real disk.
    #[arg(long, default_value = "target/bench/capacity")]
    folder: PathBuf,
    /// Connections of the check.
    #[arg(long, default_value_t = 20_000)]
    connections: u64,
    /// Members of its groups.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    group_members: u64,
    /// Its messages a second.
    #[arg(long, default_value_t = 1_500.0)]
    rate: f64,
    /// Bytes of their texts.
    #[arg(long, default_value_t = 200)]
    text_bytes: u64,
    /// Its shards.
    #[arg(long, default_value_t = 8)]
    shards: u64,
    /// Its seconds: longer than a heartbeat's interval, so that each connection was heard.
    #[arg(long, default_value_t = 35.0)]
    seconds: f64,
    /// It is over TLS.
    #[arg(long)]
    tls: bool,
}

/// Measures, or checks.
pub(crate) fn run(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    let folder = std::path::absolute(&options.folder)?;
    let bench = Bench {
        node: program(options.node.as_deref(), "antiphon")?,
        loadgen: program(options.loadgen.as_deref(), "loadgen")?,
        folder,
        allow_late: options.allow_late,
    };
    if options.check {
        let name = options.out.display().to_string();
        let text =
            fs::read_to_string(&options.out).with_context(|| format!("{name}: measure first, without --check"))?;
        let shape = ChatShape {
            name: "check",
            shards: options.shards,
            connections: options.connections,
            group_members: options.group_members,
            rate: options.rate,
            text_bytes: options.text_bytes,
            tls: options.tls,
            window_s: options.seconds,
        };
        let scenario = Scenario { shape, seconds: options.seconds };
        return check::run(&bench, &Coefficients::from_toml(&name, &text)?, &scenario);
    }
    let begin = Instant::now();
    let rounds = if options.quick { 1 } else { options.rounds };
    let readings = read(&bench, rounds)?;
    let mut coefficients = Coefficients::built_in()?;
    let notes = solve::solve(&readings, &mut coefficients)?;
    coefficients.measured_on = measured_on(machine)?;
    fs::write(&options.out, format!("{HEADER}{}", coefficients.to_toml()?))?;
    notes.iter().for_each(|note| println!("{note}"));
    println!("{}", solve::interval_note());
    println!("wrote {} after {} s", options.out.display(), begin.elapsed().as_secs());
    Ok(())
}

pub(crate) fn program(given: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    let path = given.map_or(beside, Path::to_owned);
    ensure!(path.is_file(), "{} is not there: cargo build --release", path.display());
    Ok(path)
}

fn read(bench: &Bench, rounds: u64) -> anyhow::Result<Readings> {
    let mut readings = Readings::default();
    println!("capacity  {rounds} rounds");
    for round in 1..=rounds {
        for shape in &CHATS {
            let chat = bench.chat(shape)?;
            println!("  {round}/{rounds} {}", chat_line(&chat));
            readings.chats.push(chat);
        }
        let (idles, both) = bench.idle()?;
        idles.iter().for_each(|idle| println!("  {round}/{rounds} {}", idle_line(idle)));
        readings.idles.extend(idles);
        match both.and_then(|both| bench.ends(both)) {
            Ok(ends) => {
                println!("  {round}/{rounds} {}", ends_line(&ends));
                readings.ends.push(ends);
            }
            // Memory of the kernel is the machine's alone to tell: another round may have been left in peace.
            Err(error) => println!("  {round}/{rounds} kernel: not measured, {error:#}"),
        }
    }
    readings.record_overhead_bytes = crate::append::record_overhead_bytes(&bench.folder.join("append"))?;
    println!("  log: {:.1} bytes a record beside its text", readings.record_overhead_bytes);
    Ok(readings)
}

fn chat_line(chat: &Chat) -> String {
    let window = chat.window();
    format!(
        "{:<12} {:>5.0} messages, {:>6.0} deliveries, {:>5.0} commits a second, {:.3} cores, {:.1} MiB{}",
        chat.shape.name,
        window.per_second("acks"),
        window.per_second("deliveries"),
        window.per_second("commits"),
        window.cores(),
        chat.to.rss_bytes / f64::from(1 << 20),
        if chat.late.is_some() { ", generator late" } else { "" },
    )
}

fn ends_line(ends: &Ends) -> String {
    let Ends { plain, node, generator } = ends;
    format!("kernel: a plain end {plain:.0} bytes, the node's {node:.0}, the generator's {generator:.0}")
}

fn idle_line(idle: &Idle) -> String {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    format!(
        "{:<12} {:>5} connections, {:.0} heartbeats/s, {:.4} cores, MiB: empty {:.1}, connected {:.1}, at rest {:.1}",
        idle.shape.name,
        idle.shape.connections,
        idle.window().per_second("frames_in"),
        idle.window().cores(),
        mib(idle.empty.rss_bytes),
        mib(idle.connected.rss_bytes),
        mib(idle.rest.rss_bytes),
    )
}

fn measured_on(machine: &Machine) -> anyhow::Result<MeasuredOn> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let days = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400;
    let gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    Ok(MeasuredOn {
        machine: format!("{} cores, {gib:.0} GiB; node and load generator on the same machine", machine.cores),
        cpu: machine.cpu.clone(),
        kernel: machine.kernel.clone(),
        date: date(days),
        revision: git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
            .unwrap_or("unknown".to_owned()),
    })
}

/// Year-month-day of a day since 1970, in the Gregorian calendar: years begin in March, so that a leap day is a year's
/// last.
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let part = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * part + 2) / 5 + 1, if part < 10 { part + 3 } else { part - 9 });
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let cases = [(0, "1970-01-01"), (11_016, "2000-02-29"), (19_782, "2024-02-29"), (20_783, "2026-11-26")];
        for (days, expected) in cases {
            assert_eq!(date(days), expected);
        }
    }
}
