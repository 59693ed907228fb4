// What the client promises, against a node in memory and a network that drops, doubles and reorders.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";

import { FakeNode, Refusal } from "./fake-node.mjs";
import { assertWhole, makeWorld, pair, write } from "./world.mjs";

/** Mixtures of faults; more by `ANTIPHON_SEEDS`. */
const SEEDS = Number(process.env.ANTIPHON_SEEDS ?? 60);

for (const atOnce of [false, true])
  test(`a conversation of two: order, delivered, read, unread${atOnce ? ", frames at once" : ""}`, async () => {
    const { world, alice, bob, id } = await pair(1, atOnce);
    for (const text of ["one", "two", "three"]) alice.client.send(id, { text: text });
    await world.clock.run(2_000);
    for (const client of [alice, bob]) {
      assert.deepEqual(client.texts(id), ["one", "two", "three"]);
      assertWhole(world, client, id);
    }
    assert.equal(bob.at(id).unread, 3);
    assert.deepEqual(alice.at(id).reach(4), { delivered: 1, read: 0, others: 1 });
    bob.client.markRead(id);
    await world.clock.run(1_000);
    assert.equal(bob.at(id).unread, 0);
    assert.deepEqual(alice.at(id).reach(4), { delivered: 1, read: 1, others: 1 });
    assert.equal(alice.client.outbox.items.length, 0);
  });

test("who types is known while it is so: told again, ended by a word, a message, time, or going", async () => {
  const { world, alice, bob, id } = await pair();
  const told = [];
  world.node.gate = (kind, body, { user }) => kind === "event" && told.push([user, body.data.on]);
  const typing = () => [...bob.at(id).typing.keys()];
  const types = async (on, ms = 1_000) => {
    alice.client.typing(id, on);
    await world.clock.run(ms);
  };
  await types(true);
  assert.deepEqual(typing(), ["alice"]);
  for (let key = 0; key < 9; key += 1) await types(true);
  assert.deepEqual(
    told.splice(0),
    [
      ["alice", true],
      ["alice", true],
      ["alice", true],
    ],
    "every four seconds, not with every key",
  );
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
  alice.client.send(id, { text: "here it is" });
  await world.clock.run(1_000);
  assert.deepEqual(typing(), [], "the message says it");
  await types(false);
  assert.deepEqual(told.splice(0).at(-1), ["alice", true], "and nothing has to be told beside it");
});

test("who writes has read: on every device, without a receipt or a request of pointers", async () => {
  const { world, alice, bob, id } = await pair();
  const phone = world.client("bob", undefined, "bob-phone");
  await phone.client.start();
  await world.clock.run(1_000);
  alice.client.send(id, { text: "a question" });
  await world.clock.run(1_000);
  assert.equal(phone.at(id).unread, 1);
  const pointers = [];
  world.node.gate = (kind, body, connection) => {
    if (kind === "read" || (kind === "delivered" && connection.user === "bob")) pointers.push([kind, body]);
  };
  bob.client.send(id, { text: "an answer" });
  await world.clock.run(1_000);
  const { sequence } = alice.at(id).last;
  assert.deepEqual(alice.at(id).reach(sequence - 1), { delivered: 1, read: 1, others: 1 });
  for (const client of [bob, phone]) assert.equal(client.at(id).unread, 0);
  assert.deepEqual(pointers, [], "there was nothing to say");
});

test("what was read elsewhere is read here, also where the list says so before the entries come", async () => {
  const { world, alice, bob, id } = await pair();
  const phone = world.client("bob", undefined, "bob-phone");
  await phone.client.start();
  write(world, "alice", id, "before");
  await world.clock.run(1_000);
  await phone.client.stop();
  write(world, "alice", id, "one", "two", "three");
  await world.clock.run(1_000);
  bob.client.markRead(id);
  await world.clock.run(1_000);
  // Without a position there is no stream: entries come after the list, by history.
  phone.memory.snapshot.meta.position = null;
  const back = world.client("bob", phone.memory, "bob-phone");
  await back.client.start();
  await world.clock.run(10_000);
  assert.deepEqual(back.texts(id), ["before", "one", "two", "three"]);
  assert.deepEqual([back.at(id).read, back.at(id).unread], [bob.at(id).read, 0]);
  write(world, "alice", id, "four");
  await world.clock.run(10_000);
  assert.equal(back.at(id).unread, 1);
});

