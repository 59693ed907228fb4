//! Listeners of two processes on one address, and which of them the kernel gives a client to.
//!
//! The kernel keeps all listeners that share an address (`SO_REUSEPORT`) in one list, in the order in which they began to listen, and
//! picks one by a hash. A filter of that list picks by its number instead ([`steer`]): so a process that ends gets no new clients while
//! it still takes those in its queues, and a process that begins gets none before it is sure to stay.
//!
//! When a listener is closed, the last one takes its place in the list. A filter that names a number beyond its end is ignored: the
//! hash decides then.

use std::{io, net::SocketAddr, net::TcpListener, ops::Range, os::fd::AsRawFd};

use super::shard::{BACKLOG, socket};

/// Listeners beside those of another process of the same user, for [`super::ShardConfig::listeners`]. Clients are in their queues from now
/// on, unless they are steered elsewhere.
///
/// # Errors
/// The address is not ours, or the other process is of another user or does not share.
pub fn bind_beside(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let listen = || {
        let socket = socket(address, true)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    (0..count).map(|_| listen()).collect()
}

/// Gives new clients of the listener's address to those of its listeners that have these numbers, by chance. Not for an empty range.
///
/// # Errors
/// The kernel's answer.
pub fn steer(listener: &TcpListener, numbers: Range<u32>) -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, numbers.len().max(1) as u32),
        statement(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, numbers.start),
        statement(libc::BPF_RET | BPF_A, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Lets the kernel's hash decide again. Without effect if it does.
///
/// # Errors
/// The kernel's answer.
pub fn steer_no_more(listener: &TcpListener) -> io::Result<()> {
    match set(listener, libc::SO_DETACH_REUSEPORT_BPF, &0_i32) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// `BPF_A` of linux/filter.h: return what was computed.
const BPF_A: u32 = 0x10;

fn set<T>(listener: &TcpListener, option: i32, value: &T) -> io::Result<()> {
    let (pointer, length) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the pointer is to `length` bytes that live through the call, and so does the program that a filter points to; the kernel
    // copies both.
    match unsafe { libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, option, pointer, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// Clients that wait in a listener's queue.
    fn waiting(listener: &TcpListener) -> usize {
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn clients_go_where_they_are_steered_and_closing_in_order_loses_none() {
        const CLIENTS: usize = 50;
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut old = super::super::bind(loopback, 2).unwrap();
        let address = old[0].local_addr().unwrap();
        steer(&old[0], 0..2).unwrap();
        let new = bind_beside(address, 2).unwrap();
        let connect = || (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>();
        let count = |listeners: &[TcpListener]| listeners.iter().map(waiting).collect::<Vec<_>>();
        let kept = connect();
        assert_eq!(count(&new), [0, 0]);
        let shared = count(&old);
        assert!(shared.iter().sum::<usize>() == CLIENTS && shared[0] > 0 && shared[1] > 0, "{shared:?}");
        steer(&old[0], 2..4).unwrap();
        let moved = connect();
        assert_eq!(count(&old), [0, 0]);
        assert_eq!(count(&new).iter().sum::<usize>(), CLIENTS);
        // What is steered to the first new one stays valid before and after a close.
        while let Some(last) = old.pop() {
            steer(&last, old.len() as u32 + 1..old.len() as u32 + 2).unwrap();
            drop(last);
            let during = connect();
            assert_eq!(count(&old).iter().sum::<usize>(), 0);
            assert_eq!(count(&new).iter().sum::<usize>(), CLIENTS);
            drop(during);
        }
        steer_no_more(&new[0]).unwrap();
        steer_no_more(&new[0]).unwrap();
        let last = connect();
        assert!(count(&new).iter().all(|count| *count > 0), "the hash decides again");
        drop((kept, moved, last));
    }
}
