//! Whole runs with one large group against a small node in this process.

mod node;

use antiphon_loadgen::{
    checker::Violations,
    options::{Command, CommandLine},
    report::{Report, html, summary},
    run::run,
};
use antiphon_wire::codec::Encoding;
use clap::Parser as _;
use node::{Fault, LargeFault};

/// 350 members, 30 of them connected and 6 of these looking. All messages of the first burst come before the one that goes wrong, which is
/// the last of the second.
const LARGE: &str = "large --members 350 --bodies-members 300 --online 30 --viewers 6 --senders 4 --burst 10 --burst-rate 50 --bursts 2 \
    --quiet-seconds 0.4 --tail-seconds 0.3 --chat-connections 10 --chat-group-size 5 --chat-rate 50 --warmup-seconds 0 \
    --drain-seconds 2 --seed 1";

fn load(arguments: &str, address: std::net::SocketAddr) -> Report {
    let line = format!("loadgen {arguments} --target ws://{address}");
    let Command::Load(load) = CommandLine::parse_from(line.split_whitespace()).command else { panic!("{line}") };
    run(&load).unwrap()
}

#[test]
fn who_looks_is_given_everything_and_the_others_hear_of_it() {
    for more in ["", " --encoding json", " --threads 3"] {
        let encoding = if more.contains("json") { Encoding::Json } else { Encoding::Rkyv };
        let address = node::start(encoding, Fault::None);
        let report = load(&format!("{LARGE}{more}"), address);
        let text = summary::text(&report);
        assert!(report.passed(), "{text}");
        let large = report.large.as_ref().unwrap();
        assert_eq!((large.members, large.online, large.viewers, large.fill_requests), (350, 30, 6, 4), "{text}");
        assert_eq!((large.offered, large.acked), (20, 20), "{text}");
        // Two of four senders look: of their messages five others are given, of the rest six.
        assert_eq!((large.delivered, large.hints), (10 * 5 + 10 * 6, 20 * 24), "{text}");
        assert_eq!((large.send_to_ack_us.count, large.send_to_deliver_us.count), (20, 110), "{text}");
        assert_eq!((large.send_to_hint_us.count, large.hints_per_burst.count), (480, 48), "{text}");
        assert_eq!((large.hints_per_burst.p50, large.hints_per_burst.max), (10, 10), "{text}");
        assert!(large.chat.quiet_send_to_ack_us.count > 20 && large.chat.burst_send_to_ack_us.count > 20, "{text}");
        assert!(large.chat.ack_p99_factor.is_some() && large.server.is_some(), "{text}");
        let names: Vec<&str> = report.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["quiet 1", "burst 1", "quiet 2", "burst 2", "quiet 3"]);
        assert!(html::page(&report).unwrap().contains("<h2>The large group</h2>"));
    }
}

#[test]
fn a_group_that_is_there_is_not_filled_again() {
    let address = node::start(Encoding::Rkyv, Fault::None);
    let first = load(LARGE, address);
    let again = load(&LARGE.replace("--online 30 --viewers 6", "--online 0 --viewers 0"), address);
    let text = summary::text(&again);
    assert!(first.passed() && again.passed(), "{text}");
    let large = again.large.unwrap();
    assert_eq!((large.online, large.fill_requests, large.acked, large.delivered), (4, 0, 20, 0), "{text}");
}

#[test]
fn in_a_group_that_is_not_large_all_are_given_everything() {
    let address = node::start(Encoding::Rkyv, Fault::None);
    let report = load(&LARGE.replace("--members 350", "--members 90"), address);
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    let large = report.large.unwrap();
    assert_eq!((large.hinted, large.delivered, large.hints), (false, 20 * 29, 0), "{text}");
}

#[test]
fn each_fault_is_found_and_named() {
    let none = Violations::default();
    for (fault, expect) in [
        (LargeFault::Unheard, Violations { unheard: 1, ..none }),
        (LargeFault::Back, Violations { hint: 1, ..none }),
        (LargeFault::Beyond, Violations { hint: 1, ..none }),
        (LargeFault::Body, Violations { body: 1, ..none }),
        (LargeFault::Lose, Violations { lost: 1, ..none }),
    ] {
        let report = load(LARGE, node::start(Encoding::Rkyv, Fault::Large(fault)));
        assert_eq!(report.violations, expect, "{fault:?}: {}", summary::text(&report));
        assert!(!report.passed());
    }
}
