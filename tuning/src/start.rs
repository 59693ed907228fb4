//! What would stop a node that is about to start. For `antiphon serve`; it says, and leaves the decision to its caller.

use crate::{
    check::{Verdict, check, shards_wanted},
    facts::Facts,
    profile::{Asked, Profile},
    system::{Directory, System},
    text,
};

/// One line for each thing that would stop a node with so many connections in so many shards on this machine, each with what helps.
/// None: nothing that is known would. It reads a few dozen files below /proc and /sys, changes nothing, and takes some milliseconds.
///
/// `connections` is what the operator counts on: with the generous default of `limits.connections_max` most machines have something to
/// say, so warn rather than refuse.
#[must_use]
pub fn would_stop(connections: u64, shards: u64) -> Vec<String> {
    would_stop_on(&Directory::this_machine(), connections, shards)
}

/// The same for any machine.
#[must_use]
pub fn would_stop_on(system: &dyn System, connections: u64, shards: u64) -> Vec<String> {
    let Ok(profile) = Profile::built_in("chat-500k") else { return Vec::new() };
    let facts = Facts::read(system);
    let asked = Asked { connections, shards, memory_bytes: facts.memory_bytes() };
    let rows = check(&profile, &facts, asked);
    let short = rows.iter().filter(|row| row.verdict == Verdict::Required);
    short
        .map(|row| {
            let mut line = text::short(row);
            if row.tuner == "open_files" {
                line.push_str(&match shards_wanted(&profile, &facts, asked) {
                    Some(shards) => format!("; or take {shards} shards (--shards {shards})"),
                    None => "; no number of shards makes up for it".to_owned(),
                });
            }
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::server;

    #[test]
    fn each_line_says_what_stops_and_what_helps() {
        let mut system = server();
        let lines = would_stop_on(&system, 100_000, 4);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("open_files is 1024, wanted ≥ 26506: "), "{lines:?}");
        assert!(lines[0].contains("`tune persist`") && lines[0].ends_with("(--shards 137)"), "{lines:?}");
        system.put("/proc/sys/kernel/io_uring_disabled", "2\n");
        assert_eq!(would_stop_on(&system, 1_000, 4).len(), 1);
        assert!(would_stop_on(&server(), 1_000, 4).is_empty());
        assert!(would_stop_on(&server(), 50_000_000, 4).iter().any(|line| line.starts_with("memory ")));
    }
}
