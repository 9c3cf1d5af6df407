/* Asking again and again, one answer at a time, while somebody looks. */

import { isShutOut } from "./api.js";

/** Calls `ask` at once and then every `ms` (or `ms()`) until the signal; `again()` asks now. `ask` throws nothing. */
export function poll(ms, signal, ask) {
  let timer;
  let isAsking = false;
  let isWanted = false;

  async function run() {
    clearTimeout(timer);
    if (signal.aborted || isShutOut()) return;
    if (isAsking) {
      isWanted = true;
      return;
    }
    isAsking = true;
    isWanted = false;
    try {
      await ask();
    } finally {
      isAsking = false;
      if (isWanted) run();
      else if (!signal.aborted && !isShutOut() && !document.hidden) timer = setTimeout(run, typeof ms === "function" ? ms() : ms);
    }
  }

  signal.addEventListener("abort", () => clearTimeout(timer));
  document.addEventListener("visibilitychange", () => document.hidden || run(), { signal });
  for (const event of ["online", "offline"]) addEventListener(event, run, { signal });
  run();
  return { again: run };
}
