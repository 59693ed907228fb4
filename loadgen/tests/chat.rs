//! Whole runs against a small node in this process: a good one passes, and every fault of the node is found and named.

mod node;

use antiphon_loadgen::{
    checker::Violations,
    options::{Command, CommandLine},
    report::{Report, html, summary},
    run::run,
};
use antiphon_wire::codec::Encoding;
use clap::Parser as _;
use node::Fault;

fn load(arguments: &str, fault: Fault) -> Report {
    let encoding = if arguments.contains("json") { Encoding::Json } else { Encoding::Rkyv };
    let address = node::start(encoding, fault);
    let line = format!("loadgen {arguments} --target ws://{address} --seed 1");
    let Command::Load(load) = CommandLine::parse_from(line.split(' ')).command else { panic!("{line}") };
    run(&load).unwrap()
}

fn chat(more: &str, fault: Fault) -> Report {
    let basic = "chat --connections 40 --rate 400 --seconds 1.5 --warmup-seconds 0.5 --group-size 5 --drain-seconds 3";
    let report = load(&format!("{basic}{more}"), fault);
    let (messages, text) = (&report.messages, summary::text(&report));
    assert!((700..900).contains(&messages.offered), "{text}");
    assert_eq!((messages.unacked, messages.rejected, messages.protocol_errors), (0, 0, 0), "{text}");
    report
}

#[test]
fn a_good_node_passes_in_both_encodings_and_over_threads() {
    for more in [" --encoding rkyv", " --encoding json --arrivals fixed", " --threads 3"] {
        let report = chat(more, Fault::None);
        let text = summary::text(&report);
        // Whether the generator was in time depends on what else this machine does: `valid` is not asserted.
        assert!(report.passed(), "{text}");
        assert_eq!((report.connections.established, report.connections.lost), (40, 0), "{text}");
        assert_eq!(report.messages.delivered, 4 * report.messages.offered, "{text}");
        let (latency, rate) = (&report.latency_us, report.throughput.acked_per_second);
        assert!(
            latency.send_to_ack.count > 500 && latency.send_to_deliver.count == 4 * latency.send_to_ack.count,
            "{text}"
        );
        assert!((350.0..450.0).contains(&rate) && report.timeline.len() == 2, "{text}");
        let page = html::page(&report).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
    }
}

#[test]
fn groups_beyond_one_request_are_made() {
    let report = load("chat --connections 250 --rate 50 --seconds 1 --warmup-seconds 0 --group-size 250", Fault::None);
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert_eq!(report.messages.delivered, 249 * report.messages.offered, "{text}");
}

#[test]
fn each_fault_is_found_and_named() {
    let none = Violations::default();
    for (fault, expect) in [
        (Fault::Repeat, Violations { duplicate: 1, ..none }),
        (Fault::Reorder, Violations { order: 1, ..none }),
        (Fault::Leak, Violations { foreign: 1, ..none }),
        (Fault::Lose, Violations { gap: 1, lost: 1, ..none }),
    ] {
        let report = chat("", fault);
        assert_eq!(report.violations, expect, "{fault:?}: {}", summary::text(&report));
        assert!(!report.passed());
    }
}

#[test]
fn connections_that_are_cut_come_back_and_nothing_is_lost_or_doubled() {
    for fault in [Fault::Cut, Fault::CutAndPage] {
        let report = chat("", fault);
        let text = summary::text(&report);
        assert_eq!(report.violations, Violations::default(), "{fault:?}: {text}");
        let (connections, messages) = (&report.connections, &report.messages);
        assert!(connections.lost >= 5 && connections.resumed == connections.lost, "{fault:?}: {text}");
        assert!(messages.acked_as_duplicate >= 5 && messages.retried >= 5, "{fault:?}: {text}");
        assert_eq!(messages.delivered, 4 * messages.offered, "{fault:?}: {text}");
        assert_eq!(messages.too_far > 0, fault == Fault::CutAndPage, "{fault:?}: {text}");
    }
}

#[test]
fn a_node_that_forgets_what_it_stored_is_found() {
    let report = chat("", Fault::CutAndForget);
    assert!(report.violations.duplicate >= 5, "{}", summary::text(&report));
}

#[test]
fn idle_connections_are_held_and_counted() {
    let report = load("idle --connections 60 --seconds 2 --threads 2 --connect-rate 200", Fault::None);
    let (connections, text) = (&report.connections, summary::text(&report));
    assert!(report.passed() && connections.up_at_end == 60, "{text}");
    assert!((0.1..1.0).contains(&connections.establish_seconds), "paced: {text}");
    assert!(report.generator.bytes_per_connection_structures < 600 && report.server.is_some(), "{text}");
}
