/* The audit log: what operators did, newest first. */

import { journalPath, read } from "./api.js";
import { code, h, keyed, say, scrolling, section, set, table, trouble } from "./dom.js";
import { finder, paged, scan } from "./pages.js";
import { poll } from "./poll.js";
import { count, many, named, setTime } from "./words.js";

const PAGE = matchMedia("(max-width: 60rem)").matches ? 10 : 25;
const FOUND = 100;
const EVERY_MS = 6000;

const WORDS = {
  resync: (it) => [whom(it), ` starts again, revision ${count(it.revision)}${overTime(it)}: `, named(it.reason)],
  forget: (it) => ["client ", code(it.client), " is forgotten"],
  compact: (it) => [
    it.horizon === it.was ? `horizon left at ${count(it.was)}` : `horizon from ${count(it.was)} to ${count(it.horizon)}`,
    it.force ? ", without waiting for clients" : "",
  ],
  erase: (it) => [named(it.atom), " of ", named(it.collection), ` erased at revision ${count(it.revision)}`],
  settle: (it) => [
    `conflict ${it.conflict} about `, named(it.atom), " of ", named(it.collection), ` settled: ${KEPT[it.keep]}`,
    it.copy === undefined ? "" : [" as ", named(it.copy)],
  ],
  restored: (it) => [`new epoch ${it.epoch} after ${it.was}, from revision ${count(it.revision)} on${overTime(it)}`],
  policy: (it) => [named(it.collection), ": ", it.policy === null ? "as pushes ask" : String(it.policy)],
};

const KEPT = { server: "what stands stays", client: "the client's version", both: "both, the client's version" };

function whom(it) {
  if (it.client) return ["client ", code(it.client)];
  if (!it.collections) return "everyone";
  return ["whoever asks for ", it.collections.flatMap((name, at) => [at ? ", " : "", named(name)])];
}

const overTime = (it) => (it.spread_s ? `, spread over ${count(it.spread_s)} s` : "");

function told({ action, detail }) {
  try {
    return WORDS[action](detail);
  } catch {
    return [h("code", {}, JSON.stringify(detail))]; // an action, or a form of one, that this page does not know
  }
}

export function audit(context) {
  const { name, signal } = context;
  const error = trouble();
  const note = h("p", { class: "muted", role: "status" });
  const grid = table("Audit log, newest first", [["When"], ["Who"], ["What"], ["Details"]]);
  const pages = paged(() => polling.again());
  const page = (query) => read(journalPath(name, "/audit"), query, signal);
  let found = null;

  const find = finder("Find", "Who, what, which, why", {
    async look(text, isOver) {
      const parts = (entry) => [entry.by, entry.action, entry.at, JSON.stringify(entry.detail)];
      const fits = (entry) => parts(entry).some((part) => part.toLowerCase().includes(text));
      found = await scan(page, (it) => it.audit, fits, isOver);
      polling.again();
    },
    clear() {
      found = null;
      pages.reset();
      polling.again();
    },
    failed: error.tell,
  });

  function row(entry) {
    const at = h("time", {});
    const who = grid.cell(1, named(entry.by));
    return {
      element: h("tr", {}, grid.cell(0, at), who, grid.cell(2, entry.action), grid.cell(3, ...told(entry))),
      update: (it) => setTime(at, it.at),
    };
  }

  async function refresh() {
    try {
      const asked = found ? null : await page({ limit: PAGE, after: pages.after() });
      const entries = found ? found.rows.slice(0, FOUND) : (asked?.audit ?? []);
      keyed(grid.body, entries, (entry) => entry.id, row);
      set(grid.element, "hidden", !entries.length);
      note.hidden = !found && entries.length > 0;
      if (found) {
        const first = found.rows.length > FOUND ? `The first ${FOUND} of ` : "";
        const all = found.isAll ? "" : ` among the newest ${count(found.looked)}`;
        say(note, `${first}${many(found.rows.length, "match", "matches")}${all}.`);
        pages.reset();
      } else {
        say(note, "No operator has done anything here yet.");
        pages.show(asked, ", newest first");
      }
      error.tell(null);
    } catch (problem) {
      error.tell(problem);
    }
  }

  const polling = poll(EVERY_MS, signal, refresh);
  context.parts.set("audit", polling);
  return section(
    "audit", "Audit log",
    h("div", { class: "tools" }, find.label, find.input),
    error.element, note, scrolling("Audit log", grid.element), pages.element,
  );
}
