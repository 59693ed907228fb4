//! The engine's door: commands in, outputs out. This file holds the types; [`crate::Engine`] carries them out.
//!
//! An engine is one log lane with all conversations whose partitions belong to it. The caller submits [`Command`]s, each with a
//! token of its own, and polls [`Output`]s. Invariants that callers rely on:
//!
//! - Commands on one conversation take effect in the order in which they were submitted, whatever must be read from disk.
//! - [`Output::Entry`] and [`Output::Receipt`] come in commit order, after their record is durable; the answer to the command that
//!   made the record comes directly before its first such output.
//! - [`Done::CaughtUp`] takes a place in that order: everything up to its position was output before or is part of it,
//!   everything after comes later as outputs.
//! - Reads see durable entries only.
//! - Every command is answered exactly once. One that stores something and finds a queue full, the disk full or the log failed is refused
//!   (`overloaded`, `storage_full`, `storage_failed`) before anything is changed; a retry of what is stored is answered even then.

use std::{rc::Rc, sync::Arc};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        AccountItem, Change, Invite, InviteCode, JoinAnswer, MakeInvite, MessageState, Reactor, Role, RoleOf,
        SetAccount, Settings, SettingsChange, States,
    },
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
};

/// The caller's name for a command; its answer repeats it. The engine never looks into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a user asks of conversations. Every command is checked against the membership of the user who asks; for a stranger a
/// conversation that exists and one that does not are the same `not_found`.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes the direct conversation of two users, or finds it.
    CreateDirect {
        /// Who asks, and one member.
        user: UserId,
        /// The other member. Another user than `user`.
        peer: UserId,
    },
    /// Makes a group, or finds the one made under the same key (the title and members of a repeat are not looked at).
    CreateGroup {
        /// Who asks, and the first member.
        user: UserId,
        /// The creator's name for the request.
        key: ClientMessageId,
        /// May be empty.
        title: String,
        /// The other members; repeats and the creator are ignored.
        members: Vec<UserId>,
    },
    /// Appends a message. The sender's read pointer moves to it.
    Send {
        /// The sender.
        user: UserId,
        /// Where to.
        conversation: ConversationId,
        /// The sender's name for the message.
        client_message_id: ClientMessageId,
        /// A validated `Content` archive, stored as it is.
        body: Vec<u8>,
    },
    /// Adds members to a group; those who are members already are left out. An empty rest appends nothing.
    AddMembers {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// Whom.
        members: Vec<UserId>,
    },
    /// Removes members from a group; whoever is not a member is left out. Naming oneself is leaving.
    RemoveMembers {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// Whom.
        members: Vec<UserId>,
    },
    /// Gives a group a new title.
    SetTitle {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// The new title; may be empty.
        title: String,
    },
    /// Gives members of a group other roles; those who are no members are left out.
    SetRoles {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// In order of users, each once.
        roles: Vec<RoleOf>,
    },
    /// Tells how a group is, or changes it.
    Settings {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// What is to be another, if anything.
        set: Option<SettingsChange>,
    },
    /// Keeps users out of a group, members among them are removed; or lets them come again.
    Ban {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// Whom.
        users: Vec<UserId>,
        /// Whether they are kept out.
        on: bool,
    },
    /// A page of a group's owner, admins and readers, ordered by user.
    Roles {
        /// Who asks.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
        /// Only users after this one.
        after: Option<UserId>,
        /// At most so many.
        limit: u32,
    },
    /// A page of who is kept out of a group, ordered by user.
    Bans {
        /// Who asks.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
        /// Only users after this one.
        after: Option<UserId>,
        /// At most so many.
        limit: u32,
    },
    /// Makes an invite to a group.
    MakeInvite {
        /// Who asks.
        user: UserId,
        /// To what.
        conversation: ConversationId,
        /// For how long, and how many.
        make: MakeInvite,
    },
    /// From now on nobody joins by these.
    RevokeInvites {
        /// Who asks.
        user: UserId,
        /// To what.
        conversation: ConversationId,
        /// In order, each once.
        invites: Vec<Sequence>,
    },
    /// A page of a group's invites, in the order in which they were made.
    Invites {
        /// Who asks.
        user: UserId,
        /// To what.
        conversation: ConversationId,
        /// Only invites after this one.
        after: Option<Sequence>,
        /// At most so many.
        limit: u32,
    },
    /// Becomes a member by an invite.
    Join {
        /// Who asks.
        user: UserId,
        /// The invite's.
        code: InviteCode,
        /// Only look at what it is to.
        look: bool,
    },
    /// Sets what is kept in the user's account under a key, or takes it away.
    SetAccount {
        /// Whose account.
        user: UserId,
        /// What.
        set: SetAccount,
    },
    /// A page of what is kept in the user's account, by key.
    Account {
        /// Whose account.
        user: UserId,
        /// Only keys after this one.
        after: Option<String>,
        /// At most so many, and at most `PAGE_BYTES_MAX` of keys and values.
        limit: u32,
    },
    /// Moves the user's pointers forward; a pointer never moves back, and one beyond the end is `invalid`. `read` moves
    /// `delivered` with it.
    Mark {
        /// Whose pointers.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// Read up to here, if given.
        read: Option<Sequence>,
        /// Delivered up to here, if given.
        delivered: Option<Sequence>,
    },
    /// Appends a change of a message, or a retention mark.
    Change {
        /// Who does it.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// The sender's name for the change.
        client_message_id: ClientMessageId,
        /// What is done. Its content and text are validated.
        change: Change,
    },
    /// A page of who reacted to a message, ordered by user.
    Reactions {
        /// Who asks.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// To which message.
        target: Sequence,
        /// Only users after this one.
        after: Option<UserId>,
        /// At most so many users.
        limit: u32,
    },
    /// The pinned messages.
    Pins {
        /// Who asks.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
    },
    /// Tells the other members of something that is never stored.
    Tell {
        /// Who tells.
        user: UserId,
        /// Where.
        conversation: ConversationId,
        /// What it is called.
        event: String,
        /// What it says, as the client wrote it.
        data: Option<String>,
    },
    /// A page of entries.
    History {
        /// Who asks.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
        /// Which entries.
        range: HistoryRange,
        /// At most so many, and at most `PAGE_BYTES_MAX` of bytes.
        limit: u32,
    },
    /// A page of a conversation's members, ordered by user.
    Members {
        /// Who asks.
        user: UserId,
        /// Of what.
        conversation: ConversationId,
        /// Only members after this one.
        after: Option<UserId>,
        /// At most so many.
        limit: u32,
    },
    /// A page of the user's conversations in this lane, ordered by id.
    Conversations {
        /// Whose.
        user: UserId,
        /// Only conversations after this one.
        after: Option<ConversationId>,
        /// At most so many, and at most `PAGE_BYTES_MAX` of last entries.
        limit: u32,
    },
    /// All that a user is missing since a position, and from then on nothing is missed: see [`Done::CaughtUp`].
    CatchUp {
        /// Whose.
        user: UserId,
        /// What the client was given, by this lane; `None` for a client that starts afresh and is missing nothing. One beyond the
        /// lane's position is `invalid`: the client's store is not this one, and it has to forget what it has.
        since: Option<LanePosition>,
        /// Conversations from which the client has more than `since` says: (conversation, epoch, last contiguous sequence).
        known: Vec<(ConversationId, Epoch, Sequence)>,
    },
}

