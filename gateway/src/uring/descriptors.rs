//! The table of connections: one flat entry for each slot of the ring's table of direct descriptors.
//!
//! Invariants: a slot is free, live (the handler knows its key), closing (the handler does not; operations may be in flight) or
//! closed (the close was submitted). A slot's generation changes when it is taken. Idle cost: [`size_of::<Slot>()`] bytes.

use crate::core::io::ConnectionKey;

/// No send in flight.
pub(super) const NO_SEND: u32 = u32::MAX;

/// The handler knows the connection.
const LIVE: u8 = 1;
/// A receive is with the kernel.
const RECEIVING: u8 = 2;
/// The connection is being closed: waits for its operations to complete.
const CLOSING: u8 = 4;
/// The close is with the kernel: nothing else is.
const CLOSED: u8 = 8;
/// A receive is wanted, and waits for a free buffer.
const STARVED: u8 = 16;
/// A poll is with the kernel: the connection is quiet, or was until a moment ago.
const POLLING: u8 = 32;
/// Bytes came since the last sweep.
const HEARD: u8 = 64;
/// The receive is being taken back, and a poll takes its place.
const QUIETING: u8 = 128;

/// One slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    generation: u32,
    /// Index of the send in flight, or [`NO_SEND`].
    pub(super) send: u32,
    flags: u8,
}

const _: () = assert!(size_of::<Slot>() <= 16, "the driver's share of an idle connection");

impl Slot {
    const FREE: Self = Self { generation: 0, send: NO_SEND, flags: 0 };

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn is_free(&self) -> bool {
        self.flags == 0
    }

    pub(super) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    pub(super) fn is_closing(&self) -> bool {
        self.flags & CLOSING != 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.flags & CLOSED != 0
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.flags & RECEIVING != 0
    }

    pub(super) fn is_starved(&self) -> bool {
        self.flags & STARVED != 0
    }

    pub(super) fn is_polling(&self) -> bool {
        self.flags & POLLING != 0
    }

    pub(super) fn is_quieting(&self) -> bool {
        self.flags & QUIETING != 0
    }

    pub(super) fn is_heard(&self) -> bool {
        self.flags & HEARD != 0
    }

    pub(super) fn set_polling(&mut self, on: bool) {
        self.set(POLLING, on);
    }

    pub(super) fn set_quieting(&mut self, on: bool) {
        self.set(QUIETING, on);
    }

    pub(super) fn set_heard(&mut self, on: bool) {
        self.set(HEARD, on);
    }

    pub(super) fn set_receiving(&mut self, on: bool) {
        self.set(RECEIVING, on);
    }

    pub(super) fn set_starved(&mut self, on: bool) {
        self.set(STARVED, on);
    }

    /// Live → closing. The handler's key is dead from here on.
    pub(super) fn close(&mut self) {
        assert!(!self.is_free() && !self.is_closed(), "a connection is closed once");
        self.flags = self.flags & !(LIVE | STARVED | HEARD | QUIETING) | CLOSING;
    }

    /// Closing → closed.
    pub(super) fn set_closed(&mut self) {
        let in_flight = self.is_receiving() || self.is_polling() || self.send != NO_SEND;
        assert!(self.is_closing() && !in_flight, "nothing is in flight at a close");
        self.flags = CLOSED;
    }

    fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }
}

/// All slots.
pub(super) struct Table {
    slots: Vec<Slot>,
    taken: u32,
}

impl Table {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots: vec![Slot::FREE; slots as usize], taken: 0 }
    }

    /// Slots that are not free.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    /// Slots, free ones too.
    pub(super) fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn free(&self) -> u32 {
        self.slots.len() as u32 - self.taken
    }

    pub(super) fn get(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// The slot that a key names, if the connection is live.
    pub(super) fn live(&mut self, key: ConnectionKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot as usize).filter(|slot| slot.generation == key.generation && slot.is_live())
    }

    pub(super) fn key(&self, index: u32) -> ConnectionKey {
        ConnectionKey { slot: index, generation: self.slots[index as usize].generation }
    }

    /// The kernel put a new connection here.
    pub(super) fn take(&mut self, index: u32) -> ConnectionKey {
        let slot = &mut self.slots[index as usize];
        if slot.is_closed() {
            // The kernel has closed the old one and reports that after it has used the slot again.
            self.taken -= 1;
        } else {
            assert!(slot.is_free(), "the kernel fills free slots only");
        }
        self.taken += 1;
        *slot = Slot { generation: slot.generation.wrapping_add(1), send: NO_SEND, flags: LIVE };
        self.key(index)
    }

    /// The close completed.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        assert!(slot.is_closed(), "only a closed slot is released");
        slot.flags = 0;
        self.taken -= 1;
    }

    /// Indices of all live connections.
    pub(super) fn live_indices(&self) -> Vec<u32> {
        (0u32..).zip(&self.slots).filter(|(_, slot)| slot.is_live()).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use crate::core::io::ConnectionKey;

    #[test]
    fn a_stale_key_names_nothing() {
        let mut table = Table::new(2);
        let first = table.take(1);
        assert_eq!(first, ConnectionKey { slot: 1, generation: 1 });
        assert!(table.live(first).is_some());
        table.get(1).close();
        assert!(table.live(first).is_none());
        table.get(1).set_closed();
        table.release(1);
        assert_eq!(table.taken(), 0);
        let second = table.take(1);
        assert!(table.live(first).is_none() && table.live(second).is_some());
        assert!(table.live(ConnectionKey { slot: 9, generation: 0 }).is_none());
    }

    #[test]
    fn a_slot_may_be_taken_before_its_close_is_reported() {
        let mut table = Table::new(1);
        table.take(0);
        table.get(0).close();
        table.get(0).set_closed();
        let second = table.take(0);
        assert_eq!((second.generation, table.taken(), table.free()), (2, 1, 0));
    }
}
