// people.js owns what a test needs of the server besides `Server`: users of its own, publishes to them, their inboxes
// and streams.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DEADLINE_MS } from './program.js';

const execute = promisify(execFile);

/** A token for any user, signed with the server's own secret, and good for so long. */
export async function token(server, user, ttl = '1h') {
  const { stdout } = await execute(process.env.TIDINGS_BIN, ['token', '--data', server.data, '--user', user, '--ttl', ttl]);
  return stdout.trim();
}

/** A ticket for any user, minted as an application's backend does. */
export async function ticket(server, user) {
  const response = await server.post('v1/tickets', JSON.stringify({ user }));
  if (response.status !== 201) throw new Error(`minting a ticket answered ${response.status}`);
  return (await response.json()).ticket;
}

/** Publishes `Event <from>` up to `Event <to>` to the user, in one request. */
export async function publishRange(server, user, from, to) {
  const line = (_, i) => JSON.stringify({ to: { user }, title: `Event ${from + i}`, body: 'Your loan ends on Friday. 库' });
  const lines = Array.from({ length: to - from + 1 }, line);
  const response = await server.post('v1/notifications', `${lines.join('\n')}\n`, 'application/x-ndjson');
  const results = (await response.text()).trim().split('\n').map((text) => JSON.parse(text).status);
  if (results.length !== lines.length || results.some((status) => status !== 201)) throw new Error(`a publish failed: ${results}`);
}

/** The entries of the user's inbox, newest first, at most 100. */
export async function inbox(server, user) {
  const headers = { Authorization: `Bearer ${await token(server, user)}` };
  const response = await fetch(server.page('v1/inbox?limit=100'), { headers });
  if (response.status !== 200) throw new Error(`the inbox answered ${response.status}`);
  return (await response.json()).entries;
}

/** Live subscribers over one transport, as the server's metrics have it. */
export async function connections(server, transport) {
  const text = await (await fetch(server.page('metrics'))).text();
  return Number(new RegExp(`^tidings_connections\\{transport="${transport}"\\} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
}

/** A stream at `url`: its text so far, which can be waited for. Ends with the test `t`. */
export async function openStream(t, url, headers = {}) {
  const leave = new AbortController();
  t.after(() => leave.abort());
  const response = await fetch(url, { signal: leave.signal, headers: { Accept: 'text/event-stream', ...headers } });
  assert.equal(response.status, 200);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  return {
    async shows(part) {
      const late = setTimeout(() => leave.abort(new Error(`in time there was no ${part} in: ${text}`)), DEADLINE_MS);
      while (!text.includes(part)) {
        const { value, done } = await reader.read();
        assert.ok(!done, `the stream ended without ${part}: ${text}`);
        text += value;
      }
      clearTimeout(late);
      return text;
    },
  };
}
