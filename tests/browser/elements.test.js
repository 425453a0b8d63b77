// The elements in pages that are not ours: another origin with a token or a ticket and the strictest policy, and our own
// origin with the cookie. What a person sees, hears and presses.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { archiveButton, atFocus, entry, launch, openProfile, readButton, signIn, titles } from './browser.js';
import { BUILT_IN, Words } from '../../static/strings.js';
import { startApplication, ticketFor, tokenFor } from './embedding.js';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const DEADLINE_MS = 10_000;
const BELL = '<header><h1>My library</h1><tidings-bell></tidings-bell></header><main><h2>Books</h2><button id="other">Search</button></main>';
const INBOX = '<main><h2>Notifications</h2><tidings-inbox></tidings-inbox></main>';

async function visitor(t, options) {
  const profile = await openProfile(t, browser, options);
  profile.setDefaultTimeout(DEADLINE_MS);
  return profile;
}

/** The application with this body, and its page in a profile of its own, for Alice with a token. */
async function open(t, body, { before: prepare = async () => {}, options = {}, settings = {} } = {}) {
  const { app, server } = await startApplication(t, settings);
  await prepare(server);
  const token = await tokenFor(server, 'alice');
  app.show(body, { token, ...options });
  const profile = await visitor(t, options.profile);
  const tab = await profile.newPage();
  await tab.goto(app.page);
  return { app, server, profile, tab, token };
}

const many = (count, title = 'Note') => (server) => server.publishMany(count, title);
const badge = (tab, text) => tab.locator('[part~="badge"]', { hasText: new RegExp(`^${text.replace('+', '\\+')}$`) }).waitFor();
const noBadge = (tab) => tab.locator('[part~="badge"]').waitFor({ state: 'hidden' });
const bell = (tab) => tab.locator('tidings-bell [part~="button"]').first();
const panel = (tab) => tab.locator('tidings-bell [part~="panel"]').first();
const heard = (tab, name) => tab.evaluate((name) => {
  window.heard ??= {};
  window.heard[name] = [];
  document.addEventListener(name, ({ detail, target }) => window.heard[name].push({ detail, target: target.localName }));
}, name);
const whatWasHeard = (tab, name) => tab.evaluate((name) => window.heard[name], name);
/** Polls from outside, since `waitForFunction` needs `eval`, which the policy forbids. */
const eventually = async (tab, look, argument) => {
  for (const deadline = Date.now() + DEADLINE_MS; ; ) {
    if (await tab.evaluate(look, argument)) return;
    if (Date.now() > deadline) assert.fail(`this never came true: ${look}`);
  }
};

// --- The bell --------------------------------------------------------------------------------------------------------

test('the bell counts what is unseen, and opening it marks as seen what it shows and leaves it unread', async (t) => {
  const { server, profile, tab } = await open(t, BELL, { before: many(2) });
  await badge(tab, '2');
  assert.equal(await bell(tab).getAttribute('aria-label'), 'Notifications, 2 new');
  await server.publish({ title: 'Live' });
  await badge(tab, '3');
  assert.equal(await tab.locator('article').count(), 0, 'a closed bell has asked for no page');

  await heard(tab, 'tidings-open');
  await heard(tab, 'tidings-mark');
  await bell(tab).click();
  await entry(tab, 'Live').waitFor();
  assert.deepEqual(await titles(tab), ['Live', 'Note 2', 'Note 1']);
  await noBadge(tab);
  assert.equal(await tab.locator('article[data-unread="true"]').count(), 3);
  assert.equal((await whatWasHeard(tab, 'tidings-open')).length, 1);
  const [{ detail, target }] = await whatWasHeard(tab, 'tidings-mark');
  assert.deepEqual([detail.as, detail.changed, target], ['seen', 3, 'tidings-bell']);
  assert.deepEqual(profile.complaints, []);
});

test('while the bell is closed nothing is marked, and what comes while it is open is seen', async (t) => {
  const { server, tab } = await open(t, BELL, { before: many(1) });
  await bell(tab).click();
  await noBadge(tab);
  await server.publish({ title: 'Seen at once' });
  await entry(tab, 'Seen at once').waitFor();
  await noBadge(tab);
  await tab.keyboard.press('Escape');
  await panel(tab).waitFor({ state: 'hidden' });
  await server.publish({ title: 'Not seen' });
  await badge(tab, '1');
  await bell(tab).click();
  await noBadge(tab);
  assert.deepEqual(await titles(tab), ['Not seen', 'Seen at once', 'Note 1']);
});

test('Escape and a click outside close the panel, and the focus returns to the bell', async (t) => {
  const { tab, profile } = await open(t, BELL, { before: many(1) });
  await heard(tab, 'tidings-close');
  const isAtBell = () => atFocus(tab, (element) => element?.part?.contains('button') && element.localName === 'button');
  await bell(tab).click();
  await entry(tab, 'Note 1').waitFor();
  assert.equal(await bell(tab).getAttribute('aria-expanded'), 'true');
  assert.equal(await atFocus(tab, (element) => element.getAttribute('role')), 'dialog');
  await tab.keyboard.press('Tab');
  await tab.keyboard.press('Escape');
  await panel(tab).waitFor({ state: 'hidden' });
  assert.ok(await isAtBell());
  assert.equal(await bell(tab).getAttribute('aria-expanded'), 'false');

  await tab.keyboard.press('Enter');
  await panel(tab).waitFor();
  await tab.mouse.click(20, 300);
  await panel(tab).waitFor({ state: 'hidden' });
  assert.ok(await isAtBell());

  await bell(tab).click();
  await panel(tab).waitFor();
  await tab.locator('#other').click();
  await panel(tab).waitFor({ state: 'hidden' });
  assert.equal(await atFocus(tab, (element) => element.id), 'other', 'the person put the focus somewhere else');
  assert.equal((await whatWasHeard(tab, 'tidings-close')).length, 3);
  assert.deepEqual(profile.complaints, []);
});

test('moving the focus out of the panel closes it', async (t) => {
  const { tab } = await open(t, BELL);
  await bell(tab).click();
  await tab.locator('#empty').waitFor();
  await tab.locator('#other').focus();
  await panel(tab).waitFor({ state: 'hidden' });
  assert.equal(await atFocus(tab, (element) => element.id), 'other');
});

test('a badge ends at 99+, or where max says, and count="unread" counts the unread', async (t) => {
  const bells = '<header><tidings-bell id="a"></tidings-bell><tidings-bell id="b" max="9" count="unread"></tidings-bell></header>';
  const { tab } = await open(t, bells, { before: many(105) });
  await tab.locator('#a [part~="badge"]', { hasText: /^99\+$/ }).waitFor();
  await tab.locator('#b [part~="badge"]', { hasText: /^9\+$/ }).waitFor();
  assert.equal(await tab.locator('#b [part~="button"]').first().getAttribute('aria-label'), 'Notifications, 105 unread');
  await tab.locator('#a [part~="button"]').first().click();
  await tab.locator('#a [part~="badge"]').waitFor({ state: 'hidden' });
  await tab.locator('#b [part~="badge"]', { hasText: /^9\+$/ }).waitFor();
});

