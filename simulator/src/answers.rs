//! Requests of applications, and what their answers are held to.

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        self, BansAnswer, Created, HistoryAnswer, InviteHash, InvitesAnswer, Marked, RolesAnswer, ServerFrame,
        SetAccount, SettingsAnswer, WatchPresence,
    },
    ids::{ClientMessageId, ConversationId, UserId},
};

use crate::{
    accounts::items_of,
    clients::{Client, Judge, View},
    coverage::Count,
    logins::LogOut,
    model::{Certainty, Change, Marking},
    presences,
    rights::{Deed, Moment},
};

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Asked {
    /// About which conversation, unless about all.
    pub conversation: Option<ConversationId>,
    /// What was known of the user's membership.
    pub certainty: Certainty,
    /// And of what the user may do.
    pub moment: Moment,
    /// The last sequence that was durable for sure.
    pub durable: u64,
    /// When, as the oracle counts time.
    pub at: u64,
    /// What.
    pub kind: AskedKind,
}

/// What was asked.
#[derive(Debug, Clone)]
pub enum AskedKind {
    /// A group, or the direct conversation with a user.
    Create(Change),
    /// Other members.
    Change(Change),
    /// Another title.
    Title,
    /// A message changes.
    Message(ClientMessageId, frame::Change),
    /// Roles, settings or bans of a group change; the users whom it may remove are a change of members.
    Group(Deed, Change),
    /// What roles, settings or bans there are.
    GroupPage(Deed),
    /// A member joins by the invite with this hash, or looks at what it is to.
    Join {
        /// Who comes by it.
        change: Change,
        /// By which.
        hash: InviteHash,
        /// Nobody: it is only a look.
        look: bool,
    },
    /// A key of the account is set; the user is a member of it from then on.
    SetAccount(Change, SetAccount),
    /// Devices are listed, named or logged out; the user is a member of the account from then on.
    Devices(Change, LogOut),
    /// All that is set in the account.
    AccountList,
    /// Something is told for the moment.
    Tell,
    /// Who is there of some, and no more of others.
    Presence(WatchPresence),
    /// A pointer moves to a sequence.
    Mark(u64),
    /// A page of history.
    History(Range, u32),
    /// The members.
    Members,
    /// The pinned messages.
    Pins,
    /// Who reacted to a message.
    Reactions(u64),
    /// All conversations, a page after a conversation.
    List,
    /// Part of the last reading of everything: a page of the list, of the members or of history.
    Audit(AuditPage),
}

/// A page of the last reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditPage {
    /// Conversations after one.
    List(Option<ConversationId>),
    /// Members after one.
    Members(Option<UserId>),
    /// History after a sequence.
    History(u64),
    /// All that is set in the account.
    Account,
}

/// Which entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The last ones.
    Latest,
    /// Before a sequence.
    Before(u64),
    /// After a sequence.
    After(u64),
    /// Around a sequence.
    Around(u64),
}

/// Holds an answer to what is known. `Err(None)`: the connection went first.
pub fn judge(client: &mut Client, asked: Asked, answer: Result<ServerFrame, Option<ErrorCode>>, judge: &mut Judge<'_>) {
    if matches!(asked.kind, AskedKind::List) {
        client.app.listing_under_way = false;
    }
    let user = client.user.clone();
    match answer {
        // Carried out or not: a change of members stays under way, as far as the oracle knows.
        Err(None) => {}
        Err(Some(code)) => refused(client, asked, code, judge),
        Ok(frame) => {
            judge.model.judged_at = asked.at;
            let (id, certainty) = (asked.conversation, asked.certainty);
            let stranger = id.is_some_and(|id| judge.model.settled(id, &user, certainty) == Some(false));
            let by_creation =
                matches!(asked.kind, AskedKind::Create(_) | AskedKind::Join { .. }) || asked.kind.is_of_account();
            let kind = format!("{:?}", asked.kind);
            judge.model.check(!stranger || by_creation, || {
                format!("{user} is not a member of {id:?} and was answered {kind}")
            });
            if let Some(id) = id {
                judge.model.check_not_erased(&user, id, "an answer");
            }
            answered(client, asked, frame, judge);
            judge.model.judged_at = 0;
        }
    }
}

