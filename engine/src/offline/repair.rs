//! Repair: a new store of what verifies in a damaged one, which stays as it is; and exactly what is lost.
//!
//! Two readings of the merged view past damage. The first judges each conversation:
//!
//! | of the conversation | then |
//! |---|---|
//! | every entry is there | it is kept; all other rows are made of its entries |
//! | entries are lost, but no row of its members or of what it allows can be | it is kept; what is lost is told in the store (a row of lost entries), for ever |
//! | who its members are or what it allows whom may be lost, or nothing is left of it | it is left out: nobody may see what they may not see |
//!
//! Before, a segment that cannot be opened is read block by block into another beside the new store, for as long as the readings last.
//! The second makes the new store. Lost entries have no rows, which every reader takes for damage of just these; their sequences are not
//! given out again where the end is known. The new store has an identity of its own, as a restored one and for the same reason.
//!
//! Must not do: invent a row that nothing says.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_wire::ids::{ConversationId, LanePosition, Sequence, UserId};
use serde::Serialize;

use crate::{
    cache::Cache,
    checkpoint::OF_LOG,
    encryption::KeyFault,
    engine::{EngineError, open::Blob},
    error::{DamagedKeys, StoreError},
    keys::{self, Family, Key, Owner},
    lane::record::{COUNT_MAX, Mark, Record},
    layout,
    manifest::{Manifest, SegmentEntry},
    offline::{
        access::Access,
        conversation::{LOST_MAX, Missing},
        damage::{Areas, SegmentsRead, without},
        maker::{Maker, Told, changed_row},
        opened::{Logged, Opened},
        read_only::{Progress, ReadOnly},
        replay::Replay,
        report::{FINDINGS_MAX, Finding},
        restore::within,
        verify::log_findings,
        walk::Walk,
    },
    row::KeyRange,
    rows::{MemberRow, PointerRow, StartRow, TailRow, decode_entry, decode_sequence},
    runs::{Run, Runs},
    seams::{FileError, Files, Random},
    segment::{Salvaged, SegmentContext, SegmentId, SegmentReader, salvage},
};

/// What was kept, and what is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Repaired {
    /// Which lane.
    pub lane: u16,
    /// The new store's identity, sixteen hexadecimal digits.
    pub store: String,
    /// Where it ends.
    pub position: LanePosition,
    /// Conversations that were kept.
    pub conversations: u64,
    /// Their entries.
    pub entries: u64,
    /// Entries that are lost of them, now or before, as far as their number is known.
    pub entries_lost: u64,
    /// Conversations that were left out.
    pub left_out: u64,
    /// What an earlier repair has found lost, and told in the store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Finding>,
    /// What is damaged, what is lost by it, and what was left out.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub findings_left_out: u64,
}

