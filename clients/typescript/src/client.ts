// The client: owns what this device has been given and keeps it whole through drops, restarts and reloads. What changes is told to
// `subscribe`d listeners; what is known is there to be read at any time, without the network.

import { Account, type AccountNews } from "./account.js";
import { LIMITS } from "./codes.js";
import { Connection, type Push, type RequestKind, type Stopped } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Devices } from "./devices.js";
import { environment, Timers, type Environment } from "./environment.js";
import { RequestError } from "./failure.js";
import type { Answers, Entry, Pushes, Requests } from "./frames.js";
import { GAP_WAIT_MS, Gaps } from "./gaps.js";
import { Groups } from "./groups.js";
import { uuidV7 } from "./ids.js";
import { Marks } from "./marks.js";
import { Outbox, requestOf, type OutboxBody, type OutboxItem, type OutboxKind } from "./outbox.js";
import type { Inside } from "./parts.js";
import { Presence } from "./presence.js";
import { Progress } from "./progress.js";
import { memoryStorage, type Storage } from "./storage.js";
import { Typing, TYPING } from "./typing.js";
import { Views } from "./views.js";

const PERSIST_WAIT_MS = 200;
const LIST_WAIT_MS = 150;
/** A conversation that spoke within so long is not forgotten because a list (made a moment ago) lacks it. */
const LIST_DOUBT_MS = 10_000;
const TEMPORARY_TRIES_MAX = 5;
/** What a person asks for waits so long for the connection before it is refused. */
const ONLINE_WAIT_MS = 4_000;
/** So many members are listed of a conversation that is looked at. */
const MEMBERS_LISTED_MAX = 1_000;

/** What happened. Listeners read what they need from the client. */
export type Change =
  /** Entries of a conversation are new and in order, or (without entries) something else about it changed. */
  | { kind: "entries"; id: string; entries: Entry[] }
  /** A message means the user, in a large conversation that is not open: it is not (yet) among its entries. */
  | { kind: "mentioned"; id: string; entry: Entry & { kind: "message" } }
  /** So much was missed that the window begins anew at the end. */
  | { kind: "window"; id: string }
  /** The list of conversations. */
  | { kind: "list" }
  /** One is no member of it any more. */
  | { kind: "left"; id: string }
  /** Online or not, waiting messages. */
  | { kind: "status" }
  | { kind: "outbox" }
  /** Who types in it. */
  | { kind: "typing"; id: string }
  /** Account data: keys that are something else now. */
  | ({ kind: "account" } & AccountNews)
  | { kind: "presence"; users: string[] }
  /** An application's own event. */
  | ({ kind: "event" } & Pushes["happened"]);

export interface ClientOptions {
  /** The WebSocket address, such as `wss://chat.example.com/ws`. */
  url: string;
  /** The token's `sub`. */
  user: string;
  /** Tells one user's devices apart: made once, and kept. */
  device: string;
  /** Gives the token; `renew`: the last one was refused, or is about to be over. An error with `permanent: true` ends it. */
  token(renew: boolean): Promise<string> | string;
  /** Where what is known and what waits are kept. Without it nothing outlasts the program. */
  storage?: Storage;
  /** For the operator's eyes. */
  client?: { name: string; version: string };
  /** Fetches every entry of large conversations too, open or not: for a program that has to see all. Otherwise only what is open is whole. */
  everything?: boolean;
  environment?: Partial<Environment>;
}

/** How the client is. */
export interface Status {
  online: boolean;
  /** Since when there is no connection that has everything; null while there is one. */
  downSinceMs: number | null;
  stopped: Stopped | null;
  /** Messages and changes that are still to be sent. */
  waiting: number;
  /** Whether there is anything to show: a list from the server or from the last visit. */
  ready: boolean;
}

