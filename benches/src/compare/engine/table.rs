//! The comparison of engines as tables of a document. Pure.

use std::fmt::Write;

use antiphon_bench_store::{
    PAGE_ITEMS, Report,
    job::{Append, Latencies, Load, Read, Reopen, Usage},
};

use super::{Contender, Part, Results, Sample, Step};
use crate::compare::{
    figures::Figure,
    table::{grouped, spread, time},
};

/// A measurement whose threads wanted a core and had none for more of the time than this is called disturbed.
const WAITED_MAX: f64 = 0.05;

/// The whole text: what was measured on what, and a table for each part.
pub(super) fn markdown(results: &Results) -> String {
    let header = &results.header;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, {} cores, kernel {}; {}; revision {}, {}; seed {}, {} rounds, {} conversations, texts of {} bytes, load average {} \
         at the start and {} at the end; {}.\nEngines: {}.\n",
        header.machine.cpu,
        header.machine.cores,
        header.machine.kernel,
        header.file_system,
        header.revision,
        header.date,
        header.seed,
        header.rounds,
        grouped(f64::from(header.conversations)),
        header.text_bytes,
        header.load_average_before,
        header.load_average_after,
        disturbance(results),
        header.engines.join(", "),
    );
    for part in &results.parts {
        match part {
            Part::Append => appends(&mut text, results),
            Part::Read => reads(&mut text, results),
            Part::Space => spaces(&mut text, results),
            Part::Reopen => reopens(&mut text, results),
        }
    }
    text
}

/// How much of this was measured while something else wanted the same cores. An engine with several threads waits for
/// its own, too, so this looks at ours and at the bare loop, which have one that works.
fn disturbance(results: &Results) -> String {
    let appends = results.samples.iter().filter_map(|sample| match (&sample.report, sample.engine) {
        (Some(Report::Append(append)), Contender::Antiphon | Contender::Bare) => Some(waited(append)),
        _ => None,
    });
    let (disturbed, count) =
        appends.fold((0, 0), |(disturbed, count), share| (disturbed + usize::from(share > WAITED_MAX), count + 1));
    let limit = WAITED_MAX * 100.0;
    match (disturbed, count) {
        (_, 0) => "whether something else ran is not known".to_owned(),
        (0, _) => format!("neither we nor the bare loop waited for a core for more than {limit:.0} % of an append"),
        _ => format!(
            "**{disturbed} of {count} appends of ours and the bare loop's waited for a core for over {limit:.0} % of the time**"
        ),
    }
}

fn waited(append: &Append) -> f64 {
    append.usage.waited_ns as f64 / append.latencies.sum_ns.max(1) as f64
}

/// What an engine gave at a step in each round.
fn rounds<'a, T>(
    results: &'a Results,
    engine: Contender,
    step: Step,
    of: fn(&'a Report) -> Option<&'a T>,
) -> Vec<Option<&'a T>> {
    let mut rounds = vec![None; results.header.rounds];
    for sample in results.samples.iter().filter(|sample| sample.engine == engine && sample.step == step) {
        if let Some(place) = rounds.get_mut(sample.round) {
            *place = sample.report.as_ref().and_then(of);
        }
    }
    rounds
}

/// Engines that were tried at a step, in the order of the tables.
fn tried(results: &Results, step: Step) -> impl Iterator<Item = Contender> {
    let is = move |engine: &Contender| {
        let is_tried = |sample: &Sample| sample.engine == *engine && sample.step == step;
        results.samples.iter().any(is_tried)
    };
    Contender::ALL.into_iter().filter(is)
}

/// The median over rounds, in a form.
fn middle<T>(rounds: &[Option<&T>], of: impl Fn(&T) -> f64, form: impl Fn(f64) -> String) -> String {
    Figure::of(rounds.iter().flatten().map(|report| of(report))).map_or_else(String::new, |figure| form(figure.median))
}

/// The median over rounds with least and most.
fn middle_of<T>(rounds: &[Option<&T>], of: impl Fn(&T) -> f64, form: impl Fn(f64) -> String) -> String {
    Figure::of(rounds.iter().flatten().map(|report| of(report))).map_or_else(String::new, |figure| {
        format!("{} ({}–{})", form(figure.median), form(figure.least), form(figure.most))
    })
}

