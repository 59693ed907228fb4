//! The data folder of a node: who owns it, and where what lies in it.
//!
//! ```text
//! DATA/LOCK          exclusive lock of the running node; its text is the owner's process id
//! DATA/handover.sock where the owner is asked to hand over (see `handover`); only the owner of the lock makes or removes it
//! DATA/dev.key       secret that signs development tokens, mode 0600; made at first use
//! DATA/dev-api.key   secret of a development node's HTTP API, likewise
//! DATA/dev-operator.key   key of a development node's operator's page, likewise
//! DATA/lanes         how many log lanes there are, and the identity of their stores together; made at the first start
//! DATA/lane-00/ …    one folder a log lane; the engine owns what is inside
//! DATA/making-00/ …  lanes that `antiphon store` has not finished; no node starts beside them
//! DATA/changing-lanes/, DATA/changed-lanes/  another number of lanes on its way (see `lane_switch`)
//! ```
//! A folder with a `checkpoint.json` is a checkpoint: a copy to restore from, which no node starts on.
//!
//! Invariants: while a [`StoreFolder`] lives, no other process has one of the same folder; the kernel drops the lock when the owner
//! dies, however it dies. Must not do: look into a lane's folder.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use antiphon_wire::limits::LANES_MAX;

use crate::{core::token::SECRET_BYTES_MIN, lane_switch::CHANGED};

/// What tells a checkpoint from a node's folder.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint.json";

/// In place of `lane` in the name of a lane's folder while `antiphon store` makes it.
pub(crate) const MAKING: &str = "making";

/// How often a lock that is waited for is tried: clients wait as long.
const LOCK_LOOK: Duration = Duration::from_millis(2);

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreFolderError {
    /// Stop the other node, or give this one another folder.
    #[error(
        "the data folder {folder} is in use by another node (process {owner}); stop it, take over from it with --takeover, or \
         choose another with --data"
    )]
    InUse {
        /// Which folder.
        folder: PathBuf,
        /// The owner's process id, as it wrote it; `unknown` if it hasn't yet.
        owner: String,
    },
    /// Make the path readable and writable, or choose another.
    #[error(
        "{path}: {source}; make the data folder readable and writable for this user, or choose another with --data"
    )]
    Io {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Take over with the number of lanes that there are, or stop the node first.
    #[error(
        "{folder} has {found} log lanes, and a node that takes over can't have {wanted}; use --lanes {found}, or stop the running \
         node first"
    )]
    Lanes {
        /// Which folder.
        folder: PathBuf,
        /// Lanes in it.
        found: usize,
        /// Lanes asked for.
        wanted: usize,
    },
    /// Let a start, or `antiphon store lanes`, go on with it.
    #[error(
        "{folder}: its number of lanes was being changed; start the node, or use `antiphon store lanes`, which goes on with it"
    )]
    LanesChanging {
        /// Which folder.
        folder: PathBuf,
    },
    /// Restore it into a folder of its own.
    #[error(
        "{folder} is a checkpoint, a copy to keep; restore it first, with `antiphon store restore --from {folder} --data ANOTHER`"
    )]
    Checkpoint {
        /// Which folder.
        folder: PathBuf,
    },
    /// Remove the folder and do again what made it.
    #[error("{folder} holds {name}: `antiphon store` was interrupted; remove the folder and make it again")]
    Unfinished {
        /// Which folder.
        folder: PathBuf,
        /// What tells so.
        name: String,
    },
    /// Restore the folder from a whole copy.
    #[error(
        "{folder}: lane-{lane:02} is missing, of {lanes} log lanes: the folder was copied in part; restore it whole"
    )]
    LaneMissing {
        /// Which folder.
        folder: PathBuf,
        /// The lane.
        lane: usize,
        /// How many there must be.
        lanes: usize,
    },
    /// Restore each lane from its own copy, or, if they do belong together, remove the file.
    #[error(
        "{folder}: lanes of several stores were mixed; restore each from its own copy, or remove {folder}/lanes if they do \
         belong together"
    )]
    Mixed {
        /// Which folder.
        folder: PathBuf,
    },
    /// Restore the file, or remove it to have it made anew.
    #[error("{path} does not say which log lanes there are; restore it, or remove it if all of them are there")]
    LanesFile {
        /// Which path.
        path: PathBuf,
    },
    /// Remove the file to have a new key made; tokens signed by the old one end.
    #[error("{path} is not a development key (64 hexadecimal digits)")]
    DevKey {
        /// Which path.
        path: PathBuf,
    },
}

