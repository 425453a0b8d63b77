// The same pages in Firefox: the main path of a person with two tabs, over a restart of the server, and in an application's page.
// With SCREENSHOTS=<folder> what the inbox looks like is written there as a picture, to be looked at.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startApplication, tokenFor } from './embedding.js';
import { launch } from './firefox.js';
import { Server } from './server.js';

/** What a person would call at once, also where the machine does other things besides. A long poll that stands in takes longer. */
const AT_ONCE_MS = 2_000;
const DEADLINE_MS = 20_000;

let firefox;
before(async () => { firefox = await launch(); });
after(() => firefox?.close());

const live = (page) => page.shows('#connection[data-state="live"]');
const badge = (page, text) => page.shows('#badge >>> [part="number"]', text);
const noBadge = (page) => page.hides('#badge');
const titles = (page) => page.texts('article [part~="title"]');
const entry = (page, title) => page.shows('article [part~="title"]', title);
/** Waits until these are the entries, from the top, each with whether it is unread. */
const lists = (page, wanted) => page.until(
  ({ all }) => all('article').map((e) => `${e.dataset.unread === 'true' ? 'unread' : 'read'}: ${e.querySelector('[part~="title"]').textContent}`),
  { wanted },
);

/** Leaves a mark that only a reload could remove. */
const brand = (page) => page.look(() => { window.neverReloaded = true; });
const isBranded = (page) => page.look(() => window.neverReloaded === true);

/** Signs in through the demo's door and waits until the inbox is live. */
async function signIn(profile, server, user = 'alice') {
  const page = await profile.newPage(server.page('demo'));
  await page.press(`button[data-user="${user}"]`);
  await live(page);
  return page;
}

async function openInbox(profile, server) {
  const page = await profile.newPage(server.page());
  await live(page);
  return page;
}

/** How many connections of each transport the server has, by what it says of itself. */
async function connections(server) {
  const text = await (await fetch(server.page('metrics'))).text();
  const gauges = [...text.matchAll(/^tidings_connections\{transport="(\w+)"\} (\d+)$/gm)];
  return Object.fromEntries(gauges.map(([, name, count]) => [name, Number(count)]).filter(([, count]) => count > 0));
}

/** Waits until the server has one stream and nothing else: it may take it a moment to see that another is closed. */
async function oneConnection(server) {
  for (const deadline = Date.now() + DEADLINE_MS; ; await delay(10)) {
    const open = await connections(server);
    if (open.sse === 1 && Object.keys(open).length === 1) return;
    assert.ok(Date.now() < deadline, `the server has ${JSON.stringify(open)}`);
  }
}

/** Publishes while no page can reach the server: it runs at another port for that time. */
async function publishOutOfReach(server, title) {
  const elsewhere = new Server();
  elsewhere.data = server.data;
  await elsewhere.run();
  try {
    await elsewhere.publish({ title });
  } finally {
    await elsewhere.stop('SIGTERM');
  }
}

test('in Firefox, what is published by the form is in two other tabs at once, over one connection', async (t) => {
  const server = await Server.start(t);
  const profile = await firefox.openProfile(t);
  const first = await signIn(profile, server);
  const second = await openInbox(profile, server);
  assert.deepEqual(await connections(server), { sse: 1 });

  const form = await profile.newPage(server.page('publish'));
  await form.type('#name', 'alice');
  await form.type('#title', 'Ready for pickup: 3 books');
  const began = Date.now();
  await form.press('#submit');
  for (const page of [first, second]) await badge(page, '1');
  const took = Date.now() - began;
  t.diagnostic(`Firefox ${firefox.version}: both badges ${took} ms after the click`);
  assert.ok(took < AT_ONCE_MS, `it took ${took} ms`);
  await form.shows('#result strong');
  for (const page of [first, second]) {
    await lists(page, ['unread: Ready for pickup: 3 books']);
    assert.match(await page.look(() => document.title), /^\(1\) /);
  }
  assert.deepEqual(profile.complaints, []);
});

