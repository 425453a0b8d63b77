// tidings.js is the browser's side of Tidings: one module, no dependencies. `connect()` gives a client that always knows
// the person's counts and hands each event to the page's handlers. Its types and their words are in tidings.d.ts.
//
// What each part owns, from the wire to the page:
//   EventStreamParser  bytes of server-sent events -> events
//   Credential, Server one request: the address, the credential, what can go wrong
//   Line               one connection, by one of three transports, from its asking to its end
//   Link               lines in a row: which transport, when to come back, when never
//   Group, Follower    one link for all pages of this origin: who holds it, by a Lock or by a Lease, and how the others follow
//   Client             the position, the counts, the handlers, and the life of the page
//
// Invariant: a durable event (`notification`, `state`) reaches the handlers once, in order, whichever way it came: there is one
// position (`Client.#accept`), and whatever stands at or before it is dropped.
// Invariant: `hello` sets the position, also backwards, so that a new log can't be muted by the position in an old one.
// Invariant: counts are absolute and never derived; those that are older than what is known are dropped.
// Invariant: a page never shows one person what came for another: when `hello` names someone else, the client ends.
//
// Why `fetch` and not `EventSource`: a token goes in a header and so into no address and no log; a refusal can be read; an error
// status is not the end for ever; and it is ours to say when to come back, from which position, and when a silent stream is dead.

/** Where the server's paths begin, e.g. `https://host/tidings/`: never the host's root, for there may be a base path. */
const ROOT = new URL('../', import.meta.url);

/** A plain request without an answer for this long is given up; its outcome is then unknown. */
const TIMEOUT_MS = 15_000;
/** 'auto' takes a stream without `hello` for so long as one that something in between holds back. */
const HELLO_MS = 3_000;
/** How long the long poll is preferred after that, and how long if this page has had a working stream before. */
const PREFER_POLL_MS = 10 * 60_000;
const PREFER_POLL_BRIEFLY_MS = 30_000;
/** Assumed until `hello` says how often the server speaks. */
const HEARTBEAT_S = 15;
/** Silence of this many heartbeats means a dead connection, or a leader that is no more. */
const PATIENCE = 2.5;
/** How long a long poll may be parked, and how much longer its answer may take. */
const WAIT_S = 25;
const POLL_GRACE_MS = 15_000;
/** Polls that may follow each other at once; after them so many a second, in a page in sight and in a hidden one. */
const POLL_BURST = 10;
const POLLS_A_SECOND = 4;
const POLLS_A_SECOND_HIDDEN = 1;
/** An empty answer that came faster than this was not waited for: something answers in the server's place. */
const TOO_FAST_MS = 1_000;
/** A token that ends within this time is renewed. */
const RENEW_BEFORE_MS = 60_000;
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_LIMIT_MS = 30_000;
const BACKOFF_LEAST_MS = 100;
/** A connection that lasted this long was a good one: the next failure is the first again. */
const HEALTHY_MS = 10_000;
const RETRY_AFTER_LIMIT_MS = 5 * 60_000;
/** How long a leader may take to answer a follower that asks whether it is still there. */
const ANSWER_MS = 2_000;
/** A leader that has said something this lately need not say that it lives. */
const PULSE_MS = 500;
/** How long a leader that has told the end of its credential keeps the lock. */
const HEED_MS = 100;
/**
 * Where there are no locks: how long the lead is good for without being renewed, how often that is done and looked at, and how
 * long after taking it, at least, it is looked whether another page took it at the same moment.
 */
const LEASE_MS = 5_000;
const RENEW_LEASE_MS = 1_500;
const SETTLE_MS = 50;
/** Silence that is no news by itself, beyond a heartbeat: what was published in so short a gap is as good as live. */
const FRESH_MS = 10_000;
/** Pages that speak another language among themselves, such as those loaded before an upgrade, are a group of their own. */
const GROUP_VERSION = 1;
/** Messages a follower keeps while it catches up; what is beyond them it asks the server for. */
const QUEUE_LIMIT = 1_000;

const DURABLE = new Set(['notification', 'state']);
/** What concerns one connection only and is not passed on to other pages. */
const PRIVATE = new Set(['token', 'bye']);

// ---------------------------------------------------------------------------------------------------------- positions

/** `<epoch>.<seq>` taken apart; null where it isn't that. */
export function parseCursor(text) {
  const match = /^(.+)\.(\d{1,15})$/.exec(text ?? '');
  return match ? { epoch: match[1], seq: Number(match[2]) } : null;
}

/** Whether `cursor` lies at or before `other` in the same log. */
export function isCovered(cursor, other) {
  const a = parseCursor(cursor), b = parseCursor(other);
  return a !== null && b !== null && a.epoch === b.epoch && a.seq <= b.seq;
}

function justBefore(cursor) {
  const { epoch, seq } = parseCursor(cursor);
  return `${epoch}.${Math.max(0, seq - 1)}`;
}

// ------------------------------------------------------------------------------------------------------ what goes wrong

/** The server answered and said no, as a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(status, document, retryAfter = null) {
    super(document.detail || document.title || `The server answered ${status}.`);
    this.name = 'Problem';
    this.status = status;
    this.code = document.code ?? null;
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    /** Milliseconds after which to try again, where the server named them. */
    this.retryAfter = retryAfter;
  }
}

/** No answer came: whether the request had an effect is unknown. */
export class Unreachable extends Error {
  constructor(cause) {
    super('The server could not be reached.', { cause });
    this.name = 'Unreachable';
  }
}

async function problemOf(response) {
  const text = await response.text().catch(() => '');
  return new Problem(response.status, parseJson(text) ?? {}, retryAfterOf(response));
}

/** `Retry-After` is a number of seconds or a date. */
function retryAfterOf(response) {
  const text = response.headers.get('Retry-After');
  if (!text) return null;
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), RETRY_AFTER_LIMIT_MS) : null;
}

/** An answer from something in between, such as a proxy's error page, is no JSON: null. */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Why a credential's refusal ends a client; null if trying again may help. */
function endOf(error, credential) {
  if (!(error instanceof Problem)) return null;
  if (error.status === 403) return 'forbidden';
  if (error.status !== 401) return null;
  if (error.code === 'expired') return 'expired';
  return credential.kind === 'cookie' || error.code === 'unauthenticated' ? 'signed-out' : 'refused';
}

// --------------------------------------------------------------------------------------------------- server-sent events

/**
 * The parser of https://html.spec.whatwg.org/multipage/server-sent-events.html, fed with chunks that may be cut anywhere,
 * also inside a character or between CR and LF. Only a block that was ended by an empty line counts. `retry:` is advice to
 * an EventSource and is passed over: `Backoff` decides here.
 */
