// The page: signs in, wires the client to its views, and owns what is open, the address, the status line and announcements.

import { browserStorage, claimDevice, Client, followPage } from "./antiphon-client.js";
import { Chat } from "./chat.js";
import { Details } from "./details.js";
import { Devices } from "./devices.js";
import { codeOf, explain, nameError, NewDialog, tell } from "./dialogs.js";
import { $, avatar, conversationName, el, messageText } from "./dom.js";
import { joinBy } from "./group.js";
import { Own } from "./own.js";
import { Presence } from "./presence.js";
import { Sidebar } from "./sidebar.js";
import * as store from "./store.js";

/** A drop that is over within so long is nobody's business. */
const QUIET_MS = 2_000;
const BACK_ONLINE_MS = 2_500;
const ANNOUNCED_MAX = 20;

class App {
  constructor(config, signedIn) {
    const { user, device } = signedIn;
    this.user = user;
    this.openId = null;
    /** The address names a conversation that is not (yet) known. */
    this.wantedId = idFromAddress();
    this.client = new Client({
      url: config.websocket_url,
      user,
      device,
      token: tokenSource(config, signedIn),
      storage: browserStorage(user, device),
      client: { name: "antiphon-page", version: "1" },
    });
    this.client.subscribe((change) => this.changed(change));
    this.own = new Own(this.client.account);
    this.presence = new Presence(this.client);
    this.devices = new Devices(this.client);
    this.sidebar = new Sidebar($("conversations"), this.own, this.presence, (id) => this.open(id));
    this.chat = new Chat(this.client, this.own, this.presence, () => $("app").dataset.view === "chat" || !phone.matches);
    this.details = new Details(
      this.client,
      this.own,
      (open) => this.#view(open ? "details" : "chat"),
      (sequence) => this.#show(sequence),
    );
    this.newDialog = new NewDialog(
      user,
      {
        direct: (name) => this.client.direct(name),
        group: (group) => this.client.group(group),
        join: (code) => joinBy(this.client, code),
      },
      (id) => this.open(id),
    );
    this.statusTimer = null;
    this.wasOffline = false;
    this.frame = null;
    this.news = [];
    this.showsArchive = false;
  }

  async start() {
    $("sign-in").hidden = true;
    $("app").hidden = false;
    $("me-name").textContent = this.user;
    $("me-avatar").replaceChildren(avatar(this.user));
    this.#wire();
    await this.client.start();
    await this.#followInvite();
  }

  #wire() {
    const { client, details } = this;
    $("new").addEventListener("click", () => this.newDialog.open());
    $("back").addEventListener("click", () => this.#back());
    $("archive").addEventListener("click", () => {
      this.showsArchive = !this.showsArchive;
      this.#renderSoon();
    });
    $("sign-out").addEventListener("click", () => this.#signOut());
    $("details-toggle").addEventListener("click", () => (details.isOpen ? details.close() : details.open(this.openId)));
    $("skip").addEventListener("click", (event) => {
      event.preventDefault();
      if (this.openId) $("composer-text").focus();
      else this.sidebar.focusOpen(null);
    });
    $("info-close").addEventListener("click", () => $("info-dialog").close());
    $("status-action").addEventListener("click", () => this.#statusAction());
    addEventListener("popstate", () => this.#followAddress());
    followPage(client);
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  // ---- What is open -----------------------------------------------------------------------------------------------------

  open(id, { push = true } = {}) {
    if (!this.client.conversations.has(id)) {
      this.wantedId = id;
      return;
    }
    this.wantedId = null;
    this.details.close(true);
    if (push && idFromAddress() !== id) {
      const address = `#/${id}`;
      // From the list one can go back; from one conversation to the next there is nothing between.
      if (this.openId === null || phone.matches) history.pushState({ fromList: true }, "", address);
      else history.replaceState(history.state, "", address);
    }
    this.openId = id;
    this.#view("chat");
    this.chat.open(id);
    this.chat.focus();
    this.#renderSoon();
  }

  #closeChat() {
    const was = this.openId;
    this.openId = null;
    this.details.close(true);
    this.chat.close();
    this.#view("list");
    this.#renderSoon();
    this.sidebar.focusOpen(was);
  }

  #back() {
    if (history.state?.fromList) return history.back();
    history.replaceState(null, "", location.pathname);
    this.#closeChat();
  }

  /** The address is an invite's: asks whether to join, and goes there. */
  async #followInvite() {
    const code = location.hash.startsWith("#/join/") ? codeOf(location.hash) : null;
    if (!code) return;
    history.replaceState(null, "", location.pathname);
    try {
      const id = await joinBy(this.client, code);
      if (id) this.open(id);
    } catch (error) {
      tell("The invite", [["It is of no use", explain(error)]]);
    }
  }

  #followAddress() {
    if (location.hash.startsWith("#/join/")) return this.#followInvite();
    const id = idFromAddress();
    if (id === this.openId) return;
    if (id) this.open(id, { push: false });
    else this.#closeChat();
  }

