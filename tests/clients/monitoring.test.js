// What docs/monitoring.md and examples/ say about watching Tidings, held against a real Prometheus that scrapes a real server
// with traffic: each rule fires and does not as its test says, every expression is one, every metric is there, every panel
// shows something, and every command of the page runs.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { Server } from '../browser/server.js';
import { commands } from './commands.js';
import { document } from './page.js';
import { connections, ticket } from './people.js';
import { accepts, freePort } from './port.js';
import { Workshop, eventually } from './program.js';
import { startProxy } from './proxy.js';

const execute = promisify(execFile);
const EXAMPLES = new URL('../../examples/', import.meta.url);
const RULES = 'alerts.yml';
/** Lines of the page that are settings, and no commands. */
const SETTINGS = ['[ops]', 'listen = "127.0.0.1:8384"'];
/** What Grafana puts there is at least four scrapes. */
const RATE_INTERVAL = '10s';
const SCRAPES = 5;

/** So that a limit is reached: ten marks at once, and one a second. And a queue, whose RabbitMQ is away. */
const LIMITED = {
  TIDINGS_LIMITS_MARKS_PER_USER: '1',
  TIDINGS_AMQP_URL: 'amqp://127.0.0.1:1',
  TIDINGS_AMQP_QUEUE: 'notifications',
};

const example = (path) => readFile(new URL(path, EXAMPLES), 'utf8');

/** The folder examples/prometheus in the workshop. */
async function rules(workshop) {
  await cp(new URL('prometheus/', EXAMPLES), workshop.path, { recursive: true });
  return workshop.path;
}

/** Every panel of the dashboard that shows something. */
async function panels() {
  const { panels: all } = JSON.parse(await example('grafana/tidings.json'));
  return all.filter(({ type }) => type !== 'row');
}

/** The metrics of a server: for each family its type and the samples it can have. */
class Families {
  constructor(text) {
    this.types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name, type]));
    this.labels = new Map();
    for (const [, sample, labels] of text.matchAll(/^(\w+)\{([^}]*)\} /gm)) {
      const names = [...labels.matchAll(/(\w+)="/g)].map(([, name]) => name).filter((name) => name !== 'le');
      this.labels.set(sample.replace(/_(total|info|bucket)$/, ''), names);
    }
  }

  static async of(server) {
    const response = await fetch(server.page('metrics'));
    assert.equal(response.status, 200);
    return new Families(await response.text());
  }

  /** The names under which a query finds them. */
  samples() {
    const endings = { counter: ['_total'], info: ['_info'], histogram: ['_bucket', '_sum', '_count'] };
    return new Set([...this.types].flatMap(([name, type]) => (endings[type] ?? ['']).map((ending) => name + ending)));
  }
}

/** A Prometheus with the example's configuration, pointed at a server and made to scrape every second. */
class Prometheus {
  /** `more` are rules besides those of the example. */
  static async start(workshop, server, more) {
    const prometheus = new Prometheus();
    const folder = await rules(workshop);
    const config = await example('prometheus/prometheus.yml');
    const changes = [
      ['targets: ["127.0.0.1:8383"]', `targets: ["${new URL(server.url).host}"]`],
      ['scrape_interval: 15s', 'scrape_interval: 1s'],
      ['evaluation_interval: 15s', 'evaluation_interval: 1s'],
      [`  - ${RULES}\n`, `  - ${RULES}\n  - more.yml\n`],
    ];
    const changed = changes.reduce((text, [line, instead]) => {
      assert.ok(text.includes(line), `prometheus.yml has ${line}`);
      return text.replace(line, instead);
    }, config);
    await writeFile(join(folder, 'prometheus.yml'), changed);
    await writeFile(join(folder, 'more.yml'), more);
    const port = await freePort();
    prometheus.url = `http://127.0.0.1:${port}`;
    const program = workshop.start(['prometheus', `--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`,
      `--web.listen-address=127.0.0.1:${port}`]);
    await Promise.race([
      eventually(() => accepts(port), 'Prometheus accepts connections'),
      program.ended().then((status) => { throw new Error(`Prometheus ended with ${status}: ${program.complaints}`); }),
    ]);
    return prometheus;
  }