impl Repaired {
    /// Whether anything is lost.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings_left_out == 0 && self.findings.iter().all(|finding| finding.harmless)
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

/// Makes a new store in `to`, an empty folder, of what verifies in `from`. `progress` is called after every read. Until this ends well the
/// folder is no store.
///
/// # Errors
/// If nothing can be told of what is there: the manifest is damaged, or the log cannot be read or is missing, so that any conversation may
/// have lost a change of its members; and as [`verify`](super::verify()).
pub async fn repair<F: Files>(
    from: F,
    to: F,
    access: impl Into<Access>,
    random: &impl Random,
    progress: impl Fn(Progress) + 'static,
) -> Result<Repaired, EngineError> {
    let (files, access) = (ReadOnly::new(from, progress), access.into());
    let lane = access.lane;
    let mut opened = Opened::open(files.clone(), &access).await?;
    if opened.is_closed() {
        opened.require_key()?;
    }
    // Each segment by itself, and the merged view twice.
    files.expect(opened.segment_bytes().saturating_mul(3));
    let logged = opened.read_log().await?;
    if let Some(error) = &logged.unreadable {
        return Err(error.clone().into());
    }
    if let Some((first, last)) = logged.missing {
        return Err(EngineError::LogMissing { first, last });
    }
    let mut salvage = Salvage { to: &to, files: Vec::new(), findings: Vec::new(), lost: Vec::new() };
    salvage.damaged_segments(&mut opened, &files).await?;
    let Salvage { files: salvaged, findings, lost, .. } = salvage;
    let SegmentsRead { mut areas, unreadable, .. } = SegmentsRead::of(&opened.runs, &opened.manifest).await?;
    lost.iter().for_each(|(file, offset, what, keys)| areas.add_area(file, *offset, what, keys));
    let store = random.next();
    let (salt, horizon) = (random.next(), opened.blob.horizon.of_new_rows());
    let (time, has_changes, others_until) = (logged.time, false, opened.blob.others_until);
    let blob = Blob { salt, time, generation: 0, file_bytes: 0, horizon, has_changes, keys: None, others_until };
    let mut report =
        Repaired { lane, store: format!("{store:016x}"), position: logged.position, ..Repaired::default() };
    findings.into_iter().chain(log_findings(&logged)).for_each(|finding| report.find(finding));
    let ages = ages(&opened.manifest);
    let has_changes = opened.blob.has_changes || logged.memtable.has_changes();
    let (verdicts, doubted) = (BTreeMap::new(), BTreeSet::new());
    let mut judge = Judge { logged: &logged, areas, verdicts, doubted, has_changes, ages, report };
    judge.look(&opened, &unreadable).await?;
    let Judge { mut areas, verdicts, doubted, mut report, .. } = judge;
    areas.findings().into_iter().for_each(|finding| report.find(finding));
    for id in &logged.keyless {
        let what = format!("left out: {}", KeyFault::Missing.text());
        report.find(Finding { conversation: Some(*id), what, ..Finding::default() });
    }
    let maker = Maker::create(to.clone(), store, lane, blob, access.key.as_ref()).await?;
    let mut keeper = Keeper { maker, areas, verdicts, doubted, report };
    keeper.keep(&opened, &logged, &unreadable).await?;
    let Keeper { maker, report, .. } = keeper;
    // They were read from; the new store does not know of them.
    drop(opened);
    for name in salvaged {
        to.remove(&name).await?;
    }
    maker.finish(logged.position, logged.time).await?;
    Ok(report)
}

/// Segments that cannot be opened, read block by block into others beside the new store.
struct Salvage<'a, F> {
    to: &'a F,
    /// What was made of them.
    files: Vec<String>,
    /// Of those that were read to the last row.
    findings: Vec<Finding>,
    /// Of the others: file, where, what is wrong, and the keys that the rest may have had.
    lost: Vec<(String, u64, String, DamagedKeys)>,
}

impl<F: Files> Salvage<'_, F> {
    async fn damaged_segments(
        &mut self,
        opened: &mut Opened<ReadOnly<F>>,
        files: &ReadOnly<F>,
    ) -> Result<(), EngineError> {
        let settings = layout::segment_settings();
        let (store, cache) = (opened.manifest.store, Cache::new(0));
        let context = SegmentContext::new(self.to.clone(), cache.clone(), store, settings);
        let read_context = SegmentContext::new(files.of(self.to.clone()), cache, store, settings);
        let mut runs = Vec::new();
        for run in opened.runs.newest_first() {
            let Run::Damaged { entry, error } = run else {
                runs.push(run.clone());
                continue;
            };
            let id = SegmentId(OF_LOG | entry.id.0);
            let salvaged = match salvage(files, store, entry, &context, id).await {
                Ok(salvaged) => salvaged,
                Err(error) => {
                    // It may be there in part.
                    self.to.remove(&id.file_name()).await.ok();
                    if let StoreError::File(FileError::Full { .. }) = error {
                        return Err(error.into());
                    }
                    // What the system cannot read is damage like any other.
                    None
                }
            };
            let Some(Salvaged { is_written, lost }) = salvaged else {
                runs.push(run.clone());
                continue;
            };
            self.told(entry, error, lost);
            if is_written {
                self.files.push(id.file_name());
                runs.push(Run::Segment(SegmentReader::open(&read_context, id).await?));
            }
        }
        opened.runs = Runs::new(runs).with_vault(opened.vault.clone());
        Ok(())
    }

    fn told(&mut self, entry: &SegmentEntry, error: &StoreError, lost: Vec<(u64, DamagedKeys)>) {
        let StoreError::Damaged { offset, what, .. } = error else { return };
        let file = entry.id.file_name();
        if lost.is_empty() {
            let (file, offset, what) = (Some(file), Some(*offset), format!("{what}; every row could be read"));
            self.findings.push(Finding { file, offset, what, harmless: true, ..Finding::default() });
        } else {
            let part = |(at, keys)| (file.clone(), at, format!("{what}, and a block, too"), keys);
            self.lost.extend(lost.into_iter().map(part));
        }
    }
}

