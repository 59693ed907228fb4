//! What a profile would change on a machine, and what it can't. Pure.

use std::io::ErrorKind;

use serde::Serialize;

use crate::{
    check::{Remedy, how, remedy},
    facts::{Facts, Part},
    profile::{Asked, Profile, Tuner},
    value::Value,
};

/// One file that would be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Of which tuner.
    pub tuner: &'static str,
    /// The file.
    pub path: String,
    /// What stands there, byte for byte.
    #[serde(skip)]
    pub previous: Vec<u8>,
    /// What stands there.
    pub current: Value,
    /// What would be written.
    pub target: Value,
    /// Why.
    pub reason: String,
    /// Where the value comes from.
    pub value_source: String,
}

/// Something that is short and that `apply` can't change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Of which tuner.
    pub tuner: &'static str,
    /// Where it stands.
    pub path: String,
    /// What stands there.
    pub current: Value,
    /// What it should be.
    pub target: Value,
    /// Who can change it.
    pub remedy: Remedy,
    /// What they have to do, where the remedy alone does not say it.
    pub how: Option<String>,
    /// Why it should be so.
    pub reason: String,
}

/// What a profile would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What `apply` would do, in this order.
    pub steps: Vec<Step>,
    /// What others must do.
    pub left: Vec<Left>,
}

/// Plans a profile for a machine.
#[must_use]
pub fn plan(profile: &Profile, facts: &Facts, asked: Asked) -> Plan {
    let mut plan = Plan::default();
    for tuner in profile.tuners.iter().filter(|tuner| tuner.enabled) {
        for part in facts.parts(tuner.setting.name) {
            if tuner.holds(part, asked) {
                continue;
            }
            let Some(target) = tuner.target(part, asked) else { continue };
            add(&mut plan, tuner, part, target, (facts, asked));
        }
    }
    plan
}

fn add(plan: &mut Plan, tuner: &Tuner, part: &Part, target: Value, (facts, asked): (&Facts, Asked)) {
    let (tuner_name, path, current, reason) =
        (tuner.setting.name, part.path.clone(), part.value.clone(), tuner.reason.clone());
    match (remedy(tuner, part, facts), part.may_set) {
        // Who is not root may plan what root will apply.
        (Remedy::Apply, _) | (Remedy::ApplyAsRoot, Err(ErrorKind::PermissionDenied)) => plan.steps.push(Step {
            tuner: tuner_name,
            path,
            previous: part.raw.clone(),
            current,
            target,
            reason,
            value_source: tuner.source.clone(),
        }),
        (remedy, _) => {
            let how = how(tuner, part, asked);
            plan.left.push(Left { tuner: tuner_name, path, current, target, remedy, how, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::server;

    #[test]
    fn a_plan_has_what_can_be_done_and_what_can_not() {
        let mut system = server();
        let path = "/proc/sys/net/core/netdev_max_backlog".to_owned();
        system.refusals.insert(path.clone(), ErrorKind::ReadOnlyFilesystem);
        let facts = Facts::read(&system);
        let asked = Asked { connections: 500_000, shards: 4, memory_bytes: facts.memory_bytes() };
        let plan = plan(&Profile::built_in("chat-500k").unwrap(), &facts, asked);
        let step = |tuner| plan.steps.iter().find(|step| step.tuner == tuner);
        let ports = step("local_ports").unwrap();
        assert_eq!(ports.previous, b"32768\t60999\n");
        assert_eq!(ports.target, Value::Numbers(vec![16_384, 65_535]));
        assert!(step("transparent_hugepages").is_some() && step("disk_scheduler").is_some());
        assert!(step("nr_open").is_none(), "already as wanted");
        assert!(step("irq_affinity").is_none(), "a note changes nothing");
        let left: Vec<_> = plan.left.iter().map(|left| (left.tuner, left.remedy)).collect();
        assert!(left.contains(&("open_files", Remedy::Persist)), "{left:?}");
        assert!(left.contains(&("device_backlog", Remedy::Host)), "{left:?}");
        assert!(left.contains(&("established_hash", Remedy::Start)), "{left:?}");
        assert!(step("established_hash").is_none(), "root may not write it either");
    }
}
