//! Two file systems, one in the other, whose power can be cut.
//!
//! ```text
//! engine → file system under test → loop device → disk.img on an ext4 that plays the disk → loop device → outer.img
//! ```
//!
//! The page cache of the outer one is the disk's volatile memory: a write of the inner one is in it until the inner
//! one flushes the disk, which syncs the image. Shutting down the inner one loses what its journal holds in memory;
//! shutting down the outer one loses that and every write that was not flushed. Both are real: what is lost is up to
//! the kernel, not to a model of ours.
//!
//! Invariants: mounts are in a namespace of our own and end with us; loop devices end with their mounts.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use antiphon_gateway::uring::shut_down_file_system;

/// Room for the file system under test: many times what a store takes; XFS is not made smaller.
const DISK_BYTES: u64 = 320 << 20;

/// The same with room for the outer file system's own.
const OUTER_BYTES: u64 = 420 << 20;

/// A mount is busy for a moment after its last user was killed, whose ring is torn down after it: it is looked at so
/// often, for half a minute or so.
const BUSY_LOOKS_MAX: u32 = 10_000;
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// What is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileSystem {
    /// With its journal, `data=ordered`.
    Ext4,
    /// With its own defaults.
    Xfs,
}

/// Which power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The file system loses what its journal holds in memory; the disk keeps all that it was given.
    FileSystem,
    /// The disk, too, loses what it was not told to flush.
    Disk,
    /// Only the process is killed.
    Kill,
}

/// Why power can't be cut here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RigError {
    /// Run it as root.
    #[error("mounting file systems and shutting them down takes root")]
    NotRoot,
    /// Use a machine, or a container, with loop devices.
    #[error("there are no loop devices here (/dev/loop-control)")]
    NoLoopDevices,
    /// Install the package.
    #[error("{program} is missing; on Debian it comes with {package}")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// Use another kernel or `--file-system`.
    #[error("this kernel has no {0}")]
    NoFileSystem(&'static str),
    /// A program that should work did not.
    #[error("`{command}` failed: {text}")]
    Program {
        /// As typed.
        command: String,
        /// What it said.
        text: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn maker(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::Ext4 => ("mkfs.ext4", "e2fsprogs", &["-q", "-F"]),
            Self::Xfs => ("mkfs.xfs", "xfsprogs", &["-q", "-f"]),
        }
    }
}

/// The mounted pair.
pub(crate) struct Rig {
    folder: PathBuf,
    file_system: FileSystem,
    is_mounted: bool,
    keeps: bool,
}

impl Rig {
    /// Says what is missing here, if anything is.
    pub(crate) fn check(file_system: FileSystem) -> Result<(), RigError> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        if ids.and_then(|ids| ids.split_whitespace().nth(1)) != Some("0") {
            return Err(RigError::NotRoot);
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err(RigError::NoLoopDevices);
        }
        let (maker, its_package, _) = file_system.maker();
        for (program, package) in [
            ("mkfs.ext4", "e2fsprogs"),
            (maker, its_package),
            ("mount", "mount"),
            ("umount", "mount"),
            ("unshare", "util-linux"),
        ] {
            if find(program).is_none() {
                return Err(RigError::NoProgram { program, package });
            }
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let has = |name: &str| known.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
        // One that is a module is not listed before its first mount, which then tells.
        let modules = Path::new("/proc/modules").exists();
        for name in ["ext4", file_system.name()] {
            if !has(name) && !modules {
                return Err(RigError::NoFileSystem(name));
            }
        }
        Ok(())
    }

    /// Makes and mounts both, in an empty folder.
    pub(crate) fn new(folder: PathBuf, file_system: FileSystem) -> Result<Self, RigError> {
        let mut rig = Self { folder, file_system, is_mounted: false, keeps: false };
        for path in [rig.outer(), rig.inner()] {
            fs::create_dir_all(&path).map_err(|source| RigError::Io { path, source })?;
        }
        rig.make()?;
        Ok(rig)
    }

    /// Where the engine's folder is.
    pub(crate) fn data(&self) -> PathBuf {
        self.inner().join("lane-00")
    }

