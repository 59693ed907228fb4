//! What a message says.
//!
//! One byte tells the form; what a client sent is kept as it is.
//!
//! ```text
//! plain   1 · UTF-8 …
//! fields  2 · (key u8 · length u16 · value)…      little endian, keys ascend
//!
//! keys    1 text            UTF-8
//!         2 content type    of what the application makes of the data: visible ASCII with a slash in it
//!         3 data            bytes, right behind a content type; of a JSON type one JSON value, without white space around it
//!         4 reply to        u64, a sequence
//!         5 thread          u64, the sequence of the message that began it
//!         6 forwarded       conversation[16] · u64
//!         7 mentions        (length u8 · user)…, in order of ids, each once
//!         8 everybody       1
//! ```
//! Invariant: one content has one form: what is nothing but text is plain. Must not do: know whether what it refers to is there.

use rkyv::{Archive, Deserialize, Serialize};
use serde_json::value::RawValue;

use super::EntryError;
use crate::{
    ids::{ConversationId, Sequence, UserId},
    limits::{CONTENT_TYPE_BYTES_MAX, DATA_BYTES_MAX, JSON_INTEGER_MAX, MENTIONS_PER_MESSAGE_MAX, TEXT_BYTES_MAX},
};

/// A message's content, as bytes; [`Content::view`] validates it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Content(pub Vec<u8>);

/// A validated content, in place; and what a content is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentView<'a> {
    /// 1 to [`TEXT_BYTES_MAX`] bytes.
    pub text: Option<&'a str>,
    /// What the application alone understands.
    pub data: Option<Data<'a>>,
    /// The message that it answers.
    pub reply_to: Option<Sequence>,
    /// The message that began the thread that it is in.
    pub thread: Option<Sequence>,
    /// Where it stood first.
    pub forwarded: Option<Place>,
    /// Who is meant.
    pub mentions: Mentions<'a>,
    /// Everybody is meant.
    pub everybody: bool,
}

/// What the application alone understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// At most [`CONTENT_TYPE_BYTES_MAX`] bytes.
    pub content_type: &'a str,
    /// At most [`DATA_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// A message of some conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Which one.
    pub conversation: ConversationId,
    /// Its sequence there.
    pub sequence: Sequence,
}

/// Users who are meant by a message, in order of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mentions<'a>(&'a [u8]);

const PLAIN: u8 = 1;
const FIELDS: u8 = 2;

const TEXT: u8 = 1;
const CONTENT_TYPE: u8 = 2;
const DATA: u8 = 3;
const REPLY_TO: u8 = 4;
const THREAD: u8 = 5;
const FORWARDED: u8 = 6;
const MENTIONS: u8 = 7;
const EVERYBODY: u8 = 8;

impl Content {
    /// Plain text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(1 + text.len());
        bytes.push(PLAIN);
        bytes.extend(text.as_bytes());
        Self(bytes)
    }

    /// Validates the bytes and looks at them in place.
    pub fn view(&self) -> Result<ContentView<'_>, EntryError> {
        view_content(&self.0)
    }
}

impl ContentView<'_> {
    /// The bytes of it, which are valid only if all of its parts are.
    #[must_use]
    pub fn to_content(&self) -> Content {
        if let (Some(text), true) = (self.text, self.is_plain()) {
            return Content::text(text);
        }
        let mut bytes = vec![FIELDS];
        let mut put = |key: u8, value: &[u8]| {
            bytes.push(key);
            // A value that is too long is cut short, and told as too long by who looks at it.
            bytes.extend((value.len().min(usize::from(u16::MAX)) as u16).to_le_bytes());
            bytes.extend(&value[..value.len().min(usize::from(u16::MAX))]);
        };
        if let Some(text) = self.text {
            put(TEXT, text.as_bytes());
        }
        if let Some(data) = self.data {
            put(CONTENT_TYPE, data.content_type.as_bytes());
            put(DATA, data.bytes);
        }
        for (key, sequence) in [(REPLY_TO, self.reply_to), (THREAD, self.thread)] {
            if let Some(sequence) = sequence {
                put(key, &sequence.0.to_le_bytes());
            }
        }
        if let Some(place) = self.forwarded {
            put(FORWARDED, &[&place.conversation.0[..], &place.sequence.0.to_le_bytes()].concat());
        }
        if !self.mentions.0.is_empty() {
            put(MENTIONS, self.mentions.0);
        }
        if self.everybody {
            put(EVERYBODY, &[1]);
        }
        Content(bytes)
    }

    /// The same of another message: this one's words, what that one refers to. An edit keeps that.
    #[must_use]
    pub fn in_place_of(self, other: &Self) -> Self {
        Self { reply_to: other.reply_to, thread: other.thread, forwarded: other.forwarded, ..self }
    }

    /// Whether it refers to other messages.
    #[must_use]
    pub fn refers(&self) -> bool {
        self.reply_to.is_some() || self.thread.is_some() || self.forwarded.is_some()
    }

    /// Whether it is nothing but text.
    fn is_plain(&self) -> bool {
        *self == ContentView { text: self.text, ..ContentView::default() } && self.text.is_some()
    }
}

