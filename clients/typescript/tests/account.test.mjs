// What the client promises of account data, against a node in memory.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Refusal } from "./fake-node.mjs";
import { makeWorld } from "./world.mjs";

/** Two devices of alice that have seen each other's world. */
async function devices(seed = 1) {
  const world = makeWorld(seed);
  const [phone, tab] = ["phone", "tab"].map((name) => world.client("alice", undefined, name));
  await phone.client.start();
  await tab.client.start();
  await world.clock.run(1_000);
  return { world, phone, tab };
}

const news = (told) => told.changes.splice(0).filter(({ kind }) => kind === "account").map(({ kind, ...rest }) => rest);
const of = ({ client }, prefix) => Object.fromEntries(client.account.keys(prefix).map((key) => [key, client.account.get(key)]));
/** Requests that set something, as they come. */
function watchSets(world) {
  const sets = [];
  world.node.gate = (kind, body) => void (kind === "account" && body.set && sets.push(body.set));
  return sets;
}

test("what one device sets the other has, at once, and as no conversation", async () => {
  const { world, phone, tab } = await devices();
  news(tab);
  phone.client.account.set("theme", "dark");
  phone.client.account.set("draft:x", { text: "Hi" });
  assert.deepEqual(of(phone), { "draft:x": { text: "Hi" }, theme: "dark" }, "here it counts at once");
  await world.clock.run(1_000);
  assert.deepEqual(of(tab), of(phone));
  assert.deepEqual(news(tab), [{ keys: ["theme"] }, { keys: ["draft:x"] }]);
  assert.deepEqual(of(tab, "draft:"), { "draft:x": { text: "Hi" } });
  tab.client.account.set("theme");
  await world.clock.run(1_000);
  assert.deepEqual(of(phone), { "draft:x": { text: "Hi" } });
  for (const { client } of [phone, tab]) assert.equal(client.conversations.size, 0);
  const another = world.client("alice", undefined, "another");
  await another.client.start();
  await world.clock.run(1_000);
  assert.deepEqual([of(another), another.client.conversations.size], [of(phone), 0]);
});

test("of what is set key by key the last goes to the server, and nothing that is so already", async () => {
  const { world, phone } = await devices();
  const sets = watchSets(world);
  for (const text of ["S", "Se", "See"]) {
    phone.client.account.set("draft:x", { text });
    await world.clock.run(50);
  }
  await world.clock.run(1_000);
  assert.deepEqual(sets.splice(0), [{ key: "draft:x", value: { text: "See" } }]);
  phone.client.account.set("draft:x", { text: "See" });
  phone.client.account.set("none");
  await world.clock.run(1_000);
  assert.deepEqual(sets, []);
  phone.client.account.set("antiphon.receipts", { on: false });
  await world.clock.run(50);
  assert.deepEqual(sets.splice(0), [{ key: "antiphon.receipts", value: { on: false } }], "what the server acts upon goes at once");
});

test("the last who sets wins on both, and hears that it overwrote", async () => {
  const { world, phone, tab } = await devices();
  phone.client.account.set("draft:x", "one");
  await world.clock.run(1_000);
  // Each sets before it hears of the other.
  phone.client.account.set("draft:x", "of the phone");
  await world.clock.run(300);
  tab.client.account.set("draft:x", "of the tab");
  news(phone);
  news(tab);
  await world.clock.run(1_000);
  assert.deepEqual([of(phone), of(tab)], [{ "draft:x": "of the tab" }, { "draft:x": "of the tab" }]);
  assert.deepEqual(news(tab), [{ keys: ["draft:x"], overwrote: true }]);
  assert.deepEqual(news(phone), [{ keys: ["draft:x"] }]);
});

test("what is set without a connection goes later, over a restart too; what others set meanwhile comes", async () => {
  const { world, phone, tab } = await devices();
  phone.client.account.set("both", 1);
  await world.clock.run(1_000);
  await phone.client.stop();
  tab.client.account.set("theirs", 2);
  tab.client.account.set("both", 3);
  await world.clock.run(1_000);
  world.kill();
  const again = world.client("alice", phone.memory, "phone");
  await again.client.start();
  again.client.account.set("mine", 4);
  await world.clock.run(500);
  assert.deepEqual(of(again), { both: 1, mine: 4 }, "of the last visit, and what was set now");
  await again.client.stop();
  const later = world.client("alice", phone.memory, "phone");
  await later.client.start();
  world.restart();
  const sets = watchSets(world);
  await world.clock.run(20_000);
  assert.deepEqual([of(later), of(tab)], [{ both: 3, mine: 4, theirs: 2 }, { both: 3, mine: 4, theirs: 2 }]);
  assert.deepEqual(sets, [{ key: "mine", value: 4 }]);
});

