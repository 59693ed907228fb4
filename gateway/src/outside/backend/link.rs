//! The way from the HTTP API to the lanes and back: requests go over the mesh as a session's do, and their answers come back over it.
//!
//! Invariants: so many frames towards lanes are under way and no more, and each keeps its place until its lane has answered, whether or not
//! somebody waits for it still: a lane that hangs is given no more than that, and what it says at once is far below what a shard lets wait.
//! Nothing here waits for a shard: a full queue is tried again. Must not do: know what a request says.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::Arc,
    time::Duration,
};

use antiphon_wire::{codes::ErrorCode, ids::UserId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    bell::{Bell, Ears},
    problem::{Own, Problem},
};
use crate::{
    core::{
        mesh::{ConnectionFrame, LaneFrame, LaneId, MeshConnection, MeshMessage},
        placement::Placement,
        privacy::Privacy,
        shard::MeshOut,
    },
    mesh::MeshEnd,
    uring::Waker,
};

/// Frames towards lanes that may be under way: many times what lanes take to stay busy. Each is answered by a page at most, which is at most a
/// handful of frames, so that all answers at once are an eighth of what a shard lets wait for others.
pub(super) const UNDER_WAY_MAX: usize = 256;

/// How long an answer may take: some thousand times what it takes, and longer than a disk that is sick but not dead.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How soon frames that found a full queue are offered again.
const RETRY: Duration = Duration::from_millis(1);

/// What a lane said to a request, as binary wire frames.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// One from each lane that was asked.
    pub(super) replies: Vec<Vec<u8>>,
    /// What belongs to them.
    pub(super) beside: Vec<Vec<u8>>,
}

/// Where requests are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    asks: mpsc::Sender<Ask>,
    room: Arc<Semaphore>,
    answer_wait: Duration,
}

/// A request on its way to some lanes.
#[derive(Debug)]
struct Ask {
    user: UserId,
    lanes: Vec<LaneId>,
    frame: Vec<u8>,
    privacy: Option<Privacy>,
    answer: oneshot::Sender<Heard>,
    room: OwnedSemaphorePermit,
}

impl Link {
    /// A link, and what has to run for it.
    pub(super) fn new(
        end: MeshEnd,
        bell: &Bell,
        wakers: Arc<[Waker]>,
        placement: Placement,
    ) -> io::Result<(Self, Post)> {
        let (asks, asked) = mpsc::channel(UNDER_WAY_MAX);
        let link = Self { asks, room: Arc::new(Semaphore::new(UNDER_WAY_MAX)), answer_wait: ANSWER_WAIT };
        let ears = bell.ears()?;
        let post = Post { asked, ears, end, wakers, placement, waiting: BTreeMap::new(), last: 0, is_kept: false };
        Ok((link, post))
    }

    /// Asks lanes, in a user's name, by a binary wire frame with an id.
    ///
    /// # Errors
    /// There is no room, or no answer came in time.
    pub(super) async fn ask(&self, user: UserId, lanes: Vec<LaneId>, frame: Vec<u8>) -> Result<Heard, Problem> {
        self.ask_showing(user, None, lanes, frame).await
    }

    /// The same where others hear a receipt of it, as far as the user shows them that.
    ///
    /// # Errors
    /// There is no room, or no answer came in time.
    pub(super) async fn ask_showing(
        &self,
        user: UserId,
        privacy: Option<Privacy>,
        lanes: Vec<LaneId>,
        frame: Vec<u8>,
    ) -> Result<Heard, Problem> {
        let overloaded = || Problem::new(ErrorCode::Overloaded, ErrorCode::Overloaded.text());
        let room = Arc::clone(&self.room).try_acquire_many_owned(lanes.len() as u32).map_err(|_| overloaded())?;
        let (answer, answered) = oneshot::channel();
        // There is room: every ask has at least one place.
        self.asks.try_send(Ask { user, lanes, frame, privacy, answer, room }).map_err(|_| overloaded())?;
        match timeout(self.answer_wait, answered).await {
            Ok(Ok(heard)) => Ok(heard),
            Ok(Err(_)) => Err(Problem::new(ErrorCode::ShuttingDown, ErrorCode::ShuttingDown.text())),
            Err(_) => {
                let text = "no answer came in time: whether it was done is not known; ask again in the same words";
                Err(Problem::own(Own::TimedOut, text))
            }
        }
    }
}

/// Somebody who waits, under a number.
#[derive(Debug)]
struct Waiting {
    lanes: usize,
    heard: Heard,
    answer: oneshot::Sender<Heard>,
    _room: OwnedSemaphorePermit,
}

/// Carries requests to the mesh and answers from it.
#[derive(Debug)]
pub(in crate::outside) struct Post {
    asked: mpsc::Receiver<Ask>,
    ears: Ears,
    end: MeshEnd,
    wakers: Arc<[Waker]>,
    placement: Placement,
    waiting: BTreeMap<u32, Waiting>,
    last: u32,
    is_kept: bool,
}