test('title-count puts the count before the title, whatever the page makes of that, and takes it away again', async (t) => {
  const { server, tab } = await open(t, '<tidings-bell title-count></tidings-bell>', { before: many(2) });
  await eventually(tab, () => document.title === '(2) My library');
  await server.publish({ title: 'Three' });
  await eventually(tab, () => document.title === '(3) My library');
  await tab.evaluate(() => { document.title = 'Loans'; });
  await eventually(tab, () => document.title === '(3) Loans');
  await bell(tab).click();
  await eventually(tab, () => document.title === 'Loans');
  await tab.keyboard.press('Escape');
  await server.publish({ title: 'Four' });
  await eventually(tab, () => document.title === '(1) Loans');
  await tab.evaluate(() => document.querySelector('tidings-bell').remove());
  assert.equal(await tab.title(), 'Loans');
});

// --- What an element connects with -----------------------------------------------------------------------------------

const connections = async (server) => {
  const text = await (await fetch(server.page('metrics'))).text();
  return [...text.matchAll(/^tidings_connections(?:\{[^}]*\})? (\d+)$/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
};

test('elements with equal options share one client, which is closed when the last of them is gone', async (t) => {
  const all = '<tidings-bell></tidings-bell><tidings-counter></tidings-counter><tidings-inbox></tidings-inbox>';
  const { server, tab } = await open(t, all, { before: many(1) });
  await entry(tab, 'Note 1').waitFor();
  assert.equal(await tab.evaluate(() => new Set([...document.querySelectorAll('tidings-bell, tidings-counter, tidings-inbox')].map((e) => e.client)).size), 1);
  await eventually(tab, () => document.querySelector('tidings-bell').client.status === 'live');
  assert.equal(await connections(server), 1);

  await tab.evaluate(() => { window.client = document.querySelector('tidings-bell').client; });
  await tab.evaluate(() => document.body.append(document.querySelector('tidings-bell'))); // Moving one is no end.
  await tab.evaluate(() => document.querySelectorAll('tidings-bell, tidings-inbox').forEach((e) => e.remove()));
  await eventually(tab, () => new Promise((resolve) => setTimeout(() => resolve(window.client.status === 'live'))));
  await tab.evaluate(() => document.querySelector('tidings-counter').remove());
  await eventually(tab, () => window.client.status === 'ended');
  for (const deadline = Date.now() + DEADLINE_MS; (await connections(server)) > 0; ) assert.ok(Date.now() < deadline, 'the connection is still there');
});

test('an element that is moved keeps its client and what it knows, with a token and with a ticket', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publishMany(3, 'Note');
  const profile = await visitor(t);
  for (const kind of ['token', 'ticket']) {
    const ticket = async () => (kind === 'ticket' ? `ticket="${await ticketFor(server, 'alice')}"` : '');
    app.show(`<header><tidings-bell ${await ticket()}></tidings-bell><tidings-counter transport="poll" ${await ticket()}></tidings-counter></header><main></main>`, { token: kind === 'token' ? await tokenFor(server, 'alice') : null });
    const tab = await profile.newPage();
    await tab.goto(app.page);
    await badge(tab, '3');
    await tab.evaluate(() => {
      const moved = document.querySelector('tidings-bell');
      window.client = moved.client;
      window.ends = 0;
      window.client.on('status', (status) => { if (status === 'ended') window.ends += 1; });
      document.querySelector('main').append(moved);
      // One with a client of its own goes after it: once that client has ended, the other one has had its time.
      const gone = document.querySelector('tidings-counter');
      window.other = gone.client;
      gone.remove();
    });
    await eventually(tab, () => window.other.status === 'ended');
    assert.deepEqual(await tab.evaluate(() => [document.querySelector('tidings-bell').client === window.client, window.client.status, window.ends]), [true, 'live', 0], kind);
    await bell(tab).click();
    await entry(tab, 'Note 1').waitFor();
    assert.deepEqual(await titles(tab), ['Note 3', 'Note 2', 'Note 1'], kind);
    await tab.close();
  }
});

test('a client that has a ticket needs no attribute to be known as one that only reads', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publishMany(3, 'Note');
  app.show('<header id="place"></header>');
  const profile = await visitor(t);
  const asked = [];
  profile.on('request', (request) => asked.push(new URL(request.url()).pathname));
  const give = async (late) => {
    const tab = await profile.newPage();
    await tab.goto(app.page);
    await tab.evaluate(async ([url, ticket, late]) => {
      const { connect } = await import(`${url}/static/tidings.js`);
      const client = connect({ url: `${url}/`, ticket, share: false });
      if (late) await new Promise((resolve) => client.on('unread', resolve));
      document.querySelector('#place').append(Object.assign(document.createElement('tidings-bell'), { client }));
    }, [server.url, await ticketFor(server, 'alice'), late]);
    await badge(tab, '3');
    await bell(tab).click();
    return tab;
  };
  const early = await give(false);
  await entry(early, 'Note 1').waitFor();
  assert.equal(await early.evaluate(() => document.querySelector('tidings-bell').readonly), true);
  for (const part of ['mark-all', 'read', 'archive']) assert.equal(await early.locator(`[part~="${part}"]:visible`).count(), 0, part);

  const late = await give(true);
  await late.locator('#loading').waitFor();
  assert.equal(await late.locator('#empty').isVisible(), false, 'three are unread, so it is not empty');
  assert.deepEqual(asked.filter((path) => path.startsWith('/v1/inbox')), []);
  assert.deepEqual(profile.complaints, []);
});

test('a list with a ticket keeps the newest some hundred and does not get slow beyond them', async (t) => {
  const { app, server } = await startApplication(t);
  app.show(`<main><tidings-inbox ticket="${await ticketFor(server, 'alice')}"></tidings-inbox></main>`);
  const tab = await (await visitor(t)).newPage();
  await tab.goto(app.page);
  await tab.locator('#empty').waitFor();
  const unread = (count) => eventually(tab, (count) => document.querySelector('tidings-inbox').client.counts.unread === count, count);
  for (const [times, count] of [[1, 500], [2, 1_000]]) {
    await server.publishMany(500, `Batch ${times}`);
    await unread(count);
  }
  await entry(tab, 'Batch 2 500').waitFor();
  await tab.evaluate(() => {
    const list = document.querySelector('tidings-inbox').shadowRoot.querySelector('#feed');
    window.rebuilt = 0;
    new MutationObserver((changes) => { for (const { removedNodes } of changes) window.rebuilt += removedNodes.length; }).observe(list, { childList: true });
  });
  for (let n = 1; n <= 20; n += 1) await server.publish({ title: `Single ${n}` });
  await entry(tab, 'Single 20').waitFor();
  assert.equal(await tab.locator('article').count(), 600);
  assert.deepEqual((await titles(tab)).slice(18, 22), ['Single 2', 'Single 1', 'Batch 2 500', 'Batch 2 499']);
  assert.equal(await tab.evaluate(() => window.rebuilt), 20, 'one goes for each that comes');
});

