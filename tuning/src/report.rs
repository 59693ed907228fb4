//! What `tune` prints, for people and for machines. The JSON's fields are in docs/tuning.md: added to, never renamed.

use antiphon_tuning::{
    Machine,
    capacity::{Coefficients, Item, Prediction, Workload},
    check::{Limit, Row},
    facts::Surroundings,
    journal::{Outcome, Undone, What},
    plan::Plan,
    profile::{Asked, Profile},
    text,
};
use serde_json::json;

pub(crate) const AFTER_PERSIST: &str = "They take effect at the next start of the machine. At once: `sysctl --system`, \
     `systemd-tmpfiles --create`, `systemctl daemon-reload`; then start the node again.";

/// What `tune check` prints.
pub(crate) struct Check<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) asked: Asked,
    pub(crate) machine: &'a Machine,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) limits: &'a [Limit],
    pub(crate) shards_wanted: Option<u64>,
    pub(crate) rows: &'a [Row],
}

impl Check<'_> {
    pub(crate) fn print(&self, json: bool) {
        let Self { profile, asked, machine, surroundings, limits, shards_wanted, rows } = self;
        if json {
            let report = json!({
                "schema": "antiphon-tune-check/1", "profile": profile.name, "connections": asked.connections,
                "shards": asked.shards, "machine": machine, "container": surroundings.container,
                "limits": limits, "shards_wanted": shards_wanted, "tuners": rows,
            });
            println!("{report}");
            return;
        }
        println!("{} for {} connections on {machine}", profile.name, text::grouped(asked.connections));
        if !surroundings.container.is_empty() {
            println!("Signs of a container: {}.", surroundings.container.join(", "));
        }
        println!("\n{}", text::table(rows));
        print!("{}{}", text::holds(limits, *asked, *shards_wanted), text::remedies(rows));
    }
}

pub(crate) fn plan(profile: &Profile, plan: &Plan, json: bool) {
    if json {
        println!(
            "{}",
            json!({ "schema": "antiphon-tune-plan/1", "profile": profile.name, "steps": plan.steps, "left": plan.left })
        );
        return;
    }
    if plan.steps.is_empty() {
        println!("{}: `tune apply` would change nothing.", profile.name);
    } else {
        println!("{}: `tune apply` would change {} files.", profile.name, plan.steps.len());
    }
    for step in &plan.steps {
        println!("\n{}  {}\n  {} → {}", step.tuner, step.path, step.current, step.target);
        println!("  why: {}\n  from: {}", step.reason, step.value_source);
    }
    print_left(plan);
}

fn print_left(plan: &Plan) {
    if !plan.left.is_empty() {
        println!("\nNot by `tune apply`:");
    }
    for left in &plan.left {
        let who = text::with_how(text::remedy(left.remedy), left.how.as_deref());
        println!("  {}  {} → {}  {who}: {}", left.tuner, left.current, left.target, left.reason);
    }
}

pub(crate) fn applied(profile: &Profile, plan: &Plan, outcomes: &[Outcome], json: bool) {
    if json {
        println!(
            "{}",
            json!({ "schema": "antiphon-tune-apply/1", "profile": profile.name, "outcomes": outcomes, "left": plan.left })
        );
        return;
    }
    if outcomes.is_empty() {
        println!("{}: there is nothing to change.", profile.name);
    }
    print_outcomes(outcomes);
    print_left(plan);
    if !outcomes.is_empty() {
        println!("\n`tune undo` puts everything back; `tune persist {}` makes it outlast a restart.", profile.name);
    }
}

pub(crate) fn undone(undone: Option<&Undone>, json: bool) {
    if json {
        println!("{}", json!({ "schema": "antiphon-tune-undo/1", "undone": undone }));
        return;
    }
    let Some(undone) = undone else {
        println!("There is nothing to undo.");
        return;
    };
    if undone.other_boot {
        println!(
            "The machine was started again since {} was applied; the kernel began with its own values.",
            undone.profile
        );
    }
    print_outcomes(&undone.outcomes);
    if undone.is_complete() {
        println!("\n{} is undone.", undone.profile);
    } else {
        println!("\nNot everything is as before. `tune undo --force` also overwrites what somebody else changed.");
    }
}

