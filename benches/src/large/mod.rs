//! One very large group, over its members and over how many of them are connected: `loadgen large` in one cell after the other, each against a node
//! of this program's own. What comes of it is one file for programs and two pictures.
//!
//! Cells with as many members share a node and its group, which is filled once; those with fewer connections come first. Must not do: leave
//! out a cell that failed without saying so.

mod picture;

use std::{
    fs,
    path::{Path, PathBuf},
};

use antiphon_tuning::Machine;
use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use crate::capacity::{load::Load, node::Node, program};

/// Members are added, and connections made, faster than people do either.
const SETTINGS: [&str; 3] =
    ["limits.requests_per_second_max=100000", "limits.requests_burst_max=100000", "admission.exempt=127.0.0.0/8"];

/// Members of the first series' groups.
const MEMBERS: [u32; 4] = [1_000, 10_000, 50_000, 200_000];

/// Connected members of the second series; 0: those who send alone.
const ONLINE: [u32; 5] = [0, 2_000, 20_000, 50_000, 100_000];

/// The command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where results.json, members.svg, online.svg and what the runs said go.
    #[arg(long, default_value = "target/bench/large")]
    folder: PathBuf,
    /// Small cells: to see whether it works.
    #[arg(long)]
    quick: bool,
    /// Members of the first series' groups.
    #[arg(long, value_delimiter = ',', default_values_t = MEMBERS)]
    members: Vec<u32>,
    /// Connected members of the first series.
    #[arg(long, default_value_t = 1_000)]
    members_online: u32,
    /// Connected members of the second series; 0: only those who send.
    #[arg(long, value_delimiter = ',', default_values_t = ONLINE)]
    online: Vec<u32>,
    /// Members of the second series' group.
    #[arg(long, default_value_t = 200_000)]
    online_members: u32,
    /// Connected members who have the group open, as far as there are so many.
    #[arg(long, default_value_t = 100)]
    viewers: u32,
    /// Runs of each cell; their medians count.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    trials: u32,
    /// The node's shards: 18,000 connections each.
    #[arg(long, default_value_t = 7)]
    shards: u64,
    /// Decides names and arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Given to all runs: `--load-option=--burst=200`, …
    #[arg(long, allow_hyphen_values = true)]
    load_option: Vec<String>,
    /// The node; without it the one beside this program.
    #[arg(long)]
    node: Option<PathBuf>,
    /// The load generator; without it the one beside this program.
    #[arg(long)]
    loadgen: Option<PathBuf>,
}

/// Which of the pictures a cell is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Series {
    Members,
    Online,
}

/// One run to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Cell {
    series: Vec<Series>,
    members: u32,
    online: u32,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
struct CellResult {
    #[serde(flatten)]
    cell: Cell,
    /// `None`: no run was made, or a promise was broken, or a connection is missing.
    #[serde(flatten)]
    figures: Option<Figures>,
    /// Why its latencies can't be believed, or why there are no figures.
    because: Option<String>,
    /// The generator's report, if there is one.
    report: Option<Value>,
}

/// What the pictures show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Figures {
    cpu_ms_per_message: f64,
    ack_p99_ms: f64,
    /// `None`: nobody is given any.
    deliver_p99_ms: Option<f64>,
    /// `None`: all are given everything.
    hint_p99_ms: Option<f64>,
    chat_deliver_p99_factor: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Results<'a> {
    schema: &'static str,
    machine: String,
    seed: u64,
    trials: u32,
    shards: u64,
    viewers: u32,
    settings: &'a [&'a str],
    cells: &'a [CellResult],
}

/// Runs all cells.
pub(crate) fn run(options: &Options, machine: &Machine) -> anyhow::Result<()> {
    let folder = std::path::absolute(&options.folder)?;
    fs::create_dir_all(&folder)?;
    let (node, loadgen) =
        (program(options.node.as_deref(), "antiphon")?, program(options.loadgen.as_deref(), "loadgen")?);
    println!("seed      {}", options.seed);
    let mut results: Vec<CellResult> = Vec::new();
    for cells in by_members(&cells(options)) {
        let mut server = Node::start(&node, &folder.join("node"), options.shards, &SETTINGS)?;
        for cell in cells {
            let result = measure(options, &loadgen, &folder, &mut server, cell);
            println!("{}", line(&result));
            results.push(result);
            // What is there is kept if a later cell ends everything.
            write(options, machine, &folder, &results)?;
        }
    }
    println!("wrote results.json, members.svg and online.svg in {}", folder.display());
    let failed = results.iter().filter(|result| result.figures.is_none()).count();
    if failed > 0 {
        bail!("{failed} of {} cells failed", results.len());
    }
    Ok(())
}