test('a ticket reads only: the list is there and live, and there is nothing to mark with', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publishMany(2, 'Note');
  app.show(`<tidings-bell ticket="${await ticketFor(server, 'alice')}"></tidings-bell>`);
  const profile = await visitor(t);
  const tab = await profile.newPage();
  const changes = [];
  tab.on('request', (request) => request.method() === 'POST' && changes.push(request.url()));
  await tab.goto(app.page);
  await badge(tab, '2');
  await bell(tab).click();
  await entry(tab, 'Note 1').waitFor();
  await server.publish({ title: 'Live' });
  await entry(tab, 'Live').waitFor();
  assert.deepEqual(await titles(tab), ['Live', 'Note 2', 'Note 1']);
  await badge(tab, '3');
  for (const part of ['mark-all', 'read', 'archive']) assert.equal(await tab.locator(`[part~="${part}"]:visible`).count(), 0, part);
  assert.equal(await tab.locator('#tab-archived').isVisible(), false);
  await tab.locator('#tab-unread').click();
  assert.deepEqual(await titles(tab), ['Live', 'Note 2', 'Note 1']);
  assert.deepEqual(changes, []);
  assert.deepEqual(profile.complaints, []);
});

test('on our own origin the cookie is enough, under the policy of our own pages', async (t) => {
  const { server } = await startApplication(t);
  const profile = await visitor(t);
  await (await signIn(profile, server)).close();
  const policy = (await fetch(server.page())).headers.get('content-security-policy');
  await profile.route('**/app.html', (route) => route.fulfill({
    headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': policy },
    body: '<!doctype html><html lang="en"><title>Same</title><script type="module" src="static/tidings-elements.js"></script><tidings-bell></tidings-bell>',
  }));
  await server.publish({ title: 'Here' });
  const tab = await profile.newPage();
  await tab.goto(server.page('app.html'));
  await badge(tab, '1');
  await bell(tab).click();
  await entry(tab, 'Here').waitFor();
  await noBadge(tab);
  assert.deepEqual(profile.complaints, []);
});

test('pages whose tickets name the same user share one connection, each with a ticket of its own', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publishMany(1, 'Note');
  const profile = await visitor(t);
  const tabs = [];
  for (let n = 0; n < 2; n += 1) {
    app.show(`<tidings-bell user="alice" ticket="${await ticketFor(server, 'alice')}"></tidings-bell>`);
    const tab = await profile.newPage();
    await tab.goto(app.page);
    await badge(tab, '1');
    await eventually(tab, () => document.querySelector('tidings-bell').client.status === 'live');
    tabs.push(tab);
  }
  await server.publish({ title: 'To both' });
  for (const tab of tabs) await badge(tab, '2');
  assert.equal(await connections(server), 1);
  assert.deepEqual(await Promise.all(tabs.map((tab) => tab.evaluate(() => document.querySelector('tidings-bell').client.isLeader))), [true, false]);
});

test('the page hears of counts, news and status, and can choose the transport', async (t) => {
  const { server, tab } = await open(t, '<main id="place"></main>');
  for (const name of ['tidings-counts', 'tidings-notification', 'tidings-status']) await heard(tab, name);
  await tab.evaluate((token) => {
    const inbox = document.createElement('tidings-inbox');
    Object.assign(inbox, { token }).setAttribute('transport', 'poll');
    document.querySelector('#place').append(inbox);
  }, await tokenFor(server, 'alice'));
  await eventually(tab, () => window.heard['tidings-status'].some(({ detail }) => detail.status === 'live'));
  assert.equal(await tab.evaluate(() => document.querySelector('tidings-inbox').client.transport), 'poll');
  await server.publish({ title: 'Heard' });
  await entry(tab, 'Heard').waitFor();
  await eventually(tab, () => window.heard['tidings-counts'].some(({ detail }) => detail.unread === 1));
  const news = await whatWasHeard(tab, 'tidings-notification');
  assert.deepEqual(news.map(({ detail, target }) => [detail.notification.title, detail.replayed, target]), [['Heard', false, 'tidings-inbox']]);
});

test('a client that the page made is used, and left open when the element goes', async (t) => {
  const { server, tab, token } = await open(t, '<main id="place"></main>', { before: many(1) });
  await tab.evaluate(async ([url, token]) => {
    const { connect } = await import(`${url}/static/tidings.js`);
    window.client = connect({ token, share: false });
    const counter = document.createElement('tidings-counter');
    counter.client = window.client;
    document.querySelector('#place').append(counter);
  }, [server.url, token]);
  await tab.locator('tidings-counter [part="number"]', { hasText: /^1$/ }).waitFor();
  await tab.evaluate(() => document.querySelector('tidings-counter').remove());
  await server.publish({ title: 'Two' });
  await eventually(tab, () => window.client.counts.unseen === 2 && window.client.status === 'live');
});

test('without a good credential an element says that nobody is signed in, and shows the list once somebody is', async (t) => {
  const { tab, token } = await open(t, '<tidings-inbox></tidings-inbox>', { before: many(1), options: { token: null } });
  await tab.getByRole('heading', { name: 'You are not signed in' }).waitFor();
  assert.equal(await tab.locator('[part~="toolbar"]').isVisible(), false);
  await tab.evaluate((token) => { document.querySelector('tidings-inbox').token = () => token; }, token);
  await entry(tab, 'Note 1').waitFor();
  await tab.evaluate(() => document.querySelector('tidings-inbox').client.close());
  await tab.getByRole('heading', { name: 'You are not signed in' }).waitFor();
  assert.equal(await tab.locator('article').count(), 0);
});

// --- The counter -----------------------------------------------------------------------------------------------------

test('a counter is hidden at nothing unless told otherwise, and can count one category', async (t) => {
  const body = `<p>All <tidings-counter id="all" count="unread"></tidings-counter>, loans <tidings-counter id="loans" category="loans" max="1"></tidings-counter>,
    zero <tidings-counter id="zero" show-zero category="none"></tidings-counter></p>`;
  const { server, tab, profile } = await open(t, body);
  const number = (id, text) => tab.locator(`#${id} [part="number"]`, { hasText: new RegExp(`^${text.replace('+', '\\+')}$`) }).waitFor();
  await number('zero', '0');
  assert.equal(await tab.locator('#all').isVisible(), false);
  await server.publish({ title: 'A', category: 'loans' });
  await server.publish({ title: 'B', category: 'loans' });
  await server.publish({ title: 'C' });
  await number('all', '3');
  await number('loans', '1+');
  await number('zero', '0');
  assert.equal(await tab.locator('#all .visually-hidden').textContent(), '3 unread');
  assert.deepEqual(profile.complaints, []);
});

