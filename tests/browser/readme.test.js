// The pages that the README tells people to paste, taken out of the README and run as they stand: on another origin than
// the server's, with a ticket, through a restart.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { launch, openProfile } from './browser.js';
import { Server } from './server.js';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** The README's page with our elements, and the one that does without any script of ours. */
async function pasted() {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const pages = [...readme.matchAll(/```html\n([\s\S]*?)```/g)].map(([, page]) => page);
  assert.equal(pages.length, 2, 'the README has two pages to paste');
  return { bell: pages[0], plain: pages[1] };
}

/** A web application of its own: serves one page, on a port of its own. */
async function application(t, page) {
  const server = createServer((_, response) => {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(page());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

/** Opens a pasted page on an origin of its own, with a ticket of alice's. */
async function open(t, source, { named = true } = {}) {
  let page = '';
  const origin = await application(t, () => page);
  const server = await Server.start(t, { TIDINGS_HTTP_ORIGINS: named ? origin : 'http://other.example' });
  page = source.replaceAll('http://127.0.0.1:8383', server.url);
  assert.notEqual(page, source, 'the README names the server where the page can be pointed elsewhere');
  const minted = await server.post('v1/tickets', JSON.stringify({ user: 'alice' }));
  assert.equal(minted.status, 201);
  const profile = await openProfile(t, browser);
  const tab = await profile.newPage();
  const refused = tab.waitForEvent('console', (message) => message.text().includes('CORS')).catch(() => null);
  await tab.goto(`${origin}/bell.html#${(await minted.json()).ticket}`);
  return { server, tab, refused };
}

test('the two lines of the README ring, open, and catch up after the server was killed', async (t) => {
  const { server, tab } = await open(t, (await pasted()).bell);
  const badge = (text) => tab.locator('tidings-bell [part~="badge"]', { hasText: new RegExp(`^${text}$`) }).waitFor();
  await tab.locator('tidings-bell [part~="button"]').waitFor();
  await server.publish({ title: 'Due soon', body: 'Your loan ends on Friday' });
  await badge(1);
  await server.stop('SIGKILL');
  await server.run();
  await server.publish({ title: 'While you were away' });
  await badge(2);
  assert.equal(await tab.title(), '(2) My page');
  await tab.locator('tidings-bell [part~="button"]').click();
  const entries = tab.locator('tidings-inbox article');
  await entries.nth(1).waitFor();
  assert.equal(await entries.count(), 2);
  assert.match(await entries.first().textContent(), /While you were away/);
});

test('the plain page of the README rings, and catches up after the server was killed', async (t) => {
  const { server, tab } = await open(t, (await pasted()).plain);
  await tab.locator('#badge', { hasText: /^0$/ }).waitFor();
  await server.publish({ title: 'Due soon', body: 'Your loan ends on Friday' });
  await tab.locator('li', { hasText: 'Due soon: Your loan ends on Friday' }).waitFor();
  await tab.locator('#badge', { hasText: /^1$/ }).waitFor();

  await server.stop('SIGKILL');
  await server.run();
  await server.publish({ title: 'While you were away' });
  await tab.locator('#badge', { hasText: /^2$/ }).waitFor();
  assert.deepEqual(await tab.locator('li').allTextContents(), ['While you were away', 'Due soon: Your loan ends on Friday']);
});

test('a page of an origin that is not named gets nothing', async (t) => {
  const { tab, refused } = await open(t, (await pasted()).plain, { named: false });
  assert.ok(await refused, 'the browser refuses it');
  assert.equal(await tab.locator('#badge').textContent(), '…');
});
