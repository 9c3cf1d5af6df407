/* What concerns a journal as a whole: everyone starts again, compaction, check, erasure, a restored server. */

import { act, journalPath, read } from "./api.js";
import { ask, labelled, REASON, spread } from "./ask.js";
import { button, h, say, section, trouble } from "./dom.js";
import { result } from "./results.js";
import { announce } from "./said.js";
import { bytes, count, many } from "./words.js";

const LOOK_MS = 700;

export function actions(context) {
  const all = [everyone, compact, check, erase, restored];
  return section("actions", "Actions", all.map((it) => it(context)));
}

function action(title, text, ...children) {
  return h("div", { class: "action" }, h("h4", {}, title), h("p", { class: "muted" }, text), children);
}

/** Begins an operation and follows it to its end; `told` hears how far it is. */
async function followed(context, path, body, told) {
  let it = await act("POST", journalPath(context.name, path), body, { Prefer: "wait=1" });
  context.parts.get("operations").again();
  while (it.state === "running") {
    told(it.progress);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    try {
      it = await read(journalPath(context.name, `/operations/${it.id}`));
    } catch (problem) {
      if (!problem.isAway) throw problem;
    }
  }
  context.changed();
  return it;
}

/** Where an operation is shown: how far it is, and what came of it. */
function place() {
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const text = h("span", {});
  const running = h("p", { class: "running", hidden: true }, bar, text);
  const out = h("div", { class: "out", role: "status" });
  const error = trouble();
  return {
    element: h("div", {}, running, error.element, out),
    clear: () => { out.replaceChildren(); error.tell(null); },
    async during(words, work) {
      out.replaceChildren();
      error.tell(null);
      running.hidden = false;
      const told = (share) => {
        bar.value = share;
        say(text, `${words} ${Math.floor(share * 100)} %`);
      };
      told(0);
      try {
        const it = await work(told);
        out.replaceChildren(result(it));
        return it;
      } catch (problem) {
        error.tell(problem.isAway ? new Error(problem.message) : problem);
        return null;
      } finally {
        running.hidden = true;
      }
    },
  };
}

function everyone(context) {
  const known = () => context.stats?.clients ?? 0;
  const asked = () => ask({
    title: "Resync everyone",
    says: [
      `Every client of ${context.name} is told to start again when it next asks: it takes a snapshot in place of its ` +
        `data. Known so far: ${many(known(), "client")}.`,
      "Changes that a client has not pushed yet stay with it. Nothing is removed from the journal. It cannot be taken " +
        "back.",
    ],
    fields: [REASON, spread(Math.min(3600, Math.max(60, known())))],
    verb: "Resync everyone",
    act: async ({ reason, spread_s }) => {
      const { revision } = await act("POST", journalPath(context.name, "/resync"), { spread_s, reason });
      announce(`Everyone starts again, spread over ${count(spread_s)} s: revision ${count(revision)}.`);
      context.changed();
    },
  });
  return action(
    "Resync everyone",
    "All clients take a snapshot in place of their data. For one client or one collection, use its row.",
    button("Resync everyone…", asked),
  );
}

function compact(context) {
  const inputs = new Map();
  const where = place();
  let tried = null; // what the last dry run was asked
  const fields = [
    { name: "keep_revisions", label: "Keep revisions", type: "number", min: 0, step: 1, value: 10_000 },
    { name: "keep_days", label: "Keep days", type: "number", min: 0, max: 36_500, step: "any", value: 30 },
    { name: "force", label: "Do not wait for clients that were seen lately", type: "checkbox" },
  ];
  const dry = h("button", { type: "submit" }, "Dry run");
  const real = button("Compact now…", () => asked(), { class: "risky", hidden: true });
  const form = h(
    "form", { class: "row", on: { submit: look, input: forgetTrial } },
    fields.map((field) => labelled(field, inputs)),
    h("p", { class: "hint" }, "Where both are given, what either keeps. A client that was seen within the days to keep " +
      "(30 if not said) is waited for."),
    h("div", { class: "acts" }, dry, real),
  );

  const wanted = () => ({
    ...(inputs.get("keep_revisions").value && { keep_revisions: inputs.get("keep_revisions").valueAsNumber }),
    ...(inputs.get("keep_days").value && { keep_days: inputs.get("keep_days").valueAsNumber }),
    force: inputs.get("force").checked,
  });

  function forgetTrial() {
    tried = null;
    real.hidden = true;
    where.clear();
  }

  async function look(event) {
    event.preventDefault();
    forgetTrial();
    const body = wanted();
    const it = await where.during("Looking", (told) => followed(context, "/compact", { ...body, dry_run: true }, told));
    if (it?.state !== "done") return;
    tried = { body, result: it.result };
    real.hidden = it.result.horizon === it.result.was;
  }

  async function asked() {
    const { body, result: would } = tried;
    const isDone = await ask({
      title: "Compact",
      says: [
        `The horizon of ${context.name} goes to about ${count(would.horizon)}, and what is older is removed: ` +
          `${many(would.changes, "change")}, about ${bytes(would.bytes)}. Atoms stay as they are.`,
        would.cut_off.length
          ? `${many(would.cut_off.length, "client")} must start again.`
          : "No client that is known has to start again.",
        "It cannot be taken back.",
      ],
      verb: "Compact",
      danger: true,
      back: () => dry,
      act: async () => undefined,
    });
    if (!isDone) return;
    real.hidden = true;
    dry.focus();
    const it = await where.during("Compacting", (told) => followed(context, "/compact", body, told));
    tried = null;
    if (it?.state === "done") announce(`Compacted: the horizon is at ${count(it.result.horizon)}.`);
  }

  const text = "Removes the old part of the record. Begin with a dry run, which removes nothing.";
  return action("Compact", text, form, where.element);
}

