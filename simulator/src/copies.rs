//! What an operator makes of a lane's store: checkpoints of a running lane, under the run's faults, and what a restore of each gives; and, when
//! the run is over, a repair of what was destroyed.
//!
//! A checkpoint's folder is on the lane's own disk: it waits, crashes and fails as that does. Whatever has a manifest is held to be one, also
//! if a crash or an error came before its maker was told so. A copy is looked at by the tools of `engine::offline` alone:
//!
//! - it verifies, and so does the store that is restored of it, which opens;
//! - it has all that was durable when it was asked for, and of what the lane holds exactly what is not after its cut;
//! - it says nothing that was taken away before it was asked for.
//!
//! Where data may have been destroyed it is told instead, or nothing else differs.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use antiphon_engine::{
    Checkpointed, Engine, EngineError, EngineOptions,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind, Ticket, block_on},
    offline::{self, Access, Until},
};
use antiphon_gateway::core::{mesh::LaneId, placement::Placement};
use antiphon_wire::ids::ConversationId;

use crate::{
    coverage::Count, dice::Dice, disk::LaneDisk, dump::Dump, node::Phase, plan::Fault, rights::Rights, world::World,
};

/// Checkpoints under way at once: one of each lane, and one more that finds it busy.
const COPIES_MAX: usize = 4;

/// A folder in which a checkpoint is being made.
pub struct Copy {
    lane: usize,
    disk: LaneDisk,
    /// What was durable for sure when it was asked for.
    durable: BTreeMap<ConversationId, u64>,
    /// The oracle's time of that.
    at: u64,
    made: Made,
}

/// What became of a checkpoint, once that is known.
pub type Made = Rc<RefCell<Option<Result<Checkpointed, EngineError>>>>;

/// Checkpoints under way, by number.
#[derive(Default)]
pub struct Copies {
    under_way: BTreeMap<u64, Copy>,
    begun: u64,
}

impl World {
    /// Somebody asks a running lane for a checkpoint.
    pub fn begin_copy(&mut self, dice: &Dice) {
        let lane = dice.index(self.disks.len());
        let Some(node) = self.node.as_mut().filter(|node| matches!(node.phase, Phase::Serving | Phase::Draining(_)))
        else {
            return;
        };
        if self.copies.under_way.len() == COPIES_MAX {
            return;
        }
        let number = self.copies.begun + 1;
        let seed = self.plan.seed ^ (number << 48);
        let mut disk = LaneDisk::new(seed, &self.plan, None, &self.segments);
        // What fails in the lane's folder by itself may fail in this one.
        if self.plan.has_disk_errors() && dice.chance(400) {
            let faults = [Fault::WriteError, Fault::SyncError, Fault::NameError, Fault::LateWrite];
            disk.set_errors(dice.pick(&faults), dice.pick(&[20_000, 300_000]));
        }
        if self.plan.rate(Fault::Full) > 0 && dice.chance(200) {
            disk.set_room(Some(dice.pick(&[0, 4_096, 100_000])));
        }
        let made = Made::default();
        let Some(shard) = node.checkpoint(LaneId(lane as u8), disk.files(), Rc::clone(&made)) else { return };
        self.copies.begun = number;
        let at = self.model.asking();
        let durable = self.of_lane(lane).into_iter().map(|id| (id, self.model.durable(id))).collect();
        self.copies.under_way.insert(number, Copy { lane, disk, durable, at, made });
        self.trace.note(self.now_us, &[60, number], || format!("checkpoint {number} of lane {lane} is asked for"));
        self.coverage.one(Count::CheckpointsAsked);
        self.wake_shard(shard);
    }

    /// The conversations of a lane that are known, and not erased.
    fn of_lane(&self, lane: usize) -> Vec<ConversationId> {
        let placement = Placement { shards: u16::from(self.plan.lanes), lanes: self.plan.lanes };
        let there = self.model.conversations.iter().filter(|(_, of)| of.erased.is_none());
        there.map(|(id, _)| *id).filter(|id| usize::from(placement.lane_of(*id).0) == lane).collect()
    }

    /// New operations in the folders of checkpoints: of which, on which lane's disk.
    pub fn submitted_by_copies(&mut self) -> Vec<(u64, usize, Ticket, OperationKind)> {
        let of = |(number, copy): (&u64, &mut Copy)| {
            let (number, lane) = (*number, copy.lane);
            copy.disk.submitted().into_iter().map(move |(ticket, kind)| (number, lane, ticket, kind))
        };
        self.copies.under_way.iter_mut().flat_map(of).collect()
    }

    /// An operation in the folder of a checkpoint completes, if that is under way still.
    pub fn release_of_copy(&self, number: u64, ticket: Ticket) {
        if let Some(copy) = self.copies.under_way.get(&number) {
            copy.disk.release(ticket);
        }
    }

