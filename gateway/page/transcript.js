// The messages of the open conversation: owns which of them are in the document, and where the scroll stands.
//
// However long the conversation, the document holds a bounded run of it (`low` … `high`, at most about WINDOW + STEP entries).
// The run moves as one scrolls; what stands on the screen keeps its place whatever is added or taken away around it.

import { avatar, dayKey, dayName, el, eventText, hue, icon, linked, means, messageText, timeOfDay } from "./dom.js";

const WINDOW = 150;
const STEP = 60;
/** So close to an end of the run, more is put there. */
const MARGIN_PX = 600;
/** So close to the end, one is at the end. */
const BOTTOM_PX = 48;
/** Messages of one sender within so long stand together. */
const GROUP_MS = 5 * 60_000;

export class Transcript {
  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} list
   * @param {object} actions   `loadOlder(id)`, `retry(id)`, `discard(id)`, `reply(sequence)`, `onScroll()`
   */
  constructor(scroller, list, actions) {
    Object.assign(this, { scroller, list, actions });
    this.timeline = null;
    this.nodes = new Map();
    this.loading = false;
    this.trouble = null;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.pinned && this.#toBottom()).observe(scroller);
  }

  /** Shows a conversation from its end, or from where the user stopped reading (`dividerAfter`). */
  open(timeline, pending, dividerAfter) {
    this.timeline = timeline;
    this.pending = pending;
    this.dividerAfter = dividerAfter;
    this.trouble = null;
    this.fresh = true;
    this.high = Infinity;
    this.low = Math.max(1, timeline.tail - WINDOW);
    this.pinned = true;
    this.list.replaceChildren();
    this.nodes.clear();
    this.#render();
    this.#toBottom();
    this.#more();
  }

  close() {
    this.timeline = null;
    this.list.replaceChildren();
    this.nodes.clear();
  }

  get atBottom() {
    return this.pinned && this.high === Infinity;
  }

  /** Something about the conversation changed. */
  update(pending) {
    if (!this.timeline) return;
    this.pending = pending;
    const { tail } = this.timeline;
    if (this.pinned && this.high === Infinity) this.low = Math.max(this.low, tail - WINDOW - STEP);
    // Scrolled back while much arrives: the run stops following, so that it stays bounded.
    else if (this.high === Infinity && tail - this.low > 3 * WINDOW) this.high = this.low + 2 * WINDOW;
    this.#render();
    if (this.pinned) this.#toBottom();
    this.#more();
  }

  /** The entries were replaced by later ones: there is nothing left to stay at. */
  reset(pending) {
    this.open(this.timeline, pending, this.dividerAfter);
  }

  jumpToEnd() {
    this.high = Infinity;
    this.low = Math.max(1, this.timeline.tail - WINDOW);
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
    if (!this.timeline) return;
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.pinned = scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
    this.#more();
    this.actions.onScroll();
  }

  /** Moves the run so that there is something beyond both edges of the screen. */
  #more() {
    const { scroller, timeline } = this;
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    if (below < MARGIN_PX && this.high !== Infinity) {
      this.high += STEP;
      if (this.high >= timeline.tail) this.high = Infinity;
      this.low = Math.max(this.low, Math.min(this.high, timeline.tail) - WINDOW - STEP);
      this.#render();
    }
    if (scroller.scrollTop >= MARGIN_PX) return;
    const first = timeline.entries[0]?.sequence ?? timeline.tail + 1;
    if (this.low > first) {
      this.low = Math.max(first, this.low - STEP);
      this.#cutBelow();
      this.#render();
    } else if (!timeline.atStart && !this.loading && !this.trouble) {
      this.#load();
    }
  }

  async #load() {
    const { timeline } = this;
    this.loading = true;
    let count = 0;
    try {
      count = await this.actions.loadOlder(timeline.id);
    } catch (error) {
      if (timeline === this.timeline) this.trouble = error.code === "disconnected" ? "offline" : error.message;
    } finally {
      this.loading = false;
    }
    if (timeline !== this.timeline) return this.timeline && this.#more();
    if (count > 0) {
      const first = timeline.entries[0].sequence;
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
    if (most < Math.min(this.high, this.timeline.tail)) this.high = most;
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
    const { timeline } = this;
    const entries = timeline.entries.filter((entry) => entry.sequence >= this.low && entry.sequence <= this.high);
    const items = [this.#head(entries)];
    let day = null;
    let divided = false;
    let previous = null;
    const replies = timeline.replies;
    const ownLast = entries.findLast((entry) => entry.kind === "message" && entry.sender === timeline.me)?.sequence;
    const rows = entries.map((entry) => ({ ...entry, key: entry.client_message_id ?? `entry ${entry.sequence}` }));
    if (this.high === Infinity) rows.push(...this.pending.map((item) => this.#pendingRow(item)));
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
      const isNew = this.dividerAfter !== null && row.sequence > this.dividerAfter && row.sender !== timeline.me;
      if (isNew && !divided && row.kind === "message") {
        divided = true;
        previous = null;
        items.push({ key: "divider", mark: "", make: () => el("li", { class: "divider" }, el("span", {}, "New messages")) });
      }
      if (row.kind === "message") {
        const start = !together(previous, row);
        const end = !together(row, rows[index + 1]);
        const isLast = row.sequence === ownLast;
        items.push(this.#messageItem({ ...row, replies: replies.get(row.sequence) ?? 0 }, start, end, isLast));
      } else {
        const text = eventText(row, timeline.me);
        items.push({ key: row.key, mark: text, make: () => el("li", { class: "event" }, el("span", {}, text)) });
      }
      previous = row;
    });
    return items;
  }

  #pendingRow(item) {
    const state = item.failed ? "failed" : "pending";
    return {
      kind: "message",
      key: item.client_message_id,
      sequence: Infinity,
      sender: this.timeline.me,
      time_ms: item.created_ms,
      text: item.text,
      reply_to: item.reply_to,
      thread: item.thread,
      state,
      failure: item.failed?.text,
    };
  }

  #head(entries) {
    const { timeline } = this;
    const low = entries[0]?.sequence ?? timeline.tail + 1;
    const start = timeline.atStart && low <= Math.max(timeline.first, timeline.entries[0]?.sequence ?? 0);
    const text = start
      ? "The conversation starts here"
      : this.trouble === "offline"
        ? "Earlier messages come when the connection is back"
        : this.trouble
          ? `Earlier messages can’t be read: ${this.trouble}`
          : "Loading earlier messages …";
    return { key: "head", mark: text, make: () => el("li", { class: "head" }, el("span", {}, text)) };
  }

  #messageItem(row, start, end, isLast) {
    const own = row.sender === this.timeline.me;
    const state = own ? this.#state(row) : null;
    const quote = this.#quote(row);
    const canReply = row.state === undefined && messageText(row) !== messageText({});
    row = { ...row, text: messageText(row), quote, canReply };
    const told = [state?.icon, state?.label, state?.note, quote?.whom, quote?.text, row.replies, canReply];
    const mark = [start, end, row.text, row.time_ms, own && isLast, ...told].join("|");
    return { key: row.key, mark, make: () => this.#message(row, own, start, end, state) };
  }

  /** What a message answers, as far as it is here. */
  #quote(row) {
    const sequence = row.reply_to ?? row.thread;
    if (!sequence) return null;
    const entry = this.timeline.at(sequence);
    if (entry?.kind !== "message") return { whom: "an earlier message", text: "" };
    return { whom: entry.sender === this.timeline.me ? "you" : entry.sender, text: messageText(entry) };
  }

  /** How an own message fares. */
  #state(row) {
    if (row.state === "failed") return { icon: "failed", label: "Not sent" };
    if (row.state === "pending") return { icon: "clock", label: "Waiting to be sent" };
    const { delivered, read, others } = this.timeline.reach(row.sequence);
    if (this.timeline.direct) {
      if (read > 0) return { icon: "delivered", label: "Read", read: true };
      return delivered > 0 ? { icon: "delivered", label: "Delivered" } : { icon: "sent", label: "Sent" };
    }
    if (read > 0) {
      const all = read >= others;
      return { icon: "delivered", label: "", note: all ? "Read by all" : `Read by ${read}`, read: true };
    }
    return delivered >= others ? { icon: "delivered", label: "Delivered to all" } : { icon: "sent", label: "Sent" };
  }

  #message(row, own, start, end, state) {
    const group = !this.timeline.direct;
    const classes = ["message", own ? "own" : "other", start && "start", end && "end", state?.icon === "failed" && "failed"];
    if (means(row, this.timeline.me)) classes.push("means-me");
    const time = el("time", { datetime: new Date(row.time_ms).toISOString() }, timeOfDay(row.time_ms));
    const meta = el("span", { class: "meta" }, time);
    if (state?.note) meta.prepend(el("span", { class: "note" }, state.note));
    if (state) meta.append(el("span", { class: `mark${state.read ? " read" : ""}` }, icon(state.icon, state.label || null)));
    // A tap gives it the focus, and with that what can be done with it.
    const bubble = el("div", { class: "bubble", tabindex: "-1" });
    // A screen reader hears who speaks before every message; the eye needs it once a group.
    if (!own && group && start) bubble.append(el("span", { class: `sender ${hue(row.sender)}` }, row.sender));
    else bubble.append(el("span", { class: "hidden-text" }, own ? "You: " : `${row.sender}: `));
    if (row.quote) {
      const whom = el("span", { class: "quoted" }, el("span", { class: "hidden-text" }, "answers "), row.quote.whom);
      bubble.append(el("p", { class: "quote" }, whom, el("span", { class: "quote-text", dir: "auto" }, row.quote.text)));
    }
    bubble.append(el("span", { class: "text", dir: "auto" }, ...linked(row.text)), meta);
    if (row.replies > 0) {
      const text = row.replies === 1 ? "1 reply" : `${row.replies} replies`;
      bubble.append(el("span", { class: "replies" }, icon("reply"), text));
    }
    if (row.canReply) bubble.append(this.#replyButton(row));
    const side = !own && group ? el("span", { class: "side" }, end ? avatar(row.sender) : null) : null;
    const node = el("li", { class: classes.filter(Boolean).join(" ") }, side, bubble);
    if (state?.icon === "failed") node.append(this.#failure(row));
    return node;
  }

  #replyButton(row) {
    const onclick = () => this.actions.reply(row.sequence);
    const label = `Reply to ${row.sender === this.timeline.me ? "your message" : row.sender}`;
    // Not one more stop for the tab key with every message: the composer takes the arrow keys for it.
    const attributes = { type: "button", class: "reply-button", tabindex: "-1", "aria-label": label, title: "Reply", onclick };
    return el("button", attributes, icon("reply"));
  }

  #failure(row) {
    return el(
      "div",
      { class: "failure" },
      el("span", { role: "alert" }, `Not sent: ${row.failure}. `),
      el("button", { type: "button", class: "link", onclick: () => this.actions.retry(row.key) }, "Try again"),
      el("button", { type: "button", class: "link", onclick: () => this.actions.discard(row.key) }, "Discard"),
    );
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