impl Command {
    /// Who asks.
    pub(crate) const fn user(&self) -> &UserId {
        match self {
            Self::CreateDirect { user, .. }
            | Self::CreateGroup { user, .. }
            | Self::Send { user, .. }
            | Self::AddMembers { user, .. }
            | Self::RemoveMembers { user, .. }
            | Self::SetTitle { user, .. }
            | Self::SetRoles { user, .. }
            | Self::Settings { user, .. }
            | Self::Ban { user, .. }
            | Self::Roles { user, .. }
            | Self::Bans { user, .. }
            | Self::MakeInvite { user, .. }
            | Self::RevokeInvites { user, .. }
            | Self::Invites { user, .. }
            | Self::Join { user, .. }
            | Self::SetAccount { user, .. }
            | Self::Account { user, .. }
            | Self::Mark { user, .. }
            | Self::Change { user, .. }
            | Self::Reactions { user, .. }
            | Self::Pins { user, .. }
            | Self::Tell { user, .. }
            | Self::History { user, .. }
            | Self::Members { user, .. }
            | Self::Conversations { user, .. }
            | Self::CatchUp { user, .. } => user,
        }
    }

    /// Whether it changes nothing.
    pub(crate) const fn only_reads(&self) -> bool {
        match self {
            Self::Reactions { .. }
            | Self::Pins { .. }
            | Self::Tell { .. }
            | Self::History { .. }
            | Self::Members { .. }
            | Self::Roles { .. }
            | Self::Bans { .. }
            | Self::Invites { .. }
            | Self::Account { .. }
            | Self::Join { look: true, .. }
            | Self::Settings { set: None, .. }
            | Self::Conversations { .. }
            | Self::CatchUp { .. } => true,
            Self::CreateDirect { .. }
            | Self::CreateGroup { .. }
            | Self::Send { .. }
            | Self::AddMembers { .. }
            | Self::RemoveMembers { .. }
            | Self::SetTitle { .. }
            | Self::SetRoles { .. }
            | Self::Settings { .. }
            | Self::Ban { .. }
            | Self::MakeInvite { .. }
            | Self::RevokeInvites { .. }
            | Self::Join { .. }
            | Self::SetAccount { .. }
            | Self::Mark { .. }
            | Self::Change { .. } => false,
        }
    }
}

