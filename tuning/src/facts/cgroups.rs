//! What cgroups of both versions leave of memory and processors. The tightest limit counts, of this process's group and those above.
//!
//! In a container the path in /proc/self/cgroup may be the host's and not be there; its ancestors end at the mount's root, which is then
//! the container's own group.

use super::{Part, Reading, ancestors};
use crate::{
    system::System,
    value::{Value, listed, number_at},
};

/// Version 1 prints the largest multiple of a page for "no limit".
const UNLIMITED_V1_MIN: u64 = 1 << 62;

pub(super) fn memory(system: &dyn System) -> Reading {
    let limits = groups(system, "memory").into_iter().filter_map(|(folder, version)| {
        let path = match version {
            Version::One => format!("{folder}/memory.limit_in_bytes"),
            Version::Two => format!("{folder}/memory.max"),
        };
        let raw = system.read(&path).ok()?;
        let text = String::from_utf8_lossy(&raw);
        let bytes = match text.trim() {
            "max" => u64::MAX,
            figure => figure.parse().ok().map(|bytes| if bytes >= UNLIMITED_V1_MIN { u64::MAX } else { bytes })?,
        };
        Some(unchangeable(path, raw, bytes))
    });
    tightest(limits)
}

pub(super) fn cores(system: &dyn System) -> Reading {
    let status = "/proc/self/status";
    let Ok(raw) = system.read(status) else { return Reading::Absent };
    let text = String::from_utf8_lossy(&raw).into_owned();
    let allowed = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).and_then(listed);
    let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) else { return Reading::Odd(status.to_owned()) };
    let own = unchangeable(status.to_owned(), raw, allowed.len() as u64);
    let quotas = groups(system, "cpu").into_iter().filter_map(|(folder, version)| {
        let path = match version {
            Version::One => format!("{folder}/cpu.cfs_quota_us"),
            Version::Two => format!("{folder}/cpu.max"),
        };
        let raw = system.read(&path).ok()?;
        let text = String::from_utf8_lossy(&raw);
        // "max" and −1 stand for no quota, and are no numbers.
        let quota = number_at(&text, 0)?;
        let period = match version {
            Version::One => number_at(&system.text(&format!("{folder}/cpu.cfs_period_us")).ok()?, 0)?,
            Version::Two => number_at(&text, 1)?,
        };
        let cores = quota.div_ceil(period.max(1)).max(1);
        Some(unchangeable(path, raw, cores))
    });
    tightest(std::iter::once(own).chain(quotas))
}

fn tightest(parts: impl Iterator<Item = Part>) -> Reading {
    match parts.min_by_key(|part| part.value.as_numbers().first().copied()) {
        Some(part) => Reading::Known(vec![part]),
        None => Reading::Absent,
    }
}

fn unchangeable(path: String, raw: Vec<u8>, number: u64) -> Part {
    let may_set = Err(std::io::ErrorKind::Unsupported);
    Part { path, raw, value: Value::Number(number), spread: None, may_set }
}

#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

/// The folders of this process's group and those above it, in the hierarchy that has the controller.
fn groups(system: &dyn System, controller: &str) -> Vec<(String, Version)> {
    let text = system.text("/proc/self/cgroup").unwrap_or_default();
    let mut all = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (mount, version) = match controllers {
            "" => ("/sys/fs/cgroup".to_owned(), Version::Two),
            list if list.split(',').any(|one| one == controller) => {
                (format!("/sys/fs/cgroup/{controller}"), Version::One)
            }
            _ => continue,
        };
        for above in ancestors(group) {
            let folder = if above.is_empty() { mount.clone() } else { format!("{mount}/{above}") };
            all.push((folder, version));
        }
    }
    all
}
