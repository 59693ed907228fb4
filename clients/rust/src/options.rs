//! How a client is to be.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::{future::Future, pin::Pin};

use antiphon_wire::{codec::Encoding, frame::ClientInfo, ids::DeviceId, session::SessionConfig};

use crate::progress::Progress;

pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;
pub(crate) type Tokens = Box<dyn FnMut(bool) -> TokenFuture + Send>;

/// Most events that wait for the application, after which nothing is read from the connection.
const EVENTS_WAITING_MAX: usize = 8_192;

/// How a client is to be. [`Options::new`] has all that is required.
pub struct Options {
    pub(crate) url: String,
    pub(crate) device: DeviceId,
    pub(crate) tokens: Tokens,
    pub(crate) session: SessionConfig,
    pub(crate) progress: Progress,
    pub(crate) events_waiting_max: usize,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct TokenError {
    /// For people.
    pub text: String,
    /// Whether another attempt is no use: the client stops.
    pub is_permanent: bool,
}

impl Options {
    /// A client of the node at `url` (`ws://…/ws`, `wss://…/ws`), with one token for as long as that is good.
    ///
    /// `device` tells one user's devices apart: made once, and kept. Two clients of one device replace each other.
    #[must_use]
    pub fn new(url: impl Into<String>, device: DeviceId, token: impl Into<String>) -> Self {
        let token = token.into();
        Self::with_tokens(url, device, move |_| {
            let token = token.clone();
            async move { Ok(token) }
        })
    }

    /// The same, with tokens that are asked for: with `true` where the last one was refused or is about to be over.
    #[must_use]
    pub fn with_tokens<F>(
        url: impl Into<String>,
        device: DeviceId,
        mut tokens: impl FnMut(bool) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        let mut session = SessionConfig::new(Encoding::Json);
        session.client =
            Some(ClientInfo { name: "antiphon-client-rust".into(), version: env!("CARGO_PKG_VERSION").into() });
        Self {
            url: url.into(),
            device,
            tokens: Box::new(move |renew| Box::pin(tokens(renew))),
            session,
            progress: Progress::default(),
            events_waiting_max: EVENTS_WAITING_MAX,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// What is stored stands for this: only what came after it is told.
    #[must_use]
    pub fn go_on_from(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// How frames are written. JSON, unless this says otherwise; the binary form is smaller and faster, and wants a client that was built
    /// with all the kinds of frames and entries that the server has.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.session.encoding = encoding;
        self
    }

    /// The application's name and version, for the operator's eyes.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.session.client = Some(ClientInfo { name: name.into(), version: version.into() });
        self
    }

    /// Others are told that what came has arrived here, this long after it did and several as one. Without this nobody is told.
    #[must_use]
    pub fn tell_delivered_after_ms(mut self, after_ms: u32) -> Self {
        self.session.delivered_after_ms = Some(after_ms);
        self
    }

    /// Entries of large conversations come only while they are [viewed](crate::Client::view); of others the application hears
    /// [`Event::Advanced`](crate::Event::Advanced). Without this they are fetched all the same, which is for a program that wants to see
    /// everything.
    #[must_use]
    pub fn lazy(mut self) -> Self {
        self.session.lazy = true;
        self
    }

    /// All the limits and waits of the session.
    #[must_use]
    pub fn session(mut self, change: impl FnOnce(&mut SessionConfig)) -> Self {
        change(&mut self.session);
        self
    }

    /// Most events that wait for the application, after which nothing is read from the connection.
    #[must_use]
    pub fn events_waiting_max(self, events_waiting_max: usize) -> Self {
        Self { events_waiting_max: events_waiting_max.max(1), ..self }
    }

    /// TLS by this configuration, instead of TLS 1.2 and 1.3 with the system's authorities.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, config: Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }
}
