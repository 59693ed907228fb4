// The client's session: owns what this device has been given (conversations, position) and keeps it whole through drops,
// restarts and reloads. Everything is told to the page by `onChange`; nothing here touches the document.
//
// How nothing is lost or doubled: the server streams what came after the last *position*; `known` names the conversations of
// which entries arrived since; entries are taken in sequence order only, and a hole is filled from history. A position is
// taken over only while no conversation has a hole, and it is stored in one transaction with the entries that it covers.

import { Connection, RequestError } from "./connection.js";
import { Outbox } from "./outbox.js";
import { FILL_MAX, Timeline } from "./timeline.js";

/** A hole may heal by itself (two lanes race) for so long, then history is asked. The protocol allows up to 2 s. */
const GAP_WAIT_MS = 500;
/** `delivered` and `read` of so long go out as one. */
const POINTER_WAIT_MS = 200;
const PERSIST_WAIT_MS = 200;
const LIST_WAIT_MS = 150;
/** A hole that history does not fill after so many questions is not one that this user may see into. */
const FILL_TRIES = 4;
/** A conversation that spoke within so long is not forgotten because a list (made a moment ago) lacks it. */
const LIST_DOUBT_MS = 10_000;
const PAGE = 200;
const KNOWN_MAX = 1_000;
const TEMPORARY_TRIES = 5;
/** Who types says so again after so long, */
const TYPING_AGAIN_MS = 4_000;
/** and is taken to have stopped when nothing was heard for so long. */
const TYPING_HOLDS_MS = 6_000;
/** What a person asks for waits so long for the connection before it is refused. */
const ONLINE_WAIT_MS = 4_000;
const CLIENT = { name: "antiphon-page", version: "1" };

/** What a message of the outbox says. */
const said = ({ text, reply_to, thread }) => (thread ? { text, reply_to, thread } : { text });

export class Session {
  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.user
   * @param {string} options.device
   * @param {(renew: boolean) => Promise<string>} options.token
   * @param {object} options.store            `load`, `save(meta, records, removed)`, `reset`
   * @param {object} options.outboxStorage    `load`, `save`
   * @param {(change: {kind: string, id?: string, entries?: object[]}) => void} options.onChange
   * @param {object} options.env              now, setTimeout, clearTimeout, random, uuid, WebSocket
   */
  constructor({ url, user, device, token, store, outboxStorage, onChange, env }) {
    Object.assign(this, { user, device, token, store, onChange, env });
    this.timelines = new Map();
    this.limits = {};
    this.position = null;
    /** Conversations that got entries after `position`. */
    this.touched = new Set();
    /** A position that waits until no conversation has a hole: `{position, touched}`. */
    this.held = null;
    this.listed = false;
    this.caughtUp = false;
    /** Since when there is no caught-up connection; null while there is one. */
    this.downSinceMs = env.now();
    this.watched = null;
    this.dirty = new Set();
    this.removed = new Set();
    this.timers = new Map();
    this.filling = new Set();
    this.older = new Map();
    this.due = new Set();
    this.pointing = false;
    /** Where the user types, and when that was last told. */
    this.typed = null;
    this.waiters = [];
    this.outbox = new Outbox({
      storage: outboxStorage,
      env,
      send: (item) => this.#send(item),
      onAck: (item, ack) => this.#acknowledged(item, ack),
      onChange: () => this.#emit("outbox"),
    });
    this.connection = new Connection({
      url,
      env,
      hello: async (renew) => this.#hello(await token(renew)),
      onWelcome: (welcome) => this.#welcomed(welcome),
      onPush: (kind, body) => this.#pushed(kind, body),
      onState: () => this.#stateChanged(),
    });
  }

  get status() {
    const online = this.connection.state === "open" && this.caughtUp;
    return {
      online,
      downSinceMs: this.downSinceMs,
      stopped: this.connection.stopped,
      waiting: this.outbox.waiting,
      /** Whether anything can be shown: a list from the server or from the last visit. */
      ready: this.listed,
    };
  }

  async start() {
    const snapshot = await this.store.load();
    if (snapshot) {
      ({ position: this.position, listed: this.listed } = snapshot.meta);
      this.touched = new Set(snapshot.meta.touched);
      for (const record of snapshot.records) this.timelines.set(record.id, Timeline.fromRecord(record, this.user));
      this.#emit("list");
    }
    this.connection.start();
  }

  stop() {
    this.connection.stop();
    for (const timer of this.timers.values()) this.env.clearTimeout(timer);
    this.timers.clear();
  }

