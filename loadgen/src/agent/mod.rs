//! A run that several processes make together, on one machine or several: `loadgen run` tells each `loadgen agent` its slice, they
//! wait for each other before connecting and before the load, and what they found is merged exactly.
//!
//! Over one TCP connection a run, once both sides have proved to know the same secret ([`secret`], [`peer`]):
//!
//! ```text
//! run → agent   {"run": {"load": ["chat", "--connections", …], "index": 0, "count": 2}}
//! agent → run   {"at": "connect"}      …waits…      run → agent  "go"
//! agent → run   {"at": "load"}         …waits…      run → agent  "go"
//! agent → run   {"outcome": {…}}  or  {"failed": "…"}
//! ```
//!
//! Each agent owns whole groups and measures with its own clock, so no clocks are compared. An agent makes load on any target that
//! it is told: so it listens beyond loopback only with a secret. It kills and starts no process. What is said can be read on the
//! way, though not changed.

pub mod peer;
pub mod secret;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use serde::{Deserialize, Serialize};

use crate::{
    options::{AgentOptions, Command, CommandLine, Load, RunOptions, Slice},
    report::Report,
    run::{self, Gate, figures, outcome::Outcome},
};
use peer::{Peer, Wait};
use secret::{SECRET_BYTES_MIN, Secret};

/// Longest line of an agent: an outcome of an hour has some megabytes.
const OUTCOME_BYTES_MAX: usize = 256 << 20;

/// Longest line of a run: a command line.
const COMMAND_BYTES_MAX: usize = 64 << 10;

/// How long whoever has proved itself may take to say what for.
const COMMAND_WAIT: Duration = Duration::from_secs(10);

/// How long an agent may take to answer: it makes one run after the other.
const AGENT_WAIT: Duration = Duration::from_secs(15);

/// Where agents wait, in order.
const POINTS: [&str; 2] = ["connect", "load"];

/// Why a run and an agent do not come together.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The secret's file can't be read.
    #[error("can't read the secret {0}: {1}")]
    SecretFile(String, std::io::Error),
    /// Too easily guessed.
    #[error("the secret has {0} bytes, and needs {SECRET_BYTES_MIN} at least: `openssl rand -hex 32` makes one")]
    SecretTooShort(usize),
    /// That is no secret.
    #[error("the secret has more than {0} bytes")]
    SecretTooLong(u64),
    /// Anybody could make this machine load any target.
    #[error("an agent on {0}, which others can reach, needs --secret-file")]
    Unprotected(SocketAddr),
    /// The operating system gives none.
    #[error("there are no random numbers")]
    NoRandomness,
    /// Another program, or an older one.
    #[error("the other side does not speak as loadgen does (is it of the same version?)")]
    NotUnderstood,
    /// Another version.
    #[error("the other side speaks version {0} of the agents' protocol, this one speaks 2")]
    Version(u32),
    /// We have none.
    #[error("the agent wants to be shown a secret: give --secret-file")]
    NeedsSecret,
    /// Then it may be anybody.
    #[error("the agent was started without --secret-file, so it can't show that it is one of yours")]
    KnowsNoSecret,
    /// It does not know ours.
    #[error("the other side does not know the same secret")]
    WrongSecret,
    /// The agent says why.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// Somebody in between, or a fault.
    #[error("a line was not signed by the other side")]
    Forged,
    /// More than anybody would say.
    #[error("a line has more than {0} bytes")]
    TooLong(usize),
    /// Nothing came in time.
    #[error("the other side said nothing in time (an agent makes one run after the other)")]
    Silent,
    /// Gone.
    #[error("the connection ended")]
    Ended,
    /// The system's reason.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToAgent {
    Run { load: Vec<String>, index: u32, count: u32 },
    Go,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromAgent {
    At(String),
    Outcome(Box<Outcome>),
    Failed(String),
}

/// Waits for the other agents by way of the one that leads.
impl Gate for Peer {
    fn pass(&mut self, point: &str) -> anyhow::Result<()> {
        self.send(&FromAgent::At(point.to_owned()))?;
        match self.receive(COMMAND_BYTES_MAX, Wait::Open).context("the run was given up")? {
            ToAgent::Go => Ok(()),
            ToAgent::Run { .. } => bail!("a run within a run"),
        }
    }
}

/// What an agent is told at its start.
#[derive(Debug)]
pub struct Agent {
    /// What a run must know; `None` on loopback alone.
    pub secret: Option<Secret>,
    /// It ends after so many runs.
    pub runs: Option<u32>,
    /// How long whoever connects may take to prove itself. Meanwhile nobody else is listened to.
    pub hello_wait: Duration,
}

/// Makes slices of runs, one after the other.
pub fn serve(options: &AgentOptions) -> anyhow::Result<()> {
    let secret = options.secret_file.as_deref().map(Secret::from_file).transpose()?;
    check_protected(options.listen, secret.as_ref())?;
    let listener = TcpListener::bind(options.listen).with_context(|| format!("can't listen on {}", options.listen))?;
    let protection =
        if secret.is_some() { "with a secret" } else { "without a secret: for this machine's users alone" };
    eprintln!("ready: agent on {}, {protection}", listener.local_addr()?);
    Agent { secret, runs: options.runs, hello_wait: Peer::HELLO_WAIT }.serve_on(&listener)
}

