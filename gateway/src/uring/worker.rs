//! A thread for what a lane computes for long: flushes and merges, which would keep its shard from messages.
//!
//! It is a shard without connections: a ring and tasks of its own, on which jobs get a handle on the lane's folder. Invariants: a job whose
//! future is dropped ends where it waits; when [`Worker::stop`] returns, nothing touches the folder any more. Few jobs run at a time: an
//! engine has one flush and one merge.

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use antiphon_engine::seams::Urgency;
use futures_util::future::{Either, select};

use super::{
    counters::ShardCounters,
    files::NodeFiles,
    shard::{ShardConfig, ShardContext, ShardError, run_shard},
    tasks::Queue,
    wake::Waker,
};
use crate::core::io::{Command, ConnectionKey, Handler, Origin, Turn};

type Begin = Box<dyn FnOnce(NodeFiles) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

struct Job {
    urgency: Urgency,
    folder: PathBuf,
    begin: Begin,
}

/// The thread.
#[derive(Debug)]
pub struct Worker {
    desk: Desk,
    thread: JoinHandle<Result<(), ShardError>>,
}

/// Where jobs are handed in, from any thread.
#[derive(Debug, Clone)]
pub struct Desk {
    jobs: mpsc::Sender<Job>,
    waker: Waker,
}

impl Worker {
    /// Starts the thread. `failed` is told if its ring does not come about, or fails.
    ///
    /// # Errors
    /// The system has no descriptor or no thread left.
    pub fn start(name: &str, failed: impl FnOnce(&ShardError) + Send + 'static) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let waker = Waker::new()?;
        let config = ShardConfig { connections_max: 1, receive_buffers: 1, ..ShardConfig::new(name, None) };
        let make = move |context: &ShardContext| Bench { jobs: received, context: context.clone() };
        let of_thread = waker.clone();
        let run = move || {
            let result = run_shard(config, of_thread, Arc::new(ShardCounters::default()), make);
            result.inspect_err(failed)
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { desk: Desk { jobs, waker }, thread })
    }

    /// Where jobs are handed in.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Drops the jobs where they wait, and ends the thread.
    ///
    /// # Errors
    /// Its ring had failed.
    ///
    /// # Panics
    /// If a job had.
    pub fn stop(self) -> Result<(), ShardError> {
        self.desk.waker.stop();
        self.thread.join().expect("no job panics")
    }
}

impl Desk {
    /// Has a job done. `None`: the thread has ended, or cannot open the folder.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        folder: PathBuf,
        job: impl AsyncFnOnce(NodeFiles) -> T + Send + 'static,
    ) -> Option<T> {
        let (mut send, receive) = tokio::sync::oneshot::channel();
        let begin: Begin = Box::new(move |files| {
            Box::pin(async move {
                let done = match select(pin!(job(files)), pin!(send.closed())).await {
                    Either::Left((result, _)) => Some(result),
                    Either::Right(_) => None,
                };
                if let Some(result) = done {
                    // Whoever asked may have gone just now.
                    let _ = send.send(result);
                }
            })
        });
        self.jobs.send(Job { urgency, folder, begin }).ok()?;
        self.waker.wake();
        receive.await.ok()
    }
}

/// The thread's handler: it has no connections, and begins the jobs that come.
struct Bench {
    jobs: mpsc::Receiver<Job>,
    context: ShardContext,
}

impl Handler for Bench {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, _: u64) -> Turn {
        for Job { urgency, folder, begin } in self.jobs.try_iter() {
            match self.context.files(&folder) {
                Ok(files) => {
                    let queue = match urgency {
                        Urgency::Soon => Queue::Latency,
                        Urgency::Whenever => Queue::Background,
                    };
                    self.context.spawner().spawn(queue, begin(files));
                }
                Err(error) => tracing::error!(%error, folder = %folder.display(), "cannot open the folder"),
            }
        }
        Turn { more: false, wake_at_ms: None }
    }

    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}
