//! The machine in a few words, for reports of measurements.

use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    system::{Directory, System},
};

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
    Machine::read(&Directory::this_machine())
}

impl Machine {
    /// A machine.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        Self::from_facts(system, &Facts::read(system))
    }

    /// A machine whose facts are known.
    #[must_use]
    pub fn from_facts(system: &dyn System, facts: &Facts) -> Self {
        let text = |path: &str| system.text(path).unwrap_or_default();
        let cpus = text("/proc/cpuinfo");
        let cpu = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        Self {
            cpu: cpu.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: facts.number("cores").unwrap_or(0),
            memory_bytes: facts.memory_bytes().unwrap_or(0),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            open_files_max: facts.number("open_files_hard").unwrap_or(0),
        }
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
