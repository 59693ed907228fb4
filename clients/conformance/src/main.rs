//! `antiphon-conformance`: holds a client of Antiphon to what docs/protocol.md asks of clients.
//!
//! The client under test is any program that speaks the lines of this crate's README; it connects to the node through a
//! proxy which breaks connections, loses, repeats and swaps frames, and answers in the node's place. A friend of the client's user talks to
//! it on a connection of its own, and looks at what the node has in the end.

mod adapter;
mod node;
mod proxy;
mod scenarios;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    node::Node,
    scenarios::{SCENARIOS, Scenario, World},
};

/// A scenario that takes longer hangs.
const SCENARIO_MAX: Duration = Duration::from_secs(180);

/// Holds a client of Antiphon to what docs/protocol.md asks of clients. README.md of this crate says how a client is put to it.
#[derive(Parser)]
struct Arguments {
    /// The node: ws://HOST:PORT/ws
    url: Option<String>,
    /// Prints a token for {user}, such as `antiphon token --user {user} --data FOLDER`
    #[arg(long)]
    token_command: Option<String>,
    /// The client under test: a command
    #[arg(long)]
    client: Option<String>,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// So many at once
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Names the scenarios, and what each holds a client to
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("antiphon-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    if arguments.list {
        for Scenario { name, about, section, .. } in SCENARIOS {
            println!("{name:<17} {about} (docs/protocol.md#{section})");
        }
        return Ok(true);
    }
    let url = arguments.url.context("which node? ws://HOST:PORT/ws")?;
    let token_command = arguments.token_command.context("--token-command is missing: how are tokens had?")?;
    let command: Arc<str> = arguments.client.context("--client is missing: which client?")?.into();
    if let Some(unknown) = arguments.only.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name)) {
        bail!("there is no scenario {unknown}; --list names them");
    }
    let node = Node { url, token_command };
    let folder = std::env::temp_dir().join(format!("antiphon-conformance-{}", std::process::id()));
    let chosen =
        |scenario: &&Scenario| arguments.only.is_empty() || arguments.only.iter().any(|name| name == scenario.name);
    let (turns, began) = (Arc::new(Semaphore::new(arguments.jobs.max(1))), Instant::now());
    let mut running = JoinSet::new();
    for scenario in SCENARIOS.iter().filter(chosen) {
        let (node, command, turns, folder) = (node.clone(), Arc::clone(&command), Arc::clone(&turns), folder.clone());
        running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let began = Instant::now();
            let outcome = one(scenario, &node, &command, folder.join(scenario.name)).await;
            (scenario, outcome, began.elapsed())
        });
    }
    let (mut passed, mut failed) = (0, 0);
    while let Some(ended) = running.join_next().await {
        let (Scenario { name, about, section, .. }, outcome, took) = ended?;
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("✓ {name:<17} {seconds:5.1} s  {about}");
            }
            Err(error) => {
                failed += 1;
                println!("✗ {name:<17} {seconds:5.1} s  {about} (docs/protocol.md#{section})\n    {error:#}");
            }
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!("{passed} of {} scenarios passed in {:.1} s", passed + failed, began.elapsed().as_secs_f64());
    Ok(failed == 0)
}

async fn one(scenario: &Scenario, node: &Node, command: &str, folder: PathBuf) -> anyhow::Result<()> {
    let whole = async {
        std::fs::create_dir_all(&folder)?;
        let mut world =
            World::new(node, command, Path::new(&folder)).await.context("before anything was done to it")?;
        (scenario.run)(&mut world).await?;
        world.check()
    };
    timeout(SCENARIO_MAX, whole).await.with_context(|| format!("it did not end within {SCENARIO_MAX:?}"))?
}
