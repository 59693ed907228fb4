// Numbers as a person reads them; each says its unit, or stands under one.

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const threeDigits = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 });

/** What is not known. */
export const NONE = "–";

const known = (form) => (value) => (value === null || value === undefined || Number.isNaN(value) ? NONE : form(value));

export const count = known((value) => whole.format(value));

/** Three digits, and more only before the point: 0.346, 12.3, 1,240. */
const digits = (value) => (value >= 100 ? whole : threeDigits).format(value);

/** A rate or a mean. */
export const rate = known((value) => digits(value < 0.005 ? 0 : value));

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB"];

export const bytes = known((value) => {
  const step = value < 1024 ? 0 : Math.min(BYTES.length - 1, Math.floor(Math.log2(value) / 10));
  return `${digits(value / 1024 ** step)} ${BYTES[step]}`;
});

/** A latency in seconds. */
export const latency = known((seconds) => {
  if (seconds === Infinity) return "> 5 s";
  return seconds >= 1 ? `${threeDigits.format(seconds)} s` : `${threeDigits.format(seconds * 1_000)} ms`;
});

export const percent = known((part) => `${threeDigits.format(part * 100)} %`);

/** How long something lasts, in milliseconds: 3 s, 4 min 10 s, 2 h 5 min, 3 d 4 h. */
export const duration = known((ms) => {
  const seconds = Math.floor(ms / 1_000);
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => seconds >= length);
  if (first < 0) return `${Math.round(ms)} ms`;
  const [unit, length] = units[first];
  const rest = units[first + 1] && Math.floor((seconds % length) / units[first + 1][1]);
  return `${Math.floor(seconds / length)} ${unit}${rest ? ` ${rest} ${units[first + 1][0]}` : ""}`;
});

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const time = (ms) => clock.format(ms);
export const timeExact = (ms) => `${clock.format(ms)}.${String(ms % 1_000).padStart(3, "0")}`;
