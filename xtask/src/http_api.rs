//! The HTTP API held to its description by schemathesis: what a node answers to calls that the description allows, and to those that it does not.
//!
//! The suite makes calls from docs/openapi.json by itself: from its examples, at the edges of its types, by chance from a fixed seed, and
//! along its links; first about anything, and then, with what the description allows, about one group that there is. So that it cannot pass
//! by being refused everywhere, every call that is described has to be done a few times.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    process::{Server, free_port, program, program_within, root, run as run_program},
    provision::python_program,
    test::{antiphon, empty_folder},
};

/// Calls by chance of each kind; about a minute in all.
const EXAMPLES_MAX: &str = "60";

/// Fewer than so many of a kind that were done would mean that hardly more than its example was.
const DONE_MIN: u64 = 2;

/// The group that the description's example of a group makes, and its owner.
const KNOWN: &str = "
[parameters]
\"path.user\" = \"alice\"
\"path.conversation\" = \"e30b0452-db38-8232-afa8-8d6db072f3d2\"
";

const SEED: &str = "20261128";

/// How long the suite may take.
const WITHIN_S: u32 = 300;

const METHODS: &[&str] = &["get", "post", "put", "patch", "delete"];

/// How often a call was made, and how often it was done.
#[derive(Debug, Default, Clone, Copy)]
struct Fared {
    made: u64,
    done: u64,
}

/// A line of the report, as far as it is looked at: what else there is may be any JSON, such as numbers that fit in none of ours.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "ScenarioFinished")]
    scenario: Option<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    recorder: Recorder,
}

#[derive(Deserialize)]
struct Recorder {
    #[serde(default)]
    cases: BTreeMap<String, Case>,
    #[serde(default)]
    interactions: BTreeMap<String, Interaction>,
}

#[derive(Deserialize)]
struct Case {
    value: Call,
}

#[derive(Deserialize)]
struct Call {
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct Interaction {
    response: Option<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    status_code: u16,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let (antiphon, data) = (antiphon()?, empty_folder("http-api")?);
    let work = empty_folder("http-api-report")?;
    let xtask = root().join("xtask");
    let addresses: Vec<String> =
        (0..3).map(|_| Ok(format!("127.0.0.1:{}", free_port()?))).collect::<anyhow::Result<_>>()?;
    let [listen, console, api] = addresses.as_slice() else { bail!("three addresses") };
    let mut serve = program(&antiphon);
    serve.args(["serve", "--dev", "--shards", "2", "--listen", listen, "--console", console, "--data"]).arg(&data);
    serve.args(["--set", &format!("api.listen={api}"), "--set", "api.requests_per_second_max=0"]);
    let _server = Server::start(&mut serve)?;
    // The key comes by the environment: it stays out of the log, as it should anywhere.
    let key = fs::read_to_string(data.join("dev-api.key"))?;
    let config = fs::read_to_string(xtask.join("schemathesis.toml"))?;
    // The examples of a group and of a message first: its others are about that group, and the message in it.
    let group: &[&str] = &["--include-operation-id", "createConversation", "--phases", "examples"];
    let message: &[&str] = &["--include-operation-id", "sendMessage", "--phases", "examples"];
    let known: &[&str] = &["--mode", "positive", "--phases", "examples,coverage,fuzzing"];
    let runs = [("group", "", group), ("message", "", message), ("anything", "", &[]), ("known", KNOWN, known)];
    let mut reports = Vec::new();
    for (name, more, arguments) in runs {
        let (config_file, report) = (work.join(format!("{name}.toml")), work.join(format!("{name}.ndjson")));
        fs::write(&config_file, format!("{config}{more}"))?;
        let mut suite = program_within(WITHIN_S, python_program("schemathesis"));
        // It leaves things where it is started, and its hooks' bytecode beside them.
        suite.current_dir(&work).env("PYTHONDONTWRITEBYTECODE", "1").env("ANTIPHON_API_KEY", key.trim());
        suite.env("SCHEMATHESIS_HOOKS", xtask.join("schemathesis_hooks.py")).arg("--config-file").arg(config_file);
        suite.arg("run").arg(format!("http://{api}/openapi.json")).args(["--no-color", "--continue-on-failure"]);
        suite.args(["--seed", SEED, "--max-examples", EXAMPLES_MAX]).args(arguments);
        run_program(suite.args(["--report", "ndjson", "--report-ndjson-path"]).arg(&report))?;
        reports.push(report);
    }
    judge(&reports)
}

/// Reads what was done, one event a line.
fn judge(reports: &[PathBuf]) -> anyhow::Result<()> {
    let description: Value = serde_json::from_str(&fs::read_to_string(root().join("docs/openapi.json"))?)?;
    let mut fared: BTreeMap<String, Fared> = BTreeMap::new();
    for (path, item) in description["paths"].as_object().context("the description has no paths")? {
        let methods = item.as_object().into_iter().flatten().filter(|(name, _)| METHODS.contains(&name.as_str()));
        // The suite reads the description by itself, and does not call for it.
        let calls = methods.filter(|_| path != "/openapi.json");
        fared.extend(calls.map(|(method, _)| (format!("{} {path}", method.to_uppercase()), Fared::default())));
    }
    let texts: Vec<String> = reports.iter().map(fs::read_to_string).collect::<Result<_, _>>().context("a report")?;
    for line in texts.iter().flat_map(|text| text.lines()) {
        let event: Event = serde_json::from_str(line)?;
        let Some(Scenario { recorder }) = event.scenario else { continue };
        for (id, Case { value }) in recorder.cases {
            let answer = recorder.interactions.get(&id).and_then(|interaction| interaction.response.as_ref());
            if let (Some(fared), Some(answer)) = (fared.get_mut(&format!("{} {}", value.method, value.path)), answer) {
                fared.made += 1;
                fared.done += u64::from(answer.status_code / 100 == 2);
            }
        }
    }
    for (call, Fared { made, done }) in &fared {
        println!("{call}: {made} calls, {done} done");
    }
    let sum = |of: fn(&Fared) -> u64| fared.values().map(of).sum::<u64>();
    println!("{} kinds of calls, {} calls, {} done", fared.len(), sum(|of| of.made), sum(|of| of.done));
    let rare: Vec<&str> = fared.iter().filter(|(_, of)| of.done < DONE_MIN).map(|(call, _)| call.as_str()).collect();
    if !rare.is_empty() {
        bail!("done less than {DONE_MIN} times: {}", rare.join(", "));
    }
    Ok(())
}
