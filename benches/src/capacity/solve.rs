//! From what was read to coefficients. Pure.
//!
//! Differences where one run has what another has not; least squares of relative errors ([`super::fit`]) where several
//! costs come together. Each coefficient names the runs it comes from, how many there were, and how far they lay apart.

use antiphon_tuning::capacity::{Coefficients, Event, HEARTBEAT_INTERVAL_S as CLIENT_INTERVAL_S, Workload};
use anyhow::Context;

use super::{
    fit::{self, Equation, errors, least_squares, median, spread_percent},
    measure::{Chat, ChatShape, Ends, HEARTBEAT_INTERVAL_S, Idle},
};

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) idles: Vec<Idle>,
    pub(super) ends: Vec<Ends>,
    pub(super) chats: Vec<Chat>,
    /// Bytes of the log for a message beside its text, of large batches.
    pub(super) record_overhead_bytes: f64,
}

/// The workload of a chat, for the model.
pub(super) fn workload(shape: &ChatShape, messages_per_second: f64, running_seconds: f64) -> Workload {
    Workload {
        connections: shape.connections,
        groups: shape.connections / shape.group_members,
        group_members: shape.group_members,
        messages_per_second,
        text_bytes: shape.text_bytes,
        shards: shape.shards,
        lanes: 1,
        tls_share: if shape.tls { 1.0 } else { 0.0 },
        deflate: false,
        heartbeat_interval_s: HEARTBEAT_INTERVAL_S,
        running_seconds: Some(running_seconds),
    }
}

/// Puts what was measured into the coefficients, and returns lines about how well it fits.
pub(super) fn solve(readings: &Readings, coefficients: &mut Coefficients) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    memory(readings, coefficients, &mut notes)?;
    kernel(readings, coefficients)?;
    heartbeats(readings, coefficients)?;
    network(readings, coefficients, &mut notes)?;
    disk(readings, coefficients)?;
    processor(readings, coefficients, &mut notes)?;
    notes.extend(noise(readings));
    Ok(notes)
}

/// What a coefficient comes from.
fn source(what: &str, values: &[f64]) -> String {
    format!(
        "cargo xtask bench capacity: {what}; median of {}, which span {:.0} %",
        values.len(),
        spread_percent(values)
    )
}

fn fitted(what: &str, equations: &[Equation], costs: &[f64]) -> String {
    let worst = errors(equations, costs).map(f64::abs).fold(0.0, f64::max) * 100.0;
    let count = equations.len();
    format!("cargo xtask bench capacity: {what}; least squares of {count} readings, the worst missed by {worst:.0} %")
}

fn put_median(coefficients: &mut Coefficients, name: &str, what: &str, values: &[f64]) -> anyhow::Result<f64> {
    // A difference of two measurements that comes out negative is lost in their noise.
    let value = median(values).with_context(|| format!("nothing was read for {name}"))?.max(0.0);
    coefficients.measured(name, value, source(what, values))?;
    Ok(value)
}

fn put_fitted(
    coefficients: &mut Coefficients,
    names: &[&str],
    what: &str,
    equations: &[Equation],
) -> anyhow::Result<Vec<f64>> {
    let costs = least_squares(equations).with_context(|| format!("{} are not determined", names.join(", ")))?;
    for (name, cost) in names.iter().zip(&costs) {
        coefficients.measured(name, *cost, fitted(what, equations, &costs))?;
    }
    Ok(costs)
}

fn is_plain(chat: &&Chat) -> bool {
    !chat.shape.tls
}

/// The unknowns of memory, in the order of an equation's factors; after them comes what a message takes beside its
/// record.
const MEMORY: [&str; 9] = [
    "node_base",
    "shard_base",
    "node_connected",
    "shard_connected",
    "node_messaging",
    "shard_messaging",
    "node_connection",
    "conversations",
    "members",
];

/// What it is to be there, with connections, and with messages: of each a part of the node and one of each shard.
fn node_parts(shards: u64, connected: bool, messaging: bool) -> [f64; 6] {
    let both = |is_so: bool| if is_so { [1.0, shards as f64] } else { [0.0; 2] };
    let ([a, b], [c, d], [e, f]) = (both(true), both(connected), both(messaging));
    [a, b, c, d, e, f]
}

/// `counts`: connections, groups, members, messages.
fn equation(parts: &[f64; 6], counts: [f64; 4], measured: f64) -> Equation {
    Equation::new([&parts[..], &counts[..]].concat(), measured)
}

fn members(chat: &Chat) -> f64 {
    (chat.shape.connections / chat.shape.group_members * chat.shape.group_members) as f64
}

