// service.js owns a server as an operator runs it: `tidings serve` with a settings file, in a folder of its own.
// (`Server` of tests/browser is the demo, which reads no file by itself.)
//
// Invariant: it ends with the test.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const BINARY = process.env.TIDINGS_BIN;

export class Service {
  #child = null;
  #exited = null;
  #listen;
  #env;

  /**
   * Starts it with these settings (TOML, save for what says where it is), and ends it with the test `t`. It takes a free
   * port unless `listen` says another or "none", where its `url` is null.
   */
  static async start(t, settings = '', { env = {}, listen = '127.0.0.1:0' } = {}) {
    if (!BINARY) throw new Error('TIDINGS_BIN must name the tidings binary under test');
    const service = new Service();
    service.#env = env;
    service.#listen = listen;
    service.folder = await mkdtemp(join(tmpdir(), 'tidings-service-'));
    service.data = join(service.folder, 'state');
    service.config = join(service.folder, 'tidings.toml');
    t.after(async () => {
      await service.stop('SIGKILL');
      await rm(service.folder, { recursive: true, force: true });
    });
    await service.configure(settings);
    await service.run();
    return service;
  }

  /** Writes the settings file; who wants it to count reloads or starts again. */
  async configure(settings) {
    await writeFile(this.config, `data = "${this.data}"\n${settings}`);
  }

  /** Starts the process and waits for its ready line. A second time it takes the same port and the same data. */
  async run() {
    this.#child = spawn(BINARY, ['serve', '--json', '--config', this.config, '--listen', this.#listen], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#env },
    });
    this.#exited = once(this.#child, 'exit');
    this.complaints = '';
    this.#child.stderr.on('data', (text) => { this.complaints += text; });
    const ready = new Promise((resolve) => createInterface({ input: this.#child.stdout }).once('line', resolve));
    const line = await Promise.race([ready, this.#exited.then(([code, signal]) => {
      throw new Error(`the server ended before it was ready (${code ?? signal}): ${this.complaints}`);
    })]);
    const { url, socket } = JSON.parse(line);
    this.url = url && url.replace(/\/$/, '');
    this.socket = socket;
    if (url) this.#listen = new URL(url).host;
  }

  async stop(signal) {
    this.#child.kill(signal);
    await this.#exited;
  }

  page(path = '') {
    return `${this.url}/${path}`;
  }
}