export class EventStreamParser {
  #decoder = new TextDecoder(); // Takes a leading byte order mark away.
  #rest = ''; // The line that has not ended yet.
  #afterCr = false;
  #data = null;
  #event = '';
  #id = '';
  /** Takes in bytes; answers the events that they complete, as `{id, event, data}` with the last id that was named. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return [];
    if (this.#afterCr && text[0] === '\n') text = text.slice(1);
    this.#afterCr = text.endsWith('\r');
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === '') this.#endBlock(events);
      else this.#field(line);
    }
    return events;
  }

  #field(line) {
    const colon = line.indexOf(':');
    if (colon === 0) return; // A comment.
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (name === 'data') this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    else if (name === 'event') this.#event = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
  }

  #endBlock(events) {
    if (this.#data !== null) events.push({ id: this.#id, event: this.#event || 'message', data: this.#data });
    this.#data = null;
    this.#event = '';
  }
}

// ------------------------------------------------------------------------------------------- credential and requests

/** The claims of a JWT, unproved: only to tell identities apart. */
function claimsOf(token) {
  const payload = String(token).split('.')[1] ?? '';
  try {
    const bytes = Uint8Array.from(atob(payload.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** With what the server is asked: a token or ticket that the page gave, or that its callback gives, else the cookie. */
class Credential {
  #given;
  #value = null;
  #asking = null;

  constructor({ token, ticket }) {
    this.kind = token ? 'token' : ticket ? 'ticket' : 'cookie';
    this.#given = token || ticket;
    if (typeof this.#given === 'string') this.#value = this.#given;
  }

  get renewable() {
    return typeof this.#given === 'function';
  }

  /** What to send now; the callback is asked where there is nothing yet. */
  async value() {
    if (this.#value === null && this.renewable) await this.renew('start', null);
    return this.#value;
  }

  /**
   * Asks the callback for another one in place of `old`. False where there is no callback. Callers that come
   * together share one question.
   */
  async renew(why, old) {
    if (!this.renewable) return false;
    if (old !== this.#value) return true; // Somebody was faster.
    this.#asking ??= this.#ask(why).finally(() => { this.#asking = null; });
    await this.#asking;
    return true;
  }

  async #ask(why) {
    let value;
    try {
      value = await this.#given(why);
    } catch (cause) {
      throw new Unreachable(cause);
    }
    if (!value) throw new Problem(401, { code: 'unauthenticated', detail: 'The page has no credential to give.' });
    this.#value = String(value);
  }

  /** Tells equal credentials from others, and nothing more about them. */
  get mark() {
    let hash = 0x811c9dc5;
    for (const char of this.#value ?? '') hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
    return `${this.kind} ${hash >>> 0}`;
  }
}

/** One server and one credential: every request goes through here. */
class Server {
  #root;

  constructor({ url, token, ticket }) {
    this.#root = url ? new URL(url, globalThis.document?.baseURI ?? ROOT) : ROOT;
    if (!this.#root.pathname.endsWith('/')) this.#root.pathname += '/';
    this.credential = new Credential({ token, ticket });
  }

  get href() {
    return this.#root.href;
  }

  /** A URL of the server, with those query parameters that have a value. */
  address(path, query = {}) {
    const url = new URL(path, this.#root);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, value);
    }
    return url;
  }

  /** The address of a feed, with what the credential adds to it. */
  async feedAddress(path, query) {
    const value = await this.credential.value();
    return this.address(path, this.credential.kind === 'ticket' ? { ...query, ticket: value } : query);
  }

  /** Opens a stream and resolves to its response; `signal` is all that ends it. */
  async stream(path, query, signal) {
    const init = { headers: { Accept: 'text/event-stream', ...(await this.#authorization()) }, cache: 'no-store', credentials: this.#cookies(true), signal };
    const response = await reach(fetch(await this.feedAddress(path, query), init), signal);
    if (!response.ok) throw await problemOf(response);
    const type = response.headers.get('Content-Type') ?? '';
    if (!type.startsWith('text/event-stream')) throw new Unreachable(new Error(`Something answered with ${type || 'no type'}.`));
    return response;
  }

  /** Asks for a batch of events. */
  async poll(query, { signal, timeout } = {}) {
    return this.#ask(await this.feedAddress('v1/poll', query), { method: 'GET', credentials: this.#cookies(true) }, { signal, timeout });
  }

  /** One request; a token that is refused is renewed once. `body` may be JSON already, and is then sent as it is. */
  async request(method, path, { query, body, headers = {}, keepalive = false, signal } = {}) {
    // The type stands on every change, also on one without a body: it is what a foreign form cannot send.
    const typed = method === 'GET' ? {} : { 'Content-Type': 'application/json' };
    const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const init = { method, headers: { ...typed, ...headers }, body: text, keepalive, credentials: this.#cookies(false) };
    const used = await this.credential.value();
    try {
      return await this.#ask(this.address(path, query), init, { signal });
    } catch (error) {
      if (error.status !== 401 || !(await this.credential.renew('refused', used))) throw error;
      return this.#ask(this.address(path, query), init, { signal });
    }
  }

  async #ask(url, init, { signal, timeout = TIMEOUT_MS }) {
    const headers = { Accept: 'application/json', ...(await this.#authorization()), ...init.headers };
    const cut = new AbortController();
    const abort = () => cut.abort(signal.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener('abort', abort);
    const timer = setTimeout(() => cut.abort(), timeout);
    try {
      const response = await reach(fetch(url, { ...init, headers, cache: 'no-store', signal: cut.signal }), signal);
      if (!response.ok) throw await problemOf(response);
      const text = await reach(response.text(), signal);
      return text === '' ? null : parseJson(text);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  async #authorization() {
    const value = await this.credential.value();
    return this.credential.kind === 'token' ? { Authorization: `Bearer ${value}` } : {};
  }

  /** A page with a ticket must not act by a cookie that is perhaps another person's; what stands before the server may need one. */
  #cookies(isFeed) {
    if (this.credential.kind === 'ticket' && !isFeed) return 'omit';
    const foreign = globalThis.location && this.#root.origin !== location.origin;
    return this.credential.kind === 'cookie' && foreign ? 'include' : 'same-origin';
  }
}

/** Makes every failure of the network an `Unreachable`; what the caller itself cut off is passed on as it is. */
async function reach(promise, signal) {
  try {
    return await promise;
  } catch (cause) {
    throw signal?.aborted ? cause : new Unreachable(cause);
  }
}

// ---------------------------------------------------------------------------------------------------------- transports

/** The events of a poll's answer. A `hello` is made where a stream would have sent one. */
function unpack(answer, asked, isFirst) {
  if (!Array.isArray(answer?.events) || typeof answer.cursor !== 'string') throw new Unreachable(new Error('That was no answer to a poll.'));
  if (!isFirst && answer.recovered) return answer.events;
  const durable = answer.events.filter(({ event }) => DURABLE.has(event));
  const first = durable.length ? justBefore(durable[0].id) : answer.cursor;
  const cursor = answer.recovered && parseCursor(asked) ? asked : first;
  const { user, recovered, reason, counts, expires } = answer;
  const missed = answer.more ? `${durable.length}+` : durable.length;
  const data = { user, cursor, head: answer.cursor, recovered, reason, missed, counts, heartbeat: WAIT_S, expires, stream: null };
  return [{ id: cursor, event: 'hello', data }, ...answer.events];
}

/** Also where there is no `crypto.randomUUID`, for want of TLS. */
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(9))].map((byte) => byte.toString(36)).join('');
}

/** What a WebSocket's close code says where no `bye` has said it; the others mean: come back, with backoff. */
const CLOSE_CODES = { 4101: { reason: 'expired' }, 4103: { reason: 'revoked' }, 4109: { reason: 'replaced' } };

/** Each opens a connection for a line, feeds it, and resolves when the connection has ended. */
const TRANSPORTS = {
  async sse(line) {
    const response = await line.server.stream('v1/stream', line.query({ heartbeat: 'event' }), line.signal);
    const parser = new EventStreamParser();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reach(reader.read(), line.signal);
      if (done) return;
      line.heard();
      for (const { id, event, data } of parser.push(value)) {
        line.deliver({ id, event, data: parseJson(data) });
        if (line.isOver) return;
      }
    }
  },

  async poll(line) {
    const me = randomName();
    const pace = new Pace();
    let wait = 0; // The first answer says where we stand, so it must come at once.
    for (let isFirst = true; ; isFirst = false) {
      const began = Date.now();
      const asked = line.cursor;
      const answer = await line.server.poll(line.query({ wait, client: me, limit: 100 }), { signal: line.signal, timeout: wait * 1000 + POLL_GRACE_MS });
      line.heard();
      // What came between two polls was read from the log, and yet is new to one who had heard everything up to then.
      if (wait > 0) for (const { data } of answer.events ?? []) if (data.replayed) data.replayed = false;
      for (const event of unpack(answer, asked, isFirst)) {
        line.deliver(event);
        if (line.isOver) return;
      }
      line.moved(answer.cursor, answer.counts);
      const took = Date.now() - began;
      if (!line.keepPolling(isFirst, took)) return;
      await line.renewBefore(answer.expires);
      const isEmpty = answer.events.length === 0 && answer.cursor === asked;
      if (isEmpty && !isFirst && took < TOO_FAST_MS) await line.pause(TOO_FAST_MS * (1 + Math.random()));
      else if (!answer.more) await line.pause(pace.next());
      wait = answer.more ? 0 : WAIT_S;
    }
  },

  async ws(line) {
    const { server, signal } = line;
    const token = server.credential.kind === 'token' ? await server.credential.value() : null;
    // The browser sends its cookie along, which may be another person's: the token counts.
    const url = await server.feedAddress('v1/ws', line.query({ heartbeat: 'event', auth: token ? 'message' : null }));
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url, ['tidings.v1']);
    let opened = false;
    const code = await new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve(null));
      socket.onopen = () => {
        opened = true;
        if (token) socket.send(JSON.stringify({ op: 'auth', token }));
      };
      socket.onmessage = ({ data }) => {
        line.heard();
        const event = parseJson(data);
        if (event?.event && !line.isOver) line.deliver(event);
        if (line.isOver) resolve(null);
      };
      socket.onclose = ({ code }) => resolve(code);
      line.send = (operation) => socket.send(JSON.stringify(operation));
    });
    socket.onmessage = null;
    socket.close();
    if (signal.aborted || line.isOver) return;
    // A browser hides why the handshake failed; a plain request is told.
    if (!opened) await server.poll({ wait: 0, cursor: 'now', limit: 1 }, { signal });
    line.bye = CLOSE_CODES[code] ?? null;
  },
};

/** Keeps polls that each have something from becoming a storm: a few at once, then a steady few a second. */
class Pace {
  #credit = POLL_BURST;
  #at = Date.now();

  /** How long the next poll has to wait, in milliseconds. */
  next() {
    const rate = globalThis.document?.hidden ? POLLS_A_SECOND_HIDDEN : POLLS_A_SECOND;
    const now = Date.now();
    this.#credit = Math.min(POLL_BURST, this.#credit + ((now - this.#at) / 1000) * rate) - 1;
    this.#at = now;
    return this.#credit >= 0 ? 0 : (-this.#credit / rate) * 1000;
  }
}

/** One connection from its asking to its end. It knows nothing of those before and after it. */
class Line {
  #cut = new AbortController();
  #sink;
  #options;
  #preference;
  #heardAt = Date.now();
  #patience = HEARTBEAT_S * PATIENCE * 1000;
  #stream = null;
  #renewedFor = null;
  #watchdog;
  /** Set by the WebSocket: sends a frame. */
  send = null;
  /** When `hello` came; 0 before. */
  helloAt = 0;
  /** Whether anything came after the chunk that brought `hello`. */
  spoke = false;
  /** Why this side ended it: `restart`, `no-hello`, `silent`. */
  cutFor = null;
  /** The server's last word. */
  bye = null;

  constructor(transport, { server, options, preference, sink }) {
    this.transport = transport;
    this.server = server;
    this.#options = options;
    this.#preference = preference;
    this.#sink = sink;
  }

  /** Resolves when the connection is over, to the error that ended it, if one did. */
  async run() {
    try {
      /** The credential this line was asked for with. */
      this.used = await this.server.credential.value();
    } catch (error) {
      return error;
    }
    this.#heardAt = Date.now();
    const hasTrial = this.transport === 'sse' && this.#options.transport === 'auto';
    const trial = setTimeout(() => this.helloAt || this.cut('no-hello'), hasTrial ? HELLO_MS : TIMEOUT_MS);
    try {
      if (!this.isOver) await TRANSPORTS[this.transport](this);
      return null;
    } catch (error) {
      return this.isOver ? null : error;
    } finally {
      clearTimeout(trial);
      clearTimeout(this.#watchdog);
      this.#cut.abort();
    }
  }

  cut(why) {
    this.cutFor ??= why;
    this.#cut.abort();
  }

  get signal() {
    return this.#cut.signal;
  }

  get isOver() {
    return this.signal.aborted || this.bye !== null;
  }

  get cursor() {
    return this.#sink.cursor;
  }

  get patience() {
    return this.#patience;
  }

  /** Half the patience without a word is too long for a page that has just come back. */
  get isStale() {
    return Date.now() - this.#heardAt > this.#patience / 2;
  }

  query(more) {
    return { ...this.#options.filters, cursor: this.cursor, ...more };
  }

  heard() {
    this.#heardAt = Date.now();
    if (this.helloAt) {
      this.spoke = true;
      this.#sink.fed();
    }
    this.#sink.pulse();
  }

  /** What the transport has received, in order. */
  deliver({ id, event, data }) {
    if (event === 'heartbeat' || data === null) return;
    if (event === 'hello') this.#greet(data);
    if (event === 'bye') this.bye = data;
    this.#sink.accept({ id: DURABLE.has(event) || event === 'hello' ? id : null, event, data });
    if (event === 'hello' && !this.isOver) this.#sink.connected(this);
    if (event === 'token') this.#renew().catch(() => {}); // `bye expired` will tell.
  }

  moved(cursor, counts) {
    this.#sink.moved(cursor, counts);
  }

  pause(ms) {
    return ms > 0 ? pause(ms, this.signal) : undefined;
  }

  /**
   * Whether the long poll is still the right transport. 'auto' takes it only as long as it is proved to do what the
   * stream did not: a first answer that came no faster than `hello` would have says nothing against the stream.
   */
  keepPolling(isFirst, took) {
    if (this.#options.transport !== 'auto') return true;
    if (isFirst && this.#preference.isDoubted) {
      if (took < HELLO_MS) this.#preference.choosePoll();
      else this.#preference.trust();
    }
    if (this.#preference.isPoll) return true;
    this.cutFor = 'restart';
    return false;
  }

  /** Polls carry the new token by themselves. */
  async renewBefore(expires) {
    if (!expires || expires === this.#renewedFor || Date.parse(expires) - Date.now() > RENEW_BEFORE_MS) return;
    this.#renewedFor = expires;
    await this.server.credential.renew('expires', this.used).catch(() => {});
    this.used = await this.server.credential.value();
  }

  async #renew() {
    const { credential } = this.server;
    if (credential.kind === 'ticket') return;
    await credential.renew('expires', this.used);
    this.used = await credential.value();
    if (this.isOver) return;
    // With a cookie nothing is asked: the application may have renewed it meanwhile.
    if (this.send && this.used) this.send({ op: 'refresh', ref: 'token', token: this.used });
    else if (this.#stream) await this.server.request('POST', `v1/streams/${this.#stream}/refresh`);
  }

  #greet({ heartbeat, stream }) {
    this.helloAt = Date.now();
    this.#stream = stream ?? null;
    if (heartbeat > 0) this.#patience = heartbeat * PATIENCE * 1000;
    this.#watch();
  }

  /** Looks again when the patience would be over if nothing came until then. */
  #watch() {
    clearTimeout(this.#watchdog);
    const left = this.#heardAt + this.#patience - Date.now();
    if (left <= 0) this.cut('silent');
    else if (!this.isOver) this.#watchdog = setTimeout(() => this.#watch(), left);
  }
}

/** Resolves after `ms`, or at once when the signal says so. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', done);
  });
}

/** Full jitter: pages that lost the same server must not come back in step. */
class Backoff {
  #failures = 0;

  next() {
    const ceiling = Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** this.#failures++);
    return Math.max(BACKOFF_LEAST_MS, Math.random() * ceiling);
  }

  reset() {
    this.#failures = 0;
  }
}

/**
 * Whether 'auto' streams or polls. Pages of one origin go through the same proxies, so the choice is kept where they all
 * see it; a page without storage keeps its own.
 */
class Preference {
  #key;
  #until = 0;
  #doubts = 0;
  #silences = 0;
  #streamed = false;

  constructor(href) {
    this.#key = `tidings:poll-until:${href}`;
  }

  get isPoll() {
    return this.#doubts > 0 || Date.now() < Math.max(this.#until, this.#stored());
  }

  /** The stream did not say hello in time, and the poll has not yet shown that it can do better. */
  get isDoubted() {
    return this.#doubts > 0;
  }

  doubt() {
    this.#doubts += 1;
  }

  /** A stream has ended. One that had to be cut off because it never spoke after `hello` may be held back: twice is enough. */
  ended(isMute) {
    this.#silences = isMute ? this.#silences + 1 : 0;
    if (this.#silences < 2) return;
    this.#silences = 0;
    this.#streamed = false;
    this.doubt();
  }

  trust() {
    this.#doubts = 0;
  }

  /** A stream has said hello: where none comes later, the server is the likelier reason than a proxy. */
  streamed() {
    this.#streamed = true;
    this.#doubts = 0;
  }

  choosePoll() {
    this.#doubts = 0;
    const until = Date.now() + (this.#streamed ? PREFER_POLL_BRIEFLY_MS : PREFER_POLL_MS);
    this.#until = until;
    if (this.#streamed) {
      this.#streamed = false; // Next time it is no accident.
      return;
    }
    try {
      localStorage.setItem(this.#key, String(until));
    } catch {
      // No storage here.
    }
  }

  #stored() {
    try {
      const until = Number(localStorage.getItem(this.#key));
      return until < Date.now() + PREFER_POLL_MS ? until : 0; // A clock that was put back must not keep us there.
    } catch {
      return 0;
    }
  }
}

// ---------------------------------------------------------------------------------------------------- coming back again

/** Lines in a row, until told to stop or until the server says that coming back is no use. */
class Link {
  #server;
  #options;
  #preference;
  #sink;
  #line = null;
  #nap = null;
  #mayWake = true;
  #stopped = false;
  #backoff = new Backoff();
  #renewed = false;

  constructor({ server, options, preference, sink }) {
    this.#server = server;
    this.#options = options;
    this.#preference = preference;
    this.#sink = {
      get cursor() { return sink.cursor; },
      accept: (event) => this.#stopped || sink.accept(event),
      moved: (cursor, counts) => this.#stopped || sink.moved(cursor, counts),
      fed: () => this.#stopped || sink.fed(),
      pulse: () => this.#stopped || sink.pulse(),
      connected: (line) => this.#stopped || this.#connected(line, sink),
      status: (status, why) => this.#stopped || sink.status(status, why, null),
    };
  }

  async start() {
    while (!this.#stopped) {
      const next = await this.#attempt();
      if (this.#stopped) return;
      this.#sink.status(next.ended ? 'ended' : 'reconnecting', next.ended ?? null);
      if (next.ended) return;
      this.#nap = new AbortController();
      this.#mayWake = !next.isFirm;
      await pause(next.after, this.#nap.signal);
      this.#nap = null;
    }
  }

  stop() {
    this.#stopped = true;
    this.restart();
  }

  /** Drops what there is and connects anew at once. */
  restart() {
    this.#line?.cut('restart');
    this.#nap?.abort();
  }

  /** The page came back, or the network did: don't wait for a timer that may be long, unless the server set it. */
  wake() {
    if (this.#nap ? this.#mayWake : this.#line?.isStale) this.restart();
  }

  get patience() {
    return this.#line?.patience ?? HEARTBEAT_S * PATIENCE * 1000;
  }

  async #attempt() {
    const transport = this.#options.transport !== 'auto' ? this.#options.transport : this.#preference.isPoll ? 'poll' : 'sse';
    const line = new Line(transport, { server: this.#server, options: this.#options, preference: this.#preference, sink: this.#sink });
    this.#line = line;
    const error = await line.run();
    this.#line = null;
    if (line.helloAt && Date.now() - line.helloAt >= HEALTHY_MS) this.#backoff.reset();
    try {
      return await this.#judge(line, error);
    } catch {
      return { after: this.#backoff.next() }; // The page's own callback failed, or the network again.
    }
  }

  #connected(line, sink) {
    this.#renewed = false;
    if (line.transport === 'sse') this.#preference.streamed();
    sink.status('live', null, line.transport);
  }

  /** What comes after a line: `{after}` in milliseconds, `isFirm` where no wish of the page shortens it, or `{ended}` with the reason. */
  async #judge(line, error) {
    if (line.cutFor === 'restart') return { after: 0 };
    if (line.cutFor === 'no-hello' && this.#options.transport === 'auto' && line.transport === 'sse') {
      this.#preference.doubt();
      return { after: 0 };
    }
    if (line.helloAt && line.transport === 'sse') this.#preference.ended(line.cutFor === 'silent' && !line.spoke);
    else if (line.transport === 'poll') this.#preference.trust(); // The poll failed too, so the stream is not to blame.
    if (line.bye) return this.#part(line);
    if (error instanceof Problem) return this.#refused(error, line);
    return { after: this.#backoff.next() };
  }

  /** The server ended the connection and said why. */
  async #part({ bye: { reason, reconnect, retry_ms: retry }, used, helloAt }) {
    if (reason === 'expired' && !(await this.#isGoodAgain(used))) return { ended: reason };
    if (reason === 'expired') return { after: helloAt ? this.#backoff.next() : 0 };
    if (!reconnect) return { ended: reason };
    if (reason === 'shutdown' || reason === 'rotate') return { after: retry ?? this.#backoff.next() };
    return { after: Math.max(retry ?? 0, this.#backoff.next()) };
  }

  async #refused(problem, { used }) {
    const ended = endOf(problem, this.#server.credential);
    const { renewable } = this.#server.credential;
    // A callback that had nothing to give need not be asked again.
    const mayRenew = renewable && problem.status === 401 && problem.code !== 'unauthenticated';
    if (mayRenew && (await this.#isGoodAgain(used))) return { after: 0 };
    if (ended) return { ended };
    if (problem.retryAfter === null) return { after: this.#backoff.next() };
    return { after: problem.retryAfter + Math.random() * 1000, isFirm: true };
  }

  /** Another token from the callback, or a session that was renewed meanwhile. Once, until a `hello` proves it. */
  async #isGoodAgain(used) {
    if (this.#renewed) return false;
    const { credential } = this.#server;
    try {
      if (credential.kind === 'cookie') await this.#server.request('GET', 'v1/inbox/counts');
      else if (!(await credential.renew('refused', used))) return false;
    } catch (error) {
      if (endOf(error, credential)) return false;
      throw error;
    }
    this.#renewed = true;
    return true;
  }
}

// -------------------------------------------------------------------------------------------- one connection per browser

/**
 * The pages that share a connection: a channel on which they talk, and a seat that one of them holds. Two pages that both take
 * themselves for the leader cost a second connection and nothing else: each follower has a position of its own.
 */
class Group {
  #owner;
  #channel;
  #seat;
  #left = false;
  /** Whether this page holds the seat. */
  leads = false;

  static get isPossible() {
    return Boolean(globalThis.BroadcastChannel && (Lock.isPossible || Lease.isPossible));
  }

  /**
   * `owner` has `lead()`, `follow()` after the seat was lost, `hear(message)`, `doubt()` where the leader may be no more, and
   * `alone()` where no seat can be had.
   */
  constructor(name, owner) {
    this.#owner = owner;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#left || owner.hear(data);
    const Seat = Lock.isPossible ? Lock : Lease;
    this.#seat = new Seat(name, {
      won: () => this.#lead(),
      lost: () => this.#follow(),
      doubt: () => this.leads || owner.doubt(),
      refused: () => owner.alone(),
    });
  }

  say(message) {
    if (this.#left) return;
    this.#channel.postMessage(message);
    if (this.leads) this.#seat.renew();
  }

  /** Takes the seat from a leader that gives no sign of life. */
  supersede() {
    this.#seat.steal();
  }

  /** Gives the seat up, `after` so many milliseconds. */
  leave(after = 0) {
    this.#left = true;
    this.leads = false;
    this.#seat.leave(after);
    this.#channel.close();
  }

  #lead() {
    this.leads = true;
    this.#owner.lead(); // May leave at once, so it comes last.
  }

  #follow() {
    this.leads = false;
    this.#owner.follow();
  }
}

/**
 * The seat as a lock of the browser's: it never has two holders, and none that is gone. `owner` has `won()`, `lost()` and
 * `refused()`, none of which is called by the constructor.
 */
class Lock {
  #name;
  #owner;
  #request = null;
  #release = null;
  #left = false;

  /** Secure contexts have locks. */
  static get isPossible() {
    return Boolean(globalThis.navigator?.locks);
  }

  constructor(name, owner) {
    this.#name = name;
    this.#owner = owner;
    this.#queue(false);
  }

  /** A lock is held until it is let go of. */
  renew() {}

  steal() {
    this.#request?.abort();
    this.#queue(true);
  }

  leave(after) {
    this.#left = true;
    this.#request?.abort();
    if (after > 0) setTimeout(() => this.#release?.(), after);
    else this.#release?.();
  }

  #queue(steal) {
    const request = new AbortController();
    this.#request = request;
    // A lock that is stolen can't be waited for, so it takes no signal.
    const options = steal ? { steal } : { signal: request.signal };
    navigator.locks.request(this.#name, options, () => this.#hold()).catch((error) => this.#lost(error, request));
  }

  #hold() {
    if (this.#left || this.#release) return null;
    return new Promise((release) => {
      this.#release = release;
      this.#owner.won();
    });
  }

  /** The request was taken back, or the lock was stolen, or there are no locks for this page. */
  #lost(error, request) {
    if (this.#left || request.signal.aborted) return;
    if (error.name !== 'AbortError') return this.#owner.refused();
    this.#release = null;
    this.#owner.lost();
    this.#queue(false);
  }
}

/**
 * The seat as a record in the storage of the origin: who holds it, and until when. The holder renews it, by a timer and by all that
 * it says, since a hidden page's timers may be a minute late. Hence a record that has run out is only a reason for
 * `owner.doubt()`: the holder is asked, and superseded if it does not answer. `owner` as for Lock.
 *
 * Storage has no compare-and-swap: two pages may both write. So whoever has written reads again after a random time, and the
 * holder reads before it renews; what stands there then counts for all.
 */
class Lease {
  #key;
  #owner;
  #me = randomName();
  #holds = false;
  #renewedAt = 0;
  #timer;
  #listening = new AbortController();

  static get isPossible() {
    try {
      localStorage.getItem('');
      return true;
    } catch {
      return false;
    }
  }

  constructor(name, owner) {
    this.#key = name;
    this.#owner = owner;
    // A record that was taken away is its holder's word that it has left; it comes to all other pages.
    const look = ({ key }) => (key === this.#key || key === null) && this.#look();
    addEventListener('storage', look, { signal: this.#listening.signal });
    this.#later(() => this.#look(), 0);
  }

  renew() {
    if (Date.now() - this.#renewedAt >= RENEW_LEASE_MS) this.#look();
  }

  steal() {
    this.#take();
  }

  leave(after) {
    clearTimeout(this.#timer);
    this.#listening.abort();
    if (!this.#holds) return;
    this.#holds = false;
    if (after > 0) setTimeout(() => this.#giveUp(), after);
    else this.#giveUp();
  }

  #later(act, ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, ms);
  }

  /** What stands there; null where nothing does. A time beyond all that is written is from before the clock was put back. */
  #record() {
    try {
      const { id, until } = parseJson(localStorage.getItem(this.#key)) ?? {};
      return id ? { id, isGood: until > Date.now() && until <= Date.now() + LEASE_MS } : null;
    } catch {
      return null;
    }
  }

  #write() {
    try {
      localStorage.setItem(this.#key, JSON.stringify({ id: this.#me, until: Date.now() + LEASE_MS }));
      this.#renewedAt = Date.now();
      return true;
    } catch {
      this.#owner.refused(); // Storage that can be read only, or is full.
      return false;
    }
  }

  #look() {
    const record = this.#record();
    if (this.#holds && record && record.id !== this.#me && record.isGood) return this.#lose();
    if (this.#holds) {
      if (this.#write()) this.#later(() => this.#look(), RENEW_LEASE_MS);
      return;
    }
    if (!record) return this.#take();
    if (record.id === this.#me) return this.#settleLater();
    this.#later(() => this.#look(), RENEW_LEASE_MS);
    if (!record.isGood) this.#owner.doubt();
  }

  #take() {
    if (!this.#holds && this.#write()) this.#settleLater();
  }

  #settleLater() {
    this.#later(() => this.#settle(), SETTLE_MS * (1 + 2 * Math.random()));
  }

  /** Some time after the record was written: whose it has remained. */
  #settle() {
    if (this.#record()?.id !== this.#me) return this.#look();
    this.#holds = true;
    this.#later(() => this.#look(), RENEW_LEASE_MS);
    this.#owner.won();
  }

  #lose() {
    this.#holds = false;
    this.#later(() => this.#look(), RENEW_LEASE_MS);
    this.#owner.lost();
  }

  #giveUp() {
    if (this.#record()?.id === this.#me) localStorage.removeItem(this.#key);
  }
}

/**
 * Feeds a page from what the leader says. Whatever the leader could not tell it, it asks the server for: one plain
 * catch-up from its own position when it joins, and again when it finds that it has missed something, such as while it was frozen.
 */
class Follower {
  #server;
  #options;
  #preference;
  #sink;
  #stop = new AbortController();
  #leader = null;
  #heardAt = 0; // Long ago: a leader that does not answer the first question is no leader.
  #askedAt = 0;
  #grace = 0;
  #queue = [];
  #catching = false;
  #caughtUp = false;
  #backoff = new Backoff();
  #watchdog;
  #nudges = new Backoff();
  #nudge;

  /** `sink` as for Link, and `user`, `ask()`, `wakeLeader()`, `supersede()`, `estranged()`. */
  constructor({ server, options, preference, sink }) {
    this.#server = server;
    this.#options = options;
    this.#preference = preference;
    this.#sink = sink;
  }

  start() {
    this.#ask();
  }

  stop() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#nudge);
    this.#stop.abort();
  }

  restart() {
    this.#sink.wakeLeader();
    this.#catchUp();
  }

  wake() {
    this.#sink.wakeLeader();
    this.#ask();
  }

  /** The leader may be no more. */
  doubt() {
    this.#ask();
  }

  /** What the leader says. */
  hear(message) {
    this.#heardAt = Date.now();
    this.#askedAt = 0;
    if (message.say === 'status') this.#listen(message);
    else if (this.#isForeign(message)) this.#sink.estranged();
    else if (this.#catching) this.#keep(message);
    else if (this.#caughtUp) this.#take(message);
  }

  #listen(message) {
    this.#leader = message;
    if (message.transport === 'sse') this.#preference.streamed();
    if (this.#caughtUp && this.#isForeign(message)) return this.#sink.estranged();
    if (this.#caughtUp) this.#take(message);
    else if (message.status === 'live') this.#catchUp();
    this.#tell();
    this.#watch();
    this.#nudgeLater();
  }

  /** A hidden leader's timers may be a minute late. A page in sight must not wait for them. */
  #nudgeLater() {
    clearTimeout(this.#nudge);
    if (this.#leader.status === 'live') return this.#nudges.reset();
    this.#nudge = setTimeout(() => {
      if (!globalThis.document?.hidden) this.#sink.wakeLeader();
      this.#nudgeLater();
    }, BACKOFF_FIRST_MS + this.#nudges.next());
  }

  /** The leader's connection is another person's than this page: somebody has signed in anew. */
  #isForeign({ user }) {
    return Boolean(user && this.#sink.user && user !== this.#sink.user);
  }

  #tell() {
    if (!this.#leader) return;
    const { status, transport } = this.#leader;
    if (status !== 'live' || this.#caughtUp) this.#sink.status(status, null, transport);
  }

  #keep(message) {
    if (this.#queue.length >= QUEUE_LIMIT) this.#queue.length = 0; // The gap will be seen.
    this.#queue.push(message);
  }

  #take(message) {
    const { say, event, cursor, after, at } = message;
    const mine = this.#sink.cursor;
    if (say === 'event' && event.event === 'hello') return this.#greet(event);
    if (say === 'moved' || DURABLE.has(event?.event)) {
      if (!isCovered(after, mine)) return void this.#catchUp();
    } else if (isCovered(mine, at) && mine !== at) {
      return void this.#catchUp(); // The leader is ahead, and what brought it there has not come here.
    }
    if (say === 'event') this.#sink.accept(event);
    else if (say === 'moved') this.#sink.moved(cursor);
    else if (say === 'pulse') this.#sink.fed();
  }

  /** The leader has connected again. Its position is not ours; only if it is not ahead of us have we missed nothing. */
  #greet({ id, event, data }) {
    const mine = this.#sink.cursor;
    if (!data.recovered || !isCovered(data.cursor, mine)) return void this.#catchUp();
    this.#sink.accept({ id, event, data: { ...data, cursor: mine } });
  }

  async #catchUp() {
    if (this.#catching || this.#stop.signal.aborted) return;
    this.#catching = true;
    this.#caughtUp = false;
    while (!this.#caughtUp && !this.#stop.signal.aborted) await this.#tryToCatchUp(this.#stop.signal);
    this.#catching = false;
    if (this.#stop.signal.aborted) return;
    if (this.#leader && this.#isForeign(this.#leader)) return this.#sink.estranged();
    const queue = this.#queue.splice(0);
    for (const message of queue) {
      if (this.#catching) this.#keep(message);
      else this.#take(message);
    }
    this.#tell();
  }

  /** One try; after a failure it waits for the next one, or ends the client, which stops this. */
  async #tryToCatchUp(signal) {
    try {
      await this.#readAll(signal);
      this.#caughtUp = true;
      this.#backoff.reset();
    } catch (error) {
      if (signal.aborted) return;
      const why = endOf(error, this.#server.credential);
      if (why) this.#sink.status('ended', why, null);
      else await pause(error.retryAfter ?? this.#backoff.next(), signal);
    }
  }

  async #readAll(signal) {
    for (let isFirst = true, more = true; more; isFirst = false) {
      const asked = this.#sink.cursor;
      const answer = await this.#read({ ...this.#options.filters, cursor: asked, wait: 0, limit: 500 }, signal);
      for (const { id, event, data } of unpack(answer, asked, isFirst)) {
        if (event === 'bye') throw new Unreachable(new Error(data.reason));
        this.#sink.accept({ id: id ?? null, event, data });
        if (signal.aborted) return;
      }
      this.#sink.moved(answer.cursor, answer.counts);
      more = answer.more && answer.cursor !== asked;
    }
  }

  /** A token that is refused is renewed once. */
  async #read(query, signal) {
    const { credential } = this.#server;
    const used = await credential.value();
    try {
      return await this.#server.poll(query, { signal });
    } catch (error) {
      if (error.status !== 401 || !(await credential.renew('refused', used))) throw error;
      return this.#server.poll(query, { signal });
    }
  }

  #ask() {
    if (this.#askedAt) return;
    this.#askedAt = Date.now();
    this.#grace = ANSWER_MS * (1 + Math.random() / 2); // So that not all followers lose patience together.
    this.#sink.ask();
    this.#watch();
  }

  /** A leader that is silent for too long is asked; one that does not answer is superseded. */
  #watch() {
    clearTimeout(this.#watchdog);
    const patience = this.#leader?.patience ?? HEARTBEAT_S * PATIENCE * 1000;
    const due = this.#askedAt ? this.#askedAt + this.#grace : this.#heardAt + patience;
    const left = due - Date.now();
    if (left > 0) {
      this.#watchdog = setTimeout(() => this.#watch(), left);
    } else if (this.#askedAt) {
      this.#sink.supersede();
      this.#heardAt = Date.now(); // The lock is ours in a moment, or another's who was faster.
      this.#askedAt = 0;
      this.#watch();
    } else {
      this.#ask();
    }
  }
}

// -------------------------------------------------------------------------------------------------------------- the client

/** What a page holds. See tidings.d.ts for every option and member. */
class Client {
  #options;
  #server;
  #preference;
  #handlers = new Map();
  #first; // The position a new beginning takes.
  #position;
  #user = null;
  #counts = null;
  #status = 'idle';
  #transport = null;
  #group = null;
  #feed = null;
  #suffix = '';
  #saidAt = 0;
  #turn = 0;
  #life = null; // Listens to the page while the client is open.
  #suspended = false;
  #isAlone = false; // It would share, and can't.
  #fedAt = 0; // When something last came that the server had said to this page, or to its leader.
  #isFresh = false; // Whether what is replayed since `hello` is as good as live.

  constructor({ url, token, ticket, transport = 'auto', share = true, user = '', cursor = null, paused = false, snapshot, events, category, topics } = {}) {
    if (transport !== 'auto' && !TRANSPORTS[transport]) throw new TypeError(`There is no transport ${transport}.`);
    const list = (value) => (Array.isArray(value) ? value.join(',') : value);
    this.#server = new Server({ url, token, ticket });
    this.#preference = new Preference(this.#server.href);
    this.#options = { transport, share, user, filters: { snapshot, category, events: list(events), topics: list(topics) } };
    this.#first = this.#position = cursor;
    if (!paused) this.open();
  }

  get status() { return this.#status; }
  get transport() { return this.#transport; }
  get isLeader() { return this.#group ? this.#group.leads : true; }
  get user() { return this.#user; }
  get cursor() { return parseCursor(this.#position) ? this.#position : null; }
  get counts() { return this.#counts; }
  get readonly() { return this.#server.credential.kind === 'ticket'; }

  /** Calls `handler(data, event)` for each event of a kind; answers a function that ends it. */
  on(kind, handler) {
    if (typeof handler !== 'function') throw new TypeError('A handler is a function.');
    const entry = { handler };
    const handlers = this.#handlers.get(kind) ?? new Set();
    this.#handlers.set(kind, handlers.add(entry));
    return () => void handlers.delete(entry);
  }

  /** Connects, or begins anew after an end. Does nothing while the client is open. */
  open() {
    if (this.#life) return;
    if (this.#status === 'ended') this.#forget();
    this.#life = new AbortController();
    this.#watchPage(this.#life.signal);
    this.#join('connecting');
  }

  /** Ends the connection until `open` is called. */
  close() {
    this.#end('closed');
  }

  /** Drops the connection and makes a new one at once; opens a client that has ended. */
  reconnect() {
    if (!this.#life) return this.open();
    this.#feed?.restart();
  }

  async mark({ as, ids, upto, category }, { keepalive } = {}) {
    const answer = await this.request('POST', 'v1/inbox/mark', { body: { as, ids, upto, category }, keepalive });
    this.#noteCounts(answer);
    return answer;
  }

  async inbox({ before, limit, state, category } = {}, { signal } = {}) {
    const answer = await this.request('GET', 'v1/inbox', { query: { before, limit, state, category }, signal });
    this.#noteCounts(answer);
    return answer;
  }

  entry(id) {
    return this.request('GET', `v1/inbox/${encodeURIComponent(id)}`);
  }

  follows() {
    return this.request('GET', 'v1/follows');
  }

  follow(topic, { last } = {}) {
    return this.#ofTopic('PUT', topic, 'follow', { last });
  }

  unfollow(topic) {
    return this.#ofTopic('DELETE', topic, 'follow');
  }

  mute(topic) {
    return this.#ofTopic('PUT', topic, 'mute');
  }

  unmute(topic) {
    return this.#ofTopic('DELETE', topic, 'mute');
  }

  #ofTopic(method, topic, what, body) {
    return this.request(method, `v1/topics/${encodeURIComponent(topic)}/${what}`, { body });
  }

  request(method, path, options) {
    return this.#server.request(method, path, options);
  }

  // -- position, counts, handlers

  /** The one door for events, whichever way they came. */
  #accept(event) {
    const { id, event: kind, data } = event;
    const after = this.#position;
    if (kind === 'hello') {
      if (this.#user !== null && data.user !== this.#user) return this.#end('another-user');
      // Whoever heard everything until a moment ago has only missed what is new. Longer than a heartbeat's silence is away.
      this.#isFresh = this.#user !== null && data.recovered && Date.now() - this.#fedAt < FRESH_MS + data.heartbeat * 1000;
      this.#user = data.user;
      this.#position = data.cursor;
      const { unread, unseen, by_category } = data.counts;
      this.#counts = { unread, unseen, by_category, as_of: data.head ?? data.cursor };
    } else if (DURABLE.has(kind)) {
      if (isCovered(id, after)) return;
      this.#position = id;
      if (this.#isFresh && data.replayed) data.replayed = false;
    } else if (kind === 'unread' && !this.#learn(data)) {
      return;
    }
    if (!PRIVATE.has(kind)) this.#relay({ say: 'event', event, after });
    this.#emit(kind, data, event);
  }

  /** A poll's answer ends at a position that may lie beyond its last event. */
  #moved(cursor, counts) {
    const after = this.#position;
    if (!isCovered(cursor, after)) {
      this.#position = cursor;
      this.#relay({ say: 'moved', cursor, after });
    }
    this.#noteCounts({ counts, cursor });
  }

  /** Takes counts in unless newer ones are known. */
  #learn(counts) {
    const known = this.#counts?.as_of;
    if (known !== counts.as_of && isCovered(counts.as_of, known)) return false;
    const { unread, unseen, by_category, as_of } = counts;
    this.#counts = { unread, unseen, by_category, as_of };
    return true;
  }

  /** Answers have counts too: they tell what no event has told, or tell it sooner. */
  #noteCounts({ counts, cursor }) {
    if (this.#status === 'ended') return; // What is still under way is of a beginning that is over.
    if (!counts || !this.#counts || isCovered(cursor, this.#counts.as_of)) return;
    const { unread, unseen, by_category } = counts;
    const data = { unread, unseen, by_category, as_of: cursor };
    const isNews = JSON.stringify(data) !== JSON.stringify({ ...this.#counts, as_of: cursor });
    if (isNews) this.#accept({ id: null, event: 'unread', data });
    else this.#counts = data;
  }

  #emit(kind, ...values) {
    const called = kind === 'status' ? [kind] : [kind, '*'];
    for (const name of called) {
      for (const { handler } of [...(this.#handlers.get(name) ?? [])]) {
        try {
          handler(...values);
        } catch (error) {
          // A fault of the page is told to the page, and must not cost it the next event.
          if (globalThis.reportError) reportError(error);
          else console.error(error);
        }
      }
    }
  }

  #tell(status, why = null, transport = null) {
    const waits = status === 'connecting' || status === 'reconnecting';
    const told = waits && globalThis.navigator?.onLine === false ? 'offline' : status;
    const isNews = told !== this.#status || transport !== this.#transport || status === 'ended';
    this.#transport = transport;
    if (!isNews) return;
    const isSame = told === this.#status && status !== 'ended';
    this.#status = told;
    this.#announce();
    if (!isSame) this.#emit('status', told, why);
  }

  // -- where events come from

  /** What links and followers see of the client. Each gets its own, which is void once it was replaced. */
  #sink() {
    const client = this;
    const mine = (act) => (...values) => (sink.feed === this.#feed ? act(...values) : undefined);
    const sink = {
      feed: null,
      get cursor() { return client.#position; },
      get user() { return client.#user; },
      accept: mine((event) => {
        this.#accept(event);
        this.#fedAt = Date.now();
      }),
      moved: mine((cursor, counts) => this.#moved(cursor, counts)),
      fed: mine(() => { this.#fedAt = Date.now(); }),
      pulse: mine(() => Date.now() - this.#saidAt > PULSE_MS && this.#relay({ say: 'pulse' })),
      status: mine((status, why, transport) => (status === 'ended' ? this.#end(why) : this.#tell(status, why, transport))),
      ask: mine(() => this.#group?.say({ say: 'ask' })),
      wakeLeader: mine(() => this.#group?.say({ say: 'wake' })),
      supersede: mine(() => this.#group?.supersede()),
      estranged: mine(() => this.#partWays()),
    };
    return sink;
  }

  #feedBy(Kind) {
    this.#feed?.stop();
    const sink = this.#sink();
    const feed = new Kind({ server: this.#server, options: this.#options, preference: this.#preference, sink });
    sink.feed = this.#feed = feed;
    feed.start();
  }

  async #join(status) {
    const turn = ++this.#turn;
    this.#tell(status);
    if (globalThis.document?.prerendering) {
      await new Promise((resolve) => document.addEventListener('prerenderingchange', resolve, { once: true }));
    }
    if (turn !== this.#turn) return;
    if (!this.#options.share) return this.#feedBy(Link);
    if (!Group.isPossible) return this.#standAlone();
    const name = await this.#groupName(turn);
    if (turn !== this.#turn) return;
    try {
      this.#group = new Group(name, {
        lead: () => this.#lead(),
        follow: () => this.#feedBy(Follower),
        hear: (message) => this.#hear(message),
        doubt: () => this.#feed?.doubt(),
        alone: () => this.#standAlone(),
      });
    } catch {
      return this.#standAlone(); // Channels are refused here, as in a sandboxed frame.
    }
    this.#feedBy(Follower);
  }

  #lead() {
    this.#feedBy(Link);
    this.#tell(this.#user === null ? 'connecting' : 'reconnecting');
    this.#announce();
  }

  /** Pages share a connection if the server would tell them the same. Whose token it is must be known for that. */
  async #groupName(turn) {
    const { share, user, filters } = this.#options;
    const backoff = new Backoff();
    while (turn === this.#turn) {
      try {
        const value = await this.#server.credential.value();
        const { sub = '', topics = null } = this.#server.credential.kind === 'token' ? claimsOf(value) : {};
        const { events, category, topics: followed } = filters;
        return `tidings ${GROUP_VERSION} ${JSON.stringify([this.#server.href, user || sub, topics, events, category, followed, share, this.#suffix])}`;
      } catch (error) {
        const why = endOf(error, this.#server.credential);
        if (turn !== this.#turn) break;
        if (why) return this.#end(why);
        this.#tell('reconnecting');
        await pause(backoff.next());
      }
    }
    return null;
  }

  #hear(message) {
    if (message.say === 'ended') {
      // What ended the leader's connection would end ours too only if it is the same credential.
      if (!this.isLeader && message.credential === this.#server.credential.mark) this.#end(message.why);
    } else if (!this.#group.leads) {
      if (message.say !== 'ask' && message.say !== 'wake') this.#feed?.hear(message);
    } else if (message.say === 'ask') {
      this.#announce();
    } else if (message.say === 'wake') {
      this.#feed.wake();
    }
  }

  #relay(message) {
    if (!this.#group?.leads) return;
    this.#saidAt = Date.now();
    this.#group.say({ ...message, user: this.#user, at: this.cursor });
  }

  #announce() {
    this.#relay({ say: 'status', status: this.#status, transport: this.#transport, patience: this.#feed?.patience });
  }

  /** The others of the group are another person's pages: join those of our own person. */
  #partWays() {
    this.#suffix = this.#user;
    this.#leave();
    this.#join('reconnecting');
  }

  /**
   * This page has a connection of its own, as long as it is in sight: over HTTP/1.1 a browser has six for a host, and its
   * seventh page would not even load.
   */
  #standAlone() {
    this.#group?.leave();
    this.#group = null;
    this.#isAlone = true;
    if (globalThis.document?.hidden) this.#suspend();
    else this.#feedBy(Link);
  }

  #leave(after) {
    this.#turn += 1;
    this.#isAlone = false;
    this.#feed?.stop();
    this.#feed = null;
    this.#group?.leave(after);
    this.#group = null;
  }

  #end(why) {
    if (!this.#life) {
      if (this.#status === 'idle') this.#tell('ended', why);
      return;
    }
    const concernsOthers = why !== 'closed' && why !== 'another-user';
    if (concernsOthers) this.#relay({ say: 'ended', why, credential: this.#server.credential.mark });
    this.#life.abort();
    this.#life = null;
    this.#suspended = false;
    this.#leave(concernsOthers ? HEED_MS : 0); // So that the others hear it before one of them asks the server again.
    this.#tell('ended', why);
  }

  /** Whoever opens the client again may be somebody else, so nothing of before is kept. */
  #forget() {
    this.#position = this.#first;
    this.#user = null;
    this.#counts = null;
    this.#suffix = '';
  }

  // -- the life of the page

  #watchPage(signal) {
    const page = globalThis.document;
    if (!page) return;
    const wake = () => this.#wake();
    const suspend = () => this.#suspend();
    addEventListener('online', wake, { signal });
    addEventListener('offline', () => this.isLeader && this.#feed?.restart(), { signal });
    addEventListener('pageshow', (event) => event.persisted && wake(), { signal });
    addEventListener('pagehide', suspend, { signal });
    page.addEventListener('visibilitychange', () => {
      if (page.visibilityState === 'visible') wake();
      else if (this.#isAlone) suspend();
    }, { signal });
    page.addEventListener('freeze', suspend, { signal });
    page.addEventListener('resume', wake, { signal });
  }

  /** A page that is put aside lets go of everything, so that it can be kept and another page can lead. */
  #suspend() {
    this.#suspended = true;
    this.#leave();
  }

  #wake() {
    if (!this.#suspended) return this.#feed?.wake();
    this.#suspended = false;
    this.#join('reconnecting');
  }
}

/** A client of a Tidings server. It connects at once unless `paused`. */
export function connect(options) {
  return new Client(options);
}
