//! What was cut, how often, and what was under way then.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::{Duration, Instant},
};

use super::{
    protocol::{Frame, Work},
    rig::{Cut, FileSystem},
};

/// The figures of a run.
pub(crate) struct Tally {
    pub(crate) started: Instant,
    pub(crate) file_system: FileSystem,
    pub(crate) file_system_cuts: u64,
    pub(crate) disk_cuts: u64,
    pub(crate) kills: u64,
    /// Cuts while the engine was being opened or read.
    pub(crate) during_opening: u64,
    pub(crate) stores: u64,
    /// Readings of whole stores after a cut.
    pub(crate) checks: u64,
    /// Openings that found the last write torn.
    pub(crate) torn_tails: u64,
    /// Messages acknowledged, each once.
    pub(crate) acknowledged: u64,
    /// Entries that were read and compared, in all readings together.
    pub(crate) entries_read: u64,
    /// Opening and reading; writing; cutting, unmounting and mounting.
    pub(crate) reading: Duration,
    pub(crate) writing: Duration,
    pub(crate) mounting: Duration,
    /// Cuts by what was under way; one may be in several.
    under_way: BTreeMap<Work, u64>,
    idle: u64,
}

impl Tally {
    pub(crate) fn new(file_system: FileSystem) -> Self {
        Self {
            started: Instant::now(),
            file_system,
            file_system_cuts: 0,
            disk_cuts: 0,
            kills: 0,
            during_opening: 0,
            stores: 0,
            checks: 0,
            torn_tails: 0,
            acknowledged: 0,
            entries_read: 0,
            reading: Duration::ZERO,
            writing: Duration::ZERO,
            mounting: Duration::ZERO,
            under_way: BTreeMap::new(),
            idle: 0,
        }
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.file_system_cuts + self.disk_cuts
    }

    pub(crate) fn count(&mut self, cut: Cut) {
        match cut {
            Cut::FileSystem => self.file_system_cuts += 1,
            Cut::Disk => self.disk_cuts += 1,
            Cut::Kill => self.kills += 1,
        }
    }

    pub(crate) fn count_under_way(&mut self, under_way: &UnderWay) {
        let mut any = false;
        for work in Work::ALL {
            if under_way.running.get(&work).is_some_and(|count| *count > 0) {
                *self.under_way.entry(work).or_default() += 1;
                any = true;
            }
        }
        self.idle += u64::from(!any);
    }

    /// One line while it runs.
    pub(crate) fn progress(&self, cuts: u64) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        format!(
            "{} of {cuts} cuts, {:.1} a second; {} messages acknowledged, {} readings, 0 violations",
            self.cuts(),
            self.cuts() as f64 / seconds,
            self.acknowledged,
            self.checks,
        )
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.started.elapsed().as_secs_f64();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut table = String::new();
        let mut row = |name: &str, count: &dyn fmt::Display| writeln!(table, "  {name:<44} {count}");
        row("file system", &self.file_system.name())?;
        row("kernel", &kernel.trim())?;
        row("seconds", &format!("{seconds:.0}"))?;
        for (name, time) in [
            ("  opening and reading", self.reading),
            ("  writing", self.writing),
            ("  cutting and mounting", self.mounting),
        ] {
            row(name, &format!("{:.0}", time.as_secs_f64()))?;
        }
        row("cuts", &self.cuts())?;
        row("  of the file system (its journal is lost)", &self.file_system_cuts)?;
        row("  of the disk (what was not flushed, too)", &self.disk_cuts)?;
        row("kills without a cut between them", &self.kills)?;
        row("stores", &self.stores)?;
        row("messages acknowledged", &self.acknowledged)?;
        row("readings of a whole store", &self.checks)?;
        row("entries compared in them", &self.entries_read)?;
        row("last writes found torn", &self.torn_tails)?;
        row("under way at a cut or kill (one may be several)", &"")?;
        row("  opening, recovery or reading", &self.during_opening)?;
        for work in Work::ALL {
            row(&format!("  {}", work.name()), &self.under_way.get(&work).copied().unwrap_or_default())?;
        }
        row("  nothing", &self.idle)?;
        to.write_str(&table)
    }
}

/// What the writer said that it was doing, up to the first failure.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    running: BTreeMap<Work, u32>,
    has_failed: bool,
}

impl UnderWay {
    pub(crate) fn take(&mut self, frame: &Frame) {
        if self.has_failed {
            return;
        }
        match frame {
            Frame::Begin(work) => *self.running.entry(*work).or_default() += 1,
            Frame::End(work) => {
                let running = self.running.entry(*work).or_default();
                *running = running.saturating_sub(1);
            }
            Frame::Failed(_) => self.has_failed = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_first_ends_the_account() {
        let mut under_way = UnderWay::default();
        let frames = [
            Frame::Begin(Work::Commit),
            Frame::End(Work::Commit),
            Frame::Begin(Work::Flush),
            Frame::Failed("EIO".into()),
            Frame::End(Work::Flush),
            Frame::Begin(Work::Manifest),
        ];
        frames.iter().for_each(|frame| under_way.take(frame));
        let mut tally = Tally::new(FileSystem::Ext4);
        tally.count_under_way(&under_way);
        assert_eq!(tally.under_way, BTreeMap::from([(Work::Flush, 1)]));
        tally.count_under_way(&UnderWay::default());
        assert_eq!(tally.idle, 1);
    }
}
