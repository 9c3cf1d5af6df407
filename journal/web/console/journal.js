/* One journal: its figures, its chart, and the sections that act on it. */

import { journalPath, read } from "./api.js";
import { actions } from "./actions.js";
import { audit } from "./audit.js";
import { chart, lately } from "./chart.js";
import { clients } from "./clients.js";
import { collections } from "./collections.js";
import { focusOn, h, say, section, set, trouble } from "./dom.js";
import { operations } from "./operations.js";
import { poll } from "./poll.js";
import { heard } from "./said.js";
import { operates, reads } from "./session.js";
import { count, rate, size } from "./words.js";

const EVERY_MS = 2000;
const FIGURES = [
  ["head", "Head", "The revision of the newest change."],
  ["horizon", "Horizon", "The oldest revision that deltas can still start from."],
  ["commits", "Commits/s", "The mean of the last ten seconds."],
  ["changes", "Revisions/s", "The mean of the last ten seconds."],
  ["atoms", "Atoms", "Those that live."],
  ["bytes", "Size", "Estimated from what rows of the record and of the state take on average."],
  ["clients", "Clients", "Those that were seen, with an id of their own."],
  ["behind", "Resync waits for", "Clients that were asked to start again and have not done so yet."],
];

const READERS = ["head", "horizon", "atoms"]; // the figures of who does not operate it

/** The view of a journal, until the signal. */
export function journal(name, signal) {
  const context = { name, signal, head: null, stats: null, changed, parts: new Map(), show: null };
  const error = trouble();
  const epoch = h("code", {});
  const isOperator = operates(name);
  const shown = FIGURES.filter(([key]) => isOperator || READERS.includes(key));
  const values = new Map(shown.map(([key]) => [key, h("dd", {})]));
  const figure = ([key, label, title]) => h("div", { title }, h("dt", {}, label), values.get(key));
  const figures = h("dl", { class: isOperator ? "figures-row" : "figures-row few" }, shown.map(figure));
  const bars = chart();

  const sections = isOperator
    ? [
      ["chart", section("chart", "Commits", bars.element)],
      ["clients", clients(context)],
      ["audit", audit(context)],
      ["actions", actions(context)],
      ["collections", collections(context)],
      ["operations", operations(context)],
    ]
    : [["collections", collections(context)]];
  const rest = h("div", { class: "journal" });
  const links = h("nav", { class: "jump", "aria-label": "Parts of this page" }, sections.map(([key, element]) =>
    h("a", { href: `#/${name}/${key}` }, element.querySelector("h3").firstChild.textContent)));
  const of = (...keys) => sections.filter(([key]) => keys.includes(key)).map(([, element]) => element);
  const element = h(
    "div",
    { class: "journal" },
    h("div", { class: "heading" }, h("h2", { class: "name" }, name), h("p", { class: "muted" }, "epoch ", epoch)),
    error.element,
    rest,
  );
  rest.append(
    figures,
    ...(isOperator
      ? [
        links,
        h("div", { class: "columns" },
          h("div", {}, of("chart", "clients", "audit")),
          h("div", {}, of("actions", "collections", "operations"))),
      ]
      : [h("p", { class: "muted" }, allowed(reads(name))), of("collections")].flat()),
  );

  async function refresh() {
    try {
      const [head, stats] = await Promise.all([
        read(journalPath(name), {}, signal),
        isOperator ? read(journalPath(name, "/stats"), {}, signal) : null,
      ]);
      Object.assign(context, { head, stats });
      heard("figures", null);
      error.tell(null);
      rest.hidden = false;
      say(epoch, head.epoch);
      say(values.get("head"), count(head.head));
      say(values.get("horizon"), count(head.horizon));
      say(values.get("atoms"), count(head.atoms));
      if (!stats) return;
      const speed = lately(stats);
      say(values.get("commits"), rate(speed.commits));
      say(values.get("changes"), rate(speed.changes));
      say(values.get("bytes"), size(stats));
      say(values.get("clients"), count(stats.clients));
      say(values.get("behind"), count(stats.behind));
      set(values.get("behind"), "class", stats.behind ? "is-warned" : null);
      bars.show(stats);
    } catch (problem) {
      heard("figures", problem);
      error.tell(problem);
      if (problem.code === "journal_not_found") rest.hidden = true;
    }
  }

  const polling = poll(EVERY_MS, signal, refresh);
  signal.addEventListener("abort", () => heard("figures", null));

  /** Something was done: everything is asked anew. */
  function changed() {
    polling.again();
    for (const part of context.parts.values()) part.again();
  }

  return {
    element,
    /** Goes to a section, or to what it has of this id. */
    to(key, id) {
      const isShown = context.parts.get("clients")?.show(key === "clients" ? id : undefined);
      const target = sections.find(([known]) => known === key)?.[1];
      if (target && !isShown) focusOn(target);
    },
  };
}

/** What who reads some collections, or all, is told of that. */
function allowed(names) {
  const what = names === null ? "all collections" : `the collections ${names.join(", ")}`;
  return `You may read ${what}. What operators see and do here needs an operator's token.`;
}
