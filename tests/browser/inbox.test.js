// What a person sees happen in the inbox: live, on every device, and over restarts of the server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { archiveButton, atFocus, badge, brand, entry, isBranded, launch, live, noBadge, openInbox, openProfile, readButton, signIn, titles } from './browser.js';
import { Server } from './server.js';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const DEADLINE_MS = 10_000;
/** For what no page shows. */
const until = async (look) => {
  for (const deadline = Date.now() + DEADLINE_MS; !(await look()); ) if (Date.now() > deadline) assert.fail(`this never came true: ${look}`);
};

const publishByForm = async (form, title) => {
  await form.locator('#name').fill('alice');
  await form.locator('#title').fill(title);
  await form.locator('#submit').click();
  await form.locator('#result strong').waitFor();
};

test('the badge goes from 9 to 10 on a submit in another tab and back to 9 on read in a third', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const watching = await signIn(profile, server);
  await server.publishMany(9, 'Earlier');
  await badge(watching, '9');
  await brand(watching);
  const reading = await openInbox(profile, server);
  await badge(reading, '9');

  const form = await profile.newPage();
  await form.goto(server.page('publish'));
  await publishByForm(form, 'The tenth');
  assert.match(await form.locator('#result').textContent(), /1 recipient/);
  await badge(watching, '10');
  await badge(reading, '10');
  assert.match(await watching.title(), /^\(10\) /);

  await readButton(reading, 'The tenth').click();
  await badge(reading, '9');
  await badge(watching, '9');
  await watching.locator('article[data-unread="false"]', { hasText: 'The tenth' }).waitFor();
  assert.ok(await isBranded(watching));
  assert.deepEqual(profile.complaints, []);
});

test('killed and restarted, the page catches up by itself with no reload and no duplicate', async (t) => {
  const server = await Server.start(t);
  const page = await signIn(await openProfile(t, browser), server);
  await server.publish({ title: 'Before' });
  await badge(page, '1');
  await brand(page);

  await server.stop('SIGKILL');
  await page.locator('#connection[data-state="reconnecting"]').waitFor();
  await server.run();
  for (const title of ['First', 'Second', 'Third']) await server.publish({ title });

  await badge(page, '4');
  await live(page);
  await entry(page, 'Third').waitFor();
  await server.publish({ title: 'After' });
  await entry(page, 'After').waitFor();
  await badge(page, '5');
  assert.deepEqual(await titles(page), ['After', 'Third', 'Second', 'First', 'Before']);
  assert.ok(await isBranded(page));
});

test('an orderly restart is survived as well', async (t) => {
  const server = await Server.start(t);
  const page = await signIn(await openProfile(t, browser), server);
  await brand(page);
  await server.stop('SIGTERM');
  await page.locator('#connection[data-state="reconnecting"]').waitFor();
  await server.run();
  await server.publish({ title: 'Meanwhile' });
  await entry(page, 'Meanwhile').waitFor();
  await badge(page, '1');
  assert.deepEqual(await titles(page), ['Meanwhile']);
  assert.ok(await isBranded(page));
});

test('a connection that died without a word is noticed and replaced', async (t) => {
  const server = await Server.start(t);
  const page = await (await openProfile(t, browser)).newPage();
  await page.clock.install();
  await page.goto(server.page('demo'));
  await page.locator('button[data-user="alice"]').click();
  await live(page);
  await brand(page);
  server.freeze(); // Its sockets stay open, and nothing comes any more.
  await page.clock.runFor(60_000);
  await page.locator('#connection[data-state="reconnecting"]').waitFor();
  server.thaw();
  await live(page);
  await server.publish({ title: 'Still here' });
  await page.clock.runFor(1_000);
  await entry(page, 'Still here').waitFor();
  assert.ok(await isBranded(page));
});

for (const reason of ['expired', 'revoked']) {
  test(`a stream that ends with bye ${reason} leads to the sign-in state`, async (t) => {
    const server = await Server.start(t);
    await server.publish({ title: 'Private' });
    const profile = await openProfile(t, browser);
    const door = await signIn(profile, server);
    await door.close(); // The next page must have a connection of its own.
    const hello = { user: 'alice', cursor: 'x.0', head: 'x.0', recovered: true, missed: 0, counts: { unread: 1, unseen: 1, by_category: {} }, heartbeat: 15, stream: 's' };
    const frames = `retry: 2000\nid: x.0\nevent: hello\ndata: ${JSON.stringify(hello)}\n\nevent: bye\ndata: ${JSON.stringify({ reason, reconnect: false })}\n\n`;
    await profile.route('**/v1/stream?**', (route) => route.fulfill({ contentType: 'text/event-stream', body: frames }));
    await profile.route('**/v1/inbox/counts', (route) => route.fulfill({ status: 401, contentType: 'application/problem+json', body: '{"status":401}' }));
    const page = await profile.newPage();
    await page.goto(server.page());
    await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
    assert.equal(await page.locator('#sign-in').getByText('Your session has ended').count(), reason === 'expired' ? 1 : 0);
    assert.equal(await page.locator('article').count(), 0);
    assert.equal(await page.title(), 'Inbox · Tidings');
    assert.equal(await page.locator('#badge').isVisible(), false);
  });
}

