//! What the kernel tells of processes, files and devices: CPU, bytes, memory, space; and how it is made to forget what
//! it has of files.
//!
//! Times are summed over a process's threads from `/proc/PID/task/*/schedstat`, because `/proc/PID/stat` counts in
//! hundredths of a second, which is a tenth of what a lightly loaded server uses in a round. A thread that ends takes
//! its time with it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::job::{Space, Usage};

/// How long nothing may be read or written until a store counts as settled: longer than an engine's pauses between two
/// pieces of work.
const QUIET: Duration = Duration::from_secs(3);

/// How often that is looked at.
const QUIET_LOOK: Duration = Duration::from_millis(250);

/// CPU in one look below which a process is idle: timers and the look itself.
const QUIET_CPU_NS: u64 = 10_000_000;

/// How long a store may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// How long a process's threads have had a core so far, and have waited for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// On a core, in user and kernel space.
    pub run_ns: u64,
    /// Runnable, while something else had the core.
    pub waited_ns: u64,
}

impl Times {
    /// Of a process so far.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let mut sum = Self::default();
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let task = Self::of_file(&task?.path().join("schedstat"))?;
            sum = Self { run_ns: sum.run_ns + task.run_ns, waited_ns: sum.waited_ns + task.waited_ns };
        }
        Ok(sum)
    }

    /// Of a thread so far, by its `schedstat`; nothing of one that has ended.
    ///
    /// # Errors
    /// The file is not of that form.
    pub fn of_file(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            // It ended between the listing and the reading.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| path.display().to_string())?,
        };
        Self::parse(&text).with_context(|| format!("{} says {text:?}", path.display()))
    }

    /// The first two of the three numbers; the third counts slices.
    fn parse(schedstat: &str) -> Option<Self> {
        let mut numbers = schedstat.split_whitespace().map(|number| number.parse().ok());
        Some(Self { run_ns: numbers.next()??, waited_ns: numbers.next()?? })
    }

    /// Since an earlier moment. A thread that has ended since takes its times with it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
        }
    }
}

/// A moment of this process, to measure from.
#[derive(Debug, Clone)]
pub struct Meter {
    times: Times,
    bytes: Bytes,
    device: Option<(PathBuf, u64)>,
}

impl Meter {
    /// Now. `folder` is what the device is looked for of.
    ///
    /// # Errors
    /// The kernel shows no figures.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let bytes = Bytes::of_this_process()?;
        settle_accounts();
        let device = device(folder).map(|path| device_write_bytes(&path).map(|bytes| (path, bytes))).transpose()?;
        Ok(Self { times: Times::of(std::process::id())?, bytes, device })
    }

    /// What was used since.
    ///
    /// # Errors
    /// The kernel shows no figures.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        settle_accounts();
        let times = Times::of(std::process::id())?.since(self.times);
        let bytes = Bytes::of_this_process()?;
        let device =
            self.device.as_ref().map(|(path, before)| Ok::<_, anyhow::Error>(device_write_bytes(path)? - before));
        Ok(Usage {
            cpu_ns: times.run_ns,
            waited_ns: times.waited_ns,
            read_bytes: bytes.read - self.bytes.read,
            write_call_bytes: bytes.write_calls - self.bytes.write_calls,
            write_bytes: bytes.written.saturating_sub(self.bytes.written),
            device_write_bytes: device.transpose()?,
        })
    }
}

/// Has the kernel enter what this thread has used so far: otherwise that is done once a tick, and warm pages take less
/// than one. Threads that sleep have no open accounts.
fn settle_accounts() {
    thread::yield_now();
}

/// Bytes that a process has moved so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes {
    read: u64,
    write_calls: u64,
    written: u64,
}

