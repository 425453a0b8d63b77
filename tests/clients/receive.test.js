// The receivers of docs/clients, taken out of their pages and run: through a network that breaks their connections at
// random places, and through a sudden end of the program itself. Every event is printed once, in order.
//
// TIDINGS_CLIENT_EVENTS and TIDINGS_CLIENT_CUTS set how much; TIDINGS_CLIENT_SEED repeats a run.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { Server } from '../browser/server.js';
import { Cutter, random } from './cutter.js';
import { command, missing, python } from './interpreters.js';
import { extract } from './page.js';
import { publishRange, ticket, token } from './people.js';
import { EVENTS, Workshop, eventually } from './program.js';

const CUTS = Number(process.env.TIDINGS_CLIENT_CUTS ?? 5);
const SEED = Number(process.env.TIDINGS_CLIENT_SEED ?? Math.floor(Math.random() * 2 ** 32));
/** Fewer bytes than an event takes on any transport, so that a break is due before the events run out. */
const SMALLEST_EVENT = 200;
/** The same where the program asks for gzip, as Ruby's Net::HTTP does by itself. */
const SMALLEST_COMPRESSED = 10;

const RECEIVERS = [
  ['clients/curl.md', 'receive.sh'],
  ['clients/curl.md', 'follow.sh'],
  ['clients/python.md', 'receive_sse.py'],
  ['clients/python.md', 'receive_ws.py'],
  ['clients/node.md', 'receive.mjs'],
  ['clients/ruby.md', 'receive.rb', SMALLEST_COMPRESSED],
  ['clients/php.md', 'receive.php'],
];

/** The events in as many portions as there are times without a break: `[first, last]` of each. */
function portions() {
  const end = (portion) => Math.round((EVENTS * portion) / (CUTS + 1));
  return Array.from({ length: CUTS + 1 }, (_, i) => [end(i) + 1, end(i + 1)]);
}

/** Starts a program of a page. */
async function start(workshop, page, name, env) {
  return workshop.start(await command(await extract(page, name, workshop.path)), env);
}

/** Runs `body` for each receiver that can be run here, all at once, as a test of its own. */
async function eachReceiver(t, body) {
  await python();
  await Promise.all(RECEIVERS.map(async ([page, name, smallest = SMALLEST_EVENT], index) => {
    const options = { skip: await missing(name) };
    await t.test(`${name} of docs/${page}`, options, (t) => body(t, { page, name, smallest, user: `reader-${index}`, next: random(SEED + index) }));
  }));
}

/** Kills the program once its position is that of what it printed last, and starts it again. */
async function restart(program, cursorFile) {
  const seq = (text) => Number(text.split('.')[1]);
  const last = Number(program.lines.at(-1).split(' ')[0]);
  await eventually(async () => seq(await readFile(cursorFile, 'utf8')) >= last, `the position ${last} in the file`);
  await program.kill();
  program.start();
}

test(`every receiver gets ${EVENTS} events across ${CUTS} broken connections and two restarts, each once, in order`, { concurrency: true }, async (t) => {
  t.diagnostic(`TIDINGS_CLIENT_SEED=${SEED}`);
  const server = await Server.start(t);
  await eachReceiver(t, async (t, { page, name, smallest, user, next }) => {
    const cutter = await Cutter.start(t, server.url);
    const workshop = await Workshop.open(t);
    const cursorFile = join(workshop.path, 'cursor');
    const program = await start(workshop, page, name, { TIDINGS_URL: cutter.url, TIDINGS_TOKEN: await token(server, user) });

    for (const [portion, [first, last]] of portions().entries()) {
      const bytes = 1 + Math.floor(next() * (last - first + 1) * smallest);
      const broken = portion < CUTS ? cutter.arm(bytes, next() < 0.5) : null;
      await publishRange(server, user, first, last);
      await broken;
      if (portion === Math.floor(CUTS / 2)) {
        await program.printed(last);
        await restart(program, cursorFile);
      }
    }
    await program.printed(EVENTS);
    await restart(program, cursorFile);
    await publishRange(server, user, EVENTS + 1, EVENTS + 1);
    await program.printed(EVENTS + 1);

    assert.equal(cutter.cuts, CUTS);
    const printed = program.lines.map((line) => /^(\d+) (.*)$/.exec(line));
    assert.deepEqual(printed.map(([, , title]) => title), Array.from({ length: EVENTS + 1 }, (_, i) => `Event ${i + 1}`));
    assert.ok(printed.every(([, seq], i) => i === 0 || Number(seq) > Number(printed[i - 1][1])), "the order is the log's");
  });
});

