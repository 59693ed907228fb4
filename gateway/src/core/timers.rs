//! One timer wheel a shard: when to look at a connection again.
//!
//! A connection stands in the wheel once. What is due is only looked at, and set again if its real deadline has moved on meanwhile:
//! so a frame that arrives moves no timer.

use super::io::ConnectionKey;

/// Granularity. Deadlines here are tens of seconds; a second more or less is nothing.
const TICK_MS: u64 = 1_000;

/// Slots, a power of two: the farthest deadline is just over two minutes, twice the longest that is set.
const SLOTS: usize = 128;

/// The wheel.
#[derive(Debug)]
pub struct TimerWheel {
    slots: Vec<Vec<ConnectionKey>>,
    /// The next tick to be looked at.
    tick: u64,
    entries: usize,
}

impl TimerWheel {
    /// An empty wheel at a monotonic time.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], tick: now_ms / TICK_MS, entries: 0 }
    }

    /// Asks for a look at `key` at `at_ms` or up to a second later. Beyond the wheel's reach it comes early.
    pub fn set(&mut self, key: ConnectionKey, at_ms: u64) {
        let tick = (at_ms / TICK_MS + 1).clamp(self.tick + 1, self.tick + SLOTS as u64 - 1);
        self.slots[tick as usize % SLOTS].push(key);
        self.entries += 1;
    }

    /// Takes out all that is due at `now_ms`.
    pub fn expire(&mut self, now_ms: u64, due: &mut Vec<ConnectionKey>) {
        let now = now_ms / TICK_MS;
        while self.tick <= now {
            let slot = &mut self.slots[self.tick as usize % SLOTS];
            self.entries -= slot.len();
            due.append(slot);
            // A storm's worth of memory is not kept for quiet times.
            slot.shrink_to(64);
            self.tick += 1;
        }
    }

    /// When to call [`TimerWheel::expire`] next, if anything is set.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        (self.entries > 0).then_some(self.tick * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_once_and_within_a_second_or_so() {
        let key = |slot| ConnectionKey { slot, generation: 0 };
        let mut wheel = TimerWheel::new(10_500);
        assert_eq!(wheel.next_ms(), None);
        wheel.set(key(1), 12_300);
        wheel.set(key(2), 70_000);
        let mut due = Vec::new();
        wheel.expire(12_299, &mut due);
        assert_eq!(due, []);
        wheel.expire(13_001, &mut due);
        assert_eq!(due, [key(1)]);
        due.clear();
        wheel.expire(71_000, &mut due);
        assert_eq!(due, [key(2)]);
        assert_eq!(wheel.next_ms(), None);
    }
}
