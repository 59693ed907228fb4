//! Invites: codes by which users become members of a group by themselves.
//!
//! Bodies of the entries, little endian:
//!
//! ```text
//! invite   1 · hash (32 bytes) · expires u64 · uses u32     made; 0: it does not end, or any number of users
//!          2 · (invite u64)…                                revoked; ascending
//! joined   invite u64 · length u8 · user
//! ```
//! An invite is known by the sequence of the entry that made it. The hash is SHA-256 over the conversation's id and the secret of its
//! [`InviteCode`], which no entry and no row holds: who reads the log cannot join by it.
//!
//! Must not do: know who may make one; the engine judges.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rkyv::{Archive, Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Each, EachIfAny, EntryError};
use crate::{
    ids::{ConversationId, Epoch, Sequence, TimestampMs, UserId},
    limits::{INVITES_PER_GROUP_MAX, JSON_INTEGER_MAX},
};

/// What somebody is given who is invited: text of 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct InviteCode {
    /// To what.
    pub conversation: ConversationId,
    /// What only those know who were given it.
    pub secret: [u8; 16],
}

impl InviteCode {
    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> InviteHash {
        let mut hasher = Sha256::new();
        hasher.update(self.conversation.0);
        hasher.update(self.secret);
        InviteHash(hasher.finalize().into())
    }
}

/// Not the secret: this ends up in logs.
impl fmt::Debug for InviteCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "InviteCode({}, …)", self.conversation)
    }
}

impl fmt::Display for InviteCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.conversation.0);
        bytes[16..].copy_from_slice(&self.secret);
        formatter.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Text that is no code of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an invite's code is 43 characters of base64url")]
pub struct NoInviteCode;

impl FromStr for InviteCode {
    type Err = NoInviteCode;

