//! What users are shown of a store, read through the engine's door, and what is wrong with it if a file was changed
//! meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_engine::{
    OpenReport,
    door::{CaughtUp, Command, Done, HistoryRange, Member, Refusal, Summary},
};
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, LanePosition, Sequence},
};

use crate::{
    store::Talk,
    support::{Lane, entry, user},
};

/// Members of one or more conversations, and a stranger.
const USERS: [&str; 6] = ["ann", "bob", "cid", "dan", "eve", "zoe"];

/// From where users catch up: the beginning, and the middle of what only the log has.
const SINCE: [u64; 2] = [0, 132];

type Answer<T> = Result<T, ErrorCode>;

/// Everything that users are shown.
#[derive(PartialEq)]
pub(crate) struct Shown {
    histories: BTreeMap<(&'static str, ConversationId), Answer<History>>,
    members: BTreeMap<(&'static str, ConversationId), Answer<Vec<Member>>>,
    lists: BTreeMap<&'static str, Answer<Vec<Summary>>>,
    caught_up: BTreeMap<(&'static str, u64), Answer<Missed>>,
    /// Of each conversation: what a retry of its last message is answered, and what a new one is.
    sent: BTreeMap<ConversationId, [Answer<(Sequence, bool)>; 2]>,
}

#[derive(PartialEq)]
struct History {
    last: u64,
    entries: BTreeMap<u64, Arc<[u8]>>,
    /// Those that are answered with `damaged`.
    damaged: BTreeSet<u64>,
}

/// What a user had missed.
#[derive(PartialEq)]
struct Missed {
    entries: BTreeMap<(ConversationId, u64), Arc<[u8]>>,
    too_far: BTreeSet<ConversationId>,
    left: BTreeMap<ConversationId, u64>,
}

/// An entry that nobody can read any more.
pub(crate) type Lost = BTreeSet<(ConversationId, u64)>;

fn code<T>(answer: Result<T, Refusal>) -> Answer<T> {
    answer.map_err(|refusal| refusal.code)
}

/// Reads all of it, then writes.
pub(crate) fn read(lane: &mut Lane, talks: &[Talk]) -> Shown {
    let ids: Vec<ConversationId> = talks.iter().map(|talk| talk.id).collect();
    let pairs = || USERS.into_iter().flat_map(|name| ids.iter().map(move |id| (name, *id)));
    let mut shown = Shown {
        histories: pairs().map(|(name, id)| ((name, id), history(lane, name, id))).collect(),
        members: BTreeMap::new(),
        lists: BTreeMap::new(),
        caught_up: BTreeMap::new(),
        sent: BTreeMap::new(),
    };
    for (name, id) in pairs() {
        let members = code(lane.ask(Command::Members { user: user(name), conversation: id, after: None, limit: 50 }));
        let members = members.map(|done| match done {
            Done::Members { members, more: false } => members,
            other => panic!("{other:?}"),
        });
        shown.members.insert((name, id), members);
    }
    for name in USERS {
        let list = code(lane.ask(Command::Conversations { user: user(name), after: None, limit: 50 }));
        let list = list.map(|done| match done {
            Done::Conversations { conversations, more: false } => conversations,
            other => panic!("{other:?}"),
        });
        shown.lists.insert(name, list);
        for since in SINCE {
            let since = since.min(lane.engine.position().0);
            let command = Command::CatchUp { user: user(name), since: Some(LanePosition(since)), known: Vec::new() };
            let missed = code(lane.ask(command)).map(|done| match done {
                Done::CaughtUp(caught_up) => Missed::of(&caught_up),
                other => panic!("{other:?}"),
            });
            shown.caught_up.insert((name, since), missed);
        }
    }
    for talk in talks {
        let answers = [talk.retry(), talk.next()].map(|command| {
            code(lane.ask(command)).map(|done| match done {
                Done::Sent { sequence, duplicate, .. } => (sequence, duplicate),
                other => panic!("{other:?}"),
            })
        });
        shown.sent.insert(talk.id, answers);
        lane.outputs.clear();
    }
    shown
}

/// Pages forward; where one is `damaged` it goes on behind the entry. `Err` for a conversation that is not shown at
/// all.
fn history(lane: &mut Lane, name: &str, id: ConversationId) -> Answer<History> {
    let mut found = History { last: 0, entries: BTreeMap::new(), damaged: BTreeSet::new() };
    let mut after = 0;
    // Beyond the last sequence of any of them.
    while after < 100 {
        match code(lane.history(name, id, HistoryRange::After(Sequence(after)), 50)) {
            Ok(page) => {
                found.last = page.last.0;
                let Some(last) = page.entries.last() else { break };
                after = entry(last).sequence.0;
                found.entries.extend(page.entries.iter().map(|archive| (entry(archive).sequence.0, archive.clone())));
            }
            Err(ErrorCode::Damaged) => {
                after += 1;
                found.damaged.insert(after);
            }
            Err(code) => return Err(code),
        }
        lane.outputs.clear();
    }
    Ok(found)
}

impl Missed {
    fn of(caught_up: &CaughtUp) -> Self {
        let entries = caught_up.entries.iter().map(|archive| {
            let entry = entry(archive);
            ((entry.conversation, entry.sequence.0), archive.clone())
        });
        Self {
            entries: entries.collect(),
            too_far: caught_up.too_far.iter().map(|of| of.conversation).collect(),
            left: caught_up.left.iter().map(|(id, sequence)| (*id, sequence.0)).collect(),
        }
    }
}

/// Holds what was shown of a damaged store against what was shown of the whole one: gives the entries that are lost,
/// and what is wrong.
pub(crate) struct Judge<'a> {
    pub(crate) truth: &'a Shown,
    pub(crate) shown: &'a Shown,
    pub(crate) report: &'a OpenReport,
}

impl Judge<'_> {
    pub(crate) fn lost(&self) -> Lost {
        let mut lost = Lost::new();
        for ((name, id), truth) in &self.truth.histories {
            let Ok(truth) = truth else { continue };
            let shown = self.shown.histories[&(*name, *id)].as_ref().ok();
            let gone =
                truth.entries.keys().filter(|sequence| shown.is_none_or(|of| !of.entries.contains_key(sequence)));
            lost.extend(gone.map(|sequence| (*id, *sequence)));
        }
        lost
    }

    /// Conversations of which nobody is shown anything.
    pub(crate) fn hidden(&self) -> BTreeSet<ConversationId> {
        let is_shown = |id: ConversationId| {
            self.shown
                .histories
                .iter()
                .any(|((_, of), shown)| *of == id && shown.as_ref().is_ok_and(|shown| !shown.entries.is_empty()))
        };
        self.shown.sent.keys().copied().filter(|id| !is_shown(*id)).collect()
    }

    /// Whether opening has told that something of the conversation is lost, or that it may be.
    fn is_told(&self, id: ConversationId) -> bool {
        let of_log = self.report.damage.iter().filter(|damage| !damage.harmless);
        let mut of_log =
            of_log.map(|damage| !damage.all_known || damage.conversations.iter().any(|of| of.conversation == id));
        !self.report.segments_damaged.is_empty() || of_log.any(|told| told)
    }

    fn log_is_damaged(&self) -> bool {
        self.report.damage.iter().any(|damage| !damage.harmless)
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.histories(&mut wrong);
        self.members(&mut wrong);
        self.lists(&mut wrong);
        self.caught_up(&mut wrong);
        self.sent(&mut wrong);
        if self.report.position < LanePosition(0) {
            wrong.push("no position".into());
        }
        wrong
    }

    fn histories(&self, wrong: &mut Vec<String>) {
        for ((name, id), shown) in &self.shown.histories {
            let truth = &self.truth.histories[&(*name, *id)];
            match (truth, shown) {
                (Ok(truth), Ok(shown)) => {
                    for (sequence, archive) in &shown.entries {
                        if truth.entries.get(sequence) != Some(archive) {
                            wrong
                                .push(format!("{name} is shown another entry {sequence} of {id}, or one not for them"));
                        }
                    }
                    for sequence in truth.entries.keys() {
                        let there = shown.entries.contains_key(sequence) || shown.damaged.contains(sequence);
                        if !there {
                            wrong.push(format!("{name} misses entry {sequence} of {id} and is not told"));
                        }
                    }
                }
                (Err(_), Ok(shown)) if !shown.entries.is_empty() => {
                    wrong.push(format!("{name} is shown {id}, which is not theirs"));
                }
                (Err(ErrorCode::NotFound), Ok(_) | Err(_)) => {}
                (Err(code), _) => panic!("the truth is {code:?}"),
                // Whoever came by an entry that is lost is a stranger, and what is said of the lane says so.
                (Ok(_), Err(ErrorCode::NotFound)) if self.is_told(*id) => {}
                (Ok(_), Err(code)) => wrong.push(format!("{name} is answered {code:?} for {id}, which is theirs")),
            }
        }
    }

    fn members(&self, wrong: &mut Vec<String>) {
        for ((name, id), shown) in &self.shown.members {
            match (&self.truth.members[&(*name, *id)], shown) {
                (truth, shown) if truth == shown => {}
                (_, Err(ErrorCode::Damaged)) => {}
                (_, Err(ErrorCode::NotFound)) if self.is_told(*id) => {}
                (Ok(truth), Ok(shown)) => {
                    let sight = |of: &Member| (of.user.clone(), of.visible_from);
                    if !truth.iter().map(sight).eq(shown.iter().map(sight)) {
                        wrong.push(format!("{name} is shown other members of {id}"));
                    }
                    let ahead = truth
                        .iter()
                        .zip(shown)
                        .any(|(truth, shown)| shown.read > truth.read || shown.delivered > truth.delivered);
                    if ahead {
                        wrong.push(format!("{name} is shown pointers of {id} that are ahead"));
                    } else if !self.log_is_damaged() {
                        wrong.push(format!("{name} is shown older pointers of {id} and nothing is told"));
                    }
                }
                (truth, shown) => {
                    wrong.push(format!("{name} is answered {shown:?}, not {truth:?}, for members of {id}"))
                }
            }
        }
    }

    fn lists(&self, wrong: &mut Vec<String>) {
        for (name, shown) in &self.shown.lists {
            let Ok(shown) = shown else { continue };
            let Ok(truth) = &self.truth.lists[name] else { panic!("a list of a whole store") };
            for summary in shown {
                let id = summary.conversation;
                let Some(of) = truth.iter().find(|of| of.conversation == id) else {
                    wrong.push(format!("{name} has {id} in the list, which is not theirs"));
                    continue;
                };
                let archive = |of: &Summary| of.last_entry.clone();
                if archive(summary).is_some_and(|shown| archive(of) != Some(shown)) && !self.is_told(id) {
                    wrong.push(format!("{name}'s list shows another last entry of {id}"));
                }
                if summary != of && !self.is_told(id) && !self.log_is_damaged() && archive(summary).is_some() {
                    wrong.push(format!("{name}'s list says of {id} {summary:?}, not {of:?}, and nothing is told"));
                }
            }
            for of in truth {
                let id = of.conversation;
                if shown.iter().all(|summary| summary.conversation != id) && !self.is_told(id) {
                    wrong.push(format!("{name}'s list lacks {id}, and nothing is told"));
                }
            }
        }
    }

    fn caught_up(&self, wrong: &mut Vec<String>) {
        for ((name, since), shown) in &self.shown.caught_up {
            let Ok(shown) = shown else { continue };
            for ((id, sequence), archive) in &shown.entries {
                let truth = self.truth.histories[&(*name, *id)].as_ref().ok();
                if truth.and_then(|truth| truth.entries.get(sequence)) != Some(archive) {
                    wrong.push(format!("{name} catches up with another entry {sequence} of {id}, or one not for them"));
                }
            }
            let Some(Ok(truth)) = self.truth.caught_up.get(&(*name, *since)) else { continue };
            for (id, sequence) in truth.entries.keys() {
                let there = shown.entries.contains_key(&(*id, *sequence)) || shown.too_far.contains(id);
                if !there && !self.is_told(*id) {
                    wrong.push(format!(
                        "{name} catches up from {since} without entry {sequence} of {id}, and nothing is told"
                    ));
                }
            }
            for (id, sequence) in &truth.left {
                if shown.left.get(id) != Some(sequence) && !self.is_told(*id) {
                    wrong.push(format!("{name} is not told to have left {id}, and nothing else is told"));
                }
            }
            if shown.left.iter().any(|(id, _)| !truth.left.contains_key(id)) {
                wrong.push(format!("{name} is told to have left a conversation"));
            }
        }
    }

    fn sent(&self, wrong: &mut Vec<String>) {
        for (id, shown) in &self.shown.sent {
            for (shown, truth) in shown.iter().zip(&self.truth.sent[id]) {
                match shown {
                    Ok(_) if shown == truth => {}
                    Err(ErrorCode::Damaged | ErrorCode::StorageFailed) => {}
                    _ => wrong.push(format!("a message to {id} is answered {shown:?}, not {truth:?}")),
                }
            }
        }
    }
}
