// What became of the messages of one conversation: edits, deletions, pins, reactions, replies. No network, no clock.
//
// The server tells it by `states` (all that happened up to `as_of`), and entries tell it one by one. Invariant: an entry counts once, on top
// of the state that does not have it yet. Who had a reaction already when `states` was made is not known; such a user's reaction is counted
// as the change that it says it is, which is wrong only where somebody adds what is there, or takes away what is not.

import type { EditEntry, Entry, MessageState as StateItem } from "./frames.js";

/** One reaction to a message. */
export interface Reaction {
  reaction: string;
  count: number;
  /** Whether one has it oneself. */
  mine: boolean;
}

/** What became of a message. */
export interface MessageState {
  /** The last edit. */
  readonly edited: { sequence: number; time_ms: number } | null;
  readonly deleted: boolean;
  readonly pinned: boolean;
  /** Messages in the thread that it began. */
  readonly replies: number;
  /** In the order in which each was first there. */
  readonly reactions: readonly Reaction[];
}

/** Entries that change a message. */
export type ChangeEntry = Extract<Entry, { kind: "edit" | "deletion" | "reaction" | "pin" }>;

export const isChange = (entry: Entry): entry is ChangeEntry => ["edit", "deletion", "reaction", "pin"].includes(entry.kind);

/** Nothing has happened. */
const UNTOUCHED: MessageState = Object.freeze({
  edited: null,
  deleted: false,
  pinned: false,
  replies: 0,
  reactions: Object.freeze([]),
});

interface Kept {
  edited: { sequence: number; time_ms: number } | null;
  deleted: boolean;
  pinned: boolean;
  replies: number;
  reactions: Reaction[];
  /** Changes up to here are in it. */
  asOf: number;
  /** Edits up to here are in what the message says. */
  wordsAsOf: number;
  /** The thread that it was in before it was deleted. */
  thread: number | undefined;
  /** By reaction and user, whether that user has it, as far as entries told. */
  who: Map<string, boolean>;
}

/** What a stored snapshot has of a message. */
export type MessageRecord = [sequence: number, kept: Omit<Kept, "who" | "wordsAsOf">];

export class Messages {
  readonly #me: string;
  readonly #kept = new Map<number, Kept>();

  constructor(me: string) {
    this.#me = me;
  }

  /** What became of the message at a sequence. */
  state(sequence: number): MessageState {
    return this.#kept.get(sequence) ?? UNTOUCHED;
  }

