//! Holds documents to what they describe.

use std::{fs, path::Path};

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn fenced(text: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_readme_shows_the_clients_that_are_tested() {
    let readme = read("README.md");
    assert_eq!(fenced(&readme, "python"), [read("clients/examples/quickstart.py")]);
    assert_eq!(fenced(&readme, "js"), [read("clients/examples/quickstart.mjs")]);
}

#[test]
fn ci_runs_what_the_readme_says() {
    let ci = read(".ci/run");
    let commands: Vec<&str> = ci.lines().filter(|line| line.starts_with("cargo ")).collect();
    assert_eq!(commands, ["cargo xtask lint", "cargo xtask test"]);
    assert!(read("README.md").contains("cargo xtask test"));
}

#[test]
fn every_fuzz_target_has_a_file_and_a_binary() {
    let (table, manifest) = (read("fuzz/src/lib.rs"), read("fuzz/Cargo.toml"));
    let names: Vec<&str> =
        table.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    assert!(!names.is_empty());
    for name in &names {
        assert!(read(&format!("fuzz/fuzz_targets/{name}.rs")).contains(&format!("feed(\"{name}\"")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), names.len() + 1);
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_proves_something_is_there() {
    let proofs = read("docs/proofs.md");
    let mut count = 0;
    for (file, test) in quoted(&proofs).filter_map(|text| text.split_once(": ")) {
        let source = read(file);
        let starts = format!("fn {test}(");
        let is_there = source.split("#[test]").skip(1).any(|rest| rest.trim_start().starts_with(&starts));
        assert!(is_there, "{file} has no test {test}");
        count += 1;
    }
    assert!(count > 100, "{count} tests");
}

#[test]
fn every_frame_and_every_call_has_its_proof() {
    let (proofs, kinds) = (read("docs/proofs.md"), read("wire/tests/tables/mod.rs"));
    let (_, kinds) = kinds.split_once("KINDS").expect("the table of kinds");
    let (frames, calls) = proofs.split_once("## Calls of the HTTP API").expect("two tables");
    let kinds: Vec<&str> = kinds.split("(kind::").skip(1).filter_map(|rest| rest.split('"').nth(1)).collect();
    assert!(kinds.len() > 30, "{kinds:?}");
    for kind in kinds {
        assert!(quoted(frames).any(|text| text == kind), "the frame {kind} has no line");
    }
    let description: serde_json::Value = serde_json::from_str(&read("docs/openapi.json")).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        let methods =
            item.as_object().unwrap().keys().filter(|name| !matches!(name.as_str(), "parameters" | "summary"));
        for method in methods.map(|name| name.to_uppercase()) {
            let is_of =
                |line: &&str| line.contains(&format!("{path}`")) && quoted(line).any(|text| text.starts_with(&method));
            assert!(calls.lines().any(|line| is_of(&line)), "{method} {path} has no line");
        }
    }
}
