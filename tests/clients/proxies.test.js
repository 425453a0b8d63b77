// The configurations of docs/proxies, run in front of the real server: over TCP and over its unix socket, at the root and
// under a base path. Behind each everything is as it is without: streams begin at once, events come at once, long polls
// wait, WebSockets open, heartbeats pass, and who goes away is gone for the server too.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get as httpGet, request as httpRequest } from 'node:http';
import { connect as http2Connect } from 'node:http2';
import { get as httpsGet, request as httpsRequest } from 'node:https';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Server } from '../browser/server.js';
import { connections, inbox } from './people.js';
import { DEADLINE_MS, Workshop, eventually } from './program.js';
import { SAMPLES, startProxy } from './proxy.js';

/** What must come at once comes within this. The machine may be busy; a proxy that buffers or waits takes far longer. */
const AT_ONCE_MS = 1_000;
const HEARTBEAT_S = 1;

/** The text of a body that does not end, which can be waited for. */
class Body {
  #text = '';
  #source;

  constructor(source) {
    this.#source = source;
    source.setEncoding('utf8');
    source.on('data', (text) => { this.#text += text; });
  }

  async shows(text, within = DEADLINE_MS) {
    const signal = AbortSignal.timeout(within);
    while (!this.#text.includes(text)) {
      await once(this.#source, 'data', { signal }).catch((error) => {
        throw new Error(`within ${within} ms there was no ${text} in: ${this.#text}`, { cause: error });
      });
    }
  }
}

/** A GET over HTTP/1.1, on a connection of its own. */
function ask({ url, ca }, path, token) {
  const get = url.startsWith('https') ? httpsGet : httpGet;
  return get(`${url}/${path}`, { ca, agent: false, headers: { Authorization: `Bearer ${token}`, Accept: 'text/event-stream' } });
}

/** An answer that is read as it comes, and begins in time. `leave` goes away without a word. */
async function answered(request, within = DEADLINE_MS) {
  const [response] = await once(request, 'response', { signal: AbortSignal.timeout(within) });
  return { status: response.statusCode, headers: response.headers, body: new Body(response), leave: () => request.destroy() };
}

const open = (proxy, path, token, within) => answered(ask(proxy, path, token), within);

/** The same over HTTP/2. */
async function openMultiplexed({ url, ca }, path, token, within) {
  const { origin, pathname } = new URL(`${url}/`);
  const session = http2Connect(origin, { ca });
  const request = session.request({ ':path': `${pathname}${path}`, authorization: `Bearer ${token}`, accept: 'text/event-stream' });
  const [headers] = await once(request, 'response', { signal: AbortSignal.timeout(within) });
  return { status: headers[':status'], headers, body: new Body(request), leave: () => session.destroy() };
}

/** A request with a body, and its whole answer. */
async function send({ url, ca }, path, headers, body) {
  const post = url.startsWith('https') ? httpsRequest : httpRequest;
  const request = post(`${url}/${path}`, { method: 'POST', ca, agent: false, headers });
  request.end(body);
  const [response] = await once(request, 'response');
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  return { status: response.statusCode, headers: response.headers, text };
}

async function gone(server, transport) {
  await eventually(async () => await connections(server, transport) === 0, `no ${transport} connection at the server`);
}

async function checkStream(server, proxy, connect) {
  const asked = performance.now();
  const stream = await connect(proxy, 'v1/stream?cursor=now', server.users[0].token, AT_ONCE_MS);
  assert.equal(stream.status, 200);
  assert.match(stream.headers['content-type'], /^text\/event-stream/);
  await stream.body.shows('event: hello\n', AT_ONCE_MS);
  const took = performance.now() - asked;
  assert.ok(took < AT_ONCE_MS, `hello took ${took} ms`);
  await server.publish({ title: 'Through the stream' });
  await stream.body.shows('"title":"Through the stream"', AT_ONCE_MS);
  await stream.body.shows(': heartbeat\n', HEARTBEAT_S * 1_000 + AT_ONCE_MS);
  stream.leave();
  await gone(server, 'sse');
}

/** A long poll that the server has parked. */
async function park(server, proxy) {
  const request = ask(proxy, 'v1/poll?cursor=now&wait=60', server.users[0].token);
  await eventually(async () => await connections(server, 'poll') === 1, 'a parked poll');
  return request;
}

async function checkPoll(server, proxy) {
  const answer = answered(await park(server, proxy));
  await server.publish({ title: 'Through the poll' });
  const { status, body } = await answer;
  assert.equal(status, 200);
  await body.shows('"title":"Through the poll"', AT_ONCE_MS);
  await gone(server, 'poll');

  const left = await park(server, proxy);
  left.on('error', ({ code }) => assert.equal(code, 'ECONNRESET', 'it was this test that hung up'));
  left.destroy();
  await gone(server, 'poll');
}

async function checkSocket(server, { url, ca }) {
  const { token } = server.users[0];
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/ws?cursor=now`, ['tidings.v1'], { ca });
  const events = [];
  socket.on('message', (text) => { events.push(JSON.parse(text)); socket.emit('news'); });
  const comes = async (matches) => {
    const signal = AbortSignal.timeout(AT_ONCE_MS);
    while (!events.some(matches)) await once(socket, 'news', { signal });
  };
  await once(socket, 'open');
  assert.equal(socket.protocol, 'tidings.v1');
  socket.send(JSON.stringify({ op: 'auth', token }));
  await comes(({ event }) => event === 'hello');
  await server.publish({ title: 'Through the socket' });
  await comes(({ data }) => data?.title === 'Through the socket');
  socket.send(JSON.stringify({ op: 'ping', ref: 7 }));
  await comes(({ reply, ok }) => reply === 7 && ok);
  await once(socket, 'ping', { signal: AbortSignal.timeout(HEARTBEAT_S * 1_000 + AT_ONCE_MS) });
  socket.terminate();
  await gone(server, 'ws');
}

/** A session by cookie: marked Secure where the browser speaks TLS, and good for the base path only. */
async function checkSession(server, proxy, basePath) {
  const headers = { Authorization: `Bearer ${server.users[0].token}`, 'Content-Type': 'application/json' };
  const { status, headers: answered } = await send(proxy, 'v1/session', headers, '');
  assert.ok(status < 300, `the session answered ${status}`);
  const [cookie] = answered['set-cookie'];
  assert.equal(/; Secure/.test(cookie), proxy.url.startsWith('https'), cookie);
  assert.ok(cookie.includes(`; Path=${basePath || '/'};`), cookie);
}

/** A batch of more than a mebibyte, at which nginx by itself refuses a body. */
async function checkBatch(server, proxy) {
  const body = 'Your loan ends on Friday. '.repeat(300);
  const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify({ to: 'user:bob', title: `Line ${i}`, body }));
  const headers = { Authorization: `Bearer ${server.key}`, 'Content-Type': 'application/x-ndjson' };
  const { status, text } = await send(proxy, 'v1/notifications', headers, lines.join('\n'));
  assert.equal(status, 200, text);
  assert.equal(text.trim().split('\n').filter((line) => JSON.parse(line).status === 201).length, lines.length);
  assert.equal((await inbox(server, 'bob'))[0].title, `Line ${lines.length - 1}`);
}

/** The metrics are for this machine; no proxy shows them, and the server would not show them to one. */
async function checkMetrics(proxy) {
  const answer = await open(proxy, 'metrics', 'nobody');
  assert.equal(answer.status, 404);
  answer.leave();
}

for (const name of Object.keys(SAMPLES)) {
  for (const upstream of ['tcp', 'unix']) {
    for (const basePath of ['', '/tidings']) {
      test(`everything works behind ${name}, over ${upstream}, ${basePath ? `under ${basePath}` : 'at the root'}`, async (t) => {
        const env = { TIDINGS_HTTP_BASE_PATH: basePath, TIDINGS_STREAMS_HEARTBEAT: `${HEARTBEAT_S}s` };
        const server = await Server.start(t, env);
        const workshop = await Workshop.open(t);
        const proxy = await startProxy(workshop, name, server, upstream, basePath);
        await checkStream(server, proxy, open);
        if (proxy.ca) await checkStream(server, proxy, openMultiplexed);
        await checkPoll(server, proxy);
        await checkSocket(server, proxy);
        await checkSession(server, proxy, basePath);
        await checkBatch(server, proxy);
        await checkMetrics(proxy);
      });
    }
  }
}

for (const name of ['nginx.conf', 'haproxy.cfg']) {
  test(`behind ${name} a limit by address is that of the browser's, whatever the browser says it is`, async (t) => {
    const env = { TIDINGS_HTTP_BASE_PATH: '/tidings', TIDINGS_HTTP_TRUSTED_PROXIES: '127.0.0.1', TIDINGS_LIMITS_STREAMS_PER_ADDRESS: '2' };
    const server = await Server.start(t, env);
    const { url } = await startProxy(await Workshop.open(t), name, server, 'tcp', '/tidings');
    const headers = { Authorization: `Bearer ${server.users[0].token}`, Accept: 'text/event-stream' };
    const from = (localAddress, forged = {}) => answered(httpGet(`${url}/v1/stream`, { agent: false, localAddress, headers: { ...headers, ...forged } }));
    const streams = [];
    t.after(() => streams.forEach(({ leave }) => leave()));
    for (const [address, forged, says] of [
      ['127.0.0.2', {}, 'event: hello\n'],
      ['127.0.0.2', {}, 'event: hello\n'],
      ['127.0.0.2', {}, '"reason":"overloaded"'],
      ['127.0.0.2', { 'X-Forwarded-For': '198.51.100.7' }, '"reason":"overloaded"'],
      ['127.0.0.3', { 'X-Forwarded-For': '127.0.0.2' }, 'event: hello\n'],
    ]) {
      const stream = await from(address, forged);
      streams.push(stream);
      await stream.body.shows(says);
    }
  });
}

