//! How much memory the node takes, against what it may: measured, five times a second.
//!
//! What is counted:
//!
//! - Where a cgroup limits memory below what the machine has, what the group takes (`memory.current`, or `memory.usage_in_bytes` of version
//!   1), less the page cache that the kernel would drop first (`inactive_file`). The kernel's own memory for sockets is in it, and so is
//!   what other processes of the same group take, which press against the same limit.
//! - Elsewhere the process's resident memory, the buffers of TCP sockets of its network namespace, and [`KERNEL_BYTES_PER_CONNECTION`] for each
//!   open connection, since the kernel puts the sockets themselves down to nobody.
//!
//! The limit is the operator's, or [`LIMIT_PERCENT`] of the tighter of machine and group; the group's may change while the node runs,
//! so it is read again every [`SAMPLES_A_LIMIT`] samples. Must not do: decide ([`Pressure`] does).

use std::{sync::Arc, time::Duration};

use antiphon_tuning::{facts::Facts, system::System};

use crate::{core::pressure::Pressure, metrics::Metrics};

/// Between samples: at ten thousand connections a second, of 9 KiB on both sides of the kernel's border, 18 MB come in between.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);

/// A minute. Reading all facts takes milliseconds.
const SAMPLES_A_LIMIT: u32 = 300;

/// What is left to the rest of the machine or group by default.
const LIMIT_PERCENT: u64 = 80;

/// What the kernel takes for an open TCP connection with an armed receive, beside its buffers: 4.5 KiB of slab, measured on Linux 6.18. A
/// quiet connection, with a poll, takes half a KiB less; a bound should err on this side.
pub const KERNEL_BYTES_PER_CONNECTION: u64 = 4_608;

/// What a page is where the kernel does not tell.
const PAGE_BYTES_DEFAULT: u64 = 4_096;

/// The number of the page's size in the auxiliary vector (`AT_PAGESZ`, getauxval(3)).
const AUXILIARY_PAGE_SIZE: u64 = 6;

/// A limit, and where the use is to be read that it is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Budget {
    limit_bytes: u64,
    group: Option<Group>,
}

/// A cgroup's files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    used: String,
    stat: String,
}

/// Measures, and tells the node when its pressure changes.
pub struct MemoryWatch {
    system: Box<dyn System + Send>,
    /// The operator's limit.
    limit_bytes: Option<u64>,
    budget: Budget,
    page_bytes: u64,
    until_budget: u32,
    pressure: Pressure,
    tell: Box<dyn Fn(Pressure) + Send>,
}

impl MemoryWatch {
    /// Reads the limit. `tell` is called with every pressure that differs from the one before, of which the first is none.
    pub fn new(
        system: impl System + Send + 'static,
        limit_bytes: Option<u64>,
        tell: impl Fn(Pressure) + Send + 'static,
    ) -> Self {
        Self {
            budget: budget(&system, limit_bytes),
            page_bytes: page_bytes(&system),
            system: Box::new(system),
            limit_bytes,
            until_budget: SAMPLES_A_LIMIT,
            pressure: Pressure::None,
            tell: Box::new(tell),
        }
    }

    /// Measures for ever.
    pub(super) async fn run(mut self, metrics: Arc<Metrics>) {
        let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
        // Samples that were missed are of no use.
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.sample(&metrics);
        }
    }

    fn sample(&mut self, metrics: &Metrics) {
        self.until_budget -= 1;
        if self.until_budget == 0 {
            self.until_budget = SAMPLES_A_LIMIT;
            self.budget = budget(&*self.system, self.limit_bytes);
        }
        let connections = metrics.shards().iter().map(|shard| shard.connections.get()).sum();
        // What can't be read presses nobody: a node on a system without these files serves as one without a limit.
        let used_bytes = self.used_bytes(connections).unwrap_or(0);
        let pressure = self.pressure.next(used_bytes, self.budget.limit_bytes);
        metrics.set_memory(used_bytes, self.budget.limit_bytes, pressure);
        if pressure != self.pressure {
            self.pressure = pressure;
            tracing::warn!(?pressure, used_bytes, limit_bytes = self.budget.limit_bytes, "memory");
            (self.tell)(pressure);
        }
    }

    fn used_bytes(&self, connections: u64) -> Option<u64> {
        if let Some(group) = &self.budget.group {
            let used: u64 = self.system.text(&group.used).ok()?.trim().parse().ok()?;
            let stat = self.system.text(&group.stat).unwrap_or_default();
            let cache = named(&stat, "total_inactive_file").or_else(|| named(&stat, "inactive_file"));
            return Some(used.saturating_sub(cache.unwrap_or(0)));
        }
        let resident = named(&self.system.text("/proc/self/status").ok()?, "VmRSS:")? * 1_024;
        let sockets = self.system.text("/proc/net/sockstat").unwrap_or_default();
        let pages = sockets.lines().find_map(|line| line.strip_prefix("TCP:")).and_then(|line| after(line, "mem"));
        Some(resident + pages.unwrap_or(0) * self.page_bytes + connections * KERNEL_BYTES_PER_CONNECTION)
    }
}

fn budget(system: &dyn System, limit_bytes: Option<u64>) -> Budget {
    let facts = Facts::read(system);
    let group = facts.parts("memory_cgroup").first().filter(|part| {
        let bytes = part.value.as_numbers().first().copied();
        bytes.is_some_and(|bytes| facts.number("memory").is_none_or(|machine| bytes < machine))
    });
    let group = group.and_then(|part| {
        let (folder, file) = part.path.rsplit_once('/')?;
        let used = if file == "memory.max" { "memory.current" } else { "memory.usage_in_bytes" };
        Some(Group { used: format!("{folder}/{used}"), stat: format!("{folder}/memory.stat") })
    });
    let limit_bytes =
        limit_bytes.unwrap_or_else(|| facts.memory_bytes().map_or(0, |bytes| bytes / 100 * LIMIT_PERCENT));
    Budget { limit_bytes, group }
}