    /// Looks at what the checkpoints under way have come to.
    pub fn look_at_copies(&mut self) {
        let done = |copy: &Copy| copy.made.borrow().is_some();
        let ended: Vec<u64> = self.copies.under_way.iter().filter(|(_, copy)| done(copy)).map(|(of, _)| *of).collect();
        for number in ended {
            let Some(copy) = self.copies.under_way.remove(&number) else { continue };
            let made = copy.made.borrow_mut().take();
            self.trace.note(self.now_us, &[61, number], || format!("checkpoint {number}: {made:?}"));
            match made {
                // It is on the disk, and stays if the power fails now.
                Some(Ok(told)) => {
                    self.coverage.one(Count::CheckpointsMade);
                    let files = copy.disk.image(self.plan.seed ^ number);
                    self.judge_copy(&copy, &files, Some(&told));
                }
                Some(Err(error)) => {
                    self.coverage.one(Count::CheckpointsRefused);
                    let ends = matches!(error, EngineError::CheckpointBusy | EngineError::Closed);
                    let fails = self.plan.has_rot() || self.plan.has_disk_errors() || self.plan.rate(Fault::Full) > 0;
                    self.model.check(ends || fails || self.plan.has_misreads(), || {
                        format!("no checkpoint of a lane of a sound disk: {error}")
                    });
                    self.judge_left(&copy, &copy.disk.image(self.plan.seed ^ number));
                }
                None => {}
            }
            copy.disk.report(&mut self.coverage);
        }
    }

    /// The node that made checkpoints is dead; with the power or without.
    pub fn copies_die(&mut self, power: bool, seed: u64) {
        for (number, mut copy) in std::mem::take(&mut self.copies.under_way) {
            self.coverage.one(Count::CrashesCopying);
            copy.disk.count_awaits(&mut self.coverage);
            copy.disk.crash(power, seed ^ number);
            self.judge_left(&copy, &copy.disk.at_rest());
            copy.disk.report(&mut self.coverage);
        }
    }

    /// What was left by who did not come to the end: no checkpoint, or a whole one.
    fn judge_left(&mut self, copy: &Copy, files: &MemoryFiles) {
        if files.names().iter().any(|name| name == "manifest") {
            self.coverage.one(Count::CheckpointsLeft);
            self.judge_copy(copy, files, None);
        }
    }

    fn judge_copy(&mut self, copy: &Copy, files: &MemoryFiles, told: Option<&Checkpointed>) {
        let dice = Dice::new(self.plan.seed ^ copy.at, "restored");
        match self.restored(copy, files, told, &dice) {
            Ok(true) => self.coverage.one(Count::CheckpointsRestored),
            Ok(false) => self.coverage.one(Count::CheckpointsUnsound),
            Err(problem) => {
                let (lane, at) = (copy.lane, copy.at);
                self.model.fail(|| format!("a checkpoint of lane {lane}, asked for at {at}: {problem}"));
            }
        }
    }

    /// Restores a checkpoint and holds the new store to what the lane has. `false` if it is refused, where it may be.
    fn restored(
        &mut self,
        copy: &Copy,
        files: &MemoryFiles,
        told: Option<&Checkpointed>,
        dice: &Dice,
    ) -> Result<bool, String> {
        let lane = copy.lane as u16;
        let (new, random) = (MemoryFiles::new(dice.number()), MemoryRandom::new(dice.number()));
        // Whole, it is restored without the node's key, too.
        let is_closed = self.plan.engine.encryption.is_some() && dice.chance(300);
        let access = if is_closed { lane.into() } else { self.plan.access(lane) };
        let restored = block_on(offline::restore(files.clone(), new.clone(), access, &random, Until::End, |_| ()));
        let restored = match restored {
            Ok(restored) => restored,
            Err(_) if self.plan.has_rot() => return Ok(false),
            Err(error) => return Err(format!("it cannot be restored: {error}")),
        };
        let cut = restored.position.0;
        if told.is_some_and(|told| told.position != restored.position) {
            return Err(format!("it was said to be {told:?} and is restored as {restored:?}"));
        }
        sound(&new, self.plan.access(lane))?;
        opens(&new, &random, &EngineOptions { lane, ..self.plan.engine.clone() })?;
        let dump = Dump::of(&new, self.plan.access(lane))?;
        let is_encrypted = self.plan.engine.encryption.is_some();
        self.coverage.add(Count::SealedRestored, u64::from(is_encrypted));
        self.coverage.add(Count::SealedRestoredClosed, u64::from(is_closed));
        self.says_nothing_taken_away(&dump, copy.at)?;
        for (id, durable) in &copy.durable {
            let end = dump.conversations.get(id).map_or(0, |of| of.end());
            if end < *durable {
                return Err(format!("{id} ends at #{end}, but #{durable} was durable before"));
            }
        }
        if self.plan.has_rot() {
            return Ok(true);
        }
        let lives = Dump::of(&self.disks[copy.lane].image(dice.number()), self.plan.access(lane))?;
        self.coverage.add(Count::CommitsBesideCheckpoints, u64::from(lives.entries().any(|of| of.position > cut)));
        self.coverage.add(Count::EntriesRestored, dump.entries().count() as u64);
        dump.is_part_of(&lives, cut).map(|()| true)
    }

