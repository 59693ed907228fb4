//! A content's JSON form: its parts stand beside the fields of what it is the content of.
//!
//! Data of a JSON type is a JSON value under `json`, other data (and a JSON `null`) is base64 under `data`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    de,
    ser::{self, SerializeStruct},
};
use serde_json::value::RawValue;

use crate::{
    frame::{Content, ContentView, Data, Mentions, Place, mentions_to_bytes, view_content},
    ids::{Sequence, UserId},
};

/// The type of `json` that comes without one.
const JSON_TYPE: &str = "application/json";

/// A content's parts as JSON has them.
pub(super) struct Parts<'a> {
    pub(super) text: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    pub(super) data: Option<&'a str>,
    pub(super) json: Option<&'a RawValue>,
    pub(super) reply_to: Option<Sequence>,
    pub(super) thread: Option<Sequence>,
    pub(super) forwarded: Option<Place>,
    pub(super) mentions: &'a [UserId],
    pub(super) everybody: bool,
}

/// A struct to be read from JSON that has a content's parts among its fields, and how to take them out.
macro_rules! with_content {
    ($(#[$meta:meta])* struct $name:ident<$life:lifetime> { $($(#[$of:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize)]
        struct $name<$life> {
            $($(#[$of])* $field: $type,)*
            #[serde(default, borrow)]
            text: Option<std::borrow::Cow<$life, str>>,
            #[serde(default, borrow)]
            content_type: Option<std::borrow::Cow<$life, str>>,
            #[serde(default, borrow)]
            data: Option<std::borrow::Cow<$life, str>>,
            #[serde(default)]
            json: Option<Box<serde_json::value::RawValue>>,
            #[serde(default)]
            reply_to: Option<$crate::ids::Sequence>,
            #[serde(default)]
            thread: Option<$crate::ids::Sequence>,
            #[serde(default)]
            forwarded: Option<$crate::frame::Place>,
            #[serde(default)]
            mentions: Option<Vec<$crate::ids::UserId>>,
            #[serde(default, deserialize_with = "crate::json::absent_if_null")]
            everybody: bool,
        }

        impl $name<'_> {
            /// The content's parts.
            fn parts(&self) -> $crate::json::content::Parts<'_> {
                $crate::json::content::Parts {
                    text: self.text.as_deref(),
                    content_type: self.content_type.as_deref(),
                    data: self.data.as_deref(),
                    json: self.json.as_deref(),
                    reply_to: self.reply_to,
                    thread: self.thread,
                    forwarded: self.forwarded,
                    mentions: self.mentions.as_deref().unwrap_or_default(),
                    everybody: self.everybody,
                }
            }
        }
    };
}
pub(super) use with_content;

impl Parts<'_> {
    /// The content, which is valid only if all of its parts are; `None` if there is no part.
    pub(super) fn content<E: de::Error>(&self) -> Result<Option<Content>, E> {
        let (decoded, content_type) = (self.data.map(|data| STANDARD.decode(data)), self.content_type);
        let data = match (&decoded, self.json) {
            (None, None) if content_type.is_some() => return Err(E::custom("content_type needs data or json")),
            (None, None) => None,
            (Some(_), Some(_)) => return Err(E::custom("needs one of data and json, not both")),
            (Some(Err(_)), None) => return Err(E::custom("data is not base64")),
            (Some(Ok(bytes)), None) => {
                Some(Data { content_type: content_type.ok_or_else(|| E::missing_field("content_type"))?, bytes })
            }
            (None, Some(json)) => {
                Some(Data { content_type: content_type.unwrap_or(JSON_TYPE), bytes: json.get().as_bytes() })
            }
        };
        if self.json.is_some() && data.is_some_and(|data| !Data::is_json(data.content_type)) {
            return Err(E::custom("json needs a JSON type"));
        }
        let mentions = mentions_to_bytes(self.mentions);
        let view = ContentView {
            text: self.text,
            data,
            reply_to: self.reply_to,
            thread: self.thread,
            forwarded: self.forwarded,
            mentions: Mentions::new(&mentions),
            everybody: self.everybody,
        };
        Ok((view != ContentView::default()).then(|| view.to_content()))
    }
}

/// How many fields [`put`] writes at most.
pub(super) const FIELDS_MAX: usize = 8;

/// Writes a content's parts as fields.
pub(super) fn put<S: SerializeStruct>(content: &[u8], json: &mut S) -> Result<(), S::Error> {
    let view = view_content(content).map_err(ser::Error::custom)?;
    if let Some(text) = view.text {
        json.serialize_field("text", text)?;
    }
    if let Some(data) = view.data {
        json.serialize_field("content_type", data.content_type)?;
        // A `null` would be taken for nothing.
        match data.json().filter(|value| value.get() != "null") {
            Some(value) => json.serialize_field("json", value)?,
            None => json.serialize_field("data", &STANDARD.encode(data.bytes))?,
        }
    }
    if let Some(sequence) = view.reply_to {
        json.serialize_field("reply_to", &sequence)?;
    }
    if let Some(sequence) = view.thread {
        json.serialize_field("thread", &sequence)?;
    }
    if let Some(place) = view.forwarded {
        json.serialize_field("forwarded", &place)?;
    }
    if view.mentions != Mentions::default() {
        json.serialize_field("mentions", &view.mentions.names().collect::<Vec<_>>())?;
    }
    if view.everybody {
        json.serialize_field("everybody", &true)?;
    }
    Ok(())
}