fn refused(client: &mut Client, asked: Asked, code: ErrorCode, judge: &mut Judge<'_>) {
    let (user, rot) = (client.user.clone(), judge.model.rot);
    match code {
        ErrorCode::Damaged => judge.coverage.one(Count::DamageTold),
        ErrorCode::StorageFull => judge.coverage.one(Count::FullTold),
        ErrorCode::StorageFailed => judge.coverage.one(Count::FailureTold),
        ErrorCode::NotFound => judge.coverage.one(Count::NotFound),
        ErrorCode::LimitReached => judge.coverage.one(Count::LimitReached),
        _ => judge.coverage.one(Count::Refused),
    }
    let is_erased = asked.conversation.is_some_and(|id| judge.model.is_erased(id));
    let is_creation = matches!(asked.kind, AskedKind::Create(_) | AskedKind::SetAccount(..) | AskedKind::Devices(..));
    let may_refuse_set = match &asked.kind {
        AskedKind::SetAccount(_, set) => judge.model.account_refused(&user, set, asked.at, code),
        _ => false,
    };
    // What is kept of devices is looked up before it is set.
    let is_looked_up = matches!(asked.kind, AskedKind::Devices(..)) && code == ErrorCode::NotFound;
    let tells_erased = is_erased
        && (is_looked_up || matches!((is_creation, code), (false, ErrorCode::NotFound) | (true, ErrorCode::Forbidden)));
    judge.coverage.add(Count::ErasedTold, u64::from(tells_erased));
    let full = is_full(&asked, &user, judge);
    // A failed write may be on the disk all the same: what it was to change stays unknown, as if nobody had answered.
    let deed = asked.kind.deed();
    let (may_be_forbidden, is_sure) = match asked.conversation.filter(|_| code == ErrorCode::Forbidden) {
        Some(id) => judge.model.may_be_forbidden(id, &user, &deed, asked.moment),
        None => (false, false),
    };
    if let (Some(change), Some(id)) = (asked.kind.members(), asked.conversation)
        && code != ErrorCode::StorageFailed
    {
        judge.model.change_answered(id, change, None);
        if deed.is_of_rights() {
            judge.model.rights_answered(id);
        }
    }
    let allowed = match (&asked.kind, code) {
        _ if tells_erased => true,
        _ if may_refuse_set => {
            judge.coverage.one(Count::AccountConflicts);
            true
        }
        (kind, ErrorCode::Forbidden) if !is_creation && !kind.is_of_account() => {
            judge.coverage.forbidden(is_sure);
            may_be_forbidden || rot
        }
        (_, ErrorCode::StorageFailed) => !judge.model.sound || !judge.model.has_room,
        (_, ErrorCode::StorageFull) => !judge.model.has_room,
        _ if code.temporary() => true,
        (_, ErrorCode::Damaged) => rot,
        (AskedKind::Create(_) | AskedKind::Change(_) | AskedKind::Join { .. }, ErrorCode::LimitReached) => full,
        (AskedKind::Join { hash, .. }, ErrorCode::NotFound) => {
            judge.coverage.one(Count::InvitesLacked);
            let may_lack = |id| judge.model.may_lack_invite(id, &user, *hash, asked.moment);
            rot || asked.conversation.is_none_or(may_lack)
        }
        // Its creator may have left it, and then it is as if it did not exist.
        (_, ErrorCode::NotFound) => {
            let member =
                asked.conversation.is_some_and(|id| judge.model.settled(id, &user, asked.certainty) == Some(true));
            !member || rot
        }
        // A group has one owner, and nobody keeps oneself out.
        (AskedKind::Group(Deed::Roles(roles), _), ErrorCode::Invalid) => {
            let owners = roles.iter().filter(|of| of.role == frame::Role::Owner).count();
            owners > 1 || roles.iter().any(|of| of.user == user)
        }
        (AskedKind::Group(Deed::Bans(frame::BansAction::Add(users)), _), ErrorCode::Invalid) => users.contains(&user),
        (AskedKind::Message(name, change), code) => {
            let may_refuse = |id| judge.model.may_refuse_change(id, &user, *name, change, code, asked.durable);
            rot || asked.conversation.is_some_and(may_refuse)
        }
        (AskedKind::Mark(sequence), ErrorCode::Invalid) => *sequence > asked.durable,
        // Of many places there is no message.
        (AskedKind::Reactions(_), ErrorCode::NoMessage | ErrorCode::Deleted) => true,
        _ => false,
    };
    judge
        .model
        .check(allowed, || format!("{user}: {:?} of {:?} was refused as {code:?}", asked.kind, asked.conversation));
    match asked.kind {
        AskedKind::Audit(_) => client.app.audit.push((asked, Err(code))),
        AskedKind::List => client.app.listing_refused = true,
        _ => {}
    }
}

