//! The protocol's limits, each with its reason. The server tells some in its answer to `connect`; both sides check them.

/// Longest user or device id. A hyphenated UUID has 36 bytes, most identity providers' subjects fewer than 64.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest text of one message, in bytes of UTF-8: a long page of prose, and small enough that a queue of
/// a hundred messages fits a connection's outbound budget.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Longest reaction, in bytes of UTF-8: the longest emoji sequences in use (families, flags of regions) have up to 28.
pub const REACTION_BYTES_MAX: usize = 32;

/// Most different reactions to one message. What a page says of a message grows with them: a page full of such messages stays below the
/// longest frame.
pub const REACTIONS_PER_MESSAGE_MAX: usize = 64;

/// Most pinned messages of a conversation: they are loaded with its state, and more are no help to anybody who looks for one.
pub const PINS_PER_CONVERSATION_MAX: usize = 100;

/// Most bytes of what an application adds to a message for itself; with the longest text of the worst kind it fits in a frame.
pub const DATA_BYTES_MAX: usize = 16 * 1024;

/// Longest type of that.
pub const CONTENT_TYPE_BYTES_MAX: usize = 100;

/// Most users that a message mentions by name.
pub const MENTIONS_PER_MESSAGE_MAX: usize = 50;

/// A session is told so long before its token is over that it is about to be.
pub const TOKEN_EXPIRING_MS: u64 = 60_000;

/// Most invites of a group at a time.
pub const INVITES_PER_GROUP_MAX: usize = 100;

/// Farthest end of an invite, in seconds from when it is made: a year.
pub const INVITE_EXPIRES_IN_S_MAX: u32 = 366 * 24 * 3600;

/// Longest key of account data: a name and an id of a conversation or a user.
pub const ACCOUNT_KEY_BYTES_MAX: usize = 128;

/// Longest value of account data: a draft of the longest text, and what stands beside it.
pub const ACCOUNT_VALUE_BYTES_MAX: usize = 24 * 1024;

/// Most keys that a user may have set: some for each of the conversations that one looks at.
pub const ACCOUNT_KEYS_MAX: usize = 2_000;

/// Most bytes of keys and values of a user: they are in memory together while one of them is asked for or set.
pub const ACCOUNT_BYTES_MAX: usize = 512 * 1024;

/// Most users whose presence one request may ask for, and stop to ask for.
pub const PRESENCE_PER_REQUEST_MAX: usize = 200;

/// Most conversations that a connection has open, for each log.
pub const VIEWS_MAX: usize = 50;

/// Most users whose presence a connection is told of: what a screen shows, many times over.
pub const PRESENCE_WATCHED_MAX: u32 = 1_000;

/// Longest name of an event, in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 32;

/// Most bytes of what an event says: it is for the moment, and goes to everybody who is there.
pub const EVENT_DATA_BYTES_MAX: usize = 1024;

/// Longest title of a conversation, in bytes of UTF-8: what a phone shows, several times over.
pub const TITLE_BYTES_MAX: usize = 256;

/// Longest description of a group, in bytes of UTF-8: some paragraphs, which are loaded with the conversation.
pub const DESCRIPTION_BYTES_MAX: usize = 2 * 1024;

/// Longest reference to a group's picture, in bytes of UTF-8: a URL, or a name in the application's own store.
pub const PICTURE_BYTES_MAX: usize = 512;

/// Most users that are kept out of a group: they are looked up when somebody is to join.
pub const BANS_PER_GROUP_MAX: usize = 10_000;

/// Longest frame that a client may send. It holds the longest text with every byte escaped in JSON as `\uXXXX`, and the
/// longest list of known conversations in `connect`.
pub const CLIENT_FRAME_BYTES_MAX: usize = 128 * 1024;

/// Longest frame that a server sends: one full page of history or of conversations with every byte of text and titles escaped in JSON as
/// `\uXXXX`.
pub const SERVER_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most users that one `create` or `members` request may name.
pub const MEMBERS_PER_REQUEST_MAX: usize = 100;

/// Most members of a group. Delivery happens in the turn of the commit, so this bounds a turn.
pub const GROUP_MEMBERS_MAX: usize = 200_000;

/// Most conversations that a user may be a member of: it bounds what one `connect` makes the server look at. Each lane of a node counts
/// its own and does not ask the others before it lets somebody join, so a node with several lanes lets in up to this many in each.
pub const CONVERSATIONS_PER_USER_MAX: usize = 5_000;

/// Longest page of any list or of history, in items.
pub const PAGE_ITEMS_MAX: u32 = 200;

/// Page length when a request names none.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;

/// Most bytes of entries in one page of history or of conversations; the page ends before the entry that would exceed it.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Most conversations that `connect` may name in `resume.known`. A client that received from more of them since its last
/// position leaves the rest out and drops what it sees twice.
pub const RESUME_KNOWN_MAX: usize = 1_000;

/// Most missing entries of one conversation that a resume streams; beyond, `too_far` and history.
pub const RESUME_ENTRIES_PER_CONVERSATION_MAX: usize = 200;

/// Most bytes of missing entries that a resume streams over all conversations of a lane; beyond, `too_far` for the rest.
pub const RESUME_BYTES_MAX: usize = 512 * 1024;

/// Longest encoded position in `connect`: twice what this version makes (138 bytes), so that a node which can't read another
/// version's position still takes the frame and answers `reset`.
pub const POSITION_BYTES_MAX: usize = 276;

/// Longest token in `connect`.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Longest name of a device.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

/// Most devices of a user that a server may let in at a time, and that one `devices` request may name. What is kept of so many, and of
/// [`DEVICES_REVOKED_MAX`], fits into one value of account data.
pub const DEVICES_MAX: usize = 50;

/// Most devices of a user that are logged out one by one. To log all out at once makes room.
pub const DEVICES_REVOKED_MAX: usize = 100;

/// Longest name or version of a client in `connect`.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// How often a client pings when it has nothing else to say. Any frame counts.
pub const HEARTBEAT_INTERVAL_MS: u32 = 30_000;

/// Silence after which a session ends: two heartbeats.
pub const SESSION_SILENCE_MS_MAX: u32 = 60_000;

/// Most log lanes of a node: a session's position holds one number for each.
pub const LANES_MAX: usize = 16;

/// Largest number that JSON carries exactly in every language (2^53 − 1). Sequences and times stay below.
pub const JSON_INTEGER_MAX: u64 = (1 << 53) - 1;