fn memory(readings: &Readings, coefficients: &mut Coefficients, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let (record, membership) = memtables(readings, coefficients)?;
    let equations = memory_equations(readings, record, membership);
    let what =
        "resident memory of nodes without connections, idle at rest, and in chats, less what memtable_bytes tells";
    let costs = least_squares(&equations).context("memory is not determined")?;
    let source = fitted(what, &equations, &costs);
    for (name, cost) in MEMORY.iter().zip(&costs) {
        coefficients.measured(name, *cost, source.clone())?;
    }
    // What a message takes beyond what the node counts of it, by the allocator and in indexes.
    let more = costs.last().copied().unwrap_or_default();
    let parts = format!("{source}; {record:.0} bytes by memtable_bytes, {more:.0} beside");
    coefficients.measured("memtables", record + more, parts)?;
    notes.push(format!("memory over all runs: {}", residuals(&equations, &costs)));

    let tls = readings.idles.iter().filter(|idle| idle.shape.tls).map(|idle| {
        let parts = node_parts(idle.shape.shards, true, false);
        let plain = equation(&parts, [idle.shape.connections as f64, 0.0, 0.0, 0.0], 0.0).predicted(&costs);
        (idle.rest.rss_bytes - plain) / idle.shape.connections as f64
    });
    let tls: Vec<f64> = tls.collect();
    put_median(coefficients, "tls_session", "idle-tls at rest, less what plain connections take", &tls)?;
    Ok(())
}

/// Bytes of memtables for a message beside its text, and for a member, as the node counts them.
fn memtables(readings: &Readings, coefficients: &mut Coefficients) -> anyhow::Result<(f64, f64)> {
    let chats = &readings.chats;
    let stored = |chat: &Chat| chat.window().grown("memtable_bytes") / chat.window().grown("acks");
    let each: Vec<f64> = chats.iter().map(|chat| stored(chat) - chat.shape.text_bytes as f64).collect();
    let record = median(&each).context("no chat was read")?;
    let made = |chat: &Chat| {
        let messages = chat.to.count("acks") * (record + chat.shape.text_bytes as f64);
        (chat.to.count("memtable_bytes") - messages) / members(chat)
    };
    // A member of a pair has half of a conversation besides; groups are what is asked about.
    let made: Vec<f64> = chats.iter().filter(|chat| chat.shape.group_members > 2).map(made).collect();
    let what = "memtable_bytes in chats of groups, less messages";
    Ok((record, put_median(coefficients, "memtables_members", what, &made)?))
}

/// Idle nodes at rest, chats at both ends of what is read of them, and all of them before their first connection.
fn memory_equations(readings: &Readings, record: f64, membership: f64) -> Vec<Equation> {
    let (idles, chats) = (&readings.idles, &readings.chats);
    let at_rest = idles.iter().filter(|idle| !idle.shape.tls).map(|idle| {
        let parts = node_parts(idle.shape.shards, true, false);
        equation(&parts, [idle.shape.connections as f64, 0.0, 0.0, 0.0], idle.rest.rss_bytes)
    });
    let moments = chats.iter().filter(is_plain).flat_map(|chat| [(chat, &chat.from), (chat, &chat.to)]);
    let busy = moments.map(|(chat, now)| {
        let (shape, messages) = (&chat.shape, now.count("acks"));
        let known = messages * (record + shape.text_bytes as f64) + members(chat) * membership;
        let groups = (shape.connections / shape.group_members) as f64;
        let counts = [shape.connections as f64, groups, members(chat), messages];
        equation(&node_parts(shape.shards, true, true), counts, now.rss_bytes - known)
    });
    let idle_empties = idles.iter().map(|idle| (idle.shape.shards, idle.empty.rss_bytes));
    let empties = idle_empties.chain(chats.iter().map(|chat| (chat.shape.shards, chat.empty.rss_bytes)));
    let empties = empties.map(|(shards, rss)| equation(&node_parts(shards, false, false), [0.0; 4], rss));
    at_rest.chain(busy).chain(empties).collect()
}

fn kernel(readings: &Readings, coefficients: &mut Coefficients) -> anyhow::Result<()> {
    let all = |of: fn(&Ends) -> f64| readings.ends.iter().map(of).collect::<Vec<f64>>();
    let plain = median(&all(|ends| ends.plain)).unwrap_or_default();
    let what = format!("slabs of quiet sessions over plain sockets, less a plain end of {plain:.0} bytes");
    put_median(coefficients, "kernel_connection", &what, &all(|ends| ends.node))?;
    let what = "slabs of idle connections at rest, less the node's end";
    put_median(coefficients, "generator_connection_bytes", what, &all(|ends| ends.generator))?;
    Ok(())
}

fn heartbeats(readings: &Readings, coefficients: &mut Coefficients) -> anyhow::Result<()> {
    let windows =
        || readings.idles.iter().filter(|idle| !idle.shape.tls && idle.shape.connections > 10_000).map(Idle::window);
    let each = |name: &'static str| windows().map(|it| it.grown(name) / it.grown("frames_in")).collect::<Vec<f64>>();
    let cpu: Vec<f64> = windows().map(|it| it.cores() * it.seconds() * 1e6 / it.grown("frames_in")).collect();
    let what = "CPU of idle-many and idle-shards from the last connect to rest, over heartbeats";
    put_median(coefficients, "heartbeat", what, &cpu)?;
    put_median(coefficients, "heartbeat_in_bytes", "bytes_in of the same", &each("bytes_in"))?;
    put_median(coefficients, "heartbeat_out_bytes", "bytes_out of the same", &each("bytes_out"))?;
    Ok(())
}

