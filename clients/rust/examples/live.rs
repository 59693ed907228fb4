//! Two users on a real node: `live URL`, with tokens of alice and bob in ALICE_TOKEN and BOB_TOKEN. Ends with exit code 1 if something
//! is not as promised. They may have talked before.

use std::{collections::BTreeMap, env, time::Duration};

use antiphon_client::{
    Body, Client, Entry, Event, Events, Message, Options, Progress, Stopped,
    wire::{
        codec::Encoding,
        codes::ErrorCode,
        frame::{
            AccountAction, AccountAnswer, AccountChange, AccountPage, BansAction, CreateGroup, Device, InvitesAction,
            JsonText, MakeInvite, MessageState, Receipt, SetAccount, SettingsChange, Who,
        },
        ids::{ConversationId, Sequence},
    },
};
use anyhow::{Context as _, ensure};
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(20);
const WORDS: u64 = 50;

/// A client, and what it was told.
struct User {
    client: Client,
    events: Events,
    entries: BTreeMap<(ConversationId, Sequence), Entry>,
    states: BTreeMap<(ConversationId, Sequence), MessageState>,
    receipts: Vec<Receipt>,
    left: Vec<ConversationId>,
    stopped: Option<Stopped>,
    progress: Progress,
}

impl User {
    fn start(url: &str, encoding: Encoding, name: &str, device: &str, progress: Progress) -> anyhow::Result<Self> {
        let token = env::var(format!("{}_TOKEN", name.to_uppercase())).context("a token")?;
        let options = Options::new(url, device.parse()?, token).encoding(encoding).go_on_from(progress.clone());
        let (client, events) = Client::start(options)?;
        let (entries, states, receipts, left) = Default::default();
        Ok(Self { client, events, entries, states, receipts, left, stopped: None, progress })
    }

    async fn hear(&mut self) -> anyhow::Result<()> {
        match self.events.next().await.context("the client is gone")? {
            Event::Entry(entry) => {
                self.progress.note(&entry);
                let place = (entry.conversation, entry.sequence);
                ensure!(self.entries.insert(place, *entry).is_none(), "an entry came twice: {place:?}");
            }
            Event::States(told) => {
                self.states.extend(told.states.into_iter().map(|state| ((told.conversation, state.sequence), state)));
            }
            Event::Receipt(receipt) => self.receipts.push(receipt),
            Event::Left(left) => self.left.push(left.conversation),
            Event::Progress(progress) => self.progress = progress,
            Event::Stopped(stopped) => self.stopped = Some(stopped),
            Event::Trouble(text) => println!("trouble: {text}"),
            Event::Skipped { conversation, from, to } => {
                anyhow::bail!("{from} to {to} of {conversation} were skipped");
            }
            _ => {}
        }
        Ok(())
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        timeout(WAIT, async {
            while !holds(self) {
                self.hear().await?;
            }
            Ok(())
        })
        .await
        .with_context(|| format!("not in time: {what}"))?
    }

