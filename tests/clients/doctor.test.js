// `tidings doctor --via` through real proxies: nginx and HAProxy as docs/proxies has them, where it finds nothing, and nginx
// with one thing wrong, which it names. What it says is read from its JSON; its status says whether there is a fault.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { Server } from '../browser/server.js';
import { Workshop } from './program.js';
import { startProxy } from './proxy.js';

const BASE_PATH = '/tidings';
const USER = 'tidings-doctor';

/** Runs the doctor; its status, its report where it made one, and what it complained of. */
async function doctor(workshop, server, url, args = ['--idle', '0']) {
  const program = workshop.start([process.env.TIDINGS_BIN, 'doctor', '--via', url, '--data', server.data, '--json', ...args]);
  const status = await program.ended();
  const [line] = program.lines;
  return { status, report: line && JSON.parse(line), complaints: program.complaints };
}

/** A server with its base path, and a proxy in front of it with `changes`; and what the doctor says of it. */
async function examine(t, { name = 'nginx.conf', changes = [], env = {}, args, upstream = 'tcp' } = {}) {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: BASE_PATH, ...env });
  const workshop = await Workshop.open(t);
  const proxy = await startProxy(workshop, name, server, upstream, BASE_PATH, changes);
  return { server, workshop, ...await doctor(workshop, server, proxy.url, args) };
}

/** What is not well, by what it is about. */
function troubles(report) {
  return Object.fromEntries(report.findings.filter(({ level }) => level !== 'ok').map((finding) => [finding.about, finding]));
}

function isWell({ status, report, complaints }) {
  assert.deepEqual(troubles(report), {}, complaints);
  assert.deepEqual([status, report.faults, report.warnings, complaints], [0, 0, 0, '']);
}

/** There is a fault about this; returns what is said, and what to change in nginx. */
function fault({ status, report, complaints }, about) {
  const finding = troubles(report)[about];
  assert.ok(finding, `${about} is among ${JSON.stringify(report.findings)}`);
  const { level, what, change } = finding;
  assert.equal(level, 'fault', what);
  assert.equal(status, 1);
  assert.match(complaints, /^error: \d+ faults? between browsers and Tidings\n$/);
  return { what, nginx: change?.nginx };
}

const about = (report, name) => report.findings.filter((finding) => finding.about === name).map(({ what }) => what);

/** An authority of its own, and a certificate for 127.0.0.1 by it. The changes that make nginx show that one. */
async function privateAuthority(workshop) {
  const at = (name) => join(workshop.path, name);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await workshop.run(['openssl', 'req', '-x509', ...key, '-days', '1', '-subj', '/CN=An authority of our own',
    '-keyout', at('ca.key'), '-out', at('ca.crt')]);
  await workshop.run(['openssl', 'req', ...key, '-subj', '/CN=library.example', '-keyout', at('leaf.key'),
    '-out', at('leaf.csr')]);
  await writeFile(at('leaf.ext'), 'subjectAltName=IP:127.0.0.1\n');
  await workshop.run(['openssl', 'x509', '-req', '-in', at('leaf.csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key'),
    '-CAcreateserial', '-days', '1', '-extfile', at('leaf.ext'), '-out', at('leaf.crt')]);
  return [[at('proxy.crt'), at('leaf.crt')], [at('proxy.key'), at('leaf.key')]];
}

/** How long a hesitant relay waits for more. */
const HESITATION_MS = 1_200;