/// What becomes of a conversation of which not everything is there.
enum Verdict {
    /// Kept, with these entries lost; the last entry, lost or not.
    Told {
        lost: Vec<(Sequence, Sequence)>,
        tail: TailRow,
    },
    LeftOut,
}

/// A conversation as its rows pass by.
struct Seen {
    id: ConversationId,
    replay: Replay,
    start: Option<StartRow>,
    title: Option<String>,
    tail: Option<TailRow>,
    /// Where that row is, as an age: see [`ages`].
    tail_age: usize,
    members: BTreeMap<UserId, MemberRow>,
    pointers: Vec<(UserId, PointerRow)>,
    /// Rows of what became of messages, by the suffixes of their keys.
    changes: Vec<(Vec<u8>, Vec<u8>)>,
    /// As an earlier repair has told.
    lost: Vec<(Sequence, Sequence)>,
    missing: Vec<Missing>,
    entries: u64,
    /// A row of a member does not have its form.
    has_odd_member: bool,
    /// Entries do not fit each other.
    is_contradictory: bool,
    /// Something of it is sealed and does not open.
    is_closed: bool,
}

/// An entry that is kept.
struct Kept {
    position: LanePosition,
    /// How many are missing before it.
    missing: u64,
    record: Record,
}

impl Seen {
    fn new(id: ConversationId) -> Self {
        Self {
            id,
            replay: Replay::default(),
            start: None,
            title: None,
            tail: None,
            tail_age: 0,
            members: BTreeMap::new(),
            pointers: Vec::new(),
            changes: Vec::new(),
            lost: Vec::new(),
            missing: Vec::new(),
            entries: 0,
            has_odd_member: false,
            is_contradictory: false,
            is_closed: false,
        }
    }

    /// Takes the next row. An entry that is one is what is kept.
    fn row(&mut self, key: Key, value: &[u8]) -> Option<Kept> {
        match key {
            Key::Lost(first) => {
                let last = decode_sequence(value).filter(|last| *last >= first && last.0 < COUNT_MAX)?;
                self.lost.push((first, last));
            }
            Key::Start => self.start = StartRow::decode(value),
            Key::Title => self.title = std::str::from_utf8(value).ok().map(str::to_owned),
            Key::Tail => self.tail = TailRow::decode(value).filter(|tail| tail.sequence.0 < COUNT_MAX),
            Key::Member(user) => match MemberRow::decode(value) {
                Some(row) => drop(self.members.insert(user, row)),
                None => self.has_odd_member = true,
            },
            Key::Pointer(user) => self.pointers.extend(PointerRow::decode(value).map(|row| (user, row))),
            Key::Entry(sequence) => return self.entry(sequence, value),
            key @ (Key::State(_)
            | Key::Reactor(..)
            | Key::Pins
            | Key::Retention
            | Key::Settings
            | Key::Role(_)
            | Key::Ban(_)
            | Key::Invite(_)
            | Key::Account(_)) => {
                self.changes.extend(changed_row(&key, value).map(|suffix| (suffix, value.to_vec())));
            }
            Key::OldMessageId(_) | Key::User(_) | Key::MessageId(..) => {}
        }
        None
    }

    fn entry(&mut self, sequence: Sequence, value: &[u8]) -> Option<Kept> {
        // One that is empty stands for an entry that the log has lost.
        let (position, archive) = decode_entry(value).filter(|(_, archive)| !archive.is_empty())?;
        let taken = self.replay.take(self.id, sequence, position, archive).ok()?;
        self.is_contradictory |= !taken.wrong.is_empty();
        self.entries += 1;
        let missing = taken.missing.map(|(first, last)| (first, Some(last)));
        self.missing.extend(missing);
        let missing = taken.missing.map_or(0, |(first, last)| last.0 - first.0 + 1);
        Some(Kept { position, missing, record: taken.record(archive) })
    }

