// What the session promises, against a node in memory and a network that drops, doubles and reorders: run by `node --test`.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { Session } from "../session.js";
import { FakeNode, Refusal } from "./fake-node.mjs";

/** Virtual time: nothing waits, every run is the same. */
class Clock {
  nowMs = 1_000_000;
  timers = [];

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
      await settle();
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
function makeWorld(seed = 1) {
  const clock = new Clock();
  const world = { clock, up: true, random: seeded(seed), dials: 0, shape: (frame) => [frame], clients: [] };
  world.node = new FakeNode({ now: () => clock.nowMs });

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
    world.node = new FakeNode({ now: () => clock.nowMs, state: structuredClone(node.toState()) });
    world.up = true;
  };

  world.client = (user, memory = { snapshot: null, outbox: [] }, device = `${user}-tab`) => {
    const shown = [];
    const changes = [];
    const session = new Session({
      url: "ws://fake",
      user,
      device,
      token: (renew) => world.token(user, renew),
      store: memoryStore(memory),
      outboxStorage: {
        load: () => structuredClone(memory.outbox),
        save: (items) => (memory.outbox = structuredClone(items)),
      },
      onChange: (change) => {
        changes.push(change);
        if (change.entries) shown.push(...change.entries);
      },
      env: {
        now: () => clock.nowMs,
        setTimeout: clock.setTimeout,
        clearTimeout: clock.clearTimeout,
        random: world.random,
        uuid: randomUUID,
        WebSocket: FakeSocket,
      },
    });
    const client = { session, memory, shown, changes, texts: (id) => texts(session, id) };
    world.clients.push(client);
    return client;
  };
  return world;
}

function memoryStore(memory) {
  return {
    load: async () => structuredClone(memory.snapshot),
    save: async (meta, records, removed) => {
      const kept = new Map((memory.snapshot?.records ?? []).map((record) => [record.id, record]));
      for (const record of structuredClone(records)) kept.set(record.id, record);
      for (const id of removed) kept.delete(id);
      memory.snapshot = structuredClone({ meta, records: [...kept.values()] });
    },
  };
}

const texts = (session, id) =>
  session.timelines.get(id).entries.filter((entry) => entry.kind === "message").map((entry) => entry.text);

/** The session's window is a gap-free run of the node's log that ends where the log ends. */
function assertWhole(world, client, id) {
  const { entries, tail } = client.session.timelines.get(id);
  const { log } = world.node.conversations.get(id);
  assert.equal(tail, log.length, "the tail is the log's end");
  const expected = log.slice(log.length - entries.length).map(({ commit, ...entry }) => entry);
  assert.deepEqual(entries, expected);
}

async function pair(seed) {
  const world = makeWorld(seed);
  const [alice, bob] = [world.client("alice"), world.client("bob")];
  await Promise.all([alice.session.start(), bob.session.start()]);
  await world.clock.run(1_000);
  const creating = alice.session.create({ direct: "bob" });
  await world.clock.run(1_000);
  const id = await creating;
  return { world, alice, bob, id };
}

/** Another user's messages, straight into the log. */
const write = (world, user, id, ...words) => {
  for (const text of words) world.node.on_send({ user }, { conversation: id, client_message_id: randomUUID(), text });
};

test("a conversation of two: order, delivered, read, unread", async () => {
  const { world, alice, bob, id } = await pair();
  for (const text of ["one", "two", "three"]) alice.session.outbox.add(id, text);
  await world.clock.run(2_000);
  for (const client of [alice, bob]) {
    assert.deepEqual(client.texts(id), ["one", "two", "three"]);
    assertWhole(world, client, id);
  }
  assert.equal(bob.session.timelines.get(id).unread, 3);
  assert.deepEqual(alice.session.timelines.get(id).reach(4), { delivered: 1, read: 0, others: 1 });
  bob.session.markRead(id);
  await world.clock.run(1_000);
  assert.equal(bob.session.timelines.get(id).unread, 0);
  assert.deepEqual(alice.session.timelines.get(id).reach(4), { delivered: 1, read: 1, others: 1 });
  assert.equal(alice.session.outbox.items.length, 0);
});