/// Which entries a page of history holds. Pages are always in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    /// The last ones.
    Latest,
    /// The last ones before a sequence, without it.
    Before(Sequence),
    /// The first ones after a sequence, without it.
    After(Sequence),
    /// Half of the page up to and with a sequence, the other half after it.
    Around(Sequence),
}

/// What comes out of an engine.
#[derive(Debug, Clone)]
pub enum Output {
    /// The answer to a command. A command that changes something is answered when the change is durable.
    Answer {
        /// The command's token.
        token: Token,
        /// What became of it.
        result: Result<Done, Refusal>,
    },
    /// A durable entry, for delivery.
    Entry {
        /// Where.
        conversation: ConversationId,
        /// Its sequence.
        sequence: Sequence,
        /// The `Entry` archive exactly as stored: the payload of a `message` frame.
        archive: Arc<[u8]>,
        /// Who may see it, with those whom this entry adds; whom it removes is in `removed`.
        recipients: Rc<[UserId]>,
        /// Those whom this entry removed: they are told that they left, not given the entry.
        removed: Rc<[UserId]>,
        /// Those of the recipients who may see only a part of it, and that part.
        partly: Option<Box<Partly>>,
    },
    /// A member's pointers moved, durably, by a [`Command::Mark`]. A message moves its sender's pointers too; that is told by the
    /// message alone.
    Receipt {
        /// Where.
        conversation: ConversationId,
        /// Whose.
        user: UserId,
        /// Read up to here.
        read: Sequence,
        /// Delivered up to here.
        delivered: Sequence,
        /// The conversation's members.
        recipients: Rc<[UserId]>,
    },
    /// Somebody tells of something that is never stored; at once, by the members as they are durable.
    Told {
        /// Where.
        conversation: ConversationId,
        /// Who tells.
        user: UserId,
        /// What it is called.
        event: String,
        /// What it says.
        data: Option<String>,
        /// The conversation's members, with who tells.
        recipients: Rc<[UserId]>,
    },
    /// The lane's durable position; emitted after a batch's outputs.
    Committed {
        /// Everything up to here was output.
        position: LanePosition,
    },
    /// The lane's first log failure: nothing is stored any more, reads go on. Emitted once.
    Fenced {
        /// The operating system's words, with the file.
        text: String,
    },
}

/// A part of an entry for some of its recipients: of an edit of a message that they do not see, all but what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partly {
    /// Whom it is for instead of the whole.
    pub recipients: Rc<[UserId]>,
    /// The part, an `Entry` archive.
    pub archive: Arc<[u8]>,
}