    /// The texts of a conversation's messages after an entry, in order.
    fn said(&self, conversation: ConversationId, after: Sequence) -> Vec<&str> {
        let after = (conversation, after.next())..=(conversation, Sequence(u64::MAX));
        let texts = self.entries.range(after).filter_map(|(_, entry)| match &entry.body {
            Body::Message(Some(Message { text: Some(text), .. })) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn has(&self, conversation: ConversationId, sequence: Sequence) -> bool {
        self.entries.contains_key(&(conversation, sequence))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::args().nth(1).context("usage: live URL, with ALICE_TOKEN and BOB_TOKEN")?;
    for encoding in Encoding::ALL {
        let messages = talk(&url, encoding).await.with_context(|| format!("over {}", encoding.subprotocol()))?;
        println!(
            "live, {}: {messages} messages once and in order, changes, a restart, a second device, account data, a device logged out, a group: all as promised",
            encoding.subprotocol()
        );
    }
    Ok(())
}

/// A device is named, listed by another of its user's and logged out by it; then its token is of no use to it.
async fn log_out(by: &User, start: impl Fn(&str) -> anyhow::Result<User>, encoding: Encoding) -> anyhow::Result<()> {
    let device = format!("live-rust-{}", encoding.subprotocol());
    let mut tablet = start(&device)?;
    tablet.client.name_device("Bob's tablet").await?;
    let listed = by.client.devices().await?;
    let is_it = |listed: &&Device| listed.name.as_deref() == Some("Bob's tablet");
    let named = listed.iter().find(is_it).context("it is listed")?;
    ensure!(named.device.as_str() == device && named.online && !named.this, "{named:?}");
    ensure!(listed.iter().filter(|device| device.this).count() == 1, "{listed:?}");
    by.client.revoke_devices(vec![device.parse()?]).await?;
    tablet.until("it was logged out", |user| user.stopped == Some(Stopped::LoggedOut)).await?;
    let mut tablet = start(&device)?;
    tablet.until("it is not let in", |user| user.stopped == Some(Stopped::LoggedOut)).await
}

async fn talk(url: &str, encoding: Encoding) -> anyhow::Result<usize> {
    let start = |name: &str, device: &str, progress| User::start(url, encoding, name, device, progress);
    let mut alice = start("alice", "live-rust", Progress::default())?;
    let mut bob = start("bob", "live-rust", Progress::default())?;
    let created = alice.client.direct("bob".parse()?).await?;
    let (conversation, begin) = (created.conversation, created.sequence);
    bob.client.follow(conversation, created.epoch, begin).await?;

    // Words, as fast as they go: once, and in the order of writing.
    let mut sends = Vec::new();
    for word in 0..WORDS {
        sends.push(alice.client.submit(conversation, format!("word {word}")).await?);
    }
    let mut last = begin;
    for send in sends {
        last = last.max(send.await?.sequence);
    }
    ensure!(last.0 == begin.0 + WORDS, "each has a place");
    for user in [&mut alice, &mut bob] {
        user.until("all words arrive", |user| user.has(conversation, last)).await?;
        let expect: Vec<String> = (0..WORDS).map(|word| format!("word {word}")).collect();
        ensure!(user.said(conversation, begin) == expect, "the order: {:?}", user.said(conversation, begin));
    }
    ensure!(bob.client.read(conversation, last).await?.unread == 0, "all is read");
    alice.until("alice is told", |user| user.receipts.iter().any(|receipt| receipt.read == last)).await?;

    // What became of the last of them.
    alice.client.edit(conversation, last, "the last word").await?;
    bob.client.react(conversation, last, "👍", true).await?;
    bob.client.pin(conversation, last, true).await?;
    ensure!(bob.client.pins(conversation).await?.contains(&last), "it is pinned");
    let refused = bob.client.delete(conversation, last).await;
    ensure!(refused.is_err_and(|error| error.code() == Some(ErrorCode::Forbidden)), "it is alice's");

    // While bob's program is away, alice answers; when it is back it has what it missed, and nothing twice.
    let User { client, mut events, mut entries, mut progress, .. } = bob;
    let before = client.history(conversation, None, 1).await?.last;
    drop(client);
    while let Some(event) = events.next().await {
        match event {
            Event::Entry(entry) => {
                progress.note(&entry);
                entries.insert((entry.conversation, entry.sequence), *entry);
            }
            Event::Progress(later) => progress = later,
            _ => {}
        }
    }
    let answer = Message::text("answers it").reply_to(last).in_thread(last).mentioning(["bob".parse()?]);
    let answered = alice.client.send(conversation, answer.clone()).await?;
    ensure!(answered.sequence > before);
    let mut bob = start("bob", "live-rust", progress)?;
    bob.entries = entries;
    bob.until("bob has what was missed", |user| user.has(conversation, answered.sequence)).await?;
    let missed = &bob.entries[&(conversation, answered.sequence)];
    ensure!(missed.body == Body::Message(Some(answer)), "{missed:?}");
    for sequence in begin.0 + 1..=answered.sequence.0 {
        ensure!(bob.has(conversation, Sequence(sequence)), "{sequence} is missing");
    }
    let page = bob.client.history(conversation, Some(answered.sequence), 200).await?;
    ensure!(page.entries.iter().any(|entry| entry.sequence == last), "history has it");
    // What became of messages comes right before the page that has them.
    let is_whole = |state: &MessageState| {
        state.edited.is_some() && state.pinned && state.replies == 1 && state.reactions.len() == 1
    };
    let place = (conversation, last);
    bob.until("what became of it is known", |user| user.states.get(&place).is_some_and(is_whole)).await?;

    // The same device elsewhere: the former one says so, and stays away.
    let mut again = start("bob", "live-rust", Progress::default())?;
    bob.until("it was replaced", |user| user.stopped == Some(Stopped::Replaced)).await?;

    // What one device sets, the other has; nobody else does.
    let phone = start("bob", "live-rust-phone", Progress::default())?;
    let value = JsonText(format!("\"{}\"", phone.client.new_id()));
    let set = SetAccount { key: "draft:live".into(), value: Some(value.clone()), if_sequence: None };
    let told = phone.client.account(AccountAction::Set(set)).await?;
    let place = (told.conversation, told.sequence);
    again.until("the other device is told", |user| user.entries.contains_key(&place)).await?;
    let change = AccountChange { key: "draft:live".into(), value: Some(value.clone()) };
    ensure!(again.entries[&place].body == Body::AccountData(change), "{:?}", again.entries[&place]);
    let list = AccountAction::List(AccountPage::default());
    let has_it = |answer: AccountAnswer| answer.items.iter().flatten().any(|item| item.value == value);
    ensure!(has_it(again.client.account(list.clone()).await?), "it is listed");
    ensure!(!has_it(alice.client.account(list).await?), "alice has an account of her own");

    log_out(&again, |device: &str| start("bob", device, Progress::default()), encoding).await?;

    let group = CreateGroup { key: alice.client.new_id(), title: "Live".into(), members: Vec::new() };
    let group = alice.client.group(group).await?.conversation;
    let invite = InvitesAction::Make(MakeInvite { uses: Some(1), ..MakeInvite::default() });
    let code = alice.client.invites(group, invite).await?.code.context("a code")?;
    ensure!(again.client.look(code).await?.title == "Live", "what one would join");
    ensure!(again.client.join(code).await?.conversation == group);
    let is_joined = |entry: &Entry| entry.conversation == group && matches!(entry.body, Body::Joined(_));
    alice.until("alice sees it", |user| user.entries.values().any(is_joined)).await?;
    let change = SettingsChange { send: Some(Who::Admins), ..SettingsChange::default() };
    ensure!(alice.client.settings(group, Some(change)).await?.settings.send == Who::Admins);
    let refused = again.client.send(group, "may I?").await;
    ensure!(refused.is_err_and(|error| error.code() == Some(ErrorCode::Forbidden)), "only admins may");
    alice.client.bans(group, BansAction::Add(vec!["bob".parse()?])).await?;
    again.until("bob is out", |user| user.left.contains(&group)).await?;
    let refused = again.client.join(code).await;
    ensure!(refused.is_err_and(|error| error.code() == Some(ErrorCode::NotFound)), "and stays out");
    Ok(alice.said(conversation, begin).len())
}
