// Made of the crate `wire` by `GENERATED_WRITE=1 cargo test -p antiphon-wire --test typescript`. Change the crate, not this file.

/** The WebSocket subprotocol. */
export const SUBPROTOCOL = "antiphon.v1.json";

/** Errors by code: whether the same request may succeed later. */
export const ERROR_CODES = {
  malformed: { temporary: false, text: "the frame can't be read" },
  unknown_frame: { temporary: false, text: "the frame's kind is unknown here" },
  not_connected: { temporary: false, text: "send connect first" },
  already_connected: { temporary: false, text: "this connection is connected already" },
  unauthenticated: { temporary: false, text: "the token is not accepted" },
  token_expired: { temporary: false, text: "the token has expired; connect with a new one" },
  not_found: { temporary: false, text: "no such conversation" },
  forbidden: { temporary: false, text: "not allowed" },
  conflict: { temporary: false, text: "that client_message_id was used for something else" },
  invalid: { temporary: false, text: "a value is not allowed" },
  too_large: { temporary: false, text: "beyond a limit" },
  limit_reached: { temporary: false, text: "a limit is reached" },
  rate_limited: { temporary: true, text: "too many requests" },
  storage_full: { temporary: true, text: "the server's disk is full; nothing was stored" },
  storage_failed: { temporary: true, text: "the server's log failed; nothing more is stored until it restarts" },
  damaged: { temporary: false, text: "stored data is damaged in this range" },
  overloaded: { temporary: true, text: "the server is overloaded" },
  shutting_down: { temporary: true, text: "the server is shutting down" },
  no_message: { temporary: false, text: "no such message" },
  deleted: { temporary: false, text: "the message was deleted" },
  too_old: { temporary: false, text: "the client_message_id is older than ids are remembered" },
  revoked: { temporary: false, text: "the device was logged out: get a new token" },
} as const;

/** What went wrong with a request. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** Close codes by reason: whether a client comes back by itself. */
export const CLOSE_CODES = {
  restarting: { code: 4000, returns: true, text: "the node restarts" },
  slow_consumer: { code: 4001, returns: true, text: "the client read more slowly than its messages came" },
  silent: { code: 4002, returns: true, text: "nothing was heard for two heartbeats" },
  overloaded: { code: 4003, returns: true, text: "the node has no room" },
  connect_timeout: { code: 4004, returns: true, text: "no connect came in time" },
  rate_limited: { code: 4005, returns: true, text: "more frames a second than a connection may send" },
  unauthenticated: { code: 4500, returns: false, text: "the token is not accepted" },
  token_expired: { code: 4501, returns: false, text: "the token has expired; come back with a new one" },
  replaced: { code: 4502, returns: false, text: "the same device connected again elsewhere" },
  protocol_error: { code: 4503, returns: false, text: "the client broke the protocol" },
  revoked: { code: 4504, returns: false, text: "the device was logged out; come back with a new token" },
  too_many_devices: { code: 4505, returns: false, text: "as many devices of the user are connected as may be" },
} as const;

/** Why a connection ended. */
export type CloseReason = keyof typeof CLOSE_CODES;

/** What docs/protocol.md says of limits. A server may have set some otherwise. */
export const LIMITS = {
  NAME_BYTES_MAX: 64,
  TEXT_BYTES_MAX: 16384,
  DATA_BYTES_MAX: 16384,
  CONTENT_TYPE_BYTES_MAX: 100,
  MENTIONS_PER_MESSAGE_MAX: 50,
  REACTION_BYTES_MAX: 32,
  EVENT_NAME_BYTES_MAX: 32,
  EVENT_DATA_BYTES_MAX: 1024,
  REACTIONS_PER_MESSAGE_MAX: 64,
  PINS_PER_CONVERSATION_MAX: 100,
  TITLE_BYTES_MAX: 256,
  DESCRIPTION_BYTES_MAX: 2048,
  PICTURE_BYTES_MAX: 512,
  BANS_PER_GROUP_MAX: 10000,
  CLIENT_FRAME_BYTES_MAX: 131072,
  SERVER_FRAME_BYTES_MAX: 2097152,
  MEMBERS_PER_REQUEST_MAX: 100,
  GROUP_MEMBERS_MAX: 200000,
  CONVERSATIONS_PER_USER_MAX: 5000,
  PAGE_ITEMS_MAX: 200,
  PAGE_ITEMS_DEFAULT: 50,
  PAGE_BYTES_MAX: 262144,
  POSITION_BYTES_MAX: 276,
  RESUME_KNOWN_MAX: 1000,
  RESUME_ENTRIES_PER_CONVERSATION_MAX: 200,
  RESUME_BYTES_MAX: 524288,
  TOKEN_BYTES_MAX: 8192,
  TOKEN_EXPIRING_MS: 60000,
  INVITES_PER_GROUP_MAX: 100,
  INVITE_EXPIRES_IN_S_MAX: 31622400,
  ACCOUNT_KEY_BYTES_MAX: 128,
  ACCOUNT_VALUE_BYTES_MAX: 24576,
  ACCOUNT_KEYS_MAX: 2000,
  ACCOUNT_BYTES_MAX: 524288,
  PRESENCE_PER_REQUEST_MAX: 200,
  PRESENCE_WATCHED_MAX: 1000,
  VIEWS_MAX: 50,
  DEVICE_NAME_BYTES_MAX: 64,
  DEVICES_MAX: 50,
  DEVICES_REVOKED_MAX: 100,
  CLIENT_NAME_BYTES_MAX: 64,
} as const;

/** The kinds of answers and pushes. */
export const KINDS = [
  "connect",
  "ping",
  "create",
  "members",
  "conversations",
  "title",
  "send",
  "history",
  "read",
  "delivered",
  "edit",
  "delete",
  "react",
  "pin",
  "retain",
  "reactions",
  "pins",
  "roles",
  "settings",
  "bans",
  "event",
  "refresh",
  "invites",
  "join",
  "account",
  "presence",
  "view",
  "devices",
  "error",
  "message",
  "receipt",
  "left",
  "too_far",
  "caught_up",
  "goodbye",
  "states",
  "happened",
  "expiring",
  "present",
  "advanced",
  "mentioned",
] as const;

/** What a frame of the server is. */
export type Kind = (typeof KINDS)[number];
