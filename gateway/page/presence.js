// Who is there, of those whom one talks with, and what one shows of oneself: its dialog, and what contacts are.

import { $, shortTime } from "./dom.js";

/** So many of the liveliest conversations are looked at: more than a screen shows. */
const LOOKED_AT_MAX = 100;
/** Whom one talks with, as contacts: what fits in a value of the account whatever the names are. */
const CONTACTS_MAX = 300;
const RULE = "antiphon.presence";
const CONTACTS = "antiphon.contacts";
const RECEIPTS = "antiphon.receipts";

export class Presence {
  /** @param {import("./antiphon-client.js").Client} client */
  constructor(client) {
    this.client = client;
    $("me").addEventListener("click", () => this.#open());
    $("me-close").addEventListener("click", () => $("me-dialog").close());
    $("me-seen-by").addEventListener("change", (event) => this.#choose(event.target.value));
    $("me-receipts").addEventListener("change", ({ target }) => {
      this.client.account.set(RECEIPTS, target.checked ? undefined : { on: false });
    });
  }

  /** The conversations that are shown, the first ones first. */
  look(conversations) {
    const peers = conversations.flatMap(({ direct }) => (direct === null ? [] : [direct]));
    const mark = peers.slice(0, LOOKED_AT_MAX).join(" ");
    if (mark !== this.mark) {
      this.mark = mark;
      this.client.presence.look(peers.slice(0, LOOKED_AT_MAX));
    }
    if (this.#rule.to === "contacts") this.#keepContacts(peers);
  }

  isThere(conversation) {
    return conversation.direct !== null && this.client.presence.of(conversation.direct)?.online === true;
  }

  /** What the header of a conversation of two says. */
  text({ direct }) {
    const seen = this.client.presence.of(direct);
    if (!seen) return "";
    if (seen.online) return "online";
    return seen.last_seen_ms === undefined ? "" : `last seen ${shortTime(seen.last_seen_ms)}`;
  }

  get #rule() {
    return this.client.account.get(RULE) ?? { to: "everyone" };
  }

  #open() {
    $("me-title").textContent = this.client.user;
    $("me-seen-by").value = this.#rule.to;
    $("me-receipts").checked = this.client.account.get(RECEIPTS)?.on !== false;
    $("me-dialog").showModal();
  }

  /** Exceptions that another application has made stay. */
  #choose(to) {
    const rule = { ...this.#rule, to };
    const isAsAtFirst = to === "everyone" && !rule.deny?.length;
    if (to === "contacts") this.#keepContacts(this.client.list().flatMap(({ direct }) => (direct === null ? [] : [direct])));
    this.client.account.set(RULE, isAsAtFirst ? undefined : rule);
  }

  #keepContacts(peers) {
    const known = this.client.account.get(CONTACTS)?.users ?? [];
    const missing = peers.filter((peer) => !known.includes(peer));
    if (missing.length > 0 && known.length < CONTACTS_MAX) {
      this.client.account.set(CONTACTS, { users: [...known, ...missing].slice(0, CONTACTS_MAX) });
    }
  }
}