// --- The inbox -------------------------------------------------------------------------------------------------------

test('pressing an entry marks it as read and follows its link, unless the page does something of its own', async (t) => {
  const publish = async (server) => {
    await server.publish({ title: 'Plain' });
    await server.publish({ title: 'Linked', click: '/loans/5' });
    await server.publish({ title: 'Routed', click: '/loans/6', actions: [{ label: 'Renew', click: '/renew' }] });
  };
  const { app, tab } = await open(t, INBOX, { before: publish });
  await entry(tab, 'Routed').waitFor();
  await tab.evaluate(() => {
    window.clicks = [];
    document.addEventListener('tidings-entry-click', (event) => {
      const { entry, link, action } = event.detail;
      window.clicks.push([entry.title, link, action]);
      if (entry.title === 'Routed') event.preventDefault();
    });
  });
  const isRead = (title) => tab.locator('article[data-unread="false"]', { hasText: title }).waitFor();

  await entry(tab, 'Plain').locator('[part~="title"]').click();
  await isRead('Plain');
  await entry(tab, 'Routed').locator('[part~="meta"]').click();
  await isRead('Routed');
  await entry(tab, 'Routed').locator('a', { hasText: 'Renew' }).click();
  assert.deepEqual(await tab.evaluate(() => window.clicks), [['Plain', null, null], ['Routed', `${app.url}/loans/6`, null], ['Routed', `${app.url}/renew`, 'Renew']]);
  assert.equal(tab.url(), app.page);

  await entry(tab, 'Linked').focus();
  await tab.keyboard.press('Enter');
  await tab.waitForURL(`${app.url}/loans/5`);
  await isRead('Linked');
});

test('a mark shows at once and is taken back when it fails, with a word about it', async (t) => {
  const { tab } = await open(t, INBOX, { before: many(3) });
  await entry(tab, 'Note 3').waitFor();
  let refuse = null;
  await tab.route('**/v1/inbox/mark', async (route) => {
    if (route.request().postDataJSON()?.as === 'seen') return route.continue();
    await new Promise((resolve) => { refuse = resolve; });
    await route.fulfill({ status: 503, contentType: 'application/problem+json', headers: { 'Access-Control-Allow-Origin': new URL(tab.url()).origin }, body: '{"status":503,"detail":"The disk is full."}' });
  });
  const asked = () => tab.waitForRequest((request) => request.url().endsWith('/mark') && request.postDataJSON()?.as !== 'seen');

  let request = asked();
  await readButton(tab, 'Note 2').click();
  await tab.locator('article[data-unread="false"]', { hasText: 'Note 2' }).waitFor();
  await request;
  refuse();
  await tab.locator('article[data-unread="true"]', { hasText: 'Note 2' }).waitFor();
  assert.match(await tab.locator('#toast-text').textContent(), /^That did not work: /);

  request = asked();
  await archiveButton(tab, 'Note 2').click();
  await entry(tab, 'Note 2').waitFor({ state: 'detached' });
  await request;
  refuse();
  await entry(tab, 'Note 2').waitFor();
  assert.deepEqual(await titles(tab), ['Note 3', 'Note 2', 'Note 1']);

  request = asked();
  await tab.locator('#mark-all').click();
  await eventually(tab, () => document.querySelector('tidings-inbox').shadowRoot.querySelectorAll('article[data-unread="false"]').length === 3);
  await request;
  refuse();
  await eventually(tab, () => document.querySelector('tidings-inbox').shadowRoot.querySelectorAll('article[data-unread="true"]').length === 3);
});

test('a list that is scrolled down does not jump: what comes waits behind a pill, and is not marked before it was shown', async (t) => {
  const { server, tab } = await open(t, INBOX, { before: many(40) });
  await entry(tab, 'Note 40').waitFor();
  await eventually(tab, () => document.querySelector('tidings-inbox').client.counts?.unseen === 0);
  await entry(tab, 'Note 20').scrollIntoViewIfNeeded();
  await eventually(tab, () => scrollY > 300);
  const place = () => entry(tab, 'Note 20').evaluate((e) => e.getBoundingClientRect().top);
  const before = await place();
  await server.publish({ title: 'New 1' });
  await server.publish({ title: 'New 2' });
  await tab.locator('#pill', { hasText: '2 new' }).waitFor();
  assert.equal(await entry(tab, 'New 1').count(), 0);
  assert.equal(await place(), before);

  await tab.evaluate(() => document.querySelector('tidings-inbox').shadowRoot.querySelector('#mark-all').click());
  await eventually(tab, () => document.querySelector('tidings-inbox').client.counts.unread === 2);
  assert.equal(await tab.evaluate(() => document.querySelector('tidings-inbox').client.counts.unseen), 2);

  await tab.locator('#pill').click();
  await entry(tab, 'New 2').waitFor();
  await tab.locator('#pill').waitFor({ state: 'hidden' });
  assert.deepEqual((await titles(tab)).slice(0, 3), ['New 2', 'New 1', 'Note 40']);
  assert.equal(await atFocus(tab, (element) => element.querySelector('h2').textContent), 'New 2');
  await eventually(tab, () => document.querySelector('tidings-inbox').client.counts.unseen === 0);
});

test('scrolling back to the top lets in what waited, and at the top what comes goes straight in', async (t) => {
  const { server, tab } = await open(t, INBOX, { before: many(40) });
  await entry(tab, 'Note 40').waitFor();
  await entry(tab, 'Note 20').scrollIntoViewIfNeeded();
  await eventually(tab, () => scrollY > 300);
  await server.publish({ title: 'Waits' });
  await tab.locator('#pill', { hasText: '1 new' }).waitFor();
  await tab.evaluate(() => scrollTo(0, 0));
  await entry(tab, 'Waits').waitFor();
  await tab.locator('#pill').waitFor({ state: 'hidden' });
  await server.publish({ title: 'Straight' });
  await entry(tab, 'Straight').waitFor();
  assert.equal(await tab.locator('#pill').isVisible(), false);
});

test('what waits behind the pill is bounded, and pressing it brings the newest page', async (t) => {
  const { server, tab } = await open(t, INBOX, { before: many(40) });
  await entry(tab, 'Note 40').waitFor();
  await entry(tab, 'Note 20').scrollIntoViewIfNeeded();
  await eventually(tab, () => scrollY > 300);
  await server.publishMany(700, 'New');
  await tab.locator('#pill', { hasText: '700 new' }).waitFor();
  await eventually(tab, () => document.querySelector('tidings-inbox').client.counts.unread === 740);
  await tab.locator('#pill').click();
  await entry(tab, 'New 700').waitFor();
  await tab.locator('#pill').waitFor({ state: 'hidden' });
  assert.deepEqual((await titles(tab)).slice(0, 30), Array.from({ length: 30 }, (_, i) => `New ${700 - i}`));
  assert.ok(await tab.locator('article').count() <= 90, 'they come page by page');
  assert.equal(await atFocus(tab, (element) => element.querySelector('h2')?.textContent), 'New 700');
});