/// A command's success.
#[derive(Debug, Clone)]
pub enum Done {
    /// To the two `Create…`.
    Created {
        /// Its id.
        conversation: ConversationId,
        /// Its log's incarnation.
        epoch: Epoch,
        /// Its last sequence.
        sequence: Sequence,
        /// Whether it existed before.
        existing: bool,
    },
    /// To `Send` and `Change`.
    Sent {
        /// The entry's sequence.
        sequence: Sequence,
        /// Its ordinal.
        ordinal: Ordinal,
        /// The server's time of the first send.
        time: TimestampMs,
        /// Whether the same was sent before.
        duplicate: bool,
    },
    /// To `AddMembers`, `RemoveMembers`, `SetTitle`, `SetRoles` and `Ban`: the entry's sequence, or the last one if nothing changed.
    Changed {
        /// The sequence.
        sequence: Sequence,
    },
    /// To `Settings`.
    Settings {
        /// The change's sequence, or the last one.
        sequence: Sequence,
        /// As they are now.
        settings: Box<Settings>,
        /// The asking user's own role.
        role: Role,
    },
    /// To `Roles`.
    Roles {
        /// In order of user.
        roles: Vec<RoleOf>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `Bans`.
    Bans {
        /// In order.
        users: Vec<UserId>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `MakeInvite`.
    Invited {
        /// The change's.
        sequence: Sequence,
        /// What to give those who are invited: nothing that is stored tells it again.
        code: InviteCode,
    },
    /// To `Invites`.
    Invites {
        /// In order.
        invites: Vec<Invite>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `Join`.
    Join(Box<JoinAnswer>),
    /// To `SetAccount`.
    AccountSet {
        /// The account's incarnation.
        epoch: Epoch,
        /// The change's, or of what had set the same before; the last one if nothing was set.
        sequence: Sequence,
        /// The entry that had set the key before, if there was a change and one.
        replaced: Option<Sequence>,
    },
    /// To `Account`.
    AccountItems {
        /// The account's incarnation.
        epoch: Epoch,
        /// The last change that is known here.
        sequence: Sequence,
        /// In order of keys.
        items: Vec<AccountItem>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `Mark`: where the pointers are now.
    Marked {
        /// Read up to here.
        read: Sequence,
        /// Delivered up to here.
        delivered: Sequence,
        /// Messages after the read pointer.
        unread: u64,
    },
    /// To `Reactions`.
    Reactions {
        /// In order of user.
        reactions: Vec<Reactor>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `Pins`: those that the user sees, in the order in which they were pinned.
    Pins(Vec<Sequence>),
    /// To `Tell`: it is on its way.
    Told,
    /// To `History`.
    History(Box<HistoryPage>),
    /// To `Members`.
    Members {
        /// In order of user.
        members: Vec<Member>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `Conversations`.
    Conversations {
        /// In order of id.
        conversations: Vec<Summary>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// To `CatchUp`.
    CaughtUp(Box<CaughtUp>),
}

/// A page of history. Where an entry is damaged the page ends before it; if that leaves nothing, the answer is `damaged`.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The first sequence that the asking user may see; pages never reach below.
    pub first: Sequence,
    /// The conversation's last durable sequence.
    pub last: Sequence,
    /// `Entry` archives in ascending order, without a gap. A message that was edited says what it says now.
    pub entries: Vec<Arc<[u8]>>,
    /// What became of those messages that something happened to.
    pub states: Vec<MessageState>,
    /// Up to which entry `states` and `entries` have everything in them.
    pub as_of: Sequence,
}

/// A member of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What the member may do.
    pub role: Role,
    /// Sees entries from here on: the entry that added the member.
    pub visible_from: Sequence,
    /// Has read up to here; one before `visible_from` if nothing yet.
    pub read: Sequence,
    /// Was delivered up to here.
    pub delivered: Sequence,
}

/// A conversation as one member sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// The other member of a direct conversation; `None` for a group.
    pub peer: Option<UserId>,
    /// Empty for a direct conversation.
    pub title: String,
    /// A reference to its picture; may be empty.
    pub picture: String,
    /// The asking user's role.
    pub role: Role,
    /// Last durable sequence.
    pub last_sequence: Sequence,
    /// When the last entry was stored.
    pub last_time: TimestampMs,
    /// How many members.
    pub members: u32,
    /// The asking user's read pointer.
    pub read: Sequence,
    /// Messages after it.
    pub unread: u64,
    /// The last entry's archive, if the user may see it.
    pub last_entry: Option<Arc<[u8]>>,
}

/// What a user had missed.
#[derive(Debug, Clone)]
pub struct CaughtUp {
    /// This answer and earlier outputs together hold everything up to here.
    pub position: LanePosition,
    /// Missing entries, conversation by conversation, each in ascending order.
    pub entries: Vec<Arc<[u8]>>,
    /// What became of those messages among them that something happened to, by conversation.
    pub states: Vec<States>,
    /// Conversations of which too much is missing: nothing of theirs is in `entries`.
    pub too_far: Vec<TooFar>,
    /// The user's pointers as they are now, read and delivered, of every conversation in which they may have moved since.
    pub pointers: Vec<(ConversationId, Sequence, Sequence)>,
    /// Conversations that the user was removed from since, and at which sequence.
    pub left: Vec<(ConversationId, Sequence)>,
}

/// A conversation of which a resume does not stream what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFar {
    /// Which.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// History can be read from here on.
    pub first: Sequence,
    /// Up to here.
    pub last: Sequence,
}

/// A command's refusal. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The protocol's code.
    pub code: ErrorCode,
    /// What exactly, for a developer; never tells what the user may not know.
    pub text: String,
}
