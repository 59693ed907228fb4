//! What the servers of this package share: options, one thread with one runtime, a listener, and the line that says
//! "ready".
//!
//! Each server is written as its library's own examples are, and does one of two things: it echoes every message, or
//! sends it to all other connections. Nothing here is part of Antiphon; nothing but the comparison runs it.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

/// The node's own allocator: libraries are compared, not allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that wait to be accepted, as at the node.
const BACKLOG: i32 = 16_384;

/// Messages that a slow receiver may lag behind before it loses some, which the driver would notice.
const LAG_MAX: usize = 4_096;

/// A message to all but its sender.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// The connection that it came from.
    pub sender: u64,
    /// Its payload, shared.
    pub payload: Bytes,
}

/// What a connection's task is given.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its number.
    pub id: u64,
    /// To all connections, if the server broadcasts; it echoes if not.
    pub broadcasts: Option<broadcast::Sender<Broadcast>>,
}

/// `--listen IP:PORT [--broadcast]`
struct Options {
    listen: SocketAddr,
    broadcast: bool,
}

impl Options {
    fn parse() -> anyhow::Result<Self> {
        let (mut listen, mut broadcast) = (None, false);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--listen" => listen = Some(arguments.next().context("--listen has an address")?.parse()?),
                "--broadcast" => broadcast = true,
                other => bail!("{other}: --listen IP:PORT [--broadcast]"),
            }
        }
        Ok(Self { listen: listen.context("--listen IP:PORT is missing")?, broadcast })
    }
}

/// Accepts for ever and hands each connection to `handle`, on one thread.
///
/// # Errors
/// Wrong options, or an address that cannot be had.
pub fn serve(handle: impl Fn(TcpStream, Connection)) -> anyhow::Result<()> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = listen(options.listen)?;
        println!("ready listen={}", options.listen);
        io::stdout().flush()?;
        let broadcasts = options.broadcast.then(|| broadcast::channel(LAG_MAX).0);
        for id in 0.. {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            handle(stream, Connection { id, broadcasts: broadcasts.clone() });
        }
        Ok(())
    })
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("listen on {address}"))?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// The next message that a connection is to get; `None` if it lost some or there will be none.
pub async fn next_for(id: u64, receiver: &mut broadcast::Receiver<Broadcast>) -> Option<Bytes> {
    loop {
        let Broadcast { sender, payload } = receiver.recv().await.ok()?;
        if sender != id {
            return Some(payload);
        }
    }
}

/// Sends a payload to all but its sender. That there is no other is no error.
pub fn publish(broadcasts: &broadcast::Sender<Broadcast>, sender: u64, payload: Bytes) {
    let _ = broadcasts.send(Broadcast { sender, payload });
}
