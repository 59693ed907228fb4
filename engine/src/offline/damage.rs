//! Damaged parts of segments, and whose rows they may have held: what the merged view lacks is put down to them.

use std::{collections::BTreeMap, ops::Bound};

use antiphon_wire::ids::{ConversationId, Sequence};

use crate::{
    engine::EngineError,
    error::{DamagedKeys, StoreError},
    keys::{self, Key, Owner},
    manifest::Manifest,
    offline::{conversation::Missing, report::Finding},
    partitions::Adopted,
    row::KeyRange,
    runs::{Run, Runs},
    seams::Files,
    segment::SegmentId,
};

/// Most conversations that are named for one damaged part; one block holds rows of fewer, a whole segment may hold
/// more.
const CONCERNED_MAX: usize = 1_000;

/// Most damaged parts that are told apart; a disk with more of them needs no list.
const AREAS_MAX: usize = 10_000;

/// A damaged part of a segment, or a segment that cannot be read at all.
struct Area {
    file: String,
    offset: u64,
    what: String,
    keys: DamagedKeys,
    /// Set if the segment was adopted: conversations of other lanes are no concern of this one.
    adopted: Option<Adopted>,
    /// Conversations that may have lost rows, with the entries that are missing.
    concerned: BTreeMap<ConversationId, Vec<Missing>>,
    /// Conversations beyond those that are named.
    more: u64,
}

/// What reading every segment by itself came to.
#[derive(Default)]
pub(super) struct SegmentsRead {
    pub(super) segments: u64,
    pub(super) blocks: u64,
    pub(super) rows: u64,
    pub(super) areas: Areas,
    /// Segments that the system could not read to their end.
    pub(super) unreadable: Vec<SegmentId>,
}

