// interpreters.js knows what each program of docs/ is run with: the command for its name's ending, the versions, and what a
// program finds installed. Python's packages are in a virtual environment: made once under target/ with the versions of
// requirements.txt, and reused until that file changes. `npm test` makes it before the tests, which may run side by side.

import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const VENV = here('../../target/clients-venv');
const REQUIREMENTS = here('requirements.txt');
/** Written last, so that an environment whose making was broken off is made anew. */
const STAMP = join(VENV, 'requirements.txt');

let venv;

/** The Python interpreter that has the packages. */
export function python() {
  venv ??= prepare();
  return venv;
}

async function prepare() {
  const wanted = await readFile(REQUIREMENTS, 'utf8');
  const present = await readFile(STAMP, 'utf8').catch(() => '');
  if (present !== wanted) {
    await rm(VENV, { recursive: true, force: true });
    await mkdir(VENV, { recursive: true });
    await execute('python3', ['-m', 'venv', VENV]);
    await execute(join(VENV, 'bin/pip'), ['install', '--quiet', '--requirement', REQUIREMENTS]);
    await writeFile(STAMP, wanted);
  }
  return join(VENV, 'bin/python');
}

/** The command that runs the program `path`, with its packages in reach. */
export async function command(path) {
  switch (extname(path)) {
    case '.py': return [await python(), path];
    case '.mjs':
      await symlink(here('node_modules'), join(dirname(path), 'node_modules')).catch(ignoreExisting);
      return [process.execPath, path];
    case '.rb': return ['ruby', path];
    case '.php': return ['php', path];
    default: return ['sh', path];
  }
}

function ignoreExisting(error) {
  if (error.code !== 'EEXIST') throw error;
}

/** Why a program can't be run here, or false: Ruby and PHP are run where they are installed. */
export async function missing(name) {
  const optional = { '.rb': 'ruby', '.php': 'php' }[extname(name)];
  if (!optional) return false;
  return execute(optional, ['--version']).then(() => false, () => `${optional} is not installed here`);
}