/** A relay that passes on what comes from the server only when nothing more has come for a while. Returns its address. */
async function hesitantRelay(t, port) {
  const sockets = new Set();
  const relay = createServer((browser) => {
    const upstream = connect(port, '127.0.0.1');
    const held = [];
    const pass = () => held.splice(0).forEach((bytes) => browser.write(bytes));
    let timer;
    upstream.on('data', (bytes) => {
      held.push(bytes);
      clearTimeout(timer);
      timer = setTimeout(pass, HESITATION_MS);
    });
    upstream.on('end', () => { pass(); browser.end(); });
    browser.on('data', (bytes) => upstream.write(bytes));
    for (const [one, other] of [[browser, upstream], [upstream, browser]]) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  t.after(() => {
    relay.close();
    sockets.forEach((socket) => socket.destroy());
  });
  return `http://127.0.0.1:${relay.address().port}`;
}

for (const [name, upstream] of [['nginx.conf', 'tcp'], ['nginx.conf', 'unix'], ['haproxy.cfg', 'tcp']]) {
  test(`nothing is wrong with ${name} over ${upstream}, and nothing is left behind`, async (t) => {
    const env = { TIDINGS_STREAMS_HEARTBEAT: '1s' };
    const found = await examine(t, { name, upstream, env, args: ['--idle', '5s'] });
    isWell(found);
    const { report: { figures }, server } = found;
    assert.equal(figures.publishes.length, 5);
    assert.ok(figures.publishes.every(({ answered_ms, arrived_ms }) => arrived_ms - answered_ms < 1_000));
    assert.ok(figures.silence.stream.heartbeats >= 3, JSON.stringify(figures.silence));
    assert.ok(figures.silence.websocket.heartbeats >= 3, JSON.stringify(figures.silence));
    assert.equal(figures.silence.polls[0].whole, true);
    assert.equal(figures.cookie.status, 204);
    const counts = await fetch(server.page(`v1/users/${USER}/counts`), { headers: { Authorization: `Bearer ${server.key}` } });
    assert.deepEqual((await counts.json()).unread ?? 0, 0);
    await assert.rejects(server.ask('GET', `v1/users/${USER}/export`), /404/, 'the user is erased');
  });
}

test('over TLS with an authority of its own it speaks HTTP/2, and finds nothing', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: BASE_PATH });
  const workshop = await Workshop.open(t);
  const changes = await privateAuthority(workshop);
  const { url } = await startProxy(workshop, 'nginx-tls.conf', server, 'tcp', BASE_PATH, changes);
  const found = await doctor(workshop, server, url, ['--idle', '0', '--ca', join(workshop.path, 'ca.crt')]);
  isWell(found);
  assert.equal(found.report.figures.connection.http, 'HTTP/2.0');
  assert.match(found.report.figures.connection.tls, /^TLSv1_[23]$/);
  assert.match(about(found.report, 'X-Forwarded-Proto')[0], /Secure/);

  const stranger = await doctor(workshop, server, url);
  assert.match(fault(stranger, 'connection').what, /certificate that is not trusted/);
});

test('a stream that is held back to its end is named', async (t) => {
  const buffering = 'proxy_http_version 1.0; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;';
  const changes = [['proxy_http_version 1.1;', buffering]];
  const { what, nginx } = fault(await examine(t, { changes }), 'first bytes');
  assert.match(what, /After 3 s there was nothing of hello.*held back/);
  assert.match(nginx, /proxy_http_version 1\.1; proxy_buffering off;/);
});

test('events that come late and together are named', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: BASE_PATH });
  const workshop = await Workshop.open(t);
  const relay = await hesitantRelay(t, new URL(server.url).port);
  const found = await doctor(workshop, server, `${relay}${BASE_PATH}`);
  const { what } = fault(found, 'buffering');
  assert.match(what, /5 events came late and together, up to (1|2)\d\d\d(\.\d)? ms after their publish/);
  assert.ok(found.report.figures.stream.hello_ms >= HESITATION_MS, JSON.stringify(found.report.figures.stream));
});

test('a stream that is cut in silence is named, with the seconds', async (t) => {
  const found = await examine(t, { changes: [['proxy_read_timeout 75s;', 'proxy_read_timeout 5s;']], args: ['--idle', '9s'] });
  const { what, nginx } = fault(found, 'stream in silence');
  const [, seconds] = /(\d+(?:\.\d+)?) s after the last byte, while a heartbeat comes every 15 s/.exec(what) ?? [];
  assert.ok(Math.abs(seconds - 5) < 1.5, what);
  assert.match(nginx, /proxy_read_timeout 75s;/);
  fault(found, 'WebSocket in silence');
  assert.match(fault(found, 'long poll').what, /answered 504/);
});

test('a WebSocket that does not open is named', async (t) => {
  const changes = [['proxy_set_header Upgrade $http_upgrade;', ''], ['proxy_set_header Connection $connection_upgrade;', '']];
  const found = await examine(t, { changes });
  const { what, nginx } = fault(found, 'WebSocket');
  assert.match(what, /without its Upgrade/);
  assert.match(nginx, /proxy_set_header Upgrade \$http_upgrade;/);
  assert.deepEqual(Object.keys(troubles(found.report)), ['WebSocket']);
});

