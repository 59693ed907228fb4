//! What this machine allows, each figure with the file it was read from.
//!
//! Invariants: reading changes nothing and needs no rights; what can't be read or understood is absent, never guessed; odd contents of /proc
//! never panic. A setting may have several parts, such as one for each queue of a network device.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::Path,
};

use crate::{
    catalogue::{Place, SETTINGS, Setting, Shape, Side},
    system::System,
    value::{Value, listed, number_at},
};

mod cgroups;
mod devices;

/// One file's share of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it was read.
    pub path: String,
    /// What stood there, byte for byte.
    pub raw: Vec<u8>,
    /// What it means.
    pub value: Value,
    /// What "spread over the cores" would be for this part; for queues and interrupts only.
    pub spread: Option<Value>,
    /// Whether it may be set here, if it can be set at all.
    pub may_set: Result<(), ErrorKind>,
}

/// What is known of one setting: its parts, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// At least one part.
    Known(Vec<Part>),
    /// This machine has no such thing, or doesn't show it here.
    Absent,
    /// The file is there, but may not be read.
    Forbidden(String),
    /// The file is there, but its contents are not understood.
    Odd(String),
}

/// Where the facts were read: it decides who can change what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Signs of a container, in words.
    pub container: Vec<String>,
    /// Whether the reader is root.
    pub root: bool,
}

/// All facts of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// By a setting's name.
    pub readings: BTreeMap<&'static str, Reading>,
    /// Container and rights.
    pub surroundings: Surroundings,
}

impl Facts {
    /// Reads all facts.
    #[must_use]
    pub fn read(system: &dyn System) -> Self {
        let readings = SETTINGS.iter().map(|setting| (setting.name, read(system, setting))).collect();
        Self { readings, surroundings: surroundings(system) }
    }

    /// The parts of a setting; none if it is not known.
    #[must_use]
    pub fn parts(&self, name: &str) -> &[Part] {
        match self.readings.get(name) {
            Some(Reading::Known(parts)) => parts,
            _ => &[],
        }
    }

    /// The number of a setting that has one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.parts(name).first()?.value.as_numbers().first().copied()
    }

    /// Memory that a process may use here: the machine's, or its cgroup's if that is less.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        [self.number("memory"), self.number("memory_cgroup")].into_iter().flatten().min()
    }
}

/// Where a sysctl stands.
#[must_use]
pub fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn read(system: &dyn System, setting: &Setting) -> Reading {
    let one = |path: &str, parse: &dyn Fn(&str) -> Option<Value>| one_file(system, setting, path, parse);
    match setting.place {
        Place::Sysctl(key, shape) => one(&sysctl_path(key), &|text| match shape {
            Shape::Number => Value::number(text),
            Shape::Three => Value::numbers(text, 3),
            Shape::Ports => Value::numbers(text, 2),
            Shape::Word => Value::line(text),
        }),
        Place::Table(table) => one(&sysctl_path(table.shown), &Value::magnitude),
        Place::Limit(name, side) => one("/proc/self/limits", &|text| limit(text, name, side).map(Value::Number)),
        Place::Choice(path) => one(path, &Value::choice),
        Place::Memory => one("/proc/meminfo", &|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            number_at(line, 0)?.checked_mul(1024).map(Value::Number)
        }),
        Place::NumaNodes => {
            one("/sys/devices/system/node/online", &|text| listed(text).map(|nodes| Value::Number(nodes.len() as u64)))
        }
        Place::MemoryCgroup => cgroups::memory(system),
        Place::Cores => cgroups::cores(system),
        Place::Governors => devices::governors(system),
        Place::DiskSchedulers => devices::disks(system, "scheduler", &Value::choice),
        Place::WriteCaches => devices::disks(system, "write_cache", &Value::line),
        Place::ReceiveSteering => devices::queues(system, devices::Queue::ReceiveProcessors),
        Place::ReceiveFlows => devices::queues(system, devices::Queue::ReceiveFlows),
        Place::TransmitSteering => devices::queues(system, devices::Queue::TransmitProcessors),
        Place::Interrupts => devices::interrupts(system),
    }
}

/// A reading of one file.
fn one_file(system: &dyn System, setting: &Setting, path: &str, parse: &dyn Fn(&str) -> Option<Value>) -> Reading {
    match part(system, path, setting.is_file(), parse) {
        Ok(Some(part)) => Reading::Known(vec![part]),
        Ok(None) => Reading::Odd(path.to_owned()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Reading::Forbidden(path.to_owned()),
        Err(_) => Reading::Absent,
    }
}

/// A part, or `None` if its contents are not understood.
fn part(
    system: &dyn System,
    path: &str,
    is_file: bool,
    parse: &dyn Fn(&str) -> Option<Value>,
) -> io::Result<Option<Part>> {
    let raw = system.read(path)?;
    let Some(value) = parse(&String::from_utf8_lossy(&raw)) else { return Ok(None) };
    let may_set =
        if is_file { system.may_set(path).map_err(|error| error.kind()) } else { Err(ErrorKind::Unsupported) };
    Ok(Some(Part { path: path.to_owned(), raw, value, spread: None, may_set }))
}

/// A limit of /proc/self/limits. Its names hold blanks, so the columns are counted from the name's end.
fn limit(text: &str, name: &str, side: Side) -> Option<u64> {
    let columns = text.lines().find_map(|line| line.strip_prefix(name))?;
    let column = match side {
        Side::Soft => 0,
        Side::Hard => 1,
    };
    match columns.split_whitespace().nth(column)? {
        "unlimited" => Some(u64::MAX),
        figure => figure.parse().ok(),
    }
}

fn surroundings(system: &dyn System) -> Surroundings {
    let mut container = Vec::new();
    for sign in ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"] {
        if system.read(sign).is_ok() {
            container.push(format!("{sign} is there"));
        }
    }
    // A namespace of users that is not the first one: its root is not the host's.
    if system.text("/proc/self/uid_map").is_ok_and(|map| number_at(&map, 2).is_some_and(|count| count < 4_294_967_295))
    {
        container.push("a user namespace".to_owned());
    }
    let mounts = system.text("/proc/self/mountinfo").unwrap_or_default();
    let read_only = |mount: &str| {
        let options = mounts.lines().rev().find_map(|line| {
            let mut words = line.split(' ');
            (words.nth(4)? == mount).then(|| words.next()).flatten()
        });
        options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
    };
    container.extend(
        ["/proc/sys", "/sys"].iter().filter(|mount| read_only(mount)).map(|mount| format!("{mount} is read-only")),
    );
    let status = system.text("/proc/self/status").unwrap_or_default();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| number_at(ids, 1));
    Surroundings { container, root: user == Some(0) }
}

/// Every folder of a cgroup and those above it, relative, down to the root, which is empty.
fn ancestors(group: &str) -> impl Iterator<Item = String> + '_ {
    Path::new(group.trim_start_matches('/')).ancestors().map(|group| group.display().to_string())
}

#[cfg(test)]
pub(crate) mod tests;
