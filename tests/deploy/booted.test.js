// The service in a booted Debian, from its first start to its stop: restarts, crashes, a disk that hangs, settings that
// are wrong, a secret handed over, a proxy on the unix socket. One machine, one story: each test finds what the one
// before has left.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Stream, ask, post, ticket, underLoad, unread } from './load.js';
import { Machine } from './machine.js';
import { BUILT, PROJECT, eventually, run } from './places.js';

const URL = 'http://127.0.0.1:8383';
/** Requests across one restart at least. */
const REQUESTS = 300;
/** How long a hung server may live here; the unit has 30 s. */
const WATCHDOG_S = 3;
/** The worst that `systemd-analyze security` may say of the service. */
const EXPOSURE = 1.2;

let machine;
let key;

before(async () => { machine = await Machine.boot('booted'); });
after(() => machine?.switchOff());

const publish = (user, title) => post(`${URL}/v1/notifications`, key, { to: `user:${user}`, title });
const open = async (t, user, url = URL) => Stream.open(t, url, await ticket(url, key, user));
/** Waits until the service's log has a line like this. */
const logSays = (line) => eventually(async () => line.test(await machine.journal()), `the log says ${line}`);
/** How often systemd has started the service again by itself. */
const restarts = async () => Number(await machine.property('tidings.service', 'NRestarts'));
const load = (url = URL) => ({ url, key, requests: REQUESTS });

test('while the port is in use the package installs, and the service starts when the port is free', async () => {
  const squatter = createServer((_, response) => response.end()).listen(8383, '127.0.0.1');
  await new Promise((resolve) => { squatter.on('listening', resolve); });
  const said = await machine.ask(`dpkg -i ${await machine.package('1')}`);
  assert.equal(said.code, 0, said.err);
  await logSays(/127\.0\.0\.1:8383.* in use/);
  squatter.close();
  squatter.closeAllConnections?.();
  await machine.ready();
  assert.equal(await machine.property('tidings.socket', 'ActiveState'), 'active', 'systemd holds the socket again');
});

test('a key made inside publishes, and a stream shows it', async (t) => {
  assert.equal(await machine.property('tidings.service', 'ActiveState'), 'active');
  assert.equal((await machine.do('systemctl is-enabled tidings.service tidings.socket')).trim(), 'enabled\nenabled');
  assert.notEqual((await machine.ask('systemctl is-enabled tidings-unix.socket')).code, 0, 'nobody asked for this one');
  key = await machine.key('publish', 'tickets', 'users');
  const stream = await open(t, 'alice');
  await stream.shows('event: hello\n');
  assert.equal((await publish('alice', 'Installed')).status, 201);
  await stream.shows('"title":"Installed"');
});

test('the units are well formed, and the service is exposed no more than it must be', async () => {
  const said = await machine.ask('systemd-analyze verify --man=no tidings.service tidings.socket tidings-unix.socket');
  assert.deepEqual(said, { code: 0, out: '', err: '' });
  const line = (await machine.do('systemd-analyze security --no-pager tidings.service')).trim().split('\n').at(-1);
  console.log(line);
  assert.ok(Number(/: ([\d.]+) /.exec(line)[1]) <= EXPOSURE, line);
  const uid = await machine.do(`stat -c %u /proc/${await machine.property('tidings.service', 'MainPID')}`);
  assert.ok(Number(uid) >= 61184, `the service runs as a user of its own (${uid.trim()}), not as somebody`);
  const modes = await machine.do('cd /var/lib/private/tidings && stat -c %a . tidings.db token.key');
  assert.equal(modes, '700\n600\n600\n');
});

test('a restart under load refuses nobody', async () => {
  await underLoad('restart', load(), async (under) => {
    for (let n = 0; n < 3; n += 1) {
      await machine.do('systemctl restart tidings.service');
      await under.more(20);
    }
  });
});

test('after a crash under load the service is back by itself, and nobody was refused', async () => {
  const before = await restarts();
  await underLoad('crash', load(), async () => {
    await machine.do('systemctl kill --kill-whom=main --signal=KILL tidings.service');
    await eventually(async () => (await restarts()) > before, 'systemd starts it again');
  });
});

test('a hung writer is restarted by the watchdog, and what it had acknowledged is there', async (t) => {
  await run('cc', ['-shared', '-fPIC', '-O1', '-o', join(BUILT, 'hang.so'), join(PROJECT, 'tests/deploy/shim.c')]);
  const dropIn = '/etc/systemd/system/tidings.service.d/hang.conf';
  await machine.write(dropIn, `[Service]\nEnvironment=LD_PRELOAD=/srv/built/hang.so\nWatchdogSec=${WATCHDOG_S}\n`);
  t.after(async () => {
    await machine.do(`rm -f /run/tidings-test-hang ${dropIn} && systemctl daemon-reload`);
    await machine.do('systemctl restart tidings.service');
  });
  await machine.do('systemctl daemon-reload && systemctl restart tidings.service');
  assert.equal((await publish('hang', 'before')).status, 201);
  const before = await restarts();
  await machine.do('touch /run/tidings-test-hang');
  const begun = Date.now();
  // The disk takes nothing: this is not answered before the disk is well again.
  const late = publish('hang', 'late').catch((error) => error);
  await logSays(/Watchdog timeout/);
  console.log(`a hung writer: the watchdog bit after ${Date.now() - begun} ms (WatchdogSec=${WATCHDOG_S})`);
  await machine.do('rm /run/tidings-test-hang');
  await eventually(async () => (await restarts()) > before, 'systemd starts it again');
  await machine.ready();
  const answer = await late;
  assert.ok(answer instanceof Error || answer.status >= 500, 'what the disk had not taken was not acknowledged');
  assert.equal((await publish('hang', 'after')).status, 201);
  assert.ok((await unread(URL, key, 'hang')) >= 2);
});

