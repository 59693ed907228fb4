// Large conversations: what is not open is not pushed and not fetched, and nothing of it is lost, doubled or out of order.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { Refusal } from "./fake-node.mjs";
import { assertWhole, makeWorld, pair, write } from "./world.mjs";

/** Mixtures of faults; more by `ANTIPHON_SEEDS`. */
const SEEDS = Number(process.env.ANTIPHON_SEEDS ?? 60);

/** Alice and bob with a conversation that is a large one; `asked` is what clients ask from then on, but for pointers. */
async function large(seed, atOnce) {
  const all = await pair(seed, atOnce);
  const { world } = all;
  world.node.bodiesMembers = 1;
  const asked = [];
  world.node.gate = (kind, body, { user }) => {
    if (!["connect", "read", "delivered", "members", "ping", "account"].includes(kind)) asked.push([user, kind, body]);
  };
  const ask = (user, kind) => asked.splice(0).filter(([who, what]) => who === user && (!kind || what === kind)).map(([, what, body]) => (kind ? body : what));
  return { ...all, ask };
}

const view = (conversation, open) => ({ conversation, open });
const numbered = (count, word = "m") => Array.from({ length: count }, (_, index) => `${word}${index}`);
const mention = (world, id, text, means = { mentions: ["bob"] }) =>
  world.node.on_send({ user: "alice" }, { conversation: id, client_message_id: randomUUID(), text, ...means });
const mentioned = (told) => told.changes.filter(({ kind }) => kind === "mentioned").map(({ id, entry }) => [id, entry.text]);
/** Entries as listeners were told of them: each once and in order. */
const told = ({ shown }, id) => shown.filter((entry) => entry.conversation === id).map(({ sequence }) => sequence);

/** A device of bob's that has no client here. */
const bobElsewhere = { user: "bob" };

async function reconnect(world) {
  world.kill();
  await world.clock.run(10);
  world.restart();
  await world.clock.run(20_000);
}

test("what is not open is not fetched: it is unread, and the liveliest", async () => {
  const { world, alice, bob, id, ask } = await large();
  world.node.bodiesMembers = 2;
  const creating = bob.client.group({ key: randomUUID(), title: "Trio", members: ["alice", "carol"] });
  await world.clock.run(1_000);
  const group = await creating;
  write(world, "alice", id, "one");
  await world.clock.run(1_000);
  assert.deepEqual([bob.client.list()[0].id, bob.client.unread], [id, 1]);
  bob.changes.length = 0;
  ask();
  write(world, "alice", group, ...numbered(3));
  alice.client.groups.rename(group, "Choir");
  await world.clock.run(5_000);
  const behind = bob.at(group);
  assert.deepEqual([behind.tail, behind.end, behind.isBehind, behind.unread], [1, 5, true, 3]);
  assert.deepEqual([bob.texts(group), bob.client.unread, bob.client.list()[0].id], [[], 4, group]);
  assert.equal(behind.lastTimeMs, world.node.conversations.get(group).log.at(-1).time_ms);
  assert.ok(bob.changes.some(({ kind, id }) => kind === "entries" && id === group));
  bob.client.request("ping", {});
  await world.clock.run(100);
  assert.equal(bob.client.position, world.node.position(), "no position waits for it");
  assert.deepEqual(ask("bob"), []);
});

