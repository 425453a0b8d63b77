// api.js owns the requests to the server: one function that speaks JSON, and what can go wrong as two kinds of error.
//
// Everything is addressed relative to this module, never to the host's root, because the server may stand under a base path.
// It deliberately knows nothing of pages and nothing of the stream (feed.js).

/** Where the server's paths begin, e.g. `https://host/tidings/`. */
export const ROOT = new URL('../', import.meta.url);

/** A request that has had no answer for this long is given up; its outcome is then unknown. */
const TIMEOUT_MS = 15_000;

/** The server answered and said no, as a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `The server answered ${status}.`);
    this.name = 'Problem';
    this.status = status;
    this.code = document.code ?? null;
    this.errors = Array.isArray(document.errors) ? document.errors : [];
  }
}

/** No answer came: whether the request had an effect is unknown. */
export class Unreachable extends Error {
  constructor(cause) {
    super('The server could not be reached.', { cause });
    this.name = 'Unreachable';
  }
}

export const isSignedOut = (error) => error instanceof Problem && error.status === 401;

/** A URL of the server, with those query parameters that have a value. */
export function address(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
  }
  return url;
}

/**
 * Sends one request and resolves to the parsed answer (null if it has no body).
 * `body` may be an object, or a string that is JSON already and must be sent as it is.
 */
export async function request(method, path, { query, body, headers = {}, keepalive = false, signal } = {}) {
  const signals = [AbortSignal.timeout(TIMEOUT_MS)];
  if (signal) signals.push(signal);
  const cut = AbortSignal.any ? AbortSignal.any(signals) : signals[signals.length - 1];
  // The type stands on every change, also on one without a body: it is what a foreign form cannot send.
  const typed = method === 'GET' ? {} : { 'Content-Type': 'application/json' };
  let response, text;
  try {
    response = await fetch(address(path, query), {
      method,
      headers: { Accept: 'application/json', ...typed, ...headers },
      body: body === undefined || typeof body === 'string' ? body : JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      keepalive,
      signal: cut,
    });
    text = await response.text();
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Unreachable(cause);
  }
  const document = parse(text);
  if (!response.ok) throw new Problem(response.status, document ?? {});
  return document;
}

function parse(text) {
  if (text === '') return null;
  try {
    return JSON.parse(text);
  } catch {
    return null; // An answer from something in between, such as a proxy's error page: the status says enough.
  }
}
