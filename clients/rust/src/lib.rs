//! A client of Antiphon, for bots, back ends and native applications.
//!
//! ```no_run
//! use antiphon_client::{Body, Client, Event, Message, Options};
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::start(Options::new("ws://127.0.0.1:7171/ws", "my-device".parse()?, token))?;
//! let bob = client.direct("bob".parse()?).await?;
//! let acknowledged = client.send(bob.conversation, Message::text("hello")).await?;
//! println!("durable as {}", acknowledged.sequence);
//! while let Some(event) = events.next().await {
//!     if let Event::Entry(entry) = event
//!         && let Body::Message(Some(message)) = entry.body
//!     {
//!         println!("{}: {}", entry.sender, message.text.unwrap_or_default());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it promises, over any number of connections:
//!
//! - the entries of a conversation come once each and in the order of their sequences;
//! - what was sent, and what was asked of a message (an edit, a reaction …), is durable once or refused once, under one name;
//! - it comes back by itself, with back-off, at the time that the server names, and with another token where the last one is over;
//! - nothing waits without a limit.
//!
//! To go on after a restart of the program keep a [`Progress`]: see there. All of the protocol's own types are in [`wire`].

mod asking;
mod changes;
mod client;
mod driver;
mod entry;
mod error;
mod event;
mod message;
mod options;
mod progress;
mod transport;

pub use antiphon_wire as wire;
pub use client::{Client, Events, Pending};
pub use entry::{Body, Entry, Page};
pub use error::Error;
pub use event::{Event, Stopped};
pub use message::{Data, Message};
pub use options::{Options, TokenError};
pub use progress::Progress;