test("who types is known while it is so: told again, ended by a word, a message, time, or going", async () => {
  const { world, alice, bob, id } = await pair();
  const told = [];
  world.node.gate = (kind, body, { user }) => kind === "event" && told.push([user, body.data.on]);
  const typing = () => [...bob.session.timelines.get(id).typing.keys()];
  const types = async (on, ms = 1_000) => {
    alice.session.typing(id, on);
    await world.clock.run(ms);
  };
  await types(true);
  assert.deepEqual(typing(), ["alice"]);
  for (let key = 0; key < 9; key += 1) await types(true);
  assert.deepEqual(told.splice(0), [["alice", true], ["alice", true], ["alice", true]], "every four seconds, not with every key");
  assert.deepEqual(typing(), ["alice"]);
  await types(false);
  assert.deepEqual([typing(), told.splice(0)], [[], [["alice", false]]]);
  await types(false);
  assert.deepEqual(told, [], "what was not begun does not end");
  await types(true, 5_900);
  assert.deepEqual(typing(), ["alice"]);
  await world.clock.run(200);
  assert.deepEqual(typing(), [], "nothing was heard for six seconds");
  await types(true);
  alice.session.outbox.add(id, "here it is");
  await world.clock.run(1_000);
  assert.deepEqual(typing(), [], "the message says it");
  await types(false);
  assert.deepEqual(told.splice(0).at(-1), ["alice", true], "and nothing has to be told beside it");
});

test("who writes has read: on every device, without a receipt or a request of pointers", async () => {
  const { world, alice, bob, id } = await pair();
  const phone = world.client("bob", undefined, "bob-phone");
  await phone.session.start();
  await world.clock.run(1_000);
  alice.session.outbox.add(id, "a question");
  await world.clock.run(1_000);
  assert.equal(phone.session.timelines.get(id).unread, 1);
  const pointers = [];
  world.node.gate = (kind, body, connection) => {
    if (kind === "read" || (kind === "delivered" && connection.user === "bob")) pointers.push([kind, body]);
  };
  bob.session.outbox.add(id, "an answer");
  await world.clock.run(1_000);
  const { sequence } = alice.session.timelines.get(id).last;
  assert.deepEqual(alice.session.timelines.get(id).reach(sequence - 1), { delivered: 1, read: 1, others: 1 });
  for (const client of [bob, phone]) assert.equal(client.session.timelines.get(id).unread, 0);
  assert.deepEqual(pointers, [], "there was nothing to say");
});

test("a pushed frame that comes twice or late is shown once and in order", async () => {
  const { world, bob, id } = await pair();
  let count = 0;
  world.shape = (frame) => {
    if (!frame.message) return [frame];
    count += 1;
    return [{ ...frame, delay_ms: count % 2 ? 40 : 1 }, { ...frame, delay_ms: 60 }];
  };
  write(world, "alice", id, "a", "b", "c", "d", "e");
  await world.clock.run(5_000);
  assert.deepEqual(bob.texts(id), ["a", "b", "c", "d", "e"]);
  assert.deepEqual(bob.shown.filter((entry) => entry.text).map((entry) => entry.text), ["a", "b", "c", "d", "e"]);
  assertWhole(world, bob, id);
});

test("a lost push is filled from history, and no position is taken over meanwhile", async () => {
  const { world, bob, id } = await pair();
  const before = bob.session.position;
  world.shape = (frame) => (frame.message?.text === "lost" ? [] : [frame]);
  write(world, "alice", id, "first", "lost", "last");
  bob.session.connection.request("ping", {});
  await world.clock.run(100);
  assert.deepEqual(bob.texts(id), ["first"]);
  assert.equal(bob.session.position, before, "the hole is still open");
  await world.clock.run(2_000);
  assert.deepEqual(bob.texts(id), ["first", "lost", "last"]);
  assert.equal(bob.session.position, world.node.position());
  assertWhole(world, bob, id);
});

