//! What a session has under way with several lanes at a time: lists whose parts are gathered, and presence.
//!
//! Invariant: what a client is told of a user it is told in the order in which the user's home lane told it, also where a push, or the answer to
//! a later request, comes while an answer is still being gathered.

use std::collections::BTreeMap;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{Conversations, PresenceAnswer, ServerFrame, UserPresence, WatchPresence},
    ids::{RequestId, TimestampMs, UserId},
    limits,
};

use super::{Action, Environment, Session, answer, entering::Entering, members::GatherMembers, refuse};
use crate::core::{
    gather::Gather,
    mesh::{LaneFrame, LaneId},
    privacy::Privacy,
};

/// What several lanes answer in parts.
#[derive(Debug)]
pub(super) enum Gathering {
    List(Gather),
    Members(GatherMembers),
    Presence(GatherPresence),
}

/// What a session has beside its token and its allowance. It has nothing most of the time, and then there is no room for it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Set until the home lane has let it in.
    pub(super) entering: Option<Box<Entering>>,
    /// Tokens of its device are refused that were issued then or before.
    pub(super) refused_until: TimestampMs,
    /// Its user gives no receipts, and is given none.
    pub(super) no_receipts: bool,
    /// Requests of which answers are gathered, by their numbers.
    open: BTreeMap<u32, (Option<RequestId>, Gathering)>,
    last: u32,
    watching: Watching,
}

impl Beside {
    pub(super) fn open(&mut self, id: Option<RequestId>, gather: Gathering) -> u32 {
        self.last = self.last.wrapping_add(1).max(1);
        self.open.insert(self.last, (id, gather));
        self.last
    }
}

impl Session {
    /// What the session's user shows others is this from now on; `None`: everything to everybody. All lanes are told.
    pub fn private(&mut self, privacy: Option<&Privacy>, environment: &Environment<'_>, actions: &mut Vec<Action>) {
        let Some(connected) = &self.connected else { return };
        for lane in environment.placement.lanes() {
            let (user, connection, privacy) = (connected.user.clone(), environment.connection, privacy.cloned());
            actions.push(Action::ToLane { lane, frame: LaneFrame::Privacy { user, connection, privacy } });
        }
        self.beside.get_or_insert_default().no_receipts = privacy.is_some_and(|privacy| !privacy.has_receipts());
        self.tidy();
    }

    /// Gives back what there is no use for.
    pub(super) fn tidy(&mut self) {
        let is_empty = |beside: &mut Box<Beside>| {
            let is_in = beside.entering.is_none() && beside.refused_until == TimestampMs(0);
            is_in && beside.open.is_empty() && !beside.no_receipts && beside.watching.at_most() == 0
        };
        self.beside.take_if(is_empty);
    }

    pub(super) fn gather(
        &mut self,
        id: Option<RequestId>,
        list: Conversations,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(connected) = &self.connected else { return };
        let lanes = environment.placement.lanes;
        if let Err(text) = self.reserve(u16::from(lanes), environment) {
            return refuse(actions, id, ErrorCode::Overloaded, text);
        }
        self.outstanding += u16::from(lanes);
        let list_of = Gathering::List(Gather::new(lanes, list.limit));
        let number = self.beside.get_or_insert_default().open(id, list_of);
        let frame = Gather::request(list);
        for lane in environment.placement.lanes() {
            let (user, connection, frame) = (connected.user.clone(), environment.connection, frame.clone());
            actions
                .push(Action::ToLane { lane, frame: LaneFrame::Request { user, connection, gather: number, frame } });
        }
    }

    pub(super) fn gathered(
        &mut self,
        number: u32,
        frame: &[u8],
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let gather = match self.gathering(number) {
            Some((_, Gathering::List(gather))) => gather,
            Some((_, Gathering::Members(_))) => return self.members_listed(number, frame, environment, actions),
            _ => return,
        };
        if !gather.take(frame) {
            return;
        }
        let Some((id, Gathering::List(done))) = self.gathered_all(number) else { return };
        match done.page() {
            Ok(page) => answer(actions, id, ServerFrame::ConversationsAnswer(page)),
            Err(error) => actions.push(Action::Send { id, frame: ServerFrame::Error(error) }),
        }
    }

    pub(super) fn gathering(&mut self, number: u32) -> Option<&mut (Option<RequestId>, Gathering)> {
        self.beside.as_mut()?.open.get_mut(&number)
    }

