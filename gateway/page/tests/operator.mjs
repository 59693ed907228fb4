// The operator's page in a real browser on the real node: `node operator.mjs BINARY [--screenshots DIR]`, or ANTIPHON_BINARY.
//
// Without a key, with a wrong one, with the one that the node prints; then figures that move, the busiest conversation, a client that
// does not read, one user's devices and trace, a node that goes and comes back, a phone, the keyboard, axe. Settings as browser.mjs has them.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { bytes, duration, latency, rate } from "../operator/format.js";
import { Figures, percentile } from "../operator/figures.js";
import { Browser, checkAccessibility, eventually, Node, RawClient } from "./harness.mjs";

const { values, positionals } = parseArgs({ options: { screenshots: { type: "string" } }, allowPositionals: true });
const binary = positionals[0] ?? process.env.ANTIPHON_BINARY;
if (!binary) {
  console.error("usage: node operator.mjs BINARY [--screenshots DIR]   (or ANTIPHON_BINARY=…)");
  process.exit(2);
}

const started = performance.now();
const step = (text) => console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);

async function screenshot(page, name, options = {}) {
  if (!values.screenshots) return;
  mkdirSync(values.screenshots, { recursive: true });
  await page.screenshot({ path: join(values.screenshots, name), animations: "disabled", ...options });
}

/** The address that a development node prints, with its key. */
function addressOf(node) {
  const line = node.said.find((line) => line.includes("/operator#key="));
  assert.ok(line, `no address in:\n${node.said.join("\n")}`);
  return line.trim().split(/\s+/).at(-1);
}

/** A client that connects and reads no more; its socket. */
async function deaf(node, user) {
  const socket = connect(node.port, "127.0.0.1");
  await once(socket, "connect");
  const key = randomBytes(16).toString("base64");
  const lines = ["GET /ws HTTP/1.1", `Host: 127.0.0.1:${node.port}`, "Upgrade: websocket", "Connection: Upgrade"];
  lines.push(`Sec-WebSocket-Key: ${key}`, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: antiphon.v1.json", "", "");
  socket.write(lines.join("\r\n"));
  await once(socket, "data");
  const text = Buffer.from(JSON.stringify({ id: 1, connect: { token: `dev:${user}`, device: "deaf" } }));
  const mask = Buffer.from([1, 2, 3, 4]);
  socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask, text.map((byte, index) => byte ^ mask[index % 4])]));
  await once(socket, "data");
  socket.pause();
  return socket;
}

const rows = (page, id) => page.$$eval(`#${id} tr`, (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent)));
const plot = (page, title) => page.locator(".plot").filter({ has: page.locator("h3", { hasText: title }) });
const valuesOf = (page, title) => plot(page, title).locator(".values b").allTextContents();

/** What needs no browser: differences of figures, and numbers as text. */
function arithmetic() {
  step("rates, percentiles, numbers");
  const poll = (uptime_ms, acks, buckets) => ({
    uptime_ms,
    bounds_seconds: [0.001, 0.002],
    shards: [0, 1].map((shard) => ({
      shard,
      antiphon_acks_total: acks,
      antiphon_errors_total: { not_found: acks * 2 },
      antiphon_commit_latency_seconds: { buckets },
    })),
  });
  const figures = new Figures();
  assert.equal(figures.take(poll(1_000, 5, [9, 9, 9])), true);
  assert.deepEqual([figures.rate("antiphon_acks_total"), figures.percentile("antiphon_commit_latency_seconds", 0.5)], [null, null]);
  figures.take(poll(3_000, 25, [9, 19, 9]));
  assert.deepEqual([figures.rate("antiphon_acks_total"), figures.rate("antiphon_acks_total", 1)], [20, 10]);
  assert.deepEqual(figures.errors(), { not_found: 40 });
  assert.equal(figures.percentile("antiphon_commit_latency_seconds", 0.5), 0.0015);
  // Another process: what it counts has begun anew.
  assert.equal(figures.take(poll(500, 1, [0, 1, 0])), false);
  assert.equal(figures.rate("antiphon_acks_total"), null);
  const bounds = [1, 2, 4];
  assert.deepEqual([0.25, 0.5, 0.75, 1].map((part) => percentile(bounds, [2, 0, 2, 0], part)), [0.5, 1, 3, 4]);
  assert.deepEqual([percentile(bounds, [0, 0, 0, 1], 0.5), percentile(bounds, [0, 0, 0, 0], 0.5)], [Infinity, null]);
  assert.deepEqual([0, 0.001, 0.346, 12.34, 123.4, 52_300].map(rate), ["0", "0", "0.346", "12.3", "123", "52,300"]);
  assert.deepEqual([0, 1023, 1024, 5 * 1024 ** 2, null].map(bytes), ["0 B", "1,023 B", "1 KiB", "5 MiB", "–"]);
  assert.deepEqual([0.0008734, 0.25, 2.5, Infinity].map(latency), ["0.873 ms", "250 ms", "2.5 s", "> 5 s"]);
  assert.deepEqual([12, 3_000, 250_000, 7_500_000].map(duration), ["12 ms", "3 s", "4 min 10 s", "2 h 5 min"]);
}

