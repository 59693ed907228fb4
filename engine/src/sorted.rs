//! The sorted part of a store, whole: a manifest, its segments, and the edits that keep the two in step.
//!
//! This is what the rest of the engine uses. An edit happens in this order, and a crash between any two steps leaves the old state
//! or the new one: segment written and synced · folder synced · manifest written under a temporary name and synced · renamed ·
//! folder synced · memory switched · old files removed once no reader holds them.
//!
//! Invariants: one edit at a time (others wait their turn); what readers see changes only after the manifest is durable; a failed
//! edit leaves everything as before. Futures of edits must be polled to their end: one that is dropped half way leaves the disk in
//! an unknown state, so every later edit is refused with [`StoreError::EditAbandoned`].

mod reclaim;

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use futures_util::{StreamExt, lock::Mutex, stream};

use crate::{
    cache::Cache,
    compaction::{self, Choice, Compacted, Expiry, Job, Pace, RunInfo},
    encryption::{Seal, Vault},
    error::{DamagedKeys, StoreError},
    flush::{FlushOutputs, FlushTimes, write_flush},
    manifest::{self, Manifest, ReplaceError, SegmentEntry},
    row::{Change, OwnedRows, RowSource},
    runs::{Run, Runs},
    seams::{FileError, Files, Urgency},
    segment::{SegmentContext, SegmentId, SegmentReader, SegmentSettings, SegmentStatistics},
};

/// How the sorted part works.
#[derive(Clone)]
pub struct SortedSettings {
    /// How segments are written.
    pub segment: SegmentSettings,
    /// When and what to merge.
    pub compaction: compaction::Settings,
    /// Where blocks are kept. Segment ids name them, so each store and lane needs a cache of its own.
    pub cache: Cache,
    /// Rows that have segments of their own, if there are any.
    pub apart: Option<Apart>,
}

/// Rows that lie in segments of their own and are merged among themselves, because they live and die otherwise than the rest. A flush
/// writes a second segment for them, made known in the same edit. Since no key is of both kinds, it does not matter which segments of the
/// one kind are newer than those of the other.
#[derive(Clone)]
pub struct Apart {
    /// Whether a row is one of them. They come after all others in the order of keys.
    pub holds: Holds,
    /// How their segments are written.
    pub segment: SegmentSettings,
    /// When and what of them to merge.
    pub compaction: compaction::Settings,
    /// Where parts of their filters are kept, if those are paged.
    pub filters: Cache,
}

/// Whether a key's row is one of those that lie apart.
pub type Holds = fn(key: &[u8]) -> bool;

/// How the segments of one kind of rows are written and merged.
struct Class<F: Files> {
    context: SegmentContext<F>,
    compaction: compaction::Settings,
}

impl<F: Files> State<F> {
    /// A run as the choice of merges sees it.
    fn run_info(&self, run: &Run<F>) -> RunInfo {
        match run {
            Run::Segment(reader) => {
                let (bytes, adopted) = (reader.statistics().file_bytes, reader.adopted());
                RunInfo {
                    // What a merge would write of it.
                    bytes: adopted.map_or(bytes, |adopted| adopted.share_of(bytes)),
                    mergeable: !self.unmergeable.contains(&reader.id()),
                    holds_others: adopted.is_some_and(|adopted| !adopted.is_whole()),
                }
            }
            Run::Damaged { entry, .. } => RunInfo { bytes: entry.file_bytes, mergeable: false, holds_others: false },
        }
    }
}

/// How many segments are opened at once: each is read in a few pieces one after the other, so this many reads and a few more are under way.
const SEGMENTS_OPENED_AT_ONCE: usize = 8;

/// Handle on the sorted part of one lane's store. Cloning gives another handle on the same.
pub struct Sorted<F: Files> {
    inner: Rc<Inner<F>>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Leftovers of interrupted edits that were removed: temporary manifests, and segments that no manifest names.
    pub removed: Vec<String>,
    /// One error for each segment that cannot be read at all; keys in its range cannot be read, others can.
    pub damaged: Vec<StoreError>,
}

