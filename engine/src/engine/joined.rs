//! How many conversations of this lane each user is a member of, so that nobody joins more than may be.
//!
//! A count is taken once, from segments, memtables and what is staged; from then on every record that is staged keeps it right. So it
//! runs ahead of the disk exactly as conversations do. Users are forgotten when they are too many, and counted anew when they join
//! something again.
//!
//! Invariants: whoever has a record staged is here, so that a count is never taken without it; whoever a command waits for is here, so
//! that what was counted for it is there when it goes on. Everybody else may go at any time: the price is another look.

use std::collections::{HashMap, VecDeque};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{EntryKind, members_changed, view_entry},
    ids::{LanePosition, UserId},
    limits::GROUP_MEMBERS_MAX,
};

use crate::{
    door::{Command, Refusal},
    engine::{
        Engine,
        commands::Turn,
        groups::may_add,
        jobs::Job,
        lists::{UserRows, overlay},
        refusal::refuse_because,
        state::{Block, Core, Stage},
    },
    error::StoreError,
    hash::IdHash,
    keys,
    row::KeyRange,
    seams::{Clock, Files, Random},
};

/// Steps of the hand for one user that is forgotten: a bound of the work, and enough to pass by those that are asked for often.
const HAND_STEPS_MAX: usize = 8;

/// What is known of users.
pub(super) struct Joined {
    users: HashMap<UserId, Known, IdHash>,
    /// The order in which users are forgotten: a clock with one hand.
    hand: VecDeque<UserId>,
    max: usize,
}

#[derive(Default)]
struct Known {
    /// Conversations, those that are staged with them; `None` if nobody has counted them.
    count: Option<usize>,
    /// The last record staged that the user came or went by.
    staged: LanePosition,
    /// Commands that wait for a count.
    waiting: usize,
    /// Asked for since the hand last passed.
    used: bool,
}

impl Joined {
    pub(super) fn new(max: usize, hash: IdHash) -> Self {
        Self { users: HashMap::with_hasher(hash), hand: VecDeque::new(), max }
    }

    fn count(&mut self, user: &UserId) -> Option<usize> {
        let known = self.users.get_mut(user)?;
        known.used = true;
        known.count
    }

    /// The user's place; others may be forgotten for it. `durable` is the lane's position.
    fn known(&mut self, user: &UserId, durable: LanePosition) -> &mut Known {
        if !self.users.contains_key(user) {
            while self.users.len() >= self.max && self.forget_one(durable) {}
            self.hand.push_back(user.clone());
        }
        self.users.entry(user.clone()).or_default()
    }

    /// Forgets a user that was not asked for lately, or else any that may go; false if the next few must all stay.
    fn forget_one(&mut self, durable: LanePosition) -> bool {
        for step in 1..=HAND_STEPS_MAX {
            let Some(user) = self.hand.pop_front() else { return false };
            let known = self.users.get_mut(&user).expect("the hand has exactly those who are known");
            let must_stay = known.waiting > 0 || known.staged > durable;
            if !must_stay && (!known.used || step == HAND_STEPS_MAX) {
                self.users.remove(&user);
                return true;
            }
            known.used = false;
            self.hand.push_back(user);
        }
        false
    }
}

impl<D> Core<D> {
    /// Takes in that a staged record makes users come and go.
    pub(super) fn members_changed(&mut self, came: &[UserId], went: &[UserId], position: LanePosition) {
        let durable = self.stage.position;
        for user in came {
            let known = self.joined.known(user, durable);
            known.staged = position;
            known.count = known.count.map(|count| count + 1);
        }
        for user in went {
            let known = self.joined.known(user, durable);
            known.staged = position;
            // A user with damaged rows was counted too low.
            known.count = known.count.map(|count| count.saturating_sub(1));
        }
    }

    /// Counts a user's conversations: `rows` is what segments say of them now.
    fn count_joined(&mut self, user: &UserId, mut rows: UserRows) -> usize {
        overlay(&mut rows, user, &self.memory);
        let mut count = rows.values().filter(|row| row.joined).count();
        let durable = self.stage.position;
        let known = self.joined.known(user, durable);
        if known.staged > durable {
            count = count.saturating_add_signed(staged_change(&self.stage, user));
        }
        known.count = Some(count);
        count
    }
}