test('when the log is another one, the page shows that one and nothing of the old', async (t) => {
  const server = await Server.start(t);
  const page = await signIn(await openProfile(t, browser), server);
  await server.publishMany(3, 'Old');
  await badge(page, '3');
  await brand(page);
  await server.stop('SIGKILL');
  await server.loseLog();
  await server.run();
  await server.publish({ title: 'New' });
  await badge(page, '1');
  await entry(page, 'New').waitFor();
  await entry(page, 'Old 1').waitFor({ state: 'detached' });
  assert.deepEqual(await titles(page), ['New']);
  assert.ok(await isBranded(page));
});

test('marks, archive, undo and mark all reach the other tab', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const acting = await signIn(profile, server);
  const watching = await openInbox(profile, server);
  await server.publishMany(4, 'Note');
  await badge(acting, '4');
  await badge(watching, '4');

  await archiveButton(acting, 'Note 2').click();
  await entry(watching, 'Note 2').waitFor({ state: 'detached' });
  await badge(watching, '3');
  await acting.locator('#toast-action').click();
  await entry(watching, 'Note 2').waitFor();
  await badge(watching, '4');
  assert.deepEqual(await titles(watching), ['Note 4', 'Note 3', 'Note 2', 'Note 1']);

  await watching.locator('#tab-unread').click();
  await entry(watching, 'Note 1').waitFor();
  await acting.locator('#mark-all').click();
  await noBadge(watching);
  await watching.locator('#empty').waitFor();
  await noBadge(acting);

  await readButton(acting, 'Note 3').click();
  await badge(watching, '1');
  await entry(watching, 'Note 3').waitFor();
  assert.deepEqual(await titles(watching), ['Note 3']);
  assert.deepEqual(profile.complaints, []);
});

test('what was taken back, replaced or is over leaves every tab and the badge, live and after a cut', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const tabs = [await signIn(profile, server), await openInbox(profile, server)];
  const inAll = (look) => Promise.all(tabs.map(look));
  const goneFrom = (title) => inAll((tab) => entry(tab, title).waitFor({ state: 'detached' }));
  const publishInAll = async (title, more) => {
    const shown = inAll((tab) => entry(tab, title).waitFor());
    const [answer] = await Promise.all([server.publish({ title, ...more }), shown]);
    return answer;
  };
  await publishInAll('Stays');
  const first = await publishInAll('First try');
  await publishInAll('Build 1', { collapse: 'build' });
  await inAll((tab) => badge(tab, '3'));
  await inAll(brand);
  await entry(tabs[0], 'First try').focus();

  await server.ask('DELETE', `v1/notifications/${first.id}`);
  await goneFrom('First try');
  await publishInAll('Build 2', { collapse: 'build' });
  await goneFrom('Build 1');
  await publishInAll('For a moment', { expires_in: 2 });
  await goneFrom('For a moment');
  await inAll((tab) => badge(tab, '2'));
  assert.deepEqual(await inAll(titles), Array(2).fill(['Build 2', 'Stays']));
  assert.equal(await atFocus(tabs[0], (element) => element.closest('article')?.querySelector('h2').textContent), 'Stays', 'the focus went to a neighbour');

  const second = await publishInAll('Second try');
  await publishInAll('For a while', { expires_in: 3 });
  await profile.setOffline(true);
  await inAll((tab) => tab.locator('#connection[data-state="offline"]').waitFor());
  await profile.route('**/v1/inbox?**', (route) => route.abort()); // Only events can tell it.
  await server.ask('DELETE', `v1/notifications/${second.id}`);
  await server.publish({ title: 'Build 3', collapse: 'build' });
  await until(async () => (await server.ask('GET', 'v1/users/alice/counts')).unread === 2); // The last of them is over.
  await profile.setOffline(false);
  await inAll((tab) => entry(tab, 'Build 3').waitFor());
  for (const title of ['Build 2', 'Second try', 'For a while']) await goneFrom(title);
  await inAll((tab) => badge(tab, '2'));
  assert.deepEqual(await inAll(titles), Array(2).fill(['Build 3', 'Stays']));
  assert.deepEqual(await inAll(isBranded), [true, true]);
});

