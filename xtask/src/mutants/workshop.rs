//! Builds and runs suites in the copied tree, with a target folder of its own that is kept: a bug costs the building of what it touches.
//!
//! Building and running are apart, so that a bug that does not compile is told from one that is found, and only running is timed. What runs
//! is ended, with all its children, when its time is up. Time in which we were stopped ourselves does not count: what we wait for was then
//! stopped as well, by whoever needed the machine.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    catalogue::Suite,
    findings::{Failure, failure_of_simulator, failure_of_tests, last_words},
    tree::Tree,
};
use crate::process::{cargo, program, typed};

/// How long a suite may take without a bug, on a slow and busy machine.
pub(super) const UNMUTATED_SECONDS_MAX: u32 = 3_600;

/// How often it is looked whether a suite has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Longest time between two looks that counts: a longer one means that we were stopped, and not that the machine was slow.
const LOOK_LATE_MAX: Duration = Duration::from_secs(2);

/// Where suites are built and run.
pub(super) struct Workshop<'a> {
    tree: &'a Tree,
    target: PathBuf,
    jobs: u32,
}

/// What running a suite came to.
pub(super) struct Ran {
    pub(super) failure: Option<Failure>,
    pub(super) timed_out: bool,
    pub(super) seconds: f64,
}

impl<'a> Workshop<'a> {
    pub(super) fn new(tree: &'a Tree, target: &Path, jobs: u32) -> Self {
        Self { tree, target: target.to_owned(), jobs }
    }

    /// Compiles what the suite runs.
    pub(super) fn build(&self, suite: &Suite) -> anyhow::Result<()> {
        let mut command = match suite {
            Suite::Tests { package, words } => {
                let mut command = cargo(["test", "--no-run", "--quiet", "--locked", "--package", *package]);
                command.args(words);
                command
            }
            Suite::Simulator { .. } => {
                cargo(["build", "--quiet", "--locked", "--profile", "simulation", "--package", "antiphon-simulator"])
            }
        };
        command.args(["--jobs", &self.jobs.to_string()]);
        let built = self.output(&mut command)?;
        if !built.status.success() {
            let text = String::from_utf8_lossy(&built.stderr);
            let error = text.lines().find(|line| line.starts_with("error")).unwrap_or_else(|| last_words(&text));
            bail!("{error}");
        }
        Ok(())
    }

    /// Runs what was built, for so many seconds at most.
    pub(super) fn run(&self, suite: &Suite, seconds_max: u32) -> anyhow::Result<Ran> {
        let mut command = match suite {
            Suite::Tests { package, words } => {
                let mut command = cargo(["test", "--locked", "--package", *package]);
                command.args(words);
                command
            }
            Suite::Simulator { seeds } => {
                let mut command = program(self.target.join("simulation/antiphon-simulator"));
                command.args(["--seeds", &seeds.to_string(), "--threads", "1", "--no-shrink"]);
                command
            }
        };
        // Files, since a pipe that nobody empties would stop the suite.
        let [said, told] = ["said", "told"].map(|name| self.target.join(name));
        command.stdout(fs::File::create(&said)?).stderr(fs::File::create(&told)?);
        let (status, seconds) = within(seconds_max, self.surroundings(&mut command))?;
        let timed_out = status.is_none();
        if status.is_none_or(|status| status.success()) {
            return Ok(Ran { failure: None, timed_out, seconds });
        }
        let [said, told] = [fs::read(said)?, fs::read(told)?];
        let (said, told) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&told));
        let failure = match suite {
            Suite::Tests { .. } => failure_of_tests(&said, &told),
            Suite::Simulator { .. } => failure_of_simulator(&said, &told),
        };
        Ok(Ran { failure: Some(failure), timed_out, seconds })
    }

    fn output(&self, command: &mut Command) -> anyhow::Result<Output> {
        self.surroundings(command).output().with_context(|| typed(command))
    }

    fn surroundings<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .current_dir(self.tree.top())
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never")
            // Both profiles are built over and over, and what is found is told by its words, not by a debugger.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_SIMULATION_DEBUG", "0")
            .env("CARGO_PROFILE_SIMULATION_INCREMENTAL", "true")
            .env("RUST_BACKTRACE", "0")
            // What one bug makes fail must not be looked for first under the next.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
    }
}

/// Runs to the end or until the time is up; gives no status then. Also the seconds that it ran.
fn within(seconds_max: u32, command: &mut Command) -> anyhow::Result<(Option<ExitStatus>, f64)> {
    // A group of its own, so that its children can be ended with it.
    let mut child = command.process_group(0).spawn().with_context(|| typed(command))?;
    let (mut ran, mut looked) = (Duration::ZERO, Instant::now());
    loop {
        let status = child.try_wait()?;
        let now = Instant::now();
        ran += (now - looked).min(LOOK_LATE_MAX);
        looked = now;
        if status.is_some() {
            return Ok((status, ran.as_secs_f64()));
        }
        if ran.as_secs() >= u64::from(seconds_max) {
            let group = format!("-{}", child.id());
            program("kill").args(["-KILL", "--", &group]).status().context("kill")?;
            child.wait()?;
            return Ok((None, ran.as_secs_f64()));
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_and_what_hangs_is_ended() {
        let shell = |words: &str| within(1, program("sh").args(["-c", words])).unwrap();
        assert_eq!(shell("exit 3").0.and_then(|status| status.code()), Some(3));
        let started = Instant::now();
        // The shell's child, too.
        let (status, seconds) = shell("sleep 1000; true");
        assert!(status.is_none() && (1.0..100.0).contains(&seconds), "{status:?} {seconds}");
        assert!(started.elapsed() < Duration::from_secs(500));
    }
}
