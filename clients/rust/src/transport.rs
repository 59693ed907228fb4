//! One WebSocket: dialled, read frame by frame, written by a task of its own so that reading never waits for writing.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use antiphon_wire::{codec::Encoding, limits::SERVER_FRAME_BYTES_MAX};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitStream};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
#[cfg(feature = "tls")]
use tokio_tungstenite::Connector;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        handshake::client::Request,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

/// A close handshake that takes longer is left to the system.
const CLOSE_MAX: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How connections are made.
pub(crate) struct Dialler {
    url: String,
    encoding: Encoding,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) text: String,
    /// When to try again, if the server told.
    pub(crate) retry_after_ms: Option<u32>,
}

/// What a connection has to say.
#[derive(Debug)]
pub(crate) enum Incoming {
    Frame(Vec<u8>),
    /// It is over, with this code in its close frame if there was one.
    Closed(Option<u16>),
}

pub(crate) struct Transport {
    stream: SplitStream<Socket>,
    encoding: Encoding,
    /// What is sent waits here for the socket. A session has so many requests under way at most, which bounds it.
    outgoing: mpsc::UnboundedSender<Message>,
}

impl Dialler {
    #[cfg(feature = "tls")]
    pub(crate) fn new(url: String, encoding: Encoding, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { url, encoding, tls }
    }

    #[cfg(not(feature = "tls"))]
    pub(crate) fn new(url: String, encoding: Encoding) -> Self {
        Self { url, encoding }
    }

    /// Whether the address can be dialled at all.
    pub(crate) fn check(&self) -> Result<(), String> {
        let request = self.url.as_str().into_client_request().map_err(|error| error.to_string())?;
        match request.uri().scheme_str() {
            Some("ws") => Ok(()),
            Some("wss") if cfg!(feature = "tls") => Ok(()),
            Some("wss") => Err("wss:// wants the feature tls".into()),
            _ => Err("the address begins with ws:// or wss://".into()),
        }
    }

    pub(crate) async fn dial(&self) -> Result<Transport, DialError> {
        let told = |text: String| DialError { text, retry_after_ms: None };
        let mut request = self.url.as_str().into_client_request().map_err(|error| told(error.to_string()))?;
        let subprotocol = HeaderValue::from_static(self.encoding.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let config = WebSocketConfig::default()
            .max_message_size(Some(SERVER_FRAME_BYTES_MAX))
            .max_frame_size(Some(SERVER_FRAME_BYTES_MAX));
        Ok(Transport::new(self.connect(request, config).await?, self.encoding))
    }

    #[cfg(feature = "tls")]
    async fn connect(&self, request: Request, config: WebSocketConfig) -> Result<Socket, DialError> {
        let connector = match (request.uri().scheme_str(), &self.tls) {
            (Some("wss"), Some(tls)) => Connector::Rustls(Arc::clone(tls)),
            (Some("wss"), None) => {
                Connector::Rustls(system_tls().map_err(|text| DialError { text, retry_after_ms: None })?)
            }
            _ => Connector::Plain,
        };
        let dialled =
            tokio_tungstenite::connect_async_tls_with_config(request, Some(config), true, Some(connector)).await;
        dialled.map(|(socket, _)| socket).map_err(|error| refusal(&error))
    }

    #[cfg(not(feature = "tls"))]
    async fn connect(&self, request: Request, config: WebSocketConfig) -> Result<Socket, DialError> {
        let dialled = tokio_tungstenite::connect_async_with_config(request, Some(config), true).await;
        dialled.map(|(socket, _)| socket).map_err(|error| refusal(&error))
    }
}

/// TLS 1.2 and 1.3 with the authorities that this machine trusts.
#[cfg(feature = "tls")]
fn system_tls() -> Result<Arc<rustls::ClientConfig>, String> {
    let mut authorities = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        return Err(format!("no authority is trusted here: {:?}", found.errors));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(authorities).with_no_client_auth()))
}

/// What a failed dial says; a server that has no room names a time.
fn refusal(error: &tungstenite::Error) -> DialError {
    let retry_after_s = match error {
        tungstenite::Error::Http(answer) => answer.headers().get(header::RETRY_AFTER),
        _ => None,
    };
    let retry_after_s = retry_after_s.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    DialError { text: error.to_string(), retry_after_ms: retry_after_s.map(|seconds| seconds.saturating_mul(1_000)) }
}

impl Transport {
    fn new(socket: Socket, encoding: Encoding) -> Self {
        let (mut sink, stream) = socket.split();
        let (outgoing, mut waiting) = mpsc::unbounded_channel::<Message>();
        tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                // Whoever reads sees that it is broken.
                if sink.feed(message).await.is_err() {
                    return;
                }
                if waiting.is_empty() && sink.flush().await.is_err() {
                    return;
                }
            }
            let _ = timeout(CLOSE_MAX, sink.close()).await;
        });
        Self { stream, encoding, outgoing }
    }

    pub(crate) fn send(&self, bytes: Vec<u8>) {
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes).expect("a JSON frame is UTF-8")),
            Encoding::Rkyv => Message::binary(bytes),
        };
        // A writer that has ended leaves the news to whoever reads.
        let _ = self.outgoing.send(message);
    }

    /// May be dropped before it is ready: nothing is lost.
    pub(crate) async fn next(&mut self) -> Incoming {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Incoming::Frame(text.as_bytes().to_vec()),
                Some(Ok(Message::Binary(bytes))) => return Incoming::Frame(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => return Incoming::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(_)) | None => return Incoming::Closed(None),
            }
        }
    }
}
