//! What a connection's two ends take of the kernel's memory, told apart.
//!
//! The kernel shows slabs for the machine alone, and both ends of a connection on loopback are in them. So three kinds
//! of connections are made: pairs of plain sockets, whose ends are alike, so that half is one; plain sockets to the
//! node, which give the node's end by subtraction; and the load generator's, which give the generator's end by another.
//!
//! Invariant: a reading counts only if the machine's count of TCP sockets grew by what was made here, so that nobody
//! else's are in it. Slabs that files, caches of the disk and processes fill are left out where /proc/slabinfo can be
//! read (by root).

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

/// How many connections: what one takes is told to some ten bytes. Both ends of a pair are this process's, whose open
/// files are limited to 20,000 on many machines.
pub(super) const CONNECTIONS: usize = 6_000;

/// An answer of the node, on a busy machine with as many questions before it.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Between two readings that should agree, and how often at most.
const SETTLE_INTERVAL: Duration = Duration::from_millis(250);
const SETTLE_READINGS_MAX: usize = 12;

/// Readings that differ by less agree: a percent of what the connections take.
const SETTLED_BYTES: f64 = 250_000.0;

/// How far the count of sockets may be off: somebody else's.
const STRANGERS_MAX: f64 = 0.02;

/// Caches whose growth is not that of sockets: of files, of processes, and of connections that are already closed.
const OTHERS: [&str; 20] = [
    "ext4",
    "xfs",
    "btrfs",
    "jbd2",
    "buffer_head",
    "radix_tree",
    "inode_cache",
    "proc_inode",
    "shmem",
    "kernfs",
    "fuse",
    "ovl",
    "vm_area",
    "maple_node",
    "anon_vma",
    "task_struct",
    "signal_cache",
    "sighand",
    "mm_struct",
    "tw_sock",
];

/// The kernel's memory and the machine's TCP sockets at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Slab {
    bytes: f64,
    sockets: f64,
}

impl Slab {
    /// Now.
    pub(super) fn read() -> anyhow::Result<Self> {
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let bytes = match fs::read_to_string("/proc/slabinfo") {
            Ok(text) => slabinfo_bytes(&text).context("/proc/slabinfo")?,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                meminfo_bytes(&fs::read_to_string("/proc/meminfo")?).context("/proc/meminfo")?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self { bytes, sockets: sockets(&sockstat).context("/proc/net/sockstat")? })
    }

    /// Bytes that `made` new sockets took; an error if there were others.
    pub(super) fn grown_since(&self, before: Self, made: usize) -> anyhow::Result<f64> {
        let (grown, made) = (self.sockets - before.sockets, made as f64);
        if (grown / made - 1.0).abs() > STRANGERS_MAX {
            bail!("{made} sockets were made, but the machine has {grown} more: somebody else's came or went");
        }
        Ok(self.bytes - before.bytes)
    }
}

