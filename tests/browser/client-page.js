// client-page.js puts the browser library into a page and keeps what it told: the events, in order, and the states it went through.

import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { openProfile } from './browser.js';

const DEADLINE_MS = 20_000;

/** A profile whose pages load the library under test; signed in as `user`, where one is named. */
export async function openVisitor(t, browser, server, user = 'alice') {
  const profile = await openProfile(t, browser);
  profile.setDefaultTimeout(DEADLINE_MS);
  if (user) await signInAs(profile, server, user);
  return profile;
}

/** A browser that keeps pages in the back/forward cache, which Playwright's own switches turn off. */
export const launchWithPageCache = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim(),
  args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic'],
  ignoreDefaultArgs: ['--disable-back-forward-cache'],
});

/**
 * A browser for which `name` is this machine. Over plain HTTP such a host is no secure context, unlike one that is called by a
 * loopback's own address: its pages have no locks.
 */
export const launchWithHost = (name) => chromium.launch({
  executablePath: process.env.CHROMIUM ?? execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim(),
  args: ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', `--host-resolver-rules=MAP ${name} 127.0.0.1`],
});

/** Takes the demo's door, as its page does. */
export async function signInAs(profile, server, user) {
  const page = await profile.newPage();
  await page.goto(server.page('demo'));
  const status = await page.evaluate(async (user) => {
    const answer = await fetch('demo/session', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ user }) });
    return answer.status;
  }, user);
  if (status >= 300) throw new Error(`the demo's door answered ${status}`);
  await page.close();
}

/**
 * A page with a client. `watch.kept` in the page has what came: `titles` of notifications in order, `ids` of durable events,
 * `hellos`, `states` (status and reason), and `badges`, each unread count that was told and when.
 */
export async function openClient(profile, server, options = {}, base = server.url) {
  const page = await profile.newPage();
  await page.goto(`${base}/demo`);
  await install(page, options);
  return page;
}

export async function install(page, options = {}) {
  await page.evaluate(async (options) => {
    const { connect } = await import(new URL('static/tidings.js', location.href).href);
    const kept = { titles: [], ids: [], replayed: [], hellos: [], states: [], badges: [], counts: null, why: [], firstAfter: null };
    if (options.tokens) {
      const tokens = options.tokens;
      options.token = (why) => {
        kept.why.push(why);
        const next = tokens.length > 1 ? tokens.shift() : tokens[0];
        if (next === 'throw') throw new Error('the application is not there');
        return next;
      };
    }
    const client = connect({ ...options, paused: true });
    const count = ({ unread }) => {
      kept.counts = unread;
      kept.badges.push({ unread, at: Date.now() });
    };
    client.on('hello', (data) => { kept.hellos.push(data); count(data.counts); });
    client.on('unread', count);
    client.on('notification', (data, event) => {
      kept.firstAfter ??= performance.now();
      kept.titles.push(data.title);
      kept.ids.push(event.id);
      kept.replayed.push(data.replayed);
    });
    client.on('state', (data, event) => kept.ids.push(event.id));
    client.on('status', (status, why) => kept.states.push(why ? `${status} ${why}` : status));
    window.watch = { client, kept };
    client.open();
  }, options);
}

export const kept = (page) => page.evaluate(() => window.watch.kept);
/** Waits until `test(watch, argument)` holds in the page. (`waitForFunction` needs `eval`, which the server's policy forbids.) */
export async function until(page, test, argument, within = DEADLINE_MS) {
  const look = `(${test})(window.watch, ${JSON.stringify(argument ?? null)})`;
  for (const deadline = Date.now() + within; ; await delay(10)) {
    if (await page.evaluate(look)) return;
    if (Date.now() > deadline) throw new Error(`this never came true: ${look}; the page has ${JSON.stringify(await kept(page))}`);
  }
}
export const status = (page, wanted) => until(page, ({ client }, wanted) => client.status === wanted, wanted);
export const unread = (page, wanted) => until(page, ({ kept }, wanted) => kept.counts === wanted, wanted);
export const received = (page, title) => until(page, ({ kept }, title) => kept.titles.includes(title), title);
export const transport = (page) => page.evaluate(() => window.watch.client.transport);
export const isLeader = (page) => page.evaluate(() => window.watch.client.isLeader);

/** A page of a browser that knows no modules, as far as it shows: the old script, by its own means; `url: null` leaves it to find its server. */
export async function installPoll(profile, server, options = {}) {
  const page = await profile.newPage();
  await page.route('**/legacy', (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><script src="static/tidings-poll.js"></script>' }));
  await page.goto(server.page('legacy'));
  await page.evaluate((options) => {
    const kept = { titles: [], ids: [], replayed: [], hellos: [], states: [], why: [], counts: null };
    const take = {
      hello: (data) => { kept.hellos.push(data); kept.counts = data.counts.unread; },
      unread: (data) => { kept.counts = data.unread; },
      notification: (data, id) => { kept.titles.push(data.title); kept.ids.push(id); kept.replayed.push(data.replayed); },
    };
    const secrets = (why, give) => {
      kept.why.push(why);
      give(options.tokens.length > 1 ? options.tokens.shift() : options.tokens[0]);
    };
    const client = window.TidingsPoll.connect({
      url: new URL('.', location.href).href,
      ...(options.tokens && { token: secrets }),
      ...options,
      onevent: ({ event, id, data }) => take[event]?.(data, id),
      onstatus: (status, why) => kept.states.push(why ? `${status} ${why}` : status),
    });
    window.watch = { client, kept };
  }, options);
  return page;
}
