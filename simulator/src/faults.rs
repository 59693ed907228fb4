//! Faults as the plan has them, done to the world one at a time.

use antiphon_wire::session::Phase as SessionPhase;

use crate::{
    clients::Saved,
    coverage::Count,
    dice::Dice,
    events::Event,
    network::LinkId,
    node::Phase,
    plan::Fault,
    world::{CrashWaits, World},
};

impl World {
    /// Does a fault, if there is anything that it can be done to.
    pub fn inject(&mut self, fault: Fault, dice: &Dice) {
        self.trace.note(self.now_us, &[30, fault as u64], || format!("fault: {}", fault.name()));
        match fault {
            Fault::Cut | Fault::Silence | Fault::Stall => self.harm_link(fault, dice),
            Fault::RestartKept | Fault::RestartBack | Fault::RestartLost => self.restart_client(fault, dice),
            Fault::Twin => self.start_twin(dice),
            // Mostly while the disk is at work: that is when it matters.
            Fault::Crash | Fault::Kill if dice.chance(750) => {
                let operations = dice.pick(&[0, 0, 1, 3, 10]);
                self.crash_waits = Some(CrashWaits { power: fault == Fault::Crash, operations });
            }
            Fault::Crash | Fault::Kill => self.crash(fault == Fault::Crash, dice),
            Fault::Drain => self.drain(dice),
            Fault::ClockJump => {
                self.coverage.one(Count::ClockJumps);
                let by_ms = dice.pick(&[-31_536_000_000, -60_000, -1, 1_000, 3_600_000, 31_536_000_000_i64]);
                self.jump_clock(by_ms);
            }
            Fault::ReadError | Fault::WriteError | Fault::SyncError | Fault::NameError | Fault::LateWrite => {
                self.begin_lasting(fault, dice);
            }
            Fault::Full | Fault::Slow | Fault::Hang | Fault::ClockStop => self.begin_lasting(fault, dice),
            Fault::FlipSegment
            | Fault::FlipLog
            | Fault::FlipBatch
            | Fault::FlipOther
            | Fault::BreakRange
            | Fault::BreakLog => self.rot(fault, dice),
            Fault::MisdirectWrite => self.misdirect_write(dice),
            Fault::MisdirectRead => {
                let lane = dice.index(self.disks.len());
                self.disks[lane].misdirect_reads(dice.pick(&[1, 3, 20]));
            }
            Fault::Checkpoint => self.begin_copy(dice),
            // Not of a moment: the plan has them.
            Fault::Reconfigure | Fault::UnequalDisks | Fault::Relane | Fault::Scrub => {}
        }
    }

    fn open_links(&self) -> Vec<LinkId> {
        self.clients.iter().filter_map(|client| client.link).filter(|link| !self.links[*link].silent).collect()
    }

    fn harm_link(&mut self, fault: Fault, dice: &Dice) {
        let links = self.open_links();
        if links.is_empty() {
            return;
        }
        let link = dice.pick(&links);
        let later_us = self.now_us + dice.delay_us(self.plan.network_us_max);
        match fault {
            Fault::Cut => {
                self.coverage.one(Count::Cuts);
                self.plan_at(later_us, Event::UpEnd(link));
                let later_us = self.now_us + dice.delay_us(self.plan.network_us_max);
                self.plan_at(later_us, Event::DownEnd(link));
            }
            Fault::Silence => {
                self.coverage.one(Count::Silences);
                self.links[link].silent = true;
            }
            _ => {
                self.coverage.one(Count::Stalls);
                self.links[link].stalled_until_us = self.now_us + dice.delay_us(5_000_000);
            }
        }
    }

    fn restart_client(&mut self, fault: Fault, dice: &Dice) {
        let index = dice.index(self.clients.len());
        let client = &self.clients[index];
        if !client.running || !client.wanted || client.session.phase() == SessionPhase::Idle {
            return;
        }
        let (state, kind) = match fault {
            Fault::RestartKept => (Some(client.state()), Count::RestartsKept),
            Fault::RestartBack if client.saved.is_some() => (client.saved.clone(), Count::RestartsBack),
            Fault::RestartBack => return,
            _ => (None, Count::RestartsLost),
        };
        self.coverage.one(kind);
        self.client_process_restarts(index, state, dice);
        self.clients[index].running = false;
        let later_us = self.now_us + dice.delay_us(1_000_000);
        self.plan_at(later_us, Event::ClientStart(index));
    }

