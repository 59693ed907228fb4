//! The catalogue: `xtask/mutants/*.toml`. A bug is an exact text of one file and what stands there instead.
//!
//! Invariant, held by [`check`] and a test: every text occurs exactly once, so that a bug never lands elsewhere after the source has moved.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::process::root;

/// Longest time that finding one bug may take, compiling not counted: what a developer would wait for before a commit.
const SECONDS_MAX: u64 = 600;

/// Most seeds of one bug: beyond, the finding is luck.
const SEEDS_MAX: u64 = 20_000;

/// One bug.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// Unique; words with hyphens.
    pub(crate) name: String,
    /// From the top of the repository.
    pub(crate) file: String,
    /// Occurs exactly once in the file.
    pub(crate) find: String,
    /// Stands there instead.
    pub(crate) replace: String,
    /// The promise that no longer holds, in one sentence.
    pub(crate) breaks: String,
    /// What may find it, in this order: see [`Suite::parse`].
    suites: Vec<String>,
    /// Seconds that the finding may take, over all suites, without compiling.
    pub(crate) seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    mutant: Vec<Mutant>,
}

/// What may find a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Suite {
    /// Tests of one of our crates, with further words for `cargo test`.
    Tests { package: &'static str, words: Vec<String> },
    /// So many seeds of the simulator, from 0 on.
    Simulator { seeds: u64 },
}

impl Suite {
    /// `engine` or `gateway`, then words for `cargo test`; or `simulator` and a number of seeds.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let package = match first {
            "engine" => "antiphon-engine",
            "gateway" => "antiphon-gateway",
            "simulator" => {
                let seeds = rest.parse().with_context(|| format!("`{text}`: a number of seeds"))?;
                ensure!((1..=SEEDS_MAX).contains(&seeds), "`{text}`: 1 to {SEEDS_MAX} seeds");
                return Ok(Self::Simulator { seeds });
            }
            other => bail!("`{other}` is no suite: engine, gateway or simulator"),
        };
        Ok(Self::Tests { package, words: rest.split_whitespace().map(str::to_owned).collect() })
    }

    /// Those that hold all the others: a crate's whole suite its parts, the most seeds fewer.
    pub(crate) fn widest(suites: Vec<Self>) -> Vec<Self> {
        let mut widest: Vec<Self> = Vec::new();
        for suite in suites {
            if widest.iter().any(|other| other.holds(&suite)) {
                continue;
            }
            widest.retain(|other| !suite.holds(other));
            widest.push(suite);
        }
        widest
    }

    fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Simulator { seeds }, Self::Simulator { seeds: fewer }) => seeds >= fewer,
            (Self::Tests { package, words }, Self::Tests { package: of, words: all }) => {
                package == of && all.starts_with(words)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tests { package, words } => {
                write!(formatter, "cargo test -p {package}")?;
                words.iter().try_for_each(|word| write!(formatter, " {word}"))
            }
            Self::Simulator { seeds } => write!(formatter, "cargo xtask sim --seeds {seeds}"),
        }
    }
}

impl Mutant {
    /// Its suites, in order.
    pub(crate) fn suites(&self) -> anyhow::Result<Vec<Suite>> {
        self.suites.iter().map(|text| Suite::parse(text)).collect()
    }

    /// The file's text with the bug in it.
    pub(crate) fn apply(&self, text: &str) -> anyhow::Result<String> {
        let count = text.matches(&self.find).count();
        let (name, file) = (&self.name, &self.file);
        ensure!(count == 1, "catalogue out of date: the text of {name} occurs {count} times in {file}");
        Ok(text.replacen(&self.find, &self.replace, 1))
    }
}

/// All bugs, in the order of files and in them.
pub(crate) fn load() -> anyhow::Result<Vec<Mutant>> {
    let folder = root().join("xtask/mutants");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort_unstable();
    let mut all = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let page: Page = toml::from_str(&text).with_context(|| path.display().to_string())?;
        all.extend(page.mutant);
    }
    Ok(all)
}

/// Whether every bug can be planted in this tree.
pub(crate) fn check(all: &[Mutant], top: &Path) -> anyhow::Result<()> {
    let mut names = BTreeSet::new();
    for mutant in all {
        let name = &mutant.name;
        ensure!(names.insert(name), "two bugs are named {name}");
        ensure!(mutant.find != mutant.replace, "{name} changes nothing");
        ensure!(!mutant.suites.is_empty(), "{name} has no suite");
        ensure!((1..=SECONDS_MAX).contains(&mutant.seconds), "{name}: 1 to {SECONDS_MAX} seconds");
        mutant.suites().with_context(|| name.clone())?;
        let path = top.join(&mutant.file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("catalogue out of date: the file of {name}, {}", mutant.file))?;
        mutant.apply(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fewer would mean that files were not read.
    const MUTANTS_MIN: usize = 30;

    #[test]
    fn every_bug_of_the_catalogue_can_be_planted() {
        let all = load().unwrap();
        assert!(all.len() >= MUTANTS_MIN, "{} bugs", all.len());
        check(&all, &root()).unwrap();
    }

    fn mutant(find: &str) -> Mutant {
        Mutant {
            name: "one".into(),
            file: "a.rs".into(),
            find: find.into(),
            replace: "b".into(),
            breaks: "a promise".into(),
            suites: vec!["engine".into()],
            seconds: 9,
        }
    }

    #[test]
    fn a_text_that_is_not_there_once_is_out_of_date() {
        assert_eq!(mutant("y").apply("x y z").unwrap(), "x b z");
        for text in ["x z", "x y y z"] {
            let error = mutant("y").apply(text).unwrap_err().to_string();
            assert!(error.starts_with("catalogue out of date"), "{error}");
        }
    }

    #[test]
    fn suites_are_told_and_the_wider_holds_the_narrower() {
        let parse = |texts: &[&str]| texts.iter().map(|text| Suite::parse(text).unwrap()).collect::<Vec<_>>();
        let suites = parse(&["engine --test model", "simulator 20", "engine", "simulator 300", "gateway --lib"]);
        let texts: Vec<_> = Suite::widest(suites).iter().map(Suite::to_string).collect();
        assert_eq!(
            texts,
            ["cargo test -p antiphon-engine", "cargo xtask sim --seeds 300", "cargo test -p antiphon-gateway --lib"]
        );
        for wrong in ["wire", "simulator", "simulator 0", "simulator many", ""] {
            assert!(Suite::parse(wrong).is_err(), "{wrong}");
        }
    }
}