    /// The last entry that is there.
    fn last(&self) -> TailRow {
        self.replay.last.unwrap_or_default()
    }

    /// The last entry that there was, as far as is known.
    fn end(&self) -> TailRow {
        let last = self.last();
        let told = self.tail.unwrap_or(last);
        let lost = self.lost.last().map_or(Sequence(0), |(_, end)| *end);
        let sequence = last.sequence.max(told.sequence).max(lost);
        // Of a lost one nobody knows how many messages there were, but there were as many as somebody has read.
        let read = self.pointers.iter().filter(|(_, pointer)| pointer.read <= sequence);
        let read = read.map(|(_, pointer)| pointer.ordinal).max().unwrap_or_default();
        TailRow {
            position: last.position.max(told.position),
            sequence,
            ordinal: last.ordinal.max(told.ordinal).max(read),
            time: last.time.max(told.time),
        }
    }
}

/// The first reading.
struct Judge<'a> {
    logged: &'a Logged,
    areas: Areas,
    /// Of conversations of which not everything is there.
    verdicts: BTreeMap<ConversationId, Verdict>,
    /// Entries of which a newer row may be lost, by which they say less.
    doubted: BTreeSet<(ConversationId, Sequence)>,
    /// What messages say may have changed since they were stored.
    has_changes: bool,
    ages: BTreeMap<String, usize>,
    report: Repaired,
}

/// How many files hold newer rows than each segment, and what was made of it. The log's are the newest.
fn ages(manifest: &Manifest) -> BTreeMap<String, usize> {
    let names = |id: SegmentId| [id.file_name(), SegmentId(OF_LOG | id.0).file_name()];
    let newest_first = manifest.segments.iter().zip(1..);
    newest_first.flat_map(|(entry, age)| names(entry.id).map(|name| (name, age))).collect()
}

