//! What each byte of a file is, by docs/format.md.

use std::ops::Range;

pub(crate) const PAGE: usize = 4096;

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    Manifest,
    ManifestPadding,
    SegmentHeader,
    Data,
    Index,
    Filter,
    /// A filter block of a segment that has an index of them: the data tells without it.
    FilterPart,
    SegmentPadding,
    SegmentFooter,
    /// A batch with records that segments do not hold.
    Batch,
    /// A batch whose records segments hold, the first of the log.
    FirstBatchInSegments,
    /// Another one.
    BatchInSegments,
    /// A seal that another batch follows.
    Seal,
    /// The log's last batch, a seal.
    LastSeal,
    BatchPadding,
    /// What is behind a file's last batch: zeros, or what an older generation left.
    Beyond,
    /// The batch that says that a file was never used.
    Blank,
}

fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The regions of a file: they follow each other without a gap.
pub(crate) type Regions = Vec<(Range<usize>, Region)>;

/// The regions of all files, by name.
pub(crate) fn regions(files: &[(String, Vec<u8>)]) -> Vec<(String, Regions)> {
    let manifest = &files.iter().find(|(name, _)| name == "manifest").unwrap().1;
    let flushed = number(manifest, 56, 8);
    let generation = |bytes: &[u8]| number(bytes, 32, 8);
    let logs = || files.iter().filter(|(name, _)| name.starts_with("log-")).map(|(_, bytes)| generation(bytes));
    let (oldest, newest) = (logs().filter(|of| *of > 0).min().unwrap(), logs().max().unwrap());
    let of_file = |(name, bytes): &(String, Vec<u8>)| {
        let found = match name.as_str() {
            "manifest" => {
                let length = number(bytes, 12, 4);
                vec![(0..length, Region::Manifest), (length..bytes.len(), Region::ManifestPadding)]
            }
            name if name.starts_with("segment-") => segment(bytes),
            _ => log(bytes, flushed, generation(bytes) == oldest, generation(bytes) == newest),
        };
        let mut end = 0;
        for (range, _) in &found {
            assert_eq!(range.start, end, "{name}: {found:?}");
            end = range.end;
        }
        assert_eq!(end, bytes.len(), "{name}: {found:?}");
        (name.clone(), found)
    };
    files.iter().map(of_file).collect()
}

fn segment(bytes: &[u8]) -> Regions {
    let last = bytes.len() - PAGE;
    let [index, filter, end] = [32, 40, 48].map(|at| number(bytes, last + at, 8));
    let keys = [120, 124].map(|at| number(bytes, last + at, 4));
    let filter_index = number(bytes, last + 128 + keys[0] + keys[1], 8);
    let mut found = vec![(0..PAGE, Region::SegmentHeader)];
    let mut at = PAGE;
    while at < end {
        let next = at + 16 + number(bytes, at + 4, 4);
        let region = if at < index {
            Region::Data
        } else if at < filter {
            Region::Index
        } else if at < filter_index {
            Region::FilterPart
        } else {
            // Or the index of its parts, which is read as it is.
            Region::Filter
        };
        found.push((at..next, region));
        at = next;
    }
    found.extend([(end..last, Region::SegmentPadding), (last..bytes.len(), Region::SegmentFooter)]);
    found
}

fn log(bytes: &[u8], flushed: usize, is_oldest: bool, is_newest: bool) -> Regions {
    let generation = number(bytes, 32, 8);
    let mut found = Vec::new();
    let mut at = 0;
    while bytes.get(at..at + 8) == Some(b"ANTILOG\n") && number(bytes, at + 32, 8) == generation {
        let end = at + number(bytes, at + 12, 4);
        let next = end.next_multiple_of(PAGE);
        let records = number(bytes, at + 48, 4);
        let follows = bytes.get(next..next + 8) == Some(b"ANTILOG\n") && number(bytes, next + 32, 8) == generation;
        let in_segments = number(bytes, at + 40, 8) + records <= flushed + 1;
        let region = match records {
            _ if generation == 0 => Region::Blank,
            0 if is_newest && !follows => Region::LastSeal,
            _ if in_segments && is_oldest && at == 0 => Region::FirstBatchInSegments,
            0 => Region::Seal,
            _ if in_segments => Region::BatchInSegments,
            _ => Region::Batch,
        };
        found.extend([(at..end, region), (end..next, Region::BatchPadding)]);
        at = next;
    }
    found.push((at..bytes.len(), Region::Beyond));
    found
}
