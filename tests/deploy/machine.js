// machine.js owns a booted Debian: systemd as its first process, the packages under test at /srv/built, and nothing
// that outlives the test. It shares our network, which `run` has made for the tests alone.
//
// Invariant: a machine writes into memory only; the root it was made from stays as it was.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { BUILT, BUILT_INSIDE, ROOT, eventually, run } from './places.js';

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Authorities that this host trusts, for networks that have one of their own. */
const TRUSTED = '/etc/ssl/certs/ca-certificates.crt';
/** systemd's signal for "power off". */
const POWER_OFF = '+3';

export class Machine {
  #container;
  /** The container's first process, as we see it. */
  #leader;
  #said = '';

  /** Boots a machine of this name. Whoever boots it switches it off. */
  static async boot(name) {
    const machine = new Machine();
    machine.name = `tidings-${name}-${process.pid}`;
    const begun = Date.now();
    try {
      await machine.#start();
    } catch (error) {
      await machine.switchOff();
      throw error;
    }
    console.log(`booted in ${Date.now() - begun} ms`);
    return machine;
  }

  async #start() {
    // Where this host itself was not booted by systemd, nobody is there to register with.
    const alone = existsSync('/run/systemd/system') ? [] : ['--register=no', '--keep-unit'];
    this.#container = spawn('systemd-nspawn', [
      '--quiet', '--boot', '--directory', ROOT, '--volatile=overlay', '--machine', this.name, ...alone,
      '--console=pipe',
      '--kill-signal=SIGRTMIN+3', '--link-journal=no', '--resolv-conf=replace-host', '--timezone=off',
      `--bind-ro=${BUILT}:${BUILT_INSIDE}`, ...existsSync(TRUSTED) ? [`--bind-ro=${TRUSTED}`] : [],
    ], { stdio: ['ignore', 'pipe', 'pipe'] });
    const listen = (text) => { this.#said += text; };
    for (const stream of [this.#container.stdout, this.#container.stderr]) stream.on('data', listen);
    this.#container.on('error', (error) => { this.#said += error; });
    await eventually(async () => {
      if (this.#container.pid === undefined || this.#container.exitCode !== null) {
        const otherwise = 'TIDINGS_DEPLOY=offline leaves out what needs one';
        throw new Error(`systemd-nspawn (of systemd-container) boots nothing here (${otherwise}): ${this.#said}`);
      }
      // Looked up each time: while it builds the container, systemd-nspawn has a child of another kind.
      this.#leader = await child(this.#container.pid);
      if (this.#leader === undefined) return false;
      const { out } = await this.ask('systemctl is-system-running');
      return ['running', 'degraded'].includes(out.trim());
    }, `the container runs: ${this.#said}`);
  }

  /** Runs a shell command inside and answers `{ code, out, err }`. */
  async ask(command, { env = {}, input } = {}) {
    const variables = { PATH, HOME: '/root', LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive', ...env };
    const process = spawn('nsenter', [
      '-t', String(this.#leader), '-m', '-u', '-i', '-p', '-n', 'env', '-i',
      ...Object.entries(variables).map(([name, value]) => `${name}=${value}`), 'sh', '-c', command,
    ], { stdio: ['pipe', 'pipe', 'pipe'] });
    let [out, err] = ['', ''];
    process.stdout.on('data', (text) => { out += text; });
    process.stderr.on('data', (text) => { err += text; });
    // A command that ends early does not read what it is told.
    process.stdin.on('error', () => {});
    process.stdin.end(input ?? '');
    const code = await new Promise((resolve, reject) => {
      process.on('error', reject);
      process.on('close', (status, signal) => resolve(status ?? signal));
    });
    return { code, out, err };
  }

  /** Runs a shell command inside, which must go well, and answers what it printed. */
  async do(command, options) {
    const { code, out, err } = await this.ask(command, options);
    if (code !== 0) throw new Error(`${command}\nended with ${code}:\n${out}${err}\n${await this.journal()}`);
    return out;
  }

  /** Writes a file inside, with its folders. */
  async write(path, text, mode = '0644') {
    await this.do(`mkdir -p "$(dirname '${path}')" && cat > '${path}' && chmod ${mode} '${path}'`, { input: text });
  }

  /** One property of a unit. */
  async property(unit, name) {
    return (await this.do(`systemctl show --value -p ${name} ${unit}`)).trim();
  }

  /** What Tidings and systemd have said of the service. */
  async journal() {
    return (await this.ask('journalctl --no-pager -o cat -u tidings.service -u tidings.socket -n 60')).out;
  }

  /** The package under test in this revision, as a path inside. */
  async package(revision) {
    const name = (await readdir(BUILT)).find((file) => file.endsWith('.deb') && file.includes(`-${revision}_`));
    return `${BUILT_INSIDE}/${name}`;
  }

  async install(revision) {
    await this.do(`dpkg -i ${await this.package(revision)}`);
    await this.ready();
  }

  /** Waits until the server is ready to serve. */
  async ready() {
    const probe = 'curl -sf --max-time 5 http://127.0.0.1:8383/readyz';
    await eventually(async () => (await this.ask(probe)).code === 0, 'the server is ready');
  }

  async key(...scopes) {
    const flags = scopes.map((scope) => `--scope ${scope}`).join(' ');
    return (await this.do(`tidings key create --data /var/lib/tidings --name test ${flags}`)).trim();
  }

  async switchOff() {
    const container = this.#container;
    if (container?.pid === undefined || container.exitCode !== null) return;
    const ended = new Promise((resolve) => { container.on('close', resolve); });
    if (this.#leader !== undefined) await run('kill', [`-RTMIN${POWER_OFF}`, String(this.#leader)]).catch(() => {});
    const late = setTimeout(() => container.kill('SIGKILL'), 15_000);
    await ended;
    clearTimeout(late);
  }
}

/** The first child of a process, where there is one. */
async function child(pid) {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return children.split(' ').filter(Boolean).map(Number)[0];
}
