//! A lane's store looked at while nobody runs it: [`verify()`], [`inspect()`] and [`dump()`] read it, a [`Loader`] makes
//! one from a dump; [`checkpoint()`] makes a copy to keep, [`restore()`] a store of one,
//! [`repair()`] a store of what verifies in a damaged one, and [`spread()`] another number of lanes of some.
//!
//! docs/store.md tells what operators see of it. All of it is logic over [`Files`](crate::seams::Files). What reads
//! does so through a folder that refuses everything else, so that nothing here can write, rename or remove, whatever it
//! meets: leftovers stay, a torn end of the log stays. Readers see the merged view: the newest row of a key wins, the
//! log's replayed rows lie over the segments'.
//!
//! Memory: a read buffer and a block for each segment, what the log holds beyond the segments, and of one conversation
//! its members, pointers and a bounded number of message ids; never its entries.
//!
//! Must not do: I/O of its own, or take part in what a running engine does.

mod access;
mod checkpoint;
mod conversation;
mod damage;
mod dump;
mod erase;
mod ids;
mod inspect;
mod lanes;
mod lines;
mod load;
mod maker;
mod opened;
mod read_only;
mod repair;
mod replay;
mod report;
mod restore;
mod verify;
mod walk;

pub use access::Access;
pub use checkpoint::checkpoint;
pub use dump::{Dumped, dump};
pub use erase::{Erased, erase, rewrap};
pub use inspect::{AdoptedFacts, Inspection, LogFileFacts, Neighbours, SegmentFacts, Totals, inspect};
pub use lanes::{LanesError, NewLane, spread, spread_encrypted};
pub use load::{LoadError, Loader};
pub use read_only::Progress;
pub use repair::{Repaired, repair};
pub use report::{Finding, VerifyReport};
pub use restore::{RestoreError, Restored, Until, restore};
pub use verify::verify;