impl<'a> Data<'a> {
    /// Whether data of this type is JSON: `application/json`, and what ends with `+json`.
    #[must_use]
    pub fn is_json(content_type: &str) -> bool {
        content_type == "application/json" || content_type.ends_with("+json")
    }

    /// The JSON value, if it is one.
    #[must_use]
    pub fn json(&self) -> Option<&'a RawValue> {
        let is_json = Self::is_json(self.content_type);
        let value: &RawValue = serde_json::from_slice(self.bytes).ok().filter(|_| is_json)?;
        (value.get().len() == self.bytes.len()).then_some(value)
    }
}

impl<'a> Mentions<'a> {
    /// None.
    pub const NOBODY: Self = Self(&[]);

    /// Those of these bytes, as [`mentions_to_bytes`] made them.
    fn of_bytes(bytes: &'a [u8]) -> Result<Self, EntryError> {
        let (mut rest, mut last, mut count) = (bytes, "", 0);
        while let Some((name, after)) = next_name(rest) {
            let name = std::str::from_utf8(name).map_err(|_| EntryError::Text)?;
            if UserId::check(name).is_err() || name <= last {
                return Err(EntryError::Content);
            }
            if count == MENTIONS_PER_MESSAGE_MAX {
                return Err(EntryError::TooManyMentions);
            }
            (rest, last, count) = (after, name, count + 1);
        }
        if rest.is_empty() && count > 0 { Ok(Self(bytes)) } else { Err(EntryError::Content) }
    }

    /// Bytes that [`mentions_to_bytes`] made.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Each user's id.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, after) = next_name(rest)?;
            rest = after;
            std::str::from_utf8(name).ok()
        })
    }

    /// Whether a user is among them.
    #[must_use]
    pub fn has(&self, user: &UserId) -> bool {
        self.names().any(|name| name == user.as_str())
    }
}

/// Users as mentions have them: in order, each once.
#[must_use]
pub fn mentions_to_bytes(users: &[UserId]) -> Vec<u8> {
    let mut users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    users.sort_unstable();
    users.dedup();
    let mut bytes = Vec::new();
    for user in users {
        bytes.push(user.len() as u8);
        bytes.extend(user.as_bytes());
    }
    bytes
}

fn next_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Whether a content is nothing but text, if it is one.
#[must_use]
pub fn is_plain_text(bytes: &[u8]) -> bool {
    bytes.first() == Some(&PLAIN)
}

