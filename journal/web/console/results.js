/* What came of an operation, in words. */

import { code, h } from "./dom.js";
import { bytes, count, many, named, time } from "./words.js";

const LISTED = 100;

/** What an operation that has ended came to, as nodes. */
export function result({ kind, state, result: told }) {
  if (state === "failed") return h("p", { class: "error" }, `It failed: ${told?.detail ?? "nobody knows why"}.`);
  if (kind === "compact") return compacted(told);
  if (kind === "check") return checked(told);
  return h("pre", { tabindex: 0 }, JSON.stringify(told, null, 1));
}

function compacted(told) {
  const would = told.dry_run ? "would go" : "went";
  const goes = [many(told.changes, "change"), many(told.commits, "commit"), many(told.tombstones, "tombstone")];
  const lines = [];
  if (told.horizon === told.was) {
    lines.push(h("p", {}, `Nothing ${would}: the horizon stays at ${count(told.was)}.`));
  } else {
    lines.push(
      h("p", {}, `The horizon ${would} from ${count(told.was)} to `, h("strong", {}, count(told.horizon)), "."),
      h("p", {}, `${goes.slice(0, 2).join(", ")} and ${goes[2]} ${would}, about ${bytes(told.bytes)}.`),
    );
  }
  if (told.held_by.length && told.wanted > told.horizon) {
    lines.push(h("p", {}, `It was asked to go to ${count(told.wanted)}, and is held by:`));
    const holder = (it) => (it.what === "client" ? ["client ", code(it.name)] : "a snapshot that is kept");
    lines.push(h("ul", {}, told.held_by.map((it) => h("li", {}, holder(it), `, at revision ${count(it.revision)}`))));
  }
  if (told.cut_off.length) {
    const must = told.dry_run ? "would have to start again: the horizon would be" : "must start again: the horizon is";
    lines.push(h("p", { class: "warned" }, `${many(told.cut_off.length, "client")} ${must} above where they are.`));
    lines.push(capped(told.cut_off, (it) => [
      code(it.client), ` at revision ${count(it.revision)}, last seen `, time(it.last_seen),
    ]));
  } else {
    lines.push(h("p", {}, told.dry_run ? "No client would have to start again." : "No client has to start again."));
  }
  return h("div", { class: "result" }, lines);
}

function checked(told) {
  const span = `revisions ${count(told.from)} to ${count(told.revision)}`;
  const what = `${many(told.changes, "change")} and ${many(told.atoms, "atom")}, ${span}`;
  if (told.ok) {
    return h("div", { class: "result" }, h("p", { class: "state good" }, `Everything is as the record says: ${what}.`));
  }
  return h(
    "div", { class: "result" },
    h("p", { class: "state bad" }, `${told.more ? "More than " : ""}${many(told.faults.length, "fault")} in ${what}:`),
    capped(told.faults, (fault) => [h("strong", {}, fault.what), " ", named(fault.where), ": ", named(fault.detail)]),
    told.more && h("p", {}, "There are more than these."),
  );
}

function capped(items, words) {
  const rest = items.length - LISTED;
  const shown = items.slice(0, LISTED).map((it) => h("li", {}, words(it)));
  return h("ul", { class: "long", tabindex: 0 }, shown, rest > 0 && h("li", {}, `and ${count(rest)} more`));
}
