// A node in memory that speaks the protocol's JSON form: what the tests drive the client against. It owns the
// conversations' logs; how its frames travel (late, twice, in another order, not at all) is the test's business.
//
// A connection is `{deliver(text), end(code)}`: `accept` returns the handler of what the client sends.

import { createHash, randomUUID } from "node:crypto";

const RESUME_ENTRIES_MAX = 200;
const PAGE_MAX = 200;
const DEVICES = "antiphon.devices";

const conversationId = (...parts) => {
  const hex = createHash("sha256").update(parts.join("\n")).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
};

export class Refusal extends Error {
  constructor(code, text = code, temporary = false, retry_after_ms = undefined) {
    super(text);
    Object.assign(this, { frame: { code, text, temporary, retry_after_ms }, goodbye: null });
  }

  /** The same, after which the connection is closed. */
  closing(code, reason) {
    return Object.assign(this, { goodbye: { code, reason } });
  }
}

export class FakeNode {
  constructor({ now = Date.now, state = null, userOf = (token) => token, issuedMsOf = () => 0 } = {}) {
    this.now = now;
    this.userOf = userOf;
    this.issuedMsOf = issuedMsOf;
    this.commits = state?.commits ?? 0;
    this.store = state?.store ?? randomUUID();
    this.conversations = new Map(state?.conversations ?? []);
    /** What users have set, by user. */
    this.accounts = new Map(state?.accounts ?? []);
    this.connections = new Set();
    /** In a conversation of more members entries are pushed to connections that have it open, and others are told that it went on. */
    this.bodiesMembers = state?.bodiesMembers ?? Infinity;
    /** So many devices of a user are connected at most. */
    this.devicesMax = 10;
    /** When users went. */
    this.lastSeen = new Map();
    /** Called with every request before it is carried out; may throw a Refusal. */
    this.gate = () => {};
    /** Called after a commit. */
    this.onCommit = () => {};
  }

  toState() {
    const { commits, store, bodiesMembers } = this;
    return { commits, store, bodiesMembers, conversations: [...this.conversations], accounts: [...this.accounts] };
  }

  /** Every connection ends without a word, as when the process is killed. */
  crash(code = 1006) {
    for (const connection of [...this.connections]) connection.end(code);
    this.connections.clear();
  }

  accept(transport) {
    const connection = { ...transport, user: null };
    this.connections.add(connection);
    return {
      received: (text) => this.#received(connection, JSON.parse(text)),
      closed: () => this.#closed(connection),
    };
  }

