// docs/coming-from.md, gone the way that it describes: a Django project with notices of its own, whose unread ones
// and whose staff are carried over by the page's commands, and what stands in the place of its tasks. What was there
// before needs Redis and a broker, and is only held to be Python.

import assert from 'node:assert/strict';
import { appendFile, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { Server } from '../browser/server.js';
import { command } from './commands.js';
import { create } from './django.js';
import { python } from './interpreters.js';
import { block, extract } from './page.js';
import { inbox } from './people.js';
import { Workshop } from './program.js';

const PAGE = 'coming-from.md';
const FILES = [
  'notices/models.py', 'notices/management/commands/carry_over.py', 'notices/management/commands/staff.py', 'loans/lending.py',
];
/** Two people besides the superuser, and notices of before. */
const BEFORE = `
from django.contrib.auth import get_user_model
from notices.models import Notice
people = get_user_model().objects
alice = people.get(username="alice")
bob = people.create_user("bob", is_staff=True)
carol = people.create_user("carol")
Notice.objects.create(reader=alice, text="Read long ago", read=True)
for reader, text in [(alice, "红楼梦 is due"), (carol, "Welcome"), (alice, "x" * 200)]:
    Notice.objects.create(reader=reader, text=text)
`;
/** A loan as a view makes it, told once it is committed; what it prints is the reminder's id. */
const LEND = `
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone
from loans.lending import lent
from loans.models import Loan
due = timezone.now() + timedelta(days=14)
with transaction.atomic():
    loan = Loan.objects.create(reader=get_user_model().objects.get(username="carol"), book="水浒传")
    transaction.on_commit(lambda: print(lent(loan, due), lent(loan, due)))
`;

before(python);

test('a project of Channels, Redis and Celery comes over by the commands of the page', async (t) => {
  const server = await Server.start(t);
  const { workshop, env } = await create(t, server);
  const at = (path) => join(workshop.path, path);
  await mkdir(at('bin'));
  await symlink(process.env.TIDINGS_BIN, at('bin/tidings'));
  env.PATH = `${at('bin')}:${env.PATH}`;
  const run = (...args) => workshop.run(args, env);
  const script = async (name) => run('sh', '-e', await extract(PAGE, name, workshop.path));

  await run('python', 'manage.py', 'startapp', 'notices');
  for (const name of FILES) await extract(PAGE, name, workshop.path);
  await appendFile(at('library/settings.py'), 'INSTALLED_APPS += ["notices"]\n');
  await appendFile(at('library/tidings.py'), `\n\n${await block(PAGE, 'tidings-end.py')}`);
  await run('python', 'manage.py', 'makemigrations', 'notices');
  await run('python', 'manage.py', 'migrate');
  await run('python', 'manage.py', 'shell', '-c', BEFORE);

  for (let runs = 0; runs < 2; runs += 1) await script('carry-over.sh');
  const titles = async (user) => (await inbox(server, user)).map(({ title }) => title);
  assert.deepEqual(await titles('user-1'), ['x'.repeat(200), '红楼梦 is due'], 'what was unread, newest first, once');
  assert.deepEqual(await titles('user-3'), ['Welcome']);

  for (let runs = 0; runs < 2; runs += 1) await script('follow.sh');
  await run('sh', '-ec', await command(PAGE, 'topic:staff'));
  assert.deepEqual(await titles('user-2'), ['The hall closes at noon']);
  assert.deepEqual(await titles('user-3'), ['Welcome'], 'carol is no staff');

  const [first, again] = (await run('python', 'manage.py', 'shell', '-v', '0', '-c', LEND)).trim().split(' ');
  assert.equal(again, first, 'a task that runs again schedules no second reminder');
  assert.deepEqual(await titles('user-3'), ['Lent to you', 'Welcome']);
  const scheduled = async () => {
    const response = await fetch(server.page('v1/scheduled'), { headers: { Authorization: `Bearer ${server.key}` } });
    return (await response.json()).scheduled;
  };
  const [reminder] = await scheduled();
  assert.deepEqual([reminder.id, reminder.title, reminder.body], [first, 'Due tomorrow', '水浒传']);
  const days = (Date.parse(reminder.due) - Date.now()) / 86_400_000;
  assert.ok(days > 12.9 && days <= 13, `it comes a day before the loan ends, in ${days} days`);
  const early = `from library.tidings import take_back; assert take_back("${first}")["state"] == "cancelled"`;
  await run('python', 'manage.py', 'shell', '-c', early);
  assert.deepEqual(await scheduled(), []);
});

test('what the page shows of before is Python', async (t) => {
  const workshop = await Workshop.open(t);
  for (const name of ['notices/models.py', 'notices/consumers.py', 'notices/tasks.py']) {
    await workshop.run([await python(), '-m', 'py_compile', await extract(PAGE, name, workshop.path)]);
  }
});
