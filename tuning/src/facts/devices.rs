//! Facts that stand once for each device: processors' governors, disks, queues and interrupts of network devices.
//!
//! Only physical devices count: loop devices, compressed memory and virtual links are nobody's bottleneck.

use std::io::ErrorKind;

use super::{Part, Reading, part};
use crate::{
    system::System,
    value::{Value, listed},
};

/// Which setting of a network device's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    ReceiveProcessors,
    ReceiveFlows,
    TransmitProcessors,
}

/// Entries of the table of flows that the kernel's documentation advises for a server; divided among a device's queues.
const FLOWS: u64 = 32_768;

/// Names of interrupts that carry no packets.
const NOT_PACKETS: &[&str] = &["config", "control", "event", "async", "misc", "link", "mgmt"];

pub(super) fn governors(system: &dyn System) -> Reading {
    let folder = "/sys/devices/system/cpu/cpufreq";
    let policies = names(system, folder).into_iter().filter(|name| name.starts_with("policy"));
    collect(policies.map(|policy| {
        let path = format!("{folder}/{policy}/scaling_governor");
        part(system, &path, true, &Value::line)
    }))
}

/// A file in the queue folder of every physical disk.
pub(super) fn disks(system: &dyn System, file: &str, parse: &dyn Fn(&str) -> Option<Value>) -> Reading {
    let disks = names(system, "/sys/block").into_iter().filter(|disk| {
        let made_up = ["loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd"].iter().any(|kind| disk.starts_with(kind));
        !made_up
    });
    let settable = file == "scheduler";
    collect(disks.map(|disk| part(system, &format!("/sys/block/{disk}/queue/{file}"), settable, parse)))
}

pub(super) fn queues(system: &dyn System, which: Queue) -> Reading {
    let processors = processors(system);
    let mut parts = Vec::new();
    for device in network_devices(system) {
        let folder = format!("/sys/class/net/{device}/queues");
        let kind = if which == Queue::TransmitProcessors { "tx-" } else { "rx-" };
        let mut queues: Vec<(usize, String)> = names(system, &folder)
            .into_iter()
            .filter_map(|name| Some((name.strip_prefix(kind)?.parse().ok()?, name)))
            .collect();
        queues.sort();
        let count = queues.len();
        for (index, (_, queue)) in queues.into_iter().enumerate() {
            let (file, spread) = match which {
                // A queue for every core needs no software to spread packets; fewer do.
                Queue::ReceiveProcessors if count >= processors.len() => ("rps_cpus", Value::Text("0".to_owned())),
                Queue::ReceiveProcessors => ("rps_cpus", Value::mask_of(&processors)),
                Queue::ReceiveFlows => ("rps_flow_cnt", Value::Number(flows_per_queue(count))),
                Queue::TransmitProcessors => {
                    let own: Vec<usize> =
                        processors.iter().copied().skip(index % count.max(1)).step_by(count.max(1)).collect();
                    ("xps_cpus", Value::mask_of(&own))
                }
            };
            let parse: &dyn Fn(&str) -> Option<Value> =
                if which == Queue::ReceiveFlows { &Value::number } else { &Value::mask };
            let found = part(system, &format!("{folder}/{queue}/{file}"), true, parse);
            parts.push(found.map(|found| found.map(|found| Part { spread: Some(spread), ..found })));
        }
    }
    collect(parts.into_iter())
}

pub(super) fn interrupts(system: &dyn System) -> Reading {
    let processors = processors(system);
    let table = system.text("/proc/interrupts").unwrap_or_default();
    let carries_packets = |number: &str| {
        let line = table.lines().find(|line| line.trim_start().split(':').next() == Some(number));
        let name = line.and_then(|line| line.split_whitespace().last()).unwrap_or_default();
        !NOT_PACKETS.iter().any(|word| name.contains(word))
    };
    let mut parts = Vec::new();
    for device in network_devices(system) {
        let device = format!("/sys/class/net/{device}/device");
        // A virtio device has its interrupts one level up, at the device of the bus.
        let own = names(system, &format!("{device}/msi_irqs"));
        let own = if own.is_empty() { names(system, &format!("{device}/../msi_irqs")) } else { own };
        let mut numbers: Vec<u32> =
            own.iter().filter(|number| carries_packets(number)).filter_map(|number| number.parse().ok()).collect();
        numbers.sort_unstable();
        for (index, number) in numbers.into_iter().enumerate() {
            let path = format!("/proc/irq/{number}/smp_affinity");
            let found = part(system, &path, true, &Value::mask);
            let core = processors.get(index % processors.len().max(1)).copied();
            let spread = core.map(|core| Value::mask_of(&[core]));
            parts.push(found.map(|found| found.map(|found| Part { spread, ..found })));
        }
    }
    collect(parts.into_iter())
}

fn flows_per_queue(queues: usize) -> u64 {
    // The kernel rounds up to a power of two; what is written must be what is read.
    (FLOWS / (queues.max(1) as u64)).max(1).next_power_of_two()
}

fn network_devices(system: &dyn System) -> Vec<String> {
    let all = names(system, "/sys/class/net");
    all.into_iter().filter(|name| system.list(&format!("/sys/class/net/{name}/device")).is_ok()).collect()
}

fn processors(system: &dyn System) -> Vec<usize> {
    system.text("/sys/devices/system/cpu/online").ok().and_then(|text| listed(&text)).unwrap_or_default()
}

fn names(system: &dyn System, folder: &str) -> Vec<String> {
    system.list(folder).unwrap_or_default()
}

/// Those parts that are there and understood. A device that goes away meanwhile is as if it had never been.
fn collect(parts: impl Iterator<Item = std::io::Result<Option<Part>>>) -> Reading {
    let mut known = Vec::new();
    let mut forbidden = None;
    for found in parts {
        match found {
            Ok(Some(part)) => known.push(part),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => forbidden = Some("a device's file".to_owned()),
            Ok(None) | Err(_) => {}
        }
    }
    match (known.is_empty(), forbidden) {
        (false, _) => Reading::Known(known),
        (true, Some(what)) => Reading::Forbidden(what),
        (true, None) => Reading::Absent,
    }
}
