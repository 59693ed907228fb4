//! TLS between driver and handler, against rustls' own client: no sockets, every byte passed by hand.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    rc::Rc,
    slice,
    sync::Arc,
};

use antiphon_gateway::{
    core::io::{Command, ConnectionKey, Handler, Origin, Turn},
    tls::{Chain, OldestVersion, Settings, Tls, TlsCounters},
};
use proptest::prelude::*;
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

const TLS_LISTENER: u8 = 1;

/// What the handler behind TLS was told, and what it is to do.
#[derive(Default)]
struct Recorder {
    heard: Vec<u8>,
    events: Vec<&'static str>,
    commands: VecDeque<Command>,
    /// Sends back what it hears, and says no to newcomers.
    echoes: bool,
    refuses: bool,
    sending: bool,
    pending: Vec<u8>,
}

impl Recorder {
    fn flush(&mut self, connection: ConnectionKey) {
        if !self.sending && !self.pending.is_empty() {
            self.sending = true;
            // In several buffers, as a shard sends.
            let buffers = self.pending.chunks(7_000).map(Rc::from).collect();
            self.pending.clear();
            self.commands.push_back(Command::Send { connection, buffers, awaited: false });
        }
    }
}

impl Handler for Recorder {
    fn accepted(&mut self, connection: ConnectionKey, _: Origin) {
        self.events.push("accepted");
        if self.refuses {
            self.pending.extend_from_slice(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
            self.flush(connection);
        }
    }
    fn received(&mut self, connection: ConnectionKey, bytes: &mut [u8]) {
        self.heard.extend_from_slice(bytes);
        if self.echoes {
            self.pending.extend_from_slice(bytes);
            self.flush(connection);
        }
    }
    fn sent(&mut self, connection: ConnectionKey) {
        assert!(std::mem::take(&mut self.sending), "sent follows a send");
        self.flush(connection);
    }
    fn closed(&mut self, _: ConnectionKey) {
        self.events.push("closed");
    }
    fn turn(&mut self, _: u64) -> Turn {
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}

/// A certificate for these names, and its own root.
fn chain(names: &[&str]) -> (Chain, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let chain = Chain::from_pem(("certificate", certificate.as_bytes()), ("key", key.as_bytes())).unwrap();
    (chain, made.cert.der().clone())
}

fn client_config(roots: &[CertificateDer<'static>], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

/// One connection: the server's side on slot 0, and a client.
struct Pair {
    server: Tls<Recorder>,
    counters: Rc<TlsCounters>,
    key: ConnectionKey,
    /// A send of the server that has not completed, its bytes on the way.
    in_flight: bool,
    to_client: Vec<u8>,
    closed: bool,
    now_ms: u64,
}

impl Pair {
    fn new(settings: &Arc<Settings>, handler: Recorder) -> Self {
        let counters = Rc::new(TlsCounters::default());
        let mut server = Tls::new(handler, Some(Arc::clone(settings)), TLS_LISTENER, Rc::clone(&counters));
        let key = ConnectionKey { slot: 0, generation: 1 };
        server.accepted(key, Origin { listener: TLS_LISTENER, peer: ([127, 0, 0, 1], 4000).into() });
        let mut pair =
            Self { server, counters, key, in_flight: false, to_client: Vec::new(), closed: false, now_ms: 1 };
        pair.turn();
        pair
    }

    /// A turn of the driver; sends complete at once.
    fn turn(&mut self) {
        loop {
            let turn = self.server.turn(self.now_ms);
            let mut acted = false;
            while let Some(command) = self.server.poll_command() {
                acted = true;
                match command {
                    Command::Send { connection, buffers, .. } => {
                        assert!(connection == self.key && !self.in_flight && !self.closed, "one send at a time");
                        assert!(buffers.iter().any(|buffer| !buffer.is_empty()));
                        buffers.iter().for_each(|buffer| self.to_client.extend_from_slice(buffer));
                        self.in_flight = true;
                    }
                    Command::Close { connection } => {
                        assert!(connection == self.key && !self.closed, "closed once");
                        self.closed = true;
                    }
                }
            }
            if std::mem::take(&mut self.in_flight) && !self.closed {
                self.server.sent(self.key);
            } else if !acted && !turn.more {
                break;
            }
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.server.received(self.key, &mut bytes.to_vec());
            self.turn();
        }
    }

    /// Passes bytes both ways, the client's in pieces of at most `step`, until nothing moves.
    fn run(&mut self, client: &mut ClientConnection, step: usize) -> Result<(), rustls::Error> {
        loop {
            let mut out = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut out).unwrap();
            }
            out.chunks(step).for_each(|piece| self.give(piece));
            let back = std::mem::take(&mut self.to_client);
            let mut rest = back.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
            if out.is_empty() && back.is_empty() {
                return Ok(());
            }
        }
    }

    fn handler(&self) -> &Recorder {
        self.server.handler()
    }
}

fn echoing() -> Recorder {
    Recorder { echoes: true, ..Recorder::default() }
}

fn connect(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

fn read_all(client: &mut ClientConnection) -> Vec<u8> {
    let mut back = vec![0; 1 << 20];
    let mut length = 0;
    while let Ok(count @ 1..) = client.reader().read(&mut back[length..]) {
        length += count;
    }
    back.truncate(length);
    back
}

fn settings(names: &[&str]) -> (Arc<Settings>, CertificateDer<'static>) {
    let (chain, root) = chain(names);
    (Arc::new(Settings::new(vec![chain], OldestVersion::Tls12).unwrap()), root)
}

#[test]
fn both_versions_carry_data_and_come_back_by_a_ticket() {
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let (settings, root) = settings(&["localhost"]);
        let mut config = client_config(&[root], &[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        for (full, resumed) in [(1, 0), (0, 1)] {
            // Another shard, as a client that comes back is likely to meet.
            let mut pair = Pair::new(&settings, echoing());
            let mut client = connect(&config, "localhost");
            pair.run(&mut client, 4096).unwrap();
            assert_eq!((client.protocol_version(), client.alpn_protocol()), (Some(number), Some(&b"http/1.1"[..])));
            assert_eq!((pair.counters.full.get(), pair.counters.resumed.get()), (full, resumed));
            for length in [1, 100, 16_384, 100_000] {
                let text: Vec<u8> = (0..length).map(|at: usize| (at % 251) as u8).collect();
                let mut back = Vec::new();
                // The client keeps at most 16 KiB.
                for part in text.chunks(16_000) {
                    client.writer().write_all(part).unwrap();
                    pair.run(&mut client, 4096).unwrap();
                    back.extend(read_all(&mut client));
                }
                assert!(back == text, "{number:?}: {length} bytes come back");
            }
            client.send_close_notify();
            pair.run(&mut client, 4096).unwrap();
            assert!(pair.closed, "a peer that ends is gone");
            assert_eq!(pair.handler().events, ["accepted", "closed"]);
            assert_eq!(
                (pair.counters.failed.get(), pair.counters.abandoned.get(), pair.counters.broken.get()),
                (0, 0, 0)
            );
        }
    }
}

#[test]
fn every_suite_is_spoken() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    assert!(provider.cipher_suites.len() >= 9);
    for suite in provider.cipher_suites {
        let (settings, root) = settings(&["localhost"]);
        let mut store = RootCertStore::empty();
        store.add(root).unwrap();
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![suite],
            ..rustls::crypto::aws_lc_rs::default_provider()
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[suite.version()]).unwrap();
        let config = Arc::new(builder.with_root_certificates(store).with_no_client_auth());
        let mut pair = Pair::new(&settings, echoing());
        let mut client = connect(&config, "localhost");
        let outcome = pair.run(&mut client, 4096);
        if format!("{:?}", suite.suite()).contains("ECDHE_RSA") {
            // The certificate's key is of another kind.
            assert!(outcome.is_err(), "{suite:?}");
            continue;
        }
        outcome.unwrap();
        for _ in 0..3 {
            client.writer().write_all(b"hello").unwrap();
            pair.run(&mut client, 7).unwrap();
            assert_eq!(read_all(&mut client), b"hello", "{suite:?}");
        }
    }
}

#[test]
fn the_certificate_follows_the_name() {
    let (first, first_root) = chain(&["one.example"]);
    let (second, second_root) = chain(&["two.example", "*.two.example"]);
    let settings = Arc::new(Settings::new(vec![first, second], OldestVersion::Tls12).unwrap());
    let cases = [
        ("one.example", &first_root, true),
        ("two.example", &second_root, true),
        ("TWO.example", &second_root, true),
        ("chat.two.example", &second_root, true),
        // Who asks for a name that nobody has is shown the first, and judges for itself.
        ("a.b.two.example", &second_root, false),
        ("three.example", &first_root, false),
        ("one.example", &second_root, false),
    ];
    for (name, root, good) in cases {
        let config = Arc::new(client_config(slice::from_ref(root), &[&TLS13]));
        let mut pair = Pair::new(&settings, echoing());
        let mut client = connect(&config, name);
        assert_eq!(pair.run(&mut client, 4096).is_ok(), good, "{name}");
    }
}

#[test]
fn a_reload_is_seen_by_new_sessions_and_a_bad_one_by_none() {
    let (settings, old_root) = settings(&["localhost"]);
    let old = Arc::new(client_config(&[old_root], &[&TLS13]));
    let mut pair = Pair::new(&settings, echoing());
    let mut open = connect(&old, "localhost");
    pair.run(&mut open, 4096).unwrap();
    let bad = Chain::from_pem(("c.pem", b"no certificate"), ("k.pem", b"no key"));
    assert!(bad.unwrap_err().to_string().starts_with("c.pem: not a PEM chain"));
    let (other, new_root) = chain(&["localhost"]);
    settings.replace(vec![other]).unwrap();
    let new = Arc::new(client_config(&[new_root], &[&TLS13]));
    assert!(Pair::new(&settings, echoing()).run(&mut connect(&new, "localhost"), 4096).is_ok());
    // Tickets outlive the reload, and an open session goes on.
    let mut again = Pair::new(&settings, echoing());
    again.run(&mut connect(&old, "localhost"), 4096).unwrap();
    assert_eq!(again.counters.resumed.get(), 1);
    open.writer().write_all(b"still here").unwrap();
    pair.run(&mut open, 4096).unwrap();
    assert_eq!(read_all(&mut open), b"still here");
}

#[test]
fn a_refusal_before_the_handshake_is_a_close() {
    let (settings, root) = settings(&["localhost"]);
    let mut pair = Pair::new(&settings, Recorder { refuses: true, ..Recorder::default() });
    assert!(pair.closed && pair.to_client.is_empty(), "nothing is said in clear");
    assert_eq!((pair.handler().events.as_slice(), pair.counters.abandoned.get()), (&["accepted", "closed"][..], 1));
    let _ = pair.run(&mut connect(&Arc::new(client_config(&[root], &[&TLS13])), "localhost"), 4096);
}

#[test]
fn a_handshake_that_is_none_gets_an_alert() {
    let (settings, root) = settings(&["localhost"]);
    let only_13 = Arc::new(Settings::new(vec![chain(&["localhost"]).0], OldestVersion::Tls13).unwrap());
    let mut old = Vec::new();
    connect(&Arc::new(client_config(slice::from_ref(&root), &[&TLS12])), "localhost").write_tls(&mut old).unwrap();
    let mut alpn = client_config(&[root], &[&TLS13]);
    alpn.alpn_protocols = vec![b"h2".to_vec()];
    let mut no_alpn = Vec::new();
    connect(&Arc::new(alpn), "localhost").write_tls(&mut no_alpn).unwrap();
    let cases: [(&str, &Arc<Settings>, &[u8]); 5] = [
        ("plain HTTP", &settings, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("zeros", &settings, &[0; 100]),
        ("a record of a handshake that is too long", &settings, &[0x16, 3, 1, 0xFF, 0xFF, 1]),
        ("an old version where it is not spoken", &only_13, &old),
        ("only protocols that are not spoken", &settings, &no_alpn),
    ];
    for (what, settings, bytes) in cases {
        let mut pair = Pair::new(settings, echoing());
        pair.give(bytes);
        assert!(pair.closed, "{what}");
        // A fatal alert, record type 21, level 2; behind a hello, 22, of one that was seen to be none only then.
        let is_alert = (pair.to_client.first(), pair.to_client.get(5)) == (Some(&21), Some(&2));
        assert!(is_alert || pair.to_client.first() == Some(&22) && what.starts_with("only"), "{what}");
        assert_eq!((pair.counters.failed.get(), pair.counters.abandoned.get()), (1, 0), "{what}");
        assert_eq!(pair.handler().events, ["accepted", "closed"], "{what}");
        assert!(pair.handler().heard.is_empty(), "{what}");
    }
}

#[test]
fn a_handshake_that_never_ends_is_bounded() {
    let (settings, _) = settings(&["localhost"]);
    let mut pair = Pair::new(&settings, echoing());
    // The first of many fragments of a handshake message of 16 MiB.
    let fragment: Vec<u8> = [0x16, 3, 1, 0x10, 0, 1, 0xFF, 0xFF, 0xFF].into_iter().chain([0; 4092]).collect();
    for _ in 0..20 {
        pair.give(&fragment);
    }
    assert!(pair.closed);
    assert_eq!(pair.handler().events, ["accepted", "closed"]);
}

#[test]
fn a_broken_record_ends_an_open_session() {
    let (settings, root) = settings(&["localhost"]);
    let config = Arc::new(client_config(&[root], &[&TLS13]));
    let mut pair = Pair::new(&settings, echoing());
    let mut client = connect(&config, "localhost");
    pair.run(&mut client, 4096).unwrap();
    client.writer().write_all(b"hello").unwrap();
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    pair.give(&record);
    assert!(pair.closed && pair.handler().heard.is_empty());
    assert_eq!((pair.counters.broken.get(), pair.handler().events.last()), (1, Some(&"closed")));
}

#[test]
fn keys_change_when_the_client_wants() {
    let (settings, root) = settings(&["localhost"]);
    let config = Arc::new(client_config(&[root], &[&TLS13]));
    let mut pair = Pair::new(&settings, echoing());
    let mut client = connect(&config, "localhost");
    pair.run(&mut client, 4096).unwrap();
    for round in 0..10_u8 {
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(&[round; 100]).unwrap();
        pair.run(&mut client, 4096).unwrap();
        assert_eq!(read_all(&mut client), [round; 100]);
    }
}

#[test]
fn a_message_of_a_handshake_in_pieces_does_not_disturb_what_is_sent_meanwhile() {
    let (settings, root) = settings(&["localhost"]);
    let mut config = client_config(&[root], &[&TLS13]);
    config.enable_secret_extraction = true;
    let mut pair = Pair::new(&settings, Recorder::default());
    let mut client = connect(&Arc::new(config), "localhost");
    pair.run(&mut client, 4096).unwrap();
    // The first byte of a key update, as a record of its own, made by the client's own cipher.
    let secrets = client.dangerous_extract_secrets().unwrap();
    let rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets.tx.1 else { panic!("another suite") };
    let algorithm = &aws_lc_rs::aead::AES_256_GCM;
    let sealing = aws_lc_rs::aead::LessSafeKey::new(aws_lc_rs::aead::UnboundKey::new(algorithm, key.as_ref()).unwrap());
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    secrets.tx.0.to_be_bytes().iter().zip(&mut nonce[4..]).for_each(|(digit, byte)| *byte ^= digit);
    let mut record = vec![24, 22];
    let header = [23, 3, 3, 0, (record.len() + 16) as u8];
    sealing
        .seal_in_place_append_tag(
            aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce),
            aws_lc_rs::aead::Aad::from(header),
            &mut record,
        )
        .unwrap();
    pair.give(&[&header[..], &record].concat());
    assert!(!pair.closed, "it may yet become whole");
    pair.server.handler_mut().sending = true;
    pair.server.handler_mut().commands.push_back(Command::Send {
        connection: pair.key,
        buffers: vec![Rc::from(&b"meanwhile"[..])],
        awaited: false,
    });
    pair.turn();
    assert!(!pair.closed && pair.to_client.len() > 9, "a push leaves");
    pair.server.handler_mut().commands.push_back(Command::Close { connection: pair.key });
    pair.turn();
    assert!(pair.closed);
}

#[test]
fn a_storm_takes_a_few_steps_a_turn_and_open_sessions_go_first() {
    let (settings, root) = settings(&["localhost"]);
    let config = Arc::new(client_config(&[root], &[&TLS13]));
    let mut pair = Pair::new(&settings, echoing());
    let mut open = connect(&config, "localhost");
    pair.run(&mut open, 4096).unwrap();
    let mut hello = Vec::new();
    connect(&config, "localhost").write_tls(&mut hello).unwrap();
    for slot in 1..=100 {
        let key = ConnectionKey { slot, generation: 1 };
        pair.server.accepted(key, Origin { listener: TLS_LISTENER, peer: ([127, 0, 0, 1], 4000).into() });
        pair.server.received(key, &mut hello.clone());
    }
    open.writer().write_all(b"in between").unwrap();
    let mut record = Vec::new();
    open.write_tls(&mut record).unwrap();
    pair.server.received(pair.key, &mut record);
    let answers = |server: &mut Tls<Recorder>| {
        let mut sends = Vec::new();
        while let Some(command) = server.poll_command() {
            if let Command::Send { connection, .. } = command {
                sends.push(connection.slot);
            }
        }
        sends
    };
    assert!(pair.server.turn(2).more, "there is more to do");
    let first = answers(&mut pair.server);
    assert!(first.contains(&0) && (2..=9).contains(&first.len()), "{first:?}");
    let mut turns = 1;
    while pair.server.turn(2).more {
        let sends = answers(&mut pair.server).len();
        assert!((1..=8).contains(&sends), "{sends} handshakes in a turn");
        turns += 1;
    }
    assert!((10..=100).contains(&turns), "{turns} turns");
}

#[test]
fn other_listeners_pass_through() {
    let (settings, _) = settings(&["localhost"]);
    let mut server = Tls::new(echoing(), Some(settings), TLS_LISTENER, Rc::default());
    let key = ConnectionKey { slot: 3, generation: 9 };
    server.accepted(key, Origin { listener: 0, peer: ([127, 0, 0, 1], 4000).into() });
    server.received(key, &mut b"plain".to_vec());
    let Some(Command::Send { connection, buffers, .. }) = server.poll_command() else { panic!("it echoes") };
    assert!(connection == key && *buffers[0] == *b"plain");
    server.sent(key);
    server.closed(key);
    assert_eq!(server.handler().events, ["accepted", "closed"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However the client's bytes are cut, the handler hears the same.
    #[test]
    fn splits_do_not_matter(step in 1_usize..600, lengths in prop::collection::vec(1_usize..3_000, 1..6), new in any::<bool>()) {
        let (settings, root) = settings(&["localhost"]);
        let config = Arc::new(client_config(&[root], &[if new { &TLS13 } else { &TLS12 }]));
        let mut pair = Pair::new(&settings, echoing());
        let mut client = connect(&config, "localhost");
        pair.run(&mut client, step).unwrap();
        let mut said = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let text = vec![index as u8; *length];
            client.writer().write_all(&text).unwrap();
            said.extend(text);
        }
        pair.run(&mut client, step).unwrap();
        prop_assert!(pair.handler().heard == said);
        prop_assert!(read_all(&mut client) == said);
    }
}
