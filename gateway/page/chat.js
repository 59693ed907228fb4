// The pane of the open conversation: its header, the composer, when something counts as read, and where new messages begin.

import { $, avatar, conversationName, messageText, names } from "./dom.js";
import { loadDraft, saveDraft } from "./store.js";
import { Transcript } from "./transcript.js";

const COMPOSER_HEIGHT_MAX_PX = 180;
const coarse = matchMedia("(pointer: coarse)");

export class Chat {
  /**
   * @param {import("./session.js").Session} session
   * @param {() => boolean} inView   whether the pane is on the screen (on a phone, the list may cover it)
   */
  constructor(session, inView) {
    Object.assign(this, { session, inView });
    this.id = null;
    /** The sequence of the message that the next one answers. */
    this.replyTo = null;
    this.transcript = new Transcript($("scroller"), $("messages"), {
      loadOlder: (id) => session.loadOlder(id),
      retry: (id) => session.outbox.retry(id),
      discard: (id) => session.outbox.discard(id),
      reply: (sequence) => this.#reply(sequence),
      onScroll: () => this.#looked(),
    });
    this.text = $("composer-text");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    $("reply-cancel").addEventListener("click", () => {
      this.#reply(null);
      this.text.focus();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.replyTo !== null) {
        event.preventDefault();
        event.stopPropagation();
        return this.#reply(null);
      }
      if (this.text.value === "" && (event.key === "ArrowUp" || (event.key === "ArrowDown" && this.replyTo !== null))) {
        event.preventDefault();
        return this.#step(event.key === "ArrowUp");
      }
      // While an input method composes, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    this.text.addEventListener("input", () => {
      this.#typed();
      session.typing(this.id, this.text.value !== "");
    });
    $("jump").addEventListener("click", () => {
      this.transcript.jumpToEnd();
      this.#looked();
      this.text.focus();
    });
    for (const type of ["focus", "visibilitychange"]) addEventListener(type, () => this.#looked(), { capture: true });
  }

  get timeline() {
    return this.session.timelines.get(this.id);
  }

  /** Shows a conversation. */
  async open(id) {
    const { session } = this;
    if (this.id !== null && this.id !== id) session.typing(this.id, false);
    this.id = id;
    const { timeline } = this;
    $("nothing").hidden = true;
    $("pane").hidden = false;
    $("composer-error").textContent = "";
    this.#reply(null);
    this.text.value = loadDraft(session.user, id);
    this.#typed();
    session.watch(id);
    const { unread } = timeline;
    const dividerAfter = unread > 0 ? timeline.read : null;
    // Everything unread comes in one page where that is possible, so that the first new message can be shown.
    const loading = timeline.entries.length < 30 ? session.loadOlder(id, Math.min(200, Math.max(50, unread + 20))) : null;
    this.transcript.open(timeline, session.outbox.of(id), dividerAfter);
    this.#header();
    if (loading) await loading.catch(() => {});
    if (this.id !== id) return;
    this.transcript.update(session.outbox.of(id));
    if (dividerAfter !== null) this.transcript.showDivider();
    this.#looked();
  }

  close() {
    this.id = null;
    this.session.watch(null);
    this.transcript.close();
    $("pane").hidden = true;
    $("nothing").hidden = false;
  }

  /** Where the keyboard goes: the composer, but no keyboard that jumps onto a phone's screen. */
  focus() {
    (coarse.matches ? $("peer-name") : this.text).focus({ preventScroll: true });
  }

  /** Something about the open conversation changed; `entries` are new in it. */
  update(entries = []) {
    const { timeline } = this;
    if (!timeline) return;
    const foreign = entries.find((entry) => entry.sender !== timeline.me);
    if (foreign && !this.#watching() && timeline.read >= foreign.sequence - 1) this.transcript.dividerAfter = timeline.read;
    this.transcript.update(this.session.outbox.of(this.id));
    this.#header();
    this.#looked();
  }

  reset() {
    this.transcript.reset(this.session.outbox.of(this.id));
    this.#looked();
  }

  #watching() {
    return document.visibilityState === "visible" && document.hasFocus() && this.inView() && this.transcript.atBottom;
  }