test("a pushed frame that comes twice or late is shown once and in order", async () => {
  const { world, bob, id } = await pair();
  let count = 0;
  world.shape = (frame) => {
    if (!frame.message) return [frame];
    count += 1;
    return [
      { ...frame, delay_ms: count % 2 ? 40 : 1 },
      { ...frame, delay_ms: 60 },
    ];
  };
  write(world, "alice", id, "a", "b", "c", "d", "e");
  await world.clock.run(5_000);
  assert.deepEqual(bob.texts(id), ["a", "b", "c", "d", "e"]);
  assert.deepEqual(
    bob.shown.filter((entry) => entry.text).map((entry) => entry.text),
    ["a", "b", "c", "d", "e"],
  );
  assertWhole(world, bob, id);
});

test("a lost push is filled from history, and no position is taken over meanwhile", async () => {
  const { world, bob, id } = await pair();
  const before = bob.client.position;
  world.shape = (frame) => (frame.message?.text === "lost" ? [] : [frame]);
  write(world, "alice", id, "first", "lost", "last");
  bob.client.request("ping", {});
  await world.clock.run(100);
  assert.deepEqual(bob.texts(id), ["first"]);
  assert.equal(bob.client.position, before, "the hole is still open");
  await world.clock.run(2_000);
  assert.deepEqual(bob.texts(id), ["first", "lost", "last"]);
  assert.equal(bob.client.position, world.node.position());
  assertWhole(world, bob, id);
});

test("a kill while sending: each message arrives once, in the order of writing, after the restart", async () => {
  const { world, alice, bob, id } = await pair();
  // The node stores the first, but its acknowledgement is lost with the node.
  world.shape = (frame) => (frame.send || frame.message ? [] : [frame]);
  for (const text of ["1", "2", "3"]) alice.client.send(id, { text: text });
  await world.clock.run(10);
  assert.equal(world.node.conversations.get(id).log.length, 2);
  world.kill();
  world.shape = (frame) => [frame];
  await world.clock.run(3_000);
  assert.equal(alice.client.status.online, false);
  assert.equal(alice.client.status.waiting, 3);
  alice.client.send(id, { text: "4" });
  world.restart();
  await world.clock.run(60_000);
  for (const client of [alice, bob]) {
    assert.deepEqual(client.texts(id), ["1", "2", "3", "4"]);
    assertWhole(world, client, id);
  }
  assert.equal(alice.client.status.waiting, 0);
});

test("a reload resumes from what was stored: nothing asked for twice, pending sends go out under their old ids", async () => {
  const { world, alice, bob, id } = await pair();
  write(world, "alice", id, "seen");
  await world.clock.run(1_000);
  bob.client.stop();
  write(world, "alice", id, "missed 1", "missed 2");
  const asked = [];
  world.node.gate = (kind) => void asked.push(kind);
  const again = world.client("bob", bob.memory);
  await again.client.start();
  assert.deepEqual(again.texts(id), ["seen"], "shown before the network answers");
  await world.clock.run(2_000);
  assert.deepEqual(again.texts(id), ["seen", "missed 1", "missed 2"]);
  assert.ok(!asked.includes("history") && !asked.includes("conversations"), `asked: ${asked}`);
  assertWhole(world, again, id);

  world.kill();
  await world.clock.run(10);
  alice.client.send(id, { text: "written offline" });
  const pending = alice.memory.outbox[0].client_message_id;
  alice.client.stop();
  world.restart();
  const back = world.client("alice", alice.memory);
  await back.client.start();
  await world.clock.run(20_000);
  assert.equal(world.node.conversations.get(id).log.at(-1).client_message_id, pending);
  assertWhole(world, back, id);
});

test("what another user left in a storage is not shown", async () => {
  const { world, alice, id } = await pair();
  write(world, "alice", id, "for bob's eyes");
  await world.clock.run(1_000);
  await alice.client.stop();
  const carol = world.client("carol", alice.memory);
  await carol.client.start();
  assert.equal(carol.client.conversations.size, 0);
  await world.clock.run(1_000);
  assert.deepEqual([carol.client.conversations.size, carol.client.status.online], [0, true]);
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
    assert.equal(bob.client.status.online, true);
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
  const timeline = bob.at(id);
  assert.equal(timeline.tail, 451);
  assert.equal(timeline.unread, 450);
  while (!timeline.atStart) {
    const loading = bob.client.loadOlder(id, 100);
    await world.clock.run(50);
    assert.ok((await loading) > 0);
  }
  assert.equal(timeline.entries.length, 451);
  assertWhole(world, bob, id);
});

