/* Elements. The one rule: what the service tells becomes text, never markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name (true: without a value; false, null, undefined: not there), `on` for listeners. */
export function h(name, attributes = {}, ...children) {
  return dressed(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, name), attributes, children);
}

function dressed(element, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  const isThere = (child) => child !== null && child !== undefined && child !== false;
  element.append(...children.flat(Infinity).filter(isThere));
  return element;
}

export function set(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/** Sets the text where it is another, so that nothing is announced or selected away for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A line for what went wrong in a part of the page; `tell(null)` takes it away. */
export function trouble() {
  const element = h("p", { class: "error", role: "alert", hidden: true });
  return {
    element,
    tell(error) {
      element.hidden = !error || error.name === "AbortError" || Boolean(error.isAway);
      say(element, element.hidden ? "" : error.message);
    },
  };
}

const known = new WeakMap();

/** Makes a parent's children those of `items`: `make(item)` gives {element, update(item)} once for each key.

    Rows that stay are not touched but where they changed, so that focus and selection stay. With `hold` the order
    stays too, and what is new waits: nothing moves away under a pointer. */
export function keyed(parent, items, keyOf, make, { hold = false } = {}) {
  const rows = known.get(parent) ?? new Map();
  known.set(parent, rows);
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, row] of rows) {
    if (!wanted.has(key)) {
      row.element.remove();
      rows.delete(key);
    }
  }
  const isHeld = hold && rows.size > 0;
  let place = parent.firstElementChild;
  for (const [key, item] of wanted) {
    let row = rows.get(key);
    if (!row && isHeld) continue;
    if (!row) rows.set(key, (row = make(item)));
    row.update(item);
    if (isHeld) continue;
    if (row.element === place) place = place.nextElementSibling;
    else parent.insertBefore(row.element, place);
  }
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** A table whose cells know their column, so that a narrow one can become cards. */
export function table(caption, columns) {
  const body = h("tbody");
  const element = h(
    "table",
    { hidden: true },
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
    body,
  );
  const cell = (at, ...children) => h("td", { class: columns[at][1], "data-label": columns[at][0] }, ...children);
  return { element, body, cell };
}

/** A part of the page, with a heading that can be gone to. */
export function section(key, title, ...children) {
  const heading = h("h3", { id: `${key}-title`, tabindex: -1 }, title);
  return h("section", { class: `part ${key}`, "aria-labelledby": `${key}-title` }, heading, children);
}

export function focusOn(element) {
  const heading = element.querySelector("h3");
  heading.focus({ preventScroll: true });
  element.scrollIntoView({ block: "start" });
}

export function button(text, listener, attributes = {}) {
  return h("button", { type: "button", ...attributes, on: { click: listener } }, text);
}

/** A box that scrolls sideways where its table is too wide, also by the keyboard. */
export function scrolling(label, element) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, element);
}

/** The id of a client. */
export function code(text) {
  return h("code", { class: "id" }, text);
}

let ids = 0;

export function newId(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}
