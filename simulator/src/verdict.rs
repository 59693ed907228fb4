//! What can be judged only when everything was read: who was allowed to see what, whether all that was acknowledged is there, and
//! whether lists, members and counts follow from the entries.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        ChangeView, ConversationStart, EntryKind, HistoryFrom, Member, Settings, Summary, view_change, view_entry,
    },
    ids::{ClientMessageId, ConversationId, UserId},
};

use crate::{
    accounts, changes, contents,
    coverage::{Count, Coverage},
    finish::{Log, Reading},
    model::{Conversation, Known, Model},
    receipts::is_blank,
    rights::{self, Rights},
};

/// A conversation's whole log, replayed by rules of its own.
struct Replay {
    last: u64,
    /// By user: from when to when it saw entries, the end not included.
    stays: BTreeMap<UserId, Vec<(u64, u64)>>,
    title: String,
    direct: bool,
    /// First entries that retention marks let stay.
    marks: BTreeSet<u64>,
    /// What the group is in the end.
    rights: Option<Rights>,
}

/// Judges all that was seen. Only what follows from a log known from its beginning is judged.
pub fn judge(model: &mut Model, readings: &[(UserId, Reading)], coverage: &mut Coverage) {
    let ids: Vec<ConversationId> = model.conversations.keys().copied().collect();
    for id in ids {
        let mut problems = Vec::new();
        let mut replay = replay(&model.conversations[&id]);
        if let Some(replay) = &mut replay {
            replay.rights = rights::judge(&model.conversations[&id], id, &mut problems);
        }
        if model.conversations[&id].erased.is_some() {
            erased(model, id, replay.as_ref(), readings, &mut problems);
            if let Some(problem) = problems.into_iter().next() {
                model.fail(|| problem);
            }
            continue;
        }
        acknowledged(model, id, readings, &mut problems);
        match &replay {
            Some(replay) => {
                deliveries(model, id, replay, &mut problems);
                let saw_both = |user: &UserId, one, other| replay.saw_both(user, one, other);
                contents::judge(&model.conversations[&id], id, saw_both, &mut problems);
                let replies = model.conversations[&id].entries.values().filter(|entry| entry.thread().is_some());
                coverage.add(Count::Replies, replies.count() as u64);
                if !model.rot {
                    changes::judge(&model.conversations[&id], id, readings, &mut problems);
                }
                // Where nobody can read any more, an unanswered removal may have been the last entry.
                let read_by = |(_, reading): &(UserId, Reading)| matches!(reading.logs.get(&id), Some(Ok(_)));
                let whole = readings.iter().any(read_by);
                for (user, reading) in readings {
                    if !whole && model.certainty(id, user).member.is_none() {
                        continue;
                    }
                    read(model, id, user, reading, replay, coverage, &mut problems);
                }
                pointers(model, id, replay, readings, &mut problems);
            }
            None => {
                let pushes = model.pushes.iter().filter(|(of, _, _)| *of == id).count();
                coverage.add(Count::Unjudged, pushes as u64);
            }
        }
        if let Some(problem) = problems.into_iter().next() {
            model.fail(|| problem);
        }
    }
}

/// Of what was erased nobody reads anything; what was told before is judged as ever.
fn erased(
    model: &Model,
    id: ConversationId,
    replay: Option<&Replay>,
    readings: &[(UserId, Reading)],
    problems: &mut Vec<String>,
) {
    if let Some(replay) = replay {
        deliveries(model, id, replay, problems);
    }
    for (user, reading) in readings {
        let (summary, log, members) = (reading.summaries.get(&id), reading.logs.get(&id), reading.members.get(&id));
        let told = [log.and_then(|log| log.as_ref().err()), members.and_then(|members| members.as_ref().err())];
        let of_account = model.conversations[&id].account.is_some();
        let is_gone = told == [Some(&ErrorCode::NotFound); 2]
            || (of_account && told[0] == Some(&ErrorCode::NotFound))
            || (model.rot && told.iter().all(Option::is_some));
        if summary.is_some() || !is_gone {
            problems.push(format!("{id} was erased, and {user} reads {log:?} {members:?} {summary:?}"));
        }
    }
}