test("reads back to a message that is far away, as far as pages go", async () => {
  const { world, bob, id } = await pair();
  bob.client.stop();
  write(world, "alice", id, ...Array.from({ length: 450 }, (_, index) => `m${index}`));
  const fresh = world.client("bob", undefined, "bob-phone");
  await fresh.client.start();
  await world.clock.run(1_000);
  const reached = async (sequence, pagesMax) => {
    const loading = fresh.client.loadBackTo(id, sequence, pagesMax);
    await world.clock.run(500);
    return loading;
  };
  assert.equal(await reached(10, 1), false, "one page does not reach so far");
  assert.equal(await reached(10), true);
  assert.equal(fresh.at(id).at(10).text, "m8");
  assert.equal(await reached(1_000), false, "there is no such message");
  assertWhole(world, fresh, id);
});

test("another store: everything is forgotten and listed again, what was written is kept", async () => {
  const { world, alice, id } = await pair();
  world.kill();
  await world.clock.run(10);
  world.node = new FakeNode({ now: () => world.clock.nowMs });
  world.node.on_create({ user: "alice" }, { direct: "carol" });
  world.up = true;
  alice.client.send(id, { text: "to nowhere" });
  await world.clock.run(20_000);
  assert.deepEqual(
    alice.client.list().map((timeline) => timeline.direct),
    ["carol"],
  );
  assert.equal(alice.client.outbox.items[0].failed.code, "not_found");
});

test("a refused message fails by itself; a temporary refusal holds the order", async () => {
  const { world, alice, bob, id } = await pair();
  let busy = 2;
  world.node.gate = (kind, body) => {
    if (kind !== "send") return;
    if (body.text === "bad") throw new Refusal("too_large", "beyond a limit");
    if (busy-- > 0) throw new Refusal("rate_limited", "slow down", true, 700);
  };
  for (const text of ["x", "bad", "y"]) alice.client.send(id, { text: text });
  await world.clock.run(500);
  assert.deepEqual(bob.texts(id), []);
  await world.clock.run(5_000);
  assert.deepEqual(bob.texts(id), ["x", "y"]);
  const [failed] = alice.client.outbox.items;
  assert.equal(failed.failed.code, "too_large");
  world.node.gate = () => {};
  alice.client.outbox.retry(failed.client_message_id);
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
  assert.equal(bob.client.status.online, false);
  bob.client.wake();
  await world.clock.run(50);
  assert.equal(bob.client.status.online, false, "not before the server said");
  await world.clock.run(200);
  assert.equal(bob.client.status.online, true);

  say({ code: 4502, reason: "replaced" });
  await world.clock.run(60_000);
  assert.equal(bob.client.status.stopped.replaced, true);
  bob.client.resume();
  await world.clock.run(100);
  assert.equal(bob.client.status.online, true);
});

test("a refused token is renewed once; a second refusal ends it; an overloaded node is left in peace", async () => {
  const world = makeWorld();
  const refuse = { unauthenticated: 1, overloaded: 0 };
  world.node.gate = (kind) => {
    if (kind !== "connect") return;
    if (refuse.overloaded-- > 0) throw new Refusal("overloaded", "full", true, 9_000);
    if (refuse.unauthenticated-- > 0) throw new Refusal("unauthenticated");
  };
  const { client } = world.client("alice");
  await client.start();
  await world.clock.run(2_000);
  assert.equal(client.status.online, true);

  refuse.overloaded = 1;
  world.node.crash();
  await world.clock.run(8_000);
  assert.equal(client.status.online, false);
  await world.clock.run(3_000);
  assert.equal(client.status.online, true);

  refuse.unauthenticated = 2;
  world.node.crash();
  await world.clock.run(30_000);
  assert.equal(client.status.stopped.code, 4500);
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
  assert.equal(bob.client.status.online, true);
});

test("a dead connection is noticed by the heartbeat, and back-off spreads and is bounded", async () => {
  const { world, bob } = await pair();
  world.up = false; // Nothing answers, nothing closes.
  await world.clock.run(55_000);
  assert.equal(bob.client.status.online, false);
  const before = world.dials;
  await world.clock.run(600_000);
  const perMinute = (world.dials - before) / 10 / world.clients.length;
  assert.ok(perMinute > 3 && perMinute < 40, `${perMinute} dials a minute`);
  world.restart();
  bob.client.wake();
  await world.clock.run(13_000);
  assert.equal(bob.client.status.online, true);
});

