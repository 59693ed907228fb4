//! Accepts connections of a listener of the outside thread, bounded in number and time.
//!
//! Time: a console's connection ends at [`Stay::CONSOLE`]'s whatever happens. One that calls are made on may be idle for a while, and has
//! a while from the first byte after an answer to the next answer, so that who sends a byte now and then does not stay.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Most console connections at once: operators, their scrapers, and the tabs of a developer. More wait in the backlog.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long to wait after a failed accept; the usual cause is that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long connections may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// So long in all.
    Once(Duration),
    /// As long as calls are made.
    WhileUsed {
        /// Without a call.
        idle: Duration,
        /// From a request's first byte to its answer.
        request: Duration,
    },
}

impl Stay {
    /// A console's: it bounds a client that sends a byte now and then. Every answer there is small, and HTTP clients open a new connection by
    /// themselves.
    pub(super) const CONSOLE: Self = Self::Once(Duration::from_secs(60));

    /// The HTTP API's. A request has longer than an answer of a lane has.
    pub(super) const BACKEND: Self =
        Self::WhileUsed { idle: Duration::from_secs(60), request: Duration::from_secs(30) };

    /// From the start.
    fn at_first(self) -> Duration {
        match self {
            Self::Once(life) => life,
            Self::WhileUsed { request, .. } => request,
        }
    }
}

pub(super) struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
    stay: Stay,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, connections_max: usize, stay: Stay) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(connections_max)), stay }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let room = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // An answer is written at once, and whole: nothing is gained by waiting for more.
                    let _ = stream.set_nodelay(true);
                    let end = Box::pin(sleep(self.stay.at_first()));
                    return (Connection { stream, end, stay: self.stay, is_idle: false, _room: room }, peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "the outside thread can't accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its room back when it ends, and ends in time.
pub(super) struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    stay: Stay,
    /// Nothing came since the last answer.
    is_idle: bool,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    fn check_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Something came, or was sent, after which it is idle.
    fn is_used(&mut self, is_idle: bool) {
        if let Stay::WhileUsed { idle, request } = self.stay
            && (is_idle || self.is_idle)
        {
            self.is_idle = is_idle;
            self.end.as_mut().reset(Instant::now() + if is_idle { idle } else { request });
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.is_used(false);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_end(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.is_used(true);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use tokio::{
        runtime::Builder,
        time::{interval, timeout},
    };

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    async fn serve(stay: Stay) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "answer"));
        tokio::spawn(async move { axum::serve(Bounded::new(listener, 4, stay), router).await });
        address
    }

    async fn send(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            stream.writable().await?;
            match stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until something came: how much; nothing at the end.
    async fn hear(stream: &TcpStream) -> usize {
        loop {
            timeout(WAIT, stream.readable()).await.expect("it neither speaks nor ends").unwrap();
            match stream.try_read(&mut [0; 4096]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                heard => return heard.unwrap_or(0),
            }
        }
    }

    #[test]
    fn a_connection_stays_while_it_is_used() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let idle = Duration::from_secs(1);
            let address = serve(Stay::WhileUsed { idle, request: idle }).await;
            let stream = TcpStream::connect(address).await.unwrap();
            let mut every = interval(idle / 10);
            // Twice as long as it may be idle.
            for _ in 0..20 {
                every.tick().await;
                send(&stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
                assert!(hear(&stream).await > 0);
            }
            assert_eq!(hear(&stream).await, 0, "it ends when it is not");
        });
    }

    #[test]
    fn who_sends_a_byte_now_and_then_does_not_stay() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let request = Duration::from_millis(300);
            for stay in [Stay::WhileUsed { idle: WAIT, request }, Stay::Once(request)] {
                let stream = TcpStream::connect(serve(stay).await).await.unwrap();
                let (began, mut every) = (Instant::now(), interval(request / 10));
                send(&stream, b"GET / HTTP/1.1\r\nX: ").await.unwrap();
                while send(&stream, b"x").await.is_ok() {
                    every.tick().await;
                    assert!(began.elapsed() < WAIT, "{stay:?}");
                }
            }
        });
    }
}
