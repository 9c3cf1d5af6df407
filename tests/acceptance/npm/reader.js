// Opens a stream for each line of its standard input, which is a URL, and tells what its EventSource says, a line of
// JSON each; `stream` counts the streams from 0. A stream that is called back is closed. The end of the input ends it.
import { createInterface } from "node:readline";
import { EventSource } from "eventsource";

let count = 0;

function open(url) {
  const stream = count++;
  const source = new EventSource(url);
  const tell = event =>
    console.log(JSON.stringify({
      stream, event: event.type, id: event.lastEventId ?? "", data: event.data ?? "", code: event.code ?? null,
      state: source.readyState,
    }));
  for (const type of ["open", "error", "message", "deltas", "bookmark"]) source.addEventListener(type, tell);
  source.addEventListener("resync", event => {
    source.close();
    tell(event);
  });
}

createInterface({ input: process.stdin }).on("line", open).on("close", () => process.exit());
