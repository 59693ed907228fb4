//! Says hello to a friend, and prints what comes until it has its own words back: `quickstart URL TOKEN FRIEND`.

use antiphon_client::{Body, Client, Event, Message, Options};
use anyhow::Context as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: quickstart URL TOKEN FRIEND");
    let (url, token, friend) = (argument()?, argument()?, argument()?);
    let (client, mut events) = Client::start(Options::new(url, "quickstart-rust".parse()?, token))?;

    let conversation = client.direct(friend.parse()?).await?.conversation;
    let acknowledged = client.send(conversation, Message::text("hello from Rust")).await?;
    println!("durable as {}", acknowledged.sequence);

    while let Some(event) = events.next().await {
        println!("{event:?}");
        if matches!(&event, Event::Entry(entry) if entry.sequence == acknowledged.sequence) {
            break;
        }
    }
    let page = client.history(conversation, None, 1).await?;
    let Some(Body::Message(Some(message))) = page.entries.last().map(|entry| &entry.body) else {
        anyhow::bail!("the last entry is a message");
    };
    println!("history: {}", message.text.as_deref().unwrap_or_default());
    Ok(())
}
