//! `cargo xtask test`: every test there is, in stages.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    conformance, fuzz, http_api, power_cuts,
    process::{Server, cargo, free_port, is_installed, output, program, program_within, root, run as run_program},
    provision::{self, python_program},
    stages::{Stage, run_all},
};

/// What `cargo xtask test` consists of, in order.
const STAGES: &[(&str, &str)] = &[
    ("provision", "installs what the others need"),
    ("workspace", "unit, model and scenario tests of every crate"),
    ("simulator", "whole nodes under faults, many seeds"),
    ("power-cuts", "the engine on ext4 whose power is cut, 20 times; where that can be done"),
    ("process", "the real binary, killed under load"),
    ("autobahn", "WebSocket conformance, sections 1 to 7, 10, 12 and 13, against antiphon echo, plain and over TLS"),
    (
        "clients",
        "the TypeScript client alone, it and the Rust one on a node, the README's Python and JavaScript, plain and over TLS",
    ),
    ("conformance", "what the protocol asks of clients, of both of ours"),
    ("http-api", "the HTTP API held to its description by schemathesis, from a fixed seed"),
    ("browser", "two people in Chromium"),
    ("corpora", "every fuzz target on its committed corpus"),
];

pub(crate) fn list() {
    for (name, what) in STAGES {
        println!("{name:<11} {what}");
    }
}

pub(crate) fn run(chosen: &[String], seeds: u64, autobahn_whole: bool) -> anyhow::Result<()> {
    if let Some(unknown) = chosen.iter().find(|name| !STAGES.iter().any(|(known, _)| known == name)) {
        list();
        bail!("no stage {unknown}");
    }
    let stage = |name: &'static str| -> Stage<'static> {
        match name {
            "provision" => Stage::new(name, provision::run),
            "workspace" => Stage::new(name, workspace),
            "simulator" => Stage::new(name, move || simulator(seeds)),
            "power-cuts" => Stage::new(name, power_cuts::stage),
            "process" => Stage::new(name, processes),
            "autobahn" => Stage::new(name, move || autobahn(autobahn_whole)),
            "clients" => Stage::new(name, clients),
            "conformance" => Stage::new(name, || conformance::run(&[])),
            "http-api" => Stage::new(name, http_api::run),
            "browser" => Stage::new(name, browser),
            _ => Stage::new(name, fuzz::replay),
        }
    };
    let names = STAGES.iter().map(|(name, _)| *name);
    run_all(names.filter(|name| chosen.is_empty() || chosen.iter().any(|one| one == name)).map(stage).collect())
}

/// Runs the simulator, on all cores unless the arguments say otherwise. Planted bugs are compiled in only when one is asked for.
pub(crate) fn simulate(arguments: &[String]) -> anyhow::Result<()> {
    let has = |flag: &str| arguments.iter().any(|one| one == flag || one.starts_with(&format!("{flag}=")));
    let mut command = cargo(["run", "--profile", "simulation", "--locked", "--package", "antiphon-simulator"]);
    // As the program that cuts power is built, so that what they share is built once.
    let features = if has("--plant") || has("--plants") { "power-cuts,planted" } else { "power-cuts" };
    command.args(["--features", features]);
    command.arg("--").args(arguments);
    if !has("--threads") {
        command.args(["--threads", &available_parallelism().map_or(1, usize::from).to_string()]);
    }
    run_program(&mut command)
}

/// Many seeds, and the planted bugs.
fn simulator(seeds: u64) -> anyhow::Result<()> {
    simulate(&["--seeds".to_owned(), seeds.to_string()])?;
    simulate(&["--plants".to_owned()])
}

/// What every build of the workspace's tests has: with other features much would be built anew.
const WORKSPACE: [&str; 4] = ["--workspace", "--locked", "--features", "antiphon-simulator/power-cuts"];

