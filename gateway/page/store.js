// What this browser keeps: who signed in (per tab), which device a tab is, pending messages (localStorage), and each device's
// snapshot of conversations and position (IndexedDB). Everything here may be missing or refused (private windows); then the
// page works, and starts afresh after a reload.
//
// A tab is a device of its own. It holds a Web Lock on its device for as long as it lives, so that a duplicated tab takes
// another device, and a tab opened later takes over a device that nobody uses any more, with what waited in its outbox.

const DATABASE = "antiphon";
const VERSION = 1;
/** A tab that is being reloaded lets go of its lock within milliseconds. */
const OWN_LOCK_WAIT_MS = 800;
const DEVICES_MAX = 20;

const readJson = (area, key, otherwise) => {
  try {
    return JSON.parse(area.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
};

const writeJson = (area, key, value) => {
  try {
    if (value === null) area.removeItem(key);
    else area.setItem(key, JSON.stringify(value));
  } catch {
    // Full or forbidden: see above.
  }
};

// ---- The tab's own: `{user, device, token}` -----------------------------------------------------------------------------

const SIGNED_IN = "antiphon.session";
export const loadSignedIn = () => readJson(sessionStorage, SIGNED_IN, null);
export const saveSignedIn = (value) => writeJson(sessionStorage, SIGNED_IN, value);

/** Names that signed in here before, for the sign-in form's suggestions. */
export const recentUsers = () => readJson(localStorage, "antiphon.users", []);
export const rememberUser = (user) =>
  writeJson(localStorage, "antiphon.users", [user, ...recentUsers().filter((one) => one !== user)].slice(0, 5));

// ---- Devices ------------------------------------------------------------------------------------------------------------

const devicesKey = (user) => `antiphon.devices.${user}`;

/** Takes a lock for the life of the page. Resolves with whether it was to be had. */
function holdLock(name, waitMs) {
  return new Promise((resolve) => {
    const options = waitMs > 0 ? { signal: AbortSignal.timeout(waitMs) } : { ifAvailable: true };
    navigator.locks
      .request(name, options, (lock) => {
        resolve(lock !== null);
        return lock === null ? undefined : new Promise(() => {});
      })
      .catch(() => resolve(false));
  });
}

/** The device that this tab is for `user`: its own again, else one that no tab uses, else a new one. */
export async function claimDevice(user, own) {
  const known = readJson(localStorage, devicesKey(user), []);
  const fresh = `page-${crypto.randomUUID()}`;
  let device = own ?? fresh;
  if (navigator.locks) {
    const candidates = [...(own ? [own] : []), ...known.filter((one) => one !== own), fresh];
    for (const candidate of candidates) {
      if (await holdLock(`antiphon.device.${user}.${candidate}`, candidate === own ? OWN_LOCK_WAIT_MS : 0)) {
        device = candidate;
        break;
      }
    }
  }
  writeJson(localStorage, devicesKey(user), [device, ...known.filter((one) => one !== device)].slice(0, DEVICES_MAX));
  return device;
}

// ---- Pending messages ---------------------------------------------------------------------------------------------------

export function outboxStorage(user, device) {
  const key = `antiphon.outbox.${user}.${device}`;
  return {
    load: () => readJson(localStorage, key, []),
    save: (items) => writeJson(localStorage, key, items.length > 0 ? items : null),
  };
}

/** What is half written in a conversation. */
export const loadDraft = (user, id) => readJson(sessionStorage, `antiphon.draft.${user}.${id}`, "");
export const saveDraft = (user, id, text) => writeJson(sessionStorage, `antiphon.draft.${user}.${id}`, text || null);

// ---- Snapshots ----------------------------------------------------------------------------------------------------------

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const completed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

function openDatabase() {
  const request = indexedDB.open(DATABASE, VERSION);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("meta");
    request.result.createObjectStore("conversations");
  };
  return done(request);
}

/** One device's snapshot; `save` is one transaction, so the position and the entries that it stands for never part. */
export class SnapshotStore {
  constructor(user, device) {
    this.owner = `${user} ${device}`;
    this.database = null;
  }

  async #open() {
    this.database ??= openDatabase();
    return this.database;
  }

  #all() {
    return IDBKeyRange.bound([this.owner, ""], [this.owner, "\uffff"]);
  }

  async load() {
    try {
      const database = await this.#open();
      const transaction = database.transaction(["meta", "conversations"]);
      const [meta, records] = await Promise.all([
        done(transaction.objectStore("meta").get(this.owner)),
        done(transaction.objectStore("conversations").getAll(this.#all())),
      ]);
      return meta ? { meta, records } : null;
    } catch {
      return null;
    }
  }

  async save(meta, records, removed) {
    const database = await this.#open();
    const transaction = database.transaction(["meta", "conversations"], "readwrite");
    transaction.objectStore("meta").put(meta, this.owner);
    const conversations = transaction.objectStore("conversations");
    for (const id of removed) conversations.delete([this.owner, id]);
    for (const record of records) conversations.put(record, [this.owner, record.id]);
    await completed(transaction);
  }
}
