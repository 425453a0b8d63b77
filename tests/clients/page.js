// page.js takes programs and configurations out of the pages of docs/, so that what is run is what people read.
//
// A block belongs to a file where the paragraph above it begins with the file's name as code: "`receive.py`:".

import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const DOCS = new URL('../../docs/', import.meta.url);
const NAMED_BLOCK = /^`([\w./-]+)`[^\n]*:\n\n```\w*\n([\s\S]*?)^```$/gm;

/** The blocks of a page by the names of their files. */
export async function blocks(page) {
  const text = await readFile(new URL(page, DOCS), 'utf8');
  const found = new Map();
  for (const [, name, block] of text.matchAll(NAMED_BLOCK)) {
    assert.ok(!found.has(name), `${page} has one block for ${name}`);
    found.set(name, block);
  }
  return found;
}

/** One block of a page. */
export async function block(page, name) {
  const found = (await blocks(page)).get(name);
  assert.ok(found, `docs/${page} has a block for ${name}`);
  return found;
}

/** Writes one block of a page into `folder` and returns the file's path. */
export async function extract(page, name, folder) {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, await block(page, name));
  return path;
}

/** A file of docs/ as it stands. */
export function document(path) {
  return readFile(new URL(path, DOCS), 'utf8');
}