test('every receiver comes back after the server was restarted, those that take tickets with a ticket', { concurrency: true }, async (t) => {
  await eachReceiver(t, async (t, { page, name, user }) => {
    const server = await Server.start(t);
    const workshop = await Workshop.open(t);
    const credential = name.endsWith('.sh') ? { TIDINGS_TOKEN: await token(server, user) } : { TIDINGS_TICKET: await ticket(server, user) };
    const program = await start(workshop, page, name, { TIDINGS_URL: server.url, ...credential });
    await publishRange(server, user, 1, 1);
    await program.printed(1);
    await server.stop('SIGTERM');
    await server.run();
    await publishRange(server, user, 2, 2);
    await program.printed(2);
    assert.deepEqual(program.lines.map((line) => line.replace(/^\d+ /, '')), ['Event 1', 'Event 2']);
  });
});

test('every receiver ends, and says why, when its token has run out', { concurrency: true }, async (t) => {
  const server = await Server.start(t);
  await eachReceiver(t, async (t, { page, name, user }) => {
    const workshop = await Workshop.open(t);
    const program = await start(workshop, page, name, { TIDINGS_URL: server.url, TIDINGS_TOKEN: await token(server, user, '5s') });
    await publishRange(server, user, 1, 1);
    await program.printed(1);
    assert.notEqual(await program.ended(), 0);
    assert.match(program.complaints, /expired/);
  });
});

/** Answers each request by the next of `answers`, and holds those that come after them. */
async function serveInTurn(t, answers) {
  const turns = answers[Symbol.iterator]();
  const listener = createServer((request, response) => turns.next().value?.(response));
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => {
    listener.closeAllConnections();
    listener.close();
  });
  return `http://127.0.0.1:${listener.address().port}`;
}

test('follow.sh waits twice as long after each failure, up to 30 s, until there was a hello, and as long as a bye says', async (t) => {
  const workshop = await Workshop.open(t);
  const log = join(workshop.path, 'waits');
  await mkdir(join(workshop.path, 'bin'));
  // It writes down how long it was to sleep, and by what choice, rather than sleep.
  const logging = (then) => `#!/bin/sh\necho "\${0##*/} $*" >>"$WAITS"\n${then}\n`;
  await writeFile(join(workshop.path, 'bin/sleep'), logging(''), { mode: 0o755 });
  await writeFile(join(workshop.path, 'bin/shuf'), logging('echo "${4%%-*}"'), { mode: 0o755 });

  const stream = (...events) => (response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.end(events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join(''));
  };
  const refuse = (response) => response.writeHead(503).end();
  const hello = { event: 'hello', id: 'e.1', data: {} };
  const bye = { event: 'bye', id: null, data: { reason: 'shutdown', reconnect: true, retry_ms: 2500 } };
  const url = await serveInTurn(t, [...Array(7).fill(refuse), stream(hello), stream(hello, bye), refuse, refuse]);

  const script = await extract('clients/curl.md', 'follow.sh', workshop.path);
  workshop.start(['sh', script], { PATH: `${join(workshop.path, 'bin')}:${process.env.PATH}`, TIDINGS_URL: url, TIDINGS_TOKEN: 'any', WAITS: log });
  const ranges = [1, 2, 4, 8, 16, 30, 30].map((limit) => [`shuf -n 1 -i 1-${limit}`, 'sleep 1']);
  const wanted = [...ranges, ...ranges.slice(0, 1), ['sleep 2.5'], ...ranges.slice(0, 2)];
  const waits = () => readFile(log, 'utf8').then((text) => text.trim().split('\n'), () => []);
  await eventually(async () => (await waits()).length >= wanted.flat().length, 'all waits');
  assert.deepEqual(await waits(), wanted.flat());
});
