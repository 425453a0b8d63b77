// feed.js owns the live stream: one EventSource, the position reached, and the decision when to connect again.
//
// Data passes one way: the server's frames come in, each is checked against the position, and goes out through `onEvent`.
// Invariant: a durable event (`notification`, `state`) goes out once, in order; whatever stands at or before `last` is dropped.
// Invariant: `hello` sets the position, also backwards, so that a new log can't be muted by the position in an old one.
// It deliberately keeps no list and no counts, and draws nothing.
//
// The browser's own reconnect is used while it works. It stops for ever on any answer but 200, and after sleep or a return
// from the back/forward cache it may not notice that the connection is dead. So there is a watchdog, and a connection
// that this module opens itself passes the position as `?cursor=`, since a new EventSource has no Last-Event-ID.

import { address, isSignedOut, request } from './api.js';

const KINDS = ['hello', 'notification', 'state', 'unread', 'heartbeat', 'token', 'bye'];
const DURABLE = new Set(['notification', 'state']);
/** Assumed until `hello` says how often the server speaks. */
const HEARTBEAT_S = 15;
/** Silence of this many heartbeats means a dead connection. */
const PATIENCE = 2.5;
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_LIMIT_MS = 30_000;

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

export class Feed {
  #source = null;
  #last = null;
  #retry = null;
  #failures = 0;
  #heardAt = 0;
  #patience = HEARTBEAT_S * PATIENCE * 1000;
  #status = 'idle';
  #onEvent;
  #onStatus;

  /** `onEvent(kind, data, cursor)`; `onStatus(status, why)` with `connecting`, `live`, `reconnecting` or `ended`. */
  constructor({ onEvent, onStatus }) {
    this.#onEvent = onEvent;
    this.#onStatus = onStatus;
    setInterval(() => this.#watch(), 5_000);
    addEventListener('online', () => this.#wake());
    addEventListener('pageshow', (event) => event.persisted && this.#wake());
    addEventListener('pagehide', () => this.#disconnect());
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.#wake());
  }

  get last() {
    return this.#last;
  }

  /** Connects from a position. What came up to it is known already. */
  open(cursor) {
    this.#last = cursor;
    this.#failures = 0;
    this.#connect('connecting');
  }

  /** Ends the stream until `open` is called again. */
  close(why = 'closed') {
    this.#disconnect();
    this.#tell('ended', why);
  }

  /** Forgets the position: the next `open` may be another person's. */
  reset() {
    this.#disconnect();
    this.#last = null;
    this.#status = 'idle';
  }

  #connect(status) {
    this.#disconnect();
    this.#tell(status);
    this.#heardAt = Date.now();
    const source = new EventSource(address('v1/stream', { cursor: this.#last, heartbeat: 'event' }));
    this.#source = source;
    for (const kind of KINDS) {
      source.addEventListener(kind, (message) => source === this.#source && this.#receive(kind, message));
    }
    source.onerror = () => source === this.#source && this.#failed();
  }

  #disconnect() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#source?.close();
    this.#source = null;
  }

  #receive(kind, message) {
    this.#heardAt = Date.now();
    let data;
    try {
      data = JSON.parse(message.data);
    } catch {
      return; // Not a frame of this protocol.
    }
    if (kind === 'hello') {
      this.#last = data.cursor;
      this.#failures = 0;
      if (data.heartbeat > 0) this.#patience = data.heartbeat * PATIENCE * 1000;
      this.#tell('live');
    } else if (DURABLE.has(kind)) {
      if (isCovered(message.lastEventId, this.#last)) return;
      this.#last = message.lastEventId;
    }
    if (kind !== 'heartbeat') this.#onEvent(kind, data, this.#last);
    if (kind === 'bye') this.#part(data);
  }

  /** The server ended the stream and said why. */
  #part({ reason, reconnect, retry_ms: after }) {
    this.#disconnect();
    if (reason === 'expired') {
      // Another tab may have signed in again meanwhile.
      this.#later(after ?? 0, reason);
    } else if (reconnect) {
      this.#later(after ?? this.#backoff());
    } else {
      this.#tell('ended', reason);
    }
  }

  #failed() {
    this.#heardAt = Date.now();
    if (this.#source.readyState === EventSource.CONNECTING) {
      this.#tell('reconnecting'); // The browser tries again by itself.
    } else {
      this.#disconnect();
      this.#later(this.#backoff());
    }
  }

  /** Connects after a pause, unless the server says that nobody is signed in any more. */
  #later(pause, why = 'signed-out') {
    this.#tell('reconnecting');
    clearTimeout(this.#retry);
    this.#retry = setTimeout(async () => {
      const before = this.#retry;
      try {
        await request('GET', 'v1/inbox/counts');
      } catch (error) {
        if (before !== this.#retry || this.#status !== 'reconnecting') return;
        if (isSignedOut(error)) this.#tell('ended', why);
        else this.#later(this.#backoff(), why);
        return;
      }
      if (before === this.#retry && this.#status === 'reconnecting' && !this.#source) this.#connect('reconnecting');
    }, pause);
  }

  /** Full jitter: clients that lost the same server must not come back in step. */
  #backoff() {
    const ceiling = Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** this.#failures++);
    return 250 + Math.random() * ceiling;
  }

  #watch() {
    if (this.#source && Date.now() - this.#heardAt > this.#patience) this.#connect('reconnecting');
  }

  /** The page came back, or the network did: don't wait for a timer that may be long. */
  #wake() {
    if (this.#status === 'idle' || this.#status === 'ended') return;
    const stale = Date.now() - this.#heardAt > this.#patience / 2;
    if (this.#status !== 'live' || !this.#source || stale) this.#connect('reconnecting');
  }

  #tell(status, why = null) {
    if (status === this.#status && status !== 'ended') return;
    this.#status = status;
    this.#onStatus(status, why);
  }
}
