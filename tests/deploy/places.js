// places.js says where everything lies that the tests here make and use, and runs programs.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const PROJECT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Debian packages of the root besides the essential ones: what the pages install, so that it need not be fetched. */
const INSIDE = ['systemd', 'systemd-sysv', 'dbus', 'curl', 'ca-certificates', 'nginx-light', 'sqlite3'];
export const RELEASE = 'bookworm';
export const PACKAGES = INSIDE.join(',');

const FOLDER = join(process.env.CARGO_TARGET_DIR ?? join(PROJECT, 'target'), 'deploy');
/** A Debian that nobody changes: each machine writes into a layer of its own. Other packages are another root. */
export const ROOT = join(FOLDER, `root-${RELEASE}-${createHash('sha256').update(PACKAGES).digest('hex').slice(0, 8)}`);
/** Where the packages under test are, on the host and in each machine. */
export const BUILT = join(FOLDER, 'built');
export const BUILT_INSIDE = '/srv/built';

/** How long anything may take that a test waits for. */
export const DEADLINE_MS = 60_000;

const execute = promisify(execFile);

/** Runs a program to its end. Answers what it printed; throws, with what it said, where it fails. */
export async function run(file, args, options = {}) {
  const { stdout } = await execute(file, args, { timeout: 10 * DEADLINE_MS, maxBuffer: 64 << 20, ...options });
  return stdout;
}

/** Asks `question` again and again until it answers something that is true, and returns that. */
export async function eventually(question, what) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`it did not come to this in time: ${what}`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}
