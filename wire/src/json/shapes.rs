//! JSON forms that differ from the structs they stand for: `send` and `edit`, whose content's parts stand beside the ids, and `error`,
//! whose code is a name.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};

use crate::{
    codes::ErrorCode,
    frame::{Edit, ErrorFrame, Send},
    ids::{ClientMessageId, ConversationId, Sequence},
    json::content::{self, with_content},
};

with_content! {
    struct JsonSend<'a> {
        conversation: ConversationId,
        client_message_id: ClientMessageId,
    }
}

impl Serialize for Send {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_struct("Send", 2 + content::FIELDS_MAX)?;
        json.serialize_field("conversation", &self.conversation)?;
        json.serialize_field("client_message_id", &self.client_message_id)?;
        content::put(&self.content.0, &mut json)?;
        json.end()
    }
}

impl<'de> Deserialize<'de> for Send {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = JsonSend::deserialize(deserializer)?;
        Ok(Self {
            content: json.parts().content()?.ok_or_else(|| de::Error::missing_field("text"))?,
            conversation: json.conversation,
            client_message_id: json.client_message_id,
        })
    }
}

with_content! {
    struct JsonEdit<'a> {
        conversation: ConversationId,
        client_message_id: ClientMessageId,
        target: Sequence,
    }
}

impl Serialize for Edit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = serializer.serialize_struct("Edit", 3 + content::FIELDS_MAX)?;
        json.serialize_field("conversation", &self.conversation)?;
        json.serialize_field("client_message_id", &self.client_message_id)?;
        json.serialize_field("target", &self.target)?;
        content::put(&self.content.0, &mut json)?;
        json.end()
    }
}

impl<'de> Deserialize<'de> for Edit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = JsonEdit::deserialize(deserializer)?;
        Ok(Self {
            content: json.parts().content()?.ok_or_else(|| de::Error::missing_field("text"))?,
            conversation: json.conversation,
            client_message_id: json.client_message_id,
            target: json.target,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct JsonError<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(default, borrow)]
    text: Cow<'a, str>,
    #[serde(default)]
    temporary: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl Serialize for ErrorFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        JsonError {
            code: Cow::Borrowed(self.code.name()),
            text: Cow::Borrowed(&self.text),
            temporary: self.code.temporary(),
            retry_after_ms: self.retry_after_ms,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ErrorFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = JsonError::deserialize(deserializer)?;
        // Codes may grow. One that is not known here is told apart by what matters to a client: whether to try again.
        let unknown = if json.temporary { ErrorCode::Overloaded } else { ErrorCode::Invalid };
        if json.code.is_empty() {
            return Err(de::Error::invalid_value(de::Unexpected::Str(""), &"the name of an error code"));
        }
        Ok(Self {
            code: ErrorCode::from_name(&json.code).unwrap_or(unknown),
            text: json.text.into_owned(),
            retry_after_ms: json.retry_after_ms,
        })
    }
}