/// Validates a content and looks at it in place.
pub fn view_content(bytes: &[u8]) -> Result<ContentView<'_>, EntryError> {
    match bytes.split_first() {
        Some((&PLAIN, text)) => Ok(ContentView { text: Some(text_of(text)?), ..ContentView::default() }),
        Some((&FIELDS, fields)) => view_fields(fields),
        _ => Err(EntryError::UnknownContent),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, EntryError> {
    match bytes.len() {
        0 => Err(EntryError::Empty),
        length if length > TEXT_BYTES_MAX => Err(EntryError::TooLong),
        _ => std::str::from_utf8(bytes).map_err(|_| EntryError::Text),
    }
}

fn view_fields(bytes: &[u8]) -> Result<ContentView<'_>, EntryError> {
    let mut view = ContentView::default();
    let (mut rest, mut last, mut content_type) = (bytes, 0, None);
    while let Some((&[key, low, high], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (value, after) = after.split_at_checked(length).ok_or(EntryError::Content)?;
        if key <= last {
            return Err(EntryError::Content);
        }
        let sequence = || sequence_of(value).ok_or(EntryError::Content);
        match key {
            TEXT => view.text = Some(text_of(value)?),
            CONTENT_TYPE => content_type = Some(type_of(value)?),
            DATA => view.data = Some(data_of(content_type.take().ok_or(EntryError::Content)?, value)?),
            REPLY_TO => view.reply_to = Some(sequence()?),
            THREAD => view.thread = Some(sequence()?),
            FORWARDED => {
                let (conversation, sequence) = value.split_first_chunk::<16>().ok_or(EntryError::Content)?;
                let sequence = sequence_of(sequence).ok_or(EntryError::Content)?;
                view.forwarded = Some(Place { conversation: ConversationId(*conversation), sequence });
            }
            MENTIONS => view.mentions = Mentions::of_bytes(value)?,
            EVERYBODY if value == [1] => view.everybody = true,
            // What a later version says is not passed on by one that cannot check it.
            _ => return Err(EntryError::Content),
        }
        (rest, last) = (after, key);
    }
    if !rest.is_empty() || content_type.is_some() || view.is_plain() {
        return Err(EntryError::Content);
    }
    let says_something = view.text.is_some() || view.data.is_some() || view.forwarded.is_some();
    if says_something { Ok(view) } else { Err(EntryError::Empty) }
}

fn sequence_of(bytes: &[u8]) -> Option<Sequence> {
    let number = u64::from_le_bytes(bytes.try_into().ok()?);
    (1..=JSON_INTEGER_MAX).contains(&number).then_some(Sequence(number))
}

fn type_of(bytes: &[u8]) -> Result<&str, EntryError> {
    if bytes.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(EntryError::TooLong);
    }
    let is_visible = bytes.iter().all(u8::is_ascii_graphic) && bytes.contains(&b'/');
    std::str::from_utf8(bytes).ok().filter(|_| is_visible).ok_or(EntryError::Content)
}

