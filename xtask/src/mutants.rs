//! `cargo xtask mutants`: plants bugs by hand-written replacements, one at a time, in a copy of the tree; each must be found by the tests or
//! by the simulator.
//!
//! Owns the order of things: unmutated suites first (a suite that fails without a bug says nothing about one), then bug by bug, a line of
//! progress each, results kept after each, and the table at the end.
//!
//! Must not do: change a file of the working tree but docs/mutants.md.

mod catalogue;
mod findings;
mod results;
mod table;
mod tree;
mod workshop;

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::process::{output, program, root};
use catalogue::{Mutant, Suite};
use results::{Outcome, Results};
use tree::Tree;
use workshop::Workshop;

/// What is asked for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these; `--list` names them.
    #[arg(long)]
    only: Vec<String>,
    /// Only those that have no result yet, or whose file or replacement has changed since.
    #[arg(long)]
    missing: bool,
    /// Names the bugs and what each breaks.
    #[arg(long)]
    list: bool,
    /// Also writes all results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Compiler processes at once.
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Times that every bug's time is given, on a machine that does other things too.
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// Leaves docs/mutants.md as it is.
    #[arg(long)]
    no_write: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let all = catalogue::load()?;
    catalogue::check(&all, &root())?;
    if options.list {
        all.iter().for_each(|mutant| println!("{:<44} {}", mutant.name, mutant.breaks));
        return Ok(());
    }
    if let Some(unknown) = options.only.iter().find(|name| !all.iter().any(|mutant| mutant.name == **name)) {
        bail!("no bug is named {unknown}; `--list` names them");
    }
    let folder = root().join("target/mutants");
    fs::create_dir_all(&folder)?;
    // Two at once would plant bugs into each other's tree.
    let lock = fs::File::create(folder.join("lock"))?;
    lock.try_lock().context("another `cargo xtask mutants` runs")?;
    let tree = Tree::copy(&root(), &folder.join("tree"))?;
    let store = folder.join("results.json");
    let mut results = Results::read(&store);
    results.keep_current(&all, &tree)?;
    let chosen: Vec<&Mutant> = all
        .iter()
        .filter(|mutant| options.only.is_empty() || options.only.contains(&mutant.name))
        .filter(|mutant| !options.missing || !results.has(&mutant.name))
        .collect();
    let workshop = Workshop::new(&tree, &folder.join("target"), options.jobs);
    unmutated(&workshop, &tree, &chosen, &mut results, &store)?;
    let revision = revision()?;
    let mut not_found = Vec::new();
    for (index, mutant) in chosen.iter().enumerate() {
        let outcome = plant(&workshop, &tree, mutant, options.patience)?;
        println!("[{} of {}] {}: {}", index + 1, chosen.len(), mutant.name, outcome.text());
        if !matches!(outcome, Outcome::Found { .. }) {
            not_found.push(mutant.name.as_str());
        }
        results.put(mutant, &tree, &revision, outcome)?;
        results.write(&store)?;
    }
    if !options.no_write {
        table::write(&root().join("docs/mutants.md"), &all, &results)?;
    }
    if let Some(path) = &options.json {
        results.write(path)?;
    }
    println!("mutants: {} ran, {} found, {} not found", chosen.len(), chosen.len() - not_found.len(), not_found.len());
    if not_found.is_empty() { Ok(()) } else { bail!("not found: {}", not_found.join(", ")) }
}

/// Runs every suite that is needed on the tree as it is, unless it passed on the same tree before.
fn unmutated(
    workshop: &Workshop<'_>,
    tree: &Tree,
    chosen: &[&Mutant],
    results: &mut Results,
    store: &std::path::Path,
) -> anyhow::Result<()> {
    let mut suites = Vec::new();
    for mutant in chosen {
        suites.extend(mutant.suites()?);
    }
    for suite in Suite::widest(suites) {
        let name = suite.to_string();
        if results.has_passed(&name, tree.digest()) {
            continue;
        }
        println!("without a bug: {name}");
        workshop.build(&suite).with_context(|| format!("{name} does not build"))?;
        let ran = workshop.run(&suite, workshop::UNMUTATED_SECONDS_MAX)?;
        match ran.failure {
            None if !ran.timed_out => {}
            None => bail!("{name} takes longer than {} s without any bug", workshop::UNMUTATED_SECONDS_MAX),
            Some(failure) => bail!("{name} fails without any bug, {}: {}", failure.by, failure.said),
        }
        println!("without a bug: {name} passed in {:.1} s", ran.seconds);
        results.passed(name, tree.digest());
        results.write(store)?;
    }
    Ok(())
}

/// Applies one bug, runs its suites until one fails or the time is up, and takes the bug out again.
fn plant(workshop: &Workshop<'_>, tree: &Tree, mutant: &Mutant, patience: u32) -> anyhow::Result<Outcome> {
    let original = tree.read(&mutant.file)?;
    tree.write(&mutant.file, &mutant.apply(&original)?)?;
    let outcome = hunt(workshop, mutant, patience);
    // Also after an error: the next bug must be alone.
    tree.write(&mutant.file, &original)?;
    outcome
}

fn hunt(workshop: &Workshop<'_>, mutant: &Mutant, patience: u32) -> anyhow::Result<Outcome> {
    let budget = mutant.seconds as f64 * f64::from(patience);
    let (mut spent, mut tried, mut cut) = (0.0, Vec::new(), None);
    for suite in mutant.suites()? {
        if let Err(error) = workshop.build(&suite) {
            return Ok(Outcome::Broken { said: format!("{error:#}") });
        }
        let ran = workshop.run(&suite, ((budget - spent).ceil() as u32).max(1))?;
        spent += ran.seconds;
        if let Some(failure) = ran.failure {
            return Ok(Outcome::Found { by: failure.by, said: failure.said, seconds: spent });
        }
        if ran.timed_out {
            cut = Some(suite.to_string());
            break;
        }
        tried.push(suite.to_string());
        if spent >= budget {
            break;
        }
    }
    Ok(Outcome::Survived { tried, cut, seconds: spent })
}

/// The commit, and whether the working tree differs from it.
fn revision() -> anyhow::Result<String> {
    Ok(output(program("git").args(["describe", "--always", "--dirty=, with changes"]))?.trim().to_owned())
}
