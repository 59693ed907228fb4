// One's own pointers on their way out: what has arrived here (`delivered`) and what was seen (`read`), several of each as one.

import type { Conversation } from "./conversation.js";
import { RequestError } from "./failure.js";
import type { Inside } from "./parts.js";

/** Marks of so long go out as one. */
const WAIT_MS = 200;

export class Marks {
  readonly #inside: Inside;
  readonly #due = new Set<string>();
  #sending = false;

  constructor(inside: Inside) {
    this.#inside = inside;
  }

  /** Something may have to be told of a conversation, or (without one) of those that are noted already. */
  soon(id?: string): void {
    if (id !== undefined) this.#due.add(id);
    if (this.#due.size > 0 && this.#inside.isCaughtUp()) this.#inside.timers.later("marks", WAIT_MS, () => void this.#send());
  }

  /** One request at a time: marks are never worth a rate limit. */
  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      await this.#sendDue();
    } finally {
      this.#sending = false;
    }
    this.soon();
  }

  async #sendDue(): Promise<void> {
    for (const id of [...this.#due]) {
      this.#due.delete(id);
      const conversation = this.#inside.conversations.get(id);
      if (!conversation) continue;
      try {
        if (conversation.read > conversation.readConfirmed) await this.#mark(conversation, "read", conversation.read);
        if (conversation.tail > conversation.deliveredConfirmed) await this.#mark(conversation, "delivered", conversation.tail);
      } catch (error) {
        // Whatever else was wrong with it, it would be wrong again.
        if (error instanceof RequestError && error.code === "disconnected") return void this.#due.add(id);
      }
    }
  }

  async #mark(conversation: Conversation, kind: "read" | "delivered", sequence: number): Promise<void> {
    const marked = await this.#inside.call(kind, { conversation: conversation.id, sequence });
    conversation.confirm(marked.read, marked.delivered);
    if (marked.read > conversation.read && conversation.markRead(marked.read)) this.#inside.listSoon();
    this.#inside.changed(conversation);
  }
}
