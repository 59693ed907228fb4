// Small helpers for the document: elements, icons, avatars, dates. Text from users only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";

/** `el("button", {class: "x", type: "button", onclick}, "text", child)`; null children are left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Strokes on a 24 × 24 grid. */
const ICONS = {
  clock: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z", "M12 7.5V12l3 2"],
  sent: ["m5 12.5 4.5 4.5L19 7.5"],
  delivered: ["m2 12.5 4.5 4.5L16 7.5", "m11.5 16 1 1L22 7.5"],
  more: ["M5.5 12h.01", "M12 12h.01", "M18.5 12h.01"],
  pin: ["M9 4h6l-1 6 3.5 3v1.5h-11V13L10 10 9 4Z", "M12 14.5V21"],
  reply: ["M9.5 7 4.5 12l5 5", "M5 12h9a5.5 5.5 0 0 1 5.5 5.5V19"],
  favourite: ["m12 4.5 2.3 4.8 5.2.7-3.8 3.6.9 5.2-4.6-2.5-4.6 2.5.9-5.2L4.5 10l5.2-.7L12 4.5Z"],
  muted: ["M7 10.5a5 5 0 0 1 8.5-3.6M17 10.5c0 4 1.5 5.5 1.5 5.5H6s1-1 1-5.5", "M10.5 19a1.6 1.6 0 0 0 3 0", "M4 4l16 16"],
  archived: ["M4 5h16v4H4V5Z", "M5.5 9v10h13V9", "M10 13h4"],
  failed: ["M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z", "M12 7.5v5", "M12 16v.5"],
  group: [
    "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Z",
    "M2.5 19.5a6.5 6.5 0 0 1 13 0",
    "M16 4.5a3.5 3.5 0 0 1 0 6.6",
    "M18 14.4a6.5 6.5 0 0 1 3.5 5.1",
  ],
};

export function icon(name, label = null) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  for (const d of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** How many colours style.css has for avatars and names (`hue-0` …). */
const HUES = 10;

export function hue(name) {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  return `hue-${(hash >>> 0) % HUES}`;
}

function initials(name) {
  const words = name.split(/[\s._@-]+/).filter(Boolean);
  const letters = words.length > 1 ? words[0][0] + words.at(-1)[0] : [...name].slice(0, 2).join("");
  return letters.toUpperCase();
}

export function avatar(name, group = false) {
  return el("span", { class: `avatar ${hue(name)}`, "aria-hidden": "true" }, group ? icon("group") : initials(name));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const longDay = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const longDayYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

/** Days that lie between the two times, by the calendar of this place. */
function daysAgo(timeMs, nowMs) {
  const midnight = (ms) => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(nowMs) - midnight(timeMs)) / 86_400_000);
}

export const dayKey = (timeMs) => new Date(timeMs).setHours(0, 0, 0, 0);
export const timeOfDay = (timeMs) => clock.format(timeMs);

export function dayName(timeMs, nowMs = Date.now()) {
  const days = daysAgo(timeMs, nowMs);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const sameYear = new Date(timeMs).getFullYear() === new Date(nowMs).getFullYear();
  return (sameYear ? longDay : longDayYear).format(timeMs);
}

/** As short as a list wants it: 14:03, Mon, 3 May. */
export function shortTime(timeMs, nowMs = Date.now()) {
  const days = daysAgo(timeMs, nowMs);
  if (days <= 0) return clock.format(timeMs);
  if (days === 1) return "Yesterday";
  return (days < 7 ? weekday : shortDay).format(timeMs);
}

