//! The runs, and what was read off in them.
//!
//! - **idle**: three nodes at once, with 2 and 8 shards and with TLS, under idle sessions; read when they are *at
//!   rest*: each session is watched by a poll, and was heard once, which takes a heartbeat's interval. Before that a
//!   node's memory first falls (buffers of the storm go back, receives are taken back) and then rises (each session's
//!   first heartbeat).
//! - **ends**: kernel memory of a connection's two ends, see [`super::sockets`].
//! - **chat**: fresh nodes under different mixes of messages, deliveries, shards and lengths; read over a window in the
//!   middle.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, ensure};

use super::{
    load::{Load, Verdict},
    node::{Node, Sample, Window},
    sockets::{self, Slab},
};

/// loadgen's clients ping at 0.8 of what the node asks for (loadgen/src/workload/connections.rs).
pub(super) const HEARTBEAT_INTERVAL_S: f64 = 24.0;

/// So many heartbeats of all: each was heard once, by a poll but for the first few.
const REST_HEARTBEATS: f64 = 1.05;

/// A storm of connects, on a busy machine.
const CONNECT_WAIT: Duration = Duration::from_secs(60);
/// Rest comes after 27 seconds.
const REST_WAIT: Duration = Duration::from_secs(60);
/// How long an idle load lasts: until the last one has come to rest, which began to connect when the others had.
const IDLE_SECONDS: f64 = 35.0;

/// How a chat is read: after so much of it, over so much.
const CHAT_SETTLE_S: f64 = 1.0;
const CHAT_WINDOW_S: f64 = 3.0;
/// A load lasts longer than what is read of it.
const CHAT_MORE_S: f64 = 1.0;

/// A run that was spoiled is made again so often.
pub(super) const TRIES_MAX: usize = 3;

/// Where the programs are and where to write.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    pub(super) node: PathBuf,
    pub(super) loadgen: PathBuf,
    pub(super) folder: PathBuf,
    /// Runs count whose generator was late: their latencies don't, but these are not looked at.
    pub(super) allow_late: bool,
}

/// An idle node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdleShape {
    pub(super) name: &'static str,
    pub(super) shards: u64,
    pub(super) connections: u64,
    pub(super) tls: bool,
}

/// All at once, since they take long and use little; 37,000 sockets of each end. The quickest to connect are last.
pub(super) const IDLE: [IdleShape; 4] = [
    IdleShape { name: "idle-many", shards: 2, connections: 15_000, tls: false },
    IdleShape { name: "idle-shards", shards: 8, connections: 15_000, tls: false },
    IdleShape { name: "idle-tls", shards: 2, connections: 4_000, tls: true },
    IdleShape { name: "idle-few", shards: 2, connections: 3_000, tls: false },
];

/// What was read of one.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    pub(super) shape: IdleShape,
    /// Before the first connection.
    pub(super) empty: Sample,
    /// All connected.
    pub(super) connected: Sample,
    pub(super) rest: Sample,
}

impl Idle {
    pub(super) fn window(&self) -> Window<'_> {
        Window { from: &self.connected, to: &self.rest }
    }
}

/// A chat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ChatShape {
    pub(super) name: &'static str,
    pub(super) shards: u64,
    pub(super) connections: u64,
    pub(super) group_members: u64,
    pub(super) rate: f64,
    pub(super) text_bytes: u64,
    pub(super) tls: bool,
    /// How long it is read.
    pub(super) window_s: f64,
}

const BASE: ChatShape = ChatShape {
    name: "pairs",
    shards: 2,
    connections: 2_000,
    group_members: 2,
    rate: 1_000.0,
    text_bytes: 100,
    tls: false,
    window_s: CHAT_WINDOW_S,
};

/// Each differs from another in what one coefficient is to be told by; the longest tells what a stored message takes.
pub(super) const CHATS: [ChatShape; 6] = [
    BASE,
    ChatShape { name: "pairs-fast", rate: 4_000.0, window_s: 8.0, ..BASE },
    ChatShape { name: "groups", group_members: 20, ..BASE },
    ChatShape { name: "groups-fast", group_members: 20, rate: 2_500.0, text_bytes: 400, ..BASE },
    ChatShape { name: "shards", group_members: 20, connections: 8_000, shards: 8, ..BASE },
    ChatShape { name: "tls", group_members: 20, tls: true, ..BASE },
];

/// What was read of one.
#[derive(Debug, Clone)]
pub(super) struct Chat {
    pub(super) shape: ChatShape,
    pub(super) empty: Sample,
    pub(super) from: Sample,
    pub(super) to: Sample,
    pub(super) late: Option<String>,
}

impl Chat {
    pub(super) fn window(&self) -> Window<'_> {
        Window { from: &self.from, to: &self.to }
    }
}

/// Kernel memory of one end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) plain: f64,
    pub(super) node: f64,
    pub(super) generator: f64,
}