test("what is opened is fetched, and from then on pushed, until it is closed", async () => {
  const { world, bob, id, ask } = await large();
  write(world, "alice", id, ...numbered(5));
  await world.clock.run(1_000);
  bob.client.watch(id);
  await world.clock.run(100);
  assert.deepEqual(bob.texts(id), numbered(5));
  assert.deepEqual([bob.at(id).isBehind, bob.at(id).unread], [false, 5]);
  write(world, "alice", id, "pushed");
  await world.clock.run(100);
  assert.equal(bob.texts(id).at(-1), "pushed");
  const asked = ask("bob");
  assert.deepEqual(asked.filter((kind) => ["view", "history"].includes(kind)), ["view", "history"]);
  bob.client.watch(null);
  await world.clock.run(100);
  write(world, "alice", id, "hinted");
  await world.clock.run(5_000);
  assert.deepEqual(ask("bob", "view"), [view(id, false)]);
  assert.deepEqual([bob.texts(id).at(-1), bob.at(id).unread], ["pushed", 7]);
  bob.client.view(id, true);
  await world.clock.run(100);
  assert.equal(bob.texts(id).at(-1), "hinted");
  // Two say that it is shown: it is open until neither does.
  bob.client.watch(id);
  bob.client.view(id, false);
  await world.clock.run(100);
  assert.deepEqual(ask("bob", "view"), [view(id, true)]);
  assert.deepEqual(told(bob, id), [...world.node.conversations.get(id).log.keys()].map((index) => index + 1));
  assertWhole(world, bob, id);
});

test("what is pushed while the rest is fetched waits for it", async () => {
  for (const delayMs of [2, 400, 900]) {
    const { world, bob, id } = await large();
    write(world, "alice", id, ...numbered(5));
    await world.clock.run(1_000);
    world.shape = (frame) => [{ ...frame, delay_ms: frame.history ? delayMs : frame.view ? 10 : 1 }];
    bob.client.watch(id);
    await world.clock.run(5);
    write(world, "alice", id, "meanwhile");
    await world.clock.run(delayMs + 10);
    assert.deepEqual(bob.texts(id), [...numbered(5), "meanwhile"]);
    assert.deepEqual(told(bob, id), [1, 2, 3, 4, 5, 6, 7]);
  }
});

test("far behind, the window begins anew at the end, also for a page that was asked for meanwhile", async () => {
  const { world, bob, id } = await large();
  write(world, "alice", id, "early");
  bob.client.watch(id);
  await world.clock.run(1_000);
  bob.client.watch(null);
  await world.clock.run(1_000);
  write(world, "alice", id, ...numbered(450));
  await world.clock.run(1_000);
  assert.equal(bob.at(id).unread, 451);
  const { lastTimeMs } = bob.at(id);
  bob.changes.length = 0;
  bob.at(id).first = null;
  world.shape = (frame) => [{ ...frame, delay_ms: frame.history ? 50 : 1 }];
  bob.client.watch(id);
  const loading = bob.client.loadOlder(id, 50);
  await world.clock.run(1_000);
  assert.ok(bob.changes.some(({ kind }) => kind === "window"));
  assert.equal(await loading, 50);
  assert.deepEqual(bob.texts(id), numbered(450).slice(-50));
  assert.deepEqual([bob.at(id).unread, bob.at(id).lastTimeMs], [451, lastTimeMs]);
  const back = bob.client.loadBackTo(id, 1);
  await world.clock.run(1_000);
  assert.equal(await back, true);
  assertWhole(world, bob, id);
});

test("each connection is told anew of what is open, before anything is streamed to it", async () => {
  const { world, bob, id, ask } = await large();
  bob.client.watch(id);
  bob.client.view(randomUUID(), true);
  await world.clock.run(1_000);
  assert.equal(ask("bob", "view").length, 2);
  world.kill();
  await world.clock.run(10);
  write(world, "alice", id, "missed");
  const { gate } = world.node;
  world.restart();
  world.node.gate = gate;
  await world.clock.run(20_000);
  assert.deepEqual(ask("bob", "view").filter(({ conversation }) => conversation === id), [view(id, true)]);
  write(world, "alice", id, "pushed");
  await world.clock.run(1_000);
  assert.deepEqual(bob.texts(id), ["missed", "pushed"]);
  assertWhole(world, bob, id);
});

test("opened without a connection, it is whole when there is one again", async () => {
  const { world, bob, id } = await large();
  write(world, "alice", id, ...numbered(3));
  await world.clock.run(1_000);
  world.kill();
  await world.clock.run(10);
  bob.client.watch(id);
  write(world, "alice", id, "missed");
  world.restart();
  await world.clock.run(20_000);
  assert.deepEqual(bob.texts(id), [...numbered(3), "missed"]);
  assertWhole(world, bob, id);
});

