//! Parts of a benchmark that are processes of their own: because memory is a process's, or because they are to be
//! killed.
//!
//! A phase is told what to do as JSON, its only argument, and says what came of it as JSON, a line each on standard
//! output. One that is to be killed says its last line and waits.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{conversations, reopen};

/// How long a phase may be silent: filling a store takes longest.
const SILENCE_MAX: Duration = Duration::from_secs(7_200);

/// Lines that a phase may be ahead of whoever reads them; then it waits.
const LINES_MAX: usize = 1_024;

/// Which part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Fill(reopen::Fill),
    Serve(reopen::Serve),
    Verify(reopen::Whole),
    Memory(conversations::Memory),
}

/// Options of a phase's process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What to do, as JSON
    phase: String,
}

/// Is a phase's process.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match serde_json::from_str(&options.phase).context("the phase")? {
        Phase::Fill(fill) => reopen::fill(&fill),
        Phase::Serve(serve) => reopen::serve(&serve),
        Phase::Verify(whole) => reopen::read_back(&whole),
        Phase::Memory(memory) => conversations::measure(&memory),
    }
}

/// Says a line.
pub(crate) fn say(line: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(io::stdout().flush()?)
}

/// Waits for the kill, or for the end of whoever started this.
pub(crate) fn wait_for_the_end() -> anyhow::Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    bail!("it was not killed")
}

/// A phase under way, killed when it goes out of scope.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<io::Result<String>>,
}

impl Running {
    pub(crate) fn start(phase: &Phase) -> anyhow::Result<Self> {
        // It ends with this process, however that comes about.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(std::env::current_exe()?).arg("phase");
        command.arg(serde_json::to_string(phase)?);
        // A pipe that stays open: one that is to be killed waits for its end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("setpriv (of util-linux) can't be run")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let (line, lines) = mpsc::sync_channel(LINES_MAX);
        thread::spawn(move || {
            // Ends with the process, or when nobody listens any more.
            BufReader::new(output).lines().try_for_each(|text| line.send(text)).ok();
        });
        Ok(Self { child, lines })
    }

    /// Its next line.
    pub(crate) fn line<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        self.line_within(SILENCE_MAX)?.context("it said nothing")
    }

    /// Its next line, if it comes in time.
    pub(crate) fn line_within<T: DeserializeOwned>(&self, time: Duration) -> anyhow::Result<Option<T>> {
        let text = match self.lines.recv_timeout(time) {
            Ok(text) => text?,
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended; what it complained of stands above"),
        };
        serde_json::from_str(&text).map(Some).with_context(|| format!("it said {text}"))
    }

    /// Kills it; what it had said by then.
    pub(crate) fn kill<T: DeserializeOwned>(mut self) -> anyhow::Result<Vec<T>> {
        self.child.kill()?;
        self.child.wait()?;
        // The last line may have been cut.
        let lines = self.lines.iter().map_while(Result::ok);
        Ok(lines.map_while(|text| serde_json::from_str(&text).ok()).collect())
    }

    /// Its only line, when it has ended by itself.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let line = self.line()?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