/// By how many conversations the user's count changes when all that is staged is durable.
fn staged_change(stage: &Stage, user: &UserId) -> isize {
    let mut change = 0;
    for staged in &stage.staged {
        let Some(archive) = staged.record.archive() else { continue };
        let Ok(entry) = view_entry(archive) else { continue };
        let Ok(members) = members_changed(EntryKind::from(&entry.kind), &entry.body) else { continue };
        change += isize::from(members.added.contains(user)) - isize::from(members.removed.contains(user));
    }
    change
}

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// Why a command cannot go on yet or at all, if so: what tells whether everybody who would join by it may, or that somebody may not.
    /// One that fails for another reason may go on, and says so itself.
    pub(super) fn lacks_room(&mut self, command: &Command) -> Option<Result<Block, Refusal>> {
        let joining = self.joining(command)?;
        let mut all_known = true;
        for user in &joining {
            match self.joined_count(user) {
                Some(count) if count >= self.shared.options.conversations_per_user_max => {
                    let text = "one of the users is a member of as many conversations as may be";
                    return Some(Err(refuse_because(ErrorCode::LimitReached, text)));
                }
                Some(_) => {}
                None => all_known = false,
            }
        }
        if all_known {
            return None;
        }
        let durable = self.core.stage.position;
        joining.iter().for_each(|user| self.core.joined.known(user, durable).waiting += 1);
        self.core.jobs.push(Job::Joined(self.id, joining));
        Some(Ok(Block::Joined))
    }

    /// Who would join by a command that can be carried out otherwise.
    fn joining(&self, command: &Command) -> Option<Vec<UserId>> {
        let fresh = self.slot.conversation.is_none();
        let (mut joining, before) = match command {
            Command::CreateDirect { user, peer } if fresh && user != peer => (vec![user.clone(), peer.clone()], 0),
            Command::CreateGroup { user, members, .. } if fresh => {
                (members.iter().chain([user]).cloned().collect::<Vec<_>>(), 0)
            }
            Command::AddMembers { user, members, .. } => {
                let group = self.group_of(user).ok()?;
                let new: Vec<UserId> = members.iter().filter(|name| group.member(name).is_none()).cloned().collect();
                may_add(group, user, &new).ok()?;
                (new, group.members().len())
            }
            Command::Join { user, code, look: false } => {
                self.invite_of(user, code).ok()??;
                let members = self.slot.conversation.as_deref().map_or(0, |group| group.members().len());
                (vec![user.clone()], members)
            }
            _ => return None,
        };
        joining.sort_unstable();
        joining.dedup();
        let possible = before + joining.len() <= GROUP_MEMBERS_MAX;
        (possible && self.core.cannot_store(&self.shared.options).is_none()).then_some(joining)
    }

    /// How many conversations a user has, if that can be told without a read.
    fn joined_count(&mut self, user: &UserId) -> Option<usize> {
        self.core.joined.count(user).or_else(|| {
            let prefix = keys::user(user);
            let runs = self.shared.sorted.runs();
            let unknown_to_segments = !runs.may_overlap(&KeyRange::prefix(prefix.clone()), Some(&prefix));
            unknown_to_segments.then(|| self.core.count_joined(user, UserRows::new()))
        })
    }
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Counts the conversations of those users whose count is not known.
    ///
    /// A user whose rows are damaged has those that memory knows of: the limit bounds work, and must not keep somebody out for good.
    pub(super) async fn count_users(&self, users: &[UserId]) -> Result<(), StoreError> {
        for user in users {
            while self.shared.state.borrow_mut().core.joined.count(user).is_none() {
                let flushes = self.shared.state.borrow().core.memory.flushes;
                let rows = match self.user_rows(user).await {
                    Ok(rows) => rows,
                    Err(error @ StoreError::File(_)) => return Err(error),
                    Err(_) => UserRows::new(),
                };
                let core = &mut self.shared.state.borrow_mut().core;
                // What a flush moved meanwhile is in neither.
                if core.memory.flushes == flushes {
                    core.count_joined(user, rows);
                }
            }
        }
        Ok(())
    }

    /// The command that waited for counts is done with them.
    pub(super) fn release_users(&self, users: &[UserId]) {
        let joined = &mut self.shared.state.borrow_mut().core.joined;
        for user in users {
            if let Some(known) = joined.users.get_mut(user) {
                known.waiting -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        UserId::new(&format!("user-{number}")).expect("a user id")
    }

    #[test]
    fn users_are_forgotten_but_for_those_that_are_staged_or_waited_for() {
        let mut joined = Joined::new(4, IdHash(7));
        joined.known(&user(1), LanePosition(0)).staged = LanePosition(9);
        joined.known(&user(2), LanePosition(0)).waiting = 1;
        for number in 3..100 {
            joined.known(&user(number), LanePosition(8)).count = Some(1);
        }
        assert!(joined.users.len() <= 4, "{} users are remembered", joined.users.len());
        assert_eq!(joined.users.len(), joined.hand.len());
        assert!(joined.users.contains_key(&user(1)) && joined.users.contains_key(&user(2)));
        joined.known(&user(2), LanePosition(9)).waiting = 0;
        for number in 100..200 {
            joined.known(&user(number), LanePosition(9)).count = Some(1);
        }
        assert!(!joined.users.contains_key(&user(1)) && !joined.users.contains_key(&user(2)));
    }

    #[test]
    fn a_user_who_is_asked_for_stays() {
        let mut joined = Joined::new(4, IdHash(7));
        joined.known(&user(0), LanePosition(0)).count = Some(3);
        for number in 1..100 {
            joined.known(&user(number), LanePosition(0)).count = Some(1);
            assert_eq!(joined.count(&user(0)), Some(3), "after {number}");
        }
    }
}
