//! Runs a node, from its data folder's lock to its last flush: the command line's one door to it.
//!
//! Order: lock the folder, listen, start the shards, open the lanes, then accept, then say `ready`. At the end: refuse new clients, say
//! goodbye to all, close the engines, stop the shards.

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use antiphon_engine::EngineOptions;
use antiphon_wire::{codec::Encoding, codes::ErrorCode, ids::TimestampMs};
use anyhow::{Context, bail};

use crate::{
    announce::{announcement, websocket_url},
    config::{Auth, Config},
    core::{
        http,
        mesh::{LaneId, ShardId},
        placement::Placement,
        session::{Authenticate, Identity},
        shard::ShardConfig,
        token::TokenVerifier,
        websocket,
    },
    echo::EchoMode,
    mesh::Mesh,
    metrics::{Metrics, Phase},
    outside::{Outside, OutsideConfig},
    shard::{Control, Event, NodeShard, ShardStart},
    store_folder::{StoreFolder, dev_key},
    uring::{self, Waker},
};

/// Where clients upgrade; the root too, so that an address alone is enough.
const PATHS: [&str; 2] = ["/", "/ws"];

/// How long the engines may take to flush and close at the end. The log is replayed at the next start otherwise; nothing is lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// In development, a token of this form names a user without a signature, for scripts and load generators on the same machine.
const DEV_TOKEN_PREFIX: &str = "dev:";

/// Receive buffers of a shard: about a thousand a node, since what comes at once is shared by its shards, and no fewer than a burst on one
/// shard takes.
fn receive_buffers(shards: u16) -> u16 {
    (1_024 / shards.max(1)).next_power_of_two().clamp(64, 256)
}

/// What a node has before its first shard starts.
#[derive(Debug)]
pub struct Prepared {
    /// The data folder, locked.
    pub folder: StoreFolder,
    /// Checks tokens; each shard gets a clone.
    pub verifier: TokenVerifier,
    /// Signs development tokens; in development only.
    pub dev_key: Option<Vec<u8>>,
}

/// Takes the data folder and makes the token verifier.
pub fn prepare(config: &Config) -> anyhow::Result<Prepared> {
    let folder = StoreFolder::open(&config.node.data)?;
    let (verifier, dev_key) = match &config.auth {
        Auth::Dev => {
            let key = dev_key(folder.path())?;
            (TokenVerifier::for_dev(&key)?, Some(key))
        }
        Auth::Tokens(verifier) => (verifier.clone(), None),
    };
    Ok(Prepared { folder, verifier, dev_key })
}

/// Runs a node until it was told to end and has drained.
pub fn run(config: Config) -> anyhow::Result<()> {
    uring::refuse_huge_pages().context("refuse huge pages")?;
    let open_files = uring::raise_open_files().context("raise the limit on open files")?;
    tracing::debug!(open_files, "the limit on open files, for each shard's connections");
    if matches!(config.auth, Auth::Tokens(_)) {
        for line in antiphon_tuning::start::would_stop(config.limits.connections_max.into(), config.node.shards as u64)
        {
            tracing::warn!("{line}");
        }
    }
    let prepared = prepare(&config)?;
    let placement = Placement { shards: u16::try_from(config.node.shards)?, lanes: u8::try_from(config.node.lanes)? };
    prepared.folder.check_lanes(config.node.lanes)?;
    let metrics = Metrics::new(config.node.shards, config.node.lanes);
    let (control, events) = Control::new();
    let wakers: Arc<[Waker]> = (0..placement.shards).map(|_| Waker::new()).collect::<Result<_, _>>()?;
    let listen = config.node.listen;
    let listeners =
        uring::bind(listen, usize::from(placement.shards)).with_context(|| format!("listen on {listen}"))?;
    let address = listeners.first().context("a node has a shard")?.local_addr()?;
    let outside_config = OutsideConfig {
        console: config.node.console,
        websocket_url: websocket_url(&config, address),
        dev_key: prepared.dev_key.clone(),
    };
    let terminate = {
        let (control, wakers, window_ms) = (Arc::clone(&control), Arc::clone(&wakers), config.timing.drain_ms);
        move || {
            control.drain(window_ms);
            wakers.iter().for_each(Waker::wake);
        }
    };
    let outside = Outside::start(outside_config, Arc::clone(&metrics), terminate)
        .with_context(|| format!("listen on {}", config.node.console))?;
    let node =
        Node { config: &config, prepared: &prepared, placement, metrics: &metrics, control: &control, wakers: &wakers };
    let shards = node.start_shards(listeners, outside.address())?;
    let result = node.live(&events, address, outside.address());
    control.drain(0);
    wakers.iter().for_each(Waker::stop);
    for shard in shards {
        if shard.join().is_err() {
            bail!("a shard panicked");
        }
    }
    result
}

