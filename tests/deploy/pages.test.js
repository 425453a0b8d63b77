// docs/install.md and docs/upgrade.md as a reader follows them: each block of shell, in order, in a fresh Debian.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Machine } from './machine.js';
import { follow } from './pages.js';

let machine;

before(async () => { machine = await Machine.boot('pages'); });
after(() => machine?.switchOff());

test('install.md leads to a server behind nginx with a first notification', async () => {
  await machine.do(`cp ${await machine.package('1')} /root/`);
  const said = await follow('install.md', machine);
  assert.match(said, /1 unread, 1 unseen$/m, said);
});

test('upgrade.md leads to the newer version with everything in it', async () => {
  await machine.do(`rm /root/tidings_*.deb && cp ${await machine.package('2')} /root/`);
  await follow('upgrade.md', machine);
  assert.match(await machine.do("dpkg-query -W -f='${Version}' tidings"), /-2$/);
  assert.match(await machine.do('tidings user counts alice --json --data /var/lib/tidings'), /"unread":1\b/);
});
