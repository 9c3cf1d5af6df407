/* The clients, the furthest behind first. */

import { journalPath, read } from "./api.js";
import { alone, forget, lag, resync, standing, theClient } from "./client.js";
import { button, h, keyed, say, scrolling, section, set, table, trouble } from "./dom.js";
import { finder, paged, scan } from "./pages.js";
import { poll } from "./poll.js";
import { count, many, setTime } from "./words.js";

const PAGE = matchMedia("(max-width: 60rem)").matches ? 10 : 25;
const FOUND = 100;
const EVERY_MS = 4000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function clients(context) {
  const { name, signal } = context;
  const error = trouble();
  const note = h("p", { class: "muted", role: "status" });
  const unseen = h("div", { class: "unseen-client", hidden: true });
  const grid = table("Clients, the furthest behind first", [
    ["Client"], ["Lag", "number"], ["At revision", "number"], ["Last seen"], ["State"], ["Actions", "acts"],
  ]);
  const box = scrolling("Table of clients", grid.element);
  const pages = paged(() => polling.again());
  const page = (query) => read(journalPath(name, "/clients"), query, signal);
  let drawn = null; // which page or search the table shows
  let found = null;
  let one = null; // the client that is shown alone

  const find = finder("Find", "Part of id, agent or state", {
    async look(text, isOver) {
      const parts = (it) => [it.client, it.agent ?? "", standing(it, context.head)[1]];
      const fits = (it) => parts(it).some((part) => part.toLowerCase().includes(text));
      const told = UUID.test(text) ? await byId(text) : await scan(page, (it) => it.clients, fits, isOver);
      isOver.throwIfAborted();
      found = { text, ...told };
      polling.again();
    },
    clear() {
      found = null;
      unseen.hidden = true;
      pages.reset();
      polling.again();
    },
    failed: error.tell,
  });
  const tools = h("div", { class: "tools" }, find.label, find.input);
  const list = h("div", {}, tools, error.element, note, unseen, box, pages.element);
  const detail = h("div", { class: "detail", hidden: true });
  const element = section("clients", "Clients", list, detail);
  const home = () => element.querySelector("h3");

  async function refresh() {
    try {
      if (one) await one.refresh();
      else if (found) await showFound();
      else await showPage();
      error.tell(null);
    } catch (problem) {
      error.tell(problem);
    }
  }

  async function showPage() {
    const told = await page({ limit: PAGE, after: pages.after() });
    if (found || one) return;
    draw(told.clients, `page ${pages.after()}`);
    pages.show(told, ", the furthest behind first");
    note.hidden = told.clients.length > 0;
    say(note, "No client was seen yet. One is listed once it asks with client=ID, an id of its own (a UUID).");
  }

  async function showFound() {
    const { text, isAll, looked } = found;
    const rows = found.rows.length > 5 ? found.rows : (await Promise.all(found.rows.map(anew))).filter(Boolean);
    if (found?.text !== text || one) return;
    draw(rows.slice(0, FOUND), `found ${text}`);
    pages.reset();
    note.hidden = false;
    const first = rows.length > FOUND ? `The first ${FOUND} of ` : "";
    const all = isAll ? "" : ` among the ${count(looked)} furthest behind; a whole id finds any client`;
    say(note, rows.length ? `${first}${many(rows.length, "match", "matches")}${all}.` : `No client fits${all}.`);
    const isUnseen = UUID.test(text) && rows.length === 0;
    if (isUnseen && unseen.hidden) {
      unseen.replaceChildren(
        h("p", {}, "A client can be asked to start again before it was ever seen here."),
        button("Resync it…", () => resync(context, text)),
      );
    }
    unseen.hidden = !isUnseen;
  }

  function draw(rows, key) {
    const isTouched = box.matches(":hover") || grid.body.contains(document.activeElement);
    keyed(grid.body, rows, (it) => it.client, row, { hold: isTouched && drawn === key });
    drawn = key;
    set(grid.element, "hidden", rows.length === 0);
  }

  const anew = ({ client }) => theClient(context, client);

  async function byId(client) {
    const it = await theClient(context, client);
    return { rows: it ? [it] : [], isAll: true, looked: 1 };
  }

  function row({ client }) {
    const behind = grid.cell(1);
    const revision = grid.cell(2);
    const seen = h("time", {});
    const state = h("span", { class: "state" });
    const agent = h("bdi", { class: "name agent" });
    const link = h("a", { class: "id", href: `#/${name}/clients/${client}` }, client);
    const acts = grid.cell(5, ...levers(client));
    return {
      element: h("tr", {}, grid.cell(0, link, agent), behind, revision, grid.cell(3, seen), grid.cell(4, state), acts),
      update(it) {
        const [kind, words] = standing(it, context.head);
        say(behind, lag(it));
        say(revision, it.revision === null ? "none" : count(it.revision));
        setTime(seen, it.last_seen);
        set(state, "class", `state ${kind}`);
        say(state, words);
        say(agent, it.agent ?? "");
        set(agent, "title", it.agent);
      },
    };
  }

  const levers = (client) => [
    button("Resync…", () => resync(context, client), { "aria-label": `Resync client ${client}` }),
    button("Forget…", () => forget(context, client, gone, home), { "aria-label": `Forget client ${client}`, class: "risky" }),
  ];

  function gone(client) {
    if (found) found.rows = found.rows.filter((it) => it.client !== client);
    if (one) location.hash = `#/${name}/clients`;
  }

  const polling = poll(EVERY_MS, signal, refresh);
  context.parts.set("clients", {
    again: polling.again,
    /** Shows one client alone, or without one all of them; true where the focus is at one, or back from one. */
    show(client) {
      const was = one?.client;
      if (client === was) return client !== undefined;
      one = client === undefined ? null : alone(context, client, detail, levers(client));
      detail.hidden = !one;
      list.hidden = Boolean(one);
      polling.again();
      if (one) {
        element.scrollIntoView({ block: "nearest" });
        one.heading.focus({ preventScroll: true });
      } else {
        const back = [...grid.body.querySelectorAll("a.id")].find((link) => link.textContent === was);
        (back ?? home()).focus();
      }
      return true;
    },
  });
  return element;
}