/// One engine's figure divided by another's, round by round.
fn ratio<T>(own: &[Option<&T>], other: &[Option<&T>], of: impl Fn(&T) -> f64) -> String {
    let values = |rounds: &[Option<&T>]| -> Vec<Option<f64>> { rounds.iter().map(|report| report.map(&of)).collect() };
    Figure::ratio(&values(own), &values(other)).map_or_else(|| "–".to_owned(), |ratio| spread(ratio, 2, ""))
}

/// Of a row: how often an engine failed; a whole row if it always did.
fn failures<T>(text: &mut String, engine: Contender, rounds: &[Option<&T>], columns: usize) -> Option<String> {
    let failed = rounds.iter().filter(|report| report.is_none()).count();
    if failed == rounds.len() {
        let _ = writeln!(text, "{} | failed in all rounds |{}", engine.name(), " |".repeat(columns));
        return None;
    }
    Some(if failed == 0 { engine.name().to_owned() } else { format!("{}, failed in {failed} rounds", engine.name()) })
}

fn append_of(report: &Report) -> Option<&Append> {
    if let Report::Append(append) = report { Some(append) } else { None }
}

fn load_of(report: &Report) -> Option<&Load> {
    if let Report::Load(load) = report { Some(load) } else { None }
}

fn read_of(report: &Report) -> Option<&Read> {
    if let Report::Read(read) = report { Some(read) } else { None }
}

fn reopen_of(report: &Report) -> Option<&Reopen> {
    if let Report::Reopen(reopen) = report { Some(reopen) } else { None }
}

fn rate(messages: u64, latencies: &Latencies) -> f64 {
    messages as f64 / latencies.sum_ns.max(1) as f64 * 1e9
}

/// What was written for each message, the median over rounds: exact, or between two bounds where the page cache lies
/// between.
fn written<T>(engine: Contender, rounds: &[Option<&T>], of: impl Fn(&T) -> (Usage, u64), row_bytes: usize) -> String {
    let a_message = |bytes: fn(&Usage) -> u64| {
        Figure::of(rounds.iter().flatten().map(|report| {
            let (usage, messages) = of(report);
            bytes(&usage) as f64 / messages.max(1) as f64
        }))
    };
    let least = a_message(|usage| usage.write_call_bytes.min(usage.write_bytes));
    let (Some(least), Some(most)) = (least, a_message(|usage| usage.write_bytes)) else { return String::new() };
    if engine.is_direct() {
        return times(most.median, row_bytes);
    }
    format!("{}–{}", grouped(least.median), times(most.median, row_bytes))
}

/// Bytes, and how many times those of a row they are.
fn times(value: f64, row_bytes: usize) -> String {
    format!("{}, {:.1} ×", bytes(value), value / row_bytes as f64)
}

fn bytes(value: f64) -> String {
    format!("{} B", grouped(value))
}

fn mebibytes(value: f64) -> String {
    format!("{} MiB", grouped(value / (1 << 20) as f64))
}

fn appends(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "| messages a batch | engine | messages a second | to the bare loop | to Antiphon | a batch, p50 | p99 | CPU a message | \
         written a message |\n|---:|---|---|---|---|---:|---:|---:|---:|"
    );
    let mut batches: Vec<usize> = Vec::new();
    for sample in &results.samples {
        if let Step::Append(batch) = sample.step
            && !batches.contains(&batch)
        {
            batches.push(batch);
        }
    }
    for batch in batches {
        let step = Step::Append(batch);
        let of = |engine| rounds(results, engine, step, append_of);
        let per_second = |append: &Append| rate(append.messages, &append.latencies);
        for engine in tried(results, step) {
            let own = of(engine);
            let _ = write!(text, "| {batch} | ");
            let Some(name) = failures(text, engine, &own, 6) else { continue };
            let to = |other| if other == engine { "–".to_owned() } else { ratio(&own, &of(other), per_second) };
            let _ = writeln!(
                text,
                "{name} | {} | {} | {} | {} | {} | {} | {} |",
                middle_of(&own, per_second, grouped),
                to(Contender::Bare),
                to(Contender::Antiphon),
                middle(&own, |append| append.latencies.p50_ns as f64, time),
                middle(&own, |append| append.latencies.p99_ns as f64, time),
                middle(&own, |append| append.usage.cpu_ns as f64 / append.messages as f64, time),
                written(engine, &own, |append| (append.usage, append.messages), results.header.row_bytes),
            );
        }
    }
    text.push('\n');
}

