//! The driver of a shard: sockets, files, tasks and sleep over io_uring and glommio. All `unsafe` of the node lives here.
//!
//! A shard is one thread with one net ring (`ring`) of its own: connections are entries of its table of direct descriptors
//! (`descriptors`), received bytes come in provided buffers (`buffers`), quiet connections are watched by polls (`quiet`), sends are
//! vectored (`sends`), and the engine's files (`files`, on `lane`) use the same ring. [`run_shard`] is the loop (`shard`), which polls the
//! tasks that clients wait for and lets glommio run the others in slices (`tasks`, `sleep`). Other threads wake it through a [`Waker`]
//! (`wake`). What a lane computes for long is done on a thread of its own (`worker`).
//!
//! Invariants of the whole: memory that was submitted belongs to the kernel until the operation's last completion, cancelled or
//! not, and then rather leaks than is freed too early; every queue and table has a bound; nothing here decides what is sent or
//! who may connect, that is [`crate::core`]'s.

mod accept;
mod buffers;
mod clock;
mod counters;
mod descriptors;
mod files;
mod lane;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(feature = "power-cuts")]
mod power;
mod process;
mod quiet;
mod ring;
mod sends;
mod shard;
mod sleep;
mod sockets;
mod steer;
mod tasks;
mod token;
mod wake;
mod worker;

pub use clock::{OsRandom, SystemClock, monotonic_ms, monotonic_us};
pub use counters::{Counter, ShardCounters};
pub use files::{NodeFile, NodeFiles};
#[cfg(feature = "power-cuts")]
pub use power::shut_down_file_system;
pub use process::{raise_open_files, refuse_huge_pages};
pub use shard::{ShardConfig, ShardContext, ShardError, bind, run_shard, spawn_shard};
pub use sockets::Admission;
pub use steer::{bind_beside, steer, steer_no_more};
pub use tasks::{Queue, Spawner};
pub use wake::Waker;
pub use worker::{Desk, Worker};
