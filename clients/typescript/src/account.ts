// Account data: what the user's applications keep for the user by key, the same on all devices: drafts, what is muted, settings.
//
// Every change is an entry of the user's account and comes like everything else, live and after an absence; where some may be missing, all is
// listed again. What is set here counts here at once, is kept over a restart at once, waits for a connection, and goes to the server a moment
// later (keys of the server's at once), the last of several only. Of what several devices set, the last one counts in the order in which the server gets it.

import { LIMITS } from "./codes.js";
import { RequestError } from "./failure.js";
import type { AccountItem, Answers, Entry } from "./frames.js";
import type { Inside } from "./parts.js";
import type { WaitingStorage } from "./storage.js";

/** What is typed comes key by key: so long it waits for more. */
const SET_WAIT_MS = 400;
/** What the server acts upon, such as who may see one, is not typed: it is to count at once. */
const SERVER_KEYS = "antiphon.";

/** What is kept over restarts. */
export interface AccountRecord {
  id: string | null;
  epoch: number;
  sequence: number;
  whole: boolean;
  items: [string, { value: unknown; sequence: number }][];
}

/** What was set here and is not on the server yet; without a value, the key is to be taken away. */
export interface AccountWaiting {
  key: string;
  value?: unknown;
  /** The entry that this device knew to have set the key, 0 if none. */
  base: number;
}

/** What became of keys. */
export interface AccountNews {
  keys: string[];
  /** Another device had set the key meanwhile, and what is set here has overwritten it. */
  overwrote?: true;
  /** The server refused what was set here; what it has counts again. */
  failed?: RequestError;
}

export type AccountInside = Pick<Inside, "timers" | "isCaughtUp" | "call"> & {
  storage: WaitingStorage<AccountWaiting>;
  /** Some keys are something else. */
  changed(news: AccountNews): void;
  /** A conversation is the account, and to be shown nowhere. */
  claimed(id: string): void;
  /** Nothing is missing any more. */
  settled(): void;
};

export class Account {
  readonly #inside: AccountInside;
  readonly #waiting: Map<string, AccountWaiting>;
  readonly #sending = new Set<string>();
  #items = new Map<string, { value: unknown; sequence: number }>();
  #id: string | null = null;
  #epoch = 0;
  #sequence = 0;
  #whole = false;
  /** What arrived while all is being listed, which the list may lack. */
  #meanwhile: Map<string, Arrived> | null = null;

  constructor(inside: AccountInside) {
    this.#inside = inside;
    this.#waiting = new Map(inside.storage.load().map((one) => [one.key, one]));
  }

  /** The conversation that changes are entries of, once it is known. */
  get id(): string | null {
    return this.#id;
  }

  /** Whether all that other devices set is known here. */
  get isWhole(): boolean {
    return this.#whole;
  }

  /** What a key is, as far as is known here; undefined if it is not set. */
  get(key: string): unknown {
    const waiting = this.#waiting.get(key);
    return waiting ? waiting.value : this.#items.get(key)?.value;
  }

