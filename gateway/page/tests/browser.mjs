// The page in a real browser on the real node: `node browser.mjs BINARY [--screenshots DIR]`, or ANTIPHON_BINARY.
//
// Two users talk through a kill and a reload with nothing lost, doubled or out of order; then what is done with messages, history,
// groups, invites, devices, a phone, the keyboard alone, axe, and conversations that are large. With ANTIPHON_PAGE=FOLDER the page's files come from there. Chromium is /usr/bin/chromium unless ANTIPHON_CHROMIUM says otherwise.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { Browser, checkAccessibility, eventually, Node, RawClient, WAIT_MS } from "./harness.mjs";

const { values, positionals } = parseArgs({ options: { screenshots: { type: "string" } }, allowPositionals: true });
const binary = positionals[0] ?? process.env.ANTIPHON_BINARY;
if (!binary) {
  console.error("usage: node browser.mjs BINARY [--screenshots DIR]   (or ANTIPHON_BINARY=…)");
  process.exit(2);
}

const started = performance.now();
const step = (text) => console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s  ${text}`);

async function screenshot(page, name) {
  if (!values.screenshots) return;
  mkdirSync(values.screenshots, { recursive: true });
  await page.screenshot({ path: join(values.screenshots, name), animations: "disabled" });
}

// ---- What one does on the page ------------------------------------------------------------------------------------------

const texts = (page) => page.$$eval("#messages .message .text", (nodes) => nodes.map((node) => node.textContent));
const composer = (page) => page.locator("#composer-text");
const conversation = (page, name) => page.locator(".conversation").filter({ has: page.locator(`.name:text-is("${name}")`) });
const state = (page, text) =>
  page.locator("#messages .message.own").filter({ hasText: text }).last().locator(".mark svg").getAttribute("aria-label");
const status = async (page) => ((await page.locator("#status").isVisible()) ? page.locator("#status-text").textContent() : "");

async function say(page, text) {
  await composer(page).fill(text);
  await composer(page).press("Enter");
}

const bubble = (page, text) => page.locator("#messages .bubble", { has: page.locator(`.text:text-is("${text}")`) });
const message = (page, text) => page.locator("#messages .message", { has: page.locator(`.text:text-is("${text}")`) });

/** Chooses from the menu of a message, as with a mouse. */
async function choose(page, text, item) {
  await bubble(page, text).hover();
  await bubble(page, text).getByRole("button", { name: /^More about/ }).click();
  await page.getByRole("menu").getByRole(/^React/.test(item) ? "menuitemcheckbox" : "menuitem", { name: item, exact: true }).click();
}

/** Waits until an own message has its place in the conversation: what is still on its way is shown, and can do nothing yet. */
const acknowledged = (page, text) =>
  page.locator("#messages .message.own").filter({ hasText: text }).last().locator(".act").first().waitFor({ state: "attached" });

const happened = (page, text) => page.locator("#messages .event").getByText(text).waitFor();

async function openConversation(page, name) {
  await conversation(page, name).click();
  await page.getByRole("heading", { name, exact: true }).waitFor();
}

async function noSidewaysScroll(page, where) {
  const [content, view] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= view, `${where}: ${content} px of content in ${view} px`);
  const cut = await page.$$eval("button, input, textarea", (nodes) => {
    const beyond = (node) => node.checkVisibility() && node.getBoundingClientRect().right > innerWidth + 1;
    return nodes.filter(beyond).map((node) => node.outerHTML);
  });
  assert.deepEqual(cut, [], `${where}: reaches beyond the screen`);
}

async function bigEnoughToTouch(page, where) {
  const small = await page.$$eval("button, input:not([type=radio]), textarea, a.touch", (nodes) =>
    nodes
      .filter((node) => node.checkVisibility() && !node.matches(".skip"))
      .map((node) => [node.id || node.className, node.getBoundingClientRect()])
      .filter(([, box]) => box.width < 43.5 || box.height < 43.5)
      .map(([name, box]) => `${name} ${box.width}×${box.height}`),
  );
  assert.deepEqual(small, [], `${where}: targets below 44 px`);
}

// ---- The scenes ---------------------------------------------------------------------------------------------------------

async function talk({ alice, bob }) {
  step("a conversation of two, interleaved");
  await alice.getByRole("button", { name: "New conversation" }).click();
  await alice.getByLabel("Their name").fill("bob");
  await checkAccessibility(alice, "new conversation");
  await alice.getByRole("button", { name: "Start" }).click();
  await alice.getByRole("heading", { name: "bob", exact: true }).waitFor();
  await openConversation(bob, "alice");
  const said = [];
  for (let round = 1; round <= 8; round += 1) {
    for (const [page, name] of [[alice, "alice"], [bob, "bob"]]) {
      const text = `${name} ${round}`;
      said.push(text);
      await say(page, text);
      await eventually(async () => (await texts(page)).includes(text), true, `${name} sees it at once`);
      // The other has it before the next one is written: so the order is known.
      const other = page === alice ? bob : alice;
      await eventually(async () => (await texts(other)).at(-1), text, `${text} arrives`);
    }
  }
  // And without waiting for each other: the order is the node's, and the same for both.
  await Promise.all([alice, bob].map(async (page, index) => {
    for (let count = 0; count < 10; count += 1) await say(page, `at once ${index} ${count}`);
  }));
  await eventually(async () => (await texts(alice)).length, said.length + 20, "all are there");
  await eventually(() => texts(bob), await texts(alice), "both see one order");
  const atOnce = (await texts(alice)).slice(said.length);
  assert.deepEqual((await texts(alice)).slice(0, said.length), said);
  for (const index of [0, 1]) {
    const own = atOnce.filter((text) => text.startsWith(`at once ${index}`));
    assert.deepEqual(own, Array.from({ length: 10 }, (_, count) => `at once ${index} ${count}`));
  }
}

async function marks({ alice, bob }) {
  step("sent, delivered, read, unread");
  await eventually(() => state(alice, "at once 0 9"), "Read", "bob has the conversation open");
  await openConversation(bob, "carol");
  await say(alice, "are you there?");
  await eventually(() => state(alice, "are you there?"), "Delivered", "bob looks elsewhere");
  await eventually(() => conversation(bob, "alice").locator(".badge").textContent(), "1, 1 unread", "bob sees one unread");
  assert.match(await bob.title(), /^\(\d+\) Antiphon$/);
  await openConversation(bob, "alice");
  await bob.locator("#messages .divider").waitFor();
  await eventually(() => state(alice, "are you there?"), "Read", "bob looked");
  await eventually(() => conversation(bob, "alice").locator(".badge").count(), 0, "nothing unread is left");
}

async function replies({ alice, bob }) {
  step("replies: by the button, by the keyboard, in one thread");
  const quote = async (page, text) => (await bubble(page, text).locator(".quote > *").allTextContents()).join(": ");
  await bubble(bob, "are you there?").hover();
  await bubble(bob, "are you there?").getByRole("button", { name: "Reply to alice" }).click();
  await checkAccessibility(bob, "replying");
  await screenshot(bob, "page-reply.png");
  await say(bob, "always");
  await eventually(() => quote(alice, "always"), "answers you: are you there?", "alice sees what it answers");
  assert.equal(await bob.locator("#about").isVisible(), false);
  await composer(alice).press("ArrowUp");
  assert.equal(await alice.locator("#about-what").textContent(), "Reply to bob");
  await composer(alice).press("ArrowUp");
  assert.equal(await alice.locator("#about-what").textContent(), "Reply to yourself");
  await composer(alice).press("Escape");
  assert.equal(await alice.locator("#about").isVisible(), false);
  await composer(alice).press("ArrowUp");
  await say(alice, "good");
  await eventually(() => quote(bob, "good"), "answers you: always", "an answer to an answer");
  const count = (page) => bubble(page, "are you there?").locator(".replies").textContent();
  for (const page of [alice, bob]) await eventually(() => count(page), "2 replies", "both are in the one thread");
  await alice.reload();
  await openConversation(alice, "bob");
  await eventually(() => quote(alice, "good"), "answers bob: always", "after a reload");
}

async function changes({ alice, bob }) {
  step("messages change: reactions, edits, pins, deletions, seen by");
  const reactions = async (page, text) => (await message(page, text).locator(".reaction").allTextContents()).join(" ");
  await say(alice, "the keys are in the draw");
  await choose(bob, "the keys are in the draw", "React with 👍");
  await eventually(() => reactions(alice, "the keys are in the draw"), "👍", "alice sees bob's");
  await message(alice, "the keys are in the draw").getByRole("button", { name: "👍, 1" }).click();
  for (const page of [alice, bob]) await eventually(() => reactions(page, "the keys are in the draw"), "👍2", "both have it");
  await choose(bob, "the keys are in the draw", "React with ❤️");
  await message(bob, "the keys are in the draw").getByRole("button", { name: "👍, 2, yours too" }).click();
  for (const page of [alice, bob]) await eventually(() => reactions(page, "the keys are in the draw"), "👍 ❤️", "taken back");

  await bubble(alice, "the keys are in the draw").hover();
  await bubble(alice, "the keys are in the draw").getByRole("button", { name: "More about your message" }).click();
  await checkAccessibility(alice, "the menu of a message");
  await screenshot(alice, "page-menu.png");
  await alice.keyboard.press("End");
  await eventually(() => alice.evaluate(() => document.activeElement.textContent), "Delete for everybody", "the menu has its keyboard");
  await alice.keyboard.press("Escape");
  assert.equal(await alice.getByRole("menu").isVisible(), false);

  await composer(alice).fill("half written");
  await choose(alice, "the keys are in the draw", "Edit");
  assert.equal(await composer(alice).inputValue(), "the keys are in the draw");
  await composer(alice).fill("the keys are in the drawer");
  await composer(alice).press("Enter");
  await eventually(() => composer(alice).inputValue(), "half written", "what was begun comes back");
  await composer(alice).fill("");
  await bubble(bob, "the keys are in the drawer").getByText("edited").waitFor();

  await choose(bob, "the keys are in the drawer", "Pin");
  await happened(alice, "bob pinned a message");
  await bubble(alice, "the keys are in the drawer").getByRole("img", { name: "Pinned" }).waitFor();
  await alice.getByRole("button", { name: "Members and settings" }).click();
  await eventually(() => alice.locator("#pins").textContent(), "You: the keys are in the drawer", "and listed");
  await alice.keyboard.press("Escape");

  await choose(alice, "the keys are in the drawer", "Seen by, reactions");
  await eventually(() => alice.locator("#info-body").innerText(), "Seen by\nbob\nalice\n👍\nbob\n❤️", "who");
  await checkAccessibility(alice, "about a message");
  await alice.getByRole("button", { name: "Close", exact: true }).click();

  await choose(alice, "the keys are in the drawer", "Delete for everybody");
  await alice.locator("#confirm-yes").click();
  for (const page of [alice, bob]) {
    await bubble(page, "Message deleted").waitFor();
    assert.equal((await texts(page)).includes("the keys are in the drawer"), false);
  }

  // By the keyboard: up to the message, and from there to what else can be done with it.
  await say(alice, "by keys alone");
  await acknowledged(alice, "by keys alone");
  await composer(alice).press("ArrowUp");
  await eventually(() => alice.locator("#about-text").textContent(), "by keys alone", "the last message is chosen");
  await composer(alice).press("Tab");
  await alice.keyboard.press("Shift+Tab");
  await alice.getByRole("button", { name: "More about this message" }).press("Enter");
  await alice.keyboard.press("Enter");
  await eventually(() => reactions(bob, "by keys alone"), "👍", "reacted");
  await composer(alice).press("Escape");
  await alice.reload();
  await openConversation(alice, "bob");
  await eventually(() => reactions(alice, "by keys alone"), "👍", "after a reload");
  await bubble(alice, "Message deleted").waitFor();
}

async function typing({ alice, bob }) {
  step("who types is told to who looks");
  const told = () => bob.locator("#peer-detail").textContent();
  await composer(alice).fill("let me see");
  await eventually(told, "is typing …", "bob sees that alice types");
  await composer(alice).fill("");
  await eventually(told, "online", "and that she has stopped");
  await composer(alice).fill("so");
  await eventually(told, "is typing …", "again");
  await composer(alice).press("Enter");
  await eventually(told, "online", "the message ends it");
}

async function killAndReturn({ alice, bob, node, browser }) {
  step("kill -9 while alice writes");
  const before = await texts(alice);
  const written = Array.from({ length: 16 }, (_, index) => `through the storm ${index + 1}`);
  browser.wasDown = true;
  const killed = new Promise((resolve) => setTimeout(resolve, 150)).then(() => node.kill());
  for (const text of written) await say(alice, text);
  await killed;
  for (const text of ["written offline 1", "written offline 2"]) {
    written.push(text);
    await say(alice, text);
  }
  await say(bob, "bob offline");
  await eventually(async () => /^Offline\. \d+ messages waiting\.$/.test(await status(alice)), true, "alice is told");
  await eventually(() => status(bob), "Offline. 1 message waiting.", "bob is told");
  assert.equal(await state(alice, "written offline 2"), "Waiting to be sent");
  assert.deepEqual(await texts(alice), [...before, ...written], "nothing vanishes from the screen");
  await checkAccessibility(alice, "offline");
  await screenshot(alice, "page-offline.png");
  await node.start();
  const total = before.length + written.length + 1;
  await eventually(async () => (await texts(bob)).length, total, "everything arrives");
  await eventually(() => texts(alice), await texts(bob), "both see one order");
  browser.wasDown = false;
  const all = await texts(alice);
  assert.deepEqual(all.slice(0, before.length), before, "the past is what it was");
  const arrived = all.filter((text) => text !== "bob offline").slice(before.length);
  assert.deepEqual(arrived, written, "once, and in the order of writing");
  await eventually(() => status(alice), "", "the status line is gone");
  await eventually(() => state(alice, "written offline 2"), "Read", "and read");

  step("reload");
  for (const page of [alice, bob]) {
    const device = await page.evaluate(() => JSON.parse(sessionStorage.getItem("antiphon.session")).device);
    await page.reload();
    await eventually(() => texts(page), all, "the same after a reload");
    assert.equal(await page.evaluate(() => JSON.parse(sessionStorage.getItem("antiphon.session")).device), device);
  }
  await say(bob, "after the reload");
  await eventually(() => texts(alice), [...all, "after the reload"], "and on it goes");

  step("reload with something in the outbox");
  browser.wasDown = true;
  // The page stays loadable while its socket cannot be had: the route stands for a network that fails half.
  await alice.context().setOffline(true);
  await node.kill();
  await say(alice, "kept through a reload");
  await eventually(() => status(alice), "Offline. 1 message waiting.", "it waits");
  await node.start();
  await alice.context().setOffline(false);
  await alice.reload();
  await eventually(() => texts(alice), [...all, "after the reload", "kept through a reload"], "sent after the reload");
  await eventually(() => texts(bob), [...all, "after the reload", "kept through a reload"], "and received once");
  browser.wasDown = false;
}

async function refused({ alice, carol }) {
  step("a refused message says so, and can be tried again");
  const group = { key: crypto.randomUUID(), title: "Stubborn", members: ["alice"] };
  const { conversation: id } = await carol.ask("create", { group });
  await conversation(alice, "Stubborn").waitFor();
  await alice.evaluate((conversation) => {
    const { user, device } = JSON.parse(sessionStorage.getItem("antiphon.session"));
    const failed = { code: "limit_reached", text: "a limit is reached" };
    const item = { conversation, client_message_id: crypto.randomUUID(), text: "once more", created_ms: Date.now(), failed };
    localStorage.setItem(`antiphon.outbox.${user}.${device}`, JSON.stringify([item]));
  }, id);
  await alice.reload();
  await openConversation(alice, "Stubborn");
  await eventually(() => state(alice, "once more"), "Not sent", "marked");
  await checkAccessibility(alice, "a refused message");
  await alice.getByRole("button", { name: "Try again" }).click();
  await eventually(() => state(alice, "once more"), "Sent", "and sent; carol never says that she has it");
  await openConversation(alice, "bob");
}

async function secondTab({ alice }) {
  step("a second tab is a device of its own; a replaced one says so");
  const tab = await alice.context().newPage();
  await tab.goto(alice.url().split("#")[0]);
  await tab.getByRole("button", { name: "alice" }).click();
  await openConversation(tab, "bob");
  // A new device begins with a page of history; the rest comes when one scrolls.
  await eventually(async () => (await texts(tab)).slice(-40), (await texts(alice)).slice(-40), "the same conversation");
  await say(tab, "from the second tab");
  await eventually(async () => (await texts(alice)).at(-1), "from the second tab", "seen in the first");
  assert.equal(await status(alice), "");
  await tab.evaluate(async () => {
    const { user, device, token } = JSON.parse(sessionStorage.getItem("antiphon.session"));
    const { websocket_url } = await (await fetch("/config.json")).json();
    const socket = new WebSocket(websocket_url, "antiphon.v1.json");
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(JSON.stringify({ id: 1, connect: { token, device } }));
    globalThis.thief = { socket, user };
  });
  await eventually(() => status(tab), "This device is in use in another tab.", "replaced");
  await tab.getByRole("button", { name: "Use it here" }).click();
  await say(tab, "taken back");
  await eventually(async () => (await texts(alice)).at(-1), "taken back", "it works again");
  await tab.close();
}

async function forOneself({ alice, bob, browser }) {
  step("what is half written, favourite, muted, archived: the same on all devices, and nobody else's business");
  // Not a tab beside the first: one that is hidden has slow timers.
  const tab = await browser.page();
  await browser.signIn(tab, "alice");
  await conversation(tab, "bob").waitFor();
  await composer(alice).fill("half wri");
  await eventually(() => conversation(tab, "bob").locator(".preview").textContent(), "Draft: half wri", "the other device's list");
  await openConversation(tab, "bob");
  assert.equal(await composer(tab).inputValue(), "half wri");
  await composer(tab).fill("half written");
  await eventually(() => composer(alice).inputValue(), "half written", "it goes both ways, while both look at it");
  await say(tab, "half written, and sent");
  await eventually(() => composer(alice).inputValue(), "", "the draft is gone");
  await eventually(async () => (await texts(alice)).at(-1), "half written, and sent", "the message is there");
  // Over a reload, and for nobody else.
  await composer(alice).fill("kept");
  await alice.reload();
  await eventually(() => composer(alice).inputValue(), "kept", "after a reload");
  await composer(alice).fill("");
  assert.equal(await composer(bob).inputValue(), "");
  const first = (page) => page.locator(".conversation .name").first().textContent();
  const flag = async (name, pressed) => {
    await alice.getByRole("group", { name: "For yourself" }).getByRole("button", { name }).click();
    await alice.getByRole("button", { name, pressed }).waitFor();
  };
  await alice.getByRole("button", { name: "New conversation" }).click();
  await alice.getByLabel("Their name").fill("zoe");
  await alice.getByRole("button", { name: "Start" }).click();
  await alice.getByRole("heading", { name: "zoe", exact: true }).waitFor();
  await eventually(() => first(tab), "zoe", "the liveliest first");
  await openConversation(alice, "bob");
  await alice.getByRole("button", { name: "Members and settings" }).click();
  await flag("Favourite", true);
  await checkAccessibility(alice, "for oneself");
  await eventually(() => first(tab), "bob", "a favourite before all others");
  await flag("Favourite", false);
  await flag("Mute", true);
  await openConversation(tab, "zoe");
  await alice.getByRole("button", { name: "Close members" }).click();
  await openConversation(alice, "zoe");
  await say(bob, "is anybody there?");
  await eventually(() => conversation(tab, "bob").locator(".badge").count(), 1, "unread");
  await eventually(() => tab.title(), "Antiphon", "but not counted");
  await openConversation(alice, "bob");
  await alice.getByRole("button", { name: "Members and settings" }).click();
  await flag("Mute", false);
  await flag("Archive", true);
  await alice.getByRole("button", { name: "Close members" }).click();
  await openConversation(alice, "zoe");
  await eventually(() => conversation(tab, "bob").count(), 0, "out of sight");
  await tab.getByRole("button", { name: "Archive (1)" }).click();
  await conversation(tab, "bob").waitFor();
  await tab.getByRole("button", { name: "Hide the archive" }).click();
  await eventually(() => conversation(tab, "bob").count(), 0, "out of sight again");
  await say(bob, "hello?");
  await conversation(tab, "bob").waitFor();
  await openConversation(alice, "bob");
  await alice.getByRole("button", { name: "Members and settings" }).click();
  await flag("Archive", false);
  await alice.getByRole("button", { name: "Close members" }).click();
  await tab.context().close();
}

async function whoIsThere({ alice, bob }) {
  step("who is there, and who may see it");
  const detail = alice.locator("#peer-detail");
  const isShown = () => conversation(alice, "bob").evaluate((row) => row.classList.contains("there"));
  await openConversation(alice, "bob");
  await eventually(() => detail.textContent(), "online", "in the header");
  await eventually(isShown, true, "and in the list");
  await screenshot(alice, "desktop-presence.png");
  const choose = async (whom) => {
    await bob.getByRole("button", { name: "bob", exact: true }).click();
    await bob.getByLabel("Who may see whether you are online").selectOption(whom);
    if (whom === "Nobody") await checkAccessibility(bob, "who may see one");
    await bob.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  };
  await choose("Nobody");
  await eventually(isShown, false, "as one who has gone");
  assert.match(await detail.textContent(), /^last seen /);
  await choose("People you talk with");
  await eventually(() => detail.textContent(), "online", "they talk");
  await choose("Everyone");
  await eventually(() => detail.textContent(), "online", "as at first");
}

async function receiptsOff({ alice, bob }) {
  step("receipts are switched off, both ways, and on again");
  const choose = async (on) => {
    await bob.getByRole("button", { name: "bob", exact: true }).click();
    await bob.getByLabel("Read receipts").setChecked(on);
    await bob.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  };
  await openConversation(alice, "bob");
  await openConversation(bob, "alice");
  await choose(false);
  await say(alice, "do you see this?");
  await bubble(bob, "do you see this?").waitFor();
  await say(bob, "you will not know");
  await bubble(alice, "you will not know").waitFor();
  // What she does not send is waited for: marks take a quarter of a second at most.
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(await state(bob, "you will not know"), "Sent", "she has read it, and he is not told");
  await choose(true);
  await say(alice, "and now?");
  await eventually(() => state(alice, "and now?"), "Read", "as at first");
}

async function devices({ alice, browser }) {
  step("devices: listed, named, logged out");
  const other = await browser.page();
  await browser.signIn(other, "alice");
  await conversation(other, "bob").waitFor();
  const dialog = (page) => page.getByRole("dialog", { name: "Your devices" });
  const open = async (page) => {
    await page.getByRole("button", { name: "alice", exact: true }).click();
    await page.getByRole("button", { name: "Devices", exact: true }).click();
    await eventually(() => page.evaluate(() => document.activeElement.id), "devices-title", "the dialog has the focus");
  };
  const line = (page, name) => dialog(page).getByRole("listitem").filter({ has: page.getByText(name, { exact: true }) });
  const told = async (page, name) => (await line(page, name).locator(".muted").allTextContents()).map((text) => text.split(",")[0]);
  for (const page of [alice, other]) await open(page);
  const field = dialog(alice).getByLabel("Name of this device");
  await eventually(async () => /^Chrome on \w+$/.test(await field.inputValue()), true, "it has named itself");
  const own = await field.inputValue();
  await eventually(async () => (await told(alice, own))[0], "This device", "this one is first");
  assert.equal(await line(alice, own).first().getByRole("button").count(), 0, "which is signed out otherwise");
  const rename = async (name) => {
    await dialog(other).getByLabel("Name of this device").fill(name);
    await dialog(other).getByRole("button", { name: "Save" }).click();
  };
  await rename(" ");
  await eventually(() => other.locator("#devices-error").textContent(), "A name is needed.", "no name");
  await rename("Kitchen tablet");
  await eventually(() => told(other, "Kitchen tablet"), ["This device"], "it is called otherwise");
  await eventually(() => told(alice, "Kitchen tablet"), ["Connected"], "the other device hears of it");
  await checkAccessibility(alice, "devices");
  await screenshot(alice, "devices.png");

  const logOut = async (name, yes) => {
    await dialog(alice).getByRole("button", { name, exact: true }).click();
    await eventually(() => alice.locator("#confirm-yes").isVisible(), true, "it is asked");
    await alice.locator(yes ? "#confirm-yes" : "#confirm-dialog [value=no]").click();
  };
  await logOut("Log out Kitchen tablet", false);
  await eventually(() => told(alice, "Kitchen tablet"), ["Connected"], "nothing was done");
  await logOut("Log out Kitchen tablet", true);
  await eventually(() => status(other), "This device was logged out.", "it is told");
  assert.equal(await dialog(other).isVisible(), false);
  await eventually(() => told(alice, "Kitchen tablet"), [], "and gone from the list");
  await eventually(() => alice.evaluate(() => document.activeElement.id), "devices-title", "the focus stays in the dialog");
  await checkAccessibility(other, "logged out");
  await other.getByRole("button", { name: "Sign in again" }).click();
  await other.getByRole("button", { name: "alice" }).click();
  await conversation(other, "bob").waitFor();
  assert.equal(await status(other), "");

  await logOut("Log out all other devices", true);
  await eventually(() => status(other), "This device was logged out.", "so are all others");
  await eventually(() => dialog(alice).getByRole("listitem").count(), 1, "this one is left");
  assert.equal(await dialog(alice).getByRole("button", { name: "Log out all other devices" }).isVisible(), false);
  await dialog(alice).getByRole("button", { name: "Close" }).click();
  await eventually(() => alice.evaluate(() => document.activeElement.id), "me", "the focus is where it was");
  await other.reload();
  await other.getByLabel("Your name").waitFor();
  await other.context().close();
  assert.equal(await status(alice), "");
}

const HISTORY = 260;

async function history({ alice, carol }) {
  step(`scroll back through ${HISTORY} messages`);
  const { conversation: id } = await carol.ask("create", { direct: "alice" });
  await carol.say(id, Array.from({ length: HISTORY }, (_, index) => `line ${index + 1}`));
  await eventually(() => conversation(alice, "carol").locator(".badge > span").first().textContent(), "99+", "unread");
  await openConversation(alice, "carol");
  await alice.locator("#jump").click();
  await eventually(async () => (await texts(alice)).at(-1), `line ${HISTORY}`, "at the end");
  await eventually(() => conversation(alice, "carol").locator(".badge").count(), 0, "all read");
  const seen = new Set();
  const scroller = alice.locator("#scroller");
  const endMs = Date.now() + 2 * WAIT_MS;
  for (let done = false; !done; ) {
    assert.ok(Date.now() < endMs, `the start was not reached; seen ${seen.size}`);
    const numbers = (await texts(alice)).map((text) => Number(text.slice(5)));
    numbers.forEach((number, index) => index > 0 && assert.equal(number, numbers[index - 1] + 1, "in order, without a gap"));
    numbers.forEach((number) => seen.add(number));
    assert.ok(numbers.length <= 320, `${numbers.length} messages in the document`);
    // What stands in the middle of the screen moves by what was scrolled, and by nothing else.
    const moved = await scroller.evaluate(async (node) => {
      const box = node.getBoundingClientRect();
      const middle = document.elementFromPoint(box.left + box.width / 2, box.top + 40)?.closest("li");
      const before = { top: middle?.getBoundingClientRect().top, scroll: node.scrollTop };
      const by = Math.min(300, node.scrollTop);
      node.scrollTop -= by;
      await new Promise((resolve) => setTimeout(resolve, 120));
      return middle?.isConnected ? Math.round(middle.getBoundingClientRect().top - before.top - by) : 0;
    });
    assert.ok(Math.abs(moved) <= 2, `the place was lost by ${moved} px`);
    done = (await alice.locator("#messages .head").textContent()) === "The conversation starts here" && numbers[0] === 1;
  }
  assert.equal(seen.size, HISTORY);
  step("to a message far back, by its pin and by an answer to it");
  const { entries } = await carol.ask("history", { conversation: id, after: 1, limit: 1 });
  const [{ sequence: first }] = entries;
  await carol.ask("pin", { conversation: id, client_message_id: crypto.randomUUID(), target: first, on: true });
  const answer = { client_message_id: crypto.randomUUID(), text: "line 0", reply_to: first, thread: first };
  await carol.ask("send", { conversation: id, ...answer });
  await alice.reload();
  await openConversation(alice, "carol");
  await eventually(async () => (await texts(alice)).at(-1), "line 0", "the end is shown");
  assert.equal((await texts(alice)).includes("line 1"), false);
  const inView = async (text) => (await bubble(alice, text).count()) > 0 && bubble(alice, text).evaluate((node) => {
    const [box, view] = [node.getBoundingClientRect(), document.querySelector("#scroller").getBoundingClientRect()];
    return box.top >= view.top && box.bottom <= view.bottom;
  });
  await bubble(alice, "line 0").getByRole("button", { name: "answers an earlier message" }).click();
  await eventually(() => inView("line 1"), true, "the answered one is shown");
  await alice.locator("#jump").click();
  await eventually(() => inView("line 0"), true, "back at the end");
  await alice.getByRole("button", { name: "Members and settings" }).click();
  await alice.getByRole("complementary").getByRole("button", { name: "carol: line 1" }).click();
  await eventually(() => inView("line 1"), true, "the pinned one is shown");
  await alice.getByRole("button", { name: "Close members" }).click();
  await carol.ask("delete", { conversation: id, client_message_id: crypto.randomUUID(), target: (await carol.ask("history", { conversation: id, limit: 1 })).last });

  step("what arrives while one reads back");
  await alice.locator("#scroller").evaluate((node) => (node.scrollTop = 0));
  await carol.say(id, [`line ${HISTORY + 1}`]);
  await eventually(() => alice.locator("#jump-text").textContent(), "1 new", "told, and not torn away");
  assert.equal((await texts(alice))[0], "line 1");
  await alice.locator("#jump").click();
  await eventually(async () => (await texts(alice)).at(-1), `line ${HISTORY + 1}`, "back at the end");
  await eventually(() => alice.locator("#jump").isVisible(), false, "at the end there is nowhere to jump");
}

async function group({ alice, bob, carol }) {
  step("a group: create, rename, add, read by, remove, leave");
  await alice.keyboard.press("Alt+n");
  await alice.getByText("A group").click();
  await alice.locator("#new-group-title").fill("Evensong");
  await alice.getByLabel("Their names").fill("bob, carol");
  await alice.getByRole("button", { name: "Create group" }).click();
  await alice.getByRole("heading", { name: "Evensong", exact: true }).waitFor();
  await say(alice, "rehearsal moved to 18:30");
  await openConversation(bob, "Evensong");
  const note = () => alice.locator("#messages .own .note").last().textContent();
  await eventually(note, "Read by 1", "bob has it open");
  const { conversations } = await carol.ask("conversations", {});
  const { conversation: id, last_sequence } = conversations.find(({ title }) => title === "Evensong");
  await carol.ask("read", { conversation: id, sequence: last_sequence });
  await eventually(note, "Read by all", "carol too");

  await alice.getByRole("button", { name: "Members and settings" }).click();
  const panel = alice.getByRole("complementary");
  await panel.getByLabel("Name of the group").fill("Evensong choir");
  await panel.getByRole("button", { name: "Save", exact: true }).click();
  await panel.getByLabel("Add people", { exact: true }).fill("dave");
  await panel.getByRole("button", { name: "Add" }).click();
  await panel.getByText("dave", { exact: true }).waitFor();
  await bob.getByRole("heading", { name: "Evensong choir", exact: true }).waitFor();
  await happened(bob, "alice added dave");
  await panel.getByLabel("Role of bob").selectOption("admin");
  await happened(bob, "alice made you an admin");
  await panel.getByLabel("Role of bob").selectOption("member");
  await happened(bob, "alice made you a member");
  await checkAccessibility(alice, "members");
  await screenshot(alice, "page-members.png");
  await panel.getByRole("button", { name: "Remove dave" }).click();
  await alice.locator("#confirm-yes").click();
  await happened(bob, "alice removed dave");
  await alice.keyboard.press("Escape");
  assert.equal(await panel.isVisible(), false);
  await bob.getByRole("button", { name: "Members and settings" }).click();
  await bob.getByRole("button", { name: "Leave the group" }).click();
  await bob.locator("#confirm-yes").click();
  await eventually(() => conversation(bob, "Evensong choir").count(), 0, "gone from bob's list");
  await happened(alice, "bob left");
}

async function invites({ alice, bob, browser }) {
  step("a group with rules, an invite, a mention, a ban");
  await alice.keyboard.press("Alt+n");
  await alice.getByText("A group").click();
  await alice.locator("#new-group-title").fill("Open stage");
  await alice.getByLabel("Their names").fill("carol");
  await alice.getByRole("button", { name: "Create group" }).click();
  await alice.getByRole("heading", { name: "Open stage", exact: true }).waitFor();
  await alice.getByRole("button", { name: "Members and settings" }).click();
  const panel = alice.getByRole("complementary");
  await panel.getByLabel("Description", { exact: true }).fill("Everybody sings once a month");
  await panel.getByRole("button", { name: "Save the description" }).click();
  await happened(alice, "You changed the group’s settings");
  await panel.getByLabel("pin messages").selectOption("admins");
  await panel.getByRole("button", { name: "Make an invite" }).click();
  await eventually(() => panel.getByLabel("Link of the invite").isVisible(), true, "a link to give away");
  const link = await panel.getByLabel("Link of the invite").inputValue();
  await panel.getByRole("button", { name: "Revoke the invite by you" }).waitFor();
  await checkAccessibility(alice, "settings of a group");
  await screenshot(alice, "page-group.png");
  await alice.keyboard.press("Escape");

  await bob.getByRole("button", { name: "New conversation" }).click();
  await bob.getByText("An invite", { exact: true }).click();
  await bob.getByLabel("The invite’s link or code").fill(link);
  await bob.getByRole("button", { name: "Join" }).click();
  const question = "Join Open stage, with 2 members? Everybody sings once a month";
  await eventually(() => bob.locator("#confirm-text").textContent(), question, "what it is to");
  await bob.locator("#confirm-yes").click();
  await bob.getByRole("heading", { name: "Open stage", exact: true }).waitFor();
  await happened(alice, "bob joined by an invite");

  const dora = await browser.page();
  await browser.signIn(dora, "dora");
  await dora.goto(link);
  await dora.locator("#confirm-yes").click();
  await dora.getByRole("heading", { name: "Open stage", exact: true }).waitFor();
  await say(dora, "shall @bob begin?");
  await eventually(() => bob.locator("#messages .means-me .mention").textContent(), "@bob", "bob is meant");
  assert.equal(await alice.locator("#messages .means-me").count(), 0);
  await say(alice, "@all on stage");
  await eventually(() => dora.locator("#messages .means-me .mention").textContent(), "@all", "all are meant");

  const call = bob.locator("#messages .bubble").filter({ hasText: "@all on stage" });
  await call.hover();
  await call.getByRole("button", { name: /^More about/ }).click();
  assert.deepEqual(await bob.getByRole("menu").getByRole("menuitem").allTextContents(), ["Reply", "Seen by, reactions"]);
  await bob.keyboard.press("Escape");

  await alice.getByRole("button", { name: "Members and settings" }).click();
  await panel.getByRole("button", { name: "Ban dora" }).click();
  await alice.locator("#confirm-yes").click();
  await eventually(() => conversation(dora, "Open stage").count(), 0, "gone from dora's list");
  await dora.goto(link);
  await eventually(() => dora.locator("#info-dialog").isVisible(), true, "the invite is of no use to her");
  await dora.getByRole("button", { name: "Close", exact: true }).click();
  await panel.getByRole("button", { name: "Let in dora" }).click();
  await eventually(() => panel.locator("#banned").isVisible(), false, "let in");
  await alice.keyboard.press("Escape");
  await dora.context().close();
}

async function keyboardOnly({ browser, node }) {
  step("the keyboard alone");
  const page = await browser.page();
  await page.goto(node.origin);
  const press = (...keys) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  await eventually(focused, "name", "the name has the focus");
  await checkAccessibility(page, "sign-in");
  await page.keyboard.type("no spaces please");
  await press("Enter");
  await eventually(focused, "name", "stays, and says why");
  assert.match(await page.locator("#name-error").textContent(), /without spaces/);
  await press("Control+a");
  await page.keyboard.type("erin");
  await press("Enter");
  await page.getByRole("heading", { name: "erin" }).waitFor();
  await press("Tab");
  assert.equal(await focused(), "skip");
  await press("Tab", "Tab", "Tab");
  assert.equal(await focused(), "new");
  await press("Enter");
  await page.keyboard.type("frank");
  await press("Enter");
  await eventually(focused, "composer-text", "a new conversation is ready to be written in");
  await page.keyboard.type("one");
  await press("Shift+Enter");
  await page.keyboard.type("two");
  await press("Enter");
  await eventually(() => texts(page), ["one\ntwo"], "sent");
  await press("Shift+Tab");
  assert.equal(await focused(), "scroller");
  await press("Escape");
  assert.equal(await focused(), "composer-text");
  await press("Escape");
  await eventually(focused, "conversation", "to the list");
  await press("Enter");
  await eventually(focused, "composer-text", "and back");
  await press("Shift+Tab", "Shift+Tab");
  assert.equal(await focused(), "details-toggle");
  await press("Enter");
  await eventually(focused, "details-title", "the panel has the focus");
  await press("Escape");
  assert.equal(await focused(), "details-toggle");
  await page.context().close();
}

// ---- The pictures: a conversation as people have it ----------------------------------------------------------------------

const CAST = {
  anselm: ["Key is under the second flower pot."],
  clara: ["Did you hear the recording? The echo in bar 40!", "I had goosebumps"],
  miriam: ["Could you bring the tuning fork on Thursday?"],
  jonas: ["The scans are here: https://example.org/psalm-42", "Page 3 is a bit dark, sorry"],
};

const SCENE = [
  ["helen", "Morning! The hall is ours from six on Thursday."],
  ["helen", "Shall we do both halves of the psalm, or only the second?"],
  ["tom", "Both, please. The altos have been practising the answer all week."],
  ["ada", "Both! And could we swap sides this time?\nThe left choir always gets the good acoustics."],
  ["helen", "Ha, fair. Left and right swapped, then."],
  ["tom", "I’ll tell the tenors 🙂"],
  ["ada", "Thank you both. I bring the printed parts, twelve of each."],
];

async function pictures({ browser, carol }) {
  step("pictures");
  const light = await browser.page({ colorScheme: "light" });
  await browser.signIn(light, "ada");
  const crowd = {};
  for (const user of ["helen", "tom", ...Object.keys(CAST)]) crowd[user] = await RawClient.create(carol.page, user);
  for (const [user, lines] of Object.entries(CAST)) {
    const { conversation: id } = await crowd[user].ask("create", { direct: "ada" });
    await crowd[user].say(id, lines);
  }
  const programme = { key: crypto.randomUUID(), title: "Programme notes", members: ["ada", "clara"] };
  const { conversation: notes } = await crowd.jonas.ask("create", { group: programme });
  await crowd.jonas.say(notes, ["Second draft is up, page two needs your eyes"]);
  const group = { key: crypto.randomUUID(), title: "Thursday choir", members: ["ada", "tom"] };
  const { conversation: id } = await crowd.helen.ask("create", { group });
  await openConversation(light, "Thursday choir");
  for (const [user, text] of SCENE) {
    if (user !== "ada") await crowd[user].say(id, [text]);
    else await say(light, text);
    await eventually(async () => (await texts(light)).at(-1), text, "said");
    if (user === "ada") await acknowledged(light, text);
  }
  const { conversations } = await crowd.tom.ask("conversations", {});
  const { last_sequence } = conversations.find(({ conversation }) => conversation === id);
  await crowd.tom.ask("read", { conversation: id, sequence: last_sequence });
  await light.getByText("Read by 1").last().waitFor();
  await crowd.helen.ask("read", { conversation: id, sequence: last_sequence });
  await light.getByText("Read by all").last().waitFor();
  const { entries } = await crowd.helen.ask("history", { conversation: id });
  const { sequence: target } = entries.find(({ text }) => text === SCENE[3][1]);
  for (const [user, reaction] of [["helen", "😂"], ["tom", "😂"], ["tom", "👍"]]) {
    await crowd[user].ask("react", { conversation: id, client_message_id: crypto.randomUUID(), target, reaction, on: true });
  }
  await light.getByRole("button", { name: "😂, 2" }).waitFor();
  await openConversation(light, "jonas");
  await say(light, "Perfect, I can read it. Thanks for scanning!");
  await openConversation(light, "anselm");
  await openConversation(light, "Thursday choir");
  const { conversations: miriams } = await crowd.miriam.ask("conversations", {});
  await crowd.miriam.say(miriams[0].conversation, ["And the spare music stand?"]);
  await light.getByText("Read by all").last().waitFor();
  await light.mouse.move(640, 120);
  await checkAccessibility(light, "light");
  await screenshot(light, "page.png");

  const dark = await browser.page({ colorScheme: "dark" });
  await browser.signIn(dark, "ada");
  await openConversation(dark, "Thursday choir");
  await eventually(async () => (await texts(dark)).length, SCENE.length, "all there");
  await dark.getByRole("button", { name: "Members and settings" }).click();
  await dark.getByRole("complementary").getByText("helen", { exact: true }).waitFor();
  await checkAccessibility(dark, "dark");
  await screenshot(dark, "page-dark.png");
  await dark.setViewportSize({ width: 900, height: 700 });
  await noSidewaysScroll(dark, "a small window");
  const panel = await dark.locator("#details").boundingBox();
  assert.equal(panel.x + panel.width, 900, "the panel lies over the right of the conversation");

  step("a phone");
  const handset = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };
  const phone = await browser.page({ ...handset, colorScheme: "light" });
  await phone.goto(browser.node.origin);
  await noSidewaysScroll(phone, "sign-in");
  await bigEnoughToTouch(phone, "sign-in");
  await browser.signIn(phone, "ada");
  await conversation(phone, "Thursday choir").waitFor();
  const check = async (where) => {
    await noSidewaysScroll(phone, where);
    await bigEnoughToTouch(phone, where);
    await checkAccessibility(phone, `phone, ${where}`);
  };
  await check("list");
  await screenshot(phone, "page-phone-list.png");
  await openConversation(phone, "Thursday choir");
  await eventually(async () => (await texts(phone)).length, SCENE.length, "all there");
  await phone.getByText("Read by all").last().waitFor();
  await check("conversation");
  await screenshot(phone, "page-phone.png");
  await phone.getByRole("button", { name: "Members and settings" }).click();
  await check("members");
  await screenshot(phone, "page-phone-members.png");
  await phone.getByRole("button", { name: "Close members" }).click();
  await phone.getByRole("button", { name: "Back to the conversations" }).click();
  await conversation(phone, "Thursday choir").waitFor();
  assert.equal(await phone.locator("#chat").isVisible(), false);
  await phone.getByRole("button", { name: "New conversation" }).click();
  await phone.getByText("A group").click();
  await phone.getByLabel("Their names").fill("helen, tom");
  await check("new group");
  await screenshot(phone, "page-phone-new.png");
}

/** On a node that lets in one device of a user at a time. */
async function tooManyDevices() {
  step("one device too many is told so, and let in when another has gone");
  const node = await Node.create(binary, { "limits.devices_per_user": 1 });
  let browser;
  try {
    await node.start();
    browser = await Browser.create(node);
    const [first, second] = [await browser.page(), await browser.page()];
    await browser.signIn(first, "alice");
    await browser.signIn(second, "alice");
    const told = "Too many of your devices are connected. Close one, or log one out.";
    await eventually(() => status(second), told, "it is told");
    await checkAccessibility(second, "one device too many");
    await first.context().close();
    await eventually(
      async () => {
        const button = second.getByRole("button", { name: "Try again" });
        if (await button.isVisible()) await button.click();
        return status(second);
      },
      "",
      "there is room",
    );
    assert.deepEqual(browser.complaints, [], "the console stays silent");
  } finally {
    await browser?.close();
    await node.remove();
  }
}

/** On a node where every conversation is a large one. */
async function large() {
  step("large conversations: unread where they are not open, whole when they are opened");
  const node = await Node.create(binary, { "fanout.bodies_members": 1, "fanout.hint_ms": 50 });
  let browser;
  try {
    await node.start();
    browser = await Browser.create(node);
    const [bob, backstage] = [await browser.page(), await browser.page()];
    await browser.signIn(bob, "bob");
    await backstage.goto(node.origin);
    const [, dora] = await Promise.all(
      ["carol", "dora"].map(async (name) => {
        const user = await RawClient.create(backstage, name);
        const id = (await user.ask("create", { direct: "bob" })).conversation;
        const say = (...words) => user.say(id, words);
        await say(`${name} is here`);
        return { say, mention: (text) => user.ask("send", { conversation: id, client_message_id: crypto.randomUUID(), text, mentions: ["bob"] }) };
      }),
    );
    await openConversation(bob, "dora");
    await eventually(() => texts(bob), ["dora is here"], "what was not open is fetched");
    await openConversation(bob, "carol");
    const words = Array.from({ length: 30 }, (_, index) => `dora says ${index}`);
    await dora.say(...words);
    await dora.mention("bob, look");
    const row = conversation(bob, "dora");
    await eventually(() => row.locator(".badge").textContent(), "31, 31 unread", "they are unread");
    await eventually(() => row.locator(".preview").textContent(), "New messages", "nothing of it is here");
    await eventually(async () => /dora: bob, look/.test(await bob.locator("#announcer").textContent()), true, "a mention is told");
    await screenshot(bob, "page-large.png");
    await openConversation(bob, "dora");
    await eventually(() => texts(bob), ["dora is here", ...words, "bob, look"], "all of it, in order");
    await bob.locator("#messages .divider").waitFor();
    await eventually(() => row.locator(".badge").count(), 0, "nothing unread is left");
    await dora.say("pushed");
    await eventually(async () => (await texts(bob)).at(-1), "pushed", "what comes while it is open");
    await say(bob, "mine");
    await eventually(() => state(bob, "mine"), "Sent", "it is acknowledged");
    // Very much at once: the end of it, and what is before by scrolling back.
    await openConversation(bob, "carol");
    const flood = Array.from({ length: 450 }, (_, index) => `flood ${index}`);
    await dora.say(...flood);
    await eventually(() => row.locator(".badge").textContent(), "99+, 450 unread", "they are unread");
    await openConversation(bob, "dora");
    await eventually(async () => (await texts(bob)).at(-1), flood.at(-1), "the end is there");
    await eventually(
      async () => {
        await bob.locator("#scroller").evaluate((scroller) => (scroller.scrollTop = 0));
        return (await texts(bob))[0];
      },
      "dora is here",
      "and the beginning",
    );
    assert.deepEqual(browser.complaints, [], "the console stays silent");
  } finally {
    await browser?.close();
    await node.remove();
  }
}

// ---- All of it ----------------------------------------------------------------------------------------------------------

const node = await Node.create(binary);
let browser;
const overdue = setTimeout(() => {
  console.error("the test did not end within ten minutes");
  process.exit(1);
}, 600_000);
try {
  await node.start();
  browser = await Browser.create(node);
  const [alice, bob, backstage] = [await browser.page(), await browser.page(), await browser.page()];
  await browser.signIn(alice, "alice");
  await browser.signIn(bob, "bob");
  await backstage.goto(node.origin);
  const carol = await RawClient.create(backstage, "carol");
  await carol.say((await carol.ask("create", { direct: "bob" })).conversation, ["hello bob"]);
  const world = { node, browser, alice, bob, carol };
  await talk(world);
  await marks(world);
  await replies(world);
  await changes(world);
  await typing(world);
  await killAndReturn(world);
  await secondTab(world);
  await forOneself(world);
  await whoIsThere(world);
  await receiptsOff(world);
  await devices(world);
  // The kill has taken her connection with it.
  world.carol = await RawClient.create(backstage, "carol");
  await refused(world);
  await history(world);
  await group(world);
  await invites(world);
  await keyboardOnly(world);
  await pictures(world);
  assert.deepEqual(browser.complaints, [], "the console stays silent");
  await tooManyDevices();
  await large();
  step("all well");
} finally {
  clearTimeout(overdue);
  await browser?.close();
  await node.remove();
}
