// The Django project of docs/clients/django.md, made from the page in an empty folder and used as a person does: sign in,
// look at the page, lend a book, hear of it. Plain HTTP, and Chromium for what the pages' scripts do, where the packages and
// the browser of tests/browser are installed.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { proxyTo } from '../browser/client-proxy.js';
import { answerWorkingCopies } from '../browser/client-static.js';
import { Server } from '../browser/server.js';
import { PAGE, chromium, create, serve, signIn, signInBy } from './django.js';
import { python } from './interpreters.js';
import { extract } from './page.js';
import { openStream } from './people.js';
import { freePort } from './port.js';
import { Workshop, eventually } from './program.js';

before(python);

const openTicket = (t, server, ticket) => openStream(t, `${server.url}/v1/stream?ticket=${ticket}`);

const badge = (page) => Number(/<span id="first-badge">(\d+)<\/span>/.exec(page)[1]);
const ticketOf = (page) => /<tidings-bell [^>]*ticket="([^"]+)"/.exec(page)[1];

test('the Django project rings the bell of the person who signed in', async (t) => {
  const server = await Server.start(t);
  const project = await create(t, server);
  const url = await serve(project);
  const { visitor, page } = await signIn(url);

  assert.ok(page.includes(`<script type="module" src="${server.url}/static/tidings-elements.js">`));
  assert.equal(badge(page), 0);
  const stream = await openTicket(t, server, ticketOf(page));
  await stream.shows('event: hello\n');

  const lent = await (await visitor.post('/lend/', { book: '红楼梦' })).text();
  await stream.shows('"title":"Lent to you","body":"红楼梦"');
  assert.equal(badge(lent), 1, 'the next page has the badge from the start');
  assert.notEqual(ticketOf(lent), ticketOf(page), 'each page has a ticket of its own');

  for (const book of ['水浒传', '西游记']) await visitor.post('/lend/', { book });
  const refused = await visitor.post('/lend/', { book: 'one too many' });
  assert.equal(refused.status, 403);
  await server.publish({ to: { user: 'user-1' }, title: 'After that' });
  const seen = await stream.shows('After that');
  assert.ok(seen.includes('西游记'));
  assert.ok(!seen.includes('one too many'), 'what was rolled back is told to nobody');

  const again = await visitor.post('/ticket/', {});
  assert.equal(again.status, 201);
  await (await openTicket(t, server, (await again.json()).ticket)).shows('"user":"user-1"');
});

test('the Django project works without Tidings, and only its bell is quiet', async (t) => {
  const server = await Server.start(t);
  const project = await create(t, server);
  const url = await serve(project);
  await server.stop('SIGTERM');
  const { visitor, page } = await signIn(url);
  assert.equal(badge(page), 0);
  const lent = await visitor.post('/lend/', { book: '红楼梦' });
  assert.equal(lent.status, 200);
  assert.match(await lent.text(), /<li>红楼梦<\/li>/);
  assert.equal((await visitor.post('/ticket/', {})).status, 503);
});

test('a token that library/token.py signs marks entries as read', async (t) => {
  const server = await Server.start(t);
  const workshop = await Workshop.open(t);
  await extract(PAGE, 'library/token.py', workshop.path);
  const secret = join(server.data, 'token.key');
  const program = 'import sys, pathlib; from library.token import token; print(token(sys.argv[1], pathlib.Path(sys.argv[2]).read_bytes().rstrip(b"\\r\\n")))';
  const token = await workshop.run([await python(), '-c', program, 'user-1', secret], { PYTHONPATH: workshop.path });
  const { id } = await server.publish({ to: { user: 'user-1' }, title: 'Lent to you' });
  const response = await fetch(server.page('v1/inbox/mark'), {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ as: 'read', ids: [id] }),
  });
  assert.equal(response.status, 200, await response.clone().text());
  assert.equal((await response.json()).counts.unread, 0);
});

/** The project and Tidings, and a page of a browser in which the person has signed in; null where there is no browser. */
async function openInBrowser(t, more) {
  const browser = await chromium(t);
  if (!browser) return null;
  const port = await freePort();
  const server = await Server.start(t, { TIDINGS_HTTP_ORIGINS: `http://127.0.0.1:${port}` });
  const proxy = await proxyTo(t, server, { answer: answerWorkingCopies });
  const url = await serve(await create(t, server, { TIDINGS_PUBLIC_URL: proxy.url, ...more(server) }), port);
  return { server, url, page: await signInBy(browser, url) };
}

const bell = (page, label) => page.getByRole('button', { name: label });

test('a person whose page has a token clears the bell by opening it', async (t) => {
  const site = await openInBrowser(t, (server) => ({ TIDINGS_JWT_SECRET_FILE: join(server.data, 'token.key') }));
  if (!site) return;
  const { server, page } = site;
  await page.fill('[name=book]', '红楼梦');
  await page.getByRole('button', { name: 'Lend' }).click();
  await page.getByText('红楼梦').first().waitFor();
  await bell(page, 'Notifications, 1 new').click();
  await page.getByRole('heading', { name: 'Lent to you' }).waitFor();
  const unseen = async () => {
    const response = await fetch(server.page('v1/users/user-1/counts'), { headers: { Authorization: `Bearer ${server.key}` } });
    return (await response.json()).unseen;
  };
  await eventually(async () => await unseen() === 0, 'it was marked as seen');
  await page.reload();
  await bell(page, /^Notifications(, none new)?$/).waitFor();
});

test('the kiosk shows what comes, also after its view had no ticket to give', async (t) => {
  const site = await openInBrowser(t, () => ({}));
  if (!site) return;
  const { server, url, page } = site;
  let asked = 0;
  // As the view answers while Tidings is away; here the page is there all the same.
  await page.route('**/ticket/', (route) => (++asked <= 2 ? route.fulfill({ status: 503, json: { ticket: null } }) : route.continue()));
  await page.goto(`${url}/kiosk/`);
  await server.publish({ to: { user: 'user-1' }, title: 'Closed on Sunday' });
  await bell(page, 'Notifications, 1 unread').click();
  await page.getByRole('heading', { name: 'Closed on Sunday' }).waitFor();
  assert.equal(asked, 3);
  await server.publish({ to: { user: 'user-1' }, title: 'Open again' });
  await page.getByRole('heading', { name: 'Open again' }).waitFor();
  assert.equal(await page.evaluate(() => document.querySelector('tidings-bell').client.status), 'live');
});
