//! A start with another number of lanes: the engine makes them of the lanes that there are, then the power fails, and the node starts on
//! what is left of the new ones.
//!
//! Only in runs whose disks neither fail nor destroy anything: there it must succeed, and nothing may be missing afterwards.

use antiphon_engine::{
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    offline,
};

use crate::{coverage::Count, dice::Dice, disk::LaneDisk, plan::Fault, world::World};

/// Most lanes of a simulated node.
const LANES_MAX: u64 = 3;

impl World {
    /// Gives the store another number of lanes before a start, if the plan has that for it.
    pub fn relane(&mut self, incarnation: u64) {
        let dice = Dice::new(self.plan.seed ^ (incarnation << 32), "lanes");
        let rate = self.plan.rate(Fault::Relane);
        // There must have been a start that could make something.
        if incarnation == 1 || !dice.chance(10 * rate) {
            return;
        }
        let lanes = dice.between(1, LANES_MAX) as u8;
        if lanes == self.plan.lanes {
            return;
        }
        let seed = dice.number();
        let old: Vec<MemoryFiles> = self.disks.iter().map(LaneDisk::at_rest).collect();
        let new: Vec<MemoryFiles> = (0..lanes).map(|lane| MemoryFiles::new(seed ^ u64::from(lane))).collect();
        let made = {
            let node = self.plan.engine.encryption.as_ref();
            block_on(offline::spread_encrypted(&old, &new, node, &MemoryRandom::new(seed), |_| ()))
        };
        let from = self.plan.lanes;
        self.trace.note(self.now_us, &[9, u64::from(lanes)], || format!("{from} lanes become {lanes}: {made:?}"));
        if let Err(error) = made {
            return self.model.fail(|| format!("sound lanes can't become others: {error}"));
        }
        self.coverage.one(Count::LanesChanged);
        self.coverage.add(Count::SealedRelaned, u64::from(self.plan.engine.encryption.is_some()));
        self.disks.iter().for_each(|disk| disk.report(&mut self.coverage));
        let disk = |(lane, files): (u64, MemoryFiles)| {
            LaneDisk::holding(files.crash_image(seed), seed ^ lane, &self.plan, self.plant, &self.segments)
        };
        self.disks = (0..).zip(new).map(disk).collect();
        self.plan.lanes = lanes;
        self.plan.disk_factors.resize(usize::from(lanes), 1);
        self.shards_next = self.shards_next.max(u16::from(lanes));
        self.lasting.give_lanes(usize::from(lanes));
        self.model.lanes = lanes;
        self.model.relaned = true;
    }
}
