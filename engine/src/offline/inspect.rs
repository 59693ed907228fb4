//! What is where in a lane's store, and what it costs: segments, log files, totals.

use std::collections::BTreeMap;

use antiphon_wire::{
    frame::{ArchivedEntryKind, view_entry},
    ids::{ConversationId, LanePosition, TimestampMs, UserId},
};
use serde::Serialize;

use crate::{
    encryption::file::Found,
    engine::EngineError,
    keys::{self, Key, Owner},
    lane::found::survey,
    offline::{
        access::Access,
        opened::Opened,
        read_only::{Progress, ReadOnly},
        walk::Walk,
    },
    partitions::Adopted,
    rows::{MemberRow, StartRow, decode_entry},
    runs::Run,
    seams::Files,
    segment::SegmentId,
};

/// A lane's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Which lane.
    pub lane: u16,
    /// The store's identity, in hexadecimal digits.
    pub store: String,
    /// Of an encrypted store: which key its data keys are wrapped with, sixteen hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many conversations have a data key, or had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_keys: Option<u64>,
    /// How many of them were erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<u64>,
    /// How many manifests there were, with this one.
    pub manifest_edit: u64,
    /// Records up to here are in segments.
    pub flushed_position: LanePosition,
    /// Segments, newest first.
    pub segments: Vec<SegmentFacts>,
    /// Log files, the oldest generation first.
    pub log_files: Vec<LogFileFacts>,
    /// Files of an interrupted flush or merge, which the next start removes.
    pub leftovers: Vec<String>,
    /// Bytes of all segments' files; of those that were adopted, this lane's part, so that the lanes of a store add up.
    pub segment_bytes: u64,
    /// Bytes of all log files, whether used or not.
    pub log_bytes: u64,
    /// What all of it holds, if that was asked for.
    pub totals: Option<Totals>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentFacts {
    /// Its file.
    pub file: String,
    /// How many merges its rows went through at most.
    pub level: u32,
    /// Rows, delete markers among them.
    pub rows: u64,
    /// Delete markers.
    pub deletes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Rows that erase what older segments say of their keys.
    pub erasing: u64,
    /// Since when it has such rows of which older segments may still hold what they erased.
    pub erasing_since: Option<TimestampMs>,
    /// Of the bytes of its keys and values, those that a reader is still shown, and those that newer segments or the log hide: if totals
    /// were asked for.
    pub live_bytes: Option<u64>,
    /// See `live_bytes`.
    pub dead_bytes: Option<u64>,
    /// Data blocks.
    pub blocks: u32,
    /// Bytes of data before compression.
    pub raw_bytes: u64,
    /// Bytes of data as stored.
    pub stored_bytes: u64,
    /// Times of its first and last entry.
    pub times: Option<(TimestampMs, TimestampMs)>,
    /// Whose the first and the last row are.
    pub range: (Neighbours, Neighbours),
    /// Whose it was, if another lane wrote it; other lanes may have it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<AdoptedFacts>,
    /// Why it cannot be read, if so; what the manifest does not tell is 0 then.
    pub damage: Option<String>,
}

/// Where an adopted segment comes from, and how much of it counts in the lane.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AdoptedFacts {
    /// The store that wrote it, in hexadecimal digits.
    pub store: String,
    /// Its file there.
    pub file: String,
    /// Partitions of which it may have rows.
    pub held: u32,
    /// Those of them whose rows count here.
    pub shown: u32,
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// A conversation's.
    Conversation(ConversationId),
    /// A user's.
    User(UserId),
    /// No single one's: message ids, in the order of their time.
    MessageIds,
    /// None of ours, in hexadecimal digits.
    Unknown(String),
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFileFacts {
    /// Its name.
    pub file: String,
    /// Its generation; 0 if it was never used.
    pub generation: u64,
    /// Batches from its beginning on, seals too.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of those batches, with padding.
    pub used_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Position of the first record.
    pub first: LanePosition,
    /// Position of the last record.
    pub last: LanePosition,
    /// Segments hold all of it: it may be used anew.
    pub flushed: bool,
}