test('with wrong settings a reload fails with a sentence and the old ones stay in force', async (t) => {
  t.after(() => machine.do('rm -f /etc/tidings/tidings.toml.d/test.toml'));
  await machine.write('/etc/tidings/tidings.toml.d/test.toml', '[streams]\nheartbeat = "7s"\n');
  await machine.do('systemctl reload tidings.service');
  const hello = async () => {
    const stream = await open(t, 'alice');
    await stream.shows('event: hello\n');
    await stream.shows('"heartbeat"');
    return stream.text;
  };
  assert.match(await hello(), /"heartbeat":7\b/, 'the new setting holds without a restart');
  const pid = await machine.property('tidings.service', 'MainPID');
  await machine.write('/etc/tidings/tidings.toml.d/test.toml', '[streams]\nheartbeet = "9s"\n');
  assert.notEqual((await machine.ask('systemctl reload tidings.service')).code, 0);
  await logSays(/test\.toml:2.*heartbeet/);
  assert.match(await machine.journal(), /streams\.heartbeat|`heartbeat`/, 'and the key that was meant');
  assert.match(await hello(), /"heartbeat":7\b/);
  assert.equal(await machine.property('tidings.service', 'MainPID'), pid, 'nothing was restarted');
  assert.equal(await machine.property('tidings.service', 'ActiveState'), 'active');

  // A start with the same file: the socket keeps who comes, until the file is mended.
  await machine.ask('systemctl restart tidings.service');
  const waiting = publish('alice', 'patience');
  await eventually(async () => (await restarts()) > 1, 'systemd tries again');
  await machine.do('rm /etc/tidings/tidings.toml.d/test.toml');
  assert.equal((await waiting).status, 201, 'who waited is served as soon as the file is right');
});

test('a secret in the credential store signs users in', async (t) => {
  const files = '/etc/tidings/tidings.toml.d/jwt.toml /etc/credstore/tidings.jwt';
  t.after(() => machine.do(`rm -f ${files} && systemctl restart tidings.service`));
  const secret = 'a secret of the application, of 40 bytes';
  await machine.write('/etc/credstore/tidings.jwt', `${secret}\n`, '0600');
  await machine.write('/etc/tidings/tidings.toml.d/jwt.toml', '[auth]\njwt_secret_file = "credential:jwt"\n');
  await machine.do('systemctl restart tidings.service');
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = (by) => {
    const claims = { sub: 'alice', exp: Math.floor(Date.now() / 1000) + 600 };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', by).update(signed).digest('base64url')}`;
  };
  const inbox = (by) => ask(`${URL}/v1/inbox`, { headers: { Authorization: `Bearer ${token(by)}` } });
  const good = await inbox(secret);
  assert.equal(good.status, 200, good.body);
  assert.equal((await inbox(`${secret}!`)).status, 401);
  await machine.do(`rm ${files} && systemctl restart tidings.service`);
  assert.equal((await inbox(secret)).status, 401, 'without the file the server has a secret of its own again');
});

test('behind nginx on the unix socket a restart under load refuses nobody', async (t) => {
  await machine.do('systemctl enable --quiet tidings-unix.socket');
  await machine.write('/etc/tidings/tidings.toml.d/nginx.toml', '[http]\nbase_path = "/tidings"\n');
  await machine.do('systemctl restart tidings.service');
  const modes = await machine.do('stat -c "%a %U:%G" /run/tidings.sock');
  assert.equal(modes.trim(), '660 root:www-data');
  const conf = (await readFile(join(PROJECT, 'docs/proxies/nginx.conf'), 'utf8'))
    .replace('server 127.0.0.1:8383;', 'server unix:/run/tidings.sock;')
    .replace('listen 80;', 'listen 127.0.0.1:8080;');
  assert.match(conf, /server unix:\/run\/tidings\.sock;/);
  await machine.write('/etc/nginx/nginx.conf', conf);
  await machine.do('systemctl start nginx');
  const front = 'http://127.0.0.1:8080/tidings';
  const stream = await open(t, 'alice', front);
  await stream.shows('event: hello\n');
  await underLoad('restart behind nginx', load(front), () => machine.do('systemctl restart tidings.service'));
  await stream.shows('event: bye\n');
  await machine.do('systemctl stop nginx && rm /etc/tidings/tidings.toml.d/nginx.toml');
});

test('a stop says bye to every stream, and takes the sockets along', async (t) => {
  await machine.do('systemctl restart tidings.service');
  await machine.ready();
  const streams = [];
  for (let n = 0; n < 20; n += 1) streams.push(await open(t, 'alice'));
  for (const stream of streams) await stream.shows('event: hello\n');
  const begun = Date.now();
  await machine.do('systemctl stop tidings-unix.socket tidings.socket tidings.service');
  console.log(`stopped in ${Date.now() - begun} ms with ${streams.length} streams`);
  for (const stream of streams) await stream.shows('event: bye\n');
  await eventually(() => streams.every(({ ended }) => ended), 'every stream has ended');
  assert.equal(await machine.property('tidings.service', 'Result'), 'success');
  await assert.rejects(ask(`${URL}/healthz`), { code: 'ECONNREFUSED' });
  assert.notEqual((await machine.ask('test -e /run/tidings.sock')).code, 0, 'no socket stays that nobody listens to');
});
