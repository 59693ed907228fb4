// Who is there, of the users that are looked at: told by the server for as long as a connection lasts, and asked anew on the next one.

import { LIMITS } from "./codes.js";
import { RequestError } from "./failure.js";
import type { UserPresence } from "./frames.js";
import type { Inside } from "./parts.js";

/** What scrolls by is not asked for. */
const LOOK_WAIT_MS = 100;

export type PresenceInside = Pick<Inside, "timers" | "isCaughtUp" | "call"> & {
  /** These users have come or gone, or nothing is known of them any more. */
  changed(users: string[]): void;
};

export class Presence {
  readonly #inside: PresenceInside;
  #wanted = new Set<string>();
  /** Those whom this connection was asked about. */
  readonly #watched = new Set<string>();
  readonly #known = new Map<string, UserPresence>();
  #asking = false;
  /** Those of whom the server has told something new while it was asked: an answer is looked at after what came behind it. */
  readonly #newer = new Set<string>();
  #refused = false;

  constructor(inside: PresenceInside) {
    this.#inside = inside;
  }

  /** Whether a user is there, if not since when; undefined as long as that is not known, and of users that are not looked at. */
  of(user: string): UserPresence | undefined {
    return this.#known.get(user);
  }

  /** These users are looked at now, at most 1000, and no others. */
  look(users: Iterable<string>): void {
    this.#wanted = new Set([...new Set(users)].slice(0, LIMITS.PRESENCE_WATCHED_MAX));
    this.#askSoon();
  }

  // ---- What comes -------------------------------------------------------------------------------------------------------

  told(users: UserPresence[]): void {
    if (this.#asking) for (const { user } of users) this.#newer.add(user);
    this.#take(users);
  }

  #take(users: UserPresence[]): void {
    const looked = users.filter(({ user }) => this.#watched.has(user));
    for (const one of looked) this.#known.set(one.user, one);
    if (looked.length > 0) this.#inside.changed(looked.map(({ user }) => user));
  }

  caughtUp(): void {
    this.#askSoon(0);
  }

  /** The connection is gone, and what it told may be wrong from now on. */
  closed(): void {
    const users = [...this.#known.keys()];
    this.#known.clear();
    this.#watched.clear();
    this.#refused = false;
    if (users.length > 0) this.#inside.changed(users);
  }

  // ---- What goes --------------------------------------------------------------------------------------------------------

  #askSoon(waitMs = LOOK_WAIT_MS): void {
    this.#inside.timers.later("presence", waitMs, () => void this.#ask());
  }

  /** Brings what the server tells of to what is looked at, a request at a time. */
  async #ask(): Promise<void> {
    if (this.#asking || this.#refused || !this.#inside.isCaughtUp()) return;
    const most = LIMITS.PRESENCE_PER_REQUEST_MAX;
    const watch = [...this.#wanted].filter((user) => !this.#watched.has(user)).slice(0, most);
    const unwatch = [...this.#watched].filter((user) => !this.#wanted.has(user)).slice(0, most);
    if (watch.length + unwatch.length === 0) return;
    this.#asking = true;
    this.#newer.clear();
    for (const user of watch) this.#watched.add(user);
    for (const user of unwatch) {
      this.#watched.delete(user);
      this.#known.delete(user);
    }
    try {
      const { users } = await this.#inside.call("presence", { watch, unwatch });
      this.#take(users.filter(({ user }) => !this.#newer.has(user)));
    } catch (error) {
      // A server that knows no presence has none.
      this.#refused = error instanceof RequestError && error.code === "unknown_frame";
    } finally {
      this.#asking = false;
      this.#askSoon();
    }
  }
}