impl Bench {
    /// Idle nodes, and the kernel's memory for both ends of one of their connections, unless somebody else's spoiled
    /// that.
    pub(super) fn idle(&self) -> anyhow::Result<(Vec<Idle>, anyhow::Result<f64>)> {
        self.again("idle", || {
            let mut nodes = Vec::new();
            for shape in IDLE {
                nodes.push(Node::start(&self.node, &self.folder.join(shape.name), shape.shards, &[])?);
            }
            let before = sockets::settled()?;
            let (mut loads, mut empties, mut connected) = (Vec::new(), Vec::new(), Vec::new());
            for (node, shape) in nodes.iter_mut().zip(IDLE) {
                empties.push(node.sample()?);
                let mut arguments = self.target(node, shape.tls)?;
                arguments.splice(0..0, ["idle".to_owned()]);
                let (connections, seconds) = (shape.connections.to_string(), IDLE_SECONDS.to_string());
                arguments.extend(["--connections".to_owned(), connections, "--seconds".to_owned(), seconds]);
                loads.push(Load::start(&self.loadgen, &self.folder, shape.name, &arguments)?);
                let all = shape.connections as f64;
                connected.push(node.wait("all are connected", CONNECT_WAIT, |now| now.count("sessions") >= all)?);
            }
            let mut idles = Vec::new();
            for (index, (node, shape)) in nodes.iter_mut().zip(IDLE).enumerate() {
                let (connected, all) = (connected[index].clone(), shape.connections as f64);
                let heard = connected.count("frames_in") + REST_HEARTBEATS * all;
                let rest = node.wait("each was heard", REST_WAIT, |now| now.count("frames_in") >= heard)?;
                idles.push(Idle { shape, empty: empties[index].clone(), connected, rest });
            }
            let made: u64 = IDLE.iter().map(|shape| 2 * shape.connections).sum();
            let slab = Slab::read()?.grown_since(before, made as usize);
            // Its latencies are none, so that it was late says nothing.
            loads.into_iter().try_for_each(|load| load.finish().map(drop))?;
            Ok((idles, slab.map(|bytes| 2.0 * bytes / made as f64)))
        })
    }

    /// One end of a connection, of each kind; `both` is what the generator's and the node's take together.
    pub(super) fn ends(&self, both: f64) -> anyhow::Result<Ends> {
        self.again("ends", || {
            let plain = sockets::plain_end_bytes()?;
            let mut server = Node::start(&self.node, &self.folder.join("ends"), 2, &[])?;
            let before = sockets::settled()?;
            let mut streams = sockets::sessions(server.listen)?;
            let all = sockets::CONNECTIONS as f64;
            server.wait("all are quiet", REST_WAIT, |now| now.count("quiet_connections") >= all)?;
            sockets::drain(&mut streams)?;
            let slab = Slab::read()?.grown_since(before, 2 * streams.len())?;
            let node = slab / all - plain;
            Ok(Ends { plain, node, generator: both - node })
        })
    }

    /// One chat.
    pub(super) fn chat(&self, shape: &ChatShape) -> anyhow::Result<Chat> {
        self.again(shape.name, || {
            let mut node = Node::start(&self.node, &self.folder.join(shape.name), shape.shards, &[])?;
            let empty = node.sample()?;
            let load = self.start_chat(&node, shape, shape.window_s + CHAT_MORE_S)?;
            let settled = shape.rate * CHAT_SETTLE_S;
            let from = node.wait("messages flow", CONNECT_WAIT, |now| now.count("acks") >= settled)?;
            thread::sleep(Duration::from_secs_f64(shape.window_s));
            let to = node.sample()?;
            let Verdict { late } = load.finish()?;
            ensure!(late.is_none() || self.allow_late, "{}", late.unwrap_or_default());
            let chat = Chat { shape: *shape, empty, from, to, late };
            let rate = chat.window().per_second("acks");
            ensure!((rate / shape.rate - 1.0).abs() < 0.1, "{rate:.0} messages a second were acknowledged");
            Ok(chat)
        })
    }

    /// A chat of so many measured seconds, after a second that is not.
    pub(super) fn start_chat(&self, node: &Node, shape: &ChatShape, seconds: f64) -> anyhow::Result<Load> {
        let mut arguments = vec!["chat".to_owned()];
        arguments.extend(self.target(node, shape.tls)?);
        for (name, value) in [
            ("--connections", shape.connections.to_string()),
            ("--group-size", shape.group_members.to_string()),
            ("--rate", shape.rate.to_string()),
            ("--text-bytes", shape.text_bytes.to_string()),
            ("--warmup-seconds", "1".to_owned()),
            ("--seconds", seconds.to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        Load::start(&self.loadgen, &self.folder, shape.name, &arguments)
    }

    fn target(&self, node: &Node, tls: bool) -> anyhow::Result<Vec<String>> {
        let (scheme, address) = if tls { ("wss", node.tls_listen) } else { ("ws", node.listen) };
        let mut arguments = vec!["--target".to_owned(), format!("{scheme}://{address}")];
        // The node has made its certificate for itself a moment ago; signatures are checked all the same.
        arguments.extend(tls.then(|| "--tls-insecure".to_owned()));
        arguments.extend(["--server-pid".to_owned(), node.pid().to_string()]);
        Ok(arguments)
    }

    /// Makes a run until one is not spoiled.
    pub(super) fn again<T>(&self, name: &str, run: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
        fs::create_dir_all(&self.folder)?;
        let mut tries = 1;
        loop {
            match run() {
                Err(error) if tries < TRIES_MAX => println!("  {name} again: {error:#}"),
                done => return done.with_context(|| format!("{name}, tried {tries} times")),
            }
            tries += 1;
        }
    }
}
