//! What the kernel tells of another process: CPU time in nanoseconds, time that it wanted a core and had none, resident
//! memory.
//!
//! Times are summed over a process's threads from `/proc/PID/task/*/schedstat`, because `/proc/PID/stat` counts in
//! hundredths of a second, which is a tenth of what a lightly loaded server uses in a round. A thread that ends takes
//! its time with it; no server here ends one while it is measured.

use std::{fs, path::Path};

use anyhow::Context;

/// How long a process's threads have had a core so far, and have waited for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// On a core, in user and kernel space.
    pub(super) run_ns: u64,
    /// Runnable, while something else had the core.
    pub(super) waited_ns: u64,
}

impl Times {
    /// Of a process so far.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let tasks = format!("/proc/{pid}/task");
        let mut sum = Self::default();
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let task = Self::of_task(&task?.path().join("schedstat"))?;
            sum = Self { run_ns: sum.run_ns + task.run_ns, waited_ns: sum.waited_ns + task.waited_ns };
        }
        Ok(sum)
    }

    fn of_task(path: &Path) -> anyhow::Result<Self> {
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
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            waited_ns: self.waited_ns.saturating_sub(earlier.waited_ns),
        }
    }
}

/// Resident memory.
pub(super) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    resident(&text).with_context(|| format!("{path} names no VmRSS"))
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
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
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2_097_152));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let before = Times::of(pid).unwrap();
        let mut value = 1_u64;
        while Times::of(pid).unwrap().since(before).run_ns == 0 {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(Times::of(u32::MAX).is_err());
    }
}
