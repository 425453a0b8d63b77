// cutter.js owns the bad network: a TCP proxy that breaks connections at byte positions that nobody chose.
//
// The bytes that the server sends are counted over all connections, so that a client which opens a connection for each
// request meets as many breaks as one that keeps a single one. What comes before the position is passed on, the rest of
// the chunk is not.
// Invariant: no two breaks are due at once; the next one is due only after `arm`.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { DEADLINE_MS } from './program.js';

/** Random numbers that come again for the same seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Cutter {
  /** How many connections were broken. */
  cuts = 0;
  /** How many bytes the server has sent. */
  bytes = 0;
  #left = Infinity;
  #harsh = false;
  #broken = null;
  #listener;
  #sockets = new Set();

  /** Stands in front of `target`, the server's address; ends with the test `t`. */
  static async start(t, target) {
    const cutter = new Cutter();
    const { hostname, port } = new URL(target);
    cutter.#listener = createServer({ noDelay: true }, (client) => cutter.#join(client, connect({ host: hostname, port, noDelay: true })));
    cutter.#listener.listen(0, '127.0.0.1');
    await once(cutter.#listener, 'listening');
    cutter.url = `http://127.0.0.1:${cutter.#listener.address().port}`;
    t.after(() => cutter.#close());
    return cutter;
  }

  /** The connection that brings the server's `bytes`-th byte from here on is broken behind it. Resolves when that was done. */
  arm(bytes, harsh) {
    this.#left = bytes;
    this.#harsh = harsh;
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`in time the server did not send ${bytes} bytes`)), DEADLINE_MS);
      this.#broken = () => { clearTimeout(late); resolve(); };
    });
  }

  #join(client, server) {
    for (const [socket, other] of [[client, server], [server, client]]) {
      this.#sockets.add(socket);
      // A broken socket is this proxy's trade; the other side learns of it here.
      socket.on('error', () => other.destroy());
      socket.on('close', () => { this.#sockets.delete(socket); other.destroy(); });
    }
    client.pipe(server);
    server.on('data', (chunk) => this.#pass(chunk, client, server));
    server.on('end', () => client.end());
  }

  #pass(chunk, client, server) {
    this.bytes += chunk.length;
    if (chunk.length < this.#left) {
      this.#left -= chunk.length;
      if (!client.write(chunk)) {
        server.pause();
        client.once('drain', () => server.resume());
      }
      return;
    }
    const passed = chunk.subarray(0, this.#left);
    this.#left = Infinity;
    this.cuts += 1;
    server.destroy();
    // Some networks say goodbye, and some let a reset overtake what was sent.
    client.end(passed, () => { if (this.#harsh) client.resetAndDestroy(); });
    this.#broken();
  }

  #close() {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
