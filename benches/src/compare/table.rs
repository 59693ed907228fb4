//! The comparison as a table of a document, and where it stands in it. Pure: text in, text out.

use std::fmt::Write;

use anyhow::{Context, ensure};

use super::{
    Load, Results, Sample,
    drive::Outcome,
    figures::{self, Figure},
    peers::Peer,
};

/// A driver that uses more of its core than this measures itself: its latencies are marked.
const DRIVER_CORES_MAX: f64 = 0.95;

/// A round in which server or driver waited for its core for more of the time than this is called disturbed.
const WAITED_MAX: f64 = 0.05;

/// Puts a text between the two marks that a document has for a comparison.
pub(super) fn splice(document: &str, comparison: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- compare {comparison}: begin -->"), format!("<!-- compare {comparison}: end -->"));
    let (before, rest) = document.split_once(&begin).with_context(|| format!("the document has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("the document has no {end} after it"))?;
    ensure!(!after.contains(&begin) && !after.contains(&end), "the document has a mark twice");
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

/// The whole text: what was measured on what, and a table for echoes and one for broadcasts.
pub(super) fn markdown(results: &Results) -> String {
    let header = &results.header;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, {} cores, kernel {}, TCP {}; revision {}, {}; seed {}, {} rounds of {} s, load average {} at the start \
         and {} at the end; {}.\nServers: {}.\n",
        header.machine.cpu,
        header.machine.cores,
        header.machine.kernel,
        header.congestion_control,
        header.revision,
        header.date,
        header.seed,
        header.rounds,
        header.seconds,
        header.load_average_before,
        header.load_average_after,
        disturbance(results),
        header.servers.join(", "),
    );
    for broadcast in [false, true] {
        if results.samples.iter().any(|sample| sample.load.broadcast == broadcast) {
            table(&mut text, results, broadcast);
        }
    }
    text
}

/// How much of this was measured while something else wanted the same cores.
fn disturbance(results: &Results) -> String {
    let outcomes = || results.samples.iter().filter_map(|sample| sample.outcome.as_ref());
    let disturbed = outcomes().filter(|outcome| figures::waited(outcome) > WAITED_MAX).count();
    let (count, limit) = (outcomes().count(), WAITED_MAX * 100.0);
    if disturbed == 0 {
        return format!("nobody waited for a core for more than {limit:.0} % of a round");
    }
    format!(
        "**{disturbed} of {count} measurements were disturbed**: server or driver waited for its core for over \
         {limit:.0} % of the time (‡: most rounds)"
    )
}

fn table(text: &mut String, results: &Results, broadcast: bool) {
    let unit = if broadcast { "delivery" } else { "echo" };
    let article = if broadcast { "a" } else { "an" };
    let _ = writeln!(
        text,
        "| connections | load | server | CPU {article} {unit} | to uWebSockets | to Antiphon | {unit_plural} a second \
         | p50 | p99 | memory a connection |\n|---:|---|---|---|---|---|---:|---:|---:|---:|",
        unit_plural = if broadcast { "deliveries" } else { "echoes" },
    );
    let mut seen: Vec<(u32, &Load)> = Vec::new();
    for sample in results.samples.iter().filter(|sample| sample.load.broadcast == broadcast) {
        if !seen.contains(&(sample.connections, &sample.load)) {
            seen.push((sample.connections, &sample.load));
        }
    }
    seen.sort_by_key(|(connections, _)| *connections);
    for (connections, load) in seen {
        for peer in Peer::ALL {
            row(text, results, connections, load, peer);
        }
    }
    text.push('\n');
}

/// What a peer gave in each round.
fn rounds<'a>(results: &'a Results, connections: u32, load: &Load, peer: Peer) -> Vec<Option<&'a Outcome>> {
    let is = |sample: &&Sample| sample.connections == connections && &sample.load == load && sample.peer == peer;
    let mut rounds = vec![None; results.header.rounds];
    for sample in results.samples.iter().filter(is) {
        if let Some(place) = rounds.get_mut(sample.round) {
            *place = sample.outcome.as_ref();
        }
    }
    rounds
}

