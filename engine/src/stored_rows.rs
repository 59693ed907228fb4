//! The rows of a store's segments as they stand there: for tests that look for what must not be on the disk, which a compressed block would
//! hide from a search for its bytes. Behind the feature `simulation`.
//!
//! Must not do: open what is sealed, or say which of several rows counts.

use crate::{
    cache::Cache,
    error::StoreError,
    manifest,
    row::{Direction, KeyRange},
    runs::{Run, Runs},
    seams::Files,
    segment::{KeyFilter, SegmentContext, SegmentId, SegmentReader, SegmentSettings},
};

/// A row that has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Where it stands.
    pub segment: SegmentId,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl StoredRow {
    /// Whether its key or its value has these bytes in it.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        [&self.key, &self.value].iter().any(|part| part.windows(bytes.len()).any(|window| window == bytes))
    }
}

/// All rows with a value in the segments that the manifest names, newest segment first.
///
/// # Errors
/// Those of reading the manifest and the segments.
pub async fn stored_rows<F: Files>(files: &F) -> Result<Vec<StoredRow>, StoreError> {
    let manifest = manifest::read(files).await?;
    let settings = SegmentSettings { filter: KeyFilter::NONE, ..SegmentSettings::default() };
    let context = SegmentContext::new(files.clone(), Cache::new(0), manifest.store, settings);
    let mut rows = Vec::new();
    for listed in &manifest.segments {
        let segment = listed.id;
        let reader = SegmentReader::open_adopted(&context, segment, listed.adopted).await?;
        let mut scan = Runs::new(vec![Run::Segment(reader)]).scan(&KeyRange::all(), Direction::Forward, None);
        while let Some(row) = scan.next().await? {
            rows.push(StoredRow { segment, key: row.key.to_vec(), value: row.value.to_vec() });
        }
    }
    Ok(rows)
}