    /// A client's process is gone and another one is there: its connection breaks, whatever was on its way.
    pub fn client_process_restarts(&mut self, index: usize, state: Option<Saved>, dice: &Dice) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
        if let Some(link) = client.link.take() {
            client.transport = None;
            self.links[link].client_open = false;
            let later_us = self.now_us + dice.delay_us(self.plan.network_us_max);
            if !self.links[link].silent {
                self.plan_at(later_us, Event::UpEnd(link));
            }
        }
        self.clients[index].restart(now_ms, state);
    }

    /// A client that was replaced by another connection of its device comes back and replaces that one.
    fn start_twin(&mut self, dice: &Dice) {
        let replaced: Vec<usize> = (0..self.clients.len()).filter(|index| !self.clients[*index].wanted).collect();
        if replaced.is_empty() {
            return;
        }
        let index = dice.pick(&replaced);
        let now_ms = self.now_ms();
        self.clients[index].wanted = true;
        if self.clients[index].running {
            self.clients[index].session.start(now_ms);
            self.pump(index);
        }
    }

    fn crash(&mut self, power: bool, dice: &Dice) {
        let Some(node) = &self.node else { return };
        self.coverage.one(if power { Count::Crashes } else { Count::Kills });
        match node.phase {
            Phase::Opening => self.coverage.one(Count::CrashesOpening),
            Phase::Serving => self.coverage.one(Count::CrashesServing),
            Phase::Draining(_) => self.coverage.one(Count::CrashesDraining),
            Phase::Closing(_) => self.coverage.one(Count::CrashesClosing),
            Phase::Over => {}
        }
        self.disks.iter().for_each(|disk| disk.count_awaits(&mut self.coverage));
        self.node_dies(power);
        self.plan_start(dice.delay_us(300_000));
        // Sometimes it dies again before it is up.
        if dice.chance(200) {
            self.crash_waits = Some(CrashWaits { power, operations: dice.below(12) });
        }
    }

    /// The second of two crashes.
    pub fn crash_again(&mut self, power: bool) {
        let dice = Dice::new(self.plan.seed ^ self.now_us, "crash again");
        self.crash(power, &dice);
    }

    fn drain(&mut self, dice: &Dice) {
        let deadline_us = self.now_us + 8_000_000;
        let Some(node) = self.node.as_mut().filter(|node| node.phase == Phase::Serving) else { return };
        self.coverage.one(Count::Drains);
        node.drain(dice.pick(&[1, 200, 2_000]), deadline_us);
        let shards = node.shards.len();
        (0..shards).for_each(|shard| self.wake_shard(shard));
    }

    fn rot(&mut self, fault: Fault, dice: &Dice) {
        let lane = dice.index(self.disks.len());
        let Some(place) = self.disks[lane].destroy(fault, dice) else { return };
        self.trace.note(self.now_us, &[31, lane as u64], || format!("lane {lane}: {} in {place}", fault.name()));
        self.coverage.one(match fault {
            Fault::FlipSegment => Count::FlipsSegment,
            Fault::FlipLog | Fault::FlipBatch => Count::FlipsLog,
            Fault::BreakRange => Count::BrokenRanges,
            Fault::BreakLog => Count::BrokenLog,
            _ => Count::FlipsOther,
        });
    }

    /// A write of the log that was done, or the next one of a file that is being made.
    fn misdirect_write(&mut self, dice: &Dice) {
        let lane = dice.index(self.disks.len());
        if dice.chance(500) {
            let place = self.disks[lane].misdirect_log_write(dice);
            self.trace.note(self.now_us, &[32, lane as u64], || format!("lane {lane}: a log write astray: {place:?}"));
        } else {
            self.disks[lane].misdirect_writes(dice.pick(&[1, 1, 3]));
        }
    }
}