  async #api(path) {
    const response = await fetch(`${this.url}/api/v1/${path}`);
    const { status, data, error } = await response.json();
    assert.equal(status, 'success', `${decodeURIComponent(path)}: ${error}`);
    return data;
  }

  /** What an expression gives now, without what is no number. */
  async query(expression) {
    const { result } = await this.#api(`query?query=${encodeURIComponent(expression)}`);
    return result.filter(({ value: [, value] }) => value !== 'NaN');
  }

  async rules() {
    const { groups } = await this.#api('rules');
    return groups.flatMap((group) => group.rules.map((rule) => ({ ...rule, file: group.file.split('/').at(-1) })));
  }

  async scraped(times) {
    const enough = async () => Number((await this.query('sum_over_time(up[1m])'))[0]?.value[1] ?? 0) >= times;
    await eventually(enough, `${times} scrapes`);
  }
}

/** Rules with the names and texts of the example's, which fire always: so that their texts are made. */
function firing(text) {
  const labelled = (vector, label) => `label_replace(${vector}, "${label}", "some", "", "")`;
  const some = ['instance', 'limit', 'code'].reduce(labelled, 'vector(0.9)');
  const groups = text.slice(text.indexOf('groups:'));
  return groups
    .replace(/expr: (?:>-\n(?: {10}.*\n)+|.*\n)/g, `expr: ${some}\n`)
    .replace(/for: \w+/g, 'for: 0s')
    .replace('name: tidings', 'name: always');
}

/**
 * Traffic of every kind; each kind has happened when this returns. What it returns ends it, and fails where any of it failed.
 */
async function traffic(t, server) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const faults = [];
  const flows = [];
  const go = (work) => flows.push(work().catch((error) => { if (!signal.aborted) faults.push(error); }));
  const alice = { Authorization: `Bearer ${server.users[0].token}`, Accept: 'text/event-stream' };
  const stream = async (path, credentials) => {
    const response = await fetch(server.page(path), { headers: credentials, signal });
    assert.equal(response.status, 200, path);
    for await (const _ of response.body) if (signal.aborted) return;
  };
  const headers = { ...alice, 'Content-Type': 'application/json' };
  const mark = { method: 'POST', headers, body: '{"as":"seen","ids":[]}', signal };
  const twice = await ticket(server, 'bob');
  await execute(process.env.TIDINGS_BIN, ['reload', '--data', server.data]);
  go(() => stream('v1/stream', alice));
  go(async () => {
    let cursor = 'now';
    while (!signal.aborted) {
      const response = await fetch(server.page(`v1/poll?wait=5&cursor=${cursor}`), { headers: alice, signal });
      ({ cursor } = await response.json());
    }
  });
  go(async () => {
    for (let n = 0; !signal.aborted; n += 1) {
      const { id } = await server.publish({ title: `Number ${n}` });
      if (n % 10 === 0) {
        // A death; an error; refusals; and an end, since each use of a ticket ends the stream of the one before.
        await server.ask('DELETE', `v1/notifications/${id}`);
        await (await fetch(server.page('v1/nothing'), { signal })).text();
        await Promise.all(Array.from({ length: 12 }, async () => (await fetch(server.page('v1/inbox/mark'), mark)).text()));
        go(() => stream(`v1/stream?ticket=${twice}`, { Accept: 'text/event-stream' }));
      }
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  });
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/ws`, ['tidings.v1'], { headers: alice });
  const leave = async () => {
    leaving.abort();
    socket.terminate();
    await Promise.all(flows);
  };
  // Where the test fails before it ends this.
  t.after(leave);
  const happened = async () => {
    const text = await (await fetch(server.page('metrics'))).text();
    return ['byes', 'errors', 'deaths', 'limited', 'reloads'].every((family) => text.includes(`tidings_${family}_total{`));
  };
  await eventually(async () => await connections(server, 'ws') === 1 && happened(), 'traffic of every kind');
  return async () => {
    await leave();
    assert.deepEqual(faults, []);
  };
}

test('the rules are well formed, and each fires and does not fire as its test says', async (t) => {
  const workshop = await Workshop.open(t);
  await rules(workshop);
  await workshop.run(['promtool', 'check', 'config', 'prometheus.yml']);
  await workshop.run(['promtool', 'check', 'rules', '--lint=all', '--lint-fatal', RULES]);
  await workshop.run(['promtool', 'test', 'rules', 'alerts_test.yml']);
  const [text, tests] = await Promise.all([example(`prometheus/${RULES}`), example('prometheus/alerts_test.yml')]);
  const names = [...text.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  assert.ok(names.length > 10);
  for (const name of names) {
    assert.match(tests, new RegExp(`eval_time: 50m, alertname: ${name}\\}`), `${name} does not fire where all is well`);
    assert.match(tests, new RegExp(`labels: '\\{alertname="${name}",[^\\n]*\\s+value: 1`), `${name} fires`);
  }
  // A rule that fires too easily is seen by these tests.
  await writeFile(join(workshop.path, RULES), text.replace('tidings_wal_bytes > 64 * 1024 * 1024', 'tidings_wal_bytes > 0'));
  await assert.rejects(workshop.run(['promtool', 'test', 'rules', 'alerts_test.yml']), /TidingsWalLarge/);
});

