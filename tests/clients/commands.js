// commands.js takes the commands out of the pages: every line that is indented by four and every line of a shell
// block, save those of blocks that are files (page.js takes these), with what continues them.
//
// Invariant: nothing that looks like a command is left out; what is none is for the caller to say.

import { document } from './page.js';

const SHELLS = new Set(['sh', 'console', 'bash']);
const FENCE = /^ *```(\w*)/;
/** The line above a block that is a file. */
const FILE_NAME = /^`([\w./-]+)`[^\n]*:$/;
/** Text after a command that says something about it. */
const REMARK = /\s{2,}#\s.*$/;

/** The commands of a page, in order, without remarks. `page` is relative to docs/. */
export async function commands(page) {
  const found = [];
  let block = null;
  let above = '';
  let open = false;
  for (const line of (await document(page)).split('\n')) {
    const fence = FENCE.exec(line);
    if (fence) {
      block = block ? null : { shell: SHELLS.has(fence[1]), file: FILE_NAME.test(above) };
      open = false;
    } else if (block ? block.shell && !block.file : /^ {4,}\S/.test(line)) {
      const text = line.replace(REMARK, '').trim();
      if (open) found.push(`${found.pop()}\n${text}`);
      else if (text && !text.startsWith('#')) found.push(text);
      open = text.endsWith('\\');
    } else {
      open = false;
    }
    if (line.trim()) above = line.trim();
  }
  return found;
}

/** The names of the files that the shell blocks of a page are. */
export async function scripts(page) {
  const text = await document(page);
  return [...text.matchAll(/^`([\w./-]+)`[^\n]*:\n\n```(?:sh|console|bash)\n/gm)].map(([, name]) => name);
}

/** The one command of a page that has `part` in it. */
export async function command(page, part) {
  const fitting = (await commands(page)).filter((text) => text.includes(part));
  if (fitting.length !== 1) throw new Error(`docs/${page} has ${fitting.length} commands with ${part}`);
  return fitting[0];
}
