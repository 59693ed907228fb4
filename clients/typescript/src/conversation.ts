// One conversation as this client has it: owns the order of its entries, the reorder buffer, unread counts and others' pointers.
//
// Invariant: `entries` ascend by sequence without a gap and end at `tail`; it may be empty, and `tail` then still says up to
// where the past is settled. What lies before `entries[0]` is fetched when somebody scrolls there. A large conversation may be known to go on
// beyond `tail`, up to `end`, with what lies between left to the server. No network, no clock.

import { LIMITS } from "./codes.js";
import type { Answers, ConversationSummary, CreatedEntry, Entry, Pushes, Role, Settings } from "./frames.js";
import { isChange, Messages, type MessageState } from "./messages.js";
import type { Ahead, ConversationRecord, Pointers } from "./record.js";

/** Entries that came ahead of their turn are kept up to this number; beyond, history has to bring them again. */
const BUFFER_MAX = 500;
/** A hole longer than two pages is not filled entry by entry: the window restarts at the end, and scrolling back pages it. */
export const FILL_MAX = 2 * LIMITS.PAGE_ITEMS_MAX;
/** So many entries are kept for the next start. */
const KEPT_MAX = 80;

export class Conversation {
  readonly id: string;
  readonly me: string;
  epoch: number;
  /** The other member of a direct conversation. */
  direct: string | null = null;
  title = "";
  picture = "";
  memberCount = 0;
  /** Members' names once they were listed, else null: all of them, or the first so many where there are very many. */
  members: string[] | null = null;
  /** A group's settings, once an entry or an answer told. */
  settings: Settings | null = null;
  /** By user, of those who are known to be more or less than members. */
  readonly roles = new Map<string, Role>();
  /** By user, of the others. */
  readonly pointers = new Map<string, Pointers>();
  /** Who types: by user, until when that holds. */
  readonly typing = new Map<string, number>();
  /** Whether the list of conversations or a `created` entry told what this is. */
  described = false;
  /** One's own pointers: what is so, and what the server has confirmed. */
  read = 0;
  readConfirmed = 0;
  deliveredConfirmed = 0;
  entries: Entry[] = [];
  tail = 0;
  /** The highest sequence that is to come here; above `tail` while something is missing. */
  expected = 0;
  /** The first sequence that the user may see, once history told. */
  first: number | null = null;
  lastTimeMs = 0;
  /** When something last came from the server. */
  heardMs = -Infinity;
  #buffer = new Map<number, Entry>();
  #ahead: Ahead | null = null;
  #lastOrdinal: number | null = null;
  /** The ordinal that the read pointer stands at; null while unknown, and `unreadKnown` counts instead. */
  #readOrdinal: number | null = null;
  #unreadKnown = 0;
  readonly #messages: Messages;

  constructor(id: string, epoch: number, me: string) {
    this.id = id;
    this.me = me;
    this.epoch = epoch;
    this.#messages = new Messages(me);
  }

