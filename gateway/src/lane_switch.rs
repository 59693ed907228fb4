//! Other lanes in the place of a data folder's: all of them at once, whenever the process or the power ends.
//!
//! ```text
//! DATA/changing-lanes/               new lanes on their way, or old ones on theirs: whoever finds it takes it away
//! DATA/changed-lanes/                it is decided: whoever finds it goes on
//!     from                           how many old lanes there were, as text
//!     lanes                          what will be DATA/lanes
//!     lane-00/ …                     new lanes that are not in their place yet
//!     old-lane-00/ …                 old lanes, out of theirs
//! ```
//! | step | a crash before it is durable leaves |
//! |---|---|
//! | 1. all of `changing-lanes` is made, and synced | the old lanes; `changing-lanes` is taken away |
//! | 2. it is renamed to `changed-lanes` | the same |
//! | 3. each `lane-NN` is moved to `changed-lanes/old-lane-NN` | what 3 goes on with: those that are not there yet |
//! | 4. each `changed-lanes/lane-NN` is moved to its place | 3 has nothing to do, 4 goes on with those that are there |
//! | 5. `changed-lanes/lanes` is moved to its place | the same |
//! | 6. `changed-lanes` is renamed to `changing-lanes`, and that taken away | 3 to 5 have nothing to do; or what is taken away |
//!
//! After each step both folders are synced. Until step 6 no name in `changed-lanes/old-lane-NN` goes, since a missing one would say that
//! the lane in its place is an old one still.
//!
//! Invariants: the caller has the folder's lock. Must not do: look into a lane.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use antiphon_wire::limits::LANES_MAX;

use crate::store_folder::{LANES, StoreFolderError, lane_name, lanes_text, sync_folder};

/// Lanes that are being made, or taken away.
const CHANGING: &str = "changing-lanes";
/// Lanes that are to be in the place of those that are.
pub(crate) const CHANGED: &str = "changed-lanes";
const FROM: &str = "from";

/// What an earlier process had left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// New lanes that were not whole, or old ones that were to go: taken away.
    Unfinished,
    /// New lanes that were: they are in their place now.
    Decided,
}

/// The folders of a change.
pub(crate) struct Switch<'a> {
    data: &'a Path,
    changes: Changes,
}

/// What is done to folders, one after the other. A test has it fail at any of them, and sees which they were.
#[derive(Default)]
struct Changes {
    #[cfg(test)]
    stop_at: Option<usize>,
    #[cfg(test)]
    done: std::cell::RefCell<Vec<tests::Change>>,
}

impl<'a> Switch<'a> {
    pub(crate) fn new(data: &'a Path) -> Self {
        Self { data, changes: Changes::default() }
    }

    /// Goes on with a change that was decided, or takes away one that was not.
    pub(crate) fn settle(&self) -> Result<Left, StoreFolderError> {
        let has_unfinished = self.path(CHANGING).exists();
        if has_unfinished {
            self.take_away()?;
        }
        if self.path(CHANGED).exists() {
            self.carry_out()?;
            return Ok(Left::Decided);
        }
        Ok(if has_unfinished { Left::Unfinished } else { Left::Nothing })
    }

    /// An empty folder for a new lane. Nothing may have been left: see [`Switch::settle`].
    pub(crate) fn new_lane(&self, lane: usize) -> Result<PathBuf, StoreFolderError> {
        let path = self.path(CHANGING).join(lane_name(lane));
        self.changes.make_folder(&path)?;
        Ok(path)
    }

    /// Puts the new lanes, all of which are durable by themselves, in the place of the `old` ones. After an error the next
    /// [`Switch::settle`] has the old lanes stay, or the new ones come.
    pub(crate) fn switch(&self, old: usize, new: usize, store: u64) -> Result<(), StoreFolderError> {
        let changing = self.path(CHANGING);
        self.changes.write(&changing.join(FROM), &format!("{old}\n"))?;
        self.changes.write(&changing.join(LANES), &lanes_text(new, store))?;
        self.changes.sync(&changing)?;
        self.changes.rename(&changing, &self.path(CHANGED))?;
        self.changes.sync(self.data)?;
        self.carry_out()
    }

    /// Takes away new lanes that cannot be made whole; what cannot be taken away the next start sees to.
    pub(crate) fn abandon(&self) {
        let _ = self.take_away();
    }

