//! What a reader has to know of a measurement: where, when, of what.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use antiphon_bench_store::counters::is_device_shared;
use anyhow::{Context, ensure};
use serde::Serialize;

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// What a program says, at the top of the repository.
pub(crate) fn said(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(name).args(arguments).current_dir(root()).output().context(name.to_owned())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit, and whether something was changed since.
pub(crate) fn revision() -> anyhow::Result<String> {
    let changes = said("git", &["status", "--porcelain", "--untracked-files=no"])?;
    let changed = if changes.is_empty() { "" } else { ", changed" };
    Ok(said("git", &["rev-parse", "--short", "HEAD"])? + changed)
}

/// Today, in UTC.
pub(crate) fn date() -> anyhow::Result<String> {
    said("date", &["-u", "+%Y-%m-%d"])
}

/// What else ran here in the last minute.
pub(crate) fn load_average() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Type, device and options of the file system that a folder lies on.
///
/// # Errors
/// It is none that keeps anything.
pub(crate) fn file_system(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.to_string_lossy();
    let file_system = said("findmnt", &["-no", "FSTYPE,SOURCE,OPTIONS", "--target", &folder])
        .context("findmnt (of util-linux) can't be run")?;
    ensure!(!file_system.starts_with("tmpfs"), "{folder} is in memory; --folder names one on a disk");
    Ok(file_system.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Bytes that are free where a folder lies.
pub(crate) fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let text = said("df", &["--output=avail", "-B1", &folder.to_string_lossy()]).context("df can't be run")?;
    text.lines().last().and_then(|line| line.trim().parse().ok()).with_context(|| format!("df says {text:?}"))
}

/// How this program was built.
pub(crate) fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug: its figures mean nothing" } else { "release" }
}

/// All of it, as it is kept beside figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Header {
    pub(crate) bench: &'static str,
    pub(crate) machine: antiphon_tuning::Machine,
    pub(crate) file_system: String,
    /// The root file system lies there, too.
    pub(crate) device_shared: bool,
    pub(crate) revision: String,
    pub(crate) date: String,
    pub(crate) profile: &'static str,
    pub(crate) seed: u64,
    pub(crate) load_average_before: String,
    pub(crate) load_average_after: String,
}

impl Header {
    /// Of a folder that exists; prints it. The machine was printed before.
    pub(crate) fn new(bench: &'static str, folder: &Path, seed: u64) -> anyhow::Result<Self> {
        let header = Self {
            bench,
            machine: antiphon_tuning::machine(),
            file_system: file_system(folder)?,
            device_shared: is_device_shared(folder)?,
            revision: revision()?,
            date: date()?,
            profile: profile(),
            seed,
            load_average_before: load_average()?,
            load_average_after: String::new(),
        };
        println!("seed      {}\nrevision  {}, {}", header.seed, header.revision, header.date);
        println!("profile   {}\nfiles     {}", header.profile, header.file_system);
        println!("load      {} before\n", header.load_average_before);
        Ok(header)
    }

    /// The end of the measurement.
    pub(crate) fn ended(mut self) -> anyhow::Result<Self> {
        self.load_average_after = load_average()?;
        Ok(self)
    }
}
