//! Holds a profile against facts: what is short, what limits the machine, and who can change it. Pure.

use std::io::ErrorKind;

use serde::Serialize;

use crate::{
    catalogue::{Place, Scope, Unit},
    facts::{Facts, Part, Reading},
    profile::{Asked, Of, Profile, Severity, Tuner, Want},
    value::Value,
};

/// Most shards of a node.
const SHARDS_MAX: u64 = 512;

/// What became of one tuner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As wanted.
    Good,
    /// Less than is advised.
    Advised,
    /// The node won't hold what was asked.
    Required,
    /// Nothing is wanted; good to know.
    Note,
    /// This machine doesn't tell, or has no such thing.
    Unknown,
    /// The profile doesn't look at it.
    Disabled,
}

/// Who can change what is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// `tune apply`, here.
    Apply,
    /// `tune apply`, as root.
    ApplyAsRoot,
    /// Whoever starts the node: `tune persist`, and the node started again.
    Persist,
    /// Whoever starts the container, by the runtime's flags.
    Runtime,
    /// Root of the host: nothing in here can.
    Host,
    /// Root of the host, with a start of the machine or a network namespace made anew.
    Start,
    /// Nobody by software: another machine, or fewer connections.
    Machine,
}

/// One tuner against this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The tuner's name.
    pub tuner: &'static str,
    /// Whether the profile looks at it.
    pub enabled: bool,
    /// Whether this machine tells the fact.
    pub supported: bool,
    /// The fact; of several parts the first that is short, else the first.
    pub current: Option<Value>,
    /// What its figures count.
    pub unit: Unit,
    /// The files that it was read from.
    pub sources: Vec<String>,
    /// How the wanted value is meant.
    pub want: Want,
    /// The wanted value, for the part that `current` is of; several words for `one_of`.
    pub wanted: Vec<Value>,
    /// What became of it.
    pub verdict: Verdict,
    /// Who can change it, if it is short.
    pub remedy: Option<Remedy>,
    /// What whoever can change it has to do, where the remedy alone does not say it.
    pub how: Option<String>,
    /// Why it is wanted; if the fact is missing, why that is.
    pub reason: String,
    /// Where the wanted value comes from.
    pub value_source: String,
}

/// How many connections one tuner's fact is enough for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The tuner's name.
    pub tuner: &'static str,
    /// Connections; [`u64::MAX`] for no limit.
    pub connections: u64,
    /// Whether it stops the node or only slows it.
    pub severity: Severity,
}

/// Checks every tuner.
#[must_use]
pub fn check(profile: &Profile, facts: &Facts, asked: Asked) -> Vec<Row> {
    profile.tuners.iter().map(|tuner| row(tuner, facts, asked)).collect()
}

fn row(tuner: &Tuner, facts: &Facts, asked: Asked) -> Row {
    let setting = tuner.setting;
    let parts = facts.parts(setting.name);
    let short = parts.iter().find(|part| !tuner.holds(part, asked));
    let shown = short.or(parts.first());
    let verdict = match (tuner.enabled, shown, short) {
        (false, ..) => Verdict::Disabled,
        (true, None, _) => Verdict::Unknown,
        _ if tuner.want == Want::Note => Verdict::Note,
        (true, _, None) => Verdict::Good,
        (true, _, Some(_)) if tuner.severity == Severity::Required => Verdict::Required,
        (true, _, Some(_)) => Verdict::Advised,
    };
    let reason = match facts.readings.get(setting.name) {
        Some(Reading::Forbidden(path)) => format!("{path} may not be read"),
        Some(Reading::Odd(path)) => format!("{path} is not understood"),
        Some(Reading::Known(_)) => tuner.reason.clone(),
        Some(Reading::Absent) | None => setting.absence.to_owned(),
    };
    let wanted = match tuner.want {
        Want::OneOf => tuner.values.clone(),
        _ => tuner.wanted(asked, shown.and_then(|part| part.spread.as_ref())).into_iter().collect(),
    };
    Row {
        tuner: setting.name,
        enabled: tuner.enabled,
        supported: shown.is_some(),
        current: shown.map(|part| part.value.clone()),
        unit: setting.unit,
        sources: parts.iter().map(|part| part.path.clone()).collect(),
        want: tuner.want,
        wanted,
        verdict,
        remedy: short.filter(|_| tuner.enabled).map(|part| remedy(tuner, part, facts)),
        how: short.filter(|_| tuner.enabled).and_then(|part| how(tuner, part, asked)),
        reason,
        value_source: tuner.source.clone(),
    }
}

