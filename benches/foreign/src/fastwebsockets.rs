//! fastwebsockets over hyper, as its examples `echo_server` and `echo_server_split` have it.

use antiphon_foreign::{Connection, next_for, publish, serve};
use bytes::Bytes;
use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError,
    upgrade::{UpgradeFut, upgrade},
};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::broadcast, task};

fn main() -> anyhow::Result<()> {
    serve(|stream, connection| {
        task::spawn(async move {
            let service = service_fn(|request| answer(request, connection.clone()));
            // A peer that goes away ends its connection and nothing else.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    })
}

async fn answer(
    mut request: Request<Incoming>,
    connection: Connection,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    task::spawn(task::unconstrained(async move {
        let _ = match connection.broadcasts.clone() {
            None => echo(upgraded).await,
            Some(broadcasts) => broadcast_all(upgraded, connection.id, broadcasts).await,
        };
    }));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn broadcast_all(
    upgraded: UpgradeFut,
    id: u64,
    broadcasts: broadcast::Sender<antiphon_foreign::Broadcast>,
) -> Result<(), WebSocketError> {
    let mut receiver = broadcasts.subscribe();
    let (read, mut write) = upgraded.await?.split(tokio::io::split);
    let mut read = FragmentCollectorRead::new(read);
    // Reading is not to be cancelled within a frame, so both ways are loops that live as long as the connection.
    let reading = async move {
        loop {
            // The driver sends no pings, so nothing is owed.
            let frame = read.read_frame::<_, WebSocketError>(&mut |_| async { Ok(()) }).await?;
            match frame.opcode {
                OpCode::Close => return Ok(()),
                OpCode::Text | OpCode::Binary => publish(&broadcasts, id, Bytes::copy_from_slice(&frame.payload)),
                _ => {}
            }
        }
    };
    let writing = async move {
        while let Some(payload) = next_for(id, &mut receiver).await {
            write.write_frame(Frame::binary(Payload::Borrowed(&payload))).await?;
        }
        Ok(())
    };
    tokio::select! {
        result = reading => result,
        result = writing => result,
    }
}
