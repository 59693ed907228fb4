// The tables: rows are made anew with each poll; what is focused in one that stays keeps the focus by its key.

import { $, el } from "../dom.js";
import * as form from "./format.js";

const cell = (text, kind = "") => el("td", kind ? { class: kind } : {}, text);
const number = (text) => cell(text, "number");

/** Puts rows into a table's body; what is said where there are none is the paragraph `no-…`. */
export function fill(id, rows) {
  const focused = $(id).contains(document.activeElement) ? document.activeElement.dataset.key : null;
  $(id).replaceChildren(...rows);
  if (focused) $(id).querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  const nothing = $(`no-${id}`);
  if (!nothing) return;
  nothing.hidden = rows.length > 0;
  $(id).parentElement.hidden = rows.length === 0;
}

function laneState(lane) {
  if (lane.antiphon_lane_fenced) return ["its log failed", "bad"];
  if (lane.antiphon_lane_storage_full) return ["disk full", "bad"];
  return lane.antiphon_lane_recovered ? ["open", ""] : ["recovering", "bad"];
}

/** A row a shard; its lane, if it has one, on the right. */
export function shards(figures) {
  const rows = figures.now.shards.map((shard) => {
    const of = (name) => figures.rate(name, shard.shard);
    const lanes = figures.now.lanes.filter((lane) => lane.shard === shard.shard);
    const row = el(
      "tr",
      {},
      cell(form.count(shard.shard)),
      number(form.count(shard.antiphon_connections)),
      number(form.count(shard.antiphon_sessions)),
      number(form.rate(of("antiphon_frames_in_total"))),
      number(form.rate(of("antiphon_deliveries_total"))),
      number(form.count(shard.antiphon_mesh_queue_frames)),
    );
    if (lanes.length === 0) {
      row.append(cell(form.NONE), ...Array.from({ length: 6 }, () => number(form.NONE)));
      return row;
    }
    const states = lanes.map((lane) => ({ lane: lane.lane, state: laneState(lane) }));
    const bad = states.some(({ state: [, kind] }) => kind === "bad");
    row.append(
      cell(states.map(({ lane, state: [text] }) => `${lane}, ${text}`).join("; "), bad ? "bad" : ""),
      number(form.rate(of("antiphon_acks_total"))),
      number(form.rate(of("antiphon_commits_total"))),
      number(form.latency(figures.percentile("antiphon_commit_latency_seconds", 0.99, shard.shard))),
      number(form.count(shard.antiphon_engine_pending)),
      number(form.bytes(shard.antiphon_log_bytes)),
      number(form.percent(figures.share("antiphon_cache_hits_total", "antiphon_cache_misses_total", shard.shard))),
    );
    return row;
  });
  fill("shards", rows);
}

export function conversations(list) {
  const row = (one) =>
    el(
      "tr",
      {},
      cell(one.conversation, "mono"),
      number(form.count(one.lane)),
      number(form.rate(one.messages_per_second)),
      number(form.rate(one.pushes_per_second)),
    );
  fill("conversations", list.map(row));
}

export function slow({ connections, count, uncounted }, look) {
  const rows = connections.map((one) => {
    const key = `${one.shard}.${one.connection}`;
    const user = one.user && el("button", { class: "link", type: "button", "data-key": key, onclick: () => look(one.user) }, one.user);
    return el(
      "tr",
      {},
      cell(user ?? form.NONE),
      cell(one.device ?? form.NONE),
      number(form.bytes(one.bytes)),
      number(form.duration(one.for_ms)),
      number(form.count(one.shard)),
      cell(one.connection, "mono"),
    );
  });
  fill("slow", rows);
  $("slow-count").textContent = count === 0 ? "" : `${form.count(count)}${uncounted > 0 ? " or more" : ""}`;
}

export function devices(list) {
  const row = (one) =>
    el(
      "tr",
      {},
      cell(one.device),
      number(form.count(one.shard)),
      cell(one.connection, "mono"),
      number(form.bytes(one.waiting_bytes)),
      number(one.heard_ms_ago === null ? form.NONE : `${form.duration(one.heard_ms_ago)} ago`),
    );
  fill("devices", list.map(row));
}

const WAYS = { in: "→ node", out: "← node", session: "session" };

export function event(one) {
  return el(
    "tr",
    { class: `way-${one.direction}` },
    cell(form.timeExact(one.time_ms)),
    cell(one.device),
    cell(WAYS[one.direction] ?? one.direction),
    cell(one.kind, "mono"),
    number(one.request ?? ""),
    cell(one.conversation ?? "", "mono"),
    number(one.direction === "session" ? "" : form.bytes(one.bytes)),
    number(form.bytes(one.waiting_bytes)),
  );
}
