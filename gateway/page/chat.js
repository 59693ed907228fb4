// The pane of the open conversation: its header, the composer, when something counts as read, and where new messages begin.

import { $, avatar, conversationName, EVERYBODY, meantBy, messageText, names } from "./dom.js";
import { MessageMenu } from "./menu.js";
import { Transcript } from "./transcript.js";

const COMPOSER_HEIGHT_MAX_PX = 180;
const coarse = matchMedia("(pointer: coarse)");

export class Chat {
  /**
   * @param {import("./antiphon-client.js").Client} client
   * @param {import("./own.js").Own} own
   * @param {import("./presence.js").Presence} presence
   * @param {() => boolean} inView   whether the pane is on the screen (on a phone, the list may cover it)
   */
  constructor(client, own, presence, inView) {
    Object.assign(this, { client, own, presence, inView });
    this.id = null;
    /** The message that the next one answers, or that is being edited: `{sequence, edits}`. */
    this.about = null;
    /** Opened before all of it was here. */
    this.behind = false;
    this.menu = new MessageMenu(client, {
      reply: (sequence) => this.#turnTo(sequence),
      edit: (sequence) => this.#turnTo(sequence, true),
    });
    this.transcript = new Transcript($("scroller"), $("messages"), {
      loadOlder: (id) => client.loadOlder(id),
      retry: (id) => client.outbox.retry(id),
      discard: (id) => client.outbox.discard(id),
      reply: (sequence) => this.#turnTo(sequence),
      more: (anchor, sequence) => this.menu.open(anchor, this.conversation, sequence),
      show: (sequence) => this.transcript.show(sequence),
      loadBackTo: (id, sequence) => client.loadBackTo(id, sequence),
      react: (sequence, reaction, on) => client.react(this.id, sequence, reaction, on),
      onScroll: () => this.#looked(),
    });
    this.text = $("composer-text");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    $("about-cancel").addEventListener("click", () => {
      this.#turnTo(null);
      this.text.focus();
    });
    $("about-more").addEventListener("click", (event) => {
      this.menu.open(event.currentTarget, this.conversation, this.about.sequence);
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.about !== null) {
        event.preventDefault();
        event.stopPropagation();
        return this.#turnTo(null);
      }
      const isFree = this.text.value === "" && !this.about?.edits;
      if (isFree && (event.key === "ArrowUp" || (event.key === "ArrowDown" && this.about !== null))) {
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
      client.typing(this.id, this.text.value !== "");
    });
    $("jump").addEventListener("click", () => {
      this.transcript.jumpToEnd();
      this.#looked();
      this.text.focus();
    });
    for (const type of ["focus", "visibilitychange"]) addEventListener(type, () => this.#looked(), { capture: true });
  }

  get conversation() {
    return this.client.conversations.get(this.id);
  }

  /** Shows a conversation. */
  async open(id) {
    const { client } = this;
    if (this.id !== null && this.id !== id) client.typing(this.id, false);
    this.id = id;
    const { conversation } = this;
    $("nothing").hidden = true;
    $("pane").hidden = false;
    $("composer-error").textContent = "";
    this.about = null;
    this.#showAbout();
    this.text.value = this.own.draft(id);
    this.#typed();
    client.watch(id);
    this.behind = conversation.isBehind;
    const { unread } = conversation;
    const dividerAfter = unread > 0 ? conversation.read : null;
    // Everything unread comes in one page where that is possible, so that the first new message can be shown.
    const loading = conversation.entries.length < 30 ? client.loadOlder(id, Math.min(200, Math.max(50, unread + 20))) : null;
    this.transcript.open(conversation, client.outbox.of(id), dividerAfter);
    this.#header();
    if (loading) await loading.catch(() => {});
    if (this.id !== id) return;
    this.transcript.update(client.outbox.of(id));
    if (dividerAfter !== null) this.transcript.showDivider();
    this.#looked();
  }

  close() {
    this.id = null;
    this.client.watch(null);
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
    const { conversation } = this;
    if (!conversation) return;
    const foreign = entries.find((entry) => entry.sender !== conversation.me);
    if (foreign && !this.#watching() && conversation.read >= foreign.sequence - 1)
      this.transcript.dividerAfter = conversation.read;
    this.transcript.update(this.client.outbox.of(this.id));
    this.#header();
    this.#looked();
    if (this.behind && !conversation.isBehind) {
      this.behind = false;
      this.transcript.showDivider();
    }
  }

  /** What is half written here was, or is being, written on another device. */
  draftChanged(overwrote) {
    if (this.id === null || this.about?.edits) return;
    $("composer-error").textContent = overwrote ? "This has replaced what was being written on another device." : "";
    const draft = this.own.draft(this.id);
    if (this.text.value === draft) return;
    this.text.value = draft;
    this.#typed();
  }

  reset() {
    this.transcript.reset(this.client.outbox.of(this.id));
    this.#looked();
  }

  #watching() {
    return document.visibilityState === "visible" && document.hasFocus() && this.inView() && this.transcript.atBottom;
  }

  /** Read is what the end of was on the screen of somebody who looks at it. */
  #looked() {
    const { conversation } = this;
    if (!conversation) return;
    if (this.#watching()) this.client.markRead(this.id);
    const { atBottom } = this.transcript;
    $("jump").hidden = atBottom;
    $("jump").classList.toggle("unread", conversation.unread > 0);
    $("jump-text").textContent = conversation.unread > 0 ? `${conversation.unread} new` : "Latest";
  }

  #header() {
    const { conversation } = this;
    const name = conversationName(conversation);
    const detail = this.#typing(conversation) ?? (conversation.direct ? this.presence.text(conversation) : this.#memberNames(conversation));
    const mark = JSON.stringify([this.id, name, detail]);
    if (mark === this.headerMark) return;
    this.headerMark = mark;
    $("peer-avatar").replaceChildren(avatar(conversation.direct ?? name, !conversation.direct));
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
    return names(
      members.map((name) => (name === me ? "you" : name)),
      6,
    );
  }

