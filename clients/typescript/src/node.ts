// For Node: a storage in a folder. Each file is replaced in one step and synced, so that a crash leaves the old or the new one.

import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { merged, type Snapshot, type Storage, type WaitingStorage } from "./storage.js";

/** Of one user and device: no two clients at once use one folder. It is made if it is not there, for its owner's eyes alone. */
export function folderStorage(folder: string): Storage {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const snapshotPath = join(folder, "snapshot.json");
  let snapshot = read<Snapshot>(snapshotPath);
  return {
    snapshot: {
      load: async () => structuredClone(snapshot),
      save: async (meta, records, removed) => {
        const next = merged(snapshot, meta, records, removed);
        const text = JSON.stringify(next);
        replace(snapshotPath, text);
        snapshot = JSON.parse(text) as Snapshot;
      },
    },
    outbox: waiting(join(folder, "outbox.json")),
    account: waiting(join(folder, "account.json")),
  };
}

const waiting = <Item>(path: string): WaitingStorage<Item> => ({
  load: () => read<Item[]>(path) ?? [],
  save: (items) => replace(path, JSON.stringify(items)),
});

/** What a file holds; null if there is none. One that cannot be read is an error: what waited to be sent may be in it. */
function read<Value>(path: string): Value | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return null;
    throw error;
  }
  try {
    return JSON.parse(text) as Value;
  } catch {
    throw new Error(`${path} is damaged; without it the client begins afresh, and what had not been sent is lost`);
  }
}

function replace(path: string, text: string): void {
  const temporary = `${path}.new`;
  const file = openSync(temporary, "w", 0o600);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(temporary, path);
}