impl Bytes {
    fn of_this_process() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/self/io").context("the kernel counts no bytes of processes")?;
        Self::parse(&text).with_context(|| format!("/proc/self/io says {text:?}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (read, write_calls) = (field(text, "read_bytes:")?, field(text, "wchar:")?);
        // What was dirty and removed before it was written was never given to a disk.
        let written = field(text, "write_bytes:")?.saturating_sub(field(text, "cancelled_write_bytes:")?);
        Some(Self { read, write_calls, written })
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}

/// Most resident memory of this process so far.
///
/// # Errors
/// The kernel shows no figures.
pub fn resident_peak_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    Ok(field(&text, "VmHWM:").context("/proc/self/status has no VmHWM")? * 1_024)
}

/// The counters of the block device that a folder lies on; `None` where the file system does not name one, as btrfs and
/// overlays do not.
fn device(folder: &Path) -> Option<PathBuf> {
    let number = fs::metadata(folder).ok()?.dev();
    // glibc's split of a device number.
    let major = ((number >> 8) & 0xfff) | ((number >> 32) & !0xfff);
    let minor = (number & 0xff) | ((number >> 12) & !0xff);
    let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    path.exists().then_some(path)
}

/// Whether the root file system, and so everybody else's files, lie on a folder's device, too.
///
/// # Errors
/// There is no such folder.
pub fn is_device_shared(folder: &Path) -> anyhow::Result<bool> {
    Ok(fs::metadata(folder).with_context(|| folder.display().to_string())?.dev() == fs::metadata("/")?.dev())
}

fn device_write_bytes(path: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    written_by(&text).with_context(|| format!("{} says {text:?}", path.display()))
}

/// The seventh number counts sectors of 512 bytes that were written.
fn written_by(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse::<u64>().ok().map(|sectors| sectors * 512)
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}

/// Blocks that a folder's files take. A file that goes meanwhile takes none.
///
/// # Errors
/// The folder cannot be read.
pub fn space(folder: &Path, is_log: impl Fn(&str) -> bool) -> anyhow::Result<Space> {
    let mut space = Space::default();
    for path in files(folder)? {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let bytes = metadata.blocks() * 512;
        space.bytes += bytes;
        if path.file_name().is_some_and(|name| is_log(&name.to_string_lossy())) {
            space.log_bytes += bytes;
        }
    }
    Ok(space)
}

/// Waits until this process has done nothing for a while; whether it came to that in time.
///
/// # Errors
/// The kernel shows no figures.
pub fn settle() -> anyhow::Result<bool> {
    let (begin, mut quiet_since) = (Instant::now(), Instant::now());
    let look = || Ok::<_, anyhow::Error>((Bytes::of_this_process()?, Times::of(std::process::id())?));
    let mut before = look()?;
    while quiet_since.elapsed() < QUIET {
        if begin.elapsed() > SETTLE_MAX {
            return Ok(false);
        }
        thread::sleep(QUIET_LOOK);
        let now = look()?;
        if now.0 != before.0 || now.1.since(before.1).run_ns > QUIET_CPU_NS {
            quiet_since = Instant::now();
        }
        before = now;
    }
    Ok(true)
}

/// Makes the kernel forget what it has of a folder's files; with `all`, of everything. What a process has mapped stays.
///
/// # Errors
/// coreutils' `dd` is missing or fails, or `all` by somebody who is not root.
pub fn forget(folder: &Path, all: bool) -> anyhow::Result<()> {
    for path in files(folder)? {
        // Only clean pages can be dropped. A file that an engine has just removed needs nothing.
        let Ok(file) = fs::File::open(&path) else { continue };
        file.sync_all()?;
        // With no block to copy, `nocache` is `POSIX_FADV_DONTNEED` for the whole file.
        let mut input = std::ffi::OsString::from("if=");
        input.push(&path);
        let mut drop_pages = Command::new("dd");
        drop_pages.arg(input).args(["iflag=nocache", "count=0", "status=none"]).stdin(Stdio::null());
        let status = drop_pages.status().context("dd (of coreutils) can't be run")?;
        ensure!(status.success() || !path.exists(), "dd could not drop {} from the page cache", path.display());
    }
    if all {
        fs::write("/proc/sys/vm/drop_caches", "3").context("only root can have all caches dropped")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(Times::parse("4821399321 12 99\n"), Some(Times { run_ns: 4_821_399_321, waited_ns: 12 }));
        for bad in ["", "1", "x 1 2", "1 x 2"] {
            assert_eq!(Times::parse(bad), None, "{bad}");
        }
        let text = "rchar: 1\nwchar: 9\nread_bytes: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 96\n";
        assert_eq!(Bytes::parse(text), Some(Bytes { read: 5, write_calls: 9, written: 4_000 }));
        assert_eq!(Bytes::parse("rchar: 1\nwchar: 9\n"), None);
        assert_eq!(written_by("  1 2 3 4 5 6 8 9 10 11"), Some(4_096));
        assert_eq!(written_by("1 2"), None);
    }

    #[test]
    fn this_process_has_used_time() {
        let pid = std::process::id();
        let before = Times::of(pid).unwrap();
        let mut value = 1_u64;
        while Times::of(pid).unwrap().since(before).run_ns == 0 {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        assert!(resident_peak_bytes().unwrap() > 100_000);
        assert!(Times::of(u32::MAX).is_err());
    }

    #[test]
    fn space_is_that_of_all_files_below() {
        let folder = std::env::temp_dir().join(format!("antiphon-space-{}", std::process::id()));
        fs::create_dir_all(folder.join("deeper")).unwrap();
        fs::write(folder.join("log-1"), vec![1; 8_192]).unwrap();
        fs::write(folder.join("deeper/segment"), vec![1; 4_096]).unwrap();
        // Some file systems give blocks when they write, not before.
        for file in ["log-1", "deeper/segment"] {
            fs::File::open(folder.join(file)).unwrap().sync_all().unwrap();
        }
        let space = space(&folder, |name| name.starts_with("log-")).unwrap();
        assert_eq!((space.bytes >= 12_288, space.log_bytes >= 8_192), (true, true), "{space:?}");
        assert!(space.log_bytes < space.bytes);
        forget(&folder, false).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
