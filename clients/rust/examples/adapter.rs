//! This client for the conformance suite: see clients/conformance/README.md for the lines that it reads and writes. It is also an application
//! that keeps what it must over a restart: its progress, and what it has sent and is not durable.

use std::{
    collections::VecDeque,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use antiphon_client::{
    Body, Client, Event, Message, Options, Progress, TokenError,
    wire::{
        frame::Change,
        ids::{ClientMessageId, ConversationId, Sequence},
    },
};
use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines, Stdin, stdin},
    sync::oneshot,
};

type Tokens = Arc<Mutex<VecDeque<oneshot::Sender<String>>>>;

/// What is sent until it is durable, as it is kept in a file.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Sent {
    name: ClientMessageId,
    conversation: ConversationId,
    what: What,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
enum What {
    Text(String),
    Reaction { target: Sequence, reaction: String, on: bool },
}

struct Application {
    client: Client,
    folder: PathBuf,
    progress: Progress,
    sent: Vec<Sent>,
}

fn tell(line: &Value) {
    println!("{line}");
}

/// What an earlier start left.
fn kept<T: Default + serde::de::DeserializeOwned>(folder: &std::path::Path, name: &str) -> anyhow::Result<T> {
    match fs::read(folder.join(name)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error.into()),
    }
}

// One thread: what is submitted first goes first.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut lines = BufReader::new(stdin()).lines();
    let start = next(&mut lines).await?.context("the first line starts it")?["start"].take();
    let text = |key: &str| start[key].as_str().map(str::to_owned).with_context(|| format!("start has no {key}"));
    let (folder, tokens) = (PathBuf::from(text("folder")?), Tokens::default());
    let progress: Progress = kept(&folder, "progress.json")?;
    let sent: Vec<Sent> = kept(&folder, "sent.json")?;
    let waiting = Arc::clone(&tokens);
    let give = move |renew| {
        let (give, given) = oneshot::channel();
        waiting.lock().expect("no holder panics").push_back(give);
        tell(&json!({"token": {"renew": renew}}));
        async move { given.await.map_err(|_| TokenError { text: "the suite is gone".into(), is_permanent: true }) }
    };
    let options = Options::with_tokens(text("url")?, text("device")?.parse()?, give).go_on_from(progress.clone());
    let (client, mut events) = Client::start(options)?;
    let mut application = Application { client, folder, progress, sent };
    for sent in application.sent.clone() {
        application.submit(sent).await?;
    }
    let mut is_stopping = false;
    loop {
        tokio::select! {
            event = events.next() => {
                application.happened(event.context("the client is gone")?)?;
            }
            line = next(&mut lines), if !is_stopping => {
                let line = line?.context("the suite is gone")?;
                let (kind, body) = line.as_object().and_then(|line| line.iter().next()).context("a command")?;
                match kind.as_str() {
                    "token" => {
                        let token = tokens.lock().expect("no holder panics").pop_front().context("nobody waits for a token")?;
                        // A connection that is given up needs none.
                        let _ = token.send(body.as_str().context("a token")?.to_owned());
                    }
                    "send" => application.send(body, What::Text(body["text"].as_str().context("text")?.to_owned())).await?,
                    "react" => {
                        let target = Sequence(body["target"].as_u64().context("target")?);
                        let reaction = body["reaction"].as_str().context("reaction")?.to_owned();
                        let on = body["on"] == json!(true);
                        application.send(body, What::Reaction { target, reaction, on }).await?;
                    }
                    "stop" => is_stopping = true,
                    other => anyhow::bail!("an unknown command: {other}"),
                }
            }
        }
        if is_stopping {
            break;
        }
    }
    // What is told from here on is stored too; the client ends with its last handle.
    let Application { client, folder, mut progress, .. } = application;
    drop(client);
    while let Some(event) = events.next().await {
        note(&mut progress, &event);
        if let Event::Entry(entry) = &event {
            tell(&told(entry));
        }
    }
    fs::write(folder.join("progress.json"), serde_json::to_vec(&progress)?)?;
    Ok(())
}

async fn next(lines: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<Option<Value>> {
    Ok(lines.next_line().await?.map(|line| serde_json::from_str(&line)).transpose()?)
}

fn told(entry: &antiphon_client::Entry) -> Value {
    let text = match &entry.body {
        Body::Message(Some(message)) => message.text.clone(),
        _ => None,
    };
    json!({"entry": {"conversation": entry.conversation, "sequence": entry.sequence, "text": text}})
}

fn note(progress: &mut Progress, event: &Event) {
    match event {
        Event::Entry(entry) => progress.note(entry),
        Event::Progress(later) => *progress = later.clone(),
        Event::Left(left) => progress.forget(left.conversation),
        _ => {}
    }
}

impl Application {
    async fn send(&mut self, body: &Value, what: What) -> anyhow::Result<()> {
        let conversation = body["conversation"].as_str().context("conversation")?.parse()?;
        let sent = Sent { name: self.client.new_id(), conversation, what };
        self.sent.push(sent.clone());
        self.keep_sent()?;
        self.submit(sent).await
    }

    /// Whatever comes of it comes as an event.
    async fn submit(&self, sent: Sent) -> anyhow::Result<()> {
        let Sent { name, conversation, what } = sent;
        match what {
            What::Text(text) => drop(self.client.submit_as(name, conversation, Message::text(text)).await?),
            What::Reaction { target, reaction: text, on } => {
                drop(self.client.submit_change_as(name, conversation, Change::React { target, text, on }).await?);
            }
        }
        Ok(())
    }

    fn keep_sent(&self) -> anyhow::Result<()> {
        fs::write(self.folder.join("sent.json"), serde_json::to_vec(&self.sent)?)?;
        Ok(())
    }

    fn settled(&mut self, name: ClientMessageId) -> anyhow::Result<Option<String>> {
        let Some(index) = self.sent.iter().position(|sent| sent.name == name) else { return Ok(None) };
        let what = self.sent.remove(index).what;
        self.keep_sent()?;
        Ok(Some(match what {
            What::Text(text) => text,
            What::Reaction { reaction, .. } => reaction,
        }))
    }

    fn happened(&mut self, event: Event) -> anyhow::Result<()> {
        note(&mut self.progress, &event);
        match event {
            Event::Entry(entry) => tell(&told(&entry)),
            Event::Durable { client_message_id, ack } => {
                if let Some(sent) = self.settled(client_message_id)? {
                    tell(&json!({"durable": {"sent": sent, "sequence": ack.sequence}}));
                }
            }
            Event::Refused { client_message_id, error } => {
                if let Some(sent) = self.settled(client_message_id)? {
                    tell(&json!({"refused": {"sent": sent, "code": error.code.name()}}));
                }
            }
            Event::Left(left) => tell(&json!({"left": {"conversation": left.conversation}})),
            Event::CaughtUp => tell(&json!({"state": "online"})),
            Event::Disconnected { .. } => tell(&json!({"state": "offline"})),
            Event::Stopped(_) => tell(&json!({"state": "stopped"})),
            _ => {}
        }
        Ok(())
    }
}