/// What a flush is to say beside its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlushMark {
    /// Log records up to this position are in segments once the flush is done. Never goes back.
    pub flushed_position: u64,
    /// The caller's new blob, if it changes.
    pub blob: Option<Vec<u8>>,
    /// Least and greatest time of the rows, for the segment's statistics.
    pub times: Option<(u64, u64)>,
    /// When the first of the rows was written that erase what older segments say; as early as the least time if that is not said.
    pub erasing_since: Option<u64>,
}

impl FlushMark {
    fn flush_times(&self) -> FlushTimes {
        FlushTimes { rows: self.times, erasing_since: self.erasing_since.or(self.times.map(|(least, _)| least)) }
    }
}

/// Rows of a flush that may be read on another thread.
pub trait FlushSource: Send + 'static {
    /// All rows, in ascending order of keys.
    fn rows(&self) -> impl RowSource;
}

struct Inner<F: Files> {
    /// Of all rows but those apart.
    class: Class<F>,
    apart: Option<(Holds, Class<F>)>,
    /// Held during a flush, so that runs come in the order of flushes.
    flushing: Mutex<()>,
    /// Held during an edit of the manifest.
    editing: Mutex<()>,
    /// Set while an edit is under way: if the next finds it set, that edit's future was dropped.
    edit_under_way: Cell<bool>,
    compacting: Cell<bool>,
    /// Of an encrypted store: what flushes seal with, and readers open.
    vault: OnceCell<Arc<Vault>>,
    state: RefCell<State<F>>,
}

struct State<F: Files> {
    manifest: Rc<Manifest>,
    runs: Rc<Runs<F>>,
    next_segment: u64,
    /// Segments that a merge has failed on for damage; they stay as they are.
    unmergeable: Vec<SegmentId>,
    /// Replaced segments whose files are still there.
    retired: Vec<SegmentReader<F>>,
    reclaiming: Option<reclaim::Progress>,
    /// Files of edits of which it is unknown whether the manifest names them; they go when the next edit is durable.
    orphans: Vec<SegmentId>,
}

impl<F: Files> Clone for Sorted<F> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<F: Files> Sorted<F> {
    /// Makes the manifest of a new store in a folder that has none. `blob` is the caller's own, stored and replaced with the
    /// manifest; at most [`BLOB_BYTES_MAX`](crate::manifest::BLOB_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// [`StoreError::ManifestExists`], and whatever the files say.
    pub async fn create(
        files: F,
        settings: SortedSettings,
        store: u64,
        lane: u32,
        blob: Vec<u8>,
    ) -> Result<Self, StoreError> {
        if files.list().await?.iter().any(|name| name == manifest::NAME) {
            return Err(StoreError::ManifestExists);
        }
        let manifest =
            Manifest { store, lane, edit: 1, next_segment: 1, flushed_position: 0, segments: Vec::new(), blob };
        manifest::replace(&files, &manifest).await.map_err(ReplaceError::into_file_error)?;
        Ok(Self { inner: Rc::new(Inner::new(files, settings, manifest)) })
    }

    /// Opens what the manifest names, and removes leftovers of interrupted edits.
    ///
    /// # Errors
    /// [`StoreError::ManifestMissing`] in a new folder, [`StoreError::Damaged`] or [`StoreError::NewerVersion`] if the manifest
    /// cannot be used, [`StoreError::SegmentMissing`], [`StoreError::ForeignStore`]. Nothing was changed then. A segment with a
    /// damaged footer, index or filter does not fail the opening: see [`OpenReport::damaged`].
    pub async fn open(files: F, settings: SortedSettings) -> Result<(Self, OpenReport), StoreError> {
        let (sorted, mut report) = Self::open_as_it_is(files, settings).await?;
        report.removed = sorted.remove_leftovers().await?;
        Ok((sorted, report))
    }