    /// Where the images are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The images stay, for somebody to look at.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
    }

    /// Both anew, with an empty folder for the engine.
    pub(crate) fn make_anew(&mut self) -> Result<(), RigError> {
        self.unmount(Cut::Disk)?;
        self.make()
    }

    /// Cuts the power. From here on nothing reaches what survives.
    pub(crate) fn cut(&self, cut: Cut) -> Result<(), RigError> {
        let shut_down = |path: PathBuf| {
            let result = File::open(&path).and_then(|root| shut_down_file_system(&root));
            result.map_err(|source| RigError::Io { path, source })
        };
        match cut {
            Cut::Kill => Ok(()),
            Cut::FileSystem => shut_down(self.inner()),
            Cut::Disk => {
                shut_down(self.outer())?;
                // It has no disk any more; this spares the system's log what it would say about that. It may have
                // noticed by itself.
                let _ = shut_down(self.inner());
                Ok(())
            }
        }
    }

    /// Unmounts what was cut and mounts it again: journals are replayed. Nobody may use it.
    pub(crate) fn recover(&mut self, cut: Cut) -> Result<(), RigError> {
        self.unmount(cut)?;
        self.mount(cut)
    }

    fn outer(&self) -> PathBuf {
        self.folder.join("outer")
    }

    fn inner(&self) -> PathBuf {
        self.folder.join("inner")
    }

    fn make(&mut self) -> Result<(), RigError> {
        let (image, disk) = (self.folder.join("outer.img"), self.outer().join("disk.img"));
        // A new file, not the old one anew: its loop device may not be quite gone.
        let blank = |path: &Path, bytes| {
            let _ = fs::remove_file(path);
            let made = File::create(path).and_then(|file| {
                file.set_len(bytes)?;
                file.sync_all()
            });
            made.map_err(|source| RigError::Io { path: path.to_owned(), source })
        };
        blank(&image, OUTER_BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        mount("ext4", &image, &self.outer())?;
        self.is_mounted = true;
        blank(&disk, DISK_BYTES)?;
        let (maker, _, arguments) = self.file_system.maker();
        run(Command::new(maker).args(arguments).arg(&disk))?;
        mount(self.file_system.name(), &disk, &self.inner())?;
        let data = self.data();
        // As a node makes it: durable before the engine is opened in it.
        let made = fs::create_dir(&data).and_then(|()| File::open(self.inner())?.sync_all());
        made.map_err(|source| RigError::Io { path: data, source })
    }

    fn unmount(&mut self, cut: Cut) -> Result<(), RigError> {
        match cut {
            Cut::Kill => Ok(()),
            Cut::FileSystem => unmount(&self.inner()),
            Cut::Disk => {
                unmount(&self.inner())?;
                unmount(&self.outer())?;
                self.is_mounted = false;
                Ok(())
            }
        }
    }

    fn mount(&mut self, cut: Cut) -> Result<(), RigError> {
        if cut == Cut::Disk {
            mount("ext4", &self.folder.join("outer.img"), &self.outer())?;
            self.is_mounted = true;
        }
        match cut {
            Cut::Kill => Ok(()),
            _ => mount(self.file_system.name(), &self.outer().join("disk.img"), &self.inner()),
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_mounted {
            // Whatever does not end here ends with our namespace.
            let _ = unmount(&self.inner());
            let _ = unmount(&self.outer());
        }
        if !self.keeps {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A program of the path, or of the folders for administrators that may not be in it.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn mount(kind: &str, image: &Path, at: &Path) -> Result<(), RigError> {
    run(Command::new("mount").args(["-t", kind, "-o", "loop,noatime"]).arg(image).arg(at))
}

fn unmount(at: &Path) -> Result<(), RigError> {
    let mut looks = 0;
    loop {
        match run(Command::new("umount").arg(at)) {
            Err(RigError::Program { text, .. }) if text.contains("busy") && looks < BUSY_LOOKS_MAX => {
                looks += 1;
                thread::sleep(BUSY_LOOK);
            }
            result => return result,
        }
    }
}

/// Runs to the end; what it says is of interest only if it fails.
fn run(command: &mut Command) -> Result<(), RigError> {
    let typed = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let typed = typed();
    let program = find(&command.get_program().to_string_lossy()).unwrap_or_else(|| command.get_program().into());
    let output: io::Result<Output> =
        Command::new(program).args(command.get_args()).stdin(Stdio::null()).env("LC_ALL", "C").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(RigError::Program { command: typed, text })
        }
        Err(source) => Err(RigError::Program { command: typed, text: source.to_string() }),
    }
}
