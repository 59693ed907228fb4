//! Partitions of conversations, and the segments that a lane has adopted from lanes before it.
//!
//! A conversation is in one of [`PARTITIONS`] partitions, for ever; with so many lanes a partition is on one of them, by [`lane_of`].
//! When the number of lanes changes, segments stay as they are, and each new lane adopts those that may have rows of its partitions:
//! under another number, by the identity that stands in the file ([`Adopted`]). Rows of other partitions do not count there, until a merge
//! leaves them out.
//!
//! Invariants: two lanes of a store never show rows of the same partition; what a lane writes itself is of its own partitions only, so
//! only adopted segments have rows that do not count. Must not do: know what else keys mean.

use std::fmt;

use antiphon_wire::ids::ConversationId;

use crate::{keys, segment::SegmentId};

/// Partitions of all conversations, fixed for ever: the unit in which lanes share the work. Many times the most lanes, so that any
/// number of lanes gets nearly equal shares.
pub const PARTITIONS: u32 = 1024;

/// Bytes of a set of partitions on disk.
pub(crate) const SET_BYTES: usize = PARTITIONS as usize / 8;

const WORDS: usize = PARTITIONS as usize / 64;

/// The lane that owns a conversation, of so many. Stable for ever: it decides placement on disk.
///
/// # Panics
/// If there are no lanes.
#[must_use]
pub fn lane_of(conversation: ConversationId, lanes: u16) -> u16 {
    lane_of_partition(conversation.partition(PARTITIONS), lanes)
}

const fn lane_of_partition(partition: u32, lanes: u16) -> u16 {
    (partition % lanes as u32) as u16
}

/// A set of partitions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Partitions([u64; WORDS]);

impl Partitions {
    /// Those of a lane, of so many.
    #[must_use]
    pub fn of_lane(lane: u16, lanes: u16) -> Self {
        let mut set = Self::default();
        for partition in (0..PARTITIONS).filter(|partition| lane_of_partition(*partition, lanes) == lane) {
            set.0[partition as usize / 64] |= 1 << (partition % 64);
        }
        set
    }

    /// Whether a conversation is in one of them.
    #[must_use]
    pub fn contains(&self, conversation: ConversationId) -> bool {
        let partition = conversation.partition(PARTITIONS);
        (self.0[partition as usize / 64] >> (partition % 64)) & 1 == 1
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut set = *self;
        set.0.iter_mut().zip(other.0).for_each(|(word, other)| *word &= other);
        set
    }

    /// Those that are in one of both.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut set = *self;
        set.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        set
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One bit a partition, the least significant of each byte first.
    pub(crate) fn to_bytes(self) -> [u8; SET_BYTES] {
        let mut bytes = [0; SET_BYTES];
        bytes.chunks_exact_mut(8).zip(self.0).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; SET_BYTES]) -> Self {
        let mut set = Self::default();
        for (word, bytes) in set.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        }
        set
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} partitions", self.count())
    }
}

/// What a lane's manifest says of a segment that another lane has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// The store whose lane wrote it, as its header and footer say.
    pub store: u64,
    /// Its number there: as header and footer say, and in the checksum of each block.
    pub id: SegmentId,
    /// Partitions of which it may have rows.
    pub held: Partitions,
    /// Those whose rows count here: some of `held`.
    pub shown: Partitions,
}

impl Adopted {
    /// Whether all its rows count here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.held == self.shown
    }

    /// About how much of so much of it counts here: partitions are nearly equal.
    #[must_use]
    pub fn share_of(&self, amount: u64) -> u64 {
        let share = u128::from(amount) * u128::from(self.shown.count());
        share.checked_div(u128::from(self.held.count())).and_then(|share| u64::try_from(share).ok()).unwrap_or(amount)
    }

    /// Whether a row with this key counts here. One that no conversation has counts wherever it is met.
    pub(crate) fn shows(&self, key: &[u8]) -> bool {
        keys::conversation_of(key).is_none_or(|conversation| self.shown.contains(conversation))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::UserId;

    use super::*;

    fn in_partition(partition: u32) -> ConversationId {
        let mut id = [0; 16];
        id[12..].copy_from_slice(&partition.to_le_bytes());
        ConversationId(id)
    }

    #[test]
    fn each_partition_is_on_exactly_one_lane_and_lanes_have_equal_shares() {
        for lanes in 1..=16_u16 {
            let sets: Vec<Partitions> = (0..lanes).map(|lane| Partitions::of_lane(lane, lanes)).collect();
            for partition in 0..PARTITIONS {
                let id = in_partition(partition);
                let owners: Vec<u16> = (0..lanes).filter(|lane| sets[usize::from(*lane)].contains(id)).collect();
                assert_eq!(owners, [lane_of(id, lanes)]);
            }
            let counts: Vec<u32> = sets.iter().map(Partitions::count).collect();
            assert_eq!(counts.iter().sum::<u32>(), PARTITIONS);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn where_a_conversation_is_stands_for_ever() {
        for (tail, partition, of_two, of_three, of_five) in
            [([0, 0, 0, 0], 0, 0, 0, 0), ([255, 3, 0, 0], 1023, 1, 0, 3), ([1, 2, 3, 4], 513, 1, 0, 3)]
        {
            let mut id = [9; 16];
            id[12..].copy_from_slice(&tail);
            let id = ConversationId(id);
            assert_eq!(id.partition(PARTITIONS), partition);
            assert_eq!([2, 3, 5].map(|lanes| lane_of(id, lanes)), [of_two, of_three, of_five]);
        }
    }

    #[test]
    fn sets_are_bytes_and_back() {
        let set = Partitions::of_lane(3, 7);
        assert_eq!(Partitions::from_bytes(&set.to_bytes()), set);
        assert_eq!(set.to_bytes()[..3], [0b0000_1000, 0b0000_0100, 0b0000_0010]);
        assert_eq!(set.and(&Partitions::of_lane(2, 7)), Partitions::default());
        assert_eq!((0..7).fold(Partitions::default(), |all, lane| all.or(&Partitions::of_lane(lane, 7))).count(), 1024);
    }

    #[test]
    fn rows_count_by_their_conversation_whatever_their_key() {
        let (ours, other) = (in_partition(4), in_partition(5));
        let user = UserId::new("ann").unwrap();
        let adopted =
            Adopted { store: 1, id: SegmentId(2), held: Partitions::of_lane(0, 1), shown: Partitions::of_lane(0, 2) };
        assert!(!adopted.is_whole());
        assert_eq!(adopted.share_of(1000), 500);
        for (id, counts) in [(ours, true), (other, false)] {
            assert_eq!(adopted.shows(&keys::single(id, keys::Family::Tail)), counts);
            assert_eq!(adopted.shows(&keys::user_conversation(&user, id)), counts);
        }
        assert!(adopted.shows(b"\x03whose"));
    }
}
