/* Schemas of the description, shown: what a value may be in words, its members, and a value that would do. */

import { h } from "./dom.js";

const MOST_DEEP = 5;

/** Text in which `…` is code. */
export function rich(text) {
  return text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));
}

/** Reads the schemas that a document names. */
export function reader(document) {
  const named = document.components.schemas;

  function found(schema) {
    return schema.$ref ? { ...named[schema.$ref.split("/").pop()], called: schema.$ref.split("/").pop() } : schema;
  }

  /** The members of an object, those that it takes from others too. */
  function members(schema) {
    const { properties = {}, required = [], allOf = [] } = found(schema);
    const all = allOf.map(members);
    return {
      properties: Object.assign({}, ...all.map((one) => one.properties), properties),
      required: [...all.flatMap((one) => one.required), ...required],
    };
  }

  /** What a value may be, in words. */
  function words(given) {
    const schema = found(given);
    const bounds = [
      schema.minimum !== undefined && `from ${schema.minimum}`,
      schema.maximum !== undefined && `to ${schema.maximum}`,
      schema.minLength !== undefined && schema.maxLength === undefined && "not empty",
      schema.maxLength !== undefined && `at most ${schema.maxLength} bytes`,
      schema.maxItems !== undefined && `at most ${schema.maxItems}`,
    ].filter(Boolean);
    return [kind(schema), ...bounds].join(", ");
  }

  function kind(schema) {
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
    const either = schema.anyOf ?? schema.oneOf;
    if (either && !schema.properties) return [...new Set(either.map((one) => kind(found(one))))].join(" | ");
    if (schema.type === "array" || schema.items) return `list of ${kind(found(schema.items ?? {}))}`;
    if (schema.called && schema.properties) return schema.called;
    if (schema.additionalProperties && schema.additionalProperties !== true) {
      return `object of ${kind(found(schema.additionalProperties))}`;
    }
    if (Array.isArray(schema.type)) return schema.type.join(" | ");
    if (schema.format && schema.type === "string") return schema.format;
    return schema.called ?? schema.type ?? "anything";
  }

  /** A value that would do. */
  function sample(given, deep = 0) {
    const schema = found(given);
    if (schema.examples) return schema.examples[0];
    if (schema.default !== undefined) return schema.default;
    if (schema.const !== undefined) return schema.const;
    if (schema.enum) return schema.enum[0];
    const { properties } = members(schema);
    if (Object.keys(properties).length > 0) {
      if (deep > MOST_DEEP) return {};
      return Object.fromEntries(Object.entries(properties).map(([name, part]) => [name, sample(part, deep + 1)]));
    }
    const either = schema.anyOf ?? schema.oneOf;
    if (either) return sample(either.find((one) => found(one).type !== "null") ?? either[0], deep);
    const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
    if (type === "array" || schema.items) return deep > MOST_DEEP || !schema.items ? [] : [sample(schema.items, deep + 1)];
    if (type === "object" && schema.additionalProperties && schema.additionalProperties !== true) {
      return { name: sample(schema.additionalProperties, deep + 1) };
    }
    if (type === "object") return {};
    if (type === "integer" || type === "number") return schema.minimum ?? 1;
    if (type === "boolean") return false;
    if (type === "null") return null;
    if (schema.format === "uuid") return "6f1c0000-0000-4000-8000-000000000001";
    if (schema.format === "date-time") return "2026-11-21T09:00:00.000000Z";
    if (schema.format?.endsWith("-name")) return { "collection-name": "todo", "atom-name": "f426" }[schema.format] ?? "demo";
    return "text";
  }

  /** The schemas of objects within one, by how they are called: each is shown once. */
  function within(given, seen = new Map()) {
    const schema = found(given);
    if (schema.called && schema.properties && !seen.has(schema.called)) seen.set(schema.called, schema);
    else if (schema.called && seen.has(schema.called)) return seen;
    const parts = [
      ...Object.values(schema.properties ?? {}), ...(schema.anyOf ?? []), ...(schema.oneOf ?? []),
      ...(schema.allOf ?? []).filter((one) => one.$ref), schema.items, schema.additionalProperties,
    ];
    for (const part of parts) if (part && typeof part === "object") within(part, seen);
    return seen;
  }

  function table(name, schema) {
    const { properties, required } = members(schema);
    return h(
      "table", { class: "members" },
      h("caption", {}, h("strong", {}, name), " ", rich(schema.description ?? "")),
      h("tbody", {}, Object.entries(properties).map(([member, part]) =>
        h("tr", {},
          h("th", { scope: "row" }, h("code", {}, member), required.includes(member) ? "" : h("span", { class: "muted" }, " ?")),
          h("td", {}, words(part), part.default !== undefined && h("span", { class: "muted" }, ` (${JSON.stringify(part.default)})`))))),
    );
  }

  /** Everything about a schema: the members of each object in it. */
  function shown(schema) {
    const objects = [...within(schema)];
    if (objects.length === 0) return h("p", {}, words(schema));
    return objects.map(([name, one]) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, table(name, one)));
  }

  return { words, sample, shown };
}
