//! Holds the workspace to its edges: who may depend on whom, what logic may never touch, and where `unsafe` may stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Our crates and what of ours each may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("antiphon-wire", &[]),
    ("antiphon-tuning", &[]),
    ("antiphon-bench-store", &[]),
    ("antiphon-engine", &["antiphon-wire"]),
    ("antiphon-gateway", &["antiphon-wire", "antiphon-engine", "antiphon-tuning"]),
    ("antiphon-loadgen", &["antiphon-wire", "antiphon-tuning"]),
    ("antiphon-client", &["antiphon-wire"]),
    // It looks at clients from outside, as the author of any other would.
    ("antiphon-conformance", &[]),
    ("antiphon-simulator", &["antiphon-wire", "antiphon-engine", "antiphon-gateway"]),
    (
        "antiphon-benches",
        &[
            "antiphon-wire",
            "antiphon-engine",
            "antiphon-gateway",
            "antiphon-loadgen",
            "antiphon-tuning",
            "antiphon-simulator",
            "antiphon-bench-store",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that a crate must not depend on directly, not even in its tests.
const FORBIDDEN: &[(&[&str], &[&str])] = &[
    (
        &["antiphon-wire", "antiphon-engine"],
        &[
            "glommio",
            "tokio",
            "io-uring",
            "libc",
            "nix",
            "rustix",
            "socket2",
            "mio",
            "async-std",
            "smol",
            "getrandom",
            "rand",
        ],
    ),
    (&["antiphon-gateway"], &["getrandom", "rand"]),
    // Engines and servers that we compare ourselves with live in benches only.
    (
        &[
            "antiphon-wire",
            "antiphon-engine",
            "antiphon-gateway",
            "antiphon-loadgen",
            "antiphon-simulator",
            "antiphon-tuning",
        ],
        &[
            "rocksdb",
            "fjall",
            "redb",
            "sled",
            "lmdb",
            "heed",
            "rusqlite",
            "tungstenite",
            "tokio-tungstenite",
            "fastwebsockets",
        ],
    ),
];

/// Folders of logic: no clock, file, socket, thread, ring, runtime or OS randomness.
const PURE: &[&str] = &["gateway/src/core", "wire/src", "engine/src"];

/// What logic never mentions.
const IMPURE_WORDS: &[&str] = &[
    "uring",
    "io_uring",
    "glommio",
    "tokio",
    "libc",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "UNIX_EPOCH",
    "getrandom",
    "thread_rng",
    "RandomState",
    "/dev/urandom",
];

/// Where `unsafe` may stand.
const UNSAFE_ALLOWED: &[&str] = &[
    "gateway/src/uring/",
    "loadgen/src/driver/",
    "loadgen/src/ring",
    "wire/src/archive",
    // LMDB cannot be opened without it.
    "benches/foreign/engines/src/lmdb.rs",
];

const SOURCES: &[&str] =
    &["wire", "engine", "gateway", "loadgen", "clients", "simulator", "benches", "tuning", "xtask", "fuzz"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| (name(package), package["dependencies"].as_array().unwrap().iter().map(name).collect()))
        .collect()
}

fn wrong_edges(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, dependencies) in graph {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == package) else {
            wrong.push(format!("{package} is not in the table of edges"));
            continue;
        };
        for dependency in dependencies {
            // A crate may name itself to have a feature in its tests.
            let ours = graph.contains_key(dependency) && dependency != package;
            if ours && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{package} must not depend on {dependency}"));
            }
            for (packages, forbidden) in FORBIDDEN {
                if packages.contains(&package.as_str()) && forbidden.contains(&dependency.as_str()) {
                    wrong.push(format!("{package} must not depend on {dependency}"));
                }
            }
        }
    }
    wrong
}

/// The part of a source that is compiled into the product, line by line: tests stand last and are left out, as are comments.
fn product_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = source.lines().collect();
    // A test module, inline or in a file of its own; other items under cfg(test) don't end the product.
    let end = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().contains("mod "))
        .filter(|at| lines[at + 1].trim_end().ends_with('{'))
        .unwrap_or(lines.len());
    let lines = lines.into_iter().take(end).enumerate();
    lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `word` stands in `line`, not as part of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back().is_some_and(is_name);
        let after = line[start + word.len()..].chars().next().is_some_and(is_name);
        // A path's beginning, such as std::net::Tcp, may go on.
        !before && (!after || word.ends_with("Tcp") || word.ends_with("Udp"))
    })
}

/// `use std::{fs, time::Instant}` hides `std::fs`; so the parts of a grouped import of std are looked for, too.
fn grouped_import_of(source: &str, module: &str) -> bool {
    source.split("use std::{").skip(1).any(|rest| {
        let group = rest.split(';').next().unwrap_or_default();
        let mut depth = 0;
        let mut part = String::new();
        let mut parts = Vec::new();
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
                _ if depth == 0 => part.push(character),
                _ => {}
            }
        }
        parts.push(part);
        parts.iter().any(|part| part.trim().split("::").next() == Some(module))
    })
}

