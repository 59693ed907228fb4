// Made of docs/asyncapi.yaml by `node tools/frames.mjs`, which also has `--check`. Change the document, not this file.

/**
 * The client's number for a request, which the answer repeats. One that is still unanswered should not be used
 * again.
 */
export type RequestId = number;

/** A user, named by the application. It is the `sub` of the user's token. */
export type UserId = string;

/** One of a user's devices. The client makes the id once and keeps it, unless the token names the device. */
export type DeviceId = string;

/** A conversation, as a hyphenated UUID. */
export type ConversationId = string;

/**
 * The client's own name for a message or a change, as a hyphenated UUID, best of version 7. It is made once and
 * kept through every retry.
 */
export type ClientMessageId = string;

/** An entry's place in its conversation. It counts 1, 2, 3 and so on without a gap. */
export type Sequence = number;

/** A place in a conversation's entries. 0 stands for before the first. */
export type SequenceOrZero = number;

/** How many messages, not other entries, a conversation has up to and with an entry. */
export type Ordinal = number;

/** The incarnation of a conversation's log. If it changes, what a client has of the conversation is void. */
export type Epoch = number;

/** Milliseconds since 1970 by the server's clock. */
export type TimeMs = number;

/** A length of time in milliseconds. */
export type DurationMs = number;

/** How many there are. */
export type Count = number;

/** How many items a page has at most, 50 if absent. More than 200 is cut to 200. */
export type PageLimit = number;

/** A JWT, at most 8192 bytes. */
export type Token = string;

/**
 * Base64url text that stands for everything that was sent to the client so far. It is the server's alone: store
 * it and give it back, do not look into it.
 */
export type Position = string;

/** What to give to those who are invited, 43 characters of base64url. */
export type InviteCode = string;

/** Short text, mostly one emoji, 1 to 32 bytes of UTF-8. */
export type Reaction = string;

/** An event's name, 1 to 32 visible ASCII characters, such as `typing`. */
export type EventName = string;

/** A group's title, at most 256 bytes of UTF-8. It may be empty. */
export type Title = string;

/** What a group is about, at most 2048 bytes of UTF-8. It may be empty. */
export type Description = string;

/**
 * A reference to a group's picture that the application understands, at most 512 bytes of UTF-8. It may be
 * empty.
 */
export type Picture = string;

/**
 * What a member may do.
 *
 * - `owner`: everything. There is one, first the creator.
 * - `admin`: everything but what is about the owner or makes admins.
 * - `member`: what the group's settings leave to members.
 * - `reader`: reads, and leaves.
 */
export type Role = "owner" | "admin" | "member" | "reader";

/** Who may do something in a group: `members` and admins, or `admins` alone. The owner always may, readers never. */
export type Who = "members" | "admins";

/** What those who join see: entries from the one that adds them (`joining`), or from the `start`. */
export type HistoryFrom = "joining" | "start";

/**
 * What becomes of the resume that was asked for.
 *
 * - `fresh`: none was asked for.
 * - `resuming`: what is missing follows.
 * - `reset`: the position is of no use here. Forget all conversations and list them again.
 */
export type ResumeOutcome = "fresh" | "resuming" | "reset";

/**
 * What went wrong. Codes may be added: judge one that is not known by `temporary`.
 *
 * - `malformed`: The frame is not JSON or not a valid archive, or a field has the wrong type.
 * - `unknown_frame`: The frame's kind is not known here.
 * - `not_connected`: A request came before `connect`.
 * - `already_connected`: A second `connect` on one connection.
 * - `unauthenticated`: The token is missing, not signed by a known key, or for another audience, user or device.
 * - `token_expired`: The token was good once.
 * - `not_found`: No such conversation, or none that you may see.
 * - `forbidden`: You see it but may not do this to it.
 * - `conflict`: The same `client_message_id` came with another text, or for something else; or a key of account
 *   data was set by another entry than `if_sequence` says.
 * - `invalid`: A value makes no sense.
 * - `too_large`: A frame, text, title or list is beyond its limit.
 * - `limit_reached`: A number of things is at its limit.
 * - `rate_limited`: More requests than this connection may make.
 * - `storage_full`: The server's disk is full; nothing was stored.
 * - `storage_failed`: The server's log failed; nothing more is stored until it restarts.
 * - `damaged`: Stored bytes of this range are damaged, or those that say who may see the conversation.
 * - `overloaded`: The server has more to do than it can queue.
 * - `shutting_down`: The server is going away.
 * - `no_message`: No such message in the conversation, or none that you may see.
 * - `deleted`: The message was deleted: it does not change any more.
 * - `too_old`: The `client_message_id` is older than ids are remembered: whether the message was stored the
 *   server does not know any more.
 * - `revoked`: The device was logged out after the token was issued.
 */
export type ErrorCode =
  | "malformed"
  | "unknown_frame"
  | "not_connected"
  | "already_connected"
  | "unauthenticated"
  | "token_expired"
  | "not_found"
  | "forbidden"
  | "conflict"
  | "invalid"
  | "too_large"
  | "limit_reached"
  | "rate_limited"
  | "storage_full"
  | "storage_failed"
  | "damaged"
  | "overloaded"
  | "shutting_down"
  | "no_message"
  | "deleted"
  | "too_old"
  | "revoked";

/** A key of account data, 1 to 128 visible ASCII characters. */
export type AccountKey = string;

/** How a device is called, at most 64 bytes of UTF-8 without control characters. */
export type DeviceName = string;

/** A new entry of a conversation that one is a member of. */
export type MessagePush = Entry;

/**
 * An entry of a large conversation that is not open: a message that means one. It is out of order; what comes
 * before it is not there.
 */
export type MentionedPush = Entry;