test("a refusal for now is tried again, on another connection at once; one for good is borne", async () => {
  const { world, bob, id, ask } = await large();
  const { gate } = world.node;
  const refusals = [["overloaded", true, 700], ["rate_limited", true, 60_000], ["limit_reached", false]];
  const refuse = (kind, body, connection) => {
    gate(kind, body, connection);
    if (kind === "view" && body.open && refusals.length > 0) {
      const [code, temporary, waitMs] = refusals.shift();
      throw new Refusal(code, code, temporary, waitMs);
    }
  };
  world.node.gate = refuse;
  bob.client.watch(id);
  await world.clock.run(600);
  assert.equal(ask("bob", "view").length, 1);
  await world.clock.run(200);
  assert.equal(ask("bob", "view").length, 1);
  world.kill();
  await world.clock.run(10);
  world.restart();
  world.node.gate = refuse;
  await world.clock.run(20_000);
  assert.deepEqual(ask("bob", "view"), [view(id, true)], "once, and not again on this connection");
  // The server does not push it: what it tells of is fetched.
  write(world, "alice", id, "one", "two");
  await world.clock.run(1_000);
  assert.deepEqual(bob.texts(id), ["one", "two"]);
  await reconnect(world);
  write(world, "alice", id, "three");
  await world.clock.run(100);
  assert.deepEqual(told(bob, id), [1, 2, 3, 4]);
});

test("one that was closed while a refusal was waited for stays closed", async () => {
  const { world, bob, id, ask } = await large();
  const { gate } = world.node;
  world.node.gate = (kind, body, connection) => {
    gate(kind, body, connection);
    if (kind === "view") throw new Refusal("overloaded", "full", true, 700);
  };
  bob.client.watch(id);
  await world.clock.run(100);
  bob.client.watch(null);
  await world.clock.run(5_000);
  assert.deepEqual(ask("bob", "view"), [view(id, true)]);
});

test("a server of before is asked once on a connection, and pushes everything", async () => {
  const { world, bob, id } = await pair();
  let asked = 0;
  world.node.gate = (kind) => {
    if (kind !== "view") return;
    asked += 1;
    throw new Refusal("unknown_frame");
  };
  bob.client.watch(id);
  await world.clock.run(1_000);
  bob.client.view(randomUUID(), true);
  write(world, "alice", id, "one");
  await world.clock.run(1_000);
  bob.client.watch(null);
  write(world, "alice", id, "two");
  await world.clock.run(5_000);
  assert.deepEqual([asked, bob.texts(id), bob.at(id).unread], [1, ["one", "two"], 2]);
});

test("a mention is told at once, and stands in the log in its order when that is opened", async () => {
  const { world, alice, bob, id, ask } = await large();
  write(world, "alice", id, "before", "it");
  mention(world, id, "bob, look");
  mention(world, id, "all, look", { everybody: true });
  mention(world, id, "carol, look", { mentions: ["carol"] });
  await world.clock.run(5_000);
  assert.deepEqual(mentioned(bob), [[id, "bob, look"], [id, "all, look"]]);
  assert.deepEqual(mentioned(alice), []);
  assert.deepEqual([bob.texts(id), bob.at(id).unread, ask("bob")], [[], 5, []]);
  bob.client.watch(id);
  await world.clock.run(1_000);
  mention(world, id, "bob, again");
  await world.clock.run(1_000);
  assert.equal(mentioned(bob).length, 2, "what is open comes as an entry");
  assert.deepEqual(bob.texts(id), ["before", "it", "bob, look", "all, look", "carol, look", "bob, again"]);
  assert.deepEqual(told(bob, id), [1, 2, 3, 4, 5, 6, 7]);
  assertWhole(world, bob, id);
});

