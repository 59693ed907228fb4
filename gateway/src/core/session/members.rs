//! A list of a conversation's members, which shows how far each has read: of those alone who show it to who asks.
//!
//! The conversation's lane has the pointers, the members' home lanes know who shows them. All are asked about, whatever their pointers are, so
//! that the time that an answer takes says nothing of them either.

use std::collections::BTreeMap;

use antiphon_wire::{
    binary,
    codes::ErrorCode,
    frame::{Member, Members, MembersAnswer, Request, ServerFrame},
    ids::{RequestId, Sequence, UserId},
};

use super::{Action, Environment, Session, answer, beside::Gathering, refuse};
use crate::core::mesh::{LaneFrame, LaneId};

/// A list under way: nothing of it at first, then what the conversation's lane has answered.
#[derive(Debug, Default)]
pub(super) struct GatherMembers {
    waiting: u16,
    page: Option<MembersAnswer>,
    /// Some home lane has no answer now.
    failed: bool,
}

/// Shows nothing of how far these have read.
fn hide(members: &mut [Member], is_hidden: impl Fn(&UserId) -> bool) {
    for member in members.iter_mut().filter(|member| is_hidden(&member.user)) {
        (member.read, member.delivered) = (Sequence(0), Sequence(0));
    }
}

impl Session {
    pub(super) fn list_members(
        &mut self,
        id: Option<RequestId>,
        list: Members,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(connected) = &self.connected else { return };
        if let Err(text) = self.reserve(1, environment) {
            return refuse(actions, id, ErrorCode::Overloaded, text);
        }
        let (user, connection) = (connected.user.clone(), environment.connection);
        let lane = environment.placement.lane_of(list.conversation);
        // Under an id of its own, so that an answer is told from an error without one.
        let frame = binary::encode_request(Some(RequestId(1)), &Request::Members(list));
        self.outstanding += 1;
        let gather = self.beside.get_or_insert_default().open(id, Gathering::Members(GatherMembers::default()));
        actions.push(Action::ToLane { lane, frame: LaneFrame::Request { user, connection, gather, frame } });
    }

    /// The conversation's lane has answered.
    pub(super) fn members_listed(
        &mut self,
        number: u32,
        frame: &[u8],
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let mut page = match binary::decode_server(frame) {
            Ok((_, ServerFrame::MembersAnswer(page))) => page,
            Ok((_, ServerFrame::Error(error))) => {
                let Some((id, _)) = self.gathered_all(number) else { return };
                return actions.push(Action::Send { id, frame: ServerFrame::Error(error) });
            }
            other => unreachable!("a lane answers a list with a list or an error, not {other:?}"),
        };
        let Some(own) = self.user().cloned() else { return };
        let members = page.members.as_deref_mut().unwrap_or_default();
        if self.beside.as_ref().is_some_and(|beside| beside.no_receipts) {
            hide(members, |user| *user != own);
        }
        let mut by_lane: BTreeMap<LaneId, Vec<UserId>> = BTreeMap::new();
        for Member { user, .. } in members.iter().filter(|member| member.user != own) {
            by_lane.entry(environment.placement.home_of(user)).or_default().push(user.clone());
        }
        let Some((_, Gathering::Members(gather))) = self.gathering(number) else { return };
        (gather.waiting, gather.page) = (by_lane.len() as u16, Some(page));
        if by_lane.is_empty() {
            return self.members_known(number, actions);
        }
        self.outstanding += by_lane.len() as u16;
        for (lane, of) in by_lane {
            let (user, connection) = (own.clone(), environment.connection);
            let frame = LaneFrame::AskReceipts { user, connection, gather: number, of };
            actions.push(Action::ToLane { lane, frame });
        }
    }

    /// A home lane says which of its users hide their receipts.
    pub fn receipts(&mut self, number: u32, hidden: Option<&[UserId]>, actions: &mut Vec<Action>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Some((_, Gathering::Members(gather))) = self.gathering(number) else { return };
        gather.waiting -= 1;
        gather.failed |= hidden.is_none();
        let members = gather.page.as_mut().and_then(|page| page.members.as_deref_mut()).unwrap_or_default();
        hide(members, |user| hidden.unwrap_or_default().contains(user));
        if gather.waiting == 0 {
            self.members_known(number, actions);
        }
    }

    fn members_known(&mut self, number: u32, actions: &mut Vec<Action>) {
        let Some((id, Gathering::Members(done))) = self.gathered_all(number) else { return };
        match done.page.filter(|_| !done.failed) {
            Some(page) => answer(actions, id, ServerFrame::MembersAnswer(page)),
            None => refuse(actions, id, ErrorCode::Overloaded, ErrorCode::Overloaded.text()),
        }
    }
}
