// Holes in conversations: waits whether they heal by themselves, then asks history.

import { LIMITS } from "./codes.js";
import { FILL_MAX, type Conversation } from "./conversation.js";
import { RequestError } from "./failure.js";
import type { Inside } from "./parts.js";

/** A hole may heal by itself (two lanes race) for so long, then history is asked. The protocol allows up to 2 s. */
export const GAP_WAIT_MS = 500;
/** A hole that history does not fill after so many questions is not one that this user may see into. */
const TRIES_MAX = 4;

export class Gaps {
  readonly #inside: Inside;
  readonly #filling = new Set<string>();
  readonly #tries = new Map<string, number>();

  constructor(inside: Inside) {
    this.#inside = inside;
  }

  fillSoon(conversation: Conversation, delayMs = GAP_WAIT_MS): void {
    const { id } = conversation;
    // Before `caught_up` the stream itself is what fills holes.
    if (!this.#inside.isCaughtUp() || this.#filling.has(id)) return;
    // What does not heal by itself is asked for at once, whatever was planned.
    if (delayMs === 0) this.#inside.timers.clear(`fill ${id}`);
    this.#inside.timers.later(`fill ${id}`, delayMs, () => void this.#fill(conversation));
  }

  async #fill(conversation: Conversation): Promise<void> {
    const { id, tail: before } = conversation;
    if (!conversation.missing || !this.#inside.isCaughtUp() || this.#inside.conversations.get(id) !== conversation) return;
    if (conversation.expected - before > FILL_MAX) return this.skip(conversation, conversation.epoch, conversation.expected);
    this.#filling.add(id);
    let again: number | null = null;
    try {
      const answer = await this.#inside.call("history", { conversation: id, after: before, limit: LIMITS.PAGE_ITEMS_MAX });
      this.#inside.deliver(conversation, conversation.fill(answer));
      const progress = conversation.tail > before;
      const tries = progress ? 0 : (this.#tries.get(id) ?? 0) + 1;
      this.#tries.set(id, tries);
      if (tries >= TRIES_MAX) this.skip(conversation, conversation.epoch, conversation.expected);
      again = progress ? 0 : GAP_WAIT_MS;
    } catch (error) {
      // Disconnected: `caught_up` starts again. Not found: no member any more. Otherwise the range can't be had: go on after
      // it; scrolling back says why.
      const code = error instanceof RequestError ? error.code : "";
      if (code === "not_found") this.#inside.forget(id);
      else if (code !== "disconnected") this.skip(conversation, conversation.epoch, conversation.expected);
    } finally {
      this.#filling.delete(id);
    }
    if (!conversation.missing) this.#tries.delete(id);
    else if (again !== null) this.fillSoon(conversation, again);
  }

  /** Gives up what is before `tail`: scrolling back pages it. */
  skip(conversation: Conversation, epoch: number, tail: number): void {
    this.#inside.deliver(conversation, conversation.skip(epoch, tail));
    this.#inside.restarted(conversation);
    this.#inside.listSoon();
  }
}
