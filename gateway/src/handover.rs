//! How a node asks the one before it to hand over: two processes of one user, one data folder, one machine.
//!
//! ```text
//! newcomer                                                    owner of the folder
//!   prepares all that needs no folder: configuration, keys, lanes, memory
//!   connects to DATA/handover.sock
//!   antiphon-handover 1 listen=IP:PORT tls=IP:PORT|none ──►   checks; has new clients kept to its own listeners
//!   begins to listen beside it                          ◄──   ok process=PID console=IP:PORT    (or: no REASON)
//!   starts its shards
//!   go listeners=N                                      ──►   new clients go to the newcomer's queues from now on
//!   waits for the lock                                  ◄──   going MILLISECONDS: longest time to the lock
//!                                                             takes those in its own queues, says goodbye, closes engines,
//!   opens the lanes, accepts                            ◄──   gives up the lock; then waits for its last clients, ends
//! ```
//!
//! Until `go` the owner goes on as before, whatever becomes of the newcomer; from then on it ends. Only who may write into the data
//! folder reaches the socket, and only a living owner answers there, so neither a stale file nor a reused process id can mislead.
//!
//! At the same door `antiphon store checkpoint` asks the owner for a checkpoint of its lanes, for the same reasons: a console that anybody may
//! reach is not where a node's data is given away.
//!
//! ```text
//! antiphon-checkpoint 1   ──►   each lane flushes, and shares its segments with DATA/lane-NN/checkpoint, which is not there yet
//!                         ◄──   ok lanes=N     (or: no REASON)
//! ```
//!
//! Invariants: a line is short and arrives within a time limit, or the connection ends; one newcomer at a time. Must not do: touch the lock.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The socket's name in the data folder.
const SOCKET: &str = "handover.sock";

/// Longest line: addresses and a reason.
const LINE_BYTES_MAX: u64 = 1_024;

/// How long an answer may take: the other side has nothing to wait for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// From `ok` to `go`: a newcomer starts its shards meanwhile.
const START_MAX: Duration = Duration::from_secs(30);

/// From a request for a checkpoint to its answer: flushes of all lanes, on a busy disk. A newcomer that comes meanwhile is told to try again.
pub(crate) const CHECKPOINT_MAX: Duration = Duration::from_secs(60);

/// What a request for a checkpoint says.
const CHECKPOINT: &str = "antiphon-checkpoint 1";

/// How often the owner looks whether it should stop listening.
const LOOK: Duration = Duration::from_millis(100);

/// How long a socket that is missing may be missing: an owner that starts or ends will soon have one, or give up the lock.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Why there will be no handover, or no checkpoint. The owner goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nobody answers: the owner is starting or ending. Try again when it runs, or has ended.
    #[error("the running node takes no requests: it is starting or ending ({0})")]
    Absent(io::Error),
    /// The owner says no, and why.
    #[error("the running node refuses: {0}")]
    Refused(String),
    /// The connection broke, or brought something else than an answer.
    #[error("the running node broke off: {0}")]
    Broken(#[from] io::Error),
}

/// What a newcomer says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Where it would listen for clients.
    pub listen: SocketAddr,
    /// Where it would listen for clients over TLS, if it would.
    pub tls: Option<SocketAddr>,
}

impl fmt::Display for Offer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            None => write!(formatter, "listen={} tls=none", self.listen),
            Some(tls) => write!(formatter, "listen={} tls={tls}", self.listen),
        }
    }
}

/// What the owner does when it is asked.
pub trait Owner: Send {
    /// Whether it would hand over, and if not, why. From now on no client may reach a listener of the newcomer.
    fn asked(&mut self, offer: &Offer) -> Result<(), String>;

    /// The newcomer has gone again.
    fn abandoned(&mut self);

    /// It begins, with so many listeners of the newcomer; the result is the longest time to the end.
    fn begin(&mut self, listeners: u32) -> Duration;

    /// Makes a checkpoint of every lane, within [`CHECKPOINT_MAX`] and not beyond `stop`; how many lanes, or why there is none.
    fn checkpoint(&mut self, stop: &AtomicBool) -> Result<u64, String>;
}

/// Where the owner of a data folder is asked. Dropping it removes the socket.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Listens in a data folder whose lock the caller holds. `console` is told to newcomers.
    ///
    /// # Errors
    /// The system's answer.
    pub fn open(folder: &Path, console: SocketAddr, mut owner: impl Owner + 'static) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = by_short_name(folder, |short| UnixListener::bind(short))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = serve(stream, console, &mut owner, &stopped) {
                            tracing::warn!(%error, "a request to hand over came to nothing");
                        }
                    }
                    // Nobody waits for this thread but an operator: a poll of ten a second is enough.
                    Err(_) => thread::park_timeout(LOOK),
                }
            }
        };
        let thread = thread::Builder::new().name("handover".to_owned()).spawn(run)?;
        Ok(Self { path, stop, thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the handover thread panicked");
            }
        }
        let _ = fs::remove_file(&self.path);
    }
}

