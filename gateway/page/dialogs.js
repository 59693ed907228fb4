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
    not_found: "This conversation is not yours any more.",
    storage_full: "The node’s disk is full; nothing was changed.",
  };
  return known[error.code] ?? `That did not work: ${error.message}.`;
}

export class NewDialog {
  /**
   * @param {string} user
   * @param {(body: object) => Promise<string>} create   sends `create`, gives the conversation
   * @param {(id: string) => void} onCreated
   */
  constructor(user, create, onCreated) {
    Object.assign(this, { user, create, onCreated });
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

  get #group() {
    return new FormData($("new-form")).get("kind") === "group";
  }

  #shape() {
    $("new-group-row").hidden = !this.#group;
    $("new-names-label").textContent = this.#group ? "Their names, with commas between" : "Their name";
    $("new-submit").textContent = this.#group ? "Create group" : "Start";
    $("new-error").textContent = "";
  }

  #chips() {
    const list = splitNames($("new-names").value);
    $("new-chips").replaceChildren(...list.map((name) => el("span", { class: "chip" }, avatar(name), name)));
  }

  async #submit() {
    const list = splitNames($("new-names").value).filter((name) => !this.#group || name !== this.user);
    const wrong = list.length === 0 ? "A name is needed." : list.map(nameError).find(Boolean);
    const many = !this.#group && list.length > 1 ? "That is more than one name. Choose “A group” for several." : "";
    $("new-error").textContent = wrong || many || "";
    if (wrong || many) return $("new-names").focus();
    const group = { key: this.key, title: $("new-group-title").value.trim(), members: list };
    $("new-submit").disabled = true;
    try {
      const id = await this.create(this.#group ? { group } : { direct: list[0] });
      // In this order: closing gives the focus back to where it was.
      $("new-dialog").close();
      this.onCreated(id);
    } catch (error) {
      $("new-error").textContent = explain(error);
    } finally {
      $("new-submit").disabled = false;
    }
  }
}

/** Resolves with whether the user said yes. */
export function confirm(question, yes) {
  const dialog = $("confirm-dialog");
  $("confirm-text").textContent = question;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
