//! Stands between a client and the node: passes frames on, and does to them what a scenario wants.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        handshake::server::{ErrorResponse, Request as Upgrade, Response},
        http::{HeaderValue, header},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// The form that the suite reads.
pub(crate) const SUBPROTOCOL: &str = "antiphon.v1.json";

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Node,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(crate) struct Passing {
    pub(crate) from: Side,
    /// Counts the client's connections from 1.
    pub(crate) connection: usize,
    pub(crate) at: Instant,
    pub(crate) frame: Value,
}

/// What becomes of it.
pub(crate) enum Verdict {
    Pass,
    Drop,
    /// These go on in its place.
    Instead(Vec<Value>),
    /// It goes no further, and the client is told this.
    Answer(Value),
    /// The same, and the connection is closed with a code.
    AnswerAndClose(Value, u16),
    /// The connection breaks before it is passed on.
    Cut,
}

/// Decides about each frame.
pub(crate) type Meddler = Box<dyn FnMut(&Passing) -> Verdict + Send>;

enum Order {
    Push(Value),
    Close(u16),
    Cut,
}

/// What every connection shares.
struct State {
    passed: Vec<Passing>,
    meddler: Option<Meddler>,
    connections: usize,
    attempts: Vec<Instant>,
    is_open: bool,
    orders: Option<mpsc::UnboundedSender<Order>>,
    nonsense: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Passing {
    /// Whether it is of that kind: the key beside `id`.
    pub(crate) fn is(&self, from: Side, kind: &str) -> bool {
        self.from == from && self.frame.get(kind).is_some()
    }

    pub(crate) fn id(&self) -> Option<u64> {
        self.frame.get("id")?.as_u64()
    }
}

impl Proxy {
    /// Listens, and connects whoever comes to the node at `node`.
    pub(crate) async fn start(node: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let state = State {
            passed: Vec::new(),
            meddler: None,
            connections: 0,
            attempts: Vec::new(),
            is_open: true,
            orders: None,
            nonsense: Vec::new(),
        };
        let proxy = Self {
            url: format!("ws://{}/ws", listener.local_addr()?),
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
        };
        let (of_listener, node) = (proxy.clone(), node.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (proxy, node) = (of_listener.clone(), node.clone());
                tokio::spawn(async move {
                    // A connection that breaks is a connection that breaks, on either side.
                    let _ = proxy.connection(stream, &node).await;
                });
            }
        });
        Ok(proxy)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// From now on frames go by this.
    pub(crate) fn meddle(&self, meddler: impl FnMut(&Passing) -> Verdict + Send + 'static) {
        self.state().meddler = Some(Box::new(meddler));
    }

    /// Frames pass as they are.
    pub(crate) fn be_honest(&self) {
        self.state().meddler = None;
    }

    /// Whether connections are taken.
    pub(crate) fn set_open(&self, is_open: bool) {
        self.state().is_open = is_open;
    }

    pub(crate) fn cut(&self) {
        self.order(Order::Cut);
    }

    pub(crate) fn close(&self, code: u16) {
        self.order(Order::Close(code));
    }

    /// The client is told this.
    pub(crate) fn push(&self, frame: Value) {
        self.order(Order::Push(frame));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.state().orders {
            // A connection that is gone already needs no order.
            let _ = orders.send(order);
        }
    }

    pub(crate) fn passed(&self) -> Vec<Passing> {
        self.state().passed.clone()
    }

    pub(crate) fn attempts(&self) -> Vec<Instant> {
        self.state().attempts.clone()
    }

    pub(crate) fn nonsense(&self) -> Vec<String> {
        self.state().nonsense.clone()
    }

