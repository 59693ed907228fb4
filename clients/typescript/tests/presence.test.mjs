// Who is there, as the client tells it, against a node in memory.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Presence } from "../dist/presence.js";
import { Refusal } from "./fake-node.mjs";
import { makeWorld } from "./world.mjs";

const news = (told) => told.changes.splice(0).filter(({ kind }) => kind === "presence").map(({ users }) => users);

async function online(world, name) {
  const told = world.client(name);
  await told.client.start();
  await world.clock.run(500);
  return told;
}

test("those who are looked at are told of, and no others", async () => {
  const world = makeWorld();
  const asked = [];
  world.node.gate = (kind, body) => void (kind === "presence" && asked.push(body));
  const bob = await online(world, "bob");
  const ann = await online(world, "ann");
  assert.equal(bob.client.presence.of("ann"), undefined);
  bob.client.presence.look(["ann", "cat"]);
  bob.client.presence.look(["ann", "cat", "ann"]);
  await world.clock.run(500);
  assert.deepEqual(asked, [{ watch: ["ann", "cat"], unwatch: [] }], "what is looked at in passing is one request");
  assert.deepEqual([bob.client.presence.of("ann"), bob.client.presence.of("cat")], [{ user: "ann", online: true }, { user: "cat", online: false }]);
  assert.deepEqual(news(bob), [["ann", "cat"]]);
  await ann.client.stop();
  await world.clock.run(500);
  assert.equal(bob.client.presence.of("ann").online, false);
  assert.ok(bob.client.presence.of("ann").last_seen_ms > 0);
  assert.deepEqual(news(bob), [["ann"]]);
  bob.client.presence.look(["cat"]);
  await world.clock.run(500);
  assert.deepEqual([asked.at(-1), bob.client.presence.of("ann")], [{ watch: [], unwatch: ["ann"] }, undefined]);
  await online(world, "ann");
  assert.deepEqual(news(bob), []);
});

test("what is told right behind an answer counts, not the answer", async () => {
  let answer;
  const timers = { later: (_name, _waitMs, then) => then() };
  const presence = new Presence({
    timers,
    isCaughtUp: () => true,
    call: () => new Promise((resolve) => (answer = resolve)),
    changed: () => {},
  });
  presence.look(["ann", "cat"]);
  // Both frames are in one packet: whoever waits for the answer goes on when both are read.
  answer({ users: [{ user: "ann", online: false }, { user: "cat", online: true }], watching: 2 });
  presence.told([{ user: "ann", online: true }]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(["ann", "cat"].map((user) => presence.of(user).online), [true, true]);
});

test("after a drop nothing is known, and all are asked about anew", async () => {
  const world = makeWorld();
  const bob = await online(world, "bob");
  await online(world, "ann");
  bob.client.presence.look(["ann"]);
  await world.clock.run(500);
  news(bob);
  world.kill();
  await world.clock.run(100);
  assert.deepEqual([news(bob), bob.client.presence.of("ann")], [[["ann"]], undefined]);
  world.restart();
  await world.clock.run(20_000);
  assert.equal(bob.client.presence.of("ann").online, true);
});

test("many are asked about in parts, and a thousand at most", async () => {
  const world = makeWorld();
  const sizes = [];
  world.node.gate = (kind, body) => void (kind === "presence" && sizes.push(body.watch.length));
  const bob = await online(world, "bob");
  bob.client.presence.look(Array.from({ length: 1_100 }, (_, number) => `u${number}`));
  await world.clock.run(2_000);
  assert.deepEqual(sizes, [200, 200, 200, 200, 200]);
  assert.equal(bob.client.presence.of("u999").online, false);
});

test("a server of before knows no presence and is asked once", async () => {
  const world = makeWorld();
  let asked = 0;
  world.node.gate = (kind) => {
    if (kind !== "presence") return;
    asked += 1;
    throw new Refusal("unknown_frame");
  };
  const bob = await online(world, "bob");
  bob.client.presence.look(["ann"]);
  await world.clock.run(5_000);
  assert.deepEqual([asked, bob.client.presence.of("ann")], [1, undefined]);
});
