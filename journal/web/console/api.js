/* What is asked of the service: the one place that fetches. Addresses are relative to the page's, so that the console
   also works below a prefix. */

const ROOT = new URL(".", document.baseURI);
const WHO = "journal.who";
const TOKEN = "journal.token";
const READ_MS = 15_000;
const ACT_MS = 120_000;

let clockAhead = 0; // the service's clock, less this browser's, in ms

/** The service refused, and said why (RFC 9457). */
class Problem extends Error {
  constructor(status, body) {
    super(worded(status, body));
    this.status = status;
    this.code = body?.code;
  }

  get isAway() {
    return this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** The service did not answer. */
class Away extends Error {
  get isAway() {
    return true;
  }
}

export function journalPath(name, rest = "") {
  return `v1/journals/${encodeURIComponent(name)}${rest}`;
}

let me = remembered(() => localStorage, WHO);
let bearer = remembered(() => sessionStorage, TOKEN);
let isOut = false;
let outListener = () => undefined;

export const token = () => bearer;

/** Who asks, from now on: kept by this tab alone, and where it cannot be, as long as the page. "" is nobody. */
export function setToken(text) {
  bearer = text;
  try {
    if (text) sessionStorage.setItem(TOKEN, text);
    else sessionStorage.removeItem(TOKEN);
  } catch {
    // then it holds as long as the page
  }
}

/** Whether the service lets nobody in as who asks: then nothing more is asked all the time. */
export const isShutOut = () => isOut;

/** `listener(problem)` is called when the service first does not. */
export function onShutOut(listener) {
  outListener = listener;
}

export const who = () => me;

/** Who acts, from now on; kept where the browser keeps anything. */
export function setWho(text) {
  me = text;
  try {
    localStorage.setItem(WHO, text);
  } catch {
    // then it holds as long as the page
  }
}

function remembered(storage, key) {
  try {
    return storage().getItem(key) ?? "";
  } catch {
    return "";
  }
}

/** Milliseconds now, by the service's clock. */
export function now() {
  return Date.now() + clockAhead;
}

export function read(path, query = {}, signal = undefined) {
  return call("GET", path, { query, signal, ms: READ_MS });
}

export function act(method, path, body = undefined, headers = {}) {
  return call(method, path, { body, headers, ms: ACT_MS });
}

async function call(method, path, { query = {}, body, headers = {}, signal, ms }) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null) url.searchParams.set(name, value);
  }
  const sent = { Accept: "application/json", ...headers };
  if (who()) sent.From = asHeader(who());
  if (bearer) sent.Authorization = `Bearer ${bearer}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const inTime = AbortSignal.timeout(ms);
  let response;
  let told;
  try {
    response = await fetch(url, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, inTime]) : inTime,
    });
    told = await response.text();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Away(
      method === "GET"
        ? "The service does not answer."
        : "The service did not answer. It may have done it all the same: look at the audit log before you try again.",
      { cause: error },
    );
  }
  const date = Date.parse(response.headers.get("Date"));
  if (!Number.isNaN(date) && Math.abs(date - now()) > 1500) clockAhead = date + 500 - Date.now();
  const parsed = parse(told);
  if (!response.ok) {
    const problem = new Problem(response.status, parsed);
    if (response.status === 401 && !isOut) {
      isOut = true;
      outListener(problem);
    }
    throw problem;
  }
  return parsed;
}

/** fetch() takes a header's value as bytes: those of UTF-8. */
function asHeader(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const TITLES = { 401: "The service does not know you", 403: "You may not do this" };

function worded(status, body) {
  if (!body?.title) return `The answer was ${status}, without a reason.`;
  const title = TITLES[status] ?? body.title;
  const faults = (body.errors ?? []).map((fault) => [fault.pointer.slice(1), fault.detail].filter(Boolean).join(": "));
  const detail = [body.detail, ...faults].filter(Boolean).join("; ");
  return detail ? `${title}: ${detail}.` : `${title}.`;
}
