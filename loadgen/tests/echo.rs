//! `loadgen echo` against an echo of 60 lines that can lose, repeat and damage a message.

mod echo_frames;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use antiphon_loadgen::{
    checker::Violations,
    options::{Command, CommandLine},
    report::{Report, summary},
    run::run,
    websocket::accept_for,
};
use clap::Parser as _;
use echo_frames::unmask;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Repeat,
    Damage,
}

/// Does its fault to the 50th message of the first connection.
fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            stream.set_nodelay(true).unwrap();
            let fault = if number == 0 { fault } else { Fault::None };
            std::thread::spawn(move || serve(stream, fault));
        }
    });
    address
}

fn serve(mut stream: TcpStream, fault: Fault) -> Option<()> {
    let mut input = Vec::new();
    while !input.ends_with(b"\r\n\r\n") {
        read(&mut stream, &mut input)?;
    }
    let head = String::from_utf8(std::mem::take(&mut input)).ok()?;
    assert!(!head.contains("Protocol"), "an echo speaks no subprotocol");
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let accept = accept_for(key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()?;
    for number in 1.. {
        let (mut frame, taken) = loop {
            match unmask(&input) {
                Some(frame) => break frame,
                None => read(&mut stream, &mut input)?,
            }
        };
        input.drain(..taken);
        let times = match (fault, number) {
            (Fault::Lose, 50) => 0,
            (Fault::Repeat, 50) => 2,
            (Fault::Damage, 50) => {
                *frame.last_mut()? ^= 1;
                1
            }
            _ => 1,
        };
        (0..times).try_for_each(|_| stream.write_all(&frame).ok())?;
    }
    Some(())
}

fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).ok().filter(|&length| length > 0)?;
    input.extend(&buffer[..length]);
    Some(())
}

fn echo(arguments: &str, fault: Fault) -> Report {
    let address = start(fault);
    let line = format!("loadgen echo {arguments} --target ws://{address}/ --seed 1 --drain-seconds 1");
    let Command::Load(load) = CommandLine::parse_from(line.split(' ')).command else { panic!("{line}") };
    run(&load).unwrap()
}

#[test]
fn an_open_loop_holds_its_rate_and_everything_comes_back() {
    let report = echo("--connections 20 --rate 1000 --seconds 1 --payload-bytes 16..400", Fault::None);
    let text = summary::text(&report);
    assert!(report.passed(), "{text}");
    assert!((800.0..1_200.0).contains(&report.throughput.acked_per_second), "{text}");
    assert_eq!(report.messages.acked, report.messages.offered, "{text}");
    assert!(report.latency_us.send_to_ack.count > 800 && report.latency_us.send_to_deliver.count == 0, "{text}");
}

#[test]
fn a_closed_loop_always_has_as_many_under_way() {
    let report = echo("--connections 4 --in-flight 8 --seconds 1 --warmup-seconds 0", Fault::None);
    let text = summary::text(&report);
    assert!(report.passed() && report.messages.offered > 1_000, "{text}");
    assert_eq!(report.messages.acked, report.messages.offered, "{text}");
    assert!(text.contains("closed loop, 8 under way"), "{text}");
}

#[test]
fn each_fault_is_found_and_named() {
    let none = Violations::default();
    for (fault, expect) in [
        (Fault::Lose, Violations { gap: 1, ..none }),
        (Fault::Repeat, Violations { order: 1, ..none }),
        (Fault::Damage, Violations { mismatch: 1, gap: 1, ..none }),
    ] {
        let report = echo("--connections 2 --rate 400 --seconds 1", fault);
        assert_eq!(report.violations, expect, "{fault:?}: {}", summary::text(&report));
        assert!(!report.passed());
    }
}
