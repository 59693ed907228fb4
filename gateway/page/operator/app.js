// The operator's page: asks the node for its figures once a second, draws them, and shows who is busy and who is slow.
//
// The key comes from the address's fragment or from the form, and stays in this tab. Everything is asked of the node that served the page.

import { $ } from "../dom.js";
import { Figures } from "./figures.js";
import * as form from "./format.js";
import { Plot } from "./plot.js";
import * as tables from "./tables.js";
import { User } from "./user.js";

const POLL_MS = 1_000;
/** Tables change more slowly than figures. */
const TABLES_EVERY = 2;
/** An answer that takes longer will not come. */
const ANSWER_MS = 5_000;
const KEY = "antiphon.operator.key";

const bytesForm = Object.assign((value) => form.bytes(value), { axisBase: 1024, axisMin: 1024 });
const latencyForm = Object.assign((value) => form.latency(value), { axisMin: 0.001 });
const countForm = Object.assign((value) => form.count(value), { axisMin: 5 });

/** What is drawn: a plot's lines by name, each of the figures. */
const PLOTS = [
  {
    title: "Connections",
    unit: "now",
    form: countForm,
    values: (figures) => ({ open: figures.total("antiphon_connections"), "with a session": figures.total("antiphon_sessions") }),
  },
  { title: "Messages", unit: "stored per second", form: form.rate, values: (figures) => ({ "": figures.rate("antiphon_acks_total") }) },
  { title: "Deliveries", unit: "per second", form: form.rate, values: (figures) => ({ "": figures.rate("antiphon_deliveries_total") }) },
  {
    title: "Time to durable",
    unit: "of a message at its lane",
    form: latencyForm,
    values: (figures) => ({
      p50: figures.percentile("antiphon_commit_latency_seconds", 0.5),
      p99: figures.percentile("antiphon_commit_latency_seconds", 0.99),
    }),
  },
  {
    title: "Memory",
    unit: "kernel’s part included",
    form: bytesForm,
    values: (figures) => ({ [`of ${form.bytes(figures.now.node.antiphon_memory_limit_bytes)}`]: figures.now.node.antiphon_memory_used_bytes }),
  },
  {
    title: "Network",
    unit: "bytes per second",
    form: bytesForm,
    values: (figures) => ({ in: figures.rate("antiphon_bytes_in_total"), out: figures.rate("antiphon_bytes_out_total") }),
  },
  {
    title: "Turned away",
    unit: "per second",
    form: form.rate,
    some: "nobody",
    values: (figures) => ({
      refused: figures.rate("antiphon_connections_refused_total"),
      "bad tokens": figures.rate("antiphon_tokens_refused_total"),
      "too slow": figures.rate("antiphon_slow_consumers_total"),
      "too many frames": figures.rate("antiphon_frames_limited_total"),
    }),
  },
  { title: "Errors", unit: "told per second, by code", form: form.rate, some: "none", values: (figures) => figures.errors() },
];

class Problem extends Error {
  constructor(status, code, text) {
    super(text);
    Object.assign(this, { status, code });
  }
}

class Operator {
  #key;
  #figures = new Figures();
  #plots = PLOTS.map((plot) => ({ plot: new Plot(plot), values: plot.values }));
  #round = 0;
  #isPaused = false;
  #isOver = false;
  #timer = null;

  constructor(key) {
    this.#key = key;
    this.user = new User(
      (method, path) => this.#ask(method, path),
      () => this.#isPaused,
    );
    $("plots").replaceChildren(...this.#plots.map(({ plot }) => plot.element));
    $("pause").addEventListener("click", () => this.#pause());
    $("leave").addEventListener("click", () => this.#leave(""));
  }

  /** Asks until the key is refused. */
  async run() {
    const begun = performance.now();
    await this.#poll();
    if (this.#isOver) return;
    this.#timer = setTimeout(() => this.run(), Math.max(0, POLL_MS - (performance.now() - begun)));
  }

  async #poll() {
    try {
      const figures = await this.#ask("GET", "operator/figures");
      this.#take(figures);
    } catch (error) {
      return this.#failed(error);
    }
    if (this.#isPaused) return;
    try {
      if (this.#round++ % TABLES_EVERY === 0) {
        const [busy, slow] = await Promise.all([this.#ask("GET", "operator/conversations"), this.#ask("GET", "operator/connections")]);
        tables.conversations(busy.conversations);
        tables.slow(slow, (user) => this.user.look(user));
      }
    } catch (error) {
      // Figures come from this thread alone; shards may be busy, starting or gone.
      if (error.status === 401 || error.status === 403) this.#failed(error);
    }
    await this.user.poll();
  }

  async #ask(method, path) {
    const headers = { authorization: `Bearer ${this.#key}` };
    const answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Problem(answer.status, body.code, body.text ?? `The node answered ${answer.status}.`);
    return body;
  }

  #take(figures) {
    this.#figures.take(figures);
    for (const { plot, values } of this.#plots) plot.push(figures.time_ms, values(this.#figures));
    const reasons = figures.reasons.join("; ");
    say(figures.ready ? "ready" : "unready", figures.ready ? "Ready" : `Not ready: ${reasons}`);
    if (this.#isPaused) return;
    $("node").textContent = `Antiphon ${figures.version}, up ${form.duration(figures.uptime_ms)}`;
    this.#plots.forEach(({ plot }) => plot.draw());
    tables.shards(this.#figures);
  }

  #failed(error) {
    if (error.status === 401) return this.#leave("This key is not good here.");
    if (error.status === 403) return this.#leave("This key has not the scope operate.");
    if (error.status === 404) return this.#leave("This node has no operator’s page any more.");
    say("lost", "The node does not answer; trying again");
  }

  #pause() {
    this.#isPaused = !this.#isPaused;
    $("pause").setAttribute("aria-pressed", this.#isPaused);
    $("pause").textContent = this.#isPaused ? "Go on" : "Pause";
  }

  /** Forgets the key, and all that was seen by it. */
  #leave(why) {
    this.#isOver = true;
    clearTimeout(this.#timer);
    keep(null);
    if (why) sessionStorage.setItem(`${KEY}.refused`, why);
    location.reload();
  }
}

/** The text changes only when something else is to be said: it is read aloud. */
function say(kind, text) {
  if ($("state").textContent === text) return;
  $("state").dataset.kind = kind;
  $("state").textContent = text;
}

function keep(key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** The key in the address, which is taken out of it, or the one that this tab has. */
function keyOfTab() {
  const inAddress = new URLSearchParams(location.hash.slice(1)).get("key");
  if (inAddress) {
    keep(inAddress);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return inAddress ?? sessionStorage.getItem(KEY);
}

function begin(key) {
  $("gate").hidden = true;
  $("operator").hidden = false;
  new Operator(key).run();
}

// Who opens the address that the node printed in a tab that is open loads nothing by it.
addEventListener("hashchange", () => location.reload());

const key = keyOfTab();
if (key) {
  begin(key);
} else {
  $("gate").hidden = false;
  $("key-error").textContent = sessionStorage.getItem(`${KEY}.refused`) ?? "";
  sessionStorage.removeItem(`${KEY}.refused`);
  $("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = $("key").value.trim();
    $("key-error").textContent = given ? "" : "Give a key.";
    if (!given) return;
    keep(given);
    begin(given);
  });
  $("key").focus();
}