  // ---- What the page asks for -------------------------------------------------------------------------------------------

  /** Conversations, the liveliest first. A message in the outbox counts as life. */
  list() {
    const pending = new Map(this.outbox.items.map((item) => [item.conversation, item.created_ms]));
    const time = (timeline) => Math.max(timeline.lastTimeMs, pending.get(timeline.id) ?? 0);
    return [...this.timelines.values()].sort((a, b) => time(b) - time(a) || (a.id < b.id ? -1 : 1));
  }

  /** The conversation that is open now: its members' pointers are kept fresh. */
  watch(id) {
    this.timelines.get(this.watched)?.trim();
    this.watched = id;
    if (this.caughtUp) this.#refreshWatched();
  }

  /** Reads a page further back. Resolves with how many entries it brought; one page at a time. */
  loadOlder(id, limit = 50) {
    const timeline = this.timelines.get(id);
    if (!timeline || timeline.atStart) return Promise.resolve(0);
    if (!this.older.has(id)) {
      const work = this.#callWhenOnline("history", { conversation: id, before: timeline.before, limit })
        .then((answer) => {
          const count = timeline.prepend(answer);
          if (count > 0) this.#changed(timeline);
          return count;
        })
        .finally(() => this.older.delete(id));
      this.older.set(id, work);
    }
    return this.older.get(id);
  }

  /** Everything that is here was seen by the user. */
  markRead(id) {
    const timeline = this.timelines.get(id);
    if (!timeline || timeline.tail <= timeline.read) return;
    timeline.markRead(timeline.tail);
    this.#changed(timeline);
    this.#pointersSoon(id);
  }

  async create(body) {
    const created = await this.#callWhenOnline("create", body);
    if (!this.timelines.has(created.conversation)) await this.#refreshList();
    if (!this.timelines.has(created.conversation)) {
      // The list lags behind; what is known from here will do until it comes.
      const timeline = this.#timeline(created.conversation, created.epoch, created.sequence);
      timeline.direct = body.direct ?? null;
      timeline.title = body.group?.title ?? "";
      this.#listSoon();
    }
    return created.conversation;
  }

  async addMembers(id, names) {
    const answer = await this.#callWhenOnline("members", { conversation: id, add: names });
    this.#expect(id, answer.sequence);
  }

  async removeMember(id, name) {
    const answer = await this.#callWhenOnline("members", { conversation: id, remove: [name] });
    if (name !== this.user) this.#expect(id, answer.sequence);
  }

  async setRole(id, user, role) {
    const answer = await this.#callWhenOnline("roles", { conversation: id, set: [{ user, role }] });
    this.#expect(id, answer.sequence);
  }

  async rename(id, title) {
    const answer = await this.#callWhenOnline("title", { conversation: id, title });
    this.#expect(id, answer.sequence);
  }

  // ---- The connection's life --------------------------------------------------------------------------------------------

