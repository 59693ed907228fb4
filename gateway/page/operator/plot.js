// A small plot of the last five minutes: lines in an SVG, the values of now as text, the ends of both axes.

import { el } from "../dom.js";
import { NONE, time } from "./format.js";

export const SPAN_MS = 5 * 60_000;
const [WIDTH, HEIGHT] = [300, 100];
/** Without a value for so long the line has a gap. */
const GAP_MS = 2_500;
const LINES_MAX = 4;
const SVG = "http://www.w3.org/2000/svg";

const svg = (name, attributes) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

export class Plot {
  /** `values`: by the name of a line. With `some`, only lines that are ever above 0 are shown, the highest ones. */
  constructor({ title, unit, form, some = null }) {
    Object.assign(this, { title, form, some, samples: [], pointed: null });
    this.at = el("span", { class: "at" });
    this.chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title });
    this.top = el("span", { class: "top-of", "aria-hidden": "true" });
    this.foot = el("span", { class: "foot-of", "aria-hidden": "true" });
    this.values = el("ul", { class: "values", role: "list" });
    const box = el("div", { class: "chart" }, this.chart, this.top, this.foot);
    box.addEventListener("pointermove", (event) => this.#point(event));
    box.addEventListener("pointerleave", () => this.#point(null));
    this.element = el(
      "article",
      { class: "plot" },
      el("h3", {}, title, el("span", {}, unit), this.at),
      box,
      el("div", {}, el("div", { class: "ends", "aria-hidden": "true" }, el("span", {}, "5 min ago"), el("span", {}, "now")), this.values),
    );
  }

  push(timeMs, values) {
    this.samples.push({ timeMs, values });
    while (this.samples[0].timeMs < timeMs - SPAN_MS) this.samples.shift();
  }

  draw() {
    const last = this.samples.at(-1);
    if (!last) return;
    const names = this.#names();
    const finite = names.flatMap((name) => this.samples.map(({ values }) => values[name])).filter(Number.isFinite);
    const highest = Math.max(0, ...finite);
    const top = roundUp(highest, this.form);
    const x = (timeMs) => WIDTH * (1 - (last.timeMs - timeMs) / SPAN_MS);
    const y = (value) => HEIGHT * (1 - Math.min(value, top) / top);
    const parts = [0, 0.5, 1].map((part) => line("grid", 0, WIDTH, HEIGHT * part, HEIGHT * part));
    names.forEach((name, index) => {
      const runs = this.#runs(name).map((run) => run.map(({ timeMs, value }) => [x(timeMs), y(value)].map((number) => number.toFixed(1))));
      const d = runs.map((run) => `M${run.map((point) => point.join(" ")).join("L")}`).join("");
      if (names.length === 1) {
        const area = runs.map((run) => `M${run[0][0]} ${HEIGHT}L${run.map((point) => point.join(" ")).join("L")}L${run.at(-1)[0]} ${HEIGHT}Z`);
        parts.push(svg("path", { class: `area line-${index}`, d: area.join("") }));
      }
      parts.push(svg("path", { class: `line line-${index}`, d, "vector-effect": "non-scaling-stroke" }));
    });
    const shown = this.#shown(last);
    if (shown !== last) parts.push(line("cursor", x(shown.timeMs), x(shown.timeMs), 0, HEIGHT));
    this.chart.replaceChildren(...parts);
    this.top.textContent = this.form(top);
    this.foot.textContent = "0";
    this.at.textContent = shown === last ? "" : `at ${time(shown.timeMs)}`;
    const value = (name) => this.form(shown.values[name]);
    const items = names.map((name, index) =>
      el("li", { class: `line-${index}` }, names.length > 1 || this.some ? el("i", { "aria-hidden": "true" }) : null, el("b", {}, value(name)), name),
    );
    this.values.replaceChildren(...(items.length > 0 ? items : [el("li", {}, el("b", {}, this.some ?? NONE))]));
    const said = names.map((name) => `${name} ${this.form(last.values[name])}`).join(", ");
    this.chart.setAttribute("aria-label", `${this.title}, the last five minutes. Now: ${said || "none"}. Highest: ${this.form(highest)}.`);
  }

  #names() {
    const names = Object.keys(this.samples.at(-1).values);
    if (this.some === null) return names;
    const most = (name) => Math.max(...this.samples.map(({ values }) => values[name] ?? 0));
    return names.filter((name) => most(name) > 0).sort((one, other) => most(other) - most(one)).slice(0, LINES_MAX);
  }

  /** The stretches in which a line has values. */
  #runs(name) {
    const runs = [];
    let before = null;
    for (const { timeMs, values } of this.samples) {
      const value = values[name];
      if (!Number.isFinite(value) && value !== Infinity) {
        before = null;
        continue;
      }
      if (before === null || timeMs - before > GAP_MS) runs.push([]);
      runs.at(-1).push({ timeMs, value });
      before = timeMs;
    }
    return runs;
  }

  #point(event) {
    const box = this.chart.getBoundingClientRect();
    this.pointed = event && (event.clientX - box.left) / box.width;
    this.draw();
  }

  /** The sample whose values are told: the last, or the one that is pointed at. */
  #shown(last) {
    if (this.pointed === null) return last;
    const timeMs = last.timeMs - SPAN_MS * (1 - this.pointed);
    const off = (sample) => Math.abs(sample.timeMs - timeMs);
    return this.samples.reduce((best, sample) => (off(sample) < off(best) ? sample : best), last);
  }
}

const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];
const STEPS_OF_BYTES = Array.from({ length: 11 }, (_, power) => [2 ** power, 1.5 * 2 ** power]).flat();

const line = (name, x1, x2, y1, y2) => svg("line", { class: name, x1, x2, y1, y2, "vector-effect": "non-scaling-stroke" });

/** The end of an axis, a round number above the highest value: of tens, or of powers of two where the values are bytes. */
function roundUp(value, form) {
  if (value <= 0) return form.axisMin ?? 1;
  // A line does not lie on the edge.
  const highest = value * 1.05;
  const base = form.axisBase ?? 10;
  const power = base ** Math.floor(Math.log(highest) / Math.log(base) + 1e-9);
  const steps = base === 10 ? STEPS : STEPS_OF_BYTES;
  return Math.max(form.axisMin ?? 0, power * steps.find((step) => power * step >= highest));
}