  /** Read is what the end of was on the screen of somebody who looks at it. */
  #looked() {
    const { timeline } = this;
    if (!timeline) return;
    if (this.#watching()) this.session.markRead(this.id);
    const { atBottom } = this.transcript;
    $("jump").hidden = atBottom;
    $("jump").classList.toggle("unread", timeline.unread > 0);
    $("jump-text").textContent = timeline.unread > 0 ? `${timeline.unread} new` : "Latest";
  }

  #header() {
    const { timeline } = this;
    const name = conversationName(timeline);
    const detail = this.#typing(timeline) ?? (timeline.direct ? "" : this.#memberNames(timeline));
    const mark = JSON.stringify([this.id, name, detail]);
    if (mark === this.headerMark) return;
    this.headerMark = mark;
    $("peer-avatar").replaceChildren(avatar(timeline.direct ?? name, !timeline.direct));
    $("peer-name").textContent = name;
    $("peer-detail").textContent = detail;
    $("scroller").setAttribute("aria-label", `Messages with ${name}`);
    this.text.placeholder = `Message ${name}`;
    this.text.setAttribute("aria-label", `Message to ${name}`);
  }

  /** Who types, if anybody does. */
  #typing({ typing, direct }) {
    if (typing.size === 0) return null;
    return direct ? "is typing …" : `${names([...typing.keys()], 2)} ${typing.size === 1 ? "is" : "are"} typing …`;
  }

  #memberNames({ members, memberCount, me }) {
    if (!members || members.length > 12) return `${memberCount} members`;
    return names(members.map((name) => (name === me ? "you" : name)), 6);
  }

  /** The next message answers this one; `null`: none. */
  #reply(sequence) {
    this.replyTo = sequence;
    const entry = sequence === null ? null : this.timeline.at(sequence);
    $("reply").hidden = entry === null;
    if (entry === null) return;
    const whom = entry.sender === this.timeline.me ? "yourself" : entry.sender;
    $("reply-whom").textContent = `Reply to ${whom}`;
    $("reply-text").textContent = messageText(entry);
    this.text.focus();
  }

  /** Goes to the message before or behind the one that is answered. */
  #step(up) {
    const can = ({ kind, sequence, ...said }) =>
      kind === "message" && messageText(said) !== messageText({}) && (up ? sequence < from : sequence > from);
    const from = this.replyTo ?? Infinity;
    const { entries } = this.timeline;
    const next = up ? entries.findLast(can) : entries.find(can);
    if (next) this.#reply(next.sequence);
    else if (!up) this.#reply(null);
  }

  /** What the next message refers to: whoever answers in a thread stays in it. */
  #references() {
    const entry = this.replyTo === null ? null : this.timeline.at(this.replyTo);
    return entry ? { reply_to: entry.sequence, thread: entry.thread ?? entry.sequence } : {};
  }

  #typed() {
    const { text } = this;
    text.style.height = "auto";
    text.style.height = `${Math.min(COMPOSER_HEIGHT_MAX_PX, text.scrollHeight)}px`;
    $("send").disabled = text.value.trim() === "";
    saveDraft(this.session.user, this.id, text.value);
  }

  #send() {
    const words = this.text.value.trim();
    if (words === "" || !this.timeline) return;
    const most = this.session.limits.text_bytes_max ?? 16_384;
    const bytes = new TextEncoder().encode(words).length;
    const error = bytes > most ? `This is ${bytes - most} bytes too long for one message.` : "";
    $("composer-error").textContent = error;
    if (error) return;
    this.transcript.dividerAfter = null;
    this.session.outbox.add(this.id, words, this.#references());
    this.text.value = "";
    this.#typed();
    this.#reply(null);
    if (!this.transcript.atBottom) this.transcript.jumpToEnd();
    this.text.focus();
  }
}