test('the focus is never lost when what had it goes away', async (t) => {
  const { tab } = await open(t, INBOX, { before: many(40), options: { profile: { viewport: { width: 900, height: 600 } } } });
  await entry(tab, 'Note 40').waitFor();
  const here = () => atFocus(tab, (element) => (element.localName === 'article' ? element.querySelector('h2').textContent : element.id));
  const archiveElsewhere = (title) => tab.evaluate(async (title) => {
    const { client } = document.querySelector('tidings-inbox');
    const { entries } = await client.inbox({});
    await client.mark({ as: 'archived', ids: [entries.find((entry) => entry.title === title).id] });
  }, title);
  await entry(tab, 'Note 38').focus();
  await archiveElsewhere('Note 38');
  await entry(tab, 'Note 38').waitFor({ state: 'detached' });
  assert.equal(await here(), 'Note 37', 'the next one');
  await readButton(tab, 'Note 37').focus();
  await archiveElsewhere('Note 37');
  await entry(tab, 'Note 37').waitFor({ state: 'detached' });
  assert.equal(await here(), 'Note 36', 'also from a button in it');

  const asked = new Promise((resolve) => tab.route('**/v1/inbox?*before=*', resolve));
  await tab.locator('#older').focus();
  const route = await asked;
  assert.equal(await here(), 'older');
  await route.continue();
  await tab.locator('#older').waitFor({ state: 'hidden' });
  assert.equal(await here(), 'Note 11', 'the last one before those that came');
  await tab.unroute('**/v1/inbox?*before=*');

  await tab.route('**/v1/inbox?**', (refused) => refused.abort());
  await tab.locator('#tab-unread').click();
  await tab.locator('#try-again').waitFor();
  await tab.locator('#try-again').focus();
  assert.equal(await here(), 'try-again');
  await tab.unroute('**/v1/inbox?**');
  await tab.keyboard.press('Enter');
  await entry(tab, 'Note 40').waitFor();
  assert.equal(await here(), 'panel');
});

test('in a list that scrolls by itself the pill does the same', async (t) => {
  const { server, tab } = await open(t, '<tidings-inbox scrolls class="low"></tidings-inbox>', { before: many(30) });
  await entry(tab, 'Note 30').waitFor();
  const scroll = (top) => tab.evaluate((top) => { document.querySelector('tidings-inbox').shadowRoot.querySelector('.scroller').scrollTop = top; }, top);
  await scroll(600);
  const isHeld = () => eventually(tab, () => document.querySelector('tidings-inbox').shadowRoot.querySelector('.scroller').scrollTop > 300);
  await isHeld();
  await server.publish({ title: 'Waits' });
  await tab.locator('#pill', { hasText: '1 new' }).waitFor();
  await tab.locator('#pill').click();
  await entry(tab, 'Waits').waitFor();
  await eventually(tab, () => document.querySelector('tidings-inbox').shadowRoot.querySelector('.scroller').scrollTop === 0);
});

test('older entries come by a button where nothing watches the scroll', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publishMany(70, 'Note');
  app.show(INBOX, { token: await tokenFor(server, 'alice') });
  const profile = await visitor(t);
  await profile.addInitScript(() => { window.IntersectionObserver = class { observe() {} unobserve() {} disconnect() {} }; });
  const tab = await profile.newPage();
  await tab.goto(app.page);
  await entry(tab, 'Note 70').waitFor();
  for (const count of [60, 70]) {
    await tab.locator('#older').click();
    await eventually(tab, (count) => document.querySelector('tidings-inbox').shadowRoot.querySelectorAll('article').length === count, count);
  }
  await tab.locator('#older').waitFor({ state: 'hidden' });
  assert.deepEqual(await titles(tab), Array.from({ length: 70 }, (_, i) => `Note ${70 - i}`));
  assert.deepEqual(profile.complaints, []);
});

test('loading, failure and emptiness are each said, and a second try helps', async (t) => {
  const { app, server } = await startApplication(t);
  app.show(INBOX, { token: await tokenFor(server, 'alice') });
  const tab = await (await visitor(t)).newPage();
  // The requests that wait for an answer, and those who wait for a request.
  const asked = [], takers = [];
  const next = () => asked.length ? asked.shift() : new Promise((resolve) => { takers.push(resolve); });
  await tab.route('**/v1/inbox?**', (route) => takers.length ? takers.shift()(route) : void asked.push(route));
  const fail = (route) => route.fulfill({ status: 500, contentType: 'application/problem+json', headers: { 'Access-Control-Allow-Origin': app.url }, body: '{"status":500,"detail":"Something broke."}' });
  await tab.goto(app.page);
  const first = await next();
  await tab.locator('#loading').waitFor();
  assert.equal(await tab.locator('#empty').isVisible(), false);
  // Coming alive would be a reason to try again by itself.
  await eventually(tab, () => document.querySelector('tidings-inbox').client.status === 'live');
  await fail(first);
  await tab.getByRole('alert').getByText('could not be loaded').waitFor();
  await tab.getByText('Something broke.').waitFor();
  assert.equal(await tab.locator('#loading').isVisible(), false);
  await tab.locator('#try-again').click();
  await (await next()).continue();
  await tab.getByRole('heading', { name: 'Nothing here yet' }).waitFor();
  assert.equal(await tab.locator('#error').isVisible(), false);
});

test('offline is told, and what came meanwhile is there when the network is back', async (t) => {
  const { server, tab, profile } = await open(t, INBOX, { before: many(1) });
  await entry(tab, 'Note 1').waitFor();
  await profile.setOffline(true);
  await tab.locator('#banner', { hasText: 'You are offline' }).waitFor();
  await server.publish({ title: 'Meanwhile' });
  await profile.setOffline(false);
  await entry(tab, 'Meanwhile').waitFor();
  await tab.locator('#banner').waitFor({ state: 'hidden' });
  assert.deepEqual(await titles(tab), ['Meanwhile', 'Note 1']);
});