    /// Waits until a frame like this has come by, and gives the first.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        is_it: impl Fn(&Passing) -> bool,
    ) -> anyhow::Result<Passing> {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(passing) = self.state().passed.iter().find(|passing| is_it(passing)) {
                    return passing.clone();
                }
                changed.await;
            }
        };
        timeout(within, waiting).await.with_context(|| format!("within {within:?} the client did not send {what}"))
    }

    async fn connection(&self, stream: TcpStream, node: &str) -> anyhow::Result<()> {
        self.state().attempts.push(Instant::now());
        self.changed.notify_waiters();
        if !self.state().is_open {
            return Ok(());
        }
        let mut token = None;
        let mut is_json = false;
        #[expect(clippy::result_large_err, reason = "tungstenite's own")]
        let choose = |upgrade: &Upgrade, mut answer: Response| -> Result<Response, ErrorResponse> {
            let offered = upgrade.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
            is_json = offered.iter().filter_map(|offer| offer.to_str().ok()).any(|offer| offer.contains(SUBPROTOCOL));
            token = upgrade.headers().get(header::AUTHORIZATION).cloned();
            if is_json {
                answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
            }
            Ok(answer)
        };
        let mut client = accept_hdr_async(stream, choose).await?;
        if !is_json {
            self.state().nonsense.push(format!("a connection does not offer the subprotocol {SUBPROTOCOL}"));
        }
        ensure!(is_json);
        let mut request = node.into_client_request()?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let Some(token) = token {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let (mut upstream, _) = connect_async(request).await?;
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let connection = {
            let mut state = self.state();
            state.connections += 1;
            state.orders = Some(orders);
            state.connections
        };
        loop {
            let judged = tokio::select! {
                message = client.next() => match message {
                    Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                        Ok(frame) => self.judge(Side::Client, connection, frame),
                        Err(_) => {
                            self.state().nonsense.push(format!("not JSON: {text}"));
                            Judged::end(End::Cut)
                        }
                    },
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => Judged::end(End::Cut),
                },
                message = upstream.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        self.judge(Side::Node, connection, serde_json::from_str(&text).context("the node speaks JSON")?)
                    }
                    Some(Ok(Message::Close(Some(frame)))) => Judged::end(End::Close(frame.code.into())),
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => Judged::end(End::Cut),
                },
                order = ordered.recv() => match order {
                    Some(Order::Push(frame)) => Judged { to_client: vec![frame], ..Judged::default() },
                    Some(Order::Close(code)) => Judged::end(End::Close(code)),
                    // None: another connection has taken this one's place.
                    Some(Order::Cut) | None => Judged::end(End::Cut),
                },
            };
            send(&mut upstream, judged.to_node).await?;
            send(&mut client, judged.to_client).await?;
            match judged.end {
                Some(End::Close(code)) => return close(client, code).await,
                Some(End::Cut) => return Ok(()),
                None => {}
            }
        }
    }

    fn judge(&self, from: Side, connection: usize, frame: Value) -> Judged {
        let passing = Passing { from, connection, at: Instant::now(), frame };
        let mut state = self.state();
        let verdict = state.meddler.as_mut().map_or(Verdict::Pass, |meddler| meddler(&passing));
        let frame = passing.frame.clone();
        state.passed.push(passing);
        drop(state);
        self.changed.notify_waiters();
        let forward = |frames| match from {
            Side::Client => Judged { to_node: frames, ..Judged::default() },
            Side::Node => Judged { to_client: frames, ..Judged::default() },
        };
        match verdict {
            Verdict::Pass => forward(vec![frame]),
            Verdict::Drop => Judged::default(),
            Verdict::Instead(frames) => forward(frames),
            Verdict::Answer(frame) => Judged { to_client: vec![frame], ..Judged::default() },
            Verdict::AnswerAndClose(frame, code) => {
                Judged { to_client: vec![frame], end: Some(End::Close(code)), ..Judged::default() }
            }
            Verdict::Cut => Judged::end(End::Cut),
        }
    }
}

/// What is to be sent where, and whether the connection ends with it.
#[derive(Default)]
struct Judged {
    to_client: Vec<Value>,
    to_node: Vec<Value>,
    end: Option<End>,
}

enum End {
    Cut,
    Close(u16),
}

impl Judged {
    fn end(end: End) -> Self {
        Self { end: Some(end), ..Self::default() }
    }
}

async fn send<S>(socket: &mut WebSocketStream<S>, frames: Vec<Value>) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    for frame in frames {
        socket.send(Message::text(frame.to_string())).await?;
    }
    Ok(())
}

/// Closes as a server does, and waits for the client to do the same.
async fn close(mut client: WebSocketStream<TcpStream>, code: u16) -> anyhow::Result<()> {
    client.close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() })).await?;
    let answered = async { while let Some(Ok(_)) = client.next().await {} };
    let _ = timeout(Duration::from_secs(2), answered).await;
    Ok(())
}
