//! What a lane reads next for its checksums alone, and when: round after round through all segments, at a bounded rate.
//!
//! A round goes by the segments' numbers, from the least to the greatest that there is at its beginning: one that a merge removes meanwhile is
//! passed over, and what comes meanwhile is the next round's, so that a round has an end however much is stored. A round has begun when
//! the last one has ended, but not sooner than some time after its beginning, so that a small store is not read all the time.
//!
//! Must not do: read anything, or know a clock.

use std::{collections::VecDeque, ops::Bound};

use crate::{
    keys::{self, Key, Owner},
    offline::Finding,
    segment::{ScrubDamage, ScrubPlace, SegmentId},
};

/// Time that an allowance grows for at most: whoever was not asked for longer does not catch up.
const ALLOWANCE_MS_MAX: u64 = 1_000;

/// Findings that wait to be taken; beyond these they are counted only.
const FINDINGS_MAX: usize = 100;

/// A lane's reading.
#[derive(Debug)]
pub(crate) struct Scrub {
    bytes_per_second: u64,
    round_ms_min: u64,
    /// Thousandths of bytes that may be read now; below 0 after a piece that was larger.
    allowance: i64,
    asked_ms: Option<u64>,
    round: Option<Round>,
    /// When the last round began.
    begun_ms: Option<u64>,
    findings: VecDeque<Finding>,
    figures: ScrubFigures,
}

/// What the reading has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScrubFigures {
    pub(crate) rounds: u64,
    pub(crate) bytes: u64,
    /// Damaged places, each as often as a round has found it.
    pub(crate) damaged: u64,
    /// The same of the last whole round.
    pub(crate) damaged_last_round: u64,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    /// What is read next: this segment, or the next greater one from its beginning.
    at: (SegmentId, ScrubPlace),
    last: SegmentId,
    damaged: u64,
}

impl Scrub {
    /// `bytes_per_second` 0 reads nothing.
    pub(crate) fn new(bytes_per_second: u64, round_ms_min: u64) -> Self {
        Self {
            bytes_per_second,
            round_ms_min,
            allowance: 0,
            asked_ms: None,
            round: None,
            begun_ms: None,
            findings: VecDeque::new(),
            figures: ScrubFigures::default(),
        }
    }

    /// Whether anything is ever read.
    pub(crate) const fn is_on(&self) -> bool {
        self.bytes_per_second > 0
    }

    /// Whether a round has begun and not ended.
    pub(crate) const fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// The piece to read now, of the segments that there are; `None` if nothing is due.
    pub(crate) fn next(&mut self, now_ms: u64, segments: &[SegmentId]) -> Option<(SegmentId, ScrubPlace)> {
        // The clock may have been set: a distance counts up to a second, whichever way it is.
        let passed_ms = self.asked_ms.map_or(0, |asked| now_ms.abs_diff(asked)).min(ALLOWANCE_MS_MAX);
        self.asked_ms = Some(now_ms);
        let rate = i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX / ALLOWANCE_MS_MAX as i64 / 2);
        let grown = rate.saturating_mul(passed_ms as i64);
        self.allowance = self.allowance.saturating_add(grown).min(rate.saturating_mul(ALLOWANCE_MS_MAX as i64));
        if self.round.is_none() && self.may_begin(now_ms) {
            self.begin(now_ms, segments);
        }
        if self.allowance <= 0 {
            return None;
        }
        let round = self.round.as_mut()?;
        let next = segments.iter().copied().filter(|id| (round.at.0..=round.last).contains(id)).min();
        let Some(next) = next else {
            self.end_round();
            return None;
        };
        if next != round.at.0 {
            round.at = (next, ScrubPlace::FIRST);
        }
        Some(round.at)
    }

    fn may_begin(&self, now_ms: u64) -> bool {
        self.begun_ms.is_none_or(|begun| now_ms.abs_diff(begun) >= self.round_ms_min)
    }

    fn begin(&mut self, now_ms: u64, segments: &[SegmentId]) {
        let Some(last) = segments.iter().copied().max() else { return };
        self.begun_ms = Some(now_ms);
        self.round = Some(Round { at: (SegmentId(0), ScrubPlace::FIRST), last, damaged: 0 });
    }

    fn end_round(&mut self) {
        if let Some(round) = self.round.take() {
            self.figures.rounds += 1;
            self.figures.damaged_last_round = round.damaged;
        }
    }

    /// A piece of a segment was read. `next` is what follows in it; `is_there` says whether the segment still is, for what nobody reads any
    /// more is no damage.
    pub(crate) fn was_read(
        &mut self,
        segment: SegmentId,
        bytes: u64,
        next: Option<ScrubPlace>,
        damaged: &[ScrubDamage],
        is_there: bool,
    ) {
        self.allowance = self.allowance.saturating_sub(i64::try_from(bytes.saturating_mul(1_000)).unwrap_or(i64::MAX));
        self.figures.bytes += bytes;
        let Some(round) = &mut self.round else { return };
        round.at = match next.filter(|_| is_there) {
            Some(place) => (segment, place),
            None => (SegmentId(segment.0.saturating_add(1)), ScrubPlace::FIRST),
        };
        for damage in damaged.iter().filter(|_| is_there) {
            round.damaged += 1;
            self.figures.damaged += 1;
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push_back(finding(segment, damage));
            }
        }
    }

    /// What was found since this was last asked.
    pub(crate) fn take_findings(&mut self) -> Vec<Finding> {
        self.findings.drain(..).collect()
    }

    pub(crate) const fn figures(&self) -> ScrubFigures {
        self.figures
    }
}

