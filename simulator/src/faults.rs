//! Faults as the plan has them, done to the world one at a time.

use antiphon_wire::session::Phase as SessionPhase;

use crate::{
    coverage::Count,
    dice::Dice,
    network::LinkId,
    node::Phase,
    plan::Fault,
    world::{CrashWaits, Event, World},
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
            Fault::Full => {
                let lane = dice.index(self.disks.len());
                self.disks[lane].set_room(Some(dice.pick(&[0, 4_096, 100_000])));
                let until_us = self.now_us + dice.delay_us(2_000_000);
                self.plan_at(until_us, Event::Room(lane));
            }
            Fault::ReadError | Fault::WriteError | Fault::SyncError | Fault::NameError => {
                let lane = dice.index(self.disks.len());
                self.disks[lane].set_errors(fault, dice.pick(&[20_000, 300_000, 1_000_000]));
                let while_us = dice.pick(&[20 * self.plan.disk_us_max, 4 * self.plan.step_us_max]);
                let until_us = self.now_us + dice.delay_us(while_us);
                self.plan_at(until_us, Event::Heal(lane, fault));
            }
            Fault::FlipSegment | Fault::FlipLog | Fault::FlipOther | Fault::BreakRange => self.rot(fault, dice),
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
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
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
        // The process is gone: its connection breaks, whatever was on its way.
        if let Some(link) = client.link.take() {
            client.transport = None;
            self.links[link].client_open = false;
            let later_us = self.now_us + dice.delay_us(self.plan.network_us_max);
            if !self.links[link].silent {
                self.plan_at(later_us, Event::UpEnd(link));
            }
        }
        let client = &mut self.clients[index];
        client.restart(now_ms, state);
        client.running = false;
        let later_us = self.now_us + dice.delay_us(1_000_000);
        self.plan_at(later_us, Event::ClientStart(index));
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
        if node.phase == Phase::Opening {
            self.coverage.one(Count::CrashesOpening);
        }
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
            Fault::FlipLog => Count::FlipsLog,
            Fault::BreakRange => Count::BrokenRanges,
            _ => Count::FlipsOther,
        });
    }
}
