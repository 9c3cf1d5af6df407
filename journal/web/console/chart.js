/* The chart of commits: a bar for each bucket of the last five minutes. It steps with the data and not otherwise. */

import { now } from "./api.js";
import { h, say, set, svg } from "./dom.js";
import { clock, rate } from "./words.js";

const SPAN_MS = 300_000;
const HEIGHT = 170;
const LEFT = 44;
const TOP = 10;
const BOTTOM = 22;

/** The buckets of the last five minutes, oldest first, those without a commit too; the last is not over yet. */
function buckets(stats) {
  const ms = stats.bucket_s * 1000;
  const known = new Map(stats.activity.map((bucket) => [Date.parse(bucket.at), bucket]));
  const newest = Math.max(Math.floor(now() / ms) * ms, ...known.keys());
  return Array.from({ length: SPAN_MS / ms }, (_, place) => {
    const at = newest - SPAN_MS + ms * (place + 1);
    const found = known.get(at);
    return { at, commits: (found?.commits ?? 0) / stats.bucket_s, changes: (found?.changes ?? 0) / stats.bucket_s };
  });
}

/** Commits and revisions a second over the last two buckets that are over. */
export function lately(stats) {
  const over = buckets(stats).slice(-3, -1);
  const mean = (name) => over.reduce((sum, bucket) => sum + bucket[name], 0) / over.length;
  return { commits: mean("commits"), changes: mean("changes") };
}

export function chart() {
  const picture = svg("svg", { role: "img", tabindex: 0, height: HEIGHT, width: 300 });
  const readout = h("p", { class: "readout muted" });
  const element = h("div", { class: "chart" }, picture, readout);
  let told = null;
  let marked = null; // the moment whose bar is marked

  function draw() {
    if (!told) return;
    const width = Math.max(element.clientWidth, 200);
    const all = buckets(told);
    const top = ceiling(Math.max(...all.map((bucket) => bucket.commits)));
    const plot = { width: width - LEFT - 8, height: HEIGHT - TOP - BOTTOM };
    const y = (value) => TOP + plot.height * (1 - value / top);
    const step = plot.width / all.length;
    set(picture, "width", width);
    set(picture, "viewBox", `0 0 ${width} ${HEIGHT}`);
    set(picture, "aria-label", summary(all));
    const lines = [0, top / 2, top].map((value) => [
      svg("line", { class: value ? "grid" : "axis", x1: LEFT, x2: width - 8, y1: y(value), y2: y(value) }),
      svg("text", { class: "label", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, rate(value)),
    ]);
    const minutes = width < 420 ? [5, 3, 1, 0] : [5, 4, 3, 2, 1, 0];
    const times = minutes.map((minute) => {
      const anchor = { 5: "start", 0: "end" }[minute] ?? "middle";
      const x = LEFT + plot.width * (1 - minute / 5);
      return svg("text", { class: "label", x, y: HEIGHT - 6, "text-anchor": anchor }, minute ? `−${minute} min` : "now");
    });
    const bars = all.map((bucket, place) => {
      const height = (plot.height * bucket.commits) / top;
      return svg("rect", {
        class: bucket.at === marked ? "bar is-marked" : place === all.length - 1 ? "bar is-open" : "bar",
        x: LEFT + step * place + step * 0.1,
        y: TOP + plot.height - height,
        width: step * 0.8,
        height,
      });
    });
    const mark = all.findIndex((bucket) => bucket.at === marked);
    const middle = LEFT + step * (mark + 0.5);
    const rule = mark >= 0 && svg("line", { class: "mark", x1: middle, x2: middle, y1: TOP, y2: TOP + plot.height });
    picture.replaceChildren(...[lines, bars, times, rule].flat(Infinity).filter(Boolean));
    say(readout, words(all, mark));
  }

  function words(all, mark) {
    const found = all[mark] ?? null;
    if (!found) return summary(all);
    const open = mark === all.length - 1 ? ", so far" : "";
    return `${clock(found.at)}: ${rate(found.commits)} commits/s, ${rate(found.changes)} revisions/s${open}`;
  }

  function move(steps) {
    const all = buckets(told);
    const at = all.findIndex((bucket) => bucket.at === marked);
    const next = at < 0 ? all.length - 1 : Math.min(Math.max(at + steps, 0), all.length - 1);
    marked = all[next].at;
    draw();
  }

  picture.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -60, End: 60 }[event.key];
    if (steps && told) {
      event.preventDefault();
      move(steps);
    } else if (event.key === "Escape") {
      marked = null;
      draw();
    }
  });
  picture.addEventListener("pointermove", (event) => {
    if (!told) return;
    const all = buckets(told);
    const inside = picture.getBoundingClientRect();
    const place = Math.floor(((event.clientX - inside.left - LEFT) / (inside.width - LEFT - 8)) * all.length);
    marked = all[place]?.at ?? null;
    draw();
  });
  for (const event of ["pointerleave", "blur"]) {
    picture.addEventListener(event, () => {
      marked = null;
      draw();
    });
  }
  new ResizeObserver(draw).observe(element);

  return {
    element,
    show(stats) {
      told = stats;
      draw();
    },
  };
}

function summary(all) {
  const over = all.slice(0, -1);
  const highest = all.reduce((best, bucket) => (bucket.commits > best.commits ? bucket : best));
  if (highest.commits === 0) return "No commits in the last five minutes.";
  const mean = over.reduce((sum, bucket) => sum + bucket.commits, 0) / over.length;
  const last = over[over.length - 1];
  const figures = `last ${rate(last.commits)}, mean ${rate(mean)}, highest ${rate(highest.commits)}`;
  return `Commits a second in the last five minutes: ${figures} at ${clock(highest.at)}.`;
}

/** The next of 1, 2, 4, 6, 8, 10 × 10ⁿ, which have plain halves. */
function ceiling(value) {
  if (value <= 1) return value > 0.5 ? 1 : value > 0.2 ? 0.5 : 0.2;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((step) => step * size >= value) * size;
}
