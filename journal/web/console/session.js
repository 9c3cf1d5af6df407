/* Who asks: the token that was pasted here, and what it may do. What it may not do is not offered.

   The rule: it is kept by this tab alone, and sent to this service alone. Who comes or goes begins with a new page. */

import { onShutOut, read, setToken, token } from "./api.js";
import { labelled } from "./ask.js";
import { button, h, say, trouble } from "./dom.js";
import { poll } from "./poll.js";
import { heard } from "./said.js";
import { moment } from "./words.js";

const EVERY_MS = 30_000;
const AGAIN_MS = 2000;
const place = document.getElementById("session");
const main = document.getElementById("main");
let caller = null;

const can = (permission, journal) => caller.grants.some((grant) =>
  (grant.journal === journal || grant.journal === "*") && grant.can.includes(permission));

/** Whether who asks operates a journal. */
export const operates = (journal) => can("operate", journal);

/** Whether who asks operates the service, with all its journals. */
export const operatesAll = () => can("operate", "*");

/** The collections of a journal that may be read; null: all. */
export function reads(journal) {
  const grants = caller.grants.filter((grant) => grant.journal === journal || grant.journal === "*");
  if (grants.some((grant) => grant.can.includes("operate") || grant.collections === null)) return null;
  return [...new Set(grants.flatMap((grant) => grant.collections))].sort();
}

/** Finds out who asks, then `start()`s the page for that; asks for a token where nobody is let in without. */
export function begin(start) {
  onShutOut(signIn);
  const polling = poll(() => (caller ? EVERY_MS : AGAIN_MS), new AbortController().signal, async () => {
    try {
      const told = await read("v1/caller");
      heard("session", null);
      if (!caller) {
        caller = told;
        show();
        start();
      } else if (!isSame(told) && !document.querySelector("dialog[open]")) {
        location.reload(); // what is offered is another
      }
    } catch (problem) {
      heard("session", problem);
    }
  });
  return polling;
}

function isSame(told) {
  return told.name === caller.name && JSON.stringify(told.grants) === JSON.stringify(caller.grants);
}

/** Who it is and until when; nothing where nobody has to say so. */
function show() {
  if (caller.name === null) return;
  const until = caller.ends_at && h("span", { class: "muted" }, " until ",
    h("time", { datetime: caller.ends_at }, moment(caller.ends_at)));
  place.replaceChildren(h("p", {}, "Signed in as ", h("bdi", { class: "name" }, caller.name), until), button("Sign out", signOut));
  place.hidden = false;
  const isOperator = caller.grants.some((grant) => grant.can.includes("operate"));
  document.querySelector(".who").hidden = !isOperator; // it goes into the audit log
}

function signOut() {
  setToken("");
  location.reload();
}

/** Asks for a token in place of the page. */
function signIn(problem) {
  const had = token() !== "";
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  document.body.classList.add("is-out");
  setToken("");
  const inputs = new Map();
  const error = trouble();
  const yes = h("button", { type: "submit", class: "main" }, "Sign in");
  const field = labelled({
    name: "token", label: "Token", type: "password", required: true, spellcheck: "false", maxlength: 16_384,
    hint: "Kept by this tab until you sign out or close it, and nowhere else.",
  }, inputs);
  const input = inputs.get("token");

  async function submit(event) {
    event.preventDefault();
    error.tell(null);
    say(yes, "Asking…");
    setToken(input.value.trim());
    try {
      await read("v1/caller");
      location.reload();
    } catch (refused) {
      setToken("");
      error.tell(refused.isAway || !(refused.status === 401) ? new Error(refused.message) : new Error(UNKNOWN));
      say(yes, "Sign in");
      input.select();
    }
  }

  const form = h(
    "form", { class: "sign-in", "aria-labelledby": "sign-in-title", on: { submit } },
    h("h2", { id: "sign-in-title" }, "Sign in"),
    h("p", {}, "This service lets in who has a token. Where its database is, ",
      h("code", {}, "journal token create --operator --name NAME"), " makes one for an operator."),
    field, error.element, h("div", { class: "acts" }, yes),
  );
  main.replaceChildren(form);
  document.title = "Sign in · journal console";
  place.hidden = true;
  if (had) error.tell(new Error(problem.code === "unauthenticated" ? UNKNOWN : problem.message));
  input.focus();
}

const UNKNOWN = "This token is not known here, was revoked or has expired.";
