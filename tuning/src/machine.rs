//! The machine in a few words, for reports of measurements.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::facts::{self, FactName};

/// What a measurement was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, or `unknown`.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: u64,
    /// Memory that this process may use.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Open files that this process may have.
    pub open_files_max: u64,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, memory_bytes, kernel, .. } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        write!(formatter, "{cpu}, {cores} cores, {gib:.1} GiB, Linux {kernel}")
    }
}

/// This machine.
#[must_use]
pub fn machine() -> Machine {
    let facts = facts::read();
    let value = |name| facts.get(&name).map_or(0, |fact| fact.value);
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = text("/proc/cpuinfo");
    let cpu = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let kernel = text("/proc/sys/kernel/osrelease");
    Machine {
        cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
        cores: value(FactName::Cores),
        memory_bytes: value(FactName::MemoryBytes),
        kernel: kernel.trim().to_owned(),
        open_files_max: value(FactName::OpenFilesMax),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_is_described() {
        let machine = super::machine();
        assert!(machine.cores > 0 && machine.memory_bytes > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.to_string().contains("Linux"));
    }
}
