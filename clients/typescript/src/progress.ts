// Up to where this device has everything: the position, and what it does not stand for yet.
//
// How nothing is lost or doubled: the server streams what came after the last *position*; `known` names the conversations of which entries
// arrived since; entries are taken in sequence order only, and a hole is filled from history. A position is taken over only while no
// conversation has a hole, and it is stored in one transaction with the entries that it covers.

import { LIMITS } from "./codes.js";
import type { Conversation } from "./conversation.js";
import type { Requests } from "./frames.js";
import type { SnapshotMeta, SnapshotStorage } from "./storage.js";

export class Progress {
  readonly #conversations: ReadonlyMap<string, Conversation>;
  readonly #storage: SnapshotStorage;
  readonly #isWhole: () => boolean;
  #position: string | null = null;
  /** Conversations that got entries after `position`. */
  #touched = new Set<string>();
  /** A position that waits until no conversation has a hole. */
  #held: { position: string; touched: Set<string> } | null = null;
  /** What has to be stored: conversations that changed, and those that are gone. */
  readonly #dirty = new Set<string>();
  readonly #removed = new Set<string>();

  /** `isWhole`: whether nothing is missing beside conversations. */
  constructor(conversations: ReadonlyMap<string, Conversation>, storage: SnapshotStorage, isWhole: () => boolean) {
    this.#conversations = conversations;
    this.#storage = storage;
    this.#isWhole = isWhole;
  }

  get position(): string | null {
    return this.#position;
  }

  restore({ position, touched }: SnapshotMeta): void {
    this.#position = position;
    this.#touched = new Set(touched);
  }

  /** What `connect` says of it; nothing, if there is nothing to go on from. */
  get resume(): Requests["connect"]["resume"] {
    if (this.#position === null) return undefined;
    const known = [...this.#touched].slice(0, LIMITS.RESUME_KNOWN_MAX).flatMap((id) => {
      const conversation = this.#conversations.get(id);
      return conversation ? [{ conversation: id, epoch: conversation.epoch, sequence: conversation.tail }] : [];
    });
    return { position: this.#position, known };
  }

  /** Another connection: what the last one said of a position does not stand for what comes now. */
  connected(): void {
    this.#held = null;
  }

  /** A new position. While a hole is open it is only noted: taking it over would tell the server that the hole is filled. */
  advance(position: string): boolean {
    this.#held = { position, touched: new Set() };
    return this.settle();
  }

  /** Takes the noted position over, if it may be. Returns whether it was. */
  settle(): boolean {
    if (!this.#held || !this.#isWhole()) return false;
    for (const conversation of this.#conversations.values()) if (conversation.missing) return false;
    this.#position = this.#held.position;
    this.#touched = this.#held.touched;
    this.#held = null;
    return true;
  }

  /** A conversation got entries. */
  arrived(id: string): void {
    this.#touched.add(id);
    this.#held?.touched.add(id);
  }

  changed(id: string): void {
    this.#removed.delete(id);
    this.#dirty.add(id);
  }

  forgot(id: string): void {
    this.#touched.delete(id);
    this.#dirty.delete(id);
    this.#removed.add(id);
  }

  /** The position is of no use here: everything begins anew. */
  reset(): void {
    for (const id of this.#conversations.keys()) this.#removed.add(id);
    this.#touched.clear();
    this.#dirty.clear();
    this.#position = null;
  }

  /** Stores position, what is known after it, and the entries: together or not at all. */
  async persist(rest: Omit<SnapshotMeta, "position" | "touched">): Promise<void> {
    const records = [...this.#dirty].flatMap((id) => this.#conversations.get(id)?.toRecord() ?? []);
    const removed = [...this.#removed];
    this.#dirty.clear();
    this.#removed.clear();
    try {
      await this.#storage.save({ ...rest, position: this.#position, touched: [...this.#touched] }, records, removed);
    } catch {
      // No room, or a private window: the next start simply begins afresh from the server.
    }
  }
}
