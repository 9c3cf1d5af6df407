/* The page: which journal is shown is in its address, #/NAME, #/NAME/PART or #/NAME/clients/ID. */

import { setWho, who } from "./api.js";
import { h } from "./dom.js";
import { journal } from "./journal.js";
import { journals } from "./journals.js";
import { server } from "./server.js";
import { begin } from "./session.js";

const NARROW = matchMedia("(max-width: 60rem)");
const main = document.getElementById("main");
const side = document.getElementById("journals");
let shown = null; // {name, view, controller}

function address() {
  const [name, part, id] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  return { name: name || null, part, id };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function go() {
  const { name, part, id } = address();
  if (name !== shown?.name) {
    shown?.controller.abort(new DOMException("another journal is shown", "AbortError"));
    shown = null;
    if (name) {
      const controller = new AbortController();
      shown = { name, controller, view: journal(name, controller.signal) };
      main.replaceChildren(shown.view.element);
    } else {
      main.replaceChildren(h("p", { class: "muted empty" }, "Choose a journal."));
    }
    document.title = name ? `${name} · journal console` : "journal console";
    side.open = !(NARROW.matches && name);
    list.mark();
    scrollTo(0, 0);
  }
  shown?.view.to(part, id);
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which journal it is
  main.focus();
});

const me = document.getElementById("who");
me.value = who();
me.addEventListener("change", () => setWho(me.value.trim()));

let list = null;
begin(() => {
  list = journals(side, () => address().name);
  server();
  addEventListener("hashchange", go);
  go();
});
