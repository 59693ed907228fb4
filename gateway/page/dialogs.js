// The dialogs: a new conversation, and "are you sure". Also the rule for names, which the protocol sets.

import { $, avatar, el } from "./dom.js";

const NAME_BYTES_MAX = 64;

/** Why a name is none; empty if it is one. The server checks the same. */
export function nameError(name) {
  if (name === "") return "A name is needed.";
  if (name.length > NAME_BYTES_MAX) return `“${name.slice(0, 12)}…” is longer than ${NAME_BYTES_MAX} characters.`;
  if (!/^[\x21-\x7e]+$/.test(name)) return `“${name}” may only have letters, digits and signs, without spaces or accents.`;
  return /["'\\/,<>]/.test(name) ? `“${name}” may not contain " ' \\ / , < or >.` : "";
}

/** Names that are separated by commas, semicolons or spaces, each once. */
export const splitNames = (text) => [...new Set(text.split(/[\s,;]+/).filter(Boolean))];

/** What a failed request means to somebody who is no developer. */
export function explain(error) {
  const known = {
    disconnected: "You are offline. Try again when the connection is back.",
    rate_limited: "That was too fast. Try again in a moment.",
    not_found: "That is not there, or not yours any more.",
    storage_full: "The node’s disk is full; nothing was changed.",
  };
  return known[error.code] ?? `That did not work: ${error.message}.`;
}

export class NewDialog {
  /**
   * @param {string} user
   * @param {object} actions   `direct(user)`, `group(group)`: give the conversation; `join(code)`: the same, or null
   * @param {(id: string) => void} onCreated
   */
  constructor(user, actions, onCreated) {
    Object.assign(this, { user, actions, onCreated });
    $("new-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("new-form").addEventListener("change", () => this.#shape());
    $("new-names").addEventListener("input", () => this.#chips());
    $("new-cancel").addEventListener("click", () => $("new-dialog").close());
  }

  open() {
    $("new-form").reset();
    /** Kept for as long as the dialog is open: a retry must not make a second group. */
    this.key = crypto.randomUUID();
    this.#shape();
    this.#chips();
    $("new-dialog").showModal();
    $("new-names").focus();
  }

  get #kind() {
    return new FormData($("new-form")).get("kind");
  }

  get #group() {
    return this.#kind === "group";
  }

  #shape() {
    $("new-group-row").hidden = !this.#group;
    const labels = { direct: "Their name", group: "Their names, with commas between", invite: "The invite’s link or code" };
    $("new-names-label").textContent = labels[this.#kind];
    $("new-submit").textContent = { direct: "Start", group: "Create group", invite: "Join" }[this.#kind];
    this.#chips();
    $("new-error").textContent = "";
  }

  #chips() {
    const list = this.#kind === "invite" ? [] : splitNames($("new-names").value);
    $("new-chips").replaceChildren(...list.map((name) => el("span", { class: "chip" }, avatar(name), name)));
  }

  #submit() {
    if (this.#kind !== "invite") return this.#create();
    const code = codeOf($("new-names").value);
    $("new-error").textContent = code ? "" : "This is no invite.";
    if (!code) return $("new-names").focus();
    return this.#carryOut(() => this.actions.join(code));
  }

  async #create() {
    const list = splitNames($("new-names").value).filter((name) => !this.#group || name !== this.user);
    const wrong = list.length === 0 ? "A name is needed." : list.map(nameError).find(Boolean);
    const many = !this.#group && list.length > 1 ? "That is more than one name. Choose “A group” for several." : "";
    $("new-error").textContent = wrong || many || "";
    if (wrong || many) return $("new-names").focus();
    const group = { key: this.key, title: $("new-group-title").value.trim(), members: list };
    return this.#carryOut(() => (this.#group ? this.actions.group(group) : this.actions.direct(list[0])));
  }

  async #carryOut(action) {
    $("new-submit").disabled = true;
    try {
      const id = await action();
      // In this order: closing gives the focus back to where it was.
      $("new-dialog").close();
      if (id) this.onCreated(id);
    } catch (error) {
      $("new-error").textContent = explain(error);
    } finally {
      $("new-submit").disabled = false;
    }
  }
}

/** The code of an invite, of itself or of a link with it; null if it is none. */
export const codeOf = (text) => /(?:^|\/)([\w-]{43})$/.exec(text.trim())?.[1] ?? null;

/** Shows some facts until they are closed: `[[term, text]]`. Gives the list, for more of them. */
export function tell(title, facts) {
  $("info-title").textContent = title;
  $("info-body").replaceChildren(...facts.map(([term, text]) => fact(term, text)));
  $("info-dialog").showModal();
  return $("info-body");
}

export const fact = (term, text) => el("div", {}, el("dt", {}, term), el("dd", { dir: "auto" }, text));

/** Resolves with whether the user said yes. `dangerous`: it takes something away. */
export function confirm(question, yes, dangerous = true) {
  const dialog = $("confirm-dialog");
  $("confirm-text").textContent = question;
  $("confirm-yes").textContent = yes;
  $("confirm-yes").className = dangerous ? "danger" : "primary";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