    fn carry_out(&self) -> Result<(), StoreFolderError> {
        let changed = self.path(CHANGED);
        for lane in 0..self.old_lanes()? {
            let out = changed.join(format!("old-{}", lane_name(lane)));
            if !out.exists() {
                self.changes.rename(&self.data.join(lane_name(lane)), &out)?;
            }
        }
        self.sync_both()?;
        for name in (0..LANES_MAX).map(lane_name) {
            if changed.join(&name).exists() {
                self.changes.rename(&changed.join(&name), &self.data.join(&name))?;
            }
        }
        self.sync_both()?;
        if changed.join(LANES).exists() {
            self.changes.rename(&changed.join(LANES), &self.data.join(LANES))?;
        }
        self.sync_both()?;
        self.changes.rename(&changed, &self.path(CHANGING))?;
        self.changes.sync(self.data)?;
        self.take_away()
    }

    /// How many lanes are to make room.
    fn old_lanes(&self) -> Result<usize, StoreFolderError> {
        let path = self.path(CHANGED).join(FROM);
        let text = fs::read_to_string(&path).map_err(|source| StoreFolderError::Io { path: path.clone(), source })?;
        let lanes = text.trim_end().parse().ok().filter(|lanes| (1..=LANES_MAX).contains(lanes));
        lanes.ok_or(StoreFolderError::LanesFile { path })
    }

    fn take_away(&self) -> Result<(), StoreFolderError> {
        self.changes.remove(&self.path(CHANGING))?;
        self.changes.sync(self.data)
    }

    fn sync_both(&self) -> Result<(), StoreFolderError> {
        self.changes.sync(&self.path(CHANGED))?;
        self.changes.sync(self.data)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }
}