fn serve(stream: UnixStream, console: SocketAddr, owner: &mut impl Owner, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut lines = Lines::new(stream)?;
    let asked = lines.next(ANSWER_MAX, stop)?;
    if asked == CHECKPOINT {
        return match owner.checkpoint(stop) {
            Ok(lanes) => lines.say(&format!("ok lanes={lanes}")),
            Err(reason) => lines.say(&format!("no {}", one_line(&reason))),
        };
    }
    let answer = match parse_offer(&asked) {
        Some(offer) => owner.asked(&offer),
        None => Err("it speaks another version of the handover".to_owned()),
    };
    if let Err(reason) = answer {
        return lines.say(&format!("no {reason}"));
    }
    let went = lines.say(&format!("ok process={} console={console}", std::process::id()));
    let listeners = went.and_then(|()| lines.next(START_MAX, stop)).map(|line| number_after(&line, "go listeners="));
    match listeners {
        Ok(Some(listeners @ 1..)) => {
            let longest = owner.begin(u32::try_from(listeners).unwrap_or(u32::MAX));
            lines.say(&format!("going {}", longest.as_millis()))
        }
        other => {
            owner.abandoned();
            other.map(drop)
        }
    }
}

/// The owner of a data folder, as a newcomer sees it. Dropping it before [`Predecessor::begin`] leaves everything as it was.
#[derive(Debug)]
pub struct Predecessor {
    lines: Lines,
    process: u64,
    console: Option<SocketAddr>,
}

impl Predecessor {
    /// Finds the owner and asks whether it would hand over.
    ///
    /// # Errors
    /// [`HandoverError`]; the owner goes on.
    pub fn ask(folder: &Path, offer: Offer) -> Result<Self, HandoverError> {
        let end = Instant::now() + CONNECT_MAX;
        let stream = loop {
            match by_short_name(folder, |short| UnixStream::connect(short)) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= end => return Err(HandoverError::Absent(error)),
                Err(_) => thread::sleep(LOOK),
            }
        };
        let mut lines = Lines::new(stream)?;
        lines.say(&format!("antiphon-handover 1 {offer}"))?;
        let answer = lines.next(ANSWER_MAX, &NEVER)?;
        if let Some(reason) = answer.strip_prefix("no ") {
            return Err(HandoverError::Refused(reason.to_owned()));
        }
        let process = number_after(&answer, "ok process=").ok_or_else(|| unexpected(&answer))?;
        let console = answer.split_once(" console=").and_then(|(_, address)| address.parse().ok());
        Ok(Self { lines, process, console })
    }

    /// Its process id, for people.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.process
    }

    /// Where its console listens until it ends.
    #[must_use]
    pub fn console(&self) -> Option<SocketAddr> {
        self.console
    }

    /// Has it begin, for so many listeners that stand beside its own; the longest time to its lock.
    ///
    /// # Errors
    /// [`HandoverError::Broken`]: it may or may not have begun.
    pub fn begin(mut self, listeners: usize) -> Result<Duration, HandoverError> {
        self.lines.say(&format!("go listeners={listeners}"))?;
        let answer = self.lines.next(ANSWER_MAX, &NEVER)?;
        let longest_ms = number_after(&answer, "going ").ok_or_else(|| unexpected(&answer))?;
        Ok(Duration::from_millis(longest_ms))
    }
}

/// Has the owner of a data folder make a checkpoint of each lane in `lane-NN/checkpoint`; how many lanes.
///
/// # Errors
/// [`HandoverError`]; there may be checkpoints of some lanes then.
pub fn ask_for_checkpoint(folder: &Path) -> Result<u64, HandoverError> {
    let stream = by_short_name(folder, |short| UnixStream::connect(short)).map_err(HandoverError::Absent)?;
    let mut lines = Lines::new(stream)?;
    lines.say(CHECKPOINT)?;
    let answer = lines.next(CHECKPOINT_MAX + ANSWER_MAX, &NEVER)?;
    if let Some(reason) = answer.strip_prefix("no ") {
        return Err(HandoverError::Refused(reason.to_owned()));
    }
    number_after(&answer, "ok lanes=").ok_or_else(|| unexpected(&answer).into())
}

/// A reason that has room in a line.
fn one_line(reason: &str) -> String {
    let most = LINE_BYTES_MAX as usize / 8;
    reason.chars().take(most).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

static NEVER: AtomicBool = AtomicBool::new(false);

fn unexpected(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it said {line:?}"))
}

fn parse_offer(line: &str) -> Option<Offer> {
    let mut words = line.strip_prefix("antiphon-handover 1 listen=")?.split(' ');
    let listen = words.next()?.parse().ok()?;
    let tls = match words.next()?.strip_prefix("tls=")? {
        "none" => None,
        address => Some(address.parse().ok()?),
    };
    Some(Offer { listen, tls })
}

fn number_after(line: &str, prefix: &str) -> Option<u64> {
    line.strip_prefix(prefix)?.split(' ').next()?.parse().ok()
}

/// A socket's path has room for 107 bytes, a data folder's for more: so it is named through the open folder.
fn by_short_name<T>(folder: &Path, then: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let open = File::open(folder)?;
    then(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())))
}

