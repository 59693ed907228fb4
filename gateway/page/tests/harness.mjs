// What the browser test stands on: the real node as a process, Chromium, signed-in pages, and raw clients for the crowd.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const READY_TIMEOUT_MS = 30_000;
export const WAIT_MS = 20_000;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** `antiphon serve --dev` on ports and data of its own; it can be killed and started again on the same ones. */
export class Node {
  /** `settings`: keys of the configuration with their values. */
  static async create(binary, settings = {}) {
    const node = new Node();
    // The folder that the test run names is on a real disk, as the log wants it; the system's may be memory.
    const folder = process.env.ANTIPHON_TEST_FOLDER ?? tmpdir();
    Object.assign(node, { binary, settings, data: mkdtempSync(join(folder, "antiphon-page-")), down: true });
    [node.port, node.consolePort] = [await freePort(), await freePort()];
    return node;
  }

  get origin() {
    return `http://127.0.0.1:${this.consolePort}`;
  }

  async start() {
    const addresses = ["--listen", `127.0.0.1:${this.port}`, "--console", `127.0.0.1:${this.consolePort}`];
    const settings = Object.entries(this.settings).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
    this.process = spawn(this.binary, ["serve", "--dev", ...addresses, ...settings, "--data", this.data], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    // However this run ends, it leaves no node behind.
    const { process: child } = this;
    process.once("exit", () => child.kill("SIGKILL"));
    const said = [];
    this.said = said;
    let ready;
    const isReady = new Promise((resolve) => (ready = resolve));
    for (const stream of [this.process.stdout, this.process.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        said.push(line);
        if (line.startsWith("ready")) ready(true);
      });
    }
    const ended = once(this.process, "exit").then(([code, signal]) => `ended with ${code ?? signal}`);
    const late = new Promise((resolve) => setTimeout(resolve, READY_TIMEOUT_MS, "was not ready in time").unref());
    const outcome = await Promise.race([isReady, ended, late]);
    assert.equal(outcome, true, `${this.binary} ${outcome}; it said:\n${said.slice(-30).join("\n")}`);
    this.down = false;
  }

  async kill() {
    this.down = true;
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  async remove() {
    await this.kill();
    rmSync(this.data, { recursive: true, force: true });
  }
}

const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];

/** Chromium, and every page's complaints. */
export class Browser {
  static async create(node) {
    const browser = new Browser();
    const executablePath = process.env.ANTIPHON_CHROMIUM ?? "/usr/bin/chromium";
    Object.assign(browser, { node, complaints: [] });
    // A page whose files come from a folder is of no address, and would be kept from those of this machine.
    const local = process.env.ANTIPHON_PAGE ? ["--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"] : [];
    browser.chromium = await chromium.launch({ executablePath, args: [...FLAGS, ...local] });
    return browser;
  }

  /** A page in a context (so: with storage) of its own. */
  async page(options = {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", ...options });
    if (process.env.ANTIPHON_PAGE) await servePage(context, this.node.origin, process.env.ANTIPHON_PAGE);
    const page = await context.newPage();
    page.setDefaultTimeout(WAIT_MS);
    // While the node is killed on purpose, the browser itself reports every refused connection; nothing else is excused.
    const excused = (text) => this.wasDown && /ERR_CONNECTION_|WebSocket connection to|Failed to load resource/.test(text);
    page.on("console", (message) => {
      if (!["error", "warning"].includes(message.type()) || excused(message.text())) return;
      this.complaints.push(`${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.complaints.push(`${page.url()}: ${error.stack ?? error}`));
    return page;
  }

  async signIn(page, user) {
    await page.goto(this.node.origin);
    await page.getByLabel("Your name").fill(user);
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("heading", { name: user }).waitFor();
  }

  close() {
    return this.chromium.close();
  }
}

/** For working on the page: its files come from a folder, so that the node need not be built for every change of them. */
async function servePage(context, origin, folder) {
  const names = ["", "operator/"].flatMap((below) => readdirSync(join(folder, below)).map((name) => below + name));
  for (const name of names.filter((name) => /\.(html|js|css|svg)$/.test(name))) {
    const path = join(folder, name);
    if (name === "operator/index.html") await context.route(`${origin}/operator`, (route) => route.fulfill({ path }));
    await context.route(`${origin}/${name}`, (route) => route.fulfill({ path }));
    if (name === "index.html") await context.route(`${origin}/`, (route) => route.fulfill({ path }));
  }
}

/** Runs axe on what the page shows; serious and critical findings fail. */
export async function checkAccessibility(page, where) {
  // What still fades in has the contrast of a fade.
  await page.evaluate(async () => {
    const finite = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
    await Promise.allSettled(finite.map((one) => one.finished));
  });
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const bad = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  const told = bad.map(({ id, help, nodes }) =>
    [`${id}: ${help}`, ...nodes.map((node) => `${node.html} ${node.failureSummary}`)].join("\n  "),
  );
  assert.equal(bad.length, 0, `axe on ${where}:\n${told.join("\n")}`);
  return violations.map(({ id, impact }) => `${where}: ${id} (${impact})`);
}

/** A user without a page: a raw client that lives in a browser page, since that is where a WebSocket is at hand. */
export class RawClient {
  static async create(page, user) {
    const client = Object.assign(new RawClient(), { page, user });
    await page.evaluate(async (user) => {
      const { websocket_url } = await (await fetch("/config.json")).json();
      const device = "raw";
      const headers = { "content-type": "application/json" };
      const body = JSON.stringify({ user, device });
      const { token } = await (await fetch("/dev/token", { method: "POST", headers, body })).json();
      const socket = new WebSocket(websocket_url, "antiphon.v1.json");
      await new Promise((resolve, reject) => ((socket.onopen = resolve), (socket.onerror = reject)));
      const waiting = new Map();
      let nextId = 1;
      socket.onmessage = ({ data }) => {
        const { id, ...rest } = JSON.parse(data);
        waiting.get(id)?.(rest);
      };
      const ask = async (kind, body) => {
        for (;;) {
          const id = nextId++;
          const answer = await new Promise((resolve) => {
            waiting.set(id, resolve);
            socket.send(JSON.stringify({ id, [kind]: body }));
          });
          if (answer[kind]) return answer[kind];
          if (!answer.error.temporary) throw new Error(JSON.stringify(answer.error));
          await new Promise((resolve) => setTimeout(resolve, answer.error.retry_after_ms ?? 200));
        }
      };
      await ask("connect", { token, device });
      globalThis.raw = { ...globalThis.raw, [user]: ask };
    }, user);
    return client;
  }

  ask(kind, body) {
    return this.page.evaluate(([user, kind, body]) => globalThis.raw[user](kind, body), [this.user, kind, body]);
  }

  async say(conversation, texts) {
    await this.page.evaluate(
      async ([user, conversation, texts]) => {
        for (const text of texts) {
          await globalThis.raw[user]("send", { conversation, client_message_id: crypto.randomUUID(), text });
        }
      },
      [this.user, conversation, texts],
    );
  }
}

/** Waits until `look` gives what is expected; fails with what it gave last. */
export async function eventually(look, expected, what) {
  const endMs = Date.now() + WAIT_MS;
  let seen;
  do {
    seen = await look();
    try {
      assert.deepEqual(seen, expected);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } while (Date.now() < endMs);
  assert.deepEqual(seen, expected, what);
}