  /** Goes to a message of the open conversation. */
  #show(sequence) {
    // Where the panel lies over the conversation, it would hide it.
    if (!wide.matches) this.details.close(true);
    this.chat.transcript.show(sequence);
  }

  #view(view) {
    $("app").dataset.view = view;
  }

  // ---- Changes ----------------------------------------------------------------------------------------------------------

  changed({ kind, id, entry, entries = [], keys = [], overwrote = false }) {
    if (kind === "account" && this.own.isDraftOf(this.openId, keys)) this.chat.draftChanged(overwrote);
    if (kind === "account") this.devices.changed(keys);
    if (kind === "entries" && entries.length > 0) this.news.push(...entries);
    if (kind === "mentioned") this.news.push(entry);
    if (kind === "left" && id === this.openId) {
      history.replaceState(null, "", location.pathname);
      this.#closeChat();
      this.#announce("You are no longer in that conversation.");
    }
    if (kind === "window" && id === this.openId) this.reset = true;
    if (kind === "status") this.#statusChanged();
    this.#renderSoon();
  }

  #statusChanged() {
    const { online, stopped } = this.client.status;
    if (online) {
      this.chat.transcript.retryLoading();
      this.devices.online();
    }
    if (stopped) this.devices.close();
    // A reload asks who it is.
    if (stopped?.revoked) store.saveSignedIn(null);
  }

  /** However much arrives at once, the page is drawn once. Hidden tabs draw no frames; theirs goes by a timer. */
  #renderSoon() {
    if (this.frame !== null) return;
    this.frame = true;
    const draw = () => {
      this.frame = null;
      this.#render();
    };
    if (document.visibilityState === "visible") requestAnimationFrame(draw);
    else setTimeout(draw, 100);
  }

  #render() {
    const { client } = this;
    const news = this.news.splice(0);
    if (this.wantedId && client.conversations.has(this.wantedId)) this.open(this.wantedId, { push: false });
    if (this.openId && client.conversations.has(this.openId)) {
      if (this.reset) this.chat.reset();
      const entries = news.filter((entry) => entry.conversation === this.openId);
      this.chat.update(entries);
      if (this.details.isOpen) this.details.render(entries);
    }
    this.reset = false;
    const list = client.list();
    const { shown, away } = this.own.sorted(list, this.openId);
    this.presence.look(shown);
    this.sidebar.render(this.showsArchive ? [...shown, ...away] : shown, client.outbox, this.openId);
    $("archive").hidden = away.length === 0;
    $("archive").textContent = this.showsArchive ? "Hide the archive" : `Archive (${away.length})`;
    $("archive").setAttribute("aria-expanded", String(this.showsArchive));
    $("no-conversations").hidden = list.length > 0 || !client.status.ready;
    const unread = list.filter(({ id, unread }) => unread > 0 && !this.own.is("muted", id)).length;
    document.title = unread > 0 ? `(${unread}) Antiphon` : "Antiphon";
    this.#renderStatus();
    for (const entry of news.slice(-3)) this.#announceEntry(entry);
  }

  #announceEntry(entry) {
    const conversation = this.client.conversations.get(entry.conversation);
    if (!conversation || entry.kind !== "message" || entry.sender === this.user) return;
    if (entry.conversation !== this.openId && this.own.is("muted", entry.conversation)) return;
    const place = entry.conversation === this.openId ? "" : ` in ${conversationName(conversation)}`;
    this.#announce(`${entry.sender}${conversation.direct ? "" : place}: ${messageText(entry)}`);
  }

  #announce(text) {
    $("announcer").append(el("span", {}, text, el("br")));
    while ($("announcer").childElementCount > ANNOUNCED_MAX) $("announcer").firstElementChild.remove();
  }

  // ---- The status line --------------------------------------------------------------------------------------------------

  #renderStatus() {
    clearTimeout(this.statusTimer);
    const { online, downSinceMs, stopped, waiting } = this.client.status;
    const waits = waiting === 0 ? "" : waiting === 1 ? " 1 message waiting." : ` ${waiting} messages waiting.`;
    if (stopped) {
      this.wasOffline = true;
      if (stopped.replaced) return this.#status("stopped", `This device is in use in another tab.${waits}`, "Use it here");
      if (stopped.unauthenticated) {
        return this.#status("stopped", `The node does not accept this sign-in any more.${waits}`, "Sign in again");
      }
      if (stopped.revoked) return this.#status("stopped", `This device was logged out.${waits}`, "Sign in again");
      if (stopped.tooManyDevices) {
        return this.#status("stopped", `Too many of your devices are connected. Close one, or log one out.${waits}`, "Try again");
      }
      return this.#status("stopped", `The node ended the connection (${stopped.reason || stopped.code}).${waits}`, "Try again");
    }
    if (!online) {
      const quietMs = downSinceMs + QUIET_MS - Date.now();
      if (quietMs > 0) {
        this.statusTimer = setTimeout(() => this.#renderStatus(), quietMs);
        return this.wasOffline ? undefined : this.#status(null);
      }
      this.wasOffline = true;
      return this.#status("offline", `Offline.${waits || " What you write will be sent later."}`, "Try now");
    }
    if (this.wasOffline) {
      this.wasOffline = false;
      this.backOnlineUntilMs = Date.now() + BACK_ONLINE_MS;
    }
    const backMs = (this.backOnlineUntilMs ?? 0) - Date.now();
    if (backMs <= 0) return this.#status(null);
    this.statusTimer = setTimeout(() => this.#renderStatus(), backMs);
    return this.#status("online", "Back online.");
  }

  #status(kind, text = "", action = null) {
    $("status").hidden = kind === null;
    $("status").dataset.kind = kind ?? "";
    if ($("status-text").textContent !== text) $("status-text").textContent = text;
    if ($("status-action").hidden !== (action === null)) $("status-action").hidden = action === null;
    if (action !== null && $("status-action").textContent !== action) $("status-action").textContent = action;
  }

  #statusAction() {
    const { client } = this;
    const { stopped } = client.status;
    if (!stopped) return client.wake(true);
    if (stopped.unauthenticated || stopped.revoked) return this.#signOut();
    client.resume();
  }

  #signOut() {
    store.saveSignedIn(null);
    this.client.stop().finally(() => location.replace(location.pathname));
  }

  // ---- The keyboard -----------------------------------------------------------------------------------------------------

  #key(event) {
    if (document.querySelector("dialog[open]")) return;
    if (event.altKey && event.code === "KeyN") {
      event.preventDefault();
      this.newDialog.open();
    } else if (event.altKey && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      this.#step(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Escape" && !event.isComposing) {
      if (this.details.isOpen) this.details.close();
      else if (this.openId && document.activeElement !== $("composer-text") && $("chat").contains(document.activeElement)) {
        $("composer-text").focus();
      } else if (this.openId && phone.matches) this.#back();
      else this.sidebar.focusOpen(this.openId);
    }
  }

  #step(by) {
    const list = this.own.sorted(this.client.list(), this.openId).shown;
    const index = list.findIndex(({ id }) => id === this.openId);
    const next = list[Math.max(0, Math.min(list.length - 1, index + by))];
    if (next && next.id !== this.openId) this.open(next.id);
  }
}