    /// What was deleted, or edited, before a time is not there; nor what was erased.
    fn says_nothing_taken_away(&self, dump: &Dump, at: u64) -> Result<(), String> {
        let is_erased = |id: &&ConversationId| self.model.conversations.get(id).is_some_and(|of| of.erased.is_some());
        if let Some(id) = dump.conversations.keys().find(is_erased) {
            return Err(format!("{id} is there, which was erased"));
        }
        for entry in dump.entries() {
            let Some(conversation) = self.model.conversations.get(&entry.conversation) else { continue };
            let Some(body) = entry.says() else { continue };
            let wrong = conversation.was_deleted(entry.target.unwrap_or(entry.sequence), at);
            if wrong {
                let (id, sequence) = (entry.conversation, entry.sequence);
                return Err(format!("{id} #{sequence} says {body:?}, which was taken away before"));
            }
        }
        Ok(())
    }

    /// When all is over: what is on the disks is sound, or a repair makes a sound store of it.
    pub fn judge_disks(&mut self) {
        let dice = Dice::new(self.plan.seed, "repaired");
        for lane in 0..self.disks.len() {
            let files = self.disks[lane].image(dice.number());
            let judged = match self.plan.has_rot() {
                true => self.repaired(&files, lane as u16, &dice),
                false => sound(&files, self.plan.access(lane as u16)),
            };
            let judged = judged.and_then(|()| self.says_nothing_in_the_clear(&files, &dice));
            self.model.check(judged.is_ok(), || format!("lane {lane} at rest: {}", judged.unwrap_err()));
        }
    }

    fn repaired(&mut self, files: &MemoryFiles, lane: u16, dice: &Dice) -> Result<(), String> {
        let (new, random) = (MemoryFiles::new(dice.number()), MemoryRandom::new(dice.number()));
        let repaired =
            match block_on(offline::repair(files.clone(), new.clone(), self.plan.access(lane), &random, |_| ())) {
                Ok(repaired) => repaired,
                // Where the manifest or the log cannot be read nothing can be told.
                Err(_) => {
                    self.coverage.one(Count::RepairsRefused);
                    return Ok(());
                }
            };
        self.coverage.one(Count::Repairs);
        self.coverage.add(Count::SealedRepaired, u64::from(self.plan.engine.encryption.is_some()));
        self.coverage.add(Count::RepairsWithLosses, u64::from(!repaired.is_whole()));
        sound(&new, self.plan.access(lane))?;
        opens(&new, &random, &EngineOptions { lane, ..self.plan.engine.clone() })?;
        let dump = Dump::of(&new, self.plan.access(lane))?;
        self.says_nothing_taken_away(&dump, self.model.asked)?;
        for (id, of) in &dump.conversations {
            let Some(known) = self.model.conversations.get(id) else { continue };
            for entry in of.entries.values() {
                let seen = known.entries.get(&entry.sequence);
                if seen.is_some_and(|seen| !entry.is(seen)) {
                    let there = crate::model::describe(&known.entries[&entry.sequence].bytes);
                    return Err(format!("repaired: {id} #{} is {}, but was {there}", entry.sequence, entry.line));
                }
            }
            if let Some((told, missing)) = of.untold() {
                return Err(format!("repaired: {id} lacks #{missing}, but tells {told:?}"));
            }
            if let (false, Some(creator)) = (of.lost.is_empty(), &of.creator)
                && Rights::of(known, of.last).is_some_and(|rights| !rights.are_told_by(creator, &of.rows))
            {
                return Err(format!("repaired: of {id} the rows of the group are other than the entries made them"));
            }
            if let Some((last, members)) = crate::verdict::members(known)
                && last == of.last
                && members != of.members
            {
                return Err(format!("repaired: {id} has members {:?}, not {members:?}", of.members));
            }
        }
        if repaired.is_whole() {
            for id in self.of_lane(usize::from(lane)) {
                let (durable, end) = (self.model.durable(id), dump.conversations.get(&id).map_or(0, |of| of.last));
                if end < durable {
                    return Err(format!("repaired as whole: {id} ends at #{end}, but #{durable} was durable"));
                }
            }
        }
        Ok(())
    }
}

fn sound(files: &MemoryFiles, access: Access) -> Result<(), String> {
    let report =
        block_on(offline::verify(files.clone(), access, |_| ())).map_err(|error| format!("unverified: {error}"))?;
    match report.findings.iter().find(|finding| !finding.harmless) {
        Some(finding) => Err(format!("it does not verify: {finding}")),
        None if report.findings_left_out > 0 => Err("it does not verify".to_owned()),
        None => Ok(()),
    }
}

/// A copy of it opens, for writing.
fn opens(files: &MemoryFiles, random: &MemoryRandom, options: &EngineOptions) -> Result<(), String> {
    let (files, clock) = (files.crash_image(0), MemoryClock::new(1));
    let opened = block_on(Engine::open(files, clock, random.clone(), options.clone()));
    let (_, report) = opened.map_err(|error| format!("it does not open: {error}"))?;
    let is_sound = !report.read_only && report.damage.is_empty() && report.segments_damaged.is_empty();
    if is_sound { Ok(()) } else { Err(format!("it opens as damaged: {report:?}")) }
}
