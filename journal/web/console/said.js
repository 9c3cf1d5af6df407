/* What is announced: what was done, and whether the service is there at all. */

import { clock } from "./words.js";
import { say } from "./dom.js";

const strip = document.getElementById("said");
const line = strip.querySelector("p");
const away = document.getElementById("away");
const failing = new Map();
let since = null;

strip.querySelector("button").addEventListener("click", () => {
  strip.hidden = true;
  document.getElementById("main").focus({ preventScroll: true });
});

/** Tells in a line at the page's end what was done. */
export function announce(text) {
  strip.hidden = false;
  line.textContent = "";
  requestAnimationFrame(() => { line.textContent = text; });
}

/** What a part of the page that asks all the time has met: null where it was answered. */
export function heard(part, error) {
  if (error?.name === "AbortError") return;
  if (error?.isAway) failing.set(part, error);
  else failing.delete(part);
  const [worst] = failing.values();
  if (worst) {
    since ??= Date.now();
    const what = worst.status ? "The service answers, but cannot reach its database." : worst.message;
    say(away, `${what} What is shown is of ${clock(since)}. Asking again every few seconds.`);
  } else if (since !== null) {
    since = null;
    announce("The service answers again.");
  }
  away.hidden = !worst;
  document.body.classList.toggle("is-away", Boolean(worst));
}
