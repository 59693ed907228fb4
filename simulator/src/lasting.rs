//! Faults that last for a while: a disk that is slow, hung, full or refuses, and a wall clock that stands.

use crate::{coverage::Count, dice::Dice, events::Event, plan::Fault, world::World};

/// What lasts now.
#[derive(Debug)]
pub struct Lasting {
    /// By lane: its disk answers nothing before then.
    hung_until_us: Vec<u64>,
    /// By lane: until when its disk is slow, and how many times slower.
    slow: Vec<(u64, u64)>,
    /// What the wall clock shows, if it stands.
    clock_stands_ms: Option<u64>,
    /// The last of what lasts is over then.
    until_us: u64,
}

impl Lasting {
    /// Nothing.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self { hung_until_us: vec![0; lanes], slow: vec![(0, 1); lanes], clock_stands_ms: None, until_us: 0 }
    }

    /// There are other lanes, whose disks nothing is wrong with.
    pub fn give_lanes(&mut self, lanes: usize) {
        (self.hung_until_us, self.slow) = (vec![0; lanes], vec![(0, 1); lanes]);
    }

    /// What the wall clock shows, if it stands.
    #[must_use]
    pub fn clock_stands_ms(&self) -> Option<u64> {
        self.clock_stands_ms
    }

    /// Whether anything lasts.
    #[must_use]
    pub fn is_any(&self, now_us: u64) -> bool {
        now_us < self.until_us
    }

    /// When the disk of a lane answers again, if it is hung.
    #[must_use]
    pub fn hung_until_us(&self, lane: usize, now_us: u64) -> Option<u64> {
        Some(self.hung_until_us[lane]).filter(|until_us| *until_us > now_us)
    }

    /// How many times longer a lane's disk takes.
    #[must_use]
    pub fn slowness(&self, lane: usize, now_us: u64) -> u64 {
        let (until_us, times) = self.slow[lane];
        if now_us < until_us { times } else { 1 }
    }
}

impl World {
    /// Begins a fault that lasts.
    pub fn begin_lasting(&mut self, fault: Fault, dice: &Dice) {
        let lane = dice.index(self.disks.len());
        let while_us = match fault {
            Fault::Full => {
                self.disks[lane].set_room(Some(dice.pick(&[0, 4_096, 100_000])));
                let while_us = dice.delay_us(2_000_000);
                self.plan_at(self.now_us + while_us, Event::Room(lane));
                while_us
            }
            Fault::Slow => {
                self.coverage.one(Count::SlowDisks);
                let while_us = dice.delay_us(4_000_000);
                self.lasting.slow[lane] = (self.now_us + while_us, dice.pick(&[10, 100]));
                while_us
            }
            Fault::Hang => {
                self.coverage.one(Count::HungDisks);
                // Up to what a kernel gives a disk before it resets it.
                let while_us = dice.pick(&[100_000, 1_000_000, 8_000_000, 40_000_000]);
                self.lasting.hung_until_us[lane] = self.now_us + while_us;
                while_us
            }
            Fault::ClockStop => {
                let while_us = dice.pick(&[1_000, 2_000_000, 30_000_000]);
                if self.lasting.clock_stands_ms.is_none() {
                    self.coverage.one(Count::ClockStops);
                    self.lasting.clock_stands_ms = Some(self.clock_ms());
                    self.plan_at(self.now_us + while_us, Event::ClockGoes { catches_up: dice.chance(500) });
                }
                while_us
            }
            _ => {
                self.disks[lane].set_errors(fault, dice.pick(&[20_000, 300_000, 1_000_000]));
                let while_us = dice.pick(&[20 * self.plan.disk_us_max, 4 * self.plan.step_us_max]);
                let while_us = dice.delay_us(while_us);
                self.plan_at(self.now_us + while_us, Event::Heal(lane, fault));
                while_us
            }
        };
        self.lasting.until_us = self.lasting.until_us.max(self.now_us + while_us);
    }

    /// The wall clock goes again: from where it stood, or as if it had not.
    pub fn clock_goes(&mut self, catches_up: bool) {
        let Some(stands_ms) = self.lasting.clock_stands_ms.take() else { return };
        let late_ms = self.clock_ms() as i64 - stands_ms as i64;
        self.trace.note(self.now_us, &[9], || format!("the clock goes again, {late_ms} ms late"));
        self.jump_clock(if catches_up { 0 } else { -late_ms });
    }

    /// The wall clock jumps, and goes on from there if it stands.
    pub fn jump_clock(&mut self, by_ms: i64) {
        self.shift_clock(by_ms);
        if let Some(stands_ms) = &mut self.lasting.clock_stands_ms {
            *stands_ms = stands_ms.saturating_add_signed(by_ms);
        }
        self.set_clock();
    }

    /// Nothing lasts any more.
    pub fn end_lasting(&mut self) {
        self.clock_goes(false);
        self.lasting = Lasting::new(self.disks.len());
        for disk in &mut self.disks {
            disk.set_room(None);
            disk.misdirect_reads(0);
            disk.misdirect_writes(0);
            Fault::ALL.iter().filter(|fault| fault.is_disk_error()).for_each(|fault| disk.set_errors(*fault, 0));
        }
    }
}