test('a muted topic counts in no tab until it is unmuted, and an open one can be left and followed again', async (t) => {
  const server = await Server.start(t);
  await server.ask('PUT', 'v1/topics/orders%2F5', { follow: 'open' });
  await server.ask('PUT', 'v1/topics/orders%2F5/followers/alice', {});
  await server.ask('PUT', 'v1/topics/managed', { follow: 'managed' });
  await server.ask('PUT', 'v1/topics/managed/followers/alice', {});
  const profile = await openProfile(t, browser);
  const page = await signIn(profile, server);
  const other = await openInbox(profile, server);
  const toOrders = (title) => server.publish({ to: { topic: 'orders/5' }, title });
  await server.publish({ title: 'For you' });
  await toOrders('Packed');
  for (const tab of [page, other]) await badge(tab, '2');

  await page.locator('#topics summary').click();
  const topic = page.locator('[data-topic="orders/5"]');
  const mute = topic.getByRole('switch', { name: 'Mute: orders/5' });
  await mute.click();
  await topic.locator('[aria-checked="true"]').waitFor();
  for (const tab of [page, other]) await badge(tab, '1');
  await toOrders('Sent');
  await entry(other, 'Sent').waitFor();
  assert.equal((await server.ask('GET', 'v1/users/alice/counts')).unread, 1);
  await mute.click();
  for (const tab of [page, other]) await badge(tab, '3');

  assert.equal(await page.locator('[data-topic="managed"] [part~="follow"]').isVisible(), false, 'who follows it is not for the person to say');
  await topic.getByRole('button', { name: 'Leave: orders/5' }).click();
  const again = topic.getByRole('button', { name: 'Follow: orders/5' });
  await again.waitFor();
  assert.equal(await atFocus(page, (element) => element.getAttribute('aria-label')), 'Follow: orders/5', 'the way back is at hand');
  await toOrders('Not for you');
  await server.publish({ title: 'Later' });
  await entry(page, 'Later').waitFor();
  assert.deepEqual(await titles(page), ['Later', 'Sent', 'Packed', 'For you']);
  await again.click();
  await topic.getByRole('button', { name: 'Leave: orders/5' }).waitFor();
  await toOrders('Welcome back');
  await entry(page, 'Welcome back').waitFor();

  await server.ask('DELETE', 'v1/topics/orders%2F5/followers/alice');
  await topic.getByRole('button', { name: 'Leave: orders/5' }).focus();
  await page.evaluate(() => document.querySelector('tidings-inbox').client.reconnect());
  await topic.waitFor({ state: 'detached' });
  assert.equal(await atFocus(page, (element) => element.localName), 'summary');
  assert.deepEqual(profile.complaints, []);
});

test('an entry that is no more, without a word of it, goes when it is marked', async (t) => {
  const server = await Server.start(t);
  await server.ask('PUT', 'v1/topics/closing', {});
  await server.ask('PUT', 'v1/topics/closing/followers/alice', {});
  const page = await signIn(await openProfile(t, browser), server);
  for (const title of ['One', 'Two']) await server.publish({ to: { topic: 'closing' }, title });
  await badge(page, '2');
  await server.ask('DELETE', 'v1/topics/closing'); // Told by the counts only.
  await noBadge(page);
  await page.evaluate(() => {
    window.marks = [];
    document.addEventListener('tidings-mark', ({ detail }) => window.marks.push(detail.as));
  });
  await readButton(page, 'One').click();
  await entry(page, 'One').waitFor({ state: 'detached' });
  await archiveButton(page, 'Two').click();
  await page.waitForFunction(() => window.marks.includes('archived'));
  assert.deepEqual(await titles(page), []);
  assert.equal(await page.locator('#toast').isVisible(), false, 'neither an error nor a way back');
});

test('mark all marks what was on display and nothing that came later', async (t) => {
  const server = await Server.start(t);
  const page = await signIn(await openProfile(t, browser), server);
  await server.publish({ title: 'On display' });
  await badge(page, '1');
  // The request is held back until another notification has been published: one that this person has not seen.
  await page.route('**/v1/inbox/mark', async (route) => {
    if (route.request().postDataJSON().as === 'read') await server.publish({ title: 'Too late to be seen' });
    await route.continue();
  });
  await page.locator('#mark-all').click();
  await page.locator('article[data-unread="false"]', { hasText: 'On display' }).waitFor();
  await badge(page, '1');
  await page.locator('article[data-unread="true"]', { hasText: 'Too late to be seen' }).waitFor();
});

