//! What an operator of encrypted stores does before a start: erases a conversation, wraps the data keys by another node key. Either may be
//! cut short by a power failure, at any operation, and is then done again; afterwards the power fails once more.
//!
//! Where data may have been destroyed a store may not be readable enough for it, and is left as it is.

use std::task::{Context, Waker};

use antiphon_engine::{
    Engine, EngineError, EngineOptions,
    error::StoreError,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
    offline,
    stored_rows::stored_rows,
};
use antiphon_gateway::core::placement::Placement;
use antiphon_wire::ids::ConversationId;

use crate::{coverage::Count, dice::Dice, plan::Fault, world::World};

/// Operations within which an erasure or a wrapping is cut short, if it is.
const CUT_OPERATIONS_MAX: u64 = 24;

/// What a text has at least that is looked for in files: no other bytes are it by chance.
const TEXT_BYTES_MIN: usize = 16;

impl World {
    /// Erases and wraps before a start, if the plan has that for it.
    pub fn operate_encrypted(&mut self, incarnation: u64) {
        if self.plan.engine.encryption.is_none() {
            return;
        }
        let dice = Dice::new(self.plan.seed ^ (incarnation << 32), "operator of encryption");
        let (erases, rewraps) =
            (dice.chance(10 * self.plan.rate(Fault::Erase)), dice.chance(10 * self.plan.rate(Fault::Rewrap)));
        if erases {
            self.erase(incarnation, &dice);
        }
        if rewraps {
            self.rewrap(incarnation, &dice);
        }
    }

    fn erase(&mut self, incarnation: u64, dice: &Dice) {
        let there = self.model.conversations.iter().filter(|(_, of)| of.erased.is_none());
        let ids: Vec<ConversationId> = there.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return;
        }
        let id = dice.pick(&ids);
        let placement = Placement { shards: u16::from(self.plan.lanes), lanes: self.plan.lanes };
        let lane = usize::from(placement.lane_of(id).0);
        let of_lane = lane as u16;
        let erased =
            self.operate(
                lane,
                dice,
                Count::ErasuresCut,
                |files| async move { offline::erase(files, of_lane, &[id]).await },
            );
        self.trace.note(self.now_us, &[70, lane as u64], || format!("lane {lane}: {id} is erased: {erased:?}"));
        let Some(erased) = erased else { return };
        if erased.erased + erased.before > 0 {
            self.coverage.one(Count::Erased);
            self.model.conversations.entry(id).or_default().erased = Some(incarnation);
        } else {
            self.coverage.one(Count::EraseUnknown);
            let was_there = self.model.durable(id) > 0;
            self.model.check(!was_there || self.plan.has_rot(), || format!("{id} has no key, but was there"));
        }
    }

    fn rewrap(&mut self, incarnation: u64, dice: &Dice) {
        let Some(old) = self.plan.engine.encryption.clone() else { return };
        let new = self.plan.node_key(incarnation);
        for lane in 0..self.disks.len() {
            let (access, key) = (self.plan.access(lane as u16), new.clone());
            let seed = dice.number();
            let done = self.operate(lane, dice, Count::RewrapsCut, |files| {
                let (access, key, random) = (access.clone(), key.clone(), MemoryRandom::new(seed ^ 1));
                async move { offline::rewrap(files, access, &key, &random).await }
            });
            self.trace.note(self.now_us, &[71, lane as u64], || format!("lane {lane}: under {new:?}: {done:?}"));
            if done.is_none() {
                continue;
            }
            self.coverage.one(Count::Rewrapped);
            let (files, random) = (self.disks[lane].image(seed), MemoryRandom::new(seed));
            let options =
                EngineOptions { lane: lane as u16, encryption: Some(old.clone()), ..self.plan.engine.clone() };
            let opened = block_on(Engine::open(files, MemoryClock::new(1), random, options));
            let refused = matches!(opened, Err(EngineError::OtherKey { .. }));
            self.model.check(refused || self.plan.has_rot(), || format!("lane {lane} opens with the key before"));
        }
        self.plan.engine.encryption = Some(new);
    }

    /// Does something to a lane's folder at rest: perhaps up to a crash at some operation first, then all of it, then the power fails.
    /// `None` where there is no store yet, or it cannot be read and need not.
    fn operate<T, W: Future<Output = Result<T, EngineError>>>(
        &mut self,
        lane: usize,
        dice: &Dice,
        cut: Count,
        work: impl Fn(MemoryFiles) -> W,
    ) -> Option<T> {
        let seed = dice.number();
        // Done when the disk fails no more: what failed to be written last may be there after all.
        self.disks[lane].crash(false, seed ^ 1);
        if dice.chance(400) {
            let files = self.disks[lane].at_rest();
            files.set_queued(true);
            let done = run_until(&files, work(files.clone()), dice.below(CUT_OPERATIONS_MAX));
            self.coverage.add(cut, u64::from(!done));
            self.disks[lane].crash(true, seed);
        }
        let done = block_on(work(self.disks[lane].at_rest()));
        self.disks[lane].crash(true, !seed);
        match done {
            Ok(done) => Some(done),
            // No start came so far as to make it.
            Err(EngineError::Store(StoreError::ManifestMissing)) => None,
            Err(_) if self.plan.has_rot() => None,
            Err(error) => {
                self.model.fail(|| format!("lane {lane} of a sound disk: {error}"));
                None
            }
        }
    }

    /// Nothing that somebody wrote stands in a file of an encrypted store: held to some text.
    pub(crate) fn says_nothing_in_the_clear(&mut self, files: &MemoryFiles, dice: &Dice) -> Result<(), String> {
        if self.plan.engine.encryption.is_none() {
            return Ok(());
        }
        let sends = self.model.conversations.values().flat_map(|of| of.sends.values());
        let texts = sends.flat_map(|record| &record.contents).map(|content| content.0.as_slice());
        let texts: Vec<&[u8]> = texts.filter(|text| text.len() >= TEXT_BYTES_MIN).collect();
        if texts.is_empty() {
            return Ok(());
        }
        let text = &dice.pick(&texts)[..TEXT_BYTES_MIN];
        self.coverage.one(Count::TextsLookedFor);
        // Of segments that can be read: what is compressed is not found in the bytes.
        let rows = block_on(stored_rows(files)).unwrap_or_default();
        let in_rows = rows.into_iter().find(|row| row.holds(text)).map(|row| row.segment.file_name());
        let has_it = |name: &String| {
            let bytes = files.contents(name).unwrap_or_default();
            in_rows.as_ref() == Some(name) || bytes.windows(TEXT_BYTES_MIN).any(|window| window == text)
        };
        match files.names().into_iter().find(has_it) {
            Some(name) => Err(format!("{name} has {:?} in the clear", String::from_utf8_lossy(text))),
            None => Ok(()),
        }
    }
}

/// Runs work on files that queue up to one of their operations, and gives it up there; whether it had ended before.
fn run_until<T>(files: &MemoryFiles, work: impl Future<Output = T>, operation: u64) -> bool {
    let (mut work, mut context) = (std::pin::pin!(work), Context::from_waker(Waker::noop()));
    for _ in 0..operation {
        if work.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        let Some(next) = files.pending().first().map(|next| next.ticket) else { return false };
        files.release(next);
    }
    false
}