fn row(text: &mut String, results: &Results, connections: u32, load: &Load, peer: Peer) {
    let is_tried = |sample: &Sample| sample.connections == connections && &sample.load == load && sample.peer == peer;
    if !results.samples.iter().any(is_tried) {
        return;
    }
    let own = rounds(results, connections, load, peer);
    let cost = |peer| -> Vec<Option<f64>> {
        rounds(results, connections, load, peer).iter().map(|outcome| outcome.map(figures::cpu_us)).collect()
    };
    let over = |of: fn(&Outcome) -> f64| Figure::of(own.iter().flatten().map(|outcome| of(outcome)));
    let costs = cost(peer);
    let ratio = |other: Peer| {
        let ratio = if other == peer { None } else { Figure::ratio(&costs, &cost(other)) };
        ratio.map_or_else(|| "–".to_owned(), |ratio| spread(ratio, 2, ""))
    };
    let _ = write!(text, "| {} | {} | {} | ", grouped(f64::from(connections)), load.name, peer.name());
    let Some(cpu) = Figure::of(costs.iter().flatten().copied()) else {
        let _ = writeln!(text, "failed in all rounds | | | | | | |");
        return;
    };
    let failed = own.iter().filter(|outcome| outcome.is_none()).count();
    let failed = if failed == 0 { String::new() } else { format!(", failed in {failed} rounds") };
    let mark =
        if over(figures::driver_cores).is_some_and(|cores| cores.median > DRIVER_CORES_MAX) { "†" } else { "" };
    let disturbed = if over(figures::waited).is_some_and(|waited| waited.median > WAITED_MAX) { "‡" } else { "" };
    let latency = |of: fn(&Outcome) -> f64| over(of).map_or_else(String::new, |figure| time(figure.median) + mark);
    let memory = Figure::of(own.iter().flatten().map(|outcome| figures::resident_bytes(outcome, connections)));
    let _ = writeln!(
        text,
        "{}{disturbed}{failed} | {} | {} | {} | {} | {} | {} |",
        spread(cpu, 2, " µs"),
        ratio(Peer::Uwebsockets),
        ratio(Peer::Antiphon),
        over(figures::per_second).map_or_else(String::new, |figure| grouped(figure.median)),
        latency(|outcome| outcome.p50_ns as f64),
        latency(|outcome| outcome.p99_ns as f64),
        memory.map_or_else(String::new, |figure| format!("{} B", grouped(figure.median))),
    );
}

/// `8.12 µs (7.90–8.40)`
pub(crate) fn spread(figure: Figure, digits: usize, unit: &str) -> String {
    format!("{:.digits$}{unit} ({:.digits$}–{:.digits$})", figure.median, figure.least, figure.most)
}

/// Nanoseconds, with three digits that mean something.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ..1e4 => format!("{:.1} µs", ns / 1e3),
        ..1e6 => format!("{:.0} µs", ns / 1e3),
        ..1e7 => format!("{:.2} ms", ns / 1e6),
        ..1e8 => format!("{:.1} ms", ns / 1e6),
        ..1e9 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