test('older entries are loaded page by page, each once, and the badge ends at 99+', async (t) => {
  const server = await Server.start(t);
  await server.publishMany(105, 'Note');
  const profile = await openProfile(t, browser);
  const page = await signIn(profile, server);
  await badge(page, '99+');
  await page.waitForFunction(() => {
    const articles = document.querySelector('tidings-inbox').shadowRoot.querySelectorAll('article');
    [...articles].at(-1).scrollIntoView();
    return articles.length >= 105;
  });
  assert.deepEqual(await titles(page), Array.from({ length: 105 }, (_, i) => `Note ${105 - i}`));
  assert.equal(await page.locator('article').last().getAttribute('aria-posinset'), '105');
  assert.equal(await page.locator('article').last().getAttribute('aria-setsize'), '105');
  assert.deepEqual(profile.complaints, []);
});

test('somebody who is not signed in is told so and can come in without a reload', async (t) => {
  const server = await Server.start(t);
  await server.publish({ to: { user: 'bob' }, title: 'For Bob' });
  const page = await (await openProfile(t, browser)).newPage();
  await page.goto(server.page());
  await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
  await brand(page);
  await page.locator('button[data-user="bob"]').click();
  await entry(page, 'For Bob').waitFor();
  await live(page);
  assert.ok(await isBranded(page));

  await page.locator('#sign-out').click();
  await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
  assert.equal(await page.locator('article').count(), 0);
  await page.locator('button[data-user="carol"]').click();
  await page.locator('#who', { hasText: 'carol' }).waitFor();
  assert.equal(await entry(page, 'For Bob').count(), 0);
});

test('when the cookie has become another person\'s, the page is theirs and shows nothing of the first', async (t) => {
  const server = await Server.start(t);
  await server.publish({ title: 'For Alice' });
  await server.publish({ to: { user: 'bob' }, title: 'For Bob' });
  const profile = await openProfile(t, browser);
  const page = await signIn(profile, server);
  await entry(page, 'For Alice').waitFor();
  const other = await signIn(profile, server, 'bob');
  await entry(other, 'For Bob').waitFor();
  await page.evaluate(() => document.querySelector('tidings-inbox').client.reconnect());
  await page.locator('#who', { hasText: 'bob' }).waitFor();
  await entry(page, 'For Bob').waitFor();
  assert.deepEqual(await titles(page), ['For Bob']);
  await badge(page, '1');
});

test('the inbox page pops up what comes on the desktop, where the person has allowed that', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  await profile.grantPermissions(['notifications'], { origin: server.url });
  await profile.addInitScript(() => {
    const Real = window.Notification;
    window.popups = [];
    window.Notification = class extends Real {
      constructor(title, options) {
        super(title, options);
        window.popups.push(title);
      }
    };
  });
  const page = await signIn(profile, server);
  await server.publish({ title: 'Up' });
  await entry(page, 'Up').waitFor();
  await page.waitForFunction(() => window.popups.length > 0);
  assert.deepEqual(await page.evaluate('window.popups'), ['Up']);
});

test('everything can be done from the keyboard', async (t) => {
  const server = await Server.start(t);
  const page = await signIn(await openProfile(t, browser), server);
  await server.publishMany(3, 'Note');
  await badge(page, '3');
  const tabTo = async (selector) => {
    for (let steps = 0; steps < 40; steps += 1) {
      await page.keyboard.press('Tab');
      if (await atFocus(page, (element, wanted) => element.matches(wanted), selector)) return;
    }
    assert.fail(`the Tab key does not reach ${selector}`);
  };
  const focusedTitle = () => atFocus(page, (element) => element.closest('article')?.querySelector('h2').textContent);

  await tabTo('article');
  assert.equal(await focusedTitle(), 'Note 3');
  await page.keyboard.press('PageDown');
  assert.equal(await focusedTitle(), 'Note 2');
  await page.keyboard.press('PageDown');
  await page.keyboard.press('PageUp');
  assert.equal(await focusedTitle(), 'Note 2');

  await tabTo('[part~="read"]');
  await page.keyboard.press('Enter');
  await badge(page, '2');
  assert.equal(await focusedTitle(), 'Note 2');
  await tabTo('[part~="archive"]');
  await page.keyboard.press('Enter');
  await entry(page, 'Note 2').waitFor({ state: 'detached' });
  assert.equal(await focusedTitle(), 'Note 1', 'the focus goes on to the next entry');

  await page.keyboard.press('Control+Home');
  assert.equal(await atFocus(page, (element) => element.id), 'mark-all');
  await page.locator('#tab-all').focus();
  await page.keyboard.press('ArrowRight');
  await page.locator('#tab-unread[aria-selected="true"]').waitFor();
  await entry(page, 'Note 2').waitFor({ state: 'detached' });
  await page.keyboard.press('End');
  await page.locator('#tab-archived[aria-selected="true"]').waitFor();
  await entry(page, 'Note 2').waitFor();
});
