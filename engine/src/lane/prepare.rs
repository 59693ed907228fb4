//! Making log files: written with zeros once, so that later writes change no metadata and each is one trip to the disk.
//!
//! The file is made under another name and renamed when it is whole and durable; a crash leaves a leftover that the next opening
//! removes. Its first page says that it is empty, so that recovery need not look through it.

use std::rc::Rc;

use crate::{
    compaction::{Pace, YieldNow},
    lane::{
        format::{Builder, Header},
        log::LogFile,
        witness::Witness,
    },
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// What is written at once: large enough for the disk's full speed, small enough to let commits in between.
const CHUNK_BYTES: usize = 256 * 1024;

/// The ending of a file that is not whole yet.
pub(crate) const TEMPORARY_SUFFIX: &str = ".new";

/// Makes a log file of `bytes` bytes, ready for use.
pub(crate) async fn prepare<F: Files>(
    files: &F,
    name: String,
    bytes: u64,
    lane: u16,
    salt: u64,
) -> Result<LogFile<F::File>, FileError> {
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let made = fill(files, &temporary, bytes, lane, salt).await;
    if let Err(error) = made {
        // What there is takes room that may be what is missing. If removing fails too, the next opening does it.
        let _ = files.remove(&temporary).await;
        return Err(error);
    }
    files.rename(&temporary, &name).await?;
    files.sync_folder().await?;
    let file = files.open(&name, OpenMode::Log).await?;
    let bytes = file.size_bytes();
    Ok(LogFile { name, file: Rc::new(file), bytes })
}

async fn fill<F: Files>(files: &F, name: &str, bytes: u64, lane: u16, salt: u64) -> Result<(), FileError> {
    let file = match files.open(name, OpenMode::Create).await {
        Ok(file) => file,
        Err(_) => {
            // Most likely a leftover of an attempt that failed.
            files.remove(name).await?;
            files.open(name, OpenMode::Create).await?
        }
    };
    let header = Header { lane, chain: 0, salt, generation: 0, first: 0, records: 0 };
    let (blank, _) = Builder::new(PAGE_BYTES, Witness::default()).finish(&header);
    file.write_at(0, blank).await.1?;
    let mut offset = PAGE_BYTES as u64;
    let mut zeros = AlignedBuffer::zeroed(CHUNK_BYTES);
    while offset < bytes {
        zeros.resize((bytes - offset).min(CHUNK_BYTES as u64) as usize);
        let (buffer, written) = file.write_at(offset, zeros).await;
        written?;
        offset += buffer.len() as u64;
        zeros = buffer;
        YieldNow.pause().await;
    }
    file.sync().await
}
