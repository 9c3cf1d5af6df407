/* Operations: what takes long, how far it is, and what came of it. */

import { journalPath, read } from "./api.js";
import { h, keyed, say, scrolling, section, set, table, trouble } from "./dom.js";
import { poll } from "./poll.js";
import { result } from "./results.js";
import { named, setTime } from "./words.js";

const EVERY_MS = 5000;
const RUNNING_MS = 1000;

export function operations(context) {
  const error = trouble();
  const none = h("p", { class: "muted", hidden: true }, "No compaction and no check was asked for lately.");
  const grid = table("Operations, newest first", [["What"], ["State"], ["Begun"], ["By"]]);
  const element = section(
    "operations", "Operations", error.element, none, scrolling("Operations", grid.element),
  );
  let isRunning = false;

  function row(it) {
    const bar = h("progress", { max: 1, "aria-label": "Progress" });
    const share = h("span", {});
    const words = h("span", { class: "state" });
    const more = h("details", { hidden: true }, h("summary", {}, words));
    const running = h("span", { class: "running" }, bar, share);
    const begun = h("time", {});
    const name = h("span", {}, it.kind);
    const cells = [[name], [running, more], [begun], [named(it.by)]].map((inside, at) => grid.cell(at, ...inside));
    return {
      element: h("tr", {}, cells),
      update(now) {
        setTime(begun, now.begun_at);
        running.hidden = now.state !== "running";
        more.hidden = now.state === "running";
        if (now.state === "running") {
          bar.value = now.progress;
          say(share, `${Math.floor(now.progress * 100)} %`);
          return;
        }
        if (more.children.length > 1) return;
        if (now.result?.dry_run) say(name, `${now.kind}, dry run`);
        const isBad = now.state === "failed" || now.result?.ok === false;
        set(words, "class", `state ${isBad ? "bad" : "good"}`);
        say(words, now.state === "failed" ? "failed" : now.result?.ok === false ? "done: faults" : "done");
        more.append(result(now));
      },
    };
  }

  context.parts.set("operations", poll(() => (isRunning ? RUNNING_MS : EVERY_MS), context.signal, async () => {
    try {
      const told = (await read(journalPath(context.name, "/operations"), {}, context.signal)).operations;
      error.tell(null);
      isRunning = told.some((it) => it.state === "running");
      none.hidden = told.length > 0;
      set(grid.element, "hidden", !told.length);
      keyed(grid.body, told, (it) => it.id, row);
    } catch (problem) {
      error.tell(problem);
    }
  }));
  return element;
}
