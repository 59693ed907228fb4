//! Whole runs with `wss://` against a TLS echo in this process.

mod echo_frames;
mod node;
mod secure;

use std::{net::SocketAddr, sync::atomic::Ordering};

use antiphon_loadgen::{
    options::{Command, CommandLine, Load},
    report::{Report, html, summary},
    run::run,
};
use antiphon_wire::codec::Encoding;
use clap::Parser as _;
use rustls::version::{TLS12, TLS13};
use secure::{Authority, Fault, front, start};

fn parse(address: SocketAddr, arguments: &str) -> Load {
    let line =
        format!("loadgen echo --target wss://{address}/ --seed 1 --drain-seconds 1 --warmup-seconds 0 {arguments}");
    let Command::Load(load) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    load
}

fn echo(arguments: &str, fault: Fault) -> Report {
    let authority = Authority::new();
    let (address, _) = start(authority.server(&[&TLS13, &TLS12]), fault);
    run(&parse(address, &format!("{arguments} --tls-ca {}", authority.file.display()))).unwrap()
}

const OPEN: &str = "--connections 20 --rate 400 --seconds 1 --payload-bytes 16..2000";

#[test]
fn an_open_loop_over_tls_passes_and_tells_its_handshakes() {
    let authority = Authority::new();
    let (address, seen) = start(authority.server(&[&TLS13, &TLS12]), Fault::None);
    let report =
        run(&parse(address, &format!("{OPEN} --tls-ca {} --tls-server-name localhost", authority.file.display())))
            .unwrap();
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert_eq!((report.messages.acked, report.messages.protocol_errors), (report.messages.offered, 0), "{text}");
    let tls = report.tls.as_ref().unwrap();
    assert!(tls.verified && tls.server_name == "localhost" && tls.failures.is_empty(), "{text}");
    assert_eq!((tls.handshakes.full, tls.handshakes.resumed, tls.handshakes.failed), (20, 0, 0), "{text}");
    assert_eq!((tls.handshake_us.count, tls.unannounced_ends), (20, 0), "{text}");
    assert_eq!(tls.agreed.values().sum::<u64>(), 20, "{text}");
    assert!(tls.agreed.keys().all(|agreed| agreed.starts_with("TLSv1_3 TLS13_AES_256_GCM_SHA384")), "{text}");
    assert!(text.contains("TLS           20 full handshakes, 0 resumed, 0 failed\n"), "{text}");
    assert!(html::page(&report).unwrap().contains("20 full handshakes"));
    assert_eq!(seen.server_name.lock().unwrap().as_deref(), Some("localhost"));
    assert_eq!(seen.application.lock().unwrap().as_deref(), Some(&b"http/1.1"[..]));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json.pointer("/tls/handshakes/full").and_then(serde_json::Value::as_u64), Some(20));
}

#[test]
fn each_version_can_be_asked_for() {
    for (version, expect) in [("1.2", "TLSv1_2 TLS_ECDHE"), ("1.3", "TLSv1_3 TLS13_")] {
        let report = echo(&format!("{OPEN} --tls-version {version}"), Fault::None);
        let text = summary::text(&report);
        assert!(report.passed(), "{text}");
        assert!(report.tls.unwrap().agreed.keys().all(|agreed| agreed.starts_with(expect)), "{text}");
    }
}

#[test]
fn what_a_server_may_do_is_taken() {
    for fault in [Fault::KeyUpdate, Fault::Dribble] {
        let report = echo(OPEN, fault);
        let text = summary::text(&report);
        assert!(report.passed() && report.messages.acked == report.messages.offered, "{fault:?}: {text}");
        assert_eq!(report.messages.protocol_errors, 0, "{fault:?}: {text}");
    }
    // Ten at a time come back as ten are under way.
    let report = echo("--connections 4 --in-flight 10 --seconds 1", Fault::Burst);
    let text = summary::text(&report);
    let violations = report.violations;
    assert!(violations.total() == violations.lost && violations.lost < 40, "{text}");
    assert!(report.messages.acked > 100 && report.messages.protocol_errors == 0, "{text}");
}

