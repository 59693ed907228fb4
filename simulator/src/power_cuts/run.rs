//! The run: a writer at a time on one store, cut at a moment, mounted again, read and judged, and on; now and then a
//! store of its own.
//!
//! The seed decides what is written, which power is cut and what moment is aimed at. When that moment comes is up to
//! the machine, so a seed repeats the writer's choices and not the cut.

use std::{
    fs,
    io::{self, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use antiphon_simulator::dice::Dice;
use antiphon_wire::ids::ClientMessageId;

use super::{
    Lie, RunArguments,
    model::Model,
    names::{CONVERSATIONS_MAX, Names, Place},
    protocol::{Frame, Plan, Work},
    rig::{Cut, Rig, RigError},
    rigs::Board,
    tally::{Tally, UnderWay},
};

/// How long a writer may take for anything: recovery of a bounded log, on a busy machine. In looks, of which a machine or
/// process that was stopped in between takes one.
const LOOKS_MAX: u32 = 60;
const LOOK: Duration = Duration::from_secs(1);

/// How long a round waits for the work that it aims at. Where rigs share cores, this and other moments come as much later, so that as much is
/// under way at them as where a rig has a core to itself.
const AIM_MAX: Duration = Duration::from_millis(200);

/// Messages and bytes of a store before another is made: all is read after every cut.
const STORE_MESSAGES_MAX: usize = 5_000;
const STORE_BYTES_MAX: usize = 12 << 20;

/// Kills without a cut between them: more would say nothing new.
const KILLS_MAX_IN_A_ROW: u32 = 3;

/// Why a run ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The machine can't do it.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// A writer could not be started or spoken to.
    #[error("the writer: {0}")]
    Writer(io::Error),
    /// A promise was broken.
    #[error("{0}")]
    Violation(String),
}

/// A writer that runs.
struct Writer {
    child: Child,
    to: ChildStdin,
    frames: Receiver<Frame>,
}

impl Writer {
    fn tell(&mut self, frame: &Frame) {
        // One that has ended is found out by what it does not say.
        let _ = frame.write(&mut self.to).and_then(|()| self.to.flush());
    }

    fn next(&self) -> Result<Frame, RunError> {
        for _ in 0..LOOKS_MAX {
            match self.frames.recv_timeout(LOOK) {
                Ok(frame) => return Ok(frame),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        }
        Err(RunError::Violation(format!("the engine hangs: nothing for {} s", LOOKS_MAX * LOOK.as_secs() as u32)))
    }

    /// Kills it if it has not ended; gives what it had still said, and whether it lived until then.
    fn kill(&mut self) -> (Vec<Frame>, bool) {
        let _ = self.child.kill();
        let killed = self.child.wait().is_ok_and(|status| status.signal() == Some(9));
        (self.frames.iter().collect(), killed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ended() -> RunError {
    RunError::Violation("the writer ended by itself".to_owned())
}

/// When the power is cut.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the writing began.
    After(Duration),
    /// So long after this work began, for the so-manieth time.
    During(Work, u32, Duration),
}

pub(crate) struct Run {
    arguments: RunArguments,
    dice: Dice,
    rig: Rig,
    tally: Tally,
    model: Model,
    names: Names,
    round: u32,
    /// Acknowledged in stores before this one.
    acknowledged_before: u64,
    /// How often this rig's power is cut.
    cuts: u64,
    /// How many rigs share a core.
    rigs_a_core: u32,
    /// Cuts until this store is given up.
    store_cuts_left: u64,
    /// Ids of the last round that may be sent again.
    again: Vec<ClientMessageId>,
    kills_in_a_row: u32,
}

impl Run {
    /// A run of one rig with images in a folder of its own. `arguments` are this rig's: its own seed and its share of the cuts.
    pub(crate) fn new(arguments: RunArguments, folder: PathBuf) -> Result<Self, RigError> {
        let cuts = arguments.cuts;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let rigs_a_core = usize::from(arguments.rigs).div_ceil(cores) as u32;
        let dice = Dice::new(arguments.seed, "first store");
        let rig = Rig::new(folder, arguments.file_system)?;
        let names = Names { seed: arguments.seed, store: 0 };
        let mut tally = Tally::new(arguments.file_system);
        tally.stores = 1;
        let store_cuts_left = dice.between(10, 80);
        Ok(Self {
            arguments,
            dice,
            rig,
            tally,
            model: Model::new(names),
            names,
            round: 0,
            acknowledged_before: 0,
            cuts,
            rigs_a_core,
            store_cuts_left,
            again: Vec::new(),
            kills_in_a_row: 0,
        })
    }

    /// Cuts as often as is asked for, and checks after the last one, too. Ends early where another rig's run has failed.
    pub(crate) fn run(mut self, number: usize, board: &Board) -> Result<(), RunError> {
        let mut result = Ok(());
        let until =
            self.arguments.minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes.max(0.0) * 60.0).ok());
        let is_over = |tally: &Tally| until.is_some_and(|until| tally.started.elapsed() >= until);
        while result.is_ok() && self.tally.cuts() < self.cuts && !is_over(&self.tally) && !board.has_failed() {
            result = self.round();
            self.tally.acknowledged = self.acknowledged_before + self.model.acknowledged();
            board.tell(number, &self.tally);
        }
        let result = result.and_then(|()| self.finish());
        board.tell(number, &self.tally);
        if let Err(error) = &result {
            board.fail();
            self.rig.keep();
            self.tell_failure(error);
        }
        result
    }

    fn tell_failure(&self, error: &RunError) {
        let Names { seed, store } = self.names;
        println!("\nseed {seed}, store {store}, round {}, after {} cuts:\n{error}", self.round, self.tally.cuts());
        let folder = self.rig.folder();
        let said = fs::read_to_string(folder.join("writer.txt")).unwrap_or_default();
        if !said.is_empty() {
            println!("the writers said:\n{said}");
        }
        println!(
            "the images are kept: mount -o loop {0}/outer.img {0}/outer, then {0}/outer/disk.img at {0}/inner",
            folder.display()
        );
        println!(
            "--seed {seed} --rigs 1 repeats what is written and aimed at; the moment of a cut is up to the machine"
        );
    }

    fn start_writer(&self) -> Result<Writer, RunError> {
        let said = fs::OpenOptions::new().create(true).append(true).open(self.rig.folder().join("writer.txt"));
        let mut command = Command::new(std::env::current_exe().map_err(RunError::Writer)?);
        command.arg("writer").arg("--data").arg(self.rig.data());
        let log_file_bytes = self.dice.pick(&[512 << 10, 512 << 10, 512 << 10, 768 << 10_u64]);
        let memtable_bytes = self.dice.pick(&[16 << 10, 64 << 10, 256 << 10_u64]);
        for (name, number) in [
            ("--seed", self.names.seed),
            ("--store", u64::from(self.names.store)),
            ("--log-file-bytes", log_file_bytes),
            ("--memtable-bytes", memtable_bytes),
        ] {
            command.args([name, &number.to_string()]);
        }
        if let Some(lie) = self.arguments.lie {
            command.args(["--lie", lie.name()]);
        }
        let said = said.map_err(RunError::Writer)?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said).spawn();
        let mut child = child.map_err(RunError::Writer)?;
        let (to, from) = child.stdin.take().zip(child.stdout.take()).expect("both were asked for");
        let mut from = BufReader::with_capacity(64 << 10, from);
        // Bounded by what a writer says in a round: it ends by a cut.
        let (told, frames) = mpsc::channel();
        thread::spawn(move || {
            while let Some(frame) = Frame::read(&mut from) {
                if told.send(frame).is_err() {
                    break;
                }
            }
        });
        Ok(Writer { child, to, frames })
    }

    /// One writer, from its start to its end, and what follows.
    fn round(&mut self) -> Result<(), RunError> {
        self.begin_round();
        let begun = Instant::now();
        let mut writer = self.start_writer()?;
        let cut = self.choose_cut();
        if self.dice.chance(70) {
            // While the journal's replay has just ended and the engine's goes on.
            thread::sleep(self.rigs_a_core * Duration::from_micros(self.dice.below(25_000)));
            self.tally.during_opening += 1;
            return self.cut(&mut writer, cut, None);
        }
        let mut under_way = self.check(&writer)?;
        self.tally.reading += begun.elapsed();
        let is_full = self.model.messages() > STORE_MESSAGES_MAX || self.model.bytes() > STORE_BYTES_MAX;
        if self.store_cuts_left == 0 || is_full {
            return self.end_store(writer);
        }
        self.store_cuts_left -= 1;
        let plan = self.plan();
        let again = plan.again.clone();
        writer.tell(&Frame::Plan(plan));
        let begun = Instant::now();
        self.write_until(&writer, self.choose_moment(), &mut under_way)?;
        self.tally.writing += begun.elapsed();
        self.cut(&mut writer, cut, Some(under_way))?;
        self.choose_again(&again);
        Ok(())
    }

    /// Each round has dice of its own, so that what one came to does not change the choices of the next.
    fn begin_round(&mut self) {
        self.round += 1;
        self.dice = Dice::new(self.arguments.seed, &format!("round {}", self.round));
    }

    fn choose_cut(&mut self) -> Cut {
        let cut = match self.dice.below(100) {
            0..=9 if self.kills_in_a_row < KILLS_MAX_IN_A_ROW => Cut::Kill,
            0..=49 => Cut::FileSystem,
            _ => Cut::Disk,
        };
        self.kills_in_a_row = if cut == Cut::Kill { self.kills_in_a_row + 1 } else { 0 };
        cut
    }

    fn choose_moment(&self) -> Moment {
        let aimed = [Work::Recycle, Work::Prepare, Work::Flush, Work::Compaction, Work::Compaction, Work::Manifest];
        if self.dice.chance(400) {
            return Moment::After(self.rigs_a_core * Duration::from_micros(self.dice.below(40_000)));
        }
        let delay = Duration::from_micros(if self.dice.chance(500) { 0 } else { self.dice.below(2_000) });
        Moment::During(self.dice.pick(&aimed), self.dice.between(1, 3) as u32, delay)
    }

    fn plan(&mut self) -> Plan {
        Plan {
            round: self.round,
            window: self.dice.pick(&[1, 4, 16, 64, 256]),
            conversations: self.dice.between(1, u64::from(CONVERSATIONS_MAX)) as u32,
            again: std::mem::take(&mut self.again),
        }
    }

    /// Reads what the store holds and judges it. Gives what the engine has begun meanwhile.
    fn check(&mut self, writer: &Writer) -> Result<UnderWay, RunError> {
        let mut under_way = UnderWay::default();
        loop {
            match writer.next()? {
                Frame::Opened(opened) => {
                    self.tally.torn_tails += u64::from(opened.torn);
                    self.model.opened(&opened);
                }
                Frame::OpenFailed(text) => {
                    return Err(RunError::Violation(format!("lost: the store can't be opened: {text}")));
                }
                Frame::WasRead => break,
                frame @ (Frame::Begin(_) | Frame::End(_)) => under_way.take(&frame),
                Frame::Failed(text) => return Err(RunError::Violation(format!("an operation failed: {text}"))),
                frame => {
                    self.tally.entries_read += u64::from(matches!(frame, Frame::Entry(_)));
                    self.model.read(frame);
                }
            }
        }
        self.model.was_read();
        self.tally.checks += 1;
        self.judged()?;
        Ok(under_way)
    }

    fn judged(&self) -> Result<(), RunError> {
        match self.model.violations() {
            [] => Ok(()),
            violations => Err(RunError::Violation(violations.join("\n"))),
        }
    }

    /// Takes what the writer says until the moment has come.
    fn write_until(&mut self, writer: &Writer, moment: Moment, under_way: &mut UnderWay) -> Result<(), RunError> {
        let (mut end, mut aim) = match moment {
            Moment::After(time) => (Instant::now() + time, None),
            Moment::During(work, count, delay) => {
                (Instant::now() + self.rigs_a_core * AIM_MAX, Some((work, count, delay)))
            }
        };
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let frame = match writer.frames.recv_timeout(left) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            };
            if let Frame::Failed(text) = &frame {
                return Err(RunError::Violation(format!("an operation failed before the cut: {text}")));
            }
            if let Some((_, count, delay)) = aim.as_mut().filter(|(work, ..)| frame == Frame::Begin(*work)) {
                *count -= 1;
                if *count == 0 {
                    end = Instant::now() + *delay;
                    aim = None;
                }
            }
            self.take(&frame, under_way)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame, under_way: &mut UnderWay) -> Result<(), RunError> {
        under_way.take(frame);
        match frame {
            Frame::Refused(code) if !matches!(&**code, "overloaded" | "storage_failed") => {
                Err(RunError::Violation(format!("a command was refused: {code}")))
            }
            Frame::Unreadable(text) => Err(RunError::Violation(text.clone())),
            frame => {
                self.model.told(frame);
                Ok(())
            }
        }
    }

    /// Cuts, kills, takes what was said before, and makes the store ready to be opened again.
    fn cut(&mut self, writer: &mut Writer, cut: Cut, under_way: Option<UnderWay>) -> Result<(), RunError> {
        let begun = Instant::now();
        self.rig.cut(cut)?;
        if self.dice.chance(500) {
            // What the engine does when everything fails must not be an acknowledgement either.
            thread::sleep(Duration::from_micros(self.dice.below(3_000)));
        }
        let (frames, lived) = writer.kill();
        self.tally.count(cut);
        if !lived {
            return Err(ended());
        }
        if let Some(mut under_way) = under_way {
            for frame in &frames {
                self.take(frame, &mut under_way)?;
            }
            self.tally.count_under_way(&under_way);
        }
        self.judged()?;
        self.rig.recover(cut)?;
        self.tally.mounting += begun.elapsed();
        Ok(())
    }

    /// Some messages to send again: of those before, and of this round, whether or not they were acknowledged or even
    /// sent.
    fn choose_again(&mut self, before: &[ClientMessageId]) {
        let mut again: Vec<_> = before.iter().copied().filter(|_| self.dice.chance(300)).take(8).collect();
        for _ in 0..self.dice.below(12) {
            let number = self.dice.below(600) as u32;
            let conversation = self.dice.below(u64::from(CONVERSATIONS_MAX)) as u16;
            let id = self.names.id(Place { round: self.round, number, conversation });
            if !again.contains(&id) {
                again.push(id);
            }
        }
        again.extend(self.model.newest(&self.names, self.round, 6));
        again.sort_unstable();
        again.dedup();
        self.again = again;
    }

    /// Ends a writer in order, and begins another store.
    fn end_store(&mut self, mut writer: Writer) -> Result<(), RunError> {
        writer.tell(&Frame::Close);
        loop {
            match writer.next()? {
                Frame::Closed => break,
                Frame::Failed(text) => return Err(RunError::Violation(format!("the engine can't be closed: {text}"))),
                _ => {}
            }
        }
        let ended = writer.child.wait().is_ok_and(|status| status.success());
        if !ended {
            return Err(RunError::Violation("the writer does not end in order".to_owned()));
        }
        drop(writer);
        self.acknowledged_before += self.model.acknowledged();
        self.names.store += 1;
        self.model = Model::new(self.names);
        self.again.clear();
        self.store_cuts_left = self.dice.between(10, 80);
        self.tally.stores += 1;
        Ok(self.rig.make_anew()?)
    }

    /// The check after the last cut.
    fn finish(&mut self) -> Result<(), RunError> {
        self.begin_round();
        let mut writer = self.start_writer()?;
        self.check(&writer)?;
        writer.kill();
        self.tally.acknowledged = self.acknowledged_before + self.model.acknowledged();
        Ok(())
    }
}

impl Lie {
    fn name(self) -> &'static str {
        match self {
            Self::WritesNotSynchronous => "writes-not-synchronous",
            Self::SyncsSkipped => "syncs-skipped",
        }
    }
}
