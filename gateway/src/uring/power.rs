//! Cuts a file system off from its disk, as a power cut would: for tests, behind the feature `power-cuts`.
//!
//! Must not do: anything that a node needs.

use std::{fs::File, io, os::fd::AsRawFd};

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, u32)`.
const SHUTDOWN: libc::Ioctl = ((2_u64 << 30) | (4 << 16) | ((b'X' as u64) << 8) | 125) as libc::Ioctl;

/// At once, and what the journal holds in memory is lost (`EXT4_GOING_FLAGS_NOLOGFLUSH`,
/// `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`).
const WITHOUT_LOG: u32 = 2;

/// From now on, nothing that is done on the file system of this file or folder reaches its disk: every operation that
/// would fails, and what had not been written is lost. Only unmounting and mounting brings it back. Wants
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// The file system is none of ext4, XFS, F2FS, or we may not.
pub fn shut_down_file_system(file: &File) -> io::Result<()> {
    let how = WITHOUT_LOG;
    // SAFETY: the call reads one number, through a pointer that is good until it returns; the descriptor is open as
    // long as `file` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const how) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