  /** All keys that begin so. */
  keys(prefix = ""): string[] {
    const keys = new Set([...this.#items.keys(), ...this.#waiting.keys()]);
    return [...keys].filter((key) => key.startsWith(prefix) && this.get(key) !== undefined).sort();
  }

  /** Sets a key; without a value (or with null) it is not set any more. */
  set(key: string, value?: unknown): void {
    const now = value ?? undefined;
    if (isSame(now, this.get(key))) return;
    const base = this.#waiting.get(key)?.base ?? this.#items.get(key)?.sequence ?? 0;
    this.#waiting.set(key, now === undefined ? { key, base } : { key, value: now, base });
    this.#keep();
    this.#inside.changed({ keys: [key] });
    this.#sendSoon(key);
  }

  // ---- What comes -------------------------------------------------------------------------------------------------------

  /** Takes an entry, if it is of the account. */
  takes(entry: Entry): boolean {
    if (entry.kind !== "account_data") return entry.conversation === this.#id;
    const { conversation, epoch, sequence, key, value } = entry;
    if (!this.#isOf(conversation, epoch) || sequence <= this.#sequence) return true;
    const isNext = sequence === this.#sequence + 1;
    this.#sequence = sequence;
    this.#take(key, { value, sequence });
    if (!isNext && this.#whole) this.doubt();
    return true;
  }

  /** Something may be missing: all is listed anew. */
  doubt(): void {
    this.#whole = false;
    if (this.#inside.isCaughtUp()) void this.#list();
  }

  /** Positions are of another store: nothing that is known counts. */
  reset(): void {
    this.#whole = false;
    this.#sequence = 0;
  }

  caughtUp(): void {
    if (!this.#whole) void this.#list();
    for (const key of this.#waiting.keys()) this.#sendSoon(key);
  }

  toRecord(): AccountRecord {
    const [id, epoch, sequence, whole] = [this.#id, this.#epoch, this.#sequence, this.#whole];
    return { id, epoch, sequence, whole, items: [...this.#items] };
  }

  restore({ id, epoch, sequence, whole, items }: AccountRecord): void {
    [this.#id, this.#epoch, this.#sequence, this.#whole] = [id, epoch, sequence, whole];
    this.#items = new Map(items);
  }

  /** Whether it is of the account as it is known; an account that begins anew is known again at once. */
  #isOf(id: string, epoch: number): boolean {
    if (this.#id !== id) {
      this.#id = id;
      this.#inside.claimed(id);
    }
    if (epoch > this.#epoch) {
      if (this.#epoch > 0) this.#items.clear();
      [this.#epoch, this.#sequence] = [epoch, 0];
    }
    return epoch === this.#epoch;
  }

  #take(key: string, arrived: Arrived): void {
    this.#meanwhile?.set(key, arrived);
    const { value, sequence } = arrived;
    if ((this.#items.get(key)?.sequence ?? 0) >= sequence) return;
    if (value === undefined) this.#items.delete(key);
    else this.#items.set(key, { value, sequence });
    if (!this.#waiting.has(key)) this.#inside.changed({ keys: [key] });
  }

  async #list(): Promise<void> {
    if (this.#meanwhile) return;
    this.#meanwhile = new Map();
    try {
      const [items, sequence] = await this.#pages();
      const before = this.#items;
      this.#items = new Map(items.map(({ key, value, sequence }) => [key, { value, sequence }]));
      for (const [key, arrived] of this.#meanwhile) {
        if (arrived.sequence <= (this.#items.get(key)?.sequence ?? 0)) continue;
        if (arrived.value === undefined) this.#items.delete(key);
        else this.#items.set(key, { value: arrived.value, sequence: arrived.sequence });
      }
      this.#sequence = Math.max(this.#sequence, sequence);
      this.#whole = true;
      const keys = [...new Set([...before.keys(), ...this.#items.keys()])];
      const isNew = (key: string) => before.get(key)?.sequence !== this.#items.get(key)?.sequence && !this.#waiting.has(key);
      const changed = keys.filter(isNew);
      if (changed.length > 0) this.#inside.changed({ keys: changed });
      this.#inside.settled();
    } catch (error) {
      // A server that knows no account has none; otherwise the next `caught_up` asks again.
      this.#whole = error instanceof RequestError && error.code === "unknown_frame";
      if (this.#whole) this.#inside.settled();
    } finally {
      this.#meanwhile = null;
    }
  }

  /** All that is set, and the last change that the first page knew: what came after it has arrived since. */
  async #pages(): Promise<[AccountItem[], number]> {
    const items: AccountItem[] = [];
    let [after, known]: [string | undefined, number | undefined] = [undefined, undefined];
    do {
      const list = { limit: LIMITS.PAGE_ITEMS_MAX, ...(after === undefined ? {} : { after }) };
      const page: Answers["account"] = await this.#inside.call("account", { list });
      this.#isOf(page.conversation, page.epoch);
      items.push(...(page.items ?? []));
      known ??= page.sequence;
      after = page.next;
    } while (after !== undefined);
    return [items, known];
  }

  // ---- What goes --------------------------------------------------------------------------------------------------------

  #sendSoon(key: string): void {
    const waitMs = key.startsWith(SERVER_KEYS) ? 0 : SET_WAIT_MS;
    this.#inside.timers.later(`account ${key}`, waitMs, () => void this.#send(key));
  }

  async #send(key: string): Promise<void> {
    const sent = this.#waiting.get(key);
    if (!sent || this.#sending.has(key) || !this.#inside.isCaughtUp()) return;
    this.#sending.add(key);
    try {
      const set = sent.value === undefined ? { key } : { key, value: sent.value };
      const { conversation, epoch, sequence, replaced } = await this.#inside.call("account", { set });
      if (sequence > 0 && this.#isOf(conversation, epoch)) this.#took(key, sent, sequence, replaced);
      else this.#forget(key);
    } catch (error) {
      if (!(error instanceof RequestError) || !error.temporary) {
        if (this.#waiting.get(key) === sent) this.#forget(key);
        const failed = error instanceof RequestError ? { failed: error } : {};
        this.#inside.changed({ keys: [key], ...failed });
      }
    } finally {
      this.#sending.delete(key);
      if (this.#waiting.has(key) && this.#waiting.get(key) !== sent) this.#sendSoon(key);
    }
  }

  #forget(key: string): void {
    this.#waiting.delete(key);
    this.#keep();
  }

  #keep(): void {
    this.#inside.storage.save([...this.#waiting.values()]);
  }

  /** The server has what was set here. */
  #took(key: string, sent: AccountWaiting, sequence: number, replaced: number | undefined): void {
    const now = this.#waiting.get(key);
    if (now === sent) this.#forget(key);
    else if (now) {
      now.base = sequence;
      this.#keep();
    }
    const known = this.#items.get(key)?.sequence ?? 0;
    if (known < sequence) {
      if (sent.value === undefined) this.#items.delete(key);
      else this.#items.set(key, { value: sent.value, sequence });
      this.#meanwhile?.set(key, { value: sent.value, sequence });
    }
    // What came behind it counts here again, too.
    const isOver = known > sequence;
    const overwrote = replaced !== undefined && replaced !== sent.base ? { overwrote: true as const } : {};
    if (isOver || "overwrote" in overwrote) this.#inside.changed({ keys: [key], ...overwrote });
    else this.#inside.settled();
  }
}

interface Arrived {
  value: unknown;
  sequence: number;
}

/** As JSON has them. */
const isSame = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);