/// Who can change a part that is short.
#[must_use]
pub fn remedy(tuner: &Tuner, part: &Part, facts: &Facts) -> Remedy {
    let in_container = !facts.surroundings.container.is_empty();
    match (tuner.setting.scope, part.may_set) {
        (Scope::Hardware, _) => Remedy::Machine,
        (Scope::Start, _) => Remedy::Start,
        (Scope::Process | Scope::Cgroup, _) if in_container => Remedy::Runtime,
        (Scope::Process | Scope::Cgroup, _) => Remedy::Persist,
        (_, Ok(())) => Remedy::Apply,
        (Scope::NetworkNamespace, Err(_)) if in_container => Remedy::Runtime,
        (_, Err(ErrorKind::PermissionDenied)) if !facts.surroundings.root => Remedy::ApplyAsRoot,
        (_, Err(_)) => Remedy::Host,
    }
}

/// What has to be done about a part that is short, where the remedy alone does not say it.
#[must_use]
pub fn how(tuner: &Tuner, part: &Part, asked: Asked) -> Option<String> {
    let Place::Table(table) = tuner.setting.place else { return None };
    let target = tuner.target(part, asked)?.as_numbers().first().copied()?;
    let mut how = format!("boot parameter {}={target}", table.boot_parameter);
    if target <= table.next_namespace_max {
        let key = table.next_namespace;
        how.push_str(&format!(
            ", or `sysctl -w {key}={target}` on the host before the node's network namespace is made"
        ));
    }
    Some(how)
}

/// What this machine is enough for, by tuner, the tightest first. A required tuner that is short whatever the number of connections
/// stands with none.
#[must_use]
pub fn limits(profile: &Profile, facts: &Facts, asked: Asked) -> Vec<Limit> {
    let mut limits: Vec<Limit> = profile
        .tuners
        .iter()
        .filter(|tuner| tuner.enabled)
        .filter_map(|tuner| {
            let parts = facts.parts(tuner.setting.name);
            let grows = parts.iter().filter_map(|part| tuner.connections_max(&part.value, asked.shards)).min();
            let stops = tuner.severity == Severity::Required && parts.iter().any(|part| !tuner.holds(part, asked));
            let connections = match grows {
                Some(connections) => connections,
                None if stops => 0,
                None => return None,
            };
            Some(Limit { tuner: tuner.setting.name, connections, severity: tuner.severity })
        })
        .collect();
    limits.sort_by_key(|limit| limit.connections);
    limits
}

/// The fewest shards with which limits of one shard would not stop the node, if more shards help at all.
#[must_use]
pub fn shards_wanted(profile: &Profile, facts: &Facts, asked: Asked) -> Option<u64> {
    let holds = |shards: u64| {
        let asked = Asked { shards, ..asked };
        profile
            .tuners
            .iter()
            .filter(|tuner| tuner.enabled && tuner.of == Of::Shard && tuner.severity == Severity::Required)
            .all(|tuner| facts.parts(tuner.setting.name).iter().all(|part| tuner.holds(part, asked)))
    };
    (!holds(asked.shards)).then(|| (asked.shards..=SHARDS_MAX).find(|shards| holds(*shards))).flatten()
}

