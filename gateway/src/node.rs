//! Runs a node, from its data folder's lock to its last flush: the command line's one door to it.
//!
//! Order: lock the folder, or ask its owner to hand over; listen, start the shards; then, with the lock, open the lanes, accept, say `ready`.
//! What comes after is [`crate::life`]'s. The lock is held until the shards have ended, unless it was handed over.

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    thread,
    time::Instant,
};

use antiphon_engine::{EngineOptions, seams::Random};
use antiphon_tuning::system::Directory;
use antiphon_wire::{codec::Encoding, codes::ErrorCode, ids::TimestampMs};
use anyhow::{Context, bail};

use crate::{
    announce::{Addresses, DevKeys, announcement, websocket_url},
    api_keys::ApiKeys,
    config::{Api, Auth, CertificateFiles, Config},
    core::{
        http,
        issuer::TokenIssuer,
        mesh::ShardId,
        placement::Placement,
        proxy::{Proxy, ProxyCounters},
        session::{Authenticate, Identity},
        shard::ShardConfig,
        token::{Claims, TokenVerifier},
        websocket,
    },
    echo::EchoMode,
    enquiries::Enquiries,
    handover::{Door, Offer, Predecessor},
    lane_switch::Left,
    life::{DoorKeeper, Life, Possessions, Tally, longest_handover},
    mesh::Mesh,
    metrics::Metrics,
    outside::{
        MemoryWatch, Outside, OutsideConfig,
        backend::{Backend, bell::Bell, keys::KeyRing},
        operator::Operator,
    },
    shard::{Control, Event, LaneStart, NodeShard, ShardStart},
    store::lanes,
    store_folder::{StoreFolder, StoreFolderError, dev_key, dev_operator_key},
    tls::{OldestVersion, Settings, Tls, TlsCounters, make_certificate},
    uring::{self, ShardError, Waker, Worker},
};

/// Where clients upgrade; the root too, so that an address alone is enough.
const PATHS: [&str; 2] = ["/", "/ws"];

/// In development, a token of this form names a user without a signature, for scripts and load generators on the same machine.
const DEV_TOKEN_PREFIX: &str = "dev:";

/// Receive buffers of a shard: about a thousand a node, since what comes at once is shared by its shards, and no fewer than a burst on one
/// shard takes.
fn receive_buffers(shards: u16) -> u16 {
    (1_024 / shards.max(1)).next_power_of_two().clamp(64, 256)
}

/// The listener of a shard that speaks TLS; the one before it does not.
const TLS_LISTENER: u8 = 1;

/// What tokens are checked with, and what clients are shown.
struct Keys {
    /// Each shard gets a clone.
    verifier: TokenVerifier,
    /// Signs development tokens; in development only.
    dev_key: Option<Vec<u8>>,
    /// Opens the operator's page; in development only.
    operator_key: Option<String>,
    /// TLS for clients, and the files that a reload reads.
    tls: Option<(Arc<Settings>, CertificateFiles)>,
}

fn keys(config: &Config) -> anyhow::Result<Keys> {
    let (verifier, dev_key) = match &config.auth {
        Auth::Dev => {
            let key = dev_key(&config.node.data)?;
            (TokenVerifier::for_dev(&key)?, Some(key))
        }
        Auth::Tokens(verifier) => (verifier.clone(), None),
    };
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
            let files = match tls.files.pairs.as_slice() {
                [] => make_certificate(&config.node.data, "dev-", names)?,
                _ => tls.files.clone(),
            };
            let chains = files.read().map_err(anyhow::Error::msg)?;
            Some((Arc::new(Settings::new(chains, tls.oldest)?), files))
        }
    };
    let operator_key = dev_key.as_ref().map(|_| dev_operator_key(&config.node.data)).transpose()?;
    Ok(Keys { verifier, dev_key, operator_key, tls })
}

/// The data folder, or who has it and is ready to hand over.
enum Claim {
    Folder(StoreFolder),
    After(Predecessor),
}