/// What the merged view holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// The last position that is stored.
    pub position: LanePosition,
    /// Conversations.
    pub conversations: u64,
    /// Those of two.
    pub direct: u64,
    /// Members of all conversations.
    pub members: u64,
    /// Entries.
    pub entries: u64,
    /// Those that are messages.
    pub messages: u64,
    /// Bytes of all entries' archives.
    pub archive_bytes: u64,
    /// Bytes of messages' bodies.
    pub body_bytes: u64,
    /// Rows of all kinds, hidden and deleted ones not counted.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub row_bytes: u64,
    /// Bytes used of the log files that segments do not hold whole.
    pub unflushed_bytes: u64,
    /// Damaged blocks, segments and stretches of the log: what they held is not counted.
    pub damaged: u64,
    /// Bytes of keys and values in segments that nobody is shown any more: hidden by newer rows.
    pub dead_bytes: u64,
    /// Bytes of segments and of that part of the log for each hundred bytes of archives; 0 without any.
    pub amplification_percent: u64,
}

/// Looks at a lane's store, and changes nothing. `totals` asks for what it holds, which takes a reading of all of it, and the key if it is
/// encrypted;
/// without them a store that a node has in use can be looked at, too. `progress` is called after every read.
///
/// # Errors
/// As [`verify`](super::verify()); damage is no error here, too.
pub async fn inspect<F: Files>(
    files: F,
    access: impl Into<Access>,
    totals: bool,
    progress: impl Fn(Progress) + 'static,
) -> Result<Inspection, EngineError> {
    let (files, access) = (ReadOnly::new(files, progress), access.into());
    let opened = Opened::open(files.clone(), &access).await?;
    let flushed = opened.manifest.flushed_position;
    let surveyed = survey(&opened.files, &opened.names, &opened.log_settings()).await?;
    let newest = surveyed.last().map_or(0, |of| of.generation);
    let log_files: Vec<LogFileFacts> = surveyed
        .into_iter()
        .map(|of| LogFileFacts {
            // The newest file goes on being filled.
            flushed: of.last <= flushed && of.generation < newest,
            file: of.name,
            generation: of.generation,
            batches: of.batches,
            records: of.records,
            used_bytes: of.used,
            bytes: of.bytes,
            first: LanePosition(of.first),
            last: LanePosition(of.last),
        })
        .collect();
    let mut inspection = Inspection {
        lane: access.lane,
        key: opened
            .blob
            .keys
            .map(|_| opened.found.as_ref().map_or(0, |found| found.header.node))
            .map(|node| format!("{node:016x}")),
        data_keys: opened.found.as_ref().map(|found| found.entries.len() as u64),
        erased: opened.found.as_ref().map(Found::erased),
        store: format!("{:016x}", opened.manifest.store),
        manifest_edit: opened.manifest.edit,
        flushed_position: LanePosition(flushed),
        segments: opened.manifest.segments.iter().zip(opened.runs.newest_first()).map(segment).collect(),
        leftovers: opened.leftovers(),
        segment_bytes: opened.own_bytes(),
        log_bytes: log_files.iter().map(|of| of.bytes).sum(),
        log_files,
        totals: None,
    };
    if totals && !opened.is_closed() {
        files.expect(opened.segment_bytes());
        let (mut totals, live) = count(&opened).await?;
        for (facts, run) in inspection.segments.iter_mut().zip(opened.runs.newest_first()) {
            let Run::Segment(reader) = run else { continue };
            let live = live.get(&reader.id()).copied().unwrap_or(0);
            facts.live_bytes = Some(live);
            facts.dead_bytes = Some(reader.statistics().live_bytes.saturating_sub(live));
        }
        totals.dead_bytes = inspection.segments.iter().filter_map(|of| of.dead_bytes).sum();
        let unflushed = inspection.log_files.iter().filter(|of| of.last.0 > flushed);
        totals.unflushed_bytes = unflushed.map(|of| of.used_bytes).sum();
        let stored = u128::from(inspection.segment_bytes) + u128::from(totals.unflushed_bytes);
        let percent = (stored * 100).checked_div(u128::from(totals.archive_bytes)).unwrap_or(0);
        totals.amplification_percent = u64::try_from(percent).unwrap_or(u64::MAX);
        inspection.totals = Some(totals);
    }
    Ok(inspection)
}

