//! The engines that are compared: how each is had, and how its process is asked.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use antiphon_bench_store::{Job, Report};
use anyhow::{Context, bail, ensure};

use super::Step;
use crate::compare::peers::Places;

/// How long one job may take: a B-tree writes the default number of messages in minutes.
const JOB_MAX: Duration = Duration::from_secs(3_600);

/// Lines of a failed process's complaint that are told; its file has all.
const COMPLAINT_LINES: usize = 3;

/// What RocksDB's build needs, as Debian's packages.
const ROCKSDB_NEEDS: &str = "\
    RocksDB is built from its C++, which takes long, and its bindings are made by libclang: install a C++ compiler and \
    libclang with its headers (Debian: sudo apt-get install build-essential libclang-dev), or set LIBCLANG_PATH, or leave \
    RocksDB out by --no-rocksdb";

/// An engine, or what takes an engine's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Contender {
    /// Ours.
    Antiphon,
    /// fjall.
    Fjall,
    /// redb.
    Redb,
    /// LMDB by heed.
    Lmdb,
    /// RocksDB by rust-rocksdb.
    Rocksdb,
    /// A loop that writes the same bytes, and reads as many; it is there whenever appends or pages are compared.
    #[value(skip)]
    Bare,
}

impl Contender {
    /// All, in the order of the tables.
    pub(super) const ALL: [Self; 6] = [Self::Antiphon, Self::Fjall, Self::Redb, Self::Lmdb, Self::Rocksdb, Self::Bare];

    /// As tables name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Antiphon => "Antiphon",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Lmdb => "LMDB",
            Self::Rocksdb => "RocksDB",
            Self::Bare => "bare loop",
        }
    }

    /// Those of some steps that it can take. The bare loop needs no store to read from, and has one kind of page.
    pub(super) fn able(self, steps: &[Step]) -> Vec<Step> {
        let able = |step: &Step| self != Self::Bare || matches!(step, Step::Append(_) | Step::Latest);
        steps.iter().copied().filter(able).collect()
    }

    /// Whether all that it writes goes past the page cache, so that the kernel's count of it is exact.
    pub(super) fn is_direct(self) -> bool {
        matches!(self, Self::Antiphon | Self::Bare)
    }

    /// Builds it.
    pub(super) fn prepare(self, places: &Places) -> anyhow::Result<Program> {
        let (path, version) = match self {
            Self::Antiphon | Self::Bare => (std::env::current_exe()?, "this revision".to_owned()),
            Self::Fjall => (places.build_foreign_engine("fjall")?, places.foreign_version("fjall")?),
            Self::Redb => (places.build_foreign_engine("redb")?, places.foreign_version("redb")?),
            Self::Lmdb => {
                let (heed, lmdb) = (places.foreign_version("heed")?, places.foreign_version("lmdb-master-sys")?);
                (places.build_foreign_engine("lmdb")?, format!("by heed {heed}, lmdb-master-sys {lmdb}"))
            }
            Self::Rocksdb => {
                ensure!(has_libclang(), ROCKSDB_NEEDS);
                let (wrapper, own) = (places.foreign_version("rocksdb")?, places.foreign_version("librocksdb-sys")?);
                // The version of the bindings carries RocksDB's own behind a plus.
                let own = own.split_once('+').map_or(own.as_str(), |(_, own)| own).to_owned();
                (places.build_foreign_engine("rocksdb").context(ROCKSDB_NEEDS)?, format!("{own} by rocksdb {wrapper}"))
            }
        };
        Ok(Program { contender: self, path, version, log: places.target().join(format!("{}.log", self.name())) })
    }
}

/// Whether libclang is where it is looked for when bindings are made.
fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let holds = |folder: &Path| {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| is_libclang(&name.to_string_lossy()))
    };
    let llvm = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("lib"));
    let usual = ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"];
    usual.into_iter().map(PathBuf::from).chain(llvm).any(|folder| holds(&folder))
}

/// `libclang.so.1`, `libclang-14.so`; not `libclang-cpp.so.14`, which is another library.
fn is_libclang(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libclang") else { return false };
    let rest = rest
        .strip_prefix('-')
        .map_or(rest, |version| version.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.'));
    rest.starts_with(".so") || rest.starts_with("so")
}

/// An engine that can be asked.
pub(super) struct Program {
    pub(super) contender: Contender,
    path: PathBuf,
    pub(super) version: String,
    log: PathBuf,
}

impl Program {
    /// Gives a new process a job, and waits until it has ended.
    pub(super) fn ask(&self, job: &Job) -> anyhow::Result<Report> {
        let mut asked = self.start(job)?;
        let report = asked.report(&self.log)?;
        let status = asked.0.wait()?;
        ensure!(status.success(), "it ended with {status}: {}", complaint(&self.log));
        Ok(report)
    }

    /// Gives a new process a job, and kills it when it has reported.
    pub(super) fn ask_and_kill(&self, job: &Job) -> anyhow::Result<Report> {
        // Dropping it kills it.
        self.start(job)?.report(&self.log)
    }

    fn start(&self, job: &Job) -> anyhow::Result<Asked> {
        // It ends with this process, however that comes about.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.path);
        match self.contender {
            Contender::Antiphon => drop(command.args(["store", "antiphon"])),
            Contender::Bare => drop(command.args(["store", "bare"])),
            Contender::Fjall | Contender::Redb | Contender::Lmdb | Contender::Rocksdb => {}
        }
        command.arg(serde_json::to_string(job)?);
        // A pipe that stays open: one that is to be killed waits for its end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&self.log)?);
        Ok(Asked(command.spawn().context("setpriv (of util-linux) can't be run")?))
    }
}

/// A process under way, killed when it goes out of scope.
struct Asked(Child);

impl Asked {
    fn report(&mut self, log: &Path) -> anyhow::Result<Report> {
        let output = self.0.stdout.take().context("a process is asked once")?;
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let read = BufReader::new(output).read_line(&mut text);
            // Who waited may have given up.
            let _ = line.send(read.map(|_| text));
        });
        let line = lines.recv_timeout(JOB_MAX).with_context(|| format!("it said nothing within {JOB_MAX:?}"))??;
        if line.is_empty() {
            bail!("it ended without a report: {}", complaint(log));
        }
        serde_json::from_str(&line).with_context(|| format!("it said {line}"))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it complained of: the beginning, since a trace of calls may follow.
fn complaint(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().take(COMPLAINT_LINES).collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_relatives() {
        for good in ["libclang.so", "libclang.so.1", "libclang-14.so.1", "libclang-14.so.14.0.6"] {
            assert!(is_libclang(good), "{good}");
        }
        for bad in ["libclang-cpp.so.14", "libclang_rt.asan.so", "libLLVM.so", "libclang"] {
            assert!(!is_libclang(bad), "{bad}");
        }
    }
}
