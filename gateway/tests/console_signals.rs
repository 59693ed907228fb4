//! SIGTERM reaches the node through the outside thread. In a process of its own, since signal handlers belong to the whole process.

use std::{process::Command, sync::mpsc, time::Duration};

use antiphon_gateway::{
    metrics::Metrics,
    outside::{Outside, OutsideConfig},
};

#[test]
fn sigterm_begins_to_drain_and_the_console_stays() {
    let config = OutsideConfig {
        console: "127.0.0.1:0".parse().unwrap(),
        websocket_url: "ws://127.0.0.1:1/".to_owned(),
        dev_key: None,
        operator: None,
    };
    let (told, is_told) = mpsc::channel();
    let outside = Outside::start(config, Metrics::new(1, 1), move || told.send(()).unwrap(), || ()).unwrap();
    let own = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
    is_told.recv_timeout(Duration::from_secs(10)).unwrap();
    // Operators watch the drain.
    std::net::TcpStream::connect(outside.address()).unwrap();
    // A second signal is told, too: it hurries.
    assert!(Command::new("kill").args(["-TERM", &own]).status().unwrap().success());
    is_told.recv_timeout(Duration::from_secs(10)).unwrap();
    std::net::TcpStream::connect(outside.address()).unwrap();
}
