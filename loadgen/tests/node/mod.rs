//! A node small enough to trust: threads and a lock, everything in memory, one connection a thread. It can be told to misbehave,
//! so that the generator's checks can be seen to fail.

#![allow(dead_code, reason = "each test file uses its part of it")]

mod large;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use antiphon_loadgen::websocket::accept_for;
use antiphon_wire::{
    codec::Encoding,
    frame::{
        Ack, CaughtUp, Connect, Create, CreateGroup, Created, Entry, EntryBytes, EntryKind, HistoryAnswer, Limits,
        Members, MembersAction, MembersAnswer, Pong, PositionBytes, Request, ResumeOutcome, Send, ServerFrame, TooFar,
        Welcome,
    },
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Ordinal, RequestId, Sequence, TimestampMs, UserId},
};

/// What goes wrong, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The 50th message is pushed to all but one member.
    Lose,
    /// The 50th message is pushed twice to one member.
    Repeat,
    /// The 50th message is pushed to one member after the 51st of the same conversation.
    Reorder,
    /// The 50th message is pushed to a member of no conversation of its.
    Leak,
    /// Every 100th message cuts its sender's connection before the acknowledgement.
    Cut,
    /// As `Cut`, and a resume streams nothing: all is to be paged.
    CutAndPage,
    /// As `Cut`, and idempotency is forgotten: a retry is stored again.
    CutAndForget,
    /// The 100th message is pushed to everybody and acknowledged, and then not in the history.
    Forget,
    /// Once 200 messages were stored, every connection is cut.
    Crash,
    /// As `Crash`, and the last stored message of every conversation is gone.
    CrashAndForget,
    /// As `Crash`, and one connection is never taken again.
    CrashAndRefuse,
    /// What goes wrong in a large group.
    Large(LargeFault),
}

pub(crate) use large::LargeFault;

struct Conversation {
    members: Vec<UserId>,
    entries: Vec<EntryBytes>,
    sent: HashMap<ClientMessageId, u64>,
    /// Who has it open.
    open: Vec<UserId>,
}

impl Conversation {
    fn new(members: Vec<UserId>) -> Self {
        Self { members, entries: Vec::new(), sent: HashMap::new(), open: Vec::new() }
    }
}

#[derive(Default)]
struct State {
    conversations: HashMap<ConversationId, Conversation>,
    sessions: HashMap<UserId, TcpStream>,
    messages: u64,
    crashed: bool,
    delayed: Option<(ConversationId, UserId, Vec<u8>)>,
}

/// Starts a node; it ends with the process.
pub(crate) fn start(encoding: Encoding, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            let state = state.clone();
            std::thread::spawn(move || Session { stream, encoding, fault, state, user: None }.serve());
        }
    });
    address
}

struct Session {
    stream: TcpStream,
    encoding: Encoding,
    fault: Fault,
    state: Arc<Mutex<State>>,
    user: Option<UserId>,
}