test("what a resume streams behind a hole is not waited for, and a mention among it is told once", async () => {
  const { world, bob, id, ask } = await large();
  write(world, "alice", id, ...numbered(3));
  mention(world, id, "bob, while there");
  await world.clock.run(1_000);
  bob.client.request("ping", {});
  await world.clock.run(100);
  const { gate } = world.node;
  for (let round = 0; round < 2; round += 1) {
    world.kill();
    await world.clock.run(10);
    if (round === 0) {
      mention(world, id, "bob, while away");
      write(world, "alice", id, "last");
    }
    world.restart();
    world.node.gate = gate;
    world.shape = (frame) => (frame.message ? [frame, frame] : [frame]);
    await world.clock.run(20_000);
    assert.deepEqual([bob.at(id).tail, bob.at(id).end, bob.at(id).unread], [1, 7, 6]);
  }
  assert.deepEqual(mentioned(bob), [[id, "bob, while there"], [id, "bob, while away"]]);
  assert.deepEqual(ask("bob").filter((kind) => kind !== "conversations"), []);
  assert.equal(bob.client.position, world.node.position());
});

test("how far it has gone on is known after a reload, before the network answers", async () => {
  const { world, bob, id } = await large();
  write(world, "alice", id, ...numbered(3));
  await world.clock.run(1_000);
  await bob.client.stop();
  const again = world.client("bob", bob.memory);
  await again.client.start();
  assert.deepEqual([again.at(id).tail, again.at(id).end, again.at(id).unread], [1, 4, 3]);
  again.client.watch(id);
  await world.clock.run(2_000);
  assert.deepEqual(again.texts(id), numbered(3));
  assertWhole(world, again, id);
});

test("pointers: what is read elsewhere, what is marked unseen, and what one writes oneself", async () => {
  const { world, bob, id, ask } = await large();
  const phone = world.client("bob", undefined, "bob-phone");
  await phone.client.start();
  await world.clock.run(1_000);
  write(world, "alice", id, ...numbered(5));
  await world.clock.run(1_000);
  phone.client.watch(id);
  await world.clock.run(1_000);
  phone.client.markRead(id);
  await world.clock.run(1_000);
  assert.deepEqual([phone.at(id).unread, bob.at(id).unread], [0, 0], "the end is read");
  write(world, "alice", id, "six", "seven");
  await world.clock.run(1_000);
  assert.equal(bob.at(id).unread, 2);
  world.node.on_read(bobElsewhere, { conversation: id, sequence: 7 });
  await world.clock.run(1_000);
  assert.equal(bob.at(id).unread, 1, "somewhere between: the list knows");
  ask();
  bob.client.markRead(id);
  await world.clock.run(1_000);
  assert.deepEqual([bob.at(id).unread, world.node.conversations.get(id).members.bob.read], [0, 8]);
  write(world, "alice", id, "nine");
  bob.client.send(id, { text: "mine" });
  await world.clock.run(1_000);
  assert.deepEqual([bob.client.outbox.items, bob.at(id).unread, bob.at(id).tail], [[], 0, 1]);
  write(world, "alice", id, "eleven");
  bob.client.react(id, 2, "👍", true);
  await world.clock.run(1_000);
  assert.deepEqual([bob.client.outbox.items, bob.at(id).unread, bob.at(id).tail], [[], 1, 1]);
  assert.deepEqual(ask("bob", "conversations"), []);
  // The acknowledgement, or the word of the other device, comes before or behind the hint of what follows.
  for (const late of ["advanced", "send", "receipt"]) {
    world.shape = (frame) => [{ ...frame, delay_ms: frame[late] ? 50 : 1 }];
    bob.client.send(id, { text: `mine ${late}` });
    await world.clock.run(10);
    write(world, "alice", id, `hers ${late}`);
    await world.clock.run(1_000);
    assert.equal(bob.at(id).unread, 1, late);
    world.node.on_read(bobElsewhere, { conversation: id, sequence: world.node.conversations.get(id).log.length });
    await world.clock.run(1_000);
    assert.equal(bob.at(id).unread, 0, late);
  }
  world.shape = (frame) => [{ ...frame, delay_ms: frame.advanced ? 50 : 1 }];
  write(world, "alice", id, "read before it was heard of");
  world.node.on_read(bobElsewhere, { conversation: id, sequence: world.node.conversations.get(id).log.length });
  await world.clock.run(1_000);
  assert.equal(bob.at(id).unread, 0);
  assert.deepEqual(ask("bob", "conversations"), [], "no list was needed");
  bob.client.watch(id);
  await world.clock.run(1_000);
  assert.equal(bob.at(id).unread, 0);
  assert.deepEqual(told(bob, id), [...world.node.conversations.get(id).log.keys()].map((index) => index + 1));
  assertWhole(world, bob, id);
});