export class Client {
  readonly user: string;
  readonly device: string;
  readonly outbox: Outbox;
  readonly groups: Groups;
  /** What is kept for the user on all devices. */
  readonly account: Account;
  readonly devices: Devices;
  readonly presence: Presence;
  /** What the server accepts; empty before the first connection. */
  limits: Partial<Answers["connect"]["limits"]> = {};
  readonly #environment: Environment;
  readonly #timers: Timers;
  readonly #conversations = new Map<string, Conversation>();
  readonly #progress: Progress;
  readonly #connection: Connection;
  readonly #storage: Storage;
  readonly #listeners = new Set<(change: Change) => void>();
  readonly #gaps: Gaps;
  readonly #marks: Marks;
  readonly #typing: Typing;
  readonly #views: Views;
  readonly #token: ClientOptions["token"];
  readonly #older = new Map<string, Promise<number>>();
  #waiters: (() => void)[] = [];
  #listed = false;
  #caughtUp = false;
  #downSinceMs: number | null;
  #watched: string | null = null;
  /** The server's clock less this one's. */
  #clockOffsetMs = 0;

  constructor(options: ClientOptions) {
    this.user = options.user;
    this.device = options.device;
    this.#token = options.token;
    this.#environment = environment(options.environment);
    this.#timers = new Timers(this.#environment);
    this.#storage = options.storage ?? memoryStorage();
    this.#downSinceMs = this.#environment.now();
    this.#progress = new Progress(this.#conversations, this.#storage.snapshot, () => this.account.isWhole);
    const inside = this.#inside();
    this.#gaps = new Gaps(inside);
    this.#marks = new Marks(inside);
    this.#typing = new Typing(inside);
    this.#views = new Views({
      ...inside,
      user: this.user,
      wantsAll: options.everything ?? false,
      isConnected: () => this.#connection.state === "open",
      ask: (kind, body) => this.#connection.request(kind, body),
      conversation: (id, epoch, tail) => this.#conversation(id, epoch, tail),
      fetch: (conversation, sequence) => this.#fetch(conversation, sequence),
      restart: (conversation, epoch, tail) => this.#gaps.skip(conversation, epoch, tail),
      settled: (clientMessageId) => this.outbox.settle(clientMessageId),
      mentioned: (entry) => this.#emit({ kind: "mentioned", id: entry.conversation, entry }),
    });
    this.account = new Account({
      ...inside,
      storage: this.#storage.account,
      changed: (news) => {
        this.#persistSoon();
        this.#emit({ kind: "account", ...news });
      },
      claimed: (id) => void (this.#conversations.delete(id) && this.#progress.forgot(id)),
      settled: () => {
        this.#progress.settle();
        this.#persistSoon();
      },
    });
    this.devices = new Devices({ ask: (kind, body) => this.request(kind, body) });
    this.presence = new Presence({ ...inside, changed: (users) => this.#emit({ kind: "presence", users }) });
    this.groups = new Groups({
      ask: (kind, body) => this.request(kind, body),
      expect: (id, sequence) => this.#expect(id, sequence),
      joined: (id, epoch, sequence) => this.#joined(id, epoch, sequence),
      user: this.user,
    });
    this.outbox = new Outbox({
      storage: this.#storage.outbox,
      environment: this.#environment,
      newId: () => this.#newId(),
      send: (item) => this.#send(item),
      onAck: (item, answer) => this.#acknowledged(item, answer),
      onChange: () => this.#emit({ kind: "outbox" }),
    });
    const client = options.client ?? { name: "antiphon-client", version: "0.1.0" };
    this.#connection = new Connection({
      url: options.url,
      environment: this.#environment,
      hello: async (renew) => {
        const { resume } = this.#progress;
        const body = { token: await this.#token(renew), device: this.device, client };
        return resume ? { ...body, resume } : body;
      },
      onWelcome: (welcome) => this.#welcomed(welcome),
      onPush: (push) => this.#pushed(push),
      onState: () => this.#stateChanged(),
    });
  }

  // ---- Its life ---------------------------------------------------------------------------------------------------------

  /** Shows what the last visit left, then connects. */
  async start(): Promise<void> {
    const snapshot = await this.#storage.snapshot.load();
    // Another user's is not to be shown, and its position would be of no use.
    if (snapshot?.meta.user === this.user) {
      this.#progress.restore(snapshot.meta);
      this.#listed = snapshot.meta.listed;
      if (snapshot.meta.account) this.account.restore(snapshot.meta.account);
      for (const record of snapshot.records) this.#conversations.set(record.id, Conversation.fromRecord(record, this.user));
      this.#emit({ kind: "list" });
    }
    this.#connection.start();
  }

  /** Comes back after `status.stopped`, as for a person who asked for it. */
  resume(): void {
    this.#connection.start();
  }

  /** Ends the connection for good, and stores what is known. */
  stop(): Promise<void> {
    this.#connection.stop();
    this.#timers.clearAll();
    return this.persist();
  }

  /** The network came back, or somebody looks again: tries now. `insist`: a person asked, whatever the server said about when. */
  wake(insist = false): void {
    this.#connection.wake(insist);
  }

  /** Stores at once what would be stored in a moment. */
  persist(): Promise<void> {
    return this.#progress.persist({ user: this.user, listed: this.#listed, account: this.account.toRecord() });
  }

  /** Tells `listener` what happens, until the function that this gives is called. */
  subscribe(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get status(): Status {
    return {
      online: this.#connection.state === "open" && this.#caughtUp,
      downSinceMs: this.#downSinceMs,
      stopped: this.#connection.stopped,
      waiting: this.outbox.waiting,
      ready: this.#listed,
    };
  }

  /** Up to where this device has everything, as the server's own word for it. */
  get position(): string | null {
    return this.#progress.position;
  }

  // ---- What is there ----------------------------------------------------------------------------------------------------

  get conversations(): ReadonlyMap<string, Conversation> {
    return this.#conversations;
  }

  /** Conversations, the liveliest first. What waits in the outbox counts as life. */
  list(): Conversation[] {
    const pending = new Map(this.outbox.items.map((item) => [item.conversation, item.created_ms]));
    const time = (one: Conversation) => Math.max(one.lastTimeMs, pending.get(one.id) ?? 0);
    return [...this.#conversations.values()].sort((a, b) => time(b) - time(a) || (a.id < b.id ? -1 : 1));
  }

  /** Messages that are unread, in all conversations. */
  get unread(): number {
    let unread = 0;
    for (const conversation of this.#conversations.values()) unread += conversation.unread;
    return unread;
  }

  /** The conversation that is looked at, or none: it is open, and its members and their pointers are kept fresh. */
  watch(id: string | null): void {
    if (this.#watched !== null) this.#conversations.get(this.#watched)?.trim();
    this.#watched = id;
    this.#views.watch(id);
    if (this.#caughtUp) void this.#refreshWatched();
  }

  /** Another conversation that is shown, or is not any more, as beside the one that is watched. What is not open of a large one is not pushed. */
  view(id: string, open: boolean): void {
    this.#views.view(id, open);
  }

  /** Reads a page further back. Resolves with how many entries it brought; one page at a time. */
  loadOlder(id: string, limit = 50): Promise<number> {
    const conversation = this.#conversations.get(id);
    if (!conversation || conversation.atStart) return Promise.resolve(0);
    let work = this.#older.get(id);
    if (!work) {
      work = this.#pageBefore(conversation, limit).finally(() => this.#older.delete(id));
      this.#older.set(id, work);
    }
    return work;
  }

  async #pageBefore(conversation: Conversation, limit: number): Promise<number> {
    for (;;) {
      const before = conversation.low;
      const count = conversation.prepend(await this.request("history", { conversation: conversation.id, before, limit }));
      if (count > 0) this.#changed(conversation);
      // The window may have begun anew at the end while the page was under way, which is of no use then.
      if (count > 0 || conversation.low === before) return count;
    }
  }

  /** Reads back until an entry is here, so many pages at most. Resolves with whether it is. */
  async loadBackTo(id: string, sequence: number, pagesMax = 50): Promise<boolean> {
    const conversation = this.#conversations.get(id);
    for (let pages = 0; conversation && conversation.low > sequence && pages < pagesMax; pages += 1) {
      if ((await this.loadOlder(id, LIMITS.PAGE_ITEMS_MAX)) === 0) break;
    }
    return conversation?.at(sequence) != null;
  }

  // ---- What is done -----------------------------------------------------------------------------------------------------

  /** Sends a message, now or when there is a connection again. */
  send(id: string, message: OutboxBody<"send">): OutboxItem {
    return this.outbox.add("send", id, message);
  }

  /** A message says something else from now on. */
  edit(id: string, target: number, content: Omit<OutboxBody<"edit">, "target">): OutboxItem {
    return this.outbox.add("edit", id, { ...content, target });
  }

  /** Deletes a message for everybody. */
  delete(id: string, target: number): OutboxItem {
    return this.outbox.add("delete", id, { target });
  }

  /** Adds one's reaction, or takes it back. Nothing is sent, and null given, where that is so already or is about to be. */
  react(id: string, target: number, reaction: string, on: boolean): OutboxItem | null {
    const told = this.outbox
      .of(id)
      .findLast((item) => item.kind === "react" && item.target === target && item.reaction === reaction);
    const known =
      this.#conversations
        .get(id)
        ?.state(target)
        .reactions.find((one) => one.reaction === reaction)?.mine ?? false;
    const isOn = told?.kind === "react" && !told.failed ? told.on : known;
    return isOn === on ? null : this.outbox.add("react", id, { target, reaction, on });
  }

  pin(id: string, target: number, on: boolean): OutboxItem {
    return this.outbox.add("pin", id, { target, on });
  }

  /** Everything was seen by the user: of what is open all that is here, of what is not all that is known to be there. */
  markRead(id: string): void {
    const conversation = this.#conversations.get(id);
    if (!conversation) return;
    const last = this.#views.isFollowed(id) ? conversation.tail : conversation.end;
    if (last <= conversation.read) return;
    conversation.markRead(last);
    this.#changed(conversation);
    this.#marks.soon(id);
  }

  /** The user types in a conversation, or has stopped. */
  typing(id: string, on: boolean): void {
    this.#typing.typing(id, on);
  }

  /** Tells the others who are online of something for the moment. It may be lost. */
  event(id: string, event: string, data?: unknown): void {
    this.#connection.tell("event", { conversation: id, event, ...(data === undefined ? {} : { data }) } as Requests["event"]);
  }

  /** Finds or makes the conversation with another user. Resolves with its id. */
  direct(user: string): Promise<string> {
    return this.#create({ direct: user });
  }

  /** Makes a group. `key`: a UUID that is kept through retries, so that no second group comes of one. */
  group(group: { key: string; title?: string; members?: string[] }): Promise<string> {
    return this.#create({ group });
  }

  /** A request, once there is a connection; repeated a few times while the server says that it may work later. */
  async request<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): Promise<Answers[Kind]> {
    if (!this.#caughtUp) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        this.#environment.setTimeout(resolve, ONLINE_WAIT_MS);
      });
    }
    return this.#call(kind, body);
  }

  async #create(body: Requests["create"]): Promise<string> {
    const created = await this.request("create", body);
    await this.#joined(created.conversation, created.epoch, created.sequence);
    const conversation = this.#conversations.get(created.conversation);
    if (conversation && !conversation.described) {
      // The list lags behind; what is known from here will do until it comes.
      conversation.direct = body.direct ?? null;
      conversation.title = body.group?.title ?? "";
    }
    return created.conversation;
  }

  /** One is a member of it: it is listed soon, if it is not yet. */
  async #joined(id: string, epoch: number, sequence: number): Promise<void> {
    if (!this.#conversations.has(id)) await this.#refreshList();
    if (this.#conversations.has(id)) return;
    this.#conversation(id, epoch, sequence);
    this.#listSoon();
  }

  // ---- The connection ---------------------------------------------------------------------------------------------------

  #welcomed(welcome: Answers["connect"]): void {
    this.limits = welcome.limits;
    this.#clockOffsetMs = welcome.time_ms - this.#environment.now();
    this.#progress.connected();
    if (welcome.resume === "reset") {
      this.#progress.reset();
      this.#conversations.clear();
      this.#emit({ kind: "list" });
    }
    if (welcome.resume !== "resuming") {
      this.#listed = false;
      this.account.reset();
    }
    this.#views.connected();
  }

  #stateChanged(): void {
    if (this.#connection.state !== "open") {
      this.#downSinceMs ??= this.#environment.now();
      if (this.#caughtUp) this.outbox.closed();
      this.presence.closed();
      this.#views.closed();
      this.#caughtUp = false;
    }
    this.#emit({ kind: "status" });
  }

  #pushed(push: Push): void {
    switch (push.kind) {
      case "message":
        return this.#arrived(push.body);
      case "states":
        return this.#conversations.get(push.body.conversation)?.tellStates(push.body);
      case "receipt":
        return this.#receipt(push.body);
      case "happened":
        return this.#happened(push.body);
      case "expiring":
        return void this.#refreshToken();
      case "present":
        return this.presence.told(push.body.users);
      case "advanced":
        return this.#views.advanced(push.body);
      case "mentioned":
        return this.#views.mentioned(push.body);
      case "left":
        return this.#forget(push.body.conversation);
      case "too_far":
        return this.#tooFar(push.body);
      case "caught_up":
        return this.#hasCaughtUp(push.body.position);
      case "position":
        if (push.body.position !== undefined) this.#advance(push.body.position);
    }
  }

  #hasCaughtUp(position: string): void {
    this.#caughtUp = true;
    this.#downSinceMs = null;
    this.#advance(position);
    if (!this.#listed) this.#refreshList().catch(() => {});
    for (const conversation of this.#conversations.values()) {
      if (conversation.missing) this.#gaps.fillSoon(conversation, 0);
      if (conversation.read > conversation.readConfirmed) this.#marks.soon(conversation.id);
    }
    this.outbox.opened();
    this.account.caughtUp();
    this.presence.caughtUp();
    for (const waiter of this.#waiters.splice(0)) waiter();
    this.#marks.soon();
    void this.#refreshWatched();
    this.#emit({ kind: "status" });
  }

  #advance(position: string): void {
    if (this.#progress.advance(position)) this.#persistSoon();
  }

  /** The token is about to be over. If there is no other one, the session ends with it, and says why. */
  async #refreshToken(): Promise<void> {
    try {
      await this.#call("refresh", { token: await this.#token(true) });
    } catch {
      // Until then it goes on with the one that it has.
    }
  }

  // ---- Entries ----------------------------------------------------------------------------------------------------------

  #arrived(entry: Entry): void {
    if (this.account.takes(entry)) return;
    const conversation = this.#conversation(entry.conversation, entry.epoch, entry.sequence - 1);
    this.#take(conversation, entry);
    if (!conversation.described) this.#listSoon();
  }

  #take(conversation: Conversation, entry: Entry): void {
    if (!this.#views.takes(conversation, entry)) this.#deliver(conversation, conversation.ingest(entry));
  }

  #conversation(id: string, epoch: number, tail: number): Conversation {
    let conversation = this.#conversations.get(id);
    if (!conversation) {
      conversation = new Conversation(id, epoch, this.user);
      conversation.skip(epoch, tail);
      this.#conversations.set(id, conversation);
    }
    return conversation;
  }

  /** Entries are in order now: settle what follows from them, and say so. */
  #deliver(conversation: Conversation, entries: Entry[]): void {
    const { id } = conversation;
    conversation.heardMs = this.#environment.now();
    this.#progress.arrived(id);
    for (const entry of entries) {
      if (entry.sender !== this.user) this.#marks.soon(id);
      else if ("client_message_id" in entry) this.outbox.settle(entry.client_message_id);
    }
    this.outbox.settleUpTo(id, conversation.tail);
    if (conversation.missing) this.#gaps.fillSoon(conversation);
    else if (this.#progress.settle()) this.#persistSoon();
    this.#changed(conversation, entries);
  }

  #expect(id: string, sequence: number): void {
    const conversation = this.#conversations.get(id);
    // Of one that is left to the server nothing is waited for.
    if (!conversation || sequence <= conversation.tail || this.#views.isLeft(conversation)) return;
    conversation.expected = Math.max(conversation.expected, sequence);
    this.#gaps.fillSoon(conversation);
  }

  #fetch(conversation: Conversation, sequence: number): void {
    conversation.expected = Math.max(conversation.expected, sequence);
    this.#gaps.fillSoon(conversation, 0);
  }

  #tooFar({ conversation: id, epoch, last }: Pushes["too_far"]): void {
    if (id === this.account.id) return this.account.doubt();
    const conversation = this.#conversation(id, epoch, last);
    if (epoch < conversation.epoch || (epoch === conversation.epoch && last <= conversation.tail)) return;
    this.#gaps.skip(conversation, epoch, last);
  }

  #receipt({ conversation: id, user, read, delivered }: Pushes["receipt"]): void {
    const conversation = this.#conversations.get(id);
    if (!conversation) return;
    if (user === this.user) {
      conversation.confirm(read, delivered);
      if (conversation.markRead(read)) this.#listSoon();
    } else {
      conversation.markOther(user, read, delivered);
    }
    this.#changed(conversation);
  }

  #happened(body: Pushes["happened"]): void {
    const conversation = this.#conversations.get(body.conversation);
    if (body.event !== TYPING) return this.#emit({ kind: "event", ...body });
    if (conversation && body.user !== this.user) this.#typing.heard(conversation, body.user, body.data);
  }

  #forget(id: string): void {
    if (!this.#conversations.delete(id)) return;
    this.#progress.forgot(id);
    this.outbox.settleUpTo(id, Infinity);
    this.#progress.settle();
    this.#typing.ended(id);
    this.#views.left(id);
    this.#persistSoon();
    this.#emit({ kind: "left", id });
  }

  // ---- The outbox -------------------------------------------------------------------------------------------------------

  /** By the server's clock, as far as it is known: ids are held against it. */
  #newId(): string {
    const bytes = new Uint8Array(16);
    this.#environment.fillRandom(bytes);
    return uuidV7(this.#environment.now() + this.#clockOffsetMs, bytes);
  }

  #send(item: OutboxItem): Promise<Answers[OutboxKind]> {
    // The message says that its sender has stopped.
    if (item.kind === "send") this.#typing.ended(item.conversation);
    return this.#connection.request(item.kind, requestOf(item));
  }

  #acknowledged(item: OutboxItem, { sequence, ordinal, time_ms }: Answers[OutboxKind]): void {
    const { conversation: id } = item;
    const conversation = this.#conversations.get(id);
    if (!conversation) return this.outbox.settleUpTo(id, Infinity);
    if (item.kind === "send") {
      // A message is known whole, and shown at once.
      const where = { epoch: conversation.epoch, sequence, ordinal, time_ms, sender: this.user };
      this.#take(conversation, { ...requestOf(item), ...where, kind: "message" } as Entry);
    } else if (this.#views.isLeft(conversation)) {
      conversation.wentOn({ sequence, ordinal, time_ms });
      this.outbox.settle(item.client_message_id);
    } else if (sequence > conversation.tail) {
      // What came of a change is pushed like everybody's.
      this.#expect(id, sequence);
    } else {
      this.outbox.settleUpTo(id, conversation.tail);
    }
  }

  // ---- Lists ------------------------------------------------------------------------------------------------------------

  #listSoon(): void {
    this.#timers.later("list", LIST_WAIT_MS, () => this.#refreshList().catch(() => {}));
  }

  async #refreshList(): Promise<void> {
    const before = [...this.#conversations.keys()];
    const seen = new Set<string>();
    let after: string | undefined;
    do {
      const page: Answers["conversations"] = await this.#call("conversations", { after, limit: LIMITS.PAGE_ITEMS_MAX });
      for (const summary of page.conversations) {
        seen.add(summary.conversation);
        const conversation = this.#conversation(summary.conversation, summary.epoch, summary.last_sequence);
        conversation.describe(summary, this.#views.isLeft(conversation));
        // This device has seen that there is something.
        if (summary.unread > 0) this.#marks.soon(summary.conversation);
        if (conversation.missing) this.#gaps.fillSoon(conversation, GAP_WAIT_MS);
        this.#progress.changed(conversation.id);
      }
      after = page.next;
    } while (after !== undefined);
    for (const id of before) {
      const heardMs = this.#conversations.get(id)?.heardMs ?? -Infinity;
      if (!seen.has(id) && this.#environment.now() - heardMs > LIST_DOUBT_MS) this.#forget(id);
    }
    this.#listed = true;
    this.#marks.soon();
    this.#persistSoon();
    this.#emit({ kind: "list" });
  }

  async #refreshWatched(): Promise<void> {
    const conversation = this.#watched === null ? undefined : this.#conversations.get(this.#watched);
    if (!conversation) return;
    const { id } = conversation;
    try {
      const members: NonNullable<Answers["members"]["members"]> = [];
      let after: string | undefined;
      do {
        const page: Answers["members"] = await this.#call("members", {
          conversation: id,
          list: { after, limit: LIMITS.PAGE_ITEMS_MAX },
        });
        members.push(...(page.members ?? []));
        after = page.next;
      } while (after !== undefined && members.length < MEMBERS_LISTED_MAX);
      if (conversation.listMembers(members, after === undefined)) this.#listSoon();
      if (conversation.direct === null) conversation.settings = (await this.#call("settings", { conversation: id })).settings;
      this.#changed(conversation);
    } catch {
      // Disconnected: the next `caught_up` asks again.
    }
  }

  // ---- Helpers ----------------------------------------------------------------------------------------------------------

  #inside(): Inside {
    return {
      environment: this.#environment,
      timers: this.#timers,
      conversations: this.#conversations,
      isCaughtUp: () => this.#caughtUp,
      call: (kind, body) => this.#call(kind, body),
      tell: (kind, body) => this.#connection.tell(kind, body),
      deliver: (conversation, entries) => this.#deliver(conversation, entries),
      restarted: ({ id }) => this.#emit({ kind: "window", id }),
      forget: (id) => this.#forget(id),
      changed: (conversation) => this.#changed(conversation),
      listSoon: () => this.#listSoon(),
      typingChanged: (id) => this.#emit({ kind: "typing", id }),
    };
  }

  async #call<Kind extends RequestKind>(kind: Kind, body: Requests[Kind]): Promise<Answers[Kind]> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#connection.request(kind, body);
      } catch (error) {
        const isHopeless = !(error instanceof RequestError) || !error.temporary || error.code === "disconnected";
        if (isHopeless || tries === TEMPORARY_TRIES_MAX) throw error;
        await new Promise<void>((resolve) => this.#environment.setTimeout(resolve, error.retryAfterMs ?? 500 * tries));
      }
    }
  }

  #changed({ id }: Conversation, entries: Entry[] = []): void {
    this.#progress.changed(id);
    this.#persistSoon();
    this.#emit({ kind: "entries", id, entries });
  }

  #emit(change: Change): void {
    for (const listener of this.#listeners) listener(change);
  }

  #persistSoon(): void {
    this.#timers.later("persist", PERSIST_WAIT_MS, () => void this.persist());
  }
}
