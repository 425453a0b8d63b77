// What can be shown of the package and the units without booting anything: bytes, contents, dpkg in a chroot, systemd's
// own checks.

import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { BUILT, PROJECT, ROOT, run } from './places.js';

/** The worst that `systemd-analyze security` may say of the service. */
const EXPOSURE = 1.2;
/** Libraries that every Debian has; the binary may ask for no other. */
const LIBRARIES = /^(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux[\w.-]*)$/;
const DOC = 'usr/share/doc/tidings';
/** What lintian says of every package that does not come from Debian itself. */
const NOT_OURS = /initial-upload-closes-no-bugs|bogus-mail-host/;

let deb;
let archive;

before(async () => {
  const built = await readdir(BUILT);
  deb = join(BUILT, built.find((name) => name.endsWith('.deb') && name.includes('-1_')));
  archive = join(BUILT, built.find((name) => name.endsWith('.tar.gz')));
});

/** A folder that goes with the test. */
async function folder(t) {
  const path = await mkdtemp(join(tmpdir(), 'tidings-deploy-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

test('the same commit and binary give the same bytes', async (t) => {
  const out = await folder(t);
  await run(join(PROJECT, 'systemd/package'), ['--binary', process.env.TIDINGS_BIN, '--out', out]);
  for (const name of await readdir(out)) {
    const [first, second] = await Promise.all([BUILT, out].map((path) => readFile(join(path, name))));
    assert.ok(second.equals(first), `${name} differs from the first`);
  }
});

test('the package has everything in its place, and all of it is root\'s', async () => {
  const listing = await run('dpkg-deb', ['--contents', deb]);
  for (const path of [
    'usr/bin/tidings', 'etc/tidings/tidings.toml', 'lib/systemd/system/tidings.service',
    'lib/systemd/system/tidings.socket', 'lib/systemd/system/tidings-unix.socket',
    'usr/share/man/man1/tidings.1.gz', 'usr/share/man/man1/tidings-key-create.1.gz',
    'usr/share/man/man5/tidings.toml.5.gz',
    'usr/share/bash-completion/completions/tidings', 'usr/share/zsh/vendor-completions/_tidings',
    'usr/share/fish/vendor_completions.d/tidings.fish', `${DOC}/copyright`, `${DOC}/changelog.Debian.gz`,
    `${DOC}/README.md`, `${DOC}/docs/install.md`, `${DOC}/examples/proxies/nginx.conf`,
    `${DOC}/examples/proxies/haproxy.cfg`,
  ]) assert.ok(listing.includes(` ./${path}\n`), `no ${path} in\n${listing}`);
  for (const line of listing.trim().split('\n')) {
    assert.match(line, /^(drwxr-xr-x|-rw-r--r--|-rwxr-xr-x) root\/root /);
    assert.ok(line.startsWith('-rwx') === line.endsWith(' ./usr/bin/tidings'), `only the binary runs: ${line}`);
  }
  assert.equal((await run('dpkg-deb', ['--field', deb, 'Version'])).trim().split('-')[0], await version());
});

async function version() {
  return /^version = "(.*)"$/m.exec(await readFile(join(PROJECT, 'Cargo.toml'), 'utf8'))[1];
}

test('the archive\'s binary runs and asks for no library but libc, libm and libgcc_s', async (t) => {
  const path = await folder(t);
  await run('tar', ['-xzf', archive, '-C', path, '--strip-components=1']);
  const binary = join(path, 'bin/tidings');
  assert.equal((await run(binary, ['--version'])).trim(), `tidings ${await version()}`);
  const needed = [...(await run('readelf', ['-d', binary])).matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name);
  console.log(`the binary: ${Math.round((await readFile(binary)).length / 1024)} KiB, needs ${needed.join(' ')}`);
  assert.ok(needed.length > 0);
  for (const library of needed) assert.match(library, LIBRARIES);
});

test('the manual pages can be read and the completions can be loaded', async (t) => {
  const path = await folder(t);
  await run('tar', ['-xzf', archive, '-C', path, '--strip-components=1']);
  for (const page of [...(await readdir(join(path, 'man/man1'))), ...(await readdir(join(path, 'man/man5')))]) {
    const text = await readFile(join(path, 'man', page.endsWith('.5') ? 'man5' : 'man1', page), 'utf8');
    assert.match(text, /^\.TH TIDINGS/m, page);
    assert.match(text, /^\.SH NAME$/m, page);
  }
  const ask = '. "$1"; COMP_WORDS=(tidings ke) COMP_CWORD=1; _tidings tidings ke tidings; echo "${COMPREPLY[*]}"';
  const words = await run('bash', ['-c', ask, 'bash', join(path, 'completions/tidings')]);
  assert.equal(words.trim(), 'key');
});

test('in a chroot without systemd running the package installs, is removed and is purged', async (t) => {
  const root = join(await folder(t), 'root');
  await run('cp', ['-a', ROOT, root]);
  await copyFile(deb, join(root, 'tidings.deb'));
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };
  const inside = (...command) => run('chroot', [root, ...command], { env });
  await inside('dpkg', '-i', '/tidings.deb');
  const wants = 'etc/systemd/system/multi-user.target.wants/tidings.service';
  assert.ok((await inside('ls', `/${wants}`)).includes(wants), 'it will start with the system');

  const units = ['tidings.service', 'tidings.socket', 'tidings-unix.socket'];
  assert.equal(await inside('sh', '-c', `systemd-analyze verify --man=no ${units.join(' ')} 2>&1`), '');
  const service = '/lib/systemd/system/tidings.service';
  const security = await inside('systemd-analyze', 'security', '--offline=true', '--no-pager', service);
  const line = security.trim().split('\n').at(-1);
  console.log(line);
  assert.ok(Number(/: ([\d.]+) /.exec(line)[1]) <= EXPOSURE, security);

  await inside('sh', '-c', 'mkdir -p /var/lib/private/tidings && touch /var/lib/private/tidings/tidings.db');
  await inside('dpkg', '--remove', 'tidings');
  await inside('ls', '/var/lib/private/tidings/tidings.db', '/etc/tidings/tidings.toml');
  await inside('dpkg', '--purge', 'tidings');
  const logs = ['-not', '-path', '/var/log/*'];
  const left = await inside('find', '/', '-iname', '*tidings*', '-not', '-name', 'tidings.deb', ...logs);
  assert.equal(left, '', 'files that are left');
});

const skip = process.env.TIDINGS_DEPLOY !== 'full' && 'TIDINGS_DEPLOY=full asks it';

test('lintian finds nothing that is ours', { skip }, async () => {
  const said = await run('lintian', ['--allow-root', '--fail-on', 'none', deb]);
  assert.deepEqual(said.trim().split('\n').filter((line) => line !== '' && !NOT_OURS.test(line)), []);
});
