/* Which PostgreSQL this is. Another one than was remembered is a question to the operator: nothing is done by itself. */

import { act, journalPath, read } from "./api.js";
import { ask, spread } from "./ask.js";
import { button, h, newId, say } from "./dom.js";
import { poll } from "./poll.js";
import { announce, heard } from "./said.js";
import { operatesAll } from "./session.js";
import { count, many, moment } from "./words.js";

const EVERY_MS = 15_000;
const LISTED = 1000;

const place = document.getElementById("question");
const foot = document.getElementById("about");
let shown = null; // of which server the question is shown
let software = null;

export function server() {
  if (!operatesAll()) {
    about();
    return;
  }
  const polling = poll(EVERY_MS, new AbortController().signal, async () => {
    try {
      const told = await read("v1/server");
      heard("server", null);
      show(told);
      software ??= (await read("v1")).software;
      const timeline = told.timeline === null ? "a standby" : `timeline ${told.timeline}`;
      const which = told.system === null ? "which one, it does not say" : `system ${told.system}, ${timeline}`;
      say(foot, `${software} · PostgreSQL ${told.postgresql} · ${which}`);
    } catch (problem) {
      heard("server", problem);
    }
  });

  function show(told) {
    place.hidden = !told.is_other;
    const key = `${told.system}:${told.timeline}`;
    if (!told.is_other) {
      place.replaceChildren();
      shown = null;
    } else if (shown !== key) {
      shown = key;
      place.replaceChildren(...question(told));
    }
  }

  function question(told) {
    const { remembered } = told;
    const difference = remembered.system !== told.system
      ? `it is system ${told.system}, that was system ${remembered.system}`
      : `it is on timeline ${told.timeline}, that was on timeline ${remembered.timeline}`;
    return [
      h("h2", { id: "question-title", tabindex: -1 }, "Was it a failover, or was it restored?"),
      h("p", {},
        `This PostgreSQL is not the one that was remembered on ${moment(remembered.at)}: ${difference}. `,
        "Nothing was changed because of it. What happened?"),
      h("div", { class: "acts" },
        button("It was a failover…", () => failover(told)),
        button("It was restored…", () => restored(told), { class: "risky" })),
    ];
  }

  function failover(told) {
    return ask({
      title: "It was a failover",
      says: [
        "A standby that had everything has taken over, or the same data was moved to another server: nothing that clients " +
          "were told is missing. Clients go on as if nothing had happened.",
        "This PostgreSQL is remembered in place of the other, and the question goes away. If acknowledged changes may be " +
          "missing, answer that it was restored.",
      ],
      verb: "It was a failover",
      back: () => document.getElementById("main"),
      act: async () => {
        show(await remember(told));
        announce("It was a failover: this PostgreSQL is remembered.");
        polling.again();
      },
    });
  }

  const remember = (told) => act("PUT", "v1/server", { system: told.system, timeline: told.timeline });

  async function restored(told) {
    let page;
    try {
      page = await read("v1/journals", { limit: LISTED });
    } catch (problem) {
      announce(problem.message);
      return false;
    }
    const ticks = page.journals.map((head) => tick(head.journal, head.head));
    const all = tick("All of them", null);
    all.input.addEventListener("change", () => {
      for (const one of ticks) if (!one.input.disabled) one.input.checked = all.input.checked;
    });
    const known = tick("Then remember this PostgreSQL, so that the question goes away", null);
    known.input.checked = told.timeline !== null;
    known.input.disabled = told.timeline === null;
    return ask({
      title: "It was restored",
      says: [
        "From a backup, or on a standby that had not received everything: what clients were told since then is no longer " +
          "here, and its revisions will be given out again for other changes.",
        "Each journal that was set back needs a new epoch. Its clients then start again: they compare what they have with " +
          "the server, take what differs, and send again what the server lost. Which journals? It cannot be taken back.",
      ],
      extra: h(
        "fieldset", { class: "ticks" }, h("legend", {}, "Journals that begin a new epoch"), all.element,
        h("div", { class: "long" }, ticks.map((one) => one.element)),
        page.more && h("p", { class: "hint" }, `These are the first ${count(LISTED)}; for the others there is ` +
          "POST /v1/journals/NAME/restored."),
        h("hr"), known.element,
      ),
      fields: [spread(60)],
      verb: "Begin new epochs",
      danger: true,
      back: () => document.getElementById("main"),
      act: async ({ spread_s }, progress) => {
        const chosen = ticks.filter((one) => one.input.checked && !one.input.disabled);
        if (!chosen.length && !ticks.some((one) => one.input.disabled)) throw new Error("Choose at least one journal.");
        for (const [at, one] of chosen.entries()) {
          progress(`${at + 1} of ${chosen.length}…`);
          await act("POST", journalPath(one.name, "/restored"), { spread_s });
          one.input.disabled = true; // done: another try leaves it alone
        }
        if (known.input.checked) show(await remember(told));
        announce(`${many(chosen.length, "journal")} began a new epoch.`);
        polling.again();
      },
    });
  }
}

/** What runs here, as far as everybody is told. */
async function about() {
  try {
    say(foot, (await read("v1")).software);
  } catch {
    // other parts tell that the service is away
  }
}

function tick(name, head) {
  const id = newId("tick");
  const input = h("input", { id, type: "checkbox" });
  const where = head !== null && h("span", { class: "muted" }, ` head ${count(head)}`);
  const label = h("label", { for: id }, h("span", { class: "name" }, name), where);
  return { name, input, element: h("div", { class: "field tick" }, input, label) };
}
