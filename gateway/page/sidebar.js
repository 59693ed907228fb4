// The list of conversations: owns its rows and the keyboard's way through them.

import { avatar, conversationName, el, eventText, icon, messageText, shortTime } from "./dom.js";
import { FLAGS } from "./own.js";

export class Sidebar {
  /**
   * @param {HTMLElement} list
   * @param {import("./own.js").Own} own
   * @param {import("./presence.js").Presence} presence
   * @param {(id: string) => void} onOpen
   */
  constructor(list, own, presence, onOpen) {
    Object.assign(this, { list, own, presence, onOpen });
    this.rows = new Map();
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Rows are kept and moved, so that the keyboard's focus survives whatever arrives. */
  render(conversations, outbox, openId) {
    const wanted = new Set(conversations.map((conversation) => conversation.id));
    for (const [id, { item }] of this.rows) {
      if (wanted.has(id)) continue;
      item.remove();
      this.rows.delete(id);
    }
    const pending = new Map(outbox.items.filter(({ kind }) => kind === "send").map((item) => [item.conversation, item]));
    let place = this.list.firstChild;
    for (const conversation of conversations) {
      const row = this.#row(conversation.id);
      this.#fill(row, conversation, pending.get(conversation.id), conversation.id === openId);
      if (row.item === place) {
        place = place.nextSibling;
      } else {
        const focused = row.button === document.activeElement;
        this.list.insertBefore(row.item, place);
        if (focused) row.button.focus({ preventScroll: true });
      }
    }
  }

  focusOpen(openId) {
    (this.rows.get(openId)?.button ?? this.list.querySelector("button"))?.focus();
  }

  #row(id) {
    if (!this.rows.has(id)) {
      const button = el("button", { type: "button", class: "conversation", onclick: () => this.onOpen(id) });
      this.rows.set(id, { button, item: el("li", {}, button), mark: null });
    }
    return this.rows.get(id);
  }

  #fill(row, conversation, pending, isOpen) {
    const name = conversationName(conversation);
    const preview = this.#preview(conversation, pending, isOpen);
    const flags = FLAGS.filter(({ key }) => this.own.is(key, conversation.id)).map(({ key }) => key);
    const timeMs = Math.max(pending?.created_ms ?? 0, conversation.lastTimeMs);
    const time = timeMs ? shortTime(timeMs) : "";
    const { unread } = conversation;
    const isThere = this.presence.isThere(conversation);
    const mark = JSON.stringify([name, preview, time, unread, isOpen, conversation.direct, flags, isThere]);
    if (row.mark === mark) return;
    row.mark = mark;
    const count = unread > 99 ? "99+" : String(unread);
    row.button.replaceChildren(
      avatar(conversation.direct ?? name, !conversation.direct),
      el("span", { class: "name" }, name),
      ...(isThere ? [el("span", { class: "hidden-text" }, ", online")] : []),
      el("span", { class: "flags" }, ...flags.map((key) => icon(key, `, ${key}`))),
      el("span", { class: "time" }, time),
      el("span", { class: "preview", dir: "auto" }, preview.draft ? el("span", { class: "draft" }, preview.draft) : null, preview.icon ? icon(preview.icon, preview.label) : null, preview.text),
    );
    if (unread > 0) {
      const badge = el("span", { class: "badge" }, el("span", { "aria-hidden": "true" }, count));
      badge.append(el("span", { class: "hidden-text" }, `, ${unread} unread`));
      row.button.append(badge);
    }
    row.button.classList.toggle("unread", unread > 0);
    row.button.classList.toggle("there", isThere);
    row.button.classList.toggle("muted-conversation", flags.includes("muted"));
    if (isOpen) row.button.setAttribute("aria-current", "true");
    else row.button.removeAttribute("aria-current");
  }

  #preview(conversation, pending, isOpen) {
    if (pending) {
      return pending.failed
        ? { icon: "failed", label: "Not sent: ", text: pending.text }
        : { icon: "clock", label: "Waiting: ", text: pending.text };
    }
    const draft = isOpen ? "" : this.own.draft(conversation.id);
    if (draft !== "") return { draft: "Draft: ", text: draft };
    // Of a large conversation that is not open it is known that there is something, and not what.
    if (conversation.isBehind && conversation.unread > 0) return { text: "New messages" };
    const { last } = conversation;
    if (!last) return { text: "" };
    if (last.kind !== "message") return { text: eventText(last, conversation.me) };
    if (last.sender === conversation.me) return { text: `You: ${messageText(last)}` };
    return { text: conversation.direct ? messageText(last) : `${last.sender}: ${messageText(last)}` };
  }

  #key(event) {
    const buttons = [...this.list.querySelectorAll("button")];
    const index = buttons.indexOf(document.activeElement);
    const target = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (index < 0 || target === undefined) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(buttons.length - 1, target))].focus();
  }
}