/// Heartbeats in a window: what came and was no send.
fn pings(chat: &Chat) -> f64 {
    (chat.window().grown("frames_in") - chat.window().grown("acks")).max(0.0)
}

fn network(readings: &Readings, coefficients: &mut Coefficients, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let value = |coefficients: &Coefficients, name| coefficients.value(name).unwrap_or_default();
    let (ping, pong) = (value(coefficients, "heartbeat_in_bytes"), value(coefficients, "heartbeat_out_bytes"));
    let plain = || readings.chats.iter().filter(is_plain);
    let send = plain().map(|chat| {
        let sends = chat.window().grown("bytes_in") - pings(chat) * ping;
        sends / chat.window().grown("acks") - chat.shape.text_bytes as f64
    });
    let send: Vec<f64> = send.collect();
    put_median(coefficients, "send_overhead_bytes", "bytes_in over acks in plain chats, less the text", &send)?;
    let out = plain().map(|chat| {
        let window = chat.window();
        let (acks, deliveries) = (window.grown("acks"), window.grown("deliveries"));
        let overhead = window.grown("bytes_out") - pings(chat) * pong - deliveries * chat.shape.text_bytes as f64;
        Equation::new([acks, deliveries], overhead)
    });
    let out: Vec<_> = out.collect();
    let names = ["ack_bytes", "delivery_overhead_bytes"];
    let costs = put_fitted(coefficients, &names, "bytes_out of plain chats, less texts", &out)?;
    notes.push(format!("network over plain chats: {}", residuals(&out, &costs)));
    Ok(())
}

fn disk(readings: &Readings, coefficients: &mut Coefficients) -> anyhow::Result<()> {
    let what = "a log of 20,480 messages in batches of 512, less texts".to_owned();
    coefficients.measured("record_overhead_bytes", readings.record_overhead_bytes, what)?;
    let plain = readings.chats.iter().filter(is_plain).map(Chat::window);
    let writes = plain.filter_map(|it| fit::write_seconds(it.per_second("acks"), it.per_second("commits")));
    let rates: Vec<f64> = writes.map(|seconds| 1.0 / seconds).collect();
    if !rates.is_empty() {
        let what =
            "what commits a second in plain chats say of how long one takes, with what the shard does between two";
        put_median(coefficients, "commits_per_second_max", what, &rates)?;
    }
    Ok(())
}

fn processor(readings: &Readings, coefficients: &mut Coefficients, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let heartbeat = coefficients.value("heartbeat").unwrap_or_default();
    let events = [Event::Message, Event::Delivery, Event::Handover];
    let work = |chat: &Chat| {
        let window = chat.window();
        let rate = window.per_second("acks");
        let rates = coefficients.rates(workload(&chat.shape, rate, window.seconds()));
        let mut factors: Vec<f64> = events.iter().map(|event| rates.of(*event)).collect();
        factors.push(window.per_second("commits"));
        let microseconds = window.cores() * 1e6 - pings(chat) / window.seconds() * heartbeat;
        (Equation::new(factors, microseconds), rates.of(Event::TlsFrame))
    };
    let plain: Vec<_> = readings.chats.iter().filter(is_plain).map(|chat| work(chat).0).collect();
    let tls: Vec<_> = readings.chats.iter().filter(|chat| chat.shape.tls).map(work).collect();
    let names = ["receive_message", "delivery", "handover", "commit"];
    let costs = put_fitted(coefficients, &names, "CPU of plain chats", &plain)?;
    notes.push(format!("processor over plain chats: {}", residuals(&plain, &costs)));
    let more = tls.iter().map(|(equation, frames)| (equation.measured - equation.predicted(&costs)) / frames);
    let more: Vec<f64> = more.collect();
    put_median(coefficients, "tls_frame", "CPU of the chat over TLS, less what the same takes without", &more)?;
    Ok(())
}

fn residuals(equations: &[Equation], costs: &[f64]) -> String {
    let all: Vec<String> = errors(equations, costs).map(|error| format!("{:+.0}", error * 100.0)).collect();
    format!("missed by {} %", all.join(" "))
}

/// How far apart the repeats of each run lie.
fn noise(readings: &Readings) -> Vec<String> {
    let mut lines = Vec::new();
    let mut names: Vec<&str> = readings.chats.iter().map(|chat| chat.shape.name).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let runs: Vec<&Chat> = readings.chats.iter().filter(|chat| chat.shape.name == name).collect();
        let cores: Vec<f64> = runs.iter().map(|chat| chat.window().cores()).collect();
        let late = runs.iter().filter(|chat| chat.late.is_some()).count();
        let middle = median(&cores).unwrap_or_default();
        let span = spread_percent(&cores);
        lines.push(format!(
            "noise of {name}: {middle:.3} cores, runs span {span:.0} %; generator late in {late} of {}",
            runs.len()
        ));
    }
    lines
}

/// How often the shipped client pings as against the load generator, for who compares.
pub(super) fn interval_note() -> String {
    format!("loadgen pings every {HEARTBEAT_INTERVAL_S} s, the shipped client every {CLIENT_INTERVAL_S} s")
}
