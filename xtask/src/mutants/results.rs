//! Results, kept after each bug, so that a long run can be cut short and gone on with.
//!
//! Invariant: a result counts as long as bug and file are what they were; after that it is dropped.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    thread::available_parallelism,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{catalogue::Mutant, tree::Tree};
use crate::process::{output, program};

/// All that is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    /// By the bug's name.
    pub(super) results: BTreeMap<String, Kept>,
    /// Suites that passed without a bug, with the tree's digest.
    passed: BTreeMap<String, u64>,
}

/// One bug's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) outcome: Outcome,
    pub(super) revision: String,
    pub(super) date: String,
    pub(super) machine: String,
    /// Of bug and file.
    digest: u64,
}

/// What became of a bug.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Found.
    Found {
        /// By which test or seed.
        by: String,
        /// What that said.
        said: String,
        /// After so long, without compiling.
        seconds: f64,
    },
    /// Not found in its time: a hole in the tests.
    Survived {
        /// Suites that ran to their end.
        tried: Vec<String>,
        /// The one that did not.
        cut: Option<String>,
        /// How long.
        seconds: f64,
    },
    /// It does not compile: a fault of the catalogue.
    Broken {
        /// What the compiler said.
        said: String,
    },
}

impl Outcome {
    /// In a line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Found { by, said, seconds } => format!("found by {by}, after {seconds:.1} s: {said}"),
            Self::Survived { tried, cut, seconds } => {
                let tried = if tried.is_empty() { "none".to_owned() } else { tried.join("; ") };
                let cut = cut.as_ref().map_or_else(String::new, |suite| format!("; time was up in: {suite}"));
                format!("SURVIVED {seconds:.0} s; passed: {tried}{cut}")
            }
            Self::Broken { said } => format!("DOES NOT COMPILE: {said}"),
        }
    }
}

impl Results {
    /// What an earlier run left; nothing, if it cannot be read: everything then runs again.
    pub(super) fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Replaces the file in one step.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?).with_context(|| temporary.display().to_string())?;
        fs::rename(&temporary, path).with_context(|| path.display().to_string())
    }

    /// Drops results of bugs that are gone or not what they were, and those that say nothing of the tests.
    pub(super) fn keep_current(&mut self, all: &[Mutant], tree: &Tree) -> anyhow::Result<()> {
        let mut digests = BTreeMap::new();
        for mutant in all {
            digests.insert(mutant.name.as_str(), digest(mutant, tree)?);
        }
        self.results.retain(|name, kept| {
            digests.get(name.as_str()) == Some(&kept.digest) && !matches!(kept.outcome, Outcome::Broken { .. })
        });
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.results.contains_key(name)
    }

    pub(super) fn put(&mut self, mutant: &Mutant, tree: &Tree, revision: &str, outcome: Outcome) -> anyhow::Result<()> {
        let date = output(program("date").args(["-u", "+%Y-%m-%d"]))?.trim().to_owned();
        let (digest, revision) = (digest(mutant, tree)?, revision.to_owned());
        let kept = Kept { outcome, revision, date, machine: machine()?, digest };
        self.results.insert(mutant.name.clone(), kept);
        Ok(())
    }

    pub(super) fn has_passed(&self, suite: &str, digest: u64) -> bool {
        self.passed.get(suite) == Some(&digest)
    }

    pub(super) fn passed(&mut self, suite: String, digest: u64) {
        self.passed.insert(suite, digest);
    }
}

fn digest(mutant: &Mutant, tree: &Tree) -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    (&mutant.find, &mutant.replace, tree.read(&mutant.file)?).hash(&mut hasher);
    Ok(hasher.finish())
}

/// Processor, cores and kernel.
fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let cores = available_parallelism().map_or(1, usize::from);
    let kernel = output(program("uname").args(["-s", "-r"]))?;
    Ok(format!("{model}, {cores} cores, {}", kernel.trim()))
}
