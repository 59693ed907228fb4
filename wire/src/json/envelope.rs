//! Reading a frame's envelope: its id, and the one key that names its kind.
//!
//! Invariants: one pass; what had been read when an error struck (the id above all) is kept for the answer. A second pass
//! happens only after an error, to find an id that stands behind it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    codec::DecodeError,
    codes::ErrorCode,
    frame::{EntryError, Request, ServerFrame},
    ids::{IdError, RequestId},
    validate::Problem,
};

/// Longest part of an unknown key that an answer repeats.
const KEY_BYTES_MAX: usize = 40;

/// All frames of one direction.
pub(super) trait Family: Sized {
    /// Reads the value that stands under `name`, or leaves it unread and returns `None` if no frame has that name.
    fn value<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error>;
}

impl Family for Request {
    fn value<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        let request = match name {
            "connect" => Self::Connect(map.next_value()?),
            "ping" => Self::Ping(map.next_value()?),
            "create" => Self::Create(map.next_value()?),
            "members" => Self::Members(map.next_value()?),
            "conversations" => Self::Conversations(map.next_value()?),
            "title" => Self::Title(map.next_value()?),
            "send" => Self::Send(map.next_value()?),
            "history" => Self::History(map.next_value()?),
            "read" => Self::Read(map.next_value()?),
            "delivered" => Self::Delivered(map.next_value()?),
            "edit" => Self::Edit(map.next_value()?),
            "delete" => Self::Delete(map.next_value()?),
            "react" => Self::React(map.next_value()?),
            "pin" => Self::Pin(map.next_value()?),
            "retain" => Self::Retain(map.next_value()?),
            "reactions" => Self::Reactions(map.next_value()?),
            "pins" => Self::Pins(map.next_value()?),
            "roles" => Self::Roles(map.next_value()?),
            "settings" => Self::Settings(map.next_value()?),
            "bans" => Self::Bans(map.next_value()?),
            "event" => Self::Event(map.next_value()?),
            "refresh" => Self::Refresh(map.next_value()?),
            "invites" => Self::Invites(map.next_value()?),
            "join" => Self::Join(map.next_value()?),
            "account" => Self::Account(map.next_value()?),
            "presence" => Self::Presence(map.next_value()?),
            "view" => Self::View(map.next_value()?),
            "devices" => Self::Devices(map.next_value()?),
            _ => return Ok(None),
        };
        Ok(Some(request))
    }
}

