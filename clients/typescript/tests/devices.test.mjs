// The user's devices: listed, named, logged out, and what becomes of one that is, against a node in memory.

import assert from "node:assert/strict";
import { test } from "node:test";

import { DEVICES_KEY } from "../dist/index.js";
import { Refusal } from "./fake-node.mjs";
import { makeWorld } from "./world.mjs";

/** Devices of alice by name. Their tokens are of the time at which they are asked for anew. */
async function devices(...names) {
  const world = makeWorld();
  const renewed = [];
  let issuedMs = world.clock.nowMs;
  world.token = async (user, renew) => {
    if (renew) renewed.push((issuedMs = world.clock.nowMs));
    return `${user}@${issuedMs}`;
  };
  const told = [];
  for (const name of names) {
    const one = world.client("alice", undefined, name);
    await one.client.start();
    await world.clock.run(1_000);
    told.push(one);
  }
  return { world, renewed, told, clients: told.map(({ client }) => client) };
}

/** Carries out what waits for the clock. */
async function done(world, promise) {
  const outcome = promise.then((value) => () => value, (error) => () => { throw error; });
  await world.clock.run(1_000);
  return (await outcome)();
}

const stopped = ({ status: { stopped } }) => {
  if (!stopped) return null;
  const { code, reason } = stopped;
  return { code, reason, of: Object.keys(stopped).filter((name) => stopped[name] === true) };
};

const REVOKED = { code: 4504, reason: "revoked", of: ["revoked"] };

test("devices are listed, named by themselves, and the others hear of it", async () => {
  const { world, told, clients: [phone, tab] } = await devices("phone", "tab");
  const plain = (list) => list.map(({ device, name = null, online, this: own = false }) => [device, name, online, own]);
  assert.deepEqual(plain(await done(world, phone.devices.list())), [["phone", null, true, true], ["tab", null, true, false]]);
  told[0].changes.splice(0);
  const namedMs = world.clock.nowMs;
  await done(world, tab.devices.name("Alice's tab"));
  assert.deepEqual(told[0].changes.filter(({ kind }) => kind === "account"), [{ kind: "account", keys: [DEVICES_KEY] }]);
  await tab.stop();
  const list = await done(world, phone.devices.list());
  assert.deepEqual(plain(list), [["phone", null, true, true], ["tab", "Alice's tab", false, false]], "it is listed while it is away");
  assert.ok(list[1].since_ms >= namedMs);
  await done(world, phone.devices.name("Phone"));
  await done(world, phone.devices.name());
  assert.deepEqual(plain(await done(world, phone.devices.list()))[0], ["phone", null, true, true]);
});

test("one that is logged out stays away, knows why, and comes back with another token", async () => {
  const { world, renewed, clients: [phone, tab] } = await devices("phone", "tab");
  await done(world, phone.devices.revoke(["tab"]));
  assert.deepEqual([stopped(tab), stopped(phone)], [REVOKED, null]);
  const { dials } = world;
  tab.wake();
  tab.wake(true);
  await world.clock.run(3_600_000);
  assert.deepEqual([world.dials, renewed, stopped(tab)], [dials, [], REVOKED], "not by itself");
  tab.resume();
  await world.clock.run(1_000);
  assert.deepEqual([tab.status.online, renewed.length], [true, 1]);
});

test("one that was logged out while it was away is told when it comes, and does not ask for another token", async () => {
  const { world, renewed, clients: [phone, tab] } = await devices("phone", "tab");
  await tab.stop();
  await done(world, phone.devices.revoke(["tab"]));
  await tab.start();
  await world.clock.run(60_000);
  assert.deepEqual([stopped(tab), renewed], [REVOKED, []]);
  // Its token is refused again if there is no other.
  world.token = async () => "alice@1";
  tab.resume();
  await world.clock.run(60_000);
  assert.deepEqual(stopped(tab), REVOKED);
});

test("all others are logged out, or all", async () => {
  const { world, clients } = await devices("phone", "tab", "desk");
  const [phone, tab, desk] = clients;
  await done(world, phone.devices.revokeAll({ butThis: true }));
  assert.deepEqual(clients.map(stopped), [null, REVOKED, REVOKED]);
  assert.deepEqual((await done(world, phone.devices.list())).map(({ device }) => device), ["phone"]);
  for (const client of [tab, desk]) client.resume();
  await world.clock.run(1_000);
  await done(world, tab.devices.revokeAll());
  await world.clock.run(60_000);
  assert.deepEqual(clients.map(stopped), [REVOKED, REVOKED, REVOKED]);
});

test("one device too many stays away and knows why, until another has gone", async () => {
  const { world, clients: [phone] } = await devices("phone");
  world.node.devicesMax = 1;
  const { client: tab } = world.client("alice", undefined, "tab");
  await tab.start();
  const dials = world.dials + 1;
  await world.clock.run(3_600_000);
  assert.deepEqual(stopped(tab), { code: 4505, reason: "too_many_devices", of: ["tooManyDevices"] });
  assert.ok(world.dials <= dials, "it does not try by itself");
  await phone.stop();
  tab.resume();
  await world.clock.run(1_000);
  assert.deepEqual([tab.status.online, stopped(tab)], [true, null]);
});

test("the error is enough where the close that says the same is lost", async () => {
  const { world, clients: [phone] } = await devices("phone");
  await phone.stop();
  world.node.gate = (kind) => {
    if (kind === "connect") throw new Refusal("limit_reached");
  };
  phone.resume();
  await world.clock.run(60_000);
  assert.deepEqual(stopped(phone).of, ["tooManyDevices"]);
  world.node.gate = (kind, _body, connection) => {
    if (kind !== "connect") return;
    world.clock.setTimeout(() => connection.end(1006), 1);
    throw new Refusal("unauthenticated");
  };
  phone.resume();
  await world.clock.run(60_000);
  assert.deepEqual([stopped(phone).code, stopped(phone).of], [4500, ["unauthenticated"]]);
});

test("many are logged out in parts", async () => {
  const { world, clients: [phone] } = await devices("phone");
  const sizes = [];
  world.node.gate = (kind, body) => void (kind === "devices" && sizes.push(body.revoke.length));
  await done(world, phone.devices.revoke(Array.from({ length: 120 }, (_, number) => `tab-${number}`)));
  assert.deepEqual(sizes, [50, 50, 20]);
  await done(world, phone.devices.revoke([]));
  assert.equal(sizes.length, 3);
});

test("a server of before says that it knows no devices", async () => {
  const { world, clients: [phone] } = await devices("phone");
  world.node.gate = (kind) => {
    if (kind === "devices") throw new Refusal("unknown_frame");
  };
  await assert.rejects(done(world, phone.devices.list()), { name: "RequestError", code: "unknown_frame", temporary: false });
  assert.equal(phone.status.online, true);
});