    pub(super) fn gathered_all(&mut self, number: u32) -> Option<(Option<RequestId>, Gathering)> {
        let beside = self.beside.as_mut()?;
        let done = beside.open.remove(&number)?;
        if beside.open.is_empty() {
            // An empty one may keep room for many.
            beside.open = BTreeMap::new();
        }
        if let Gathering::Presence(done) = &done.1 {
            beside.watching.asked -= done.asked;
        }
        self.tidy();
        Some(done)
    }

    pub(super) fn watch(
        &mut self,
        id: Option<RequestId>,
        WatchPresence { watch, unwatch }: WatchPresence,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(connected) = &self.connected else { return };
        let mut by_lane: BTreeMap<LaneId, (Vec<UserId>, Vec<UserId>)> = BTreeMap::new();
        let asked = watch.len() as u32;
        for user in watch {
            by_lane.entry(environment.placement.home_of(&user)).or_default().0.push(user);
        }
        for user in unwatch {
            by_lane.entry(environment.placement.home_of(&user)).or_default().1.push(user);
        }
        let watching = self.watching();
        if asked > 0 && watching + asked > limits::PRESENCE_WATCHED_MAX {
            let text = format!("at most {} users are watched by one connection", limits::PRESENCE_WATCHED_MAX);
            return refuse(actions, id, ErrorCode::LimitReached, text);
        }
        let lanes = by_lane.len() as u16;
        if lanes == 0 {
            return answer(actions, id, ServerFrame::PresenceAnswer(PresenceAnswer { users: Vec::new(), watching }));
        }
        if let Err(text) = self.reserve(lanes, environment) {
            return refuse(actions, id, ErrorCode::Overloaded, text);
        }
        self.outstanding += lanes;
        let beside = self.beside.get_or_insert_default();
        beside.watching.asked += asked;
        let gather = GatherPresence { waiting: lanes, asked, users: Vec::new() };
        let gather = beside.open(id, Gathering::Presence(gather));
        for (lane, (watch, unwatch)) in by_lane {
            let (user, connection) = (connected.user.clone(), environment.connection);
            actions.push(Action::ToLane { lane, frame: LaneFrame::Watch { user, connection, gather, watch, unwatch } });
        }
    }

    /// A lane has taken its part of a request for presence.
    pub fn watched(
        &mut self,
        lane: LaneId,
        number: u32,
        users: Vec<UserPresence>,
        watching: u32,
        actions: &mut Vec<Action>,
    ) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.presents(users.iter());
        let Some(beside) = &mut self.beside else { return };
        beside.watching.by_lane[usize::from(lane.0)] = watching as u16;
        let Some((_, Gathering::Presence(gather))) = beside.open.get_mut(&number) else { return };
        gather.users.extend(users);
        gather.waiting -= 1;
        if gather.waiting > 0 {
            return;
        }
        let Some((id, Gathering::Presence(done))) = self.gathered_all(number) else { return };
        let watching = self.watching();
        answer(actions, id, ServerFrame::PresenceAnswer(PresenceAnswer { users: done.users, watching }));
    }

    /// The client is told of these now, or will be: answers that are still being gathered are to say nothing older.
    pub fn presents<'a>(&mut self, users: impl Iterator<Item = &'a UserPresence> + Clone) {
        let Some(beside) = &mut self.beside else { return };
        for (_, gathering) in beside.open.values_mut() {
            let Gathering::Presence(gather) = gathering else { continue };
            for user in users.clone() {
                gather
                    .users
                    .iter_mut()
                    .filter(|older| older.user == user.user)
                    .for_each(|older| older.clone_from(user));
            }
        }
    }

    /// Users that it is told of, or has asked to be.
    fn watching(&self) -> u32 {
        self.beside.as_ref().map_or(0, |beside| beside.watching.at_most())
    }
}

/// A request for presence whose parts are with their lanes.
#[derive(Debug)]
pub(super) struct GatherPresence {
    waiting: u16,
    asked: u32,
    users: Vec<UserPresence>,
}

/// How many users a session watches.
#[derive(Debug, Default)]
struct Watching {
    /// As each lane has told.
    by_lane: [u16; limits::LANES_MAX],
    /// In requests that are not answered: some of them may be watched already.
    asked: u32,
}

impl Watching {
    fn at_most(&self) -> u32 {
        self.asked + self.by_lane.iter().map(|count| u32::from(*count)).sum::<u32>()
    }
}
