//! What a client is held to, one promise at a time.

use std::{
    collections::HashMap,
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    adapter::{Adapter, Told},
    node::{Friend, Node},
    proxy::{Passing, Proxy, Side, Verdict},
};

/// What has to happen does so within this, gaps that wait two seconds and back-off included.
const SOON: Duration = Duration::from_secs(20);

/// A client that has heard nothing for two heartbeats, or has no answer, is gone within this.
const SILENCE_MAX: Duration = Duration::from_secs(40);

type Outcome<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What is promised.
    pub(crate) about: &'static str,
    /// Where docs/protocol.md says so.
    pub(crate) section: &'static str,
    pub(crate) run: for<'a> fn(&'a mut World) -> Outcome<'a>,
}

macro_rules! scenarios {
    ($($name:ident $section:literal $about:literal;)*) => {
        pub(crate) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: $about,
            section: $section,
            run: |world| Box::pin($name(world)),
        },)*];
    };
}

scenarios! {
    order "delivery-and-order" "entries come once and in order over connections that break";
    repeated "delivery-and-order" "a push that comes twice is told once";
    swapped "delivery-and-order" "a push that comes early waits for the one before it";
    holes "delivery-and-order" "pushes that are lost are fetched from history";
    lost_answers "retries" "a send whose answer is lost goes again under its name, and in its place";
    changes "retries" "a change whose answer is lost goes again under its name";
    refused_for_now "error-codes" "a send that is refused for now goes again, not before it may";
    refused_for_good "error-codes" "a send that is refused for good is told, and not sent again";
    from_the_future "how-the-protocol-grows" "fields, pushes, kinds of entries and codes that it does not know do no harm";
    close_codes "close-codes" "it comes back after 4000 to 4499 and broken connections, and not after 4500 to 4999";
    logged_out "devices" "a device that was logged out stops, and comes in again when its user logs in";
    goodbye "resume" "it comes back when a goodbye says";
    overloaded "resume" "it stays away for as long as an error says";
    back_off "resume" "it does not hammer at a door that is shut, and comes when it opens";
    heartbeats "heartbeats" "it says that it is there, and leaves a connection that is silent";
    tokens "refresh" "it brings another token in time, and not for ever";
    restart "resume" "after a restart nothing is told twice, and nothing is missing";
    honest_position "resume" "its position stands for nothing that it does not have";
    outbox "retries" "what was written without a connection is sent after a restart, once and in order";
    far_behind "resume" "after more than a resume streams it reads history";
    membership "left" "it forgets a conversation that it left, and takes it up again";
}

/// A client, the node that it talks to, what stands between them, and a friend.
pub(crate) struct World {
    node: Node,
    proxy: Proxy,
    pub(crate) client: Adapter,
    friend: Friend,
    /// The conversation of the two.
    conversation: String,
}

