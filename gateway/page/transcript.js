// The messages of the open conversation: owns which of them are in the document, and where the scroll stands.
//
// However long the conversation, the document holds a bounded run of it (`low` … `high`, at most about WINDOW + STEP entries).
// The run moves as one scrolls; what stands on the screen keeps its place whatever is added or taken away around it.

import { dayKey, dayName, el, eventText } from "./dom.js";
import { MessageView } from "./message.js";

const WINDOW = 150;
const STEP = 60;
/** So close to an end of the run, more is put there. */
const MARGIN_PX = 600;
/** So close to the end, one is at the end. */
const BOTTOM_PX = 48;
/** What these changed is shown at the message itself. */
const TOLD_BY_MESSAGES = new Set(["edit", "deletion", "reaction"]);
/** Messages of one sender within so long stand together. */
const GROUP_MS = 5 * 60_000;

export class Transcript {
  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} list
   * @param {object} actions   `loadOlder(id)`, `retry(id)`, `discard(id)`, `reply(sequence)`, `more(anchor, sequence)`,
   *   `react(sequence, reaction, on)`, `show(sequence)`, `loadBackTo(id, sequence)`, `onScroll()`
   */
  constructor(scroller, list, actions) {
    Object.assign(this, { scroller, list, actions });
    this.view = new MessageView(actions);
    this.conversation = null;
    this.nodes = new Map();
    this.loading = false;
    this.trouble = null;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.pinned && this.#toBottom()).observe(scroller);
  }

  /** Shows a conversation from its end, or from where the user stopped reading (`dividerAfter`). */
  open(conversation, pending, dividerAfter) {
    this.conversation = conversation;
    this.pending = pending;
    this.dividerAfter = dividerAfter;
    this.trouble = null;
    this.fresh = true;
    this.high = Infinity;
    this.low = Math.max(1, conversation.tail - WINDOW);
    this.pinned = true;
    this.list.replaceChildren();
    this.nodes.clear();
    this.#render();
    this.#toBottom();
    this.#more();
  }

  close() {
    this.conversation = null;
    this.list.replaceChildren();
    this.nodes.clear();
  }

  get atBottom() {
    return this.pinned && this.high === Infinity;
  }

  /** Something about the conversation changed. */
  update(pending) {
    if (!this.conversation) return;
    this.pending = pending;
    const { tail } = this.conversation;
    if (this.pinned && this.high === Infinity) this.low = Math.max(this.low, tail - WINDOW - STEP);
    // Scrolled back while much arrives: the run stops following, so that it stays bounded.
    else if (this.high === Infinity && tail - this.low > 3 * WINDOW) this.high = this.low + 2 * WINDOW;
    this.#render();
    if (this.pinned) this.#toBottom();
    this.#more();
  }

  /** The entries were replaced by later ones: there is nothing left to stay at. */
  reset(pending) {
    this.open(this.conversation, pending, this.dividerAfter);
  }

  /** Goes to a message, however far back it is. */
  async show(sequence) {
    const { conversation } = this;
    const isHere = await this.actions.loadBackTo(conversation.id, sequence).catch(() => false);
    if (!isHere || conversation !== this.conversation) return;
    this.pinned = false;
    this.low = Math.max(1, sequence - STEP);
    this.high = sequence + WINDOW - STEP >= conversation.tail ? Infinity : sequence + WINDOW - STEP;
    this.#render();
    const { client_message_id } = conversation.at(sequence);
    const node = this.nodes.get(client_message_id ?? `entry ${sequence}`)?.node;
    if (!node) return;
    node.scrollIntoView({ block: "center" });
    node.classList.add("shown");
    node.querySelector(".bubble")?.focus({ preventScroll: true });
    this.#more();
  }

  jumpToEnd() {
    this.high = Infinity;
    this.low = Math.max(1, this.conversation.tail - WINDOW);
    this.pinned = true;
    this.#render();
    this.#toBottom();
  }

  /** Brings the divider to the upper part of the screen, if it is in the run. */
  showDivider() {
    const divider = this.nodes.get("divider")?.node;
    if (!divider) return;
    const offset = divider.getBoundingClientRect().top - this.scroller.getBoundingClientRect().top;
    if (offset >= 0) return;
    this.pinned = false;
    this.scroller.scrollTop += offset - 16;
  }

  // ---- Scrolling --------------------------------------------------------------------------------------------------------

  #toBottom() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    if (!this.conversation) return;
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.pinned = scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
    this.#more();
    this.actions.onScroll();
  }

  /** Moves the run so that there is something beyond both edges of the screen. */
  #more() {
    const { scroller, conversation } = this;
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    if (below < MARGIN_PX && this.high !== Infinity) {
      this.high += STEP;
      if (this.high >= conversation.tail) this.high = Infinity;
      this.low = Math.max(this.low, Math.min(this.high, conversation.tail) - WINDOW - STEP);
      this.#render();
    }
    if (scroller.scrollTop >= MARGIN_PX) return;
    const first = conversation.entries[0]?.sequence ?? conversation.tail + 1;
    if (this.low > first) {
      this.low = Math.max(first, this.low - STEP);
      this.#cutBelow();
      this.#render();
    } else if (!conversation.atStart && !this.loading && !this.trouble) {
      this.#load();
    }
  }

  async #load() {
    const { conversation } = this;
    this.loading = true;
    let count = 0;
    try {
      count = await this.actions.loadOlder(conversation.id);
    } catch (error) {
      if (conversation === this.conversation) this.trouble = error.code === "disconnected" ? "offline" : error.message;
    } finally {
      this.loading = false;
    }
    if (conversation !== this.conversation) return this.conversation && this.#more();
    if (count > 0) {
      const first = conversation.entries[0].sequence;
      this.low = Math.max(first, this.low - STEP);
      this.#cutBelow();
    }
    this.#render();
    if (this.pinned) this.#toBottom();
    if (count > 0) this.#more();
  }

  #cutBelow() {
    if (this.pinned) return;
    const most = this.low + WINDOW + STEP;
    if (most < Math.min(this.high, this.conversation.tail)) this.high = most;
  }

  /** Loading back failed; now it may work. */
  retryLoading() {
    if (!this.trouble) return;
    this.trouble = null;
    this.#more();
    this.#render();
  }

  // ---- Rendering --------------------------------------------------------------------------------------------------------

  /** What should be there: `{key, mark, make}`. A node is made again when its mark changes. */
  #items() {
    const { conversation } = this;
    const entries = conversation.entries.filter((entry) => entry.sequence >= this.low && entry.sequence <= this.high);
    const items = [this.#head(entries)];
    let day = null;
    let divided = false;
    let previous = null;
    const ownLast = entries.findLast((entry) => entry.kind === "message" && entry.sender === conversation.me)?.sequence;
    const rows = entries
      .filter(({ kind }) => !TOLD_BY_MESSAGES.has(kind))
      .map((entry) => this.#changed({ ...entry, key: entry.client_message_id ?? `entry ${entry.sequence}` }));
    if (this.high === Infinity)
      rows.push(...this.pending.filter(({ kind }) => kind === "send").map((item) => this.#pendingRow(item)));
    const together = (one, other) =>
      one?.kind === "message" &&
      other?.kind === "message" &&
      one.sender === other.sender &&
      other.time_ms - one.time_ms < GROUP_MS &&
      dayKey(one.time_ms) === dayKey(other.time_ms);
    rows.forEach((row, index) => {
      if (dayKey(row.time_ms) !== day) {
        day = dayKey(row.time_ms);
        const name = dayName(day);
        items.push({ key: `day ${day}`, mark: name, make: () => el("li", { class: "day" }, el("span", {}, name)) });
        previous = null;
      }
      const isNew = this.dividerAfter !== null && row.sequence > this.dividerAfter && row.sender !== conversation.me;
      if (isNew && !divided && row.kind === "message") {
        divided = true;
        previous = null;
        items.push({ key: "divider", mark: "", make: () => el("li", { class: "divider" }, el("span", {}, "New messages")) });
      }
      if (row.kind === "message") {
        const start = !together(previous, row);
        const end = !together(row, rows[index + 1]);
        const isLast = row.sequence === ownLast;
        items.push(this.view.item(row, conversation, { start, end, isLast }));
      } else {
        const text = eventText(row, conversation.me);
        items.push({ key: row.key, mark: text, make: () => el("li", { class: "event" }, el("span", {}, text)) });
      }
      previous = row;
    });
    return items;
  }

  #pendingRow(item) {
    const { kind, created_ms, client_message_id, failed, ...content } = item;
    return {
      ...content,
      kind: "message",
      key: client_message_id,
      sequence: Infinity,
      sender: this.conversation.me,
      time_ms: created_ms,
      state: failed ? "failed" : "pending",
      failure: failed?.text,
      failureId: client_message_id,
    };
  }

  /** A message as it will be when what waits is done, and what was refused of it. */
  #changed(row) {
    const changes = this.pending.filter((item) => item.target === row.sequence);
    if (changes.length === 0) return row;
    const changed = { ...row };
    const reactions = new Map(this.conversation.state(row.sequence).reactions.map((one) => [one.reaction, { ...one }]));
    for (const { kind, failed, client_message_id, text, reaction, on } of changes) {
      if (failed) {
        Object.assign(changed, { failure: failed.text, failureId: client_message_id });
        continue;
      }
      if (kind !== "react") changed.state = "changing";
      if (kind === "edit") changed.text = text;
      if (kind !== "react") continue;
      const known = reactions.get(reaction) ?? { reaction, count: 0, mine: false };
      if (known.mine !== on) Object.assign(known, { mine: on, count: known.count + (on ? 1 : -1) });
      if (known.count > 0) reactions.set(reaction, known);
      else reactions.delete(reaction);
    }
    changed.reactions = [...reactions.values()];
    return changed;
  }

  #head(entries) {
    const { conversation } = this;
    const low = entries[0]?.sequence ?? conversation.tail + 1;
    const start = conversation.atStart && low <= Math.max(conversation.first, conversation.entries[0]?.sequence ?? 0);
    const text = start
      ? "The conversation starts here"
      : this.trouble === "offline"
        ? "Earlier messages come when the connection is back"
        : this.trouble
          ? `Earlier messages can’t be read: ${this.trouble}`
          : "Loading earlier messages …";
    return { key: "head", mark: text, make: () => el("li", { class: "head" }, el("span", {}, text)) };
  }

  /** Brings the document to what should be there, and keeps what is on the screen where it is. */
  #render() {
    const anchor = this.pinned ? null : this.#anchor();
    const items = this.#items();
    const wanted = new Set(items.map((item) => item.key));
    for (const [key, { node }] of this.nodes) {
      if (wanted.has(key)) continue;
      node.remove();
      this.nodes.delete(key);
    }
    let place = this.list.firstChild;
    for (const { key, mark, make } of items) {
      let known = this.nodes.get(key);
      if (known && known.mark !== mark) {
        const node = make();
        if (known.node === place) place = node;
        known.node.replaceWith(node);
        known = { node, mark };
        this.nodes.set(key, known);
      } else if (!known) {
        known = { node: make(), mark };
        if (!this.fresh && this.pinned) known.node.classList.add("arriving");
        this.nodes.set(key, known);
      }
      if (known.node === place) place = place.nextSibling;
      else this.list.insertBefore(known.node, place);
    }
    this.fresh = false;
    if (anchor) this.#restore(anchor);
  }

  /** The first message on the screen, and where it stands. */
  #anchor() {
    const top = this.scroller.getBoundingClientRect().top;
    for (const [key, { node }] of this.nodes) {
      if (key === "head" || key === "divider" || key.startsWith("day ")) continue;
      const box = node.getBoundingClientRect();
      if (box.bottom > top && box.top < top + this.scroller.clientHeight) return { key, top: box.top };
    }
    return null;
  }

  #restore({ key, top }) {
    const node = this.nodes.get(key)?.node;
    if (!node) return;
    const moved = node.getBoundingClientRect().top - top;
    if (moved !== 0) this.scroller.scrollTop += moved;
  }
}
