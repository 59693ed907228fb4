//! Whole runs of the other loads against a small node in this process: good ones pass, and what is broken is found and named.

mod node;

use antiphon_loadgen::{
    agent::{self, Agent, peer::Peer, secret::Secret},
    options::{Command, CommandLine, Load},
    report::{Report, html, summary},
    run::run,
};
use antiphon_wire::codec::Encoding;
use clap::Parser as _;
use node::Fault;

fn parse(line: &str) -> Load {
    let Command::Load(load) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    load
}

fn load(arguments: &str, fault: Fault) -> Report {
    let address = node::start(Encoding::Rkyv, fault);
    run(&parse(&format!("loadgen {arguments} --target ws://{address} --seed 1"))).unwrap()
}

const STORM: &str = "storm --connections 40 --rate 200 --group-size 5 --warmup-seconds 0 --before-seconds 0.2 \
    --after-seconds 1 --limit-seconds 8 --drain-seconds 3";

#[test]
fn a_storm_brings_everybody_back_and_verifies_what_was_acknowledged() {
    let report = load(STORM, Fault::Crash);
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    let storm = report.storm.as_ref().unwrap();
    assert_eq!(
        (storm.sessions, storm.acked_before, storm.acked_before_verified),
        (40, storm.acked_before, storm.acked_before)
    );
    assert!(storm.acked_before > 50, "{text}");
    assert!(storm.resumed_50_seconds <= storm.resumed_100_seconds && storm.resumed_100_seconds.is_some(), "{text}");
    let verified = report.verified.unwrap();
    assert_eq!((verified.conversations, verified.found, verified.missing), (8, report.messages.acked, 0), "{text}");
    assert_eq!(report.connections.resumed, 40, "{text}");
    assert!(report.parts.iter().map(|part| part.name.as_str()).eq(["before", "storm", "after"]), "{text}");
    assert!(html::page(&report).unwrap().contains("The return of 40 sessions"));
}

#[test]
fn a_storm_after_which_something_is_gone_fails() {
    let report = load(STORM, Fault::CrashAndForget);
    assert!(!report.passed() && report.violations.total() > 0, "{}", summary::text(&report));
}

#[test]
fn a_storm_from_which_not_all_return_fails_and_is_reported() {
    let report = load(&STORM.replace("limit-seconds 8", "limit-seconds 4"), Fault::CrashAndRefuse);
    let text = summary::text(&report);
    assert!(!report.passed() && report.failed_because[0].contains("39 of 40 sessions"), "{text}");
    let storm = report.storm.unwrap();
    assert!(storm.resumed_90_seconds.is_some() && storm.resumed_100_seconds.is_none(), "{text}");
}

#[test]
fn a_storm_that_does_not_come_is_a_failure() {
    let report = load(&STORM.replace("limit-seconds 8", "limit-seconds 1"), Fault::None);
    assert!(report.failed_because[0].contains("did not go away"), "{}", summary::text(&report));
}

#[test]
fn a_history_that_lacks_an_acknowledged_message_is_found() {
    let chat = "chat --connections 10 --rate 200 --seconds 1 --warmup-seconds 0 --group-size 5 --verify-history";
    let report = load(chat, Fault::Forget);
    assert_eq!(report.violations.missing, 2, "{}", summary::text(&report));
    assert_eq!(report.violations.total(), 2);
    assert!(load(chat, Fault::None).passed());
}

#[test]
fn broadcasts_come_from_one_sender_a_group() {
    let report =
        load("broadcast --connections 60 --rate 50 --seconds 1 --warmup-seconds 0 --group-size 30", Fault::None);
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert_eq!(report.messages.delivered, 29 * report.messages.offered, "{text}");
}

#[test]
fn slow_connections_stop_reading_and_lose_nothing() {
    let report = load(
        "slow --connections 40 --rate 100 --share 0.1 --group-size 10 --warmup-seconds 0 --quiet-seconds 1 \
         --slow-seconds 2 --recovery-seconds 1 --text-bytes 8000",
        Fault::None,
    );
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    let slow = report.slow.as_ref().unwrap();
    assert!(slow.connections == 4 && slow.quiet_p99_us > 0 && slow.slow_p99_us > 0, "{text}");
    assert_eq!(report.messages.delivered, 9 * report.messages.offered, "{text}");
    assert!(report.parts[0].send_to_deliver.count > 0 && report.parts[1].send_to_deliver.count > 0, "{text}");
}

#[test]
fn a_mix_has_all_kinds_of_conversations_and_people_who_come_and_go() {
    let file = std::env::temp_dir().join(format!("loadgen-mix-{}.toml", std::process::id()));
    let day = r#"
        connections = 60
        text_bytes = "lognormal:60:1.0:1000"
        [conversations]
        direct = 1
        groups = 2
        group_size = "zipf:3..20:1.2"
        direct_share = 0.5
        [people]
        active_share = 0.5
        reply_share = 0.5
        think_ms = 50
        reconnects_per_second = 5
        away_ms = "100..8000"
        [[phase]]
        name = "morning"
        seconds = 1
        rate = 0
        rate_to = 200
        [[phase]]
        name = "noon"
        seconds = 1
        rate = 200
    "#;
    std::fs::write(&file, day).unwrap();
    let report = load(&format!("mix {}", file.display()), Fault::None);
    std::fs::remove_file(&file).unwrap();
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert!(report.connections.left >= 2 && report.connections.resumed == report.connections.lost, "{text}");
    let [morning, noon] = &report.parts[..] else { panic!("{text}") };
    assert!(noon.offered_per_second > 1.5 * morning.offered_per_second, "{text}");
    // 30 pairs at least, and two layers of groups.
    assert!(report.verified.unwrap().conversations > 35, "{text}");
}

#[test]
fn agents_make_one_run_together_and_their_outcomes_add_up() {
    let address = node::start(Encoding::Rkyv, Fault::None);
    let file = std::env::temp_dir().join(format!("loadgen-secret-{}", std::process::id()));
    std::fs::write(&file, "correct horse battery staple\n").unwrap();
    let mut agents = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        agents.push(listener.local_addr().unwrap().to_string());
        let secret = Some(Secret::from_file(&file).unwrap());
        let agent = Agent { secret, runs: Some(1), hello_wait: Peer::HELLO_WAIT };
        threads.push(std::thread::spawn(move || agent.serve_on(&listener)));
    }
    let line = format!(
        "loadgen run --agents {} --secret-file {} -- chat --connections 50 --rate 200 --seconds 1 --warmup-seconds 0 --group-size 10 --target ws://{address}",
        agents.join(","),
        file.display()
    );
    let Command::Run(options) = CommandLine::parse_from(line.split(' ')).command else { panic!("{line}") };
    let (_, report) = agent::lead(&options).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    std::fs::remove_file(&file).unwrap();
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert_eq!((report.connections.established, report.options.processes, report.options.connections), (50, 2, 50));
    assert_eq!(report.messages.delivered, 9 * report.messages.offered, "{text}");
    assert_eq!(report.latency_us.send_to_deliver.count, 9 * report.messages.offered, "{text}");
    let rows: u64 = report.timeline.iter().map(|row| row.offered).sum();
    assert_eq!(rows, report.messages.offered, "{text}");
}

#[test]
fn a_soak_too_short_to_tell_does_not_pass() {
    let report = load("soak --connections 20 --rate 100 --hours 0.0005 --warmup-seconds 0 --group-size 5", Fault::None);
    let text = summary::text(&report);
    assert!(report.violations.total() == 0 && !report.passed(), "{text}");
    assert!(report.failed_because.iter().any(|reason| reason.contains("soak for longer")), "{text}");
}
