//! What a message says, as an application has it.

use antiphon_wire::{
    frame::{self, Content, ContentView, EntryError, Mentions, Place, mentions_to_bytes, view_content},
    ids::{ConversationId, Sequence, UserId},
};

/// What a message says. It has a text, data, or something forwarded; all else is as one likes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// For people.
    pub text: Option<String>,
    /// For the application alone.
    pub data: Option<Data>,
    /// The message that it answers.
    pub reply_to: Option<Sequence>,
    /// The message that began the thread that it is in.
    pub thread: Option<Sequence>,
    /// The message that it is a copy of.
    pub forwarded: Option<Place>,
    /// Who is meant.
    pub mentions: Vec<UserId>,
    /// Whether everybody is.
    pub everybody: bool,
}

/// What only the application understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Such as `application/json`.
    pub content_type: String,
    /// Of a JSON type, one JSON value.
    pub bytes: Vec<u8>,
}

impl Message {
    /// A message of words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// A message of data.
    #[must_use]
    pub fn data(content_type: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { data: Some(Data { content_type: content_type.into(), bytes: bytes.into() }), ..Self::default() }
    }

    /// A copy of a message of any conversation.
    #[must_use]
    pub fn forwarded(conversation: ConversationId, sequence: Sequence) -> Self {
        Self { forwarded: Some(Place { conversation, sequence }), ..Self::default() }
    }

    /// It answers that message.
    #[must_use]
    pub fn reply_to(self, sequence: Sequence) -> Self {
        Self { reply_to: Some(sequence), ..self }
    }

    /// It is in the thread which that message began.
    #[must_use]
    pub fn in_thread(self, sequence: Sequence) -> Self {
        Self { thread: Some(sequence), ..self }
    }

    /// These are meant.
    #[must_use]
    pub fn mentioning(self, users: impl IntoIterator<Item = UserId>) -> Self {
        Self { mentions: users.into_iter().collect(), ..self }
    }

    /// What is sent of it.
    #[must_use]
    pub fn to_content(&self) -> Content {
        let mentions = mentions_to_bytes(&self.mentions);
        let data = self.data.as_ref().map(|Data { content_type, bytes }| frame::Data { content_type, bytes });
        let view = ContentView {
            text: self.text.as_deref(),
            data,
            reply_to: self.reply_to,
            thread: self.thread,
            forwarded: self.forwarded,
            mentions: Mentions::new(&mentions),
            everybody: self.everybody,
        };
        view.to_content()
    }

    pub(crate) fn read(content: &[u8]) -> Result<Self, EntryError> {
        let view = view_content(content)?;
        let user = |name| UserId::new(name).map_err(|_| EntryError::Content);
        Ok(Self {
            text: view.text.map(str::to_owned),
            data: view.data.map(|data| Data { content_type: data.content_type.to_owned(), bytes: data.bytes.to_vec() }),
            reply_to: view.reply_to,
            thread: view.thread,
            forwarded: view.forwarded,
            mentions: view.mentions.names().map(user).collect::<Result<_, _>>()?,
            everybody: view.everybody,
        })
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was_written() {
        let user = |name: &str| name.parse::<UserId>().unwrap();
        for message in [
            Message::text("hi"),
            Message::data("application/json", *b"{\"a\":1}"),
            Message::forwarded(ConversationId([7; 16]), Sequence(3)),
            Message::text("see @ann")
                .reply_to(Sequence(3))
                .in_thread(Sequence(2))
                .mentioning([user("ann"), user("bob")]),
            Message { everybody: true, ..Message::text("all") },
        ] {
            assert_eq!(Message::read(&message.to_content().0), Ok(message));
        }
        assert_eq!(Message::default().to_content().view(), Err(EntryError::Empty));
    }
}
