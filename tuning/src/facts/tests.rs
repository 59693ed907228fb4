//! Facts of machines that are files in memory.

use super::*;
use crate::memory_system::MemorySystem;

/// A usual server with one network device of one queue, four cores and one disk.
pub(crate) fn server() -> MemorySystem {
    MemorySystem::new(&[
        ("/proc/self/limits", LIMITS),
        ("/proc/self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCpus_allowed_list:\t0-3\n"),
        ("/proc/self/cgroup", "0::/a/b\n"),
        ("/proc/self/uid_map", "         0          0 4294967295\n"),
        ("/proc/meminfo", "MemTotal:       33554432 kB\nMemFree: 1 kB\n"),
        (
            "/proc/interrupts",
            "     CPU0  CPU1\n 37:  0 0 PCI virtio2-config\n 38:  0 9 PCI virtio2-input.0\n 39: 9 0 PCI virtio2-output.0\n",
        ),
        ("/proc/irq/38/smp_affinity", "f\n"),
        ("/proc/irq/39/smp_affinity", "f\n"),
        ("/proc/sys/kernel/io_uring_disabled", "0\n"),
        ("/proc/sys/kernel/numa_balancing", "0\n"),
        ("/proc/sys/kernel/osrelease", "6.12.0\n"),
        ("/proc/sys/fs/nr_open", "1048576\n"),
        ("/proc/sys/fs/file-max", "9223372036854775807\n"),
        ("/proc/sys/net/core/somaxconn", "4096\n"),
        ("/proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("/proc/sys/net/core/default_qdisc", "pfifo_fast\n"),
        ("/proc/sys/net/core/busy_poll", "0\n"),
        ("/proc/sys/net/core/busy_read", "0\n"),
        ("/proc/sys/net/core/rps_sock_flow_entries", "0\n"),
        ("/proc/sys/net/ipv4/tcp_ehash_entries", "262144\n"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("/proc/sys/net/ipv4/tcp_mem", "20000\t30000\t40000\n"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
        ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("/proc/sys/net/ipv4/tcp_max_orphans", "65536\n"),
        ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "65536\n"),
        ("/proc/sys/vm/nr_hugepages", "0\n"),
        ("/proc/sys/vm/zone_reclaim_mode", "0\n"),
        ("/sys/class/net/eth0/device/vendor", "x\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/37", "msix\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/38", "msix\n"),
        ("/sys/class/net/eth0/device/../msi_irqs/39", "msix\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_flow_cnt", "0\n"),
        ("/sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
        ("/sys/block/loop0/queue/scheduler", "[none] bfq\n"),
        ("/sys/block/vda/queue/scheduler", "none mq-deadline [bfq]\n"),
        ("/sys/block/vda/queue/write_cache", "write back\n"),
        ("/sys/devices/system/cpu/online", "0-3\n"),
        ("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor", "powersave\n"),
        ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
        ("/sys/devices/system/node/online", "0\n"),
        ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("/sys/fs/cgroup/a/memory.max", "17179869184\n"),
        ("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
    ])
}

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
     Max open files            1024                 20000                files\n\
     Max locked memory         8388608              unlimited            bytes\n";

#[test]
fn facts_are_read_with_their_source() {
    let facts = Facts::read(&server());
    assert_eq!(facts.number("open_files"), Some(1024));
    assert_eq!(facts.number("open_files_hard"), Some(20_000));
    assert_eq!(facts.number("locked_memory"), Some(8 << 20));
    assert_eq!(facts.number("cores"), Some(2));
    assert_eq!(facts.number("memory"), Some(32 << 30));
    assert_eq!(facts.memory_bytes(), Some(16 << 30));
    assert_eq!(facts.parts("memory_cgroup")[0].path, "/sys/fs/cgroup/a/memory.max");
    assert_eq!(facts.parts("tcp_mem")[0].value, Value::Numbers(vec![20_000, 30_000, 40_000]));
    assert_eq!(facts.parts("tcp_mem")[0].raw, b"20000\t30000\t40000\n");
    assert_eq!(facts.parts("disk_scheduler").len(), 1);
    assert_eq!(facts.parts("disk_scheduler")[0].value, Value::Text("bfq".to_owned()));
    let masks: Vec<_> = facts.parts("irq_affinity").iter().map(|part| part.spread.clone().unwrap().written()).collect();
    assert_eq!(masks, ["1", "2"], "each interrupt that carries packets has a core of its own");
    assert_eq!(facts.parts("rps").len(), 1, "the loopback is not physical");
    assert_eq!(facts.parts("rps")[0].spread, Some(Value::Text("f".to_owned())));
    assert_eq!(facts.readings["conntrack"], Reading::Absent);
    assert_eq!(facts.readings["xps"], Reading::Absent);
    assert!(facts.surroundings.container.is_empty() && facts.surroundings.root);
}

#[test]
fn cgroups_of_version_one_count_too() {
    let mut system = server();
    system.put("/proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/\n0::/\n");
    system.put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824\n");
    system.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    system.put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    let facts = Facts::read(&system);
    assert_eq!(facts.memory_bytes(), Some(1 << 30));
    assert_eq!(facts.number("cores"), Some(4));
    system.put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
    system.put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    system.put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    let facts = Facts::read(&system);
    assert_eq!(facts.number("memory_cgroup"), Some(u64::MAX));
    assert_eq!(facts.number("cores"), Some(1));
}

#[test]
fn a_container_is_seen_by_its_signs() {
    let mut system = server();
    system.put("/.dockerenv", "");
    system.put("/proc/self/uid_map", "0 100000 65536\n");
    system.put(
        "/proc/self/mountinfo",
        "1 0 0:1 / /proc rw - proc proc rw\n2 1 0:1 /sys /proc/sys ro,nosuid - proc proc rw\n",
    );
    system.refusals.insert("/proc/sys/net/core/somaxconn".to_owned(), ErrorKind::ReadOnlyFilesystem);
    let facts = Facts::read(&system);
    assert_eq!(facts.surroundings.container, ["/.dockerenv is there", "a user namespace", "/proc/sys is read-only"]);
    assert_eq!(facts.parts("somaxconn")[0].may_set, Err(ErrorKind::ReadOnlyFilesystem));
}

#[test]
fn odd_contents_are_no_facts_and_no_panic() {
    let paths: Vec<String> = server().files.keys().cloned().collect();
    let odd: [&[u8]; 7] =
        [b"", b"\n", b"\xff\xfe\0", b"-1", b"99999999999999999999999999", b"::: [ ] , - 0-\n", b"4-2\n"];
    for bytes in odd {
        let mut all = server();
        for path in &paths {
            let mut one = server();
            one.files.insert(path.clone(), bytes.to_vec());
            let _ = Facts::read(&one);
            all.files.insert(path.clone(), bytes.to_vec());
        }
        let facts = Facts::read(&all);
        assert!(facts.number("open_files").is_none() && facts.memory_bytes().is_none());
    }
    let empty = Facts::read(&MemorySystem::default());
    assert!(empty.readings.values().all(|reading| *reading == Reading::Absent));
}

#[test]
fn this_machine_has_facts() {
    let facts = Facts::read(&crate::system::Directory::this_machine());
    for name in ["open_files", "cores", "memory", "somaxconn"] {
        assert!(facts.number(name).is_some_and(|value| value > 0), "{name}");
    }
}