    /// As [`Sorted::open`], but leftovers stay: nothing is changed. For a caller who has more to look at first, and calls
    /// [`Sorted::remove_leftovers`] before any edit.
    ///
    /// # Errors
    /// As [`Sorted::open`].
    pub async fn open_as_it_is(files: F, settings: SortedSettings) -> Result<(Self, OpenReport), StoreError> {
        let manifest = manifest::read(&files).await?;
        let inner = Inner::new(files, settings, manifest);
        let manifest = Rc::clone(&inner.state.borrow().manifest);
        let mut report = OpenReport::default();
        let mut runs = Vec::with_capacity(manifest.segments.len());
        let inner_of = &inner;
        let opening = manifest.segments.iter().map(async |entry| {
            let context = &inner_of.class_of(&entry.first_key).context;
            (entry, open_segment(context, entry).await)
        });
        let mut opened = Box::pin(stream::iter(opening).buffered(SEGMENTS_OPENED_AT_ONCE));
        while let Some((entry, opened)) = opened.next().await {
            runs.push(match opened {
                Ok(reader) => Run::Segment(reader),
                Err(StoreError::Damaged { file, offset, what, .. }) => {
                    // The manifest knows better than a damaged file which keys are concerned.
                    let keys = DamagedKeys::between(&entry.first_key, &entry.last_key);
                    let error = StoreError::Damaged { file, offset, what, keys };
                    report.damaged.push(error.clone());
                    Run::Damaged { entry: entry.clone(), error }
                }
                Err(error) => return Err(error),
            });
        }
        drop(opened);
        inner.state.borrow_mut().runs = Rc::new(Runs::new(runs));
        Ok((Self { inner: Rc::new(inner) }, report))
    }

    /// The store is encrypted, with these keys. Once, before anything is flushed or read.
    pub(crate) fn set_vault(&self, vault: Arc<Vault>) {
        let mut state = self.inner.state.borrow_mut();
        state.runs = Rc::new(Runs::new(state.runs.newest_first().to_vec()).with_vault(Some(Arc::clone(&vault))));
        assert!(self.inner.vault.set(vault).is_ok(), "a store has one vault");
    }

    /// Removes leftovers of interrupted edits, and gives their names.
    ///
    /// # Errors
    /// Whatever the files say.
    pub async fn remove_leftovers(&self) -> Result<Vec<String>, StoreError> {
        remove_leftovers(&self.inner.class.context.files, &self.manifest()).await
    }

    /// The manifest as it is on disk.
    #[must_use]
    pub fn manifest(&self) -> Rc<Manifest> {
        Rc::clone(&self.inner.state.borrow().manifest)
    }

    /// Damaged data blocks that reads and merges have met, each as often as it was met.
    #[must_use]
    pub fn damaged_blocks(&self) -> u64 {
        self.inner.class.context.damaged_blocks.get()
    }

    /// The runs as they are now. Hold the view for as long as a read lasts, not longer: it keeps replaced files on disk.
    #[must_use]
    pub fn runs(&self) -> Rc<Runs<F>> {
        Rc::clone(&self.inner.state.borrow().runs)
    }

