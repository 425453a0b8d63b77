// What stands in the pages besides commands (docs.test.js): settings are such as Tidings takes, and links lead
// somewhere.

import assert from 'node:assert/strict';
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { block, document } from './page.js';
import { Workshop } from './program.js';

const ROOT = new URL('../../', import.meta.url);
const FOLDERS = ['', 'docs/', 'docs/clients/', 'examples/container/', 'tests/', 'tests/clients/'];
const FENCED = /^ *```.*?^ *```$/gms;
/** An indented block: lines of four spaces, and empty ones between them. */
const INDENTED = /(?:^ {4}.*\n(?:[ \t]*\n(?= {4}))?)+/gm;
/** Sections of units, which systemd reads. */
const UNIT = /^\[(Unit|Service|Socket|Install)\]$/m;
/** Settings that stand in a sentence. */
const INLINE = /`(jwt_keys = \[[^`]*\])`/g;

/** Every page by its path from the root. */
async function pages() {
  const names = await Promise.all(FOLDERS.map(async (folder) => (
    (await readdir(new URL(folder, ROOT))).filter((name) => name.endsWith('.md')).map((name) => folder + name)
  )));
  return Promise.all(names.flat().map(async (path) => [path, await readFile(new URL(path, ROOT), 'utf8')]));
}

/** The settings that a page shows: indented blocks of TOML, without those that are for systemd. */
function settings(text) {
  const blocks = [...text.replaceAll(FENCED, '').matchAll(INDENTED)].map(([shown]) => shown.replaceAll(/^ {4}/gm, ''));
  const parts = blocks.flatMap((shown) => shown.split(/^(?=# )/m));
  const shown = parts.filter((part) => /^\[[a-z]+\]$/m.test(part) && !UNIT.test(part));
  return [...shown, ...[...text.matchAll(INLINE)].map(([, line]) => `[auth]\n${line}\n`)];
}

test('every setting that the pages show is one', async (t) => {
  const workshop = await Workshop.open(t);
  const pair = await block('signing-in.md', 'new-key.sh');
  await workshop.run(['sh', '-ec', [pair, pair.replaceAll('web-2026', 'web-2027')].join('\n')]);
  await writeFile(join(workshop.path, 'jwt'), `${'0123456789abcdef'.repeat(3)}\n`, { mode: 0o600 });
  let shown = 0;
  for (const [page, text] of await pages()) {
    for (const part of settings(text)) {
      shown += 1;
      const file = join(workshop.path, `${shown}.toml`);
      await writeFile(file, part.replaceAll('/etc/tidings', workshop.path));
      const check = ['config', 'check', '--data', join(workshop.path, 'state'), file];
      const program = workshop.start([process.env.TIDINGS_BIN, ...check]);
      assert.equal(await program.ended(), 0, `${page} shows settings that are refused: ${program.complaints}\n${part}`);
    }
  }
  assert.ok(shown >= 6, `only ${shown} were found`);
});

/** The names that headings of a page have in links. */
function anchors(text) {
  const headings = [...text.replaceAll(FENCED, '').matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading);
  return headings.map((heading) => heading.toLowerCase().replaceAll(/[^\p{L}\p{N}_ -]/gu, '').replaceAll(' ', '-'));
}

test('every link of the pages leads to a file, and to a heading where it names one', async () => {
  for (const [page, text] of await pages()) {
    for (const [, link] of text.replaceAll(FENCED, '').matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link)) continue;
      const url = new URL(link, new URL(page, ROOT));
      const there = await stat(url.pathname).catch(() => null);
      assert.ok(there, `${page} links to ${link}, which is not there`);
      const headings = url.hash ? anchors(await readFile(url.pathname, 'utf8')) : [];
      assert.ok(!url.hash || headings.includes(url.hash.slice(1)), `${page}: ${link} is no heading`);
    }
  }
});

test('every runbook of the alerts is a heading of the operator\'s page', async () => {
  const alerts = await readFile(new URL('examples/prometheus/alerts.yml', ROOT), 'utf8');
  const runbooks = [...alerts.matchAll(/runbook: docs\/([\w-]+\.md)#(\S+)/g)];
  assert.ok(runbooks.length > 0);
  for (const [runbook, page, heading] of runbooks) assert.ok(anchors(await document(page)).includes(heading), runbook);
});
