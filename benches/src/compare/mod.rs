//! `cargo xtask compare net`: the node's net plane beside other WebSocket servers, echoing and broadcasting. Its sibling
//! `compare engine` is in [`mod@engine`].
//!
//! Every server is one process on one core, the driver a process on another. In every round the servers take turns, in
//! an order that moves by one, so that noise of the machine hits all of them. A figure is the server's CPU time for
//! each echo or delivery, beside latency from the intended time and the memory of a connection. Results that did not
//! come back whole are no results.

mod client;
mod cpu;
mod drive;
mod engine;
pub(crate) mod figures;
mod nats;
mod peers;
pub(crate) mod table;

use std::{fs, process::Stdio, time::Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

pub(crate) use drive::{DriveOptions, run as drive};
pub(crate) use engine::{EngineOptions, StoreOptions, compare as engine, run_store};

use drive::Outcome;
use peers::{DRIVER_CORE, Peer, Places, Program};
use table::grouped;

use crate::facts::{date, load_average, revision};

/// The document that holds the tables.
const DOCUMENT: &str = "docs/benchmarks.md";

/// How long a load runs before it is measured.
const WARMUP_SECONDS: f64 = 0.5;

/// Options of `compare net`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NetOptions {
    /// Rounds; in each, every server is measured once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many connections, with commas between; RLIMIT_NOFILE bounds them
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000, 19_000])]
    connections: Vec<u32>,
    /// Which servers, with commas between (without it: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How long each load is measured
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Echoes a second of the light load
    #[arg(long, default_value_t = 5_000.0)]
    light: f64,
    /// Echoes a second of the high load: what the slowest of the servers manages on one core
    #[arg(long, default_value_t = 40_000.0)]
    high: f64,
    /// Deliveries a second of a broadcast
    #[arg(long, default_value_t = 50_000.0)]
    deliveries: f64,
    /// Only echoes
    #[arg(long, conflicts_with = "broadcast_only")]
    echo_only: bool,
    /// Only broadcasts
    #[arg(long)]
    broadcast_only: bool,
    /// Decides arrivals and their connections
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One round of a second with 100 and 1,000 connections, to see that everything runs; writes no table
    #[arg(long)]
    quick: bool,
    /// Leaves the document as it is
    #[arg(long)]
    no_write: bool,
}

/// What is put on a server.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Load {
    /// As tables name it.
    name: String,
    /// Messages a second; 0 is a closed loop.
    rate: f64,
    broadcast: bool,
}

/// One server under one load in one round.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    connections: u32,
    load: Load,
    peer: Peer,
    round: usize,
    /// None if it failed.
    outcome: Option<Outcome>,
}

/// What a reader has to know of the figures.
#[derive(Debug, Clone, Serialize)]
struct Header {
    machine: antiphon_tuning::Machine,
    /// TCP's, for all: one that paces sets a timer for each send.
    congestion_control: String,
    revision: String,
    date: String,
    seed: u64,
    rounds: usize,
    seconds: f64,
    /// Of one minute, before and after: what else ran here.
    load_average_before: String,
    load_average_after: String,
    servers: Vec<String>,
}

/// Everything, as it is kept beside the table.
#[derive(Debug, Serialize)]
struct Results {
    header: Header,
    samples: Vec<Sample>,
}

impl NetOptions {
    fn loads(&self, broadcast: bool, connections: u32) -> Vec<Load> {
        if broadcast {
            let rate = self.deliveries / f64::from(connections);
            return vec![Load { name: format!("{}/s", grouped(self.deliveries)), rate, broadcast }];
        }
        let open = |rate: f64| Load { name: format!("{}/s", grouped(rate)), rate, broadcast };
        vec![open(self.light), open(self.high), Load { name: "saturated".into(), rate: 0.0, broadcast }]
    }

