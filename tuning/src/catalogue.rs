//! The settings that tuning knows: each one's name, where it stands, in which unit, and who can change it. Data only.
//!
//! A profile speaks of settings by these names; a name that is not here is refused. To add one: a line here, and if it does not stand in
//! one file, its reader in `facts.rs`.

use serde::Serialize;

/// One thing that can be known of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in profiles and tables.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Who can change it.
    pub scope: Scope,
    /// What its figures count.
    pub unit: Unit,
    /// What it means that a machine does not have it.
    pub absence: &'static str,
}

/// Where a setting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Below /proc/sys, under this dotted name.
    Sysctl(&'static str, Shape),
    /// A table of the kernel's own, made when the machine or a network namespace starts.
    Table(&'static Table),
    /// A line of /proc/self/limits, soft or hard.
    Limit(&'static str, Side),
    /// Words of which one is in brackets.
    Choice(&'static str),
    /// The machine's memory, from /proc/meminfo.
    Memory,
    /// The tightest memory limit of this process's cgroups.
    MemoryCgroup,
    /// Processors, counting affinity and cgroups.
    Cores,
    /// The number of NUMA nodes.
    NumaNodes,
    /// Each cpufreq policy's governor.
    Governors,
    /// Each physical disk's scheduler.
    DiskSchedulers,
    /// Each physical disk's write cache.
    WriteCaches,
    /// Each receive queue's processors.
    ReceiveSteering,
    /// Each receive queue's flow table.
    ReceiveFlows,
    /// Each transmit queue's processors.
    TransmitSteering,
    /// The processors of each network interrupt.
    Interrupts,
}

/// A table of a size that is fixed when it is made; the kernel rounds what it is asked for up to a power of two.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// The sysctl that shows its size and can't be written; negative in a network namespace that uses the first one's.
    pub shown: &'static str,
    /// The boot parameter that asks for a size.
    pub boot_parameter: &'static str,
    /// The sysctl that asks for one in the network namespaces that are made after it was written.
    pub next_namespace: &'static str,
    /// Most that `next_namespace` takes.
    pub next_namespace_max: u64,
}

/// Where the kernel looks for the connection that a packet belongs to.
const ESTABLISHED: Table = Table {
    shown: "net.ipv4.tcp_ehash_entries",
    boot_parameter: "thash_entries",
    next_namespace: "net.ipv4.tcp_child_ehash_entries",
    next_namespace_max: 1 << 24,
};

/// What a sysctl holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One number.
    Number,
    /// Three numbers.
    Three,
    /// First and last port.
    Ports,
    /// A word.
    Word,
}

/// Which of a resource's two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one in force.
    Soft,
    /// The one up to which a process may raise it.
    Hard,
}

/// Who can change a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Whoever starts the node: limits.d, systemd, or the container's runtime.
    Process,
    /// Whoever made the cgroup: systemd or the container's runtime.
    Cgroup,
    /// Root of the network namespace: in a container too, if /proc/sys is writable, or by its runtime (`--sysctl`).
    NetworkNamespace,
    /// Root of the host.
    Host,
    /// Root of the host, but not while it is in use: by a boot parameter, or before a network namespace is made.
    Start,
    /// Nobody by software.
    Hardware,
}

/// What a setting's figures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Pages of 4,096 bytes.
    Pages,
    /// Microseconds.
    Microseconds,
    /// A word.
    Word,
}

const fn setting(name: &'static str, place: Place, scope: Scope, unit: Unit, absence: &'static str) -> Setting {
    Setting { name, place, scope, unit, absence }
}

