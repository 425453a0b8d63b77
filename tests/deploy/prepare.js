// prepare.js makes what the tests here need and keep: a Debian root, once, and the packages under test, each time.
//
// Invariant: a root appears under its name only when it is whole.

import { mkdir, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BUILT, PACKAGES, PROJECT, RELEASE, ROOT, run } from './places.js';

async function exists(path) {
  return stat(path).then(() => true, () => false);
}

/** The minimal Debian that the package is installed into. */
async function makeRoot() {
  if (await exists(ROOT)) return;
  const begun = Date.now();
  const unfinished = `${ROOT}.unfinished`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { recursive: true });
  await run('mmdebstrap', ['--variant=minbase', `--include=${PACKAGES}`, RELEASE, unfinished]);
  // systemd-nspawn wants to know who it is, and two machines at once must not be one.
  await writeFile(join(unfinished, 'etc/machine-id'), '');
  // nginx is started by the tests that want it.
  await rm(join(unfinished, 'etc/systemd/system/multi-user.target.wants/nginx.service'), { force: true });
  await rename(unfinished, ROOT);
  console.log(`a Debian root with ${PACKAGES}: ${Math.round((Date.now() - begun) / 1000)} s; kept for the next run`);
}

/** The package and the archive, and the same package in a later revision to upgrade to. */
async function build() {
  const begun = Date.now();
  await rm(BUILT, { recursive: true, force: true });
  const said = await run(join(PROJECT, 'systemd/package'), ['--binary', process.env.TIDINGS_BIN, '--out', BUILT]);
  const [deb] = said.split('\n');
  const tree = join(BUILT, 'tree');
  await run('dpkg-deb', ['--raw-extract', deb, tree]);
  const control = join(tree, 'DEBIAN/control');
  await writeFile(control, (await readFile(control, 'utf8')).replace(/^(Version: .*)-1$/m, '$1-2'));
  await run('dpkg-deb', ['--root-owner-group', '-Znone', '--build', tree, deb.replace('-1_', '-2_')]);
  await rm(tree, { recursive: true });
  console.log(`${(await readdir(BUILT)).join(', ')}: ${Math.round((Date.now() - begun) / 1000)} s`);
}

await Promise.all([makeRoot(), build()]);