test('an nginx that speaks HTTP/1.0 to the server, and so would buffer, passes the stream on at once', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: '/tidings', TIDINGS_STREAMS_HEARTBEAT: `${HEARTBEAT_S}s` });
  const workshop = await Workshop.open(t);
  const older = [['proxy_http_version 1.1;', 'proxy_http_version 1.0;']];
  await checkStream(server, await startProxy(workshop, 'nginx.conf', server, 'tcp', '/tidings', older), open);
});

test('curl speaks HTTP/2 with nginx-tls.conf, and shows the stream', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: '/tidings' });
  const workshop = await Workshop.open(t);
  const { url } = await startProxy(workshop, 'nginx-tls.conf', server, 'tcp', '/tidings');
  const curl = workshop.start(['curl', '-sSN', '--http2', '--cacert', 'proxy.crt', '-D', '-',
    '-H', `Authorization: Bearer ${server.users[0].token}`, `${url}/v1/stream`]);
  await eventually(() => curl.lines.includes('event: hello'), 'hello in what curl shows');
  assert.match(curl.lines[0], /^HTTP\/2 200/);
});

test('HAProxy lets requests wait while the server restarts', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: '/tidings' });
  const workshop = await Workshop.open(t);
  const proxy = await startProxy(workshop, 'haproxy.cfg', server, 'tcp', '/tidings');
  await server.stop('SIGTERM');
  const waiting = open(proxy, 'v1/stream?cursor=now', server.users[0].token);
  await server.run();
  const stream = await waiting;
  assert.equal(stream.status, 200);
  await stream.body.shows('event: hello\n');
  stream.leave();
});