test('a stream that is compressed is named, and the rest is measured without', async (t) => {
  const changes = [['proxy_read_timeout 75s;', 'proxy_read_timeout 75s; gzip on; gzip_types text/event-stream;']];
  const found = await examine(t, { changes });
  const { what, nginx } = fault(found, 'compression');
  assert.match(what, /gzip/);
  assert.match(nginx, /gzip_types/);
  assert.deepEqual(Object.keys(troubles(found.report)), ['compression']);
  assert.equal(found.report.figures.publishes.length, 5);
});

test('headers that are changed are named', async (t) => {
  const changes = [
    ['proxy_set_header Host $http_host;', 'proxy_set_header Host tidings.internal; proxy_set_header Authorization "";'],
    ['proxy_set_header X-Forwarded-Proto $scheme;', 'proxy_set_header Last-Event-ID ""; proxy_hide_header Cache-Control;'],
    // The server hides /metrics from what says that it was passed on.
    ['proxy_set_header X-Forwarded-For $remote_addr;', ''],
    ['location = /tidings/metrics {\n            return 404;\n        }', ''],
  ];
  const found = await examine(t, { changes });
  assert.match(fault(found, 'Host').nginx, /Host \$http_host;/);
  assert.match(fault(found, 'Last-Event-ID').what, /not passed on/);
  assert.match(fault(found, 'metrics').nginx, /location = \/tidings\/metrics/);
  const { Authorization: authorization, caching } = troubles(found.report);
  assert.equal(authorization.level, 'warning');
  assert.match(caching.what, /no-store and no-transform/);
});

test('a path that is changed on the way is named, whichever side has it', async (t) => {
  const stripped = [['proxy_pass http://tidings;', 'proxy_pass http://tidings/;']];
  const lost = await examine(t, { changes: stripped });
  assert.match(fault(lost, 'route').what, /another path than its base_path/);
  const atRoot = await examine(t, { changes: stripped, env: { TIDINGS_HTTP_BASE_PATH: '' } });
  const { what, nginx } = fault(atRoot, 'base path');
  assert.match(what, /The cookie is for \/, but browsers see Tidings at \/tidings/);
  assert.match(nginx, /base_path = "\/tidings"/);
});

test('a proxy that does not reach Tidings, or does not know the path, is told from Tidings', async (t) => {
  const unreached = await examine(t, { changes: [['proxy_pass http://tidings;', 'proxy_pass http://127.0.0.1:1;']] });
  assert.match(fault(unreached, 'route').what, /does not reach Tidings and answers 502/);
  const unknown = await examine(t, { changes: [['location /tidings/ {', 'location /bell/ {']] });
  assert.match(fault(unknown, 'route').what, /answers 404 by itself/);
});

test('a key will do, and what was published is taken back', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: BASE_PATH });
  const workshop = await Workshop.open(t);
  const { url } = await startProxy(workshop, 'nginx.conf', server, 'tcp', BASE_PATH);
  const key = (await server.ask('POST', 'v1/keys', { name: 'doctor', scopes: ['publish', 'tickets'] })).key;
  const command = [process.env.TIDINGS_BIN, 'doctor', '--via', url, '--url', server.url, '--idle', '0'];
  const found = await workshop.run(command, { TIDINGS_KEY: key });
  assert.match(found, /^http:\/\/127\.0\.0\.1:\d+\/tidings, through nginx/);
  assert.doesNotMatch(found, /fault|warning/);
  const { unread } = await server.ask('GET', `v1/users/${USER}/counts`);
  assert.equal(unread, 0, 'what was published is retracted');
});

test('what is asked wrongly is 64, and a server that does not run is said', async (t) => {
  const server = await Server.start(t);
  const workshop = await Workshop.open(t);
  const via = ['--via', 'http://app.example'];
  for (const args of [['--via', 'ftp://app.example'], [...via, '--counts'], [...via, '--idle', 'x'], []]) {
    const program = workshop.start([process.env.TIDINGS_BIN, 'doctor', '--data', server.data, ...args]);
    assert.equal(await program.ended(), 64, args.join(' '));
  }
  await server.stop('SIGTERM');
  const { status, complaints } = await doctor(workshop, server, server.url);
  assert.equal(status, 1);
  assert.match(complaints, /no server runs on this directory/);
});
