//! A server that does what a test says, frame by frame.

use antiphon_client::wire::{
    codec::Encoding,
    frame::{
        Ack, CaughtUp, Connect, Content, Entry, EntryBytes, EntryKind, Limits, PositionBytes, Request, ResumeOutcome,
        ServerFrame, Welcome,
    },
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, RequestId, Sequence, TimestampMs, UserId},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request as Upgrade, Response},
        http::{HeaderValue, header},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

pub(crate) const CHOIR: ConversationId = ConversationId([7; 16]);

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

/// One connection of a client.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Server {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        Self { listener, url }
    }

    pub(crate) async fn accept_raw(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// A client's next connection, upgraded.
    pub(crate) async fn accept(&self) -> Peer {
        let stream = self.accept_raw().await;
        let mut encoding = None;
        #[expect(clippy::result_large_err, reason = "tungstenite's own")]
        let choose = |upgrade: &Upgrade, mut answer: Response| -> Result<Response, ErrorResponse> {
            let offered = upgrade.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap();
            encoding = Encoding::from_subprotocol(offered);
            let chosen = HeaderValue::from_str(offered).unwrap();
            answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
            Ok(answer)
        };
        let socket = accept_hdr_async(stream, choose).await.unwrap();
        Peer { socket, encoding: encoding.unwrap() }
    }

    /// A client's next connection, and what it said of itself, with everything in order.
    pub(crate) async fn welcome(&self, resume: ResumeOutcome) -> (Peer, Connect) {
        let mut peer = self.accept().await;
        let (id, request) = peer.request().await;
        let Request::Connect(connect) = request else { panic!("not connect: {request:?}") };
        peer.answer(id, ServerFrame::Welcome(welcome(resume))).await;
        (peer, connect)
    }

    /// The same, and it has everything.
    pub(crate) async fn open(&self, resume: ResumeOutcome, position: u8) -> (Peer, Connect) {
        let (mut peer, connect) = self.welcome(resume).await;
        peer.push(ServerFrame::CaughtUp(CaughtUp { position: PositionBytes(vec![position]) })).await;
        (peer, connect)
    }
}

pub(crate) fn welcome(resume: ResumeOutcome) -> Welcome {
    Welcome {
        user: user("alice"),
        device: "phone".parse().unwrap(),
        session: "1-1".into(),
        time_ms: TimestampMs(1_700_000_000_000),
        heartbeat_interval_ms: 30_000,
        resume,
        limits: Limits {
            frame_bytes_max: 131_072,
            text_bytes_max: 16_384,
            members_per_request_max: 100,
            group_members_max: 1_000,
            page_items_max: 200,
            requests_per_second_max: 50,
        },
    }
}

impl Peer {
    /// What the client asks next.
    pub(crate) async fn request(&mut self) -> (Option<RequestId>, Request) {
        loop {
            let message = self.socket.next().await.expect("the client is there").expect("and speaks WebSocket");
            let bytes = match message {
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Binary(bytes) => bytes.to_vec(),
                _ => continue,
            };
            return self.encoding.decode_request(&bytes).unwrap();
        }
    }

    pub(crate) async fn answer(&mut self, id: Option<RequestId>, frame: ServerFrame) {
        let bytes = self.encoding.encode_server(id, &frame);
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes).unwrap()),
            Encoding::Rkyv => Message::binary(bytes),
        };
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn push(&mut self, frame: ServerFrame) {
        self.answer(None, frame).await;
    }

    pub(crate) async fn entry(&mut self, sequence: u64) {
        self.push(ServerFrame::Message(entry(sequence))).await;
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) fn ack(sequence: u64) -> Ack {
    let (sequence, ordinal) = (Sequence(sequence), Ordinal(sequence));
    Ack { sequence, ordinal, time_ms: TimestampMs(1_700_000_000_000), duplicate: false }
}

/// A message of bob's.
pub(crate) fn entry(sequence: u64) -> EntryBytes {
    let entry = Entry {
        conversation: CHOIR,
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        ordinal: Ordinal(sequence),
        time_ms: TimestampMs(1_700_000_000_000),
        kind: EntryKind::Message,
        client_message_id: ClientMessageId([9; 16]),
        sender: user("bob"),
        body: Content::text(&format!("number {sequence}")).0,
    };
    EntryBytes(entry.to_archive().to_vec())
}
