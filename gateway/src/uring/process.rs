//! What the process asks of the system at its start: open files, of which the kernel also makes the bound of a ring's table of direct
//! descriptors, and small pages.

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

/// Asks the kernel for no huge pages in this process. Its memory is many small pieces, spread by the allocator over regions of their own for
/// each thread and size; a huge page under each of them took 7 MB a shard and a quarter of what a connection costs.
///
/// # Errors
/// The system's answer.
pub fn refuse_huge_pages() -> io::Result<()> {
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this request takes four numbers and no pointer.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, none, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
