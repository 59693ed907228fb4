// One conversation as this client has it: owns the order of its entries, the reorder buffer, unread counts and others' pointers.
//
// Invariant: `entries` ascend by sequence without a gap and end at `tail`; it may be empty, and `tail` then still says up to
// where the past is settled. What lies before `entries[0]` is fetched when somebody scrolls there. No network, no clock.

/** Entries that came ahead of their turn are kept up to this number; beyond, history has to bring them again. */
const BUFFER_MAX = 500;
/** A hole longer than this is not filled entry by entry: the window restarts at the end, and scrolling back pages it. */
export const FILL_MAX = 1_000;
/** What a message says, which an edit changes, and what it refers to, which stays. */
const WORDS = ["text", "json", "data", "content_type", "mentions", "everybody"];
const REFERENCES = ["reply_to", "thread", "forwarded"];
/** So many entries are kept for the next start of the page. */
const PERSISTED_MAX = 80;

export class Timeline {
  constructor(id, epoch, me) {
    this.id = id;
    this.me = me;
    /** The other member of a direct conversation. */
    this.direct = null;
    this.title = "";
    this.memberCount = 0;
    /** All members' names once they were listed, else null. */
    this.members = null;
    /** user → role, of those who are known to be more or less than members. */
    this.roles = new Map();
    /** user → {read, delivered} of the others. */
    this.pointers = new Map();
    /** Who types: user → until when that holds. */
    this.typing = new Map();
    /** Whether the list of conversations or a `created` entry told what this is. */
    this.described = false;
    /** My own pointers: what is so, and what the server has confirmed. */
    this.read = 0;
    this.readConfirmed = 0;
    this.deliveredConfirmed = 0;
    this.#restart(epoch, 0);
  }