/**
 * An entry of a conversation, told apart by `kind`. Kinds may be added: show one that is not known as nothing,
 * but count its sequence.
 */
export type Entry =
  | CreatedEntry
  | MessageEntry
  | MembershipEntry
  | TitleEntry
  | RolesEntry
  | SettingsEntry
  | InviteEntry
  | JoinedEntry
  | BansEntry
  | AccountDataEntry
  | EditEntry
  | DeletionEntry
  | ReactionEntry
  | PinEntry
  | RetentionEntry;

/** The bodies of requests by kind. */
export interface Requests {
  /** Who is there, and what the client has already. */
  connect: ConnectRequest;
  /** Says that the client is there, and fetches a position. */
  ping: PingRequest;
  /** Gives the session another token. */
  refresh: RefreshRequest;
  /** Makes a conversation, or finds the same one again. */
  create: CreateRequest;
  /** Adds, removes or lists members. */
  members: MembersRequest;
  /** Gives members other roles, or lists who has one. */
  roles: RolesRequest;
  /** Tells how a group is, and changes it. */
  settings: SettingsRequest;
  /** Keeps users out of a group, lets them come again, or lists them. */
  bans: BansRequest;
  /** Makes an invite to a group, revokes some, or lists them. */
  invites: InvitesRequest;
  /** Makes one a member by an invite, or tells what it is to. */
  join: JoinRequest;
  /** Sets what is kept for the user under a key, or lists it. */
  account: AccountRequest;
  /** Asks whether users are there, and to be told. */
  presence: PresenceRequest;
  /** Says that a conversation is looked at, or is not any more. */
  view: ViewRequest;
  /** Lists one's own devices, names this one, or logs some out. */
  devices: DevicesRequest;
  /** Lists one's own conversations. */
  conversations: ConversationsRequest;
  /** Gives a group another title. */
  title: TitleRequest;
  /** Sends a message. */
  send: SendRequest;
  /** Gives an own message another content. */
  edit: EditRequest;
  /** Takes away what a message said. */
  delete: DeleteRequest;
  /** Adds or removes a reaction to a message. */
  react: ReactRequest;
  /** Pins a message, or takes the pin off. */
  pin: PinRequest;
  /** Takes away all entries before one. */
  retain: RetainRequest;
  /** Lists who reacted to a message. */
  reactions: ReactionsRequest;
  /** Lists the pinned messages. */
  pins: PinsRequest;
  /** Asks for a page of entries. */
  history: HistoryRequest;
  /** Moves the pointer of what the user has read. */
  read: ReadRequest;
  /** Moves the pointer of what reached a device. */
  delivered: DeliveredRequest;
  /** Tells those who are online of something for the moment. */
  event: EventRequest;
}

/** The bodies of answers by kind, which is the request's. */
export interface Answers {
  /** The session stands. */
  connect: ConnectAnswer;
  /** The server is there. */
  ping: PingAnswer;
  /** The token was accepted. */
  refresh: RefreshAnswer;
  /** The conversation is there. */
  create: CreateAnswer;
  /** The members were changed, or a page of them. */
  members: MembersAnswer;
  /** The roles were changed, or a page of them. */
  roles: RolesAnswer;
  /** How the group is now. */
  settings: SettingsAnswer;
  /** Who is kept out was changed, or a page of them. */
  bans: BansAnswer;
  /** The invites were changed, or a page of them. */
  invites: InvitesAnswer;
  /** What the invite is to. */
  join: JoinAnswer;
  /** The key was set, or a page of what is set. */
  account: AccountAnswer;
  /** Whether those who are watched from now on are there. */
  presence: PresenceAnswer;
  /** Where a conversation that is open now ends. */
  view: ViewAnswer;
  /** One's own devices, or what was changed of them. */
  devices: DevicesAnswer;
  /** A page of one's own conversations. */
  conversations: ConversationsAnswer;
  /** The group has the title. */
  title: TitleAnswer;
  /** The message is on stable storage. */
  send: SendAnswer;
  /** The edit is on stable storage. */
  edit: EditAnswer;
  /** The deletion is on stable storage. */
  delete: DeleteAnswer;
  /** The reaction is on stable storage. */
  react: ReactAnswer;
  /** The change is on stable storage. */
  pin: PinAnswer;
  /** The change is on stable storage. */
  retain: RetainAnswer;
  /** A page of those who reacted. */
  reactions: ReactionsAnswer;
  /** The pinned messages. */
  pins: PinsAnswer;
  /** A page of entries. */
  history: HistoryAnswer;
  /** Where the user's pointers are now. */
  read: ReadAnswer;
  /** Where the user's pointers are now. */
  delivered: DeliveredAnswer;
  /** The event is on its way. */
  event: EventAnswer;
}

/** The bodies of pushes by kind. Among them is `error`, which also answers requests. */
export interface Pushes {
  /** A new entry of a conversation. */
  message: MessagePush;
  /** A member's pointers moved. */
  receipt: ReceiptPush;
  /** Another member's event. */
  happened: HappenedPush;
  /** The session's token is about to be over. */
  expiring: ExpiringPush;
  /** Users whom one watches have come or gone. */
  present: PresentPush;
  /** A large conversation that is not open has gone on. */
  advanced: AdvancedPush;
  /** A message that means one, in a large conversation that is not open. */
  mentioned: MentionedPush;
  /** One is no longer a member. */
  left: LeftPush;
  /** More is missing than a resume streams. */
  too_far: TooFarPush;
  /** All that was missing has been sent. */
  caught_up: CaughtUpPush;
  /** What became of messages that the server gives. */
  states: StatesPush;
  /** The last frame before the server closes. */
  goodbye: GoodbyePush;
  /** A request failed, or the connection did. */
  error: ErrorFrame;
}

