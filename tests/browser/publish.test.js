// The publisher's form, and what becomes of hostile input on its way to the inbox.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { badge, entry, launch, openInbox, openProfile, signIn, titles } from './browser.js';
import { Server } from './server.js';

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

const openForm = async (profile, server) => {
  const form = await profile.newPage();
  await form.goto(server.page('publish'));
  await form.locator('#name').fill('alice');
  return form;
};

test('a refused field is explained beside it and gets the focus', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  const form = await openForm(profile, server);
  await form.locator('#title').fill('A link that must not be');
  await form.locator('#click').fill('javascript:alert(1)');
  await form.locator('#submit').click();
  await form.locator('#click-error').waitFor();
  assert.equal(await form.evaluate(() => document.activeElement.id), 'click');
  assert.equal(await form.locator('#click').getAttribute('aria-invalid'), 'true');
  assert.match(await form.locator('#click').getAttribute('aria-describedby'), /click-error/);
  assert.equal(await form.locator('#title-error').isVisible(), false);

  await form.locator('#click').fill('https://example.com/');
  await form.locator('#submit').click();
  await form.locator('#result strong').waitFor();
  assert.equal(await form.locator('#click-error').isVisible(), false);
  assert.equal(await form.evaluate(() => document.activeElement.id), 'title');
});

test('a lost answer and a second press publish once', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const inbox = await signIn(profile, server);
  const form = await openForm(profile, server);
  let lost = 0;
  await form.route('**/v1/notifications', async (route) => {
    if (lost > 0) return route.continue();
    lost += 1;
    const answer = await route.fetch(); // It reached the server…
    assert.equal(answer.status(), 201);
    await route.abort('connectionreset'); // …but its answer does not reach the page.
  });
  await form.locator('#title').fill('Only once');
  await form.locator('#submit').click();
  await form.locator('#failure').waitFor();
  assert.equal(await form.locator('#title').inputValue(), 'Only once');
  await form.locator('#submit').click();
  await form.locator('#result strong').waitFor();
  await form.locator('#title').fill('Last');
  await form.locator('#submit').click();
  await entry(inbox, 'Last').waitFor();
  await badge(inbox, '2');
  assert.equal(lost, 1);
  assert.deepEqual(await titles(inbox), ['Last', 'Only once']);
});

test('everyone can be addressed, and then no name is asked for', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const inbox = await signIn(profile, server, 'bob');
  const form = await openForm(profile, server);
  await form.getByLabel('Everyone').check();
  assert.equal(await form.locator('#name').isVisible(), false);
  await form.locator('#title').fill('To all of you');
  await form.locator('#submit').click();
  await form.locator('#result strong', { hasText: 'everyone' }).waitFor();
  await entry(inbox, 'To all of you').waitFor();
  assert.deepEqual(profile.complaints, []);
});

test('it can go by mail and DingTalk too, and a medium that is not set up is told beside the choice', async (t) => {
  const server = await Server.start(t, { TIDINGS_EMAIL_URL: 'smtp://127.0.0.1:9?tls=none', TIDINGS_EMAIL_FROM: 'library@example.org' });
  await server.ask('PUT', 'v1/users/alice', { email: 'alice@example.com' });
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  const form = await openForm(profile, server);
  await form.locator('#title').fill('Also by mail');
  await form.getByLabel('DingTalk').check();
  await form.locator('#submit').click();
  await form.locator('#via-error', { hasText: 'dingtalk' }).waitFor();
  assert.equal(await form.evaluate(() => document.activeElement.name), 'via');
  await form.getByLabel('DingTalk').uncheck();
  await form.getByLabel('Email').check();
  await form.locator('#submit').click();
  await form.locator('#result strong').waitFor();
  const { deliveries } = await server.ask('GET', 'v1/deliveries?user=alice&medium=email');
  assert.deepEqual(deliveries.map(({ address }) => address), ['alice@example.com']);
  assert.equal(await form.locator('[name="via"]:checked').count(), 0, 'the next one goes by mail only where that is chosen');

  await form.locator('#title').fill('In the inbox alone');
  const sent = form.waitForRequest('**/v1/notifications');
  await form.locator('#submit').click();
  assert.equal('via' in (await sent).postDataJSON(), false);
});

