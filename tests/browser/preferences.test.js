// The preferences page: what somebody says there is kept, in two languages, for those who use no mouse, and beside a refusal.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launch, openProfile, signIn } from './browser.js';
import { Server } from './server.js';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const FOLDER = process.env.SCREENSHOTS;
const LONG = 'a-category-with-a-name-that-has-no-place-to-break-and-is-64-long';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

async function openPage(profile, server) {
  const page = await profile.newPage();
  await page.goto(server.page('preferences'));
  await page.locator('#submit').waitFor();
  return page;
}

const wish = (page, category, medium) => page.locator(`select[data-category="${category}"][data-medium="${medium}"]`);
const save = async (page) => {
  await page.locator('#submit').click();
  await page.locator('#result strong').waitFor();
};

test('what is said there is kept, and only what was changed is sent', async (t) => {
  const server = await Server.start(t);
  await server.publish({ title: 'Due', category: 'loans' });
  await server.ask('PUT', 'v1/users/alice', { email: 'alice@example.com', preferences: { loans: { dingtalk: true } } });
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  const page = await openPage(profile, server);
  assert.match(await page.locator('#addresses').textContent(), /alice@example\.com/);
  assert.equal(await wish(page, 'loans', 'dingtalk').inputValue(), 'true');
  await wish(page, 'loans', 'email').selectOption('false');
  await page.locator('#time_zone').selectOption('Europe/Zurich');
  // Something that was said elsewhere meanwhile stays.
  await server.ask('PUT', 'v1/users/alice', { preferences: { '*': { email: true } } });
  await save(page);
  const { preferences, time_zone: zone, locale } = await server.ask('GET', 'v1/users/alice');
  assert.deepEqual(preferences, { '*': { email: true }, loans: { email: false, dingtalk: true } });
  assert.deepEqual([zone, locale], ['Europe/Zurich', null]);
  assert.equal(await wish(page, '*', 'email').inputValue(), 'true');
  await wish(page, 'loans', 'email').selectOption('');
  await save(page);
  assert.deepEqual((await server.ask('GET', 'v1/users/alice')).preferences, { '*': { email: true }, loans: { dingtalk: true } });
  assert.deepEqual(profile.complaints, []);
});

test('the page speaks the language that was chosen on it', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  const page = await openPage(profile, server);
  assert.equal(await page.locator('h1').last().textContent(), 'Preferences');
  await page.locator('#locale').selectOption('zh-Hans');
  await save(page);
  assert.equal(await page.locator('#result').textContent(), '已保存');
  assert.equal(await page.evaluate(() => document.documentElement.lang), 'zh-Hans');
  await page.reload();
  await page.getByText('偏好设置').first().waitFor();
  assert.equal(await page.locator('#locale').inputValue(), 'zh-Hans');
});

test('a refusal is shown, and so is a server that is gone', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  const page = await openPage(profile, server);
  await page.locator('#time_zone').evaluate((select) => select.append(new Option('Mars', 'Mars/Olympus')));
  await page.locator('#time_zone').selectOption('Mars/Olympus');
  await page.locator('#submit').click();
  await page.locator('#time_zone-error').waitFor();
  assert.match(await page.locator('#time_zone-error').textContent(), /IANA/);
  await page.locator('#time_zone').selectOption('UTC');
  await server.stop('SIGKILL');
  await page.locator('#submit').click();
  await page.locator('#failure').waitFor();
});

test('somebody who is not signed in is told who signs people in', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const page = await profile.newPage();
  await page.goto(server.page('preferences'));
  await page.locator('button[data-user="alice"]').click();
  await page.locator('#submit').waitFor();
  assert.equal(await page.locator('#sign-in').isVisible(), false);
});

for (const scheme of ['light', 'dark']) {
  for (const viewport of [{ width: 390, height: 844 }, { width: 1440, height: 900 }]) {
    test(`the page is sound in ${scheme} at ${viewport.width} px`, async (t) => {
      const server = await Server.start(t);
      await server.ask('PUT', 'v1/users/alice', { email: 'alice@example.com', locale: 'zh-Hans', preferences: { [LONG]: { webhook: true }, loans: { email: false } } });
      const profile = await openProfile(t, browser, { colorScheme: scheme, viewport });
      await profile.addInitScript({ path: AXE });
      await signIn(profile, server);
      const page = await openPage(profile, server);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document));
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' ')}`), []);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, 'it is wider than the window');
      if (viewport.width < 640) {
        const small = await page.locator('button:visible, select:visible, nav a:visible').evaluateAll((all) => all
          .filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML));
        assert.deepEqual(small, [], 'targets too small for a finger');
      }
      if (FOLDER) {
        await mkdir(FOLDER, { recursive: true });
        await page.screenshot({ path: join(FOLDER, `preferences-${scheme}-${viewport.width}.png`), fullPage: true });
      }
      assert.deepEqual(profile.complaints, []);
    });
  }
}
