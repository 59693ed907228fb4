//! A node as a process, and a small blocking client of its public protocol: what the process tests have in common.
//!
//! Every wait has a deadline and a condition; nothing sleeps for luck. A node that a test forgets is killed when its handle drops.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod client;
pub(crate) mod load;

use std::{
    fmt::Display,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long anything may take on a busy machine before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Settings of every node under test: requests without a rate limit, small files.
const SETTINGS: &[&str] = &[
    "limits.requests_per_second_max=1000000",
    "limits.requests_burst_max=1000000",
    "store.log_file_bytes=16777216",
    "timing.drain_ms=3000",
];

/// A running node.
pub(crate) struct Node {
    child: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) console: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Node {
    /// Starts a node on a data folder and waits until it is ready.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with more settings, each `KEY=VALUE`.
    pub(crate) fn start_with(data: &Path, settings: &[&str]) -> Self {
        Self::run(data, command(data, settings))
    }

    /// Starts a node on the addresses of another.
    pub(crate) fn start_at(data: &Path, listen: SocketAddr, console: SocketAddr, settings: &[&str]) -> Self {
        Self::run(data, command_at(data, listen, console, settings))
    }

    fn run(data: &Path, mut command: Command) -> Self {
        let log = log_of(data);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (found, is_found) = mpsc::channel();
        // Ends with the node: reads to the end, so that the node never writes into a closed pipe.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.starts_with("ready ")) {
                let _ = found.send(line);
            }
        });
        let Ok(line) = is_found.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let status = child.wait();
            panic!("the node is not ready ({status:?}):\n{}", tail(&log));
        };
        let address = |name: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name));
            word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line:?}"))
        };
        Self { listen: address("listen="), console: address("console="), api: address("api="), child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, to this node alone.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// A signal, to this node alone.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the node ends", || self.child.try_wait().unwrap())
    }

    /// The sum of a counter in `/metrics` over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = http_get(self.console, "/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test: the one that `cargo xtask test` names, which is the release, or the one that was built with the test.
pub(crate) fn antiphon() -> Command {
    let program = std::env::var_os("ANTIPHON_UNDER_TEST");
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_antiphon").into()));
    // It would be taken for configuration.
    command.env_remove("ANTIPHON_UNDER_TEST");
    command
}

/// The command that starts a node under test.
pub(crate) fn command(data: &Path, settings: &[&str]) -> Command {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    command_at(data, anywhere, anywhere, settings)
}

/// The same, for given addresses.
pub(crate) fn command_at(data: &Path, listen: SocketAddr, console: SocketAddr, settings: &[&str]) -> Command {
    let mut command = antiphon();
    let (listen, console) = (listen.to_string(), console.to_string());
    command.args(["serve", "--dev", "--listen", &listen, "--console", &console, "--data"]).arg(data);
    for setting in SETTINGS.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null());
    command
}

/// Where a node's log goes: beside its data.
pub(crate) fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}

/// The end of a node's log.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A folder of a test's own, removed when the test passes and kept when it fails.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("antiphon-{name}-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The data folder in it.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Asks again and again until there is an answer, at most for [`DEADLINE`].
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    until_ok(what, || ask().ok_or("no answer"))
}

/// The same; where it is in vain, the last reason is told.
pub(crate) fn until_ok<T, E: Display>(what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}: {why}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Status and body of a plain HTTP request.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = exchange(address, request.as_bytes());
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
    (status_of(head.as_bytes()), body.to_owned())
}

/// The status of an HTTP answer; 0 if there is none.
pub(crate) fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// Sends bytes on a connection of their own and reads until its end.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // The other end may have answered and closed before it had everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A UUID made of a number.
pub(crate) fn uuid(number: u128) -> String {
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// `SplitMix64`: all that chance decides in a test follows from one printed seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by `ANTIPHON_SEED`, or by the clock; the seed is printed, and shown if the test fails.
    pub(crate) fn from_environment() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as u64);
        let seed = number_from_environment("ANTIPHON_SEED").unwrap_or(now);
        eprintln!("seed: ANTIPHON_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// From `range`.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// Of version 4: one in 64 of all bits would be of version 7, and say some time at which it was made.
    pub(crate) fn uuid(&mut self) -> String {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        uuid(bits & !(0xf000 << 64) | 0x4000 << 64)
    }
}

/// A number in an environment variable.
pub(crate) fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

/// Prints a line whether or not the test harness captures output.
pub(crate) fn report(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