/// Damage in the words of `verify`; which of the entries are gone from the merged view only that tells.
fn finding(segment: SegmentId, damage: &ScrubDamage) -> Finding {
    let (Bound::Included(start) | Bound::Excluded(start)) = &damage.keys.start else {
        return Finding { file: Some(segment.file_name()), what: damage.what.clone(), ..Finding::default() };
    };
    let end = match &damage.keys.end {
        Bound::Included(end) | Bound::Excluded(end) => end.as_slice(),
        Bound::Unbounded => &[],
    };
    let owner = |key: &[u8]| match keys::owner(key) {
        Some(Owner::Conversation(id)) => Some(id),
        _ => None,
    };
    let conversation = owner(start).filter(|id| owner(end) == Some(*id));
    let entry = |key: &[u8]| match keys::parse(key) {
        Some(Key::Entry(sequence)) => Some(sequence),
        _ => None,
    };
    let (mut first, mut last) = (None, None);
    if conversation.is_some()
        && let (Some(from), Some(to)) = (entry(start), entry(end))
    {
        let is_before = matches!(damage.keys.start, Bound::Excluded(_));
        (first, last) = (Some(if is_before { from.next() } else { from }), Some(to));
    }
    let (file, offset) = (Some(segment.file_name()), Some(damage.offset));
    Finding { file, offset, conversation, first, last, what: damage.what.clone(), ..Finding::default() }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{ConversationId, Sequence};

    use super::*;
    use crate::error::DamagedKeys;

    const MIB: u64 = 1 << 20;

    fn ids(of: &[u64]) -> Vec<SegmentId> {
        of.iter().map(|id| SegmentId(*id)).collect()
    }

    fn damage() -> ScrubDamage {
        ScrubDamage { offset: 4096, what: "checksum does not match".into(), keys: DamagedKeys::between(b"a", b"b") }
    }

    #[test]
    fn it_reads_no_faster_than_it_may_and_does_not_catch_up() {
        let mut scrub = Scrub::new(MIB, 0);
        let segments = ids(&[1]);
        assert_eq!(scrub.next(0, &segments), None, "nothing is allowed before time has passed");
        let mut read = 0;
        for now_ms in 1..=10_000 {
            while let Some((segment, _)) = scrub.next(now_ms, &segments) {
                scrub.was_read(segment, MIB / 4, Some(ScrubPlace::Data(1)), &[], true);
                read += MIB / 4;
            }
        }
        assert!((10 * MIB - MIB / 4..=10 * MIB + MIB / 4).contains(&read), "{read}");
        // An hour later, or earlier: a second's worth.
        for now_ms in [3_600_000, 5] {
            let mut pieces = 0;
            while let Some((segment, _)) = scrub.next(now_ms, &segments) {
                scrub.was_read(segment, MIB / 4, Some(ScrubPlace::Data(1)), &[], true);
                pieces += 1;
            }
            assert!((3..=5).contains(&pieces), "{pieces}");
        }
        let mut off = Scrub::new(0, 0);
        assert!(!off.is_on() && off.next(0, &segments).is_none() && off.next(9_000, &segments).is_none());
    }

    /// What is read from one call to the next with time enough between them.
    fn all(scrub: &mut Scrub, now_ms: &mut u64, segments: &[SegmentId]) -> Vec<u64> {
        let mut read = Vec::new();
        let rounds = scrub.figures().rounds;
        while scrub.figures().rounds == rounds && read.len() < 100 {
            *now_ms += 1_000;
            if let Some((segment, place)) = scrub.next(*now_ms, segments) {
                assert_eq!(place, ScrubPlace::FIRST);
                read.push(segment.0);
                scrub.was_read(segment, 1, None, &[], true);
            }
        }
        read
    }

    #[test]
    fn a_round_reads_what_there_is_at_its_beginning_and_ends() {
        let (mut scrub, mut now_ms) = (Scrub::new(MIB, 0), 0);
        assert_eq!(scrub.next(0, &[]), None);
        assert_eq!(all(&mut scrub, &mut now_ms, &ids(&[9, 3, 5])), [3, 5, 9]);
        // One is merged away while its first piece is read, another one before its turn; what comes is of the next round.
        now_ms += 1_000;
        let (segment, place) = scrub.next(now_ms, &ids(&[3, 5, 9])).expect("the next round");
        assert_eq!((segment, place), (SegmentId(3), ScrubPlace::FIRST));
        scrub.was_read(segment, 1, Some(ScrubPlace::Data(7)), &[damage()], false);
        assert_eq!(all(&mut scrub, &mut now_ms, &ids(&[9, 10])), [9]);
        assert!(scrub.take_findings().is_empty(), "what was removed is no finding");
        assert_eq!(scrub.figures().damaged_last_round, 0);
        assert_eq!(all(&mut scrub, &mut now_ms, &ids(&[9, 10])), [9, 10]);
    }

    #[test]
    fn small_stores_wait_for_the_next_round() {
        let (mut scrub, segments) = (Scrub::new(MIB, 60_000), ids(&[1]));
        let mut times = Vec::new();
        for now_ms in (0..200_000).step_by(1_000) {
            if let Some((segment, _)) = scrub.next(now_ms, &segments) {
                scrub.was_read(segment, 1, None, &[damage()], true);
                times.push(now_ms);
            }
        }
        assert_eq!(times.len(), 4, "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 59_000), "{times:?}");
        assert_eq!(scrub.figures(), ScrubFigures { rounds: 4, bytes: 4, damaged: 4, damaged_last_round: 1 });
        assert_eq!(scrub.take_findings().len(), 4);
    }

    #[test]
    fn findings_are_bounded_and_name_what_the_keys_tell() {
        let mut scrub = Scrub::new(MIB, 0);
        let segments = ids(&[1]);
        let mut now_ms = 0;
        while scrub.figures().damaged < 200 {
            now_ms += 1_000;
            if let Some((segment, _)) = scrub.next(now_ms, &segments) {
                scrub.was_read(segment, 1, None, &[damage(), damage()], true);
            }
        }
        assert_eq!(scrub.take_findings().len(), FINDINGS_MAX);
        let id = ConversationId([7; 16]);
        let key = |sequence| keys::entry(id, Sequence(sequence)).to_vec();
        let keys = DamagedKeys { start: Bound::Excluded(key(4)), end: Bound::Included(key(9)) };
        let told = finding(SegmentId(2), &ScrubDamage { keys, ..damage() });
        assert_eq!(
            told.to_string(),
            format!("segment-0000000000000002: byte 4096: conversation {id}: entries 5 to 9: checksum does not match")
        );
    }
}
