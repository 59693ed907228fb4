// The panel of members and settings: list, add, remove, give roles, rename, leave.

import { confirm, explain, nameError, splitNames } from "./dialogs.js";
import { $, avatar, conversationName, el, icon } from "./dom.js";
import { GroupPanel } from "./group.js";
import { FLAGS } from "./own.js";

const ROLE_NAMES = { owner: "Owner", admin: "Admin", member: "Member", reader: "Read-only" };

export class Details {
  /**
   * @param {import("./antiphon-client.js").Client} client
   * @param {import("./own.js").Own} own
   * @param {(open: boolean) => void} onToggle
   * @param {(sequence: number) => void} show   goes to a message
   */
  constructor(client, own, onToggle, show) {
    Object.assign(this, { client, own, onToggle });
    this.flags = FLAGS.map(({ key, label, hint }) => {
      const onclick = () => own.toggle(key, this.id);
      return [key, el("button", { type: "button", class: "chip", title: hint, onclick }, icon(key), label)];
    });
    $("own").append(...this.flags.map(([, button]) => button));
    this.group = new GroupPanel(client, (event, action) => this.#do(event, action), show);
    this.id = null;
    $("rename").addEventListener("submit", (event) => this.#do(event, () => this.#rename()));
    $("add").addEventListener("submit", (event) => this.#do(event, () => this.#add()));
    $("leave").addEventListener("click", (event) => this.#do(event, () => this.#leave()));
    $("details-close").addEventListener("click", () => this.close());
  }

  get isOpen() {
    return this.id !== null;
  }

  open(id) {
    this.id = id;
    $("details").hidden = false;
    $("details-toggle").setAttribute("aria-expanded", "true");
    $("rename-text").value = this.client.conversations.get(id).title;
    $("add-text").value = "";
    $("details-error").textContent = "";
    this.group.open(id);
    this.render();
    this.onToggle(true);
    $("details-title").focus();
  }

  /** `quietly`: the conversation changed underneath; the focus is somebody else's. */
  close(quietly = false) {
    if (!this.isOpen) return;
    this.id = null;
    $("details").hidden = true;
    $("details-toggle").setAttribute("aria-expanded", "false");
    this.onToggle(false);
    if (!quietly) $("details-toggle").focus();
  }

  /** `entries`: what is new in the conversation. */
  render(entries = []) {
    const conversation = this.client.conversations.get(this.id);
    if (!conversation) return;
    const group = !conversation.direct;
    for (const id of ["rename", "add", "leave"]) $(id).hidden = !group;
    const members = conversation.members ?? (conversation.direct ? [...new Set([conversation.direct, conversation.me])] : []);
    $("details-title").textContent = group ? "Group" : "Conversation";
    $("members-title").textContent = group ? `Members (${conversation.memberCount})` : "Members";
    if (document.activeElement !== $("rename-text") && $("rename-text").dataset.title !== conversation.title) {
      $("rename-text").value = conversation.title;
    }
    $("rename-text").dataset.title = conversation.title;
    for (const [key, button] of this.flags) button.setAttribute("aria-pressed", String(this.own.is(key, this.id)));
    this.group.changed(entries);
    this.group.render();
    const mark = JSON.stringify([this.id, members, [...conversation.roles].sort()]);
    if (mark === this.mark) return;
    this.mark = mark;
    $("members").replaceChildren(...members.map((name) => this.#member(name, conversation)));
  }

  #member(name, conversation) {
    const [mine, role] = [conversation.role(conversation.me), conversation.role(name)];
    const you = name === conversation.me ? el("span", { class: "muted" }, " you") : null;
    // Admins run a group, but for its owner and who is an admin.
    const runs = !conversation.direct && !you && (mine === "owner" || (mine === "admin" && role !== "owner"));
    const gives = mine === "owner" ? ["admin", "member", "reader"] : ["member", "reader"];
    const isGiven = runs && gives.includes(role);
    const isShown = !conversation.direct && role !== "member";
    const label = isGiven ? this.#roleOf(name, role, gives) : isShown ? el("span", { class: "muted" }, ROLE_NAMES[role]) : null;
    const onclick = (event) => this.#do(event, () => this.#remove(name));
    const ban = (event) => this.#do(event, () => this.#ban(name));
    const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick }, "Remove");
    const keepOut = el("button", { type: "button", class: "quiet", "aria-label": `Ban ${name}`, onclick: ban }, "Ban");
    const who = el("div", { class: "member" }, el("span", { class: "member-name" }, name, you), label);
    return el("li", {}, avatar(name), who, runs ? remove : null, runs ? keepOut : null);
  }

  #roleOf(name, role, gives) {
    const onchange = (event) =>
      this.#do(event, () => this.client.groups.setRoles(this.id, [{ user: name, role: event.target.value }]));
    const options = gives.map((value) => el("option", { value, selected: value === role }, ROLE_NAMES[value]));
    return el("select", { "aria-label": `Role of ${name}`, onchange }, ...options);
  }

  async #do(event, action) {
    event.preventDefault();
    $("details-error").textContent = "";
    try {
      await action();
    } catch (error) {
      $("details-error").textContent = error.plain ?? explain(error);
    }
  }

  #rename() {
    return this.client.groups.rename(this.id, $("rename-text").value.trim());
  }

  async #add() {
    const list = splitNames($("add-text").value);
    const plain = list.length === 0 ? "A name is needed." : list.map(nameError).find(Boolean);
    if (plain) throw { plain };
    await this.client.groups.add(this.id, list);
    $("add-text").value = "";
  }

  async #remove(name) {
    const title = conversationName(this.client.conversations.get(this.id));
    if (!(await confirm(`Remove ${name} from ${title}?`, "Remove"))) return;
    await this.client.groups.remove(this.id, [name]);
    $("details-title").focus();
  }

  async #ban(name) {
    const title = conversationName(this.client.conversations.get(this.id));
    if (!(await confirm(`Remove ${name} from ${title}, and keep them out?`, "Ban"))) return;
    await this.client.groups.ban(this.id, [name]);
    $("details-title").focus();
  }

  async #leave() {
    const title = conversationName(this.client.conversations.get(this.id));
    if (await confirm(`Leave ${title}? It will be gone from your list.`, "Leave")) {
      await this.client.groups.leave(this.id);
    }
  }
}
