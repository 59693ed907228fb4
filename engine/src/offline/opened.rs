//! A lane's files opened for looking only: manifest, segments, log. Damage is kept beside what can be read; nothing is
//! repaired.

use std::sync::Arc;

use antiphon_wire::ids::{ConversationId, LanePosition, Sequence, TimestampMs, UserId};

use crate::{
    cache::Cache,
    encryption::{
        KeyFault, Seal, Vault,
        file::{self, Found},
        without_key,
    },
    engine::{
        EngineError,
        open::{Blob, find_lost, refuse_parts},
    },
    error::{DamagedKeys, StoreError},
    hash::IdHash,
    keys,
    lane::{
        log::number_of,
        prepare::TEMPORARY_SUFFIX,
        recovery::{Settings, recover},
        sealed::Opener,
    },
    layout,
    manifest::{self, Manifest, SegmentEntry},
    memtable::Memtable,
    offline::access::{Access, Use},
    report::OpenReport,
    row::{Change, SharedBytes},
    rows::{UserRow, decode_entry},
    runs::{Run, Runs},
    seams::Files,
    segment::{SegmentContext, SegmentId},
    sorted::open_segment,
    window::Horizon,
};

/// Blocks kept for single lookups; walks go past the cache.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Parts of filters of message ids kept for them.
const FILTERS_BYTES: usize = 16 * 1024 * 1024;

/// The manifest, and the segments that it names.
pub(super) struct Opened<F: Files> {
    pub(super) files: F,
    pub(super) names: Vec<String>,
    pub(super) manifest: Manifest,
    pub(super) blob: Blob,
    pub(super) runs: Runs<F>,
    /// Of an encrypted store: what was found of its data keys.
    pub(super) found: Option<Found>,
    /// What opens values; none where the store is not encrypted, the key was not given, or there is nothing to be had.
    pub(super) vault: Option<Arc<Vault>>,
    /// What is wrong with the data keys' file.
    pub(super) keys_damage: Option<StoreError>,
}

/// What the log holds beyond the segments.
pub(super) struct Logged {
    pub(super) memtable: Memtable,
    /// The last position that is stored.
    pub(super) position: LanePosition,
    /// Time of the last entry.
    pub(super) time: TimestampMs,
    pub(super) report: OpenReport,
    /// Why the log could not be replayed.
    pub(super) unreadable: Option<StoreError>,
    /// Generations of files that are needed and not there.
    pub(super) missing: Option<(u64, u64)>,
    /// Conversations with records whose key is not there, though they were not erased.
    pub(super) keyless: Vec<ConversationId>,
}

impl Logged {
    /// How many stretches of the log are lost.
    pub(super) fn damaged_parts(&self) -> u64 {
        let lost = self.report.damage.iter().filter(|damage| !damage.harmless).count();
        lost as u64
            + self.keyless.len() as u64
            + u64::from(self.unreadable.is_some())
            + u64::from(self.missing.is_some())
    }
}