impl AskedKind {
    /// Who is to come and go by it.
    #[must_use]
    pub fn members(&self) -> Option<&Change> {
        match self {
            Self::Create(change)
            | Self::Change(change)
            | Self::Group(_, change)
            | Self::SetAccount(change, _)
            | Self::Devices(change, _)
            | Self::Join { change, look: false, .. } => Some(change),
            _ => None,
        }
    }

    /// Whether it is about the user's own account, which is made when it is first used.
    fn is_of_account(&self) -> bool {
        matches!(self, Self::SetAccount(..) | Self::Devices(..) | Self::AccountList | Self::Audit(AuditPage::Account))
    }

    /// What its user has to be allowed to do.
    #[must_use]
    pub fn deed(&self) -> Deed {
        match self {
            Self::Change(change) if change.remove.is_empty() => Deed::Add(change.add.clone()),
            Self::Change(change) => Deed::Remove(change.remove.clone()),
            Self::Title => Deed::Title,
            Self::Message(_, change) => Deed::Change(change.kind(), change.target().map(|target| target.0)),
            Self::Group(deed, _) | Self::GroupPage(deed) => deed.clone(),
            Self::Tell => Deed::Tell,
            Self::Join { hash, .. } => Deed::Join(*hash),
            _ => Deed::See,
        }
    }
}

/// Whether somebody who was to join may have had as many conversations as are allowed.
fn is_full(asked: &Asked, user: &UserId, judge: &Judge<'_>) -> bool {
    let (Some(change), Some(id)) = (asked.kind.members(), asked.conversation) else { return false };
    // What exists is found again by its members, however many conversations they have.
    let exists =
        matches!(asked.kind, AskedKind::Create(_)) && judge.model.settled(id, user, asked.certainty) == Some(true);
    !exists && change.add.iter().any(|user| judge.model.may_be_full(id, user, asked.at))
}

