//! Records of an encrypted store: each sealed by its conversation's key, for its place in the log.
//!
//! ```text
//! length u32 (of the payload) · kind u8 = 4 · payload: conversation[16] · nonce[12] · sealed
//! sealed, opened: kind u8 · payload, as of a record that is not sealed; behind it the tag[16]
//! ```
//!
//! Must not do: I/O.

use antiphon_wire::ids::ConversationId;

use crate::{
    bytes::Reader,
    encryption::{KeyFault, NONCE_BYTES, TAG_BYTES, Vault, of_record},
    lane::record::{RECORD_HEADER_BYTES, Record, Seen},
};

/// The kind of a sealed record.
pub(crate) const SEALED: u8 = 4;

/// What sealing adds to a record: conversation, nonce, its own kind, tag.
pub(crate) const SEALED_MORE_BYTES: usize = 16 + NONCE_BYTES + 1 + TAG_BYTES;

/// Where what is sealed begins.
const CONTENT_AT: usize = RECORD_HEADER_BYTES + 16 + NONCE_BYTES;

/// How the records of a log are read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opener<'a> {
    /// None is sealed.
    Plain,
    /// All are, by these keys; one of a conversation that has no key, and was not erased, is damage.
    Keys(&'a Vault),
    /// As `Keys`, but such a one stays closed.
    KeysThatAreThere(&'a Vault),
    /// All are, and none is opened.
    Closed,
}

impl<'a> Opener<'a> {
    /// With these keys, if the store is encrypted.
    pub(crate) fn of(vault: Option<&'a Vault>) -> Self {
        vault.map_or(Self::Plain, Opener::Keys)
    }
}

/// Writes a record sealed at the beginning of `target`, which has room for it.
///
/// # Panics
/// If the conversation has no key: it gets one before its first record.
pub(crate) fn encode_sealed(
    record: &Record,
    (vault, salt): (&Vault, u64),
    position: u64,
    conversation: ConversationId,
    target: &mut [u8],
) {
    let length = record.length() + SEALED_MORE_BYTES;
    let target = &mut target[..length];
    // The record's own kind and payload come to stand where they are sealed; the rest is written over.
    record.encode(&mut target[CONTENT_AT + 1 - RECORD_HEADER_BYTES..length - TAG_BYTES]);
    target[..4].copy_from_slice(&((length - RECORD_HEADER_BYTES) as u32).to_le_bytes());
    target[4] = SEALED;
    target[5..21].copy_from_slice(&conversation.0);
    let nonce = vault.nonce();
    target[21..CONTENT_AT].copy_from_slice(&nonce);
    let key = vault.key(conversation).expect("a conversation has a key before its first record");
    key.seal(nonce, &of_record(salt, position, conversation), &mut target[CONTENT_AT..]);
}

/// Reads the next record of a log, and what `take` makes of it.
pub(crate) fn decode<T>(
    reader: &mut Reader<'_>,
    opener: Opener<'_>,
    salt: u64,
    position: u64,
    take: impl FnOnce(Seen<'_>) -> Result<T, &'static str>,
) -> Result<T, &'static str> {
    const MALFORMED: &str = "records do not have their form though the checksum holds";
    let Opener::Plain = opener else {
        let read = (|| {
            let length = reader.u32()? as usize;
            (reader.u8()? == SEALED).then_some(())?;
            let mut payload = Reader::new(reader.take(length)?);
            Some((ConversationId(payload.array()?), payload.array::<NONCE_BYTES>()?, payload.rest()))
        })();
        let (conversation, nonce, sealed) = read.ok_or(MALFORMED)?;
        let (Opener::Keys(vault) | Opener::KeysThatAreThere(vault)) = opener else {
            return take(Seen::Other(Record::Closed(conversation)));
        };
        let key = match (vault.key(conversation), opener) {
            (Err(KeyFault::Erased), _) | (Err(_), Opener::KeysThatAreThere(_)) => {
                return take(Seen::Other(Record::Closed(conversation)));
            }
            (other, _) => other.map_err(KeyFault::text)?,
        };
        let mut bytes = sealed.to_vec();
        let opened = key.open(nonce, &of_record(salt, position, conversation), &mut bytes);
        let opened = opened.and_then(|length| bytes.get(..length)).ok_or("a sealed record does not open")?;
        let (kind, payload) = opened.split_first().ok_or(MALFORMED)?;
        let seen = Seen::of_kind(*kind, payload).filter(|seen| seen.conversation() == Some(conversation));
        return take(seen.ok_or(MALFORMED)?);
    };
    take(Seen::decode(reader).ok_or(MALFORMED)?)
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::UserId;

    use super::*;
    use crate::{
        encryption::{NodeKey, Nonces},
        lane::record::Mark,
        rows::PointerRow,
    };

    #[test]
    fn a_record_opens_at_its_place_of_its_log_and_for_its_conversation_only() {
        let (one, other) = (ConversationId([1; 16]), ConversationId([2; 16]));
        let vault = Vault::new(NodeKey::new([9; 32]), 77, Nonces::new([3; 32]));
        [one, other].iter().for_each(|id| vault.make(*id));
        let user = UserId::new("ann").unwrap();
        let record = Record::Mark(Mark { conversation: one, user, pointer: PointerRow::default() });
        let mut bytes = vec![0; record.length() + SEALED_MORE_BYTES];
        encode_sealed(&record, (&vault, 5), 40, one, &mut bytes);
        let decode_at = |bytes: &[u8], salt, position| {
            decode(&mut Reader::new(bytes), Opener::Keys(&vault), salt, position, |seen| Ok(seen.into_record()))
        };
        assert!(decode_at(&bytes, 5, 40).is_ok());
        assert!(decode_at(&bytes, 5, 41).is_err(), "another place");
        assert!(decode_at(&bytes, 6, 40).is_err(), "another log");
        let mut of_other = bytes.clone();
        of_other[5..21].copy_from_slice(&other.0);
        assert!(decode_at(&of_other, 5, 40).is_err(), "another conversation");
    }
}