fn reads(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{} pages of {PAGE_ITEMS} among {} messages.\n\n\
         | page | engine | cold, p50 | cold to Antiphon | cold, p99 | to a bare read | fetched from the disk a page | warm, p50 \
         | warm to Antiphon | warm, p99 | CPU a warm page | memory |\n|---|---|---|---|---:|---|---:|---|---|---:|---:|---:|",
        grouped(f64::from(results.header.pages)),
        grouped(results.header.messages as f64),
    );
    let bare = rounds(results, Contender::Bare, Step::Latest, read_of);
    for (step, page) in [(Step::Latest, "latest"), (Step::History, "anywhere")] {
        let of = |engine| rounds(results, engine, step, read_of);
        for engine in tried(results, step) {
            let own = of(engine);
            let _ = write!(text, "| {page} | ");
            let Some(name) = failures(text, engine, &own, 9) else { continue };
            let name = if engine == Contender::Bare { "bare loop, a block of 16 KiB" } else { &name };
            let to = |figure: fn(&Read) -> f64| {
                if engine == Contender::Antiphon {
                    "–".to_owned()
                } else {
                    ratio(&own, &of(Contender::Antiphon), figure)
                }
            };
            let (cold, warm) = (|read: &Read| read.cold.p50_ns as f64, |read: &Read| read.warm.p50_ns as f64);
            let a_page = |bytes: u64, latencies: &Latencies| bytes as f64 / latencies.count.max(1) as f64;
            let _ = writeln!(
                text,
                "{name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                middle_of(&own, cold, time),
                to(cold),
                middle(&own, |read| read.cold.p99_ns as f64, time),
                if engine == Contender::Bare {
                    "–".to_owned()
                } else {
                    ratio(&own, &bare, |read| read.cold.p99_ns as f64)
                },
                middle(&own, |read| a_page(read.cold_usage.read_bytes, &read.cold), bytes),
                middle_of(&own, warm, time),
                to(warm),
                middle(&own, |read| read.warm.p99_ns as f64, time),
                middle(&own, |read| a_page(read.warm_usage.cpu_ns, &read.warm), time),
                middle(&own, |read| read.resident_peak_bytes as f64, mebibytes),
            );
        }
    }
    text.push('\n');
}

fn spaces(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "{} messages in batches of {}; a row of one is {} bytes, key and value, and × is to that. Logs in brackets are \
         bounded, whatever is stored; {}.\n\n\
         | engine | messages a second | to Antiphon | written a message when the last one was durable | when settled \
         | by the disk, when settled | on disk a message when the last one was durable (of it logs) \
         | when settled (of it logs) | settled after | memory |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        grouped(results.header.messages as f64),
        super::LOAD_BATCH,
        results.header.row_bytes,
        if results.header.device_shared {
            "**the disk holds the root file system, too, so others' writes are in its figures**"
        } else {
            "the disk holds nothing else"
        },
    );
    let row_bytes = results.header.row_bytes;
    let of = |engine| rounds(results, engine, Step::Load, load_of);
    for engine in tried(results, Step::Load) {
        let own = of(engine);
        text.push_str("| ");
        let Some(name) = failures(text, engine, &own, 8) else { continue };
        let per_second = |load: &Load| rate(load.messages, &load.latencies);
        let to = if engine == Contender::Antiphon {
            "–".to_owned()
        } else {
            ratio(&own, &of(Contender::Antiphon), per_second)
        };
        let a_message = |of: fn(&Load) -> u64| middle(&own, |load| of(load) as f64 / load.messages as f64, bytes);
        let device: Vec<Option<&Load>> =
            own.iter().map(|load| load.filter(|load| load.settled_usage.device_write_bytes.is_some())).collect();
        let by_disk = middle(
            &device,
            |load| load.settled_usage.device_write_bytes.unwrap_or(0) as f64 / load.messages as f64,
            |value| times(value, row_bytes),
        );
        let unsettled = if own.iter().flatten().all(|load| load.settled) { "" } else { ", not in all rounds" };
        let _ = writeln!(
            text,
            "{name} | {} | {to} | {} | {} | {} | {} ({}) | {} ({}) | {}{unsettled} | {} |",
            middle_of(&own, per_second, grouped),
            written(engine, &own, |load| (load.usage, load.messages), row_bytes),
            written(engine, &own, |load| (load.settled_usage, load.messages), row_bytes),
            if by_disk.is_empty() { "–" } else { &by_disk },
            a_message(|load| load.space.bytes),
            a_message(|load| load.space.log_bytes),
            a_message(|load| load.settled_space.bytes),
            a_message(|load| load.settled_space.log_bytes),
            middle(&own, |load| load.settle_ns as f64, time),
            middle(&own, |load| load.resident_peak_bytes as f64, mebibytes),
        );
    }
    text.push('\n');
}