fn answered(client: &mut Client, asked: Asked, frame: ServerFrame, judge: &mut Judge<'_>) {
    let user = client.user.clone();
    if matches!(asked.kind, AskedKind::Audit(_)) {
        return client.app.audit.push((asked, Ok(frame)));
    }
    match (asked.kind, frame) {
        (AskedKind::Create(change), ServerFrame::Created(created)) => {
            let id = asked.conversation.expect("a creation names what it creates");
            create(id, &change, &created, judge);
        }
        (AskedKind::Change(change), ServerFrame::MembersAnswer(answer)) => {
            judge.coverage.one(Count::Changes);
            let id = asked.conversation.expect("a change names its conversation");
            let sequence = answer.sequence.map_or(0, |sequence| sequence.0);
            // Whoever leaves may be told so, without being able to see where.
            judge.model.check(sequence > 0, || format!("{user}: a change of {id} without its sequence"));
            judge.model.change_answered(id, &change, Some(sequence));
            judge.model.rights_answered(id);
            judge.model.check_full(id, &change.add);
        }
        (
            AskedKind::Group(deed, change),
            ServerFrame::RolesAnswer(RolesAnswer { sequence: Some(sequence), .. })
            | ServerFrame::SettingsAnswer(SettingsAnswer { sequence, .. })
            | ServerFrame::BansAnswer(BansAnswer { sequence: Some(sequence), .. }),
        ) => {
            judge.coverage.one(match deed {
                Deed::Roles(_) => Count::RolesGiven,
                Deed::Settings(_) => Count::SettingsChanged,
                _ => Count::BansChanged,
            });
            let id = asked.conversation.expect("a change names its conversation");
            judge.model.change_answered(id, &change, Some(sequence.0));
            judge.model.rights_answered(id);
        }
        (
            AskedKind::Group(_, change),
            ServerFrame::InvitesAnswer(InvitesAnswer { sequence: Some(sequence), code, .. }),
        ) => {
            judge.coverage.one(if code.is_some() { Count::InvitesMade } else { Count::InvitesRevoked });
            let id = asked.conversation.expect("a change names its conversation");
            judge.model.change_answered(id, &change, Some(sequence.0));
            judge.model.rights_answered(id);
            if let Some(code) = code {
                judge.model.check(code.conversation == id, || format!("{user} was given {code:?} to {id}"));
                judge.model.invited(code, sequence);
            }
        }
        (AskedKind::GroupPage(_), ServerFrame::InvitesAnswer(InvitesAnswer { invites: Some(invites), .. })) => {
            let is_sound = invites.is_sorted_by(|one, two| one.invite < two.invite);
            judge.model.check(is_sound, || format!("{user} was told {invites:?}"));
        }
        (AskedKind::Join { change, hash, look }, ServerFrame::JoinAnswer(told)) => {
            let id = asked.conversation.expect("a code names its conversation");
            let may = judge.model.may_have_invite(id, &user, hash, asked.moment);
            judge.model.check(may && told.conversation == id, || format!("{user} may not join {id}: {told:?}"));
            if look {
                return judge.coverage.one(Count::InvitesSeen);
            }
            judge.coverage.one(Count::JoinedByInvite);
            let sequence = told.sequence.map_or(0, |sequence| sequence.0);
            judge.model.check(sequence > 0, || format!("{user} joined {id} nowhere"));
            judge.model.change_answered(id, &change, Some(sequence));
            judge.model.rights_answered(id);
            judge.model.check_full(id, &change.add);
        }
        (AskedKind::GroupPage(_), ServerFrame::RolesAnswer(RolesAnswer { roles: Some(roles), .. })) => {
            let owners = roles.iter().filter(|of| of.role == frame::Role::Owner).count();
            let is_sound = roles.is_sorted_by(|one, two| one.user < two.user) && owners <= 1;
            judge.model.check(is_sound, || format!("{user} was told {roles:?}"));
        }
        (AskedKind::GroupPage(_), ServerFrame::BansAnswer(BansAnswer { users: Some(users), .. })) => {
            judge.model.check(users.is_sorted_by(|one, two| one < two), || format!("{user} was told {users:?}"));
        }
        (AskedKind::GroupPage(_), ServerFrame::SettingsAnswer(_)) | (AskedKind::Tell, ServerFrame::EventAnswer(_)) => {}
        (AskedKind::SetAccount(change, set), ServerFrame::AccountAnswer(answer)) => {
            judge.coverage.one(Count::AccountSets);
            let id = asked.conversation.expect("an account is a conversation");
            let sequence = Some(answer.sequence.0).filter(|sequence| *sequence > 0);
            judge.model.change_answered(id, &change, sequence);
            judge.model.account_set(&user, &set, asked.at, &answer);
        }
        (AskedKind::Devices(change, log_out), ServerFrame::DevicesAnswer(answer)) => {
            let id = asked.conversation.expect("an account is a conversation");
            let sequence = answer.sequence.map(|sequence| sequence.0).filter(|sequence| *sequence > 0);
            judge.model.change_answered(id, &change, sequence);
            judge.model.devices_answered(&user, &log_out, asked.at, &answer, judge.coverage);
        }
        (AskedKind::Presence(watch), ServerFrame::PresenceAnswer(answer)) => {
            presences::answered(&user, &watch.watch, &answer, asked.at, judge.model, judge.coverage);
            client.app.presence.retain(|of, _| !watch.unwatch.contains(of));
            client.app.told_of(&answer.users);
        }
        (AskedKind::AccountList, ServerFrame::AccountAnswer(answer)) => {
            judge.coverage.one(Count::AccountLists);
            let is_current = answer.sequence.0 >= asked.durable || judge.model.rot;
            judge.model.check(is_current, || format!("{user} was told {answer:?}, not #{}", asked.durable));
            judge.model.account_listed(&user, &items_of(&answer), asked.at);
        }
        (AskedKind::Title, ServerFrame::TitleAnswer(answer)) => {
            judge.coverage.one(Count::Changes);
            let id = asked.conversation.expect("a title names its conversation");
            let conversation = judge.model.conversations.entry(id).or_default();
            conversation.durable = conversation.durable.max(answer.sequence.0);
        }
        (
            AskedKind::Message(name, change),
            ServerFrame::EditAnswer(ack)
            | ServerFrame::DeleteAnswer(ack)
            | ServerFrame::ReactAnswer(ack)
            | ServerFrame::PinAnswer(ack)
            | ServerFrame::RetainAnswer(ack),
        ) => {
            judge.coverage.one(Count::MessagesChanged);
            judge.coverage.add(Count::Retained, u64::from(matches!(change, frame::Change::Retain { .. })));
            let id = asked.conversation.expect("a change names its conversation");
            judge.model.message_changed(id, &user, name, &change, ack.sequence.0);
        }
        (AskedKind::Mark(to), ServerFrame::ReadAnswer(marked)) => {
            mark(&user, asked.conversation, asked.certainty, asked.durable, to, true, &marked, judge)
        }
        (AskedKind::Mark(to), ServerFrame::DeliveredAnswer(marked)) => {
            mark(&user, asked.conversation, asked.certainty, asked.durable, to, false, &marked, judge);
        }
        (AskedKind::History(range, limit), ServerFrame::HistoryAnswer(page)) => {
            let id = asked.conversation.expect("history names its conversation");
            judge
                .model
                .check(page.conversation == id, || format!("{user} asked for {id} and got {}", page.conversation));
            history(&user, range, limit, asked.durable, &page, judge);
        }
        (AskedKind::Members, ServerFrame::MembersAnswer(answer)) => {
            let members = answer.members.unwrap_or_default();
            judge.model.check(members.is_sorted_by(|one, two| one.user < two.user), || format!("{user}: {members:?}"));
            judge.model.listed(&user, &members, asked.at, judge.coverage);
        }
        (AskedKind::Pins, ServerFrame::PinsAnswer(answer)) => {
            let id = asked.conversation.expect("pins are of a conversation");
            let hidden = judge.model.hidden_below(id);
            let all = answer.pins.iter().all(|pin| judge.model.may_be_pinned(id, pin.0));
            judge.model.check(all, || format!("{user}: {:?} pinned in {id}, gone before #{hidden}", answer.pins));
        }
        (AskedKind::Reactions(target), ServerFrame::ReactionsAnswer(answer)) => {
            let id = asked.conversation.expect("reactions are to a message of a conversation");
            let (hidden, reactions) = (judge.model.hidden_below(id), answer.reactions);
            let asked_for = reactions.iter().all(|of| judge.model.may_have_reacted(id, target, of));
            judge.model.check(target >= hidden && asked_for, || {
                format!("{user}: {reactions:?} to {id} #{target}, gone before #{hidden}")
            });
        }
        (AskedKind::List, ServerFrame::ConversationsAnswer(list)) => {
            judge.coverage.add(Count::ListsMeanwhile, u64::from(judge.model.fault_lasts));
            for summary in &list.conversations {
                judge.model.check_not_erased(&user, summary.conversation, "a summary");
                if let Some(last) = &summary.last {
                    judge.model.entry(&user, &last.0);
                }
                client.session.open(summary.conversation, summary.epoch, summary.last_sequence);
                // The session may follow it already, from an earlier place, and be about to read what is between.
                let followed = client.session.conversations().find(|known| known.conversation == summary.conversation);
                let last = followed.map_or(summary.last_sequence, |known| known.sequence).0;
                let fresh = View { epoch: summary.epoch, last, open: true };
                let view = client.app.views.entry(summary.conversation).or_insert(fresh);
                if !view.open {
                    // It had left and is back: the session begins anew from here, too.
                    *view = fresh;
                }
            }
            client.app.listing = list.next.map(Some);
        }
        (kind, frame) => judge.model.fail(|| format!("{user}: {kind:?} was answered with {frame:?}")),
    }
}