    /// Writes `rows`, in strictly ascending order of keys, as the newest run, and `mark` with it in one step. With no rows only
    /// the mark is written. The rows are taken lazily, so that a large memtable is not copied. Flushes take effect in the order of
    /// their calls.
    ///
    /// # Errors
    /// Whatever the files say; nothing has changed then and the rows' log records must be kept.
    ///
    /// # Panics
    /// If keys do not ascend, or a key or value is beyond its limit, or `flushed_position` goes back.
    pub async fn flush<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        rows: impl IntoIterator<Item = (K, Change<V>)>,
        mark: FlushMark,
    ) -> Result<Option<SegmentId>, StoreError> {
        self.flush_from(&mut OwnedRows::new(rows.into_iter()), mark).await
    }

    /// As [`Sorted::flush`], from rows that are lent.
    ///
    /// # Errors
    /// As [`Sorted::flush`].
    ///
    /// # Panics
    /// As [`Sorted::flush`].
    pub async fn flush_from(
        &self,
        rows: &mut impl RowSource,
        mark: FlushMark,
    ) -> Result<Option<SegmentId>, StoreError> {
        let inner = &*self.inner;
        let _turn = inner.flushing.lock().await;
        let outputs = inner.flush_outputs(|class| class.context.clone());
        let written = write_flush(&outputs, rows, mark.flush_times(), inner.seal()).await?;
        inner.finish_flush(written, mark).await
    }

    /// As [`Sorted::flush`], written where [`Files::elsewhere`] has it written.
    ///
    /// # Errors
    /// As [`Sorted::flush`].
    ///
    /// # Panics
    /// As [`Sorted::flush`].
    pub async fn flush_elsewhere(
        &self,
        source: impl FlushSource,
        mark: FlushMark,
    ) -> Result<Option<SegmentId>, StoreError> {
        let inner = &*self.inner;
        let _turn = inner.flushing.lock().await;
        let store = inner.class.context.store;
        let targets = inner.flush_outputs(|class| class.context.settings);
        let (id, times, seal) = (targets.id, mark.flush_times(), inner.seal());
        let write = async move |files: F| {
            let outputs = targets.map(|settings| context_elsewhere(files.clone(), store, settings));
            write_flush(&outputs, &mut source.rows(), times, seal).await
        };
        let files = &inner.class.context.files;
        let written = files.elsewhere(Urgency::Soon, write).await.ok_or_else(|| given_up(id))??;
        inner.finish_flush(written, mark).await
    }

    /// What [`Sorted::compact`] would merge now; or, if nothing, an adopted segment that it would rewrite without rows that do not count.
    #[must_use]
    pub fn choose(&self) -> Option<Choice> {
        let state = self.inner.state.borrow();
        let newest_first = state.runs.newest_first();
        // Those apart first: they are few bytes, so that the others do not wait for long.
        let apart = self.inner.apart.iter().map(|(_, class)| (class, true));
        let classes: Vec<_> = apart.chain([(&self.inner.class, false)]).collect();
        let of_classes = classes.iter().map(|(class, is_apart)| {
            let of_kind = newest_first.iter().enumerate();
            let of_kind = of_kind.filter(|(_, run)| self.inner.is_apart(run.bounds().0) == *is_apart);
            let (places, infos): (Vec<_>, Vec<_>) = of_kind.map(|(place, run)| (place, state.run_info(run))).unzip();
            (*class, places, infos)
        });
        let of_classes: Vec<_> = of_classes.collect();
        let placed = |places: &[usize], choice: Choice| Some(Choice { newest: *places.get(choice.newest)?, ..choice });
        let merged = of_classes
            .iter()
            .find_map(|(class, places, infos)| placed(places, compaction::choose(infos, &class.compaction)?));
        merged.or_else(|| {
            of_classes.iter().find_map(|(_, places, infos)| placed(places, compaction::choose_rewrite(infos)?))
        })
    }

    /// Merges what [`compaction::choose`] chooses; `Ok(None)` if it chooses nothing. One at a time: a second call while one runs
    /// gives `Ok(None)`. Flushes go on beside it.
    ///
    /// # Errors
    /// Whatever the files say, or damage in an input, which is left alone from then on; everything is as before then.
    pub async fn compact(
        &self,
        pace: impl Pace + Send + 'static,
        expiry: impl Expiry,
    ) -> Result<Option<Compacted>, StoreError> {
        let Some(choice) = self.choose() else { return Ok(None) };
        self.merge(choice, pace, expiry).await
    }

    /// Whether [`Sorted::drop_expired`] would drop anything.
    #[must_use]
    pub fn has_expired(&self, expiry: impl Expiry) -> bool {
        let state = self.inner.state.borrow();
        state.runs.newest_first().iter().any(|run| is_covered(run, &expiry).is_some())
    }

    /// Drops the segments of which every row has outlived its use, by an edit of the manifest alone, and gives their number. Does nothing
    /// while a merge runs.
    ///
    /// # Errors
    /// Whatever the files say; everything is as before then.
    pub async fn drop_expired(&self, expiry: impl Expiry) -> Result<usize, StoreError> {
        let inner = &*self.inner;
        let Some(_compacting) = Released::take(&inner.compacting) else { return Ok(0) };
        let gone: Vec<SegmentReader<F>> = {
            let state = inner.state.borrow();
            state.runs.newest_first().iter().filter_map(|run| is_covered(run, &expiry).cloned()).collect()
        };
        if gone.is_empty() {
            return Ok(0);
        }
        let count = gone.len();
        let edit = |state: &State<F>, manifest: &mut Manifest| {
            let is_gone = |id: SegmentId| gone.iter().any(|reader| reader.id() == id);
            manifest.segments.retain(|entry| !is_gone(entry.id));
            let runs = state.runs.newest_first().iter().filter(|run| !is_gone(run.id())).cloned().collect();
            (runs, gone)
        };
        inner.edit(&[], edit).await?;
        Ok(count)
    }

    /// Merges a window of runs that the caller chose: the run at `newest`, and those of its kind after it, `count` in all. As
    /// [`Sorted::compact`] otherwise.
    ///
    /// # Errors
    /// As [`Sorted::compact`].
    ///
    /// # Panics
    /// If there is no such window of readable runs.
    pub async fn merge(
        &self,
        choice: Choice,
        pace: impl Pace + Send + 'static,
        expiry: impl Expiry,
    ) -> Result<Option<Compacted>, StoreError> {
        let inner = &*self.inner;
        let Some(_compacting) = Released::take(&inner.compacting) else { return Ok(None) };
        let inputs: Vec<SegmentReader<F>> = {
            let state = inner.state.borrow();
            let runs = state.runs.newest_first().get(choice.newest..).expect("the window is of the present runs");
            let kind = runs.first().map(|run| inner.is_apart(run.bounds().0));
            let of_kind = runs.iter().filter(|run| Some(inner.is_apart(run.bounds().0)) == kind);
            let readers = of_kind.take(choice.count).map(|run| match run {
                Run::Segment(reader) => reader.clone(),
                Run::Damaged { .. } => panic!("damaged runs are not merged"),
            });
            readers.collect()
        };
        assert_eq!(inputs.len(), choice.count, "the window is of the present runs");
        let compacted = inner.merge(&inputs, choice.reaches_oldest, pace, expiry).await?;
        // The merge itself was the last to hold them, unless readers do.
        drop(inputs);
        inner.remove_unused().await;
        Ok(Some(compacted))
    }

    /// Removes the files of replaced segments that no reader holds any more; also done after each edit. Gives the number that are
    /// left.
    pub async fn remove_unused(&self) -> usize {
        self.inner.remove_unused().await
    }
}

