// The browser library in real pages: every transport, one connection for many tabs, and all that happens to a connection.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { get } from 'node:http';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { gzipSync } from 'node:zlib';
import { EventStreamParser } from '../../static/tidings.js';
import { launch } from './browser.js';
import { install, installPoll, isLeader, kept, launchWithHost, launchWithPageCache, openClient, openVisitor, received, signInAs, status, transport, unread, until } from './client-page.js';
import { proxyTo } from './client-proxy.js';
import { answerWorkingCopies } from './client-static.js';
import { Server } from './server.js';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const QUICK = { TIDINGS_STREAMS_HEARTBEAT: '1s' };
const numbered = (title, count) => Array.from({ length: count }, (_, i) => `${title} ${i + 1}`);
const source = (name) => readFile(new URL(`../../static/${name}`, import.meta.url));

/** Live subscribers of the server, by what it says of itself. */
async function connections(server) {
  const text = await (await fetch(server.page('metrics'))).text();
  const gauges = [...text.matchAll(/^tidings_connections\{transport="(\w+)"\} (\d+)$/gm)];
  return Object.fromEntries(gauges.map(([, name, count]) => [name, Number(count)]).filter(([, count]) => count > 0));
}

async function eventually(look, what) {
  for (const deadline = Date.now() + 20_000; ; await delay(10)) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < deadline, `in time: ${what}`);
  }
}

const tokenOf = (server, ttl) => execFileSync(process.env.TIDINGS_BIN, ['token', '--data', server.data, '--user', 'alice', '--ttl', ttl], { encoding: 'utf8' }).trim();

/** What a page must have been told: each title once, in order. */
async function hasExactly(page, titles) {
  const { titles: got, ids } = await kept(page);
  assert.deepEqual(got, titles);
  assert.equal(new Set(ids).size, ids.length, 'no event came twice');
}

// ---- without a browser

const bytes = (text) => new TextEncoder().encode(text);
const event = (data, { id = '', event = 'message' } = {}) => ({ id, event, data });

const PARSED = [
  ['an event', 'id: e.1\nevent: state\ndata: {}\n\n', [event('{}', { id: 'e.1', event: 'state' })]],
  ['lines ended by CR', 'data: a\r\rdata: b\r\r', [event('a'), event('b')]],
  ['lines ended by CRLF', 'data: a\r\n\r\n', [event('a')]],
  ['all three ends mixed', 'data: a\r\ndata: b\ndata: c\r\n\rdata: d\n\n', [event('a\nb\nc'), event('d')]],
  ['one space after the colon is taken away, no more', 'data:a\ndata: b\ndata:  c\n\n', [event('a\nb\n c')]],
  ['a line without a colon is a field without a value', 'data\ndata\n\n', [event('\n')]],
  ['an empty `data:` is an event all the same', 'data:\n\n', [event('')]],
  ['a block without data is no event and forgets its name', 'event: x\n\ndata: a\n\n', [event('a')]],
  ['comments', ': hi\n:\ndata: a\n:data: b\n\n', [event('a')]],
  ['the id holds until the next one', 'id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n', [event('a', { id: '1' }), event('b', { id: '1' }), event('c')]],
  ['an id with a null is passed over', 'id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n', [event('a', { id: '1' }), event('b', { id: '1' })]],
  ['a block that was not ended does not count', 'data: a\n\ndata: b\n', [event('a')]],
  ['`retry:` and fields that nobody knows', 'retry: 10\nfoo: bar\ndata: a\n\nretry: 20\n\n', [event('a')]],
  ['names of fields are taken as they are', 'Data: a\n data: b\ndata : c\n\n', []],
  ['one byte order mark at the very beginning', '\ufeffdata: a\n\n\ufeffdata: b\n\n', [event('a')]],
  ['separators of Unicode end no line', 'data: a\u2028b\u0085c\u000bd\u000ce\n\n', [event('a\u2028b\u0085c\u000bd\u000ce')]],
  ['characters of two, three and four bytes', 'data: é 漢 😀\n\n', [event('é 漢 😀')]],
];

for (const [what, text, wanted] of PARSED) {
  test(`the parser takes ${what}, however the bytes are cut`, () => {
    const all = bytes(text);
    assert.deepEqual(new EventStreamParser().push(all), wanted);
    const oneByOne = new EventStreamParser();
    assert.deepEqual([...all].flatMap((byte) => oneByOne.push(Uint8Array.of(byte))), wanted);
    for (let cut = 0; cut <= all.length; cut++) {
      const parser = new EventStreamParser();
      assert.deepEqual([...parser.push(all.subarray(0, cut)), ...parser.push(all.subarray(cut))], wanted, `cut at ${cut}`);
    }
  });
}

/** How many bytes a browser loads; of the working copy, where that is under test, by gzip's own default. */
async function served(server, name) {
  if (process.env.TIDINGS_STATIC) return gzipSync(await source(name)).length;
  const [response] = await once(get(server.page(`static/${name}`), { headers: { 'Accept-Encoding': 'gzip' } }), 'response');
  response.resume();
  assert.equal(response.headers['content-encoding'], 'gzip');
  return Number(response.headers['content-length']);
}

