// The package's surface.

export type { Account, AccountNews, AccountRecord, AccountWaiting } from "./account.js";
export { Client, type Change, type ClientOptions, type Status } from "./client.js";
export { CLOSE_CODES, ERROR_CODES, LIMITS, SUBPROTOCOL, type ErrorCode } from "./codes.js";
export type { RequestKind, Stopped } from "./connection.js";
export type { Conversation } from "./conversation.js";
export { DEVICES_KEY, type Devices } from "./devices.js";
export type { Environment, Socket } from "./environment.js";
export { RequestError } from "./failure.js";
export type * from "./frames.js";
export type { Groups } from "./groups.js";
export { uuidV7 } from "./ids.js";
export type { MessageState, Reaction } from "./messages.js";
export type { Outbox, OutboxBody, OutboxItem, OutboxKind } from "./outbox.js";
export type { Presence } from "./presence.js";
export type { ConversationRecord, Pointers } from "./record.js";
export {
  memoryStorage,
  type Snapshot,
  type SnapshotMeta,
  type SnapshotStorage,
  type Storage,
  type WaitingStorage,
} from "./storage.js";