/// Waits until the kernel has freed what earlier connections left, which it does when it has time: until two readings
/// in a row agree.
pub(super) fn settled() -> anyhow::Result<Slab> {
    let mut last = Slab::read()?;
    // On a machine where something else goes on all the time they never agree, and the newest is as good as any.
    for _ in 0..SETTLE_READINGS_MAX {
        thread::sleep(SETTLE_INTERVAL);
        let next = Slab::read()?;
        if (next.bytes - last.bytes).abs() < SETTLED_BYTES && next.sockets == last.sockets {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

/// Takes what the node has said meanwhile: a message that nobody reads is memory, too.
pub(super) fn drain(streams: &mut [TcpStream]) -> anyhow::Result<()> {
    let mut buffer = [0; 4_096];
    for stream in streams {
        stream.set_nonblocking(true)?;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => bail!("the node closed a session"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Bytes of one end of a pair of plain sockets.
pub(super) fn plain_end_bytes() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let before = settled()?;
    let mut ends = Vec::with_capacity(2 * CONNECTIONS);
    for _ in 0..CONNECTIONS {
        ends.push(TcpStream::connect(address)?);
        ends.push(listener.accept()?.0);
    }
    let grown = Slab::read()?.grown_since(before, ends.len())?;
    Ok(grown / ends.len() as f64)
}

/// Connected, authenticated sessions over plain sockets.
pub(super) fn sessions(node: SocketAddr) -> anyhow::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(node)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        streams.push(stream);
    }
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {node}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: antiphon.v1.json\r\n\r\n"
    );
    for stream in &mut streams {
        stream.write_all(upgrade.as_bytes())?;
    }
    for stream in &mut streams {
        let answer = read_until(stream, b"\r\n\r\n")?;
        ensure!(answer.starts_with(b"HTTP/1.1 101"), "the node refused: {}", String::from_utf8_lossy(&answer));
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let connect = format!(r#"{{"id":1,"connect":{{"token":"dev:plain-{number}","device":"plain"}}}}"#);
        stream.write_all(&text_frame(&connect)?)?;
    }
    for stream in &mut streams {
        // A frame that is too long for this would be an answer that nobody expects.
        let answer = read_until(stream, b"}}")?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(text.contains(r#""connect""#), "the node answered {text:?}");
    }
    Ok(streams)
}

/// Reads until some bytes have come; what comes after them is not looked at.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 2_048]);
    // An upgrade's answer and a welcome have a few hundred bytes.
    while bytes.len() < 16_384 {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the node closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if bytes.windows(end.len()).any(|window| window == end) {
            return Ok(bytes);
        }
    }
    bail!("the node answered too much")
}

/// A short text frame, masked by zeros: allowed, and as good as any mask where nobody is between.
fn text_frame(text: &str) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).context("the frame is too long")?;
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    Ok(frame)
}

/// Pages of all caches but those of [`OTHERS`]. Directory entries and security labels are counted by sockets, since
/// files have them too.
fn slabinfo_bytes(text: &str) -> Option<f64> {
    let (mut bytes, mut sockets, mut labels) = (0.0, 0.0, 0.0);
    for line in text.lines().skip(2) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let name = *fields.first()?;
        match name {
            "sock_inode_cache" => sockets = number(1)?,
            "dentry" | "lsm_inode_cache" => {
                labels += number(3)?;
                continue;
            }
            _ if OTHERS.iter().any(|other| name.starts_with(other)) => continue,
            _ => {}
        }
        // … : slabdata <active_slabs> <num_slabs> <sharedavail>
        let slabs = fields.iter().position(|field| *field == "slabdata").and_then(|at| number(at + 2))?;
        bytes += slabs * number(5)? * 4_096.0;
    }
    (sockets > 0.0).then_some(bytes + sockets * labels)
}

fn meminfo_bytes(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1_024.0)
}

fn sockets(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.lines().find(|line| line.starts_with("TCP:"))?.split(' ').collect();
    let at = words.iter().position(|word| *word == "inuse")?;
    words.get(at + 1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_and_files_are_not() {
        let text = "slabinfo - version: 2.1\n# name …\n\
            TCP 13 13 2368 13 8 : tunables 0 0 0 : slabdata 1 1 0\n\
            sock_inode_cache 10 19 832 19 4 : tunables 0 0 0 : slabdata 1 1 0\n\
            dentry 5000 5250 192 21 1 : tunables 0 0 0 : slabdata 250 250 0\n\
            ext4_inode_cache 900 900 1100 29 8 : tunables 0 0 0 : slabdata 40 40 0\n";
        assert_eq!(slabinfo_bytes(text), Some(12.0 * 4_096.0 + 10.0 * 192.0));
        assert_eq!(slabinfo_bytes("a\nb\n"), None);
        assert_eq!(meminfo_bytes("MemTotal: 1 kB\nSlab:  12 kB\n"), Some(12_288.0));
        assert_eq!(sockets("sockets: used 9\nTCP: inuse 7 orphan 0 tw 3 alloc 8 mem 1\n"), Some(7.0));
    }

    #[test]
    fn other_peoples_sockets_spoil_a_reading() {
        let before = Slab { bytes: 1_000.0, sockets: 10.0 };
        let after = Slab { bytes: 9_000.0, sockets: 20.0 };
        assert_eq!(after.grown_since(before, 10).unwrap(), 8_000.0);
        assert!(after.grown_since(before, 8).is_err() && after.grown_since(before, 12).is_err());
    }

    #[test]
    fn long_frames_are_refused() {
        assert_eq!(text_frame("{}").unwrap(), [0x81, 0x82, 0, 0, 0, 0, b'{', b'}']);
        assert!(text_frame(&"x".repeat(126)).is_err());
    }
}