fn replay(conversation: &Conversation) -> Option<Replay> {
    let last = *conversation.entries.last_key_value()?.0;
    let whole = conversation.entries.len() as u64 == last && conversation.durable == last;
    let start = ConversationStart::from_body(&conversation.entries.get(&1)?.body).ok()?;
    if !whole {
        return None;
    }
    let mut replay = Replay {
        last,
        stays: BTreeMap::new(),
        title: start.title,
        direct: start.direct,
        marks: BTreeSet::new(),
        rights: None,
    };
    let mut history = HistoryFrom::Joining;
    for (place, entry) in &conversation.entries {
        let (came, went) = entry.members();
        for user in came {
            let stays = replay.stays.entry(user).or_default();
            if stays.last().is_none_or(|(_, until)| *until != u64::MAX) {
                stays.push((if history == HistoryFrom::Start { 1 } else { *place }, u64::MAX));
            }
        }
        for user in went {
            if let Some(stay) = replay.stays.get_mut(&user).and_then(|stays| stays.last_mut()) {
                stay.1 = stay.1.min(*place);
            }
        }
        if entry.kind == EntryKind::Settings {
            history = Settings::from_body(&entry.body).map_or(history, |settings| settings.history);
        }
        if entry.kind == EntryKind::Title {
            replay.title = String::from_utf8_lossy(&entry.body).into_owned();
        }
        if let Ok(ChangeView::Retain { before, .. }) = view_change(entry.kind, &entry.body) {
            replay.marks.insert(before.0);
        }
    }
    Some(replay)
}

/// Up to where a conversation is known, if it is from its beginning on; and its members, each with what it sees from on but for marks.
pub fn members(conversation: &Conversation) -> Option<(u64, BTreeMap<UserId, u64>)> {
    let replay = replay(conversation)?;
    let joined = |user: &UserId| Some((user.clone(), replay.joined(user)?));
    Some((replay.last, replay.stays.keys().filter_map(joined).collect()))
}

impl Replay {
    fn saw(&self, user: &UserId, place: u64) -> bool {
        self.stays.get(user).is_some_and(|stays| stays.iter().any(|(from, until)| (*from..*until).contains(&place)))
    }

    /// Whether it saw both at once: one of them and, while it still did, the other.
    fn saw_both(&self, user: &UserId, one: u64, other: u64) -> bool {
        let holds = |(from, until): &(u64, u64)| (*from..*until).contains(&one) && (*from..*until).contains(&other);
        self.stays.get(user).is_some_and(|stays| stays.iter().any(holds))
    }

    /// From where on the user sees entries now, if it is a member.
    fn visible_from(&self, user: &UserId) -> Option<u64> {
        self.joined(user).map(|from| from.max(self.marks.last().copied().unwrap_or_default()))
    }

    /// Since when the user is a member, if it is one.
    fn joined(&self, user: &UserId) -> Option<u64> {
        self.stays.get(user)?.last().filter(|(_, until)| *until == u64::MAX).map(|(from, _)| *from)
    }
}

/// All that was acknowledged and all that was seen is where it was, in everybody's reading that reaches there.
fn acknowledged(model: &Model, id: ConversationId, readings: &[(UserId, Reading)], problems: &mut Vec<String>) {
    let conversation = &model.conversations[&id];
    let to_the_end = |(_, reading): &(UserId, Reading)| match reading.logs.get(&id) {
        Some(Ok(log)) if log.broken.is_none() => Some(log.clone()),
        _ => None,
    };
    let whole: Vec<Log> = readings.iter().filter_map(to_the_end).collect();
    for ((user, name), record) in &conversation.sends {
        let Some((ack, content)) = &record.acked else { continue };
        match conversation.entries.get(&ack.sequence.0) {
            Some(entry) => {
                let says = *entry.body == content.0[..] || conversation.may_have_changed(ack.sequence.0);
                let same = is_message(entry, user, *name) && says;
                let stamps = (entry.ordinal, entry.time_ms) == (ack.ordinal.0, ack.time_ms.0);
                if !same || !stamps {
                    let there = crate::model::describe(&entry.bytes);
                    problems.push(format!("{id}: {name} of {user} was acknowledged as {ack:?}, but there is {there}"));
                }
            }
            // Nobody could read there, or somebody would have.
            None => {
                if whole.iter().any(|log| log.first <= ack.sequence.0) {
                    problems.push(format!("{id}: {name} of {user}, acknowledged as {ack:?}, is not there"));
                }
            }
        }
    }
    // Whatever was destroyed, it is told: nobody reads to the end of less than there was.
    if let Some(log) = whole.iter().find(|log| log.last < conversation.durable) {
        problems.push(format!("{id} was read to its end at #{}, but #{} was there", log.last, conversation.durable));
    }
}

fn is_message(entry: &Known, user: &UserId, name: ClientMessageId) -> bool {
    entry.kind == EntryKind::Message && entry.sender == *user && entry.client_message_id == name
}