/// Both series, each cell once.
fn cells(options: &Options) -> Vec<Cell> {
    let (members, online) = if options.quick {
        (vec![(1_000, 200), (20_000, 200)], vec![(20_000, 0), (20_000, 500)])
    } else {
        let first = options.members.iter().map(|&members| (members, options.members_online.min(members)));
        let second = options.online.iter().map(|&online| (options.online_members, online));
        (first.collect(), second.collect())
    };
    let mut cells: Vec<Cell> = Vec::new();
    let all = members.into_iter().map(|cell| (Series::Members, cell));
    for (series, (members, online)) in all.chain(online.into_iter().map(|cell| (Series::Online, cell))) {
        match cells.iter_mut().find(|cell| (cell.members, cell.online) == (members, online)) {
            Some(cell) => cell.series.push(series),
            None => cells.push(Cell { series: vec![series], members, online }),
        }
    }
    cells
}

/// Cells with as many members together, fewer connections first: memory that a node once took it keeps for a while.
fn by_members(cells: &[Cell]) -> Vec<Vec<Cell>> {
    let mut cells = cells.to_vec();
    cells.sort_by_key(|cell| (cell.members, cell.online));
    cells.chunk_by(|one, other| one.members == other.members).map(<[Cell]>::to_vec).collect()
}

fn arguments(options: &Options, cell: &Cell, target: &str, pid: u32) -> Vec<String> {
    let viewers = options.viewers.min(cell.online);
    let mut arguments = format!(
        "large --target {target} --server-pid {pid} --members {} --online {} --viewers {viewers} --seed {} --trials {}",
        cell.members, cell.online, options.seed, options.trials
    );
    if options.quick {
        arguments += " --bursts 1 --quiet-seconds 2 --chat-connections 100 --chat-rate 100 --trials 1";
        arguments = arguments.replacen(&format!("--trials {} ", options.trials), "", 1);
    }
    arguments.split(' ').map(str::to_owned).chain(options.load_option.iter().cloned()).collect()
}

fn measure(options: &Options, loadgen: &Path, folder: &Path, server: &mut Node, cell: Cell) -> CellResult {
    let name = format!("cell-{}-{}", cell.members, cell.online);
    let arguments = arguments(options, &cell, &format!("ws://{}", server.listen), server.pid());
    let verdict = Load::start(loadgen, folder, &name, &arguments).and_then(Load::finish);
    let report = fs::read(folder.join(format!("{name}.json"))).ok();
    let report: Option<Value> = report.and_then(|report| serde_json::from_slice(&report).ok());
    let figures = match (&verdict, &report) {
        (Ok(_), Some(report)) => figures(report),
        (Err(error), _) => Err(anyhow::anyhow!("{error:#}")),
        (_, None) => Err(anyhow::anyhow!("there is no report")),
    };
    let because = match &figures {
        Ok(_) => verdict.ok().and_then(|verdict| verdict.late),
        Err(error) => Some(format!("{error:#}")),
    };
    CellResult { cell, figures: figures.ok(), because, report }
}

/// Of several trials their medians, each figure by itself.
fn figures(report: &Value) -> anyhow::Result<Figures> {
    let failures = report["failed_because"].as_array().context("the report has no `failed_because`")?;
    if let Some(failure) = failures.first() {
        bail!("{failure}");
    }
    let large = &report["large"];
    let figure = |name: &str, of_one: &str| {
        let median = report["trials"]["spread"][format!("large.{name}")]["median"].as_f64();
        median.or_else(|| large.pointer(of_one)?.as_f64())
    };
    let needed = |name: &str, of_one: &str| figure(name, of_one).with_context(|| format!("the report has no {name}"));
    let of_some = |name: &str| {
        let is_there = large[format!("{name}_us")]["count"].as_u64() > Some(0);
        let p99_us = figure(&format!("{name}.p99"), &format!("/{name}_us/p99")).filter(|_| is_there)?;
        Some(p99_us / 1e3)
    };
    Ok(Figures {
        cpu_ms_per_message: needed("cpu_seconds_per_message", "/server/cpu_seconds_per_message")? * 1e3,
        ack_p99_ms: needed("send_to_ack.p99", "/send_to_ack_us/p99")? / 1e3,
        deliver_p99_ms: of_some("send_to_deliver"),
        hint_p99_ms: of_some("send_to_hint"),
        chat_deliver_p99_factor: figure("chat_deliver_p99_factor", "/chat/deliver_p99_factor"),
    })
}