/// A whole number with commas between thousands.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Header;

    fn outcome(server_cpu_ns: u64) -> Outcome {
        Outcome {
            received: 1_000,
            server_cpu_ns,
            window_ns: 100_000_000,
            server_waited_ns: 5_000_000,
            driver_cpu_ns: 10_000_000,
            driver_waited_ns: 0,
            p50_ns: 150_000,
            p99_ns: 2_345_678,
            late_p99_ns: 1_000,
            resident_before_bytes: 0,
            resident_after_bytes: 256_000,
        }
    }

    fn results() -> Results {
        let load = Load { name: "5,000/s".into(), rate: 5_000.0, broadcast: false };
        let sample = |peer, round, outcome| Sample { connections: 1_000, load: load.clone(), peer, round, outcome };
        let header = Header {
            machine: antiphon_tuning::machine(),
            congestion_control: "cubic".into(),
            revision: "abc".into(),
            date: "2026-01-02".into(),
            seed: 1,
            rounds: 2,
            seconds: 1.0,
            load_average_before: "0.1".into(),
            load_average_after: "0.2".into(),
            servers: vec!["uWebSockets 1".into()],
        };
        let samples = vec![
            sample(Peer::Antiphon, 0, Some(outcome(6_000_000))),
            sample(Peer::Uwebsockets, 0, Some(outcome(8_000_000))),
            sample(Peer::Uwebsockets, 1, Some(outcome(16_000_000))),
            sample(Peer::Antiphon, 1, Some(outcome(12_000_000))),
            sample(Peer::Tungstenite, 0, None),
            sample(Peer::Fastwebsockets, 1, Some(outcome(9_000_000))),
            sample(Peer::Fastwebsockets, 0, None),
        ];
        Results { header, samples }
    }

    #[test]
    fn rows_stand_in_the_order_of_peers_with_ratios_within_rounds() {
        let text = markdown(&results());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| 1,000 ")).collect();
        assert_eq!(
            rows,
            [
                "| 1,000 | 5,000/s | Antiphon | 9.00 µs (6.00–12.00) | 0.75 (0.75–0.75) | – | \
                 10,000 | 150 µs | 2.35 ms | 256 B |",
                "| 1,000 | 5,000/s | uWebSockets | 12.00 µs (8.00–16.00) | – | 1.33 (1.33–1.33) | \
                 10,000 | 150 µs | 2.35 ms | 256 B |",
                "| 1,000 | 5,000/s | fastwebsockets | 9.00 µs (9.00–9.00), failed in 1 rounds | \
                 0.56 (0.56–0.56) | 0.75 (0.75–0.75) | 10,000 | 150 µs | 2.35 ms | 256 B |",
                "| 1,000 | 5,000/s | tokio-tungstenite | failed in all rounds | | | | | | |",
            ]
        );
        assert!(text.contains(", TCP cubic; revision abc, 2026-01-02; seed 1, 2 rounds of 1 s"), "{text}");
        assert!(!text.contains("delivery"), "no table without a sample");
    }

    #[test]
    fn a_busy_driver_is_marked() {
        let mut results = results();
        for outcome in results.samples.iter_mut().filter_map(|sample| sample.outcome.as_mut()) {
            outcome.driver_cpu_ns = outcome.window_ns;
        }
        assert!(markdown(&results).contains("| 150 µs† | 2.35 ms† |"));
    }

    #[test]
    fn a_disturbed_round_is_told() {
        let mut results = results();
        assert!(markdown(&results).contains("nobody waited for a core for more than 5 % of a round"));
        for sample in results.samples.iter_mut().filter(|sample| sample.peer == Peer::Antiphon) {
            sample.outcome.as_mut().unwrap().driver_waited_ns = 6_000_000;
        }
        let text = markdown(&results);
        assert!(text.contains("**2 of 5 measurements were disturbed**"), "{text}");
        assert!(text.contains("| Antiphon | 9.00 µs (6.00–12.00)‡ |"), "{text}");
    }

    #[test]
    fn tables_replace_what_stood_between_the_marks() {
        let (begin, end) = ("<!-- compare net: begin -->", "<!-- compare net: end -->");
        let other = "<!-- compare engine: begin -->\nkept\n<!-- compare engine: end -->";
        let document = format!("a\n{begin}\nold\n{end}\nb\n{other}\n");
        let spliced = splice(&document, "net", "new\n\n").unwrap();
        assert_eq!(spliced, format!("a\n{begin}\nnew\n{end}\nb\n{other}\n"));
        assert_eq!(splice(&spliced, "net", "new").unwrap(), spliced);
        for bad in ["a".to_owned(), format!("{end}{begin}"), begin.to_owned(), format!("{document}{document}")] {
            assert!(splice(&bad, "net", "new").is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.4].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [900.0, 98.7e3, 1.5e6, 12.34e6, 123.4e6, 1.234e9].map(time),
            ["0.9 µs", "99 µs", "1.50 ms", "12.3 ms", "123 ms", "1.23 s"]
        );
    }
}
