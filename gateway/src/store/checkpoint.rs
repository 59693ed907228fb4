//! `antiphon store checkpoint`: a copy to keep, of a node that runs or of one that has ended, in a folder of such copies.
//!
//! ```text
//! TO/LOCK                    one at a time
//! TO/checkpoint-00000001/    a checkpoint: checkpoint.json, and a folder for each lane with a manifest and segments
//! TO/making-00000002/        one on its way, or left by one that was interrupted; the next takes it away
//! ```
//! A node that runs is asked at its door (see [`crate::handover`]) and makes each lane's in the lane's own folder, where segments need no
//! room; from there it is taken like that of a store at rest. Nothing is written into the folder of a node that has ended.

use std::{
    cell::Cell,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_engine::{Checkpointed, offline};
use clap::Args;
use serde_json::json;

use super::{
    Ended, Which, access,
    described::Described,
    error::ToolError,
    files::{FolderFiles, Shared, Sharing, now},
    lane_name, lanes, lock,
    new_store::{make_folder, sync_above, sync_folder},
    print,
    progress::Shown,
    text::{bytes, counted, number},
};
use crate::{
    encryption::KeyArguments,
    handover::ask_for_checkpoint,
    shard::CHECKPOINT_FOLDER,
    store_folder::{CHECKPOINT_FILE, MAKING},
};

/// What makes checkpoints of a running node one at a time, in its data folder.
const ASKING_LOCK: &str = "checkpoint.lock";

const CHECKPOINT: &str = "checkpoint";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Data folder of a node that runs, or has ended.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of checkpoints, made if it is not there: each gets a folder of its own in it.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Shares no file with the data folder, only with earlier checkpoints: damage to one then leaves the other.
    #[arg(long)]
    copy: bool,
    #[command(flatten)]
    key: KeyArguments,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Makes a checkpoint.
pub(super) fn checkpoint(asked: &Arguments) -> Result<Ended, ToolError> {
    let key = asked.key.read()?;
    let all = lanes(&Which { data: asked.data.clone(), lane: None })?;
    let shelf = Shelf::open(&asked.to)?;
    let source = Source::find(&asked.data, &all)?;
    let taken_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let new = shelf.begin()?;
    let (mut made, mut shared) = (Vec::new(), Shared::default());
    for (lane, path) in &all {
        let target = new.path.join(lane_name("lane", *lane));
        make_folder(&target)?;
        let shown = Shown::new(lane_name("lane", *lane));
        let sharing = Rc::new(Sharing {
            earlier: shelf.newest.as_ref().map(|newest| newest.join(lane_name("lane", *lane))),
            may_link: !asked.copy,
            shown: shown.clone(),
            shared: Cell::new(shared),
        });
        let from = FolderFiles::new(&source.lane(path));
        let to = FolderFiles::receiving(&target, Rc::clone(&sharing));
        let lane_made = now(offline::checkpoint(from, to, access(*lane, key.as_ref()), shown.teller()));
        shown.finish();
        made.push(lane_made.map_err(|error| ToolError::lane(*lane, error))?);
        shared = sharing.shared.get();
    }
    let folder = new.finish(&Described::new(taken_ms, &made))?;
    drop(source);
    if asked.json {
        let told = json!({
            "folder": folder, "taken_ms": taken_ms, "lanes": made,
            "linked_bytes": shared.linked, "reused_bytes": shared.reused, "copied_bytes": shared.copied,
            "written_bytes": made.iter().map(|of| of.written_bytes).sum::<u64>(),
        });
        print(&format!("{told}\n"))?;
    } else {
        print(&said(&folder, &made, shared))?;
    }
    Ok(Ended::Well)
}

fn said(folder: &Path, made: &[Checkpointed], shared: Shared) -> String {
    let positions: Vec<String> = made.iter().map(|of| number(of.position.0)).collect();
    let segments = made.iter().map(|of| of.segments).sum();
    format!(
        "{}: {}, records up to {}, {} with {}: {} of the data folder's own, {} of the checkpoint before, {} copied, {} written of the log\n",
        folder.display(),
        counted(made.len() as u64, "lane", "lanes"),
        positions.join(" and "),
        counted(segments, "segment", "segments"),
        bytes(made.iter().map(|of| of.segment_bytes).sum()),
        bytes(shared.linked),
        bytes(shared.reused),
        bytes(shared.copied),
        bytes(made.iter().map(|of| of.written_bytes).sum()),
    )
}

/// Where lanes are taken from.
enum Source {
    /// Nobody runs it, and nobody starts on it while the lock is held.
    AtRest { _lock: Option<File> },
    /// A node runs and has made its part.
    Running { _asked: Asked },
}

/// What a running node has made, taken away at the end.
struct Asked {
    folders: Vec<PathBuf>,
    _lock: File,
}

impl Source {
    fn find(data: &Path, all: &[(u16, PathBuf)]) -> Result<Self, ToolError> {
        match lock(data) {
            Ok(lock) => Ok(Self::AtRest { _lock: lock }),
            Err(ToolError::InUse { .. }) => {
                let path = data.join(ASKING_LOCK);
                let lock = lock_exclusively(&path)?.ok_or_else(|| ToolError::Busy { folder: data.to_owned() })?;
                let folders = all.iter().map(|(_, path)| path.join(CHECKPOINT_FOLDER)).collect();
                let asked = Asked { folders, _lock: lock };
                // Left by one that was interrupted.
                asked.remove().map_err(|(path, source)| ToolError::Io { path, source })?;
                let refused = |source| ToolError::Refused { folder: data.to_owned(), source };
                let made = ask_for_checkpoint(data).map_err(refused)?;
                if made != all.len() as u64 {
                    return Err(ToolError::NoLane { folder: data.to_owned(), lane: all.len() as u16 });
                }
                Ok(Self::Running { _asked: asked })
            }
            Err(error) => Err(error),
        }
    }

    fn lane(&self, path: &Path) -> PathBuf {
        match self {
            Self::AtRest { .. } => path.to_owned(),
            Self::Running { .. } => path.join(CHECKPOINT_FOLDER),
        }
    }
}

impl Asked {
    fn remove(&self) -> Result<(), (PathBuf, io::Error)> {
        for folder in &self.folders {
            match fs::remove_dir_all(folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err((folder.clone(), source)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Err((path, error)) = self.remove() {
            eprintln!("antiphon: {}: {error}; it takes room until the next checkpoint", path.display());
        }
    }
}

/// A folder of checkpoints, ours alone for as long as this lives.
struct Shelf {
    path: PathBuf,
    /// The last whole one, if there is any.
    newest: Option<PathBuf>,
    next: u64,
    _lock: File,
}

/// A checkpoint on its way; dropped before its end it leaves nothing.
struct New<'a> {
    shelf: &'a Shelf,
    path: PathBuf,
    is_finished: bool,
}

impl Shelf {
    fn open(path: &Path) -> Result<Self, ToolError> {
        let at = |source| ToolError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at)?;
        let mut unfinished = Vec::new();
        let mut highest = 0;
        for entry in fs::read_dir(path).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("lane-") || name == CHECKPOINT_FILE {
                return Err(ToolError::NoShelf { folder: path.to_owned(), name: name.into_owned() });
            }
            highest = highest.max(number_in(CHECKPOINT, &name).unwrap_or(0));
            unfinished.extend(number_in(MAKING, &name).map(|_| path.join(&*name)));
        }
        let lock = lock_exclusively(&path.join("LOCK"))?;
        let lock = lock.ok_or_else(|| ToolError::Busy { folder: path.to_owned() })?;
        for path in unfinished {
            fs::remove_dir_all(&path).map_err(|source| ToolError::Io { path, source })?;
        }
        let newest = (highest > 0).then(|| path.join(numbered(CHECKPOINT, highest)));
        Ok(Self { path: path.to_owned(), newest, next: highest + 1, _lock: lock })
    }

    fn begin(&self) -> Result<New<'_>, ToolError> {
        let path = self.path.join(numbered(MAKING, self.next));
        make_folder(&path)?;
        Ok(New { shelf: self, path, is_finished: false })
    }
}