/** `alice`, `alice and bob`, `alice, bob and 3 others`. */
export function names(list, most = 3) {
  const shown = list.length > most + 1 ? list.slice(0, most).concat(`${list.length - most} others`) : list;
  if (shown.length < 2) return shown[0] ?? "";
  return `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

/** Text with its web addresses as links, and those who are meant by it marked; nothing else is markup. */
export function linked(text, { mentions = [], everybody = false } = {}) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]']|(?<![^\s(])@[\x21-\x7e]+/g)) {
    const part = match[0].startsWith("@") ? mentioned(match[0], mentions, everybody) : webAddress(match[0]);
    if (!part) continue;
    parts.push(text.slice(from, match.index), part.node);
    from = match.index + part.length;
  }
  parts.push(text.slice(from));
  return parts;
}

const webAddress = (address) => ({
  node: el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address),
  length: address.length,
});

/** The longest name that is meant, since what follows it may be a full stop. */
function mentioned(word, mentions, everybody) {
  const all = everybody ? [...mentions, EVERYBODY] : mentions;
  const name = all.filter((one) => word.slice(1).startsWith(one)).sort((a, b) => b.length - a.length)[0];
  return name && { node: el("span", { class: "mention" }, `@${name}`), length: name.length + 1 };
}

/** `@all` means everybody. */
export const EVERYBODY = "all";

/** Whom a text means, of those who are there. */
export function meantBy(text, members) {
  const words = [...text.matchAll(/(?<![^\s(])@([\x21-\x7e]+)/g)].map(([, word]) => word);
  const isMeant = (name) => words.some((word) => word === name || (word.startsWith(name) && /^[.,;:!?)]+$/.test(word.slice(name.length))));
  const mentions = members.filter(isMeant);
  return { ...(mentions.length > 0 ? { mentions } : {}), ...(isMeant(EVERYBODY) ? { everybody: true } : {}) };
}

/** What a conversation is called. */
export function conversationName(conversation) {
  if (conversation.direct) return conversation.direct === conversation.me ? `${conversation.direct} (you)` : conversation.direct;
  if (conversation.title) return conversation.title;
  const others = (conversation.members ?? []).filter((name) => name !== conversation.me);
  if (others.length > 0) return names(others);
  return conversation.memberCount > 1 ? `Group of ${conversation.memberCount}` : "Group";
}

/** What a message says; one that was deleted says nothing. */
export function messageText(entry) {
  if (entry.text !== undefined) return entry.text;
  if (entry.content_type) return `Data of the type ${entry.content_type}`;
  return entry.forwarded ? "A forwarded message" : "Message deleted";
}

/** Whether somebody is meant by a message of another. */
export const means = (entry, me) =>
  entry.sender !== me && (entry.everybody === true || (entry.mentions ?? []).includes(me));

/** What somebody becomes. */
const ROLES = { owner: "the owner", admin: "an admin", member: "a member", reader: "read-only" };

/** What happened, where an entry is no message. */
export function eventText(entry, me) {
  const who = entry.sender === me ? "You" : entry.sender;
  const them = (list) => names(list.map((name) => (name === me ? "you" : name)), 5);
  switch (entry.kind) {
    case "created":
      return entry.direct ? `${who} started the conversation` : `${who} created the group`;
    case "title":
      return entry.title ? `${who} named the group “${entry.title}”` : `${who} removed the group’s name`;
    case "membership": {
      const { added = [], removed = [] } = entry;
      if (removed.length === 1 && removed[0] === entry.sender) return `${who} left`;
      const parts = [];
      if (added.length > 0) parts.push(`added ${them(added)}`);
      if (removed.length > 0) parts.push(`removed ${them(removed)}`);
      return `${who} ${parts.join(" and ")}`;
    }
    case "roles":
      return `${who} ${entry.roles.map(({ user, role }) => `made ${them([user])} ${ROLES[role] ?? role}`).join(", ")}`;
    case "settings":
      return `${who} changed the group’s settings`;
    case "bans":
      return entry.banned ? `${who} banned ${them(entry.banned)}` : `${who} lifted the ban of ${them(entry.unbanned)}`;
    case "invite":
      return entry.change.made ? `${who} made an invite` : `${who} revoked invites`;
    case "joined":
      return `${who} joined by an invite`;
    case "edit":
      return `${who} edited a message`;
    case "deletion":
      return `${who} deleted a message`;
    case "reaction":
      return entry.on ? `${who} reacted with ${entry.reaction}` : `${who} took back ${entry.reaction}`;
    case "pin":
      return entry.on ? `${who} pinned a message` : `${who} unpinned a message`;
    case "retention":
      return `${who} removed earlier messages`;
    default:
      return `${who} did something that this version can’t show`;
  }
}