function check(context) {
  const where = place();
  async function asked() {
    const isYes = await ask({
      title: "Check",
      says: [
        `Chain and state of ${context.name} are computed anew from the record and compared with what is stored. ` +
          "Nothing is changed; clients go on meanwhile. It takes a while where there is much to read.",
      ],
      verb: "Check",
      act: async () => undefined,
    });
    if (!isYes) return;
    const it = await where.during("Checking", (told) => followed(context, "/check", undefined, told));
    if (it?.state !== "done") return;
    const { ok, faults } = it.result;
    announce(ok ? "Checked: everything is as the record says." : `Checked: ${many(faults.length, "fault")}.`);
  }
  const text = "Computes chain and state anew from the record, and compares. Changes nothing.";
  return action("Check", text, button("Check…", asked), where.element);
}

function erase(context) {
  const out = h("div", { class: "out", role: "status" });
  const asked = () => ask({
    title: "Erase an atom",
    says: [
      "The atom is deleted for every client, and its data is blanked in the record, in snapshots and in kept answers. " +
        "For data that has to go, such as a person's.",
      "The data cannot be had back.",
    ],
    fields: [
      { name: "collection", label: "Collection", required: true, maxlength: 128, spellcheck: "false" },
      { name: "atom", label: "Atom", required: true, maxlength: 255, spellcheck: "false" },
      {
        name: "again",
        label: "The atom once more",
        hint: "To be sure that it is this one.",
        required: true,
        spellcheck: "false",
        exactly: (values) => values.atom,
      },
    ],
    verb: "Erase this atom",
    danger: true,
    act: async ({ collection, atom }) => {
      const told = await act("POST", journalPath(context.name, "/erase"), { collection, atom });
      out.replaceChildren(
        h("p", {}, `Erased at revision ${count(told.revision)}: blanked in ${many(told.changes, "change")}, ` +
          `${many(told.outcomes, "outcome")} and ${many(told.conflicts, "conflict")}; ${many(told.snapshots, "snapshot")} removed.`),
        h("p", {}, "It may still be held by:"),
        h("ul", {}, told.may_hold.map((text) => h("li", {}, text))),
      );
      announce(`Erased ${atom} of ${collection} at revision ${count(told.revision)}.`);
      context.changed();
    },
  });
  const lever = button("Erase an atom…", asked, { class: "risky" });
  return action("Erase an atom", "Deletes one atom and blanks its data wherever it is kept.", lever, out);
}

function restored(context) {
  const asked = () => ask({
    title: "Restored from a backup",
    says: [
      `${context.name} begins a new epoch. Use it once after the database was set back: what clients were told since ` +
        "the backup is no longer in it.",
      "Every client starts again: it compares what it has with the server, takes what differs, and sends again what " +
        "the server lost. It cannot be taken back.",
    ],
    fields: [spread(60)],
    verb: "Begin a new epoch",
    danger: true,
    act: async ({ spread_s }) => {
      const head = await act("POST", journalPath(context.name, "/restored"), { spread_s });
      announce(`${context.name} is in a new epoch, ${head.epoch}, from revision ${count(head.head)} on.`);
      context.changed();
    },
  });
  const text = "After the database was set back: a new epoch, in which every client verifies its data.";
  return action("Restored from a backup", text, button("New epoch…", asked, { class: "risky" }));
}