test("a kill while sending: each message arrives once, in the order of writing, after the restart", async () => {
  const { world, alice, bob, id } = await pair();
  // The node stores the first, but its acknowledgement is lost with the node.
  world.shape = (frame) => (frame.send || frame.message ? [] : [frame]);
  for (const text of ["1", "2", "3"]) alice.session.outbox.add(id, text);
  await world.clock.run(10);
  assert.equal(world.node.conversations.get(id).log.length, 2);
  world.kill();
  world.shape = (frame) => [frame];
  await world.clock.run(3_000);
  assert.equal(alice.session.status.online, false);
  assert.equal(alice.session.status.waiting, 3);
  alice.session.outbox.add(id, "4");
  world.restart();
  await world.clock.run(60_000);
  for (const client of [alice, bob]) {
    assert.deepEqual(client.texts(id), ["1", "2", "3", "4"]);
    assertWhole(world, client, id);
  }
  assert.equal(alice.session.status.waiting, 0);
});

test("a reload resumes from what was stored: nothing asked for twice, pending sends go out under their old ids", async () => {
  const { world, alice, bob, id } = await pair();
  write(world, "alice", id, "seen");
  await world.clock.run(1_000);
  bob.session.stop();
  write(world, "alice", id, "missed 1", "missed 2");
  const asked = [];
  world.node.gate = (kind) => void asked.push(kind);
  const again = world.client("bob", bob.memory);
  await again.session.start();
  assert.deepEqual(again.texts(id), ["seen"], "shown before the network answers");
  await world.clock.run(2_000);
  assert.deepEqual(again.texts(id), ["seen", "missed 1", "missed 2"]);
  assert.ok(!asked.includes("history") && !asked.includes("conversations"), `asked: ${asked}`);
  assertWhole(world, again, id);

  world.kill();
  await world.clock.run(10);
  alice.session.outbox.add(id, "written offline");
  const pending = alice.memory.outbox[0].client_message_id;
  alice.session.stop();
  world.restart();
  const back = world.client("alice", alice.memory);
  await back.session.start();
  await world.clock.run(20_000);
  assert.equal(world.node.conversations.get(id).log.at(-1).client_message_id, pending);
  assertWhole(world, back, id);
});

test("resuming twice in a row, and after nothing happened, costs no entry", async () => {
  const { world, bob, id } = await pair();
  write(world, "alice", id, "a", "b");
  await world.clock.run(1_000);
  let pushed = 0;
  world.shape = (frame) => ((pushed += frame.message ? 1 : 0), [frame]);
  for (let round = 0; round < 2; round += 1) {
    world.node.crash();
    await world.clock.run(20_000);
    assert.equal(bob.session.status.online, true);
  }
  assert.equal(pushed, 0);
  assertWhole(world, bob, id);
});

test("too far: the window restarts at the end, unread is right, and scrolling back reaches the start", async () => {
  const { world, bob, id } = await pair();
  world.kill();
  await world.clock.run(10);
  write(world, "alice", id, ...Array.from({ length: 450 }, (_, index) => `m${index}`));
  world.restart();
  await world.clock.run(30_000);
  const timeline = bob.session.timelines.get(id);
  assert.equal(timeline.tail, 451);
  assert.equal(timeline.unread, 450);
  while (!timeline.atStart) {
    const loading = bob.session.loadOlder(id, 100);
    await world.clock.run(50);
    assert.ok((await loading) > 0);
  }
  assert.equal(timeline.entries.length, 451);
  assertWhole(world, bob, id);
});

