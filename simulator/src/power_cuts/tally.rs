//! What was cut, how often, and what was under way then.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    protocol::{Frame, Work},
    rig::{Cut, FileSystem},
};

/// The figures of a run, or of several side by side.
#[derive(Clone)]
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
    /// Opening and reading; writing; cutting, unmounting and mounting. Of rigs side by side, their sum.
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

    /// Adds another rig's.
    pub(crate) fn join(&mut self, other: &Self) {
        self.started = self.started.min(other.started);
        for (mine, theirs) in [
            (&mut self.file_system_cuts, other.file_system_cuts),
            (&mut self.disk_cuts, other.disk_cuts),
            (&mut self.kills, other.kills),
            (&mut self.during_opening, other.during_opening),
            (&mut self.stores, other.stores),
            (&mut self.checks, other.checks),
            (&mut self.torn_tails, other.torn_tails),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.entries_read, other.entries_read),
            (&mut self.idle, other.idle),
        ] {
            *mine += theirs;
        }
        self.reading += other.reading;
        self.writing += other.writing;
        self.mounting += other.mounting;
        other.under_way.iter().for_each(|(work, count)| *self.under_way.entry(*work).or_default() += count);
    }

    /// All figures, for a program to read.
    pub(crate) fn to_json(&self, seed: u64, rigs: usize, violations: u64) -> Value {
        let under_way = Work::ALL.map(|work| (work.name().to_owned(), json!(self.under_way_of(work))));
        json!({
            "file_system": self.file_system.name(),
            "kernel": kernel(),
            "seed": seed,
            "rigs": rigs,
            "seconds": self.started.elapsed().as_secs_f64(),
            "cuts": self.cuts(),
            "cuts_of_file_system": self.file_system_cuts,
            "cuts_of_disk": self.disk_cuts,
            "kills": self.kills,
            "stores": self.stores,
            "messages_acknowledged": self.acknowledged,
            "readings": self.checks,
            "entries_compared": self.entries_read,
            "torn_tails": self.torn_tails,
            "violations": violations,
            "under_way": {
                "opening, recovery or reading": self.during_opening,
                "work": Value::Object(under_way.into_iter().collect()),
                "nothing": self.idle,
            },
        })
    }

    fn under_way_of(&self, work: Work) -> u64 {
        self.under_way.get(&work).copied().unwrap_or_default()
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
        let mut table = String::new();
        let mut row = |name: &str, count: &dyn fmt::Display| writeln!(table, "  {name:<44} {count}");
        row("file system", &self.file_system.name())?;
        row("kernel", &kernel())?;
        row("seconds", &format!("{seconds:.0}"))?;
        for (name, time) in [
            ("  opening and reading, all rigs", self.reading),
            ("  writing, all rigs", self.writing),
            ("  cutting and mounting, all rigs", self.mounting),
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
            row(&format!("  {}", work.name()), &self.under_way_of(work))?;
        }
        row("  nothing", &self.idle)?;
        to.write_str(&table)
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
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

    #[test]
    fn rigs_side_by_side_add_up() {
        let mut sum = Tally::new(FileSystem::Ext4);
        for (cut, acknowledged) in [(Cut::Disk, 5), (Cut::FileSystem, 7), (Cut::Kill, 0)] {
            let mut one = Tally::new(FileSystem::Ext4);
            one.count(cut);
            one.acknowledged = acknowledged;
            let mut under_way = UnderWay::default();
            under_way.take(&Frame::Begin(Work::Flush));
            one.count_under_way(&under_way);
            sum.join(&one);
        }
        assert_eq!([sum.cuts(), sum.kills, sum.acknowledged, sum.under_way_of(Work::Flush)], [2, 1, 12, 3]);
        let json = sum.to_json(7, 3, 0);
        assert_eq!([&json["cuts"], &json["rigs"], &json["under_way"]["work"]["flush"]], [2, 3, 3]);
        // Every figure of one rig is in the sum: twice a rig is a rig added to itself.
        let mut one = Tally::new(FileSystem::Xfs);
        let figures = [&mut one.file_system_cuts, &mut one.disk_cuts, &mut one.kills, &mut one.during_opening];
        figures.into_iter().for_each(|figure| *figure = 1);
        let figures = [&mut one.stores, &mut one.checks, &mut one.torn_tails, &mut one.entries_read, &mut one.idle];
        figures.into_iter().for_each(|figure| *figure = 1);
        one.acknowledged = 1;
        let mut both = one.clone();
        both.join(&one);
        let (one, both) = (one.to_json(1, 1, 0), both.to_json(1, 1, 0));
        let names = ["cuts_of_file_system", "cuts_of_disk", "kills", "stores", "readings", "torn_tails"];
        for name in names.into_iter().chain(["messages_acknowledged", "entries_compared"]) {
            assert_eq!((&one[name], &both[name]), (&json!(1), &json!(2)), "{name}");
        }
    }
}
