// server.js owns the server under test: the real binary as a process of its own, in a directory of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.TIDINGS_BIN;

export class Server {
  #child = null;
  #exited = null;
  #listen = '127.0.0.1:0';

  #env = {};

  /** Starts `tidings demo`, with settings from the environment, and ends it with the test `t`. */
  static async start(t, env = {}) {
    if (!BINARY) throw new Error('TIDINGS_BIN must name the tidings binary under test');
    const server = new Server();
    server.#env = env;
    server.data = await mkdtemp(join(tmpdir(), 'tidings-'));
    t.after(async () => {
      await server.stop('SIGKILL');
      await rm(server.data, { recursive: true, force: true });
    });
    await server.run();
    return server;
  }

  /** Starts the process and waits for its ready line. A second time it takes the same port and the same data. */
  async run() {
    this.#child = spawn(BINARY, ['demo', '--json', '--listen', this.#listen, '--data', this.data], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#env },
    });
    this.#exited = once(this.#child, 'exit');
    let complaints = '';
    this.#child.stderr.on('data', (text) => { complaints += text; });
    const ready = new Promise((resolve) => createInterface({ input: this.#child.stdout }).once('line', resolve));
    const line = await Promise.race([ready, this.#exited.then(([code, signal]) => {
      throw new Error(`the server ended before it was ready (${code ?? signal}): ${complaints}`);
    })]);
    const { url, key, users } = JSON.parse(line);
    Object.assign(this, { url: url.replace(/\/$/, ''), key, users });
    this.#listen = new URL(url).host;
  }

  async stop(signal) {
    this.#child.kill(signal);
    await this.#exited;
  }

  /** Stops the process where it is, so that its sockets stay open and say nothing; `thaw` lets it go on. */
  freeze() {
    this.#child.kill('SIGSTOP');
  }

  thaw() {
    this.#child.kill('SIGCONT');
  }

  /** Takes the log away and leaves the secrets: what comes next is another log. */
  async loseLog() {
    for (const name of await readdir(this.data)) {
      if (/^tidings\.(db|head)/.test(name)) await rm(join(this.data, name));
    }
  }

  page(path = '') {
    return `${this.url}/${path}`;
  }

  post(path, body, type = 'application/json') {
    return fetch(this.page(path), { method: 'POST', headers: { Authorization: `Bearer ${this.key}`, 'Content-Type': type }, body });
  }

  /** A request by the key that must succeed; answers its body. */
  async ask(method, path, body) {
    const headers = { Authorization: `Bearer ${this.key}`, 'Content-Type': 'application/json' };
    const response = await fetch(this.page(path), { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`);
    return text === '' ? null : JSON.parse(text);
  }

  async publish(notification) {
    const response = await this.post('v1/notifications', JSON.stringify({ to: { user: 'alice' }, body: '', ...notification }));
    if (response.status !== 201) throw new Error(`publish answered ${response.status}: ${await response.text()}`);
    return response.json();
  }

  /** Publishes `count` notifications `<title> 1`, `<title> 2`… in one request. */
  async publishMany(count, title) {
    const lines = Array.from({ length: count }, (_, i) => JSON.stringify({ to: { user: 'alice' }, title: `${title} ${i + 1}`, body: '' }));
    const response = await this.post('v1/notifications', lines.join('\n') + '\n', 'application/x-ndjson');
    if (response.status !== 200) throw new Error(`publish answered ${response.status}: ${await response.text()}`);
    await response.text();
  }
}