/// A data folder that this process owns.
#[derive(Debug)]
pub struct StoreFolder {
    path: PathBuf,
    /// Holds the lock; closing it gives the folder up.
    _lock: File,
}

impl StoreFolder {
    /// Makes the folder if it isn't there and takes its lock.
    pub fn open(path: &Path) -> Result<Self, StoreFolderError> {
        if path.join(CHECKPOINT_FILE).exists() {
            return Err(StoreFolderError::Checkpoint { folder: path.to_owned() });
        }
        make_folder(path)?;
        let lock_path = path.join("LOCK");
        let at_lock = |source| StoreFolderError::Io { path: lock_path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut lock = options.open(&lock_path).map_err(at_lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreFolderError::InUse { folder: path.to_owned(), owner: owner_of(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(at_lock(source)),
        }
        let write_owner = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write_owner(&mut lock).map_err(at_lock)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Takes the lock as soon as its owner gives it up, at most so long.
    pub fn wait(path: &Path, timeout: Duration) -> Result<Self, StoreFolderError> {
        let end = Instant::now() + timeout;
        loop {
            match Self::open(path) {
                Err(StoreFolderError::InUse { .. }) if Instant::now() < end => thread::sleep(LOCK_LOOK),
                result => return result,
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the folder has the given number of lanes, or none yet. A conversation's lane follows from their number, so with
    /// another one it would not be found.
    pub fn check_lanes(folder: &Path, wanted: usize) -> Result<(), StoreFolderError> {
        match Self::lanes(folder)? {
            Some(found) if found != wanted => Err(StoreFolderError::Lanes { folder: folder.to_owned(), found, wanted }),
            _ => Ok(()),
        }
    }

    /// How many lanes a folder has, all of which are there; `None` if there are none yet.
    pub(crate) fn lanes(folder: &Path) -> Result<Option<usize>, StoreFolderError> {
        let at = |source| StoreFolderError::Io { path: folder.to_owned(), source };
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.strip_prefix(MAKING).is_some_and(|rest| rest.starts_with('-')) {
                return Err(StoreFolderError::Unfinished { folder: folder.to_owned(), name: name.to_owned() });
            }
            if name == CHANGED {
                return Err(StoreFolderError::LanesChanging { folder: folder.to_owned() });
            }
            found.extend(numbered("lane-", name));
        }
        let folder = folder.to_owned();
        let made_with = recorded_lanes(&folder)?.map(|(lanes, _)| lanes);
        let Some(last) = found.last() else {
            return match made_with {
                Some(lanes) => Err(StoreFolderError::LaneMissing { folder, lane: 0, lanes }),
                None => Ok(None),
            };
        };
        let lanes = made_with.unwrap_or(last + 1);
        if let Some(lane) = (0..lanes).find(|lane| !found.contains(lane)) {
            return Err(StoreFolderError::LaneMissing { folder, lane, lanes });
        }
        Ok(Some(lanes))
    }

    /// Writes down how many lanes there are and the identity of their stores together, if that is not written yet: from then on a lane
    /// that is missing, or another store's, is told. To be called when all of them are there.
    pub fn record_lanes(&self, lanes: usize, store: u64) -> Result<(), StoreFolderError> {
        match recorded_lanes(&self.path)? {
            None => {}
            Some(recorded) if recorded == (lanes, store) => return Ok(()),
            Some(_) => return Err(StoreFolderError::Mixed { folder: self.path.clone() }),
        }
        let (path, draft) = (self.path.join(LANES), self.path.join("lanes.new"));
        let at = |source| StoreFolderError::Io { path: draft.clone(), source };
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&draft)?;
            file.write_all(lanes_text(lanes, store).as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(at)?;
        sync_folder(&self.path)
    }

    /// The folder of a log lane, made if it isn't there. Needs no lock: only what is inside is the owner's alone.
    pub fn lane_folder(folder: &Path, lane: usize) -> Result<PathBuf, StoreFolderError> {
        let path = folder.join(lane_name(lane));
        make_folder(&path)?;
        // The engine makes durable what is inside; that the folders themselves survive a power cut is up to us. Above our own we
        // may not be allowed to look.
        sync_folder(folder)?;
        let above = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let _ = sync_folder(above.unwrap_or(Path::new(".")));
        Ok(path)
    }
}

/// The file that says which lanes a folder has.
pub(crate) const LANES: &str = "lanes";

/// What stands in it.
pub(crate) fn lanes_text(lanes: usize, store: u64) -> String {
    format!("{lanes} {store:016x}\n")
}

/// The name of a lane's folder.
pub(crate) fn lane_name(lane: usize) -> String {
    format!("lane-{lane:02}")
}

/// The identity of stores together, in the order of their lanes.
pub(crate) fn store_of_lanes(stores: impl IntoIterator<Item = u64>) -> u64 {
    (0..).zip(stores).fold(0, |all, (lane, store)| all ^ store.rotate_left(lane))
}

/// How many lanes a folder has and the identity of their stores together, if it is written down.
pub(crate) fn recorded_lanes(folder: &Path) -> Result<Option<(usize, u64)>, StoreFolderError> {
    let path = folder.join(LANES);
    match fs::read_to_string(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        // What does not have its form says nothing: also what is not text.
        Err(source) if source.kind() != io::ErrorKind::InvalidData => Err(StoreFolderError::Io { path, source }),
        text => {
            let parsed = text.ok().and_then(|text| {
                let (lanes, store) = text.trim_end().split_once(' ')?;
                let store = u64::from_str_radix(store, 16).ok().filter(|_| store.len() == 16)?;
                Some((lanes.parse().ok().filter(|lanes| (1..=LANES_MAX).contains(lanes))?, store))
            });
            parsed.map(Some).ok_or(StoreFolderError::LanesFile { path })
        }
    }
}

/// The number in a name that is `prefix` and two digits.
fn numbered(prefix: &str, name: &str) -> Option<usize> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 2)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The secret that signs a folder's development tokens, made if it isn't there.
pub fn dev_key(folder: &Path) -> Result<Vec<u8>, StoreFolderError> {
    let (path, digits) = made_secret(folder, "dev.key")?;
    from_hexadecimal(&digits).ok_or(StoreFolderError::DevKey { path })
}

/// The secret that a development node's HTTP API is used with, made if it isn't there, and its file.
pub fn dev_api_key(folder: &Path) -> Result<(PathBuf, String), StoreFolderError> {
    let (path, digits) = made_secret(folder, "dev-api.key")?;
    from_hexadecimal(&digits).ok_or_else(|| StoreFolderError::DevKey { path: path.clone() })?;
    Ok((path, digits))
}

/// The key of a development node's operator's page, made if it isn't there.
pub fn dev_operator_key(folder: &Path) -> Result<String, StoreFolderError> {
    let (path, digits) = made_secret(folder, "dev-operator.key")?;
    from_hexadecimal(&digits).ok_or(StoreFolderError::DevKey { path })?;
    Ok(digits)
}

/// A file's line of random hexadecimal digits, made if it isn't there. Needs no lock: scripts ask for tokens while the node runs, and
/// whoever comes first makes the secret for all.
fn made_secret(folder: &Path, name: &str) -> Result<(PathBuf, String), StoreFolderError> {
    make_folder(folder)?;
    let path = folder.join(name);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StoreFolderError::Io { path, source }
    };
    if !path.exists() {
        // A key appears whole or not at all: it is written beside its place and linked into it, which fails if one is there.
        let draft = folder.join(format!("{name}.{}", std::process::id()));
        let mut secret = [0; SECRET_BYTES_MIN];
        let source = Path::new("/dev/urandom");
        File::open(source).and_then(|mut file| file.read_exact(&mut secret)).map_err(at(source))?;
        let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            writeln!(file, "{digits}")?;
            match fs::hard_link(&draft, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => fs::remove_file(&draft),
            }
        };
        write().map_err(at(&draft))?;
    }
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    Ok((path, text.trim().to_owned()))
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), StoreFolderError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|source| StoreFolderError::Io { path: path.to_owned(), source })
}

pub(crate) fn make_folder(path: &Path) -> Result<(), StoreFolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StoreFolderError::Io { path: path.to_owned(), source })
}

