// browser.js owns the browser: one Chromium for a test file, a fresh profile for each test, and what its console said.

import { execFileSync } from 'node:child_process';
import { chromium } from 'playwright-core';
import { serveWorkingCopies, serveWorkingPages } from './client-static.js';

const ARGUMENTS = [
  '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  return execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim();
}

export const launch = () => chromium.launch({ executablePath: executable(), args: ARGUMENTS });

/** A profile of its own. `profile.complaints` collects every console error, page error and policy violation. */
export async function openProfile(t, browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  t.after(() => context.close());
  await serveWorkingCopies(context);
  await serveWorkingPages(context);
  const complaints = [];
  await context.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
  });
  context.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  context.on('weberror', (error) => complaints.push(String(error.error())));
  return Object.assign(context, { complaints });
}

/** Signs in through the demo's door and waits until the inbox is live. */
export async function signIn(profile, server, user = 'alice') {
  const page = await profile.newPage();
  await page.goto(server.page('demo'));
  await page.locator(`button[data-user="${user}"]`).click();
  await live(page);
  return page;
}

export async function openInbox(profile, server) {
  const page = await profile.newPage();
  await page.goto(server.page());
  await live(page);
  return page;
}

export const live = (page) => page.locator('#connection[data-state="live"]').waitFor();
export const badge = (page, text) => page.locator('#badge [part="number"]', { hasText: new RegExp(`^${text.replace('+', '\\+')}$`) }).waitFor();
export const noBadge = (page) => page.locator('#badge').waitFor({ state: 'hidden' });
export const entry = (page, title) => page.locator('article', { has: page.getByRole('heading', { name: title, exact: true }) });
export const titles = (page) => page.locator('article [part~="title"]').allTextContents();
export const readButton = (page, title) => entry(page, title).locator('[part~="read"]');
export const archiveButton = (page, title) => entry(page, title).locator('[part~="archive"]');

/** What `look` says about the focused element, which may stand in shadow roots. */
export const atFocus = (page, look, argument) => page.evaluate(`(() => {
  let focused = document.activeElement;
  while (focused?.shadowRoot?.activeElement) focused = focused.shadowRoot.activeElement;
  return (${look})(focused, ${JSON.stringify(argument ?? null)});
})()`);

/** Leaves a mark that only a reload could remove. */
export const brand = (page) => page.evaluate(() => { window.neverReloaded = true; });
export const isBranded = (page) => page.evaluate(() => window.neverReloaded === true);