    fn modes(&self) -> Vec<bool> {
        [false, true]
            .into_iter()
            .filter(|&broadcast| !(if broadcast { self.echo_only } else { self.broadcast_only }))
            .collect()
    }
}

/// Compares, prints the tables, and writes them.
pub(crate) fn net(mut options: NetOptions) -> anyhow::Result<()> {
    if options.quick {
        (options.rounds, options.seconds, options.no_write) = (1, 1.0, true);
        options.connections.retain(|&count| count <= 1_000);
    }
    ensure!(options.rounds > 0 && !options.connections.is_empty(), "there is nothing to measure");
    ensure!(antiphon_tuning::machine().cores >= 2, "server and driver need a core each");
    antiphon_gateway::uring::raise_open_files().context("raise the limit on open files")?;
    let places = Places::new()?;
    let chosen = |peer: &Peer| options.peers.is_empty() || options.peers.contains(peer);
    let programs: Vec<Program> =
        Peer::ALL.into_iter().filter(chosen).map(|peer| peer.prepare(&places)).collect::<anyhow::Result<_>>()?;
    let mut header = header(&options, &programs)?;
    println!(
        "revision  {}\nseed      {}\ndate      {}\nservers   {}",
        header.revision,
        header.seed,
        header.date,
        header.servers.join(", ")
    );
    println!("load      {} before\n", header.load_average_before);
    let samples = measure_all(&options, &places, &programs);
    header.load_average_after = load_average()?;
    let results = Results { header, samples };
    let text = table::markdown(&results);
    println!("\n{text}");
    let json = places.target().join("net.json");
    fs::write(&json, serde_json::to_string_pretty(&results)?)?;
    println!("every round: {}", json.display());
    if !options.no_write {
        let path = places.root().join(DOCUMENT);
        let document = fs::read_to_string(&path).with_context(|| DOCUMENT)?;
        fs::write(&path, table::splice(&document, "net", &text)?)?;
        println!("written to {DOCUMENT}");
    }
    let failed = results.samples.iter().filter(|sample| sample.outcome.is_none()).count();
    ensure!(failed == 0, "{failed} measurements failed; the table says which");
    Ok(())
}

fn measure_all(options: &NetOptions, places: &Places, programs: &[Program]) -> Vec<Sample> {
    let mut runs = Vec::new();
    for broadcast in options.modes() {
        for &connections in &options.connections {
            for round in 0..options.rounds {
                let able: Vec<&Program> =
                    programs.iter().filter(|program| program.peer.kind(broadcast).is_some()).collect();
                let order = (0..able.len()).map(|place| able[(place + round) % able.len()]);
                runs.extend(order.map(|program| (broadcast, connections, round, program)));
            }
        }
    }
    let (start, count) = (Instant::now(), runs.len());
    let mut samples = Vec::new();
    for (index, (broadcast, connections, round, program)) in runs.into_iter().enumerate() {
        let loads = options.loads(broadcast, connections);
        let (outcomes, failure) = measure(options, places, program, &loads, connections, round);
        let told: Vec<String> = loads
            .iter()
            .zip(&outcomes)
            .map(|(load, outcome)| {
                let waited = figures::waited(outcome) * 100.0;
                format!("{:.2} µs at {} (waited {waited:.0} %)", figures::cpu_us(outcome), load.name)
            })
            .collect();
        let left = start.elapsed().mul_f64((count - index - 1) as f64 / (index + 1) as f64);
        println!(
            "[{:>3}/{count}] {} {connections} round {}/{} {}: {}{}; {:.0} min left",
            index + 1,
            if broadcast { "broadcast" } else { "echo" },
            round + 1,
            options.rounds,
            program.peer.name(),
            told.join(", "),
            failure.map(|error| format!(" FAILED: {error:#}")).unwrap_or_default(),
            left.as_secs_f64() / 60.0,
        );
        let mut outcomes = outcomes.into_iter();
        samples.extend(loads.into_iter().map(|load| Sample {
            connections,
            load,
            peer: program.peer,
            round,
            outcome: outcomes.next(),
        }));
    }
    samples
}

