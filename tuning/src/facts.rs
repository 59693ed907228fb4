//! What this machine allows, each figure with the place it was read from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactName {
    /// Open files of this process that it may not raise by itself (hard limit). Caps a ring's table of direct descriptors.
    OpenFilesMax,
    /// Connections that may wait for accept on one listener.
    SomaxconnMax,
    /// Local ports for outgoing connections (last − first + 1).
    LocalPorts,
    /// Pages of 4 KiB that all TCP sockets together may hold before the kernel presses.
    TcpMemoryPressurePages,
    /// Pages of 4 KiB beyond which TCP allocations fail.
    TcpMemoryMaxPages,
    /// 0: io_uring for all; 1: for a group; 2: for nobody.
    IoUringDisabled,
    /// Bytes that this process may lock in memory; io_uring counted its rings here before Linux 5.12.
    LockedMemoryMaxBytes,
    /// Processors that this process may use, counting affinity and cgroup.
    Cores,
    /// Bytes of memory, counting the cgroup's limit.
    MemoryBytes,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The figure; [`u64::MAX`] stands for "unlimited".
    pub value: u64,
    /// Where it was read.
    pub source: PathBuf,
}

/// All facts that could be read.
pub type Facts = BTreeMap<FactName, Fact>;

/// Reads this machine's facts.
#[must_use]
pub fn read() -> Facts {
    read_below(Path::new("/"))
}

/// Reads facts from a tree that looks like `/`.
#[must_use]
pub fn read_below(root: &Path) -> Facts {
    use FactName::*;
    let mut facts = Facts::new();
    let mut put = |name, path: &str, value: fn(&str) -> Option<u64>| {
        let text = fs::read_to_string(root.join(path)).ok();
        if let Some(value) = text.as_deref().and_then(value) {
            facts.insert(name, Fact { value, source: Path::new("/").join(path) });
        }
    };
    put(OpenFilesMax, "proc/self/limits", |text| hard_limit(text, "Max open files"));
    put(LockedMemoryMaxBytes, "proc/self/limits", |text| hard_limit(text, "Max locked memory"));
    put(SomaxconnMax, "proc/sys/net/core/somaxconn", first_number);
    put(LocalPorts, "proc/sys/net/ipv4/ip_local_port_range", |text| {
        let (first, last) = (number(text, 0)?, number(text, 1)?);
        Some(last.checked_sub(first)? + 1)
    });
    put(TcpMemoryPressurePages, "proc/sys/net/ipv4/tcp_mem", |text| number(text, 1));
    put(TcpMemoryMaxPages, "proc/sys/net/ipv4/tcp_mem", |text| number(text, 2));
    // Kernels before 6.6 have no such switch: io_uring is there.
    put(IoUringDisabled, "proc/sys/kernel/io_uring_disabled", first_number);
    put(Cores, "proc/self/status", |text| {
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        list.trim().split(',').map(range_length).sum()
    });
    put(MemoryBytes, "proc/meminfo", |text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        first_number(line)?.checked_mul(1024)
    });
    for folder in cgroup_folders(root) {
        lower(&mut facts, MemoryBytes, root, &folder.join("memory.max"), first_number);
        lower(&mut facts, Cores, root, &folder.join("cpu.max"), |text| {
            let (quota, period) = (number(text, 0)?, number(text, 1)?);
            Some(quota.div_ceil(period.max(1)).max(1))
        });
    }
    facts
}

/// Takes a cgroup's limit where it is the tighter one.
fn lower(facts: &mut Facts, name: FactName, root: &Path, path: &Path, value: fn(&str) -> Option<u64>) {
    let Some(value) = fs::read_to_string(root.join(path)).ok().as_deref().and_then(value) else { return };
    if facts.get(&name).is_none_or(|known| value < known.value) {
        facts.insert(name, Fact { value, source: Path::new("/").join(path) });
    }
}

/// This process's cgroup (version 2) and those above it: each one's limit holds.
fn cgroup_folders(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(own).ancestors().map(|group| Path::new("sys/fs/cgroup").join(group)).collect()
}

fn first_number(text: &str) -> Option<u64> {
    number(text, 0)
}

fn number(text: &str, index: usize) -> Option<u64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

fn hard_limit(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        limit => limit.parse().ok(),
    }
}

fn range_length(range: &str) -> Option<u64> {
    match range.split_once('-') {
        Some((first, last)) => (last.parse::<u64>().ok()?).checked_sub(first.parse().ok()?).map(|length| length + 1),
        None => range.parse::<u64>().ok().map(|_| 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_a_tree() {
        let root = std::env::temp_dir().join(format!("antiphon-facts-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/self/limits",
            "Limit Soft Hard Units\nMax open files            1024     20000     files\nMax locked memory         8192   unlimited   bytes\n",
        );
        write("proc/sys/net/core/somaxconn", "4096\n");
        write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        write("proc/sys/net/ipv4/tcp_mem", "100 200 300\n");
        write("proc/self/status", "Name: x\nCpus_allowed_list:\t0-3,8\n");
        write("proc/meminfo", "MemTotal:       1000 kB\n");
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        write("sys/fs/cgroup/a/memory.max", "4096\n");
        write("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
        let facts = read_below(&root);
        let value = |name| facts.get(&name).map(|fact| fact.value);
        assert_eq!(value(FactName::OpenFilesMax), Some(20_000));
        assert_eq!(value(FactName::LockedMemoryMaxBytes), Some(u64::MAX));
        assert_eq!(value(FactName::LocalPorts), Some(28_232));
        assert_eq!(value(FactName::TcpMemoryMaxPages), Some(300));
        assert_eq!(value(FactName::IoUringDisabled), None);
        assert_eq!(value(FactName::Cores), Some(2));
        assert_eq!(value(FactName::MemoryBytes), Some(4096));
        assert_eq!(facts[&FactName::MemoryBytes].source, Path::new("/sys/fs/cgroup/a/memory.max"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = read();
        for name in [FactName::OpenFilesMax, FactName::Cores, FactName::MemoryBytes, FactName::SomaxconnMax] {
            assert!(facts.get(&name).is_some_and(|fact| fact.value > 0), "{name:?}");
        }
    }
}