impl Post {
    /// Until the link is gone.
    pub(in crate::outside) async fn run(mut self) -> io::Result<()> {
        loop {
            let mut ask = None;
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(asked) => ask = Some(asked),
                    None => return Ok(()),
                },
                heard = self.ears.hear() => heard?,
                () = sleep(RETRY), if self.is_kept => {}
            }
            let mut out = Vec::new();
            while let Some(next) = ask.take().or_else(|| self.asked.try_recv().ok()) {
                self.take_ask(next, &mut out);
            }
            let (mut out, wakers) = (out.into_iter(), &self.wakers);
            self.is_kept = self.end.send(|| out.next(), |shard| wakers[usize::from(shard.0)].wake());
            while let Some(message) = self.end.pop_delivery() {
                self.take_delivery(&message);
            }
        }
    }

    fn take_ask(&mut self, ask: Ask, out: &mut Vec<MeshOut>) {
        let Ask { user, lanes, frame, privacy, answer, room } = ask;
        let waiting = Waiting { lanes: lanes.len(), heard: Heard::default(), answer, _room: room };
        let number = loop {
            self.last = self.last.wrapping_add(1);
            if let Entry::Vacant(free) = self.waiting.entry(self.last) {
                free.insert(waiting);
                break self.last;
            }
        };
        let connection = MeshConnection { slot: number, generation: 0 };
        let request = LaneFrame::Call { user, connection, frame, privacy };
        let (bytes, from) = (request.to_bytes(), self.placement.outside());
        out.extend(lanes.into_iter().map(|lane| {
            let message = MeshMessage { lane, from, bytes: bytes.clone() };
            MeshOut::Request(self.placement.shard_of(lane), message)
        }));
    }

    fn take_delivery(&mut self, message: &MeshMessage) {
        let (connection, frame, is_reply) = match ConnectionFrame::from_bytes(&message.bytes) {
            ConnectionFrame::Reply { connection, frame, .. } => (connection, frame, true),
            ConnectionFrame::Beside { connection, frame } => (connection, frame, false),
            // Lanes say anything else to sessions only, and there is none here.
            other => return tracing::error!(?other, "a lane took the outside thread for a session"),
        };
        let Entry::Occupied(mut of) = self.waiting.entry(connection.slot) else { return };
        let waiting = of.get_mut();
        if !is_reply {
            return waiting.heard.beside.push(frame);
        }
        waiting.heard.replies.push(frame);
        if waiting.heard.replies.len() == waiting.lanes {
            let Waiting { heard, answer, .. } = of.remove();
            // Who asked may have given up.
            let _ = answer.send(heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::{core::mesh::ShardId, mesh::Mesh};

    const PLACEMENT: Placement = Placement { shards: 2, lanes: 2 };

    /// A link, with shards that answer when they are told to.
    struct Node {
        link: Link,
        shards: Vec<MeshEnd>,
        bell: Bell,
    }

    impl Node {
        fn start() -> Self {
            let (mesh, bell) = (Mesh::new(PLACEMENT), Bell::new().unwrap());
            let wakers = (0..PLACEMENT.shards).map(|_| Waker::new().unwrap()).collect();
            let (mut link, post) = Link::new(mesh.end(PLACEMENT.outside()), &bell, wakers, PLACEMENT).unwrap();
            link.answer_wait = Duration::from_millis(20);
            tokio::spawn(post.run());
            Self { link, shards: (0..PLACEMENT.shards).map(|shard| mesh.end(ShardId(shard))).collect(), bell }
        }

        /// Answers all requests that came, each by a frame beside and the request's own bytes, lanes behind one another; how many.
        fn answer(&mut self) -> usize {
            let mut answered = 0;
            for shard in &mut self.shards {
                let mut out = Vec::new();
                while let Some(message) = shard.pop_request() {
                    let LaneFrame::Call { connection, frame, .. } = LaneFrame::from_bytes(&message.bytes) else {
                        panic!("not a request")
                    };
                    let frames = [
                        ConnectionFrame::Beside { connection, frame: vec![message.lane.0] },
                        ConnectionFrame::Reply { connection, gather: 0, frame },
                    ];
                    out.extend(frames.map(|frame| {
                        let (lane, from) = (message.lane, message.from);
                        MeshOut::Delivery(from, MeshMessage { lane, from, bytes: frame.to_bytes() })
                    }));
                    answered += 1;
                }
                let mut out = out.into_iter();
                shard.send(|| out.next(), |_| self.bell.ring());
            }
            answered
        }
    }

    fn ask(link: &Link, lanes: &[u8]) -> tokio::task::JoinHandle<Result<Heard, Problem>> {
        let (link, lanes) = (link.clone(), lanes.iter().map(|lane| LaneId(*lane)).collect());
        tokio::spawn(async move { link.ask(UserId::new("alice").unwrap(), lanes, vec![7]).await })
    }

    fn run(test: impl Future<Output = ()>) {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn each_hears_what_all_its_lanes_say() {
        run(async {
            let mut node = Node::start();
            let (one, both) = (ask(&node.link, &[1]), ask(&node.link, &[0, 1]));
            let mut answered = 0;
            while answered < 3 {
                tokio::task::yield_now().await;
                answered += node.answer();
            }
            assert_eq!(one.await.unwrap(), Ok(Heard { replies: vec![vec![7]], beside: vec![vec![1]] }));
            let both = both.await.unwrap().unwrap();
            assert_eq!((both.replies, both.beside), (vec![vec![7], vec![7]], vec![vec![0], vec![1]]));
        });
    }

    #[test]
    fn a_lane_that_hangs_keeps_the_places_of_those_who_gave_up() {
        run(async {
            let mut node = Node::start();
            let asked: Vec<_> = (0..UNDER_WAY_MAX).map(|_| ask(&node.link, &[0])).collect();
            for one in asked {
                assert_eq!(one.await.unwrap().unwrap_err().code(), "timed_out");
            }
            for lanes in [&[1][..], &[0, 1]] {
                assert_eq!(ask(&node.link, lanes).await.unwrap().unwrap_err().code(), "overloaded");
            }
            while node.link.room.available_permits() < UNDER_WAY_MAX {
                node.answer();
                tokio::task::yield_now().await;
            }
            let again = ask(&node.link, &[1]);
            while node.answer() == 0 {
                tokio::task::yield_now().await;
            }
            assert!(again.await.unwrap().is_ok());
        });
    }
}