/// The segment, if every row of it has outlived its use.
fn is_covered<'a, F: Files>(run: &'a Run<F>, expiry: &impl Expiry) -> Option<&'a SegmentReader<F>> {
    let Run::Segment(reader) = run else { return None };
    let statistics = reader.statistics();
    expiry.covers(&statistics.first_key, &statistics.last_key, statistics.times).then_some(reader)
}

/// Clears its flag when it goes, also with a future that is dropped.
struct Released<'a>(&'a Cell<bool>);

impl<'a> Released<'a> {
    /// Sets the flag; `None` if it was set.
    fn take(flag: &'a Cell<bool>) -> Option<Self> {
        // Made only if it was not set: one that goes clears it.
        (!flag.replace(true)).then(|| Self(flag))
    }
}

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<F: Files> Inner<F> {
    /// Without its segments, which are opened next.
    fn new(files: F, settings: SortedSettings, manifest: Manifest) -> Self {
        let context = SegmentContext::new(files, settings.cache, manifest.store, settings.segment);
        let apart = settings.apart.map(|apart| {
            let mut context = context.clone().with_filters(apart.filters);
            context.settings = apart.segment;
            (apart.holds, Class { context, compaction: apart.compaction })
        });
        let state = State {
            next_segment: manifest.next_segment,
            manifest: Rc::new(manifest),
            runs: Rc::new(Runs::new(Vec::new())),
            unmergeable: Vec::new(),
            retired: Vec::new(),
            reclaiming: None,
            orphans: Vec::new(),
        };
        Self {
            class: Class { context, compaction: settings.compaction },
            apart,
            flushing: Mutex::new(()),
            editing: Mutex::new(()),
            edit_under_way: Cell::new(false),
            compacting: Cell::new(false),
            vault: OnceCell::new(),
            state: RefCell::new(state),
        }
    }

    fn is_apart(&self, key: &[u8]) -> bool {
        self.apart.as_ref().is_some_and(|(holds, _)| holds(key))
    }

    /// How a segment that begins with this key is written and read.
    fn class_of(&self, first_key: &[u8]) -> &Class<F> {
        match &self.apart {
            Some((holds, class)) if holds(first_key) => class,
            _ => &self.class,
        }
    }

    /// Numbers for what a flush writes, and what goes with them.
    fn flush_outputs<T>(&self, of: impl Fn(&Class<F>) -> T) -> FlushOutputs<T> {
        let id = self.take_segment_id();
        let apart = self.apart.as_ref().map(|(holds, class)| (*holds, of(class), self.take_segment_id()));
        FlushOutputs { id, target: of(&self.class), apart }
    }

    fn seal(&self) -> Option<Seal> {
        self.vault.get().map(Vault::seal)
    }

    fn take_segment_id(&self) -> SegmentId {
        let mut state = self.state.borrow_mut();
        let id = SegmentId(state.next_segment);
        state.next_segment += 1;
        id
    }

    /// Makes a flush's segments, if there are any, and its mark known.
    async fn finish_flush(
        &self,
        statistics: Vec<SegmentStatistics>,
        mark: FlushMark,
    ) -> Result<Option<SegmentId>, StoreError> {
        let ids: Vec<SegmentId> = statistics.iter().map(|statistics| statistics.id).collect();
        let mut written = Vec::with_capacity(ids.len());
        for statistics in statistics {
            match self.open_output(statistics, 0).await {
                Ok(output) => written.push(output),
                Err(error) => {
                    self.remove_files(&ids).await;
                    return Err(error);
                }
            }
        }
        let edit = |state: &State<F>, manifest: &mut Manifest| {
            assert!(mark.flushed_position >= manifest.flushed_position, "the flushed position goes back");
            manifest.flushed_position = mark.flushed_position;
            if let Some(blob) = mark.blob {
                manifest.blob = blob;
            }
            let (entries, mut runs): (Vec<_>, Vec<_>) =
                written.into_iter().map(|(entry, reader)| (entry, Run::Segment(reader))).unzip();
            manifest.segments.splice(0..0, entries);
            runs.extend(state.runs.newest_first().iter().cloned());
            (runs, Vec::new())
        };
        self.edit(&ids, edit).await?;
        Ok(ids.first().copied())
    }

    /// Opens a segment that was just written: it must be readable before anything that it replaces goes.
    async fn open_output(
        &self,
        statistics: SegmentStatistics,
        level: u32,
    ) -> Result<(SegmentEntry, SegmentReader<F>), StoreError> {
        let entry = SegmentEntry::new(&statistics, level);
        match open_segment(&self.class_of(&entry.first_key).context, &entry).await {
            Ok(reader) => {
                reader.warm().await;
                Ok((entry, reader))
            }
            Err(error) => {
                self.remove_files(&[entry.id]).await;
                Err(error)
            }
        }
    }

    /// Removes files that no manifest names. Should that fail, the next opening of the store does it.
    async fn remove_files(&self, ids: &[SegmentId]) {
        for id in ids {
            self.class.context.files.remove(&id.file_name()).await.ok();
        }
    }

    async fn merge(
        &self,
        inputs: &[SegmentReader<F>],
        drops_deletes: bool,
        pace: impl Pace + Send + 'static,
        expiry: impl Expiry,
    ) -> Result<Compacted, StoreError> {
        let output = self.take_segment_id();
        let entries = self.entries_of(inputs);
        let class = entries.first().map_or(&self.class, |entry| self.class_of(&entry.first_key));
        let (store, settings) = (class.context.store, class.context.settings);
        let level = entries.iter().map(|entry| entry.level).max().unwrap_or(0) + 1;
        let merge = async move |files: F| {
            let context = context_elsewhere(files, store, settings);
            let merged = merge_segments(&context, &entries, output, drops_deletes, pace, expiry).await;
            (merged, context.damaged_blocks.get())
        };
        let merged = class.context.files.elsewhere(Urgency::Whenever, merge).await;
        let (merged, damaged_blocks) = merged.ok_or_else(|| given_up(output))?;
        let met = &class.context.damaged_blocks;
        met.set(met.get() + damaged_blocks);
        let (statistics, compacted) = merged.inspect_err(|error| self.note_unmergeable(inputs, error))?;
        let written = match statistics {
            Some(statistics) => Some(self.open_output(statistics, level).await?),
            None => None,
        };
        let ids: Vec<SegmentId> = written.iter().map(|(entry, _)| entry.id).collect();
        let edit = |state: &State<F>, manifest: &mut Manifest| {
            // Flushes may have come on top meanwhile, but only one merge at a time replaces runs. What is between the inputs is of the
            // other kind, and may be older or newer than the output.
            let is_input = |id: SegmentId| inputs.iter().any(|input| input.id() == id);
            let at = manifest.segments.iter().position(|entry| is_input(entry.id));
            let at = at.expect("only one merge at a time replaces runs");
            let (entry, run) = written.map(|(entry, reader)| (entry, Run::Segment(reader))).unzip();
            manifest.segments.retain(|entry| !is_input(entry.id));
            manifest.segments.splice(at..at, entry);
            let mut runs = state.runs.newest_first().to_vec();
            runs.retain(|run| !is_input(run.id()));
            runs.splice(at..at, run);
            (runs, inputs.to_vec())
        };
        self.edit(&ids, edit).await?;
        Ok(compacted)
    }

    /// Makes an edit: on disk first, then in memory. `written` are the new segments, removed again if the edit fails. `edit` gives the
    /// runs after it, and those that it replaces.
    async fn edit(
        &self,
        written: &[SegmentId],
        edit: impl FnOnce(&State<F>, &mut Manifest) -> (Vec<Run<F>>, Vec<SegmentReader<F>>),
    ) -> Result<(), StoreError> {
        let turn = self.editing.lock().await;
        if self.edit_under_way.replace(true) {
            return Err(StoreError::EditAbandoned);
        }
        let (manifest, runs, replaced) = {
            let state = self.state.borrow();
            let mut manifest = Manifest::clone(&state.manifest);
            let (runs, replaced) = edit(&state, &mut manifest);
            manifest.edit += 1;
            manifest.next_segment = state.next_segment;
            (manifest, runs, replaced)
        };
        let result = self.replace_manifest(&manifest, !written.is_empty()).await;
        self.edit_under_way.set(false);
        if let Err(error) = result {
            self.undo(written, &error).await;
            return Err(error.into_file_error().into());
        }
        {
            let mut state = self.state.borrow_mut();
            state.manifest = Rc::new(manifest);
            state.runs = Rc::new(Runs::new(runs).with_vault(self.vault.get().cloned()));
            for reader in &replaced {
                let context = &self.class_of(&reader.statistics().first_key).context;
                context.cache.forget(reader.id());
                context.filters.forget(reader.id());
            }
            state.retired.extend(replaced);
        }
        drop(turn);
        self.remove_orphans().await;
        self.remove_unused().await;
        Ok(())
    }

    async fn replace_manifest(&self, manifest: &Manifest, has_new_file: bool) -> Result<(), ReplaceError> {
        if has_new_file {
            // The new segment's name must be durable before the manifest's that speaks of it.
            self.class.context.files.sync_folder().await.map_err(ReplaceError::Before)?;
        }
        manifest::replace(&self.class.context.files, manifest).await
    }

    /// After a failed edit the new files go, unless the manifest on disk may name them.
    async fn undo(&self, written: &[SegmentId], error: &ReplaceError) {
        match error {
            ReplaceError::Before(_) => self.remove_files(written).await,
            ReplaceError::Unknown(_) => self.state.borrow_mut().orphans.extend(written),
        }
    }

    async fn remove_orphans(&self) {
        let orphans = std::mem::take(&mut self.state.borrow_mut().orphans);
        self.remove_files(&orphans).await;
    }

    async fn remove_unused(&self) -> usize {
        let unused: Vec<SegmentReader<F>> = {
            let mut state = self.state.borrow_mut();
            let (used, unused) = std::mem::take(&mut state.retired).into_iter().partition(SegmentReader::is_shared);
            state.retired = used;
            unused
        };
        for reader in unused {
            let id = reader.id();
            drop(reader);
            self.remove_files(&[id]).await;
        }
        self.state.borrow().retired.len()
    }

    /// What the manifest says of these segments, in its order.
    fn entries_of(&self, inputs: &[SegmentReader<F>]) -> Vec<SegmentEntry> {
        let state = self.state.borrow();
        let of_inputs = |entry: &&SegmentEntry| inputs.iter().any(|input| input.id() == entry.id);
        state.manifest.segments.iter().filter(of_inputs).cloned().collect()
    }

    /// Damage stays, so a merge that has met it is not tried again.
    fn note_unmergeable(&self, inputs: &[SegmentReader<F>], error: &StoreError) {
        let StoreError::Damaged { file, .. } = error else { return };
        let damaged = inputs.iter().map(SegmentReader::id).filter(|id| id.file_name() == *file);
        self.state.borrow_mut().unmergeable.extend(damaged);
    }
}