impl World {
    /// The client is online, and has the first entry of a conversation with its friend.
    pub(crate) async fn new(node: &Node, command: &str, folder: &Path) -> anyhow::Result<Self> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (user, friend) = (format!("client-{id}"), format!("friend-{id}"));
        let proxy = Proxy::start(&node.url).await?;
        let mut client = Adapter::new(command, node, &proxy.url, &user, folder);
        client.start().await?;
        client.until("it is online", SOON, |told| told.state == "online").await?;
        let mut friend = Friend::connect(node, &friend).await?;
        let created = friend.ask("create", json!({"direct": user})).await?;
        let conversation = created["conversation"].as_str().context("an id")?.to_owned();
        let world = Self { node: node.clone(), proxy, client, friend, conversation };
        world.whole(1).await?;
        Ok(world)
    }

    /// Nothing that it said or did was out of place, whatever the scenario.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let nonsense = self.proxy.nonsense();
        ensure!(nonsense.is_empty(), "it sent {nonsense:?}");
        let told = self.client.told();
        ensure!(told.nonsense.is_empty(), "lines that mean nothing: {:?}", told.nonsense);
        ensure!(told.state != "ended", "the program ended");
        let mut waiting = HashMap::new();
        for passing in self.proxy.passed() {
            let Some(id) = passing.id() else { continue };
            match passing.from {
                Side::Client => {
                    let before = waiting.insert((passing.connection, id), passing.frame.clone());
                    ensure!(before.is_none(), "the id {id} was used again while it was unanswered: {}", passing.frame);
                }
                Side::Node => drop(waiting.remove(&(passing.connection, id))),
            }
        }
        Ok(())
    }

    /// The client has told entries 1 to `last` of the conversation, each once and in order, and nothing else.
    async fn whole(&self, last: u64) -> anyhow::Result<()> {
        let of = &self.conversation;
        let sequences = |told: &Told| -> Vec<u64> {
            told.entries.get(of).into_iter().flatten().map(|(sequence, _)| *sequence).collect()
        };
        self.client
            .until(&format!("it has told entry {last}"), SOON, |told| sequences(told).last() >= Some(&last))
            .await?;
        let told = sequences(&self.client.told());
        ensure!(told == (1..=last).collect::<Vec<_>>(), "entries were told as {told:?}");
        Ok(())
    }

    /// The friend says some more, and the client has all of it.
    async fn goes_on(&mut self) -> anyhow::Result<()> {
        let last = self.friend.say(&self.conversation, "and on it goes").await?;
        self.whole(last).await
    }

    async fn friend_says(&mut self, count: usize) -> anyhow::Result<u64> {
        let mut last = 0;
        for number in 0..count {
            last = self.friend.say(&self.conversation, &format!("word {number}")).await?;
        }
        Ok(last)
    }

    /// What the client said, as the node has it, in order.
    async fn stored(&mut self) -> anyhow::Result<Vec<String>> {
        let history = self.friend.history(&self.conversation).await?;
        let own = history.iter().filter(|entry| entry["sender"] == json!(self.client.user));
        Ok(own.filter_map(|entry| entry["text"].as_str().map(str::to_owned)).collect())
    }

    /// The client sends these, and each is durable, once.
    async fn sends(&mut self, texts: &[&str]) -> anyhow::Result<()> {
        for text in texts {
            self.client.send(&self.conversation, text)?;
        }
        self.sent(texts).await
    }

    async fn sent(&mut self, texts: &[&str]) -> anyhow::Result<()> {
        let all = |told: &Told| texts.iter().all(|text| told.durable.contains_key(*text));
        self.client.until("all that was sent is durable", SOON, all).await?;
        for text in texts {
            let places = self.client.told().durable[*text].clone();
            ensure!(places.len() == 1, "{text:?} was told as durable at {places:?}");
        }
        let stored = self.stored().await?;
        ensure!(
            stored.ends_with(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()),
            "stored: {stored:?}"
        );
        Ok(())
    }

    fn connects(&self) -> Vec<Passing> {
        self.proxy.passed().into_iter().filter(|passing| passing.is(Side::Client, "connect")).collect()
    }

    /// The last connection that said who it is.
    fn connection(&self) -> usize {
        self.connects().last().map_or(0, |connect| connect.connection)
    }

    /// Waits for a connection after the `known` one, and gives its `connect`.
    async fn comes_back(&self, known: usize, within: Duration) -> anyhow::Result<Passing> {
        let is_it = move |passing: &Passing| passing.is(Side::Client, "connect") && passing.connection > known;
        self.proxy.until("connect on another connection", within, is_it).await
    }
}

fn is_push(passing: &Passing) -> bool {
    passing.is(Side::Node, "message") && passing.id().is_none()
}

fn error(id: u64, code: &str, is_temporary: bool, retry_after_ms: Option<u64>) -> Value {
    let mut error = json!({"code": code, "text": "from the suite", "temporary": is_temporary});
    if let Some(retry_after_ms) = retry_after_ms {
        error["retry_after_ms"] = json!(retry_after_ms);
    }
    json!({"id": id, "error": error})
}

// ---- Delivery -------------------------------------------------------------------------------------------------------------

async fn order(world: &mut World) -> anyhow::Result<()> {
    let mut last = 0;
    for round in 0..6 {
        last = world.friend_says(8).await?;
        if round < 5 {
            world.proxy.cut();
        }
    }
    world.whole(last).await?;
    world.goes_on().await
}

async fn repeated(world: &mut World) -> anyhow::Result<()> {
    world.proxy.meddle(|passing| match is_push(passing) {
        true => Verdict::Instead(vec![passing.frame.clone(), passing.frame.clone()]),
        false => Verdict::Pass,
    });
    let last = world.friend_says(10).await?;
    world.whole(last).await
}