impl Family for ServerFrame {
    fn value<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        let frame = match name {
            "connect" => Self::Welcome(map.next_value()?),
            "ping" => Self::Pong(map.next_value()?),
            "create" => Self::Created(map.next_value()?),
            "members" => Self::MembersAnswer(map.next_value()?),
            "conversations" => Self::ConversationsAnswer(map.next_value()?),
            "title" => Self::TitleAnswer(map.next_value()?),
            "send" => Self::Ack(map.next_value()?),
            "history" => Self::HistoryAnswer(map.next_value()?),
            "read" => Self::ReadAnswer(map.next_value()?),
            "delivered" => Self::DeliveredAnswer(map.next_value()?),
            "edit" => Self::EditAnswer(map.next_value()?),
            "delete" => Self::DeleteAnswer(map.next_value()?),
            "react" => Self::ReactAnswer(map.next_value()?),
            "pin" => Self::PinAnswer(map.next_value()?),
            "retain" => Self::RetainAnswer(map.next_value()?),
            "reactions" => Self::ReactionsAnswer(map.next_value()?),
            "pins" => Self::PinsAnswer(map.next_value()?),
            "roles" => Self::RolesAnswer(map.next_value()?),
            "settings" => Self::SettingsAnswer(map.next_value()?),
            "bans" => Self::BansAnswer(map.next_value()?),
            "event" => Self::EventAnswer(map.next_value()?),
            "refresh" => Self::RefreshAnswer(map.next_value()?),
            "invites" => Self::InvitesAnswer(map.next_value()?),
            "join" => Self::JoinAnswer(map.next_value()?),
            "account" => Self::AccountAnswer(map.next_value()?),
            "presence" => Self::PresenceAnswer(map.next_value()?),
            "view" => Self::ViewAnswer(map.next_value()?),
            "devices" => Self::DevicesAnswer(map.next_value()?),
            "error" => Self::Error(map.next_value()?),
            "message" => Self::Message(map.next_value()?),
            "receipt" => Self::Receipt(map.next_value()?),
            "left" => Self::Left(map.next_value()?),
            "too_far" => Self::TooFar(map.next_value()?),
            "caught_up" => Self::CaughtUp(map.next_value()?),
            "goodbye" => Self::Goodbye(map.next_value()?),
            "states" => Self::States(map.next_value()?),
            "happened" => Self::Event(map.next_value()?),
            "expiring" => Self::Expiring(map.next_value()?),
            "present" => Self::Present(map.next_value()?),
            "advanced" => Self::Advanced(map.next_value()?),
            "mentioned" => Self::Mentioned(map.next_value()?),
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// Reads a frame of one direction.
pub(super) fn read<F: Family>(bytes: &[u8]) -> Result<(Option<RequestId>, F), DecodeError> {
    let mut envelope = Envelope { id: None, frame: None, unknown: None };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let outcome = Reading(&mut envelope).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = outcome {
        let id = envelope.id.or_else(|| serde_json::from_slice::<OnlyId>(bytes).ok().and_then(|only| only.id));
        return Err(Problem::new(code_of(&error), error.to_string()).of(id));
    }
    match (envelope.frame, envelope.unknown) {
        (Some(frame), _) => Ok((envelope.id, frame)),
        (None, Some(key)) => {
            Err(Problem::new(ErrorCode::UnknownFrame, format!("{key} is unknown here")).of(envelope.id))
        }
        (None, None) => Err(Problem::new(ErrorCode::Malformed, "no key names the frame's kind").of(envelope.id)),
    }
}

struct Envelope<F> {
    id: Option<RequestId>,
    frame: Option<F>,
    /// The first key that is no frame's name.
    unknown: Option<String>,
}

/// Fills an envelope; what is in it survives an error.
struct Reading<'a, F>(&'a mut Envelope<F>);

impl<'de, F: Family> DeserializeSeed<'de> for Reading<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Family> Visitor<'de> for Reading<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a key that names the frame's kind")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let envelope = self.0;
        while let Some(Key(key)) = map.next_key()? {
            if key == "id" {
                if envelope.id.is_some() {
                    return Err(A::Error::custom("duplicate field `id`"));
                }
                envelope.id = Some(map.next_value::<Id>()?.0);
            } else if let Some(frame) = F::value(&key, &mut map)? {
                if envelope.frame.replace(frame).is_some() {
                    return Err(A::Error::custom(format_args!("`{key}` is a second frame in one message")));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                if envelope.unknown.is_none() {
                    envelope.unknown = Some(key[..key.floor_char_boundary(KEY_BYTES_MAX)].to_owned());
                }
            }
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor<'de>(PhantomData<&'de ()>);

        impl<'de> Visitor<'de> for KeyVisitor<'de> {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(key.into()))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(key.to_owned().into()))
            }
        }

        deserializer.deserialize_str(KeyVisitor(PhantomData))
    }
}

struct Id(RequestId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "an id: an integer from 1 to {}", u32::MAX)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Id, E> {
                match u32::try_from(number) {
                    Ok(id @ 1..) => Ok(Id(RequestId(id))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(number), &self)),
                }
            }
        }

        deserializer.deserialize_u64(IdVisitor)
    }
}

/// The id of a frame whose rest can't be used.
#[derive(Deserialize)]
struct OnlyId {
    #[serde(default, deserialize_with = "some_id")]
    id: Option<RequestId>,
}

fn some_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RequestId>, D::Error> {
    Id::deserialize(deserializer).map(|id| Some(id.0))
}

/// serde_json's errors carry no type of ours, but they begin with its text, and serde's own texts begin otherwise.
fn code_of(error: &serde_json::Error) -> ErrorCode {
    if !error.is_data() {
        return ErrorCode::Malformed;
    }
    let text = error.to_string();
    let ids = [IdError::Length, IdError::Character, IdError::Uuid, IdError::Position].map(|error| error.to_string());
    let entries = [EntryError::Empty, EntryError::TooLong].map(|error| error.to_string());
    if ids.iter().chain(&entries).any(|begin| text.starts_with(begin)) {
        ErrorCode::Invalid
    } else {
        ErrorCode::Malformed
    }
}