/** A message of some conversation. */
export interface Place {
  /** The conversation that it stands in. */
  conversation: ConversationId;
  /** Its sequence there. */
  sequence: Sequence;
}

/**
 * What a message says. It has a text, or data of the application's own as `json` or as `data`, or both a text
 * and data.
 */
export interface Content {
  /** The text, 1 to 16384 bytes of UTF-8. It is optional beside `json`, `data` or `forwarded`. */
  text?: string;
  /** A JSON value that the application understands, at most 16384 bytes. `null` is the same as none. */
  json?: unknown;
  /**
   * Bytes that the application understands, at most 16384, in base64 with padding. Their type is to be in
   * `content_type`.
   */
  data?: string;
  /**
   * The type of `json` or `data`, at most 100 bytes of visible ASCII with a slash. With `json` it is
   * `application/json`, which is meant if it is absent from a request, or one that ends with `+json`.
   */
  content_type?: string;
  /** Users who are meant, at most 50. */
  mentions?: UserId[];
  /** Whether all members are meant. It is absent if they are not. */
  everybody?: boolean;
}

/** Which other messages a message refers to. */
export interface References {
  /** The sequence of a message that it answers. */
  reply_to?: Sequence;
  /** The sequence of the message that began the thread that it is in. That one is in no thread itself. */
  thread?: Sequence;
  /**
   * Where it stood first. The server does not look whether that is so, and who reads it may not see what stands
   * there.
   */
  forwarded?: Place;
}

/** A message or a change of one is on stable storage. */
export interface Stored {
  /** The place of its entry in the conversation. */
  sequence: Sequence;
  /** How many messages the conversation has up to and with it. */
  ordinal: Ordinal;
  /** When the server took it, the first time. */
  time_ms: TimeMs;
  /** Whether it was stored before, by an earlier try. It is absent if it was not. */
  duplicate?: boolean;
}

/** How far the user is in a conversation. */
export interface Pointers {
  /** Everything up to this sequence was read by the user. */
  read: SequenceOrZero;
  /** Everything up to this sequence reached a device of the user. */
  delivered: SequenceOrZero;
  /** How many messages come after `read`. */
  unread: Count;
}