async fn swapped(world: &mut World) -> anyhow::Result<()> {
    let mut held = None;
    world.proxy.meddle(move |passing| {
        if !is_push(passing) {
            return Verdict::Pass;
        }
        match held.take() {
            Some(before) => Verdict::Instead(vec![passing.frame.clone(), before]),
            None => {
                held = Some(passing.frame.clone());
                Verdict::Drop
            }
        }
    });
    let last = world.friend_says(20).await?;
    world.whole(last).await
}

async fn holes(world: &mut World) -> anyhow::Result<()> {
    let mut pushes = 0;
    world.proxy.meddle(move |passing| {
        pushes += usize::from(is_push(passing));
        if is_push(passing) && pushes % 4 == 2 { Verdict::Drop } else { Verdict::Pass }
    });
    let last = world.friend_says(15).await?;
    world.whole(last).await?;
    let asked = |passing: &Passing| passing.is(Side::Client, "history");
    world.proxy.until("history", Duration::ZERO, asked).await.map(|_| ())
}

// ---- Sends ----------------------------------------------------------------------------------------------------------------

async fn lost_answers(world: &mut World) -> anyhow::Result<()> {
    let mut lost = 0;
    world.proxy.meddle(move |passing| {
        let is_answer = passing.id().is_some() && passing.is(Side::Node, "send");
        if !is_answer || lost == 4 {
            return Verdict::Pass;
        }
        lost += 1;
        Verdict::Cut
    });
    world.sends(&["one", "two", "three", "four", "five", "six"]).await?;
    let last = world.stored().await?.len() as u64 + 1;
    world.whole(last).await
}

async fn changes(world: &mut World) -> anyhow::Result<()> {
    let target = world.friend.say(&world.conversation, "react to this").await?;
    world.whole(target).await?;
    let mut lost = 0;
    world.proxy.meddle(move |passing| {
        let is_answer = passing.id().is_some() && passing.is(Side::Node, "react");
        if !is_answer || lost == 2 {
            return Verdict::Pass;
        }
        lost += 1;
        Verdict::Cut
    });
    world.client.react(&world.conversation, target, "👍")?;
    world.client.until("the reaction is durable", SOON, |told| told.durable.contains_key("👍")).await?;
    let history = world.friend.history(&world.conversation).await?;
    let reactions = history.iter().filter(|entry| entry["kind"] == json!("reaction")).count();
    ensure!(reactions == 1, "the node has {reactions} reactions");
    world.whole(target + 1).await
}

async fn refused_for_now(world: &mut World) -> anyhow::Result<()> {
    let mut refused = 0;
    world.proxy.meddle(move |passing| match passing.id() {
        Some(id) if passing.is(Side::Client, "send") && refused < 2 => {
            refused += 1;
            Verdict::Answer(error(id, "overloaded", true, Some(700)))
        }
        _ => Verdict::Pass,
    });
    world.client.send(&world.conversation, "in time")?;
    world.sent(&["in time"]).await?;
    let tries: Vec<Passing> =
        world.proxy.passed().into_iter().filter(|passing| passing.is(Side::Client, "send")).collect();
    ensure!(tries.len() == 3, "it was sent {} times", tries.len());
    for pair in tries.windows(2) {
        let name = |passing: &Passing| passing.frame["send"]["client_message_id"].clone();
        ensure!(name(&pair[0]) == name(&pair[1]), "it went again under another name");
        let after = pair[1].at - pair[0].at;
        ensure!(after >= Duration::from_millis(650), "it went again after {after:?}");
    }
    Ok(())
}

async fn refused_for_good(world: &mut World) -> anyhow::Result<()> {
    world.proxy.meddle(|passing| match passing.id() {
        Some(id) if passing.is(Side::Client, "send") && passing.frame["send"]["text"] == json!("may not") => {
            Verdict::Answer(error(id, "forbidden", false, None))
        }
        _ => Verdict::Pass,
    });
    world.client.send(&world.conversation, "may not")?;
    let is_told = |told: &Told| told.refused.get("may not").is_some_and(|code| code == "forbidden");
    world.client.until("it was refused as forbidden", SOON, is_told).await?;
    world.sends(&["may"]).await?;
    world.proxy.cut();
    world.sends(&["may again"]).await?;
    let of_it =
        |passing: &Passing| passing.is(Side::Client, "send") && passing.frame["send"]["text"] == json!("may not");
    let tries = world.proxy.passed().into_iter().filter(of_it).count();
    ensure!(tries == 1, "what was refused for good was sent {tries} times");
    Ok(())
}

