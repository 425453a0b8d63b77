// The claim of docs/install.md: from the package to a bell in one's own Django page in ten minutes, by the documents
// alone. The blocks of install.md, then the project of clients/django.md, on the same host; then somebody signs in and
// sees the count.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { block } from '../clients/page.js';
import { Machine } from './machine.js';
import { blocks, follow } from './pages.js';
import { PROJECT } from './places.js';

const GUIDE = 'clients/django.md';
const FILES = [
  'library/tidings.py', 'library/urls.py', 'library/token.py', 'loans/models.py', 'loans/views.py',
  'loans/templates/home.html', 'loans/templates/kiosk.html', 'loans/templates/registration/login.html',
];
const HOME = '/srv/library';
/** What the reader is promised. */
const TEN_MINUTES_MS = 600_000;
let machine;

before(async () => { machine = await Machine.boot('guide'); });
after(() => machine?.switchOff());

test('from the package to an unread count in a Django page takes less than ten minutes', async () => {
  const begun = Date.now();
  await machine.do(`cp ${await machine.package('1')} /root/ && apt-get update -qq`);
  await follow('install.md', machine);
  const installed = Date.now() - begun;

  const [python, environment, serve, ring] = await blocks('install.md', 'shell');
  // The versions that the project is tested with; a reader gets the newest.
  await machine.write('/root/versions.txt', await readFile(join(PROJECT, 'tests/clients/requirements.txt'), 'utf8'));
  const env = { PIP_CERT: '/etc/ssl/certs/ca-certificates.crt', PIP_CONSTRAINT: '/root/versions.txt' };
  await machine.do(`set -e\n${python}`, { env });
  const shell = (command) => machine.do(`set -e; cd ${HOME}; . venv/bin/activate\n${environment}\n${command}`);
  await shell(await block(GUIDE, 'create.sh'));
  await machine.do(`cat >>${HOME}/library/settings.py`, { input: await block(GUIDE, 'settings-end.py') });
  for (const name of FILES) await machine.write(join(HOME, name), await block(GUIDE, name));
  await shell(await block(GUIDE, 'prepare.sh'));
  await shell(serve);

  // As a person: the form with its token, then the page.
  const browse = 'curl -sfL --retry 30 --retry-delay 1 --retry-all-errors -c jar -b jar';
  await shell(`${browse} -o /dev/null http://127.0.0.1/accounts/login/`);
  const token = '"csrfmiddlewaretoken=$(awk \'$6 == "csrftoken" { print $7 }\' jar)"';
  const fields = `-d username=alice --data-urlencode "password=$DJANGO_SUPERUSER_PASSWORD" -d ${token}`;
  const origin = "-H 'Origin: http://127.0.0.1'";
  const home = await shell(`${browse} ${fields} ${origin} 'http://127.0.0.1/accounts/login/?next=/'`);
  assert.match(home, /<span id="first-badge">0<\/span>/, home);
  const script = /<script type="module" src="([^"]+)">/.exec(home)[1];
  assert.equal(script, '/tidings/static/tidings-elements.js');
  await shell(`${browse} -o ${basename(script)} http://127.0.0.1${dirname(script)}/${basename(script)}`);
  await shell(ring);
  assert.match(await shell(`${browse} http://127.0.0.1/`), /<span id="first-badge">1<\/span>/);
  const took = Date.now() - begun;
  const seconds = (ms) => Math.round(ms / 1000);
  console.log(`installed with nginx after ${seconds(installed)} s, the count in the page after ${seconds(took)} s`);
  assert.ok(took < TEN_MINUTES_MS);
});
