//! The mesh's queues: bounded, lock-free, one a class and ordered pair of shards, with one wake a batch.
//!
//! Only pairs that talk have queues: any shard to a lane's shard with requests, a lane's shard to any other with deliveries. A full
//! queue gives the frame back; the sender keeps it, in order, and tries again. Nothing is dropped and nobody blocks. Behind the shards'
//! ends there is one for the outside thread ([`Placement::outside`]), which asks lanes as any shard without one does; what it does not
//! take holds up nothing for others, and it bounds that by what it asks.

use std::{collections::VecDeque, sync::Arc};

use crossbeam::queue::ArrayQueue;

use crate::core::{
    mesh::{MeshMessage, ShardId},
    placement::Placement,
    shard::MeshOut,
};

/// Frames that a queue holds: a busy shard's few milliseconds. A slot is 48 bytes, so a pair costs 48 KiB.
const QUEUE_FRAMES: usize = 1_024;

type Queue = ArrayQueue<MeshMessage>;

/// All queues of a node.
#[derive(Debug)]
pub struct Mesh {
    /// Ends: the shards, and the outside thread.
    ends: usize,
    /// Towards lanes, by `from × ends + to`.
    requests: Vec<Option<Queue>>,
    /// Towards connections, likewise.
    deliveries: Vec<Option<Queue>>,
}

impl Mesh {
    /// The queues that a layout needs.
    #[must_use]
    pub fn new(placement: Placement) -> Arc<Self> {
        let ends = usize::from(placement.outside().0) + 1;
        let mut with_lane = vec![false; ends];
        for lane in placement.lanes() {
            with_lane[usize::from(placement.shard_of(lane).0)] = true;
        }
        let queue =
            |from: usize, to: usize, needed: bool| (needed && from != to).then(|| ArrayQueue::new(QUEUE_FRAMES));
        let pairs = || (0..ends).flat_map(|from| (0..ends).map(move |to| (from, to)));
        Arc::new(Self {
            ends,
            requests: pairs().map(|(from, to)| queue(from, to, with_lane[to])).collect(),
            deliveries: pairs().map(|(from, to)| queue(from, to, with_lane[from])).collect(),
        })
    }

    /// One shard's end of the mesh, or the outside thread's. Each takes its own, once.
    #[must_use]
    pub fn end(self: &Arc<Self>, shard: ShardId) -> MeshEnd {
        MeshEnd {
            mesh: Arc::clone(self),
            shard: usize::from(shard.0),
            kept: VecDeque::new(),
            blocked: vec![false; self.ends],
            to_wake: vec![false; self.ends],
            waits: 0,
            delivery_from: 0,
            request_from: 0,
        }
    }
}

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct MeshEnd {
    mesh: Arc<Mesh>,
    shard: usize,
    kept: VecDeque<MeshOut>,
    blocked: Vec<bool>,
    to_wake: Vec<bool>,
    waits: u64,
    delivery_from: usize,
    request_from: usize,
}

impl MeshEnd {
    /// Hands over what `next` gives and what was kept. Frames for one shard stay in order. True if anything is still kept.
    pub fn send(&mut self, mut next: impl FnMut() -> Option<MeshOut>, mut wake: impl FnMut(ShardId)) -> bool {
        self.blocked.fill(false);
        let earlier = self.kept.len();
        let mut kept = std::mem::take(&mut self.kept);
        for _ in 0..earlier {
            if let Some(out) = kept.pop_front()
                && let Some(out) = self.hand_over(out)
            {
                kept.push_back(out);
            }
        }
        while let Some(out) = next() {
            if let Some(out) = self.hand_over(out) {
                kept.push_back(out);
            }
        }
        self.kept = kept;
        for shard in 0..self.to_wake.len() {
            if std::mem::take(&mut self.to_wake[shard]) {
                wake(ShardId(shard as u16));
            }
        }
        !self.kept.is_empty()
    }