fn print_outcomes(outcomes: &[Outcome]) {
    for Outcome { tuner, path, what } in outcomes {
        match what {
            What::Changed { shown } => println!("changed   {tuner}  {path}  now {shown}"),
            What::Restored { shown } => println!("restored  {tuner}  {path}  now {shown}"),
            What::AsBefore => println!("as before {tuner}  {path}"),
            What::Gone => println!("gone      {tuner}  {path}"),
            What::Kept { shown, expected } => println!(
                "KEPT      {tuner}  {path}  somebody else changed it: it shows {shown:?}, apply left {expected:?}"
            ),
            What::Failed { error } => println!("FAILED    {tuner}  {path}  {error}"),
        }
    }
}

pub(crate) fn capacity(
    coefficients: &Coefficients,
    load: Workload,
    prediction: &Prediction,
    short: &[String],
    json: bool,
) {
    if json {
        let report = json!({
            "schema": "antiphon-tune-capacity/2", "measured_on": coefficients.measured_on, "workload": load,
            "prediction": prediction, "does_not_fit": short,
        });
        println!("{report}");
        return;
    }
    let Workload { connections, groups, group_members, messages_per_second, text_bytes, shards, lanes, .. } = load;
    println!(
        "{} connections, {} groups of {group_members}, {messages_per_second} messages a second of {text_bytes} bytes, {shards} shards, {lanes} lanes",
        text::grouped(connections),
        text::grouped(groups),
    );
    println!(
        "{:.0} % with TLS, deflate {}, a heartbeat each {} s, {}\n",
        load.tls_share * 100.0,
        if load.deflate { "on" } else { "off" },
        load.heartbeat_interval_s,
        load.running_seconds.map_or("caches full".to_owned(), |seconds| format!("after {seconds} s on a fresh node")),
    );
    let total = prediction.user_bytes.saturating_add(prediction.kernel_bytes);
    println!(
        "memory     {} ({} of the node, {} of the kernel)",
        text::bytes(total),
        text::bytes(prediction.user_bytes),
        text::bytes(prediction.kernel_bytes)
    );
    print_items(&prediction.memory, |item| text::bytes(item.total as u64), "B");
    println!("processor  {:.2} cores", prediction.cores);
    print_items(&prediction.processor, |item| format!("{:.2}", item.total), "µs");
    println!(
        "disk       {:.1} MB/s written, {:.0} log writes a second, {} of log, history grows by {:.1} GB a day",
        prediction.disk_write_bytes_per_second / 1e6,
        prediction.commits_per_second,
        text::bytes(prediction.log_bytes),
        prediction.history_bytes_per_day / 1e9,
    );
    println!(
        "network    {:.1} Mbit/s in, {:.1} Mbit/s out, {:.0} deliveries a second\n",
        prediction.network_in_bytes_per_second * 8.0 / 1e6,
        prediction.network_out_bytes_per_second * 8.0 / 1e6,
        prediction.deliveries_per_second,
    );
    println!("Coefficients of {}.", coefficients.measured_on);
    if !prediction.assumed.is_empty() {
        println!("Not measured yet, but assumed: {}.", prediction.assumed.join(", "));
    }
    match short {
        [] => println!("It fits this machine, bursts and the load's own clients aside."),
        _ => short.iter().for_each(|line| println!("DOES NOT FIT  {line}")),
    }
}

fn print_items(items: &[Item], total: impl Fn(&Item) -> String, unit: &str) {
    for item in items {
        println!(
            "  {:<28} {:>12} × {:>11} {unit} = {}",
            item.name,
            text::grouped(item.count as u64),
            item.each,
            total(item)
        );
    }
}