async function keys(browser, node) {
  step("no key, a wrong key, the key in the address");
  const page = await browser.page();
  await page.goto(`${node.origin}/operator`);
  await page.getByRole("heading", { name: "Operator" }).waitFor();
  await checkAccessibility(page, "the gate");
  await screenshot(page, "operator-key.png");
  browser.wasDown = true; // Chromium itself reports the refusal.
  await page.getByLabel("Key").fill("wrong");
  await page.getByRole("button", { name: "Open" }).click();
  await page.getByText("This key is not good here.").waitFor();
  assert.equal(await page.locator("#operator").isVisible(), false);
  browser.wasDown = false;
  await page.goto(addressOf(node));
  await page.getByRole("status").getByText("Ready", { exact: true }).waitFor();
  assert.equal(page.url(), `${node.origin}/operator`, "the key does not stay in the address");
  await page.reload();
  await page.getByText("Ready", { exact: true }).waitFor();
  return page;
}

/** Conversations, one of them busier than the others, until it is told to end. */
async function chatter(clients) {
  const [ann, ben] = clients;
  const busy = (await ann.ask("create", { direct: "ben" })).conversation;
  const calm = (await ann.ask("create", { direct: "dora" })).conversation;
  let goesOn = true;
  const talk = async (client, conversation, pauseMs) => {
    for (let number = 0; goesOn; number += 1) {
      await client.say(conversation, [`not for operators ${number}`]);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  const all = Promise.all([talk(ann, busy, 60), talk(ben, busy, 90), talk(ann, calm, 700)]);
  // What fails it is told by who waits for its end; if the run fails before, that is what is to be told.
  all.catch(() => {});
  return { busy, calm, end: () => ((goesOn = false), all) };
}

async function live(page, { busy, calm }) {
  step("figures that move, and the busiest conversation first");
  const isAbove = async (title, least) => Number((await valuesOf(page, title))[0].replaceAll(",", "")) >= least;
  await eventually(() => isAbove("Connections", 3), true, "connections");
  await eventually(() => isAbove("Messages", 5), true, "messages a second");
  await eventually(() => isAbove("Deliveries", 5), true, "deliveries a second");
  await eventually(async () => /^[\d.]+ m?s$/.test((await valuesOf(page, "Time to durable"))[1]), true, "a percentile");
  await eventually(async () => /iB$/.test((await valuesOf(page, "Memory"))[0]), true, "memory");
  assert.deepEqual(await valuesOf(page, "Turned away"), ["nobody"]);
  for (const one of await page.locator(".plot").all()) {
    const [title, label] = [await one.locator("h3").textContent(), await one.locator("svg").getAttribute("aria-label")];
    assert.match(label, /, the last five minutes\. Now: .+\. Highest: /, title);
    assert.deepEqual(await one.locator(".ends span").allTextContents(), ["5 min ago", "now"], title);
    assert.match(await one.locator(".top-of").textContent(), /\d/, title);
  }
  await eventually(async () => (await rows(page, "conversations")).slice(0, 2).map(([id]) => id), [busy, calm], "the busiest");
  const shards = await rows(page, "shards");
  assert.match(shards[0][6], /^0, open$/, JSON.stringify(shards));
}

async function slowOne(page, browser, node, crowd) {
  step("a client that does not read is slow, and can be looked at");
  const socket = await deaf(node, "mute");
  const { conversation } = await crowd.ask("create", { group: { key: crypto.randomUUID(), title: "Secret plans", members: ["mute"] } });
  let goesOn = true;
  const filling = (async () => {
    const text = "not for operators ".repeat(400);
    while (goesOn) await crowd.say(conversation, Array.from({ length: 20 }, () => text));
  })();
  filling.catch(() => {});
  await eventually(async () => (await rows(page, "slow")).map(([user, device]) => [user, device]), [["mute", "deaf"]], "mute is slow");
  goesOn = false;
  await filling;
  const [[, , bytes, since]] = await rows(page, "slow");
  assert.match(bytes, /^[\d.,]+ [KM]iB$/);
  assert.match(since, /^[\d.]+ (ms|s)/);
  await page.getByRole("button", { name: "mute", exact: true }).press("Enter");
  await eventually(async () => (await rows(page, "devices")).map(([device]) => device), ["deaf"], "its device");
  assert.equal(await page.getByRole("textbox", { name: "User" }).inputValue(), "mute");
  return socket;
}

async function trace(page, { busy }) {
  step("one user's devices and trace");
  await page.getByRole("textbox", { name: "User" }).fill("nobody-is-called-so");
  await page.getByRole("button", { name: "Look" }).click();
  await page.getByText("nobody-is-called-so is not connected.").waitFor();
  await page.getByRole("textbox", { name: "User" }).fill("ann");
  await page.getByRole("textbox", { name: "User" }).press("Enter");
  await eventually(async () => (await rows(page, "devices")).map(([device]) => device), ["raw"], "the device");
  await page.getByRole("button", { name: "Trace", exact: true }).click();
  await page.getByText(/^Tracing, .* left\.$/).waitFor();
  const kinds = async () => [...new Set((await rows(page, "events")).map(([, , way, kind]) => `${way} ${kind}`))].sort();
  await eventually(kinds, ["← node message", "← node send", "→ node send"], "frames both ways");
  const seen = await rows(page, "events");
  assert.ok(seen.every(([, device, , , , id]) => device === "raw" && /^([0-9a-f]{8})?$/.test(id)), JSON.stringify(seen[0]));
  assert.ok(seen.some(([, , , , , id]) => busy.startsWith(id)));
  const text = await page.locator("body").textContent();
  assert.ok(!text.includes("not for operators") && !text.includes("Secret plans"), "content is on the page");
  await page.getByLabel("Whole conversation ids").check();
  await eventually(async () => (await rows(page, "events")).some(([, , , , , id]) => id === busy), true, "whole ids");
  await checkAccessibility(page, "everything at once");
}

async function comesAndGoes(page, browser, node) {
  step("paused, gone, and back");
  await page.getByRole("button", { name: "Pause" }).click();
  const before = await page.locator("#plots").innerHTML();
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  assert.equal(await page.locator("#plots").innerHTML(), before, "nothing moves");
  await page.getByRole("button", { name: "Go on" }).click();
  browser.wasDown = true;
  await node.kill();
  await page.getByText("The node does not answer; trying again").waitFor();
  await node.start();
  await page.getByText("Ready", { exact: true }).waitFor();
  browser.wasDown = false;
  await eventually(async () => (await valuesOf(page, "Connections"))[0], "0", "it is another node's life");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Key").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
}

async function phone(browser, node) {
  step("a phone, and the dark");
  const page = await browser.page({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: "dark", hasTouch: true });
  await page.goto(addressOf(node));
  await page.getByText("Ready", { exact: true }).waitFor();
  await page.getByRole("textbox", { name: "User" }).fill("ann");
  await page.getByRole("button", { name: "Look" }).click();
  await page.locator("#devices tr").waitFor();
  await checkAccessibility(page, "a phone in the dark");
  const [content, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= view, `${content} px of content in ${view} px`);
  await new Promise((resolve) => setTimeout(resolve, values.screenshots ? 15_000 : 0));
  await page.evaluate(() => scrollTo(0, 0));
  await screenshot(page, "operator-phone.png");
  await screenshot(page, "operator-phone-whole.png", { fullPage: true });
  await page.context().close();
}

// ---- The run ------------------------------------------------------------------------------------------------------------

arithmetic();
const node = await Node.create(binary, { "limits.outbound_bytes_max": 64 << 20, "limits.requests_per_second_max": 100_000, "limits.requests_burst_max": 100_000 });
let browser;
try {
  await node.start();
  browser = await Browser.create(node);
  const page = await keys(browser, node);
  const crowd = await browser.page();
  await crowd.goto(node.origin);
  const clients = await Promise.all(["ann", "ben", "dora", "fill"].map((user) => RawClient.create(crowd, user)));
  const said = await chatter(clients);
  await live(page, said);
  const socket = await slowOne(page, browser, node, clients[3]);
  await trace(page, said);
  await phone(browser, node);
  await page.evaluate(() => scrollTo(0, 0));
  await page.setViewportSize({ width: 1440, height: 1000 });
  await new Promise((resolve) => setTimeout(resolve, values.screenshots ? 20_000 : 0));
  await screenshot(page, "operator.png");
  await screenshot(page, "operator-whole.png", { fullPage: true });
  await said.end();
  socket.destroy();
  await crowd.context().close();
  await comesAndGoes(page, browser, node);
  assert.deepEqual(browser.complaints, [], "the browser complained");
  step("done");
} finally {
  await browser?.close();
  await node.remove();
}
