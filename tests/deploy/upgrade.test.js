// The package's life on a booted Debian: upgraded under load, interrupted half way, removed, installed again, purged.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ask, post, ticket, Stream, underLoad, unread } from './load.js';
import { Machine } from './machine.js';
import { eventually } from './places.js';

const URL = 'http://127.0.0.1:8383';
/** Requests across an upgrade at least. */
const REQUESTS = 300;
const DATA = '/var/lib/private/tidings/tidings.db';

let machine;
let key;

before(async () => {
  machine = await Machine.boot('upgrade');
  await machine.install('1');
  key = await machine.key('publish', 'tickets', 'users');
  assert.equal((await post(`${URL}/v1/notifications`, key, { to: 'user:alice', title: 'from before' })).status, 201);
});
after(() => machine?.switchOff());

const installed = (field) => machine.do(`dpkg-query -W -f='\${${field}}' tidings`);
const pid = () => machine.property('tidings.service', 'MainPID');
const has = async (path) => (await machine.ask(`test -e ${path}`)).code === 0;

test('an upgrade under load refuses nobody and keeps what is stored', async (t) => {
  const before = await pid();
  const stream = Stream.open(t, URL, await ticket(URL, key, 'alice'));
  await stream.shows('event: hello\n');
  const later = await machine.package('2');
  await underLoad('upgrade', { url: URL, key, requests: REQUESTS }, () => machine.do(`dpkg -i ${later}`));
  assert.match(await installed('Version'), /-2$/);
  assert.notEqual(await pid(), before, 'the new server serves');
  await stream.shows('event: bye\n');
  assert.equal(await unread(URL, key, 'alice'), 1);
});

test('an upgrade that was killed half way leaves the old server serving, and is mended by one command', async () => {
  const before = await pid();
  const earlier = await machine.package('1');
  await underLoad('interrupted upgrade', { url: URL, key, requests: REQUESTS }, async (under) => {
    // Killed when dpkg says that the new files are unpacked, before anything is configured. (It says so of the old ones
    // too, before they are half installed.)
    const kill = `while read -r line; do
      case "$line$new" in *half-installed*) new=new;; *": unpackednew") kill -9 "$(cat /run/dpkg.pid)";; esac
    done`;
    const unpack = `echo $$ >/run/dpkg.pid; exec dpkg --status-fd 3 --unpack ${earlier} 3>/run/status`;
    await machine.ask(`mkfifo /run/status; (${kill}) </run/status & sh -c '${unpack}'`);
    await under.more(100);
  });
  // dpkg says so a moment before it has written it down; killed in between, it wants the package once more.
  const left = await installed('Status');
  assert.match(left, /^install (ok unpacked|reinstreq (half-installed|unpacked))$/);
  const mend = left === 'install ok unpacked' ? 'dpkg --configure -a' : `dpkg -i ${earlier}`;
  assert.equal(await pid(), before, 'the old server serves on');
  assert.equal(await machine.property('tidings.service', 'ActiveState'), 'active');
  await underLoad('mending it', { url: URL, key, requests: REQUESTS }, () => machine.do(mend));
  assert.equal(await installed('Status'), 'install ok installed');
  assert.notEqual(await pid(), before);
  assert.equal(await unread(URL, key, 'alice'), 1);
});

test('what an administrator has changed and disabled outlives an upgrade', async () => {
  await machine.do(`echo '[streams]' >>/etc/tidings/tidings.toml && systemctl disable --quiet tidings.service`);
  await machine.do(`dpkg -i ${await machine.package('2')}`);
  assert.match(await machine.do('cat /etc/tidings/tidings.toml'), /\[streams\]$/m);
  assert.equal((await machine.ask('systemctl is-enabled tidings.service')).out.trim(), 'disabled');
  await machine.do('systemctl enable --quiet tidings.service');
});

test('a removal keeps data and settings, and what comes back finds them', async () => {
  await machine.do('systemctl enable --quiet tidings-unix.socket && systemctl restart tidings.service');
  assert.ok(await has('/run/tidings.sock'));
  await machine.do('dpkg --remove tidings');
  await assert.rejects(ask(`${URL}/healthz`), { code: 'ECONNREFUSED' });
  assert.deepEqual(await Promise.all([DATA, '/etc/tidings/tidings.toml'].map(has)), [true, true]);
  assert.deepEqual(await Promise.all(['/usr/bin/tidings', '/run/tidings.sock'].map(has)), [false, false]);
  assert.notEqual((await machine.ask('systemctl is-active tidings.service tidings.socket')).code, 0);
  await machine.install('2');
  assert.equal(await unread(URL, key, 'alice'), 1);
  assert.equal((await machine.do('systemctl is-enabled tidings.service tidings.socket')).trim(), 'enabled\nenabled');
});

test('a purge leaves nothing behind', async () => {
  await machine.write('/etc/systemd/system/tidings.service.d/more.conf', '[Service]\nWatchdogSec=60\n');
  await machine.write('/etc/credstore/tidings.jwt', 'a secret of the application, of 40 bytes', '0600');
  await machine.do('systemctl daemon-reload && dpkg --purge tidings');
  assert.notEqual((await machine.ask('systemctl is-active tidings.service tidings.socket')).code, 0);
  const elsewhere = '-not -path "/var/log/*" -not -path "/run/host/*"';
  const left = await machine.do(`find /etc /run /usr /var -iname "*tidings*" ${elsewhere}`);
  assert.equal(left.trim(), '', 'files that are left');
  assert.equal((await machine.ask('dpkg-query -W tidings')).code, 1);
  // And it can come again, empty.
  await machine.install('2');
  key = await machine.key('users');
  const { status, body } = await ask(`${URL}/v1/users/alice/counts`, { headers: { Authorization: `Bearer ${key}` } });
  assert.ok(status === 404 || JSON.parse(body).unread === 0, 'nothing of before');
});