// ---- What is not known ----------------------------------------------------------------------------------------------------

async fn from_the_future(world: &mut World) -> anyhow::Result<()> {
    world.proxy.push(json!({"from_the_future": {"a": [1, {"b": null}]}}));
    let mut sends = 0;
    world.proxy.meddle(move |passing| {
        let mut frame = passing.frame.clone();
        if is_push(passing) {
            if let Some(entry) = frame["message"].as_object_mut() {
                entry.insert("from_the_future".into(), json!({"text": 7}));
                if entry.get("text") == Some(&json!("of a later kind")) {
                    entry.remove("text");
                    entry.remove("client_message_id");
                    entry.insert("kind".into(), json!("from_the_future"));
                }
            }
            return Verdict::Instead(vec![frame]);
        }
        match passing.id() {
            Some(id) if passing.is(Side::Client, "send") => {
                sends += 1;
                match sends {
                    1 => Verdict::Answer(error(id, "from_the_future", true, Some(200))),
                    3 => Verdict::Answer(error(id, "from_the_future", false, None)),
                    _ => Verdict::Pass,
                }
            }
            _ => Verdict::Pass,
        }
    });
    world.friend.say(&world.conversation, "of a later kind").await?;
    let last = world.friend.say(&world.conversation, "of a kind that is known").await?;
    let told = |told: &Told| told.entries.values().flatten().any(|(sequence, _)| *sequence == last);
    let at_once = Duration::from_millis(1_500);
    world.client.until("an entry behind one of an unknown kind comes at once", at_once, told).await?;
    world.sends(&["temporary, of an unknown code"]).await?;
    world.client.send(&world.conversation, "for good, of an unknown code")?;
    let told = |told: &Told| told.refused.contains_key("for good, of an unknown code");
    world.client.until("an unknown code that is not temporary refuses", SOON, told).await
}

// ---- Coming back ----------------------------------------------------------------------------------------------------------

async fn close_codes(world: &mut World) -> anyhow::Result<()> {
    for code in [4001, 4444, 1011] {
        let known = world.connection();
        world.proxy.close(code);
        world.comes_back(known, SOON).await.with_context(|| format!("after {code}"))?;
        world.goes_on().await?;
    }
    for code in [4502, 4777] {
        let known = world.connects().len();
        world.proxy.close(code);
        let is_stopped = |told: &Told| told.state == "stopped";
        world.client.until(&format!("after {code} it has stopped"), SOON, is_stopped).await?;
        sleep(Duration::from_secs(3)).await;
        ensure!(world.connects().len() == known, "after {code} it came back by itself");
        world.client.stop().await?;
        world.client.start().await?;
        world.goes_on().await?;
    }
    Ok(())
}

async fn logged_out(world: &mut World) -> anyhow::Result<()> {
    let mut other = Friend::connect(&world.node, &world.client.user).await?;
    let list = other.ask("devices", json!({"list": {}})).await?;
    let is_it = |device: &&Value| device["this"] != json!(true) && device["online"] == json!(true);
    let device = list["devices"].as_array().and_then(|all| all.iter().find(is_it)).context("the client's device")?;
    let (known, tokens) = (world.connects().len(), world.client.told().tokens.len());
    other.ask("devices", json!({"revoke": [device["device"]]})).await?;
    world.client.until("it has stopped", SOON, |told| told.state == "stopped").await?;
    sleep(Duration::from_secs(3)).await;
    ensure!(world.connects().len() == known, "it came back by itself");
    ensure!(world.client.told().tokens.len() == tokens, "it asked for another token by itself");
    let last = world.friend_says(2).await?;
    world.client.stop().await?;
    world.client.start().await?;
    world.whole(last).await?;
    world.sends(&["logged in again"]).await?;
    world.goes_on().await
}

