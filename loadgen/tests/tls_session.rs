//! The client's TLS session alone, against rustls' server in memory: however the server's bytes are split, the plaintext is the same.

mod echo_frames;
mod secure;

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
};

use antiphon_loadgen::tls::{TlsClient, TlsError, TlsVersion, Trust, session::Session};
use proptest::prelude::*;
use rustls::{
    ClientConfig, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use secure::Authority;

struct Pair {
    client: Session,
    server: ServerConnection,
    to_server: Vec<u8>,
    plain: Vec<u8>,
    /// What the server has read.
    heard: Vec<u8>,
    scratch: Vec<u8>,
}

impl Pair {
    fn new(client: &TlsClient, config: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Self {
        let mut to_server = Vec::new();
        let client = Session::begin(config, client.name().clone(), &mut to_server).unwrap();
        let server = ServerConnection::new(server).unwrap();
        Self { client, server, to_server, plain: Vec::new(), heard: Vec::new(), scratch: Vec::new() }
    }

    /// Carries bytes both ways until nothing moves; the server's in pieces of these lengths, over and over.
    fn pump(&mut self, lengths: &[usize]) -> Result<(), TlsError> {
        let mut lengths = lengths.iter().copied().cycle();
        loop {
            let mut bytes = std::mem::take(&mut self.to_server);
            let mut input = bytes.as_slice();
            while !input.is_empty() {
                self.server.read_tls(&mut input).unwrap();
                // An error leaves an alert to be sent.
                let _ = self.server.process_new_packets();
                let _ = self.server.reader().read_to_end(&mut self.heard);
            }
            bytes.clear();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(lengths.next().unwrap().clamp(1, rest.len()));
                self.client.receive(piece, &mut self.scratch, &mut self.plain, &mut self.to_server)?;
                rest = after;
            }
        }
    }
}

fn pair(authority: &Authority, version: TlsVersion) -> Pair {
    let client = TlsClient::new(Trust::Roots(&authority.file), "localhost", version, false).unwrap();
    Pair::new(&client, client.thread(1).turn_to(0).clone(), authority.server(&[&TLS12, &TLS13]))
}

/// Handshake, messages of all sizes both ways, new keys, the end.
fn converse(version: TlsVersion, lengths: &[usize], sizes: &[usize]) {
    let authority = Authority::new();
    let mut pair = pair(&authority, version);
    pair.pump(lengths).unwrap();
    assert!(pair.client.is_open());
    let agreed = pair.client.agreed();
    assert!(!agreed.resumed && agreed.text.starts_with(if version == TlsVersion::V12 { "TLSv1_2" } else { "TLSv1_3" }));
    let mut said = Vec::<u8>::new();
    for (number, &size) in sizes.iter().enumerate() {
        let message: Vec<u8> = (0..size).map(|index| (index + number) as u8).collect();
        if version == TlsVersion::V13 && number % 2 == 1 {
            pair.server.refresh_traffic_keys().unwrap();
        }
        pair.server.writer().write_all(&message).unwrap();
        said.extend(&message);
        // Several records may wait for each other.
        if number % 3 == 2 {
            pair.pump(lengths).unwrap();
            pair.client.write(&message, &mut pair.to_server).unwrap();
            pair.pump(lengths).unwrap();
            assert!(pair.heard.ends_with(&message), "the server reads what was written under new keys");
        }
    }
    pair.server.send_close_notify();
    pair.pump(lengths).unwrap();
    assert_eq!(pair.plain.len(), said.len());
    assert!(pair.plain == said, "the plaintext differs");
    assert!(pair.client.is_ended_by_server());
    pair.client.close(&mut pair.to_server);
    let mut input = pair.to_server.as_slice();
    pair.server.read_tls(&mut input).unwrap();
    assert!(pair.server.process_new_packets().unwrap().peer_has_closed(), "the client ends in good order too");
}

#[test]
fn a_byte_at_a_time_and_all_at_once_are_the_same() {
    for version in [TlsVersion::V12, TlsVersion::V13, TlsVersion::Any] {
        for length in [1, 2, 5, 6, 1_000_000] {
            converse(version, &[length], &[1, 0, 3, 200, 17_000, 40_000]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_split_gives_the_same_plaintext(
        lengths in prop::collection::vec(1_usize..3_000, 1..40),
        sizes in prop::collection::vec(0_usize..20_000, 1..12),
        is_old in any::<bool>(),
    ) {
        converse(if is_old { TlsVersion::V12 } else { TlsVersion::V13 }, &lengths, &sizes);
    }
}

#[test]
fn tickets_resume_and_without_them_each_handshake_is_full() {
    let authority = Authority::new();
    for (version, resumes) in [(TlsVersion::V12, true), (TlsVersion::V13, true), (TlsVersion::V13, false)] {
        let client = TlsClient::new(Trust::Roots(&authority.file), "localhost", version, resumes).unwrap();
        let (thread, server) = (client.thread(2), authority.server(&[&TLS12, &TLS13]));
        let resumed: Vec<bool> = [0, 0, 1, 0, 1]
            .map(|number| {
                let mut pair = Pair::new(&client, thread.turn_to(number).clone(), server.clone());
                pair.pump(&[100]).unwrap();
                pair.client.agreed().resumed
            })
            .into();
        assert_eq!(resumed, [false, resumes, false, resumes, resumes], "{version:?}");
    }
}

#[test]
fn a_server_that_wants_another_key_share_gets_it() {
    let authority = Authority::new();
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::SECP384R1];
    let client = TlsClient::new(Trust::Roots(&authority.file), "localhost", TlsVersion::V13, false).unwrap();
    let mut pair = Pair::new(&client, client.thread(1).turn_to(0).clone(), authority.server_by(provider, &[&TLS13]));
    pair.pump(&[50]).unwrap();
    let agreed = pair.client.agreed();
    assert!(agreed.retried && !agreed.resumed && agreed.text.ends_with("secp384r1"), "{agreed:?}");
}

#[test]
fn strangers_and_wrong_names_are_refused_and_the_server_is_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let refuse = |file, name, expect: &str| {
        let client = TlsClient::new(Trust::Roots(file), name, TlsVersion::Any, false).unwrap();
        let mut pair = Pair::new(&client, client.thread(1).turn_to(0).clone(), authority.server(&[&TLS13]));
        let error = pair.pump(&[64]).unwrap_err();
        assert!(matches!(error, TlsError::Certificate(_)) && error.is_lasting(), "{error}");
        assert!(error.to_string().contains(expect), "{error}");
        let mut input = pair.to_server.as_slice();
        while !input.is_empty() {
            pair.server.read_tls(&mut input).unwrap();
        }
        let told = pair.server.process_new_packets().unwrap_err();
        assert!(matches!(told, rustls::Error::AlertReceived(_)), "{told}");
        assert!(!pair.client.is_open() && pair.client.write(b"x", &mut Vec::new()) == Err(TlsError::CannotSend));
    };
    refuse(&other.file, "localhost", "issuer is none of the given roots");
    refuse(&authority.file, "example.org", "example.org");
    let client = TlsClient::new(Trust::Anybody, "example.org", TlsVersion::Any, false).unwrap();
    let mut pair = Pair::new(&client, client.thread(1).turn_to(0).clone(), authority.server(&[&TLS13]));
    pair.pump(&[64]).unwrap();
    assert!(pair.client.is_open() && !client.verifies());
}

#[test]
fn versions_that_do_not_meet_are_told_apart() {
    let authority = Authority::new();
    let client = TlsClient::new(Trust::Roots(&authority.file), "localhost", TlsVersion::V13, false).unwrap();
    let mut pair = Pair::new(&client, client.thread(1).turn_to(0).clone(), authority.server(&[&TLS12]));
    let error = pair.pump(&[64]).unwrap_err();
    assert!(matches!(error, TlsError::Alert(_)) && error.is_lasting(), "{error}");
}

#[test]
fn what_is_no_tls_and_what_never_ends_is_refused() {
    let authority = Authority::new();
    let receive = |bytes: &[u8]| {
        let mut pair = pair(&authority, TlsVersion::Any);
        let mut result = Ok(());
        for piece in bytes.chunks(1_000) {
            result =
                result.and_then(|()| pair.client.receive(piece, &mut pair.scratch, &mut pair.plain, &mut Vec::new()));
        }
        result.map(|()| pair.client.is_open())
    };
    let error = receive(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap_err();
    assert!(error.is_lasting() && error.advice().contains("speak TLS"), "{error}");
    // A record that is longer than a record may be.
    assert!(receive(&[22, 3, 3, 0xFF, 0xFF, 0, 0]).is_err());
    // Handshake records of a message that says that it has 16 MiB.
    let record = [&[22, 3, 3, 0x40, 0][..], &[2, 0xFF, 0xFF, 0xFF], &[0; 0x3FFC]].concat();
    assert!(receive(&record.repeat(20)).is_err());
    // An alert instead of a ServerHello.
    assert_eq!(receive(&[21, 3, 3, 0, 2, 2, 40]), Err(TlsError::Alert(rustls::AlertDescription::HandshakeFailure)));
    // Anybody could have sent this end: TCP's is waited for.
    assert_eq!(receive(&[21, 3, 3, 0, 2, 1, 0]), Ok(false));
    assert_eq!(receive(&[22, 3, 3, 0]), Ok(false), "half a header is no reason");
}

#[test]
fn a_changed_byte_ends_the_session() {
    let authority = Authority::new();
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let mut pair = pair(&authority, version);
        pair.pump(&[4_096]).unwrap();
        pair.server.writer().write_all(b"hello").unwrap();
        let mut bytes = Vec::new();
        pair.server.write_tls(&mut bytes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let received = pair.client.receive(&bytes, &mut pair.scratch, &mut pair.plain, &mut pair.to_server);
        assert_eq!(received, Err(TlsError::Protocol(rustls::Error::DecryptError)));
        assert!(pair.plain.is_empty() && !pair.to_server.is_empty(), "an alert says so");
    }
}
