//! Runs programs, and servers that are ended when they go out of scope.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

/// How long a server may take to print its `ready` line: recovery of a bounded log, on a busy machine.
const READY_WAIT: Duration = Duration::from_secs(60);

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The cargo that started us, at the top of the repository.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A program, at the top of the repository.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// A program, at the top of the repository, that is ended if it takes longer: a foreign suite must not hang ours.
pub(crate) fn program_within(seconds: u32, name: impl AsRef<OsStr>) -> Command {
    let mut command = program("timeout");
    command.args(["--kill-after=10", &seconds.to_string()]).arg(name);
    command
}

/// The command as a person would type it.
pub(crate) fn typed(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs to the end, output to the terminal; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", typed(command));
    let status = command.status().with_context(|| typed(command))?;
    if status.success() { Ok(()) } else { bail!("`{}` failed: {status}", typed(command)) }
}

/// Runs to the end and returns standard output.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| typed(command))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", typed(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program is found on the path.
pub(crate) fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A server of ours; killed when dropped.
pub(crate) struct Server(Child);

impl Server {
    /// Starts `command` and waits for its line that begins with `ready`.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        println!("$ {} &", typed(command));
        let name = typed(command);
        let mut server = Self(command.stdout(Stdio::piped()).spawn().with_context(|| name.clone())?);
        let output = server.0.stdout.take().context("standard output was asked for")?;
        let (ready, is_ready) = mpsc::channel();
        // Reads on after the line, so that the server never waits for us.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("  | {line}");
                if line.starts_with("ready") {
                    let _ = ready.send(());
                }
            }
        });
        match is_ready.recv_timeout(READY_WAIT) {
            Ok(()) => Ok(server),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("`{name}` printed no ready line in {READY_WAIT:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("`{name}` ended before it was ready"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