fn line(result: &CellResult) -> String {
    let cell = format!("{:>7} members, {:>6} online", result.cell.members, result.cell.online);
    let because = result.because.as_ref().map_or_else(String::new, |because| format!("; {because}"));
    let ms = |ms: Option<f64>| ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms:.1} ms"));
    let Some(figures) = &result.figures else { return format!("  {cell}: FAILED{because}") };
    let Figures { cpu_ms_per_message, ack_p99_ms, deliver_p99_ms, hint_p99_ms, chat_deliver_p99_factor } = figures;
    let chat = chat_deliver_p99_factor.map_or_else(String::new, |factor| format!(", chat p99 × {factor:.2}"));
    format!(
        "  {cell}: {cpu_ms_per_message:.2} ms of CPU a message; p99: ack {ack_p99_ms:.1} ms, deliver {}, hint {}{chat}{because}",
        ms(*deliver_p99_ms),
        ms(*hint_p99_ms),
    )
}

fn write(options: &Options, machine: &Machine, folder: &Path, results: &[CellResult]) -> anyhow::Result<()> {
    let document = Results {
        schema: "antiphon-large/1",
        machine: format!("{machine:?}"),
        seed: options.seed,
        trials: if options.quick { 1 } else { options.trials },
        shards: options.shards,
        viewers: options.viewers,
        settings: &SETTINGS,
        cells: results,
    };
    fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&document)?)?;
    for (series, name) in [(Series::Members, "members.svg"), (Series::Online, "online.svg")] {
        fs::write(folder.join(name), picture::draw(series, results)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(more: &[&str]) -> Options {
        Line::parse_from(["x"].iter().chain(more)).options
    }

    #[test]
    fn cells_with_one_group_share_a_node_and_none_is_made_twice() {
        let groups = by_members(&cells(&options(&["--online", "0,1000,2000"])));
        let shapes: Vec<Vec<(u32, u32)>> =
            groups.iter().map(|cells| cells.iter().map(|cell| (cell.members, cell.online)).collect()).collect();
        let large = vec![(200_000, 0), (200_000, 1_000), (200_000, 2_000)];
        assert_eq!(shapes, [vec![(1_000, 1_000)], vec![(10_000, 1_000)], vec![(50_000, 1_000)], large]);
        assert_eq!(groups[3][1].series, [Series::Members, Series::Online]);
    }

    #[test]
    fn runs_are_told_what_they_need() {
        let cell = Cell { series: vec![Series::Online], members: 200_000, online: 0 };
        let typed = arguments(&options(&["--load-option=--burst=7"]), &cell, "ws://x:1", 9).join(" ");
        assert_eq!(
            typed,
            "large --target ws://x:1 --server-pid 9 --members 200000 --online 0 --viewers 0 --seed 1 --trials 3 --burst=7"
        );
        let typed = arguments(&options(&["--quick"]), &cell, "ws://x:1", 9).join(" ");
        assert!(typed.matches("--trials").count() == 1 && typed.ends_with("--trials 1"), "{typed}");
    }

    #[test]
    fn medians_come_before_the_figures_of_one_run() {
        let mut report = json!({"failed_because": [], "trials": null, "large": {
            "server": {"cpu_seconds_per_message": 0.002}, "send_to_ack_us": {"p99": 5_000},
            "send_to_deliver_us": {"p99": 6_000, "count": 3}, "send_to_hint_us": {"p99": 0, "count": 0}, "chat": {"deliver_p99_factor": null},
        }});
        let one = figures(&report).unwrap();
        assert_eq!((one.cpu_ms_per_message, one.ack_p99_ms, one.chat_deliver_p99_factor), (2.0, 5.0, None));
        assert_eq!((one.deliver_p99_ms, one.hint_p99_ms), (Some(6.0), None));
        report["trials"] = json!({"spread": {"large.send_to_ack.p99": {"median": 9_000.0}}});
        assert_eq!(figures(&report).unwrap(), Figures { ack_p99_ms: 9.0, ..one });
        report["failed_because"] = json!(["two are not acknowledged"]);
        assert!(figures(&report).unwrap_err().to_string().contains("two are not"));
    }
}
