//! A node in a process of its own, on free ports of loopback and a fresh folder: started, looked at from outside,
//! ended.
//!
//! Invariant: the process and the folder are gone when the value is. Must not do: anything that a stranger on this
//! machine couldn't, so that what is measured is a node as it is shipped.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use antiphon_loadgen::process::Process;
use anyhow::{Context, bail, ensure};

/// Files of the log are written before the node is ready: seconds on a busy disk.
const READY_WAIT: Duration = Duration::from_secs(60);

/// A console answers in milliseconds; on a machine with all cores busy it waits for its turn.
const CONSOLE_WAIT: Duration = Duration::from_secs(10);

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(super) tls_listen: SocketAddr,
    console: SocketAddr,
}

/// What a node shows at a moment. Counters are sums over all shards.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) rss_bytes: f64,
    pub(super) cpu_seconds: f64,
    counters: HashMap<String, f64>,
}

impl Sample {
    /// A metric's value, without its `antiphon_` and `_total`; 0 if the node has none of that name.
    pub(super) fn count(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or(0.0)
    }
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) from: &'a Sample,
    pub(super) to: &'a Sample,
}

impl Window<'_> {
    pub(super) fn seconds(&self) -> f64 {
        (self.to.at - self.from.at).as_secs_f64()
    }

    /// How much a counter grew.
    pub(super) fn grown(&self, name: &str) -> f64 {
        self.to.count(name) - self.from.count(name)
    }

    pub(super) fn per_second(&self, name: &str) -> f64 {
        self.grown(name) / self.seconds()
    }

    /// Cores that the node kept busy.
    pub(super) fn cores(&self) -> f64 {
        (self.to.cpu_seconds - self.from.cpu_seconds) / self.seconds()
    }
}

impl Node {
    /// Starts one, with settings beyond those that all have.
    pub(crate) fn start(program: &Path, folder: &Path, shards: u64, settings: &[&str]) -> anyhow::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let log = fs::File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"]);
        command.args(["--tls-listen", "127.0.0.1:0", "--lanes", "1", "--shards", &shards.to_string(), "--data"]);
        command.arg(folder.join("data"));
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let output = child.stdout.take().context("the node's output")?;
        let (ready, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            if let Some(line) = lines.find(|line| line.starts_with("ready ")) {
                // Who asked may have given up.
                let _ = ready.send(line);
            }
            // Reads on, or the node would wait for somebody to take what it prints.
            lines.for_each(drop);
        });
        let zero = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Self { child, folder: folder.to_owned(), listen: zero, tls_listen: zero, console: zero };
        let line = told.recv_timeout(READY_WAIT);
        let line = line.with_context(|| format!("the node did not start: see {}/log", folder.display()))?;
        node.listen = address(&line, "listen")?;
        node.tls_listen = address(&line, "tls")?;
        node.console = address(&line, "console")?;
        Ok(node)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it shows now.
    pub(super) fn sample(&self) -> anyhow::Result<Sample> {
        let counters = counters(&self.metrics()?);
        let usage = Process { pid: self.pid() }.usage().context("the node's /proc/PID/status and stat")?;
        Ok(Sample { at: Instant::now(), rss_bytes: usage.rss_bytes as f64, cpu_seconds: usage.cpu_seconds, counters })
    }

    /// Looks at it again and again until something is so.
    pub(super) fn wait(
        &mut self,
        what: &str,
        longest: Duration,
        is_so: impl Fn(&Sample) -> bool,
    ) -> anyhow::Result<Sample> {
        let begin = Instant::now();
        loop {
            ensure!(self.child.try_wait()?.is_none(), "the node ended: see {}/log", self.folder.display());
            let sample = self.sample()?;
            if is_so(&sample) {
                return Ok(sample);
            }
            if begin.elapsed() > longest {
                bail!("waited {} s in vain until {what}", longest.as_secs());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.console, CONSOLE_WAIT)?;
        stream.set_read_timeout(Some(CONSOLE_WAIT))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.console)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "the console answered {:?}", text.lines().next());
        Ok(text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, and what can't be removed is only rubbish.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn address(line: &str, name: &str) -> anyhow::Result<SocketAddr> {
    let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(word.with_context(|| format!("no {name} in {line:?}"))?.parse()?)
}

/// Metrics by name, summed over shards.
fn counters(text: &str) -> HashMap<String, f64> {
    let mut counters = HashMap::new();
    for line in text.lines().filter(|line| line.starts_with("antiphon_")) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or(name).trim_start_matches("antiphon_").trim_end_matches("_total");
        if let Ok(value) = value.parse::<f64>() {
            *counters.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_shards() {
        let text = "# HELP antiphon_acks Sends\r\nantiphon_acks_total{shard=\"0\"} 3\n\
                    antiphon_acks_total{shard=\"1\"} 4\n\
                    antiphon_memtable_bytes{shard=\"0\"} 100\nother{shard=\"0\"} 1\n";
        let counters = counters(text);
        assert_eq!((counters["acks"], counters["memtable_bytes"], counters.len()), (7.0, 100.0, 2));
    }

    #[test]
    fn the_ready_line_tells_addresses() {
        let line = "ready listen=127.0.0.1:1 tls=127.0.0.1:2 console=127.0.0.1:3 shards=2 lanes=1 data=d";
        assert_eq!(address(line, "tls").unwrap().port(), 2);
        assert!(address(line, "nothing").is_err());
    }
}