impl New<'_> {
    /// All lanes are whole, and durable by themselves.
    fn finish(mut self, described: &Described) -> Result<PathBuf, ToolError> {
        let path = self.path.join(CHECKPOINT_FILE);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(described.to_text().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| ToolError::Io { path: path.clone(), source })?;
        sync_folder(&self.path)?;
        let shelf = &self.shelf.path;
        let whole = shelf.join(numbered(CHECKPOINT, self.shelf.next));
        fs::rename(&self.path, &whole).map_err(|source| ToolError::Io { path: whole.clone(), source })?;
        self.is_finished = true;
        sync_folder(shelf)?;
        sync_above(shelf);
        Ok(whole)
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // The next one takes away what this leaves.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}-{number:08}")
}

fn number_in(kind: &str, name: &str) -> Option<u64> {
    let number = name.strip_prefix(kind)?.strip_prefix('-')?.parse().ok()?;
    (numbered(kind, number) == name).then_some(number)
}

/// The newest checkpoint in a folder of them, for whoever names the folder instead.
pub(super) fn newest_in(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let highest = names.filter_map(|name| number_in(CHECKPOINT, &name)).max()?;
    Some(folder.join(numbered(CHECKPOINT, highest)))
}

/// `None` if another process holds it.
fn lock_exclusively(path: &Path) -> Result<Option<File>, ToolError> {
    let at = |source| ToolError::Io { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_count_up_and_what_was_interrupted_goes() {
        let path = std::env::temp_dir().join(format!("antiphon-shelf-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("making-00000004/lane-00")).unwrap();
        for name in ["checkpoint-00000002", "checkpoint-00000011", "checkpoint-3", "checkpoint-00000012.old"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let shelf = Shelf::open(&path).unwrap();
        assert!(matches!(Shelf::open(&path), Err(ToolError::Busy { .. })));
        assert_eq!((shelf.newest.clone(), shelf.next), (Some(path.join("checkpoint-00000011")), 12));
        assert_eq!(newest_in(&path), shelf.newest);
        assert!(!path.join("making-00000004").exists());
        let abandoned = shelf.begin().unwrap();
        assert!(path.join("making-00000012").exists());
        drop(abandoned);
        assert!(!path.join("making-00000012").exists());
        let whole = shelf.begin().unwrap().finish(&Described::new(1, &[])).unwrap();
        assert_eq!(whole, path.join("checkpoint-00000012"));
        assert!(whole.join(CHECKPOINT_FILE).exists());
        drop(shelf);
        fs::create_dir(path.join("lane-00")).unwrap();
        assert!(matches!(Shelf::open(&path), Err(ToolError::NoShelf { .. })), "a data folder");
        fs::remove_dir_all(&path).unwrap();
    }
}