test("what was set a moment before the program was killed is kept, and goes once", async () => {
  const { world, phone, tab } = await devices();
  phone.client.account.set("gone", 1);
  await world.clock.run(1_000);
  await phone.client.persist();
  phone.client.account.set("draft:x", "one");
  phone.client.account.set("draft:x", "two");
  phone.client.account.set("gone");
  // Nothing more is stored of what it knew: the process is gone.
  const memory = structuredClone(phone.memory);
  phone.client.stop();
  const again = world.client("alice", memory, "phone");
  assert.deepEqual(of(again), { "draft:x": "two" }, "it counts before anything is loaded");
  const sets = watchSets(world);
  await again.client.start();
  await world.clock.run(2_000);
  assert.deepEqual([of(again), of(tab)], [{ "draft:x": "two" }, { "draft:x": "two" }]);
  assert.deepEqual(sets, [{ key: "draft:x", value: "two" }, { key: "gone" }]);
  assert.deepEqual(memory.account, []);
});

test("an absence costs no list, unless entries are missing", async () => {
  const { world, phone, tab } = await devices();
  tab.client.account.set("a", 1);
  await world.clock.run(1_000);
  let lists = 0;
  world.node.gate = (kind, body) => void (kind === "account" && body.list && (lists += 1));
  await phone.client.stop();
  for (const value of [2, 3]) {
    tab.client.account.set("a", value);
    await world.clock.run(1_000);
  }
  const back = world.client("alice", phone.memory, "phone");
  await back.client.start();
  await world.clock.run(1_000);
  assert.deepEqual([of(back), lists], [{ a: 3 }, 0]);
  // A push that is lost shows by the next one.
  world.shape = (frame) => (frame.message?.key === "lost" ? [] : [frame]);
  tab.client.account.set("lost", 1);
  await world.clock.run(1_000);
  assert.equal(back.client.account.get("lost"), undefined);
  tab.client.account.set("next", 1);
  await world.clock.run(1_000);
  assert.deepEqual(of(back), { a: 3, lost: 1, next: 1 });
  assert.ok(lists >= 1);
  // Beyond what a resume streams, all is listed.
  await back.client.stop();
  for (let value = 0; value < 210; value += 1) {
    tab.client.account.set("many", value);
    await world.clock.run(450);
  }
  lists = 0;
  const late = world.client("alice", phone.memory, "phone");
  await late.client.start();
  await world.clock.run(2_000);
  assert.deepEqual([late.client.account.get("many"), lists, late.client.conversations.size], [209, 1, 0]);
});

test("what the server refuses is told, and what it has counts again; a refusal for now is tried again", async () => {
  const { world, phone } = await devices();
  phone.client.account.set("a", 1);
  await world.clock.run(1_000);
  news(phone);
  world.node.gate = (kind, body) => {
    if (kind === "account" && body.set) throw new Refusal("limit_reached");
  };
  phone.client.account.set("a", 2);
  phone.client.account.set("b", 2);
  await world.clock.run(1_000);
  assert.deepEqual(of(phone), { a: 1 });
  const failed = news(phone).filter((one) => one.failed);
  assert.deepEqual(failed.map(({ keys, failed }) => [keys, failed.code]), [[["a"], "limit_reached"], [["b"], "limit_reached"]]);
  let refusals = 2;
  world.node.gate = (kind, body) => {
    if (kind === "account" && body.set && refusals-- > 0) throw new Refusal("overloaded", "overloaded", true, 100);
  };
  phone.client.account.set("a", 3);
  await world.clock.run(3_000);
  assert.deepEqual([of(phone), news(phone).some((one) => one.failed)], [{ a: 3 }, false]);
});

test("a server of before knows no account: all else works", async () => {
  const world = makeWorld();
  world.node.gate = (kind) => {
    if (kind === "account") throw new Refusal("unknown_frame");
  };
  const told = world.client("alice");
  await told.client.start();
  await world.clock.run(1_000);
  assert.deepEqual([told.client.status.online, told.client.position !== null], [true, true]);
});

test("a list while others set: both ends agree", async () => {
  for (let seed = 1; seed <= 40; seed += 1) {
    const { world, phone, tab } = await devices(seed);
    const { random } = world;
    world.shape = (frame) => (random() < 0.1 && frame.message ? [] : [{ ...frame, delay_ms: 1 + Math.floor(random() * 20) }]);
    let at = 0;
    const shape = world.shape;
    world.shape = (frame) => shape(frame).map((one) => ({ ...one, delay_ms: (at = Math.max(at, world.clock.nowMs + one.delay_ms)) - world.clock.nowMs }));
    for (let step = 0; step < 60; step += 1) {
      const { client } = random() < 0.5 ? phone : tab;
      const key = `k${Math.floor(random() * 5)}`;
      client.account.set(key, random() < 0.2 ? undefined : step);
      if (random() < 0.05) client.account.doubt();
      await world.clock.run(Math.floor(random() * 600));
    }
    world.shape = (frame) => [frame];
    // The next change shows whatever was lost.
    await world.clock.run(1_000);
    phone.client.account.set("last", seed);
    await world.clock.run(3_000);
    const truth = Object.fromEntries([...world.node.accounts.get("alice").items].map(([key, { value }]) => [key, value]).sort());
    assert.deepEqual([of(phone), of(tab)], [truth, truth], `seed ${seed}`);
  }
});