/// One server through all loads. What was measured before a failure counts.
fn measure(
    options: &NetOptions,
    places: &Places,
    program: &Program,
    loads: &[Load],
    connections: u32,
    round: usize,
) -> (Vec<Outcome>, Option<anyhow::Error>) {
    let mut outcomes = Vec::new();
    let result = measure_into(&mut outcomes, options, places, program, loads, connections, round);
    (outcomes, result.err())
}

fn measure_into(
    outcomes: &mut Vec<Outcome>,
    options: &NetOptions,
    places: &Places,
    program: &Program,
    loads: &[Load],
    connections: u32,
    round: usize,
) -> anyhow::Result<()> {
    let broadcast = loads.iter().any(|load| load.broadcast);
    let kind = program.peer.kind(broadcast).context("the server does not do that")?;
    let server = program.start(places, broadcast)?;
    let rates: Vec<String> = loads.iter().map(|load| load.rate.to_string()).collect();
    let kind = clap::ValueEnum::to_possible_value(&kind).context("every kind has a name")?;
    let mut driver = peers::on_core(DRIVER_CORE);
    driver.arg(std::env::current_exe()?).arg("drive");
    driver.args(["--target", &server.address.to_string(), "--pid", &server.pid().to_string()]);
    driver.args(["--kind", kind.get_name(), "--connections", &connections.to_string(), "--rates", &rates.join(",")]);
    driver.args(["--seconds", &options.seconds.to_string(), "--warmup-seconds", &WARMUP_SECONDS.to_string()]);
    // Every server of a round gets the same arrivals.
    driver.args(["--seed", &options.seed.wrapping_add(round as u64).to_string()]);
    let output = driver.stdin(Stdio::null()).output().context(peers::NO_TASKSET)?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        outcomes.push(serde_json::from_str(line).with_context(|| format!("the driver said {line}"))?);
    }
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn header(options: &NetOptions, programs: &[Program]) -> anyhow::Result<Header> {
    Ok(Header {
        machine: antiphon_tuning::machine(),
        congestion_control: first_word("/proc/sys/net/ipv4/tcp_congestion_control")?,
        revision: revision()?,
        date: date()?,
        seed: options.seed,
        rounds: options.rounds,
        seconds: options.seconds,
        load_average_before: load_average()?,
        load_average_after: String::new(),
        servers: programs.iter().map(|program| format!("{} {}", program.peer.name(), program.version)).collect(),
    })
}

fn first_word(path: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        net: NetOptions,
    }

    fn options(arguments: &str) -> NetOptions {
        Arguments::try_parse_from(std::iter::once("net").chain(arguments.split_whitespace())).unwrap().net
    }

    #[test]
    fn a_broadcast_has_the_same_deliveries_whatever_its_connections() {
        let options = options("--deliveries 50000 --light 10 --high 2000");
        for connections in [100, 1_000, 19_000] {
            let loads = options.loads(true, connections);
            assert_eq!(loads.len(), 1);
            assert!((loads[0].rate * f64::from(connections) - 50_000.0).abs() < 1e-6);
            assert_eq!(loads[0].name, "50,000/s");
        }
        let names: Vec<String> = options.loads(false, 100).into_iter().map(|load| load.name).collect();
        assert_eq!(names, ["10/s", "2,000/s", "saturated"]);
    }

    #[test]
    fn options_are_understood() {
        let made = options("--peers antiphon,uwebsockets --connections 100,1000 --rounds 2 --echo-only");
        assert_eq!((made.peers, made.connections), (vec![Peer::Antiphon, Peer::Uwebsockets], vec![100, 1_000]));
        assert_eq!(options("--echo-only").modes(), [false]);
        assert_eq!(options("--broadcast-only").modes(), [true]);
        assert_eq!(options("").modes(), [false, true]);
    }
}
