//! tokio-tungstenite with the small buffers that its documentation recommends for many connections.

use antiphon_foreign::{Connection, next_for, publish, serve};
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, task};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, Result, protocol::WebSocketConfig},
};

/// "For scenarios where you expect a lot of connections … a smaller buffer, e.g. 4 KiB".
const BUFFER_BYTES: usize = 4 * 1024;

fn main() -> anyhow::Result<()> {
    serve(|stream, connection| {
        task::spawn(async move {
            // A peer that goes away ends its connection and nothing else.
            let _ = handle(stream, connection).await;
        });
    })
}

async fn handle(stream: TcpStream, connection: Connection) -> Result<()> {
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    let Some(broadcasts) = connection.broadcasts else {
        while let Some(message) = socket.next().await {
            let message = message?;
            if message.is_binary() || message.is_text() {
                socket.send(message).await?;
            }
        }
        return Ok(());
    };
    let mut receiver = broadcasts.subscribe();
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                None => return Ok(()),
                Some(message) if message.is_binary() => publish(&broadcasts, connection.id, message.into_data()),
                Some(_) => {}
            },
            payload = next_for(connection.id, &mut receiver) => match payload {
                None => return Ok(()),
                Some(payload) => socket.send(Message::Binary(payload)).await?,
            },
        }
    }
}
