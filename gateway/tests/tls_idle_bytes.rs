//! What an idle TLS session costs on the heap beyond the connection that it carries, counted. aws-lc's own allocations are not seen, and
//! there are none while a session is idle: keys stay raw (docs/benchmarks.md has the resident memory of a whole node).
//!
//! With `ANTIPHON_HEAP_PROFILE` set in the environment a profile of every allocation is written to `dhat-heap.json`.

use std::{
    io::{Read, Write},
    rc::Rc,
    sync::Arc,
};

use antiphon_gateway::{
    core::io::{Command, ConnectionKey, Handler, Origin, Turn},
    tls::{Chain, OldestVersion, Settings, Tls},
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const SESSIONS: u32 = 2_000;

/// The goal is 3.5 KB with expanded keys, 2.4 KB with raw ones, the allocator's rounding included.
const BYTES_MAX: u64 = 2_400;

/// Says nothing, keeps nothing.
struct Silent;

impl Handler for Silent {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}
    fn turn(&mut self, _: u64) -> Turn {
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}

/// A handshake and one message.
fn connect(server: &mut Tls<Silent>, config: &Arc<ClientConfig>, slot: u32) {
    let key = ConnectionKey { slot, generation: 1 };
    server.accepted(key, Origin { listener: 0, peer: ([127, 0, 0, 1], 1).into() });
    let mut client = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut said = false;
    loop {
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
        if out.is_empty() && said {
            break;
        }
        if !out.is_empty() {
            server.received(key, &mut out);
        }
        while server.turn(1).more {}
        let mut back = Vec::new();
        while let Some(command) = server.poll_command() {
            let Command::Send { buffers, .. } = command else { panic!("closed") };
            buffers.iter().for_each(|buffer| back.extend_from_slice(buffer));
            server.sent(key);
        }
        let mut rest = back.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        if !client.is_handshaking() && !said {
            client.writer().write_all(b"hello").unwrap();
            said = true;
        }
    }
    assert!(client.reader().read(&mut [0]).is_err(), "nothing came");
}

#[test]
fn an_idle_session_costs_so_many_bytes() {
    let profile = std::env::var_os("ANTIPHON_HEAP_PROFILE").is_some();
    let profiler = if profile { dhat::Profiler::new_heap() } else { dhat::Profiler::builder().testing().build() };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let chain = Chain::from_pem(("certificate", certificate.as_bytes()), ("key", key.as_bytes())).unwrap();
    let settings = Arc::new(Settings::new(vec![chain], OldestVersion::Tls12).unwrap());
    let mut store = RootCertStore::empty();
    store.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let mut config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(store).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let mut server = Tls::new(Silent, Some(settings), 0, Rc::default());
    connect(&mut server, &config, 0);
    let before = dhat::HeapStats::get().curr_bytes as u64;
    (1..=SESSIONS).for_each(|slot| connect(&mut server, &config, slot));
    let bytes = (dhat::HeapStats::get().curr_bytes as u64 - before) / u64::from(SESSIONS);
    println!("{bytes} bytes of heap an idle TLS session");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of heap an idle TLS session, at most {BYTES_MAX} wanted");
    drop(profiler);
}