#[test]
fn a_handshake_that_fails_is_told_by_its_reason_and_tried_again() {
    for (fault, reason) in
        [(Fault::Garbage, "InvalidContentType"), (Fault::CloseInHandshake, "ended during the TLS handshake")]
    {
        let report = echo(OPEN, fault);
        let text = summary::text(&report);
        let tls = report.tls.as_ref().unwrap();
        assert!(report.passed(), "{fault:?}: {text}");
        assert_eq!((tls.handshakes.full, tls.handshakes.failed), (20, 1), "{fault:?}: {text}");
        assert_eq!(report.connections.failed_attempts, 1, "{fault:?}: {text}");
        assert!(tls.failures.keys().all(|failure| failure.contains(reason)), "{fault:?}: {text}");
    }
}

#[test]
fn a_server_that_ends_a_session_is_come_back_to_with_a_ticket_if_asked() {
    for (notify, resume, version) in [(true, false, "1.3"), (true, true, "1.3"), (false, true, "1.2")] {
        let flag = if resume { "--tls-resume" } else { "" };
        let report = echo(&format!("{OPEN} --tls-version {version} {flag}"), Fault::Close { notify });
        let text = summary::text(&report);
        assert_eq!((report.connections.lost, report.connections.up_at_end), (1, 20), "{text}");
        let tls = report.tls.as_ref().unwrap();
        assert_eq!(tls.unannounced_ends, u64::from(!notify), "{text}");
        let resumed = u64::from(resume);
        assert_eq!((tls.handshakes.full, tls.handshakes.resumed), (21 - resumed, resumed), "{text}");
    }
}

#[test]
fn whom_nobody_vouches_for_ends_the_run_at_once() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (address, _) = start(authority.server(&[&TLS13]), Fault::None);
    let start = std::time::Instant::now();
    let check = |arguments: String, expect: &str| {
        let error = format!("{:#}", run(&parse(address, &format!("{OPEN} {arguments}"))).unwrap_err());
        assert!(error.contains(expect), "{error}");
    };
    check(format!("--tls-ca {}", other.file.display()), "issuer is none of the given roots (see --tls-ca");
    check(format!("--tls-ca {} --tls-server-name example.org", authority.file.display()), "example.org");
    check(format!("--tls-ca {} --tls-version 1.2", authority.file.display()), "see --tls-version");
    assert!(start.elapsed().as_secs() < 20, "without the patience for servers that are slow");
    let line = format!("loadgen echo --target ws://{address}/ {OPEN}");
    let Command::Load(plain) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    let error = run(&plain).unwrap_err().to_string();
    assert!(error.contains("begins with wss://"), "{error}");
    let report = run(&parse(address, &format!("{OPEN} --tls-insecure"))).unwrap();
    let text = summary::text(&report);
    assert!(report.passed() && text.contains("CERTIFICATES WERE NOT VERIFIED"), "{text}");
    assert!(!report.tls.unwrap().verified);
}

fn through_front(arguments: &str, fault: node::Fault) -> (Report, u32) {
    let authority = Authority::new();
    let (address, seen) = front(authority.server(&[&TLS13]), node::start(Encoding::Rkyv, fault));
    let ca = authority.file.display();
    let line = format!("loadgen {arguments} --target wss://{address} --seed 1 --tls-ca {ca} --tls-resume");
    let Command::Load(load) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    (run(&load).unwrap(), seen.notified.load(Ordering::Relaxed))
}

#[test]
fn a_storm_over_tls_brings_everybody_back() {
    let (report, _) = through_front(
        "storm --connections 40 --rate 200 --group-size 5 --warmup-seconds 0 --before-seconds 0.2 --after-seconds 1 \
         --limit-seconds 20 --drain-seconds 3",
        node::Fault::Crash,
    );
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    let tls = report.tls.as_ref().unwrap();
    assert!(tls.handshakes.full >= 40 && tls.handshakes.resumed >= 40 && tls.unannounced_ends >= 40, "{text}");
}

#[test]
fn people_who_go_away_end_their_sessions_in_good_order() {
    let file = std::env::temp_dir().join(format!("loadgen-tls-mix-{}.toml", std::process::id()));
    let day = "connections = 30\n[people]\nreconnects_per_second = 10\naway_ms = 100\n\
               [[phase]]\nname = \"day\"\nseconds = 1.5\nrate = 100\n";
    std::fs::write(&file, day).unwrap();
    let (report, notified) = through_front(&format!("mix {}", file.display()), node::Fault::None);
    std::fs::remove_file(&file).unwrap();
    let text = summary::text(&report);
    assert!(report.passed() && report.connections.left >= 3, "{text}");
    assert_eq!(u64::from(notified), report.connections.left, "{text}");
    assert_eq!(report.tls.unwrap().unannounced_ends, 0, "{text}");
}