test('in Firefox, what is read in one tab is read in the other, and so is all of it', async (t) => {
  const server = await Server.start(t);
  await server.publishMany(3, 'Note');
  const profile = await firefox.openProfile(t);
  const watching = await signIn(profile, server);
  const acting = await openInbox(profile, server);
  await badge(watching, '3');
  await brand(watching);

  await acting.press('article[data-unread="true"]:nth-of-type(2) [part~="read"]');
  await badge(acting, '2');
  await badge(watching, '2');
  await lists(watching, ['unread: Note 3', 'read: Note 2', 'unread: Note 1']);

  await acting.press('#mark-all');
  await noBadge(acting);
  await noBadge(watching);
  await lists(watching, ['read: Note 3', 'read: Note 2', 'read: Note 1']);
  assert.equal(await watching.look(() => document.title), 'Inbox · Tidings');
  assert.ok(await isBranded(watching));
  assert.deepEqual(profile.complaints, []);
});

test('in Firefox, the other tab takes the connection over when the one that held it is closed', async (t) => {
  const server = await Server.start(t);
  const profile = await firefox.openProfile(t);
  const leader = await signIn(profile, server);
  const follower = await openInbox(profile, server);
  await server.publish({ title: 'Before' });
  await entry(follower, 'Before');
  await oneConnection(server);
  await leader.close();
  await server.publish({ title: 'Between' });
  await entry(follower, 'Between');
  await live(follower);
  await oneConnection(server);
  await server.publish({ title: 'After' });
  await lists(follower, ['unread: After', 'unread: Between', 'unread: Before']);
  assert.deepEqual(profile.complaints, []);
});

test('in Firefox, a restart of the server loses nothing, doubles nothing and needs no reload', async (t) => {
  const server = await Server.start(t);
  const profile = await firefox.openProfile(t);
  const pages = [await signIn(profile, server), await openInbox(profile, server)];
  await server.publish({ title: 'Before' });
  for (const page of pages) {
    await badge(page, '1');
    await brand(page);
  }

  await server.stop('SIGTERM');
  for (const page of pages) await page.shows('#connection[data-state="reconnecting"]');
  await publishOutOfReach(server, 'While it was away');
  await server.run();
  await server.publish({ title: 'As it came back' });

  for (const page of pages) {
    await badge(page, '3');
    await live(page);
    await entry(page, 'As it came back');
  }
  await server.publish({ title: 'After' });
  for (const page of pages) {
    await entry(page, 'After');
    await badge(page, '4');
    assert.deepEqual(await titles(page), ['After', 'As it came back', 'While it was away', 'Before']);
    assert.ok(await isBranded(page));
  }
  await oneConnection(server);
});

test('in Firefox, an application\'s Chinese page has the bell and the list in Chinese, from another origin', async (t) => {
  const { app, server } = await startApplication(t);
  const body = '<header><h1>图书馆</h1><tidings-bell></tidings-bell></header><main><tidings-inbox></tidings-inbox></main>';
  app.show(body, { lang: 'zh-CN', token: await tokenFor(server, 'alice') });
  const profile = await firefox.openProfile(t);
  const page = await profile.newPage(`${app.url}/library`);
  await page.shows('[role="tab"][aria-selected="true"]', '全部');
  await page.shows('#empty .notice-title', '还没有通知');

  await server.publish({ title: '磁盘空间不足', body: '请尽快清理日志。', priority: 5 });
  await page.shows('[part="badge"]', '1');
  await page.shows('article [part~="priority"]', '紧急');
  await page.shows('article time', '刚刚');

  await page.press('[part="button"]');
  await page.shows('[part="panel"] >>> [part="heading"]', '通知');
  await page.press('[part="panel"] >>> [part~="mark-all"]');
  await page.hides('article[data-unread="true"]');
  assert.deepEqual(profile.complaints, []);
});

test('in Firefox, the inbox is no wider than its window', async (t) => {
  const server = await Server.start(t);
  await server.publish({ title: 'Welcome to the library', body: 'Your account is ready.', sender: 'Front desk' });
  await server.publish({ title: '磁盘空间不足', body: '请尽快清理日志。', category: 'ops', priority: 5, sender: 'monitor' });
  await server.publish({ title: 'Your hold is ready for pickup', body: 'It waits at desk 3.', category: 'loans', click: '/holds/12' });
  const page = await signIn(await firefox.openProfile(t), server);
  await badge(page, '3');
  const overflow = await page.look(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(overflow, 0);
  if (!process.env.SCREENSHOTS) return;
  await mkdir(process.env.SCREENSHOTS, { recursive: true });
  await page.screenshot(join(process.env.SCREENSHOTS, 'firefox-inbox-1440.png'));
});