impl Judge<'_> {
    async fn look<F: Files>(&mut self, opened: &Opened<F>, unreadable: &[SegmentId]) -> Result<(), EngineError> {
        let mut walk = Walk::new(&opened.runs, &self.logged.memtable, unreadable, true);
        let mut current: Option<Seen> = None;
        while walk.next().await? {
            let Some((key, value)) = walk.row() else { continue };
            let owner = keys::owner(key);
            let has_ended = current.as_ref().is_some_and(|seen| owner != Some(Owner::Conversation(seen.id)));
            if has_ended && let Some(mut seen) = current.take() {
                seen.is_closed = walk.closed.contains_key(&seen.id);
                self.finish(seen);
            }
            match (owner, keys::parse(key)) {
                (Some(Owner::Conversation(id)), Some(key)) => {
                    let seen = current.get_or_insert_with(|| Seen::new(id));
                    if key == Key::Tail {
                        seen.tail_age = self.age(&walk.place().0);
                    }
                    if let Key::Entry(sequence) = key
                        && self.is_doubted(id, sequence, &walk.place().0)
                    {
                        self.doubted.insert((id, sequence));
                        continue;
                    }
                    seen.row(key, value);
                }
                // One of which no other row is left.
                (Some(Owner::User(_)), Some(Key::User(id))) if self.is_touched(id) => {
                    self.areas.concern_unseen(id);
                }
                _ => {}
            }
        }
        if let Some(mut seen) = current {
            seen.is_closed = walk.closed.contains_key(&seen.id);
            self.finish(seen);
        }
        Ok(())
    }

    /// How many files hold newer rows than this one.
    fn age(&self, file: &str) -> usize {
        self.ages.get(file).copied().unwrap_or(0)
    }

    /// Whether a newer row of the entry may be lost, by which what it says was taken away.
    fn is_doubted(&self, id: ConversationId, sequence: Sequence, file: &str) -> bool {
        let age = self.age(file);
        let key = keys::entry(id, sequence);
        let range = KeyRange::new(key, keys::within(id, &keys::state_suffix(sequence)));
        self.has_changes && self.areas.touch_in(&range, |other| self.age(other) < age)
    }

    fn is_touched(&self, id: ConversationId) -> bool {
        self.areas.touch(&KeyRange::prefix(keys::conversation(id)))
    }

    /// All rows of a conversation have passed by.
    fn finish(&mut self, mut seen: Seen) {
        let (id, last, end) = (seen.id, seen.last(), seen.end());
        if last.sequence < end.sequence {
            seen.missing.push((last.sequence.next(), Some(end.sequence)));
        }
        let tail_key = KeyRange::new(keys::single(id, Family::Tail), keys::single(id, Family::Member));
        // A newer one may be lost; one that is older than the row that is there is of no use any more.
        let is_newer = |file: &str| self.age(file) < seen.tail_age;
        let has_tail = seen.tail.is_some() && !self.areas.touch_in(&tail_key, is_newer);
        let behind = keys::entry_range(id, end.sequence.next(), Sequence(COUNT_MAX));
        let is_end_known = has_tail || !self.areas.touch(&behind);
        let is_keyless = seen.is_closed || self.logged.keyless.contains(&seen.id);
        let is_whole = !is_keyless && seen.missing.is_empty() && seen.lost.is_empty() && is_end_known;
        let left_out = self.left_out(&seen, is_whole);
        self.tell_missing(&seen, end.sequence, is_end_known);
        if let Some(why) = left_out {
            let last = Some(end.sequence).filter(|_| is_end_known);
            let what = format!("left out: {why}");
            let first = Some(Sequence(1));
            self.report.find(Finding { conversation: Some(id), first, last, what, ..Finding::default() });
            self.report.left_out += 1;
            self.verdicts.insert(id, Verdict::LeftOut);
        } else if !is_whole {
            let lost = stretches(&seen);
            self.report.entries_lost += lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum::<u64>();
            self.verdicts.insert(id, Verdict::Told { lost, tail: end });
        }
    }

    /// Why nobody may be shown the conversation, or cannot.
    fn left_out(&self, seen: &Seen, is_whole: bool) -> Option<&'static str> {
        let are_members_touched = self.areas.touch(&keys::members_range(seen.id)) || seen.has_odd_member;
        let is_group_touched = self.areas.touch(&keys::group_range(seen.id));
        if self.logged.memtable.hides(seen.id) {
            return Some("a change of its members may be among what the log has lost");
        }
        if seen.is_closed || self.logged.keyless.contains(&seen.id) {
            return Some("its data key is not there, or something of it does not open");
        }
        if seen.entries == 0 {
            return Some("no entry of it is left");
        }
        if seen.is_contradictory {
            return Some("its entries contradict each other");
        }
        if is_whole {
            let said = seen.replay.users.iter().filter_map(|(user, state)| Some((user, state.member?)));
            let is_said = said.eq(seen.members.iter().map(|(user, row)| (user, *row)));
            return (!is_said && !are_members_touched).then_some("its members are not those that its entries make");
        }
        if are_members_touched {
            return Some("a change of its members may be among what is lost");
        }
        if is_group_touched {
            return Some("who is kept out of it, and who sees what, may be among what is lost");
        }
        if seen.start.is_none() && seen.replay.start.is_none() {
            return Some("how it began is lost");
        }
        (seen.missing.len() + seen.lost.len() > LOST_MAX)
            .then_some("its lost entries are more stretches than a store tells")
    }

    /// Puts what is missing down to what has taken it.
    fn tell_missing(&mut self, seen: &Seen, end: Sequence, is_end_known: bool) {
        let id = seen.id;
        let mut missing = seen.missing.clone();
        for (first, last) in &seen.lost {
            missing = missing.into_iter().flat_map(|of| without(of, (*first, Some(*last)))).collect();
        }
        if self.is_touched(id) {
            missing = self.areas.concern(id, &missing, end, is_end_known);
        }
        let is_told = self
            .logged
            .report
            .damage
            .iter()
            .any(|damage| !damage.all_known || damage.conversations.iter().any(|lost| lost.conversation == id));
        for (first, last) in missing.into_iter().filter(|_| !is_told) {
            let what = "lost: missing".to_owned();
            self.report.find(Finding { conversation: Some(id), first: Some(first), last, what, ..Finding::default() });
        }
        for (first, last) in &seen.lost {
            let what = "lost, as an earlier repair has found".to_owned();
            if self.report.losses.len() < FINDINGS_MAX {
                let (first, last) = (Some(*first), Some(*last));
                let loss = Finding { conversation: Some(id), first, last, what, ..Finding::default() };
                self.report.losses.push(loss);
            }
        }
    }
}

