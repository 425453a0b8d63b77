// source.js owns what the elements of one page have in common: one client for all that ask for the same, and what it last said.
//
// Data passes one way: the client's events come in, counts are taken from them, and each goes on to every element that joined.
// Invariant: elements with equal options share one client; it is closed a moment after the last of them has left, unless the page
// made it. An element that is only moved is back before that.
// Invariant: counts are the server's, and an answer that is older than the one on display is ignored.
//
// A ticket reads streams only, so with one there is no page of the inbox to ask for: then the events since the last snapshot
// are kept, for an element that joins late, and nothing can be marked.

import { Desktop } from './desktop.js';
import { connect, isCovered, parseCursor } from './tidings.js';

/** Entries of the snapshot where the snapshot is all there is. */
const SNAPSHOT = 50;
/** Events kept for elements that join late: fewer than an inbox keeps entries, so that they never make too long a list. */
const HISTORY = 500;
/** How long an element that was taken out may take to be put in again elsewhere. */
const LINGER_MS = 200;

/** Sources by what they were asked for, and by their client. */
const byOptions = new Map();
const byClient = new WeakMap();

/** Callbacks have no text to compare, so each has a number. */
const numbers = new WeakMap();
let last = 0;
function keyOf(token) {
  if (typeof token !== 'function') return token ?? '';
  if (!numbers.has(token)) numbers.set(token, ++last);
  return numbers.get(token);
}

export class Source {
  counts = null;
  user = null;
  status = 'idle';
  /** Why `status` is what it is, where the client said. */
  why = null;
  /** Whether the last `hello` could honour the position; until there is one, nothing was missed. */
  recovered = true;
  /** The events since the last snapshot, where they are kept. */
  history = [];
  /** Whether `history` lacks the snapshot, since the client had it before it came here. */
  cameLate = false;

  #members = new Set();
  #asOf = null;
  #release;
  #desktop = new Desktop(this);

  /** The source for these options, which may be there already. */
  static with({ url, token, ticket, user, transport }) {
    const key = JSON.stringify([url ?? '', ticket ?? '', user ?? '', transport ?? '', keyOf(token)]);
    const known = byOptions.get(key);
    if (known) return known;
    const begin = ticket ? { ticket, snapshot: SNAPSHOT } : { token, cursor: 'now' };
    const client = connect(Object.fromEntries(Object.entries({ url, user, transport, ...begin }).filter(([, value]) => value)));
    const made = new Source(client, {
      renews: typeof token === 'function',
      release: () => {
        if (byOptions.get(key) === made) byOptions.delete(key);
        client.close();
      },
    });
    byOptions.set(key, made);
    return made;
  }

  /** The source of a client that the page has made and keeps. */
  static of(client) {
    return byClient.get(client) ?? new Source(client, { renews: true, release: () => {} });
  }

  constructor(client, { renews, release }) {
    this.client = client;
    this.readonly = client.readonly;
    /** Whether the credential is renewed without the person. */
    this.renews = renews;
    this.#release = release;
    byClient.set(client, this);
    this.status = client.status;
    this.user = client.user;
    this.cameLate = client.user !== null;
    if (client.counts) this.#keepCounts(client.counts, client.counts.as_of);
    client.on('hello', (data) => this.#greet(data));
    client.on('unread', (data) => this.takeCounts(data, data.as_of));
    client.on('notification', (data, event) => this.#pass('notification', data, event.id));
    client.on('state', (data, event) => this.#pass('state', data, event.id));
    client.on('token', (data) => this.#tell('token', data));
    client.on('status', (status, why) => this.#follow(status, why));
  }

  /** Lets `member.receive(kind, data, cursor)` hear what comes from now on. */
  join(member) {
    this.#members.add(member);
  }

  leave(member) {
    this.#members.delete(member);
    setTimeout(() => {
      if (!this.#members.has(member)) this.#desktop.release(member);
      if (this.#members.size === 0) this.#release();
    }, LINGER_MS);
  }

  get desktop() {
    return this.#desktop;
  }

  /** Sends a mark; its answer has the counts after it. */
  async mark(which) {
    const answer = await this.client.mark(which, { keepalive: true }); // The page may be left at once, by a link.
    this.takeCounts(answer.counts, answer.cursor);
    return answer;
  }

  takeCounts(counts, asOf) {
    // An answer that was on its way when the person left is not shown to whoever comes next.
    if (counts && this.status !== 'ended' && this.#keepCounts(counts, asOf)) this.#tell('counts', this.counts);
  }

  #keepCounts(counts, asOf) {
    const same = parseCursor(this.#asOf)?.epoch === parseCursor(asOf)?.epoch;
    if (same && this.#asOf !== asOf && isCovered(asOf, this.#asOf)) return false;
    this.counts = counts;
    this.#asOf = asOf;
    return true;
  }

  #greet(hello) {
    this.user = hello.user;
    this.recovered = hello.recovered;
    if (!hello.recovered) {
      this.#asOf = null;
      this.history = [];
      this.cameLate = false;
    }
    this.#tell('hello', hello);
    this.takeCounts(hello.counts, hello.head ?? hello.cursor);
  }

  #follow(status, why = null) {
    this.status = status;
    this.why = why;
    if (status === 'ended') {
      this.user = this.counts = this.#asOf = null;
      this.history = [];
      this.#desktop.clear();
    }
    this.#tell('status', status);
    if (status === 'ended') this.#tell('counts', null);
  }

  #pass(kind, data, cursor) {
    if (this.readonly) this.history = [...this.history.slice(1 - HISTORY), [kind, data, cursor]];
    const calm = this.#tell(kind, data, cursor);
    this.#desktop.receive(kind, data, { calm });
  }

  /** Tells every element. True if one of them said that there has been enough ado about it. */
  #tell(kind, data, cursor) {
    let calm = false;
    for (const member of [...this.#members]) calm = member.receive(kind, data, cursor) === false || calm;
    return calm;
  }
}
