/* The question before every action. Escape is no, Enter is yes, and focus goes back to where it came from. */

import { h, newId, say, set } from "./dom.js";

/** Asks in a dialog; `act(values, progress)` does it and gives what is to be announced. True where it was done.

    A field is {name, label, hint?, exactly?, …attributes of the input}; `exactly(values)` is the text that must be
    typed. `says` are paragraphs: strings or nodes. */
export function ask({ title, says = [], fields = [], extra = null, verb, danger = false, act, back = null }) {
  return new Promise((resolve) => {
    const from = document.activeElement;
    const ids = { title: newId("ask"), text: newId("ask-text") };
    const error = h("p", { class: "error", role: "alert", hidden: true });
    const inputs = new Map();
    const yes = h("button", { type: "submit", class: danger ? "danger" : "main" }, verb);
    const no = h("button", { type: "button" }, "Cancel");
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: ids.title }, title),
      h("div", { id: ids.text, class: "says" }, says.map((text) => h("p", {}, text))),
      extra,
      fields.map((field) => labelled(field, inputs)),
      error,
      h("div", { class: "answers" }, no, yes),
    );
    const dialog = h("dialog", { "aria-labelledby": ids.title, "aria-describedby": ids.text }, form);
    let isDone = false;
    let isBusy = false;

    const values = () => Object.fromEntries([...inputs].map(([name, input]) => [name, valueOf(input)]));

    function checkExact() {
      for (const { name, exactly } of fields) {
        if (!exactly) continue;
        const wanted = exactly(values());
        const isIt = inputs.get(name).value === wanted;
        inputs.get(name).setCustomValidity(isIt ? "" : "This is not the same text.");
      }
    }

    async function submit(event) {
      event.preventDefault();
      checkExact();
      if (isBusy || !form.reportValidity()) return;
      isBusy = true;
      error.hidden = true;
      set(form, "aria-busy", "true");
      say(yes, "Working…");
      try {
        await act(values(), (text) => say(yes, text));
        isDone = true;
        dialog.close();
      } catch (problem) {
        error.hidden = false;
        say(error, problem.message);
        say(yes, verb);
        yes.focus();
      } finally {
        isBusy = false;
        set(form, "aria-busy", null);
      }
    }

    form.addEventListener("submit", submit);
    form.addEventListener("input", checkExact);
    no.addEventListener("click", () => isBusy || dialog.close());
    dialog.addEventListener("cancel", (event) => isBusy && event.preventDefault());
    dialog.addEventListener("close", () => {
      dialog.remove();
      const target = from?.isConnected && from !== document.body ? from : back?.();
      target?.focus({ preventScroll: target === from });
      resolve(isDone);
    });
    document.body.append(dialog);
    dialog.showModal();
    (extra?.querySelector("input") ?? inputs.values().next().value ?? yes).focus();
  });
}

function valueOf(input) {
  if (input.type === "checkbox") return input.checked;
  if (input.type === "number") return input.value === "" ? null : input.valueAsNumber;
  return input.value;
}

/** A labelled input, noted in `inputs` by its name. */
export function labelled({ name, label, hint, exactly, ...attributes }, inputs) {
  const id = newId(name);
  const input = h("input", { id, name, type: "text", autocomplete: "off", ...attributes });
  if (hint) set(input, "aria-describedby", `${id}-hint`);
  inputs.set(name, input);
  const words = h("label", { for: id }, label);
  return h(
    "div",
    { class: attributes.type === "checkbox" ? "field tick" : "field" },
    attributes.type === "checkbox" ? [input, words] : [words, input],
    hint && h("p", { id: `${id}-hint`, class: "hint" }, hint),
  );
}

export const REASON = {
  name: "reason",
  label: "Reason",
  hint: "Goes into the record and the audit log.",
  required: true,
  maxlength: 500,
};

export function spread(value) {
  return {
    name: "spread_s",
    label: "Spread over (seconds)",
    type: "number",
    min: 0,
    max: 86_400,
    step: 1,
    required: true,
    value,
    hint: "Each is told to come back at a moment of its own within that time, so that not all come at once.",
  };
}
