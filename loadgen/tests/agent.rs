//! Who may command an agent: whoever knows the secret, nobody else, and nobody can hold it up for long.

mod node;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use antiphon_loadgen::{
    agent::{self, Agent, AgentError, peer::Peer, secret::Secret},
    options::{Command, CommandLine},
    report::Report,
};
use antiphon_wire::codec::Encoding;
use clap::Parser as _;
use node::Fault;
use serde_json::{Value, json};

const SECRET: &[u8] = b"correct horse battery staple";

/// Longer than any answer on this machine takes, and what a test of silence waits.
const HELLO_WAIT: Duration = Duration::from_millis(700);

fn secret(bytes: &[u8]) -> Option<Secret> {
    Some(Secret::new(bytes).unwrap())
}

/// An agent that ends after one run.
fn start(secret: Option<Secret>) -> (SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let agent = Agent { secret, runs: Some(1), hello_wait: HELLO_WAIT };
    (address, std::thread::spawn(move || agent.serve_on(&listener)))
}

fn lead(agent: SocketAddr, secret: Option<&Secret>) -> Result<Peer, AgentError> {
    Peer::lead(TcpStream::connect(agent).unwrap(), secret, Duration::from_secs(10))
}

/// A whole run by one agent, which then ends.
fn run(agent: SocketAddr, secret_file: Option<&std::path::Path>) -> anyhow::Result<Report> {
    let node = node::start(Encoding::Rkyv, Fault::None);
    let secret = secret_file.map_or_else(String::new, |file| format!("--secret-file {}", file.display()));
    let line = format!(
        "loadgen run --agents {agent} {secret} -- chat --connections 10 --rate 50 --seconds 0.5 --warmup-seconds 0 \
         --group-size 5 --target ws://{node}"
    );
    let Command::Run(options) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    Ok(agent::lead(&options)?.1)
}

/// Says lines and hears answers, as whoever reaches the port can.
struct Stranger(BufReader<TcpStream>);

impl Stranger {
    fn new(agent: SocketAddr) -> Self {
        let stream = TcpStream::connect(agent).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &Value) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }

    /// Waits for the agent to hang up; what it said before does not count.
    fn until_left(mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well: the agent had not read all.
        let _ = self.0.read_to_end(&mut rest);
    }
}

fn nonce() -> String {
    "0f".repeat(32)
}

#[test]
fn a_wrong_secret_none_and_one_too_many_are_told_apart() {
    let (with, thread) = start(secret(SECRET));
    let wrong = Secret::new(b"incorrect horse battery staple").unwrap();
    let error = lead(with, Some(&wrong)).map(|_| ()).unwrap_err();
    assert!(matches!(&error, AgentError::Refused(text) if text.contains("same secret")), "{error}");
    assert!(matches!(lead(with, None).map(|_| ()), Err(AgentError::NeedsSecret)));
    let error = run(with, None).unwrap_err();
    assert!(format!("{error:#}").contains("--secret-file"), "{error:#}");
    assert!(!thread.is_finished(), "none of that was a run");

    let file = std::env::temp_dir().join(format!("loadgen-agent-secret-{}", std::process::id()));
    std::fs::write(&file, [SECRET, b"\n"].concat()).unwrap();
    assert!(run(with, Some(&file)).unwrap().passed());
    thread.join().unwrap().unwrap();

    let (without, thread) = start(None);
    let error = run(without, Some(&file)).unwrap_err();
    assert!(format!("{error:#}").contains("was started without"), "{error:#}");
    assert!(run(without, None).unwrap().passed());
    thread.join().unwrap().unwrap();
    std::fs::remove_file(&file).unwrap();
}

/// Passes one connection on to the agent and keeps what the run said.
fn record(agent: SocketAddr) -> (SocketAddr, mpsc::Receiver<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let run = listener.accept().unwrap().0;
        let mut agent = Stranger::new(agent);
        let mut lines = BufReader::new(run.try_clone().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        for _ in 0..2 {
            let line: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
            agent.say(&line);
            said.push(line);
            writeln!(&run, "{}", agent.hear()).unwrap();
        }
        sender.send(said).unwrap();
    });
    (address, receiver)
}

