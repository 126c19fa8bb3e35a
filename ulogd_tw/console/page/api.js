// The API of the service, which is the same for every client: docs/api.md.

/** A refusal, or a service that does not answer. `status` is HTTP's, 0 without an answer. */
export class Failure extends Error {
  constructor(text, status, more = {}) {
    super(text);
    this.status = status;
    this.more = more;
  }
}

async function answer(path, options) {
  let found;
  try {
    found = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("the service does not answer; ulogd-tw status tells whether it runs", 0);
  }
  if (!found.ok) {
    const body = await found.json().catch(() => ({}));
    throw new Failure(body.error || `the service answers ${found.status} ${found.statusText}`, found.status, body);
  }
  return found;
}

/** The answer of an address, as JSON. */
export async function get(path, signal) {
  return (await answer(path, { signal })).json();
}

/** The answer to a question with a body, as JSON. */
export async function post(path, body, signal) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  return (await answer(path, options)).json();
}

/** The lines of an answer, each as JSON, as they come. An aborted `signal` cancels the question in the service, too. */
export async function* lines(path, body, signal) {
  const options = body === null ? { signal }
    : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  const found = await answer(path, options);
  const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const line of parts) if (line) yield JSON.parse(line);
  }
  if (rest) yield JSON.parse(rest);
}

/** The flows of a question (docs/flows.md): {columns, rows, parts, notes, status, more}. `progress` gets per cent. */
export async function flows(question, signal, progress = () => {}) {
  const found = { columns: [], rows: [], parts: [], notes: [], status: 0, more: false };
  for await (const event of lines("/api/v1/stores/flows", { ...question, format: "events" }, signal)) {
    if (event.error) throw new Failure(event.error, 400);
    if (event.head) Object.assign(found, event.head);
    if (event.rows) for (const row of event.rows) found.rows.push(row);
    if (event.progress !== undefined) progress(event.progress);
    if (event.end) Object.assign(found, { notes: event.end.notes, status: event.end.status, more: event.end.more });
  }
  return found;
}

/** Events of the service, one after the other (server-sent events). Returns what ends them. */
export function follow(path, take, failed) {
  const source = new EventSource(path);
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => failed(source.readyState === EventSource.CLOSED);
  return () => source.close();
}
