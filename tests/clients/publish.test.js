// The publishers of docs/clients, taken out of their pages and run, also through a network that breaks the connection in
// the middle of the answer. What the inbox has afterwards is what counts: each notification once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Server } from '../browser/server.js';
import { Cutter } from './cutter.js';
import { command, missing, python } from './interpreters.js';
import { extract } from './page.js';
import { inbox } from './people.js';
import { Workshop } from './program.js';

const PUBLISHERS = [
  ['clients/python.md', 'publish.py'],
  ['clients/node.md', 'publish.mjs'],
  ['clients/ruby.md', 'publish.rb'],
  ['clients/php.md', 'publish.php'],
];

/** What an inbox shows of its entries, oldest first. */
async function shown(server, user) {
  return (await inbox(server, user)).reverse().map(({ title, body }) => ({ title, body }));
}

/** Where an answer of so many bytes is cut off. Many libraries take what ends behind a line of the head for a whole answer. */
function places(bytes) {
  const status = 'HTTP/1.1 201 Created'.length;
  return [['behind the status', status], ['behind its line', status + 2], ['within the head', status + 12], ['within the body', bytes - 10]];
}

for (const [page, name] of PUBLISHERS) {
  test(`${name} of docs/${page} publishes once, also where the answer is cut off`, { skip: await missing(name) }, async (t) => {
    await python();
    const server = await Server.start(t);
    const cutter = await Cutter.start(t, server.url);
    const workshop = await Workshop.open(t);
    const publisher = await command(await extract(page, name, workshop.path));
    const publish = async (...args) => JSON.parse(await workshop.run([...publisher, ...args], { TIDINGS_URL: cutter.url, TIDINGS_KEY: server.key }));

    const first = await publish('user:alice', 'Due soon', 'Your loan ends on Friday');
    assert.equal(first.recipients, 1);
    for (const [where, bytes] of places(cutter.bytes)) {
      const broken = cutter.arm(bytes, false);
      const { seq } = await publish('user:alice', `Cut ${where}`, '库');
      await broken;
      assert.ok(seq > first.seq);
    }
    assert.deepEqual(await shown(server, 'alice'), [
      { title: 'Due soon', body: 'Your loan ends on Friday' },
      { title: 'Cut behind the status', body: '库' },
      { title: 'Cut behind its line', body: '库' },
      { title: 'Cut within the head', body: '库' },
      { title: 'Cut within the body', body: '库' },
    ]);
  });

  test(`${name} of docs/${page} says why it was refused, and does not try again`, { skip: await missing(name) }, async (t) => {
    await python();
    const server = await Server.start(t);
    const workshop = await Workshop.open(t);
    const publisher = await command(await extract(page, name, workshop.path));
    const program = workshop.start([...publisher, 'nobody', 'Title', 'Body'], { TIDINGS_URL: server.url, TIDINGS_KEY: server.key });
    assert.notEqual(await program.ended(), 0);
    assert.match(program.complaints, /"code":"invalid/);
  });
}

/** Runs a block of the curl page against `url`. */
async function curl(t, server, name, url = server.url) {
  const workshop = await Workshop.open(t);
  return workshop.run(await command(await extract('clients/curl.md', name, workshop.path)), { TIDINGS_URL: url, TIDINGS_KEY: server.key });
}

test('plain.sh and pipe.sh of docs/clients/curl.md publish text', async (t) => {
  const server = await Server.start(t);
  await curl(t, server, 'plain.sh');
  await curl(t, server, 'pipe.sh');
  const [pipe, plain] = await inbox(server, 'alice');
  assert.deepEqual([plain.title, plain.body, plain.priority, plain.topic], ['磁盘', 'The disk is full', 4, null]);
  assert.deepEqual([pipe.title, pipe.topic], ['Space left', 'library']);
  assert.match(pipe.body, /^Filesystem[^\n]*\n/, 'lines stay lines');
});

test('publish.sh of docs/clients/curl.md publishes once, also where the answer is cut off', async (t) => {
  const server = await Server.start(t);
  const cutter = await Cutter.start(t, server.url);
  await curl(t, server, 'publish.sh', cutter.url);
  for (const [, bytes] of places(cutter.bytes)) {
    const broken = cutter.arm(bytes, false);
    await curl(t, server, 'publish.sh', cutter.url);
    await broken;
  }
  const entries = await inbox(server, 'alice');
  assert.deepEqual(entries.map(({ title, category, click }) => [title, category, click]), Array(5).fill(['Due soon', 'loans', '/loans/42']));
});

test('batch.sh of docs/clients/curl.md publishes each line once, however often it runs', async (t) => {
  const server = await Server.start(t);
  for (let run = 0; run < 2; run += 1) {
    const results = (await curl(t, server, 'batch.sh')).split('\n').map((line) => JSON.parse(line).status);
    assert.deepEqual(results, [201, 201, 201]);
  }
  assert.deepEqual((await shown(server, 'alice')).map(({ title }) => title), ['Due on Friday', 'Closed on Sunday']);
  assert.deepEqual((await shown(server, 'bob')).map(({ title }) => title), ['Due on Monday', 'Closed on Sunday']);
});