/// All stretches of a conversation's lost entries, in order and apart.
fn stretches(seen: &Seen) -> Vec<(Sequence, Sequence)> {
    let missing = seen.missing.iter().filter_map(|(first, last)| Some((*first, (*last)?)));
    let mut all: Vec<_> = missing.chain(seen.lost.iter().copied()).collect();
    all.sort_unstable();
    let mut lost: Vec<(Sequence, Sequence)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match lost.last_mut() {
            Some((_, end)) if first <= end.next() => *end = last.max(*end),
            _ => lost.push((first, last)),
        }
    }
    lost
}

/// The second reading.
struct Keeper<F: Files> {
    maker: Maker<F>,
    areas: Areas,
    verdicts: BTreeMap<ConversationId, Verdict>,
    doubted: BTreeSet<(ConversationId, Sequence)>,
    report: Repaired,
}

impl<F: Files> Keeper<F> {
    async fn keep<S: Files>(
        &mut self,
        opened: &Opened<S>,
        logged: &Logged,
        unreadable: &[SegmentId],
    ) -> Result<(), EngineError> {
        let mut walk = Walk::new(&opened.runs, &logged.memtable, unreadable, true);
        let mut current: Option<Seen> = None;
        while walk.next().await? {
            let Some((key, value)) = walk.row() else { continue };
            let (Some(Owner::Conversation(id)), Some(key)) = (keys::owner(key), keys::parse(key)) else { continue };
            if current.as_ref().is_none_or(|seen| seen.id != id) {
                self.finish(current.take()).await?;
                current = Some(Seen::new(id));
            }
            let Some(seen) = current.as_mut().filter(|_| !matches!(self.verdicts.get(&id), Some(Verdict::LeftOut)))
            else {
                continue;
            };
            if let Key::Entry(sequence) = key
                && self.doubted.contains(&(id, sequence))
            {
                continue;
            }
            let Some(Kept { position, missing, record }) = seen.row(key, value) else { continue };
            self.maker.leap(missing).await?;
            self.maker.apply(position, &record).await?;
        }
        self.finish(current.take()).await
    }

    async fn finish(&mut self, seen: Option<Seen>) -> Result<(), EngineError> {
        let Some(seen) = seen else { return Ok(()) };
        let (id, last) = (seen.id, seen.last());
        let verdict = self.verdicts.get(&id);
        if matches!(verdict, Some(Verdict::LeftOut)) {
            return Ok(());
        }
        self.report.conversations += 1;
        self.report.entries += seen.entries;
        let Some(Verdict::Told { lost, tail }) = verdict else {
            for (user, pointer) in seen.pointers {
                if seen.replay.users.contains_key(&user) {
                    let mark = Mark { conversation: id, user, pointer: within(&pointer, &last) };
                    self.maker.apply(last.position, &Record::Mark(mark)).await?;
                }
            }
            return Ok(());
        };
        // Rows are newer than what entries of which some are lost say; a conversation has one of the two.
        let Some(start) = seen.start.or_else(|| seen.replay.start.clone()) else { return Ok(()) };
        let title = seen.title.or_else(|| seen.replay.title.clone()).unwrap_or_default();
        let pointers = seen.pointers.into_iter().map(|(user, pointer)| (user, within(&pointer, tail))).collect();
        let (members, changes) = (seen.members, seen.changes);
        let there: BTreeSet<&[u8]> = changes.iter().map(|(suffix, _)| suffix.as_slice()).collect();
        // One that may be lost itself is as the entries make it.
        let is_undone = |suffix: &Vec<u8>| {
            let key = keys::within(id, suffix);
            !there.contains(suffix.as_slice())
                && !self.areas.touch(&KeyRange::new(key.clone(), [&key[..], &[0]].concat()))
        };
        let undone = seen.replay.changed_rows().filter(is_undone).collect();
        let told = Told { start, title, tail: *tail, members, pointers, changes, undone, lost: lost.clone() };
        Ok(self.maker.tell(id, &told, &seen.replay).await?)
    }
}
