/* The journals: a page of them by name, or those whose names hold what is typed. */

import { journalPath, read } from "./api.js";
import { h, keyed, say, set, trouble } from "./dom.js";
import { finder, paged, scan } from "./pages.js";
import { poll } from "./poll.js";
import { heard } from "./said.js";
import { operates, operatesAll } from "./session.js";
import { bytes, count, many, rate } from "./words.js";

const PAGE = 20;
const EVERY_MS = 4000;
const SIZE_MS = 60_000;

/** The list, in the `<details>` of the page; `selected()` is the name that is shown. */
export function journals(into, selected) {
  const list = h("ul", { class: "journals" });
  const note = h("p", { class: "muted", role: "status", hidden: true });
  const error = trouble();
  const heads = new Map(); // name: {epoch, head, at, rate} as they were last seen
  const sizes = new Map(); // name: {bytes, at}
  const pages = paged(() => polling.again());
  const page = (query) => read("v1/journals", query);
  let found = null; // names, while there is a filter
  let isMeasuring = false;

  const find = finder("Filter journals", "Part of a name", {
    async look(text, isOver) {
      found = await scan(page, (it) => it.journals, (it) => it.journal.includes(text), isOver);
      polling.again();
    },
    clear() {
      found = null;
      pages.reset();
      polling.again();
    },
    failed: error.tell,
  });
  find.label.className = "unseen";
  into.append(find.label, find.input, error.element, note, list, pages.element);

  async function shown() {
    if (found) {
      pages.reset();
      return (await Promise.all(found.rows.slice(0, PAGE).map((it) => headOf(it.journal)))).filter(Boolean);
    }
    const told = await page({ limit: PAGE, after: pages.after() });
    pages.show(told, "");
    const it = selected();
    const isElsewhere = it && !told.journals.some((head) => head.journal === it);
    const other = isElsewhere ? await headOf(it) : null;
    return other ? [other, ...told.journals] : told.journals;
  }

  async function refresh() {
    try {
      const told = await shown();
      heard("journals", null);
      error.tell(null);
      const at = performance.now();
      for (const { journal, epoch, head } of told) {
        const was = heads.get(journal);
        const isSame = was?.epoch === epoch && at > was.at;
        heads.set(journal, { epoch, head, at, rate: isSame ? ((head - was.head) * 1000) / (at - was.at) : null });
      }
      if (!selected() && !found && told.length === 1 && !pages.after()) location.replace(`#/${told[0].journal}`);
      note.hidden = found ? told.length > 0 && found.rows.length <= PAGE : told.length > 0;
      say(note, words(told));
      keyed(list, told, (head) => head.journal, row);
      measure(told.map((head) => head.journal));
    } catch (problem) {
      heard("journals", problem);
      error.tell(problem);
    }
  }

  function words(told) {
    if (!found && !operatesAll()) return "There is no journal that you may read.";
    if (!found) return "There are no journals yet. “journal create NAME” makes one, and so does PUT /v1/journals/NAME.";
    if (!told.length) return "No journal has that in its name.";
    return `The first ${PAGE} of ${many(found.rows.length, "match", "matches")}${found.isAll ? "" : " so far: type more"}.`;
  }

  function row() {
    const name = h("span", { class: "name" });
    const figures = h("span", { class: "figures" });
    const link = h("a", {}, name, figures);
    return {
      element: h("li", {}, link),
      update({ journal, head }) {
        const changes = heads.get(journal).rate;
        const size = sizes.get(journal)?.bytes;
        const parts = [`head ${count(head)}`, changes === null ? null : `${rate(changes)} rev/s`, size ? bytes(size) : null];
        say(name, journal);
        say(figures, parts.filter(Boolean).join(" · "));
        set(link, "href", `#/${journal}`);
        set(link, "aria-current", journal === selected() ? "page" : null);
      },
    };
  }

  /** Sizes, one journal after the other: they cost a query each. */
  async function measure(names) {
    if (isMeasuring) return;
    isMeasuring = true;
    try {
      for (const name of names) {
        if (!operates(name)) continue;
        if (performance.now() - (sizes.get(name)?.at ?? -Infinity) < SIZE_MS) continue;
        const stats = await read(journalPath(name, "/stats"));
        sizes.set(name, { bytes: stats.bytes, at: performance.now() });
      }
    } catch {
      // the journal went away, or the service did: the list itself tells
    } finally {
      isMeasuring = false;
    }
  }

  find.input.addEventListener("keydown", (event) => event.key === "Enter" && list.querySelector("a")?.click());
  const polling = poll(EVERY_MS, new AbortController().signal, refresh);
  return {
    /** Marks the one that is shown. */
    mark() {
      for (const link of list.querySelectorAll("a")) {
        set(link, "aria-current", link.getAttribute("href") === `#/${selected()}` ? "page" : null);
      }
    },
  };
}

async function headOf(name) {
  try {
    return await read(journalPath(name));
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}