/** Which page of users, in order of their ids. */
export interface UsersPage {
  /** Only users after this one. */
  after?: UserId;
  /** How many users at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** A member and the member's role. */
export interface RoleOf {
  /** Who has the role. */
  user: UserId;
  /** What the member may do. */
  role: Role;
}

/** How a group is. */
export interface Settings {
  /** What the group is about, empty at first. */
  description: Description;
  /** A reference to the group's picture, empty at first. */
  picture: Picture;
  /** What those who join from now on see, `joining` at first. */
  history: HistoryFrom;
  /** Who may send and edit messages, `members` at first. */
  send: Who;
  /** Who may add members, `members` at first. */
  add: Who;
  /** Who may remove members and keep users out, `admins` at first. Nobody removes who has a higher role. */
  remove: Who;
  /** Who may change title, description and picture, `members` at first. */
  info: Who;
  /** Who may pin messages, `members` at first. */
  pin: Who;
  /** Who may mean all members by a message, `admins` at first. */
  everybody: Who;
}

/** What of a group's settings is to be another. What is absent stays. */
export interface SettingsChange {
  /** What the group is about. */
  description?: Description;
  /** A reference to the group's picture. */
  picture?: Picture;
  /** What those who join from now on see. */
  history?: HistoryFrom;
  /** Who may send and edit messages. */
  send?: Who;
  /** Who may add members. */
  add?: Who;
  /** Who may remove members and keep users out. */
  remove?: Who;
  /** Who may change title, description and picture. */
  info?: Who;
  /** Who may pin messages. */
  pin?: Who;
  /** Who may mean all members by a message. */
  everybody?: Who;
}

/** Who is there, and what the client has already. It is the first frame of a connection. */
export interface ConnectRequest {
  /** A JWT, at most 8192 bytes. It may come with the upgrade instead. */
  token?: Token;
  /** The device. It may come in the token instead. */
  device?: DeviceId;
  /** The client's name and version, for the operator's eyes. */
  client?: ClientInfo;
  /** What the client has. It is left out by a client that has nothing. */
  resume?: Resume;
}

/** A client's name and version. */
export interface ClientInfo {
  /** The client's name, at most 64 bytes of UTF-8. */
  name: string;
  /** The client's version, at most 64 bytes of UTF-8. */
  version?: string;
}

/** What a client has when it comes back. */
export interface Resume {
  /** The last position that `caught_up` or `ping` gave. */
  position: Position;
  /**
   * Conversations of which entries came after that position, at most 1000, so that they are not sent again. Those
   * that are left out come twice.
   */
  known?: Known[];
}

/** How much of one conversation a client has. */
export interface Known {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log that the client knows. */
  epoch: Epoch;
  /** The client has everything up to here. */
  sequence: SequenceOrZero;
}

/** The session stands. */
export interface ConnectAnswer {
  /** Who this session is. */
  user: UserId;
  /** The device of this session. */
  device: DeviceId;
  /** The session's name in the server's logs. */
  session: string;
  /** The server's clock. */
  time_ms: TimeMs;
  /**
   * A client that has sent nothing for so long sends a `ping`. After two such intervals without a frame the server
   * closes the connection.
   */
  heartbeat_interval_ms: DurationMs;
  /** What becomes of the resume that was asked for. */
  resume: ResumeOutcome;
  /** What this server accepts. */
  limits: ServerLimits;
}

/** What a server accepts. */
export interface ServerLimits {
  /** Most bytes of a client's frame. */
  frame_bytes_max: Count;
  /** Most bytes of a message's text. */
  text_bytes_max: Count;
  /** Most users in one `create` or `members`. */
  members_per_request_max: Count;
  /** Most members of a group. */
  group_members_max: Count;
  /** Most items of a page. */
  page_items_max: Count;
  /** How many requests a second a connection may make for long. */
  requests_per_second_max: Count;
}

/** Says that the client is there, and fetches a position. */
export interface PingRequest {}

/** The server is there. */
export interface PingAnswer {
  /** The server's clock. */
  time_ms: TimeMs;
  /** Stands for everything that was sent before this frame. It is absent until `caught_up`. */
  position?: Position;
}

/** Gives the session another token before the one that it has is over. */
export interface RefreshRequest {
  /** A JWT for the session's user, and for its device if it names one, at most 8192 bytes. */
  token: Token;
}

/** The token was accepted. */
export interface RefreshAnswer {
  /** When the session ends now. Of all its tokens the latest end counts. It is absent where tokens do not end. */
  expires_ms?: TimeMs;
}

/** Makes a conversation, or finds the same one again. Exactly one of `direct` and `group` is there. */
export interface CreateRequest {
  /** The other user of a direct conversation. */
  direct?: UserId;
  /** A group. */
  group?: NewGroup;
}

/** A group that is to be made. */
export interface NewGroup {
  /** A UUID that the client makes and keeps through retries. A repeat finds the group, whatever else it says. */
  key: string;
  /** The title, at most 256 bytes of UTF-8. It may be empty. */
  title?: Title;
  /** The other members, at most 100. The creator is one anyway. */
  members?: UserId[];
}

/** The conversation is there. */
export interface CreateAnswer {
  /** Its id. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The sequence of its last entry. */
  sequence: Sequence;
  /** Whether it was there before. */
  existing: boolean;
}

/**
 * Adds, removes or lists members. Exactly one of `add`, `remove` and `list` is there. Removing oneself is
 * leaving.
 */
export interface MembersRequest {
  /** The conversation. It is a group if members are to be added or removed. */
  conversation: ConversationId;
  /** Users who are to be members, 1 to 100. Those who are members already are passed over. */
  add?: UserId[];
  /** Members who are to be none, 1 to 100. Those who are not members are passed over. */
  remove?: UserId[];
  /** Which page of members, in order of their ids. */
  list?: UsersPage;
}

/** The members were changed, or a page of them. */
export interface MembersAnswer {
  /** Answers `add` and `remove` with the sequence of the change, or with the last one if nothing changed. */
  sequence?: Sequence;
  /** Answers `list` with the page. */
  members?: Member[];
  /** Answers `list`. Give it as `after` for the next page. It is absent on the last. */
  next?: UserId;
}

/** A member of a conversation. */
export interface Member {
  /** Who it is. */
  user: UserId;
  /** What the member may do. */
  role: Role;
  /** Everything up to this sequence was read by the member. */
  read: SequenceOrZero;
  /** Everything up to this sequence reached a device of the member. */
  delivered: SequenceOrZero;
}

/** Gives members of a group other roles, or lists who has one. Exactly one of `set` and `list` is there. */
export interface RolesRequest {
  /** The group. */
  conversation: ConversationId;
  /**
   * Roles from now on, of 1 to 100 users, each named once. Who is no member or has the role already is passed
   * over.
   */
  set?: RoleOf[];
  /** Which page of those who are not plain members, in order of their ids. */
  list?: UsersPage;
}

/** The roles were changed, or a page of them. */
export interface RolesAnswer {
  /** Answers `set` with the sequence of the change, or with the last one if nothing changed. */
  sequence?: Sequence;
  /** Answers `list` with the page. Plain members are not in it. */
  roles?: RoleOf[];
  /** Answers `list`. Give it as `after` for the next page. It is absent on the last. */
  next?: UserId;
}

/** Tells how a group is. With `set` it is changed before. */
export interface SettingsRequest {
  /** The group. */
  conversation: ConversationId;
  /** What is to be another. */
  set?: SettingsChange;
}

/** How the group is now. */
export interface SettingsAnswer {
  /** The sequence of the change, or the last one if nothing changed. */
  sequence: Sequence;
  /** All settings as they are now. */
  settings: Settings;
  /** One's own role. */
  role: Role;
}

/**
 * Keeps users out of a group, lets them come again, or lists them. Exactly one of `add`, `remove` and `list` is
 * there.
 */
export interface BansRequest {
  /** The group. */
  conversation: ConversationId;
  /** Users who are to be kept out, 1 to 100. Members among them are removed. */
  add?: UserId[];
  /** Users who may come again, 1 to 100. */
  remove?: UserId[];
  /** Which page of those who are kept out, in order of their ids. */
  list?: UsersPage;
}

/** Who is kept out was changed, or a page of them. */
export interface BansAnswer {
  /** Answers `add` and `remove` with the sequence of the change, or with the last one if nothing changed. */
  sequence?: Sequence;
  /** Answers `list` with the page. */
  users?: UserId[];
  /** Answers `list`. Give it as `after` for the next page. It is absent on the last. */
  next?: UserId;
}

/**
 * Sets what the user's applications keep for the user under a key, or lists it. Exactly one of `set` and `list`
 * is there.
 */
export interface AccountRequest {
  /** What is to be set. */
  set?: SetAccount;
  /** Which page of what is set, in the order of keys. */
  list?: AccountPage;
}

/** What is to be set under a key. */
export interface SetAccount {
  /** Of what. */
  key: AccountKey;
  /** Any JSON value of at most 24 KiB. Without it, or with null, the key is not set any more. */
  value?: unknown;
  /**
   * Only if the key was last set by the entry at this sequence, or, if it is 0, is not set. Otherwise the answer
   * is `conflict`.
   */
  if_sequence?: SequenceOrZero;
}

/** Which page of account data. */
export interface AccountPage {
  /** Only keys after this one. */
  after?: string;
  /** How many keys at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** The key was set, or a page of what is set. */
export interface AccountAnswer {
  /** The user's account. Entries of this conversation are changes of account data. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /**
   * Answers `set` with the sequence of the change, or of the entry that set the same value before. Answers `list`
   * with the last change that the page knows, 0 if nothing was ever set.
   */
  sequence: SequenceOrZero;
  /**
   * Answers `set` with the entry that had set the key before. It is absent if the key was not set, or nothing
   * changed.
   */
  replaced?: Sequence;
  /** Answers `list` with the page. */
  items?: AccountItem[];
  /** Answers `list`. Give it as `after` for the next page. It is absent on the last. */
  next?: AccountKey;
}

/** What is set under a key. */
export interface AccountItem {
  /** Of what. */
  key: AccountKey;
  /** A JSON value. */
  value: unknown;
  /** The entry that set it. */
  sequence: Sequence;
  /** When that was. */
  time_ms: TimeMs;
}

/** Asks whether users are there, and to be told when they come and go, for as long as the connection lasts. */
export interface PresenceRequest {
  /** Users to be told of from now on. One that is watched already does no harm. */
  watch?: UserId[];
  /** Users to be told of no more. */
  unwatch?: UserId[];
}

/** Whether those who are watched from now on are there. */
export interface PresenceAnswer {
  /** Those in `watch`, in any order. */
  users: UserPresence[];
  /** How many users this connection watches now. */
  watching: number;
}

/** Users whom one watches have come or gone. */
export interface PresentPush {
  /** Those that it is about, as they are now. */
  users: UserPresence[];
}

/** Whether a user is there, as far as the one may see who is told. */
export interface UserPresence {
  /** Who. */
  user: UserId;
  /** Whether a device of theirs is connected. */
  online: boolean;
  /** When the last one went, if none is connected and the server knows. */
  last_seen_ms?: TimeMs;
}

/**
 * Says that a conversation is looked at from now on, or is not any more. It matters for large ones, does no harm
 * for others, and holds for this connection.
 */
export interface ViewRequest {
  /** The conversation. */
  conversation: ConversationId;
  /** Whether it is looked at. At most 50 are on one connection, for each log of the server. */
  open: boolean;
}

/** Where a conversation that is open now ends. */
export interface ViewAnswer {
  /**
   * Of one that is open now, its last entry: what comes after it is pushed, what came before it is in `history`.
   * It is absent for one that was closed.
   */
  sequence?: Sequence;
}

/**
 * Lists the user's devices, names the one that asks, or logs some out. Exactly one of `list`, `name`, `revoke`
 * and `revoke_all` is there.
 */
export interface DevicesRequest {
  /** Lists those that are connected, and those that have a name. */
  list?: ListDevices;
  /** How the device that asks is called from now on. If it is empty, the device has no name any more. */
  name?: DeviceName;
  /**
   * Devices to be logged out, 1 to 50, also such as are not listed. At most 100 devices of a user are logged out
   * one by one.
   */
  revoke?: DeviceId[];
  /** Logs all devices out, or all others. */
  revoke_all?: RevokeAllDevices;
}

/** Which devices to list. There is nothing to say, all are. */
export interface ListDevices {}

/** Which devices to log out. */
export interface RevokeAllDevices {
  /** Whether the one that asks stays. If it is absent, it does not. */
  but_this?: boolean;
}

/** The user's devices, or what was changed of them. */
export interface DevicesAnswer {
  /**
   * Answers a change with the entry of the user's account that says it, under the key `antiphon.devices`. It is 0
   * if nothing was ever said.
   */
  sequence?: SequenceOrZero;
  /** Answers `list` with the devices, in order of their ids. */
  devices?: Device[];
}

/** One device of a user. */
export interface Device {
  /** Which. */
  device: DeviceId;
  /** How it is called. It is absent if the device has no name. */
  name?: DeviceName;
  /** When it was first named. It is absent if the device has no name. */
  since_ms?: TimeMs;
  /** Whether it is connected. */
  online: boolean;
  /** Whether it is the one that asks. It is absent if it is not. */
  this?: boolean;
}

/** Makes an invite to a group, revokes some, or lists them. Exactly one of `make`, `revoke` and `list` is there. */
export interface InvitesRequest {
  /** The group. */
  conversation: ConversationId;
  /** An invite that is to be made. One that is sent again makes another. */
  make?: NewInvite;
  /** Invites by which nobody is to join any more, 1 to 100. One that is not there changes nothing. */
  revoke?: Sequence[];
  /** Which page of the invites that are not over, in the order in which they were made. */
  list?: InvitesPage;
}

/** An invite that is to be made. */
export interface NewInvite {
  /**
   * Nobody joins by it after so many seconds, at most a year of 366 days. Without it the invite does not end by
   * itself.
   */
  expires_in_s?: number;
  /** So many users may join by it. Without it any number may. */
  uses?: number;
}

/** Which page of invites. */
export interface InvitesPage {
  /** Only invites that were made after this one. */
  after?: SequenceOrZero;
  /** How many invites at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** The invites were changed, or a page of them. */
export interface InvitesAnswer {
  /** Answers `make` and `revoke` with the sequence of the change, or with the last one if nothing changed. */
  sequence?: Sequence;
  /** Answers `make` with what to give to those who are invited. It is told this once. */
  code?: InviteCode;
  /** Answers `list` with the page. */
  invites?: Invite[];
  /** Answers `list`. Give it as `after` for the next page. It is absent on the last. */
  next?: Sequence;
}

/** An invite as those see it who may make one. */
export interface Invite {
  /** What it is known by, the sequence of the entry that made it. */
  invite: Sequence;
  /** Who made it. */
  user: UserId;
  /** When it ends. It is absent if the invite does not end by itself. */
  expires_ms?: TimeMs;
  /** How many users still may join by it. It is absent if any number may. */
  uses?: Count;
}

/** Makes one a member by an invite, or tells what it is to. */
export interface JoinRequest {
  /** The invite's code. */
  code: InviteCode;
  /** Whether only to tell what the invite is to. It is absent to join. */
  look?: boolean;
}

/** What the invite is to. */
export interface JoinAnswer {
  /** The group. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** Its title, which may be empty. */
  title: Title;
  /** What it is about. It is absent where that is not said. */
  description?: Description;
  /** A reference to its picture. It is absent where there is none. */
  picture?: Picture;
  /** How many members it has. */
  members: Count;
  /**
   * The entry that made one a member, or the last one for who was a member before. It is absent if one is no
   * member.
   */
  sequence?: Sequence;
}

/** Lists one's own conversations in order of their ids. */
export interface ConversationsRequest {
  /** Only conversations after this one. */
  after?: ConversationId;
  /** How many conversations at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** A page of one's own conversations. */
export interface ConversationsAnswer {
  /** The page. It also ends before the `last` that would make it longer than 256 KiB. */
  conversations: ConversationSummary[];
  /** Give it as `after` for the next page. It is absent on the last. */
  next?: ConversationId;
}

/** A conversation in its member's list. */
export interface ConversationSummary {
  /** Its id. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The other member of a direct conversation. It is absent for a group. */
  direct?: UserId;
  /** Its title, empty for a direct conversation. */
  title: Title;
  /** A reference to its picture. It is absent where there is none. */
  picture?: Picture;
  /** One's own role. */
  role: Role;
  /** The sequence of its last entry. */
  last_sequence: Sequence;
  /** When the server took its last entry. */
  last_time_ms: TimeMs;
  /** How many members it has. */
  members: Count;
  /** Everything up to this sequence was read by oneself. */
  read: SequenceOrZero;
  /** How many messages come after `read`. */
  unread: Count;
  /** The last entry, if one may see it. */
  last?: Entry;
}

/** Gives a group another title. */
export interface TitleRequest {
  /** The group. */
  conversation: ConversationId;
  /** The title from now on, at most 256 bytes of UTF-8. It may be empty. */
  title: Title;
}

/** The group has the title. */
export interface TitleAnswer {
  /** The sequence of the change, or the last one if nothing changed. */
  sequence: Sequence;
}

/** Sends a message. It has at least one of `text`, `json`, `data` and `forwarded`. */
export interface SendRequest extends Content, References {
  /** Where the message goes. */
  conversation: ConversationId;
  /** The client's own name for the message. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
}

/** The message is on stable storage. */
export interface SendAnswer extends Stored {}

/**
 * Gives an own message another content. It has at least one of `text`, `json` and `data`. What the message
 * answers, its thread and where it was forwarded from stay. To name them is `invalid`.
 */
export interface EditRequest extends Content {
  /** Where the message stands. */
  conversation: ConversationId;
  /** The client's own name for the change. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
}

/** The edit is on stable storage. */
export interface EditAnswer extends Stored {}

/** Takes away what a message and its edits said, for everybody and for good. */
export interface DeleteRequest {
  /** Where the message stands. */
  conversation: ConversationId;
  /** The client's own name for the change. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
}

/** The deletion is on stable storage. */
export interface DeleteAnswer extends Stored {}

/** Adds or removes one's own reaction to a message. A message has at most 64 different ones. */
export interface ReactRequest {
  /** Where the message stands. */
  conversation: ConversationId;
  /** The client's own name for the change. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
  /** The reaction, 1 to 32 bytes of UTF-8. */
  reaction: Reaction;
  /** Whether the reaction is there from now on. */
  on: boolean;
}

/** The reaction is on stable storage. */
export interface ReactAnswer extends Stored {}

/** Pins a message or takes the pin off. A conversation has at most 100 pins. */
export interface PinRequest {
  /** Where the message stands. */
  conversation: ConversationId;
  /** The client's own name for the change. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
  /** Whether the message is pinned from now on. */
  on: boolean;
}

/** The change is on stable storage. */
export interface PinAnswer extends Stored {}

/** Takes away all entries before one, for everybody. It is for a group's owner. */
export interface RetainRequest {
  /** The group. */
  conversation: ConversationId;
  /** The client's own name for the change. It is made once and kept through every retry. */
  client_message_id: ClientMessageId;
  /** The sequence of the first entry that stays. */
  before: Sequence;
}

/** The change is on stable storage. */
export interface RetainAnswer extends Stored {}

/** Lists who reacted to a message, in order of their ids. */
export interface ReactionsRequest {
  /** Where the message stands. */
  conversation: ConversationId;
  /** The sequence of the message. */
  target: Sequence;
  /** Only users after this one. */
  after?: UserId;
  /** How many users at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** A page of those who reacted to a message. */
export interface ReactionsAnswer {
  /** The page. */
  reactions: Reactor[];
  /** Give it as `after` for the next page. It is absent on the last. */
  next?: UserId;
}

/** A user and the user's reactions to a message. */
export interface Reactor {
  /** Who reacted. */
  user: UserId;
  /** The user's reactions, in the order in which they were added. */
  reactions: Reaction[];
}

/** Lists the pinned messages that one sees. */
export interface PinsRequest {
  /** The conversation. */
  conversation: ConversationId;
}

/** The pinned messages. */
export interface PinsAnswer {
  /** The sequences of the messages, in the order in which they were pinned. */
  pins: Sequence[];
}

/**
 * Asks for a page of entries, in ascending order and without a gap. At most one of `before`, `after` and
 * `around` is there. None means the latest entries.
 */
export interface HistoryRequest {
  /** The conversation. */
  conversation: ConversationId;
  /** The last entries before this sequence. */
  before?: SequenceOrZero;
  /** The first entries after this sequence. */
  after?: SequenceOrZero;
  /** Half of the page up to and with this sequence, half after it. */
  around?: SequenceOrZero;
  /** How many entries at most, 50 if absent. More than 200 is cut to 200. */
  limit?: PageLimit;
}

/** A page of entries. What became of its messages comes right before it, by `states`. */
export interface HistoryAnswer {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The first sequence that one may see. */
  first: Sequence;
  /** The conversation's last sequence. */
  last: Sequence;
  /**
   * The page, in ascending order and without a gap. It also ends before the entry that would make it longer than
   * 256 KiB.
   */
  entries: Entry[];
}

/** Everything up to a sequence was read by the user. The pointer never moves back. */
export interface ReadRequest {
  /** The conversation. */
  conversation: ConversationId;
  /** The sequence up to which everything was read. */
  sequence: SequenceOrZero;
}

/** Where the user's pointers are now. */
export interface ReadAnswer extends Pointers {}

/** Everything up to a sequence reached a device of the user. The pointer never moves back. */
export interface DeliveredRequest {
  /** The conversation. */
  conversation: ConversationId;
  /** The sequence up to which everything was received. */
  sequence: SequenceOrZero;
}

/** Where the user's pointers are now. */
export interface DeliveredAnswer extends Pointers {}

/** Tells the other members who are online of something for the moment. It is never stored and may be lost. */
export interface EventRequest {
  /** The conversation. */
  conversation: ConversationId;
  /** The event's name, 1 to 32 visible ASCII characters. `typing` tells that the user types. */
  event: EventName;
  /** One JSON value, at most 1024 bytes. `null` is the same as none. */
  data?: unknown;
}

/** The event is on its way to those who are there. */
export interface EventAnswer {}

/** A member's pointers moved by `read` or `delivered`. Only the latest counts. */
export interface ReceiptPush {
  /** The conversation. */
  conversation: ConversationId;
  /** Whose pointers they are. */
  user: UserId;
  /** Everything up to this sequence was read by the member. */
  read: SequenceOrZero;
  /** Everything up to this sequence reached a device of the member. */
  delivered: SequenceOrZero;
}

/** Another member's event. */
export interface HappenedPush {
  /** The conversation. */
  conversation: ConversationId;
  /** Whose event it is. */
  user: UserId;
  /** The event's name. */
  event: EventName;
  /** One JSON value, at most 1024 bytes. `null` is the same as none. */
  data?: unknown;
}

/** The session's token is about to be over. A `refresh` with another keeps the session. */
export interface ExpiringPush {
  /** When the session ends with close code 4501 unless a `refresh` comes before. */
  expires_ms: TimeMs;
}

/** A large conversation that is not open has gone on. Only the latest counts. */
export interface AdvancedPush {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The sequence of its last entry. */
  sequence: Sequence;
  /** How many messages it has up to there. */
  ordinal: Ordinal;
  /** When the server took that entry. */
  time_ms: TimeMs;
}

/** One is no longer a member. From here on it is as if the conversation did not exist. */
export interface LeftPush {
  /** The conversation. */
  conversation: ConversationId;
  /** The sequence of the removal. */
  sequence: Sequence;
}

/**
 * During a resume more of a conversation is missing than the server streams. Page it with `history`, from
 * `first` or what the client has up to `last`.
 */
export interface TooFarPush {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The first sequence that one may see. */
  first: Sequence;
  /** The last sequence to page. Entries after it are pushed as always. */
  last: Sequence;
}

/** All that was missing has been sent. What follows is live. */
export interface CaughtUpPush {
  /** Stands for everything that was sent before this frame. */
  position: Position;
}

/**
 * What became of messages that the server gives. It comes right before the answer to a `history`, and in a
 * resume before `caught_up`. Several may follow each other.
 */
export interface StatesPush {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /**
   * All entries up to here are in it. Take it instead of what is known of these messages, and later entries on
   * top.
   */
  as_of: Sequence;
  /** Messages that something happened to, in ascending order. */
  states: MessageState[];
}

/** What became of a message since it was sent. */
export interface MessageState {
  /** The sequence of the message. */
  sequence: Sequence;
  /** The last edit. What the message says now is its own `text`. It is absent if there was none. */
  edited?: Edited;
  /** Whether the message has no content any more. It is absent if it has. */
  deleted?: boolean;
  /** Whether the message is pinned. It is absent if it is not. */
  pinned?: boolean;
  /**
   * How many messages are in the thread that it began, without those that were deleted. It is absent if there are
   * none.
   */
  replies?: Count;
  /** The reactions, in the order in which each was first there. It is absent if there are none. */
  reactions?: ReactionCount[];
}

/** An edit of a message. */
export interface Edited {
  /** The sequence of the edit. */
  sequence: Sequence;
  /** When the server took it. */
  time_ms: TimeMs;
}

/** How many users have a reaction to a message. */
export interface ReactionCount {
  /** The reaction. */
  reaction: Reaction;
  /** How many users have it. */
  count: Count;
  /** Whether one is among them. It is absent if one is not. */
  mine?: boolean;
}

/** The last frame before the server closes the connection. */
export interface GoodbyePush {
  /**
   * The close code that follows. After 4000 to 4499 come back with back-off, after 4500 to 4999 only when
   * something has changed. That holds for codes that are not known, too.
   *
   * - 4000 `restarting`: The node restarts.
   * - 4001 `slow_consumer`: The client read more slowly than its messages came.
   * - 4002 `silent`: Nothing was heard for two heartbeats.
   * - 4003 `overloaded`: The node has no room.
   * - 4004 `connect_timeout`: No `connect` came in time.
   * - 4005 `rate_limited`: More WebSocket frames a second than a connection may send, of whatever kind.
   * - 4500 `unauthenticated`: The token is not accepted.
   * - 4501 `token_expired`: The token has expired.
   * - 4502 `replaced`: The same device connected again elsewhere.
   * - 4503 `protocol_error`: The client broke the protocol.
   * - 4504 `revoked`: The device was logged out.
   * - 4505 `too_many_devices`: As many devices of the user are connected as may be.
   */
  code: number;
  /** The close code's name. */
  reason: string;
  /** When to come back. Each client gets its own, so that not all come at once. It is absent if that is not known. */
  reconnect_after_ms?: DurationMs;
}

/** A request failed. Without an id it is the connection's own trouble, or a request's that had none. */
export interface ErrorFrame {
  /** What went wrong. Codes are stable, and more may be added. */
  code: ErrorCode;
  /** What exactly, for a developer. It may change. */
  text: string;
  /** Whether the same request may succeed later. It decides about codes that are not known. */
  temporary: boolean;
  /** When to try again. It is absent if that is not known. */
  retry_after_ms?: DurationMs;
}

/** What all entries have. */
export interface EntryCommon {
  /** The conversation. */
  conversation: ConversationId;
  /** The incarnation of its log. */
  epoch: Epoch;
  /** The entry's place in the conversation. */
  sequence: Sequence;
  /** How many messages the conversation has up to and with this entry. */
  ordinal: Ordinal;
  /** When the server took it. */
  time_ms: TimeMs;
  /** Who did it. */
  sender: UserId;
}

/** The first entry of a conversation. */
export interface CreatedEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "created";
  /** Whether it is a direct conversation. */
  direct: boolean;
  /** The first title, which may be empty. */
  title: Title;
  /** All first members. */
  members: UserId[];
}

/** A message, as it is now. One that was edited says what its last edit says, one that was deleted says nothing. */
export interface MessageEntry extends EntryCommon, Content, References {
  /** Tells the kinds apart. */
  kind: "message";
  /** The sender's own name for the message. */
  client_message_id: ClientMessageId;
}

/** Members came or went. */
export interface MembershipEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "membership";
  /** Users who are members from now on. */
  added: UserId[];
  /** Users who are members no more. */
  removed: UserId[];
}

/** The group has another title. */
export interface TitleEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "title";
  /** The title from now on. */
  title: Title;
}

/** Members have other roles. */
export interface RolesEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "roles";
  /** Members with the roles that they have from now on. */
  roles: RoleOf[];
}

/** The group has other settings. */
export interface SettingsEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "settings";
  /** All settings as they are from now on. */
  settings: Settings;
}

/** An invite was made, or some were revoked. */
export interface InviteEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "invite";
  /** What became of the group's invites. */
  change: InviteChange;
}

/** A user became a member by an invite. */
export interface JoinedEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "joined";
  /** The one user who is a member from now on. */
  added: UserId[];
  /** The invite, the sequence of the entry that made it. */
  invite: Sequence;
}

/** Users are kept out, or may come again. It has `banned` and `removed`, or `unbanned`. */
export interface BansEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "bans";
  /** Users who are kept out from now on. */
  banned?: UserId[];
  /** Those of them who were members. */
  removed?: UserId[];
  /** Users who may come again. */
  unbanned?: UserId[];
}