test('the feed pattern holds: roles, positions, and the keys that walk and leave it', async (t) => {
  const { tab, profile } = await open(t, INBOX, { before: many(3) });
  const feed = tab.getByRole('feed', { name: 'Notifications' });
  await entry(tab, 'Note 1').waitFor();
  assert.equal(await feed.getAttribute('aria-busy'), 'false');
  const positions = await tab.locator('article').evaluateAll((all) => all.map((e) => [e.ariaPosInSet, e.ariaSetSize, e.tabIndex]));
  assert.deepEqual(positions, [['1', '3', 0], ['2', '3', 0], ['3', '3', 0]]);
  await tab.getByRole('article', { name: 'Unread: Note 3' }).focus();
  const here = () => atFocus(tab, (element) => element.querySelector('h2')?.textContent ?? element.id);
  await tab.keyboard.press('PageDown');
  assert.equal(await here(), 'Note 2');
  await tab.keyboard.press('Control+Home');
  assert.equal(await here(), 'mark-all');
  await entry(tab, 'Note 1').focus();
  await tab.keyboard.press('PageUp');
  assert.equal(await here(), 'Note 2');
  await tab.keyboard.press('Control+End');
  await tab.keyboard.press('Tab');
  assert.equal(await atFocus(tab, (element) => Boolean(element.closest('article'))), false, 'Control+End leads to the end of the feed');
  assert.deepEqual(profile.complaints, []);
});

test('a category can be chosen, and mark all then marks that one only', async (t) => {
  const publish = async (server) => {
    for (const category of ['loans', 'ops', 'loans']) await server.publish({ title: `About ${category}`, category });
  };
  const { tab } = await open(t, INBOX, { before: publish });
  await tab.locator('#category').selectOption('loans');
  await eventually(tab, () => document.querySelector('tidings-inbox').shadowRoot.querySelectorAll('article').length === 2);
  await tab.locator('#mark-all').click();
  await eventually(tab, () => document.querySelector('tidings-inbox').client.counts.unread === 1);
  await tab.locator('#category').selectOption('');
  await tab.locator('article[data-unread="true"]', { hasText: 'About ops' }).waitFor();
  assert.equal(await tab.locator('article[data-unread="true"]').count(), 1);
});

test('with a token for some topics only, marking all names what is on display', async (t) => {
  const { app, server } = await startApplication(t);
  const put = (path) => fetch(server.page(`v1/topics/${path}`), { method: 'PUT', headers: { Authorization: `Bearer ${server.key}`, 'Content-Type': 'application/json' }, body: '{}' });
  for (const path of ['ops/followers/alice', 'secret/followers/alice']) assert.ok((await put(path)).ok, path);
  await server.publish({ to: { topic: 'ops' }, title: 'For all' });
  await server.publish({ to: { topic: 'secret' }, title: 'For few' });
  app.show(INBOX, { token: await tokenFor(server, 'alice', { topics: ['ops'] }) });
  const tab = await (await visitor(t)).newPage();
  await tab.goto(app.page);
  await entry(tab, 'For all').waitFor();
  assert.deepEqual(await titles(tab), ['For all']);
  await heard(tab, 'tidings-mark');
  await tab.locator('#mark-all').click();
  await tab.locator('article[data-unread="false"]', { hasText: 'For all' }).waitFor();
  await eventually(tab, () => window.heard['tidings-mark'].some(({ detail }) => detail.as === 'read' && detail.changed === 1));
  assert.equal(await tab.locator('#toast').isVisible(), false);
});

// --- Words, looks, slots ---------------------------------------------------------------------------------------------

test('the words are Chinese where the page is, English where the element says so, and the page\'s own where it has some', async (t) => {
  const body = `<main><tidings-inbox id="zh"></tidings-inbox><tidings-inbox id="en" lang="en-GB"></tidings-inbox></main>`;
  const { server, tab } = await open(t, body, { options: { lang: 'zh-CN', strings: { markAll: 'Alles gelesen' } } });
  await tab.locator('#zh').getByRole('tab', { name: '全部', exact: true }).waitFor();
  await tab.locator('#zh').getByText('还没有通知').waitFor();
  await tab.locator('#en').getByText('Nothing here yet').waitFor();
  assert.equal(await tab.locator('#zh').getByRole('button', { name: 'Alles gelesen' }).count(), 1);
  await server.publish({ title: '磁盘', priority: 5 });
  await tab.locator('#zh').getByText('紧急').waitFor();
  assert.equal(await tab.locator('#zh time').textContent(), '刚刚');
  assert.equal(await tab.locator('#en time').textContent(), 'just now');
  await tab.evaluate(() => document.querySelector('#en').setAttribute('lang', 'zh'));
  await tab.locator('#en').getByRole('tab', { name: '未读' }).waitFor();
  assert.equal(await tab.locator('#en').getByText('磁盘', { exact: true }).count(), 1);
});

test('plurals, overrides and times follow the language of the words', () => {
  const DAY = 86_400;
  const now = new Date('2026-03-10T12:00:00Z');
  const ago = (words, seconds) => words.ago(new Date(now - seconds * 1000), now);
  const english = new Words('en-GB');
  assert.deepEqual([1, 2].map((n) => english.say('arrived', { n })), ['1 new notification', '2 new notifications']);
  assert.deepEqual([10, 300, 7_200, DAY, 23 * DAY, 463 * DAY].map((s) => ago(english, s).replace('.', '')), ['just now', '5 min ago', '2 hr ago', 'yesterday', '15 Feb', '2 Dec 2024']);
  const chinese = new Words('zh-Hans-CN');
  assert.deepEqual([chinese.say('arrived', { n: 3 }), ago(chinese, 300)], ['3 条新通知', '5分钟前']);
  const polish = new Words('pl', { arrived: { one: '{n} nowe', few: '{n} nowe!', other: '{n} nowych' }, pill: ({ n }) => `nowe: ${n}` });
  assert.deepEqual([1, 3, 5].map((n) => polish.say('arrived', { n })), ['1 nowe', '3 nowe!', '5 nowych']);
  assert.deepEqual([polish.say('pill', { n: 2 }), polish.say('undo'), polish.locale], ['nowe: 2', 'Undo', 'pl']);
  assert.deepEqual([new Words('fr').locale, new Words('not a tag').locale], ['en', 'en'], 'no half-translated sentences');
});

test('every word is there in each language and described, and so is every variable and part', async () => {
  const text = async (name) => readFile(new URL(`../../static/${name}`, import.meta.url), 'utf8');
  const [types, styles, bellSource, inboxSource] = await Promise.all(['tidings-elements.d.ts', 'element-styles.js', 'element-bell.js', 'element-inbox.js'].map(text));
  const described = [...types.slice(types.indexOf('interface TidingsStrings')).matchAll(/^ {2}(\w+): TidingsText;$/gm)].map(([, key]) => key);
  for (const [language, words] of Object.entries(BUILT_IN)) assert.deepEqual(Object.keys(words).sort(), [...described].sort(), language);
  const variables = [...`${styles}${bellSource}`.matchAll(/--tidings-[a-z-]+[a-z]/g)].map(([name]) => name);
  assert.deepEqual([...new Set(variables)].filter((name) => !types.includes(name)), []);
  const [, parts] = /INBOX_PARTS = \[([^\]]+)\]/.exec(inboxSource);
  const named = [...parts.matchAll(/'([a-z-]+)'/g)].map(([, name]) => name);
  assert.deepEqual(named.filter((name) => !types.includes(`\`${name}\``)), []);
  const used = [...`${inboxSource}${await text('entry.js')}`.matchAll(/part: '([a-z -]+)'/g)].flatMap(([, list]) => list.split(' '));
  assert.deepEqual(used.filter((name) => !named.includes(name)), [], 'a bell hands every part on');
});

