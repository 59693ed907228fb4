//! `antiphon store`: a data folder looked at, checked, written out and made anew while no node runs on it; and copied while one does.
//!
//! The engine's `offline` module does the work; this is its files, its command line and its words. docs/store.md is the
//! reference.
//!
//! Exit codes: 0 all is well, 1 damage or a dump that cannot be loaded, 2 the folder or the arguments cannot be used.
//! Must not do: write into a folder that is read, not even its `LOCK`; but for what a running node has made for a checkpoint.

mod checkpoint;
mod described;
mod erase;
mod error;
mod files;
pub(crate) mod lanes;
mod load;
mod new_store;
mod progress;
mod repair;
mod restore;
mod text;

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use antiphon_engine::{
    EngineError,
    encryption::NodeKey,
    offline::{self, Access, Finding, Inspection, VerifyReport},
};
use antiphon_wire::limits::LANES_MAX;
use clap::{Args, Subcommand};
use serde_json::json;

pub(crate) use self::error::hint;
use self::{
    described::Described,
    error::ToolError,
    files::{FolderFiles, now},
    progress::Shown,
};
use crate::{
    encryption::KeyArguments,
    lane_switch::CHANGED,
    store_folder::{StoreFolderError, owner_of, recorded_lanes},
    uring::OsRandom,
};

/// How often the folder of a node that runs is looked at before what is seen is taken for what is there: merges are
/// seconds apart.
const INSPECT_ATTEMPTS: u32 = 3;

