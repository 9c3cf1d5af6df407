/* Long lists: a page at a time, or what is found by looking through all of it. */

import { button, h, newId, say, set } from "./dom.js";

const SCANNED = 20; // pages of a thousand that a search looks through
const PAUSE_MS = 200; // after the last key

/** Previous and Next; `again` asks anew, from `after()` on. */
export function paged(again) {
  let starts = [undefined];
  let next = null;
  const back = button("Previous", () => isOn(back) && (starts.pop(), again()), { class: "quiet" });
  const on = button("Next", () => isOn(on) && (starts.push(next), again()), { class: "quiet" });
  const text = h("span", { class: "muted" });
  const element = h("div", { class: "pager", hidden: true }, back, on, text);

  return {
    element,
    after: () => starts.at(-1),
    /** Tells of the page that came. */
    show(page, order) {
      next = page.next;
      element.hidden = starts.length === 1 && !page.more;
      set(back, "aria-disabled", starts.length === 1 ? "true" : null);
      set(on, "aria-disabled", page.more ? null : "true");
      say(text, `page ${starts.length}${order}`);
    },
    /** Begins at the first page. */
    reset() {
      starts = [undefined];
      element.hidden = true;
    },
  };
}

const isOn = (it) => it.getAttribute("aria-disabled") !== "true";

/** An input that finds: `look(text, signal)` once somebody has typed, `clear()` when nothing is there any more. */
export function finder(label, placeholder, { look, clear, failed }) {
  const id = newId("find");
  const input = h("input", { id, type: "search", autocomplete: "off", spellcheck: "false", placeholder });
  let looking = new AbortController();

  input.addEventListener("input", async () => {
    looking.abort();
    looking = new AbortController();
    const { signal } = looking;
    const text = input.value.trim().toLowerCase();
    if (!text) return clear();
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    try {
      if (!signal.aborted) await look(text, signal);
    } catch (problem) {
      failed(problem);
    }
    return undefined;
  });
  return { input, label: h("label", { for: id }, label) };
}

/** Looks through a list from its beginning: `page(query)` gives a page, `rows(page)` what is on it. */
export async function scan(page, rows, fits, signal) {
  const found = [];
  let looked = 0;
  let after;
  for (let pages = 1; ; pages += 1) {
    const told = await page({ limit: 1000, after });
    signal.throwIfAborted();
    looked += rows(told).length;
    found.push(...rows(told).filter(fits));
    after = told.next;
    if (!told.more || pages === SCANNED) return { rows: found, isAll: !told.more, looked };
  }
}
