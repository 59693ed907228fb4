// What the parts of a client (gaps, marks, typing) need of it, so that each can be read alone.

import type { RequestKind } from "./connection.js";
import type { Conversation } from "./conversation.js";
import type { Environment, Timers } from "./environment.js";
import type { Answers, Entry, Requests } from "./frames.js";

export interface Inside {
  readonly environment: Environment;
  readonly timers: Timers;
  readonly conversations: ReadonlyMap<string, Conversation>;
  /** Whether all that was missing has come, so that asking is not asking twice. */
  isCaughtUp(): boolean;
  /** A request that is repeated a few times while the server says that it may work later. */
  call<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): Promise<Answers[Kind]>;
  /** What is for the moment: not answered, and lost where the connection is. */
  tell<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): void;
  /** Entries of a conversation are in order now. */
  deliver(conversation: Conversation, entries: Entry[]): void;
  /** The window of a conversation was given up; what is shown of it is void. */
  restarted(conversation: Conversation): void;
  /** One is no member any more. */
  forget(id: string): void;
  /** Something else about a conversation changed. */
  changed(conversation: Conversation): void;
  /** The unread counts are a guess: the list of conversations knows. */
  listSoon(): void;
  typingChanged(id: string): void;
}
