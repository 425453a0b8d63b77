// What a mail looks like when it is opened: the HTML of real mails, as a real relay took it, in Chromium at two widths, light and dark;
// and the page that its link for unsubscribing leads to. With SCREENSHOTS=<folder> each is also written there as a picture.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { python } from '../clients/interpreters.js';
import { launch } from './browser.js';
import { Server } from './server.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FOLDER = process.env.SCREENSHOTS;
const LOOKS = ['light', 'dark'].flatMap((scheme) => [390, 1440].map((width) => ({ scheme, width })));
const PUBLIC = 'https://app.example/tidings';
const LONG = 'Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft'.repeat(2);

/** Who reads, in which language. */
const READERS = { alice: 'en', chen: 'zh-CN', layla: 'ar' };
/** What is sent: a template's HTML in each language, its subject, and what must be seen of it. */
const MAILS = {
  plain: {
    en: '<p>Dear {{ name }},</p><p>these are due on Friday:</p><ul><li><a href="https://library.example/1">Designing Data-Intensive Applications</a></li><li><a href="https://library.example/2">The Art of Doing Science and Engineering</a></li></ul><p>Your library</p>',
    zh: '<p>{{ name }}，您好：</p><p>以下图书将于 2026年11月27日 到期：</p><ul><li><a href="https://library.example/1">红楼梦</a></li><li><a href="https://library.example/2">三体</a></li></ul><p>图书馆</p>',
    ar: '<p>عزيزي {{ name }}،</p><p>يجب إعادة الكتب التالية يوم الجمعة:</p><ul><li><a href="https://library.example/1">ألف ليلة وليلة</a></li><li><a href="https://library.example/2">مقدمة ابن خلدون</a></li></ul><p>مكتبتك</p>',
  },
  long: {
    en: `<h1>${LONG}</h1><p><a href="https://library.example/${'a'.repeat(300)}">https://library.example/${'a'.repeat(300)}</a></p><pre>cargo clippy --profile quick --all-targets --quiet -- -D warnings && cargo test --profile quick --test promises</pre><p>${'磁盘空间不足'.repeat(30)}</p>`,
  },
  table: {
    en: '<h2>Your order A-17</h2><table><tr><th>Item</th><th>Pieces</th><th>Price</th></tr><tr><td>Index cards, ruled, 100 sheets</td><td>2</td><td>€ 7.80</td></tr><tr><td>Fountain pen ink, royal blue</td><td>1</td><td>€ 12.40</td></tr></table><blockquote>Leave it with the neighbour.</blockquote><p>It comes on <strong>Thursday</strong>; <em>nobody</em> need be at home.</p><hr><p><small>Order desk, open from 9 to 17</small></p>',
  },
  coloured: {
    en: '<p style="color:#333333">Written for white paper, by somebody who never looked at it in the dark.</p><p style="background:#e3f2f1;color:#085453;padding:12px">Within a box.</p>',
  },
};

let browser;
let axe;
let mails;
let server;
const told = [];