fn check_protected(listen: SocketAddr, secret: Option<&Secret>) -> Result<(), AgentError> {
    if secret.is_none() && !listen.ip().to_canonical().is_loopback() {
        return Err(AgentError::Unprotected(listen));
    }
    Ok(())
}

impl Agent {
    /// As [`serve`], on a listener that stands already.
    pub fn serve_on(&self, listener: &TcpListener) -> anyhow::Result<()> {
        check_protected(listener.local_addr()?, self.secret.as_ref())?;
        let mut made = 0;
        while self.runs.is_none_or(|runs| made < runs) {
            let (stream, from) = listener.accept()?;
            match self.serve_one(stream) {
                Ok(()) => made += 1,
                Err(error) => eprintln!("loadgen: a run for {from}: {error:#}"),
            }
        }
        Ok(())
    }

    fn serve_one(&self, stream: TcpStream) -> anyhow::Result<()> {
        let mut peer = Peer::follow(stream, self.secret.as_ref(), self.hello_wait)?;
        let first: ToAgent = peer.receive(COMMAND_BYTES_MAX, Wait::Until(Instant::now() + COMMAND_WAIT))?;
        match slice(first).and_then(|(load, slice)| run::outcome(&load, slice, &mut peer)) {
            Ok(outcome) => peer.send(&FromAgent::Outcome(Box::new(outcome)))?,
            Err(error) => peer.send(&FromAgent::Failed(format!("{error:#}")))?,
        }
        Ok(())
    }
}

fn slice(message: ToAgent) -> anyhow::Result<(Load, Slice)> {
    let ToAgent::Run { load, index, count } = message else { bail!("not a run") };
    ensure!(index < count && count <= 10_000, "slice {index} of {count}");
    let load = parse(&load)?;
    Ok((load, Slice { index, count }))
}

fn parse(arguments: &[String]) -> anyhow::Result<Load> {
    let line = CommandLine::try_parse_from(std::iter::once("loadgen").chain(arguments.iter().map(String::as_str)))?;
    match line.command {
        Command::Load(Load::Storm(storm)) if storm.kill_pid.is_some() || storm.stop_command.is_some() => {
            bail!(
                "agents kill and start nothing: leave --kill-pid and --stop-command out, and restart the node yourself"
            )
        }
        Command::Load(load) => Ok(load),
        _ => bail!("agents make loads only"),
    }
}

/// Leads the agents through a run, and reports.
pub fn lead(options: &RunOptions) -> anyhow::Result<(Load, Report)> {
    let mut arguments = options.load.clone();
    let mut load = parse(&arguments)?;
    if load.common().seed.is_none() {
        // All must name the same users.
        arguments.extend(["--seed".to_owned(), load.plan(Slice::WHOLE)?.seed.to_string()]);
        load = parse(&arguments)?;
    }
    let secret = options.secret_file.as_deref().map(Secret::from_file).transpose()?;
    let started = SystemTime::now();
    let mut peers = Vec::new();
    let count = options.agents.len() as u32;
    for (index, agent) in (0..).zip(&options.agents) {
        let stream = TcpStream::connect(agent).with_context(|| format!("no agent at {agent}"))?;
        let mut peer = Peer::lead(stream, secret.as_ref(), AGENT_WAIT).with_context(|| agent.clone())?;
        peer.send(&ToAgent::Run { load: arguments.clone(), index, count })?;
        peers.push((agent, peer));
    }
    for point in POINTS {
        for (agent, peer) in &mut peers {
            match receive(agent, peer)? {
                FromAgent::At(at) if at == point => {}
                other => bail!("{agent}: {other:?} instead of {point}"),
            }
        }
        eprintln!("{count} agents ready: {point}");
        peers.iter_mut().try_for_each(|(_, peer)| peer.send(&ToAgent::Go))?;
    }
    let mut whole: Option<Outcome> = None;
    for (agent, peer) in &mut peers {
        match (receive(agent, peer)?, &mut whole) {
            (FromAgent::Outcome(outcome), None) => whole = Some(*outcome),
            (FromAgent::Outcome(outcome), Some(whole)) => whole.add(*outcome),
            (other, _) => bail!("{agent}: {other:?} instead of an outcome"),
        }
    }
    let mut report = figures::report(&load, started, whole.context("no agents")?)?;
    report.options.processes = count;
    Ok((load, report))
}

fn receive(agent: &str, peer: &mut Peer) -> anyhow::Result<FromAgent> {
    match peer.receive(OUTCOME_BYTES_MAX, Wait::Open).with_context(|| agent.to_owned())? {
        FromAgent::Failed(error) => bail!("{agent}: {error}"),
        message => Ok(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn agents_make_loads_and_nothing_else() {
        assert!(parse(&arguments("chat --connections 10 --rate 1 --seconds 1")).is_ok());
        for refused in [
            "agent --listen 127.0.0.1:1",
            "report x.json",
            "storm --connections 10 --kill-pid 1",
            "storm --connections 10 --kill-pid 1 --restart-command x",
            "storm --connections 10 --stop-command x",
            "nonsense",
        ] {
            assert!(parse(&arguments(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn only_loopback_goes_without_a_secret() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        for (address, is_open) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(check_protected(address, None).is_ok(), is_open, "{address}");
            assert!(check_protected(address, Some(&secret)).is_ok());
        }
    }
}