  #hello(token) {
    const body = { token, device: this.device, client: CLIENT };
    if (this.position !== null) {
      const known = [...this.touched].slice(0, KNOWN_MAX).flatMap((id) => {
        const timeline = this.timelines.get(id);
        return timeline ? [{ conversation: id, epoch: timeline.epoch, sequence: timeline.tail }] : [];
      });
      body.resume = { position: this.position, known };
    }
    return body;
  }

  /** The token is about to be over. If there is no other one, the session ends with it, and says why. */
  async #refresh() {
    try {
      await this.#call("refresh", { token: await this.token(true) });
    } catch {
      // Until then it goes on with the one that it has.
    }
  }

  #welcomed(welcome) {
    this.limits = welcome.limits ?? {};
    this.held = null;
    if (welcome.resume === "reset") {
      for (const id of this.timelines.keys()) this.removed.add(id);
      this.timelines.clear();
      this.touched.clear();
      this.dirty.clear();
      this.position = null;
      this.#emit("list");
    }
    if (welcome.resume !== "resuming") this.listed = false;
  }

  #stateChanged() {
    if (this.connection.state !== "open") {
      if (this.downSinceMs === null) this.downSinceMs = this.env.now();
      if (this.caughtUp) this.outbox.closed();
      this.caughtUp = false;
    }
    this.#emit("status");
  }

  #pushed(kind, body) {
    switch (kind) {
      case "message":
        return this.#arrived(body);
      case "receipt":
        return this.#receipt(body);
      case "happened":
        return this.#happened(body);
      case "expiring":
        return this.#refresh();
      case "left":
        return this.#forget(body.conversation);
      case "too_far":
        return this.#tooFar(body);
      case "caught_up":
        return this.#caughtUp(body);
      case "position":
        return this.#advance(body.position);
      default:
      // `goodbye` is the connection's; kinds of later versions are nobody's.
    }
  }

  #caughtUp({ position }) {
    this.caughtUp = true;
    this.downSinceMs = null;
    this.#advance(position);
    if (!this.listed) this.#refreshList().catch(() => {});
    for (const timeline of this.timelines.values()) {
      if (timeline.missing) this.#fillSoon(timeline, 0);
      if (timeline.read > timeline.readConfirmed) this.due.add(timeline.id);
    }
    this.outbox.opened();
    for (const waiter of this.waiters.splice(0)) waiter();
    this.#pointersSoon();
    this.#refreshWatched();
    this.#emit("status");
  }

  /** A new position. While a hole is open it is only noted: taking it over would tell the server that the hole is filled. */
  #advance(position) {
    if (!position) return;
    this.held = { position, touched: new Set() };
    this.#settlePosition();
  }

  #settlePosition() {
    if (!this.held) return;
    for (const timeline of this.timelines.values()) if (timeline.missing) return;
    this.position = this.held.position;
    this.touched = this.held.touched;
    this.held = null;
    this.#persistSoon();
  }

  // ---- Entries ----------------------------------------------------------------------------------------------------------

  #arrived(entry) {
    const timeline = this.#timeline(entry.conversation, entry.epoch, entry.sequence - 1);
    this.#deliver(timeline, timeline.ingest(entry));
    if (!timeline.described) this.#listSoon();
  }

  #timeline(id, epoch, tail) {
    let timeline = this.timelines.get(id);
    if (!timeline) {
      timeline = new Timeline(id, epoch, this.user);
      timeline.skip(epoch, tail);
      this.timelines.set(id, timeline);
      this.removed.delete(id);
    }
    return timeline;
  }

  /** Entries are in order now: settle what follows from them, and say so. */
  #deliver(timeline, entries) {
    timeline.heardMs = this.env.now();
    this.touched.add(timeline.id);
    this.held?.touched.add(timeline.id);
    for (const entry of entries) {
      if (entry.sender === this.user && entry.client_message_id) this.outbox.settle(entry.client_message_id);
      if (entry.sender !== this.user) this.#pointersSoon(timeline.id);
    }
    this.outbox.settleUpTo(timeline.id, timeline.tail);
    if (timeline.missing) this.#fillSoon(timeline, GAP_WAIT_MS);
    else this.#settlePosition();
    this.#changed(timeline, entries);
  }

  #expect(id, sequence) {
    const timeline = this.timelines.get(id);
    if (!timeline || !(sequence > timeline.tail)) return;
    timeline.expected = Math.max(timeline.expected, sequence);
    this.#fillSoon(timeline, GAP_WAIT_MS);
  }

  #fillSoon(timeline, delayMs) {
    // Before `caught_up` the stream itself is what fills holes.
    if (!this.caughtUp || this.filling.has(timeline.id)) return;
    this.#later(`fill ${timeline.id}`, delayMs, () => this.#fill(timeline));
  }

  async #fill(timeline) {
    const { id } = timeline;
    if (!timeline.missing || !this.caughtUp || this.timelines.get(id) !== timeline) return;
    if (timeline.expected - timeline.tail > FILL_MAX) return this.#skip(timeline, timeline.epoch, timeline.expected);
    this.filling.add(id);
    let again = null;
    const before = timeline.tail;
    try {
      const answer = await this.#call("history", { conversation: id, after: before, limit: PAGE });
      this.#deliver(timeline, timeline.fill(answer));
      const progress = timeline.tail > before;
      timeline.fillTries = progress ? 0 : (timeline.fillTries ?? 0) + 1;
      if (timeline.fillTries >= FILL_TRIES) this.#skip(timeline, timeline.epoch, timeline.expected);
      again = progress ? 0 : GAP_WAIT_MS;
    } catch (error) {
      // Disconnected: `caught_up` starts again. Not found: no member any more. Otherwise the range can't be had: go on after
      // it; scrolling back says why.
      if (error.code === "not_found") this.#forget(id);
      else if (error.code !== "disconnected") this.#skip(timeline, timeline.epoch, timeline.expected);
    } finally {
      this.filling.delete(id);
    }
    if (again !== null && timeline.missing) this.#fillSoon(timeline, again);
  }

  #tooFar({ conversation, epoch, last }) {
    const timeline = this.#timeline(conversation, epoch, last);
    if (epoch < timeline.epoch || (epoch === timeline.epoch && last <= timeline.tail)) return;
    this.#skip(timeline, epoch, last);
  }

  #skip(timeline, epoch, tail) {
    this.#deliver(timeline, timeline.skip(epoch, tail));
    this.#emit("window", { id: timeline.id });
    this.#listSoon();
  }

  #receipt({ conversation, user, read, delivered }) {
    const timeline = this.timelines.get(conversation);
    if (!timeline) return;
    if (user === this.user) {
      timeline.deliveredConfirmed = Math.max(timeline.deliveredConfirmed, delivered);
      timeline.readConfirmed = Math.max(timeline.readConfirmed, read);
      if (timeline.markRead(read)) this.#listSoon();
    } else {
      timeline.markOther(user, read, delivered);
    }
    this.#changed(timeline);
  }

  /** Events of other names are another application's. */
  #happened({ conversation, user, event, data }) {
    const timeline = this.timelines.get(conversation);
    if (!timeline || event !== "typing" || user === this.user) return;
    if (data?.on === false) timeline.typing.delete(user);
    else timeline.typing.set(user, this.env.now() + TYPING_HOLDS_MS);
    this.#emit("typing", { id: conversation });
    this.#typingEnds(timeline);
  }

  /** Those who have not been heard of for too long type no more. */
  #typingEnds(timeline) {
    if (timeline.typing.size === 0) return;
    const dueMs = Math.min(...timeline.typing.values()) - this.env.now();
    this.#later(`typing ${timeline.id}`, Math.max(0, dueMs), () => {
      const nowMs = this.env.now();
      for (const [user, untilMs] of timeline.typing) if (untilMs <= nowMs) timeline.typing.delete(user);
      this.#emit("typing", { id: timeline.id });
      this.#typingEnds(timeline);
    });
  }

  /** The user types in a conversation, or has stopped. */
  typing(conversation, on) {
    const isHere = this.typed?.id === conversation;
    if (on ? isHere && this.env.now() - this.typed.saidMs < TYPING_AGAIN_MS : !isHere) return;
    this.typed = on ? { id: conversation, saidMs: this.env.now() } : null;
    this.connection.tell("event", { conversation, event: "typing", data: { on } });
  }

  #forget(id) {
    if (!this.timelines.delete(id)) return;
    this.touched.delete(id);
    this.dirty.delete(id);
    this.removed.add(id);
    this.outbox.settleUpTo(id, Infinity);
    this.#settlePosition();
    if (this.typed?.id === id) this.typed = null;
    this.#persistSoon();
    this.#emit("left", { id });
  }

  // ---- Sending ----------------------------------------------------------------------------------------------------------

  #send({ conversation, client_message_id, ...item }) {
    // The message says that its sender has stopped.
    if (this.typed?.id === conversation) this.typed = null;
    return this.connection.request("send", { conversation, client_message_id, ...said(item) });
  }

  #acknowledged({ conversation, client_message_id, ...item }, { sequence, ordinal, time_ms }) {
    const timeline = this.timelines.get(conversation);
    if (!timeline) return this.outbox.settleUpTo(conversation, Infinity);
    const entry = { conversation, epoch: timeline.epoch, sequence, ordinal, time_ms, sender: this.user };
    this.#deliver(timeline, timeline.ingest({ ...entry, kind: "message", client_message_id, ...said(item) }));
  }

  // ---- Pointers ---------------------------------------------------------------------------------------------------------

  #pointersSoon(id) {
    if (id !== undefined) this.due.add(id);
    if (this.due.size > 0 && this.caughtUp) this.#later("pointers", POINTER_WAIT_MS, () => this.#sendPointers());
  }

  /** One request at a time: pointers are never worth a rate limit. */
  async #sendPointers() {
    if (this.pointing) return;
    this.pointing = true;
    try {
      await this.#sendDue();
    } finally {
      this.pointing = false;
    }
    this.#pointersSoon();
  }

  async #sendDue() {
    for (const id of [...this.due]) {
      this.due.delete(id);
      const timeline = this.timelines.get(id);
      if (!timeline) continue;
      try {
        if (timeline.read > timeline.readConfirmed) await this.#point(timeline, "read", timeline.read);
        if (timeline.tail > timeline.deliveredConfirmed) await this.#point(timeline, "delivered", timeline.tail);
      } catch (error) {
        // Whatever else was wrong with it, it would be wrong again.
        if (error.code === "disconnected") return void this.due.add(id);
      }
    }
  }

  async #point(timeline, kind, sequence) {
    const marked = await this.#call(kind, { conversation: timeline.id, sequence });
    timeline.readConfirmed = Math.max(timeline.readConfirmed, marked.read);
    timeline.deliveredConfirmed = Math.max(timeline.deliveredConfirmed, marked.delivered);
    if (marked.read > timeline.read && timeline.markRead(marked.read)) this.#listSoon();
    this.#changed(timeline);
  }

  // ---- Lists ------------------------------------------------------------------------------------------------------------

  #listSoon() {
    this.#later("list", LIST_WAIT_MS, () => this.#refreshList().catch(() => {}));
  }

  async #refreshList() {
    const before = new Set(this.timelines.keys());
    const seen = new Set();
    let after;
    do {
      const page = await this.#call("conversations", { after, limit: PAGE });
      for (const summary of page.conversations) {
        seen.add(summary.conversation);
        const timeline = this.#timeline(summary.conversation, summary.epoch, summary.last_sequence);
        timeline.describe(summary);
        // This device has seen that there is something.
        if (summary.unread > 0) this.due.add(summary.conversation);
        if (timeline.missing) this.#fillSoon(timeline, GAP_WAIT_MS);
        this.dirty.add(timeline.id);
      }
      after = page.next;
    } while (after);
    for (const id of before) {
      const heardMs = this.timelines.get(id)?.heardMs ?? -Infinity;
      if (!seen.has(id) && this.env.now() - heardMs > LIST_DOUBT_MS) this.#forget(id);
    }
    this.listed = true;
    this.#pointersSoon();
    this.#persistSoon();
    this.#emit("list");
  }

  async #refreshWatched() {
    const timeline = this.timelines.get(this.watched);
    if (!timeline) return;
    try {
      const members = [];
      let after;
      do {
        const page = await this.#call("members", { conversation: timeline.id, list: { after, limit: PAGE } });
        members.push(...page.members);
        after = page.next;
      } while (after);
      timeline.members = members.map((member) => member.user);
      timeline.memberCount = members.length;
      timeline.roles.clear();
      for (const { user, role } of members) if (role && !timeline.direct) timeline.setRole(user, role);
      for (const { user, read, delivered } of members) {
        if (user !== this.user) timeline.markOther(user, read, delivered);
        else if (timeline.markRead(read)) this.#listSoon();
      }
      this.#changed(timeline);
    } catch {
      // Disconnected: the next `caught_up` asks again.
    }
  }

  // ---- Helpers ----------------------------------------------------------------------------------------------------------

  async #callWhenOnline(kind, body) {
    if (!this.caughtUp) {
      await new Promise((resolve) => {
        this.waiters.push(resolve);
        this.env.setTimeout(resolve, ONLINE_WAIT_MS);
      });
    }
    return this.#call(kind, body);
  }

  /** A request that is repeated a few times while the server says that it may work later. */
  async #call(kind, body) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.connection.request(kind, body);
      } catch (error) {
        const hopeless = !(error instanceof RequestError) || !error.temporary || error.code === "disconnected";
        if (hopeless || tries === TEMPORARY_TRIES) throw error;
        await new Promise((resolve) => this.env.setTimeout(resolve, error.retryAfterMs ?? 500 * tries));
      }
    }
  }

  #changed(timeline, entries = []) {
    this.dirty.add(timeline.id);
    this.#persistSoon();
    this.#emit("entries", { id: timeline.id, entries });
  }

  #emit(kind, more = {}) {
    this.onChange({ kind, ...more });
  }

  /** Runs `action` after a while. If it is planned already, that plan stands. */
  #later(name, delayMs, action) {
    if (this.timers.has(name)) return;
    const timer = this.env.setTimeout(() => {
      this.timers.delete(name);
      action();
    }, delayMs);
    this.timers.set(name, timer);
  }

  #persistSoon() {
    this.#later("persist", PERSIST_WAIT_MS, () => this.persist());
  }

  /** Position, what is known after it, and the entries: together or not at all. */
  async persist() {
    const records = [...this.dirty].flatMap((id) => this.timelines.get(id)?.toRecord() ?? []);
    const removed = [...this.removed];
    this.dirty.clear();
    this.removed.clear();
    const meta = { user: this.user, position: this.position, touched: [...this.touched], listed: this.listed };
    try {
      await this.store.save(meta, records, removed);
    } catch {
      // No room, or a private window: the next start simply begins afresh from the server.
    }
  }
}
