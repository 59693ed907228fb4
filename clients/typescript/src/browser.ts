// For a page: which device a tab is, what the browser keeps of it, and when it is worth trying again.
//
// A tab is a device of its own. It holds a Web Lock on its device for as long as it lives, so that a duplicated tab takes another device,
// and a tab opened later takes over a device that nobody uses any more, with what waited there to be sent. All of it may be missing or refused
// (private windows); then the page works, and starts afresh after a reload.

import type { Client } from "./client.js";
import type { ConversationRecord } from "./record.js";
import type { Snapshot, SnapshotMeta, SnapshotStorage, Storage, WaitingStorage } from "./storage.js";

const DATABASE = "antiphon";
/** A database of another version is emptied: what is in it is the server's, too. */
const VERSION = 2;
const STORES = ["meta", "conversations"];
/** A tab that is being reloaded lets go of its lock within milliseconds. */
const OWN_LOCK_WAIT_MS = 800;
const DEVICES_MAX = 20;

/** Tries again at once when the network returns or the page is looked at, and stores what is known when it is left. */
export function followPage(client: Client): () => void {
  const controller = new AbortController();
  const { signal } = controller;
  const wake = () => client.wake();
  addEventListener("online", wake, { signal });
  // A connection that is over should be seen to be.
  addEventListener("offline", wake, { signal });
  addEventListener("pagehide", () => void client.persist(), { signal });
  const seen = () => (document.visibilityState === "visible" ? client.wake() : void client.persist());
  document.addEventListener("visibilitychange", seen, { signal });
  return () => controller.abort();
}

/** The device that this tab is for `user`: its own again, else one that no tab uses, else a new one. */
export async function claimDevice(user: string, own: string | null = null): Promise<string> {
  const key = `antiphon.devices.${user}`;
  const known = readJson<string[]>(key) ?? [];
  const fresh = `page-${crypto.randomUUID()}`;
  let device = own ?? fresh;
  if ("locks" in navigator) {
    const candidates = [...(own === null ? [] : [own]), ...known.filter((one) => one !== own), fresh];
    for (const candidate of candidates) {
      if (await holdLock(`antiphon.device.${user}.${candidate}`, candidate === own ? OWN_LOCK_WAIT_MS : 0)) {
        device = candidate;
        break;
      }
    }
  }
  writeJson(key, [device, ...known.filter((one) => one !== device)].slice(0, DEVICES_MAX));
  return device;
}

/** Takes a lock for the life of the page. Resolves with whether it was to be had. */
function holdLock(name: string, waitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const options = waitMs > 0 ? { signal: AbortSignal.timeout(waitMs) } : { ifAvailable: true };
    navigator.locks
      .request(name, options, (lock) => {
        resolve(lock !== null);
        return lock === null ? undefined : new Promise<void>(() => {});
      })
      .catch(() => resolve(false));
  });
}

/** What waits in localStorage, since that is there at once; the snapshot in IndexedDB. */
export function browserStorage(user: string, device: string): Storage {
  return {
    snapshot: new IndexedDatabase(`${user} ${device}`),
    outbox: waiting(`antiphon.outbox.${user}.${device}`),
    account: waiting(`antiphon.account.${user}.${device}`),
  };
}

const waiting = <Item>(key: string): WaitingStorage<Item> => ({
  load: () => readJson<Item[]>(key) ?? [],
  save: (items) => writeJson(key, items.length > 0 ? items : null),
});

/** One device's snapshot; `save` is one transaction. */
class IndexedDatabase implements SnapshotStorage {
  readonly #owner: string;
  #database: Promise<IDBDatabase> | null = null;

  constructor(owner: string) {
    this.#owner = owner;
  }

  #open(): Promise<IDBDatabase> {
    this.#database ??= openDatabase();
    return this.#database;
  }

  async load(): Promise<Snapshot | null> {
    try {
      const transaction = (await this.#open()).transaction(STORES);
      const mine = IDBKeyRange.bound([this.#owner, ""], [this.#owner, "\uffff"]);
      const [meta, records] = await Promise.all([
        done<SnapshotMeta | undefined>(transaction.objectStore("meta").get(this.#owner)),
        done<ConversationRecord[]>(transaction.objectStore("conversations").getAll(mine)),
      ]);
      return meta ? { meta, records } : null;
    } catch {
      return null;
    }
  }

  async save(meta: SnapshotMeta, records: ConversationRecord[], removed: string[]): Promise<void> {
    const transaction = (await this.#open()).transaction(STORES, "readwrite");
    transaction.objectStore("meta").put(meta, this.#owner);
    const conversations = transaction.objectStore("conversations");
    for (const id of removed) conversations.delete([this.#owner, id]);
    for (const record of records) conversations.put(record, [this.#owner, record.id]);
    await completed(transaction);
  }
}

function openDatabase(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    for (const name of [...database.objectStoreNames]) database.deleteObjectStore(name);
    for (const name of STORES) database.createObjectStore(name);
  };
  return done(request);
}

const done = <Value>(request: IDBRequest<Value>): Promise<Value> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const completed = (transaction: IDBTransaction): Promise<void> =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

function readJson<Value>(key: string): Value | null {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") as Value | null;
  } catch {
    return null;
  }
}

function writeJson(key: string, value: unknown): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Full or forbidden: see above.
  }
}
