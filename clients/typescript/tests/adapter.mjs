// This client for the conformance suite: see clients/conformance/README.md for the lines that it reads and writes.

import { createInterface } from "node:readline";

import { Client } from "../dist/index.js";
import { folderStorage } from "../dist/node.js";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket; // built in from Node 22 on
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** Who waits for a token. */
const tokens = [];
/** What was sent and is not settled: by its id, what it is called here. */
const sent = new Map();
/** Up to where each conversation was told, and those that are being read back to there. */
const told = new Map();
const behind = new Set();
let client;
let state;

const called = ({ text, reaction }) => text ?? reaction;

function durable(id, sequence) {
  if (!sent.has(id)) return;
  tell({ durable: { sent: sent.get(id), sequence } });
  sent.delete(id);
}

function tellEntries(id, entries) {
  for (const { sequence, text, client_message_id } of entries) {
    if (told.has(id) && sequence > told.get(id) + 1) return void readBack(id);
    tell({ entry: { conversation: id, sequence, text } });
    told.set(id, sequence);
    durable(client_message_id, sequence);
  }
}

/** So much was missed that the client goes on at the end: who wants the rest reads it. */
async function readBack(id) {
  if (behind.has(id)) return;
  behind.add(id);
  await client.loadBackTo(id, told.get(id) + 1);
  behind.delete(id);
  const last = told.get(id);
  tellEntries(
    id,
    client.conversations.get(id).entries.filter(({ sequence }) => sequence > last),
  );
}

function happened(change) {
  if (change.kind === "entries" && !behind.has(change.id)) tellEntries(change.id, change.entries);
  if (change.kind === "window") void readBack(change.id);
  if (change.kind === "left") {
    told.delete(change.id);
    tell({ left: { conversation: change.id } });
  }
  for (const { client_message_id, acked, failed } of client.outbox.items) {
    if (acked !== undefined) durable(client_message_id, acked);
    if (!failed || !sent.has(client_message_id)) continue;
    tell({ refused: { sent: sent.get(client_message_id), code: failed.code } });
    sent.delete(client_message_id);
  }
  const { online, stopped } = client.status;
  const now = stopped ? "stopped" : online ? "online" : "offline";
  if (now !== state) tell({ state: (state = now) });
}

const commands = {
  async start({ url, user, device, folder }) {
    const token = (renew) => new Promise((resolve) => (tokens.push(resolve), tell({ token: { renew } })));
    client = new Client({ url, user, device, token, storage: folderStorage(folder), environment: { WebSocket }, everything: true });
    for (const item of client.outbox.items) sent.set(item.client_message_id, called(item));
    client.subscribe(happened);
    await client.start();
    for (const [id, { tail }] of client.conversations) told.set(id, tail);
  },
  token: (token) => tokens.shift()(token),
  send({ conversation, text }) {
    sent.set(client.send(conversation, { text }).client_message_id, text);
  },
  react({ conversation, target, reaction, on }) {
    sent.set(client.react(conversation, target, reaction, on).client_message_id, reaction);
  },
  async stop() {
    await client.stop();
    process.exit(0);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[kind, body]] = Object.entries(JSON.parse(line));
  await commands[kind](body);
}