fn impurities(name: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, text) in product_lines(source) {
        found.extend(
            IMPURE_WORDS
                .iter()
                .filter(|word| mentions(text, word))
                .map(|word| format!("{name}:{line} mentions {word}")),
        );
    }
    let product: String = product_lines(source).map(|(_, line)| format!("{line}\n")).collect();
    for module in ["fs", "os", "thread", "process", "env"] {
        if grouped_import_of(&product, module) {
            found.push(format!("{name} imports std::{module}"));
        }
    }
    found
}

fn unsafe_lines(name: &str, source: &str) -> Vec<String> {
    let lines = source.lines().enumerate();
    // Strings and attributes that name it are no use of it.
    let used = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        mentions(code, "unsafe") && !code.contains('"') && !code.trim_start().starts_with("#")
    };
    lines.filter(|(_, line)| used(line)).map(|(index, _)| format!("{name}:{} is unsafe", index + 1)).collect()
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !["target", "node_modules"].iter().any(|name| path.ends_with(name)) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Files that exist for tests only: they may do what the logic may not.
fn is_for_tests(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    parts.iter().any(|part| {
        let part = part.trim_end_matches(".rs");
        part == "tests" || part.ends_with("_tests") || part == "simulation"
    })
}

#[test]
fn crates_depend_on_what_they_may() {
    let graph = graph();
    assert_eq!(wrong_edges(&graph), [""; 0]);
    assert_eq!(graph.len(), EDGES.len(), "every crate of the table is there");
}

#[test]
fn logic_touches_nothing_outside() {
    let mut found = Vec::new();
    let mut count = 0;
    for folder in PURE {
        for (name, source) in rust_files(folder).iter().filter(|(name, _)| !is_for_tests(name)) {
            count += 1;
            found.extend(impurities(name, source));
        }
    }
    assert_eq!(found, [""; 0]);
    assert!(count > 10, "only {count} files of logic were looked at");
}

#[test]
fn unsafe_stands_where_it_may() {
    let mut found = Vec::new();
    for folder in SOURCES {
        for (name, source) in rust_files(folder) {
            if !UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)) {
                found.extend(unsafe_lines(&name, &source));
            }
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_checks_can_fail() {
    for snippet in [
        "use std::fs;",
        "use std::{fs, io};",
        "use std::{collections::BTreeMap, thread::{self, JoinHandle}};",
        "use std::time::Instant;",
        "    let now = std::time::SystemTime::now();",
        "std::net::TcpStream::connect(address)",
        "crate::uring::Ring::new()",
        "use glommio::LocalExecutor;",
        "getrandom::fill(&mut bytes)",
        "std::thread::spawn(|| ())",
        "HashMap::<u8, u8, RandomState>::new()",
    ] {
        assert!(!impurities("x.rs", snippet).is_empty(), "{snippet}");
    }
    for snippet in [
        "// std::fs is not for us",
        "use std::{collections::{BTreeMap, HashMap}, fmt};",
        "let instantly = 1; let during = 2;",
        "use std::net::IpAddr;",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
    ] {
        assert_eq!(impurities("x.rs", snippet), [""; 0], "{snippet}");
    }
    for snippet in ["unsafe { f() }", "    let x = unsafe{ f() };", "unsafe impl Send for X {}", "pub unsafe fn f() {}"]
    {
        assert_eq!(unsafe_lines("x.rs", snippet).len(), 1, "{snippet}");
    }
    for snippet in ["#![deny(unsafe_op_in_unsafe_fn)]", "// unsafe", "let word = \"unsafe\";", "#[unsafe(no_mangle)]"] {
        assert!(unsafe_lines("x.rs", snippet).is_empty(), "{snippet}");
    }
    let graph = |package: &str, dependencies: &[&str]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> =
            EDGES.iter().map(|(name, _)| ((*name).to_owned(), BTreeSet::new())).collect();
        graph.insert(package.to_owned(), dependencies.iter().map(|name| (*name).to_owned()).collect());
        graph
    };
    for (package, dependency) in [
        ("antiphon-wire", "antiphon-engine"),
        ("antiphon-engine", "antiphon-gateway"),
        ("antiphon-engine", "glommio"),
        ("antiphon-engine", "tokio"),
        ("antiphon-engine", "libc"),
        ("antiphon-loadgen", "antiphon-gateway"),
        ("antiphon-tuning", "antiphon-wire"),
        ("antiphon-gateway", "rocksdb"),
        ("something-new", "serde"),
    ] {
        assert_eq!(wrong_edges(&graph(package, &[dependency])).len(), 1, "{package} → {dependency}");
    }
    assert_eq!(wrong_edges(&graph("antiphon-benches", &["rocksdb", "antiphon-engine"])), [""; 0]);
}