fn reopens(text: &mut String, results: &Results) {
    let _ = writeln!(
        text,
        "Killed with {} messages and a few more in the log; its files are not in the page cache.\n\n\
         | engine | open | to Antiphon | first page read after | first message durable after | fetched from the disk | CPU | memory |\n\
         |---|---|---|---:|---:|---:|---:|---:|",
        grouped(results.header.messages as f64),
    );
    let of = |engine| rounds(results, engine, Step::Reopen, reopen_of);
    for engine in tried(results, Step::Reopen) {
        let own = of(engine);
        text.push_str("| ");
        let Some(name) = failures(text, engine, &own, 6) else { continue };
        let open = |reopen: &Reopen| reopen.open_ns as f64;
        let to =
            if engine == Contender::Antiphon { "–".to_owned() } else { ratio(&own, &of(Contender::Antiphon), open) };
        let _ = writeln!(
            text,
            "{name} | {} | {to} | {} | {} | {} | {} | {} |",
            middle_of(&own, open, time),
            middle(&own, |reopen| reopen.first_read_ns as f64, time),
            middle(&own, |reopen| reopen.first_write_ns as f64, time),
            middle(&own, |reopen| reopen.usage.read_bytes as f64, mebibytes),
            middle(&own, |reopen| reopen.usage.cpu_ns as f64, time),
            middle(&own, |reopen| reopen.resident_peak_bytes as f64, mebibytes),
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::engine::{Header, VERSION};

    fn append(round: usize, engine: Contender, sum_ns: Option<u64>) -> Sample {
        let latencies =
            |sum_ns| Latencies { count: 100, sum_ns, p50_ns: 150_000, p99_ns: 2_000_000, max_ns: 3_000_000 };
        let (write_call_bytes, write_bytes) = (204_800, 409_600);
        let usage = Usage { cpu_ns: 8_000_000, write_call_bytes, write_bytes, ..Usage::default() };
        let report = sum_ns.map(|sum_ns| {
            Report::Append(Append { messages: 800, latencies: latencies(sum_ns), usage, log_bytes: None, checked: 880 })
        });
        Sample { round, engine, step: Step::Append(8), report, failure: None }
    }

    fn results(samples: Vec<Sample>) -> Results {
        let header = Header {
            machine: antiphon_tuning::machine(),
            file_system: "ext4 /dev/sda rw".into(),
            device_shared: true,
            revision: "abc".into(),
            date: "2026-01-02".into(),
            seed: 1,
            rounds: 2,
            messages: 1_000_000,
            conversations: 10_000,
            text_bytes: 200,
            row_bytes: 256,
            pages: 2_000,
            load_average_before: "0.1".into(),
            load_average_after: "0.2".into(),
            engines: vec!["redb 4".into()],
        };
        Results { version: VERSION, header, parts: vec![Part::Append], samples }
    }

    #[test]
    fn rows_hold_medians_spread_and_ratios_within_rounds() {
        let samples = vec![
            append(0, Contender::Antiphon, Some(20_000_000)),
            append(1, Contender::Antiphon, Some(40_000_000)),
            append(1, Contender::Redb, Some(400_000_000)),
            append(0, Contender::Redb, Some(200_000_000)),
            append(0, Contender::Bare, Some(10_000_000)),
            append(1, Contender::Bare, Some(20_000_000)),
            append(0, Contender::Fjall, Some(20_000_000)),
            append(1, Contender::Fjall, None),
            append(0, Contender::Lmdb, None),
            append(1, Contender::Lmdb, None),
        ];
        let text = markdown(&results(samples));
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| 8 ")).collect();
        let rest = "150 µs | 2.00 ms | 10 µs | 512 B, 2.0 × |";
        let cached = "150 µs | 2.00 ms | 10 µs | 256–512 B, 2.0 × |";
        assert_eq!(
            rows,
            [
                format!("| 8 | Antiphon | 30,000 (20,000–40,000) | 0.50 (0.50–0.50) | – | {rest}"),
                format!(
                    "| 8 | fjall, failed in 1 rounds | 40,000 (40,000–40,000) | 0.50 (0.50–0.50) | 1.00 (1.00–1.00) | {cached}"
                ),
                format!("| 8 | redb | 3,000 (2,000–4,000) | 0.05 (0.05–0.05) | 0.10 (0.10–0.10) | {cached}"),
                "| 8 | LMDB | failed in all rounds | | | | | | |".to_owned(),
                format!("| 8 | bare loop | 60,000 (40,000–80,000) | – | 2.00 (2.00–2.00) | {rest}"),
            ]
        );
        assert!(!text.contains("| engine | open |"), "no table of what was not asked for");
    }

    #[test]
    fn disturbance_is_told() {
        let quiet = append(0, Contender::Antiphon, Some(20_000_000));
        assert!(markdown(&results(vec![quiet.clone()])).contains("neither we nor the bare loop waited"));
        let mut disturbed = quiet;
        if let Some(Report::Append(append)) = &mut disturbed.report {
            append.usage.waited_ns = 2_000_000;
        }
        assert!(markdown(&results(vec![disturbed])).contains("**1 of 1 appends"));
        assert!(markdown(&results(Vec::new())).contains("is not known"));
    }

    #[test]
    fn other_tables_have_as_many_cells_as_columns() {
        let latencies =
            Latencies { count: 2, sum_ns: 2_000_000, p50_ns: 1_000_000, p99_ns: 1_000_000, max_ns: 1_000_000 };
        let usage = Usage { read_bytes: 8_192, write_bytes: 1 << 20, ..Usage::default() };
        let space = antiphon_bench_store::job::Space { bytes: 4_000_000, log_bytes: 1_000_000 };
        let load = Load {
            messages: 1_000,
            latencies,
            usage,
            space,
            settled_usage: usage,
            settled_space: space,
            settle_ns: 3_000_000_000,
            settled: true,
            resident_peak_bytes: 1 << 25,
        };
        let (open_ns, first_read_ns, first_write_ns, peak) = (5_000_000, 6_000_000, 7_000_000, 1 << 25);
        let reopen =
            Reopen { open_ns, first_read_ns, first_write_ns, usage, checked: 1_000, resident_peak_bytes: peak };
        let read = Read {
            cold: latencies,
            cold_usage: usage,
            warm: latencies,
            warm_usage: usage,
            checked: 100,
            resident_peak_bytes: peak,
        };
        let mut samples = Vec::new();
        for engine in [Contender::Antiphon, Contender::Redb] {
            for (step, report) in [
                (Step::Load, Report::Load(load.clone())),
                (Step::Reopen, Report::Reopen(reopen.clone())),
                (Step::Latest, Report::Read(read.clone())),
                (Step::History, Report::Read(read.clone())),
            ] {
                let report = (engine == Contender::Antiphon).then_some(report);
                samples.push(Sample { round: 0, engine, step, report, failure: None });
            }
        }
        let mut results = results(samples);
        results.parts = vec![Part::Read, Part::Space, Part::Reopen];
        let text = markdown(&results);
        let mut columns = 0;
        let mut rows = 0;
        for line in text.lines() {
            let cells = line.matches('|').count();
            if columns > 0 && cells > 0 {
                assert_eq!(cells, columns, "{line}");
                rows += 1;
            }
            columns = cells;
        }
        assert_eq!(rows, 3 + 2 * 2 + 2 + 2, "three lines under the heads, eight rows: {text}");
        assert!(
            text.contains("| 1,049 B, 4.1 × | – | 4,000 B (1,000 B) |")
                && text.contains("| 5.00 ms (5.00 ms–5.00 ms) | – |"),
            "{text}"
        );
    }
}
