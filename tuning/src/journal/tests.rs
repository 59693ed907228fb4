//! Apply and undo with a fault at every write.

use super::*;
use crate::{
    facts::{Facts, tests::server},
    memory_system::{Fault, MemorySystem},
    plan::{Plan, plan},
    profile::{Asked, Profile},
};

const FOLDER: &str = "/var/lib/antiphon-tune";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const HUGEPAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

fn planned(system: &MemorySystem) -> Plan {
    let asked = Asked { connections: 500_000, shards: 4, memory_bytes: None };
    plan(&Profile::built_in("low-latency").unwrap(), &Facts::read(system), asked)
}

fn apply_all(system: &mut MemorySystem) -> Result<Vec<Outcome>, JournalError> {
    let plan = planned(system);
    assert!(plan.steps.len() > 15, "{}", plan.steps.len());
    apply(system, &plan, "low-latency", 7, FOLDER)
}

#[test]
fn undo_restores_every_byte_in_reverse_order() {
    let mut system = server();
    let before = system.kernel();
    let applied = apply_all(&mut system).unwrap();
    assert!(applied.iter().all(|outcome| matches!(outcome.what, What::Changed { .. })), "{applied:?}");
    assert_eq!(system.shown(PORTS), "16384\t65535\n");
    assert_eq!(system.shown(HUGEPAGES), "always [madvise] never\n");
    assert!(planned(&system).steps.is_empty(), "everything is as wanted");
    let undone = undo(&mut system, FOLDER, false).unwrap().unwrap();
    assert_eq!(system.kernel(), before);
    let order = |outcomes: &[Outcome]| outcomes.iter().map(|outcome| outcome.path.clone()).collect::<Vec<_>>();
    let mut expected = order(&applied);
    expected.reverse();
    assert_eq!(order(&undone.outcomes), expected);
    assert!(undone.is_complete() && !undone.other_boot);
    assert_eq!(undo(&mut system, FOLDER, false).unwrap(), None, "there is nothing left to undo");
    apply_all(&mut system).unwrap();
}

#[test]
fn nothing_is_changed_before_the_journal_is_stored() {
    for fault in [Fault::Fails, Fault::DiesBefore, Fault::DiesWithin] {
        let mut system = server();
        let before = system.kernel();
        system.fault_at(0, fault);
        assert!(apply_all(&mut system).is_err());
        system.restart();
        assert_eq!(system.kernel(), before);
        assert_eq!(undo(&mut system, FOLDER, false).unwrap(), None);
    }
}

#[test]
fn a_fault_at_any_write_of_apply_is_undone() {
    let writes = {
        let mut system = server();
        apply_all(&mut system).unwrap();
        system.writes()
    };
    for write in 0..writes {
        for fault in [Fault::Fails, Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
            let mut system = server();
            let before = system.kernel();
            system.fault_at(write, fault);
            let _ = apply_all(&mut system);
            system.restart();
            if let Some(undone) = undo(&mut system, FOLDER, false).unwrap() {
                assert!(undone.is_complete(), "write {write}, {fault:?}: {undone:?}");
            }
            assert_eq!(system.kernel(), before, "write {write}, {fault:?}");
        }
    }
}

#[test]
fn a_fault_at_any_write_of_undo_is_undone_by_the_next() {
    let mut applied = server();
    let before = applied.kernel();
    apply_all(&mut applied).unwrap();
    let writes = {
        let mut system = applied.clone();
        undo(&mut system, FOLDER, false).unwrap();
        system.writes() - applied.writes()
    };
    assert!(writes > 30, "{writes}");
    for first in 0..writes {
        for fault in [Fault::Fails, Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
            let mut system = applied.clone();
            system.fault_at(first, fault);
            let _ = undo(&mut system, FOLDER, false);
            system.restart();
            // And once more in the middle of the second try.
            system.fault_at(first / 2, fault);
            let _ = undo(&mut system, FOLDER, false);
            system.restart();
            undo(&mut system, FOLDER, false).unwrap();
            assert_eq!(system.kernel(), before, "write {first}, {fault:?}");
            assert_eq!(undo(&mut system, FOLDER, false).unwrap(), None);
        }
    }
}

