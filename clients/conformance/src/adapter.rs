//! The client under test: a program that does what lines on its standard input say, and tells by lines what its application would learn.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Notify, mpsc},
    time::timeout,
};

use crate::node::Node;

/// It ends within so long after it was told to.
const END_WITHIN: Duration = Duration::from_secs(10);

/// What it told, over all its starts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// By conversation, in the order in which they were told.
    pub(crate) entries: BTreeMap<String, Vec<(u64, Option<String>)>>,
    /// By what was sent: its sequences, as often as they were told.
    pub(crate) durable: BTreeMap<String, Vec<u64>>,
    /// By what was sent: the code.
    pub(crate) refused: BTreeMap<String, String>,
    pub(crate) left: Vec<String>,
    /// `online`, `offline` or `stopped`.
    pub(crate) state: String,
    /// For each token that it asked for: whether it was another one.
    pub(crate) tokens: Vec<bool>,
    /// Lines that are none of these.
    pub(crate) nonsense: Vec<String>,
}

pub(crate) struct Adapter {
    pub(crate) user: String,
    command: String,
    folder: PathBuf,
    url: String,
    node: Node,
    child: Option<(Child, mpsc::UnboundedSender<Value>)>,
    told: Arc<Mutex<Told>>,
    changed: Arc<Notify>,
}

impl Adapter {
    pub(crate) fn new(command: &str, node: &Node, url: &str, user: &str, folder: &Path) -> Self {
        Self {
            user: user.to_owned(),
            command: command.to_owned(),
            folder: folder.to_owned(),
            url: url.to_owned(),
            node: node.clone(),
            child: None,
            told: Arc::default(),
            changed: Arc::default(),
        }
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no holder panics")
    }

    /// Starts the program; with what a former start left in its folder, if there was one.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let mut words = self.command.split_whitespace();
        let mut command = Command::new(words.next().context("--client is empty")?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| self.command.clone())?;
        let stdin = child.stdin.take().context("its standard input")?;
        let stdout = child.stdout.take().context("its standard output")?;
        let (lines, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_lines(stdin, waiting));
        let (told, changed, node, user, answers) =
            (Arc::clone(&self.told), Arc::clone(&self.changed), self.node.clone(), self.user.clone(), lines.clone());
        told.lock().expect("no holder panics").state = "offline".into();
        tokio::spawn(async move {
            let mut read = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = read.next_line().await {
                let is_token = told.lock().expect("no holder panics").take(&line);
                if is_token {
                    // A token that is not to be had ends in a connection that never comes, which every scenario notices.
                    if let Ok(token) = node.token(&user).await {
                        let _ = answers.send(json!({"token": token}));
                    }
                }
                changed.notify_waiters();
            }
            told.lock().expect("no holder panics").state = "ended".into();
            changed.notify_waiters();
        });
        let start = json!({"url": self.url, "user": self.user, "device": "conformance", "folder": self.folder});
        lines.send(json!({"start": start})).context("it is gone")?;
        self.child = Some((child, lines));
        Ok(())
    }

    /// Ends the program as a user ends one: it may store what it has.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let (mut child, lines) = self.child.take().context("it does not run")?;
        lines.send(json!({"stop": {}})).context("it is gone")?;
        drop(lines);
        let status = timeout(END_WITHIN, child.wait()).await.context("it does not end when it is told to")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    pub(crate) fn send(&self, conversation: &str, text: &str) -> anyhow::Result<()> {
        self.tell(json!({"send": {"conversation": conversation, "text": text}}))
    }

    pub(crate) fn react(&self, conversation: &str, target: u64, reaction: &str) -> anyhow::Result<()> {
        self.tell(json!({"react": {"conversation": conversation, "target": target, "reaction": reaction, "on": true}}))
    }

    fn tell(&self, line: Value) -> anyhow::Result<()> {
        let (_, lines) = self.child.as_ref().context("it does not run")?;
        lines.send(line).context("it is gone")
    }

    /// Waits until what it told is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Told) -> bool,
    ) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_so(&self.told()) {
                    return;
                }
                changed.await;
            }
        };
        if timeout(within, waiting).await.is_err() {
            bail!("within {within:?} it is not so that {what}; the client told {:?}", self.told());
        }
        Ok(())
    }
}

async fn write_lines(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<Value>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Told {
    /// Takes a line; says whether it asks for a token.
    fn take(&mut self, line: &str) -> bool {
        let Some(is_token) = self.understood(line) else {
            self.nonsense.push(line.to_owned());
            return false;
        };
        is_token
    }

    fn understood(&mut self, line: &str) -> Option<bool> {
        let frame: Value = serde_json::from_str(line).ok()?;
        let text = |body: &Value, key: &str| body[key].as_str().map(str::to_owned);
        let (kind, body) = frame.as_object()?.iter().next()?;
        match kind.as_str() {
            "token" => self.tokens.push(body["renew"].as_bool()?),
            "entry" => {
                let entry = (body["sequence"].as_u64()?, text(body, "text"));
                self.entries.entry(text(body, "conversation")?).or_default().push(entry);
            }
            "durable" => self.durable.entry(text(body, "sent")?).or_default().push(body["sequence"].as_u64()?),
            "refused" => drop(self.refused.insert(text(body, "sent")?, text(body, "code")?)),
            "left" => self.left.push(text(body, "conversation")?),
            "state" => self.state = body.as_str()?.to_owned(),
            _ => return None,
        }
        Some(kind == "token")
    }
}