async fn goodbye(world: &mut World) -> anyhow::Result<()> {
    let (known, began) = (world.connection(), Instant::now());
    let goodbye = json!({"code": 4000, "reason": "restarting", "reconnect_after_ms": 1500});
    world.proxy.push(json!({"goodbye": goodbye}));
    world.proxy.close(4000);
    let back = world.comes_back(known, SOON).await?;
    let after = back.at - began;
    ensure!((1_400..4_000).contains(&after.as_millis()), "it came back after {after:?}");
    world.goes_on().await
}

async fn overloaded(world: &mut World) -> anyhow::Result<()> {
    let mut refused = None;
    world.proxy.meddle(move |passing| match passing.id() {
        Some(id) if passing.is(Side::Client, "connect") && refused.is_none() => {
            refused = Some(id);
            Verdict::AnswerAndClose(error(id, "overloaded", true, Some(1_500)), 4003)
        }
        _ => Verdict::Pass,
    });
    let known = world.connection();
    world.proxy.cut();
    let refused = world.comes_back(known, SOON).await?;
    let back = world.comes_back(refused.connection, SOON).await?;
    let after = back.at - refused.at;
    ensure!(after >= Duration::from_millis(1_450), "it came back after {after:?}");
    world.goes_on().await
}

async fn back_off(world: &mut World) -> anyhow::Result<()> {
    let (known, before) = (world.connection(), world.proxy.attempts().len());
    world.proxy.set_open(false);
    world.proxy.cut();
    sleep(Duration::from_secs(6)).await;
    let attempts = world.proxy.attempts().len() - before;
    // Evenly from nothing up to 0.5 s, 1 s, 2 s …: four on average, and hardly ever as many as this.
    ensure!((1..=15).contains(&attempts), "it tried {attempts} times in six seconds");
    world.proxy.set_open(true);
    world.comes_back(known, SILENCE_MAX).await?;
    world.goes_on().await
}

async fn heartbeats(world: &mut World) -> anyhow::Result<()> {
    let is_welcome = |passing: &Passing| passing.id().is_some() && passing.is(Side::Node, "connect");
    world.proxy.meddle(move |passing| {
        let mut frame = passing.frame.clone();
        if !is_welcome(passing) {
            return Verdict::Pass;
        }
        frame["connect"]["heartbeat_interval_ms"] = json!(1_000);
        Verdict::Instead(vec![frame])
    });
    let known = world.connection();
    world.proxy.cut();
    let connection = world.comes_back(known, SOON).await?.connection;
    sleep(Duration::from_secs(5)).await;
    let heard: Vec<Instant> = world
        .proxy
        .passed()
        .iter()
        .filter(|passing| passing.from == Side::Client && passing.connection == connection)
        .map(|passing| passing.at)
        .collect();
    for pair in heard.windows(2) {
        let quiet = pair[1] - pair[0];
        ensure!(quiet < Duration::from_millis(1_900), "it was quiet for {quiet:?}, of heartbeats of a second");
    }
    ensure!(heard.len() >= 4, "it said {} things in five seconds", heard.len());
    world.goes_on().await?;
    // From now on it hears nothing on this connection.
    world.proxy.meddle(move |passing| match passing.from == Side::Node && passing.connection == connection {
        true => Verdict::Drop,
        false => Verdict::Pass,
    });
    world.comes_back(connection, SILENCE_MAX).await?;
    world.goes_on().await
}

async fn tokens(world: &mut World) -> anyhow::Result<()> {
    world.proxy.push(json!({"expiring": {"expires_ms": 4_102_444_800_000_u64}}));
    world.proxy.until("refresh", SOON, |passing| passing.is(Side::Client, "refresh")).await?;
    let asked = world.client.told().tokens.clone();
    ensure!(asked == [false, true], "tokens were asked for as {asked:?}: false is any, true another one");
    world.goes_on().await?;
    world.proxy.meddle(|passing| match passing.id() {
        Some(id) if passing.is(Side::Client, "connect") => {
            Verdict::AnswerAndClose(error(id, "token_expired", false, None), 4501)
        }
        _ => Verdict::Pass,
    });
    let known = world.connects().len();
    world.proxy.cut();
    world.client.until("it has stopped", SOON, |told| told.state == "stopped").await?;
    let tries = world.connects().len() - known;
    ensure!((1..=2).contains(&tries), "it tried {tries} times with tokens that are over");
    let asked = world.client.told().tokens.clone();
    ensure!(asked.iter().filter(|renew| **renew).count() >= 2, "it did not ask for another token: {asked:?}");
    Ok(())
}