test("what is read is counted right while several pages of it are fetched", async () => {
  const { world, bob, id } = await large();
  write(world, "alice", id, ...numbered(390));
  await world.clock.run(1_000);
  world.node.on_read(bobElsewhere, { conversation: id, sequence: 391 });
  await world.clock.run(1_000);
  const counts = new Set();
  bob.client.subscribe(() => counts.add(bob.at(id).unread));
  bob.client.watch(id);
  await world.clock.run(2_000);
  assert.deepEqual([bob.at(id).tail, [...counts]], [391, [0]]);
});

test("a hint that comes to one that is open is fetched", async () => {
  const { world, bob, id } = await large();
  bob.client.watch(id);
  await world.clock.run(1_000);
  // The server has forgotten it.
  for (const connection of world.node.connections) connection.views?.clear();
  write(world, "alice", id, "one");
  mention(world, id, "bob, two");
  await world.clock.run(1_000);
  assert.deepEqual([bob.texts(id), mentioned(bob)], [["one", "bob, two"], []]);
});

test("one that was left and is open when the user comes back is told of again", async () => {
  const { world, alice, bob, ask } = await large();
  const creating = alice.client.group({ key: randomUUID(), members: ["bob", "carol"] });
  await world.clock.run(1_000);
  const id = await creating;
  bob.client.watch(id);
  await world.clock.run(1_000);
  alice.client.groups.remove(id, ["bob"]);
  await world.clock.run(1_000);
  for (const connection of world.node.connections) connection.views?.delete(id);
  alice.client.groups.add(id, ["bob"]);
  await world.clock.run(100);
  write(world, "alice", id, "welcome back");
  await world.clock.run(1_000);
  ask();
  write(world, "alice", id, "pushed");
  await world.clock.run(1_000);
  assert.deepEqual([bob.texts(id), ask("bob")], [["welcome back", "pushed"], []]);
});

test("one that begins anew, and one that was not known", async () => {
  const { world, bob, id } = await large();
  write(world, "alice", id, "old");
  await world.clock.run(1_000);
  const say = (frame) => {
    for (const connection of world.node.connections) if (connection.user === "bob") connection.deliver(JSON.stringify(frame));
  };
  const hint = { conversation: id, sequence: 9, ordinal: 8, time_ms: world.clock.nowMs };
  say({ advanced: { ...hint, epoch: 0 } });
  await world.clock.run(10);
  assert.equal(bob.at(id).end, 2);
  say({ advanced: { ...hint, epoch: 2 } });
  await world.clock.run(10);
  assert.deepEqual([bob.at(id).epoch, bob.at(id).tail, bob.at(id).end], [2, 9, 9]);
  const other = randomUUID();
  say({ advanced: { ...hint, conversation: other, epoch: 1 } });
  await world.clock.run(10);
  assert.equal(bob.at(other).tail, 9);
});

test("a program that wants everything fetches what is hinted", async () => {
  const { world, id } = await large();
  const robot = world.client("bob", undefined, "robot", { everything: true });
  await robot.client.start();
  await world.clock.run(1_000);
  write(world, "alice", id, "one");
  mention(world, id, "bob, two");
  await world.clock.run(1_000);
  assert.deepEqual([robot.texts(id), mentioned(robot)], [["one", "bob, two"], []]);
  assert.deepEqual(told(robot, id), [2, 3], "those after the list");
});