// ---- Signing in ---------------------------------------------------------------------------------------------------------

const phone = matchMedia("(max-width: 719px)");
/** There is room for the panel beside the conversation. */
const wide = matchMedia("(min-width: 1100px)");

const idFromAddress = () => /^#\/([0-9a-f-]{36})$/.exec(location.hash)?.[1] ?? null;

/** Gives the client its token: the one at hand, or a new one of the development node. */
function tokenSource(config, signedIn) {
  return async (renew) => {
    if (signedIn.token && !renew) return signedIn.token;
    if (!config.dev) throw Object.assign(new Error("the token is not accepted"), { permanent: true });
    const { user, device } = signedIn;
    const response = await fetch("dev/token", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ user, device }),
    });
    if (!response.ok) {
      const permanent = response.status >= 400 && response.status < 500 && response.status !== 429;
      throw Object.assign(new Error(`the node gave no token (${response.status})`), { permanent });
    }
    signedIn.token = (await response.json()).token;
    store.saveSignedIn(signedIn);
    return signedIn.token;
  };
}

async function loadConfig() {
  // While the node is away its settings are away too; they are those of the last time.
  try {
    const config = await (await fetch("config.json")).json();
    sessionStorage.setItem("antiphon.config", JSON.stringify(config));
    return config;
  } catch {
    return JSON.parse(sessionStorage.getItem("antiphon.config") ?? "null");
  }
}

function askName(config) {
  $("sign-in").hidden = false;
  if (!config.dev) {
    $("sign-in-hint").textContent = "Sign in with your name and a token of this node’s identity provider.";
    $("token-row").hidden = false;
  }
  const form = $("sign-in-form");
  return new Promise((resolve) => {
    const submit = (user) => {
      const token = config.dev ? null : $("token").value.trim();
      const error = nameError(user) || (token === "" ? "A token is needed." : "");
      $("name-error").textContent = error;
      $("name").setAttribute("aria-invalid", String(error !== ""));
      if (error) return $("name").focus();
      resolve({ user, token });
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit($("name").value.trim());
    });
    const recent = config.dev ? store.recentUsers() : [];
    $("recent").hidden = recent.length === 0;
    for (const user of recent) {
      $("recent").append(el("button", { type: "button", class: "chip", onclick: () => submit(user) }, avatar(user), user));
    }
    $("name").focus();
  });
}

async function boot() {
  const config = await loadConfig();
  if (!config) {
    $("sign-in").hidden = false;
    $("name-error").textContent = "The node does not answer. Reload the page to try again.";
    return;
  }
  const signedIn = store.loadSignedIn() ?? (await askName(config));
  signedIn.device = await claimDevice(signedIn.user, signedIn.device ?? null);
  store.saveSignedIn(signedIn);
  store.rememberUser(signedIn.user);
  await new App(config, signedIn).start();
}

boot();