test('what comes in a burst is announced in one sentence', async (t) => {
  const { server, tab } = await open(t, BELL);
  await eventually(tab, () => document.querySelector('tidings-bell').client?.status === 'live');
  await tab.evaluate(() => {
    window.said = [];
    const status = document.querySelector('tidings-bell').shadowRoot.querySelector('[role="status"]');
    new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
  });
  await server.publishMany(5, 'Note');
  await eventually(tab, () => window.said.length > 0);
  await server.publish({ title: 'Single' });
  await eventually(tab, () => window.said.length > 1);
  const drafts = ['Draft', 'Final'].map((title) => JSON.stringify({ to: { user: 'alice' }, title, collapse: 'letter' }));
  await (await server.post('v1/notifications', drafts.join('\n'), 'application/x-ndjson')).text();
  await eventually(tab, () => window.said.length > 2);
  assert.deepEqual(await tab.evaluate(() => window.said), ['5 new notifications', '1 new notification: Single', '1 new notification: Final'], 'nothing about what was replaced at once');
});

test('slots, parts and variables let a page make the elements its own', async (t) => {
  const body = `<tidings-bell class="themed"><span slot="icon" id="mine">🔔</span><p slot="empty">Quiet today.</p><a slot="footer" href="/all">See all</a></tidings-bell>`;
  const { server, tab } = await open(t, body);
  await eventually(tab, () => document.querySelector('tidings-bell').client?.status === 'live');
  await tab.locator('#mine').click();
  await tab.getByText('Quiet today.').waitFor();
  await tab.getByRole('link', { name: 'See all' }).waitFor();
  await tab.keyboard.press('Escape');
  await server.publish({ title: 'One' });
  await badge(tab, '1');
  assert.equal(await tab.locator('[part~="badge"]').evaluate((e) => getComputedStyle(e).backgroundColor), 'rgb(1, 2, 3)');
  await tab.locator('#mine').click();
  await entry(tab, 'One').waitFor();
  const accent = await entry(tab, 'One').evaluate((e) => getComputedStyle(e, '::before').backgroundColor);
  assert.equal(accent, 'rgb(120, 40, 160)');
  assert.equal(await tab.getByText('Quiet today.').isVisible(), false);
});

test('the topics are folded up, speak the language of the page, and are not there for a ticket or where there are none', async (t) => {
  const { app, server } = await startApplication(t);
  await server.ask('PUT', 'v1/topics/news/followers/dora', {});
  const token = await tokenFor(server, 'dora');
  const ticket = await ticketFor(server, 'dora');
  app.show(`<tidings-topics id="mine"></tidings-topics><tidings-topics id="reads" ticket="${ticket}"></tidings-topics>`, { token, lang: 'zh-CN' });
  const profile = await visitor(t);
  const tab = await profile.newPage();
  await tab.goto(app.page);
  await tab.locator('#mine summary', { hasText: '话题 1' }).click();
  const mute = tab.locator('#mine').getByRole('switch', { name: '免打扰：news' });
  await mute.press('Space');
  await tab.locator('#mine [aria-checked="true"]').waitFor();
  assert.equal((await server.ask('GET', 'v1/topics/news/followers')).followers[0].muted, true);
  await eventually(tab, () => document.querySelector('#reads').client.status === 'live');
  assert.equal(await tab.locator('#reads').isVisible(), false);
  assert.deepEqual(profile.complaints, []);

  await tab.route('**/mute', (route) => route.abort());
  await mute.click();
  await tab.locator('#mine [part~="note"]', { hasText: '操作失败：无法连接到服务器。' }).waitFor();
  assert.equal(await mute.getAttribute('aria-checked'), 'true');
  await server.ask('DELETE', 'v1/topics/news');
  await tab.locator('#mine summary').click();
  await tab.locator('#mine summary').click(); // Opened again, it asks again.
  await tab.locator('#mine').waitFor({ state: 'hidden' });
});

test('from right to left the arrows and the panel turn round', async (t) => {
  const { tab } = await open(t, BELL, { before: many(1), options: { dir: 'rtl', profile: { viewport: { width: 700, height: 700 } } } });
  await bell(tab).click();
  await entry(tab, 'Note 1').waitFor();
  const inside = await panel(tab).evaluate((e) => {
    const { left, right } = e.getBoundingClientRect();
    return left >= 0 && right <= innerWidth;
  });
  assert.ok(inside);
  await tab.locator('#tab-all').focus();
  await tab.keyboard.press('ArrowLeft');
  await tab.locator('#tab-unread[aria-selected="true"]').waitFor();
  const dot = await entry(tab, 'Note 1').evaluate((e) => parseFloat(getComputedStyle(e, '::before').right));
  assert.ok(dot < 20, 'the dot stands on the right');
  assert.equal(await entry(tab, 'Note 1').locator('[part~="title"]').evaluate((e) => getComputedStyle(e).textAlign), 'right', 'beside its avatar, whatever its language');
});

// --- The desktop -----------------------------------------------------------------------------------------------------

/** Lets the real Notification be, and keeps a note of what was asked and shown. */
const witness = () => {
  const Real = window.Notification;
  window.asked = 0;
  window.popups = [];
  window.Notification = class extends Real {
    constructor(title, options) {
      super(title, options);
      const popup = { title, tag: options.tag, closed: false, real: this };
      window.popups.push(popup);
    }

    close() {
      window.popups.find(({ real }) => real === this).closed = true;
      super.close();
    }

    static requestPermission() {
      window.asked += 1;
      return Real.requestPermission();
    }
  };
};
/** As in a browser where nobody has been asked yet; headless ones deny to pages whose requests are looked at. */
const undecided = async (profile, tab, origin) => {
  const session = await profile.newCDPSession(tab);
  const { targetInfo: { browserContextId } } = await session.send('Target.getTargetInfo');
  await session.send('Browser.setPermission', { permission: { name: 'notifications' }, setting: 'prompt', origin, browserContextId });
};
/** The same for what takes more than one page to see. */
const until = async (look) => {
  for (const deadline = Date.now() + DEADLINE_MS; !(await look()); ) if (Date.now() > deadline) assert.fail(`this never came true: ${look}`);
};
const tabThatShows = async (tabs, title) => {
  const lists = await Promise.all(tabs.map(popups));
  return tabs[lists.findIndex((list) => list.some(([shown]) => shown === title))];
};
const popups = (tab) => tab.evaluate(() => window.popups.map(({ title, closed }) => [title, closed]));

