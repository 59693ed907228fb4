// Two clients on a real node: `node tests/live.mjs URL FOLDER`, with tokens of alice and bob in ALICE_TOKEN and BOB_TOKEN. Ends with exit code 1
// if something is not as promised. They may have talked before. On a node whose `fanout.bodies_members` is 1 each conversation is a large one:
// say so by ANTIPHON_LARGE=1.

import assert from "node:assert/strict";
import { join } from "node:path";

import { Client } from "../dist/index.js";
import { folderStorage } from "../dist/node.js";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket; // built in from Node 22 on
const WAIT_MS = 20_000;
const [url, folder] = process.argv.slice(2);
const { ALICE_TOKEN: aliceToken, BOB_TOKEN: bobToken, ANTIPHON_LARGE: isLarge } = process.env;

const start = async (user, token, device = "live") => {
  const storage = folderStorage(join(folder, `${user}-${device}`));
  const client = new Client({ url, user, device, token: () => token, storage, environment: { WebSocket } });
  await client.start();
  return client;
};

/** Waits until it holds, looking whenever something changed. */
const until = (client, what, holds) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), WAIT_MS);
    const look = () => {
      if (!holds()) return;
      clearTimeout(timer);
      end();
      resolve();
    };
    const end = client.subscribe(look);
    look();
  });

let [alice, bob] = [await start("alice", aliceToken), await start("bob", bobToken)];
const id = await alice.direct("bob");
await until(bob, "bob has the conversation", () => bob.status.ready && bob.conversations.get(id)?.described);
const { unread } = bob.conversations.get(id);
for (const client of [alice, bob]) client.watch(id);

const words = Array.from({ length: 50 }, (_, index) => `word ${index}`);
for (const text of words) alice.send(id, { text });
const said = (client) =>
  client.conversations
    .get(id)
    .entries.filter(({ kind }) => kind === "message")
    .map(({ text }) => text);
await until(bob, "all words arrive", () => said(bob).at(-1) === words.at(-1));
assert.deepEqual(said(bob).slice(-words.length), words);
await until(alice, "all are acknowledged", () => alice.outbox.items.length === 0);
assert.equal(bob.conversations.get(id).unread, unread + words.length);
bob.markRead(id);
const last = alice.conversations.get(id).last.sequence;
// In a large conversation pointers are in the list of members alone.
await until(bob, "the server knows that bob has read", () => bob.conversations.get(id).readConfirmed >= last);
if (isLarge) alice.watch(id);
await until(alice, "alice is told that bob has read", () => alice.conversations.get(id).seenBy(last).includes("bob"));

alice.edit(id, last, { text: "the last word" });
bob.react(id, last, "👍", true);
bob.pin(id, last, true);
alice.send(id, { text: "answers it", reply_to: last, thread: last });
const state = (client) => client.conversations.get(id).state(last);
const isWhole = (client) =>
  state(client).edited && state(client).pinned && state(client).reactions.length === 1 && state(client).replies === 1;
for (const client of [alice, bob]) await until(client, "what became of it is known to both", () => isWhole(client));

// What was written without a connection, by a program that then ended, is sent by the next one.
await alice.stop();
alice.send(id, { text: "written offline" });
bob.react(id, last, "👍", false);
alice = await start("alice", aliceToken);
alice.watch(id);
assert.equal(said(alice).at(-1), "answers it", "it is shown before the network answers");
await until(bob, "what was written offline arrives", () => said(bob).at(-1) === "written offline");
await until(alice, "and what happened meanwhile is known", () => state(alice).reactions.length === 0);

// A device that comes later has the same of it.
const phone = await start("bob", bobToken, "phone");
await until(phone, "the phone has the list", () => phone.conversations.has(id));
await phone.loadOlder(id, 100);
phone.watch(id);
const [here, there] = [phone, bob].map((client) => client.conversations.get(id).entries);
const both = Math.min(here.length, there.length);
assert.ok(both > words.length, `${both} entries`);
assert.deepEqual(here.slice(-both), there.slice(-both));
assert.equal(state(phone).replies, 1);
bob.delete(id, last);
await until(bob, "refused: it is alice's", () => bob.outbox.items[0]?.failed);
assert.equal(bob.outbox.items[0].failed.code, "forbidden");
bob.outbox.discard(bob.outbox.items[0].client_message_id);

