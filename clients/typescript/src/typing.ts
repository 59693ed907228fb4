// Who types, here and elsewhere: tells it again while it is so, and takes others to have stopped when nothing is heard.

import type { Conversation } from "./conversation.js";
import type { Pushes } from "./frames.js";
import type { Inside } from "./parts.js";

/** Who types says so again after so long, */
const AGAIN_MS = 4_000;
/** and is taken to have stopped when nothing was heard for so long. */
const HOLDS_MS = 6_000;

/** The event's name, which the protocol sets. */
export const TYPING = "typing";

export class Typing {
  readonly #inside: Inside;
  /** Where one types oneself, and when that was last told. */
  #own: { id: string; saidMs: number } | null = null;

  constructor(inside: Inside) {
    this.#inside = inside;
  }

  /** One types in a conversation, or has stopped. */
  typing(id: string, on: boolean): void {
    const nowMs = this.#inside.environment.now();
    const own = this.#own?.id === id ? this.#own : null;
    if (on ? own !== null && nowMs - own.saidMs < AGAIN_MS : own === null) return;
    this.#own = on ? { id, saidMs: nowMs } : null;
    this.#inside.tell("event", { conversation: id, event: TYPING, data: { on } });
  }

  /** A message was sent, which says that its sender has stopped; or the conversation is gone. */
  ended(id: string): void {
    if (this.#own?.id === id) this.#own = null;
  }

  /** Somebody else's. */
  heard(conversation: Conversation, user: string, data: Pushes["happened"]["data"]): void {
    const isOn = (data as { on?: unknown } | undefined)?.on !== false;
    if (isOn) conversation.typing.set(user, this.#inside.environment.now() + HOLDS_MS);
    else conversation.typing.delete(user);
    this.#inside.typingChanged(conversation.id);
    this.#watch(conversation);
  }

  /** Those who have not been heard of for too long type no more. */
  #watch(conversation: Conversation): void {
    if (conversation.typing.size === 0) return;
    const { environment, timers } = this.#inside;
    const dueMs = Math.min(...conversation.typing.values()) - environment.now();
    timers.later(`typing ${conversation.id}`, Math.max(0, dueMs), () => {
      const nowMs = environment.now();
      for (const [user, untilMs] of conversation.typing) if (untilMs <= nowMs) conversation.typing.delete(user);
      this.#inside.typingChanged(conversation.id);
      this.#watch(conversation);
    });
  }
}
