// One message of the transcript as the document shows it: its words, what it answers, how it fares, what became of it.

import { avatar, el, hue, icon, linked, means, messageText, timeOfDay } from "./dom.js";

export class MessageView {
  /** @param {object} actions   see transcript.js */
  constructor(actions) {
    this.actions = actions;
  }

  /** What is to be shown of a row: `{key, mark, make}`. */
  item(row, conversation, { start, end, isLast }) {
    const own = row.sender === conversation.me;
    const state = own ? fares(row, conversation) : null;
    const quote = quoted(row, conversation);
    const told = conversation.state(row.sequence);
    const view = {
      ...{ own, state, quote, start, end, group: !conversation.direct, me: conversation.me },
      isGone: told.deleted,
      isEdited: told.edited !== null && !told.deleted,
      isPinned: told.pinned,
      replies: told.replies,
      reactions: row.reactions ?? told.reactions,
      canAct: row.state === undefined && !told.deleted,
      text: messageText(row),
    };
    const { isGone, isEdited, isPinned, replies, canAct, text } = view;
    const said = [
      state?.icon,
      state?.label,
      state?.note,
      quote?.whom,
      quote?.text,
      isGone,
      isEdited,
      isPinned,
      replies,
      canAct,
      row.failure,
    ];
    const reacted = view.reactions.map(({ reaction, count, mine }) => `${reaction}${count}${mine}`);
    const mark = JSON.stringify([start, end, text, row.time_ms, own && isLast, ...said, ...reacted]);
    return { key: row.key, mark, make: () => this.#node(row, view) };
  }

  #node(row, view) {
    const { own, state, start, end, group } = view;
    const classes = ["message", own ? "own" : "other", start && "start", end && "end", view.isGone && "gone"];
    if (row.failure) classes.push("failed");
    if (means(row, view.me)) classes.push("means-me");
    const side = !own && group ? el("span", { class: "side" }, end ? avatar(row.sender) : null) : null;
    const node = el("li", { class: classes.filter(Boolean).join(" ") }, side, this.#bubble(row, view));
    if (view.reactions.length > 0) node.append(this.#reactions(row, view.reactions));
    if (row.failure) node.append(this.#failure(row, state?.icon === "failed" ? "Not sent" : "Not changed"));
    return node;
  }

  #bubble(row, view) {
    const { own, state, quote, start, group } = view;
    // A tap gives it the focus, and with that what can be done with it.
    const bubble = el("div", { class: "bubble", tabindex: "-1" });
    // A screen reader hears who speaks before every message; the eye needs it once a group.
    if (!own && group && start) bubble.append(el("span", { class: `sender ${hue(row.sender)}` }, row.sender));
    else bubble.append(el("span", { class: "hidden-text" }, own ? "You: " : `${row.sender}: `));
    if (quote) {
      const whom = el("span", { class: "quoted" }, el("span", { class: "hidden-text" }, "answers "), quote.whom);
      const onclick = () => this.actions.show(quote.sequence);
      const attributes = { type: "button", class: "quote", tabindex: "-1", title: "Show it", onclick };
      bubble.append(el("button", attributes, whom, el("span", { class: "quote-text", dir: "auto" }, quote.text)));
    }
    const words = view.isGone ? [view.text] : linked(view.text, row);
    bubble.append(el("span", { class: "text", dir: "auto" }, ...words), meta(row, view, state));
    if (view.replies > 0) {
      const text = view.replies === 1 ? "1 reply" : `${view.replies} replies`;
      bubble.append(el("span", { class: "replies" }, icon("reply"), text));
    }
    if (view.canAct) bubble.append(this.#actions(row, own));
    return bubble;
  }

  /** Not more stops for the tab key with every message: the composer takes the arrow keys for them. */
  #actions(row, own) {
    const whose = own ? "your message" : row.sender;
    const button = (label, title, name, onclick) =>
      el("button", { type: "button", class: "act", tabindex: "-1", "aria-label": label, title, onclick }, icon(name));
    return el(
      "span",
      { class: "acts" },
      button(`Reply to ${whose}`, "Reply", "reply", () => this.actions.reply(row.sequence)),
      button(`More about ${own ? "your message" : `the message of ${row.sender}`}`, "More", "more", (event) =>
        this.actions.more(event.currentTarget, row.sequence),
      ),
    );
  }

  #reactions(row, reactions) {
    const chips = reactions.map(({ reaction, count, mine }) => {
      const label = `${reaction}, ${count}${mine ? ", yours too" : ""}`;
      const onclick = () => this.actions.react(row.sequence, reaction, !mine);
      const attributes = { type: "button", class: "reaction", "aria-pressed": String(mine), "aria-label": label, onclick };
      return el("button", attributes, el("span", {}, reaction), count > 1 ? el("span", { class: "count" }, String(count)) : null);
    });
    return el("div", { class: "reactions" }, ...chips);
  }

  #failure(row, what) {
    return el(
      "div",
      { class: "failure" },
      el("span", { role: "alert" }, `${what}: ${row.failure}. `),
      el("button", { type: "button", class: "link", onclick: () => this.actions.retry(row.failureId) }, "Try again"),
      el("button", { type: "button", class: "link", onclick: () => this.actions.discard(row.failureId) }, "Discard"),
    );
  }
}

function meta(row, view, state) {
  const time = el("time", { datetime: new Date(row.time_ms).toISOString() }, timeOfDay(row.time_ms));
  const node = el("span", { class: "meta" }, time);
  if (view.isEdited) node.prepend(el("span", { class: "edited" }, "edited"));
  if (view.isPinned) node.prepend(icon("pin", "Pinned"));
  if (state?.note) node.prepend(el("span", { class: "note" }, state.note));
  if (state) node.append(el("span", { class: `mark${state.read ? " read" : ""}` }, icon(state.icon, state.label || null)));
  return node;
}

/** What a message answers, as far as it is here. */
function quoted(row, conversation) {
  const sequence = row.reply_to ?? row.thread;
  if (!sequence) return null;
  const entry = conversation.at(sequence);
  if (entry?.kind !== "message") return { sequence, whom: "an earlier message", text: "" };
  return { sequence, whom: entry.sender === conversation.me ? "you" : entry.sender, text: messageText(entry) };
}

/** How an own message fares. */
function fares(row, conversation) {
  if (row.state === "failed") return { icon: "failed", label: "Not sent" };
  if (row.state === "pending") return { icon: "clock", label: "Waiting to be sent" };
  if (row.state === "changing") return { icon: "clock", label: "Waiting to be changed" };
  const { delivered, read, others } = conversation.reach(row.sequence);
  if (conversation.direct) {
    if (read > 0) return { icon: "delivered", label: "Read", read: true };
    return delivered > 0 ? { icon: "delivered", label: "Delivered" } : { icon: "sent", label: "Sent" };
  }
  if (read > 0) return { icon: "delivered", label: "", note: read >= others ? "Read by all" : `Read by ${read}`, read: true };
  return delivered >= others ? { icon: "delivered", label: "Delivered to all" } : { icon: "sent", label: "Sent" };
}