test("another store: everything is forgotten and listed again, what was written is kept", async () => {
  const { world, alice, id } = await pair();
  world.kill();
  await world.clock.run(10);
  world.node = new FakeNode({ now: () => world.clock.nowMs });
  world.node.on_create({ user: "alice" }, { direct: "carol" });
  world.up = true;
  alice.session.outbox.add(id, "to nowhere");
  await world.clock.run(20_000);
  assert.deepEqual(alice.session.list().map((timeline) => timeline.direct), ["carol"]);
  assert.equal(alice.session.outbox.items[0].failed.code, "not_found");
});

test("a refused message fails by itself; a temporary refusal holds the order", async () => {
  const { world, alice, bob, id } = await pair();
  let busy = 2;
  world.node.gate = (kind, body) => {
    if (kind !== "send") return;
    if (body.text === "bad") throw new Refusal("too_large", "beyond a limit");
    if (busy-- > 0) throw new Refusal("rate_limited", "slow down", true, 700);
  };
  for (const text of ["x", "bad", "y"]) alice.session.outbox.add(id, text);
  await world.clock.run(500);
  assert.deepEqual(bob.texts(id), []);
  await world.clock.run(5_000);
  assert.deepEqual(bob.texts(id), ["x", "y"]);
  const [failed] = alice.session.outbox.items;
  assert.equal(failed.failed.code, "too_large");
  world.node.gate = () => {};
  alice.session.outbox.retry(failed.client_message_id);
  await world.clock.run(1_000);
  assert.deepEqual(bob.texts(id), ["x", "y", "bad"]);
});

test("goodbye's hint is honoured; a replaced session stays away until told otherwise", async () => {
  const { world, bob } = await pair();
  const say = (goodbye) => {
    for (const connection of [...world.node.connections].filter((one) => one.user === "bob")) {
      connection.deliver(JSON.stringify({ goodbye }));
      connection.end(goodbye.code);
    }
  };
  say({ code: 4000, reason: "restarting", reconnect_after_ms: 5_000 });
  await world.clock.run(4_900);
  assert.equal(bob.session.status.online, false);
  bob.session.connection.wake();
  await world.clock.run(50);
  assert.equal(bob.session.status.online, false, "not before the server said");
  await world.clock.run(200);
  assert.equal(bob.session.status.online, true);

  say({ code: 4502, reason: "replaced" });
  await world.clock.run(60_000);
  assert.equal(bob.session.status.stopped.replaced, true);
  bob.session.connection.start();
  await world.clock.run(100);
  assert.equal(bob.session.status.online, true);
});

test("a refused token is renewed once; a second refusal ends it; an overloaded node is left in peace", async () => {
  const world = makeWorld();
  const refuse = { unauthenticated: 1, overloaded: 0 };
  world.node.gate = (kind) => {
    if (kind !== "connect") return;
    if (refuse.overloaded-- > 0) throw new Refusal("overloaded", "full", true, 9_000);
    if (refuse.unauthenticated-- > 0) throw new Refusal("unauthenticated");
  };
  const { session } = world.client("alice");
  await session.start();
  await world.clock.run(2_000);
  assert.equal(session.status.online, true);

  refuse.overloaded = 1;
  world.node.crash();
  await world.clock.run(8_000);
  assert.equal(session.status.online, false);
  await world.clock.run(3_000);
  assert.equal(session.status.online, true);

  refuse.unauthenticated = 2;
  world.node.crash();
  await world.clock.run(30_000);
  assert.equal(session.status.stopped.code, 4500);
});

test("a token that is about to be over is renewed in time; if there is no other, the session goes on with it", async () => {
  const { world, bob } = await pair();
  const asked = [];
  world.node.gate = (kind, body) => void (kind === "refresh" && asked.push(body.token));
  let renewals = 0;
  world.token = async (user, renew) => {
    assert.equal(renew, true);
    if (renewals++ === 1) throw new Error("no token");
    return `${user}-${renewals}`;
  };
  const expire = () => {
    for (const connection of world.node.connections) {
      if (connection.user === "bob") connection.deliver(JSON.stringify({ expiring: { expires_ms: 7 } }));
    }
  };
  for (let time = 0; time < 3; time += 1) {
    expire();
    await world.clock.run(1_000);
  }
  assert.deepEqual(asked, ["bob-1", "bob-3"]);
  assert.equal(bob.session.status.online, true);
});

