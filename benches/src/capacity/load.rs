//! The load generator in a process of its own, and what its report says about whether the run counts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

/// A running load generator; ended if it is dropped before it has finished.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    report: PathBuf,
    output: PathBuf,
    typed: String,
}

/// What became of a run that broke nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Why the run's latencies can't be believed, if so.
    pub(crate) late: Option<String>,
}

impl Load {
    /// Starts one; `name` is that of its report in `folder`.
    pub(crate) fn start(program: &Path, folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let (report, output) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.txt")));
        if report.exists() {
            fs::remove_file(&report)?;
        }
        let file = fs::File::create(&output)?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--json").arg(&report);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| program.display().to_string())?;
        Ok(Self { child, report, output, typed: arguments.join(" ") })
    }

    /// Waits for its end. An error if a promise was broken, a connection is missing, or no run was made.
    pub(crate) fn finish(mut self) -> anyhow::Result<Verdict> {
        let status = self.child.wait()?;
        let text = fs::read_to_string(&self.report);
        let text = text.with_context(|| format!("loadgen {}: {status}, see {}", self.typed, self.output.display()))?;
        verdict(&serde_json::from_str(&text)?).with_context(|| format!("loadgen {}", self.typed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has usually ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn verdict(report: &Value) -> anyhow::Result<Verdict> {
    let violations = report["violations"].as_object().context("the report has no violations")?;
    let broken: Vec<String> = violations
        .iter()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !broken.is_empty() {
        bail!("promises were broken: {}", broken.join(", "));
    }
    let connections = &report["connections"];
    let (requested, established) = (connections["requested"].as_u64(), connections["established"].as_u64());
    if requested.is_none() || established < requested || connections["lost"].as_u64() != Some(0) {
        bail!("connections are missing: {connections}");
    }
    let valid = report["valid"].as_bool().context("the report has no `valid`")?;
    let reasons = report["invalid_because"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Verdict { late: (!valid).then(|| reasons.collect::<Vec<_>>().join("; ")) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_runs_that_broke_nothing_count() {
        let good = json!({
            "violations": {"order": 0, "lost": 0}, "valid": true, "invalid_because": [],
            "connections": {"requested": 10, "established": 10, "lost": 0},
        });
        assert_eq!(verdict(&good).unwrap(), Verdict { late: None });
        let changed = |pointer: &str, value: Value| {
            let mut report = good.clone();
            *report.pointer_mut(pointer).unwrap() = value;
            report
        };
        assert!(verdict(&changed("/violations/lost", json!(1))).unwrap_err().to_string().contains("lost 1"));
        assert!(verdict(&changed("/connections/established", json!(9))).is_err());
        assert!(verdict(&changed("/connections/lost", json!(1))).is_err());
        assert!(verdict(&json!({})).is_err());
        let mut late = changed("/valid", json!(false));
        late["invalid_because"] = json!(["the generator was late"]);
        assert_eq!(verdict(&late).unwrap().late.as_deref(), Some("the generator was late"));
    }
}
