// What is open here, which the server is told for the sake of large conversations, and what it tells of those that are not open.
//
// A large conversation that is not open is not pushed: the server says from time to time how far it is. Invariants: what is not open is not
// fetched, however far it has gone on; what is open is fetched up to where it is known to end, and the server is told on each connection that
// it is open. A server of before, which knows nothing of this, pushes everything.

import type { RequestKind } from "./connection.js";
import type { Conversation } from "./conversation.js";
import { RequestError } from "./failure.js";
import type { Answers, Entry, Pushes, Requests } from "./frames.js";
import type { Inside } from "./parts.js";

/** Wait before what was refused for now is asked again, where the server names none. */
const RETRY_MS = 1_000;

type Message = Entry & { kind: "message" };

export type ViewsInside = Pick<Inside, "environment" | "timers" | "conversations" | "changed" | "listSoon"> & {
  user: string;
  /** Whether every conversation is to be had whole, open or not. */
  wantsAll: boolean;
  isConnected(): boolean;
  /** A request that is made once. */
  ask<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): Promise<Answers[Kind]>;
  /** The conversation, which is made where it is not known: as one that is here up to `tail`. */
  conversation(id: string, epoch: number, tail: number): Conversation;
  /** A conversation has entries up to here that are to be fetched now. */
  fetch(conversation: Conversation, sequence: number): void;
  /** Its log began anew. */
  restart(conversation: Conversation, epoch: number, tail: number): void;
  /** What waited in the outbox stands in the log. */
  settled(clientMessageId: string): void;
  mentioned(entry: Message): void;
};

export class Views {
  readonly #inside: ViewsInside;
  readonly #open = new Set<string>();
  /** The one that is watched, which is open as well. */
  #watched: string | null = null;
  /** Those that this connection was told to be open. */
  readonly #told = new Set<string>();
  readonly #asking = new Set<string>();
  /** Those that the server refused for now. */
  readonly #held = new Set<string>();
  #refused = false;

  constructor(inside: ViewsInside) {
    this.#inside = inside;
  }

  isOpen(id: string): boolean {
    return id === this.#watched || this.#open.has(id);
  }

  /** Whether a conversation has gone on, and stays with the server until it is opened. */
  isLeft(conversation: Conversation): boolean {
    return conversation.isBehind && !this.isFollowed(conversation.id);
  }

  /** Whether all entries of a conversation are to come here. */
  isFollowed(id: string): boolean {
    return this.#inside.wantsAll || this.isOpen(id);
  }

  // ---- What is shown ----------------------------------------------------------------------------------------------------

  view(id: string, open: boolean): void {
    if (open) this.#open.add(id);
    else this.#open.delete(id);
    void this.#ask(id);
  }

  watch(id: string | null): void {
    const was = this.#watched;
    this.#watched = id;
    for (const one of new Set([was, id])) if (one !== null) void this.#ask(one);
  }

  /** One is no member any more, and the server does not know it as open. */
  left(id: string): void {
    this.#told.delete(id);
  }

  // ---- The connection ---------------------------------------------------------------------------------------------------

  /** Before anything is streamed: what comes from then on is pushed. */
  connected(): void {
    for (const id of [...this.#open, this.#watched]) if (id !== null) void this.#ask(id);
    for (const id of this.#inside.conversations.keys()) this.#catchUp(id);
  }

  closed(): void {
    this.#told.clear();
    this.#refused = false;
    for (const id of this.#held) this.#inside.timers.clear(`view ${id}`);
    this.#held.clear();
  }

  /** Asks again once the server may have room. */
  #hold(id: string, waitMs: number): void {
    this.#held.add(id);
    this.#inside.timers.anew(`view ${id}`, waitMs, () => {
      this.#held.delete(id);
      void this.#ask(id);
    });
  }

  /** Tells the server of one, if it does not know. */
  async #ask(id: string): Promise<void> {
    const open = this.isOpen(id);
    if (this.#asking.has(id) || this.#held.has(id) || !this.#inside.isConnected() || open === this.#told.has(id)) return;
    if (this.#refused) return this.#catchUp(id);
    if (open) this.#told.add(id);
    else this.#told.delete(id);
    this.#asking.add(id);
    try {
      const { sequence } = await this.#inside.ask("view", { conversation: id, open });
      this.#catchUp(id, sequence);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (error.code === "disconnected") return;
      if (error.temporary) {
        if (open) this.#told.delete(id);
        else this.#told.add(id);
        this.#hold(id, error.retryAfterMs ?? RETRY_MS);
      }
      // Not pushed, then: what is new of it is fetched whenever the server says that there is something.
      if (error.code === "unknown_frame") this.#refused = true;
      this.#catchUp(id);
    } finally {
      this.#asking.delete(id);
      void this.#ask(id);
    }
  }

  /** Fetches what is known to be there of one that is open. */
  #catchUp(id: string, sequence = 0): void {
    const conversation = this.#inside.conversations.get(id);
    if (!conversation || !this.isFollowed(id)) return;
    const end = Math.max(conversation.end, sequence);
    if (end > conversation.tail) this.#inside.fetch(conversation, end);
  }

  // ---- What comes -------------------------------------------------------------------------------------------------------

  /** A large conversation has gone on. */
  advanced(push: Pushes["advanced"]): void {
    const conversation = this.#inside.conversation(push.conversation, push.epoch, push.sequence);
    if (push.epoch > conversation.epoch) return this.#inside.restart(conversation, push.epoch, push.sequence);
    if (push.epoch === conversation.epoch) this.#note(conversation, conversation.wentOn(push));
  }

  /** A message means the user, in a large conversation that is not open. */
  mentioned(entry: Entry): void {
    const before = entry.sequence - 1;
    const conversation = this.#inside.conversation(entry.conversation, entry.epoch, before);
    if (entry.epoch > conversation.epoch) this.#inside.restart(conversation, entry.epoch, before);
    if (entry.epoch < conversation.epoch || entry.sequence <= conversation.tail) return;
    this.#pass(conversation, entry);
    // What is followed comes with all others.
    if (entry.kind === "message" && !this.isFollowed(conversation.id)) this.#inside.mentioned(entry);
  }

  /**
   * Takes an entry that came without those before it, if these are not waited for: it says how far the conversation is. Returns whether it was
   * taken.
   */
  takes(conversation: Conversation, entry: Entry): boolean {
    const { epoch, tail, end } = conversation;
    if (entry.epoch !== epoch || entry.sequence <= tail + 1 || !this.isLeft(conversation)) return false;
    this.#pass(conversation, entry);
    // What came before what is known to be there was told of when it came.
    if (entry.sequence > end && isMeant(this.#inside.user, entry)) this.#inside.mentioned(entry);
    return true;
  }

  #pass(conversation: Conversation, entry: Entry): void {
    const isGuess = conversation.pass(entry);
    if (entry.sender === this.#inside.user && "client_message_id" in entry) this.#inside.settled(entry.client_message_id);
    this.#note(conversation, isGuess);
  }

  /** It is known to be further now, maybe with unread messages that were not counted. */
  #note(conversation: Conversation, isGuess: boolean): void {
    conversation.heardMs = this.#inside.environment.now();
    if (isGuess || !conversation.described) this.#inside.listSoon();
    // One that the user has come back to is not known to the server as open.
    if (this.isOpen(conversation.id)) void this.#ask(conversation.id);
    this.#catchUp(conversation.id);
    this.#inside.changed(conversation);
  }
}

const isMeant = (user: string, entry: Entry): entry is Message =>
  entry.kind === "message" && entry.sender !== user && (entry.everybody === true || (entry.mentions ?? []).includes(user));
