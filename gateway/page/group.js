// The part of the panel that is about a group as a whole: pinned messages, description, who may what, invites, who is kept out.

import { confirm, explain } from "./dialogs.js";
import { $, el, messageText } from "./dom.js";

const RULES = {
  send: "write messages",
  add: "add people and invite",
  remove: "remove people",
  info: "change name and description",
  pin: "pin messages",
  everybody: "mean @all",
};
const HISTORY = { joining: "what is written from then on", start: "everything from the start" };
const DAY_S = 24 * 3600;
const LISTED_MAX = 50;

export class GroupPanel {
  /**
   * @param {import("./antiphon-client.js").Client} client
   * @param {(event: Event, action: () => Promise<void>) => void} act   carries an action out and shows what went wrong
   * @param {(sequence: number) => void} show   goes to a message
   */
  constructor(client, act, show) {
    Object.assign(this, { client, act, show });
    this.id = null;
    $("describe").addEventListener("submit", (event) => act(event, () => this.#describe()));
    $("invite").addEventListener("submit", (event) => act(event, () => this.#invite()));
    $("invite-copy").addEventListener("click", (event) =>
      act(event, () => navigator.clipboard.writeText($("invite-link").value)),
    );
  }

  get conversation() {
    return this.client.conversations.get(this.id);
  }

  /** The panel was opened on a conversation. */
  open(id) {
    this.id = id;
    this.marks = {};
    this.lists = { pins: [], invites: [], bans: [] };
    $("invite-made").hidden = true;
    $("invite-link").value = "";
    this.#load();
  }

  /** Asks for what no entry tells. */
  async #load() {
    const { id, client } = this;
    const listed = async (name, ask) => {
      try {
        const list = await ask();
        if (this.id !== id) return;
        this.lists[name] = list;
        this.render();
      } catch (error) {
        // Who may not see a list is shown none.
        if (error.code !== "forbidden" && error.code !== "disconnected" && this.id === id)
          $("details-error").textContent = explain(error);
      }
    };
    await listed("pins", async () => (await client.request("pins", { conversation: id, limit: LISTED_MAX })).pins);
    if (this.conversation?.direct !== null) return;
    await listed("invites", () => client.groups.invites(id, { limit: LISTED_MAX }));
    await listed("bans", async () => (await client.groups.bans(id, { limit: LISTED_MAX })).users);
  }

  /** An entry of these kinds changes what was asked for. */
  changed(entries) {
    if (entries.some(({ kind }) => ["pin", "deletion", "invite", "joined", "bans", "settings", "roles"].includes(kind)))
      this.#load();
  }

  render() {
    const { conversation } = this;
    if (!conversation) return;
    const isGroup = conversation.direct === null;
    $("group").hidden = !isGroup;
    this.#draw("pins", [this.lists.pins, this.lists.pins.map((sequence) => this.#pinText(sequence))], () => this.#pins());
    if (!isGroup) return;
    const { settings } = conversation;
    const [may, runs] = [conversation.may("info"), conversation.isRunByMe];
    const text = $("describe-text");
    if (settings && document.activeElement !== text && text.dataset.saved !== settings.description)
      text.value = settings.description;
    text.dataset.saved = settings?.description ?? "";
    text.readOnly = !may;
    $("describe").querySelector("button").hidden = !may;
    $("describe").hidden = !may && !settings?.description;
    this.#draw("rules", [settings, runs], () => this.#rules(settings, runs));
    this.#draw("invites", [this.lists.invites, this.conversation.may("add"), conversation.me], () => this.#invites());
    this.#draw("bans", [this.lists.bans, this.conversation.may("remove")], () => this.#bans());
  }

  /** What the lists show is made anew only when it is another: a person may be about to press a button of it. */
  #draw(name, of, make) {
    const mark = JSON.stringify(of);
    if (this.marks[name] === mark) return;
    this.marks[name] = mark;
    make();
  }

  #pinText(sequence) {
    const entry = this.conversation.at(sequence);
    return entry
      ? `${entry.sender === this.conversation.me ? "You" : entry.sender}: ${messageText(entry)}`
      : `Message ${sequence}, further back`;
  }

  #pins() {
    $("pinned").hidden = this.lists.pins.length === 0;
    const line = (sequence) => {
      const onclick = () => this.show(sequence);
      return el("li", {}, el("button", { type: "button", class: "to-message", dir: "auto", onclick }, this.#pinText(sequence)));
    };
    $("pins").replaceChildren(...this.lists.pins.map(line));
  }

  async #describe() {
    await this.client.groups.changeSettings(this.id, { description: $("describe-text").value.trim() });
  }

  #rules(settings, runs) {
    if (!settings) return $("rule-list").replaceChildren();
    const choice = (label, value, options, change) => {
      if (!runs) return el("p", {}, el("span", {}, `${label}: ${options[value].toLowerCase()}`));
      const list = Object.entries(options).map(([name, text]) => el("option", { value: name, selected: name === value }, text));
      const onchange = (event) => this.act(event, () => this.client.groups.changeSettings(this.id, change(event.target.value)));
      return el("label", {}, el("span", {}, label), el("select", { onchange }, ...list));
    };
    const who = { members: "Members", admins: "Admins" };
    $("rule-list").replaceChildren(
      ...Object.entries(RULES).map(([rule, text]) => choice(text, settings[rule], who, (value) => ({ [rule]: value }))),
      choice("Who joins sees", settings.history, HISTORY, (value) => ({ history: value })),
    );
  }

  async #invite() {
    const days = $("invite-days").value;
    const { code } = await this.client.groups.invite(this.id, days === "" ? {} : { expires_in_s: Number(days) * DAY_S });
    $("invite-link").value = `${location.origin}${location.pathname}#/join/${code}`;
    $("invite-made").hidden = false;
    $("invite-link").select();
    await this.#load();
  }

  #invites() {
    $("invites").hidden = !this.conversation.may("add");
    const lines = this.lists.invites.map(({ invite, user, expires_ms, uses }) => {
      const parts = [`by ${user === this.conversation.me ? "you" : user}`];
      if (expires_ms) parts.push(`until ${new Date(expires_ms).toLocaleString()}`);
      if (uses !== undefined) parts.push(uses === 1 ? "for one more" : `for ${uses} more`);
      const onclick = (event) => this.act(event, () => this.client.groups.revoke(this.id, [invite]));
      const label = `Revoke the invite ${parts[0]}`;
      return el(
        "li",
        {},
        el("span", {}, parts.join(", ")),
        el("button", { type: "button", class: "quiet", "aria-label": label, onclick }, "Revoke"),
      );
    });
    $("invite-list").replaceChildren(...lines);
  }

  #bans() {
    const { bans } = this.lists;
    $("banned").hidden = bans.length === 0;
    const lines = bans.map((user) => {
      const onclick = (event) => this.act(event, () => this.client.groups.unban(this.id, [user]));
      const button = el("button", { type: "button", class: "quiet", "aria-label": `Let in ${user}`, onclick }, "Let in");
      return el("li", {}, el("span", {}, user), this.conversation.may("remove") ? button : null);
    });
    $("bans").replaceChildren(...lines);
  }
}

/** Asks whether to join what an invite is to; gives the conversation, or null if not. */
export async function joinBy(client, code) {
  const { conversation, title, description, members } = await client.groups.look(code);
  if (client.conversations.has(conversation)) return conversation;
  const what = title || "the group";
  const more = description ? ` ${description}` : "";
  const yes = await confirm(`Join ${what}, with ${members} ${members === 1 ? "member" : "members"}?${more}`, "Join", false);
  return yes ? client.groups.join(code) : null;
}