test('both scripts are small as they are served, and the old one is ES5', async (t) => {
  const server = await Server.start(t);
  for (const [name, most] of [['tidings.js', 20_000], ['tidings-poll.js', 3_000]]) {
    const [script, bytes] = [await source(name), await served(server, name)];
    t.diagnostic(`${name}: ${bytes} bytes as served, ${gzipSync(script, { level: 9 }).length} by gzip -9, ${script.length} as it is`);
    assert.ok(bytes < most, `${name} has ${bytes} bytes as served`);
  }
  const poll = await source('tidings-poll.js');
  assert.ok(poll.length < 5_000);
  const global = {};
  runInNewContext(poll.toString(), global);
  assert.equal(typeof global.TidingsPoll.connect, 'function');
  const code = poll.toString().replace(/\/\/.*$/gm, '').replace(/'(?:\\.|[^'\\])*'/g, "''");
  for (const newer of [/=>/, /`/, /\b(?:let|const|class|async|await|of|import|export)\b/, /\.\.\./, /\?\./, /\?\?/, /\*\*/]) assert.doesNotMatch(code, newer);
});

// ---- one page, every transport

for (const name of ['sse', 'poll', 'ws']) {
  test(`over ${name} every event comes once and in order, across a kill, an orderly restart and a change of transport`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const page = await openClient(visitor, server, { transport: name });
    await status(page, 'live');
    assert.equal(await transport(page), name);
    await server.publish({ title: 'First' });
    await received(page, 'First');
    await server.publishMany(40, 'Live');
    await received(page, 'Live 40');

    for (const signal of ['SIGKILL', 'SIGTERM']) {
      await server.publishMany(20, `Before ${signal}`);
      await server.stop(signal);
      await status(page, 'reconnecting');
      await server.run();
      await server.publishMany(150, `After ${signal}`);
      await received(page, `After ${signal} 150`);
    }
    const titles = ['First', ...numbered('Live', 40), ...['SIGKILL', 'SIGTERM'].flatMap((s) => [...numbered(`Before ${s}`, 20), ...numbered(`After ${s}`, 150)])];
    await hasExactly(page, titles);
    await unread(page, titles.length);
    await status(page, 'live');

    // Another transport goes on from the same cursor.
    const cursor = await page.evaluate(() => window.watch.client.cursor);
    await page.evaluate(() => window.watch.client.close());
    await server.publishMany(5, 'Away');
    await install(page, { transport: name === 'sse' ? 'poll' : 'sse', cursor });
    await received(page, 'Away 5');
    await hasExactly(page, numbered('Away', 5));
    assert.equal((await kept(page)).hellos[0].recovered, true);
  });

  test(`over ${name} a new log is told, begins with its newest entries, and is not muted by the old position`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const page = await openClient(visitor, server, { transport: name });
    await status(page, 'live');
    await server.publishMany(3, 'Old');
    await received(page, 'Old 3');
    await server.stop('SIGKILL');
    await server.loseLog();
    await server.run();
    await server.publishMany(2, 'New');
    await received(page, 'New 2');
    await unread(page, 2);
    const { hellos } = await kept(page);
    assert.equal(hellos.at(-1).reason, 'epoch');
  });

  test(`over ${name} a token is renewed in time and nothing is interrupted`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server, null);
    const page = await openClient(visitor, server, { transport: name, tokens: [tokenOf(server, '30s'), tokenOf(server, '1h')] });
    await status(page, 'live');
    await until(page, ({ kept }) => kept.why.includes('expires'));
    await server.publish({ title: 'After' });
    await received(page, 'After');
    assert.deepEqual((await kept(page)).why, ['start', 'expires']);
    assert.deepEqual((await kept(page)).states, ['connecting', 'live']);
    const marked = await page.evaluate(() => window.watch.client.mark({ as: 'read', upto: window.watch.client.cursor }));
    assert.equal(marked.counts.unread, 0);
    await unread(page, 0);
  });

  test(`over ${name} a token that has run out is asked for once more, and then it is the end`, async (t) => {
    const server = await Server.start(t);
    const old = tokenOf(server, '1s');
    await eventually(async () => (await fetch(server.page('v1/inbox/counts'), { headers: { Authorization: `Bearer ${old}` } })).status === 401, 'the token has run out');
    const visitor = await openVisitor(t, browser, server, null);
    const page = await openClient(visitor, server, { transport: name, tokens: [old] });
    await status(page, 'ended');
    const { why, states } = await kept(page);
    assert.deepEqual(why, ['start', 'refused']);
    assert.equal(states.at(-1), 'ended expired');

    const other = await openClient(visitor, server, { transport: name, tokens: [old, tokenOf(server, '1h')] });
    await status(other, 'live');
    assert.deepEqual((await kept(other)).why, ['start', 'refused']);
  });
}

test('refused as another than it says, or without any credential, a client ends and says why', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  for (const [options, why] of [[{}, 'signed-out'], [{ token: 'nonsense' }, 'refused'], [{ ticket: 'tt_no_no' }, 'refused'], [{ tokens: [''] }, 'signed-out']]) {
    const page = await openClient(visitor, server, options);
    await status(page, 'ended');
    assert.equal((await kept(page)).states.at(-1), `ended ${why}`);
    await page.close();
  }
});

test('a callback is asked when it failed, and no more when it had nothing to give', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  const { token } = server.users.find(({ id }) => id === 'alice');
  for (const share of [true, false]) {
    const page = await openClient(visitor, server, { share, tokens: ['throw', 'throw', token] });
    await status(page, 'live');
    assert.deepEqual((await kept(page)).why, ['start', 'start', 'start']);
    const nobody = await openClient(visitor, server, { share, tokens: [''] });
    await status(nobody, 'ended');
    assert.deepEqual((await kept(nobody)).why, ['start']);
  }
});

test('a ticket reads, also over a restart, and marks nothing', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, 'bob');
  const { ticket } = await (await server.post('v1/tickets', JSON.stringify({ user: 'alice' }))).json();
  const page = await openClient(visitor, server, { ticket });
  await status(page, 'live');
  await server.publish({ title: 'One' });
  await received(page, 'One');
  await server.stop('SIGKILL');
  await server.run();
  await server.publish({ title: 'Two' });
  await received(page, 'Two');
  await hasExactly(page, ['One', 'Two']);
  const error = await page.evaluate(() => window.watch.client.mark({ as: 'read', upto: window.watch.client.cursor }).catch(({ status }) => status));
  assert.equal(error, 401, 'least of all as bob, whose cookie the browser has');
});

test('requests answer, and tell a refusal from silence', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const page = await openClient(visitor, server);
  await status(page, 'live');
  const { id } = await server.publish({ title: 'One', category: 'loans' });
  await received(page, 'One');
  await server.ask('PUT', 'v1/topics/ops', { follow: 'open' });
  for (const title of ['Two', 'Three']) await server.publish({ to: { topic: 'ops' }, title });
  const answers = await page.evaluate(async (id) => {
    const { client } = window.watch;
    const told = ({ name, status, code }) => ({ name, status, code });
    return {
      entry: (await client.entry(id)).title,
      inbox: (await client.inbox({ limit: 1, state: 'unread', category: 'loans' })).entries.map((entry) => entry.id),
      marked: (await client.mark({ as: 'read', ids: [id] })).counts.unread,
      counts: client.counts.unread,
      followed: [await client.follow('ops', { last: 1 }), (await client.inbox()).counts.unread],
      muted: [await client.mute('ops'), (await client.inbox()).counts.unread],
      follows: (await client.follows()).topics.find(({ topic }) => topic === 'ops'),
      back: [await client.unmute('ops'), await client.unfollow('ops'), (await client.follows()).topics.some(({ topic }) => topic === 'ops')],
      missing: await client.entry('nothing').catch(told),
      invalid: await client.mark({ as: 'read', upto: 'nonsense' }).catch((error) => ({ ...told(error), errors: error.errors.length })),
    };
  }, id);
  assert.equal(answers.entry, 'One');
  assert.deepEqual(answers.inbox, [id]);
  assert.equal(answers.marked, 0);
  assert.equal(answers.counts, 0, 'an answer tells the badge at once');
  const ops = { topic: 'ops', user: 'alice', changed: true };
  assert.deepEqual(answers.followed, [{ ...ops, following: true }, 1], 'with the last one, which is unread');
  assert.deepEqual(answers.muted, [{ ...ops, muted: true }, 0]);
  assert.deepEqual(answers.follows, { topic: 'ops', category: 'general', following: true, muted: true, follow: 'open' });
  assert.deepEqual(answers.back, [{ ...ops, muted: false }, { ...ops, following: false }, false]);
  assert.deepEqual(answers.missing, { name: 'Problem', status: 404, code: 'not-found' });
  assert.equal(answers.invalid.status, 422);
  assert.ok(answers.invalid.errors > 0);
  await server.stop('SIGKILL');
  assert.equal(await page.evaluate(() => window.watch.client.inbox().catch(({ name }) => name)), 'Unreachable');
});

test('a fault in a handler is reported and costs neither the next event nor another handler', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const page = await openClient(visitor, server);
  await status(page, 'live');
  await page.evaluate(() => {
    window.faults = [];
    addEventListener('error', ({ message, error }) => window.faults.push(error?.message ?? message));
    const { client } = window.watch;
    window.take = client.on('notification', () => { throw new Error('oops'); });
    window.all = [];
    client.on('*', (data, event) => window.all.push(event.event));
  });
  await server.publish({ title: 'One' });
  await received(page, 'One');
  await page.evaluate(() => window.take());
  await server.publish({ title: 'Two' });
  await received(page, 'Two');
  assert.deepEqual(await page.evaluate(() => window.faults), ['oops']);
  assert.equal((await page.evaluate(() => window.all)).filter((kind) => kind === 'notification').length, 2);
});

// ---- one connection for many tabs

async function openTabs(visitor, server, count, options) {
  const tabs = [];
  for (let i = 0; i < count; i++) tabs.push(await openClient(visitor, server, options));
  for (const tab of tabs) await status(tab, 'live');
  return tabs;
}

async function splitByLead(tabs) {
  const leads = await Promise.all(tabs.map(isLeader));
  assert.equal(leads.filter(Boolean).length, 1, 'exactly one leads');
  return { leader: tabs[leads.indexOf(true)], others: tabs.filter((_, i) => !leads[i]) };
}

for (const name of ['sse', 'poll', 'ws']) {
  test(`eight tabs hold one connection over ${name}, show the same badge within 200 ms, and lose nothing when the leader closes`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const tabs = await openTabs(visitor, server, 8, { transport: name });
    await eventually(async () => (await connections(server))[name] === 1, 'one connection');
    assert.deepEqual(await connections(server), { [name]: 1 });

    await server.publish({ title: 'First' });
    for (const tab of tabs) await unread(tab, 1);
    const shown = [];
    for (const tab of tabs) shown.push((await kept(tab)).badges.find((badge) => badge.unread === 1).at);
    const spread = Math.max(...shown) - Math.min(...shown);
    t.diagnostic(`the badge changed in all 8 tabs within ${spread} ms`);
    assert.ok(spread <= 200);

    const { leader, others } = await splitByLead(tabs);
    const publishing = (async () => {
      for (const title of numbered('During', 60)) await server.publish({ title });
    })();
    await received(others[0], 'During 5');
    await leader.close();
    await publishing;
    for (const tab of others) {
      await received(tab, 'During 60');
      await unread(tab, 61);
      await hasExactly(tab, ['First', ...numbered('During', 60)]);
    }
    await splitByLead(others);
    await eventually(async () => JSON.stringify(await connections(server)) === JSON.stringify({ [name]: 1 }), 'one connection again');
    assert.deepEqual(visitor.complaints, [], 'nor does a browser have anything to say, such as of its policies');
  });
}

/** A profile of a browser in which the pages have neither TLS nor a loopback's name, signed in as alice. */
async function openPlainVisitor(t, server) {
  const plain = await launchWithHost('library.example');
  t.after(() => plain.close());
  const proxy = await proxyTo(t, server, { answer: answerWorkingCopies });
  const url = proxy.url.replace('127.0.0.1', 'library.example');
  const visitor = await plain.newContext();
  visitor.setDefaultTimeout(20_000);
  const site = { url, page: (path = '') => `${url}/${path}` };
  await signInAs(visitor, site, 'alice');
  return { visitor, site };
}

test('eight tabs without TLS all load, hold one connection, and lose nothing when the leader closes', async (t) => {
  const server = await Server.start(t);
  const { visitor, site } = await openPlainVisitor(t, server);
  const tabs = await openTabs(visitor, site, 8);
  assert.deepEqual(await tabs[0].evaluate(() => [isSecureContext, 'locks' in navigator]), [false, false]);
  assert.deepEqual(await connections(server), { sse: 1 });
  await server.publish({ title: 'First' });
  for (const tab of tabs) await unread(tab, 1);

  let open = tabs;
  const titles = ['First'];
  for (const round of [1, 2]) {
    const { leader, others } = await splitByLead(open);
    const publishing = (async () => {
      for (const title of numbered(`During ${round}`, 40)) await server.publish({ title });
    })();
    await received(others[0], `During ${round} 5`);
    await leader.close();
    const began = Date.now();
    await publishing;
    titles.push(...numbered(`During ${round}`, 40));
    for (const tab of others) {
      await received(tab, titles.at(-1));
      await unread(tab, titles.length);
      await hasExactly(tab, titles);
    }
    t.diagnostic(`${Date.now() - began} ms after the leader was closed all others had everything`);
    await splitByLead(others);
    open = others;
  }
  assert.deepEqual(await connections(server), { sse: 1 });
});

test('without TLS a leader that stands still is superseded, and two that both lead cost a connection and no event', async (t) => {
  const server = await Server.start(t, QUICK);
  const { visitor, site } = await openPlainVisitor(t, server);
  const tabs = await openTabs(visitor, site, 3);
  const { leader, others } = await splitByLead(tabs);
  const frozen = leader.evaluate(() => {
    const until = Date.now() + 11_000;
    while (Date.now() < until); // It can neither renew its lease nor answer.
  });
  await eventually(async () => (await Promise.all(others.map(isLeader))).some(Boolean), 'another tab leads');
  await server.publishMany(3, 'Meanwhile');
  for (const tab of others) await received(tab, 'Meanwhile 3');
  await frozen;
  await received(leader, 'Meanwhile 3');
  const leaders = async () => (await Promise.all(tabs.map(isLeader))).filter(Boolean).length;
  await eventually(async () => await leaders() === 1 && (await connections(server)).sse === 1, 'one of the two gives way');

  // A page that reads and writes a record of its own takes itself for the only one.
  const { others: [doubled] } = await splitByLead(tabs);
  await doubled.evaluate(() => {
    const records = new Map();
    Storage.prototype.getItem = (key) => records.get(key) ?? null;
    Storage.prototype.setItem = (key, value) => void records.set(key, value);
  });
  await eventually(async () => await leaders() === 2, 'two lead');
  for (const title of numbered('Doubled', 20)) await server.publish({ title });
  for (const tab of tabs) {
    await received(tab, 'Doubled 20');
    await unread(tab, 23);
    await hasExactly(tab, [...numbered('Meanwhile', 3), ...numbered('Doubled', 20)]);
  }
  assert.deepEqual(await connections(server), { sse: 2 });
});

test('a page that can share with none holds its connection while it is in sight, and catches up', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  await visitor.addInitScript(() => {
    Object.defineProperty(window, 'BroadcastChannel', { value: undefined });
    window.show = (state) => {
      Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
      Object.defineProperty(document, 'hidden', { value: state === 'hidden', configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    };
  });
  const tabs = await openTabs(visitor, server, 2);
  await eventually(async () => (await connections(server)).sse === 2, 'each has its own');
  await tabs[0].evaluate(() => window.show('hidden'));
  await eventually(async () => (await connections(server)).sse === 1, 'one is put aside');
  await server.publishMany(3, 'Aside');
  await received(tabs[1], 'Aside 3');
  await tabs[0].evaluate(() => window.show('visible'));
  for (const tab of tabs) {
    await received(tab, 'Aside 3');
    await unread(tab, 3);
    await hasExactly(tab, numbered('Aside', 3));
  }
});

test('what is published while the lead changes hands, or while a link is anew, is news; what came while a page was away is not', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server);
  const tabs = await openTabs(visitor, proxy, 2);
  const { leader, others: [follower] } = await splitByLead(tabs);
  const refuse = (url, response) => url.pathname === '/v1/stream' && Boolean(response.writeHead(502).end());
  proxy.rules.answer = refuse;
  await leader.close();
  await status(follower, 'reconnecting');
  await server.publish({ title: 'At the hand-over' });
  proxy.rules.answer = null;
  await received(follower, 'At the hand-over');

  // Anew from its own position, after a time that is long by the page's clock.
  proxy.rules.answer = refuse;
  await follower.evaluate(() => window.watch.client.reconnect());
  await status(follower, 'reconnecting');
  await server.publish({ title: 'While away' });
  await follower.evaluate(() => {
    const now = Date.now;
    Date.now = () => now() + 60_000;
  });
  proxy.rules.answer = null;
  await received(follower, 'While away');
  const { titles, replayed } = await kept(follower);
  assert.deepEqual([titles, replayed], [['At the hand-over', 'While away'], [false, true]]);
});

test('tabs that come and go under load each get everything from when they came', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  let tabs = await openTabs(visitor, server, 2);
  for (let round = 1; round <= 6; round++) {
    const publishing = (async () => {
      for (const title of numbered(`Round ${round}`, 12)) await server.publish({ title });
    })();
    const [next] = await Promise.all([openClient(visitor, server, { cursor: 'start' }), tabs[0].close()]);
    await publishing;
    tabs = [...tabs.slice(1), next];
    for (const tab of tabs) await received(tab, `Round ${round} 12`);
  }
  const all = Array.from({ length: 6 }, (_, i) => numbered(`Round ${i + 1}`, 12)).flat();
  for (const tab of tabs) {
    await hasExactly(tab, all);
    await unread(tab, all.length);
  }
  assert.deepEqual(await connections(server), { sse: 1 });
});

test('a mark in one tab reaches the others', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 3);
  await server.publishMany(3, 'Entry');
  for (const tab of tabs) await unread(tab, 3);
  const { others } = await splitByLead(tabs);
  await others[0].evaluate(() => window.watch.client.mark({ as: 'read', upto: window.watch.client.cursor }));
  for (const tab of tabs) {
    await unread(tab, 0);
    await until(tab, ({ kept }) => kept.ids.length === 4);
  }
});

test('all tabs come through a restart of the server with one connection', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 4);
  await server.stop('SIGKILL');
  for (const tab of tabs) await status(tab, 'reconnecting');
  await server.run();
  await server.publishMany(3, 'After');
  for (const tab of tabs) {
    await received(tab, 'After 3');
    await unread(tab, 3);
    await status(tab, 'live');
    await hasExactly(tab, numbered('After', 3));
  }
  assert.deepEqual(await connections(server), { sse: 1 });

  // A new log as well: each tab finds the truth by itself.
  await server.stop('SIGKILL');
  await server.loseLog();
  await server.run();
  await server.publish({ title: 'New' });
  for (const tab of tabs) {
    await received(tab, 'New');
    await unread(tab, 1);
    assert.equal((await kept(tab)).hellos.at(-1).reason, 'epoch');
  }
});

test('a leader that stands still is superseded, and finds its way back as a follower', async (t) => {
  const server = await Server.start(t, QUICK);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 3);
  const { leader, others } = await splitByLead(tabs);
  const frozen = leader.evaluate(() => {
    const until = Date.now() + 9_000;
    while (Date.now() < until); // Nothing runs in this page meanwhile: no timer, no network, no message.
  });
  await eventually(async () => (await Promise.all(others.map(isLeader))).some(Boolean), 'another tab leads');
  await server.publishMany(3, 'Meanwhile');
  for (const tab of others) await received(tab, 'Meanwhile 3');
  await frozen;
  await received(leader, 'Meanwhile 3');
  await eventually(async () => !(await isLeader(leader)), 'the old leader follows');
  await server.publish({ title: 'After' });
  for (const tab of tabs) {
    await received(tab, 'After');
    await unread(tab, 4);
    await hasExactly(tab, [...numbered('Meanwhile', 3), 'After']);
  }
  await splitByLead(tabs);
});

test('a follower that stood still finds that it has missed something', async (t) => {
  const server = await Server.start(t, QUICK);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 2);
  const { leader, others: [follower] } = await splitByLead(tabs);
  await follower.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await server.publishMany(3, 'Meanwhile');
  await received(leader, 'Meanwhile 3');
  assert.deepEqual((await kept(follower)).titles, []);
  await follower.evaluate(() => document.dispatchEvent(new Event('resume')));
  await received(follower, 'Meanwhile 3');
  await server.publish({ title: 'After' });
  for (const tab of tabs) {
    await received(tab, 'After');
    await hasExactly(tab, [...numbered('Meanwhile', 3), 'After']);
  }
});

test('messages between tabs that are lost, doubled or late cost no tab an event', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 3);
  const { leader } = await splitByLead(tabs);
  await leader.evaluate(() => {
    const post = BroadcastChannel.prototype.postMessage;
    let [said, late] = [0, null];
    window.spoilt = { lost: 0, doubled: 0, late: 0 };
    BroadcastChannel.prototype.postMessage = function (message) {
      if (message.say !== 'event') return post.call(this, message);
      said += 1;
      if (late) {
        post.call(this, message);
        [message, late] = [late, null];
      } else if (said % 5 === 1) {
        window.spoilt.late += 1;
        late = message;
        return undefined;
      } else if (said % 5 === 3) {
        window.spoilt.lost += 1;
        return undefined;
      } else if (said % 5 === 4) {
        window.spoilt.doubled += 1;
        post.call(this, message);
      }
      return post.call(this, message);
    };
  });
  for (const title of numbered('Entry', 30)) {
    await server.publish({ title });
    await received(leader, title);
  }
  const spoilt = await leader.evaluate(() => window.spoilt);
  for (const [how, times] of Object.entries(spoilt)) assert.ok(times > 3, `${times} ${how}`);
  // What was lost last is noticed by the next sign of life, such as the counts.
  await leader.evaluate(() => {
    const post = BroadcastChannel.prototype.postMessage;
    BroadcastChannel.prototype.postMessage = function (message) {
      return message.event?.event === 'notification' ? undefined : post.call(this, message);
    };
  });
  await server.publish({ title: 'Last' });
  for (const tab of tabs) {
    await received(tab, 'Last');
    await unread(tab, 31);
    await hasExactly(tab, [...numbered('Entry', 30), 'Last']);
  }
});

test('who signs in as another in one tab is not fed what comes for the first, nor the other way', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, 'alice');
  const alices = await openTabs(visitor, server, 2);
  await signInAs(visitor, server, 'bob');
  const bobs = await openTabs(visitor, server, 2);
  for (const [tabs, name] of [[alices, 'alice'], [bobs, 'bob']]) {
    await server.publish({ to: { user: name }, title: `For ${name}` });
    for (const tab of tabs) await received(tab, `For ${name}`);
  }
  for (const tab of alices) assert.deepEqual([(await kept(tab)).titles, await tab.evaluate(() => window.watch.client.user)], [['For alice'], 'alice']);
  for (const tab of bobs) assert.deepEqual([(await kept(tab)).titles, await tab.evaluate(() => window.watch.client.user)], [['For bob'], 'bob']);
  assert.deepEqual(await connections(server), { sse: 2 });

  // Once the connection is a new one, the cookie is bob's: alice's pages end rather than show what is his.
  await server.stop('SIGTERM');
  await server.run();
  await server.publish({ to: { user: 'bob' }, title: 'Only for bob' });
  for (const tab of bobs) await received(tab, 'Only for bob');
  for (const tab of alices) {
    await status(tab, 'ended');
    assert.equal((await kept(tab)).states.at(-1), 'ended another-user');
    assert.deepEqual((await kept(tab)).titles, ['For alice']);
  }
  // Opened again, such a page begins anew, as bob's.
  await alices[0].evaluate(() => window.watch.client.open());
  await received(alices[0], 'Only for bob');
});

test('pages with other tokens, filters or words for sharing keep apart', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  const [alice, bob] = ['alice', 'bob'].map((id) => server.users.find((user) => user.id === id).token);
  const tabs = [];
  for (const options of [{ token: alice }, { token: alice }, { token: bob }, { token: alice, category: 'loans' }, { token: alice, share: 'apart' }, { token: alice, share: false }]) {
    tabs.push(await openClient(visitor, server, options));
  }
  for (const tab of tabs) await status(tab, 'live');
  await eventually(async () => (await connections(server)).sse === 5, 'five connections for six pages');
  await server.publish({ title: 'Plain' });
  await server.publish({ title: 'A loan', category: 'loans' });
  for (const i of [0, 1, 3, 4, 5]) await received(tabs[i], 'A loan');
  assert.deepEqual((await kept(tabs[3])).titles, ['A loan']);
  assert.deepEqual((await kept(tabs[2])).titles, []);
});

test('what ends the session ends all its tabs, and they tell each other', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server);
  const tabs = await openTabs(visitor, proxy, 6);
  await visitor.clearCookies();
  await server.stop('SIGTERM');
  await server.run();
  for (const tab of tabs) {
    await status(tab, 'ended');
    assert.equal((await kept(tab)).states.at(-1), 'ended signed-out');
  }
  const refused = proxy.answered.filter(({ status }) => status === 401);
  assert.ok(refused.length >= 1 && refused.length < tabs.length, `the server was asked ${refused.length} times`);
});

test('a client that is closed by its own handler the moment it leads lets the next one lead', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 3);
  const { leader, others } = await splitByLead(tabs);
  for (const tab of others) await tab.evaluate(() => window.watch.client.on('status', () => window.watch.client.isLeader && !window.watch.stays && window.watch.client.close()));
  await others[1].evaluate(() => { window.watch.stays = true; });
  await leader.close();
  await eventually(() => isLeader(others[1]), 'the other leads');
  await server.publish({ title: 'After' });
  await received(others[1], 'After');
});

test('pages with tickets of their own share a connection', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  const tabs = [];
  for (const user of ['alice', 'alice', 'alice', 'bob', 'bob']) {
    const { ticket } = await (await server.post('v1/tickets', JSON.stringify({ user }))).json();
    tabs.push(await openClient(visitor, server, { ticket, user }));
  }
  for (const tab of tabs) await status(tab, 'live');
  assert.deepEqual(await connections(server), { sse: 2 });
  await server.publish({ title: 'One' });
  for (const tab of tabs.slice(0, 3)) await received(tab, 'One');
  const { leader, others } = await splitByLead(tabs.slice(0, 3));
  await leader.close();
  await server.publish({ title: 'Two' });
  for (const tab of others) {
    await received(tab, 'Two');
    await hasExactly(tab, ['One', 'Two']);
  }
  for (const tab of tabs.slice(3)) await hasExactly(tab, []);
});

test('a ticket that is used elsewhere ends the page for good', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  const { ticket } = await (await server.post('v1/tickets', JSON.stringify({ user: 'alice' }))).json();
  for (const name of ['sse', 'poll', 'ws']) {
    const page = await openClient(visitor, server, { ticket, share: false, transport: name });
    await status(page, 'live');
    // Between two polls nobody holds the ticket, and whoever asks next would take it back.
    await eventually(async () => Object.keys(await connections(server)).length > 0, 'the page waits at the server');
    const elsewhere = await fetch(server.page(`v1/stream?ticket=${ticket}`), { headers: { Accept: 'text/event-stream' } });
    await status(page, 'ended');
    assert.equal((await kept(page)).states.at(-1), 'ended replaced');
    await elsewhere.body.cancel();
    await page.close();
  }
});

for (const name of ['sse', 'poll', 'ws']) {
  test(`over ${name} a session that was renewed in another tab goes on, and one that was not ends`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server, null);
    const enter = (page, ttl) => page.evaluate(async (token) => {
      const answer = await fetch('v1/session', { method: 'POST', headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' } });
      if (!answer.ok) throw new Error(`no session: ${answer.status}`);
    }, tokenOf(server, ttl));
    const door = await visitor.newPage();
    await door.goto(server.page('demo'));
    await enter(door, '3s');
    const page = await openClient(visitor, server, { transport: name });
    await status(page, 'live');
    await enter(door, '1h');
    await until(page, ({ client, kept }) => client.status === 'live' && Date.now() > Date.parse(kept.hellos[0].expires) + 500);
    await server.publish({ title: 'After' });
    await received(page, 'After');

    await enter(door, '3s');
    const other = await openClient(visitor, server, { transport: name, share: false });
    await status(other, 'ended');
    assert.equal((await kept(other)).states.at(-1), 'ended expired');
  });
}

// ---- what happens to connections

test('behind a proxy that buffers for ever items come by long poll within 5 s, and the next page need not find out again', async (t) => {
  const server = await Server.start(t);
  const proxy = await proxyTo(t, server, { buffers: () => true });
  const visitor = await openVisitor(t, browser, proxy);
  await server.publish({ title: 'Waiting' });
  const page = await openClient(visitor, proxy);
  await received(page, 'Waiting');
  const took = (await kept(page)).firstAfter;
  t.diagnostic(`the first item came ${Math.round(took)} ms after the page was opened`);
  assert.ok(took < 5_000);
  assert.equal(await transport(page), 'poll');
  await server.publish({ title: 'Live' });
  await received(page, 'Live');
  await hasExactly(page, ['Waiting', 'Live']);
  await page.close();

  const streams = proxy.count('/v1/stream');
  const next = await openClient(visitor, proxy);
  await received(next, 'Live');
  assert.equal(await transport(next), 'poll');
  assert.equal(proxy.count('/v1/stream'), streams, 'the choice is remembered');

  // For ten minutes. Then the stream has its chance again.
  proxy.rules = {};
  await next.evaluate(() => {
    const [key] = Object.keys(localStorage).filter((name) => name.startsWith('tidings:'));
    localStorage.setItem(key, String(Date.now() - 1));
  });
  await next.reload();
  await install(next);
  await status(next, 'live');
  assert.equal(await transport(next), 'sse');
});

test('a stream that says hello and is then held back is given up for long poll', async (t) => {
  const server = await Server.start(t, QUICK);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server, { buffersAfterHello: true });
  const page = await openClient(visitor, server, {}, proxy.url);
  await status(page, 'live');
  await server.publish({ title: 'Held back' });
  await until(page, ({ client }) => client.transport === 'poll' && client.status === 'live');
  await hasExactly(page, ['Held back']);
  await server.publish({ title: 'Live' });
  await received(page, 'Live');
});

test('something that answers every poll at once with nothing makes no storm', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server, { rewrite: (url) => url.searchParams.has('wait') && url.searchParams.set('wait', '0') });
  const page = await openClient(visitor, server, { transport: 'poll' }, proxy.url);
  await status(page, 'live');
  const began = Date.now();
  const asked = proxy.count('/v1/poll');
  await eventually(() => proxy.count('/v1/poll') >= asked + 4, 'it goes on asking');
  assert.ok(Date.now() - began >= 3_000, `four polls in ${Date.now() - began} ms`);
  await server.publish({ title: 'One' });
  await received(page, 'One');
});

test('an answer that begins too early, as from a stale cache, brings nothing twice', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server);
  const page = await openClient(visitor, server, { transport: 'poll' }, proxy.url);
  await status(page, 'live');
  const early = await page.evaluate(() => window.watch.client.cursor);
  await server.publishMany(3, 'Entry');
  await received(page, 'Entry 3');
  proxy.rules.rewrite = (url) => url.searchParams.has('cursor') && url.searchParams.set('cursor', early);
  await server.publish({ title: 'Next' });
  await received(page, 'Next');
  const asked = proxy.count('/v1/poll');
  await eventually(() => proxy.count('/v1/poll') > asked + 2, 'it asks again');
  await hasExactly(page, [...numbered('Entry', 3), 'Next']);
});

for (const [where, rate] of [['in sight', 4], ['that is hidden', 1]]) {
  test(`polls of a page ${where} do not follow every single event of a busy time, and miss none`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const proxy = await proxyTo(t, server);
    const page = await openClient(visitor, server, { transport: 'poll' }, proxy.url);
    await status(page, 'live');
    if (rate === 1) await page.evaluate(() => Object.defineProperty(document, 'hidden', { value: true }));
    const [began, asked] = [Date.now(), proxy.count('/v1/poll')];
    let published = 0;
    while (Date.now() - began < 4_000) await server.publish({ title: `Busy ${++published}` });
    const polls = proxy.count('/v1/poll') - asked;
    // A burst, so many a second, and one for each full page of 100.
    const most = 10 + Math.ceil((rate * (Date.now() - began)) / 1000) + Math.ceil(published / 100);
    t.diagnostic(`${published} events, ${polls} polls`);
    assert.ok(polls <= most, `${polls} polls, at most ${most}`);
    await received(page, `Busy ${published}`);
    await hasExactly(page, numbered('Busy', published));
  });
}

test('a page that comes to sight does not wait for a long pause to end', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const proxy = await proxyTo(t, server, {
    answer: (url, response) => url.pathname === '/v1/stream' && Boolean(response.writeHead(502).end()),
  });
  const page = await openClient(visitor, server, {}, proxy.url);
  await eventually(() => proxy.count('/v1/stream') >= 5, 'pauses have grown');
  const began = Date.now();
  for (let i = 0; i < 10; i++) {
    const before = proxy.count('/v1/stream');
    await eventually(async () => {
      await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
      return proxy.count('/v1/stream') > before;
    }, 'it tries at once');
  }
  assert.ok(Date.now() - began < 3_000, `ten tries in ${Date.now() - began} ms`);
  proxy.rules = {};
  await eventually(async () => {
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    return page.evaluate(() => window.watch.client.status === 'live');
  }, 'and is there');
});

test('without storage and without locks each page finds its own way through a proxy that buffers', async (t) => {
  const server = await Server.start(t);
  const proxy = await proxyTo(t, server, { buffers: () => true });
  const visitor = await openVisitor(t, browser, proxy);
  await visitor.addInitScript(() => {
    Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });
    Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });
  });
  const tabs = [await openClient(visitor, proxy), await openClient(visitor, proxy)];
  for (const tab of tabs) {
    await status(tab, 'live');
    assert.equal(await transport(tab), 'poll');
    assert.equal(await isLeader(tab), true);
  }
  const streams = proxy.count('/v1/stream');
  for (const title of numbered('Entry', 3)) {
    await server.publish({ title });
    for (const tab of tabs) await received(tab, title);
  }
  assert.equal(proxy.count('/v1/stream'), streams, 'it is remembered as long as the page lives');
});

for (const name of ['sse', 'poll']) {
  test(`over ${name} Retry-After is kept`, async (t) => {
    const server = await Server.start(t);
    const visitor = await openVisitor(t, browser, server);
    const refusals = [];
    const proxy = await proxyTo(t, server, {
      answer: (url, response) => {
        if (!/^\/v1\/(stream|poll)$/.test(url.pathname)) return false;
        refusals.push(Date.now());
        if (refusals.length > 1) return false;
        response.writeHead(503, { 'Retry-After': '2', 'Content-Type': 'application/problem+json' }).end('{"status":503,"code":"draining"}');
        return true;
      },
    });
    const page = await openClient(visitor, server, { transport: name }, proxy.url);
    await status(page, 'live');
    const waited = refusals[1] - refusals[0];
    assert.ok(waited >= 1_990 && waited < 4_000, `${waited} ms`);
  });
}

test('offline is told, and online again the page is right at once', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 2);
  const devtools = await Promise.all(tabs.map((tab) => visitor.newCDPSession(tab)));
  const network = async (offline) => {
    for (const session of devtools) {
      await session.send('Network.enable');
      await session.send('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput: -1 });
    }
  };
  await network(true);
  for (const tab of tabs) await status(tab, 'offline');
  await server.publishMany(3, 'Meanwhile');
  await network(false);
  const began = Date.now();
  for (const tab of tabs) {
    await received(tab, 'Meanwhile 3');
    await unread(tab, 3);
    await status(tab, 'live');
    await hasExactly(tab, numbered('Meanwhile', 3));
  }
  assert.ok(Date.now() - began < 2_000, 'it did not wait for a backoff');
});

// In full: TIDINGS_FREEZE_S=60, with the heartbeat that servers have.
const FREEZE_S = Number(process.env.TIDINGS_FREEZE_S ?? 5);

test(`a server that stands still for ${FREEZE_S} s is given up, and the page is right again when it goes on`, async (t) => {
  const server = await Server.start(t, FREEZE_S > 5 ? {} : QUICK);
  const visitor = await openVisitor(t, browser, server);
  const tabs = await openTabs(visitor, server, 2);
  await server.publish({ title: 'Before' });
  for (const tab of tabs) await received(tab, 'Before');
  server.freeze();
  const frozen = Date.now();
  const thaw = new Promise((resolve) => setTimeout(() => resolve(server.thaw()), FREEZE_S * 1_000));
  const lost = (async () => {
    for (const tab of tabs) await until(tab, ({ client }) => client.status === 'reconnecting', null, FREEZE_S * 1_000);
    return Date.now() - frozen;
  })();
  await thaw;
  assert.ok(await lost < FREEZE_S * 1_000, 'it was given up while it stood still');
  await server.publish({ title: 'After' });
  for (const tab of tabs) {
    await received(tab, 'After');
    await unread(tab, 2);
    await status(tab, 'live');
    await hasExactly(tab, ['Before', 'After']);
  }
});

test('a page that comes back from the back/forward cache goes on where it was', async (t) => {
  const caching = await launchWithPageCache();
  t.after(() => caching.close());
  const server = await Server.start(t);
  const visitor = await openVisitor(t, caching, server);
  const page = await openClient(visitor, server);
  await status(page, 'live');
  await server.publish({ title: 'Before' });
  await received(page, 'Before');
  await page.evaluate(() => addEventListener('pageshow', ({ persisted }) => { window.watch.persisted = persisted; }));

  await page.goto(server.page('problems/expired'));
  await eventually(async () => Object.keys(await connections(server)).length === 0, 'a page that is put aside holds no connection');
  await server.publishMany(3, 'Away');
  // `goBack` waits for a load, which a page that was kept does not have.
  await Promise.all([page.waitForURL('**/demo', { waitUntil: 'commit' }), page.evaluate(() => history.back())]);
  await until(page, (watch) => watch?.persisted === true);
  await received(page, 'Away 3');
  await unread(page, 4);
  await server.publish({ title: 'After' });
  await received(page, 'After');
  await hasExactly(page, ['Before', ...numbered('Away', 3), 'After']);
  assert.deepEqual(await connections(server), { sse: 1 });
});

// ---- the script for old browsers

test('tidings-poll.js receives 500 events across 5 forced reconnects, none missing, none twice', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const page = await installPoll(visitor, server);
  await until(page, ({ kept }) => kept.states.includes('live'));
  for (let round = 1; round <= 5; round++) {
    await server.publishMany(50, `Round ${round} live`);
    await server.stop(round % 2 ? 'SIGKILL' : 'SIGTERM');
    await until(page, ({ kept }, round) => kept.states.filter((state) => state === 'reconnecting').length === round, round);
    await server.run();
    await server.publishMany(50, `Round ${round} after`);
    await received(page, `Round ${round} after 50`);
  }
  const rounds = Array.from({ length: 5 }, (_, i) => [...numbered(`Round ${i + 1} live`, 50), ...numbered(`Round ${i + 1} after`, 50)]).flat();
  await hasExactly(page, rounds);
  await unread(page, 500);
  await page.evaluate(() => window.watch.client.close());
  assert.equal((await kept(page)).states.at(-1), 'ended closed');
  await eventually(async () => Object.keys(await connections(server)).length === 0, 'it has let go');
});

test('tidings-poll.js begins with the newest entries, goes on from a cursor, and ends with its credential', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  await server.publishMany(20, 'Entry');
  const { token } = server.users.find(({ id }) => id === 'alice');
  const page = await installPoll(visitor, server, { token });
  await received(page, 'Entry 20');
  const { titles, replayed, hellos } = await kept(page);
  assert.deepEqual(titles, numbered('Entry', 20).slice(5));
  assert.ok(replayed.every(Boolean));
  assert.deepEqual([hellos[0].recovered, hellos[0].reason, hellos[0].user], [false, 'none', 'alice']);
  const cursor = await page.evaluate(() => window.watch.client.cursor);
  await server.publish({ title: 'Next' });
  const next = await installPoll(visitor, server, { token, cursor });
  await received(next, 'Next');
  await hasExactly(next, ['Next']);

  const refused = await installPoll(visitor, server, { token: 'nonsense' });
  await until(refused, ({ kept }) => kept.states.includes('ended bad-credential'));
});

test('tidings-poll.js finds its server by its own address, or by one that ends without a slash', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: '/tidings' });
  const visitor = await openVisitor(t, browser, server);
  for (const url of [null, server.url]) {
    const page = await installPoll(visitor, server, { url });
    await until(page, ({ kept }) => kept.states.includes('live'));
    assert.equal((await kept(page)).hellos[0].user, 'alice');
  }
});

test('tidings-poll.js tells what comes between two polls as news', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server);
  const page = await installPoll(visitor, server);
  await until(page, ({ kept }) => kept.states.includes('live'));
  for (const title of numbered('Entry', 12)) await server.publish({ title });
  await received(page, 'Entry 12');
  await hasExactly(page, numbered('Entry', 12));
  assert.deepEqual(new Set((await kept(page)).replayed), new Set([false]));
});

test('tidings-poll.js asks its callback at the start, before the token runs out, and once more when it was refused', async (t) => {
  const server = await Server.start(t);
  const visitor = await openVisitor(t, browser, server, null);
  const [old, short, long] = ['1s', '30s', '1h'].map((ttl) => tokenOf(server, ttl));
  await eventually(async () => (await fetch(server.page('v1/inbox/counts'), { headers: { Authorization: `Bearer ${old}` } })).status === 401, 'the token has run out');

  const renewing = await installPoll(visitor, server, { tokens: [short, long] });
  await until(renewing, ({ kept }) => kept.why.length === 2);
  await server.publish({ title: 'After' });
  await received(renewing, 'After');
  assert.deepEqual((await kept(renewing)).why, ['start', 'expires']);
  assert.deepEqual((await kept(renewing)).states, ['connecting', 'live']);

  const refused = await installPoll(visitor, server, { tokens: [old, long] });
  await until(refused, ({ kept }) => kept.states.includes('live'));
  assert.deepEqual((await kept(refused)).why, ['start', 'refused']);

  for (const [token, why, asked] of [[old, 'expired', ['start', 'refused']], ['', 'signed-out', ['start']]]) {
    const ended = await installPoll(visitor, server, { tokens: [token] });
    await until(ended, ({ kept }, why) => kept.states.includes(`ended ${why}`), why);
    assert.deepEqual((await kept(ended)).why, asked);
  }

  // Where there was no new one in time, the old one runs out while a poll is parked.
  const parked = await installPoll(visitor, server, { tokens: [tokenOf(server, '2s'), '', long] });
  await until(parked, ({ kept }) => kept.why.length === 3);
  assert.deepEqual((await kept(parked)).why, ['start', 'expires', 'refused']);
  await server.publish({ title: 'And on' });
  await received(parked, 'And on');
});
