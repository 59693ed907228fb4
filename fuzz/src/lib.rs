//! Every decoder that meets bytes from outside or from disk, by name. A fuzzer and the replay of committed corpora share this table.

/// A target: takes any bytes; a panic is a bug.
pub type Target = fn(&[u8]);

/// Name and function of every target. The name is also that of its corpus and of its file in `fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("http", antiphon_gateway::core::fuzzing::fuzz_http),
    ("proxy", antiphon_gateway::core::fuzzing::fuzz_proxy),
    ("websocket", antiphon_gateway::core::fuzzing::fuzz_websocket),
    ("json_request", antiphon_wire::fuzzing::fuzz_json_request),
    ("json_server", antiphon_wire::fuzzing::fuzz_json_server),
    ("binary_request", antiphon_wire::fuzzing::fuzz_binary_request),
    ("binary_server", antiphon_wire::fuzzing::fuzz_binary_server),
    ("session", antiphon_wire::fuzzing::fuzz_session),
    ("segment", antiphon_engine::fuzzing::fuzz_segment),
    ("manifest", antiphon_engine::fuzzing::fuzz_manifest),
    ("log", antiphon_engine::fuzzing::fuzz_log),
];

/// Feeds a target.
///
/// # Panics
/// If there is no such target, or the target found a bug.
pub fn feed(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of the table");
    target(data);
}
