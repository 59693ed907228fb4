// What was asked for and not acknowledged yet: messages and changes of messages. Owns their order, their retries and their persistence.
//
// One request per conversation is under way at a time, so that a retry can never overtake or be overtaken. A request keeps its
// client_message_id through every retry, over restarts too: whether the server stored it before is the server's to know.

import type { Environment } from "./environment.js";
import { RequestError } from "./failure.js";
import type { Answers, Requests } from "./frames.js";
import type { WaitingStorage } from "./storage.js";

/** Wait before the retry of a temporary failure that came without a hint. */
const RETRY_MS = 1_000;
/** Failures after which the old id stands for something else, or for nothing that is still known. */
const NEEDS_NEW_ID: ReadonlySet<string> = new Set(["conflict", "too_old"]);

/** Requests that are made once and kept until they are durable. */
export type OutboxKind = "send" | "edit" | "delete" | "react" | "pin" | "retain";

/** One of them. */
export type OutboxItem = {
  [Kind in OutboxKind]: Requests[Kind] & {
    kind: Kind;
    created_ms: number;
    /** The server refused it: it waits for `retry` or `discard`. */
    failed?: { code: string; text: string };
    /** Its sequence: it stands in the log, and stays here until its place there is reached, so that it never blinks. */
    acked?: number;
  };
}[OutboxKind];

/** What is asked for, without what the outbox adds. */
export type OutboxBody<Kind extends OutboxKind> = Omit<Requests[Kind], "conversation" | "client_message_id">;

/** What the server is sent of it. */
export function requestOf(item: OutboxItem): Requests[OutboxKind] {
  const { kind: _kind, created_ms: _created, failed: _failed, acked: _acked, ...request } = item;
  return request;
}

export interface OutboxOptions {
  environment: Environment;
  storage: WaitingStorage<OutboxItem>;
  newId(): string;
  /** One request, to its acknowledgement. */
  send(item: OutboxItem): Promise<Answers[OutboxKind]>;
  onAck(item: OutboxItem, answer: Answers[OutboxKind]): void;
  onChange(): void;
}

export class Outbox {
  /** In the order of writing. */
  items: readonly OutboxItem[];
  readonly #options: OutboxOptions;
  readonly #busy = new Set<string>();
  readonly #timers = new Set<unknown>();
  #open = false;

  constructor(options: OutboxOptions) {
    this.#options = options;
    // One that was acknowledged is sent again after a restart, and found to be stored. Items of before there were other kinds are messages.
    this.items = options.storage.load().map(({ acked: _, ...item }) => ({ ...item, kind: item.kind ?? "send" }) as OutboxItem);
  }

  /** How many the server has not taken yet, and will be asked to. */
  get waiting(): number {
    return this.items.filter((item) => !item.failed && item.acked === undefined).length;
  }

  of(conversation: string): OutboxItem[] {
    return this.items.filter((item) => item.conversation === conversation);
  }

  add<Kind extends OutboxKind>(kind: Kind, conversation: string, body: OutboxBody<Kind>): OutboxItem {
    const { environment, newId } = this.#options;
    const known = { kind, conversation, client_message_id: newId(), created_ms: environment.now() };
    const item = { ...body, ...known } as unknown as OutboxItem;
    this.items = [...this.items, item];
    this.#changed();
    void this.#pump(conversation);
    return item;
  }

  /** Asks again for one that failed, behind all others. */
  retry(clientMessageId: string): void {
    const old = this.items.find((one) => one.client_message_id === clientMessageId);
    if (!old?.failed) return;
    const { failed, ...rest } = old;
    const item = { ...rest } as OutboxItem;
    if (NEEDS_NEW_ID.has(failed.code)) item.client_message_id = this.#options.newId();
    this.items = [...this.items.filter((one) => one !== old), item];
    this.#changed();
    void this.#pump(item.conversation);
  }

  discard(clientMessageId: string): void {
    this.settle(clientMessageId);
  }

  /** The server pushed what came of it before (or instead of) its acknowledgement: it is stored. */
  settle(clientMessageId: string): void {
    this.#keep((item) => item.client_message_id !== clientMessageId);
  }

  /** The conversation is in order up to `tail` (Infinity: it is gone): what was acknowledged up to there stands in it. */
  settleUpTo(conversation: string, tail: number): void {
    this.#keep((item) => item.conversation !== conversation || item.acked === undefined || item.acked > tail);
  }

  /** Requests can be made. */
  opened(): void {
    this.#open = true;
    for (const conversation of new Set(this.items.map((item) => item.conversation))) void this.#pump(conversation);
  }

  closed(): void {
    this.#open = false;
    for (const timer of this.#timers) this.#options.environment.clearTimeout(timer);
    this.#timers.clear();
    this.#busy.clear();
  }

  async #pump(conversation: string): Promise<void> {
    if (!this.#open || this.#busy.has(conversation)) return;
    const item = this.items.find((one) => one.conversation === conversation && !one.failed && one.acked === undefined);
    if (!item) return;
    this.#busy.add(conversation);
    try {
      const answer = await this.#options.send(item);
      item.acked = answer.sequence;
      this.#options.onAck(item, answer);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      // The connection ended: `closed` has cleared `busy`, and `opened` starts again from the first one.
      if (error.code === "disconnected") return;
      if (error.temporary) return this.#later(conversation, error.retryAfterMs ?? RETRY_MS);
      item.failed = { code: error.code, text: error.message };
    }
    this.#busy.delete(conversation);
    this.#changed();
    void this.#pump(conversation);
  }

  #later(conversation: string, delayMs: number): void {
    const { environment } = this.#options;
    const timer = environment.setTimeout(() => {
      this.#timers.delete(timer);
      this.#busy.delete(conversation);
      void this.#pump(conversation);
    }, delayMs);
    this.#timers.add(timer);
  }

  #keep(isKept: (item: OutboxItem) => boolean): void {
    const kept = this.items.filter(isKept);
    if (kept.length === this.items.length) return;
    this.items = kept;
    this.#changed();
  }

  #changed(): void {
    this.#options.storage.save(this.items);
    this.#options.onChange();
  }
}