fn segment<F: Files>((entry, run): (&crate::manifest::SegmentEntry, &Run<F>)) -> SegmentFacts {
    let mut facts = SegmentFacts {
        file: entry.id.file_name(),
        level: entry.level,
        rows: entry.rows,
        deletes: entry.deletes,
        bytes: entry.file_bytes,
        erasing: 0,
        erasing_since: None,
        live_bytes: None,
        dead_bytes: None,
        blocks: 0,
        raw_bytes: 0,
        stored_bytes: 0,
        times: None,
        range: (Neighbours::of(&entry.first_key), Neighbours::of(&entry.last_key)),
        adopted: entry.adopted.as_ref().map(AdoptedFacts::of),
        damage: None,
    };
    match run {
        Run::Damaged { error, .. } => facts.damage = Some(error.to_string()),
        Run::Segment(reader) => {
            let statistics = reader.statistics();
            facts.blocks = statistics.blocks;
            facts.erasing = statistics.erasing;
            facts.erasing_since = statistics.erasing_since.map(TimestampMs);
            facts.raw_bytes = statistics.raw_bytes;
            facts.stored_bytes = statistics.stored_bytes;
            facts.times = statistics.times.map(|(least, most)| (TimestampMs(least), TimestampMs(most)));
        }
    }
    facts
}

impl AdoptedFacts {
    fn of(adopted: &Adopted) -> Self {
        Self {
            store: format!("{:016x}", adopted.store),
            file: adopted.id.file_name(),
            held: adopted.held.count(),
            shown: adopted.shown.count(),
        }
    }
}

impl Neighbours {
    fn of(key: &[u8]) -> Self {
        match keys::owner(key) {
            Some(Owner::Conversation(id)) => Self::Conversation(id),
            Some(Owner::User(user)) => Self::User(user),
            Some(Owner::MessageIds) => Self::MessageIds,
            None => Self::Unknown(key.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

/// Goes through the merged view. Gives the bytes of each segment's rows that are seen there, too.
async fn count<F: Files>(opened: &Opened<F>) -> Result<(Totals, BTreeMap<SegmentId, u64>), EngineError> {
    let logged = opened.read_log().await?;
    let mut totals = Totals { position: logged.position, ..Totals::default() };
    let mut live = BTreeMap::new();
    let mut walk = Walk::new(&opened.runs, &logged.memtable, &[], true);
    while walk.next().await? {
        let Some((key, value)) = walk.row() else { continue };
        totals.rows += 1;
        totals.row_bytes += (key.len() + value.len()) as u64;
        if let Some(segment) = walk.segment() {
            *live.entry(segment).or_default() += (key.len() + walk.stored_bytes()) as u64;
        }
        match keys::parse(key) {
            Some(Key::Start) => {
                totals.conversations += 1;
                totals.direct += u64::from(StartRow::decode(value).is_some_and(|start| start.direct));
            }
            Some(Key::Member(_)) => totals.members += u64::from(MemberRow::decode(value).is_some()),
            Some(Key::Entry(_)) => {
                let Some((_, archive)) = decode_entry(value) else { continue };
                totals.entries += 1;
                totals.archive_bytes += archive.len() as u64;
                if let Ok(entry) = view_entry(archive)
                    && matches!(entry.kind, ArchivedEntryKind::Message)
                {
                    totals.messages += 1;
                    totals.body_bytes += entry.body.len() as u64;
                }
            }
            _ => {}
        }
    }
    let segments = opened.runs.newest_first().iter().filter(|run| matches!(run, Run::Damaged { .. })).count();
    totals.damaged = walk.passed + segments as u64 + logged.damaged_parts();
    Ok((totals, live))
}