test("a long list of members is not all there is", async () => {
  const { world, alice } = await large();
  const others = numbered(1_200, "member-").map((name, index) => `${String(index).padStart(4, "0")}-${name}`);
  const creating = alice.client.group({ key: randomUUID(), members: ["bob"] });
  await world.clock.run(1_000);
  const id = await creating;
  world.node.on_members({ user: "alice" }, { conversation: id, add: others });
  alice.client.watch(id);
  await world.clock.run(2_000);
  assert.deepEqual([alice.at(id).memberCount, alice.at(id).members.length, alice.at(id).isRunByMe], [1_202, 1_000, true]);
});

test("any mixture: opened, closed, drops, kills, reloads, late and doubled frames; what is open in the end agrees with the log", async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { world, alice, bob, id } = await large(seed, seed % 2 === 0);
    world.node.gate = () => {};
    const clients = { alice, bob };
    const { random } = world;
    world.shape = (frame) => {
      if (!frame.message && !frame.advanced && !frame.view && !frame.send) return [frame];
      if (random() < 0.1) return frame.message || frame.advanced ? [] : [frame];
      const copies = random() < 0.1 && !frame.view ? 2 : 1;
      return Array.from({ length: copies }, () => ({ ...frame, delay_ms: 1 + Math.floor(random() * 80) }));
    };
    const written = { alice: [], bob: [] };
    const isOpen = { alice: false, bob: false };
    const check = (who) => {
      // Those that came are in order, and none came twice, but where the window began anew.
      const sequences = told(clients[who], id);
      assert.deepEqual(sequences, [...new Set(sequences)].sort((a, b) => a - b), `seed ${seed}: ${who}`);
    };
    for (let step = 0; step < 60; step += 1) {
      const who = random() < 0.5 ? "alice" : "bob";
      const dice = random();
      if (dice < 0.25) {
        isOpen[who] = random() < 0.6;
        clients[who].client.watch(isOpen[who] ? id : null);
      } else if (dice < 0.6) {
        const text = `${who} ${step}`;
        written[who].push(text);
        clients[who].client.send(id, { text, ...(random() < 0.2 ? { mentions: ["alice", "bob"] } : {}) });
      } else if (dice < 0.68) {
        // Who does not look at it does not know what they have reacted already.
        const target = clients[who].at(id).entries.find(({ kind }) => kind === "message");
        if (target && isOpen[who]) clients[who].client.react(id, target.sequence, "👍", random() < 0.6);
      } else if (dice < 0.72) {
        write(world, "alice", id, ...numbered(210, `burst ${step} `));
      } else if (dice < 0.8) {
        world.kill();
        await world.clock.run(random() * 3_000);
        world.restart();
      } else if (dice < 0.86) {
        clients[who].client.stop();
        check(who);
        clients[who] = world.client(who, clients[who].memory);
        isOpen[who] = false;
        await clients[who].client.start();
      } else {
        await world.clock.run(random() * 2_000);
      }
      await world.clock.run(random() * 60);
    }
    world.shape = (frame) => [frame];
    for (const who of ["alice", "bob"]) clients[who].client.watch(id);
    await world.clock.run(60_000);
    write(world, "alice", id, "the end");
    await world.clock.run(60_000);
    const { log } = world.node.conversations.get(id);
    for (const who of ["alice", "bob"]) {
      const stored = log.filter((entry) => entry.sender === who && entry.text?.startsWith(`${who} `));
      assert.deepEqual(stored.map(({ text }) => text), written[who], `seed ${seed}: ${who}'s messages, once and in order`);
      check(who);
      assertWhole(world, clients[who], id);
      assert.deepEqual([clients[who].client.status.waiting, clients[who].client.outbox.items], [0, []], `seed ${seed}`);
      const ordinal = log[world.node.conversations.get(id).members[who].read - 1]?.ordinal ?? 0;
      assert.equal(clients[who].at(id).unread, log.at(-1).ordinal - ordinal, `seed ${seed}: ${who}'s unread messages`);
    }
  }
});
