//! The machine that a run was made on, for the report: what `tuning` tells, and the clock that measured.

use std::fs;

/// What a reader of figures wants to know about a machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Machine {
    /// Processor, memory, kernel, limits.
    #[serde(flatten)]
    pub facts: antiphon_tuning::Machine,
    /// The kernel's clock source: `tsc`, `kvm-clock` …
    pub clock_source: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let clock_source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        Self {
            facts: antiphon_tuning::machine(),
            clock_source: clock_source.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_clock_stand_side_by_side() {
        let json = serde_json::to_value(Machine::this()).unwrap();
        for name in ["cpu", "cores", "memory_bytes", "kernel", "clock_source"] {
            assert!(json.get(name).is_some(), "{name}: {json}");
        }
    }
}
