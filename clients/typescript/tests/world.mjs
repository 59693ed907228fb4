// Clients, a node in memory and virtual time: what the tests of the client drive. Nothing waits, every run is the same.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { Client } from "../dist/index.js";
import { FakeNode } from "./fake-node.mjs";

class Clock {
  nowMs = 1_000_000;
  timers = [];
  /** Some sockets give what arrived together without a turn for anything between. */
  atOnce = false;

  setTimeout = (action, delayMs) => {
    const timer = { action, dueMs: this.nowMs + Math.max(0, delayMs) };
    this.timers.push(timer);
    return timer;
  };

  clearTimeout = (timer) => {
    this.timers = this.timers.filter((one) => one !== timer);
  };

  async run(forMs) {
    const endMs = this.nowMs + forMs;
    await settle();
    for (;;) {
      const next = this.timers.filter((timer) => timer.dueMs <= endMs).sort((a, b) => a.dueMs - b.dueMs)[0];
      if (!next) break;
      this.clearTimeout(next);
      this.nowMs = Math.max(this.nowMs, next.dueMs);
      next.action();
      if (!(this.atOnce && this.timers.some(({ dueMs }) => dueMs <= this.nowMs))) await settle();
    }
    this.nowMs = endMs;
  }
}

const settle = async () => {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** mulberry32: small, seeded, good enough to shake a network. */
const seeded = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

/** A node, virtual time, and clients whose network obeys `world.shape(frame) → [frame…]` and `world.up`. */
export function makeWorld(seed = 1) {
  const clock = new Clock();
  const world = { clock, up: true, random: seeded(seed), dials: 0, shape: (frame) => [frame], clients: [] };
  // A token is the user, and maybe when it was issued.
  const tokens = { userOf: (token) => token.split("@")[0], issuedMsOf: (token) => Number(token.split("@")[1] ?? 0) };
  world.node = new FakeNode({ now: () => clock.nowMs, ...tokens });

  class FakeSocket {
    constructor() {
      world.dials += 1;
      this.ended = false;
      clock.setTimeout(() => (world.up ? this.#accepted() : this.#end(1006)), 1);
    }

    #accepted() {
      if (this.ended) return;
      this.peer = world.node.accept({
        deliver: (text) => {
          for (const frame of world.shape(JSON.parse(text))) {
            const data = JSON.stringify(frame);
            clock.setTimeout(() => !this.ended && this.onmessage?.({ data }), frame.delay_ms ?? 1);
          }
        },
        end: (code) => clock.setTimeout(() => this.#end(code), 1),
      });
      this.onopen?.();
    }

    #end(code) {
      if (this.ended) return;
      this.ended = true;
      this.peer?.closed();
      this.onclose?.({ code });
    }

    send(text) {
      clock.setTimeout(() => !this.ended && world.up && this.peer.received(text), 1);
    }

    close() {
      this.ended = true;
      this.peer?.closed();
    }
  }

  world.token = async (user) => user;

  world.kill = () => {
    world.up = false;
    world.node.crash();
  };
  world.restart = () => {
    const { node } = world;
    world.node = new FakeNode({ now: () => clock.nowMs, ...tokens, state: structuredClone(node.toState()) });
    world.up = true;
  };

  world.client = (user, memory = { snapshot: null, outbox: [], account: [] }, device = `${user}-tab`, options = {}) => {
    const shown = [];
    const changes = [];
    const client = new Client({
      url: "ws://fake",
      user,
      device,
      token: (renew) => world.token(user, renew),
      storage: remembering(memory),
      environment: {
        now: () => clock.nowMs,
        setTimeout: clock.setTimeout,
        clearTimeout: clock.clearTimeout,
        random: world.random,
        WebSocket: FakeSocket,
      },
      ...options,
    });
    const told = { client, memory, shown, changes, texts: (id) => texts(client, id), at: (id) => client.conversations.get(id) };
    client.subscribe((change) => {
      changes.push(change);
      if (change.entries) shown.push(...change.entries);
    });
    world.clients.push(told);
    return told;
  };
  return world;
}

/** A storage whose contents the test keeps, and can give to another client. */
const remembering = (memory) => ({
  snapshot: {
    load: async () => structuredClone(memory.snapshot),
    save: async (meta, records, removed) => {
      const kept = new Map((memory.snapshot?.records ?? []).map((record) => [record.id, record]));
      for (const record of structuredClone(records)) kept.set(record.id, record);
      for (const id of removed) kept.delete(id);
      memory.snapshot = structuredClone({ meta, records: [...kept.values()] });
    },
  },
  outbox: waiting(memory, "outbox"),
  account: waiting(memory, "account"),
});

const waiting = (memory, what) => ({
  load: () => structuredClone(memory[what]),
  save: (items) => (memory[what] = structuredClone(items)),
});

const texts = (client, id) =>
  client.conversations
    .get(id)
    .entries.filter((entry) => entry.kind === "message")
    .map((entry) => entry.text);

/**
 * The client's window is a gap-free run of the node's log that ends where the log ends, and of each message in it the client knows what it
 * says now and what became of it.
 */
export function assertWhole(world, { at, client }, id) {
  const conversation = at(id);
  const log = world.node.shownLog(id);
  assert.equal(conversation.tail, log.length, "the tail is the log's end");
  const expected = log.slice(log.length - conversation.entries.length);
  // What an edit said may be known for longer than the server tells it.
  const plain = (entry) => (entry.kind === "edit" ? { ...entry, text: undefined } : entry);
  assert.deepEqual(conversation.entries.map(plain), expected.map(plain));
  for (const { kind, sequence } of expected) {
    if (kind !== "message") continue;
    const { edited, deleted, pinned, replies, reactions } = conversation.state(sequence);
    const told = world.node.stateOf(id, sequence, client.user);
    const wanted = { edited: null, deleted: false, pinned: false, replies: 0, ...told };
    wanted.reactions = (told.reactions ?? []).map(({ reaction, count, mine = false }) => ({ reaction, count, mine }));
    assert.deepEqual(
      { sequence, edited, deleted, pinned, replies, reactions: [...reactions] },
      wanted,
      `what became of ${sequence}`,
    );
  }
}

export async function pair(seed, atOnce = false) {
  const world = makeWorld(seed);
  world.clock.atOnce = atOnce;
  const [alice, bob] = [world.client("alice"), world.client("bob")];
  await Promise.all([alice.client.start(), bob.client.start()]);
  await world.clock.run(1_000);
  const creating = alice.client.direct("bob");
  await world.clock.run(1_000);
  const id = await creating;
  return { world, alice, bob, id };
}

/** Another user's messages, straight into the log. */
export const write = (world, user, id, ...words) => {
  for (const text of words) world.node.on_send({ user }, { conversation: id, client_message_id: randomUUID(), text });
};
