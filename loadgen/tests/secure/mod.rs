//! Certificates of an authority of these tests, and a TLS echo over blocking sockets that can misbehave: a connection a thread.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use antiphon_loadgen::websocket::accept_for;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::echo_frames::unmask;

/// An authority, and a certificate by it for `localhost` and 127.0.0.1.
pub(crate) struct Authority {
    /// Its certificate as a PEM file, which is removed at the end.
    pub(crate) file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        parameters.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &authority).unwrap();
        let file = std::env::temp_dir().join(format!("loadgen-ca-{}-{number}.pem", std::process::id()));
        std::fs::write(&file, authority.pem()).unwrap();
        Self { file, chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    pub(crate) fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        self.server_by(aws_lc_rs::default_provider(), versions)
    }

    pub(crate) fn server_by(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let mut config = builder
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        Arc::new(config)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What the server does, beside echoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The third connection is answered by no TLS, once another one stands.
    Garbage,
    /// The third connection is closed after the ClientHello, once another one stands.
    CloseInHandshake,
    /// New keys before every fifth echo, with a request for new keys of the client's.
    KeyUpdate,
    /// Each byte in a segment of its own.
    Dribble,
    /// Echoes are held back, and leave ten at a time.
    Burst,
    /// The first connection is ended after ten echoes, with or without `close_notify`.
    Close {
        notify: bool,
    },
}

/// How the first session that a server lost was ended by the client.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    stands: Mutex<bool>,
    changed: Condvar,
    /// Connections that the client ended with `close_notify`.
    pub(crate) notified: AtomicU32,
    pub(crate) server_name: Mutex<Option<String>>,
    pub(crate) application: Mutex<Option<Vec<u8>>>,
}

/// Starts an echo; it ends with the process.
pub(crate) fn start(config: Arc<ServerConfig>, fault: Fault) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let server_seen = seen.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            stream.set_nodelay(true).unwrap();
            let (config, seen) = (config.clone(), server_seen.clone());
            std::thread::spawn(move || Echo::new(stream, config, fault, number, &seen).serve());
        }
    });
    (address, seen)
}

struct Echo<'a> {
    stream: TcpStream,
    connection: ServerConnection,
    fault: Fault,
    number: usize,
    seen: &'a Seen,
    input: Vec<u8>,
}

impl<'a> Echo<'a> {
    fn new(stream: TcpStream, config: Arc<ServerConfig>, fault: Fault, number: usize, seen: &'a Seen) -> Self {
        let connection = ServerConnection::new(config).unwrap();
        Self { stream, connection, fault, number, seen, input: Vec::new() }
    }

    fn serve(mut self) -> Option<()> {
        if self.number == 2 && matches!(self.fault, Fault::Garbage | Fault::CloseInHandshake) {
            let stands = self.seen.stands.lock().unwrap();
            drop(self.seen.changed.wait_while(stands, |stands| !*stands).unwrap());
            let _ = self.stream.read(&mut [0; 4096]).ok()?;
            if self.fault == Fault::Garbage {
                self.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok()?;
            }
            return self.stream.shutdown(Shutdown::Both).ok();
        }
        while !self.input.ends_with(b"\r\n\r\n") {
            self.read()?;
        }
        *self.seen.stands.lock().unwrap() = true;
        self.seen.changed.notify_all();
        *self.seen.server_name.lock().unwrap() = self.connection.server_name().map(str::to_owned);
        *self.seen.application.lock().unwrap() = self.connection.alpn_protocol().map(<[u8]>::to_vec);
        let head = String::from_utf8(std::mem::take(&mut self.input)).ok()?;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
        let accept = accept_for(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.write(answer.as_bytes(), true)?;
        for number in 1.. {
            let (frame, taken) = loop {
                match unmask(&self.input) {
                    Some(frame) => break frame,
                    None => self.read()?,
                }
            };
            self.input.drain(..taken);
            if self.fault == Fault::KeyUpdate && number % 5 == 0 {
                self.connection.refresh_traffic_keys().unwrap();
            }
            self.write(&frame, self.fault != Fault::Burst || number % 10 == 0)?;
            if let Fault::Close { notify } = self.fault
                && self.number == 0
                && number == 10
            {
                if notify {
                    self.connection.send_close_notify();
                    self.flush()?;
                }
                return self.stream.shutdown(Shutdown::Both).ok();
            }
        }
        Some(())
    }

    fn write(&mut self, plain: &[u8], flush: bool) -> Option<()> {
        // A record for each frame.
        self.connection.writer().write_all(plain).ok()?;
        if flush { self.flush() } else { Some(()) }
    }

    fn flush(&mut self) -> Option<()> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).ok()?;
        }
        if self.fault == Fault::Dribble {
            return out.iter().try_for_each(|byte| self.stream.write_all(&[*byte]).ok());
        }
        self.stream.write_all(&out).ok()
    }

    fn read(&mut self) -> Option<()> {
        let is_at_end = self.connection.read_tls(&mut self.stream).ok()? == 0;
        let state = self.connection.process_new_packets();
        self.flush()?;
        let state = state.ok()?;
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        self.connection.reader().read_exact(&mut plain).ok()?;
        self.input.extend(plain);
        if state.peer_has_closed() {
            self.seen.notified.fetch_add(1, Ordering::Relaxed);
        }
        (!is_at_end && !state.peer_has_closed()).then_some(())
    }
}

/// A TLS front of a server without TLS; it ends with the process.
pub(crate) fn front(config: Arc<ServerConfig>, server: SocketAddr) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let front_seen = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            let Ok(inner) = TcpStream::connect(server) else { continue };
            inner.set_nodelay(true).unwrap();
            let connection = Arc::new(Mutex::new(ServerConnection::new(config.clone()).unwrap()));
            let (outer_end, inner_end) = (stream.try_clone().unwrap(), inner.try_clone().unwrap());
            let (shared, seen) = (connection.clone(), front_seen.clone());
            std::thread::spawn(move || {
                let _ = inwards(stream, &inner_end, &shared, &seen);
                let _ = inner_end.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = outwards(inner, &outer_end, &connection);
                let _ = outer_end.shutdown(Shutdown::Both);
            });
        }
    });
    (address, seen)
}

fn inwards(
    mut outer: TcpStream,
    mut inner: &TcpStream,
    shared: &Mutex<ServerConnection>,
    seen: &Seen,
) -> std::io::Result<()> {
    let mut buffer = [0; 16_384];
    loop {
        let length = outer.read(&mut buffer)?;
        let (mut input, mut plain) = (&buffer[..length], Vec::new());
        let mut connection = shared.lock().unwrap();
        while !input.is_empty() {
            connection.read_tls(&mut input)?;
            let state = connection.process_new_packets().map_err(std::io::Error::other)?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut plain[start..])?;
            if state.peer_has_closed() {
                seen.notified.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        }
        while connection.wants_write() {
            connection.write_tls(&mut outer)?;
        }
        drop(connection);
        inner.write_all(&plain)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn outwards(mut inner: TcpStream, mut outer: &TcpStream, shared: &Mutex<ServerConnection>) -> std::io::Result<()> {
    let mut buffer = [0; 16_384];
    loop {
        let length = inner.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut connection = shared.lock().unwrap();
        connection.writer().write_all(&buffer[..length])?;
        while connection.wants_write() {
            connection.write_tls(&mut outer)?;
        }
    }
}