    fn from_str(text: &str) -> Result<Self, NoInviteCode> {
        let (mut conversation, mut secret) = ([0; 16], [0; 16]);
        let bytes: [u8; 32] = decode(text).ok_or(NoInviteCode)?;
        conversation.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..]);
        Ok(Self { conversation: ConversationId(conversation), secret })
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl serde::Serialize for InviteCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for InviteCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is stored of an [`InviteCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteHash(pub [u8; 32]);

impl serde::Serialize for InviteHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> serde::Deserialize<'de> for InviteHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        decode(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a hash is 32 bytes in base64url"))
    }
}

/// The body of an [`EntryKind::Invite`](super::EntryKind::Invite) entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteChange {
    /// There is one more.
    Made {
        /// Of its code.
        hash: InviteHash,
        /// Nobody joins by it from then on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_ms: Option<TimestampMs>,
        /// So many may join by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uses: Option<u32>,
    },
    /// Nobody joins by these any more.
    Revoked(Vec<Sequence>),
}

impl InviteChange {
    /// The body's bytes.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        match self {
            Self::Made { hash, expires_ms, uses } => {
                let mut body = vec![1];
                body.extend(hash.0);
                body.extend(expires_ms.map_or(0, |expires| expires.0).to_le_bytes());
                body.extend(uses.unwrap_or(0).to_le_bytes());
                body
            }
            Self::Revoked(invites) => {
                let mut body = vec![2];
                invites.iter().for_each(|invite| body.extend(invite.0.to_le_bytes()));
                body
            }
        }
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// [`EntryError::Group`] if it does not have its form.
    pub fn from_body(body: &[u8]) -> Result<Self, EntryError> {
        match body.split_first() {
            Some((1, rest)) => {
                let (hash, rest) = rest.split_first_chunk::<32>().ok_or(EntryError::Group)?;
                let (expires, rest) = rest.split_first_chunk::<8>().ok_or(EntryError::Group)?;
                let (uses, rest) = rest.split_first_chunk::<4>().ok_or(EntryError::Group)?;
                let (expires, uses) = (u64::from_le_bytes(*expires), u32::from_le_bytes(*uses));
                if !rest.is_empty() || expires > JSON_INTEGER_MAX {
                    return Err(EntryError::Group);
                }
                let expires_ms = (expires > 0).then_some(TimestampMs(expires));
                Ok(Self::Made { hash: InviteHash(*hash), expires_ms, uses: (uses > 0).then_some(uses) })
            }
            Some((2, rest)) => {
                let (invites, rest) = rest.as_chunks::<8>();
                let invites: Vec<_> = invites.iter().map(|bytes| Sequence(u64::from_le_bytes(*bytes))).collect();
                let is_some = (1..=INVITES_PER_GROUP_MAX).contains(&invites.len()) && rest.is_empty();
                let is_place = |invite: &Sequence| (1..=JSON_INTEGER_MAX).contains(&invite.0);
                if !is_some || !invites.is_sorted_by(|one, next| one < next) || !invites.iter().all(is_place) {
                    return Err(EntryError::Group);
                }
                Ok(Self::Revoked(invites))
            }
            _ => Err(EntryError::Group),
        }
    }
}

/// The body of an [`EntryKind::Joined`](super::EntryKind::Joined) entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Joined {
    /// By which invite.
    pub invite: Sequence,
    /// Who.
    pub user: UserId,
}

impl Joined {
    /// The body's bytes.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut body = self.invite.0.to_le_bytes().to_vec();
        super::groups::put_user(&self.user, &mut body);
        body
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// [`EntryError::Group`] if it does not have its form.
    pub fn from_body(body: &[u8]) -> Result<Self, EntryError> {
        let (invite, rest) = body.split_first_chunk::<8>().ok_or(EntryError::Group)?;
        let (user, rest) = super::groups::take_user(rest)?;
        let invite = Sequence(u64::from_le_bytes(*invite));
        let is_place = (1..=JSON_INTEGER_MAX).contains(&invite.0);
        if is_place && rest.is_empty() { Ok(Self { invite, user }) } else { Err(EntryError::Group) }
    }
}

/// `invites`: makes an invite to a group, revokes some, or lists them.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "InvitesFields")]
pub struct Invites {
    /// To what.
    pub conversation: ConversationId,
    /// Exactly one of these stands beside `conversation` in JSON.
    #[serde(flatten)]
    pub action: InvitesAction,
}

/// What `invites` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InvitesAction {
    /// Makes one.
    Make(MakeInvite),
    /// From now on nobody joins by these.
    Revoke(#[rkyv(with = Each)] Vec<Sequence>),
    /// Lists those that there are, in the order in which they were made.
    List(InvitesPage),
}

/// A new invite.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct MakeInvite {
    /// Nobody joins by it after so long; left out, it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u32>,
    /// So many may join by it; left out, any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// Which page of invites.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct InvitesPage {
    /// Only invites after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Sequence>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// [`Invites`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct InvitesFields {
    conversation: ConversationId,
    make: Option<MakeInvite>,
    revoke: Option<Vec<Sequence>>,
    list: Option<InvitesPage>,
}

impl TryFrom<InvitesFields> for Invites {
    type Error = &'static str;

    fn try_from(fields: InvitesFields) -> Result<Self, Self::Error> {
        let action = match (fields.make, fields.revoke, fields.list) {
            (Some(make), None, None) => InvitesAction::Make(make),
            (None, Some(invites), None) => InvitesAction::Revoke(invites),
            (None, None, Some(list)) => InvitesAction::List(list),
            _ => return Err("invites needs exactly one of make, revoke and list"),
        };
        Ok(Self { conversation: fields.conversation, action })
    }
}

/// An invite as those see it who may make one.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Invite {
    /// The sequence of the entry that made it.
    pub invite: Sequence,
    /// Who made it.
    pub user: UserId,
    /// Nobody joins by it from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<TimestampMs>,
    /// So many more may join by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// Answers `invites`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct InvitesAnswer {
    /// To `make` and `revoke`: the sequence of the change, or the last one if nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// To `make`: what to give those who are invited. It is told this once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<InviteCode>,
    /// To `list`: the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = EachIfAny)]
    pub invites: Option<Vec<Invite>>,
    /// To `list`: what to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Sequence>,
}

/// `join`: becomes a member by an invite, or looks at what it is to.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Join {
    /// The invite's.
    pub code: InviteCode,
    /// Only look.
    #[serde(default, deserialize_with = "crate::json::absent_if_null", skip_serializing_if = "std::ops::Not::not")]
    pub look: bool,
}

/// Answers `join`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct JoinAnswer {
    /// To what the invite is.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// Its title.
    pub title: String,
    /// What it is about; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A reference to its picture; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub picture: String,
    /// How many members.
    pub members: u32,
    /// Who asks is a member: since this entry if the request made it one, or else the last entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_text_and_show_no_secret() {
        let code = InviteCode { conversation: ConversationId([7; 16]), secret: [0xfe; 16] };
        let text = code.to_string();
        assert_eq!((text.len(), text.parse()), (43, Ok(code)));
        assert!(!format!("{code:?}").contains("fe") && !format!("{code:?}").contains("254"));
        for wrong in ["", "x", &text[..42], &format!("{text}A"), &text.replace('_', "/")] {
            assert_eq!(wrong.parse::<InviteCode>(), Err(NoInviteCode), "{wrong}");
        }
        let other = InviteCode { conversation: ConversationId([8; 16]), ..code };
        assert!(code.hash() != other.hash() && code.hash() == text.parse::<InviteCode>().unwrap().hash());
    }

    #[test]
    fn bodies_have_one_form() {
        let hash = InviteHash([9; 32]);
        for change in [
            InviteChange::Made { hash, expires_ms: None, uses: None },
            InviteChange::Made { hash, expires_ms: Some(TimestampMs(7)), uses: Some(3) },
            InviteChange::Revoked(vec![Sequence(2), Sequence(9)]),
        ] {
            let body = change.to_body();
            assert_eq!(InviteChange::from_body(&body).as_ref(), Ok(&change));
            let longer = [&body[..], &[0]].concat();
            for wrong in [&body[..body.len() - 1], &longer] {
                assert!(InviteChange::from_body(wrong).is_err(), "{wrong:?}");
            }
        }
        for wrong in [&[][..], &[0], &[3, 3], &[4, 3]] {
            let body = InviteChange::Revoked(wrong.iter().copied().map(Sequence).collect()).to_body();
            assert!(InviteChange::from_body(&body).is_err(), "{body:?}");
        }
        let joined = Joined { invite: Sequence(4), user: UserId::new("zoe").unwrap() };
        let body = joined.to_body();
        assert_eq!(Joined::from_body(&body).as_ref(), Ok(&joined));
        for wrong in [
            &body[..7],
            &body[..body.len() - 1],
            &[&body[..], b"x"].concat(),
            &Joined { invite: Sequence(0), ..joined }.to_body(),
        ] {
            assert!(Joined::from_body(wrong).is_err(), "{wrong:?}");
        }
    }
}