fn create(id: ConversationId, change: &Change, created: &Created, judge: &mut Judge<'_>) {
    judge.coverage.one(Count::Conversations);
    judge.model.check(created.conversation == id, || format!("{id} was made as {}", created.conversation));
    judge.model.check(created.sequence.0 >= 1, || format!("{id} was made without an entry"));
    // What a repeat names is not looked at, so it proves nothing of members.
    let sequence = (!created.existing).then_some(created.sequence.0);
    judge.model.change_answered(id, change, sequence);
    if !created.existing {
        judge.model.made(id);
        judge.model.check_full(id, &change.add);
    }
    let conversation = judge.model.conversations.entry(id).or_default();
    conversation.durable = conversation.durable.max(created.sequence.0);
}

#[expect(clippy::too_many_arguments, reason = "all of one answer")]
fn mark(
    user: &UserId,
    id: Option<ConversationId>,
    certainty: Certainty,
    durable: u64,
    to: u64,
    read: bool,
    marked: &Marked,
    judge: &mut Judge<'_>,
) {
    judge.coverage.one(Count::Marks);
    let Some(id) = id else { return };
    let moved = if read { marked.read.0 >= to } else { marked.delivered.0 >= to };
    let settled = judge.model.settled(id, user, certainty) == Some(true);
    judge.model.check(moved, || format!("{id}: {user} moved a pointer to #{to} and it is {marked:?}"));
    judge.model.check(marked.read <= marked.delivered, || format!("{id}: {user}'s pointers are {marked:?}"));
    judge.model.marks.push(Marking {
        conversation: id,
        user: user.clone(),
        read: marked.read.0,
        unread: marked.unread,
        durable_before: durable,
        settled,
    });
}

