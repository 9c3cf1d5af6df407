/* One client: how it is doing, what it pushed last, and what an operator can do about it. */

import { act, journalPath, read } from "./api.js";
import { ask, REASON } from "./ask.js";
import { code, h, keyed, say, scrolling, set, table, trouble } from "./dom.js";
import { announce } from "./said.js";
import { count, duration, named, outcomes, setTime, time } from "./words.js";

/** How a client is doing: a word for the class, and the words that are read. */
export function standing(client, head) {
  if (client.revision === null) return ["", "never asked with a cursor"];
  if (client.lag === null) return ["warn", "of another history: starts again when it next asks"];
  if (client.resync !== null) return ["warn", `has not obeyed resync ${count(client.resync)}`];
  if (head && client.revision < head.horizon) return ["warn", "below the horizon: starts again when it next asks"];
  if (client.lag === 0) return ["good", "up to date"];
  return ["", "behind"];
}

export function lag(client) {
  if (client.lag === null) return "unknown";
  return client.lag === 0 ? "0" : `${count(client.lag)} rev, ${duration(client.lag_s ?? 0)}`;
}

/** What is known of a client; null where it was not seen. */
export async function theClient({ name, signal }, client) {
  try {
    return await read(journalPath(name, `/clients/${client}`), {}, signal);
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

export function resync(context, client) {
  return ask({
    title: "Resync a client",
    says: [
      h("span", {}, "Client ", code(client), " is told to start again when it next asks: it takes a snapshot in place " +
        "of its data."),
      "Changes that it has not pushed yet stay with it. Nothing is removed from the journal, and no other client " +
        "notices. It cannot be taken back.",
    ],
    fields: [REASON],
    verb: "Resync this client",
    act: async ({ reason }) => {
      const { revision } = await act("POST", journalPath(context.name, "/resync"), { client, reason });
      announce(`Client ${client} starts again when it next asks: revision ${count(revision)}.`);
      context.changed();
    },
  });
}

export function forget(context, client, gone, back) {
  return ask({
    title: "Forget a client",
    says: [
      h("span", {}, "Client ", code(client), " is taken off this list, and compaction waits for it no longer."),
      "If it comes back it is refused until it takes a new id, and then begins anew. It cannot be taken back.",
    ],
    verb: "Forget this client",
    danger: true,
    back,
    act: async () => {
      await act("DELETE", journalPath(context.name, `/clients/${client}`));
      announce(`Client ${client} is forgotten.`);
      gone(client);
      context.changed();
    },
  });
}

/** One client alone, in `into`: what is known of it, and its last pushes. */
export function alone(context, client, into, levers) {
  const heading = h("h4", { tabindex: -1 }, "Client ", code(client));
  const wrong = trouble();
  const facts = h("dl", { class: "facts" });
  const state = h("p", { class: "state" });
  const none = h("p", { class: "muted", hidden: true }, "It has pushed nothing that is still kept.");
  const columns = [["Push", "number"], ["When"], ["Answer"], ["Revision", "number"], ["Outcomes"]];
  const pushes = table("Last pushes, newest first", columns);
  into.replaceChildren(
    h("p", {}, h("a", { href: `#/${context.name}/clients` }, "All clients")),
    heading, wrong.element, state, facts,
    h("p", { class: "acts" }, levers),
    h("h4", {}, "Last pushes"), none, scrolling("Last pushes", pushes.element),
  );

  async function refresh() {
    const it = await theClient(context, client);
    wrong.tell(it ? null : new Error("No client of this id was seen here."));
    state.hidden = facts.hidden = !it;
    if (!it) return;
    const [kind, words] = standing(it, context.head);
    set(state, "class", `state ${kind}`);
    say(state, `${words[0].toUpperCase()}${words.slice(1)}.`);
    const isSelected = !getSelection().isCollapsed && facts.contains(getSelection().anchorNode);
    const fact = ([term, ...told]) => h("div", {}, h("dt", {}, term), h("dd", {}, told));
    if (!isSelected) facts.replaceChildren(...known(it).map(fact));
    none.hidden = it.pushes.length > 0;
    set(pushes.element, "hidden", !it.pushes.length);
    keyed(pushes.body, it.pushes, (push) => push.push, (push) => pushRow(pushes, push));
  }

  return { client, heading, refresh };
}

const known = (it) => [
  ["Lag", lag(it)],
  ["At revision", it.revision === null ? "none" : count(it.revision)],
  ["Cursor", h("code", {}, it.cursor ?? "none")],
  ["Agent", named(it.agent ?? "not said")],
  ["First seen", time(it.first_seen)],
  ["Last seen", time(it.last_seen)],
  it.resynced === null
    ? ["Came back", "never had to"]
    : ["Came back", `over revision ${count(it.resynced)}, `, time(it.resynced_at)],
  ["Last push", it.pushed ? `number ${count(it.pushed)}` : "none"],
];

function pushRow(grid, push) {
  const at = h("time", {});
  const revision = push.revision === null ? "none" : count(push.revision);
  const whole = push.outcomes && h(
    "details", {},
    h("summary", {}, outcomes(push.outcomes) || "none"),
    h("pre", { tabindex: 0 }, JSON.stringify(push.outcomes, null, 1)),
  );
  return {
    element: h(
      "tr", {},
      grid.cell(0, count(push.push)), grid.cell(1, at), grid.cell(2, String(push.status)), grid.cell(3, revision),
      grid.cell(4, whole ?? "not kept"),
    ),
    update: (it) => setTime(at, it.at),
  };
}