#[test]
fn what_somebody_else_changed_is_kept_unless_forced() {
    let mut system = server();
    let before = system.kernel();
    apply_all(&mut system).unwrap();
    system.put(PORTS, "20000\t60000\n");
    let undone = undo(&mut system, FOLDER, false).unwrap().unwrap();
    let kept: Vec<_> = undone.outcomes.iter().filter(|outcome| matches!(outcome.what, What::Kept { .. })).collect();
    assert!(matches!(kept[..], [outcome] if outcome.path == PORTS), "{kept:?}");
    assert_eq!(system.shown(PORTS), "20000\t60000\n");
    let again = undo(&mut system, FOLDER, false).unwrap().unwrap();
    assert_eq!(again.outcomes.len(), 1, "only what is not undone yet");
    assert!(undo(&mut system, FOLDER, true).unwrap().unwrap().is_complete());
    assert_eq!(system.kernel(), before);
}

#[test]
fn a_step_that_the_kernel_refuses_stops_no_other() {
    let mut system = server();
    let before = system.kernel();
    system.stubborn.insert(PORTS.to_owned());
    let outcomes = apply_all(&mut system).unwrap();
    let failed = outcomes.iter().filter(|outcome| matches!(outcome.what, What::Failed { .. })).count();
    assert_eq!(failed, 1);
    undo(&mut system, FOLDER, false).unwrap();
    assert_eq!(system.kernel(), before);
}

#[test]
fn a_value_that_changed_since_the_plan_is_not_overwritten() {
    let mut system = server();
    let plan = planned(&system);
    system.put(PORTS, "20000\t60000\n");
    let outcomes = apply(&mut system, &plan, "p", 7, FOLDER).unwrap();
    assert!(outcomes.iter().any(|outcome| outcome.path == PORTS && matches!(outcome.what, What::Failed { .. })));
    assert_eq!(system.shown(PORTS), "20000\t60000\n");
}

#[test]
fn an_applied_profile_must_be_undone_first() {
    let mut system = server();
    apply_all(&mut system).unwrap();
    let plan = planned(&server());
    let error = apply(&mut system, &plan, "p", 7, FOLDER).unwrap_err().to_string();
    assert!(error.contains("low-latency is applied") && error.contains("`tune undo` first"), "{error}");
}

#[test]
fn a_device_that_went_away_needs_nothing() {
    let mut system = server();
    apply_all(&mut system).unwrap();
    system.files.remove("/sys/block/vda/queue/scheduler");
    let undone = undo(&mut system, FOLDER, false).unwrap().unwrap();
    assert!(undone.is_complete());
    assert!(undone.outcomes.iter().any(|outcome| outcome.what == What::Gone));
}

#[test]
fn a_mask_that_the_kernel_fills_up_is_ours() {
    let mut system = server();
    let path = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
    apply_all(&mut system).unwrap();
    let journal = system.shown("/var/lib/antiphon-tune/journal");
    system.put("/var/lib/antiphon-tune/journal", journal.split_inclusive('\n').next().unwrap());
    system.put(path, "00000000,0000000f\n");
    assert!(undo(&mut system, FOLDER, false).unwrap().unwrap().is_complete());
    assert_eq!(system.shown(path), "0\n");
}

#[test]
fn another_boot_is_told() {
    let mut system = server();
    system.put(BOOT, "one\n");
    apply_all(&mut system).unwrap();
    let journal = system.shown("/var/lib/antiphon-tune/journal");
    let mut system = server();
    system.put(BOOT, "two\n");
    system.put("/var/lib/antiphon-tune/journal", &journal);
    let undone = undo(&mut system, FOLDER, false).unwrap().unwrap();
    assert!(undone.other_boot && undone.outcomes.iter().all(|outcome| outcome.what == What::AsBefore));
}

#[test]
fn a_damaged_journal_is_refused_with_its_line() {
    let mut good = server();
    apply_all(&mut good).unwrap();
    let journal = good.shown("/var/lib/antiphon-tune/journal");
    let cases = [
        (String::new(), "journal:1: it is empty"),
        ("{}\n".to_owned(), "journal:1: missing field"),
        (journal.replacen("journal/1", "journal/9", 1), "journal:1: its format is"),
        (format!("{journal}nonsense\n"), "journal:"),
        (format!("{journal}{{\"undone\":{{\"step\":999}}}}\n"), "there is no step 999"),
    ];
    for (text, expected) in cases {
        let mut system = good.clone();
        let before = system.kernel();
        system.put("/var/lib/antiphon-tune/journal", &text);
        let error = undo(&mut system, FOLDER, true).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
        assert_eq!(system.kernel(), before);
    }
    for length in 0..journal.len() {
        let mut system = good.clone();
        system.put("/var/lib/antiphon-tune/journal", &journal[..length]);
        let _ = undo(&mut system, FOLDER, false);
    }
}