/// A page of history: in order, without a gap, where it was asked for, and up to date.
fn history(user: &UserId, range: Range, limit: u32, durable: u64, page: &HistoryAnswer, judge: &mut Judge<'_>) {
    judge.coverage.one(Count::HistoryPages);
    judge.coverage.add(Count::HistoryMeanwhile, u64::from(judge.model.fault_lasts));
    let (id, first, last) = (page.conversation, page.first.0, page.last.0);
    let places: Vec<u64> =
        page.entries.iter().filter_map(|entry| judge.model.entry(user, &entry.0)).map(|(_, place)| place).collect();
    let same = page.entries.iter().all(|entry| entry.view().is_ok_and(|view| view.conversation.0 == id.0));
    let rot = judge.model.rot;
    let model = &mut *judge.model;
    let show = || format!("{user}: {range:?} of {id}, limit {limit}: first {first}, last {last}, {places:?}");
    model.check(same, || format!("{}: of another conversation", show()));
    model.check(places.len() <= limit as usize, || format!("{}: too many", show()));
    model.check(places.windows(2).all(|pair| pair[1] == pair[0] + 1), || format!("{}: a gap", show()));
    model.check(places.iter().all(|place| (first..=last).contains(place)), || format!("{}: outside", show()));
    model.check(last >= durable || rot, || format!("{}: #{durable} was durable before", show()));
    let hidden = model.hidden_below(id);
    model.check(first >= hidden, || format!("{}: entries before #{hidden} were gone", show()));
    judge.coverage.add(Count::PagesBehindMarks, u64::from(hidden > 0 && first == hidden));
    let (Some(from), Some(to)) = (places.first().copied(), places.last().copied()) else {
        let nothing = match range {
            Range::Latest => false,
            Range::Around(sequence) => sequence < first || sequence > last,
            Range::Before(sequence) => sequence <= first,
            Range::After(sequence) => sequence >= last,
        };
        return model.check(nothing, || format!("{}: empty", show()));
    };
    let place = match range {
        Range::Latest => to == last,
        Range::Before(sequence) => to == last.min(sequence - 1),
        Range::After(sequence) => from == first.max(sequence + 1),
        Range::Around(sequence) => sequence < first || sequence > last || (from..=to).contains(&sequence),
    };
    model.check(place, || format!("{}: elsewhere", show()));
    model.pages.insert((id, user.clone(), first, from, to));
}
