//! Runs named stages one after the other, each with a header and its time, and sums up at the end.

use std::time::{Duration, Instant};

use anyhow::bail;

/// One stage.
pub(crate) struct Stage<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnOnce() -> anyhow::Result<()> + 'a>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnOnce() -> anyhow::Result<()> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Runs all, also after one has failed: a person wants to see everything that is wrong.
pub(crate) fn run_all(stages: Vec<Stage<'_>>) -> anyhow::Result<()> {
    let start = Instant::now();
    let count = stages.len();
    let mut rows: Vec<(&str, Duration, Option<String>)> = Vec::new();
    for (index, stage) in stages.into_iter().enumerate() {
        println!("\n━━ {} ({} of {count}) ━━", stage.name, index + 1);
        let stage_start = Instant::now();
        let failure = (stage.run)().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("✗ {}: {failure}", stage.name);
        }
        rows.push((stage.name, stage_start.elapsed(), failure));
    }
    println!("\n━━ summary ━━");
    for (name, time, failure) in &rows {
        let mark = if failure.is_none() { "✓" } else { "✗" };
        let failure = failure.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
        println!("{mark} {name:<14} {:>6.1} s  {failure}", time.as_secs_f64());
    }
    println!("  {:<14} {:>6.1} s", "all", start.elapsed().as_secs_f64());
    let failed: Vec<&str> = rows.iter().filter(|row| row.2.is_some()).map(|row| row.0).collect();
    println!("\nstages: {} passed, {} failed", rows.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}
