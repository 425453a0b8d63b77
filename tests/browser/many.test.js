// Many events over a network that breaks connections behind bytes that nobody chose, and over a server that is killed while
// it takes in more: each event reaches the page once and in order. In full: TIDINGS_CLIENT_EVENTS=10000 TIDINGS_CLIENT_CUTS=20.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Cutter, random } from '../clients/cutter.js';
import { launch } from './browser.js';
import { installPoll, kept, openClient, openVisitor, unread, until } from './client-page.js';
import { Server } from './server.js';

const EVENTS = Number(process.env.TIDINGS_CLIENT_EVENTS ?? 500);
const CUTS = Number(process.env.TIDINGS_CLIENT_CUTS ?? 5);
const SEED = Number(process.env.TIDINGS_CLIENT_SEED ?? Math.floor(Math.random() * 2 ** 32));
/** Fewer bytes than an event takes, so that a break is due before the events run out; polls are compressed. */
const SMALLEST = { sse: 200, ws: 200, poll: 10, 'tidings-poll.js': 10 };
/** A page comes back after up to 30 s. */
const PATIENCE_MS = 120_000;

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const numbered = (count) => Array.from({ length: count }, (_, i) => `Event ${i + 1}`);
const connected = (page) => until(page, ({ kept }) => kept.counts !== null);
const arrived = (page, count) => until(page, ({ kept }, count) => kept.titles.length >= count, count, PATIENCE_MS);

async function publishRange(server, from, upto) {
  const lines = numbered(upto).slice(from).map((title) => JSON.stringify({ to: { user: 'alice' }, title }));
  const response = await server.post('v1/notifications', lines.join('\n'), 'application/x-ndjson');
  assert.equal(response.status, 200);
  await response.text();
}

/** Each by name: opens a page with a client at the given address. */
const CLIENTS = {
  sse: (visitor, server, url) => openClient(visitor, server, { transport: 'sse', cursor: 'start' }, url),
  poll: (visitor, server, url) => openClient(visitor, server, { transport: 'poll', cursor: 'start' }, url),
  ws: (visitor, server, url) => openClient(visitor, server, { transport: 'ws', cursor: 'start' }, url),
  'tidings-poll.js': (visitor, server, url = server.url) => installPoll(visitor, { page: (path) => `${url}/${path}` }, { cursor: 'start' }),
};

test(`${EVENTS} events come once and in order over ${CUTS} broken connections`, { concurrency: true }, async (t) => {
  t.diagnostic(`TIDINGS_CLIENT_SEED=${SEED}`);
  await Promise.all(Object.entries(CLIENTS).map(([name, open], i) => t.test(name, async (t) => {
    const next = random(SEED + i);
    const server = await Server.start(t);
    const cutter = await Cutter.start(t, server.url);
    const visitor = await openVisitor(t, browser, server);
    const page = await open(visitor, server, cutter.url);
    await connected(page);
    const portion = Math.floor(EVENTS / (CUTS + 1));
    for (let cut = 0; cut <= CUTS; cut += 1) {
      const [from, upto] = [cut * portion, cut === CUTS ? EVENTS : (cut + 1) * portion];
      const bytes = 1 + Math.floor(next() * (upto - from) * SMALLEST[name]);
      const broken = cut < CUTS ? cutter.arm(bytes, next() < 0.5) : null;
      await publishRange(server, from, upto);
      await broken;
      await arrived(page, upto);
    }
    assert.equal(cutter.cuts, CUTS);
    const { titles, ids } = await kept(page);
    assert.deepEqual(titles, numbered(EVENTS));
    assert.equal(new Set(ids).size, ids.length);
    await unread(page, EVENTS);
  })));
});

test('a server that is killed while it takes in more loses nothing that it acknowledged, on any transport', { concurrency: true }, async (t) => {
  await Promise.all(Object.entries(CLIENTS).map(([name, open]) => t.test(name, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const page = await open(visitor, server);
    await connected(page);
    const acknowledged = [];
    let isOver = false;
    const publisher = (async () => {
      for (let i = 1; !isOver; i += 1) {
        // What a kill leaves without an answer may have been taken or not: only what was acknowledged is held to.
        const made = await server.publish({ title: `Event ${i}` }).catch(() => null);
        if (made) acknowledged.push(made.cursor);
        else await new Promise((resolve) => setTimeout(resolve, 20));
      }
    })();
    for (let kill = 1; kill <= 2; kill += 1) {
      await arrived(page, kill * 50);
      await server.stop('SIGKILL');
      await server.run();
    }
    await arrived(page, 150);
    isOver = true;
    await publisher;
    await until(page, ({ client }, seq) => Number(client.cursor.split('.')[1]) >= seq, Number(acknowledged.at(-1).split('.')[1]), PATIENCE_MS);
    const { ids } = await kept(page);
    const got = new Set(ids);
    assert.equal(got.size, ids.length, 'nothing came twice');
    assert.deepEqual(acknowledged.filter((id) => !got.has(id)), []);
    const seqs = ids.map((id) => Number(id.split('.')[1]));
    assert.deepEqual(seqs, [...seqs].sort((a, b) => a - b));
    await unread(page, ids.length);
  })));
});
