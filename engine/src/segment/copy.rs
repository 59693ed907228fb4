//! Copying a segment into another store, under that store's identity.
//!
//! Header and footer name the store, and are made anew; blocks do not, and are copied as they are. A segment that was adopted names another
//! store already, and all of it stays as it is. Whoever copies has verified the source: nothing but the two pages is looked at here.

use super::{
    format::{self, Footer},
    reader::read_ends,
};
use crate::{
    error::StoreError,
    manifest::SegmentEntry,
    seams::{File, Files, OpenMode, PAGE_BYTES},
};

/// How much is copied at a time: the disk's full speed, and no more memory than that.
const COPY_BYTES: u64 = 1024 * 1024;

/// Copies a segment of `from`'s store to `to`'s, durably but for its name.
///
/// # Errors
/// [`StoreError::Damaged`] if header or footer are not those of this segment of `from.1`, and whatever the files say.
pub(crate) async fn copy_segment<S: Files, T: Files>(
    from: (&S, u64),
    to: (&T, u64),
    entry: &SegmentEntry,
) -> Result<(), StoreError> {
    let (id, name) = (entry.id, entry.id.file_name());
    let keeps_identity = entry.adopted.is_some();
    let source = from.0.open(&name, OpenMode::Read).await?;
    let footer = read_ends(&source, id, entry.origin(from.1)).await?;
    let target = to.0.open(&name, OpenMode::Create).await?;
    let bytes = source.size_bytes();
    let mut offset = 0;
    while offset < bytes {
        let length = (bytes - offset).min(COPY_BYTES) as usize;
        let mut buffer = source.read_at(offset, length).await?;
        if offset == 0 && !keeps_identity {
            format::encode_header(id, to.1, &mut buffer[..PAGE_BYTES]);
        }
        if offset + length as u64 == bytes && !keeps_identity {
            let footer = Footer { store: to.1, ..footer.clone() };
            footer.encode(&mut buffer[length - PAGE_BYTES..length]);
        }
        target.write_at(offset, buffer).await.1?;
        offset += length as u64;
    }
    target.sync().await?;
    Ok(())
}