  /** Takes what the server says of a message, which may be here. Entries behind `asOf` have to be told again by `change`. */
  tell(item: StateItem, asOf: number, message: Entry | null): void {
    const { wordsAsOf, thread } = this.#of(item.sequence);
    this.#kept.set(item.sequence, {
      edited: item.edited ?? null,
      deleted: item.deleted ?? false,
      pinned: item.pinned ?? false,
      replies: item.replies ?? 0,
      reactions: (item.reactions ?? []).map(({ reaction, count, mine = false }) => ({ reaction, count, mine })),
      ...{ asOf, wordsAsOf, thread, who: new Map() },
    });
    if (item.deleted) this.#takeAway(item.sequence, message);
  }

  /** A message came by a page: it says what it said at `asOf`, and unless `states` named it, nothing had happened to it by then. */
  page(sequence: number, asOf: number): void {
    const kept = this.#of(sequence);
    if (kept.asOf < asOf) Object.assign(kept, untouched(), { asOf });
    kept.wordsAsOf = asOf;
  }

  /** A message was written, which may be in a thread. */
  wrote({ sequence, thread }: Entry & { kind: "message" }): void {
    const began = thread ?? this.#kept.get(sequence)?.thread;
    if (began === undefined) return;
    const root = this.#of(began);
    if (sequence <= root.asOf) return;
    root.replies += 1;
    root.asOf = sequence;
  }

  /**
   * Takes an entry that changes a message, which may be here. Entries come in order; what is known already changes nothing.
   */
  change(entry: ChangeEntry, message: Entry | null): void {
    switch (entry.kind) {
      case "edit":
        if (message?.kind === "message" && entry.sequence > this.#of(entry.target).wordsAsOf) reword(message, entry);
        return this.#apply(entry.target, entry.sequence, (kept) => {
          kept.edited = { sequence: entry.sequence, time_ms: entry.time_ms };
        });
      case "deletion":
        return this.#delete(entry.target, entry.sequence, message);
      case "pin":
        return this.#apply(entry.target, entry.sequence, (kept) => {
          kept.pinned = entry.on;
        });
      case "reaction":
        return this.#apply(entry.target, entry.sequence, (kept) => this.#react(kept, entry.sender, entry.reaction, entry.on));
    }
  }

  #delete(sequence: number, by: number, message: Entry | null): void {
    this.#takeAway(sequence, message);
    this.#apply(sequence, by, (kept) => Object.assign(kept, { deleted: true, edited: null, pinned: false, reactions: [] }));
    const { thread } = this.#of(sequence);
    if (thread === undefined) return;
    this.#apply(thread, by, (root) => {
      root.replies = Math.max(0, root.replies - 1);
    });
  }

  /** A message says nothing any more, and refers to nothing. */
  #takeAway(sequence: number, message: Entry | null): void {
    if (message?.kind !== "message") return;
    const kept = this.#of(sequence);
    kept.thread ??= message.thread;
    for (const part of [...WORDS, ...REFERENCES]) delete message[part];
  }

  #react(kept: Kept, user: string, reaction: string, on: boolean): void {
    const name = `${reaction} ${user}`;
    const at = kept.reactions.findIndex((one) => one.reaction === reaction);
    const known = kept.reactions[at];
    const isMine = user === this.#me;
    // Of oneself it is always known; of others, only if an entry told, or nobody has it.
    const had = isMine ? (known?.mine ?? false) : (kept.who.get(name) ?? (known === undefined ? false : !on));
    kept.who.set(name, on);
    if (had === on) return;
    if (on && known === undefined) kept.reactions.push({ reaction, count: 1, mine: isMine });
    if (known === undefined) return;
    known.count += on ? 1 : -1;
    if (isMine) known.mine = on;
    if (known.count <= 0) kept.reactions.splice(at, 1);
  }

  #apply(sequence: number, by: number, change: (kept: Kept) => void): void {
    const kept = this.#of(sequence);
    if (by <= kept.asOf) return;
    change(kept);
    kept.asOf = by;
  }

  #of(sequence: number): Kept {
    let kept = this.#kept.get(sequence);
    if (kept === undefined) {
      kept = { ...untouched(), asOf: 0, wordsAsOf: 0, thread: undefined };
      this.#kept.set(sequence, kept);
    }
    return kept;
  }

  /** The pinned messages that are known, in order. */
  get pinned(): number[] {
    return [...this.#kept]
      .filter(([, kept]) => kept.pinned)
      .map(([sequence]) => sequence)
      .sort((a, b) => a - b);
  }

  /** Forgets what became of messages before `sequence`, which are not here any more. */
  forgetBefore(sequence: number): void {
    for (const known of this.#kept.keys()) if (known < sequence) this.#kept.delete(known);
  }

  clear(): void {
    this.#kept.clear();
  }

  records(from: number): MessageRecord[] {
    return [...this.#kept]
      .filter(([sequence, kept]) => sequence >= from && !isUntouched(kept))
      .map(([sequence, { who, wordsAsOf, ...kept }]) => [sequence, structuredClone(kept)]);
  }

  restore(records: readonly MessageRecord[]): void {
    for (const [sequence, kept] of records) this.#kept.set(sequence, { ...structuredClone(kept), wordsAsOf: 0, who: new Map() });
  }
}

const untouched = (): Omit<Kept, "asOf" | "wordsAsOf" | "thread"> => ({
  ...{ edited: null, deleted: false, pinned: false, replies: 0, reactions: [], who: new Map() },
});

const isUntouched = ({ edited, deleted, pinned, replies, reactions }: MessageState): boolean =>
  edited === null && !deleted && !pinned && replies === 0 && reactions.length === 0;

/** What a message says, which an edit changes, and what it refers to, which stays. */
const WORDS = ["text", "json", "data", "content_type", "mentions", "everybody"] as const;
const REFERENCES = ["reply_to", "thread", "forwarded"] as const;

/** What a message says from now on. An edit of which a later one took the words says nothing here. */
function reword(message: Entry & { kind: "message" }, edit: EditEntry): void {
  if (!WORDS.some((part) => edit[part] !== undefined)) return;
  for (const part of WORDS) {
    delete message[part];
    if (edit[part] !== undefined) Object.assign(message, { [part]: edit[part] });
  }
}
