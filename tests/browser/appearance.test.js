// How the pages look and whether everybody can use them: axe, overflow and policy in both colour schemes, on phone and desktop.
// With SCREENSHOTS=<folder> each state is also written there as a picture, to be looked at.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { archiveButton, badge, entry, launch, live, openProfile, readButton, signIn } from './browser.js';
import { startApplication, tokenFor } from './embedding.js';
import { Server } from './server.js';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FOLDER = process.env.SCREENSHOTS;
const SIZES = [{ width: 390, height: 844 }, { width: 1440, height: 900 }];

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const SAMPLES = [
  { title: 'Welcome to the library', body: 'Your account is ready. Loans, holds and messages from the desk appear here.', sender: 'Front desk' },
  { title: '磁盘空间不足', body: '服务器 db-2 的数据盘已使用 92%，请尽快清理日志。', category: 'ops', priority: 5, sender: 'monitor' },
  { title: 'Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', body: 'A title without a place to break.', priority: 1 },
  { title: 'Catalogue 4.12 is out', body: 'All 14 checks passed. The migration moved 1,204,331 rows. '.repeat(12), category: 'ops', priority: 2, sender: 'ci' },
  { title: 'Two books are due on Monday', body: 'The Art of Doing Science and Engineering\nA Philosophy of Software Design', category: 'loans', priority: 4, sender: 'Circulation', actions: [{ label: 'Renew both', click: '/loans/renew' }, { label: 'See loans', click: '/loans' }] },
  { title: 'Mika left a comment on “Reading list for the spring term”', body: 'Could we add something on databases? Chapter 3 would fit well.', category: 'comments', sender: 'Mika', click: 'https://example.com/comments/1' },
  { title: 'Your hold is ready for pickup', body: '“Designing Data-Intensive Applications” waits at desk 3 until Thursday.', category: 'loans', sender: 'Circulation', click: '/holds/12' },
];