impl<F: Files> Opened<F> {
    /// Opens what the manifest names. Segments that cannot be read are kept as damaged ones.
    pub(super) async fn open(files: F, access: &Access) -> Result<Self, EngineError> {
        let lane = access.lane;
        let mut names = files.list().await?;
        names.sort_unstable();
        if !names.iter().any(|name| name == manifest::NAME) {
            refuse_parts(&names)?;
            return Err(StoreError::ManifestMissing.into());
        }
        let manifest = manifest::read(&files).await?;
        if manifest.lane != u32::from(lane) {
            return Err(EngineError::OtherLane { found: manifest.lane, expected: lane });
        }
        let blob = Blob::decode(&manifest.blob)?;
        let (mut found, mut vault, mut keys_damage) = (None, None, None);
        if let Some(anchor) = blob.keys {
            match file::read_what_is_there(&files, manifest.store, anchor).await {
                Ok((there, damage)) => {
                    keys_damage = damage;
                    if let Some(key) = &access.key {
                        vault = Some(Arc::new(Vault::found(key.node.clone(), &there, key.nonces(Use::Reading))?));
                    }
                    found = Some(there);
                }
                Err(error @ StoreError::Damaged { .. }) => keys_damage = Some(error),
                Err(error) => return Err(error.into()),
            }
        } else if access.key.is_some() {
            return Err(EngineError::NotEncrypted);
        }
        let (cache, settings) = (Cache::new(CACHE_BYTES), layout::segment_settings());
        let context =
            SegmentContext::new(files.clone(), cache, manifest.store, settings).with_filters(Cache::new(FILTERS_BYTES));
        let mut runs = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            runs.push(match open_segment(&context, entry).await {
                Ok(reader) => Run::Segment(reader),
                Err(error @ StoreError::NewerVersion { .. }) => return Err(error.into()),
                Err(error) => Run::Damaged { entry: entry.clone(), error: whole_damage(entry, &error) },
            });
        }
        let runs = Runs::new(runs).with_vault(vault.clone());
        Ok(Self { files, names, manifest, blob, runs, found, vault, keys_damage })
    }

    /// Whether the store is encrypted, and nothing of it can be opened.
    pub(super) fn is_closed(&self) -> bool {
        self.blob.keys.is_some() && self.vault.is_none()
    }

    /// For those who need what is sealed.
    pub(super) fn require_key(&self) -> Result<(), EngineError> {
        match &self.keys_damage {
            Some(error) => Err(error.clone().into()),
            None if self.is_closed() => Err(EngineError::KeyNeeded),
            None => Ok(()),
        }
    }

    /// What seals rows that are made of this store's.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.vault.as_ref().map(Vault::seal)
    }

    /// Which message ids are forgotten.
    pub(super) fn horizon(&self, logged: &Logged) -> Horizon {
        self.blob.horizon.of_store_until(logged.time)
    }

    /// Replays what the log holds beyond the segments.
    pub(super) async fn read_log(&self) -> Result<Logged, EngineError> {
        let settings = self.log_settings();
        let flushed = LanePosition(self.manifest.flushed_position);
        let mut recovered = match recover(&self.files, &self.names, settings).await {
            Ok(recovered) => recovered,
            Err(error @ StoreError::Damaged { .. }) => {
                return Ok(Logged {
                    memtable: Memtable::new(settings.hash),
                    position: flushed,
                    time: self.blob.time,
                    report: OpenReport::default(),
                    unreadable: Some(error),
                    missing: None,
                    keyless: Vec::new(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if recovered.report.read_only {
            find_lost(&mut recovered, &self.runs).await;
        }
        let (unreadable, missing) = match self.blob.check(&recovered.log) {
            Err(EngineError::LogMissing { first, last }) => (None, Some((first, last))),
            Err(EngineError::Store(error)) => (Some(error), None),
            other => (None, other.map(|()| None)?),
        };
        let keyless = match &self.vault {
            Some(vault) => recovered.memtable.closed().filter(|id| !vault.is_erased(*id)).collect(),
            None => Vec::new(),
        };
        Ok(Logged {
            keyless,
            position: LanePosition(recovered.position),
            time: recovered.time.max(self.blob.time),
            memtable: recovered.memtable,
            report: recovered.report,
            unreadable,
            missing,
        })
    }

    pub(super) fn log_settings(&self) -> Settings<'_> {
        Settings {
            lane: self.manifest.lane as u16,
            salt: self.blob.salt,
            flushed: self.manifest.flushed_position,
            file_bytes: 0,
            hash: IdHash(self.blob.salt),
            whole: true,
            opener: match &self.vault {
                Some(vault) => Opener::KeysThatAreThere(vault),
                None if self.is_closed() => Opener::Closed,
                None => Opener::Plain,
            },
        }
    }

    /// Bytes of all segments' files, as the manifest tells them.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.manifest.segments.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.file_bytes))
    }

    /// The same, of adopted ones this lane's part.
    pub(super) fn own_bytes(&self) -> u64 {
        self.manifest.segments.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.own_bytes()))
    }

    /// Names of log files.
    pub(super) fn log_names(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| number_of(name).is_some())
    }

    /// What an interrupted edit, or the making of a log file, has left.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let is_leftover = |name: &&String| match SegmentId::from_file_name(name) {
            Some(id) => !self.manifest.segments.iter().any(|entry| entry.id == id),
            None => {
                *name == manifest::TEMPORARY_NAME
                    || *name == file::TEMPORARY_NAME
                    || (name.starts_with("log-") && name.ends_with(TEMPORARY_SUFFIX))
            }
        };
        self.names.iter().filter(is_leftover).cloned().collect()
    }

    /// The first damage, for those who need a whole store.
    pub(super) fn require_whole(&self, logged: &Logged) -> Result<(), EngineError> {
        if let Some(error) = &self.keys_damage {
            return Err(error.clone().into());
        }
        for run in self.runs.newest_first() {
            if let Run::Damaged { error, .. } = run {
                return Err(error.clone().into());
            }
        }
        if let Some(error) = &logged.unreadable {
            return Err(error.clone().into());
        }
        if let Some((first, last)) = logged.missing {
            return Err(EngineError::LogMissing { first, last });
        }
        if let Some(id) = logged.keyless.first() {
            return Err(without_key(&keys::conversation(*id), KeyFault::Missing.text()).into());
        }
        match logged.report.damage.iter().find(|damage| !damage.harmless) {
            Some(damage) => {
                let (file, offset) = (damage.file.clone(), damage.offset);
                let what = "acknowledged records are lost";
                Err(StoreError::Damaged { file, offset, what, keys: DamagedKeys::all() }.into())
            }
            None => Ok(()),
        }
    }

    /// What the merged view says of a user and a conversation: `Some(None)` for a row that does not have its form.
    pub(super) async fn user_row(
        &self,
        logged: &Logged,
        user: &UserId,
        conversation: ConversationId,
    ) -> Result<Option<Option<UserRow>>, StoreError> {
        if let Some(row) = logged.memtable.user(user).and_then(|rows| rows.get(&conversation)) {
            return Ok(Some(Some(*row)));
        }
        let found = self.runs.get(&keys::user_conversation(user, conversation)).await?;
        Ok(found.and_then(Change::value).map(|value| UserRow::decode(&value)))
    }

    /// An entry of the merged view: its position and archive.
    pub(super) async fn entry(
        &self,
        logged: &Logged,
        conversation: ConversationId,
        sequence: Sequence,
    ) -> Result<Option<(LanePosition, SharedBytes)>, StoreError> {
        let tail = logged.memtable.tail(conversation);
        if let Some((position, archive)) = tail.and_then(|tail| tail.entry(sequence)) {
            return Ok(Some((*position, SharedBytes::from(&**archive))));
        }
        let found = self.runs.get(&keys::entry(conversation, sequence)).await?;
        let Some(value) = found.and_then(Change::value) else { return Ok(None) };
        Ok(decode_entry(&value).map(|(position, archive)| (position, SharedBytes::from(archive))))
    }
}

/// A segment that cannot be opened, whatever the reason: the manifest knows which keys are concerned.
fn whole_damage(entry: &SegmentEntry, error: &StoreError) -> StoreError {
    let (offset, what) = match error {
        StoreError::Damaged { offset, what, .. } => (*offset, *what),
        StoreError::SegmentMissing { .. } => (0, "named by the manifest, but missing"),
        StoreError::ForeignStore { .. } => (0, "belongs to another store"),
        _ => (0, "the operating system cannot read it"),
    };
    let keys = DamagedKeys::between(&entry.first_key, &entry.last_key);
    StoreError::Damaged { file: entry.id.file_name(), offset, what, keys }
}