/// All settings, in the order of tables.
pub const SETTINGS: &[Setting] = {
    use Place::*;
    use Scope::*;
    use Shape::{Number, Ports, Three};
    use Unit::*;
    const HOST_ONLY: &str = "not shown in this network namespace: it is the host's";
    const OLD: &str = "this kernel has no such setting";
    &[
        setting(
            "io_uring",
            Sysctl("kernel.io_uring_disabled", Number),
            Host,
            Count,
            "no switch before Linux 6.6: allowed",
        ),
        setting("memory", Memory, Hardware, Bytes, "this machine doesn't tell"),
        setting("memory_cgroup", MemoryCgroup, Cgroup, Bytes, "no memory cgroup is visible"),
        setting("cores", Cores, Hardware, Count, "this machine doesn't tell"),
        setting("open_files", Limit("Max open files", Side::Soft), Process, Count, "this machine doesn't tell"),
        setting("open_files_hard", Limit("Max open files", Side::Hard), Process, Count, "this machine doesn't tell"),
        setting("nr_open", Sysctl("fs.nr_open", Number), Host, Count, OLD),
        setting("file_max", Sysctl("fs.file-max", Number), Host, Count, OLD),
        setting("locked_memory", Limit("Max locked memory", Side::Soft), Process, Bytes, "this machine doesn't tell"),
        setting("somaxconn", Sysctl("net.core.somaxconn", Number), NetworkNamespace, Count, OLD),
        setting("syn_backlog", Sysctl("net.ipv4.tcp_max_syn_backlog", Number), NetworkNamespace, Count, OLD),
        setting("device_backlog", Sysctl("net.core.netdev_max_backlog", Number), Host, Count, HOST_ONLY),
        setting(
            "established_hash",
            Place::Table(&ESTABLISHED),
            Start,
            Count,
            "not told before Linux 6.1; the kernel's log does: dmesg | grep 'TCP established'",
        ),
        setting("local_ports", Sysctl("net.ipv4.ip_local_port_range", Ports), NetworkNamespace, Count, OLD),
        setting("tcp_mem", Sysctl("net.ipv4.tcp_mem", Three), Host, Pages, HOST_ONLY),
        setting("tcp_rmem", Sysctl("net.ipv4.tcp_rmem", Three), NetworkNamespace, Bytes, OLD),
        setting("tcp_wmem", Sysctl("net.ipv4.tcp_wmem", Three), NetworkNamespace, Bytes, OLD),
        setting("orphans", Sysctl("net.ipv4.tcp_max_orphans", Number), Host, Count, HOST_ONLY),
        setting("time_wait", Sysctl("net.ipv4.tcp_max_tw_buckets", Number), NetworkNamespace, Count, OLD),
        setting(
            "conntrack",
            Sysctl("net.netfilter.nf_conntrack_max", Number),
            Host,
            Count,
            "not loaded: nothing is tracked",
        ),
        setting("queue_discipline", Sysctl("net.core.default_qdisc", Shape::Word), Host, Unit::Word, HOST_ONLY),
        setting("busy_poll", Sysctl("net.core.busy_poll", Number), Host, Microseconds, HOST_ONLY),
        setting("busy_read", Sysctl("net.core.busy_read", Number), Host, Microseconds, HOST_ONLY),
        setting(
            "irq_affinity",
            Interrupts,
            Host,
            Unit::Word,
            "no network device with interrupts of its own is visible",
        ),
        setting("rps", ReceiveSteering, Host, Unit::Word, "no physical network device is visible"),
        setting("rfs", Sysctl("net.core.rps_sock_flow_entries", Number), Host, Count, HOST_ONLY),
        setting("rfs_queues", ReceiveFlows, Host, Count, "no physical network device is visible"),
        setting(
            "xps",
            TransmitSteering,
            Host,
            Unit::Word,
            "no network device with more than one transmit queue is visible",
        ),
        setting(
            "transparent_hugepages",
            Choice("/sys/kernel/mm/transparent_hugepage/enabled"),
            Host,
            Unit::Word,
            "this kernel has none",
        ),
        setting("hugepages", Sysctl("vm.nr_hugepages", Number), Host, Count, "this kernel has none"),
        setting(
            "cpu_governor",
            Governors,
            Host,
            Unit::Word,
            "no frequency driver: the hypervisor or the firmware decides",
        ),
        setting(
            "clock_source",
            Choice("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            Host,
            Unit::Word,
            "this machine doesn't tell",
        ),
        setting("numa_nodes", NumaNodes, Hardware, Count, "this kernel knows no NUMA"),
        setting("numa_balancing", Sysctl("kernel.numa_balancing", Number), Host, Count, "this kernel knows no NUMA"),
        setting("zone_reclaim", Sysctl("vm.zone_reclaim_mode", Number), Host, Count, "this kernel knows no NUMA"),
        setting("disk_scheduler", DiskSchedulers, Host, Unit::Word, "no physical disk is visible"),
        setting("write_cache", WriteCaches, Hardware, Unit::Word, "no physical disk is visible"),
    ]
};

/// A setting by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// The sysctl's dotted name, if it is one.
    #[must_use]
    pub fn sysctl(&self) -> Option<&'static str> {
        match self.place {
            Place::Sysctl(key, _) => Some(key),
            _ => None,
        }
    }

    /// How many numbers its values have; 0 for a word.
    #[must_use]
    pub fn numbers_count(&self) -> usize {
        match self.place {
            Place::Sysctl(_, Shape::Three) => 3,
            Place::Sysctl(_, Shape::Ports) => 2,
            _ if self.unit == Unit::Word => 0,
            _ => 1,
        }
    }

    /// Whether it is a range that must be covered rather than figures that must be reached.
    #[must_use]
    pub fn is_range(&self) -> bool {
        matches!(self.place, Place::Sysctl(_, Shape::Ports))
    }

    /// Whether a file can be written to change it.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.scope, Scope::NetworkNamespace | Scope::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_one_is_found() {
        for setting in SETTINGS {
            assert_eq!(SETTINGS.iter().filter(|other| other.name == setting.name).count(), 1, "{}", setting.name);
            assert_eq!(find(setting.name), Some(setting));
        }
        assert_eq!(find("warp_drive"), None);
    }
}
