//! The benchmarks of the log engine run from end to end, quickly: what they measure is checked by themselves, and what
//! they leave is here.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

/// Runs one in a folder of its own; its results, and its picture if it draws one.
fn run(bench: &str, arguments: &[&str]) -> (Value, Option<String>) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("quick-{bench}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let json = folder.join("results.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon-benches"));
    command.args([bench, "--quick", "--seed", "7", "--folder"]).arg(folder.join("stores")).arg("--json").arg(&json);
    let output = command.args(arguments).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(
        said.contains("seed      7")
            && said.contains("machine ")
            && said.contains("read back: ") | said.contains("read back "),
        "{said}"
    );
    let results: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(results["header"]["bench"], bench);
    let left: Vec<_> = fs::read_dir(folder.join("stores")).unwrap().collect();
    assert!(left.is_empty(), "stores are left: {left:?}");
    let picture = fs::read_to_string(json.with_extension("svg")).ok();
    fs::remove_dir_all(&folder).unwrap();
    (results, picture)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn steady() {
    let (results, picture) = run("steady", &[]);
    let phases = results["phases"].as_array().unwrap();
    assert_eq!((&phases[0]["kind"], &phases[1]["kind"]), (&"closed".into(), &"open".into()));
    for phase in phases {
        assert_eq!(phase["appends"]["count"], phase["verified"]["messages"]);
        assert!(number(&phase["appends"]["p999_ns"]) <= number(&phase["appends"]["max_ns"]) * 1.01);
        // A log keeps at least what it is given, and quick stores are so small that they are flushed.
        assert!(number(&phase["written"]["log"]) > 200.0 && number(&phase["written"]["flush"]) > 100.0, "{phase}");
    }
    assert!(number(&phases[1]["rate_offered"]) > 0.0);
    assert!(picture.unwrap().contains("closed: latency"));
}

#[test]
fn mixed() {
    let (results, picture) = run("mixed", &[]);
    let kinds = results["kinds"].as_array().unwrap();
    let names: Vec<&str> = kinds.iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(names, ["append", "latest page", "page from anywhere", "read pointer"]);
    assert!(kinds.iter().all(|kind| number(&kind["count"]) > 10.0), "{kinds:?}");
    assert!(number(&results["moved_pointers"]) > 50.0);
    assert_eq!(results["verified_pointers"], 400);
    assert!(picture.unwrap().contains("read pointer: latency"));
}

#[test]
fn open() {
    let (results, picture) = run("open", &[]);
    let samples = results["samples"].as_array().unwrap();
    let sides: Vec<&str> = samples.iter().map(|sample| sample["side"].as_str().unwrap()).collect();
    assert_eq!(sides, ["engine", "bare lane", "bare lane", "engine"], "the sides take turns");
    assert_eq!(samples[0]["appends"]["count"], samples[1]["appends"]["count"]);
    assert!(number(&results["record_bytes"]) > 200.0);
    assert!(picture.unwrap().contains("bare lane: latency"));
}

#[test]
fn conversations() {
    let (results, _) = run("conversations", &["--conversations", "300"]);
    assert_eq!((&results["conversations"], &results["messages"]), (&300.into(), &3_000.into()));
    let used = &results["full"]["used"];
    assert!(
        number(&used["loads"]) >= 300.0 && number(&used["conversations_loaded"]) < 300.0,
        "they leave memory: {used}"
    );
    assert!(number(&used["resident_bytes"]) > number(&results["empty"]["used"]["resident_bytes"]) / 2.0);
    assert_eq!(results["full"]["verified"]["messages"], 3_000);
}

#[test]
fn reopen() {
    let (results, _) = run("reopen", &[]);
    let samples = results["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 4);
    for sample in samples {
        let figure = |name: &str| number(&sample[name]);
        assert!(figure("accept_ns") > figure("durable_ns") && figure("durable_ns") > figure("open_ns"), "{sample}");
    }
    assert!(number(&results["verified"]["messages"]) >= 4_000.0);
}