  #restart(epoch, tail) {
    this.epoch = epoch;
    this.entries = [];
    this.buffer = new Map();
    this.tail = tail;
    /** The highest sequence heard of; above `tail` while something is missing. */
    this.expected = tail;
    /** The first sequence that the user may see, once history told. */
    this.first = null;
    this.lastOrdinal = null;
    this.lastTimeMs = 0;
    /** The ordinal that the read pointer stands at; null while unknown, and `unreadKnown` counts instead. */
    this.readOrdinal = null;
    this.unreadKnown = 0;
  }

  get last() {
    return this.entries.at(-1) ?? null;
  }

  get missing() {
    return this.expected > this.tail;
  }

  get atStart() {
    return this.first !== null && this.#low() <= this.first;
  }

  get unread() {
    if (this.readOrdinal === null || this.lastOrdinal === null) return this.unreadKnown;
    return Math.max(0, this.lastOrdinal - this.readOrdinal);
  }

  #low() {
    return this.entries[0]?.sequence ?? this.tail + 1;
  }

  /**
   * Takes a pushed entry, an entry of history after the tail, or one's own acknowledged message.
   * Returns the entries that are now in order, none if it was known or has to wait.
   */
  ingest(entry) {
    if (entry.epoch < this.epoch) return [];
    // A new incarnation of the log: nothing of the old one holds.
    if (entry.epoch > this.epoch) this.#restart(entry.epoch, entry.sequence - 1);
    if (entry.sequence <= this.tail) return [];
    this.expected = Math.max(this.expected, entry.sequence);
    if (entry.sequence > this.tail + 1) {
      if (this.buffer.size < BUFFER_MAX) this.buffer.set(entry.sequence, entry);
      return [];
    }
    const ready = [];
    for (let next = entry; next; next = this.buffer.get(this.tail + 1)) {
      this.buffer.delete(next.sequence);
      this.#append(next);
      ready.push(next);
    }
    return ready;
  }

  #append(entry) {
    this.tail = entry.sequence;
    this.entries.push(entry);
    if (this.readOrdinal === null) {
      const before = entry.kind === "message" ? entry.ordinal - 1 : entry.ordinal;
      this.readOrdinal = before - this.unreadKnown;
    }
    this.lastOrdinal = entry.ordinal;
    this.lastTimeMs = entry.time_ms;
    if (entry.kind === "message") {
      this.typing.delete(entry.sender);
      this.#readBySender(entry);
    }
    if (entry.kind === "edit" || entry.kind === "deletion") this.#change(entry);
    if (entry.kind === "title") this.title = entry.title;
    if (entry.kind === "created") this.#describeFrom(entry);
    if (entry.kind === "roles") for (const { user, role } of entry.roles) this.setRole(user, role);
    if (["membership", "bans", "joined"].includes(entry.kind)) this.#membersChanged(entry);
  }

  #membersChanged({ added = [], removed = [] }) {
    this.memberCount += added.length - removed.length;
    if (this.members) {
      this.members = [...new Set([...this.members, ...added])].filter((name) => !removed.includes(name)).sort();
    }
    for (const name of removed) {
      this.typing.delete(name);
      this.pointers.delete(name);
      this.roles.delete(name);
    }
  }

  role(name) {
    return this.roles.get(name) ?? "member";
  }

  setRole(name, role) {
    if (role === "member") this.roles.delete(name);
    else this.roles.set(name, role);
  }

  /** What a message here says from now on: nothing after a deletion. Earlier ones come from the server as they are. */
  #change(change) {
    const message = this.at(change.target);
    if (message?.kind !== "message") return;
    const parts = change.kind === "deletion" ? [...WORDS, ...REFERENCES] : WORDS;
    // An edit of which a later one took the words says nothing here.
    if (change.kind === "edit" && !WORDS.some((part) => change[part] !== undefined)) return;
    for (const part of parts) delete message[part];
    if (change.kind === "edit") for (const part of WORDS) if (change[part] !== undefined) message[part] = change[part];
  }

  /** How many messages are in each thread, by the sequence of its first one: of those that are here, all there are. */
  get replies() {
    const counts = new Map();
    for (const { thread } of this.entries) if (thread) counts.set(thread, (counts.get(thread) ?? 0) + 1);
    return counts;
  }

  /** Who writes has read up to there: the server moves the sender's pointers with the message and sends no receipt. */
  #readBySender({ sender, sequence }) {
    if (sender !== this.me) return this.markOther(sender, sequence, sequence);
    this.markRead(sequence);
    this.readConfirmed = Math.max(this.readConfirmed, sequence);
    this.deliveredConfirmed = Math.max(this.deliveredConfirmed, sequence);
  }

  #describeFrom(created) {
    this.described = true;
    this.title = created.title ?? "";
    this.members = [...created.members].sort();
    this.memberCount = created.members.length;
    this.direct = created.direct ? (created.members.find((name) => name !== this.me) ?? this.me) : null;
    if (!created.direct) this.setRole(created.sender, "owner");
  }

  /** Takes an answer of `history {after: tail}`. Returns the entries that are now in order. */
  fill(answer) {
    if (answer.epoch < this.epoch) return [];
    if (answer.epoch > this.epoch || answer.first > this.tail + 1) this.skip(answer.epoch, answer.first - 1);
    const ready = answer.entries.flatMap((entry) => this.ingest(entry));
    // The server's word on where the end is bounds what may still be missing.
    if (answer.entries.length === 0 && answer.last <= this.tail) this.expected = this.tail;
    return ready;
  }

  /** Gives up the window: everything up to `tail` is left to scrolling back. Returns buffered entries that now follow. */
  skip(epoch, tail) {
    const { buffer, expected, read, unread } = this;
    this.#restart(epoch, tail);
    this.expected = Math.max(expected, tail);
    this.read = read;
    this.unreadKnown = unread;
    return [...buffer.values()].sort((a, b) => a.sequence - b.sequence).flatMap((entry) => this.ingest(entry));
  }

  /** What to ask `history` for to see further back. */
  get before() {
    return this.#low();
  }

  /** Takes an answer of `history {before}`. Returns how many entries it brought. */
  prepend(answer) {
    if (answer.epoch !== this.epoch) return 0;
    this.first = answer.first;
    const low = this.#low();
    const older = answer.entries.filter((entry) => entry.sequence < low);
    // An answer that does not reach the window (it moved while the question was under way) is of no use.
    if (older.length === 0 || older.at(-1).sequence !== low - 1) return 0;
    if (this.entries.length === 0) {
      this.lastOrdinal = older.at(-1).ordinal;
      this.lastTimeMs = older.at(-1).time_ms;
      this.readOrdinal = this.lastOrdinal - this.unreadKnown;
    }
    this.entries = older.concat(this.entries);
    return older.length;
  }

  /** Takes a line of the list of conversations. */
  describe(summary) {
    if (summary.epoch > this.epoch || (!this.described && this.entries.length === 0 && this.buffer.size === 0)) {
      this.#restart(summary.epoch, summary.last_sequence);
      this.unreadKnown = summary.unread;
      this.lastTimeMs = summary.last_time_ms;
    }
    this.described = true;
    this.direct = summary.direct ?? null;
    this.title = summary.title;
    this.memberCount = summary.members;
    if (summary.role) this.setRole(this.me, summary.role);
    this.expected = Math.max(this.expected, summary.last_sequence);
    if (summary.epoch < this.epoch) return;
    if (this.entries.length === 0 && summary.last?.sequence === this.tail) {
      this.entries = [summary.last];
      this.lastOrdinal = summary.last.ordinal;
      this.lastTimeMs = summary.last.time_ms;
    }
    // A count of before this client's own last `read` says nothing.
    if (summary.read < this.read) return;
    this.read = summary.read;
    this.readConfirmed = Math.max(this.readConfirmed, summary.read);
    this.unreadKnown = summary.unread;
    const counted = this.at(summary.last_sequence);
    if (counted) this.readOrdinal = counted.ordinal - summary.unread;
  }

  /** My read pointer moved, here or on another device. Returns whether the unread count is now a guess. */
  markRead(sequence) {
    if (sequence <= this.read) return false;
    this.read = sequence;
    if (sequence >= this.tail) {
      this.readOrdinal = this.lastOrdinal;
      this.unreadKnown = 0;
      return false;
    }
    const entry = this.at(sequence);
    if (!entry) return true;
    this.readOrdinal = entry.ordinal;
    return false;
  }

  /** Somebody else's pointers; they only ever move forward. */
  markOther(user, read, delivered) {
    const known = this.pointers.get(user) ?? { read: 0, delivered: 0 };
    this.pointers.set(user, { read: Math.max(known.read, read), delivered: Math.max(known.delivered, delivered, read) });
  }

  at(sequence) {
    const index = sequence - this.#low();
    return index >= 0 ? (this.entries[index] ?? null) : null;
  }

  /** How far an own message got: `{delivered, read, others}` in members. */
  reach(sequence) {
    let [delivered, read] = [0, 0];
    for (const pointer of this.pointers.values()) {
      if (pointer.delivered >= sequence) delivered += 1;
      if (pointer.read >= sequence) read += 1;
    }
    return { delivered, read, others: Math.max(1, this.memberCount - 1) };
  }

  /** Forgets what nobody looks at. */
  trim() {
    if (this.entries.length > 2 * PERSISTED_MAX) this.entries = this.entries.slice(-PERSISTED_MAX);
  }

  toRecord() {
    const { id, epoch, direct, title, memberCount, members, described, read, readConfirmed, deliveredConfirmed } = this;
    const { tail, first, lastOrdinal, lastTimeMs, readOrdinal, unreadKnown } = this;
    return {
      ...{ id, epoch, direct, title, memberCount, members, described, read, readConfirmed, deliveredConfirmed },
      ...{ tail, first, lastOrdinal, lastTimeMs, readOrdinal, unreadKnown },
      pointers: [...this.pointers],
      roles: [...this.roles],
      entries: this.entries.slice(-PERSISTED_MAX),
    };
  }

  static fromRecord(record, me) {
    const timeline = new Timeline(record.id, record.epoch, me);
    const [pointers, roles] = [new Map(record.pointers), new Map(record.roles)];
    Object.assign(timeline, record, { pointers, roles, expected: record.tail });
    return timeline;
  }
}