fn data_of<'a>(content_type: &'a str, bytes: &'a [u8]) -> Result<Data<'a>, EntryError> {
    let data = Data { content_type, bytes };
    match bytes.len() {
        0 => Err(EntryError::Empty),
        length if length > DATA_BYTES_MAX => Err(EntryError::TooLong),
        _ if Data::is_json(content_type) && data.json().is_none() => Err(EntryError::Json),
        _ => Ok(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn what_a_message_says_comes_back_and_its_bytes_stand() {
        assert_eq!(Content::text("hi").0, *b"\x01hi");
        let mentions = mentions_to_bytes(&[user("bob"), user("ann"), user("bob")]);
        let view = ContentView {
            text: Some("hi"),
            data: Some(Data { content_type: "application/json", bytes: b"{\"a\":1}" }),
            reply_to: Some(Sequence(3)),
            thread: Some(Sequence(2)),
            forwarded: Some(Place { conversation: ConversationId([7; 16]), sequence: Sequence(9) }),
            mentions: Mentions::new(&mentions),
            everybody: true,
        };
        let content = view.to_content();
        assert_eq!(
            content.0,
            [
                &b"\x02\x01\x02\0hi\x02\x10\0application/json\x03\x07\0{\"a\":1}"[..],
                b"\x04\x08\0\x03\0\0\0\0\0\0\0\x05\x08\0\x02\0\0\0\0\0\0\0",
                b"\x06\x18\0\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x09\0\0\0\0\0\0\0",
                b"\x07\x08\0\x03ann\x03bob\x08\x01\0\x01",
            ]
            .concat()
        );
        assert_eq!(content.view(), Ok(view));
        assert_eq!(view.mentions.names().collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(view.mentions.has(&user("bob")) && !view.mentions.has(&user("bo")));
        let plain = ContentView { text: Some("hi"), ..ContentView::default() };
        assert_eq!(plain.to_content(), Content::text("hi"));
        assert_eq!(Content::text("hi").view(), Ok(plain));
    }

    #[test]
    fn each_part_alone_is_what_it_is() {
        let mentions = mentions_to_bytes(&[user("ann")]);
        let text = ContentView { text: Some("x"), ..ContentView::default() };
        for view in [
            ContentView { data: Some(Data { content_type: "image/x", bytes: &[0, 255] }), ..ContentView::default() },
            ContentView {
                forwarded: Some(Place { conversation: ConversationId([1; 16]), sequence: Sequence(1) }),
                ..ContentView::default()
            },
            ContentView { reply_to: Some(Sequence(1)), ..text },
            ContentView { thread: Some(Sequence(1)), ..text },
            ContentView { mentions: Mentions::new(&mentions), ..text },
            ContentView { everybody: true, ..text },
        ] {
            assert_eq!(view.to_content().view(), Ok(view));
        }
    }

    #[test]
    fn contents_that_do_not_have_their_form_are_refused() {
        let long =
            |key: u8, length: usize| [&[FIELDS, key][..], &(length as u16).to_le_bytes(), &vec![b'x'; length]].concat();
        let typed = |content_type: &[u8], data: &[u8]| {
            let field = |key: u8, value: &[u8]| [&[key][..], &(value.len() as u16).to_le_bytes(), value].concat();
            [vec![FIELDS], field(CONTENT_TYPE, content_type), field(DATA, data)].concat()
        };
        for (bad, error) in [
            (b"".to_vec(), EntryError::UnknownContent),
            (b"\x03hi".to_vec(), EntryError::UnknownContent),
            (b"\x01".to_vec(), EntryError::Empty),
            (b"\x01\xff".to_vec(), EntryError::Text),
            ([&[PLAIN][..], &[b'x'; TEXT_BYTES_MAX + 1]].concat(), EntryError::TooLong),
            (b"\x02".to_vec(), EntryError::Empty),
            (b"\x02\x04\x08\0\x01\0\0\0\0\0\0\0".to_vec(), EntryError::Empty),
            // Nothing but text is plain.
            (b"\x02\x01\x02\0hi".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0h".to_vec(), EntryError::Content),
            (b"\x02\x08\x01\0\x01\x01\x02\0hi".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x01\x02\0hi".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x08\x01\0\x02".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x09\x01\0\x01".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x04\x07\0\x01\0\0\0\0\0\0".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x04\x08\0\0\0\0\0\0\0\0\0".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x04\x08\0\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x07\0\0".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x07\x08\0\x03bob\x03ann".to_vec(), EntryError::Content),
            (b"\x02\x01\x02\0hi\x02\x03\0a/b".to_vec(), EntryError::Content),
            (b"\x02\x03\x01\0x".to_vec(), EntryError::Content),
            (long(TEXT, TEXT_BYTES_MAX + 1), EntryError::TooLong),
            (typed(b"no-slash", b"x"), EntryError::Content),
            (typed(b"a b/c", b"x"), EntryError::Content),
            (typed(&[b'/'; CONTENT_TYPE_BYTES_MAX + 1], b"x"), EntryError::TooLong),
            (typed(b"a/b", b""), EntryError::Empty),
            (typed(b"a/b", &vec![0; DATA_BYTES_MAX + 1]), EntryError::TooLong),
            (typed(b"application/json", b"{"), EntryError::Json),
            (typed(b"application/vnd.x+json", b" {}"), EntryError::Json),
        ] {
            assert_eq!(view_content(&bad), Err(error), "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(60)]));
        }
        let many: Vec<UserId> = (0..=MENTIONS_PER_MESSAGE_MAX).map(|number| user(&format!("u{number:03}"))).collect();
        for (count, is_valid) in [(MENTIONS_PER_MESSAGE_MAX, true), (MENTIONS_PER_MESSAGE_MAX + 1, false)] {
            let mentions = mentions_to_bytes(&many[..count]);
            let view = ContentView { text: Some("x"), mentions: Mentions::new(&mentions), ..ContentView::default() };
            assert_eq!(view.to_content().view().is_ok(), is_valid);
        }
    }
}