test('a notification can be sent later, for a while and in place of another, in the time of the place', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser, { timezoneId: 'Asia/Kolkata' });
  const inbox = await signIn(profile, server);
  await server.publish({ title: 'Draft', collapse: 'page 1' });
  await entry(inbox, 'Draft').waitFor();
  const form = await openForm(profile, server);
  const submit = async () => {
    const sent = form.waitForRequest('**/v1/notifications');
    await form.locator('#submit').click();
    return (await sent).postDataJSON();
  };
  await form.locator('#more summary').click();
  assert.equal(await form.locator('#deliver_at, #delay, #expires_at, #expires_in').filter({ visible: true }).count(), 0);

  await form.locator('#title').fill('Final');
  await form.locator('#when').selectOption('delay');
  await form.locator('#delay').fill('1s');
  await form.locator('#ends').selectOption('expires_in');
  await form.locator('#expires_in').fill('2');
  await form.locator('#collapse').fill('page 1');
  assert.equal(await form.locator('#submit').textContent(), 'Schedule');
  const shown = entry(inbox, 'Final').waitFor();
  const { delay, expires_in, collapse } = await submit();
  assert.deepEqual({ delay, expires_in, collapse }, { delay: '1s', expires_in: '2', collapse: 'page 1' });
  await form.locator('#result time').waitFor();
  await shown;
  await entry(inbox, 'Draft').waitFor({ state: 'detached' });
  await entry(inbox, 'Final').waitFor({ state: 'detached' });
  assert.equal(await form.locator('#submit').textContent(), 'Publish', 'the next one is not late by accident');

  const year = new Date(Date.now() + 120 * 86_400_000).getUTCFullYear();
  const day = new Date(Date.now() + 120 * 86_400_000).toISOString().slice(0, 10);
  await form.locator('#title').fill('In four months');
  await form.locator('#when').selectOption('deliver_at');
  await form.locator('#deliver_at').fill(`${day}T09:15`);
  await form.locator('#ends').selectOption('expires_at');
  await form.locator('#expires_at').fill(`${day}T09:10`);
  await form.locator('#more').evaluate((more) => { more.open = false; });
  assert.equal((await submit()).deliver_at, `${day}T09:15:00+05:30`);
  await form.locator('#expires_at-error').waitFor();
  assert.equal(await form.evaluate(() => document.activeElement.id), 'expires_at', 'what was folded up is opened for its error');
  await form.locator('#expires_at').fill(`${year + 1}-12-31T00:00`);
  await form.locator('#deliver_at').fill('');
  await form.locator('#submit').click();
  await form.locator('#deliver_at-error', { hasText: 'Choose a date and a time.' }).waitFor();
  assert.equal(await form.evaluate(() => document.activeElement.id), 'deliver_at');
  await form.locator('#deliver_at').fill(`${day}T09:15`);
  await submit();
  await form.locator('#result time', { hasText: '9:15:00' }).waitFor();
  const { scheduled } = await server.ask('GET', 'v1/scheduled');
  assert.deepEqual(scheduled.map(({ title, due, expires_at }) => [title, Date.parse(due), Date.parse(expires_at)]),
    [['In four months', Date.parse(`${day}T03:45Z`), Date.parse(`${year + 1}-12-30T18:30Z`)]]);
});

test('markup in a title, a body and a sender is shown as text', async (t) => {
  const server = await Server.start(t);
  const profile = await openProfile(t, browser);
  const page = await signIn(profile, server);
  const title = '<img src=x onerror="window.hacked=1"> <b>磁盘</b> "\' & \u202e</h2>';
  const body = '</p></article><script>window.hacked=1</script>';
  await server.publish({ title, body, sender: '<i>x</i>' });
  await badge(page, '1');
  const hostile = page.locator('article').first();
  await hostile.locator('h2', { hasText: 'onerror' }).waitFor();
  assert.equal(await hostile.locator('h2').textContent(), title);
  assert.equal(await hostile.locator('[part~="body"]').textContent(), body);
  assert.equal(await hostile.locator('[part~="sender"]').textContent(), '<i>x</i>');
  assert.equal(await page.locator('article img, article script, article b, article i').count(), 0);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.deepEqual(profile.complaints, []);
});

test('a link to a script is refused by the server and never drawn by the page', async (t) => {
  const server = await Server.start(t);
  const hostile = ['javascript:alert(1)', ' JaVa\tScript:alert(1)', 'data:text/html,<script>1</script>', 'vbscript:x', 'blob:null/1', 'file:///etc/passwd'];
  for (const click of hostile) {
    const response = await server.post('v1/notifications', JSON.stringify({ to: { user: 'alice' }, title: 'x', body: '', click }));
    assert.ok([400, 422].includes(response.status), `${click} was answered with ${response.status}`);
    assert.match(JSON.stringify((await response.json()).errors), /click/);
  }
  const actions = await server.post('v1/notifications', JSON.stringify({ to: { user: 'alice' }, title: 'x', body: '', actions: [{ label: 'x', click: hostile[0] }] }));
  assert.ok([400, 422].includes(actions.status), `an action was answered with ${actions.status}`);
  await actions.text();

  // And should one ever get through, the page is the second wall.
  const profile = await openProfile(t, browser);
  await signIn(profile, server);
  await server.publish({ title: 'Harmless', click: 'https://example.com/ok', actions: [{ label: 'Go', click: '/here' }] });
  await profile.route('**/v1/inbox?**', async (route) => {
    const response = await route.fetch();
    const page = await response.json();
    const [one] = page.entries;
    page.entries.push(...hostile.map((click, i) => ({ ...one, id: `${one.id}${i}`, seq: one.seq - i - 1, title: `Hostile ${i}`, click, icon: click, actions: [{ label: 'Go', click }] })));
    await route.fulfill({ response, json: page });
  });
  const page = await openInbox(profile, server);
  await entry(page, 'Hostile 5').waitFor();
  const links = await page.locator('article a').evaluateAll((all) => all.map((a) => a.href));
  assert.deepEqual(links, ['https://example.com/ok', server.page('here')]);
  assert.equal(await page.locator('article').count(), hostile.length + 1);
  assert.deepEqual(profile.complaints, []);
});
