// pages.js takes the commands out of a page of docs/ and runs them, so that what is run is what people read.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT } from './places.js';

/** The blocks of a page in one language: `sh` is run each time, `shell` wants packages from elsewhere. */
export async function blocks(page, language) {
  const text = await readFile(join(PROJECT, 'docs', page), 'utf8');
  const found = [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].filter(([, of]) => of === language);
  assert.ok(found.length > 0, `${page} has blocks of ${language}`);
  return found.map(([, , block]) => block);
}

/** Runs every `sh` block of a page inside; each must go well, in every line. Answers what the blocks printed. */
export async function follow(page, inside) {
  const all = await blocks(page, 'sh');
  let said = '';
  for (const block of all) said += await inside.do(`set -e; cd /root\n${block}`);
  console.log(`${page}: ${all.length} blocks, ${all.join('').trim().split('\n').length} lines run`);
  return said;
}
