// The panel of members and settings: list, add, remove, give roles, rename, leave.

import { confirm, explain, nameError, splitNames } from "./dialogs.js";
import { $, avatar, conversationName, el } from "./dom.js";

const ROLE_NAMES = { owner: "Owner", admin: "Admin", member: "Member", reader: "Read-only" };

export class Details {
  /**
   * @param {import("./session.js").Session} session
   * @param {(open: boolean) => void} onToggle
   */
  constructor(session, onToggle) {
    Object.assign(this, { session, onToggle });
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
    $("rename-text").value = this.session.timelines.get(id).title;
    $("add-text").value = "";
    $("details-error").textContent = "";
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

  render() {
    const timeline = this.session.timelines.get(this.id);
    if (!timeline) return;
    const group = !timeline.direct;
    for (const id of ["rename", "add", "leave"]) $(id).hidden = !group;
    const members = timeline.members ?? (timeline.direct ? [...new Set([timeline.direct, timeline.me])] : []);
    $("details-title").textContent = group ? "Group" : "Conversation";
    $("members-title").textContent = group ? `Members (${timeline.memberCount})` : "Members";
    if (document.activeElement !== $("rename-text") && $("rename-text").dataset.title !== timeline.title) {
      $("rename-text").value = timeline.title;
    }
    $("rename-text").dataset.title = timeline.title;
    const mark = JSON.stringify([this.id, members, [...timeline.roles].sort()]);
    if (mark === this.mark) return;
    this.mark = mark;
    $("members").replaceChildren(...members.map((name) => this.#member(name, timeline)));
  }

  #member(name, timeline) {
    const [mine, role] = [timeline.role(timeline.me), timeline.role(name)];
    const you = name === timeline.me ? el("span", { class: "muted" }, " you") : null;
    // Admins run a group, but for its owner and who is an admin.
    const runs = !timeline.direct && !you && (mine === "owner" || (mine === "admin" && role !== "owner"));
    const gives = mine === "owner" ? ["admin", "member", "reader"] : ["member", "reader"];
    const isGiven = runs && gives.includes(role);
    const isShown = !timeline.direct && role !== "member";
    const label = isGiven ? this.#roleOf(name, role, gives) : isShown ? el("span", { class: "muted" }, ROLE_NAMES[role]) : null;
    const onclick = (event) => this.#do(event, () => this.#remove(name));
    const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${name}`, onclick }, "Remove");
    const who = el("div", { class: "member" }, el("span", { class: "member-name" }, name, you), label);
    return el("li", {}, avatar(name), who, runs ? remove : null);
  }

  #roleOf(name, role, gives) {
    const onchange = (event) => this.#do(event, () => this.session.setRole(this.id, name, event.target.value));
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
    return this.session.rename(this.id, $("rename-text").value.trim());
  }

  async #add() {
    const list = splitNames($("add-text").value);
    const plain = list.length === 0 ? "A name is needed." : list.map(nameError).find(Boolean);
    if (plain) throw { plain };
    await this.session.addMembers(this.id, list);
    $("add-text").value = "";
  }

  async #remove(name) {
    const title = conversationName(this.session.timelines.get(this.id));
    if (!(await confirm(`Remove ${name} from ${title}?`, "Remove"))) return;
    await this.session.removeMember(this.id, name);
    $("details-title").focus();
  }

  async #leave() {
    const title = conversationName(this.session.timelines.get(this.id));
    if (await confirm(`Leave ${title}? It will be gone from your list.`, "Leave")) {
      await this.session.removeMember(this.id, this.session.user);
    }
  }
}
