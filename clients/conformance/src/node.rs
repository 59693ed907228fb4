//! The node under the suite, and a user of it who needs no client: the friend whom the client under test talks to.

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::Command,
    time::{Duration, sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
    },
};

use crate::proxy::SUBPROTOCOL;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Where the node is, and how tokens for it are had.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) url: String,
    /// A command that prints a token; `{user}` stands for whose.
    pub(crate) token_command: String,
}

impl Node {
    pub(crate) async fn token(&self, user: &str) -> anyhow::Result<String> {
        let mut words = self.token_command.split_whitespace().map(|word| word.replace("{user}", user));
        let program = words.next().context("--token-command is empty")?;
        let output = Command::new(&program).args(words).output().await.with_context(|| program.clone())?;
        ensure!(
            output.status.success(),
            "`{}` failed: {}",
            self.token_command,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// A user on a connection of its own, frame by frame.
pub(crate) struct Friend {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
}

impl Friend {
    pub(crate) async fn connect(node: &Node, name: &str) -> anyhow::Result<Self> {
        let mut request = node.url.as_str().into_client_request()?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let (socket, _) = connect_async(request).await.with_context(|| node.url.clone())?;
        let mut friend = Self { socket, next_id: 1 };
        let token = node.token(name).await?;
        friend.ask("connect", json!({"token": token, "device": "friend"})).await?;
        Ok(friend)
    }

    /// Asks, again while the node says that it may work later.
    pub(crate) async fn ask(&mut self, kind: &str, body: Value) -> anyhow::Result<Value> {
        loop {
            let id = self.next_id;
            self.next_id += 1;
            self.socket.send(Message::text(json!({"id": id, kind: body}).to_string())).await?;
            let answer = timeout(ANSWER_WITHIN, self.answer(id)).await.context("the node does not answer")??;
            if let Some(answer) = answer.get(kind) {
                return Ok(answer.clone());
            }
            let error = &answer["error"];
            if error["temporary"] != json!(true) {
                bail!("{kind}: {error}");
            }
            sleep(Duration::from_millis(error["retry_after_ms"].as_u64().unwrap_or(200))).await;
        }
    }

    async fn answer(&mut self, id: u64) -> anyhow::Result<Value> {
        while let Some(message) = self.socket.next().await {
            let Message::Text(text) = message? else { continue };
            let frame: Value = serde_json::from_str(&text)?;
            if frame["id"] == json!(id) {
                return Ok(frame);
            }
        }
        bail!("the node closed the friend's connection")
    }

    /// Says something, durably; gives its sequence.
    pub(crate) async fn say(&mut self, conversation: &str, text: &str) -> anyhow::Result<u64> {
        let name = uuid::Uuid::new_v4().to_string();
        let body = json!({"conversation": conversation, "client_message_id": name, "text": text});
        let answer = self.ask("send", body).await?;
        answer["sequence"].as_u64().context("a sequence")
    }

    /// All entries of a conversation, in order.
    pub(crate) async fn history(&mut self, conversation: &str) -> anyhow::Result<Vec<Value>> {
        let mut entries = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry: &Value| entry["sequence"].as_u64().unwrap_or(0));
            let page = self.ask("history", json!({"conversation": conversation, "after": after, "limit": 200})).await?;
            let page_entries = page["entries"].as_array().context("entries")?;
            entries.extend(page_entries.iter().cloned());
            if page_entries.is_empty() || entries.last().map(|entry| &entry["sequence"]) == Some(&page["last"]) {
                return Ok(entries);
            }
        }
    }
}