// What is read on one device is read on all: at once where there is a connection, otherwise when there is one again, and without a list.
const tablet = await start("bob", bobToken, "tablet");
await until(tablet, "the tablet has the list, and a position", () => tablet.position !== null && tablet.conversations.has(id));
await tablet.stop();
for (const text of ["one", "two", "three"]) alice.send(id, { text });
const unreadOf = (client) => client.conversations.get(id).unread;
for (const client of [bob, phone]) {
  await until(client, "they are unread", () => said(client).at(-1) === "three" && unreadOf(client) >= 3);
}
bob.markRead(id);
await until(phone, "the phone's badge goes", () => unreadOf(phone) === 0 && phone.unread === 0);
const back = await start("bob", bobToken, "tablet");
back.watch(id);
await until(back, "the tablet has all", () => back.status.online && said(back).at(-1) === "three");
assert.deepEqual([unreadOf(back), back.conversations.get(id).read], [0, bob.conversations.get(id).read], "the tablet's badge");
await back.stop();

// What is not open is counted, and told of where it means one; opened, it is there, once and in order.
bob.watch(null);
const told = [];
const end = bob.subscribe((change) => {
  if (change.kind === "mentioned") told.push(["mentioned", change.entry.text]);
  if (change.kind === "entries" && change.id === id) told.push(...change.entries.map(({ text }) => ["entry", text]));
});
await bob.request("ping", {});
const meanwhile = Array.from({ length: 20 }, (_, index) => `meanwhile ${index}`);
for (const text of meanwhile) alice.send(id, text.endsWith(" 7") ? { text, mentions: ["bob"] } : { text });
await until(bob, "they are unread", () => unreadOf(bob) === meanwhile.length);
const expected = isLarge ? [["mentioned", "meanwhile 7"]] : meanwhile.map((text) => ["entry", text]);
assert.deepEqual(told.splice(0), expected);
assert.equal(bob.conversations.get(id).isBehind, Boolean(isLarge));
bob.watch(id);
await until(bob, "what was not open is there", () => said(bob).at(-1) === meanwhile.at(-1));
assert.deepEqual(said(bob).slice(-meanwhile.length), meanwhile);
assert.deepEqual(told, isLarge ? meanwhile.map((text) => ["entry", text]) : []);
end();
assert.equal(unreadOf(bob), meanwhile.length);
bob.markRead(id);
await until(phone, "the phone's badge goes again", () => unreadOf(phone) === 0);

// What one device sets, the other has; nobody else does.
const draft = { text: crypto.randomUUID() };
phone.account.set(`draft:${id}`, draft);
await until(bob, "the other device has it", () => bob.account.get(`draft:${id}`)?.text === draft.text);
bob.account.set(`draft:${id}`);
await until(phone, "and takes it away", () => phone.account.get(`draft:${id}`) === undefined);
assert.deepEqual([alice.account.keys(), bob.conversations.has(bob.account.id)], [[], false]);

// Who is looked at is seen to come and go, by those who may see it.
alice.presence.look([bob.user]);
await until(alice, "bob is there", () => alice.presence.of(bob.user)?.online === true);
bob.account.set("antiphon.presence", { to: "nobody" });
await until(alice, "bob is not to be seen", () => alice.presence.of(bob.user)?.online === false);
bob.account.set("antiphon.presence");
await until(alice, "he is to be seen again", () => alice.presence.of(bob.user)?.online === true);

// A device names itself, and another one logs it out.
const lost = await start("bob", bobToken, `lost-${crypto.randomUUID()}`);
await until(lost, "it has all", () => lost.status.online);
await lost.devices.name("Bob’s tablet");
const listed = (await phone.devices.list()).find(({ device }) => device === lost.device);
assert.deepEqual([listed.name, listed.online, listed.this ?? false], ["Bob’s tablet", true, false]);
await phone.devices.revoke([lost.device]);
await until(lost, "it is logged out", () => lost.status.stopped?.revoked === true);
await lost.stop();

const group = await alice.group({ key: crypto.randomUUID(), title: "Live" });
const { code } = await alice.groups.invite(group, { uses: 1 });
assert.equal((await bob.groups.look(code)).title, "Live");
assert.equal(await bob.groups.join(code), group);
for (const client of [alice, bob]) client.view(group, true);
await until(alice, "bob is a member", () => alice.conversations.get(group).last?.kind === "joined");
await alice.groups.changeSettings(group, { send: "admins" });
await until(bob, "bob knows the rule", () => bob.conversations.get(group).settings?.send === "admins");
await assert.rejects(bob.groups.changeSettings(group, { send: "members" }), { name: "RequestError", code: "forbidden" });
await alice.groups.ban(group, ["bob"]);
await until(bob, "bob is out", () => !bob.conversations.has(group));
await assert.rejects(bob.groups.join(code), { code: "not_found" });

for (const client of [alice, bob, phone]) await client.stop();
console.log(
  `live: ${said(bob).length} messages once and in order, changes, an outbox over a restart, a second device, account data, presence, devices, what is not open, a group: all as promised`,
);