#[test]
fn what_was_heard_of_another_connection_opens_nothing() {
    let (agent, _thread) = start(secret(SECRET));
    let (recorder, said) = record(agent);
    drop(lead(recorder, secret(SECRET).as_ref()).unwrap());
    let said = said.recv().unwrap();
    let mut stranger = Stranger::new(agent);
    stranger.say(&said[0]);
    assert_eq!(stranger.hear()["needs_secret"], true);
    stranger.say(&said[1]);
    let answer = stranger.hear();
    assert!(answer["failed"].as_str().unwrap().contains("same secret"), "{answer}");
    // The agent's own nonce and proofs sent back to it open nothing either.
    let mut mirror = Stranger::new(agent);
    mirror.say(&json!({"version": 2, "nonce": nonce()}));
    let challenge = mirror.hear();
    mirror.say(&json!({"proof": challenge["nonce"]}));
    assert!(mirror.hear()["failed"].is_string());
}

#[test]
fn a_line_that_was_changed_or_said_twice_ends_the_connection() {
    let (agent, thread) = start(secret(SECRET));
    // Between a run and its agent stands somebody who adds a line that is not signed.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap();
    let middle = std::thread::spawn(move || {
        let run = listener.accept().unwrap().0;
        let mut agent = Stranger::new(agent);
        let mut lines = BufReader::new(run.try_clone().unwrap()).lines().map_while(Result::ok);
        for _ in 0..2 {
            agent.say(&serde_json::from_str(&lines.next().unwrap()).unwrap());
            writeln!(&run, "{}", agent.hear()).unwrap();
        }
        let line = lines.next().unwrap();
        assert!(line.contains("{\"run\":{") && line.as_bytes()[64] == b' ', "{line}");
        writeln!(agent.0.get_mut(), "{}", line.replace("--connections", "--connectionz")).unwrap();
        agent.until_left();
    });
    let file = std::env::temp_dir().join(format!("loadgen-agent-line-{}", std::process::id()));
    std::fs::write(&file, SECRET).unwrap();
    assert!(run(between, Some(&file)).is_err());
    middle.join().unwrap();
    assert!(!thread.is_finished(), "that was no run");
    assert!(run(agent, Some(&file)).unwrap().passed(), "and the agent goes on");
    std::fs::remove_file(&file).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn what_is_too_long_and_what_is_no_greeting_is_not_read_on() {
    let (agent, thread) = start(secret(SECRET));
    let mut endless = Stranger::new(agent);
    // An end of the connection may come before all is written.
    let _ = endless.0.get_mut().write_all(&[b'x'; 100_000]);
    endless.until_left();
    for garbage in
        ["GET / HTTP/1.1", "{}", "[]", "{\"version\":2,\"nonce\":\"short\"}", "{\"version\":1,\"nonce\":\"\"}"]
    {
        let mut stranger = Stranger::new(agent);
        writeln!(stranger.0.get_mut(), "{garbage}").unwrap();
        assert!(stranger.hear()["failed"].is_string(), "{garbage}");
        stranger.until_left();
    }
    // What the first version of the protocol would say is answered so that it understands.
    let mut old = Stranger::new(agent);
    old.say(&json!({"run": {"load": ["idle"], "index": 0, "count": 1}}));
    assert!(old.hear()["failed"].as_str().unwrap().contains("same version"));
    assert!(!thread.is_finished());
    assert!(lead(agent, secret(SECRET).as_ref()).is_ok(), "the agent goes on");
}

#[test]
fn silence_holds_an_agent_up_for_so_long_and_no_longer() {
    let (agent, _thread) = start(secret(SECRET));
    let start = Instant::now();
    let silent = Stranger::new(agent);
    // One who drips bytes has no more time than one who says nothing.
    let mut dripping = Stranger::new(agent);
    let drip = std::thread::spawn(move || {
        while dripping.0.get_mut().write_all(b" ").is_ok() {
            std::thread::sleep(HELLO_WAIT / 10);
        }
    });
    assert!(lead(agent, secret(SECRET).as_ref()).is_ok());
    let waited = start.elapsed();
    assert!(waited >= HELLO_WAIT && waited < HELLO_WAIT * 8, "{waited:?}");
    drip.join().unwrap();
    silent.until_left();
}
