//! A small blocking client that speaks JSON, one request at a time or pipelined.
//!
//! Answers wait under their request's id, pushes in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use antiphon_gateway::core::{
    http::client::{Outcome, Request, encode_request, parse_response},
    websocket::{Decoder, Event, Limits, MessageKind, Opcode, Role, encode_frame, encode_message, encode_pong},
};
use serde_json::{Value, json};

use super::DEADLINE;

/// Not random: masks protect middleboxes, and there are none here.
pub(crate) const MASK: Option<[u8; 4]> = Some([0x11, 0x22, 0x33, 0x44]);
pub(crate) const JSON: &str = "antiphon.v1.json";
pub(crate) const RKYV: &str = "antiphon.v1.rkyv";

/// The connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The close frame's code, if one came.
    pub(crate) code: Option<u16>,
    pub(crate) why: String,
}

impl fmt::Display for Gone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "gone ({:?}): {}", self.code, self.why)
    }
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self { code: None, why: error.to_string() }
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    limits: Limits,
    answers: HashMap<u64, Value>,
    pub(crate) pushes: VecDeque<Value>,
    /// Payloads of binary messages.
    pub(crate) binary: VecDeque<Vec<u8>>,
    /// The last text message as it came.
    pub(crate) last_text: String,
    next_id: u64,
    gone: Option<Gone>,
}

