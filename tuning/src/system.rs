//! The seam to a machine: its files, read and written. The only place of this crate, beside the command line, that does I/O.
//!
//! Two kinds of writes: [`System::set`] gives the kernel a value through a file of /proc or /sys, in one `write`; the others keep files of
//! our own, and return only when these are on stable storage. Must not do: decide what to write.
//!
//! A [`Directory`] below another root than `/` is a tree of plain files that stands in for a machine; writes to it have the effect
//! that they would have on the kernel's files ([`as_the_kernel_shows`]).

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// No file that is of interest here is larger; `/proc/interrupts` of a machine with hundreds of processors comes near.
const READ_BYTES_MAX: u64 = 4 << 20;

/// A machine's files. Paths are absolute, as on the machine itself.
pub trait System {
    /// A file's bytes.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Names in a folder, sorted.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Whether [`System::set`] would be let; changes nothing.
    fn may_set(&self, path: &str) -> io::Result<()>;

    /// Gives the kernel a value, in one `write` to a file that exists.
    fn set(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Keeps a file of ours, whole or not at all, with the folders that it stands in.
    fn store(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Adds to the end of a file of ours. After a failure or a crash a part may be there.
    fn append(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Renames a file of ours within its folder.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file of ours.
    fn remove(&mut self, path: &str) -> io::Result<()>;

    /// A file's text; what is not UTF-8 is replaced, so that it never parses by accident.
    fn text(&self, path: &str) -> io::Result<String> {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The machine below a root: `/`, or a tree that looks like it.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// This machine.
    #[must_use]
    pub fn this_machine() -> Self {
        Self::below(Path::new("/"))
    }

    /// A tree that looks like a machine.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Keeps others from changing the machine by the same state folder, as long as the file is held.
    ///
    /// # Errors
    /// The folder can't be made, or another process holds the lock.
    pub fn lock(&self, folder: &str) -> io::Result<File> {
        let folder = self.place(folder);
        fs::create_dir_all(&folder)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another tune is at work"),
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(file)
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_a_tree(&self) -> bool {
        self.root != Path::new("/")
    }
}

impl System for Directory {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.place(path))?.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.place(folder))?;
        let names: io::Result<Vec<OsString>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let mut names: Vec<String> = names?.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn may_set(&self, path: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.place(path)).map(drop)
    }

    fn set(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(path);
        if self.is_a_tree() {
            let shown = as_the_kernel_shows(&fs::read(&place)?, bytes)?;
            return fs::write(place, shown);
        }
        let mut file = OpenOptions::new().write(true).open(place)?;
        // The kernel takes each `write` as a whole value, so a short one must not be continued.
        match file.write(bytes)? {
            count if count == bytes.len() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::WriteZero, "the kernel took a part of the value")),
        }
    }

    fn store(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(path);
        let folder = folder_of(&place)?;
        make_folders(folder)?;
        let temporary = place.with_added_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &place)?;
        File::open(folder)?.sync_all()
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.place(path))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let to = self.place(to);
        fs::rename(self.place(from), &to)?;
        File::open(folder_of(&to)?)?.sync_all()
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let place = self.place(path);
        fs::remove_file(&place)?;
        File::open(folder_of(&place)?)?.sync_all()
    }
}

fn folder_of(place: &Path) -> io::Result<&Path> {
    place.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file stands in a folder"))
}

/// Makes a folder and those above it, each synced into its own: a journal in a folder that a power cut takes away is none.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder)?;
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(above)?.sync_all()
}

/// What a file of the kernel shows after a write: a choice moves its brackets, anything else ends in a line feed.
///
/// # Errors
/// A word that the choice does not offer, as the kernel says it: invalid input.
pub fn as_the_kernel_shows(shown: &[u8], written: &[u8]) -> io::Result<Vec<u8>> {
    let (shown, written) = (String::from_utf8_lossy(shown), String::from_utf8_lossy(written));
    let written = written.trim();
    if !shown.contains('[') {
        let separator = if shown.contains('\t') { "\t" } else { " " };
        let words: Vec<&str> = written.split_whitespace().collect();
        return Ok(format!("{}\n", words.join(separator)).into_bytes());
    }
    let words: Vec<&str> = shown.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect();
    if !words.contains(&written) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not one of the choices"));
    }
    let words: Vec<String> =
        words.iter().map(|word| if *word == written { format!("[{word}]") } else { (*word).to_owned() }).collect();
    // Some of the kernel's choices have a blank before the line feed; a tree keeps it, since undo compares bytes.
    let end = if shown.ends_with(" \n") { " \n" } else { "\n" };
    Ok(format!("{}{end}", words.join(" ")).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_answers_as_the_kernel_does() {
        let show = |shown: &str, written: &str| {
            as_the_kernel_shows(shown.as_bytes(), written.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(show("4096\n", "16384").unwrap(), "16384\n");
        assert_eq!(show("32768\t60999\n", "16384 65535").unwrap(), "16384\t65535\n");
        assert_eq!(show("[always] madvise never\n", "madvise").unwrap(), "always [madvise] never\n");
        assert_eq!(show("[none] bfq \n", "bfq").unwrap(), "none [bfq] \n");
        assert!(show("[none] bfq\n", "fast").is_err());
    }

    #[test]
    fn files_of_ours_come_and_go() {
        let root = std::env::temp_dir().join(format!("antiphon-system-{}", std::process::id()));
        let mut system = Directory::below(&root);
        system.store("/var/lib/x/journal", b"a\n").unwrap();
        system.append("/var/lib/x/journal", b"b\n").unwrap();
        assert_eq!(system.read("/var/lib/x/journal").unwrap(), b"a\nb\n");
        system.rename("/var/lib/x/journal", "/var/lib/x/old").unwrap();
        assert_eq!(system.list("/var/lib/x").unwrap(), ["old"]);
        system.remove("/var/lib/x/old").unwrap();
        assert!(system.append("/var/lib/x/journal", b"b").is_err());
        assert!(system.set("/proc/sys/none", b"1").is_err());
        let held = system.lock("/var/lib/x").unwrap();
        assert_eq!(system.lock("/var/lib/x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        fs::remove_dir_all(root).unwrap();
    }
}