async function inspect(page, name, scheme, { width }) {
  const place = `${name}, ${scheme}, ${width} px`;
  await page.mouse.move(0, 0);
  await page.evaluate(() => {
    const roots = (root) => [root, ...[...root.querySelectorAll('*')].filter((e) => e.shadowRoot).flatMap((e) => roots(e.shadowRoot))];
    const animations = roots(document).flatMap((root) => root.getAnimations());
    return Promise.allSettled(animations.filter((a) => a.effect.getTiming().iterations === 1).map((a) => a.finished));
  });
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const findings = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`);
  assert.deepEqual(findings, [], `axe on ${place}`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(overflow, 0, `${place} is wider than the window`);
  if (width < 640) {
    const small = await page.locator('button:visible, select:visible, nav a:visible, summary:visible, input:is([type=text], [type=datetime-local]):visible').evaluateAll((all) => all
      .filter((e) => !e.closest('.visually-hidden') && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML));
    assert.deepEqual(small, [], `targets too small for a finger on ${place}`);
  }
  if (FOLDER) {
    await mkdir(FOLDER, { recursive: true });
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: join(FOLDER, `${name}-${scheme}-${width}.png`), fullPage: name.startsWith('publish') });
  }
}

for (const scheme of ['light', 'dark']) {
  for (const viewport of SIZES) {
    test(`every page is sound in ${scheme} at ${viewport.width} px`, async (t) => {
      const server = await Server.start(t);
      for (const sample of SAMPLES) await server.publish(sample);
      await server.ask('PUT', 'v1/topics/orders%2FAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', { follow: 'open' });
      await server.ask('PUT', 'v1/topics/orders%2FAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/followers/alice', {});
      const profile = await openProfile(t, browser, { colorScheme: scheme, viewport });
      await profile.addInitScript({ path: AXE });
      const look = (page, name) => inspect(page, name, scheme, viewport);

      const stranger = await profile.newPage();
      await stranger.goto(server.page('demo'));
      await stranger.locator('button[data-user="carol"]').waitFor();
      await look(stranger, 'demo');
      assert.deepEqual(profile.complaints, []);
      await stranger.goto(server.page());
      await stranger.locator('button[data-user="carol"]').waitFor();
      await look(stranger, 'signed-out');
      assert.ok(profile.complaints.every((text) => text.includes('401')), profile.complaints.join('\n'));
      await stranger.close();
      profile.complaints.length = 0;

      const page = await signIn(profile, server);
      await badge(page, String(SAMPLES.length));
      await readButton(page, SAMPLES[0].title).click();
      await readButton(page, SAMPLES[1].title).click();
      await badge(page, String(SAMPLES.length - 2));
      await look(page, 'inbox');
      await page.locator('#topics summary').click();
      await page.locator('[data-topic="library"] [part~="mute"]').click();
      await page.locator('[data-topic="library"] [aria-checked="true"]').waitFor();
      await look(page, 'topics');
      await archiveButton(page, SAMPLES[2].title).click();
      await page.locator('#toast-action').waitFor();
      await look(page, 'undo');
      await page.locator('#toast-action').click();
      await page.locator('#tab-archived').click();
      await page.locator('#empty').waitFor();
      await look(page, 'empty');
      assert.deepEqual(profile.complaints, []);

      await page.goto(server.page('publish'));
      await look(page, 'publish');
      assert.deepEqual(profile.complaints, []);
      await page.locator('#name').fill('alice');
      await page.locator('#title').fill('Hello');
      await page.locator('#click').fill('javascript:alert(1)');
      await page.getByLabel('DingTalk').check();
      await page.locator('#more summary').click();
      await page.locator('#when').selectOption('delay');
      await page.locator('#delay').fill('soon');
      await page.locator('#ends').selectOption('expires_at');
      await page.locator('#expires_at').fill('2999-01-01T00:00');
      await page.locator('#submit').click();
      await page.locator('#click-error').waitFor();
      await page.locator('#delay-error').waitFor();
      await look(page, 'publish-refused');
      await page.locator('#click').fill('');
      await page.locator('#delay').fill('7d');
      await page.getByLabel('DingTalk').uncheck();
      await page.locator('#ends').selectOption('');
      await page.locator('#submit').click();
      await page.locator('#result time').waitFor();
      await look(page, 'scheduled');
      profile.complaints.length = 0; // The refusal itself is written to the console by the browser.

      await page.goto(server.page());
      await live(page);
      await server.stop('SIGKILL');
      await page.locator('#banner').waitFor();
      await look(page, 'reconnecting');
      assert.ok(profile.complaints.every((text) => /net::ERR_|Failed to load resource/.test(text)), profile.complaints.join('\n'));
    });
  }
}

const LIBRARY = `<header><h1>My library</h1><tidings-bell></tidings-bell></header>
<main><h2>Books on loan</h2><p>Two of them are due on Monday.</p></main>`;

for (const scheme of ['light', 'dark']) {
  for (const viewport of SIZES) {
    test(`an embedding page with an open bell is sound in ${scheme} at ${viewport.width} px`, async (t) => {
      const { app, server } = await startApplication(t);
      for (const sample of SAMPLES) await server.publish(sample);
      app.show(LIBRARY, { token: await tokenFor(server, 'alice') });
      const profile = await openProfile(t, browser, { colorScheme: scheme, viewport });
      await profile.addInitScript({ path: AXE });
      const page = await profile.newPage();
      await page.goto(app.page);
      const badge = page.locator('tidings-bell [part~="badge"]');
      await badge.waitFor();
      await inspect(page, 'bell-closed', scheme, viewport);
      await page.locator('tidings-bell [part~="button"]').first().click();
      await entry(page, SAMPLES[0].title).waitFor();
      await badge.waitFor({ state: 'hidden' });
      await readButton(page, SAMPLES.at(-1).title).click();
      await page.locator('article[data-unread="false"]').waitFor();
      await server.publish({ title: 'The reading room closes at six today', sender: 'Front desk' });
      await entry(page, 'The reading room closes at six today').waitFor();
      const inside = await page.locator('tidings-bell [part~="panel"]').first().evaluate((e) => {
        const { left, top, right, bottom } = e.getBoundingClientRect();
        return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
      });
      assert.ok(inside, 'the panel stands within the window');
      await inspect(page, 'bell', scheme, viewport);
      assert.deepEqual(profile.complaints, []);
    });
  }
}

test('the pages come with the strict policy that the other tests hold them to', async (t) => {
  const server = await Server.start(t);
  for (const path of ['', 'publish', 'preferences', 'demo']) {
    const response = await fetch(server.page(path));
    await response.text();
    assert.equal(response.status, 200, path);
    const policy = response.headers.get('content-security-policy') ?? '';
    for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) {
      assert.ok(policy.includes(part), `/${path} comes without ${part}`);
    }
    assert.doesNotMatch(policy, /unsafe/);
  }
});

test('the bell works without motion and in forced colours', async (t) => {
  const { app, server } = await startApplication(t);
  app.show(LIBRARY, { token: await tokenFor(server, 'alice') });
  const profile = await openProfile(t, browser, { reducedMotion: 'reduce', forcedColors: 'active' });
  const page = await profile.newPage();
  await page.goto(app.page);
  await page.locator('tidings-bell [part~="button"]').first().click();
  await page.locator('#empty').waitFor();
  await server.publish({ title: 'Calm' });
  await entry(page, 'Calm').waitFor();
  assert.notEqual(await entry(page, 'Calm').evaluate((e) => getComputedStyle(e, '::before').backgroundColor), 'rgba(0, 0, 0, 0)');
  assert.ok(await entry(page, 'Calm').evaluate((e) => parseFloat(getComputedStyle(e).animationDuration) < 0.01));
  assert.equal(await page.locator('tidings-bell [part~="panel"]').first().evaluate((e) => getComputedStyle(e).borderTopWidth), '2px');
  assert.deepEqual(profile.complaints, []);
});

test('the pages work without motion and in forced colours', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser, { reducedMotion: 'reduce', forcedColors: 'active' });
  const page = await signIn(profile, server);
  await server.publish({ title: 'Calm' });
  await entry(page, 'Calm').waitFor();
  await badge(page, '1');
  assert.notEqual(await entry(page, 'Calm').evaluate((e) => getComputedStyle(e, '::before').backgroundColor), 'rgba(0, 0, 0, 0)');
  assert.ok(await entry(page, 'Calm').evaluate((e) => parseFloat(getComputedStyle(e).animationDuration) < 0.01));
  assert.deepEqual(profile.complaints, []);
});
