/* Numbers, times and sentences as they are shown. */

import { now } from "./api.js";
import { h, say, set } from "./dom.js";

const COUNT = new Intl.NumberFormat("en-GB");
const ONE_PLACE = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const STEPS = [[60, 1, "s"], [3600, 60, "min"], [48 * 3600, 3600, "h"], [Infinity, 86_400, "d"]];

export const count = (number) => COUNT.format(number);

export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

export function rate(number) {
  return number > 0 && number < 0.1 ? "<0.1" : ONE_PLACE.format(number);
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = number < 1000 ? 0 : Math.min(Math.floor(Math.log10(number) / 3), units.length - 1);
  return `${step ? ONE_PLACE.format(number / 1000 ** step) : count(number)} ${units[step]}`;
}

/** The size of a journal: PostgreSQL cannot estimate it before it has first looked through its tables. */
export function size(stats) {
  return stats.bytes === 0 && stats.head > 0 ? "unknown" : bytes(stats.bytes);
}

export function duration(seconds) {
  const [, size, unit] = STEPS.find(([below]) => seconds < below);
  return `${count(Math.floor(seconds / size))} ${unit}`;
}

export const clock = (ms) => CLOCK.format(ms);
export const moment = (text) => MOMENT.format(Date.parse(text));

function ago(text) {
  const seconds = (now() - Date.parse(text)) / 1000;
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

/** A <time> that tells how long ago, and exactly when in its title. */
export function time(text) {
  const element = h("time", {});
  setTime(element, text);
  return element;
}

export function setTime(element, text) {
  set(element, "datetime", text);
  set(element, "title", `${moment(text)} (${text})`);
  say(element, ago(text));
}

/** A name that somebody else chose: shown as it is, apart from the text around it. */
export function named(text) {
  return h("bdi", { class: "name" }, text);
}

const OUTCOMES = ["applied", "merged", "unchanged", "conflict", "rejected"];

export function outcomes(told) {
  if (!told) return "";
  const counts = new Map();
  for (const outcome of told) counts.set(outcome.status, (counts.get(outcome.status) ?? 0) + 1);
  const place = ([status]) => (OUTCOMES.includes(status) ? OUTCOMES.indexOf(status) : OUTCOMES.length);
  const sorted = [...counts].sort((one, other) => place(one) - place(other));
  return sorted.map(([status, number]) => `${count(number)} ${status}`).join(", ");
}
