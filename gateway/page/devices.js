// One's own devices: the dialog that lists them, names this one and logs others out; and the name that a page gives itself at first.

import { DEVICES_KEY } from "./antiphon-client.js";
import { confirm, explain } from "./dialogs.js";
import { $, el, shortTime } from "./dom.js";

const NAME_BYTES_MAX = 64;
/** Nobody tells that a device comes or goes: while the dialog is open it is asked for. */
const LOOK_EVERY_MS = 5_000;

export class Devices {
  /** @param {import("./antiphon-client.js").Client} client */
  constructor(client) {
    Object.assign(this, { client, isNamed: false, mark: "", timer: null });
    $("me-devices").addEventListener("click", () => this.#open());
    $("devices-close").addEventListener("click", () => this.close());
    $("devices-dialog").addEventListener("close", () => clearInterval(this.timer));
    $("device-rename").addEventListener("submit", (event) => this.#do(event, () => this.#rename()));
    $("devices-revoke").addEventListener("click", (event) => this.#do(event, () => this.#revokeOthers()));
  }

  close() {
    $("devices-dialog").close();
  }

  /** The session stands: this device gets a name, if it has none. */
  async online() {
    if (this.isNamed) return;
    this.isNamed = true;
    try {
      const own = (await this.client.devices.list()).find((one) => one.this);
      if (own && own.name === undefined) await this.client.devices.name(ownName());
    } catch (error) {
      // It goes without a name on a node of before, and otherwise tries again when it is back online.
      this.isNamed = !error.temporary;
    }
  }

  /** Keys of the account changed. */
  changed(keys) {
    if (keys.includes(DEVICES_KEY) && $("devices-dialog").open) this.#look();
  }

  #open() {
    $("me-dialog").close();
    this.#tell("", "look");
    $("device-name").value = $("device-name").dataset.saved = "";
    this.#draw(null);
    $("devices-dialog").showModal();
    $("devices-title").focus();
    this.timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#look();
  }

  async #look() {
    try {
      this.#draw(await this.client.devices.list());
      if ($("devices-error").dataset.of === "look") this.#tell("", "look");
    } catch (error) {
      this.#failed(error, "look");
      if (error.code === "unknown_frame") clearInterval(this.timer);
    }
  }

  /** Carries out what was asked for, and shows what became of it. */
  async #do(event, action) {
    event.preventDefault();
    this.#tell("", "action");
    try {
      await action();
      await this.#look();
    } catch (error) {
      this.#failed(error, "action");
    }
  }

  #failed(error, of) {
    const known = {
      unknown_frame: "This node is of an earlier version and does not list devices.",
      limit_reached: "Too many devices were logged out one by one. Log out all others instead.",
    };
    this.#tell(known[error.code] ?? explain(error), of);
  }

  /** `of`: what it is said of. A list that came takes back only what was said of one that did not. */
  #tell(text, of) {
    $("devices-error").dataset.of = of;
    if ($("devices-error").textContent !== text) $("devices-error").textContent = text;
  }

  // ---- What is shown ----------------------------------------------------------------------------------------------------

  /** `devices`: null as long as they are not known. A line is made anew only when it is another: a person may be about to press its button. */
  #draw(devices) {
    const mark = JSON.stringify(devices);
    if (mark === this.mark) return;
    this.mark = mark;
    const own = devices?.find((one) => one.this);
    const hadFocus = $("devices").contains(document.activeElement);
    $("devices").replaceChildren(...sorted(devices ?? []).map((one) => this.#line(one)));
    if (hadFocus) $("devices-title").focus();
    $("device-rename").hidden = !own;
    $("devices-revoke").hidden = !devices?.some((one) => !one.this);
    const saved = own?.name ?? "";
    const field = $("device-name");
    if (field.dataset.saved !== saved && document.activeElement !== field) field.value = saved;
    field.dataset.saved = saved;
  }

  #line(device) {
    const name = nameOf(device);
    const since = device.since_ms === undefined ? "" : `, known since ${shortTime(device.since_ms)}`;
    const state = `${device.this ? "This device" : device.online ? "Connected" : "Not connected"}${since}`;
    const about = el("span", { class: "device" }, el("span", { dir: "auto" }, name), el("span", { class: "muted" }, state));
    const onclick = (event) => this.#do(event, () => this.#revoke(device));
    const attributes = { type: "button", class: "secondary", "aria-label": `Log out ${name}`, onclick };
    return el("li", {}, about, device.this ? null : el("button", attributes, "Log out"));
  }

  // ---- What is done -----------------------------------------------------------------------------------------------------

  async #rename() {
    const name = $("device-name").value.trim();
    const isLong = new TextEncoder().encode(name).length > NAME_BYTES_MAX;
    if (name === "" || isLong) {
      this.#tell(isLong ? "That name is too long." : "A name is needed.", "action");
      return $("device-name").focus();
    }
    await this.client.devices.name(name);
  }

  async #revoke(device) {
    const question = `Log out “${nameOf(device)}”? Whoever uses it has to sign in again.`;
    if (await confirm(question, "Log out")) await this.client.devices.revoke([device.device]);
  }

  async #revokeOthers() {
    const question = "Log out all other devices? Whoever uses them has to sign in again.";
    if (await confirm(question, "Log out all others")) await this.client.devices.revokeAll({ butThis: true });
  }
}

const nameOf = ({ name, device }) => name ?? device;

/** This one first, then those that are connected. */
function sorted(devices) {
  const rank = (one) => (one.this ? 0 : one.online ? 1 : 2);
  return [...devices].sort((a, b) => rank(a) - rank(b) || nameOf(a).localeCompare(nameOf(b)));
}

/** What brands and user agents have in them; those that claim to be others as well come first. */
const BROWSERS = [
  [/\bEdg/, "Edge"],
  [/\bOPR\/|\bOpera/, "Opera"],
  [/\bBrave/, "Brave"],
  [/\bFirefox|\bFxiOS/, "Firefox"],
  [/Chrom|\bCriOS/, "Chrome"],
  [/\bSafari/, "Safari"],
];
const PLATFORMS = [
  [/\biPhone/, "iPhone"],
  [/\biPad/, "iPad"],
  [/\bAndroid/, "Android"],
  [/\bCrOS|\bChrome ?OS/, "ChromeOS"],
  [/\bWindows/, "Windows"],
  [/\bmacOS|\bMacintosh/, "macOS"],
  [/\bLinux|\bX11/, "Linux"],
];

/** Such as “Chrome on Linux”. */
function ownName() {
  const { brands = [], platform = "" } = navigator.userAgentData ?? {};
  const find = (table, text, otherwise) => table.find(([pattern]) => pattern.test(text))?.[1] ?? otherwise;
  const browser = find(BROWSERS, [...brands.map(({ brand }) => brand), navigator.userAgent].join(" "), "A browser");
  const system = find(PLATFORMS, `${platform} ${navigator.userAgent}`, null);
  return system ? `${browser} on ${system}` : browser;
}