impl Changes {
    fn make_folder(&self, path: &Path) -> Result<(), StoreFolderError> {
        self.change(path, || crate::store_folder::make_folder(path))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), StoreFolderError> {
        self.change(path, || {
            let written = fs::File::create(path).and_then(|mut file| {
                io::Write::write_all(&mut file, text.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|source| StoreFolderError::Io { path: path.to_owned(), source })
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreFolderError> {
        self.change(from, || {
            fs::rename(from, to).map_err(|source| StoreFolderError::Io { path: from.to_owned(), source })?;
            #[cfg(test)]
            self.done.borrow_mut().push(tests::Change::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn sync(&self, path: &Path) -> Result<(), StoreFolderError> {
        self.change(path, || {
            sync_folder(path)?;
            #[cfg(test)]
            self.done.borrow_mut().push(tests::Change::Sync(path.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), StoreFolderError> {
        self.change(path, || match fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreFolderError::Io { path: path.to_owned(), source })
            }
            _ => {
                #[cfg(test)]
                self.done.borrow_mut().push(tests::Change::Remove(path.to_owned()));
                Ok(())
            }
        })
    }

    fn change(
        &self,
        path: &Path,
        change: impl FnOnce() -> Result<(), StoreFolderError>,
    ) -> Result<(), StoreFolderError> {
        self.before(path)?;
        change()
    }

    #[cfg(not(test))]
    const fn before(&self, _path: &Path) -> Result<(), StoreFolderError> {
        Ok(())
    }

    #[cfg(test)]
    fn before(&self, path: &Path) -> Result<(), StoreFolderError> {
        if self.stop_at != Some(self.done.borrow().len()) {
            return Ok(());
        }
        Err(StoreFolderError::Io { path: path.to_owned(), source: io::Error::other("stopped by the test") })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What was done that a power cut may undo, and what keeps it from that.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) enum Change {
        Rename(PathBuf, PathBuf),
        Sync(PathBuf),
        Remove(PathBuf),
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("antiphon-lane-switch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A folder with so many old lanes, and so many new ones on their way; each says in a file what it is.
    fn prepared(data: &Path, old: usize, new: usize) {
        let _ = fs::remove_dir_all(data);
        for lane in 0..old {
            put(&data.join(lane_name(lane)).join("is"), &format!("old {lane}"));
        }
        put(&data.join(LANES), &lanes_text(old, 1));
        let switch = Switch::new(data);
        for lane in 0..new {
            put(&switch.new_lane(lane).unwrap().join("is"), &format!("new {lane}"));
        }
    }

    /// Everything in a folder, by path.
    fn image(data: &Path) -> BTreeMap<PathBuf, String> {
        let (mut found, mut waiting) = (BTreeMap::new(), vec![data.to_owned()]);
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(data).unwrap().to_owned(), text);
            }
        }
        found
    }

    fn expected(kind: &str, lanes: usize, store: u64) -> BTreeMap<PathBuf, String> {
        let of_lane = |lane| (PathBuf::from(lane_name(lane)).join("is"), format!("{kind} {lane}"));
        (0..lanes).map(of_lane).chain([(PathBuf::from(LANES), lanes_text(lanes, store))]).collect()
    }

    #[test]
    fn a_kill_after_any_change_leaves_the_old_lanes_or_the_new_ones() {
        let data = folder("kill");
        for (old, new) in [(1, 3), (3, 1), (2, 2)] {
            let (mut stopped, mut was_new) = (0, false);
            loop {
                prepared(&data, old, new);
                let switch = Switch { data: &data, changes: Changes { stop_at: Some(stopped), ..Changes::default() } };
                let ended = switch.switch(old, new, 2).is_ok();
                // And another that ends in the middle of going on.
                let _ = Switch { data: &data, changes: Changes { stop_at: Some(stopped % 3), ..Changes::default() } }
                    .settle();
                let left = Switch::new(&data).settle().unwrap();
                let found = image(&data);
                let is_new = found == expected("new", new, 2);
                assert!(is_new || found == expected("old", old, 1), "{old} to {new}, {stopped}: {left:?}: {found:?}");
                assert!(is_new || !was_new, "what is decided stays so");
                was_new |= is_new;
                assert_eq!(Switch::new(&data).settle().unwrap(), Left::Nothing);
                if ended {
                    assert!(is_new);
                    break;
                }
                stopped += 1;
            }
            assert!(stopped > 10, "{stopped}");
        }
        fs::remove_dir_all(&data).unwrap();
    }

    /// Does again what was done.
    fn repeat(changes: &[&Change]) {
        for change in changes {
            match change {
                Change::Rename(from, to) => {
                    // One whose source another has not brought is not on disk either.
                    let _ = fs::rename(from, to);
                }
                Change::Remove(path) => fs::remove_dir_all(path).unwrap(),
                Change::Sync(_) => {}
            }
        }
    }

    #[test]
    fn a_power_cut_that_undoes_any_unsynced_rename_leaves_the_old_lanes_or_the_new_ones() {
        let data = folder("power");
        for (old, new) in [(1, 2), (3, 2), (2, 3)] {
            prepared(&data, old, new);
            let switch = Switch::new(&data);
            switch.switch(old, new, 2).unwrap();
            let done = switch.changes.done.into_inner();
            let mut outcomes = [0, 0];
            for end in 0..=done.len() {
                // A rename stays when all folders concerned were synced after it.
                let is_durable = |index: usize| match &done[index] {
                    Change::Rename(from, to) => [from, to].into_iter().all(|path| {
                        let synced = |change: &Change| *change == Change::Sync(path.parent().unwrap().to_owned());
                        done[index..end].iter().any(synced)
                    }),
                    Change::Sync(_) | Change::Remove(_) => true,
                };
                let open: Vec<usize> = (0..end).filter(|index| !is_durable(*index)).collect();
                assert!(open.len() <= 3, "few at a time: {open:?}");
                for kept in 0..1_u32 << open.len() {
                    prepared(&data, old, new);
                    let changing = data.join(CHANGING);
                    fs::write(changing.join(FROM), format!("{old}\n")).unwrap();
                    fs::write(changing.join(LANES), lanes_text(new, 2)).unwrap();
                    let stays =
                        |index: usize| open.iter().position(|of| *of == index).is_none_or(|bit| kept >> bit & 1 == 1);
                    repeat(&(0..end).filter(|index| stays(*index)).map(|index| &done[index]).collect::<Vec<_>>());
                    Switch::new(&data).settle().unwrap();
                    let found = image(&data);
                    let is_new = found == expected("new", new, 2);
                    assert!(is_new || found == expected("old", old, 1), "{old} to {new}, {end}, {kept:b}: {found:?}");
                    outcomes[usize::from(is_new)] += 1;
                }
            }
            assert!(outcomes[0] > 2 && outcomes[1] > 10, "{outcomes:?}");
        }
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn a_note_that_cannot_be_read_is_told() {
        let data = folder("note");
        for text in ["", "0", "17", "one"] {
            put(&data.join(CHANGED).join(FROM), text);
            let error = Switch::new(&data).settle().unwrap_err();
            assert!(error.to_string().contains("changed-lanes/from"), "{error}");
        }
        fs::remove_dir_all(&data).unwrap();
    }
}