/// For a job that another thread may run: it reads past the cache.
fn context_elsewhere<F: Files>(files: F, store: u64, settings: SegmentSettings) -> SegmentContext<F> {
    SegmentContext::new(files, Cache::new(0), store, settings)
}

fn given_up(output: SegmentId) -> StoreError {
    StoreError::File(FileError::Io { name: output.file_name(), text: "its writing was given up".to_owned() })
}

/// Writes what some segments come to, newest first.
async fn merge_segments<F: Files>(
    context: &SegmentContext<F>,
    newest_first: &[SegmentEntry],
    output: SegmentId,
    drops_deletes: bool,
    pace: impl Pace,
    expiry: impl Expiry,
) -> Result<(Option<SegmentStatistics>, Compacted), StoreError> {
    let mut inputs = Vec::with_capacity(newest_first.len());
    for entry in newest_first {
        inputs.push(open_segment(context, entry).await?);
    }
    Job { context, newest_first: &inputs, output, drops_deletes, expiry }.run(&pace).await
}

/// Opens a segment and holds it against what the manifest says of it.
pub(crate) async fn open_segment<F: Files>(
    context: &SegmentContext<F>,
    entry: &SegmentEntry,
) -> Result<SegmentReader<F>, StoreError> {
    let reader = SegmentReader::open_adopted(context, entry.id, entry.adopted).await?;
    if entry.is_of(reader.statistics()) {
        Ok(reader)
    } else {
        Err(reader.damaged_whole("is not the segment that the manifest names"))
    }
}

/// Removes temporary manifests and segments that the manifest does not name; nothing whose name is not exactly ours.
async fn remove_leftovers<F: Files>(files: &F, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
    let mut removed = Vec::new();
    for name in files.list().await? {
        let leftover = match SegmentId::from_file_name(&name) {
            Some(id) => !manifest.segments.iter().any(|entry| entry.id == id),
            None => name == manifest::TEMPORARY_NAME,
        };
        if leftover {
            files.remove(&name).await?;
            removed.push(name);
        }
    }
    if !removed.is_empty() {
        // Their names may be used again, so they must not come back.
        files.sync_folder().await?;
    }
    removed.sort_unstable();
    Ok(removed)
}
