//! Opening a store: the sorted part, then the log over it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use antiphon_wire::ids::{LanePosition, Sequence, TimestampMs};

use crate::{
    bytes::Reader,
    cache::Cache,
    encryption::{
        NodeKey, Nonces, Vault,
        file::{self, Anchor, KeysFile},
    },
    engine::{
        EngineError, Shared,
        jobs::Jobs,
        joined::Joined,
        state::{Core, Loaded, Memory, Stage, State, TailCache, Upkeep},
    },
    error::{DamagedKeys, StoreError},
    hash::IdHash,
    keys::{self, Family},
    lane::{
        format::Builder,
        log::{Log, number_of},
        prepare::{TEMPORARY_SUFFIX, prepare},
        recovery::{Recovered, Settings, recover},
        sealed::Opener,
    },
    layout, manifest,
    newest_ids::NewestIds,
    options::EngineOptions,
    report::{LostRange, OpenReport, Status},
    rows::TailRow,
    runs::Runs,
    scrub::Scrub,
    seams::{Clock, Files, Random},
    segment::SegmentId,
    signal::Signal,
    sorted::{self, Sorted, SortedSettings},
    window::{Horizon, Pacer},
};

/// What the engine keeps in the manifest: `version u8 · salt u64 · time u64 · generation u64 · file bytes u64 · made u64 ·
/// stored u64 · old rows until u64 · changes u8`, little endian. Version 1 ends before the horizon, or before the file's bytes. Version 3,
/// of an encrypted store, goes on with `generation of the data keys' file u64 · its entries u64`. Then, unless it is 0, `others until u64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    /// The log's secret.
    pub(crate) salt: u64,
    /// Time of the last entry when the manifest was written.
    pub(crate) time: TimestampMs,
    /// The newest generation of log files at that time.
    pub(crate) generation: u64,
    /// How large that file is; 0 if it is not known.
    pub(crate) file_bytes: u64,
    /// Which message ids are forgotten.
    pub(crate) horizon: Horizon,
    /// Whether segments hold rows of changes of messages: where none do, what a message says is what it said.
    pub(crate) has_changes: bool,
    /// Up to here positions are those of lanes that were before this one; 0 in a store whose lanes were never others.
    pub(crate) others_until: LanePosition,
    /// Of an encrypted store: how much there was of the data keys' file.
    pub(crate) keys: Option<Anchor>,
}

const BLOB_VERSION: u8 = 2;

/// Of an encrypted store.
const BLOB_VERSION_ENCRYPTED: u8 = 3;

/// Before message ids had a window, and messages could change.
const BLOB_VERSION_OLD_ROWS: u8 = 1;