/// Lines over a connection, each within a time limit.
#[derive(Debug)]
struct Lines {
    reader: BufReader<UnixStream>,
}

impl Lines {
    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    /// The next line, without its end.
    fn next(&mut self, timeout: Duration, stop: &AtomicBool) -> io::Result<String> {
        let end = Instant::now() + timeout;
        let mut line = Vec::new();
        loop {
            let room = LINE_BYTES_MAX.saturating_sub(line.len() as u64);
            match (&mut self.reader).take(room).read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => break,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= end || stop.load(Ordering::Acquire) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        line.pop();
        String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_321);

    const OFFER: Offer = Offer { listen: HERE, tls: None };

    /// Tells what it is asked, and hands over what listens on [`HERE`] only.
    struct Told(mpsc::Sender<String>, Option<u64>);

    impl Owner for Told {
        fn asked(&mut self, offer: &Offer) -> Result<(), String> {
            self.0.send("asked".into()).unwrap();
            if *offer == OFFER { Ok(()) } else { Err(format!("it listens on {HERE}")) }
        }

        fn abandoned(&mut self) {
            self.0.send("abandoned".into()).unwrap();
        }

        fn begin(&mut self, listeners: u32) -> Duration {
            self.0.send(format!("begin {listeners}")).unwrap();
            Duration::from_millis(1_234)
        }

        fn checkpoint(&mut self, _: &AtomicBool) -> Result<u64, String> {
            self.0.send("checkpoint".into()).unwrap();
            self.1.take().map_or_else(|| Err("a disk\nis full".to_owned()), Ok)
        }
    }

    fn folder(name: &str) -> PathBuf {
        // Longer than a socket's path may be.
        let path = std::env::temp_dir().join(format!("antiphon-handover-{name}-{}-{:0>90}", std::process::id(), 0));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn an_owner_is_asked_and_goes_only_when_told() {
        let path = folder("asked");
        let absent = Predecessor::ask(&path, OFFER);
        assert!(matches!(absent, Err(HandoverError::Absent(_))), "{absent:?}");
        // What a killed owner has left is in nobody's way.
        fs::write(path.join(SOCKET), "").unwrap();
        let (sender, told) = mpsc::channel();
        let door = Door::open(&path, HERE, Told(sender, None)).unwrap();
        let next = || told.recv_timeout(Duration::from_secs(10)).unwrap();
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let refused = Predecessor::ask(&path, Offer { listen: elsewhere, tls: Some(HERE) }).unwrap_err().to_string();
        assert!(refused.contains("it listens on 127.0.0.1:4321"), "{refused}");
        assert_eq!(next(), "asked");
        let owner = Predecessor::ask(&path, OFFER).unwrap();
        assert_eq!((owner.process(), owner.console()), (u64::from(std::process::id()), Some(HERE)));
        drop(owner);
        assert_eq!((next(), next()), ("asked".into(), "abandoned".into()));
        let owner = Predecessor::ask(&path, OFFER).unwrap();
        assert_eq!(owner.begin(3).unwrap(), Duration::from_millis(1_234));
        assert_eq!((next(), next()), ("asked".into(), "begin 3".into()));
        drop(door);
        assert!(!path.join(SOCKET).exists());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_checkpoint_is_made_or_refused_at_the_same_door() {
        let path = folder("checkpoint");
        assert!(matches!(ask_for_checkpoint(&path), Err(HandoverError::Absent(_))));
        let (sender, told) = mpsc::channel();
        let door = Door::open(&path, HERE, Told(sender, Some(3))).unwrap();
        assert_eq!(ask_for_checkpoint(&path).unwrap(), 3);
        let refused = ask_for_checkpoint(&path).unwrap_err().to_string();
        assert_eq!(refused, "the running node refuses: a disk is full");
        drop(door);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["checkpoint", "checkpoint"]);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn nonsense_is_answered_and_ended() {
        let path = folder("nonsense");
        let (sender, told) = mpsc::channel();
        let door = Door::open(&path, HERE, Told(sender, None)).unwrap();
        let say = |text: &[u8]| {
            let mut stream = by_short_name(&path, |short| UnixStream::connect(short)).unwrap();
            stream.write_all(text).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        assert_eq!(say(b"GET / HTTP/1.1\n"), "no it speaks another version of the handover\n");
        assert_eq!(
            say(b"antiphon-handover 2 listen=127.0.0.1:4321 tls=none\n"),
            "no it speaks another version of the handover\n"
        );
        assert_eq!(say(&[b'x'; 5_000]), "");
        assert!(say(b"antiphon-handover 1 listen=127.0.0.1:4321 tls=none\nstay\n").starts_with("ok process="));
        drop(door);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["asked", "abandoned"]);
        fs::remove_dir_all(&path).unwrap();
    }
}