impl SegmentsRead {
    /// `runs` are those of the manifest, or what is left of them.
    pub(super) async fn of<F: Files>(runs: &Runs<F>, manifest: &Manifest) -> Result<Self, EngineError> {
        let mut read = Self { areas: Areas::of_segments(manifest), ..Self::default() };
        for run in runs.newest_first() {
            read.segments += 1;
            let reader = match run {
                Run::Segment(reader) => reader,
                Run::Damaged { error, .. } => {
                    read.areas.add(error);
                    continue;
                }
            };
            match reader.verify().await {
                Ok(verified) => {
                    read.blocks += verified.blocks;
                    read.rows += verified.rows;
                    verified.damaged.iter().for_each(|damage| read.areas.add(damage));
                }
                Err(StoreError::File(error)) => {
                    let statistics = reader.statistics();
                    let keys = DamagedKeys::between(&statistics.first_key, &statistics.last_key);
                    read.areas.add_area(&reader.id().file_name(), 0, &error.to_string(), &keys);
                    read.unreadable.push(reader.id());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Areas {
    areas: Vec<Area>,
    /// By file.
    adopted: BTreeMap<String, Adopted>,
    left_out: u64,
}

impl Areas {
    fn of_segments(manifest: &Manifest) -> Self {
        let adopted = manifest.segments.iter().filter_map(|entry| Some((entry.id.file_name(), entry.adopted?)));
        Self { adopted: adopted.collect(), ..Self::default() }
    }

    /// Takes in damage that a reader has met.
    pub(super) fn add(&mut self, error: &StoreError) {
        let StoreError::Damaged { file, offset, what, keys } = error else { return };
        self.add_area(file, *offset, what, keys);
    }

    /// Takes in damage to these keys.
    pub(super) fn add_area(&mut self, file: &str, offset: u64, what: &str, keys: &DamagedKeys) {
        if self.areas.len() == AREAS_MAX {
            self.left_out += 1;
            return;
        }
        let adopted = self.adopted.get(file).copied();
        let (file, what, keys) = (file.to_owned(), what.to_owned(), keys.clone());
        self.areas.push(Area { file, offset, what, keys, adopted, concerned: BTreeMap::new(), more: 0 });
    }

    /// Whether nothing is damaged.
    pub(super) fn is_empty(&self) -> bool {
        self.areas.is_empty() && self.left_out == 0
    }

    /// Whether rows in the range may be lost. Parts that are not told apart may have held anything.
    pub(super) fn touch(&self, range: &KeyRange) -> bool {
        self.touch_in(range, |_| true)
    }

    /// The same, of the files that `may` have held them.
    pub(super) fn touch_in(&self, range: &KeyRange, may: impl Fn(&str) -> bool) -> bool {
        self.left_out > 0 || self.areas.iter().any(|area| area.may_hold(range) && may(&area.file))
    }

    /// Puts a conversation down to what may have taken rows of it, and what is missing of it where it may have been;
    /// gives what is missing for no such reason. `end_known` says that the last entry is known to be the last.
    pub(super) fn concern(
        &mut self,
        id: ConversationId,
        missing: &[Missing],
        last: Sequence,
        end_known: bool,
    ) -> Vec<Missing> {
        let whole = KeyRange::prefix(keys::conversation(id));
        let mut left = missing.to_vec();
        for area in self.areas.iter_mut().filter(|area| area.may_hold(&whole)) {
            let mut taken: Vec<Missing> = missing.iter().filter_map(|of| within(&area.keys, id, *of)).collect();
            for part in &taken {
                left = left.into_iter().flat_map(|of| without(of, *part)).collect();
            }
            if !end_known && within(&area.keys, id, (last.next(), None)).is_some() {
                taken.push((last.next(), None));
            }
            area.name(id, taken);
        }
        left
    }

    /// Puts a conversation of which nothing can be read down to what may have held it; whether there is such a part.
    pub(super) fn concern_unseen(&mut self, id: ConversationId) -> bool {
        let whole = KeyRange::prefix(keys::conversation(id));
        let mut found = false;
        for area in self.areas.iter_mut().filter(|area| area.may_hold(&whole)) {
            found = true;
            if !area.concerned.contains_key(&id) {
                area.name(id, vec![(Sequence(1), None)]);
            }
        }
        found
    }

    /// All of it in words, when everything was read.
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for area in &mut self.areas {
            area.name_bounds();
            area.tell(&mut findings);
        }
        if self.left_out > 0 {
            findings.push(Finding { what: format!("{} more damaged parts", self.left_out), ..Finding::default() });
        }
        findings
    }
}

impl Area {
    /// Whether it may have held rows in a range, which is of one conversation.
    fn may_hold(&self, range: &KeyRange) -> bool {
        overlaps(&self.keys, range) && self.shows(&range.start)
    }

    fn shows(&self, key: &[u8]) -> bool {
        self.adopted.as_ref().is_none_or(|adopted| adopted.shows(key))
    }

    fn name(&mut self, id: ConversationId, missing: Vec<Missing>) {
        if !self.shows(&keys::conversation(id)) {
            return;
        }
        if self.concerned.len() < CONCERNED_MAX || self.concerned.contains_key(&id) {
            self.concerned.entry(id).or_default().extend(missing);
        } else {
            self.more += 1;
        }
    }

    /// The first and the last key of the part tell of two conversations, which may be nowhere else.
    fn name_bounds(&mut self) {
        let mut found = Vec::new();
        if let Bound::Included(key) = &self.keys.start {
            found.push((key.clone(), None));
        }
        if let Bound::Included(key) = &self.keys.end {
            let last = match keys::parse(key) {
                Some(Key::Entry(sequence)) => Some(sequence),
                _ => None,
            };
            found.push((key.clone(), last));
        }
        for (key, last) in found {
            if let Some(Owner::Conversation(id)) = keys::owner(&key)
                && !self.concerned.contains_key(&id)
            {
                self.name(id, vec![(Sequence(1), last)]);
            }
        }
    }

    fn tell(&self, findings: &mut Vec<Finding>) {
        let finding = |what: String| Finding {
            file: Some(self.file.clone()),
            offset: Some(self.offset),
            what,
            ..Finding::default()
        };
        for (id, missing) in &self.concerned {
            if missing.is_empty() {
                let what = format!("{}; no entry is missing, but other rows may be", self.what);
                findings.push(Finding { conversation: Some(*id), ..finding(what) });
            }
            for (first, last) in missing {
                let what = format!("lost: {}", self.what);
                findings.push(Finding { conversation: Some(*id), first: Some(*first), last: *last, ..finding(what) });
            }
        }
        if self.more > 0 {
            findings.push(finding(format!("{}; {} more conversations", self.what, self.more)));
        } else if self.concerned.is_empty() {
            let whose = if overlaps(&self.keys, &keys::message_ids_range()) { "message ids" } else { "users" };
            findings.push(finding(format!("{}; rows of {whose}", self.what)));
        }
    }
}

/// Whether some key may be in both.
fn overlaps(keys: &DamagedKeys, range: &KeyRange) -> bool {
    let begins_before_end = match &keys.start {
        Bound::Unbounded => true,
        Bound::Included(start) | Bound::Excluded(start) => {
            range.end.as_ref().is_none_or(|end| start.as_slice() < end.as_slice())
        }
    };
    let ends_after_start = match &keys.end {
        Bound::Unbounded => true,
        Bound::Included(end) => end.as_slice() >= range.start.as_slice(),
        Bound::Excluded(end) => end.as_slice() > range.start.as_slice(),
    };
    begins_before_end && ends_after_start
}

/// Those of the missing entries that may have been among the keys.
fn within(keys: &DamagedKeys, id: ConversationId, (first, last): Missing) -> Option<Missing> {
    let end = last.map_or(u64::MAX, |last| last.0 + 1);
    let has_begun = |key: &[u8]| match &keys.start {
        Bound::Unbounded => true,
        Bound::Included(start) => key >= start.as_slice(),
        Bound::Excluded(start) => key > start.as_slice(),
    };
    let has_ended = |key: &[u8]| match &keys.end {
        Bound::Unbounded => false,
        Bound::Included(end) => key > end.as_slice(),
        Bound::Excluded(end) => key >= end.as_slice(),
    };
    let from = least(first.0, end, |sequence| has_begun(&keys::entry(id, Sequence(sequence))));
    let to = least(from, end, |sequence| has_ended(&keys::entry(id, Sequence(sequence))));
    (from < to).then(|| (Sequence(from), if to == end { last } else { Some(Sequence(to - 1)) }))
}

/// The least of `low..high` that is, as all behind it are; `high` if none is.
fn least(mut low: u64, mut high: u64, is: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if is(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// What is left of missing entries without a part of them.
pub(super) fn without((first, last): Missing, (from, to): Missing) -> impl Iterator<Item = Missing> {
    let before = Sequence(from.0.saturating_sub(1));
    let before = (first < from).then(|| (first, Some(last.map_or(before, |last| last.min(before)))));
    let behind = to.filter(|to| last.is_none_or(|last| last > *to)).map(|to| (first.max(to.next()), last));
    before.into_iter().chain(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConversationId = ConversationId([7; 16]);

    fn missing(first: u64, last: u64) -> Missing {
        // 0 stands for an end that is not known.
        (Sequence(first), Some(Sequence(last)).filter(|last| last.0 > 0))
    }

    #[test]
    fn entries_that_were_in_the_keys_are_told_from_the_others() {
        let key = |sequence| keys::entry(ID, Sequence(sequence));
        let blocks = [
            DamagedKeys { start: Bound::Excluded(keys::conversation(ID).to_vec()), end: Bound::Included(key(5)) },
            DamagedKeys { start: Bound::Excluded(key(5)), end: Bound::Excluded(key(9)) },
            DamagedKeys { start: Bound::Included(key(20)), end: Bound::Unbounded },
        ];
        let within = |of| blocks.each_ref().map(|keys| within(keys, ID, of));
        assert_eq!(within(missing(3, 7)), [Some(missing(3, 5)), Some(missing(6, 7)), None]);
        assert_eq!(within(missing(1, 0)), [Some(missing(1, 5)), Some(missing(6, 8)), Some(missing(20, 0))]);
        assert_eq!(within(missing(9, 19)), [None; 3]);
        assert_eq!(within(missing(30, 30)), [None, None, Some(missing(30, 30))]);
    }

    #[test]
    fn what_no_damage_explains_is_left() {
        for (of, part, left) in [
            (missing(3, 9), missing(3, 9), vec![]),
            (missing(3, 9), missing(5, 6), vec![missing(3, 4), missing(7, 9)]),
            (missing(3, 9), missing(1, 4), vec![missing(5, 9)]),
            (missing(3, 9), missing(8, 0), vec![missing(3, 7)]),
            (missing(3, 0), missing(5, 6), vec![missing(3, 4), missing(7, 0)]),
            (missing(3, 4), missing(5, 6), vec![missing(3, 4)]),
            (missing(7, 9), missing(5, 6), vec![missing(7, 9)]),
        ] {
            assert_eq!(without(of, part).collect::<Vec<_>>(), left, "{of:?} without {part:?}");
        }
    }
}