impl Session {
    fn serve(mut self) -> Option<()> {
        let mut input = Vec::new();
        while !input.windows(4).any(|window| window == b"\r\n\r\n") {
            self.read(&mut input)?;
        }
        let head = String::from_utf8(std::mem::take(&mut input)).ok()?;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            accept_for(key),
            self.encoding.subprotocol()
        );
        self.stream.write_all(answer.as_bytes()).ok()?;
        loop {
            while let Some((message, taken)) = unmask(&input) {
                input.drain(..taken);
                let (id, request) = self.encoding.decode_request(&message).expect("loadgen writes good frames");
                self.request(id.expect("loadgen numbers its requests"), request)?;
            }
            self.read(&mut input)?;
        }
    }

    fn read(&mut self, input: &mut Vec<u8>) -> Option<()> {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).ok().filter(|&length| length > 0)?;
        input.extend(&buffer[..length]);
        Some(())
    }

    fn request(&mut self, id: RequestId, request: Request) -> Option<()> {
        let shared = self.state.clone();
        let mut state = shared.lock().unwrap();
        let answer = match request {
            Request::Connect(connect) => return self.connect(&mut state, id, &connect),
            Request::Ping(_) => ServerFrame::Pong(Pong { time_ms: TimestampMs(1), position: Some(position(&state)) }),
            Request::Create(Create::Group(group)) => self.create(&mut state, group),
            Request::Create(Create::Direct(other)) => self.create_direct(&mut state, other),
            Request::Members(members) => self.add(&mut state, members),
            Request::View(view) => self.view(&mut state, &view),
            Request::Conversations(_) => self.list(&state),
            Request::Send(send) => return self.send(&mut state, id, send),
            Request::History(history) => {
                let conversation = &state.conversations[&history.conversation];
                let after = history.after.unwrap_or_default().0 as usize;
                let mut page = conversation.entries[after..(after + 200).min(conversation.entries.len())].to_vec();
                if self.fault == Fault::Forget {
                    // The order of the node's messages is not that of a conversation: some one of them will do.
                    page.retain(|entry| u64::from(entry.view().expect("it was made here").sequence.0) != 9);
                }
                ServerFrame::HistoryAnswer(HistoryAnswer {
                    conversation: history.conversation,
                    epoch: Epoch(1),
                    first: Sequence(1),
                    last: Sequence(conversation.entries.len() as u64),
                    entries: page,
                })
            }
            other => panic!("loadgen does not send {other:?}"),
        };
        self.answer(Some(id), &answer)
    }

    fn connect(&mut self, state: &mut State, id: RequestId, connect: &Connect) -> Option<()> {
        let user = UserId::new(connect.token.as_deref()?.strip_prefix("dev:")?).ok()?;
        if self.fault == Fault::CrashAndRefuse && state.crashed && user.as_str().ends_with("-7") {
            return None;
        }
        let outcome = if connect.resume.is_some() { ResumeOutcome::Resuming } else { ResumeOutcome::Fresh };
        let limits = Limits {
            frame_bytes_max: 1 << 17,
            text_bytes_max: 1 << 14,
            members_per_request_max: 100,
            group_members_max: 1_000,
            page_items_max: 200,
            requests_per_second_max: 1_000,
        };
        let welcome = ServerFrame::Welcome(Welcome {
            user: user.clone(),
            device: DeviceId::new("load").unwrap(),
            session: "1".into(),
            time_ms: TimestampMs(1),
            heartbeat_interval_ms: 1_500,
            resume: outcome,
            limits,
        });
        self.answer(Some(id), &welcome)?;
        for known in connect.resume.iter().flat_map(|resume| &resume.known) {
            let conversation = &state.conversations[&known.conversation];
            let (missing, last) = (
                &conversation.entries[(known.sequence.0 as usize).min(conversation.entries.len())..],
                conversation.entries.len() as u64,
            );
            if self.fault == Fault::CutAndPage && !missing.is_empty() {
                let conversation = known.conversation;
                let (epoch, first, last) = (Epoch(1), Sequence(1), Sequence(last));
                self.answer(None, &ServerFrame::TooFar(TooFar { conversation, epoch, first, last }))?;
            } else {
                missing.iter().try_for_each(|entry| self.answer(None, &ServerFrame::Message(entry.clone())))?;
            }
        }
        self.answer(None, &ServerFrame::CaughtUp(CaughtUp { position: position(state) }))?;
        state.sessions.insert(user.clone(), self.stream.try_clone().ok()?);
        self.user = Some(user);
        Some(())
    }

    fn create(&self, state: &mut State, group: CreateGroup) -> ServerFrame {
        let creator = self.user.clone().expect("connected first");
        let id = ConversationId::group(&creator, group.key);
        if let Some(known) = state.conversations.get(&id) {
            let sequence = Sequence(known.entries.len() as u64);
            return ServerFrame::Created(Created { conversation: id, epoch: Epoch(1), sequence, existing: true });
        }
        let members = std::iter::once(creator).chain(group.members).collect();
        state.conversations.insert(id, Conversation::new(members));
        self.append(state, id, EntryKind::Title, ClientMessageId([0; 16]), Vec::new());
        ServerFrame::Created(Created { conversation: id, epoch: Epoch(1), sequence: Sequence(1), existing: false })
    }

    fn create_direct(&self, state: &mut State, other: UserId) -> ServerFrame {
        let creator = self.user.clone().expect("connected first");
        let id = ConversationId::direct(&creator, &other);
        let members = vec![creator, other];
        state.conversations.insert(id, Conversation::new(members));
        self.append(state, id, EntryKind::Title, ClientMessageId([0; 16]), Vec::new());
        ServerFrame::Created(Created { conversation: id, epoch: Epoch(1), sequence: Sequence(1), existing: false })
    }

    fn add(&self, state: &mut State, members: Members) -> ServerFrame {
        let MembersAction::Add(users) = members.action else { panic!("loadgen only adds") };
        let known = &mut state.conversations.get_mut(&members.conversation).expect("it was created").members;
        let new: Vec<UserId> = users.into_iter().filter(|user| !known.contains(user)).collect();
        known.extend(new);
        let sequence = self.append(state, members.conversation, EntryKind::Title, ClientMessageId([0; 16]), Vec::new());
        ServerFrame::MembersAnswer(MembersAnswer { sequence: Some(Sequence(sequence)), members: None, next: None })
    }

    fn send(&mut self, state: &mut State, id: RequestId, send: Send) -> Option<()> {
        let conversation = state.conversations.get(&send.conversation).expect("loadgen sends where it is a member");
        let known =
            conversation.sent.get(&send.client_message_id).copied().filter(|_| self.fault != Fault::CutAndForget);
        let sequence = known.unwrap_or_else(|| {
            state.messages += 1;
            self.append(state, send.conversation, EntryKind::Message, send.client_message_id, send.content.0)
        });
        let crashes = matches!(self.fault, Fault::Crash | Fault::CrashAndForget | Fault::CrashAndRefuse);
        if crashes && !state.crashed && state.messages >= 200 {
            self.crash(state);
            return None;
        }
        let cuts = matches!(self.fault, Fault::Cut | Fault::CutAndPage | Fault::CutAndForget);
        if cuts && known.is_none() && state.messages.is_multiple_of(100) {
            state.sessions.remove(self.user.as_ref()?);
            let _ = self.stream.shutdown(Shutdown::Both);
            return None;
        }
        let ack = Ack {
            sequence: Sequence(sequence),
            ordinal: Ordinal(0),
            time_ms: TimestampMs(1),
            duplicate: known.is_some(),
        };
        self.answer(Some(id), &ServerFrame::Ack(ack))
    }

    /// Everybody is cut off.
    fn crash(&self, state: &mut State) {
        state.crashed = true;
        for (_, stream) in state.sessions.drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if self.fault == Fault::CrashAndForget {
            for conversation in state.conversations.values_mut() {
                conversation.entries.pop();
                let left = conversation.entries.len() as u64;
                conversation.sent.retain(|_, sequence| *sequence <= left);
            }
        }
    }

    fn append(
        &self,
        state: &mut State,
        id: ConversationId,
        kind: EntryKind,
        name: ClientMessageId,
        body: Vec<u8>,
    ) -> u64 {
        let conversation = state.conversations.get_mut(&id).expect("it was created");
        let sequence = conversation.entries.len() as u64 + 1;
        let entry = Entry {
            conversation: id,
            epoch: Epoch(1),
            sequence: Sequence(sequence),
            ordinal: Ordinal(sequence),
            time_ms: TimestampMs(1),
            kind,
            client_message_id: name,
            sender: self.user.clone().expect("connected first"),
            body,
        };
        let archive = entry.to_archive();
        conversation.entries.push(EntryBytes(archive.to_vec()));
        conversation.sent.insert(name, sequence);
        let bytes = frame(self.encoding, &self.encoding.encode_message(&archive));
        if large::is_large(conversation) {
            self.tell_of(state, id, kind, sequence, &bytes);
            return sequence;
        }
        let members = conversation.members.clone();
        let chosen = kind == EntryKind::Message && state.messages == 50;
        for (index, member) in members.iter().enumerate() {
            let times = match (self.fault, chosen && index == 1) {
                (Fault::Lose, true) => 0,
                (Fault::Reorder, true) => {
                    state.delayed = Some((id, member.clone(), bytes.clone()));
                    0
                }
                (Fault::Repeat, true) => 2,
                _ => 1,
            };
            (0..times).for_each(|_| push(state, member, &bytes));
        }
        if let Some((_, member, bytes)) = state.delayed.take_if(|(delayed, ..)| *delayed == id && !chosen) {
            push(state, &member, &bytes);
        }
        if chosen && self.fault == Fault::Leak {
            let stranger = state.sessions.keys().find(|user| !members.contains(user)).cloned();
            push(state, &stranger.expect("there is more than one group"), &bytes);
        }
        sequence
    }

    fn answer(&mut self, id: Option<RequestId>, answer: &ServerFrame) -> Option<()> {
        let bytes = frame(self.encoding, &self.encoding.encode_server(id, answer));
        self.stream.write_all(&bytes).ok()
    }
}

