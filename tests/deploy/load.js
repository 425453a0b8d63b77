// load.js is a careful publisher under way, as an application's workers are: several at once, each request on a
// connection of its own (as through a proxy without keepalive), each tried again with its Idempotency-Key until it is
// acknowledged.
//
// What a restart must not do is refuse: every attempt that found nobody listening, or a gateway that found nobody, is
// counted.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { DEADLINE_MS, eventually } from './places.js';

const WORKERS = 8;

export class Load {
  /** Attempts; connections that nobody took; a proxy's answers that found nobody; connections cut without an answer. */
  attempts = 0;
  refused = 0;
  gateway = 0;
  cut = 0;
  /** Publishes that were acknowledged; the slowest of them. */
  acknowledged = 0;
  slowestMs = 0;
  /** Answers that should not be, by status. */
  odd = new Map();
  #stopped = false;
  #workers;

  /** Publishes to `user` at `url` (Tidings' address, with its base path) with `key`, until `stop`. */
  static start(url, key, user) {
    const load = new Load();
    load.url = url;
    load.authorization = `Bearer ${key}`;
    load.user = user;
    const run = `${process.pid}-${Date.now()}`;
    load.#workers = Array.from({ length: WORKERS }, (_, worker) => load.#work(`${run}-${worker}`));
    return load;
  }

  async #work(name) {
    for (let n = 0; !this.#stopped; n += 1) {
      const begun = Date.now();
      const body = JSON.stringify({ to: `user:${this.user}`, title: `${name}/${n}` });
      const headers = { Authorization: this.authorization, 'Content-Type': 'application/json' };
      headers['Idempotency-Key'] = `${name}/${n}`;
      while (!(await this.#attempt(body, headers))) {
        if (Date.now() - begun > DEADLINE_MS) throw new Error(`${name}/${n} was never acknowledged: ${this}`);
        await new Promise((resolve) => { setTimeout(resolve, 5); });
      }
      this.acknowledged += 1;
      this.slowestMs = Math.max(this.slowestMs, Date.now() - begun);
    }
  }

  async #attempt(body, headers) {
    this.attempts += 1;
    try {
      const { status } = await ask(`${this.url}/v1/notifications`, { method: 'POST', headers, body });
      if (status === 201 || status === 200) return true;
      if (status === 502 || status === 504) this.gateway += 1;
      else this.odd.set(status, (this.odd.get(status) ?? 0) + 1);
    } catch (error) {
      if (['ECONNREFUSED', 'ENOENT'].includes(error.code)) this.refused += 1;
      else this.cut += 1;
    }
    return false;
  }

  /** Waits for `n` further acknowledgements. */
  async more(n) {
    const goal = this.acknowledged + n;
    await eventually(() => this.acknowledged >= goal, `${n} more publishes: ${this}`);
  }

  async stop() {
    this.#stopped = true;
    await Promise.all(this.#workers);
    return this;
  }

  toString() {
    const odd = [...this.odd].map(([status, n]) => `, ${n} × ${status}`).join('');
    return `${this.attempts} requests, ${this.refused} refused, ${this.gateway} without a server behind the proxy, `
      + `${this.cut} cut, ${this.acknowledged} acknowledged, slowest ${this.slowestMs} ms${odd}`;
  }
}

/** One request as an application sends it, with its key and a JSON body. */
export function post(url, key, body) {
  const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' };
  return ask(url, { method: 'POST', headers, body: JSON.stringify(body) });
}

/** One request on a connection of its own; answers `{ status, body }`. */
export function ask(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const call = request(url, { method, headers, agent: false, timeout: DEADLINE_MS }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { text += part; });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, body: text }));
    });
    call.on('timeout', () => call.destroy(new Error(`${method} ${url} was not answered`)));
    call.on('error', reject);
    call.end(body);
  });
}

/** What Tidings at `url` counts as unread for a user. */
export async function unread(url, key, user) {
  const { status, body } = await ask(`${url}/v1/users/${user}/counts`, { headers: { Authorization: `Bearer ${key}` } });
  if (status !== 200) throw new Error(`no counts (${status}): ${body}`);
  return JSON.parse(body).unread;
}

/** A ticket for a user's stream. */
export async function ticket(url, key, user) {
  const { status, body } = await post(`${url}/v1/tickets`, key, { user });
  if (status !== 201) throw new Error(`no ticket (${status}): ${body}`);
  return JSON.parse(body).ticket;
}

/** Does something to the server under load, of `requests` at least, and prints what came of it. */
export async function underLoad(what, { url, key, requests }, deed) {
  const user = what.replace(/[^a-z0-9]+/gi, '-');
  const load = Load.start(url, key, user);
  let took;
  try {
    await load.more(50);
    const begun = Date.now();
    await deed(load);
    took = Date.now() - begun;
    await load.more(Math.max(50, requests - load.attempts));
  } finally {
    await load.stop();
  }
  console.log(`${what}: ${load}; took ${took} ms`);
  assert.ok(load.attempts >= requests, `${load}`);
  assert.equal(load.refused, 0, `${load}`);
  assert.equal(load.gateway, 0, `${load}`);
  assert.equal(load.odd.size, 0, `${load}`);
  assert.equal(await unread(url, key, user), load.acknowledged, 'each that was acknowledged is there, once');
}

/** A stream of events: its text so far, which can be waited for. */
export class Stream {
  text = '';
  ended = false;

  /** Opens a stream with a ticket; it ends with the test `t`. */
  static open(t, url, ticket) {
    const stream = new Stream();
    const options = { headers: { Accept: 'text/event-stream' }, agent: false };
    const call = request(`${url}/v1/stream?ticket=${ticket}`, options, (response) => {
      stream.status = response.statusCode;
      response.setEncoding('utf8');
      response.on('data', (part) => { stream.text += part; });
      response.on('error', () => { stream.ended = true; });
      response.on('close', () => { stream.ended = true; });
    });
    call.on('error', () => { stream.ended = true; });
    call.end();
    t.after(() => call.destroy());
    return stream;
  }

  async shows(part) {
    await eventually(() => this.text.includes(part) || this.ended, `the stream shows ${part}: ${this.text}`);
    if (!this.text.includes(part)) throw new Error(`the stream ended (${this.status}) without ${part}: ${this.text}`);
  }
}