/// Runs a plain WebSocket echo, or a broadcast, on the node's net ring and codec until it is told to end.
pub fn echo(listen: SocketAddr, shards: usize, mode: EchoMode) -> anyhow::Result<()> {
    crate::echo::run_echo(listen, shards, mode)
}

/// What the node's own thread works with.
struct Node<'a> {
    config: &'a Config,
    prepared: &'a Prepared,
    placement: Placement,
    metrics: &'a Arc<Metrics>,
    control: &'a Arc<Control>,
    wakers: &'a Arc<[Waker]>,
}

impl Node<'_> {
    fn start_shards(
        &self,
        listeners: Vec<std::net::TcpListener>,
        console: SocketAddr,
    ) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
        let mesh = Mesh::new(self.placement);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let connections_max = self.config.limits.connections_max.div_ceil(u32::from(self.placement.shards));
        let mut threads = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let id = ShardId(index as u16);
            let driver = uring::ShardConfig {
                core: (usize::from(self.placement.shards) <= cores).then_some(index),
                connections_max: connections_max.saturating_mul(2),
                receive_buffers: receive_buffers(self.placement.shards),
                ..uring::ShardConfig::new(format!("shard-{index}"), Some(listener))
            };
            let ring = Arc::new(uring::ShardCounters::default());
            let start = ShardStart {
                config: self.shard_config(id, connections_max, console),
                lanes: self.lanes_of(id)?,
                mesh: mesh.end(id),
                wakers: Arc::clone(self.wakers),
                metrics: Arc::clone(self.metrics),
                ring: Arc::clone(&ring),
                control: Arc::clone(self.control),
            };
            let (waker, control) = (self.wakers[index].clone(), Arc::clone(self.control));
            let run = move || {
                if let Err(error) = uring::run_shard(driver, waker, ring, |context| NodeShard::start(start, context)) {
                    control.tell(Event::ShardFailed(id, error.to_string()));
                }
            };
            threads.push(thread::Builder::new().name(format!("shard-{index}")).spawn(run)?);
        }
        Ok(threads)
    }

    fn shard_config(&self, id: ShardId, connections_max: u32, console: SocketAddr) -> ShardConfig {
        let config = self.config;
        let origins = config.origins(console);
        ShardConfig {
            id,
            placement: self.placement,
            http: http::Rules {
                paths: PATHS.map(str::to_owned).to_vec(),
                subprotocols: Encoding::ALL.map(|encoding| encoding.subprotocol().to_owned()).to_vec(),
                subprotocol_default: Some(Encoding::Json.subprotocol().to_owned()),
                origins: Some(origins),
                deflate: config.websocket_deflate,
            },
            websocket: websocket::Limits::default(),
            authenticate: Box::new(Tokens { verifier: self.prepared.verifier.clone(), dev: config.dev }),
            requests_per_second_max: config.limits.requests_per_second_max,
            requests_burst_max: config.limits.requests_burst_max,
            connect_timeout_ms: config.timing.connect_timeout_ms,
            silence_ms_max: config.timing.silence_ms,
            outbound_bytes_max: config.limits.outbound_bytes_max,
            connections_max: connections_max as usize,
        }
    }

    fn lanes_of(&self, shard: ShardId) -> anyhow::Result<Vec<(LaneId, std::path::PathBuf, EngineOptions)>> {
        let store = self.config.store;
        let here = self.placement.lanes().filter(|lane| self.placement.shard_of(*lane) == shard);
        here.map(|lane| {
            let defaults = EngineOptions::new(u16::from(lane.0));
            let options = EngineOptions {
                log_file_bytes: store.log_file_bytes,
                log_files_max: store.log_files_max,
                memtable_bytes: store.memtable_bytes,
                cache_bytes: store.cache_bytes,
                ..defaults
            };
            Ok((lane, self.prepared.folder.lane_folder(usize::from(lane.0))?, options))
        })
        .collect()
    }

    /// From the start of the shards to the last flush.
    fn live(&self, events: &mpsc::Receiver<Event>, listen: SocketAddr, console: SocketAddr) -> anyhow::Result<()> {
        let lanes = usize::from(self.placement.lanes);
        self.expect(events, lanes, None, |event| matches!(event, Event::LaneOpen(..)))?;
        self.control.serve();
        self.wake_all();
        let shards = usize::from(self.placement.shards);
        self.expect(events, shards, None, |event| matches!(event, Event::Accepting(_)))?;
        self.metrics.set_phase(Phase::Serving);
        let program = std::env::args().next().unwrap_or_else(|| "antiphon".to_owned());
        let text = announcement(self.config, listen, console, self.prepared.dev_key.as_deref(), &program);
        // Whoever started the node may have stopped listening to it.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
        let drained = |event: &Event| matches!(event, Event::Drained(_));
        // Until the first of them there is no end in sight; from then on there is a deadline.
        self.expect(events, 1, None, drained)?;
        self.metrics.set_phase(Phase::Draining);
        let window = Duration::from_millis(self.config.timing.drain_ms);
        if self.expect(events, shards - 1, Some(window), drained)? < shards - 1 {
            tracing::warn!("some clients did not take their goodbye in {window:?}");
        }
        self.control.close();
        self.wake_all();
        let closed = self.expect(events, lanes, Some(CLOSE_TIMEOUT), |event| matches!(event, Event::LaneClosed(..)))?;
        if closed < lanes {
            tracing::warn!("a lane did not close in {CLOSE_TIMEOUT:?}; its log is replayed at the next start");
        }
        Ok(())
    }

    fn wake_all(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Waits for `count` events that `is_it` knows, at most for `timeout`; says how many came. A failure ends the wait.
    fn expect(
        &self,
        events: &mpsc::Receiver<Event>,
        count: usize,
        timeout: Option<Duration>,
        is_it: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<usize> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut seen = 0;
        while seen < count {
            let event = match deadline {
                None => events.recv()?,
                Some(deadline) => match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(event) => event,
                    Err(_) => break,
                },
            };
            seen += usize::from(is_it(&event));
            match event {
                Event::LaneFailed(lane, text) => bail!("lane {}: {text}", lane.0),
                Event::ShardFailed(shard, text) => bail!("shard {}: {text}", shard.0),
                Event::LaneClosed(lane, Err(text)) => tracing::error!(lane = lane.0, "not closed in order: {text}"),
                Event::LaneOpen(lane, report) => {
                    tracing::info!(
                        lane = lane.0,
                        created = report.created,
                        position = report.position.0,
                        records = report.records,
                        log_bytes = report.log_bytes_read,
                        "lane open"
                    );
                    if let Some(torn) = report.torn_tail {
                        tracing::info!(
                            lane = lane.0,
                            file = torn.file,
                            offset = torn.offset,
                            "cut off an unfinished write"
                        );
                    }
                    for damage in report.damage {
                        tracing::error!(lane = lane.0, ?damage, "the log is damaged");
                    }
                    for damage in report.segments_damaged {
                        tracing::error!(lane = lane.0, %damage, "a segment can't be read; restore it from a backup");
                    }
                    for file in report.leftovers_removed {
                        tracing::info!(lane = lane.0, file, "removed what an interrupted flush had left");
                    }
                }
                Event::Accepting(_) | Event::Drained(_) | Event::LaneClosed(..) => {}
            }
        }
        Ok(seen)
    }
}

/// Checks tokens as the configuration says.
struct Tokens {
    verifier: TokenVerifier,
    dev: bool,
}

impl Authenticate for Tokens {
    fn authenticate(&self, token: &str, now: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        if let Some(user) = token.strip_prefix(DEV_TOKEN_PREFIX).filter(|_| self.dev) {
            let user =
                user.parse().map_err(|error| (ErrorCode::Unauthenticated, format!("the token's user {error}")))?;
            return Ok(Identity { user, device: None, expires: TimestampMs(u64::MAX) });
        }
        let claims = self.verifier.verify(token, now).map_err(|error| (error.code(), error.to_string()))?;
        Ok(Identity { user: claims.user, device: claims.device, expires: claims.expires })
    }
}