/// Nobody was given what it may not see, and nobody was kept from what it may.
fn deliveries(model: &Model, id: ConversationId, replay: &Replay, problems: &mut Vec<String>) {
    for (of, user, place) in model.pushes.iter().filter(|(of, _, _)| *of == id) {
        if !replay.saw(user, *place) {
            problems.push(format!("{user} was given {of} #{place}, but its stays are {:?}", replay.stays.get(user)));
        }
    }
    for (of, user, place) in model.hints.iter().filter(|(of, _, _)| *of == id) {
        if !replay.saw(user, *place) {
            problems.push(format!("{user} was told of {of} #{place}; its stays are {:?}", replay.stays.get(user)));
        }
    }
    for (of, user, first, from, to) in model.pages.iter().filter(|(of, ..)| *of == id) {
        let stays = replay.stays.get(user);
        let begins = |start: &u64| start == first || (start < first && replay.marks.contains(first));
        let holds = |(start, until): &(u64, u64)| begins(start) && from >= first && to < until;
        if !stays.is_some_and(|stays| stays.iter().any(holds)) {
            problems.push(format!("{user} read {of} #{from} to #{to}, visible from #{first}; its stays are {stays:?}"));
        }
    }
    for (_, user, place, target) in model.edits.iter().filter(|(of, ..)| *of == id) {
        if !replay.saw_both(user, *target, *place) {
            let stays = replay.stays.get(user);
            problems.push(format!("{user} was given what {id} #{place} makes of #{target}; its stays are {stays:?}"));
        }
    }
    for (_, user, place) in model.told.iter().filter(|(of, ..)| *of == id) {
        if !replay.saw(user, *place) {
            let stays = replay.stays.get(user);
            problems.push(format!("{user} was told what became of {id} #{place}; its stays are {stays:?}"));
        }
    }
    if model.rot {
        return;
    }
    for (of, user, from, to) in model.skips.iter().filter(|(of, ..)| *of == id) {
        let joins = replay.stays.get(user).is_some_and(|stays| stays.iter().any(|(start, _)| *start == to + 1));
        let joins = joins || replay.marks.contains(&(to + 1));
        if !joins {
            problems.push(format!(
                "{user} was made to skip {of} #{from} to #{to}; its stays are {:?}",
                replay.stays.get(user)
            ));
        }
    }
}

/// One user's reading of one conversation.
fn read(
    model: &Model,
    id: ConversationId,
    user: &UserId,
    reading: &Reading,
    replay: &Replay,
    coverage: &mut Coverage,
    problems: &mut Vec<String>,
) {
    let (summary, log, members) = (reading.summaries.get(&id), reading.logs.get(&id), reading.members.get(&id));
    let damaged = |code: &ErrorCode| model.rot && *code != ErrorCode::NotFound;
    let Some(first) = replay.visible_from(user) else {
        // To a stranger it does not exist.
        let hidden = summary.is_none()
            && matches!(log, None | Some(Err(ErrorCode::NotFound)))
            && matches!(members, None | Some(Err(ErrorCode::NotFound)));
        if !hidden && !matches!((log, members), (Some(Err(one)), Some(Err(two))) if damaged(one) && damaged(two)) {
            problems.push(format!("{user} is no member of {id} and sees it: {log:?} {members:?} {summary:?}"));
        }
        return;
    };
    match log {
        Some(Ok(log)) => {
            coverage.add(Count::Audited, log.places.len() as u64);
            let whole =
                log.first == first && log.last == replay.last && log.places.len() as u64 == replay.last + 1 - first;
            if !whole && !model.rot {
                let (from, to) = (log.places.first(), log.places.last());
                problems.push(format!(
                    "{user} read {id} from {from:?} to {to:?} ({} to {} as told, {:?}), not #{first} to #{}",
                    log.first, log.last, log.broken, replay.last
                ));
            }
        }
        _ if model.rot => {}
        other => problems.push(format!("{user} is a member of {id} and read {other:?}")),
    }
    if model.rot {
        return;
    }
    if model.conversations[&id].account.is_some() {
        if summary.is_some() {
            problems.push(format!("{user} finds its account in its list: {summary:?}"));
        }
        return accounts::judge(id, reading, coverage, problems);
    }
    match summary {
        Some(summary) => summarised(model, id, user, first, summary, replay, problems),
        None => problems.push(format!("{user} is a member of {id} and does not find it in its list")),
    }
    let now: Vec<&UserId> = replay.stays.keys().filter(|user| replay.visible_from(user).is_some()).collect();
    match members {
        Some(Ok(members)) if members.iter().map(|member| &member.user).eq(now.iter().copied()) => {
            let role = |user: &UserId| replay.rights.as_ref().and_then(|rights| rights.role(user));
            if let Some(wrong) = members.iter().find(|member| role(&member.user) != Some(member.role)) {
                problems.push(format!("{id}: {user} was told {wrong:?}, who is {:?}", role(&wrong.user)));
            }
        }
        other => problems.push(format!("{id}: members {now:?}, but {user} read {other:?}")),
    }
}