/// The arguments of `antiphon store`.
#[derive(Debug, Args)]
pub struct StoreArguments {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Shows what is where: segments, log files, and what they hold. Of a running node without the latter.
    Inspect(Looked),
    /// Reads everything and checks it: checksums, the log's chain, and all rows against each other.
    Verify(Looked),
    /// Writes everything that the store means to standard output, as JSON lines.
    Dump {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Makes a copy to keep, of a node that runs or has ended: whole, consistent, and of little size beside earlier ones.
    Checkpoint(checkpoint::Arguments),
    /// Makes a new store in an empty folder from a checkpoint, whole or up to a point.
    Restore(restore::Arguments),
    /// Makes a new store in an empty folder of what verifies in a damaged one, and says what is lost.
    Repair(repair::Arguments),
    /// Gives a node's folder another number of log lanes, without copying it, as a start with that number does.
    Lanes(lanes::Arguments),
    /// Makes a new store in an empty folder from a dump on standard input.
    Load {
        /// Data folder: one that is not there yet, or empty.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Destroys the data keys of conversations of an encrypted store, so that nobody reads them any more.
    Erase(erase::EraseArguments),
    /// Wraps the data keys of an encrypted store by another node key.
    Rewrap(erase::RewrapArguments),
    /// Makes a node's key.
    EncryptionKey {
        /// The file, which is not there yet; nobody but its owner may read it.
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only this log lane.
    #[arg(long, value_name = "N")]
    lane: Option<u16>,
}

#[derive(Debug, Args)]
struct Looked {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: KeyArguments,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// How a command ended that could do what it was asked for.
enum Ended {
    Well,
    WithDamage,
}

/// Does what the arguments ask for, and says how it went.
#[must_use]
pub fn run(arguments: StoreArguments) -> ExitCode {
    let ended = match arguments.command {
        StoreCommand::Inspect(looked) => inspect(&looked),
        StoreCommand::Verify(looked) => verify(&looked),
        StoreCommand::Dump { which, key } => dump(&which, &key),
        StoreCommand::Checkpoint(asked) => checkpoint::checkpoint(&asked),
        StoreCommand::Restore(asked) => restore::restore(&asked),
        StoreCommand::Repair(asked) => repair::repair(&asked),
        StoreCommand::Lanes(asked) => lanes::lanes(&asked),
        StoreCommand::Load { data, key } => load::load(&data, &key),
        StoreCommand::Erase(asked) => erase::erase(&asked),
        StoreCommand::Rewrap(asked) => erase::rewrap(&asked),
        StoreCommand::EncryptionKey { new } => erase::new_key(&new),
    };
    match ended {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::WithDamage) => ExitCode::from(1),
        Err(error) => {
            eprintln!("antiphon: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("{hint}");
            }
            ExitCode::from(error.code())
        }
    }
}

/// A lane with the key that was given.
fn access(lane: u16, key: Option<&NodeKey>) -> Access {
    key.map_or(lane.into(), |key| Access::with_key(lane, key.clone(), &OsRandom))
}

fn inspect(looked: &Looked) -> Result<Ended, ToolError> {
    let key = looked.key.read()?;
    let lanes = lanes(&looked.which)?;
    // A node that runs may change files while they are looked at: what has a checksum and never changes is shown all
    // the same.
    let (_lock, runs) = match lock(&looked.which.data) {
        Ok(lock) => (lock, false),
        Err(ToolError::InUse { owner, .. }) => {
            eprintln!(
                "antiphon: a node (process {owner}) runs on this folder: this is a moment's view, without totals"
            );
            (None, true)
        }
        Err(error) => return Err(error),
    };
    let mut all = Vec::new();
    for (lane, path) in lanes {
        all.push(
            inspect_lane(&access(lane, key.as_ref()), lane, &path, runs)
                .map_err(|error| ToolError::lane(lane, error))?,
        );
    }
    let is_damaged = |of: &Inspection| {
        of.segments.iter().any(|segment| segment.damage.is_some())
            || of.totals.as_ref().is_some_and(|totals| totals.damaged > 0)
    };
    let damaged = all.iter().any(is_damaged);
    if looked.json {
        let segment_bytes = text::all_segment_bytes(&all);
        print(&format!("{}\n", json!({ "lanes": all, "segment_bytes": segment_bytes })))?;
    } else {
        all.iter().try_for_each(|of| print(&text::inspection(of)))?;
        let is_adopted = |of: &Inspection| of.segments.iter().any(|segment| segment.adopted.is_some());
        if all.iter().any(is_adopted) {
            let bytes = text::bytes(text::all_segment_bytes(&all));
            print(&format!("all lanes: segments of {bytes}, each file once that lanes share\n"))?;
        }
    }
    Ok(if damaged && !runs { Ended::WithDamage } else { Ended::Well })
}

/// A node that runs may merge segments between the reading of its manifest and theirs: then it is looked at again.
fn inspect_lane(access: &Access, lane: u16, path: &Path, runs: bool) -> Result<Inspection, EngineError> {
    let mut attempts = if runs { INSPECT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let shown = Shown::new(lane_name("lane", lane));
        let inspected = now(offline::inspect(FolderFiles::new(path), access.clone(), !runs, shown.teller()));
        shown.finish();
        let is_whole = inspected.as_ref().is_ok_and(|of| of.segments.iter().all(|segment| segment.damage.is_none()));
        if is_whole || attempts == 0 {
            return inspected;
        }
    }
}

fn verify(looked: &Looked) -> Result<Ended, ToolError> {
    let key = looked.key.read()?;
    let lanes = lanes(&looked.which)?;
    let _lock = lock(&looked.which.data)?;
    let mut reports: Vec<VerifyReport> = Vec::new();
    for (lane, path) in lanes {
        let shown = Shown::new(lane_name("lane", lane));
        let verified = now(offline::verify(FolderFiles::new(&path), access(lane, key.as_ref()), shown.teller()));
        shown.finish();
        reports.push(verified.map_err(|error| ToolError::lane(lane, error))?);
    }
    let sound = reports.iter().all(VerifyReport::is_sound);
    if looked.json {
        print(&format!("{}\n", json!({ "sound": sound, "lanes": reports })))?;
    } else {
        reports.iter().try_for_each(print_report)?;
        print(&format!("{}\n", text::summary(&reports)))?;
    }
    Ok(if sound { Ended::Well } else { Ended::WithDamage })
}

fn print_report(report: &VerifyReport) -> Result<(), ToolError> {
    let lane = format!("lane-{:02}", report.lane);
    for finding in &report.findings {
        print(&format!("{}\n", finding_line(&lane, finding)))?;
    }
    if report.findings_left_out > 0 {
        print(&format!("{lane}: {} more findings\n", text::number(report.findings_left_out)))?;
    }
    for loss in &report.losses {
        print(&format!("note: {}\n", finding_line(&lane, loss)))?;
    }
    if let Some(torn) = &report.torn_tail {
        print(&format!("note: {lane}/{torn}; it was never acknowledged, and the next start cuts it off\n"))?;
    }
    if report.not_opened {
        print(&format!(
            "note: {lane}: encrypted, and not opened: without its key only checksums and order were checked\n"
        ))?;
    }
    for leftover in &report.leftovers {
        print(&format!("note: {lane}/{leftover}: left by an interrupted flush or merge; the next start removes it\n"))?;
    }
    Ok(())
}

fn finding_line(lane: &str, finding: &Finding) -> String {
    if finding.file.is_some() { format!("{lane}/{finding}") } else { format!("{lane}: {finding}") }
}

fn dump(which: &Which, key: &KeyArguments) -> Result<Ended, ToolError> {
    let key = key.read()?;
    let lanes_of_store = lanes(&Which { data: which.data.clone(), lane: None })?.len();
    let lanes = lanes(which)?;
    let _lock = lock(&which.data)?;
    let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut failure = writeln!(output, "{}", load::header(lanes_of_store)).err();
    for (lane, path) in lanes {
        let shown = Shown::new(lane_name("lane", lane));
        let mut sink = |line: &str| {
            if failure.is_none() {
                failure = writeln!(output, "{line}").err();
            }
            failure.is_none()
        };
        let dumped = now(offline::dump(FolderFiles::new(&path), access(lane, key.as_ref()), shown.teller(), &mut sink));
        shown.finish();
        if dumped.map_err(|error| ToolError::lane(lane, error))?.stopped {
            break;
        }
    }
    ended_output(failure.map_or_else(|| output.flush(), Err))?;
    Ok(Ended::Well)
}

/// The lanes of a folder that are asked for, and where they are.
fn lanes(which: &Which) -> Result<Vec<(u16, PathBuf)>, ToolError> {
    let folder = &which.data;
    let at = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ToolError::NoFolder { folder: folder.clone() },
        _ => ToolError::Io { path: folder.clone(), source },
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let name = entry.map_err(at)?.file_name();
        if name == CHANGED {
            return Err(StoreFolderError::LanesChanging { folder: folder.clone() }.into());
        }
        let lane = name.to_str().and_then(|name| name.strip_prefix("lane-")?.parse::<u16>().ok());
        let is_lane = |lane: &u16| usize::from(*lane) < LANES_MAX && *name == *lane_name("lane", *lane);
        found.extend(lane.filter(is_lane));
    }
    found.sort_unstable();
    if found.is_empty() {
        return Err(match checkpoint::newest_in(folder) {
            Some(newest) => ToolError::OfCheckpoints { folder: folder.clone(), newest },
            None => ToolError::NoLanes { folder: folder.clone() },
        });
    }
    if let Some(lane) = which.lane {
        found.retain(|one| *one == lane);
        if found.is_empty() {
            return Err(ToolError::NoLane { folder: folder.clone(), lane });
        }
    } else {
        let lanes = recorded_lanes(folder)?.map_or(found.len(), |(lanes, _)| lanes);
        if let Some(lane) = (0..lanes as u16).find(|lane| !found.contains(lane)) {
            return Err(ToolError::NoLane { folder: folder.clone(), lane });
        }
    }
    // The last ones of a copy may be missing, too.
    let described = Described::read(folder)?.filter(|_| which.lane.is_none());
    if described.is_some_and(|described| described.lanes() > found.len()) {
        return Err(ToolError::NoLane { folder: folder.clone(), lane: found.len() as u16 });
    }
    Ok(found.into_iter().map(|lane| (lane, folder.join(lane_name("lane", lane)))).collect())
}

/// The name of a lane's folder; `making` in place of `lane` while it is being made.
fn lane_name(kind: &str, lane: u16) -> String {
    format!("{kind}-{lane:02}")
}

/// Keeps nodes from starting on the folder for as long as the file lives, and finds one that runs. Nothing is written;
/// a copy without a `LOCK` has none to take.
fn lock(folder: &Path) -> Result<Option<File>, ToolError> {
    let path = folder.join("LOCK");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ToolError::Io { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(ToolError::InUse { folder: folder.to_owned(), owner: owner_of(&mut file) })
        }
        Err(TryLockError::Error(source)) => Err(ToolError::Io { path, source }),
    }
}

fn print(text: &str) -> Result<(), ToolError> {
    ended_output(io::stdout().write_all(text.as_bytes()))
}

/// A reader that went away (`antiphon store dump | head`) is no failure.
fn ended_output(written: io::Result<()>) -> Result<(), ToolError> {
    match written {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(ToolError::Io { path: PathBuf::from("standard output"), source })
        }
        _ => Ok(()),
    }
}
