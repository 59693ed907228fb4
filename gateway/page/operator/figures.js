// What the node's figures say over time: totals, rates and percentiles, from the differences between polls. No document in here.

/** Shards bring their figures up to date four times a second, so a rate over one second would jump by a quarter. */
const RATE_MS = 3_000;
/** Percentiles want more events than a quiet node has in three seconds. */
const PERCENTILE_MS = 10_000;
/** Polls that are kept whole: more than either takes. */
const KEPT = 16;

export class Figures {
  #polls = [];

  /** Takes a poll. False if the node has started again since the last one: what was counted before is no base for a rate. */
  take(figures) {
    const last = this.#polls.at(-1);
    const goesOn = !last || (figures.uptime_ms > last.uptime_ms && figures.shards.length === last.shards.length);
    if (!goesOn) this.#polls = [];
    this.#polls.push(figures);
    if (this.#polls.length > KEPT) this.#polls.shift();
    return goesOn;
  }

  get now() {
    return this.#polls.at(-1);
  }

  /** The sum of a gauge over the shards. */
  total(name) {
    return sum(this.now.shards.map((shard) => shard[name]));
  }

  /** How fast a counter rises, per second: of all shards, or of one. `null` if that is not known yet. */
  rate(name, shard = null) {
    return this.#rise(RATE_MS, (figures) => sum(of(figures, shard).map((one) => one[name])));
  }

  /** How fast errors are told, per second, by code. */
  errors() {
    const codes = Object.keys(this.now.shards[0]?.antiphon_errors_total ?? {});
    const told = (code) => (figures) => sum(figures.shards.map((shard) => shard.antiphon_errors_total[code] ?? 0));
    return Object.fromEntries(codes.map((code) => [code, this.#rise(RATE_MS, told(code))]));
  }

  /** The latency, in seconds, within which a part of the events of the last while stayed; `null` if there were none. */
  percentile(name, part, shard = null) {
    const base = this.#base(PERCENTILE_MS);
    if (!base) return null;
    const counts = (figures) =>
      figures.bounds_seconds.concat(Infinity).map((_, index) => sum(of(figures, shard).map((one) => one[name].buckets[index])));
    const before = counts(base);
    return percentile(this.now.bounds_seconds, counts(this.now).map((count, index) => count - before[index]), part);
  }

  /** One counter's rise as a part of its and another's. */
  share(name, other, shard) {
    const [one, both] = [this.rate(name, shard), this.rate(other, shard)];
    return one === null || one + both === 0 ? null : one / (one + both);
  }

  #rise(windowMs, pick) {
    const base = this.#base(windowMs);
    return base ? Math.max(0, (pick(this.now) - pick(base)) / ((this.now.uptime_ms - base.uptime_ms) / 1_000)) : null;
  }

  /** The oldest poll within the window before the last one. */
  #base(windowMs) {
    const { now } = this;
    // Polls are a second and a bit apart.
    return this.#polls.find((poll) => poll !== now && now.uptime_ms - poll.uptime_ms <= windowMs + 500);
  }
}

const of = (figures, shard) => (shard === null ? figures.shards : figures.shards.filter((one) => one.shard === shard));
const sum = (numbers) => numbers.reduce((total, number) => total + (number ?? 0), 0);

/** By linear interpolation within the bucket that it falls into; beyond the last bound it is not known. */
export function percentile(bounds, counts, part) {
  const all = sum(counts);
  if (all === 0) return null;
  let left = part * all;
  for (const [index, count] of counts.entries()) {
    if (left <= count && count > 0) {
      if (index === bounds.length) return Infinity;
      const from = index === 0 ? 0 : bounds[index - 1];
      return from + (bounds[index] - from) * (left / count);
    }
    left -= count;
  }
  return Infinity;
}
