//! What the kernel tells of another process: CPU time in nanoseconds, resident memory.
//!
//! Times are summed over a process's threads from `/proc/PID/task/*/schedstat`, because `/proc/PID/stat` counts in hundredths of a
//! second, which is a tenth of what a lightly loaded server uses in a round. A thread that ends takes its time with it; no server here
//! ends one while it is measured.

use std::{fs, path::Path};

use anyhow::Context;

/// CPU time that a process's threads have used so far, in user and kernel space.
pub(super) fn cpu_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        sum += task_ns(&task?.path().join("schedstat"))?;
    }
    Ok(sum)
}

fn task_ns(path: &Path) -> anyhow::Result<u64> {
    let text = match fs::read_to_string(path) {
        // It ended between the listing and the reading.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        text => text.with_context(|| path.display().to_string())?,
    };
    run_ns(&text).with_context(|| format!("{} says {text:?}", path.display()))
}

/// The first of the three numbers: time on a core.
fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
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
        assert_eq!(run_ns("4821399321 12 99\n"), Some(4_821_399_321));
        assert_eq!(run_ns(""), None);
        assert_eq!(run_ns("x 1 2"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2_097_152));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        let before = cpu_ns(pid).unwrap();
        let mut value = 1_u64;
        while cpu_ns(pid).unwrap() == before {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(cpu_ns(u32::MAX).is_err());
    }
}
