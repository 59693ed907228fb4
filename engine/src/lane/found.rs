//! Which generation each log file is of, told from as little as tells it.
//!
//! A file's first batch says it, unless the first write of a newer generation went elsewhere: then an older one is left there. That is
//! looked for where anything hints at it ([`look_at`]), in the file's first [`BATCH_BYTES_LIMIT`], where a second batch begins at the
//! latest. A file whose first page is broken is looked through.

use std::rc::Rc;

use futures_util::future::{join, join_all};

use crate::{
    error::StoreError,
    lane::{
        format::{BATCH_BYTES_LIMIT, Fault, VERSION},
        limit::Limit,
        log::{LogFile, number_of},
        recovery::Settings,
        window::{Checked, Window},
    },
    seams::{File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// A log file and the newest generation that it holds.
pub(super) struct Found<F> {
    pub(super) log_file: LogFile<F>,
    /// 0 if it holds no batch.
    pub(super) generation: u64,
    /// First position of its first batch of that generation.
    pub(super) first: u64,
    /// The beginning, if it is not a batch but looks like one of ours.
    pub(super) torn: Option<(Fault, u64)>,
    /// What its last page says, and of which generation.
    told: Option<(u64, Limit)>,
    bytes_read: u64,
}

impl<F: File> Found<F> {
    /// What the last page says of the generation that the file is of.
    pub(super) fn limit(&self) -> Option<&Limit> {
        self.told.as_ref().filter(|(generation, _)| *generation == self.generation).map(|(_, limit)| limit)
    }

    async fn identify(log_file: LogFile<F>, settings: &Settings<'_>) -> Result<Self, StoreError> {
        let (first, told) = join(first_batch(&log_file, settings), told(&log_file, settings)).await;
        let (FirstBatch { generation, first, torn, bytes_read }, told) = (first?, told?);
        Ok(Self { log_file, generation, first, torn, told, bytes_read: bytes_read + PAGE_BYTES as u64 })
    }

    /// Where the first batch of a newer generation never arrived, an older one is left. The second begins within the largest.
    async fn look_further(&mut self, settings: &Settings<'_>) -> Result<(), StoreError> {
        let mut window = Window::new(&self.log_file, 0, 0);
        let newest = newest(&mut window, settings, BATCH_BYTES_LIMIT as u64).await?;
        self.bytes_read += window.bytes_read;
        if let Some(newest) = newest.filter(|newest| newest.header.generation > self.generation) {
            (self.generation, self.first) = (newest.header.generation, newest.header.first);
        }
        Ok(())
    }
}

struct FirstBatch {
    generation: u64,
    first: u64,
    torn: Option<(Fault, u64)>,
    bytes_read: u64,
}

async fn first_batch<F: File>(log_file: &LogFile<F>, settings: &Settings<'_>) -> Result<FirstBatch, StoreError> {
    let mut window = Window::new(log_file, 0, 0);
    let name = &log_file.name;
    let checked = window.batch(0).await?.map(|batch| batch.header);
    let (generation, first, torn) = match checked {
        Ok(header) if header.salt != settings.salt || header.lane != settings.lane => {
            return Err(foreign(name, header.salt, settings));
        }
        Ok(header) => (header.generation, header.first, None),
        Err(Fault::Newer { version, salt }) if salt == settings.salt => return Err(newer(name, version)),
        Err(Fault::Newer { salt, .. }) => return Err(foreign(name, salt, settings)),
        Err(fault) => {
            // A new generation's first write that did not complete, over an old generation or nothing; or damage.
            let torn = window.generation_claimed(0, settings.salt).await?.map(|generation| (fault, generation));
            let newest = newest(&mut window, settings, u64::MAX).await?;
            let (generation, first) = newest.map_or((0, 0), |of| (of.header.generation, of.header.first));
            (generation, first, torn)
        }
    };
    Ok(FirstBatch { generation, first, torn, bytes_read: window.bytes_read })
}

/// What the last page says.
async fn told<F: File>(log_file: &LogFile<F>, settings: &Settings<'_>) -> Result<Option<(u64, Limit)>, FileError> {
    if log_file.room() == 0 {
        return Ok(None);
    }
    let page = log_file.file.read_at(log_file.room(), PAGE_BYTES).await?;
    Ok(Limit::decode(&page, settings.lane, settings.salt).filter(|(_, limit)| limit.end <= log_file.room()))
}

/// Looks for the first batch of the newest generation among those that begin in the file's first `bytes` or right behind.
async fn newest<F: File>(
    window: &mut Window<'_, F>,
    settings: &Settings<'_>,
    bytes: u64,
) -> Result<Option<Checked>, FileError> {
    window.read_ahead(bytes);
    let mut newest: Option<Checked> = None;
    let mut offset = 0;
    while offset < window.file_bytes() && offset <= bytes {
        match window.batch(offset).await?.map(|batch| Checked::of(&batch)) {
            Ok(batch) if batch.header.salt == settings.salt && batch.header.lane == settings.lane => {
                if newest.is_none_or(|newest| newest.header.generation < batch.header.generation) {
                    newest = Some(batch);
                }
                offset += batch.padded;
            }
            _ => offset += PAGE_BYTES as u64,
        }
    }
    Ok(newest)
}

async fn open<F: Files>(files: &F, name: &str) -> Result<LogFile<F::File>, FileError> {
    let file = Rc::new(files.open(name, OpenMode::Log).await?);
    let bytes = file.size_bytes() / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    Ok(LogFile { name: name.to_owned(), file, bytes })
}

/// Finds out what the log files among `names` are, in the order in which they are to be read, and how many bytes that took.
pub(super) async fn look_at<F: Files>(
    files: &F,
    names: &[String],
    settings: &Settings<'_>,
) -> Result<(Vec<Found<F::File>>, u64), StoreError> {
    let mut names: Vec<_> = names.iter().filter_map(|name| Some((number_of(name)?, name))).collect();
    names.sort_unstable();
    let look = names.into_iter().map(async |(_, name)| Found::identify(open(files, name).await?, settings).await);
    let mut found = join_all(look).await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
    sort(&mut found);
    if settings.whole || !tells_all(&found, settings) {
        let further = found.iter_mut().filter(|found| found.torn.is_none()).map(|found| found.look_further(settings));
        join_all(further).await.into_iter().collect::<Result<(), StoreError>>()?;
        sort(&mut found);
    }
    let bytes_read = found.iter().map(|found| found.bytes_read).sum();
    Ok((found, bytes_read))
}

/// Two of one generation are possible if a batch was written to the beginning of a wrong file: then the one that begins earlier is it.
fn sort<F>(found: &mut [Found<F>]) {
    found.sort_by_key(|found| (found.generation, found.first));
}

/// Whether no file can be of a newer generation than its first batch says. Generations are given out one by one and files go round, so a
/// file that hides one leaves a gap, or hides the newest. The newest is not hidden if the one before it cannot be full: the limit, which
/// nothing acknowledged went beyond, leaves room for any batch; and if no file's last page is of a newer generation than its first batch.
fn tells_all<F: File>(found: &[Found<F>], settings: &Settings<'_>) -> bool {
    let used = || found.iter().filter(|found| found.generation > 0);
    let (Some(oldest), Some(newest)) = (used().next(), used().next_back()) else { return false };
    let has_gap = used().zip(used().skip(1)).any(|(one, next)| one.generation + 1 != next.generation);
    let has_room = |limit: &Limit| limit.end.saturating_add(BATCH_BYTES_LIMIT as u64) <= newest.log_file.room();
    let is_hinted = found.iter().any(|found| found.told.as_ref().is_some_and(|(told, _)| *told > found.generation));
    !has_gap && !is_hinted && oldest.first <= settings.flushed.saturating_add(1) && newest.limit().is_some_and(has_room)
}

/// A log file as its batches tell, without replaying them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surveyed {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// 0 if it was never used.
    pub(crate) generation: u64,
    /// From its beginning to the first that does not fit.
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Bytes of those batches, with padding.
    pub(crate) used: u64,
    /// Position of the first record.
    pub(crate) first: u64,
    /// Position of the last one; the one before `first` if there is none.
    pub(crate) last: u64,
}

/// Looks at all log files among `names`, the oldest generation first.
pub(crate) async fn survey<F: Files>(
    files: &F,
    names: &[String],
    settings: &Settings<'_>,
) -> Result<Vec<Surveyed>, StoreError> {
    let mut surveyed = Vec::new();
    for found in look_at(files, names, settings).await?.0 {
        let LogFile { name, bytes, .. } = found.log_file.clone();
        let (generation, first) = (found.generation, found.first);
        let last = first.saturating_sub(1);
        let mut of = Surveyed { name, bytes, generation, batches: 0, records: 0, used: 0, first, last };
        let mut window = Window::new(&found.log_file, 0, bytes);
        while generation > 0 && of.used < bytes {
            let Ok(batch) = window.batch(of.used).await?.map(|batch| Checked::of(&batch)) else { break };
            if batch.header.salt != settings.salt || batch.header.generation != generation {
                break;
            }
            of.batches += 1;
            of.records += u64::from(batch.header.records);
            of.used += batch.padded;
            of.last = batch.end.saturating_sub(1);
        }
        surveyed.push(of);
    }
    surveyed.sort_by(|one, other| (one.generation, &one.name).cmp(&(other.generation, &other.name)));
    Ok(surveyed)
}

fn foreign(file: &str, found: u64, settings: &Settings<'_>) -> StoreError {
    StoreError::ForeignStore { file: file.into(), found, expected: settings.salt }
}

pub(super) fn newer(file: &str, version: u16) -> StoreError {
    StoreError::NewerVersion { file: file.into(), found: u32::from(version), supported: u32::from(VERSION) }
}