    /// Frames that are kept because a queue is full.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// How often a queue was full.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.waits
    }

    fn hand_over(&mut self, out: MeshOut) -> Option<MeshOut> {
        let to = match &out {
            MeshOut::Request(to, _) | MeshOut::Delivery(to, _) => usize::from(to.0),
        };
        if self.blocked[to] {
            return Some(out);
        }
        let index = self.shard * self.mesh.ends + to;
        let refused = match out {
            MeshOut::Request(to, message) => {
                let queue = self.mesh.requests[index].as_ref().expect("requests go to a lane's shard");
                queue.push(message).err().map(|message| MeshOut::Request(to, message))
            }
            MeshOut::Delivery(to, message) => {
                let queue = self.mesh.deliveries[index].as_ref().expect("deliveries come from a lane's shard");
                queue.push(message).err().map(|message| MeshOut::Delivery(to, message))
            }
        };
        self.to_wake[to] = true;
        if refused.is_some() {
            self.blocked[to] = true;
            self.waits += 1;
        }
        refused
    }

    /// The next delivery from any shard.
    pub fn pop_delivery(&mut self) -> Option<MeshMessage> {
        Self::pop(&self.mesh.deliveries, self.mesh.ends, self.shard, &mut self.delivery_from)
    }

    /// The next request from any shard.
    pub fn pop_request(&mut self) -> Option<MeshMessage> {
        Self::pop(&self.mesh.requests, self.mesh.ends, self.shard, &mut self.request_from)
    }

    /// One frame from the next shard that has one: each in its turn, so that a busy one does not starve the others.
    fn pop(queues: &[Option<Queue>], ends: usize, to: usize, next_from: &mut usize) -> Option<MeshMessage> {
        for _ in 0..ends {
            let from = *next_from;
            *next_from = (from + 1) % ends;
            if let Some(message) = queues[from * ends + to].as_ref().and_then(ArrayQueue::pop) {
                return Some(message);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mesh::LaneId;

    fn message(number: u8) -> MeshMessage {
        MeshMessage { lane: LaneId(0), from: ShardId(1), bytes: vec![number] }
    }

    #[test]
    fn a_full_queue_keeps_order_and_loses_nothing() {
        let mesh = Mesh::new(Placement { shards: 2, lanes: 1 });
        let (mut sender, mut receiver) = (mesh.end(ShardId(1)), mesh.end(ShardId(0)));
        let mut numbers = (0..2_000_u32).map(|number| MeshOut::Request(ShardId(0), message((number % 251) as u8)));
        let mut wakes = 0;
        assert!(sender.send(|| numbers.next(), |_| wakes += 1));
        assert_eq!((wakes, sender.kept()), (1, 2_000 - QUEUE_FRAMES));
        let mut received = Vec::new();
        received.extend(std::iter::from_fn(|| receiver.pop_request()).map(|message| message.bytes[0]));
        assert!(!sender.send(|| None, |_| wakes += 1));
        received.extend(std::iter::from_fn(|| receiver.pop_request()).map(|message| message.bytes[0]));
        assert_eq!(received, (0..2_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>());
    }

    #[test]
    fn shards_take_turns() {
        let mesh = Mesh::new(Placement { shards: 3, lanes: 1 });
        let mut receiver = mesh.end(ShardId(0));
        for from in [1, 2] {
            let mut sender = mesh.end(ShardId(from));
            let mut out = (0..2).map(|_| MeshOut::Request(ShardId(0), message(from as u8)));
            assert!(!sender.send(|| out.next(), |shard| assert_eq!(shard, ShardId(0))));
        }
        let order: Vec<_> = std::iter::from_fn(|| receiver.pop_request()).map(|message| message.bytes[0]).collect();
        assert_eq!(order, [1, 2, 1, 2]);
        assert!(receiver.pop_delivery().is_none());
    }

    #[test]
    fn the_outside_end_asks_and_hears_every_lane() {
        let placement = Placement { shards: 3, lanes: 3 };
        let mesh = Mesh::new(placement);
        let mut outside = mesh.end(placement.outside());
        let mut shards: Vec<MeshEnd> = (0..3).map(|shard| mesh.end(ShardId(shard))).collect();
        let mut requests = (0..3).map(|shard| MeshOut::Request(ShardId(shard), message(shard as u8)));
        let mut woken = Vec::new();
        assert!(!outside.send(|| requests.next(), |shard| woken.push(shard.0)));
        assert_eq!(woken, [0, 1, 2]);
        for (number, shard) in shards.iter_mut().enumerate() {
            let asked = shard.pop_request().unwrap();
            assert_eq!(usize::from(asked.bytes[0]), number);
            let mut answer = [MeshOut::Delivery(placement.outside(), asked)].into_iter();
            assert!(!shard.send(|| answer.next(), |to| assert_eq!(to, placement.outside())));
        }
        let heard: Vec<_> = std::iter::from_fn(|| outside.pop_delivery()).map(|message| message.bytes[0]).collect();
        assert_eq!(heard, [0, 1, 2]);
        assert!(outside.pop_request().is_none());
    }

    #[test]
    fn an_outside_thread_that_takes_nothing_holds_up_no_shard() {
        let placement = Placement { shards: 2, lanes: 1 };
        let mesh = Mesh::new(placement);
        let (mut lane, mut shard) = (mesh.end(ShardId(0)), mesh.end(ShardId(1)));
        let to_outside = (0..2 * QUEUE_FRAMES).map(|_| MeshOut::Delivery(placement.outside(), message(1)));
        let mut out = to_outside.chain([MeshOut::Delivery(ShardId(1), message(2))]);
        assert!(lane.send(|| out.next(), |_| {}));
        assert_eq!(lane.kept(), QUEUE_FRAMES);
        assert_eq!(shard.pop_delivery().unwrap().bytes, [2]);
        // And what is kept waits for nobody but its own end.
        let mut out = [MeshOut::Delivery(ShardId(1), message(3))].into_iter();
        assert!(lane.send(|| out.next(), |_| {}));
        assert_eq!(shard.pop_delivery().unwrap().bytes, [3]);
    }
}