impl Client {
    /// A WebSocket on which nobody has said `connect`.
    pub(crate) fn open(address: SocketAddr, subprotocol: &str) -> Result<Self, Gone> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let host = address.to_string();
        let subprotocols = [subprotocol];
        let request =
            Request { host: &host, path: "/ws", subprotocols: &subprotocols, token: None, nonce: *b"process test key" };
        stream.write_all(&encode_request(&request))?;
        let limits = Limits { frame_bytes_max: 4 << 20, message_bytes_max: 4 << 20, ..Limits::default() };
        let mut client = Self {
            stream,
            decoder: Decoder::new(Role::Client),
            limits,
            answers: HashMap::new(),
            pushes: VecDeque::new(),
            binary: VecDeque::new(),
            last_text: String::new(),
            next_id: 1,
            gone: None,
        };
        let mut head = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let count = client.stream.read(&mut buffer)?;
            head.extend_from_slice(&buffer[..count]);
            match parse_response(&head, &request) {
                Outcome::Connected { consumed_bytes, .. } => {
                    client.take(&mut head.split_off(consumed_bytes))?;
                    return Ok(client);
                }
                Outcome::NeedMore if count > 0 => {}
                other => return Err(Gone { code: None, why: format!("no upgrade: {other:?}") }),
            }
        }
    }

    /// Connects as a user. The answer to `connect` comes too.
    pub(crate) fn login(
        address: SocketAddr,
        user: &str,
        device: &str,
        resume: Option<&Value>,
    ) -> Result<(Self, Value), Gone> {
        let mut client = Self::open(address, JSON)?;
        let mut connect = json!({"token": format!("dev:{user}"), "device": device});
        if let Some(resume) = resume {
            connect["resume"] = resume.clone();
        }
        let answer = client.ask(json!({ "connect": connect }))?;
        match answer.get("connect") {
            Some(welcome) => Ok((client, welcome.clone())),
            None => Err(Gone { code: None, why: answer.to_string() }),
        }
    }

    /// Connects afresh; the connection must come about.
    pub(crate) fn fresh(address: SocketAddr, user: &str) -> Self {
        Self::login(address, user, "device", None).unwrap_or_else(|gone| panic!("{user}: {gone}")).0
    }

    /// Sends a request and does not wait: its id.
    pub(crate) fn post(&mut self, mut request: Value) -> Result<u64, Gone> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        self.send_text(&request.to_string())?;
        Ok(id)
    }

    /// Sends a request and waits for its answer, the whole frame.
    pub(crate) fn ask(&mut self, request: Value) -> Result<Value, Gone> {
        let id = self.post(request)?;
        self.answer(id)
    }

    /// The same for a request that must succeed: what stands under its kind.
    pub(crate) fn must(&mut self, kind: &str, body: Value) -> Value {
        let mut request = json!({});
        request[kind] = body;
        let answer = self.ask(request.clone()).unwrap_or_else(|gone| panic!("{request}: {gone}"));
        answer.get(kind).unwrap_or_else(|| panic!("{request}: {answer}")).clone()
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, id: u64) -> Result<Value, Gone> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return Ok(answer);
            }
            assert!(Instant::now() < deadline, "no answer to request {id} in {DEADLINE:?}");
            let pumped = self.pump(Duration::from_millis(100));
            // An answer may be the last that came.
            if !self.answers.contains_key(&id) {
                pumped?;
            }
        }
    }

    /// Answers that have come, with their ids.
    pub(crate) fn take_answers(&mut self) -> Vec<(u64, Value)> {
        self.answers.drain().collect()
    }

    /// Waits for the next push of a kind and drops those before it.
    pub(crate) fn push(&mut self, kind: &str) -> Result<Value, Gone> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            while let Some(push) = self.pushes.pop_front() {
                if let Some(body) = push.get(kind) {
                    return Ok(body.clone());
                }
            }
            assert!(Instant::now() < deadline, "no {kind} in {DEADLINE:?}");
            let pumped = self.pump(Duration::from_millis(100));
            if self.pushes.is_empty() {
                pumped?;
            }
        }
    }

    /// Reads what there is, waiting at most so long for something; says whether anything came.
    pub(crate) fn pump(&mut self, timeout: Duration) -> Result<bool, Gone> {
        if let Some(gone) = &self.gone {
            return Err(gone.clone());
        }
        self.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.end(None, "end of stream")),
            Ok(count) => self.take(&mut buffer[..count]).map(|()| true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(self.end(None, &error.to_string())),
        }
    }

    /// Reads until the connection ends: the close frame's code.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.pump(Duration::from_millis(100)) {
                Ok(_) => assert!(Instant::now() < deadline, "not closed in {DEADLINE:?}"),
                Err(gone) => return gone.code,
            }
        }
    }

    pub(crate) fn send_text(&mut self, text: &str) -> Result<(), Gone> {
        self.send_bytes(&encode_message(MessageKind::Text, text.as_bytes(), MASK))
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        // What the other end said before it went away is still to be read: an error here is told by the next read.
        self.stream.write_all(bytes).or_else(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(Gone::from(error)),
        })
    }

    fn end(&mut self, code: Option<u16>, why: &str) -> Gone {
        self.gone.get_or_insert_with(|| Gone { code, why: why.to_owned() }).clone()
    }

    fn take(&mut self, mut bytes: &mut [u8]) -> Result<(), Gone> {
        loop {
            let reply = match self.decoder.poll(&mut bytes, &self.limits) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Message { kind: MessageKind::Text, payload })) => {
                    self.last_text = String::from_utf8_lossy(payload).into_owned();
                    let frame: Value = serde_json::from_slice(payload).expect("the server speaks JSON");
                    match frame["id"].as_u64() {
                        Some(id) => drop(self.answers.insert(id, frame)),
                        None => self.pushes.push_back(frame),
                    }
                    continue;
                }
                Ok(Some(Event::Message { kind: MessageKind::Binary, payload })) => {
                    self.binary.push_back(payload.to_vec());
                    continue;
                }
                Ok(Some(Event::Ping(payload))) => encode_pong(payload, MASK),
                Ok(Some(Event::Pong(_))) => continue,
                Ok(Some(Event::Close { code, .. })) => {
                    let payload = code.map(u16::to_be_bytes).unwrap_or_default();
                    let frame = encode_frame(Opcode::Close, true, &payload[..code.map_or(0, |_| 2)], MASK);
                    let _ = self.stream.write_all(&frame);
                    return Err(self.end(code, "closed"));
                }
                Err(error) => panic!("the server broke RFC 6455: {error}"),
            };
            let _ = self.stream.write_all(&reply);
        }
    }
}

/// All entries of a conversation that its member can read, by pages of `history` from the first on.
pub(crate) fn whole_history(client: &mut Client, conversation: &str) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry["sequence"].as_u64().unwrap());
        let page = client.must("history", json!({"conversation": conversation, "after": after, "limit": 200}));
        let Some(found) = page["entries"].as_array().filter(|found| !found.is_empty()) else { return entries };
        entries.extend(found.iter().cloned());
        if entries.last().map(|entry| &entry["sequence"]) == Some(&page["last"]) {
            return entries;
        }
    }
}

/// A group of the client's user and others: its id.
pub(crate) fn group(client: &mut Client, key: u128, members: &[&str]) -> String {
    let group = json!({"key": super::uuid(key), "title": "group", "members": members});
    let created = client.must("create", json!({ "group": group }));
    created["conversation"].as_str().unwrap().to_owned()
}