/// The process that holds a folder's lock, as it wrote it there; `unknown` if it hasn't yet.
pub(crate) fn owner_of(lock: &mut File) -> String {
    let mut text = String::new();
    // The text is of our own making, but the file may be anything.
    let read = lock.take(20).read_to_string(&mut text);
    let owner = text.trim();
    if read.is_ok() && !owner.is_empty() && owner.bytes().all(|byte| byte.is_ascii_digit()) {
        owner.to_owned()
    } else {
        "unknown".to_owned()
    }
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * SECRET_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..SECRET_BYTES_MIN).map(|index| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("antiphon-store-folder-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_second_owner_is_refused_and_told_the_first() {
        let path = folder("lock");
        let first = StoreFolder::open(&path).unwrap();
        let refused = StoreFolder::open(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        // A longer text of a dead owner leaves nothing behind.
        fs::write(path.join("LOCK"), "99999999999\n").unwrap();
        let second = StoreFolder::open(&path).unwrap();
        assert_eq!(fs::read_to_string(path.join("LOCK")).unwrap(), format!("{}\n", std::process::id()));
        fs::write(path.join("LOCK"), "nonsense").unwrap();
        assert!(StoreFolder::open(&path).unwrap_err().to_string().contains("process unknown"));
        assert_eq!(StoreFolder::lane_folder(second.path(), 3).unwrap(), path.join("lane-03"));
        assert!(path.join("lane-03").is_dir());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_checkpoint_and_an_unfinished_store_are_left_alone() {
        let path = folder("checkpoint");
        fs::create_dir_all(path.join("lane-00")).unwrap();
        assert!(StoreFolder::check_lanes(&path, 1).is_ok());
        fs::create_dir(path.join("making-01")).unwrap();
        assert!(matches!(StoreFolder::check_lanes(&path, 1), Err(StoreFolderError::Unfinished { .. })));
        fs::write(path.join(CHECKPOINT_FILE), "").unwrap();
        assert!(matches!(StoreFolder::open(&path), Err(StoreFolderError::Checkpoint { .. })));
        assert!(!path.join("LOCK").exists(), "nothing is written there");
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn lanes_that_are_missing_are_missed() {
        let path = folder("lanes");
        let first = StoreFolder::open(&path).unwrap();
        let check = |wanted| StoreFolder::check_lanes(&path, wanted).map_err(|error| error.to_string());
        let refused = |wanted| check(wanted).unwrap_err();
        assert_eq!(check(2), Ok(()));
        // Before their number is written down, a gap tells, and a number that is not theirs.
        StoreFolder::lane_folder(&path, 1).unwrap();
        assert!(refused(1).contains("lane-00 is missing, of 2"), "{}", refused(1));
        StoreFolder::lane_folder(&path, 0).unwrap();
        fs::create_dir(path.join("lane-00.bak")).unwrap();
        assert_eq!(check(2), Ok(()));
        assert!(refused(3).contains("use --lanes 2"), "{}", refused(3));
        first.record_lanes(2, 0xabc).unwrap();
        first.record_lanes(2, 0xabc).unwrap();
        assert!(matches!(first.record_lanes(2, 0xabd), Err(StoreFolderError::Mixed { .. })));
        assert_eq!(fs::read_to_string(path.join("lanes")).unwrap(), "2 0000000000000abc\n");
        assert_eq!(check(2), Ok(()));
        // From then on the last one is missed, too, and all of them.
        for (missing, named) in [(1, "lane-01 is missing, of 2"), (0, "lane-00 is missing, of 2")] {
            fs::remove_dir(path.join(format!("lane-0{missing}"))).unwrap();
            for wanted in [1, 2] {
                assert!(refused(wanted).contains(named), "{}", refused(wanted));
            }
        }
        for text in ["", "none\n", "2", "2 3", "0 0000000000000abc", "17 0000000000000abc", "2 0000000000000abc 1"] {
            fs::write(path.join("lanes"), text).unwrap();
            assert!(refused(2).contains("does not say which log lanes"), "{text:?}: {}", refused(2));
        }
        fs::remove_file(path.join("lanes")).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_path_that_is_no_folder_is_named() {
        let path = folder("file");
        fs::write(&path, "").unwrap();
        assert!(StoreFolder::open(&path).unwrap_err().to_string().contains("antiphon-store-folder-file"));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_dev_key_is_made_once_and_private() {
        let path = folder("key");
        let key = dev_key(&path).unwrap();
        assert_eq!(key.len(), SECRET_BYTES_MIN);
        assert_eq!(dev_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(path.join("dev.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        fs::write(path.join("dev.key"), "short").unwrap();
        assert!(matches!(dev_key(&path), Err(StoreFolderError::DevKey { .. })));
        fs::remove_dir_all(&path).unwrap();
    }
}
