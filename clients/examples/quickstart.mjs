import { randomUUID } from "node:crypto";
const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket; // built in from Node 22 on

const [url, token, friend] = process.argv.slice(2);
const socket = new WebSocket(url, ["antiphon.v1.json"]);
const waiting = new Map();
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  waiting.get(frame.id)?.(frame) ?? console.log("pushed:", data);
};
const ask = (id, request) => new Promise((answer) => {
  waiting.set(id, (frame) => (console.log(JSON.stringify(frame)), answer(frame), true));
  socket.send(JSON.stringify({ id, ...request }));
});
await new Promise((open, failed) => Object.assign(socket, { onopen: open, onerror: failed }));
await ask(1, { connect: { token, device: "quickstart-node" } });
const { conversation } = (await ask(2, { create: { direct: friend } })).create;
const message = { client_message_id: randomUUID(), text: "hello from JavaScript" };
await ask(3, { send: { conversation, ...message } }); // durable once answered
await ask(4, { history: { conversation, limit: 10 } });
socket.close();
