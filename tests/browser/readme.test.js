// The page that the README tells people to paste, taken out of the README and run as it stands: on another origin than
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

async function pasted() {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const block = /```html\n([\s\S]*?)```/.exec(readme);
  assert.ok(block, 'the README has a page to paste');
  return block[1];
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

test('the page of the README rings, and catches up after the server was killed', async (t) => {
  const source = await pasted();
  let page = '';
  const origin = await application(t, () => page);
  const server = await Server.start(t, { TIDINGS_HTTP_ORIGINS: origin });
  page = source.replace('http://127.0.0.1:8383', server.url);
  assert.notEqual(page, source, 'the README names the server where the page can be pointed elsewhere');

  const minted = await server.post('v1/tickets', JSON.stringify({ user: 'alice' }));
  assert.equal(minted.status, 201);
  const { ticket } = await minted.json();

  const profile = await openProfile(t, browser);
  const tab = await profile.newPage();
  await tab.goto(`${origin}/bell.html#${ticket}`);
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
  const source = await pasted();
  let page = '';
  const origin = await application(t, () => page);
  const server = await Server.start(t, { TIDINGS_HTTP_ORIGINS: 'http://other.example' });
  page = source.replace('http://127.0.0.1:8383', server.url);
  const { ticket } = await (await server.post('v1/tickets', JSON.stringify({ user: 'alice' }))).json();
  const profile = await openProfile(t, browser);
  const tab = await profile.newPage();
  const refused = tab.waitForEvent('console', (message) => message.text().includes('CORS'));
  await tab.goto(`${origin}/bell.html#${ticket}`);
  await refused;
  assert.equal(await tab.locator('#badge').textContent(), '…');
});