fn push(state: &mut State, member: &UserId, bytes: &[u8]) {
    // Whoever does not read for a while is cut off: it holds all others up here.
    let failed = state.sessions.get_mut(member).is_some_and(|stream| {
        stream.set_write_timeout(Some(Duration::from_millis(100))).is_err() || stream.write_all(bytes).is_err()
    });
    if failed && let Some(stream) = state.sessions.remove(member) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn position(state: &State) -> PositionBytes {
    PositionBytes(state.messages.to_le_bytes().to_vec())
}

fn frame(encoding: Encoding, payload: &[u8]) -> Vec<u8> {
    let first = if encoding == Encoding::Json { 0x81 } else { 0x82 };
    let mut out = match payload.len() {
        length @ 0..=125 => vec![first, length as u8],
        length @ 126..=0xFFFF => [&[first, 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    out.extend(payload);
    out
}

/// The payload of the first masked frame, and how many bytes it took.
fn unmask(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let second = *input.get(1)?;
    assert_eq!(second & 0x80, 0x80, "a client masks");
    let (length, header) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 8),
        127 => panic!("loadgen's frames are shorter"),
        length => (usize::from(length), 6),
    };
    let (mask, payload) = (input.get(header - 4..header)?, input.get(header..header + length)?);
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some((payload, header + length))
}