/** A relay that takes mail and tells each; the harness of `tests/it` has the same. */
async function startRelay() {
  const child = spawn(await python(), [here('../it/support/relay.py'), '{}'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  const [first] = await once(lines, 'line');
  lines.on('line', (line) => told.push(JSON.parse(line)));
  return { port: JSON.parse(first).port, lines, end: () => child.kill('SIGKILL') };
}

const subject = (mail) => mail.headers.find(([name]) => name.toLowerCase() === 'subject')[1];
const html = (mail) => mail.parts.find(({ type }) => type === 'text/html').text;

const closing = [];
before(async () => {
  const context = { after: (close) => closing.push(close) };
  browser = await launch();
  axe = await readFile(AXE, 'utf8');
  const relay = await startRelay();
  closing.push(relay.end);
  server = await Server.start(context, {
    TIDINGS_EMAIL_URL: `smtp://127.0.0.1:${relay.port}?tls=none`,
    TIDINGS_EMAIL_FROM: 'Library <library@example.org>',
    TIDINGS_HTTP_PUBLIC_URL: PUBLIC,
  });
  server.key = (await readFile(join(server.data, 'operator.key'), 'utf8')).trim();
  for (const [user, locale] of Object.entries(READERS)) {
    await server.ask('PUT', `v1/users/${user}`, { email: `${user}@example.com`, locale });
  }
  let expected = 0;
  for (const [name, texts] of Object.entries(MAILS)) {
    const of = (text) => ({ in_app: { title: name }, email: { subject: `${name} ${LONG}`.slice(0, 60), text: 'In HTML.', html: text } });
    const definition = { category: 'loans', variables: { name: { type: 'string', required: false } } };
    definition.texts = Object.fromEntries(Object.entries(texts).map(([locale, text]) => [locale, of(text)]));
    await server.ask('PUT', `v1/templates/${name}`, definition);
    await server.ask('POST', `v1/templates/${name}/publish`, {});
    await server.publish({ to: { users: Object.keys(READERS) }, body: undefined, template: name, params: { name: 'Alice <b>' }, via: ['email'] });
    expected += Object.keys(READERS).length;
  }
  const arrived = () => told.filter(({ event }) => event === 'mail');
  while (arrived().length < expected) await once(relay.lines, 'line');
  mails = arrived().map((mail) => ({ mail, reader: mail.recipients[0].split('@')[0], name: subject(mail).split(' ')[0] }));
});
after(async () => {
  await browser.close();
  for (const close of closing.reverse()) await close();
});

/** Opens a page that can reach nothing; what it tried to fetch is collected. */
async function open(t, { scheme, width }) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 844 } });
  t.after(() => context.close());
  const fetched = [];
  await context.route('**/*', (route) => {
    fetched.push(route.request().url());
    return route.abort();
  });
  return { page: await context.newPage(), fetched };
}

async function inspect(page, name, { scheme, width }) {
  const place = `${name}, ${scheme}, ${width} px`;
  if (FOLDER) {
    await mkdir(FOLDER, { recursive: true });
    await page.screenshot({ path: join(FOLDER, `${name}-${scheme}-${width}.png`), fullPage: true });
  }
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(overflow, 0, `${place} is wider than the window`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['color-contrast', 'document-title', 'link-in-text-block'] }));
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), [], place);
}

for (const look of LOOKS) {
  test(`mails can be read in ${look.scheme} at ${look.width} px, and fetch nothing`, async (t) => {
    const { page, fetched } = await open(t, look);
    for (const { mail, reader, name } of mails.filter(({ reader, name }) => reader === 'alice' || MAILS[name].zh)) {
      await page.setContent(html(mail));
      await inspect(page, `mail-${name}-${reader}`, look);
      const side = await page.locator('.mail').evaluate((e) => getComputedStyle(e).direction);
      assert.equal(side, reader === 'layla' ? 'rtl' : 'ltr', `${name} for ${reader}`);
      const way = page.locator('.foot a');
      assert.match(await way.textContent(), reader === 'chen' ? /不再接收/ : /No more mail about “loans”/);
      assert.ok((await way.getAttribute('href')).startsWith(`${PUBLIC}/v1/unsubscribe/`));
    }
    assert.deepEqual(fetched, [], 'opening a mail tells nobody');
  });

  test(`the page that a mail's link leads to is sound in ${look.scheme} at ${look.width} px`, async (t) => {
    const context = await browser.newContext({ colorScheme: look.scheme, viewport: { width: look.width, height: 844 } });
    t.after(() => context.close());
    const page = await context.newPage();
    const [, link] = html(mails[0].mail).match(/href="([^"]*unsubscribe[^"]*)"/);
    await page.goto(server.page(link.slice(`${PUBLIC}/`.length)));
    await inspect(page, 'unsubscribe', look);
    const gap = await page.evaluate(() => document.querySelector('.hint').getBoundingClientRect().top - document.querySelector('button').getBoundingClientRect().bottom);
    assert.ok(gap >= 16, `${gap} px between the button and what stands below it`);
    await page.locator('button').click();
    await page.getByText('You will get no more mail about “loans”.').waitFor();
    await inspect(page, 'unsubscribed', look);
  });
}