test("groups: added, renamed, read by some, removed", async () => {
  const { world, alice, bob } = await pair();
  const carol = world.client("carol");
  await carol.client.start();
  const creating = alice.client.group({ key: randomUUID(), title: "Choir", members: ["bob"] });
  await world.clock.run(500);
  const id = await creating;
  alice.client.send(id, { text: "hello" });
  await world.clock.run(500);
  alice.client.groups.add(id, ["carol"]);
  alice.client.groups.rename(id, "Choir of three");
  await world.clock.run(1_000);
  assert.equal(carol.at(id).title, "Choir of three");
  alice.client.send(id, { text: "welcome" });
  await world.clock.run(1_000);
  assert.equal(carol.at(id).unread, 1, "what was before does not count");
  carol.client.markRead(id);
  await world.clock.run(1_000);
  const { sequence } = alice.at(id).last;
  assert.deepEqual(alice.at(id).reach(sequence), { delivered: 2, read: 1, others: 2 });
  alice.client.groups.remove(id, ["bob"]);
  await world.clock.run(1_000);
  assert.equal(bob.client.conversations.has(id), false);
  assert.equal(alice.at(id).memberCount, 2);
  assertWhole(world, carol, id);
});

test("any mixture: lost, doubled, late pushes, kills, reloads; both ends agree with the log", async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { world, alice, bob, id } = await pair(seed, seed % 2 === 0);
    const clients = { alice, bob };
    const { random } = world;
    world.shape = (frame) => {
      if (!frame.message && !frame.send) return [frame];
      if (random() < 0.1) return frame.message ? [] : [frame];
      const copies = random() < 0.1 ? 2 : 1;
      return Array.from({ length: copies }, () => ({ ...frame, delay_ms: 1 + Math.floor(random() * 80) }));
    };
    const written = { alice: [], bob: [] };
    /** Some message that both may know, to be changed. */
    const anyMessage = (who) => {
      const messages = clients[who].at(id).entries.filter(({ kind }) => kind === "message");
      return messages[Math.floor(random() * messages.length)];
    };
    const change = (who) => {
      const message = anyMessage(who);
      if (!message) return;
      const { client } = clients[who];
      const dice = random();
      if (dice < 0.4) client.react(id, message.sequence, random() < 0.5 ? "👍" : "🎶", random() < 0.6);
      else if (dice < 0.6) client.pin(id, message.sequence, random() < 0.6);
      else if (dice < 0.8) client.edit(id, message.sequence, { text: `mended ${Math.floor(random() * 1e6)}` });
      else if (dice < 0.9) client.delete(id, message.sequence);
      else client.send(id, { text: "reply", reply_to: message.sequence, thread: message.thread ?? message.sequence });
    };
    for (let step = 0; step < 60; step += 1) {
      const who = random() < 0.5 ? "alice" : "bob";
      const dice = random();
      if (dice < 0.3) {
        change(who);
      } else if (dice < 0.7) {
        const text = `${who} ${step}`;
        written[who].push(text);
        clients[who].client.send(id, { text: text });
      } else if (dice < 0.78) {
        world.kill();
        await world.clock.run(random() * 3_000);
        world.restart();
      } else if (dice < 0.86) {
        clients[who].client.stop();
        clients[who] = world.client(who, clients[who].memory);
        await clients[who].client.start();
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
      const stored = log.filter((entry) => entry.sender === who && entry.text?.startsWith(`${who} `));
      assert.deepEqual(
        stored.map((entry) => entry.text),
        written[who],
        `seed ${seed}: ${who}'s messages, once and in order`,
      );
      assertWhole(world, clients[who], id);
      assert.equal(clients[who].client.status.waiting, 0, `seed ${seed}`);
    }
  }
});

test("changes of messages: by oneself, by others, seen live, by a page, after an absence and a reload", async () => {
  const { world, alice, bob, id } = await pair();
  alice.client.send(id, { text: "one" });
  alice.client.send(id, { text: "two" });
  await world.clock.run(1_000);
  const [one, two] = [2, 3];
  alice.client.edit(id, one, { text: "one, mended" });
  alice.client.react(id, two, "👍", true);
  bob.client.react(id, two, "👍", true);
  bob.client.react(id, two, "🎶", true);
  bob.client.pin(id, one, true);
  bob.client.send(id, { text: "in the thread", reply_to: one, thread: one });
  await world.clock.run(2_000);
  for (const told of [alice, bob]) {
    assert.equal(told.at(id).at(one).text, "one, mended");
    assert.equal(told.at(id).state(one).replies, 1);
    assert.deepEqual(told.at(id).pinned, [one]);
    assertWhole(world, told, id);
  }
  // The order among them is that of the node.
  assert.deepEqual(
    bob
      .at(id)
      .state(two)
      .reactions.find(({ reaction }) => reaction === "👍"),
    { reaction: "👍", count: 2, mine: true },
  );

  const late = world.client("bob", undefined, "bob-phone");
  await late.client.start();
  await world.clock.run(1_000);
  const loading = late.client.loadOlder(id);
  await world.clock.run(100);
  assert.ok((await loading) > 0);
  assertWhole(world, late, id);
  alice.client.react(id, two, "👍", false);
  bob.client.react(id, two, "🎶", false);
  await world.clock.run(1_000);
  for (const told of [alice, bob, late]) assertWhole(world, told, id);

  bob.client.stop();
  alice.client.delete(id, one);
  alice.client.react(id, two, "❤️", true);
  await world.clock.run(1_000);
  const again = world.client("bob", bob.memory);
  await again.client.start();
  assert.equal(again.at(id).at(one).text, "one, mended", "as it was when it went");
  await world.clock.run(2_000);
  for (const told of [alice, again, late]) {
    assert.deepEqual([told.at(id).at(one).text, told.at(id).state(one).deleted], [undefined, true]);
    assertWhole(world, told, id);
  }
});

