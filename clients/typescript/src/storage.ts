// What a client keeps over restarts, as an interface: a snapshot of conversations with the position that stands for them, and what waits for the
// server: the outbox, and what was set in the account.
//
// Everything may be missing or refused; then the client begins afresh from the server.

import type { AccountRecord, AccountWaiting } from "./account.js";
import type { OutboxItem } from "./outbox.js";
import type { ConversationRecord } from "./record.js";

/** What goes with the conversations. */
export interface SnapshotMeta {
  user: string;
  position: string | null;
  /** Conversations that got entries after the position. */
  touched: string[];
  listed: boolean;
  account?: AccountRecord;
}

export interface Snapshot {
  meta: SnapshotMeta;
  records: ConversationRecord[];
}

export interface SnapshotStorage {
  /** What the last `save`s left; null if there is nothing. */
  load(): Promise<Snapshot | null>;
  /** All of it or nothing: a position must never part from the entries that it stands for. */
  save(meta: SnapshotMeta, records: ConversationRecord[], removed: string[]): Promise<void>;
}

/** What waits for the server. At once, so that what was asked for is kept before anything is sent. */
export interface WaitingStorage<Item> {
  load(): Item[];
  save(items: readonly Item[]): void;
}

export interface Storage {
  snapshot: SnapshotStorage;
  outbox: WaitingStorage<OutboxItem>;
  account: WaitingStorage<AccountWaiting>;
}

/** Keeps nothing longer than the program. */
export function memoryStorage(): Storage {
  let snapshot: Snapshot | null = null;
  return {
    snapshot: {
      load: async () => structuredClone(snapshot),
      save: async (meta, records, removed) => {
        snapshot = structuredClone(merged(snapshot, meta, records, removed));
      },
    },
    outbox: memoryWaiting(),
    account: memoryWaiting(),
  };
}

function memoryWaiting<Item>(): WaitingStorage<Item> {
  let items: readonly Item[] = [];
  return {
    load: () => structuredClone([...items]),
    save: (now) => {
      items = structuredClone(now);
    },
  };
}

/** A snapshot with some conversations replaced and some taken out. */
export function merged(
  old: Snapshot | null,
  meta: SnapshotMeta,
  records: readonly ConversationRecord[],
  removed: readonly string[],
): Snapshot {
  const kept = new Map((old?.records ?? []).map((record) => [record.id, record]));
  for (const id of removed) kept.delete(id);
  for (const record of records) kept.set(record.id, record);
  return { meta, records: [...kept.values()] };
}