impl Blob {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { salt, time, generation, file_bytes, horizon, has_changes, keys, others_until } = *self;
        let mut bytes = vec![if keys.is_some() { BLOB_VERSION_ENCRYPTED } else { BLOB_VERSION }];
        let Horizon { made, stored, old_rows_until } = horizon;
        for number in [salt, time.0, generation, file_bytes, made.0, stored.0, old_rows_until.0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(u8::from(has_changes));
        if let Some(Anchor { generation, entries }) = keys {
            bytes.extend(generation.to_le_bytes());
            bytes.extend(entries.to_le_bytes());
        }
        // Not there as a rule, so that a store is what it was before lanes told.
        if others_until.0 > 0 {
            bytes.extend(others_until.0.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        let (is_newest, is_encrypted) = match reader.u8() {
            Some(BLOB_VERSION_ENCRYPTED) => (true, true),
            Some(BLOB_VERSION) => (true, false),
            Some(BLOB_VERSION_OLD_ROWS) => (false, false),
            Some(version) if version > BLOB_VERSION_ENCRYPTED => {
                let (found, supported) = (u32::from(version), u32::from(BLOB_VERSION_ENCRYPTED));
                return Err(StoreError::NewerVersion { file: manifest::NAME.into(), found, supported });
            }
            _ => return Err(damaged_blob()),
        };
        let mut fields = || Some((reader.u64()?, reader.u64()?, reader.u64()?));
        let (salt, time, generation) = fields().ok_or_else(damaged_blob)?;
        let (file_bytes, mut horizon, mut has_changes) = (reader.u64().unwrap_or(0), Horizon::OF_OLD_STORE, false);
        if is_newest {
            let mut times = || Some([reader.u64()?, reader.u64()?, reader.u64()?].map(TimestampMs));
            let [made, stored, old_rows_until] = times().ok_or_else(damaged_blob)?;
            horizon = Horizon { made, stored, old_rows_until };
            has_changes = match reader.u8() {
                Some(0) => false,
                Some(1) => true,
                _ => return Err(damaged_blob()),
            };
        }
        let keys = match is_encrypted {
            false => None,
            true => {
                let fields = (|| Some(Anchor { generation: reader.u64()?, entries: reader.u64()? }))();
                Some(fields.ok_or_else(damaged_blob)?)
            }
        };
        let others_until = if is_newest { reader.u64().unwrap_or(0) } else { 0 };
        let others_until = LanePosition(others_until);
        Ok(Self { salt, time: TimestampMs(time), generation, file_bytes, horizon, has_changes, keys, others_until })
    }

    /// Holds the log's files against what the manifest says of them.
    pub(crate) fn check<F>(&self, log: &Log<F>) -> Result<(), EngineError> {
        if log.generation < self.generation {
            return Err(EngineError::LogMissing { first: log.generation + 1, last: self.generation });
        }
        let named = log.full.iter().chain(&log.current).find(|used| used.generation == self.generation);
        match named.map(|used| &used.log_file) {
            Some(file) if file.bytes < self.file_bytes => {
                let what = "the file was cut short";
                let (file, offset) = (file.name.clone(), file.bytes);
                Err(StoreError::Damaged { file, offset, what, keys: DamagedKeys::all() }.into())
            }
            _ => Ok(()),
        }
    }
}

fn damaged_blob() -> StoreError {
    let what = "the engine's part does not have its form";
    StoreError::Damaged { file: manifest::NAME.into(), offset: 0, what, keys: DamagedKeys::all() }
}

/// Opens the store, or makes one in an empty folder.
pub(super) async fn open<F: Files, C: Clock, R: Random>(
    files: F,
    clock: C,
    random: &R,
    options: EngineOptions,
) -> Result<(Shared<F, C, R>, OpenReport), EngineError> {
    options.check()?;
    let (cache, filters) = (Cache::new(options.cache_bytes), Cache::new(options.message_id_filter_bytes));
    let settings = layout::sorted_settings(cache.clone(), filters.clone());
    // What is found here counts as durable from now on. It may not be: a process that was killed leaves names that no sync of the
    // folder has covered, and a power cut would take them away later, with all that was acknowledged since.
    files.sync_folder().await?;
    let names = files.list().await?;
    let created = !names.iter().any(|name| name == manifest::NAME);
    let (sorted, found) = if created {
        (create(&files, &names, settings, random, &options).await?, sorted::OpenReport::default())
    } else {
        Sorted::open_as_it_is(files.clone(), settings).await?
    };
    let manifest = sorted.manifest();
    if manifest.lane != u32::from(options.lane) {
        return Err(EngineError::OtherLane { found: manifest.lane, expected: options.lane });
    }
    let blob = Blob::decode(&manifest.blob)?;
    let (vault, keys_file) =
        open_keys(&files, manifest.store, &blob, options.encryption.as_ref(), random).await?.unzip();
    if let Some(vault) = &vault {
        sorted.set_vault(Arc::clone(vault));
    }
    let hash = IdHash(blob.salt);
    let log_settings = Settings {
        lane: options.lane,
        salt: blob.salt,
        flushed: manifest.flushed_position,
        file_bytes: options.log_file_bytes,
        hash,
        whole: false,
        opener: Opener::of(vault.as_deref()),
    };
    let mut recovered = recover(&files, &names, log_settings).await?;
    recovered.log.batch_bytes_max = options.batch_bytes_max as u64;
    blob.check(&recovered.log)?;
    if recovered.report.read_only {
        // Leftovers stay: where the log has lost something, they may be what is left of it.
        find_lost(&mut recovered, &sorted.runs()).await;
    } else {
        // Last, so that whatever is refused is as it was.
        let is_temporary = |name: &&String| {
            (name.ends_with(TEMPORARY_SUFFIX) && name.starts_with("log-"))
                || (*name == file::TEMPORARY_NAME && !created)
        };
        for name in names.iter().filter(is_temporary) {
            files.remove(name).await?;
        }
        recovered.report.leftovers_removed = sorted.remove_leftovers().await?;
    }
    recovered.report.created = created;
    recovered.report.segments_damaged = found.damaged;
    recovered.report.position = LanePosition(recovered.position);
    recovered.report.flushed_position = LanePosition(manifest.flushed_position);
    if recovered.log.ready.is_empty() && !recovered.report.read_only && recovered.log.current.is_none() {
        // A lane without any log file could not take the first command; a full disk is better told now.
        let name = crate::lane::log::file_name(recovered.log.next_name);
        recovered.log.next_name += 1;
        let log_file = prepare(&files, name, options.log_file_bytes, options.lane, blob.salt).await?;
        recovered.log.ready.push_back(log_file);
    }
    let report = recovered.report.clone();
    let store = manifest.store;
    let mut state = state(recovered, &options, hash, blob, LanePosition(manifest.flushed_position), &clock);
    state.core.memory.vault.clone_from(&vault);
    for run in sorted.runs().newest_first() {
        state.core.newest_ids.note_key(run.bounds().1);
    }
    let shared = Shared {
        files,
        clock,
        store,
        read_only: report.read_only,
        sorted,
        cache,
        filters,
        state: RefCell::new(state),
        commit: Signal::default(),
        reading: Signal::default(),
        upkeep: Signal::default(),
        compaction: Signal::default(),
        output: Signal::default(),
        closing: Signal::default(),
        flushed: Signal::default(),
        scrub: RefCell::new(Scrub::new(options.scrub_bytes_per_second, options.scrub_round_ms_min)),
        scrub_due: Signal::default(),
        checkpointing: Cell::new(false),
        checkpointed: Signal::default(),
        nobody: std::rc::Rc::from([]),
        others_until: blob.others_until,
        vault,
        keys_file: Cell::new(keys_file),
        random: random.clone(),
        options,
    };
    // A memtable that recovery left full is flushed at once.
    shared.upkeep.raise();
    Ok((shared, report))
}

async fn create<F: Files, R: Random>(
    files: &F,
    names: &[String],
    settings: SortedSettings,
    random: &R,
    options: &EngineOptions,
) -> Result<Sorted<F>, EngineError> {
    refuse_parts(names)?;
    let (time, horizon) = (TimestampMs(0), Horizon::default());
    let salt = random.next();
    let store = random.next();
    let mut keys = None;
    if let Some(node) = &options.encryption {
        // Before the manifest that says that it is there.
        let vault = Vault::new(node.clone(), store, Nonces::from_random(random));
        refuse_keys(files, names).await?;
        file::replace(files, vault.header(), &[]).await?;
        keys = Some(vault.anchor());
    }
    let others_until = LanePosition(0);
    let blob = Blob { salt, time, generation: 0, file_bytes: 0, horizon, has_changes: false, keys, others_until };
    Ok(Sorted::create(files.clone(), settings, store, u32::from(options.lane), blob.encode()).await?)
}

/// A folder without a manifest may have the data keys' file of a creation that did not end, and that has nothing in it.
async fn refuse_keys<F: Files>(files: &F, names: &[String]) -> Result<(), EngineError> {
    if !names.iter().any(|name| name == file::NAME) {
        return Ok(());
    }
    match file::is_new(files).await? {
        true => Ok(()),
        false => Err(EngineError::ManifestLost { file: file::NAME.into() }),
    }
}

/// The data keys of a store, if it is encrypted, and the file that takes more of them.
async fn open_keys<F: Files, R: Random>(
    files: &F,
    store: u64,
    blob: &Blob,
    node: Option<&NodeKey>,
    random: &R,
) -> Result<Option<(Arc<Vault>, KeysFile<F::File>)>, EngineError> {
    let (anchor, node) = match (blob.keys, node) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(EngineError::NotEncrypted),
        (Some(_), None) => return Err(EngineError::KeyNeeded),
        (Some(anchor), Some(node)) => (anchor, node),
    };
    let found = file::read(files, store, anchor).await?;
    let vault = Vault::found(node.clone(), &found, Nonces::from_random(random))?;
    let keys_file = KeysFile::open(files, &found).await?;
    Ok(Some((Arc::new(vault), keys_file)))
}

/// A folder without a manifest is a new one only if nothing of a store is in it: the manifest is the first that is made.
pub(crate) fn refuse_parts(names: &[String]) -> Result<(), EngineError> {
    let is_part = |name: &&String| number_of(name).is_some() || SegmentId::from_file_name(name).is_some();
    names.iter().filter(is_part).min().map_or(Ok(()), |file| Err(EngineError::ManifestLost { file: file.clone() }))
}

fn state<F: Files, C: Clock>(
    recovered: Recovered<F>,
    options: &EngineOptions,
    hash: IdHash,
    blob: Blob,
    flushed: LanePosition,
    clock: &C,
) -> State<F::File> {
    let read_only = recovered.report.read_only.then(|| damage_text(&recovered.report));
    let counters = Status {
        log_damaged: recovered.report.damage.len(),
        segments_damaged: recovered.report.segments_damaged.len(),
        ..Status::default()
    };
    let mut memory = Memory::new(recovered.memtable, flushed, hash);
    #[cfg(feature = "planted")]
    if crate::planted::forgets() {
        memory.active.forget_messages();
    }
    memory.active_since = clock.now();
    memory.active_log_bytes = recovered.log.unflushed_bytes(flushed.0);
    let time = blob.time.max(recovered.time);
    let core = Core {
        outputs: VecDeque::new(),
        loaded: Loaded::default(),
        memory,
        stage: Stage {
            filling: Builder::new(options.batch_bytes_max, recovered.witness),
            spare: None,
            staged: VecDeque::new(),
            answers: BTreeMap::new(),
            position: LanePosition(recovered.position),
            time,
            writing: false,
            sealed: recovered.sealed,
            seal_due: false,
            fenced: read_only,
            scratch: rkyv::util::AlignedVec::new(),
        },
        log: recovered.log,
        tails: TailCache::new(options.tails_max, hash),
        joined: Joined::new(options.user_counts_max, hash),
        settling: Vec::new(),
        jobs: Jobs::default(),
        horizon: blob.horizon.of_store_until(time),
        newest_ids: NewestIds::default(),
        pacer: Pacer::default(),
        upkeep: Upkeep::default(),
        has_changes: blob.has_changes,
        waiting: 0,
        closing: false,
        closed: false,
        counters,
    };
    State { slots: HashMap::with_hasher(hash), core }
}

fn damage_text(report: &OpenReport) -> String {
    let damage = report.damage.iter().find(|damage| !damage.harmless);
    damage.map_or_else(String::new, |damage| {
        let crate::report::LogDamage { file, offset, what, first, last, .. } = damage;
        format!("{file}: damaged at byte {offset}: {what}; records {first} to {last} are lost")
    })
}

/// After damage: reports gaps between what segments hold and what was replayed. A reader finds them by itself: a row is missing.
pub(crate) async fn find_lost<F: Files>(recovered: &mut Recovered<F>, runs: &Runs<F>) {
    let mut ids: Vec<_> = recovered.memtable.ids().collect();
    ids.sort_unstable();
    for id in ids {
        let Some(first) = recovered.memtable.tail(id).and_then(|tail| tail.first()) else { continue };
        let Ok(row) = runs.get(&keys::single(id, Family::Tail)).await else { continue };
        let tail = row.and_then(|change| change.value()).and_then(|value| TailRow::decode(&value));
        let last = tail.map_or(Sequence(0), |tail| tail.sequence);
        if last.next() < first {
            let lost = LostRange { conversation: id, first: last.next(), last: Sequence(first.0 - 1) };
            if let Some(damage) = recovered.report.damage.iter_mut().find(|damage| !damage.harmless) {
                damage.conversations.push(lost);
            }
        }
    }
}
