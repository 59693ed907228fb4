//! A new data folder, made lane by lane under other names, which become the lanes' own when all of them are whole and durable: what was
//! interrupted leaves nothing that a node would start on.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{error::ToolError, lane_name};
use crate::store_folder::{MAKING, StoreFolder};

/// The folder, ours alone for as long as this lives. Dropped before [`NewStore::finish`] it leaves nothing but the lock.
#[derive(Debug)]
pub(super) struct NewStore {
    folder: StoreFolder,
    lanes: Vec<u16>,
}

impl NewStore {
    /// Begins in a folder that is not there, or empty.
    pub(super) fn begin(data: &Path) -> Result<Self, ToolError> {
        require_empty(data)?;
        let folder = StoreFolder::open(data)?;
        // Somebody may have come first.
        require_empty(data)?;
        Ok(Self { folder, lanes: Vec::new() })
    }

    /// An empty folder for a lane.
    pub(super) fn lane(&mut self, lane: u16) -> Result<PathBuf, ToolError> {
        let path = self.folder.path().join(lane_name(MAKING, lane));
        make_folder(&path)?;
        self.lanes.push(lane);
        Ok(path)
    }

    /// All lanes are whole, and durable by themselves.
    pub(super) fn finish(mut self) -> Result<(), ToolError> {
        let folder = self.folder.path();
        for lane in self.lanes.drain(..) {
            let (from, to) = (folder.join(lane_name(MAKING, lane)), folder.join(lane_name("lane", lane)));
            fs::rename(&from, to).map_err(|source| ToolError::Io { path: from, source })?;
        }
        sync_folder(folder)?;
        sync_above(folder);
        Ok(())
    }
}

impl Drop for NewStore {
    fn drop(&mut self) {
        for lane in &self.lanes {
            // Nobody starts on what is left, and the next attempt names it.
            let _ = fs::remove_dir_all(self.folder.path().join(lane_name(MAKING, *lane)));
        }
    }
}

/// A folder that is not there is as good as an empty one; a lock alone is left by an attempt before.
fn require_empty(folder: &Path) -> Result<(), ToolError> {
    let at = |source| ToolError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(at)?,
    };
    for entry in entries {
        if entry.map_err(at)?.file_name() != "LOCK" {
            return Err(ToolError::NotEmpty { folder: folder.to_owned() });
        }
    }
    Ok(())
}

/// A folder that only its owner looks into. Its parent is there.
pub(super) fn make_folder(path: &Path) -> Result<(), ToolError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| ToolError::Io { path: path.to_owned(), source })
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), ToolError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|source| ToolError::Io { path: path.to_owned(), source })
}

/// The same for the folder that it is in, if we may look there.
pub(super) fn sync_above(path: &Path) {
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let _ = sync_folder(above.unwrap_or(Path::new(".")));
}