  #restart(epoch: number, tail: number): void {
    if (epoch !== this.epoch || tail >= this.end) this.#ahead = null;
    this.epoch = epoch;
    this.entries = [];
    this.#buffer = new Map();
    this.tail = tail;
    this.expected = tail;
    this.first = null;
    this.lastTimeMs = 0;
    this.#lastOrdinal = null;
    this.#readOrdinal = null;
    this.#unreadKnown = 0;
    this.#messages.clear();
  }

  get last(): Entry | null {
    return this.entries.at(-1) ?? null;
  }

  get missing(): boolean {
    return this.expected > this.tail;
  }

  /** The last entry that is known to be there. */
  get end(): number {
    return Math.max(this.tail, this.#ahead?.sequence ?? 0);
  }

  /** Whether it has gone on beyond what is here. */
  get isBehind(): boolean {
    return this.end > this.tail;
  }

  /** Whether there is nothing further back that the user may see. */
  get atStart(): boolean {
    return this.first !== null && this.low <= this.first;
  }

  /** Messages behind the read pointer, up to `end`. */
  get unread(): number {
    const last = this.#ahead?.ordinal ?? this.#lastOrdinal;
    if (this.#readOrdinal === null || last === null) return this.#unreadKnown;
    return Math.max(0, last - this.#readOrdinal);
  }

  /** The first sequence that is here. */
  get low(): number {
    return this.entries[0]?.sequence ?? this.tail + 1;
  }

  at(sequence: number): Entry | null {
    return this.entries[sequence - this.low] ?? null;
  }

  /** What became of the message at a sequence. */
  state(sequence: number): MessageState {
    return this.#messages.state(sequence);
  }

  /** The pinned messages that are known, in order. `pins` asks for all. */
  get pinned(): number[] {
    return this.#messages.pinned;
  }

  role(user: string): Role {
    return this.roles.get(user) ?? "member";
  }

  setRole(user: string, role: Role): void {
    if (role === "member") this.roles.delete(user);
    else this.roles.set(user, role);
  }

  /** Whether one runs the group: its owner and its admins do. */
  get isRunByMe(): boolean {
    return ["owner", "admin"].includes(this.role(this.me));
  }

  /** Whether one may do what a group's settings leave to members or not, as far as they are known; in a direct conversation both may. */
  may(rule: "send" | "add" | "remove" | "info" | "pin" | "everybody"): boolean {
    if (this.direct !== null || this.isRunByMe) return true;
    return this.settings?.[rule] === "members" && this.role(this.me) !== "reader";
  }

  /** How far an own message got: `delivered` and `read` of `others` members. */
  reach(sequence: number): { delivered: number; read: number; others: number } {
    let [delivered, read] = [0, 0];
    for (const pointer of this.pointers.values()) {
      if (pointer.delivered >= sequence) delivered += 1;
      if (pointer.read >= sequence) read += 1;
    }
    return { delivered, read, others: Math.max(1, this.memberCount - 1) };
  }

  /** Who has read up to a sequence, in order of names. */
  seenBy(sequence: number): string[] {
    return [...this.pointers]
      .filter(([, { read }]) => read >= sequence)
      .map(([user]) => user)
      .sort();
  }

  // ---- Entries ----------------------------------------------------------------------------------------------------------

  /**
   * Takes a pushed entry, an entry of history after the tail, or one's own acknowledged message.
   * Returns the entries that are now in order, none if it was known or has to wait.
   */
  ingest(entry: Entry): Entry[] {
    if (entry.epoch < this.epoch) return [];
    // A new incarnation of the log: nothing of the old one holds.
    if (entry.epoch > this.epoch) this.#restart(entry.epoch, entry.sequence - 1);
    if (entry.sequence <= this.tail) return [];
    this.expected = Math.max(this.expected, entry.sequence);
    if (entry.sequence > this.tail + 1) {
      if (this.#buffer.size < BUFFER_MAX) this.#buffer.set(entry.sequence, entry);
      return [];
    }
    const ready: Entry[] = [];
    for (let next: Entry | undefined = entry; next; next = this.#buffer.get(this.tail + 1)) {
      this.#buffer.delete(next.sequence);
      this.#append(next);
      ready.push(next);
    }
    return ready;
  }

  #append(entry: Entry): void {
    this.tail = entry.sequence;
    this.entries.push(entry);
    if (this.#ahead && this.#ahead.sequence <= this.tail) this.#ahead = null;
    // The pointer may have been known before the entry that it is at.
    const isBeforeRead = entry.sequence < this.read && entry.ordinal > (this.#readOrdinal ?? 0);
    if (isBeforeRead || entry.sequence === this.read) this.#readOrdinal = entry.ordinal;
    this.#readOrdinal ??= (entry.kind === "message" ? entry.ordinal - 1 : entry.ordinal) - this.#unreadKnown;
    this.#lastOrdinal = entry.ordinal;
    this.lastTimeMs = Math.max(this.lastTimeMs, entry.time_ms);
    this.#tell(entry);
    // Entries of later kinds are counted, and say nothing here.
    switch (entry.kind) {
      case "message":
        this.typing.delete(entry.sender);
        return this.#readBySender(entry);
      case "created":
        return this.#describeFrom(entry);
      case "title":
        this.title = entry.title;
        return;
      case "roles":
        for (const { user, role } of entry.roles) this.setRole(user, role);
        return;
      case "settings":
        this.settings = entry.settings;
        this.picture = entry.settings.picture ?? "";
        return;
      case "membership":
        return this.#membersChanged(entry.added ?? [], entry.removed ?? []);
      case "joined":
        return this.#membersChanged(entry.added, []);
      case "bans":
        return this.#membersChanged([], entry.removed ?? []);
      case "retention":
        return this.#retained(entry.before);
    }
  }

  #membersChanged(added: readonly string[], removed: readonly string[]): void {
    this.memberCount += added.length - removed.length;
    this.members &&= [...new Set([...this.members, ...added])].filter((name) => !removed.includes(name)).sort();
    for (const name of removed) {
      this.typing.delete(name);
      this.pointers.delete(name);
      this.roles.delete(name);
    }
  }

  /** Entries before `before` are gone for everybody. */
  #retained(before: number): void {
    this.first = Math.max(this.first ?? 0, before);
    if (this.low < before) this.#cut(before);
  }

  /** Who writes has read up to there: the server moves the sender's pointers with the message and sends no receipt. */
  #readBySender({ sender, sequence }: Entry): void {
    if (sender !== this.me) return this.markOther(sender, sequence, sequence);
    this.markRead(sequence);
    this.readConfirmed = Math.max(this.readConfirmed, sequence);
    this.deliveredConfirmed = Math.max(this.deliveredConfirmed, sequence);
  }

  #describeFrom({ direct, title, members, sender }: CreatedEntry): void {
    this.described = true;
    this.title = title;
    this.members = [...members].sort();
    this.memberCount = members.length;
    this.direct = direct ? (members.find((name) => name !== this.me) ?? this.me) : null;
    if (!direct) this.setRole(sender, "owner");
  }

  /** It is known to go on up to here, and what is new does not come by itself. Returns whether the unread count is now a guess. */
  wentOn({ sequence, ordinal, time_ms }: Pick<Entry, "sequence" | "ordinal" | "time_ms">): boolean {
    const { end, read } = this;
    if (sequence <= end) return false;
    this.#ahead = { sequence, ordinal };
    this.lastTimeMs = Math.max(this.lastTimeMs, time_ms);
    const isGuess = sequence > read && (read > end || this.#readOrdinal === null);
    if (sequence <= read) this.#readOrdinal = ordinal;
    else this.#readOrdinal ??= ordinal - this.#unreadKnown;
    return isGuess;
  }

  /** The same by an entry that stays with the server with those before it. */
  pass(entry: Entry): boolean {
    const isGuess = this.wentOn(entry);
    if (entry.kind !== "message") return isGuess;
    const isOwn = entry.sender === this.me && entry.sequence > this.read;
    this.#readBySender(entry);
    if (isOwn) this.#readOrdinal = entry.ordinal;
    return isGuess && !isOwn;
  }

  /** Takes an answer of `history {after: tail}`. Returns the entries that are now in order. */
  fill(answer: Answers["history"]): Entry[] {
    if (answer.epoch < this.epoch) return [];
    if (answer.epoch > this.epoch || answer.first > this.tail + 1) this.skip(answer.epoch, answer.first - 1);
    // Of what was pushed meanwhile, the page is the later word.
    const fresh = answer.entries.filter(({ sequence }) => sequence > this.tail);
    for (const { sequence } of fresh) this.#buffer.delete(sequence);
    this.#paged(fresh, answer.last);
    const ready = fresh.flatMap((entry) => this.ingest(entry));
    // The server's word on where the end is bounds what may still be missing.
    if (answer.entries.length === 0 && answer.last <= this.tail) this.expected = this.tail;
    return ready;
  }

  /** Gives up the window: everything up to `tail` is left to scrolling back. Returns buffered entries that now follow. */
  skip(epoch: number, tail: number): Entry[] {
    const { expected, read, unread, lastTimeMs } = this;
    const buffered = [...this.#buffer.values()].sort((a, b) => a.sequence - b.sequence);
    this.#restart(epoch, tail);
    this.expected = Math.max(expected, tail);
    this.read = read;
    this.#unreadKnown = unread;
    this.lastTimeMs = lastTimeMs;
    return buffered.flatMap((entry) => this.ingest(entry));
  }

  /** Takes an answer of `history {before}`. Returns how many entries it brought. */
  prepend(answer: Answers["history"]): number {
    if (answer.epoch !== this.epoch) return 0;
    this.first = answer.first;
    const { low } = this;
    const older = answer.entries.filter((entry) => entry.sequence < low);
    const newest = older.at(-1);
    // An answer that does not reach the window (it moved while the question was under way) is of no use.
    if (newest === undefined || newest.sequence !== low - 1) return 0;
    if (this.entries.length === 0) {
      this.#lastOrdinal = newest.ordinal;
      this.lastTimeMs = newest.time_ms;
      this.#readOrdinal = newest.ordinal - this.#unreadKnown;
    }
    this.entries = older.concat(this.entries);
    this.#paged(older, answer.last);
    this.#tellAgain(answer.last);
    return older.length;
  }

  /** Messages of a page have everything up to its `last`, which may be ahead of what was pushed; `states` came before it. */
  #paged(entries: readonly Entry[], last: number): void {
    for (const { kind, sequence } of entries) if (kind === "message") this.#messages.page(sequence, last);
  }

  /** Takes what the server says of messages, and what came later on top. */
  tellStates({ epoch, as_of, states }: Pushes["states"]): void {
    if (epoch !== this.epoch) return;
    for (const item of states) this.#messages.tell(item, as_of, this.at(item.sequence));
    this.#tellAgain(as_of);
  }

  /** What entries behind `asOf` say, for messages that came, or came anew, as they were then. */
  #tellAgain(asOf: number): void {
    for (const entry of this.entries.slice(Math.max(0, asOf + 1 - this.low))) this.#tell(entry);
  }

  /** What an entry says of messages before it. */
  #tell(entry: Entry): void {
    if (isChange(entry)) this.#messages.change(entry, this.at(entry.target));
    if (entry.kind === "message") this.#messages.wrote(entry);
  }

  // ---- Pointers and lists -----------------------------------------------------------------------------------------------

  /** Takes a line of the list of conversations. `isLeft`: what is new stays with the server. */
  describe(summary: ConversationSummary, isLeft = false): void {
    if (summary.epoch > this.epoch || (!this.described && this.entries.length === 0 && this.#buffer.size === 0)) {
      this.#restart(summary.epoch, summary.last_sequence);
      this.#unreadKnown = summary.unread;
      this.lastTimeMs = summary.last_time_ms;
    }
    this.described = true;
    this.direct = summary.direct ?? null;
    this.title = summary.title;
    this.picture = summary.picture ?? "";
    this.memberCount = summary.members;
    if (this.direct === null) this.setRole(this.me, summary.role);
    if (!isLeft) this.expected = Math.max(this.expected, summary.last_sequence);
    if (summary.epoch < this.epoch) return;
    const counted = summary.last?.sequence === summary.last_sequence ? summary.last : this.at(summary.last_sequence);
    if (isLeft && counted) this.wentOn(counted);
    if (this.entries.length === 0 && summary.last?.sequence === this.tail) {
      this.entries = [summary.last];
      this.#lastOrdinal = summary.last.ordinal;
      this.lastTimeMs = summary.last.time_ms;
    }
    // A count of before this client's own last `read` says nothing.
    if (summary.read < this.read) return;
    this.read = summary.read;
    this.readConfirmed = Math.max(this.readConfirmed, summary.read);
    this.#unreadKnown = summary.unread;
    if (counted) this.#readOrdinal = counted.ordinal - summary.unread;
  }

  /** Takes answers of `members {list}` together: all, or (not `isWhole`) the first ones. Returns whether the unread count is now a guess. */
  listMembers(members: readonly { user: string; role: Role; read: number; delivered: number }[], isWhole = true): boolean {
    this.members = members.map(({ user }) => user);
    this.memberCount = isWhole ? members.length : Math.max(members.length, this.memberCount);
    if (isWhole) this.roles.clear();
    let isGuess = false;
    for (const { user, role, read, delivered } of members) {
      if (this.direct === null) this.setRole(user, role);
      if (user !== this.me) this.markOther(user, read, delivered);
      else isGuess = this.markRead(read);
    }
    return isGuess;
  }

  /** One's own read pointer moved, here or on another device. Returns whether the unread count is now a guess. */
  markRead(sequence: number): boolean {
    if (sequence <= this.read) return false;
    this.read = sequence;
    if (sequence >= this.end) {
      this.#readOrdinal = this.#ahead?.ordinal ?? this.#lastOrdinal;
      this.#unreadKnown = 0;
      return false;
    }
    const entry = this.at(sequence);
    if (!entry) return true;
    this.#readOrdinal = entry.ordinal;
    return false;
  }

  /** The server took one's pointers. */
  confirm(read: number, delivered: number): void {
    this.readConfirmed = Math.max(this.readConfirmed, read);
    this.deliveredConfirmed = Math.max(this.deliveredConfirmed, delivered);
  }

  /** Somebody else's pointers; they only ever move forward. */
  markOther(user: string, read: number, delivered: number): void {
    const known = this.pointers.get(user) ?? { read: 0, delivered: 0 };
    this.pointers.set(user, { read: Math.max(known.read, read), delivered: Math.max(known.delivered, delivered, read) });
  }

  // ---- What is kept -----------------------------------------------------------------------------------------------------

  /** Forgets what nobody looks at. */
  trim(): void {
    if (this.entries.length > 2 * KEPT_MAX) this.#cut(this.tail - KEPT_MAX + 1);
  }

  #cut(from: number): void {
    this.entries = this.entries.slice(Math.max(0, from - this.low));
    this.#messages.forgetBefore(from);
  }

  toRecord(): ConversationRecord {
    const { id, epoch, direct, title, picture, memberCount, members, described, read, readConfirmed, deliveredConfirmed } = this;
    const entries = this.entries.slice(-KEPT_MAX);
    return {
      ...{ id, epoch, direct, title, picture, memberCount, members, described, read, readConfirmed, deliveredConfirmed },
      tail: this.tail,
      first: this.first,
      lastOrdinal: this.#lastOrdinal,
      ahead: this.#ahead,
      lastTimeMs: this.lastTimeMs,
      readOrdinal: this.#readOrdinal,
      unreadKnown: this.#unreadKnown,
      pointers: [...this.pointers],
      roles: [...this.roles],
      entries,
      messages: this.#messages.records(entries[0]?.sequence ?? Infinity),
    };
  }

  static fromRecord(record: ConversationRecord, me: string): Conversation {
    const conversation = new Conversation(record.id, record.epoch, me);
    const { pointers, roles, messages, lastOrdinal, ahead = null, readOrdinal, unreadKnown, ...plain } = record;
    Object.assign(conversation, plain, { expected: record.tail });
    for (const [user, pointer] of pointers) conversation.pointers.set(user, pointer);
    for (const [user, role] of roles) conversation.roles.set(user, role);
    conversation.#lastOrdinal = lastOrdinal;
    conversation.#ahead = ahead;
    conversation.#readOrdinal = readOrdinal;
    conversation.#unreadKnown = unreadKnown;
    conversation.#messages.restore(messages);
    return conversation;
  }
}