  /** The next message answers this one, or what is written replaces it (`edits`); `null`: neither. */
  #turnTo(sequence, edits = false) {
    const was = this.about;
    this.about = sequence === null ? null : { sequence, edits };
    const entry = this.#showAbout();
    // What was half written comes back.
    if (was?.edits || edits) this.text.value = edits ? entry.text : this.own.draft(this.id);
    if (was?.edits || edits) this.#typed();
    if (entry) this.text.focus();
  }

  #showAbout() {
    const entry = this.about === null ? null : this.conversation.at(this.about.sequence);
    $("about").hidden = entry === null;
    if (entry === null) return null;
    const whom = entry.sender === this.conversation.me ? "yourself" : entry.sender;
    $("about-what").textContent = this.about.edits ? "Edit your message" : `Reply to ${whom}`;
    $("about-text").textContent = messageText(entry);
    $("about-cancel").setAttribute("aria-label", this.about.edits ? "Do not edit" : "Do not reply");
    return entry;
  }

  /** Goes to the message before or behind the one that is answered. */
  #step(up) {
    const from = this.about?.sequence ?? Infinity;
    const can = ({ kind, sequence }) =>
      kind === "message" && !this.conversation.state(sequence).deleted && (up ? sequence < from : sequence > from);
    const { entries } = this.conversation;
    const next = up ? entries.findLast(can) : entries.find(can);
    if (next) this.#turnTo(next.sequence);
    else if (!up) this.#turnTo(null);
  }

  /** What the next message refers to: whoever answers in a thread stays in it. */
  #references() {
    const entry = this.about === null ? null : this.conversation.at(this.about.sequence);
    return entry ? { reply_to: entry.sequence, thread: entry.thread ?? entry.sequence } : {};
  }

  /** What is written, with whom it means. */
  #content(text) {
    const { direct, members, me } = this.conversation;
    if (direct) return { text };
    const { everybody, ...mentions } = meantBy(
      text,
      (members ?? []).filter((name) => name !== me && name !== EVERYBODY),
    );
    return { text, ...mentions, ...(everybody && this.conversation.may("everybody") ? { everybody } : {}) };
  }

  #typed() {
    const { text } = this;
    text.style.height = "auto";
    text.style.height = `${Math.min(COMPOSER_HEIGHT_MAX_PX, text.scrollHeight)}px`;
    $("send").disabled = text.value.trim() === "";
    if (!this.about?.edits) this.own.setDraft(this.id, text.value);
  }

  #send() {
    const words = this.text.value.trim();
    if (words === "" || !this.conversation) return;
    const most = this.client.limits.text_bytes_max ?? 16_384;
    const bytes = new TextEncoder().encode(words).length;
    const error = bytes > most ? `This is ${bytes - most} bytes too long for one message.` : "";
    $("composer-error").textContent = error;
    if (error) return;
    if (this.about?.edits) {
      this.client.edit(this.id, this.about.sequence, this.#content(words));
      return this.#turnTo(null);
    }
    this.transcript.dividerAfter = null;
    this.client.send(this.id, { ...this.#content(words), ...this.#references() });
    this.text.value = "";
    this.#typed();
    this.#turnTo(null);
    if (!this.transcript.atBottom) this.transcript.jumpToEnd();
    this.text.focus();
  }
}