test("a dead connection is noticed by the heartbeat, and back-off spreads and is bounded", async () => {
  const { world, bob } = await pair();
  world.up = false; // Nothing answers, nothing closes.
  await world.clock.run(55_000);
  assert.equal(bob.session.status.online, false);
  const before = world.dials;
  await world.clock.run(600_000);
  const perMinute = (world.dials - before) / 10 / world.clients.length;
  assert.ok(perMinute > 3 && perMinute < 40, `${perMinute} dials a minute`);
  world.restart();
  bob.session.connection.wake();
  await world.clock.run(13_000);
  assert.equal(bob.session.status.online, true);
});

test("groups: added, renamed, read by some, removed", async () => {
  const { world, alice, bob } = await pair();
  const carol = world.client("carol");
  await carol.session.start();
  const creating = alice.session.create({ group: { key: randomUUID(), title: "Choir", members: ["bob"] } });
  await world.clock.run(500);
  const id = await creating;
  alice.session.outbox.add(id, "hello");
  await world.clock.run(500);
  alice.session.addMembers(id, ["carol"]);
  alice.session.rename(id, "Choir of three");
  await world.clock.run(1_000);
  assert.equal(carol.session.timelines.get(id).title, "Choir of three");
  alice.session.outbox.add(id, "welcome");
  await world.clock.run(1_000);
  assert.equal(carol.session.timelines.get(id).unread, 1, "what was before does not count");
  carol.session.markRead(id);
  await world.clock.run(1_000);
  const { sequence } = alice.session.timelines.get(id).last;
  assert.deepEqual(alice.session.timelines.get(id).reach(sequence), { delivered: 2, read: 1, others: 2 });
  alice.session.removeMember(id, "bob");
  await world.clock.run(1_000);
  assert.equal(bob.session.timelines.has(id), false);
  assert.equal(alice.session.timelines.get(id).memberCount, 2);
  assertWhole(world, carol, id);
});

test("any mixture: lost, doubled, late pushes, kills, reloads; both ends agree with the log", async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const { world, alice, bob, id } = await pair(seed);
    const clients = { alice, bob };
    const { random } = world;
    world.shape = (frame) => {
      if (!frame.message && !frame.send) return [frame];
      if (random() < 0.1) return frame.message ? [] : [frame];
      const copies = random() < 0.1 ? 2 : 1;
      return Array.from({ length: copies }, () => ({ ...frame, delay_ms: 1 + Math.floor(random() * 80) }));
    };
    const written = { alice: [], bob: [] };
    for (let step = 0; step < 60; step += 1) {
      const who = random() < 0.5 ? "alice" : "bob";
      const dice = random();
      if (dice < 0.7) {
        const text = `${who} ${step}`;
        written[who].push(text);
        clients[who].session.outbox.add(id, text);
      } else if (dice < 0.78) {
        world.kill();
        await world.clock.run(random() * 3_000);
        world.restart();
      } else if (dice < 0.86) {
        clients[who].session.stop();
        clients[who] = world.client(who, clients[who].memory);
        await clients[who].session.start();
      } else {
        await world.clock.run(random() * 2_000);
      }
      await world.clock.run(random() * 60);
    }
    world.shape = (frame) => [frame];
    write(world, "alice", id, "the end"); // A loss at the very end shows when something follows.
    await world.clock.run(120_000);
    const { log } = world.node.conversations.get(id);
    for (const who of ["alice", "bob"]) {
      const stored = log.filter((entry) => entry.sender === who && entry.text && entry.text !== "the end");
      assert.deepEqual(stored.map((entry) => entry.text), written[who], `seed ${seed}: ${who}'s messages, once and in order`);
      assertWhole(world, clients[who], id);
      assert.equal(clients[who].session.outbox.items.length, 0, `seed ${seed}`);
    }
  }
});