test('a real Prometheus finds every metric, every panel shows something, and no alert fires', async (t) => {
  const workshop = await Workshop.open(t);
  const server = await Server.start(t, LIMITED);
  const text = await example(`prometheus/${RULES}`);
  const prometheus = await Prometheus.start(workshop, server, firing(text));
  const end = await traffic(t, server);
  await prometheus.scraped(SCRAPES);

  const known = (await Families.of(server)).samples();
  const knows = (expression) => {
    const names = expression.match(/\btidings_\w+/g) ?? [];
    for (const name of names) assert.ok(known.has(name), `${name} of ${expression} is a metric`);
    return names.length;
  };
  for (const { title, targets } of await panels()) {
    for (const { expr } of targets) {
      assert.ok(knows(expr) > 0, expr);
      const expression = expr.replaceAll('$__rate_interval', RATE_INTERVAL);
      await eventually(async () => (await prometheus.query(expression)).length > 0, `${title} shows something: ${expression}`);
    }
  }
  const all = await prometheus.rules();
  const own = all.filter(({ file }) => file === RULES);
  assert.equal(own.length, [...text.matchAll(/- alert: /g)].length);
  for (const { name, query } of own) {
    knows(query);
    assert.deepEqual(await prometheus.query(query), [], `${name} has nothing to say`);
  }
  await end();
  // The texts of the alerts, as they are sent.
  const sent = all.filter(({ file }) => file === 'more.yml');
  assert.deepEqual(sent.map(({ name }) => name), own.map(({ name }) => name));
  for (const { name, alerts } of sent) {
    const { summary, description } = alerts[0].annotations;
    assert.doesNotMatch(`${summary}${description}`, /error expanding|\{\{|no value/, name);
    assert.ok(description.length > 60, `${name} says what to do`);
  }
});

test('what the alerts point to is there', async () => {
  const text = await example(`prometheus/${RULES}`);
  const anchors = async (page) => {
    const headings = [...(await document(page)).matchAll(/^##+ (.+)$/gm)].map(([, heading]) => heading);
    return new Set(headings.map((heading) => heading.toLowerCase().replace(/[^\w\s-]/g, '').replaceAll(' ', '-')));
  };
  const pages = { 'operations.md': await anchors('operations.md'), 'monitoring.md': await anchors('monitoring.md') };
  const runbooks = [...text.matchAll(/runbook: docs\/([\w.]+)#([\w-]+)/g)];
  assert.equal(runbooks.length, [...text.matchAll(/- alert: /g)].length, 'each alert has one');
  for (const [, page, anchor] of runbooks) assert.ok(pages[page].has(anchor), `docs/${page} has ${anchor}`);
});

test('the dashboard is one that Grafana can read', async () => {
  const dashboard = JSON.parse(await example('grafana/tidings.json'));
  assert.ok(dashboard.schemaVersion >= 36, 'Grafana 9 and later');
  assert.deepEqual(dashboard.templating.list.map(({ name, type }) => [name, type]), [['datasource', 'datasource']]);
  const taken = new Set();
  for (const panel of dashboard.panels) {
    const { x, y, w, h } = panel.gridPos;
    assert.ok(x + w <= 24, `${panel.title} is within the grid`);
    for (let cell = 0; cell < w * h; cell += 1) {
      const place = `${x + (cell % w)}:${y + Math.floor(cell / w)}`;
      assert.ok(!taken.has(place), `${panel.title} covers no other panel`);
      taken.add(place);
    }
  }
  assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length);
  for (const { title, description, datasource, targets } of await panels()) {
    assert.ok(title && description, `${title} says what it shows`);
    for (const source of [datasource, ...targets.map((target) => target.datasource)]) assert.equal(source.uid, '${datasource}');
  }
});

test('docs/monitoring.md has every metric with its labels, every alert, and no other', async (t) => {
  const server = await Server.start(t, LIMITED);
  const page = await document('monitoring.md');
  const end = await traffic(t, server);
  const families = await Families.of(server);
  await end();
  const found = page.matchAll(/^\| `(tidings_\w+)(?:\{([\w,]+)[^}]*\})?` \| (\w+) \|/gm);
  const rows = new Map([...found].map(([, name, label, type]) => [name, { label, type }]));
  const ending = { counter: '_total', info: '_info' };
  const sampled = new Map([...families.types].map(([name, type]) => [name + (ending[type] ?? ''), [name, type]]));
  assert.deepEqual([...rows.keys()].sort(), [...sampled.keys()].sort());
  for (const [sample, [name, type]] of sampled) {
    assert.equal(rows.get(sample).type, type, sample);
    const labels = families.labels.get(name);
    if (labels) assert.deepEqual(rows.get(sample).label?.split(',') ?? [], labels, `${sample} has these labels`);
  }
  const alerts = [...(await example(`prometheus/${RULES}`)).matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  assert.deepEqual([...page.matchAll(/^\| `(Tidings\w+)` \|/gm)].map(([, name]) => name), alerts);
});

test('every command of docs/monitoring.md runs', async (t) => {
  const server = await Server.start(t, { TIDINGS_HTTP_BASE_PATH: '/tidings' });
  const workshop = await Workshop.open(t);
  const proxy = await startProxy(workshop, 'nginx.conf', server, 'tcp', '/tidings');
  const changes = [
    ['/var/lib/tidings', server.data],
    ['https://app.example/tidings', proxy.url],
    ['http://127.0.0.1:8383/', `${server.url}/`],
    ['examples/', `${EXAMPLES.pathname}`],
  ];
  const all = await commands('monitoring.md');
  assert.ok(all.length > SETTINGS.length + 6, all.join('\n'));
  assert.deepEqual(all.filter((command) => SETTINGS.includes(command)), SETTINGS);
  for (const command of all.filter((one) => !SETTINGS.includes(one))) {
    const named = command.replace(/^tidings /, `${process.env.TIDINGS_BIN} `);
    const changed = changes.reduce((text, [from, to]) => text.replaceAll(from, to), named);
    // Silence is watched for a minute and more; what comes of it is in doctor.test.js.
    const quick = changed.includes('--via') && !changed.includes('--idle') ? `${changed} --idle 1s` : changed;
    const output = await workshop.run(['bash', '-euo', 'pipefail', '-c', quick]);
    assert.ok(output.trim() !== '', `${command} says something`);
  }
});
