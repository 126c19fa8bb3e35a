// Numbers, times and addresses as text.

const STEPS = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A number with k, M, G ... in thousands, with three digits. */
export function short(value, unit = "") {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  for (const [step, letter] of STEPS) if (size >= step) return `${digits(value / step)} ${letter}${unit}`;
  return `${digits(value)}${unit ? " " + unit : ""}`;
}

function digits(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1000) return String(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/** A whole number with its thousands apart. */
export function exact(value) {
  return value === null || value === undefined ? "" : Number(value).toLocaleString("en-GB").replaceAll(",", " ");
}

/** Octets, in thousands. */
export const octets = (value) => short(value, "B");

/** A share as per cent. */
export const percent = (share) => (share === null || Number.isNaN(share) ? "" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);

/** Seconds as a span: 4 s, 12 min, 3 h, 2 d. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const size = Math.abs(seconds);
  if (size < 90) return `${size < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds)} s`;
  if (size < 5400) return `${Math.round(seconds / 60)} min`;
  if (size < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const two = (value) => String(value).padStart(2, "0");

/** A time (milliseconds since 1970) in the zone of the browser. */
export function clock(ms, seconds = true) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}${seconds ? ":" + two(at.getSeconds()) : ""}`;
}

/** Date and time in the zone of the browser. */
export function moment(ms, seconds = true) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms, seconds)}`;
}

/** The zone of the browser, such as UTC+02:00. */
export function zone(ms = Date.now()) {
  const ahead = -new Date(ms).getTimezoneOffset();
  const size = Math.abs(ahead);
  return ahead ? `UTC${ahead < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}` : "UTC";
}
