//! The system's limit on open files, which the kernel also takes for the size of a ring's table of direct descriptors.

use std::io;

/// Raises the soft limit to the hard one, for this process; what it is then. The soft limit is low for the sake of programs that use
/// `select`, which this one does not.
///
/// # Errors
/// The system's answer.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = get()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the pointer is to a valid `rlimit`.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// The soft limit.
pub(super) fn open_files() -> u32 {
    get().map_or(1024, |limit| u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX))
}

fn get() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a valid `rlimit`.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}
