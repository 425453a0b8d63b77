// examples/container, as far as it can be run without a container: nginx with the configuration of that folder,
// before a Tidings with the environment of compose.yaml, over its unix socket. README.md there says what was run by
// hand, and what was not.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Service } from './service.js';
import { openStream } from './people.js';
import { Workshop } from './program.js';
import { startNginx } from './proxy.js';

const example = (name) => readFile(new URL(`../../examples/container/${name}`, import.meta.url), 'utf8');

/** The environment that compose.yaml gives to Tidings. */
async function environment() {
  const [, block] = /^    environment:\n((?: {6}.*\n)+)/m.exec(await example('compose.yaml'));
  const lines = [...block.matchAll(/^ {6}(TIDINGS_\w+): "?([^"\n]*)"?$/gm)];
  return Object.fromEntries(lines.map(([, name, value]) => [name, value]));
}

test('nginx.conf leads to a Tidings with the settings of compose.yaml, over the unix socket and nothing else', async (t) => {
  const env = await environment();
  const shared = await mkdtemp(join(tmpdir(), 'tidings-shared-'));
  t.after(() => rm(shared, { recursive: true, force: true }));
  const socket = env.TIDINGS_HTTP_SOCKET.replace('/run/tidings', shared);
  assert.notEqual(socket, env.TIDINGS_HTTP_SOCKET);
  const conf = await example('nginx.conf');
  assert.ok(conf.includes(`server unix:${env.TIDINGS_HTTP_SOCKET};`), 'both name one socket');

  const service = await Service.start(t, '', { env: { ...env, TIDINGS_HTTP_SOCKET: socket }, listen: env.TIDINGS_HTTP_LISTEN });
  assert.equal(service.url, null, 'it listens on no port');
  const workshop = await Workshop.open(t);
  const nginx = await startNginx(workshop, conf, [
    [`server unix:${env.TIDINGS_HTTP_SOCKET};`, `server unix:${socket};`],
  ]);

  const create = ['key', 'create', '--data', service.data, '--name', 'library', '--scope', 'publish', '--scope', 'tickets'];
  const key = await workshop.run([process.env.TIDINGS_BIN, ...create]);
  const post = (path, body) => fetch(`${nginx}${env.TIDINGS_HTTP_BASE_PATH}/v1/${path}`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const { ticket } = await (await post('tickets', { user: 'alice' })).json();
  const stream = await openStream(t, `${nginx}${env.TIDINGS_HTTP_BASE_PATH}/v1/stream?ticket=${ticket}`);
  await stream.shows('event: hello\n');
  assert.equal((await post('notifications', { to: 'user:alice', title: 'Hello' })).status, 201);
  await stream.shows('"title":"Hello"');
  assert.equal((await fetch(`${nginx}/tidings/metrics`)).status, 404);
  // What the image's health check asks.
  await workshop.run([process.env.TIDINGS_BIN, 'status', '--data', service.data]);
});
