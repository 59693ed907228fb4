//! The seam's twin in memory, which can fail or crash at any write. For tests only.
//!
//! Fault model: writes are counted. At the one that was chosen either the write fails with an error and the machine goes on, or the program
//! dies just before it, just after it, or in the middle (an append leaves its first half). A dead system refuses everything until
//! [`MemorySystem::restart`]; what the kernel was told stays told, as after `kill -9`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
};

use crate::system::{System, as_the_kernel_shows};

/// What happens at the chosen write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error; nothing is written.
    Fails,
    /// The program dies and nothing was written.
    DiesBefore,
    /// The program dies, and an append has left half of itself. As before for the rest.
    DiesWithin,
    /// The program dies, and everything was written.
    DiesAfter,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct MemorySystem {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Files that refuse to be set, with the kind of the refusal.
    pub(crate) refusals: BTreeMap<String, io::ErrorKind>,
    /// Files that the kernel refuses a value for only when it is written.
    pub(crate) stubborn: BTreeSet<String>,
    fault: Option<(usize, Fault)>,
    writes: usize,
    dead: RefCell<bool>,
}

impl MemorySystem {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        Self { files, ..Self::default() }
    }

    pub(crate) fn put(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.as_bytes().to_vec());
    }

    pub(crate) fn shown(&self, path: &str) -> String {
        String::from_utf8_lossy(self.files.get(path).map_or(&[], Vec::as_slice)).into_owned()
    }

    /// Chooses what happens at the write with this number, counted from here on.
    pub(crate) fn fault_at(&mut self, write: usize, fault: Fault) {
        self.fault = Some((self.writes + write, fault));
    }

    /// Starts the program again on the same machine.
    pub(crate) fn restart(&mut self) {
        self.fault = None;
        self.dead.replace(false);
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes
    }

    /// Everything below /proc and /sys.
    pub(crate) fn kernel(&self) -> BTreeMap<String, Vec<u8>> {
        let kernel = |path: &String| path.starts_with("/proc/") || path.starts_with("/sys/");
        self.files.iter().filter(|(path, _)| kernel(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    }

    fn alive(&self) -> io::Result<()> {
        if *self.dead.borrow() { Err(io::Error::other("dead")) } else { Ok(()) }
    }

    fn write(
        &mut self,
        half: impl FnOnce(&mut Self),
        whole: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        self.alive()?;
        let fault = self.fault.filter(|(write, _)| *write == self.writes).map(|(_, fault)| fault);
        self.writes += 1;
        match fault {
            None => return whole(self),
            Some(Fault::Fails) => return Err(io::Error::other("no space")),
            Some(Fault::DiesBefore) => {}
            Some(Fault::DiesWithin) => half(self),
            Some(Fault::DiesAfter) => whole(self)?,
        }
        self.dead.replace(true);
        self.alive()
    }

    fn known(&self, path: &str) -> io::Result<&Vec<u8>> {
        self.files.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl System for MemorySystem {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.alive()?;
        self.known(path).cloned()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.alive()?;
        let below = format!("{folder}/");
        let paths = self.files.keys().filter_map(|path| path.strip_prefix(&below)?.split('/').next());
        let names: BTreeSet<String> = paths.map(str::to_owned).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names.into_iter().collect()) }
    }

    fn may_set(&self, path: &str) -> io::Result<()> {
        self.alive()?;
        self.known(path)?;
        self.refusals.get(path).map_or(Ok(()), |kind| Err((*kind).into()))
    }

    fn set(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.may_set(path)?;
        if self.stubborn.contains(path) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shown = as_the_kernel_shows(self.known(path)?, bytes)?;
        let put = |system: &mut Self| {
            system.files.insert(path.to_owned(), shown);
            Ok(())
        };
        self.write(|_| {}, put)
    }

    fn store(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let put = |system: &mut Self| {
            system.files.insert(path.to_owned(), bytes.to_vec());
            Ok(())
        };
        self.write(|_| {}, put)
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.known(path)?;
        let add = |system: &mut Self, bytes: &[u8]| {
            if let Some(file) = system.files.get_mut(path) {
                file.extend_from_slice(bytes);
            }
        };
        self.write(
            |system| add(system, &bytes[..bytes.len() / 2]),
            |system| {
                add(system, bytes);
                Ok(())
            },
        )
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.known(from)?;
        let put = |system: &mut Self| {
            let bytes = system.files.remove(from).unwrap_or_default();
            system.files.insert(to.to_owned(), bytes);
            Ok(())
        };
        self.write(|_| {}, put)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.known(path)?;
        let put = |system: &mut Self| {
            system.files.remove(path);
            Ok(())
        };
        self.write(|_| {}, put)
    }
}
