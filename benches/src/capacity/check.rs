//! A run that no coefficient comes from, against its prediction.
//!
//! What is compared is the node under load that has gone on for longer than a heartbeat's interval: memory at the end
//! of it (see [`super::measure`] on what it does before), the rest over the window from the second second to the end. A
//! prediction is off by (predicted − measured) / measured.

use std::time::Duration;

use antiphon_tuning::capacity::Coefficients;
use anyhow::{Context, ensure};

use super::{
    load::Verdict,
    measure::{Bench, ChatShape, TRIES_MAX},
    node::{Node, Window},
    sockets,
    solve::workload,
};

/// How far a prediction may be off, in percent.
const MEMORY_OFF_MAX: f64 = 15.0;
const PROCESSOR_OFF_MAX: f64 = 30.0;

/// A storm of connects, on a busy machine.
const CONNECT_WAIT: Duration = Duration::from_secs(90);

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) shape: ChatShape,
    pub(super) seconds: f64,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    unit: &'static str,
    predicted: f64,
    measured: f64,
    off_max: Option<f64>,
}

impl Row {
    fn off_percent(&self) -> f64 {
        (self.predicted / self.measured - 1.0) * 100.0
    }

    /// Nothing measured is off by any measure.
    fn is_good(&self) -> bool {
        self.off_max.is_none_or(|max| self.off_percent().abs() <= max)
    }

    fn line(&self) -> String {
        let Self { name, unit, predicted, measured, off_max } = self;
        let may = off_max.map_or("-".to_owned(), |max| format!("{max:.0} %"));
        let verdict = if self.is_good() { "" } else { "  TOO FAR OFF" };
        format!(
            "{name:<28} {predicted:>12.2} {measured:>12.2} {unit:<10} {:>+7.1} % {may:>6}{verdict}",
            self.off_percent()
        )
    }
}

/// Runs a scenario, prints the comparison, and fails if memory or processor are too far off.
pub(super) fn run(bench: &Bench, coefficients: &Coefficients, scenario: &Scenario) -> anyhow::Result<()> {
    let shape = &scenario.shape;
    println!(
        "check     {} connections, groups of {}, {} messages a second of {} bytes, {} shards, {} s",
        shape.connections, shape.group_members, shape.rate, shape.text_bytes, shape.shards, scenario.seconds
    );
    println!("          with coefficients of {}", coefficients.measured_on);
    let mut result = bench.again("check", || compare(bench, coefficients, scenario))?;
    // Somebody else's connections spoil the kernel's figures alone.
    for _ in 1..TRIES_MAX {
        let Err(error) = &result.kernel else { break };
        println!("  check again: {error}");
        result = bench.again("check", || compare(bench, coefficients, scenario))?;
    }
    let (rows, kernel) = (result.rows, result.kernel);
    println!("{:<28} {:>12} {:>12} {:<10} {:>9} {:>6}", "", "predicted", "measured", "", "off", "may be");
    rows.iter().for_each(|row| println!("{}", row.line()));
    let bad: Vec<&str> = rows.iter().filter(|row| !row.is_good()).map(|row| row.name).collect();
    ensure!(bad.is_empty(), "too far off: {}", bad.join(", "));
    kernel.context("the kernel's memory was not compared")
}

/// What came out of one run.
struct Comparison {
    rows: Vec<Row>,
    /// Whether the kernel's rows are there, or why not.
    kernel: anyhow::Result<()>,
}

fn compare(bench: &Bench, coefficients: &Coefficients, scenario: &Scenario) -> anyhow::Result<Comparison> {
    let shape = &scenario.shape;
    let mut node = Node::start(&bench.node, &bench.folder.join("check"), shape.shards, &[])?;
    let before = sockets::settled()?;
    let load = bench.start_chat(&node, shape, scenario.seconds)?;
    let (first, last) = (shape.rate, shape.rate * (scenario.seconds - 1.0));
    let from = node.wait("messages flow", CONNECT_WAIT, |now| now.count("acks") >= first)?;
    let longest = Duration::from_secs_f64(scenario.seconds * 2.0);
    let to = node.wait("the load ends", longest, |now| now.count("acks") >= last)?;
    let slab = sockets::Slab::read()?.grown_since(before, 2 * shape.connections as usize);
    let Verdict { late } = load.finish()?;
    ensure!(late.is_none() || bench.allow_late, "{}", late.unwrap_or_default());
    if let Some(late) = late {
        println!("          {late}: latencies don't count, which are not looked at");
    }
    let window = Window { from: &from, to: &to };
    let rate = window.per_second("acks");
    ensure!((rate / shape.rate - 1.0).abs() < 0.1, "{rate:.0} messages a second were acknowledged");

    // Nothing of what was measured goes into what was predicted.
    let predicted = coefficients.predict(workload(shape, shape.rate, scenario.seconds));
    let end = coefficients.value("generator_connection_bytes").context("generator_connection_bytes")?;
    let kernel = slab.map(|bytes| bytes - end * shape.connections as f64);
    let mib = f64::from(1 << 20);
    let row = |name, unit, predicted, measured, off_max| Row { name, unit, predicted, measured, off_max };
    let (memory, processor) = (Some(MEMORY_OFF_MAX), Some(PROCESSOR_OFF_MAX));
    let (user, node_kernel) = (predicted.user_bytes as f64, predicted.kernel_bytes as f64);
    let mut rows = vec![row("memory of the node", "MiB", user / mib, to.rss_bytes / mib, memory)];
    if let Ok(kernel) = kernel {
        rows.push(row("memory of the kernel for it", "MiB", node_kernel / mib, kernel / mib, memory));
        rows.push(row("memory, both", "MiB", (user + node_kernel) / mib, (to.rss_bytes + kernel) / mib, memory));
    }
    rows.push(row("processor", "cores", predicted.cores, window.cores(), processor));
    for (name, predicted, counter) in [
        ("log", predicted.log_write_bytes_per_second, "commit_bytes"),
        ("network in, on sockets", predicted.socket_in_bytes_per_second, "bytes_in"),
        ("network out, on sockets", predicted.socket_out_bytes_per_second, "bytes_out"),
    ] {
        rows.push(row(name, "MB/s", predicted / 1e6, window.per_second(counter) / 1e6, None));
    }
    for (name, predicted, counter) in [
        ("log writes", predicted.commits_per_second, "commits"),
        ("deliveries", predicted.deliveries_per_second, "deliveries"),
    ] {
        rows.push(row(name, "1/s", predicted, window.per_second(counter), None));
    }
    Ok(Comparison { rows, kernel: kernel.map(drop) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(predicted: f64, measured: f64, off_max: Option<f64>) -> Row {
        Row { name: "a", unit: "b", predicted, measured, off_max }
    }

    #[test]
    fn what_is_too_far_off_is_told() {
        assert!(row(115.0, 100.0, Some(15.1)).is_good() && row(85.0, 100.0, Some(15.1)).is_good());
        assert!(!row(116.0, 100.0, Some(15.0)).is_good() && !row(84.0, 100.0, Some(15.0)).is_good());
        assert!(row(300.0, 100.0, None).is_good(), "no limit, no verdict");
        assert!(!row(1.0, 0.0, Some(15.0)).is_good() && !row(0.0, 0.0, Some(15.0)).is_good());
        assert!(row(200.0, 100.0, Some(15.0)).line().contains("+100.0 %"));
        assert!(row(200.0, 100.0, Some(15.0)).line().ends_with("TOO FAR OFF"));
    }
}