test("a change that is refused waits for its maker, and holds up nothing", async () => {
  const { world, alice, bob, id } = await pair();
  alice.client.send(id, { text: "gone" });
  await world.clock.run(1_000);
  bob.client.delete(id, 2);
  await world.clock.run(1_000);
  alice.client.edit(id, 2, { text: "too late" });
  alice.client.send(id, { text: "after it" });
  await world.clock.run(1_000);
  const [item] = alice.client.outbox.of(id);
  assert.deepEqual([item.kind, item.failed.code], ["edit", "deleted"]);
  assert.equal(bob.texts(id).at(-1), "after it");
  alice.client.outbox.discard(item.client_message_id);
  assert.equal(alice.client.outbox.items.length, 0);
});

test("changes over a kill and a reload are made once, in the order in which they were asked for", async () => {
  const { world, alice, bob, id } = await pair();
  alice.client.send(id, { text: "draft" });
  await world.clock.run(1_000);
  world.shape = (frame) => (frame.edit || frame.message ? [] : [frame]);
  alice.client.edit(id, 2, { text: "first try" });
  alice.client.edit(id, 2, { text: "second try" });
  alice.client.react(id, 2, "👍", true);
  await world.clock.run(10);
  world.kill();
  alice.client.stop();
  world.shape = (frame) => [frame];
  await world.clock.run(1_000);
  world.restart();
  const back = world.client("alice", alice.memory);
  await back.client.start();
  await world.clock.run(60_000);
  const kinds = world.node.conversations
    .get(id)
    .log.slice(2)
    .map(({ kind, text }) => [kind, text]);
  assert.deepEqual(kinds, [
    ["edit", "first try"],
    ["edit", "second try"],
    ["reaction", undefined],
  ]);
  for (const told of [back, bob]) {
    assert.equal(told.at(id).at(2).text, "second try");
    assertWhole(world, told, id);
  }
});

test("ids say when they were made by the server's clock, so that a retry is never stored twice", async () => {
  const { world, alice, id } = await pair();
  const { client_message_id } = alice.client.send(id, { text: "now" });
  assert.match(client_message_id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  const aheadMs = world.clock.nowMs - Number.parseInt(client_message_id.replaceAll("-", "").slice(0, 12), 16);
  assert.ok(aheadMs >= 0 && aheadMs < 10, "but for what a frame takes");
  const behind = { now: () => world.clock.nowMs + 5_000_000 };
  world.node.now = behind.now;
  world.node.crash();
  await world.clock.run(2_000);
  const later = alice.client.send(id, { text: "later" });
  const madeMs = Number.parseInt(later.client_message_id.replaceAll("-", "").slice(0, 12), 16);
  assert.ok(Math.abs(madeMs - behind.now()) < 10, `${madeMs}`);
});

test("a retention mark takes what is before it from here, too", async () => {
  const { world, alice, id } = await pair();
  write(world, "bob", id, "a", "b", "c");
  await world.clock.run(1_000);
  world.node.append(id, "alice", { kind: "retention", client_message_id: randomUUID(), before: 4, messages: 2 });
  await world.clock.run(1_000);
  assert.deepEqual([alice.texts(id), alice.at(id).atStart], [["c"], true]);
});

test("an event of the application reaches the other's listeners, and only theirs", async () => {
  const { world, alice, bob, id } = await pair();
  alice.client.event(id, "wave", { hand: "left" });
  await world.clock.run(100);
  const events = (told) => told.changes.filter(({ kind }) => kind === "event");
  assert.deepEqual(events(bob), [{ kind: "event", conversation: id, user: "alice", event: "wave", data: { hand: "left" } }]);
  assert.deepEqual(events(alice), []);
});
