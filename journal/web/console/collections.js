/* The collections, and asking whoever has one of them to start again. */

import { act, journalPath, read } from "./api.js";
import { ask, REASON, spread } from "./ask.js";
import { button, h, keyed, newId, say, scrolling, section, set, table, trouble } from "./dom.js";
import { poll } from "./poll.js";
import { announce } from "./said.js";
import { operates } from "./session.js";
import { count, named } from "./words.js";

const SHOWN = 100;
const EVERY_MS = 5000;

export function collections(context) {
  const { name, signal } = context;
  const mayAct = operates(name);
  const id = newId("filter");
  const attributes = { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Part of a name" };
  const filter = h("input", { id, ...attributes });
  const error = trouble();
  const note = h("p", { class: "muted" });
  const grid = table("Collections", [["Collection"], ["Atoms", "number"], ["Policy"], ...(mayAct ? [["Action", "acts"]] : [])]);
  const element = section(
    "collections", "Collections",
    h("label", { class: "unseen", for: id }, "Filter collections"), filter,
    error.element, note,
    scrolling("Collections", grid.element),
  );
  let told = [];

  function show() {
    const text = filter.value.trim().toLowerCase();
    const fit = told.filter((collection) => collection.name.toLowerCase().includes(text));
    keyed(grid.body, fit.slice(0, SHOWN), (collection) => collection.name, row);
    filter.hidden = told.length < 8;
    note.hidden = fit.length > 0 && fit.length <= SHOWN;
    if (!told.length) say(note, "There are none yet.");
    else say(note, fit.length ? `The first ${SHOWN} of ${count(fit.length)}.` : "None has that in its name.");
    set(grid.element, "hidden", !fit.length);
  }

  function row({ name: collection }) {
    const atoms = grid.cell(1);
    const policy = grid.cell(2);
    const resync = button("Resync…", () => asked(collection), { "aria-label": `Resync collection ${collection}` });
    return {
      element: h("tr", {}, grid.cell(0, named(collection)), atoms, policy, mayAct && grid.cell(3, resync)),
      update(it) {
        say(atoms, count(it.atoms));
        say(policy, it.policy ?? "as pushes ask");
      },
    };
  }

  function asked(collection) {
    return ask({
      title: "Resync a collection",
      says: [
        h("span", {}, "Every client that asks for the collection ", named(collection), " is told to start again: it takes " +
          "a snapshot in place of its data."),
        "Changes that a client has not pushed yet stay with it. Nothing is removed from the journal. It cannot be taken " +
          "back.",
      ],
      fields: [REASON, spread(60)],
      verb: "Resync this collection",
      act: async ({ reason, spread_s }) => {
        const body = { collections: [collection], spread_s, reason };
        const { revision } = await act("POST", journalPath(name, "/resync"), body);
        announce(`Whoever asks for the collection ${collection} starts again: revision ${count(revision)}.`);
        context.changed();
      },
    });
  }

  filter.addEventListener("input", show);
  context.parts.set("collections", poll(EVERY_MS, signal, async () => {
    try {
      told = (await read(journalPath(name, "/collections"), {}, signal)).collections;
      error.tell(null);
      show();
    } catch (problem) {
      error.tell(problem);
    }
  }));
  return element;
}