fn summarised(
    model: &Model,
    id: ConversationId,
    user: &UserId,
    first: u64,
    summary: &Summary,
    replay: &Replay,
    problems: &mut Vec<String>,
) {
    let conversation = &model.conversations[&id];
    let read = summary.read.0.max(first - 1);
    let unread = ordinal(conversation, replay.last) - ordinal(conversation, read);
    let members = replay.stays.keys().filter(|user| replay.visible_from(user).is_some()).count();
    let last = conversation.entries.get(&replay.last);
    // What it says may be another by now: that was judged when it was read.
    let head =
        |bytes: &[u8]| view_entry(bytes).ok().map(|entry| (entry.sequence.0.to_native(), entry.time_ms.0.to_native()));
    let same_last = summary.last.as_ref().map(|entry| head(&entry.0)) == last.map(|entry| head(&entry.bytes));
    let facts = [
        (summary.last_sequence.0 == replay.last, "last sequence"),
        (summary.title == replay.title, "title"),
        (summary.members as usize == members, "members"),
        (summary.unread == unread, "unread"),
        (summary.read.0 <= replay.last, "read pointer"),
        (same_last, "last entry"),
        (last.is_some_and(|last| last.time_ms == summary.last_time_ms.0), "last time"),
        (summary.direct.is_some() == replay.direct, "direct"),
        (replay.rights.as_ref().and_then(|rights| rights.role(user)) == Some(summary.role), "role"),
    ];
    for (_, what) in facts.iter().filter(|(holds, _)| !holds) {
        problems.push(format!(
            "{user}'s list has a wrong {what} of {id}: {summary:?}; last #{}, title {:?}, {members} members, unread {unread}",
            replay.last, replay.title
        ));
    }
}

fn ordinal(conversation: &Conversation, place: u64) -> u64 {
    conversation.entries.range(..=place).next_back().map_or(0, |(_, entry)| entry.ordinal)
}

/// Pointers: what was acknowledged stays, everybody is told the same, and unread is a subtraction.
fn pointers(
    model: &Model,
    id: ConversationId,
    replay: &Replay,
    readings: &[(UserId, Reading)],
    problems: &mut Vec<String>,
) {
    let conversation = &model.conversations[&id];
    let steady = |user: &UserId| conversation.membership.get(user).is_none_or(|membership| !membership.changed);
    for (_, user) in model.receipts_back.iter().filter(|(of, _)| *of == id) {
        if steady(user) {
            problems.push(format!("{id}: the pointers of {user} moved back"));
        }
    }
    let mut told: BTreeMap<&UserId, &Member> = BTreeMap::new();
    for (reader, reading) in readings {
        let Some(Ok(members)) = reading.members.get(&id) else { continue };
        for member in members {
            let (may_be_blank, must_be) = model.may_be_blank(reader, &member.user);
            if is_blank(member) && may_be_blank {
                continue;
            }
            if must_be {
                problems.push(format!("{id}: {reader} reads {member:?}, and may not see how far they have read"));
            }
            let same = told.insert(&member.user, member).is_none_or(|other| other == member);
            let in_range = member.read <= member.delivered && member.delivered.0 <= replay.last;
            if !same || !in_range {
                problems.push(format!("{id}: {reader} read {member:?}, others something else; last #{}", replay.last));
            }
        }
    }
    if model.rot {
        return;
    }
    for mark in model.marks.iter().filter(|mark| mark.conversation == id && mark.settled && steady(&mark.user)) {
        let now = told.get(&mark.user).map(|member| member.read.0);
        if now.is_some_and(|now| now < mark.read) {
            problems.push(format!("{id}: {} had read #{}, and now {now:?}", mark.user, mark.read));
        }
        // A retention mark may have come before it was told, or after.
        let behind = |first: Option<u64>| ordinal(conversation, mark.read.max(first.map_or(0, |first| first - 1)));
        let (joined, visible) = (behind(replay.joined(&mark.user)), behind(replay.visible_from(&mark.user)));
        let least = ordinal(conversation, mark.durable_before).saturating_sub(visible);
        let most = ordinal(conversation, replay.last) - joined;
        if !(least..=most).contains(&mark.unread) {
            problems.push(format!("{id}: {mark:?}, but unread is {least} to {most}"));
        }
    }
    for ((user, name), record) in &conversation.sends {
        let (Some((ack, _)), Some(member)) = (&record.acked, told.get(user)) else { continue };
        if steady(user) && member.read < ack.sequence {
            problems.push(format!("{id}: {user} sent {name} as #{} but has read #{}", ack.sequence, member.read));
        }
    }
}