/** In a user's account, a key was set, or is not set any more. */
export interface AccountDataEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "account_data";
  /** Of what. */
  key: AccountKey;
  /** A JSON value. It is absent if the key is not set any more, or was set again later. */
  value?: unknown;
}

/**
 * A message says something else from now on. What it says is absent where a later edit or a deletion took it
 * away, or the message is from before one sees.
 */
export interface EditEntry extends EntryCommon, Content, References {
  /** Tells the kinds apart. */
  kind: "edit";
  /** The sender's own name for the change. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
}

/** What a message said is gone for good. */
export interface DeletionEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "deletion";
  /** The sender's own name for the change. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
}

/** A reaction to a message was added or removed. */
export interface ReactionEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "reaction";
  /** The sender's own name for the change. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
  /** The reaction. */
  reaction: Reaction;
  /** Whether the sender's reaction is there from now on. */
  on: boolean;
}

/** A message was pinned, or the pin taken off. */
export interface PinEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "pin";
  /** The sender's own name for the change. */
  client_message_id: ClientMessageId;
  /** The sequence of the message. */
  target: Sequence;
  /** Whether the message is pinned from now on. */
  on: boolean;
}

/** Entries before one are gone for everybody. */
export interface RetentionEntry extends EntryCommon {
  /** Tells the kinds apart. */
  kind: "retention";
  /** The sender's own name for the change. */
  client_message_id: ClientMessageId;
  /** The sequence of the first entry that stays. */
  before: Sequence;
  /** How many messages there were before `before`. */
  messages: Ordinal;
}

/** What became of a group's invites. Exactly one of `made` and `revoked` is there. */
export interface InviteChange {
  /** An invite that was made. */
  made?: MadeInvite;
  /** Invites by which nobody joins any more, each the sequence of the entry that made it. */
  revoked?: Sequence[];
}

/** An invite that was made. Its code is not told by entries. */
export interface MadeInvite {
  /**
   * SHA-256 over conversation and secret, the 32 bytes that the invite's code is in base64url, as 43 characters of
   * base64url.
   */
  hash: string;
  /** When it ends. It is absent if the invite does not end by itself. */
  expires_ms?: TimeMs;
  /** How many users may join by it. It is absent if any number may. */
  uses?: Count;
}
