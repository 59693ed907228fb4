//! The outside thread: HTTP for operators and the page, on a thread and a runtime of its own.
//!
//! ```text
//! GET  /healthz      200 while the process answers
//! GET  /readyz       200 if the node takes new clients, else 503; {"ready":…,"reasons":[…]}
//! GET  /metrics      OpenMetrics text
//! GET  /             the page, and its files beside it
//! GET  /config.json  {"websocket_url":"ws://…","dev":…,"version":"…"}
//! POST /dev/token    development only: {"user":"alice","device":"tab-1"} → {"token":"…","user":…,"device":…,"expires_ms":…}
//! ```
//!
//! Invariants: nothing here waits for a shard, and no shard waits for this; connections are bounded in number and time. Every answer
//! carries the security headers. Must not do: change a node's data.

mod api;
mod listener;
mod memory;
mod page;
mod security;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

pub use self::{
    api::{DEV_TOKEN_LIFE_MS, dev_token_expiry},
    memory::{KERNEL_BYTES_PER_CONNECTION, MemoryWatch},
};
use crate::metrics::Metrics;

/// Exit status of a node that a third signal ended, as a shell has it for an interrupted process. Nothing acknowledged is lost.
pub const KILLED: i32 = 130;

/// What the outside thread needs to know.
#[derive(Debug, Clone)]
pub struct OutsideConfig {
    /// Where to listen; port 0 takes a free one.
    pub console: SocketAddr,
    /// The URL that browsers connect to.
    pub websocket_url: String,
    /// The secret that signs development tokens; given in development only.
    pub dev_key: Option<Vec<u8>>,
}

/// The running outside thread. Dropping it ends it.
#[derive(Debug)]
pub struct Outside {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    /// Listens and starts the thread. `terminate` is called there on the first SIGTERM or SIGINT, when it should begin to drain, and on the
    /// second, when it should hurry; a third ends the process at once, with [`KILLED`]. `reload` is called there on every SIGHUP.
    pub fn start(
        config: OutsideConfig,
        metrics: Arc<Metrics>,
        terminate: impl FnMut() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_watching(config, metrics, None, terminate, reload)
    }

    /// The same, with a watch over the node's memory on the same thread.
    pub fn start_watching(
        config: OutsideConfig,
        metrics: Arc<Metrics>,
        memory: Option<MemoryWatch>,
        terminate: impl FnMut() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.console)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let (started, starting) = mpsc::channel();
        let run = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                let ready = TcpListener::from_std(listener).and_then(|listener| {
                    let signals = Signals {
                        terminate: signal(SignalKind::terminate())?,
                        interrupt: signal(SignalKind::interrupt())?,
                        hangup: signal(SignalKind::hangup())?,
                    };
                    Ok((listener, signals))
                });
                let (listener, signals) = match ready {
                    Ok(ready) => ready,
                    Err(error) => return drop(started.send(Err(error))),
                };
                if started.send(Ok(())).is_err() {
                    return;
                }
                let measured = Arc::clone(&metrics);
                let watch_memory = async move {
                    match memory {
                        Some(memory) => memory.run(measured).await,
                        None => std::future::pending().await,
                    }
                };
                let router = api::router(&config, metrics);
                let serve = axum::serve(listener::Bounded::new(listener), router);
                tokio::select! {
                    result = serve => if let Err(error) = result { tracing::error!(%error, "the console ended") },
                    () = watch(signals, terminate, reload) => {}
                    () = watch_memory => {}
                    () = stopped.notified() => {}
                }
            });
        };
        let thread = thread::Builder::new().name("outside".to_owned()).spawn(run)?;
        starting.recv().map_err(|_| io::Error::other("the outside thread ended at its start"))??;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where the console listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the outside thread panicked");
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// The next signal to end; each signal to read files again is answered meanwhile.
    async fn next(&mut self, reload: &impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

async fn watch(mut signals: Signals, mut terminate: impl FnMut(), reload: impl Fn()) {
    signals.next(&reload).await;
    tracing::info!("told to end: sending clients away; a second signal hurries, a third ends at once");
    terminate();
    signals.next(&reload).await;
    tracing::warn!("told to end again: hurrying");
    terminate();
    signals.next(&reload).await;
    tracing::warn!("told to end a third time: ending at once; the log is replayed at the next start");
    std::process::exit(KILLED);
}

#[cfg(test)]
mod tests;
