//! The outside thread: HTTP for operators and the page, on a thread and a runtime of its own.
//!
//! ```text
//! GET  /healthz      200 while the process answers
//! GET  /readyz       200 if the node takes new clients, else 503; {"ready":…,"reasons":[…]}
//! GET  /metrics      OpenMetrics text
//! GET  /             the page, and its files beside it
//! GET  /operator     the operator's page, and what it asks: [`operator`]; if it has keys
//! GET  /config.json  {"websocket_url":"ws://…","dev":…,"version":"…"}
//! POST /dev/token    development only: {"user":"alice","device":"tab-1"} → {"token":"…","user":…,"device":…,"expires_ms":…}
//! ```
//!
//! And, on an address of its own, the HTTP API for the application's backend: [`backend`].
//!
//! Invariants: nothing here waits for a shard, and no shard waits for this; connections are bounded in number and time. Every answer
//! of the console carries the security headers. Must not do: change a node's data but in a user's name, as a client does.

mod api;
pub mod backend;
mod listener;
mod memory;
pub mod operator;
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
    api::{DEV_TOKEN_LIFE_MS, new_dev_token},
    memory::{KERNEL_BYTES_PER_CONNECTION, MemoryWatch},
};
use self::{backend::Backend, listener::Stay, operator::Operator};
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
    /// The operator's page, if there is one.
    pub operator: Option<Operator>,
}

/// The running outside thread. Dropping it ends it.
#[derive(Debug)]
pub struct Outside {
    address: SocketAddr,
    backend_address: Option<SocketAddr>,
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
        Self::start_whole(config, metrics, None, None, terminate, reload)
    }

    /// The same, with a watch over the node's memory and the HTTP API on the same thread.
    pub fn start_whole(
        config: OutsideConfig,
        metrics: Arc<Metrics>,
        memory: Option<MemoryWatch>,
        backend: Option<Backend>,
        terminate: impl FnMut() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.console)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let backend_address = backend.as_ref().map(|backend| backend.listener.local_addr()).transpose()?;
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
                    let backend = backend.map(|backend| backend::start(backend, Arc::clone(&metrics))).transpose()?;
                    Ok((listener, signals, backend))
                });
                let (listener, signals, backend) = match ready {
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
                let listener = listener::Bounded::new(listener, listener::CONNECTIONS_MAX, Stay::CONSOLE);
                let serve = axum::serve(listener, router);
                let serve_backend = async move {
                    match backend {
                        Some((router, listener, post)) => serve_backend(router, listener, post).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    result = serve => if let Err(error) = result { tracing::error!(%error, "the console ended") },
                    () = serve_backend => {}
                    () = watch(signals, terminate, reload) => {}
                    () = watch_memory => {}
                    () = stopped.notified() => {}
                }
            });
        };
        let thread = thread::Builder::new().name("outside".to_owned()).spawn(run)?;
        starting.recv().map_err(|_| io::Error::other("the outside thread ended at its start"))??;
        Ok(Self { address, backend_address, stop, thread: Some(thread) })
    }

    /// Where the console listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the HTTP API listens, if it does.
    #[must_use]
    pub fn backend_address(&self) -> Option<SocketAddr> {
        self.backend_address
    }
}

/// Serves the HTTP API. Its end is not that of the thread, which has signals to hear.
async fn serve_backend(router: axum::Router, listener: TcpListener, post: backend::Post) {
    let listener = listener::Bounded::new(listener, backend::CONNECTIONS_MAX, Stay::BACKEND);
    let result = tokio::select! {
        result = axum::serve(listener, router) => result,
        result = post.run() => result,
    };
    if let Err(error) = result {
        tracing::error!(%error, "the HTTP API ended");
    }
    std::future::pending().await
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
