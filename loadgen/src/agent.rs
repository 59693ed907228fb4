//! A run that several processes make together, on one machine or several: `loadgen run` tells each `loadgen agent` its slice, they
//! wait for each other before connecting and before the load, and what they found is merged exactly.
//!
//! A line of JSON each way, over one TCP connection a run:
//!
//! ```text
//! run → agent   {"run": {"load": ["chat", "--connections", …], "index": 0, "count": 2}}
//! agent → run   {"at": "connect"}      …waits…      run → agent  "go"
//! agent → run   {"at": "load"}         …waits…      run → agent  "go"
//! agent → run   {"outcome": {…}}  or  {"failed": "…"}
//! ```
//!
//! Each agent owns whole groups and measures with its own clock, so no clocks are compared. An agent does what it is told: it must
//! be reachable by its operator alone. It kills and starts no process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    options::{AgentOptions, Command, CommandLine, Load, RunOptions, Slice},
    report::Report,
    run::{self, Gate, figures, outcome::Outcome},
};

/// Longest line: an outcome of an hour has some megabytes.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// How long whoever connects may take to say what for.
const FIRST_LINE_WAIT: Duration = Duration::from_secs(10);

/// Where agents wait, in order.
const POINTS: [&str; 2] = ["connect", "load"];

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

struct Peer {
    reader: BufReader<TcpStream>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.reader.get_mut().write_all(&line)?)
    }

    fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = Vec::new();
        self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        ensure!(line.ends_with(b"\n"), "the connection ended");
        Ok(serde_json::from_slice(&line)?)
    }
}

/// Waits for the other agents by way of the one that leads.
impl Gate for Peer {
    fn pass(&mut self, point: &str) -> anyhow::Result<()> {
        self.send(&FromAgent::At(point.to_owned()))?;
        match self.receive().context("the run was given up")? {
            ToAgent::Go => Ok(()),
            ToAgent::Run { .. } => bail!("a run within a run"),
        }
    }
}

/// Makes slices of runs, one after the other.
pub fn serve(options: &AgentOptions) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen).with_context(|| format!("can't listen on {}", options.listen))?;
    eprintln!("ready: agent on {}", listener.local_addr()?);
    serve_on(&listener, options.runs)
}

/// As [`serve`], on a listener that stands already.
pub fn serve_on(listener: &TcpListener, runs: Option<u32>) -> anyhow::Result<()> {
    let mut made = 0;
    while runs.is_none_or(|runs| made < runs) {
        let (stream, from) = listener.accept()?;
        match serve_one(stream) {
            Ok(()) => made += 1,
            Err(error) => eprintln!("loadgen: a run for {from}: {error:#}"),
        }
    }
    Ok(())
}

fn serve_one(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(FIRST_LINE_WAIT))?;
    let mut peer = Peer::new(stream);
    let first: ToAgent = peer.receive()?;
    peer.reader.get_ref().set_read_timeout(None)?;
    match slice(first).and_then(|(load, slice)| run::outcome(&load, slice, &mut peer)) {
        Ok(outcome) => peer.send(&FromAgent::Outcome(Box::new(outcome))),
        Err(error) => peer.send(&FromAgent::Failed(format!("{error:#}"))),
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
    let started = SystemTime::now();
    let mut peers = Vec::new();
    let count = options.agents.len() as u32;
    for (index, agent) in (0..).zip(&options.agents) {
        let stream = TcpStream::connect(agent).with_context(|| format!("no agent at {agent}"))?;
        stream.set_nodelay(true)?;
        let mut peer = Peer::new(stream);
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
    match peer.receive().with_context(|| agent.to_owned())? {
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
    fn what_is_no_run_is_answered_and_the_agent_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let agent = std::thread::spawn(move || serve_on(&listener, Some(1)));
        let mut garbage = TcpStream::connect(address).unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(garbage);
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        peer.send(&ToAgent::Run { load: arguments("nonsense"), index: 0, count: 1 }).unwrap();
        assert!(matches!(peer.receive().unwrap(), FromAgent::Failed(_)));
        agent.join().unwrap().unwrap();
    }
}
