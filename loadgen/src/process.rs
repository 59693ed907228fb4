//! What the kernel tells about processes and memory, read from /proc: the generator's own cost, and the node's when it runs on
//! the same machine.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

/// `USER_HZ`, the unit of times in /proc/PID/stat: 100 on every Linux architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// State `LISTEN` in /proc/net/tcp.
const LISTEN: &str = "0A";

/// A process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
}

/// What a process uses at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// User and system time so far, at a resolution of 10 ms.
    pub cpu_seconds: f64,
}

impl Process {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        Self { pid: std::process::id() }
    }

    /// The processes that listen on a local address, as far as they can be found. Usually one: several share a port only by
    /// SO_REUSEPORT.
    #[must_use]
    pub fn listening_on(address: SocketAddr) -> Vec<Self> {
        if !address.ip().is_loopback() && !is_local(address) {
            return Vec::new();
        }
        let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|file| fs::File::open(file).ok())
            .flat_map(|table| listening_inodes(BufReader::new(table), address.port()))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| holds_any(pid, &inodes)).map(|pid| Self { pid }).collect()
    }

    /// What it uses now; `None` if it is gone.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        Some(Usage { rss_bytes: kibibytes(&status, "VmRSS:")? * 1024, cpu_seconds: cpu_seconds(&stat)? })
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        let command = fs::read_to_string(format!("/proc/{}/cmdline", self.pid)).ok()?;
        Some(command.trim_end_matches('\0').replace('\0', " "))
    }
}

/// Kernel memory in slabs: sockets are in there, of both ends when both are on this machine.
#[must_use]
pub fn slab_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:").map(|kibibytes| kibibytes * 1024)
}

/// Waits until the node's memory has settled a little: freshly accepted connections are still being worked on.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

fn is_local(address: SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Line by line: the table has one for each connection of the machine, and this process's memory is about to be measured.
fn listening_inodes(table: impl BufRead, port: u16) -> Vec<String> {
    let inode = |line: String| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, local_port) = local.rsplit_once(':')?;
        let matches = *state == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
        matches.then(|| (*inode).to_owned())
    };
    table.lines().skip(1).map_while(Result::ok).filter_map(inode).collect()
}

fn holds_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.into_iter().any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().trim_end_matches(" kB").parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the command in parentheses and may hold anything; what follows begins with the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(Process::listening_on(listener.local_addr().unwrap()), [Process::own()]);
    }

    #[test]
    fn usage_of_this_process_makes_sense() {
        let usage = Process::own().usage().unwrap();
        assert!(usage.rss_bytes > 100_000 && usage.cpu_seconds < 10_000.0, "{usage:?}");
        assert!(slab_bytes().unwrap() > 100_000);
    }

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_confuse() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }
}