test('desktop notifications are asked for on a click only, and only where the page wants them', async (t) => {
  const { app, server } = await startApplication(t);
  const token = await tokenFor(server, 'alice');
  app.show('<tidings-inbox desktop id="a"></tidings-inbox><tidings-inbox id="b"></tidings-inbox>', { token });
  const profile = await visitor(t);
  await profile.addInitScript(witness);
  const tab = await profile.newPage();
  await undecided(profile, tab, app.url);
  await tab.goto(app.page);
  assert.equal(await tab.evaluate(() => Notification.permission), 'default');
  await tab.locator('#a #empty').waitFor();
  assert.equal(await tab.locator('#b #desktop').isVisible(), false);
  await tab.locator('#a #desktop').waitFor();
  await server.publish({ title: 'Unasked' });
  await tab.locator('#a article', { hasText: 'Unasked' }).waitFor();
  assert.deepEqual([await tab.evaluate(() => window.asked), await popups(tab)], [0, []]);
  await tab.locator('#a #desktop').click();
  await eventually(tab, () => window.asked === 1);
});

test('the button that asks for desktop notifications hands the focus on when it goes', async (t) => {
  const { app, server } = await startApplication(t);
  app.show('<main><tidings-inbox desktop></tidings-inbox></main>', { token: await tokenFor(server, 'alice') });
  const profile = await visitor(t);
  // The person's answer to the browser's own question, which a headless one can't be asked.
  await profile.addInitScript(() => {
    let permission = 'default';
    Object.defineProperty(Notification, 'permission', { get: () => permission });
    Notification.requestPermission = async () => (permission = 'granted');
  });
  const tab = await profile.newPage();
  await tab.goto(app.page);
  await tab.locator('#desktop').focus();
  await tab.keyboard.press('Enter');
  await tab.locator('#desktop').waitFor({ state: 'hidden' });
  assert.equal(await atFocus(tab, (element) => element.id), 'mark-all');
});

test('one page of many shows a desktop notification, never for what is old, and closes it when it is read elsewhere or taken back', async (t) => {
  const { app, server } = await startApplication(t);
  await server.publish({ title: 'Old' });
  const token = await tokenFor(server, 'alice');
  app.show('<tidings-bell desktop></tidings-bell>', { token });
  const profile = await visitor(t);
  await profile.grantPermissions(['notifications'], { origin: app.url });
  await profile.addInitScript(witness);
  const tabs = [];
  for (let n = 0; n < 3; n += 1) {
    const tab = await profile.newPage();
    await tab.goto(app.page);
    await eventually(tab, () => document.querySelector('tidings-bell')?.client?.status === 'live');
    await badge(tab, '1');
    tabs.push(tab);
  }
  assert.equal(await tabs[0].evaluate(() => Notification.permission), 'granted');
  for (const title of ['First', 'Second', 'Third']) await server.publish({ title, click: `/${title}` });
  const fourth = await server.publish({ title: 'Fourth' });
  for (const tab of tabs) await badge(tab, '5');
  const all = async () => (await Promise.all(tabs.map(popups))).flat().sort();
  await until(async () => (await all()).length >= 4);
  assert.deepEqual(await all(), [['First', false], ['Fourth', false], ['Second', false], ['Third', false]]);

  const shower = await tabThatShows(tabs, 'Third');
  const other = tabs.find((tab) => tab !== shower);
  await other.bringToFront();
  await bell(other).click();
  await readButton(other, 'First').click();
  await archiveButton(other, 'Second').click();
  await server.ask('DELETE', `v1/notifications/${fourth.id}`);
  await until(async () => (await all()).every(([title, closed]) => closed === (title !== 'Third')));

  await shower.evaluate(() => window.popups.find(({ title }) => title === 'Third').real.onclick());
  await shower.waitForURL(`${app.url}/Third`);
  await other.locator('article[data-unread="false"]', { hasText: 'Third' }).waitFor();
});

test('a page that wants desktop notifications shows them also where the page with the connection does not', async (t) => {
  const { app, server } = await startApplication(t);
  const token = await tokenFor(server, 'alice');
  const profile = await visitor(t);
  await profile.grantPermissions(['notifications'], { origin: app.url });
  await profile.addInitScript(witness);
  const openTab = async (body) => {
    app.show(body, { token });
    const tab = await profile.newPage();
    await tab.goto(app.page);
    await eventually(tab, () => document.querySelector('tidings-counter, tidings-bell')?.client?.status === 'live');
    return tab;
  };
  const leader = await openTab('<tidings-counter></tidings-counter>');
  const wanting = await openTab('<tidings-bell desktop></tidings-bell>');
  assert.equal(await leader.evaluate(() => document.querySelector('tidings-counter').client.isLeader), true);
  await server.publish({ title: 'Wanted' });
  await eventually(wanting, () => window.popups.length > 0);
  assert.deepEqual([await popups(wanting), await popups(leader)], [[['Wanted', false]], []]);
});

test('a page that goes away takes the desktop notifications it has shown with it', async (t) => {
  const { app, server } = await startApplication(t);
  app.show('<tidings-bell desktop></tidings-bell>', { token: await tokenFor(server, 'alice') });
  const profile = await visitor(t);
  await profile.grantPermissions(['notifications'], { origin: app.url });
  await profile.addInitScript(witness);
  const tab = await profile.newPage();
  await tab.goto(app.page);
  await eventually(tab, () => document.querySelector('tidings-bell')?.client?.status === 'live');
  await server.publish({ title: 'Shown' });
  await eventually(tab, () => window.popups.length > 0);
  await tab.evaluate(() => {
    const keep = () => sessionStorage.setItem('left', JSON.stringify(window.popups.map(({ title, closed }) => [title, closed])));
    addEventListener('pagehide', keep);
  });
  await tab.goto(`${app.url}/elsewhere`);
  assert.deepEqual(await tab.evaluate(() => JSON.parse(sessionStorage.getItem('left'))), [['Shown', true]]);
});

test('a page can keep one notification from the desktop', async (t) => {
  const { app, server } = await startApplication(t);
  app.show('<tidings-bell desktop></tidings-bell>', { token: await tokenFor(server, 'alice') });
  const profile = await visitor(t);
  await profile.grantPermissions(['notifications'], { origin: app.url });
  await profile.addInitScript(witness);
  const tab = await profile.newPage();
  await tab.goto(app.page);
  await eventually(tab, () => document.querySelector('tidings-bell')?.client?.status === 'live');
  await tab.evaluate(() => document.addEventListener('tidings-notification', (event) => {
    if (event.detail.notification.title === 'Quiet') event.preventDefault();
  }));
  await server.publish({ title: 'Quiet' });
  await server.publish({ title: 'Loud' });
  await eventually(tab, () => window.popups.length > 0);
  await badge(tab, '2');
  assert.deepEqual(await popups(tab), [['Loud', false]]);
});
