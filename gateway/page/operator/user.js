// The look at one user: devices as they are, and a trace of what they send and are sent.

import { $ } from "../dom.js";
import * as form from "./format.js";
import * as tables from "./tables.js";

/** Rows of a trace that the page keeps; the node keeps a thousand events. */
const ROWS_MAX = 500;
const WHAT_IT_IS = "A trace shows frames by name and size, never what they say.";

export class User {
  #ask;
  #user = null;
  #next = 0;
  /** Events that the node had no more when it was asked. */
  #missed = 0;
  #isTraced = false;
  /** The trace was begun here: it is of no use to anybody when another user is looked at. */
  #isOwn = false;
  #isPaused;

  /** `ask(method, path)` gives what the node answers, or throws. */
  constructor(ask, isPaused) {
    this.#ask = ask;
    this.#isPaused = isPaused;
    $("user-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.look($("user").value.trim());
    });
    $("trace").addEventListener("click", () => this.#toggle());
    $("whole").addEventListener("change", () => this.#again());
  }

  /** From now on this user is looked at. */
  async look(user) {
    $("user").value = user;
    $("user-error").textContent = user ? "" : "Whom?";
    if (!user) return;
    if (this.#isTraced && this.#isOwn && user !== this.#user) {
      // If it fails, the trace ends by itself.
      this.#ask("DELETE", `${path(this.#user)}/trace`).catch(() => {});
    }
    this.#isOwn &&= user === this.#user;
    this.#user = user;
    this.#traces(false, WHAT_IT_IS);
    this.#again();
    await this.poll(true);
    // It is below the tables that name users.
    $("user-title").scrollIntoView({ block: "start" });
  }

  /** Once a second; what one does oneself is shown while the page is paused, too. */
  async poll(isAsked = false) {
    const user = this.#user;
    if (user === null || (this.#isPaused() && !isAsked)) return;
    try {
      const of = await this.#ask("GET", path(user));
      if (user !== this.#user) return;
      $("user-error").textContent = "";
      $("looked").hidden = false;
      $("no-devices").textContent = `${user} is not connected.`;
      tables.devices(of.devices);
      // Somebody else may have begun it, or ended it.
      if (of.trace && !this.#isTraced) this.#traces(true, "");
      if (this.#isTraced) await this.#pollTrace(user);
    } catch (error) {
      if (user === this.#user) this.#failed(error);
    }
  }

  async #pollTrace(user) {
    const whole = $("whole").checked;
    let seen;
    try {
      seen = await this.#ask("GET", `${path(user)}/trace?since=${this.#next}&redact=${!whole}`);
    } catch (error) {
      if (error.code !== "not_found") throw error;
      return this.#traces(false, "The trace has ended.");
    }
    if (user !== this.#user || whole !== $("whole").checked || !this.#isTraced) return;
    this.#next = seen.next;
    const rows = seen.events.map(tables.event).reverse();
    $("events").prepend(...rows);
    while ($("events").children.length > ROWS_MAX) $("events").lastChild.remove();
    this.#missed += seen.missed;
    const gone = seen.dropped + this.#missed;
    const dropped = gone > 0 ? ` ${form.count(gone)} events are not shown: there were too many at once, or they are too old.` : "";
    $("trace-state").textContent = `Tracing, ${form.duration(seen.ends_in_ms)} left.${dropped}`;
  }

  async #toggle() {
    const [user, begins] = [this.#user, !this.#isTraced];
    try {
      await this.#ask(begins ? "POST" : "DELETE", `${path(user)}/trace`);
    } catch (error) {
      if (begins || error.code !== "not_found") return this.#failed(error);
    }
    if (user !== this.#user) return;
    this.#isOwn = begins;
    if (begins) this.#again();
    this.#traces(begins, begins ? "Tracing." : "The trace has ended.");
    await this.poll(true);
  }

  /** The events are shown from the first that the node has. */
  #again() {
    this.#next = 0;
    this.#missed = 0;
    $("events").replaceChildren();
  }

  #traces(isTraced, text) {
    this.#isTraced = isTraced;
    $("trace").textContent = isTraced ? "End the trace" : "Trace";
    $("trace").setAttribute("aria-pressed", isTraced);
    $("trace-table").hidden = !isTraced && $("events").children.length === 0;
    $("trace-state").textContent = text;
  }

  #failed(error) {
    $("user-error").textContent = error.message;
  }
}

const path = (user) => `operator/users/${encodeURIComponent(user)}`;
