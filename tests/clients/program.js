// program.js owns the programs under test: a folder for each test, and in it processes whose lines can be waited for.
//
// Invariant: at the end of a test its programs are dead, with all that they started, before their folder goes.

import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** How many events the receivers are to get; a shell program takes some ten milliseconds for each. */
export const EVENTS = Number(process.env.TIDINGS_CLIENT_EVENTS ?? 500);
/** How long anything may take that a test waits for. */
export const DEADLINE_MS = 120_000 + EVENTS * 60;

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

/** A folder with the programs that run in it. */
export class Workshop {
  #programs = [];

  /** Ends with the test `t`. */
  static async open(t) {
    const workshop = new Workshop();
    workshop.path = await mkdtemp(join(tmpdir(), 'tidings-client-'));
    t.after(async () => {
      await Promise.all(workshop.#programs.map((program) => program.kill()));
      await rm(workshop.path, { recursive: true, force: true });
    });
    return workshop;
  }

  /** Starts a program: `command` is the file and its arguments. */
  start(command, env) {
    const program = new Program(command, this.path, env);
    this.#programs.push(program);
    program.start();
    return program;
  }

  /** Runs a program to its end and returns what it printed; throws where it fails. */
  async run(command, env) {
    const program = this.start(command, env);
    const status = await program.ended();
    if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}: ${program.lines.join('\n')}\n${program.complaints}`);
    return program.lines.join('\n');
  }
}

class Program {
  /** What it printed on standard output, by lines, over all its runs. */
  lines = [];
  complaints = '';
  #command;
  #options;
  #exited = null;
  #child = null;
  #runs = false;
  /** Says `news` at each line and at the end. */
  #speaker = new EventEmitter();

  constructor(command, cwd, env) {
    this.#command = command;
    // Its temporary files go with its folder; a group of its own, so that what it starts can be killed with it.
    this.#options = { cwd, env: { ...process.env, TMPDIR: cwd, ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true };
  }

  start() {
    const [file, ...args] = this.#command;
    this.#child = spawn(file, args, this.#options);
    this.#runs = true;
    this.#exited = once(this.#child, 'close');
    this.#child.on('close', () => {
      this.#runs = false;
      this.#speaker.emit('news');
    });
    this.#child.stderr.on('data', (text) => { this.complaints += text; });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.lines.push(line);
      this.#speaker.emit('news');
    });
  }

  /** Waits until it has printed `count` lines; a program that ends before that has failed. */
  async printed(count) {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    while (this.lines.length < count) {
      if (!this.#runs) throw new Error(`the program ended: ${this.#story(count)}`);
      await once(this.#speaker, 'news', { signal }).catch((error) => {
        throw new Error(`the program was too slow: ${this.#story(count)}`, { cause: error });
      });
    }
  }

  /** Waits for its end and returns its status. */
  async ended() {
    const [status] = await this.#exited;
    return status;
  }

  /** Kills it with all that it started, at once and without a word. */
  async kill() {
    if (!this.#runs) return;
    process.kill(-this.#child.pid, 'SIGKILL');
    await this.#exited;
  }

  #story(count) {
    const last = JSON.stringify(this.lines.at(-1));
    return `${this.#command.join(' ')} printed ${this.lines.length} of ${count} lines, the last ${last}; it complained: ${this.complaints}`;
  }
}
