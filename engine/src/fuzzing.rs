//! Entry points for fuzz targets: arbitrary bytes in, no panic and no lie out.
//!
//! They run over bytes in memory, with a [`Files`](crate::seams::Files) of their own that holds one file and cannot be written to.

use std::{
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::{
    cache::Cache,
    error::StoreError,
    hash::IdHash,
    lane::{format, log, recovery, sealed::Opener},
    manifest::{self, Manifest},
    row::{Direction, KeyRange, RowSource as _},
    runs::{Run, Runs},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode},
    segment::{self, KeyFilter, SegmentContext, SegmentId, SegmentReader, SegmentSettings},
};

/// The store that segments of the corpus belong to.
pub const STORE: u64 = 0x0123_4567_89ab_cdef;

/// The id that segments of the corpus have.
pub const SEGMENT: SegmentId = SegmentId(7);

/// Reads a manifest as it is and with its checksum mended; if it is one, it must encode to the same bytes.
pub fn fuzz_manifest(data: &[u8]) {
    let mut mended = data.to_vec();
    manifest::mend(&mut mended);
    for data in [data, &mended] {
        if let Ok(manifest) = Manifest::decode(data) {
            let encoded = manifest.encode();
            assert_eq!(Some(encoded.as_slice()), data.get(..encoded.len()), "a manifest has one form");
        }
    }
}

/// Opens a segment as it is and with its checksums mended, and reads all of it in every way.
pub fn fuzz_segment(data: &[u8]) {
    let mut mended = data.to_vec();
    segment::mend(SEGMENT, &mut mended);
    let mended_is_same = mended == data;
    now(read_everything(Rc::from(mended), mended_is_same));
    if !mended_is_same {
        now(read_everything(Rc::from(data), true));
    }
}

/// Recovers a log of one file with these bytes, as it is and with salts and checksums mended, over segments that hold nothing and
/// over some that hold a part; then gives what was found as rows.
pub fn fuzz_log(data: &[u8]) {
    let mut mended = data.to_vec();
    format::mend(&mut mended, STORE);
    for bytes in [data, &mended] {
        for (flushed, whole) in [(0, true), (3, true), (0, false), (3, false)] {
            let files = OneFile { bytes: Rc::from(bytes) };
            let settings = recovery::Settings {
                lane: 0,
                salt: STORE,
                flushed,
                file_bytes: bytes.len() as u64,
                hash: IdHash(STORE),
                whole,
                opener: Opener::Plain,
            };
            let Ok(recovered) = now(recovery::recover(&files, &[log::file_name(7)], settings)) else { continue };
            assert!(recovered.position >= flushed, "positions do not go back");
            assert!(recovered.report.damage.iter().all(|damage| damage.harmless || recovered.report.read_only));
            let mut last = Vec::new();
            let mut rows = recovered.memtable.rows();
            while let Some((key, _)) = rows.next() {
                assert!(last.as_slice() < key, "rows ascend");
                last = key.to_vec();
            }
        }
    }
}

/// `genuine` bytes have checksums that a writer made, so that what they say must hang together.
async fn read_everything(bytes: Rc<[u8]>, genuine: bool) {
    let settings = SegmentSettings { filter: KeyFilter::WHOLE_KEYS, ..SegmentSettings::default() };
    let context = SegmentContext::new(OneFile { bytes }, Cache::new(64 << 20), STORE, settings);
    let Ok(reader) = SegmentReader::open(&context, SEGMENT).await else { return };
    let verified = reader.verify().await.expect("no reads fail here");
    let forward = scan(&reader, Direction::Forward).await;
    let backward = scan(&reader, Direction::Backward).await;
    let (Ok(forward), Ok(mut backward)) = (forward, backward) else { return };
    backward.reverse();
    let intact = genuine && verified.damaged.is_empty();
    assert!(!intact || forward == backward, "both ways see the same");
    for key in forward {
        let found = reader.get(&key).await;
        assert!(!intact || matches!(found, Ok(Some(_))), "what is scanned is found");
    }
}

async fn scan(reader: &SegmentReader<OneFile>, direction: Direction) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut scan = Runs::new(vec![Run::Segment(reader.clone())]).scan(&KeyRange::all(), direction, None);
    let mut keys = Vec::new();
    while let Some(row) = scan.next().await? {
        keys.push(row.key.to_vec());
    }
    Ok(keys)
}

/// Runs a future that never has to wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("reads from memory do not wait"),
    }
}

/// A folder in which every name leads to the same bytes.
#[derive(Clone)]
struct OneFile {
    bytes: Rc<[u8]>,
}

impl OneFile {
    fn refused<T>() -> Result<T, FileError> {
        Err(FileError::Io { name: String::new(), text: "for reading only".to_owned() })
    }
}

impl Files for OneFile {
    type File = Self;

    async fn open(&self, _name: &str, _mode: OpenMode) -> Result<Self, FileError> {
        Ok(self.clone())
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        Ok(Vec::new())
    }

    async fn rename(&self, _from: &str, _to: &str) -> Result<(), FileError> {
        Self::refused()
    }

    async fn remove(&self, _name: &str) -> Result<(), FileError> {
        Self::refused()
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        Self::refused()
    }
}

impl File for OneFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let bytes = self.bytes.get(offset as usize..).unwrap_or_default();
        let length = bytes.len().min(length);
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(buffer)
    }

    async fn write_at(&self, _offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        (buffer, Self::refused())
    }

    async fn sync(&self) -> Result<(), FileError> {
        Self::refused()
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_corpus_and_its_mutations_do_no_harm() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/log");
        let mut seeds = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            fuzz_log(&bytes);
            for at in (0..bytes.len()).step_by(131) {
                let mut mutated = bytes.clone();
                mutated[at] ^= 1 << (at % 8);
                fuzz_log(&mutated);
                fuzz_log(&bytes[..at]);
            }
            seeds += 1;
        }
        assert!(seeds >= 4, "{seeds}");
    }
}