  #close(connection, goodbye) {
    connection.deliver(JSON.stringify({ goodbye }));
    connection.end(goodbye.code);
    this.#closed(connection);
  }

  #closed(connection) {
    const { user } = connection;
    if (!this.connections.delete(connection) || user === null || this.#isThere(user)) return;
    this.lastSeen.set(user, this.now());
    this.#tellPresence(user);
  }

  position(commits = this.commits) {
    return Buffer.from(`${this.store} ${commits}`).toString("base64url");
  }

  #received(connection, { id, ...rest }) {
    const [[kind, body]] = Object.entries(rest);
    try {
      this.gate(kind, body, connection);
      if (kind === "connect") return this.#connect(connection, id, body);
      if (!connection.user) throw new Refusal("not_connected");
      const handler = this[`on_${kind}`];
      if (!handler) throw new Refusal("unknown_frame");
      const answer = handler.call(this, connection, body);
      if (kind === "history") this.#tellStates(connection, answer);
      connection.deliver(JSON.stringify({ id, [kind]: answer }));
      if (kind === "devices") this.#closeRevoked(connection.user);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      connection.deliver(JSON.stringify({ id, error: error.frame }));
      if (error.goodbye) this.#close(connection, error.goodbye);
    }
  }

  #tellStates(connection, { conversation, entries }) {
    const sequences = entries.filter(({ kind }) => kind === "message").map(({ sequence }) => sequence);
    for (const frame of this.#states(this.conversations.get(conversation), sequences, connection.user)) {
      connection.deliver(JSON.stringify(frame));
    }
  }

  #connect(connection, id, { token, device, resume }) {
    const user = this.userOf(token);
    const issuedMs = this.issuedMsOf(token);
    if (this.#isRevoked({ user, device, issuedMs })) throw new Refusal("revoked").closing(4504, "revoked");
    for (const other of [...this.connections]) {
      if (other !== connection && other.user === user && other.device === device) {
        other.deliver(JSON.stringify({ goodbye: { code: 4502, reason: "replaced" } }));
        other.end(4502);
        this.connections.delete(other);
      }
    }
    if (this.#devicesOf(user).length >= this.devicesMax) throw new Refusal("limit_reached").closing(4505, "too_many_devices");
    const isFirst = !this.#isThere(user);
    Object.assign(connection, { user, device, issuedMs });
    if (isFirst) this.#tellPresence(user);
    let outcome = "fresh";
    const missing = [];
    if (resume) {
      const [store, commits] = Buffer.from(resume.position, "base64url").toString().split(" ");
      outcome = store === this.store && Number(commits) <= this.commits ? "resuming" : "reset";
      if (outcome === "resuming") this.#missing(user, Number(commits), resume.known ?? [], missing);
    }
    const limits = { text_bytes_max: 16384, members_per_request_max: 100, group_members_max: 200000, page_items_max: PAGE_MAX };
    const welcome = { user, device, session: "1", time_ms: this.now(), heartbeat_interval_ms: 30_000, resume: outcome, limits };
    connection.deliver(JSON.stringify({ id, connect: welcome }));
    for (const frame of missing) connection.deliver(JSON.stringify(frame));
    connection.deliver(JSON.stringify({ caught_up: { position: this.position() } }));
  }

  #missing(user, commits, known, frames) {
    for (const conversation of this.conversations.values()) {
      const { id, epoch, log, members, departed = {} } = conversation;
      if (departed[user] > commits && !members[user]) {
        frames.push({ left: { conversation: id, sequence: log.length } });
        continue;
      }
      if (!members[user]) continue;
      const has = known.find((one) => one.conversation === id)?.sequence ?? 0;
      const first = members[user].first;
      const entries = log.filter((entry) => entry.commit > commits && entry.sequence > has && entry.sequence >= first);
      if (entries.length > RESUME_ENTRIES_MAX) {
        frames.push({ too_far: { conversation: id, epoch, first, last: log.length } });
      } else {
        frames.push(...entries.map((entry) => ({ message: this.#shown(entry) })));
        const touched = entries.flatMap((entry) => (entry.kind === "message" ? [entry.sequence] : [entry.target, entry.thread]));
        frames.push(...this.#states(conversation, [...new Set(touched)].filter(Boolean), user));
      }
    }
  }

  /** An entry as it is now: what was edited says what its last edit says, what was deleted says nothing. */
  #shown({ commit, ...entry }) {
    const { log } = this.conversations.get(entry.conversation);
    const target = entry.kind === "edit" ? entry.target : entry.sequence;
    if (entry.kind !== "edit" && entry.kind !== "message") return entry;
    const changes = log.filter((one) => one.target === target);
    const lastEdit = changes.findLast((one) => one.kind === "edit");
    const isDeleted = changes.some((one) => one.kind === "deletion");
    const { text, reply_to, thread, ...rest } = entry;
    if (isDeleted || (entry.kind === "edit" && lastEdit.sequence !== entry.sequence)) return rest;
    return lastEdit ? { ...entry, text: lastEdit.text } : entry;
  }

  /** For tests: one more entry, whatever it is. */
  append(id, user, fields) {
    return this.#append(this.conversations.get(id), user, fields);
  }

  /** For tests: a conversation's entries as they are now. */
  shownLog(id) {
    return this.conversations.get(id).log.map((entry) => this.#shown(entry));
  }

  /** For tests: what became of one message, as a user is told. */
  stateOf(id, sequence, user) {
    const [frame] = this.#states(this.conversations.get(id), [sequence], user);
    return frame?.states.states[0] ?? { sequence };
  }

  /** What became of messages, as far as anything did. */
  #states(conversation, sequences, user) {
    const { id, epoch, log } = conversation;
    const states = sequences.flatMap((sequence) => {
      const changes = log.filter((one) => one.target === sequence);
      const state = { sequence };
      const edit = changes.findLast((one) => one.kind === "edit");
      if (changes.some((one) => one.kind === "deletion")) {
        state.deleted = true;
      } else {
        if (edit) state.edited = { sequence: edit.sequence, time_ms: edit.time_ms };
        if (changes.findLast((one) => one.kind === "pin")?.on) state.pinned = true;
        const has = new Map();
        for (const { kind, sender, reaction, on } of changes) {
          if (kind !== "reaction") continue;
          const users = has.get(reaction) ?? new Set();
          if (on) users.add(sender);
          else users.delete(sender);
          if (users.size > 0) has.set(reaction, users);
          else has.delete(reaction);
        }
        const reactions = [...has].map(([reaction, users]) => ({ reaction, count: users.size, ...(users.has(user) ? { mine: true } : {}) }));
        if (reactions.length > 0) state.reactions = reactions;
      }
      const isGone = (reply) => log.some((one) => one.kind === "deletion" && one.target === reply.sequence);
      const replies = log.filter((one) => one.thread === sequence && !isGone(one)).length;
      if (replies > 0) state.replies = replies;
      return Object.keys(state).length > 1 ? [state] : [];
    });
    return states.length > 0 ? [{ states: { conversation: id, epoch, as_of: log.length, states } }] : [];
  }

  #get(user, id) {
    const conversation = this.conversations.get(id);
    if (!conversation?.members[user]) throw new Refusal("not_found");
    return conversation;
  }

  #append(conversation, sender, fields) {
    const { id, epoch, log } = conversation;
    const ordinal = (log.at(-1)?.ordinal ?? 0) + (fields.kind === "message" ? 1 : 0);
    const entry = { conversation: id, epoch, sequence: log.length + 1, ordinal, time_ms: this.now(), sender, ...fields };
    log.push({ ...entry, commit: ++this.commits });
    this.onCommit();
    if (this.#isLarge(conversation)) this.#pushToViewers(conversation, entry);
    else this.#push(conversation, { message: entry });
    return entry;
  }

  #push(conversation, frame, except = null) {
    const mayHear = (connection) => !this.#isLarge(conversation) || connection.views?.has(conversation.id);
    for (const connection of this.connections) {
      if (connection === except || !conversation.members[connection.user] || !mayHear(connection)) continue;
      connection.deliver(JSON.stringify(frame));
    }
  }

  #isLarge({ members }) {
    return Object.keys(members).length > this.bodiesMembers;
  }

  #pushToViewers({ id, members }, entry) {
    const { epoch, sequence, ordinal, time_ms } = entry;
    for (const connection of this.connections) {
      const { user, views } = connection;
      if (!members[user]) continue;
      const isWhole = views?.has(id) || entry.added?.includes(user) || entry.members?.includes(user);
      const isMeant = entry.mentions?.includes(user) || (entry.everybody && entry.sender !== user);
      if (isWhole) connection.deliver(JSON.stringify({ message: entry }));
      else if (isMeant) connection.deliver(JSON.stringify({ mentioned: entry }));
      if (!views?.has(id)) connection.deliver(JSON.stringify({ advanced: { conversation: id, epoch, sequence, ordinal, time_ms } }));
    }
  }

  on_ping() {
    return { time_ms: this.now(), position: this.position() };
  }

  on_create({ user }, body) {
    const direct = "direct" in body;
    const names = direct ? [user, body.direct] : [user, ...(body.group.members ?? [])];
    const id = direct ? conversationId("direct", ...[...names].sort()) : conversationId("group", user, body.group.key);
    const old = this.conversations.get(id);
    if (old) return { conversation: id, epoch: old.epoch, sequence: old.log.length, existing: true };
    const members = Object.fromEntries(names.map((name) => [name, { first: 1, read: 0, delivered: 0 }]));
    const conversation = { id, epoch: 1, direct, title: body.group?.title ?? "", members, log: [] };
    this.conversations.set(id, conversation);
    const { title } = conversation;
    this.#append(conversation, user, { kind: "created", direct, title, members: Object.keys(members) });
    return { conversation: id, epoch: 1, sequence: 1, existing: false };
  }

  on_members({ user }, { conversation: id, add, remove, list }) {
    const conversation = this.#get(user, id);
    const { members } = conversation;
    if (list) {
      const names = Object.keys(members).sort().filter((name) => !list.after || name > list.after);
      const page = names.slice(0, list.limit ?? 50);
      const next = names.length > page.length ? page.at(-1) : undefined;
      return { members: page.map((user) => ({ user, role: "member", read: members[user].read, delivered: members[user].delivered })), next };
    }
    if (conversation.direct) throw new Refusal("forbidden");
    const sequence = conversation.log.length + 1;
    const added = (add ?? []).filter((name) => !members[name]);
    const removed = (remove ?? []).filter((name) => members[name]);
    for (const name of added) members[name] = { first: sequence, read: sequence - 1, delivered: sequence - 1 };
    for (const name of removed) {
      delete members[name];
      (conversation.departed ??= {})[name] = this.commits + 1;
      for (const connection of this.connections) {
        if (connection.user === name) connection.deliver(JSON.stringify({ left: { conversation: id, sequence } }));
      }
    }
    const change = { kind: "membership" };
    if (added.length > 0) change.added = added;
    if (removed.length > 0) change.removed = removed;
    if (added.length + removed.length > 0) this.#append(conversation, user, change);
    return { sequence: conversation.log.length };
  }

  on_conversations({ user }, { after, limit = 50 }) {
    const mine = [...this.conversations.values()].filter((one) => !one.hidden && one.members[user] && (!after || one.id > after));
    mine.sort((a, b) => (a.id < b.id ? -1 : 1));
    const page = mine.slice(0, limit).map((conversation) => {
      const { id, epoch, direct, title, members, log } = conversation;
      const last = log.at(-1);
      const summary = { conversation: id, epoch, title, role: "member", last_sequence: last.sequence, last_time_ms: last.time_ms };
      const peer = direct ? { direct: Object.keys(members).find((name) => name !== user) } : {};
      const counts = { members: Object.keys(members).length, read: members[user].read, unread: this.#unread(conversation, user) };
      return { ...summary, ...peer, ...counts, last: this.#shown(last) };
    });
    return { conversations: page, next: mine.length > page.length ? page.at(-1).conversation : undefined };
  }

  #unread({ log, members }, user) {
    return (log.at(-1)?.ordinal ?? 0) - (log[members[user].read - 1]?.ordinal ?? 0);
  }

  on_title({ user }, { conversation: id, title }) {
    const conversation = this.#get(user, id);
    if (conversation.direct) throw new Refusal("forbidden");
    if (conversation.title !== title) {
      conversation.title = title;
      this.#append(conversation, user, { kind: "title", title });
    }
    return { sequence: conversation.log.length };
  }

  on_presence(connection, { watch = [], unwatch = [] }) {
    connection.watched ??= new Set();
    for (const user of unwatch) connection.watched.delete(user);
    for (const user of watch) connection.watched.add(user);
    return { users: watch.map((user) => this.#presence(user)), watching: connection.watched.size };
  }

  #presence(user) {
    const online = this.#isThere(user);
    const last = this.lastSeen.get(user);
    return { user, online, ...(online || last === undefined ? {} : { last_seen_ms: last }) };
  }

  #isThere(user) {
    return [...this.connections].some((connection) => connection.user === user);
  }

  /** A user has come or gone. */
  #tellPresence(user) {
    const users = [this.#presence(user)];
    for (const connection of this.connections) {
      if (connection.watched?.has(user)) connection.deliver(JSON.stringify({ present: { users } }));
    }
  }

  on_view(connection, { conversation: id, open }) {
    connection.views ??= new Set();
    if (!open) {
      connection.views.delete(id);
      return {};
    }
    const { log } = this.#get(connection.user, id);
    connection.views.add(id);
    return { sequence: log.length };
  }

  on_refresh() {
    return { expires_ms: this.now() + 3_600_000 };
  }

  on_account({ user }, { set, list }) {
    const id = conversationId("account", user);
    const of = this.accounts.get(user) ?? { sequence: 0, items: new Map() };
    const answer = { conversation: id, epoch: 1, sequence: of.sequence };
    if (list) {
      const all = [...of.items].sort(([a], [b]) => (a < b ? -1 : 1)).filter(([key]) => !list.after || key > list.after);
      const items = all.slice(0, list.limit ?? 50).map(([key, item]) => ({ key, ...item }));
      return { ...answer, items, next: all.length > items.length ? items.at(-1).key : undefined };
    }
    const was = of.items.get(set.key);
    if (JSON.stringify(was?.value) === JSON.stringify(set.value)) return { ...answer, sequence: was?.sequence ?? of.sequence };
    let conversation = this.conversations.get(id);
    if (!conversation) {
      conversation = { id, epoch: 1, direct: false, title: "", members: { [user]: { first: 1, read: 0, delivered: 0 } }, log: [], hidden: true };
      this.conversations.set(id, conversation);
      this.#append(conversation, user, { kind: "created", direct: false, title: "", members: [user] });
    }
    // What was set before is told by no entry any more.
    if (was) delete conversation.log[was.sequence - 1].value;
    const entry = this.#append(conversation, user, { kind: "account_data", ...set });
    if (set.value === undefined) of.items.delete(set.key);
    else of.items.set(set.key, { value: set.value, sequence: entry.sequence, time_ms: entry.time_ms });
    of.sequence = entry.sequence;
    this.accounts.set(user, of);
    return { ...answer, sequence: entry.sequence, replaced: was?.sequence };
  }

  on_devices(connection, { list, name, revoke = [], revoke_all }) {
    const { user, device: own } = connection;
    const known = structuredClone(this.#knownDevices(user));
    if (list) {
      const [online, named] = [this.#devicesOf(user), new Map(known.named.map((one) => [one.device, one]))];
      const devices = [...new Set([...online, ...named.keys()])].sort().map((device) => {
        const { name, since_ms } = named.get(device) ?? {};
        return { device, name, since_ms, online: online.includes(device), ...(device === own ? { this: true } : {}) };
      });
      return { devices };
    }
    if (name !== undefined) {
      const { since_ms = this.now() } = known.named.find(({ device }) => device === own) ?? {};
      known.named = known.named.filter(({ device }) => device !== own);
      if (name !== "") known.named.push({ device: own, name, since_ms });
    }
    if (revoke_all) {
      const kept = { device: own, revoked_ms: this.#refusedUntilMs(user, own) };
      Object.assign(known, { revoked: revoke_all.but_this ? [kept] : [], revoked_all_ms: this.now() });
      known.named = known.named.filter(({ device }) => revoke_all.but_this && device === own);
    }
    for (const device of revoke) {
      known.revoked = [...known.revoked.filter((one) => one.device !== device), { device, revoked_ms: this.now() }];
      known.named = known.named.filter((one) => one.device !== device);
    }
    return { sequence: this.on_account(connection, { set: { key: DEVICES, value: known } }).sequence };
  }

  /** After the answer, which one of them may have asked for. */
  #closeRevoked(user) {
    for (const connection of [...this.connections]) {
      if (connection.user === user && this.#isRevoked(connection)) this.#close(connection, { code: 4504, reason: "revoked" });
    }
  }

  #isRevoked({ user, device, issuedMs }) {
    const untilMs = this.#refusedUntilMs(user, device);
    return untilMs > 0 && issuedMs <= untilMs;
  }

  /** Those that are connected. */
  #devicesOf(user) {
    return [...this.connections].filter((connection) => connection.user === user).map(({ device }) => device);
  }

  #knownDevices(user) {
    return this.accounts.get(user)?.items.get(DEVICES)?.value ?? { named: [], revoked: [], revoked_all_ms: 0 };
  }

  /** Tokens of a device that were issued then or before are refused; 0: none is. */
  #refusedUntilMs(user, device) {
    const { revoked, revoked_all_ms } = this.#knownDevices(user);
    return revoked.find((one) => one.device === device)?.revoked_ms ?? revoked_all_ms;
  }

  on_event(connection, { conversation: id, event, data }) {
    this.#push(this.#get(connection.user, id), { happened: { conversation: id, user: connection.user, event, data } }, connection);
    return {};
  }

  on_settings({ user }, { conversation: id, set }) {
    const conversation = this.#get(user, id);
    conversation.settings ??= { description: "", picture: "", history: "joining", send: "members" };
    if (set) {
      Object.assign(conversation.settings, set);
      this.#append(conversation, user, { kind: "settings", settings: { ...conversation.settings } });
    }
    return { sequence: conversation.log.length, settings: conversation.settings, role: "member" };
  }

  on_edit({ user }, { text, ...body }) {
    return this.#change(user, "edit", body, { text });
  }

  on_delete({ user }, body) {
    return this.#change(user, "deletion", body);
  }

  on_react({ user }, { reaction, on, ...body }) {
    return this.#change(user, "reaction", body, { reaction, on });
  }

  on_pin({ user }, { on, ...body }) {
    return this.#change(user, "pin", body, { on });
  }

  #change(user, kind, { conversation: id, client_message_id, target }, more = {}) {
    const conversation = this.#get(user, id);
    const before = conversation.log.find((entry) => entry.client_message_id === client_message_id && entry.sender === user);
    if (!before && conversation.log[target - 1]?.kind !== "message") throw new Refusal("no_message");
    const isDeleted = conversation.log.some((entry) => entry.kind === "deletion" && entry.target === target);
    if (!before && isDeleted) throw new Refusal("deleted");
    const entry = before ?? this.#append(conversation, user, { kind, client_message_id, target, ...more });
    const { sequence, ordinal, time_ms } = entry;
    return { sequence, ordinal, time_ms, ...(before ? { duplicate: true } : {}) };
  }

  on_send({ user }, { conversation: id, client_message_id, text, reply_to, thread, mentions, everybody }) {
    const conversation = this.#get(user, id);
    const before = conversation.log.find((entry) => entry.client_message_id === client_message_id && entry.sender === user);
    if (before && before.text !== text) throw new Refusal("conflict");
    const references = { ...(thread ? { reply_to, thread } : {}), ...(mentions ? { mentions } : {}), ...(everybody ? { everybody } : {}) };
    const entry = before ?? this.#append(conversation, user, { kind: "message", client_message_id, text, ...references });
    const { sequence, ordinal, time_ms } = entry;
    // Sending reads: without a receipt, since the message says it.
    if (!before) Object.assign(conversation.members[user], { read: sequence, delivered: sequence });
    return { sequence, ordinal, time_ms, ...(before ? { duplicate: true } : {}) };
  }

  on_history({ user }, { conversation: id, before, after, around, limit = 50 }) {
    const { epoch, log, members } = this.#get(user, id);
    const { first } = members[user];
    const count = Math.min(limit, PAGE_MAX);
    let [from, to] = [log.length + 1 - count, log.length + 1];
    if (before !== undefined) [from, to] = [before - count, before];
    if (after !== undefined) [from, to] = [after + 1, after + 1 + count];
    if (around !== undefined) [from, to] = [around + 1 - Math.ceil(count / 2), around + 1 + Math.floor(count / 2)];
    const entries = log.filter(({ sequence }) => sequence >= from && sequence < to && sequence >= first);
    return { conversation: id, epoch, first, last: log.length, entries: entries.map((entry) => this.#shown(entry)) };
  }

  on_read(connection, body) {
    return this.#mark(connection, body, "read");
  }

  on_delivered(connection, body) {
    return this.#mark(connection, body, "delivered");
  }

  /** To the user's other connections. */
  #pushToOwn(connection, frame) {
    for (const other of this.connections) {
      if (other !== connection && other.user === connection.user) other.deliver(JSON.stringify(frame));
    }
  }

  #mark(connection, { conversation: id, sequence }, kind) {
    const conversation = this.#get(connection.user, id);
    const member = conversation.members[connection.user];
    const before = { ...member };
    member[kind] = Math.max(member[kind], Math.min(sequence, conversation.log.length));
    member.delivered = Math.max(member.delivered, member.read);
    const { read, delivered } = member;
    if (read !== before.read || delivered !== before.delivered) {
      this.onCommit();
      const frame = { receipt: { conversation: id, user: connection.user, read, delivered } };
      if (this.#isLarge(conversation)) this.#pushToOwn(connection, frame);
      else this.#push(conversation, frame, connection);
    }
    return { read, delivered, unread: this.#unread(conversation, connection.user) };
  }
}