fn page_bytes(system: &dyn System) -> u64 {
    let vector = system.read("/proc/self/auxv").unwrap_or_default();
    let words: Vec<u64> =
        vector.chunks_exact(8).filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
    let size = words.chunks_exact(2).find(|pair| pair[0] == AUXILIARY_PAGE_SIZE).map(|pair| pair[1]);
    size.unwrap_or(PAGE_BYTES_DEFAULT)
}

/// The number in the line that begins with a name.
fn named(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The number behind a word of a line.
fn after(line: &str, word: &str) -> Option<u64> {
    line.split_whitespace().skip_while(|found| *found != word).nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::Mutex,
    };

    use antiphon_tuning::system::Directory;

    use super::*;

    /// A tree of files that stands for a machine; removed at the end.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("antiphon-memory-{name}-{}", std::process::id()));
            let machine = Self(root);
            machine.put("/proc/meminfo", "MemTotal:  1000000 kB\n");
            machine.put("/proc/self/status", "Name:\tantiphon\nVmRSS:\t  1000 kB\n");
            machine.put("/proc/net/sockstat", "sockets: used 9\nTCP: inuse 4 orphan 0 tw 3 alloc 4 mem 10\n");
            machine
        }

        fn put(&self, path: &str, text: impl AsRef<[u8]>) {
            let path = self.0.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, text).unwrap();
        }

        fn watch(&self, limit_bytes: Option<u64>) -> (MemoryWatch, Arc<Mutex<Vec<Pressure>>>) {
            let told = Arc::new(Mutex::new(Vec::new()));
            let telling = Arc::clone(&told);
            let tell = move |pressure| telling.lock().unwrap().push(pressure);
            (MemoryWatch::new(Directory::below(&self.0), limit_bytes, tell), told)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn without_a_group_the_process_its_sockets_and_its_connections_count() {
        let machine = Machine::new("process");
        let (watch, _) = machine.watch(None);
        assert_eq!(watch.budget, Budget { limit_bytes: 819_200_000, group: None });
        assert_eq!(watch.used_bytes(7), Some(1_024_000 + 10 * 4_096 + 7 * KERNEL_BYTES_PER_CONNECTION));
        let words: Vec<u8> =
            [33, 1, AUXILIARY_PAGE_SIZE, 65_536, 0, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
        machine.put("/proc/self/auxv", words);
        let (watch, _) = machine.watch(Some(5_000_000));
        assert_eq!(watch.budget.limit_bytes, 5_000_000);
        assert_eq!(watch.used_bytes(0), Some(1_024_000 + 10 * 65_536));
    }

    #[test]
    fn a_group_of_either_version_counts_as_a_whole_without_idle_cache() {
        let machine = Machine::new("groups");
        machine.put("/proc/self/cgroup", "0::/a/b\n");
        machine.put("/sys/fs/cgroup/a/b/memory.max", "max\n");
        machine.put("/sys/fs/cgroup/a/memory.max", "500000000\n");
        machine.put("/sys/fs/cgroup/a/memory.current", "70000\n");
        machine.put("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 20000\n");
        let (watch, _) = machine.watch(None);
        assert_eq!((watch.budget.limit_bytes, watch.used_bytes(9)), (400_000_000, Some(50_000)));
        machine.put("/proc/self/cgroup", "4:memory:/job\n0::/\n");
        machine.put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "300000000\n");
        machine.put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "90000\n");
        machine.put("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 5\ntotal_inactive_file 30000\n");
        let (watch, _) = machine.watch(None);
        assert_eq!((watch.budget.limit_bytes, watch.used_bytes(9)), (240_000_000, Some(60_000)));
    }

    #[test]
    fn the_node_is_told_of_changes_and_a_new_limit_is_seen_within_a_minute() {
        let machine = Machine::new("changes");
        machine.put("/proc/self/cgroup", "0::/\n");
        machine.put("/sys/fs/cgroup/memory.max", "1000000\n");
        machine.put("/sys/fs/cgroup/memory.current", "100000\n");
        let (mut watch, told) = machine.watch(None);
        let metrics = Metrics::new(1, 1);
        watch.sample(&metrics);
        for used in ["730000\n", "790000\n", "100000\n"] {
            machine.put("/sys/fs/cgroup/memory.current", used);
            watch.sample(&metrics);
            watch.sample(&metrics);
        }
        assert_eq!(*told.lock().unwrap(), [Pressure::Refuse, Pressure::Hold, Pressure::None]);
        machine.put("/sys/fs/cgroup/memory.max", "130000\n");
        (0..SAMPLES_A_LIMIT).for_each(|_| watch.sample(&metrics));
        assert_eq!(told.lock().unwrap().last(), Some(&Pressure::Hold));
        assert!(metrics.render().contains("antiphon_memory_limit_bytes 104000"), "{}", metrics.render());
    }

    #[test]
    fn this_machine_can_be_measured() {
        let watch = MemoryWatch::new(Directory::this_machine(), None, |_| ());
        assert!(watch.budget.limit_bytes > 0 && watch.used_bytes(0).is_some_and(|bytes| bytes > 0));
    }
}
