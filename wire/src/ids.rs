//! Identifiers and counters of the protocol, each its own type so that none can be taken for another.
//!
//! Invariants: a value of these types has passed the checks stated on it, whether it came from text, JSON or an archive.
//! Must not do: read a clock or a random source; ids that need randomness are given theirs by the caller.

use std::{fmt, str::FromStr, sync::Arc};

use rkyv::{
    Archive, Deserialize, Place, Serialize, SerializeUnsized,
    rancor::{Fallible, Source},
    string::{ArchivedString, StringResolver},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::limits::NAME_BYTES_MAX;

/// Why a piece of text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A user or device id is 1 to [`NAME_BYTES_MAX`] bytes long.
    #[error("must be 1 to {NAME_BYTES_MAX} bytes long")]
    Length,
    /// A user or device id is made of visible ASCII without quotes, backslash, slash, comma or space.
    #[error("has a character outside visible ASCII, or one of \" ' \\ / , < >")]
    Character,
    /// A conversation or client message id is a UUID in its hyphenated form.
    #[error("is not a hyphenated UUID")]
    Uuid,
    /// Base64url text of the wrong form or length.
    #[error("is not a position of this protocol version")]
    Position,
}

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(IdError::Length);
    }
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\/,<>".contains(&byte);
    if text.bytes().all(allowed) { Ok(()) } else { Err(IdError::Character) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to [`NAME_BYTES_MAX`] bytes of visible ASCII without `" ' \ / , < >`. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it as an id.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// Whether `text` could be one.
            pub fn check(text: &str) -> Result<(), IdError> {
                check_name(text)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }

        impl Archive for $name {
            type Archived = ArchivedString;
            type Resolver = StringResolver;
            fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
                ArchivedString::resolve_from_str(&self.0, resolver, out);
            }
        }

        impl<S: Fallible<Error: Source> + ?Sized> Serialize<S> for $name
        where
            str: SerializeUnsized<S>,
        {
            fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
                ArchivedString::serialize_from_str(&self.0, serializer)
            }
        }

        impl<D: Fallible<Error: Source> + ?Sized> Deserialize<$name, D> for ArchivedString {
            fn deserialize(&self, _: &mut D) -> Result<$name, D::Error> {
                $name::new(self.as_str()).map_err(Source::new)
            }
        }
    };
}

name! {
    /// A user, named by the application (the `sub` of its token).
    UserId
}
name! {
    /// One of a user's devices, named by the client or by the token's `device` claim.
    DeviceId
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).hyphenated().fmt(formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.len() != 36 {
                    return Err(IdError::Uuid);
                }
                Uuid::try_parse(text).map(|uuid| Self(uuid.into_bytes())).map_err(|_| IdError::Uuid)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut buffer = Uuid::encode_buffer();
                serializer.serialize_str(Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut buffer))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id! {
    /// A conversation: a UUID of version 8 (RFC 9562 §5.8) derived from what makes the conversation unique, so that creating
    /// it twice names the same one.
    ConversationId
}
uuid_id! {
    /// A client's own name for a message, chosen before it is first sent and kept through every retry: any UUID.
    ClientMessageId
}

impl ClientMessageId {
    /// When the id was made, if it says so: a UUID of version 7 (RFC 9562, section 5.7) begins with the time.
    #[must_use]
    pub fn made(self) -> Option<TimestampMs> {
        let [a, b, c, d, e, f, version, _, variant, ..] = self.0;
        let is_timed = version >> 4 == 7 && variant >> 6 == 0b10;
        is_timed.then(|| TimestampMs(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
    }

    /// An id of version 7: made at this time, otherwise of these bits, of which it takes the last 74.
    #[must_use]
    pub fn timed(made: TimestampMs, bits: u128) -> Self {
        let time = u128::from(made.0) << 80;
        let high = (bits >> 62 & 0xfff) << 64;
        let low = bits & 0x3fff_ffff_ffff_ffff;
        Self((time | 0x7000 << 64 | high | 0b10 << 62 | low).to_be_bytes())
    }
}

impl ConversationId {
    /// The one direct conversation between two users, whoever asks.
    #[must_use]
    pub fn direct(one: &UserId, other: &UserId) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        Self::derive(&[b"direct", low.as_str().as_bytes(), high.as_str().as_bytes()])
    }

    /// The group that `creator` made under `key`; a retry with the same key names the same group.
    #[must_use]
    pub fn group(creator: &UserId, key: ClientMessageId) -> Self {
        Self::derive(&[b"group", creator.as_str().as_bytes(), &key.0])
    }

    /// The log of a user's own, which nobody else is in.
    #[must_use]
    pub fn account(user: &UserId) -> Self {
        Self::derive(&[b"account", user.as_str().as_bytes()])
    }

    /// SHA-256 over the parts, each ended by a byte that no part holds at its end by chance: its length.
    fn derive(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
    }

    /// Where among `count` partitions the conversation lives. Stable for ever: it decides placement on disk.
    #[must_use]
    pub fn partition(self, count: u32) -> u32 {
        // The id is a digest, so its last four bytes (free of version and variant bits) are evenly spread.
        let tail = [self.0[12], self.0[13], self.0[14], self.0[15]];
        u32::from_le_bytes(tail) % count
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Archive, Serialize, Deserialize,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

counter! {
    /// An entry's place in its conversation: 1, 2, 3 … without a gap. 0 stands for "before the first".
    Sequence(u64)
}
counter! {
    /// How many messages (not membership or title changes) a conversation holds up to and including an entry.
    Ordinal(u64)
}
counter! {
    /// The incarnation of a conversation's log. It changes only if the log is created anew.
    Epoch(u32)
}
counter! {
    /// Milliseconds since the Unix epoch, by the server's clock.
    TimestampMs(u64)
}
counter! {
    /// A client's number for a request; the answer repeats it. Any value but 0.
    RequestId(u32)
}
counter! {
    /// How many records a log lane has committed: a point in its history. 0 is before the first.
    LanePosition(u64)
}

impl Sequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_version_7_tells_when_it_was_made() {
        // The example of RFC 9562, appendix A.6.
        let text = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let id: ClientMessageId = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(id.made(), Some(TimestampMs(1_645_557_742_000)));
        let bits = u128::from_be_bytes(id.0);
        let random = (bits >> 64 & 0xfff) << 62 | bits & 0x3fff_ffff_ffff_ffff;
        assert_eq!(ClientMessageId::timed(TimestampMs(1_645_557_742_000), random), id);
        for other in ["919108f7-52d1-4320-9bac-f847db4148a8", "017f22e2-79b0-7cc3-d8c4-dc0c0c07398f"] {
            let id: ClientMessageId = serde_json::from_str(&format!("\"{other}\"")).unwrap();
            assert_eq!(id.made(), None, "{other}");
        }
    }
}
