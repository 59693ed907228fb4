// A conversation as it is stored.

import type { Entry, Role } from "./frames.js";
import type { MessageRecord } from "./messages.js";

/** Up to where a member has read, and up to where a device of theirs has it. */
export interface Pointers {
  read: number;
  delivered: number;
}

/** The last entry that is known to be there, where the ones up to it are not here: its place, and how many messages there are with it. */
export interface Ahead {
  sequence: number;
  ordinal: number;
}

/** What a stored snapshot has of a conversation. */
export interface ConversationRecord {
  id: string;
  epoch: number;
  direct: string | null;
  title: string;
  picture: string;
  memberCount: number;
  members: string[] | null;
  described: boolean;
  read: number;
  readConfirmed: number;
  deliveredConfirmed: number;
  tail: number;
  first: number | null;
  lastOrdinal: number | null;
  ahead?: Ahead | null;
  lastTimeMs: number;
  readOrdinal: number | null;
  unreadKnown: number;
  pointers: [string, Pointers][];
  roles: [string, Role][];
  entries: Entry[];
  messages: MessageRecord[];
}
