// What one keeps for oneself of conversations, the same on all of one's devices: drafts, favourites, what is muted, what is archived.
// Owns their keys in the account (docs/protocol.md names them) and the order that follows for the list.

/** Buttons of the details, by key: what they are called off and on, and what they do. */
export const FLAGS = [
  { key: "favourite", label: "Favourite", hint: "Before all others in the list" },
  { key: "muted", label: "Mute", hint: "Not counted, not announced" },
  { key: "archived", label: "Archive", hint: "Out of sight until something new comes" },
];

export class Own {
  /** @param {import("./antiphon-client.js").Account} account */
  constructor(account) {
    this.account = account;
  }

  draft(id) {
    return this.account.get(`draft:${id}`)?.text ?? "";
  }

  setDraft(id, text) {
    this.account.set(`draft:${id}`, text === "" ? undefined : { text });
  }

  /** Whether these keys are of the draft of a conversation. */
  isDraftOf(id, keys) {
    return keys.includes(`draft:${id}`);
  }

  is(flag, id) {
    const value = this.account.get(`${flag}:${id}`);
    return flag === "muted" && typeof value === "object" ? (value?.until_ms ?? 0) > Date.now() : value === true;
  }

  toggle(flag, id) {
    this.account.set(`${flag}:${id}`, this.is(flag, id) ? undefined : true);
  }

  /** Those that are shown, favourites first, and those that are out of sight; `openId` is always shown. */
  sorted(conversations, openId) {
    const isAway = ({ id, unread }) => id !== openId && unread === 0 && this.is("archived", id);
    const shown = conversations.filter((one) => !isAway(one));
    const favourites = shown.filter(({ id }) => this.is("favourite", id));
    const rest = shown.filter((one) => !favourites.includes(one));
    return { shown: [...favourites, ...rest], away: conversations.filter(isAway) };
  }
}
