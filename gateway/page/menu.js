// What can be done with one message: reactions, reply, edit, pin, delete, and who has seen it. Owns the menu and its keyboard.

import { confirm, explain, fact, tell } from "./dialogs.js";
import { $, el, names } from "./dom.js";

const REACTIONS = ["👍", "❤️", "😂", "🎉", "😮", "😢"];
const LISTED_MAX = 200;

export class MessageMenu {
  /**
   * @param {import("./antiphon-client.js").Client} client
   * @param {{reply: (sequence: number) => void, edit: (sequence: number) => void}} actions
   */
  constructor(client, actions) {
    Object.assign(this, { client, actions });
    this.menu = $("menu");
    this.menu.addEventListener("keydown", (event) => this.#key(event));
    this.menu.addEventListener("toggle", ({ newState }) => newState === "closed" && this.#closed());
  }

  /** Opens at `anchor`, which gets the focus back. */
  open(anchor, conversation, sequence) {
    const entry = conversation.at(sequence);
    if (entry?.kind !== "message") return;
    this.anchor = anchor;
    this.menu.replaceChildren(...this.#items(conversation, entry));
    this.menu.showPopover();
    this.#place(anchor);
    this.menu.querySelector("button").focus();
  }

  #items(conversation, entry) {
    const { id, me } = conversation;
    const { sequence, sender } = entry;
    const { client } = this;
    const told = conversation.state(sequence);
    const mine = new Set(told.reactions.filter((one) => one.mine).map(({ reaction }) => reaction));
    const reactions = REACTIONS.map((reaction) => {
      const isOn = mine.has(reaction);
      const attributes = {
        type: "button",
        role: "menuitemcheckbox",
        "aria-checked": String(isOn),
        "aria-label": `React with ${reaction}`,
      };
      return el(
        "button",
        { ...attributes, onclick: () => this.#do(() => client.react(id, sequence, reaction, !isOn)) },
        reaction,
      );
    });
    const item = (text, action, kind = "") =>
      el("button", { type: "button", role: "menuitem", class: kind, onclick: () => this.#do(action) }, text);
    return [
      el("div", { class: "menu-reactions", role: "group", "aria-label": "Reactions" }, ...reactions),
      item("Reply", () => this.actions.reply(sequence)),
      sender === me && entry.text !== undefined ? item("Edit", () => this.actions.edit(sequence)) : null,
      conversation.may("pin") ? item(told.pinned ? "Unpin" : "Pin", () => client.pin(id, sequence, !told.pinned)) : null,
      item("Seen by, reactions", () => this.#info(conversation, sequence)),
      sender === me || conversation.isRunByMe ? item("Delete for everybody", () => this.#delete(conversation, sequence), "dangerous") : null,
    ].filter(Boolean);
  }

  #do(action) {
    const { anchor } = this;
    this.menu.hidePopover();
    if (anchor?.isConnected) anchor.focus();
    action();
  }

  async #delete(conversation, sequence) {
    if (await confirm("Delete this message for everybody? What it says will be gone.", "Delete"))
      this.client.delete(conversation.id, sequence);
  }

  async #info(conversation, sequence) {
    const others = conversation.seenBy(sequence).filter((name) => name !== conversation.at(sequence)?.sender);
    const seen = others.length > 0 ? names(others, LISTED_MAX) : "Nobody yet";
    const body = tell("About the message", [["Seen by", seen]]);
    if (conversation.state(sequence).reactions.length === 0) return;
    try {
      const { reactions } = await this.client.request("reactions", {
        conversation: conversation.id,
        target: sequence,
        limit: LISTED_MAX,
      });
      body.append(...reactions.map(({ user, reactions: has }) => fact(user, has.join(" "))));
    } catch (error) {
      body.append(fact("Reactions", explain(error)));
    }
  }

  /** Under its anchor, or over it where there is no room; on the screen in any case. */
  #place(anchor) {
    const [from, menu] = [anchor.getBoundingClientRect(), this.menu.getBoundingClientRect()];
    const top = from.bottom + menu.height + 8 < innerHeight ? from.bottom + 4 : Math.max(8, from.top - menu.height - 4);
    this.menu.style.top = `${top}px`;
    this.menu.style.left = `${Math.max(8, Math.min(innerWidth - menu.width - 8, from.left))}px`;
  }

  #closed() {
    if (this.menu.contains(document.activeElement) && this.anchor?.isConnected) this.anchor.focus();
    this.anchor = null;
  }

  #key(event) {
    const buttons = [...this.menu.querySelectorAll("button")];
    const index = buttons.indexOf(document.activeElement);
    const next = {
      ArrowDown: index + 1,
      ArrowRight: index + 1,
      ArrowUp: index - 1,
      ArrowLeft: index - 1,
      Home: 0,
      End: buttons.length - 1,
    };
    if (event.key === "Tab" || event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      return this.#do(() => {});
    }
    if (!(event.key in next)) return;
    event.preventDefault();
    buttons[(next[event.key] + buttons.length) % buttons.length].focus();
  }
}