// ---- Going on -------------------------------------------------------------------------------------------------------------

async fn restart(world: &mut World) -> anyhow::Result<()> {
    let last = world.friend_says(5).await?;
    world.whole(last).await?;
    world.sends(&["before the restart"]).await?;
    world.whole(last + 1).await?;
    for _ in 0..2 {
        world.client.stop().await?;
        let known = world.connection();
        let last = world.friend_says(5).await?;
        world.client.start().await?;
        let connect = world.comes_back(known, SOON).await?;
        let resume = &connect.frame["connect"]["resume"];
        ensure!(resume["position"].is_string(), "it does not resume: {}", connect.frame["connect"]["client"]);
        world.whole(last).await?;
    }
    world.goes_on().await
}

async fn honest_position(world: &mut World) -> anyhow::Result<()> {
    // A push is lost, and history does not answer, while positions come by the heartbeats.
    let mut is_lost = false;
    world.proxy.meddle(move |passing| {
        if passing.id().is_some() && passing.is(Side::Node, "connect") {
            let mut frame = passing.frame.clone();
            frame["connect"]["heartbeat_interval_ms"] = json!(1_000);
            return Verdict::Instead(vec![frame]);
        }
        if passing.is(Side::Client, "history") {
            return Verdict::Drop;
        }
        if is_push(passing) && passing.frame["message"]["text"] == json!("word 1") && !is_lost {
            is_lost = true;
            return Verdict::Drop;
        }
        Verdict::Pass
    });
    let known = world.connection();
    world.proxy.cut();
    world.comes_back(known, SOON).await?;
    let last = world.friend_says(4).await?;
    sleep(Duration::from_millis(3_500)).await;
    world.proxy.be_honest();
    world.proxy.cut();
    world.whole(last).await?;
    world.goes_on().await
}

async fn outbox(world: &mut World) -> anyhow::Result<()> {
    const TEXTS: [&str; 3] = ["written one", "written two", "written three"];
    world.proxy.set_open(false);
    world.proxy.cut();
    world.client.until("it is offline", SILENCE_MAX, |told| told.state == "offline").await?;
    for text in TEXTS {
        world.client.send(&world.conversation, text)?;
    }
    sleep(Duration::from_millis(500)).await;
    world.client.stop().await?;
    world.client.start().await?;
    world.proxy.set_open(true);
    world.client.until("it is online", SILENCE_MAX, |told| told.state == "online").await?;
    world.sent(&TEXTS).await?;
    let stored = world.stored().await?;
    ensure!(stored == TEXTS, "the node has {stored:?}");
    world.whole(TEXTS.len() as u64 + 1).await
}

async fn far_behind(world: &mut World) -> anyhow::Result<()> {
    world.client.stop().await?;
    let last = world.friend_says(260).await?;
    world.client.start().await?;
    world.whole(last).await?;
    world.goes_on().await
}

async fn membership(world: &mut World) -> anyhow::Result<()> {
    let group =
        json!({"key": uuid::Uuid::new_v4().to_string(), "title": "Conformance", "members": [world.client.user]});
    let created = world.friend.ask("create", json!({"group": group})).await?;
    let group = created["conversation"].as_str().context("an id")?.to_owned();
    let members = |action: &str| json!({"conversation": group, action: [world.client.user]});
    let (remove, add) = (members("remove"), members("add"));
    let has =
        |told: &Told, last: u64| told.entries.get(&group).is_some_and(|of| of.last().map(|of| of.0) == Some(last));
    let last = world.friend.say(&group, "welcome").await?;
    world.client.until("it has what is said in the group", SOON, |told| has(told, last)).await?;
    world.friend.ask("members", remove).await?;
    world.client.until("it is told that it left", SOON, |told| told.left == [group.clone()]).await?;
    world.friend.say(&group, "behind its back").await?;
    world.friend.ask("members", add).await?;
    let last = world.friend.say(&group, "welcome back").await?;
    world.client.until("it has what is said now", SOON, |told| has(told, last)).await?;
    let texts: Vec<String> = world.client.told().entries[&group].iter().filter_map(|(_, text)| text.clone()).collect();
    ensure!(texts == ["welcome", "welcome back"], "it was told {texts:?}");
    Ok(())
}