fn claim(config: &Config) -> anyhow::Result<Claim> {
    match StoreFolder::open(&config.node.data) {
        Err(StoreFolderError::InUse { .. }) if config.node.takeover => {
            StoreFolder::check_lanes(&config.node.data, config.node.lanes)?;
            let asked = Predecessor::ask(&config.node.data, offer(config));
            Ok(Claim::After(asked.context("take over")?))
        }
        folder => {
            let folder = folder?;
            bring_to_lanes(&folder, config)?;
            StoreFolder::check_lanes(&config.node.data, config.node.lanes)?;
            Ok(Claim::Folder(folder))
        }
    }
}

/// Gives the folder the lanes that the configuration asks for; what an earlier start left half way is seen to first.
fn bring_to_lanes(folder: &StoreFolder, config: &Config) -> anyhow::Result<()> {
    let (left, changed) = lanes::bring_to(folder, config.node.lanes, config.encryption.as_ref())?;
    match left {
        Left::Nothing => {}
        Left::Unfinished => tracing::info!("what an interrupted change of the number of lanes had left was removed"),
        Left::Decided => {
            tracing::info!("a change of the number of lanes that was interrupted was gone on with, and is done")
        }
    }
    if let Some(changed) = changed {
        tracing::info!("{changed}");
    }
    Ok(())
}

fn offer(config: &Config) -> Offer {
    Offer { listen: config.node.listen, tls: config.tls.as_ref().map(|tls| tls.listen) }
}

/// Runs a node until it was told to end and has drained, or has handed over.
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
    let placement = Placement { shards: u16::try_from(config.node.shards)?, lanes: u8::try_from(config.node.lanes)? };
    let keys = keys(&config)?;
    let claim = claim(&config)?;
    let (control, events) = Control::new();
    let wakers: Arc<[Waker]> = (0..placement.shards).map(|_| Waker::new()).collect::<Result<_, _>>()?;
    let metrics = Metrics::new(config.node.shards, config.node.lanes);
    let (mesh, bell) = (Mesh::new(placement), Bell::new()?);
    let enquiries = config.operator.as_ref().map(|_| Enquiries::new(Arc::clone(&wakers)));
    let node = Node {
        config: &config,
        keys: &keys,
        placement,
        mesh: &mesh,
        bell: &bell,
        enquiries: enquiries.as_ref(),
        metrics: &metrics,
        control: &control,
        wakers: &wakers,
    };
    let listeners = node.listen(&claim)?;
    // Second handles: at a handover the listeners are closed in an order that shards among themselves can't keep.
    let handles = listeners
        .iter()
        .map(|listeners| listeners.iter().map(TcpListener::try_clone).collect())
        .collect::<Result<Vec<Vec<_>>, _>>()?;
    let life = Life {
        placement,
        window_ms: config.timing.drain_ms,
        metrics: &metrics,
        control: &control,
        wakers: &wakers,
        events,
        tally: Tally::default(),
    };
    let mut threads = Threads::default();
    // Whatever happens, the folder is ours until the threads have ended, unless another has taken over.
    let mut folder = None;
    let result = node.live(claim, listeners, handles, life, &mut folder, &mut threads);
    wakers.iter().for_each(Waker::stop);
    for shard in threads.shards {
        if shard.join().is_err() {
            bail!("a shard panicked");
        }
    }
    threads.workers.into_iter().try_for_each(Worker::stop)?;
    result
}

/// Reads the certificates again. If one cannot be used, all stay as they were.
fn reload_certificates(tls: Option<&(Arc<Settings>, CertificateFiles)>) {
    let Some((settings, files)) = tls else {
        return tracing::info!("told to read the certificates again, but no TLS is spoken");
    };
    let replaced = files.read().and_then(|chains| settings.replace(chains).map_err(|error| error.to_string()));
    match replaced {
        Ok(()) => tracing::info!("new TLS sessions are shown the certificates as they are now"),
        Err(error) => tracing::error!("the certificates stay as they were: {error}"),
    }
}

/// Runs a plain WebSocket echo, or a broadcast, on the node's net ring and codec until it is told to end; over TLS if there are
/// certificates.
pub fn echo(listen: SocketAddr, shards: usize, mode: EchoMode, files: &CertificateFiles) -> anyhow::Result<()> {
    let chains = files.read().map_err(anyhow::Error::msg)?;
    let tls = if chains.is_empty() { None } else { Some(Arc::new(Settings::new(chains, OldestVersion::default())?)) };
    crate::echo::run_echo(listen, shards, mode, tls)
}

