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
