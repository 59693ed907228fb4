//! The `tune` command line: options, printing, exit codes (docs/tuning.md has the table). Must not do: decide what is good or how to
//! change it; that is the library's.

mod arguments;
mod report;

use std::{
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_tuning::{
    Machine,
    capacity::{Coefficients, Workload},
    catalogue,
    check::{check, exit_status, limits, shards_wanted},
    facts::Facts,
    journal,
    persist::{self, Names},
    plan::{self, Plan},
    profile::{Asked, BUILT_IN, Profile},
    system::{Directory, System},
};
use anyhow::{Context, bail};
use arguments::{Arguments, CapacityOptions, Choice, Command};
use clap::Parser;

/// Everything is as asked.
const GOOD: u8 = 0;
/// Something is short, kept, refused, or to be done.
const SOMETHING: u8 = 1;
/// The command could not be carried out.
const FAILED: u8 = 3;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell if it can't be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { GOOD });
        }
    };
    match run(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("tune: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let mut system = Directory::below(&arguments.root);
    let state = arguments.state.as_str();
    if !state.starts_with('/') {
        bail!("--state is an absolute path");
    }
    match arguments.command {
        Command::Check { choice, json } => run_check(&system, &choice, json),
        Command::Plan { choice, json } => {
            let (profile, plan) = planned(&system, &choice)?;
            report::plan(&profile, &plan, json);
            Ok(if plan.steps.is_empty() { GOOD } else { SOMETHING })
        }
        Command::Apply { choice, json } => {
            let (profile, plan) = planned(&system, &choice)?;
            run_apply(&mut system, &profile, &plan, state, json)
        }
        Command::Undo { force, json } => run_undo(&mut system, state, force, json),
        Command::Persist { choice, unit, user, print, remove, force } => {
            let names = Names { unit, user };
            if names.unit.contains('/') || names.user.split_whitespace().count() != 1 {
                bail!("--unit is a unit's name and --user a user's");
            }
            if remove {
                persist::remove(&mut system, &names)?.iter().for_each(|path| println!("removed {path}"));
                return Ok(GOOD);
            }
            let (profile, facts, asked) = asked(&system, &choice)?;
            let files = persist::files(&profile, &facts, asked, &names);
            if print {
                files.iter().for_each(|file| println!("==> {} <==\n{}", file.path, file.text));
                return Ok(GOOD);
            }
            persist::write(&mut system, &files, force)?;
            files.iter().for_each(|file| println!("wrote {}", file.path));
            println!("{}", report::AFTER_PERSIST);
            for line in persist::by_hand(&profile, &facts, asked) {
                println!("Not from a file; {line}.");
            }
            Ok(GOOD)
        }
        Command::Capacity { options, json } => run_capacity(&system, &options, json),
        Command::Profiles => {
            for (name, _) in BUILT_IN {
                println!("{name:<12}  {}", Profile::built_in(name)?.description);
            }
            Ok(GOOD)
        }
        Command::ShowProfile { name } => {
            let text = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
            print!(
                "{}",
                text.with_context(|| Profile::built_in(&name).err().map_or(String::new(), |error| error.to_string()))?
            );
            Ok(GOOD)
        }
    }
}

/// A built-in profile, or the file of that path.
fn profile(name: &str) -> anyhow::Result<Profile> {
    if !name.contains('/') && Path::new(name).extension().is_none_or(|extension| extension != "toml") {
        return Ok(Profile::built_in(name)?);
    }
    let text = std::fs::read_to_string(name).with_context(|| name.to_owned())?;
    Ok(Profile::from_toml(name, &text)?)
}

fn asked(system: &Directory, choice: &Choice) -> anyhow::Result<(Profile, Facts, Asked)> {
    let mut profile = profile(&choice.profile)?;
    for name in choice.only.iter().chain(&choice.skip) {
        catalogue::find(name).with_context(|| format!("no tuner {name}"))?;
    }
    let chosen = |name: &str| {
        let is_in = |list: &[String]| list.iter().any(|other| other == name);
        (choice.only.is_empty() || is_in(&choice.only)) && !is_in(&choice.skip)
    };
    for tuner in &mut profile.tuners {
        tuner.enabled &= chosen(tuner.setting.name);
    }
    let facts = Facts::read(system);
    let asked = Asked {
        connections: choice.connections.unwrap_or(profile.connections),
        shards: choice.shards.or(facts.number("cores")).unwrap_or(1).clamp(1, 512),
        memory_bytes: facts.memory_bytes(),
    };
    Ok((profile, facts, asked))
}

fn planned(system: &Directory, choice: &Choice) -> anyhow::Result<(Profile, Plan)> {
    let (profile, facts, asked) = asked(system, choice)?;
    let plan = plan::plan(&profile, &facts, asked);
    Ok((profile, plan))
}

fn run_check(system: &Directory, choice: &Choice, json: bool) -> anyhow::Result<u8> {
    let (profile, facts, asked) = asked(system, choice)?;
    let rows = check(&profile, &facts, asked);
    let machine = Machine::from_facts(system, &facts);
    let shown = report::Check {
        profile: &profile,
        asked,
        machine: &machine,
        surroundings: &facts.surroundings,
        limits: &limits(&profile, &facts, asked),
        shards_wanted: shards_wanted(&profile, &facts, asked),
        rows: &rows,
    };
    shown.print(json);
    Ok(exit_status(&rows))
}

fn run_apply(system: &mut Directory, profile: &Profile, plan: &Plan, state: &str, json: bool) -> anyhow::Result<u8> {
    if plan.steps.is_empty() {
        report::applied(profile, plan, &[], json);
        return Ok(GOOD);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    for step in &plan.steps {
        system.may_set(&step.path).with_context(|| format!("{}: nothing was changed; is this root?", step.path))?;
    }
    let _lock = system.lock(state).with_context(|| state.to_owned())?;
    let outcomes = journal::apply(system, plan, &profile.name, now, state)?;
    report::applied(profile, plan, &outcomes, json);
    let all = outcomes.iter().all(|outcome| matches!(outcome.what, journal::What::Changed { .. }));
    Ok(if all { GOOD } else { SOMETHING })
}

fn run_undo(system: &mut Directory, state: &str, force: bool, json: bool) -> anyhow::Result<u8> {
    let undone = if system.list(state).is_ok() {
        let _lock = system.lock(state).with_context(|| state.to_owned())?;
        journal::undo(system, state, force)?
    } else {
        None
    };
    report::undone(undone.as_ref(), json);
    Ok(if undone.is_none_or(|undone| undone.is_complete()) { GOOD } else { SOMETHING })
}

fn run_capacity(system: &Directory, options: &CapacityOptions, json: bool) -> anyhow::Result<u8> {
    let coefficients = match &options.coefficients {
        None => Coefficients::built_in()?,
        Some(path) => {
            let name = path.display().to_string();
            Coefficients::from_toml(&name, &std::fs::read_to_string(path).with_context(|| name.clone())?)?
        }
    };
    if !options.rate.is_finite() || options.rate < 0.0 {
        bail!("--rate is a number of messages a second");
    }
    if !(0.0..=1.0).contains(&options.tls_share) {
        bail!("--tls-share is a part, 0 to 1");
    }
    let is_time = |seconds: f64| seconds.is_finite() && seconds > 0.0;
    if !is_time(options.heartbeat_seconds) || !options.running_seconds.is_none_or(is_time) {
        bail!("--heartbeat-seconds and --running-seconds are above 0");
    }
    let facts = Facts::read(system);
    let cores = facts.number("cores");
    let shards = options.shards.or(cores).unwrap_or(1).clamp(1, 512);
    let workload = Workload {
        connections: options.connections,
        groups: options.groups,
        // Whoever says nothing of groups has each user in one.
        group_members: options.group_members.unwrap_or(options.connections / options.groups.max(1)).clamp(2, 1_000),
        messages_per_second: options.rate,
        text_bytes: options.text_bytes,
        shards,
        lanes: options.lanes.unwrap_or(if cores.unwrap_or(1) > 4 { 2 } else { 1 }).clamp(1, shards.min(16)),
        tls_share: options.tls_share,
        deflate: options.deflate,
        heartbeat_interval_s: options.heartbeat_seconds,
        running_seconds: options.running_seconds,
    };
    let prediction = coefficients.predict(workload);
    let short = prediction.does_not_fit(facts.memory_bytes(), cores);
    report::capacity(&coefficients, workload, &prediction, &short, json);
    Ok(if short.is_empty() { GOOD } else { SOMETHING })
}