/// The node's threads.
#[derive(Default)]
struct Threads {
    shards: Vec<thread::JoinHandle<()>>,
    /// One for each lane.
    workers: Vec<Worker>,
}

/// What the node's own thread works with.
struct Node<'a> {
    config: &'a Config,
    keys: &'a Keys,
    placement: Placement,
    mesh: &'a Arc<Mesh>,
    /// What shards ring for the outside thread.
    bell: &'a Bell,
    /// What shards are asked for the operator's page, if there is one.
    enquiries: Option<&'a Arc<Enquiries>>,
    metrics: &'a Arc<Metrics>,
    control: &'a Arc<Control>,
    wakers: &'a Arc<[Waker]>,
}

impl Node<'_> {
    /// The listeners of each address, one for each shard; the address that speaks TLS is the second.
    fn listen(&self, claim: &Claim) -> anyhow::Result<Vec<Vec<TcpListener>>> {
        let count = usize::from(self.placement.shards);
        let tls = self.config.tls.as_ref().map(|tls| tls.listen);
        std::iter::once(self.config.node.listen)
            .chain(tls)
            .map(|address| {
                let bound = match claim {
                    Claim::Folder(_) => uring::bind(address, count),
                    Claim::After(_) => uring::bind_beside(address, count),
                };
                bound.with_context(|| format!("listen on {address}"))
            })
            .collect()
    }

    fn start_outside(&self, listen: SocketAddr) -> anyhow::Result<Outside> {
        let operator_keys = self.config.operator.as_ref();
        let operator_keys = operator_keys
            .map(|operator| ApiKeys::of_operator(operator, self.keys.operator_key.as_deref()))
            .transpose()?;
        let operator = operator_keys.as_ref().zip(self.enquiries).map(|(keys, enquiries)| Operator {
            keys: keys.ring(),
            enquiries: Arc::clone(enquiries),
            placement: self.placement,
        });
        let config = OutsideConfig {
            console: self.config.node.console,
            websocket_url: websocket_url(self.config, listen),
            dev_key: self.keys.dev_key.clone(),
            operator,
        };
        let (control, wakers) = (Arc::clone(self.control), Arc::clone(self.wakers));
        let press = move |pressure| {
            control.set_pressure(pressure);
            wakers.iter().for_each(Waker::wake);
        };
        let memory = MemoryWatch::new(Directory::this_machine(), self.config.limits.memory_bytes_max, press);
        let (control, tls) = (Arc::clone(self.control), self.keys.tls.clone());
        let of_dev = self.keys.dev_key.is_some().then_some(self.config.node.data.as_path());
        let api_keys = self.config.api.as_ref().map(|api| ApiKeys::of_api(api, of_dev)).transpose()?;
        let backend = self.config.api.as_ref().zip(api_keys.as_ref());
        let backend = backend.map(|(api, keys)| self.backend(api, keys.ring())).transpose()?;
        let signal = move || control.tell(Event::Signal);
        let reload = move || {
            reload_certificates(tls.as_ref());
            api_keys.iter().chain(&operator_keys).for_each(ApiKeys::reload);
        };
        let outside = Outside::start_whole(config, Arc::clone(self.metrics), Some(memory), backend, signal, reload);
        outside.with_context(|| format!("listen on {}", self.config.node.console))
    }

    fn backend(&self, api: &Api, keys: KeyRing) -> anyhow::Result<Backend> {
        let of_dev = self.keys.dev_key.as_ref().map(|key| TokenIssuer::for_dev(key));
        Ok(Backend {
            listener: TcpListener::bind(api.listen).with_context(|| format!("listen on {}", api.listen))?,
            keys,
            issuer: of_dev.or_else(|| api.issuer.clone()),
            requests_per_second_max: api.requests_per_second_max,
            placement: self.placement,
            end: self.mesh.end(self.placement.outside()),
            bell: self.bell.clone(),
            wakers: Arc::clone(self.wakers),
        })
    }

    fn live(
        &self,
        claim: Claim,
        listeners: Vec<Vec<TcpListener>>,
        handles: Vec<Vec<TcpListener>>,
        mut life: Life<'_>,
        folder: &mut Option<StoreFolder>,
        threads: &mut Threads,
    ) -> anyhow::Result<()> {
        let addresses: Vec<&TcpListener> = handles.iter().filter_map(|handles| handles.first()).collect();
        let listen = addresses.first().context("a node has a shard")?.local_addr()?;
        let tls_listen = addresses.get(usize::from(TLS_LISTENER)).map(|tls| tls.local_addr()).transpose()?;
        let console = self.config.node.console;
        // A console at the same address, or an HTTP API, can be opened only when the one before has closed it.
        let has_api = self.config.api.as_ref().is_some_and(|api| api.listen.port() != 0);
        let waits = matches!(&claim, Claim::After(before) if has_api || before.console() == Some(console));
        let early = (!waits).then(|| self.start_outside(listen)).transpose()?;
        self.start_shards(listeners, early.as_ref().map_or(console, Outside::address), threads)?;
        life.shards_ready()?;
        let (owned, took_over) = match claim {
            Claim::Folder(owned) => (owned, None),
            Claim::After(before) => (self.take_over(before, usize::from(self.placement.shards))?, Some(Instant::now())),
        };
        let owned = folder.insert(owned);
        let outside = early.map_or_else(|| self.start_outside(listen), Ok)?;
        life.begin(|store| owned.record_lanes(self.config.node.lanes, store))?;
        if let Some(since) = took_over {
            addresses
                .iter()
                .try_for_each(|address| uring::steer_no_more(address))
                .context("take clients on all listeners")?;
            tracing::info!(after_lock_ms = since.elapsed().as_millis() as u64, "took over");
        }
        let program = std::env::args().next().unwrap_or_else(|| "antiphon".to_owned());
        let addresses_of =
            Addresses { listen, tls: tls_listen, console: outside.address(), api: outside.backend_address() };
        let dev = self.keys.dev_key.as_deref().zip(self.keys.operator_key.as_deref());
        let dev = dev.map(|(key, operator_key)| DevKeys { key, operator_key });
        let text = announcement(self.config, &addresses_of, dev, &program);
        // Whoever started the node may have stopped listening to it.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
        let keeper = DoorKeeper {
            offer: Offer { listen, tls: tls_listen },
            addresses: addresses.iter().map(|address| address.try_clone()).collect::<Result<_, _>>()?,
            listeners: u32::from(self.placement.shards),
            control: Arc::clone(self.control),
            longest: longest_handover(self.config.timing.drain_ms),
            lanes: usize::from(self.placement.lanes),
            wakers: Arc::clone(self.wakers),
            has_begun: false,
        };
        let door = Door::open(&self.config.node.data, outside.address(), keeper)
            .context("listen for requests to hand over")?;
        life.serve(Possessions { door, outside, listeners: handles }, folder)
    }

    /// Has the owner of the folder end, and waits for its lock.
    fn take_over(&self, before: Predecessor, listeners: usize) -> anyhow::Result<StoreFolder> {
        let process = before.process();
        let since = Instant::now();
        let longest = before.begin(listeners).context("take over")?;
        tracing::info!(process, ?longest, "the running node hands over");
        let folder = StoreFolder::wait(&self.config.node.data, longest).context("wait for the running node's data")?;
        tracing::info!(process, after_ms = since.elapsed().as_millis() as u64, "the data folder is ours");
        Ok(folder)
    }

    fn start_shards(
        &self,
        listeners: Vec<Vec<TcpListener>>,
        console: SocketAddr,
        threads: &mut Threads,
    ) -> anyhow::Result<()> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let connections_max = self.config.limits.connections_max.div_ceil(u32::from(self.placement.shards));
        let admission_seed = uring::OsRandom.next();
        let mut listeners: Vec<_> = listeners.into_iter().map(Vec::into_iter).collect();
        for index in 0..usize::from(self.placement.shards) {
            let id = ShardId(index as u16);
            let listeners = listeners.iter_mut().filter_map(Iterator::next);
            let driver = uring::ShardConfig {
                core: (usize::from(self.placement.shards) <= cores).then_some(index),
                connections_max: connections_max.saturating_mul(2),
                receive_buffers: receive_buffers(self.placement.shards),
                ..uring::ShardConfig::new(format!("shard-{index}"), listeners)
            };
            let ring = Arc::new(uring::ShardCounters::default());
            let start = ShardStart {
                config: self.shard_config(id, connections_max, console, admission_seed),
                lanes: self.lanes_of(id, &mut threads.workers)?,
                mesh: self.mesh.end(id),
                wakers: Arc::clone(self.wakers),
                outside: self.bell.clone(),
                enquiries: self.enquiries.cloned(),
                metrics: Arc::clone(self.metrics),
                ring: Arc::clone(&ring),
                control: Arc::clone(self.control),
            };
            let (waker, control) = (self.wakers[index].clone(), Arc::clone(self.control));
            let proxy_rules = self.config.admission.proxy_rules(self.config.timing.head_timeout_ms);
            let settings = self.keys.tls.as_ref().map(|(settings, _)| Arc::clone(settings));
            let run = move || {
                let make = |context: &uring::ShardContext| {
                    let (tls, proxy) = (Rc::new(TlsCounters::default()), Rc::new(ProxyCounters::default()));
                    let shard = NodeShard::start(start, Rc::clone(&tls), Rc::clone(&proxy), context);
                    // The header of a proxy stands before the TLS handshake that it passes on.
                    Proxy::new(Tls::new(shard, settings, TLS_LISTENER, tls), proxy_rules, proxy)
                };
                if let Err(error) = uring::run_shard(driver, waker, ring, make) {
                    control.tell(Event::ShardFailed(id, error.to_string()));
                }
            };
            threads.shards.push(thread::Builder::new().name(format!("shard-{index}")).spawn(run)?);
        }
        Ok(())
    }

    fn shard_config(&self, id: ShardId, connections_max: u32, console: SocketAddr, admission_seed: u64) -> ShardConfig {
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
            authenticate: Box::new(Tokens { verifier: self.keys.verifier.clone(), dev: config.dev }),
            requests_per_second_max: config.limits.requests_per_second_max,
            requests_burst_max: config.limits.requests_burst_max,
            admission: config.admission.share(self.placement.shards, admission_seed),
            frames_per_second_max: config.limits.frames_per_second_max,
            frames_burst_max: config.limits.frames_burst_max,
            head_timeout_ms: config.timing.head_timeout_ms,
            connect_timeout_ms: config.timing.connect_timeout_ms,
            silence_ms_max: config.timing.silence_ms,
            outbound_bytes_max: config.limits.outbound_bytes_max,
            connections_max: connections_max as usize,
            fanout: config.fanout,
            devices_per_user: config.limits.devices_per_user,
        }
    }

    fn lanes_of(&self, shard: ShardId, workers: &mut Vec<Worker>) -> anyhow::Result<Vec<LaneStart>> {
        let store = self.config.store;
        let here = self.placement.lanes().filter(|lane| self.placement.shard_of(*lane) == shard);
        here.map(|lane| {
            let defaults = EngineOptions::new(u16::from(lane.0));
            let options = EngineOptions {
                log_file_bytes: store.log_file_bytes,
                log_files_max: store.log_files_max,
                memtable_bytes: store.memtable_bytes,
                cache_bytes: store.cache_bytes,
                message_ids_window_ms: store.message_ids_window_ms,
                message_id_filter_bytes: store.message_id_filter_bytes,
                reclaim_ms_max: store.reclaim_ms_max,
                scrub_bytes_per_second: store.scrub_bytes_per_second,
                encryption: self.config.encryption.clone(),
                ..defaults
            };
            let control = Arc::clone(self.control);
            let failed = move |error: &ShardError| control.tell(Event::LaneFailed(lane, error.to_string()));
            let worker = Worker::start(&format!("lane-{}", lane.0), failed)?;
            let desk = worker.desk();
            workers.push(worker);
            let folder = StoreFolder::lane_folder(&self.config.node.data, usize::from(lane.0))?;
            Ok(LaneStart { id: lane, folder, options, desk })
        })
        .collect()
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
            return Ok(Identity { user, device: None, expires: TimestampMs(u64::MAX), issued: now });
        }
        let claims = self.verifier.verify(token, now).map_err(|error| (error.code(), error.to_string()))?;
        let Claims { user, device, expires, issued } = claims;
        Ok(Identity { user, device, expires, issued })
    }
}