/// The exit status of `tune check`: 0 all as wanted, 1 something advised is short, 2 something required is.
#[must_use]
pub fn exit_status(rows: &[Row]) -> u8 {
    let has = |verdict| rows.iter().any(|row| row.verdict == verdict);
    match (has(Verdict::Required), has(Verdict::Advised)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::server;

    fn chat() -> Profile {
        Profile::built_in("chat-500k").unwrap()
    }

    fn asked(connections: u64, shards: u64) -> Asked {
        Asked { connections, shards, memory_bytes: None }
    }

    fn find<'a>(rows: &'a [Row], tuner: &str) -> &'a Row {
        rows.iter().find(|row| row.tuner == tuner).unwrap()
    }

    #[test]
    fn a_server_with_defaults_is_judged() {
        let facts = Facts::read(&server());
        let rows = check(&chat(), &facts, asked(500_000, 4));
        assert_eq!(exit_status(&rows), 2);
        let files = find(&rows, "open_files");
        assert_eq!((files.verdict, files.remedy), (Verdict::Required, Some(Remedy::Persist)));
        assert_eq!(files.sources, ["/proc/self/limits"]);
        let backlog = find(&rows, "somaxconn");
        assert_eq!((backlog.verdict, backlog.remedy), (Verdict::Advised, Some(Remedy::Apply)));
        let conntrack = find(&rows, "conntrack");
        assert_eq!((conntrack.verdict, conntrack.supported), (Verdict::Unknown, false));
        assert!(conntrack.reason.contains("not loaded"));
        assert_eq!(find(&rows, "write_cache").verdict, Verdict::Note);
        assert_eq!(find(&rows, "io_uring").verdict, Verdict::Good);
    }

    #[test]
    fn what_limits_the_machine_comes_first() {
        let mut system = server();
        let facts = Facts::read(&system);
        let all = limits(&chat(), &facts, asked(500_000, 4));
        assert_eq!(all[0].tuner, "open_files");
        assert!(all[0].connections < 4 * 1024);
        assert!(all.windows(2).all(|pair| pair[0].connections <= pair[1].connections));
        assert_eq!(shards_wanted(&chat(), &facts, asked(500_000, 4)), None, "512 shards of 1,024 files are too few");
        assert!(shards_wanted(&chat(), &facts, asked(100_000, 4)).is_some_and(|shards| shards > 98));
        system.put("/proc/sys/kernel/io_uring_disabled", "2\n");
        let all = limits(&chat(), &Facts::read(&system), asked(500_000, 4));
        assert_eq!((all[0].tuner, all[0].connections), ("io_uring", 0));
    }

    #[test]
    fn a_container_says_who_can_do_what() {
        let mut system = server();
        system.put("/.dockerenv", "");
        for path in ["/proc/sys/net/core/somaxconn", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            system.refusals.insert(path.to_owned(), ErrorKind::ReadOnlyFilesystem);
        }
        system.files.remove("/proc/sys/net/ipv4/tcp_mem");
        let rows = check(&chat(), &Facts::read(&system), asked(500_000, 4));
        assert_eq!(find(&rows, "somaxconn").remedy, Some(Remedy::Runtime));
        assert_eq!(find(&rows, "open_files").remedy, Some(Remedy::Runtime));
        assert_eq!(find(&rows, "transparent_hugepages").remedy, Some(Remedy::Host));
        assert!(find(&rows, "tcp_mem").reason.contains("the host's"));
        let mut system = server();
        system.put("/proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCpus_allowed_list:\t0\n");
        system.refusals.insert("/proc/sys/net/core/somaxconn".to_owned(), ErrorKind::PermissionDenied);
        let rows = check(&chat(), &Facts::read(&system), asked(500_000, 4));
        assert_eq!(find(&rows, "somaxconn").remedy, Some(Remedy::ApplyAsRoot));
    }

    #[test]
    fn a_table_of_the_kernel_is_told_with_what_enlarges_it() {
        let mut system = server();
        let path = "/proc/sys/net/ipv4/tcp_ehash_entries";
        let row = |system: &crate::memory_system::MemorySystem, connections| {
            let rows = check(&chat(), &Facts::read(system), asked(connections, 4));
            find(&rows, "established_hash").clone()
        };
        // A namespace that shares the first one's table shows it as a negative number. A container changes nothing.
        system.put("/.dockerenv", "");
        for shown in ["262144\n", "-262144\n"] {
            system.put(path, shown);
            let row = row(&system, 500_000);
            assert_eq!((row.verdict, row.remedy), (Verdict::Advised, Some(Remedy::Start)), "{shown}");
            assert_eq!((row.current, row.wanted), (Some(Value::Number(262_144)), vec![Value::Number(524_288)]));
            let how = row.how.unwrap();
            assert!(how.contains("thash_entries=524288,") && how.contains("tcp_child_ehash_entries=524288`"), "{how}");
        }
        assert_eq!(row(&system, 262_144).verdict, Verdict::Good);
        assert_eq!(row(&system, 262_144).how, None);
        let how = row(&system, 20_000_000).how.unwrap();
        assert_eq!(how, "boot parameter thash_entries=33554432", "no namespace is given so many");
        system.put(path, "2097152\n");
        assert_eq!(row(&system, 500_000).verdict, Verdict::Good);
        system.files.remove(path);
        let row = row(&system, 500_000);
        assert_eq!((row.verdict, row.supported), (Verdict::Unknown, false));
        assert!(row.reason.contains("before Linux 6.1"), "{}", row.reason);
    }

    #[test]
    fn a_machine_that_tells_nothing_is_not_condemned() {
        let facts = Facts::read(&crate::memory_system::MemorySystem::default());
        let rows = check(&chat(), &facts, asked(1, 1));
        assert!(rows.iter().all(|row| row.verdict == Verdict::Unknown && !row.supported));
        assert_eq!(exit_status(&rows), 0);
        assert!(limits(&chat(), &facts, asked(1, 1)).is_empty());
    }
}
