/* The description of the service, as a page: every call with what it takes and tells. */

import { h, say } from "./dom.js";
import { reader, rich } from "./schema.js";

const main = document.getElementById("main");
const contents = document.getElementById("contents");
const sought = document.getElementById("sought");

function paragraphs(text = "") {
  return text.split("\n\n").filter(Boolean).map((part) => h("p", {}, rich(part)));
}

function example(title, value) {
  return h("figure", {}, h("figcaption", {}, title), h("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));
}

function parameters(schemas, given) {
  return h(
    "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Parameters" },
    h(
      "table", { class: "members asked" },
      h("caption", { class: "unseen" }, "Parameters"),
      h("thead", {}, h("tr", {}, ["name", "in", "is", "for"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, given.map((one) =>
        h("tr", {},
          h("th", { scope: "row" }, h("code", {}, one.name), one.required ? "" : h("span", { class: "muted" }, " ?")),
          h("td", {}, one.in),
          h("td", {}, schemas.words(one.schema), one.schema.default !== undefined && h("span", { class: "muted" }, ` (${one.schema.default})`)),
          h("td", {}, rich(one.description ?? ""))))),
    ),
  );
}

function body(schemas, schema) {
  const lines = schema["x-lines"];
  if (lines) {
    return Object.entries(lines).map(([which, one]) => [
      h("h5", {}, `${which === "each" ? "each" : `the ${which}`} line`), schemas.shown(one), example("for example", schemas.sample(one)),
    ]);
  }
  const events = schema.anyOf?.filter((one) => one.title && one.properties?.data);
  if (events?.length) {
    return events.map((one) => {
      const told = one.properties.data.contentSchema;
      return [h("h5", {}, `event: ${one.title}`), schemas.shown(told), example("for example", schemas.sample(told))];
    });
  }
  const isText = schema.type === "string";
  return isText ? h("p", {}, "text") : [schemas.shown(schema), example("for example", schemas.sample(schema))];
}

/** An answer; what it holds is made once it is opened, since there are hundreds. */
function answer(schemas, status, told) {
  const media = Object.entries(told.content ?? {});
  const inside = h("div", { class: "answer" });
  const show = () => {
    if (inside.childNodes.length > 0) return;
    const schema = new Map();
    for (const [name, { schema: one }] of media) {
      const key = JSON.stringify(one);
      schema.set(key, [...(schema.get(key) ?? []), name]);
    }
    const headers = Object.keys(told.headers ?? {});
    inside.append(
      headers.length ? h("p", { class: "muted" }, "Headers: ", headers.map((name, place) => [place ? ", " : "", h("code", {}, name)])) : "",
      ...[...schema].flatMap(([key, names]) => [h("p", {}, names.map((name, place) => [place ? " · " : "", h("code", {}, name)])), body(schemas, JSON.parse(key))].flat(9)),
    );
  };
  return h(
    "details", { class: status < "400" ? "told" : "told wrong", on: { toggle: show } },
    h("summary", {}, h("strong", {}, status), " ", rich(told.description ?? "")),
    inside,
  );
}

function call(schemas, method, path, said) {
  const asked = Object.entries(said.requestBody?.content ?? {});
  const element = h(
    "details", { class: "call", id: said.operationId },
    h(
      "summary", {},
      h("span", { class: `method ${method}` }, method.toUpperCase()), " ",
      h("code", { class: "path" }, path), " ",
      h("span", { class: "summary" }, said.summary),
    ),
  );
  const show = () => {
    if (element.childNodes.length > 1) return;
    element.append(h(
      "div", { class: "inside" },
      paragraphs(said.description),
      said.parameters?.length && [h("h4", {}, "Asked with"), parameters(schemas, said.parameters)],
      asked.map(([media, { schema, example: one }]) => [
        h("h4", {}, "Body ", h("code", {}, media)), schemas.shown(schema), example("for example", one ?? schemas.sample(schema)),
      ]),
      h("h4", {}, "Answers"),
      Object.entries(said.responses).map(([status, told]) => answer(schemas, status, told)),
    ));
  };
  element.addEventListener("toggle", show);
  return { element, name: said.operationId, method, path, words: `${method} ${path} ${said.summary}`.toLowerCase() };
}

function show(described) {
  const schemas = reader(described);
  const all = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, said]) => ({ said, ...call(schemas, method, path, said) })));
  const groups = described.tags.map((tag) => ({ ...tag, calls: all.filter((one) => one.said.tags.includes(tag.name)) }));
  const rest = all.filter((one) => !described.tags.some((tag) => one.said.tags.includes(tag.name)));
  if (rest.length > 0) groups.push({ name: "Others", description: "", calls: rest });
  main.replaceChildren(
    h("section", { class: "about" }, h("h2", {}, `${described.info.title} ${described.info.version}`), paragraphs(described.info.description),
      h("p", { class: "muted" }, "What has a ? may be left out; what stands in brackets then holds.")),
    ...groups.map((group) => h(
      "section", { class: "group", "aria-label": group.name },
      h("h3", {}, group.name), h("p", { class: "muted" }, group.description), group.calls.map((one) => one.element))),
  );
  contents.replaceChildren(...groups.map((group) => h(
    "section", {}, h("h2", {}, group.name),
    h("ul", {}, group.calls.map((one) => (one.link = h(
      "li", {}, h("a", { href: `#${one.name}` }, h("span", { class: `method ${one.method}` }, one.method.toUpperCase()), " ", one.said.summary))))))));
  sought.addEventListener("input", () => {
    const words = sought.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of all) {
      const isThere = words.every((word) => one.words.includes(word));
      one.element.hidden = one.link.hidden = !isThere;
    }
    for (const part of [...main.querySelectorAll(".group"), ...contents.children]) {
      part.hidden = ![...part.querySelectorAll(".call, li")].some((one) => !one.hidden);
    }
  });
  addEventListener("hashchange", go);
  go();
}

/** Opens the call that the address names. */
function go() {
  const there = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!there?.classList.contains("call")) return;
  there.open = true;
  there.hidden = false;
  there.scrollIntoView({ block: "start" });
  there.querySelector("summary").focus({ preventScroll: true });
}

try {
  const came = await fetch("openapi.json", { headers: { Accept: "application/json" } });
  if (!came.ok) throw new Error(`the service answered ${came.status}`);
  show(await came.json());
} catch (error) {
  const line = h("p", { class: "error", role: "alert" });
  say(line, `The description cannot be shown: ${error.message}`);
  main.replaceChildren(line);
}