/// Process tests are a stage of their own: they want the machine for themselves.
fn workspace() -> anyhow::Result<()> {
    let runner: &[&str] = if is_installed("cargo-nextest") { &["nextest", "run"] } else { &["test"] };
    let mut command = cargo(runner);
    command.args(WORKSPACE).args(["--no-fail-fast", "--lib", "--bins"]);
    for name in integration_tests()? {
        command.args(["--test", &name]);
    }
    run_program(&mut command)?;
    run_program(cargo(["test"]).args(WORKSPACE).args(["--doc", "--quiet"]))
}

/// The released program under tests that are built as all others are: they only speak to it.
fn processes() -> anyhow::Result<()> {
    let program = antiphon()?;
    // Cargo fails if the pattern matches no test.
    let mut command = cargo(["test"]);
    command.args(WORKSPACE).args(["--test", "process_*", "--no-fail-fast", "--", "--test-threads", "1"]);
    run_program(command.env("ANTIPHON_UNDER_TEST", program))
}

/// The workspace's integration tests but for the process tests.
fn integration_tests() -> anyhow::Result<Vec<String>> {
    let metadata = output(&mut cargo(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let targets = list(&metadata, "packages").into_iter().flat_map(|package| list(&package, "targets"));
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let mut names: Vec<String> = tests.filter_map(|test| test["name"].as_str().map(str::to_owned)).collect();
    names.retain(|name| !name.starts_with("process_"));
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The release binary, built if need be.
pub(crate) fn antiphon() -> anyhow::Result<PathBuf> {
    run_program(&mut cargo(["build", "--release", "--locked", "--package", "antiphon-gateway", "--bin", "antiphon"]))?;
    Ok(target_folder()?.join("release/antiphon"))
}

/// Builds the examples of the Rust client, and tells their folder.
pub(crate) fn rust_examples() -> anyhow::Result<PathBuf> {
    run_program(&mut cargo(["build", "--locked", "--package", "antiphon-client", "--examples"]))?;
    Ok(target_folder()?.join("debug/examples"))
}

fn target_folder() -> anyhow::Result<PathBuf> {
    let metadata = output(&mut cargo(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata has no target_directory")?;
    Ok(PathBuf::from(folder))
}

/// A folder of our own under `target/`, empty.
pub(crate) fn empty_folder(name: &str) -> anyhow::Result<PathBuf> {
    let path = root().join("target/xtask").join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

const AUTOBAHN_SECTIONS: &[&str] = &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// Sections 12 and 13, permessage-deflate: five kinds of data, then seven kinds of offers, each with 18 sizes of messages.
const AUTOBAHN_DEFLATE: &[(u32, u32)] = &[(12, 5), (13, 7)];

/// Sizes that always run: 16 B to 4 KiB, and 8 KiB in fragments of 256 B. The others send up to 128 KiB a thousand times over.
const AUTOBAHN_DEFLATE_SIZES: &[u32] = &[1, 2, 3, 4, 5, 11];

/// Fewer cases than these would mean that the suite didn't run: Autobahn has 246 in the sections without compression.
const AUTOBAHN_CASES_MIN: usize = 240;

fn autobahn(whole: bool) -> anyhow::Result<()> {
    let antiphon = antiphon()?;
    let address = || -> anyhow::Result<String> { Ok(format!("127.0.0.1:{}", free_port()?)) };
    let mut sections: Vec<String> = AUTOBAHN_SECTIONS.iter().map(|section| (*section).to_owned()).collect();
    if whole {
        sections.push("9.*".to_owned());
    }
    let mut cases = sections.clone();
    for (section, groups) in AUTOBAHN_DEFLATE {
        for group in 1..=*groups {
            let sizes = (1..=18).filter(|size| whole || AUTOBAHN_DEFLATE_SIZES.contains(size));
            cases.extend(sizes.map(|size| format!("{section}.{group}.{size}")));
        }
    }
    let cases_min = AUTOBAHN_CASES_MIN + cases.len() - sections.len();
    let suite = |address: &str| -> anyhow::Result<()> {
        let report = empty_folder("autobahn")?;
        let mut suite = program_within(if whole { 7_200 } else { 1_200 }, python_program("python"));
        suite.args(["xtask/autobahn.py", "-m", "fuzzingclient", "-p", "4"]);
        for case in &cases {
            suite.args(["-i", case]);
        }
        run_program(suite.arg("-o").arg(&report).arg(address))?;
        judge_autobahn(&report, cases_min)
    };
    let plain = address()?;
    {
        let _server = Server::start(program(&antiphon).args(["echo", "--deflate", "--listen", &plain]))?;
        suite(&plain)?;
    }
    // The suite speaks no TLS; a relay of another make does it for it.
    let (tls, folder) = (address()?, empty_folder("certificate")?);
    run_program(program(&antiphon).args(["certificate", "--out"]).arg(&folder))?;
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let mut echo = program(&antiphon);
    echo.args(["echo", "--deflate", "--listen", &tls, "--tls-certificate"]).arg(&certificate);
    let _server = Server::start(echo.arg("--tls-key").arg(&key))?;
    let port = free_port()?.to_string();
    let mut relay = program(python_program("python"));
    let _relay = Server::start(relay.args(["xtask/tls_relay.py", &port, &tls]).arg(&certificate))?;
    suite(&format!("127.0.0.1:{port}"))
}

/// Reads `index.json`: agent → case → `behavior` and `behaviorClose`.
fn judge_autobahn(report: &Path, cases_min: usize) -> anyhow::Result<()> {
    let index = fs::read_to_string(report.join("index.json")).context("the suite left no index.json")?;
    let index: Value = serde_json::from_str(&index)?;
    let cases = index.as_object().into_iter().flatten().filter_map(|(_, cases)| cases.as_object()).flatten();
    let (mut count, mut failed, mut not_strict) = (0, Vec::new(), 0);
    for (name, case) in cases {
        count += 1;
        for key in ["behavior", "behaviorClose"] {
            match case[key].as_str() {
                Some("OK" | "INFORMATIONAL") => {}
                Some("NON-STRICT") => not_strict += 1,
                other => failed.push(format!("{name} {key}: {}", other.unwrap_or("missing"))),
            }
        }
    }
    println!("{count} cases, {not_strict} not strict, {} failed", failed.len());
    if !failed.is_empty() {
        bail!("{}", failed.join(", "));
    }
    if count < cases_min {
        bail!("only {count} cases ran, there are at least {cases_min}");
    }
    Ok(())
}

/// Runs the TypeScript client's own tests; then, on a node with and without TLS, that client and the Rust one, those that the README shows, each
/// beside a user who answers it, and one that checks what becomes of a message that it changes.
fn clients() -> anyhow::Result<()> {
    let typescript = root().join("clients/typescript");
    run_program(program("npm").args(["test", "--silent"]).current_dir(&typescript))?;
    run_program(program("npm").args(["run", "check", "--silent"]).current_dir(&typescript))?;
    let (antiphon, examples) = (antiphon()?, rust_examples()?);
    let data = empty_folder("clients")?;
    let addresses: Vec<String> =
        (0..3).map(|_| Ok(format!("127.0.0.1:{}", free_port()?))).collect::<anyhow::Result<_>>()?;
    let [listen, console, tls] = addresses.as_slice() else { bail!("three addresses") };
    let mut serve = program(&antiphon);
    serve.args(["serve", "--dev", "--listen", listen, "--console", console, "--tls-listen", tls, "--data"]).arg(&data);
    let _server = Server::start(&mut serve)?;
    let authority = data.join("dev-certificate.pem");
    for url in [format!("ws://{listen}/"), format!("wss://{tls}/")] {
        let of_example = |name: &str| Some(format!("clients/examples/{name}"));
        for (name, program_of, script, variable) in [
            ("quickstart.py", python_program("python"), of_example("quickstart.py"), "SSL_CERT_FILE"),
            ("quickstart.mjs", PathBuf::from("node"), of_example("quickstart.mjs"), "NODE_EXTRA_CA_CERTS"),
            ("quickstart (Rust)", examples.join("quickstart"), None, "SSL_CERT_FILE"),
        ] {
            let token = output(program(&antiphon).args(["token", "--user", "alice", "--data"]).arg(&data))?;
            let mut client = program_within(60, program_of);
            client.env(variable, &authority).args(script).args([&url, token.trim(), "bob"]);
            // The token stays out of the log, as it should anywhere.
            println!("$ {name} {url} …");
            let said = output(&mut client)?;
            print!("{said}");
            // Each prints what it received, and asks for the history last: its own message is to be there.
            let last = said.lines().last().unwrap_or_default();
            if !(last.contains("history") && last.contains("hello from ")) {
                bail!("{name} didn't read its message back");
            }
        }
        let token = output(program(&antiphon).args(["token", "--user", "alice", "--data"]).arg(&data))?;
        let mut client = program_within(60, python_program("python"));
        client.env("SSL_CERT_FILE", &authority).arg("clients/examples/changes.py").args([&url, token.trim(), "bob"]);
        println!("$ changes.py {url} …");
        print!("{}", output(&mut client)?);
        let mut in_typescript = program_within(120, "node");
        in_typescript.env("NODE_EXTRA_CA_CERTS", &authority).current_dir(&typescript).args(["tests/live.mjs", &url]);
        in_typescript.arg(empty_folder("typescript")?);
        let mut in_rust = program_within(120, examples.join("live"));
        in_rust.env("SSL_CERT_FILE", &authority).arg(&url);
        for (name, live) in [("live.mjs", &mut in_typescript), ("live (Rust)", &mut in_rust)] {
            for (user, variable) in [("alice", "ALICE_TOKEN"), ("bob", "BOB_TOKEN")] {
                let token = output(program(&antiphon).args(["token", "--user", user, "--data"]).arg(&data))?;
                live.env(variable, token.trim());
            }
            println!("$ {name} {url} …");
            print!("{}", output(live)?);
        }
    }
    Ok(())
}

/// The browser tests start and restart nodes themselves; they are told the binary and a folder.
fn browser() -> anyhow::Result<()> {
    let antiphon = antiphon()?;
    let data = empty_folder("browser")?;
    let tests = root().join("gateway/page/tests");
    let screenshots = root().join("target/xtask/screenshots");
    for name in ["browser.mjs", "operator.mjs"] {
        let test = tests.join(name);
        if !test.is_file() {
            bail!("{} is not there", test.display());
        }
        let mut browser = program_within(900, "node");
        browser.arg(test).arg("--screenshots").arg(&screenshots);
        run_program(browser.env("ANTIPHON_BINARY", &antiphon).env("ANTIPHON_TEST_FOLDER", &data))?;
    }
    println!("screenshots: {}", screenshots.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn report(cases: &[(&str, &str, &str)]) -> PathBuf {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let folder = std::env::temp_dir().join(format!("antiphon-autobahn-{}-{nanos}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let cases: serde_json::Map<String, Value> = cases
            .iter()
            .map(|(name, one, two)| ((*name).to_owned(), serde_json::json!({"behavior": one, "behaviorClose": two})))
            .collect();
        fs::write(folder.join("index.json"), serde_json::json!({"echo": cases}).to_string()).unwrap();
        folder
    }

    #[test]
    fn a_report_with_a_failure_or_too_few_cases_fails() {
        let check = |cases: &[(&str, &str, &str)]| {
            judge_autobahn(&report(cases), AUTOBAHN_CASES_MIN).map_err(|error| error.to_string())
        };
        assert!(
            check(&[("1.1.1", "OK", "OK"), ("6.2.1", "FAILED", "OK")]).unwrap_err().contains("6.2.1 behavior: FAILED")
        );
        assert!(check(&[("1.1.1", "OK", "WRONG CODE")]).unwrap_err().contains("behaviorClose: WRONG CODE"));
        assert!(check(&[("1.1.1", "OK", "OK")]).unwrap_err().contains("only 1 cases"));
        let names: Vec<String> = (0..AUTOBAHN_CASES_MIN).map(|case| format!("1.{case}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), "NON-STRICT", "INFORMATIONAL")).collect();
        assert_eq!(check(&all), Ok(()));
    }

    #[test]
    fn every_integration_test_is_found() {
        let names = integration_tests().unwrap();
        assert!(names.contains(&"edges".to_owned()) && names.contains(&"command_line".to_owned()), "{names:?}");
    }
}
