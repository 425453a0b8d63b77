// Every command of README.md, docs/ and examples/ is run: those of `ELSEWHERE` by the test that is named there, all
// others here, as they stand, page by page, in one shell a page, in an empty folder. Who writes a command into a
// page has it run by that, or must say where.
//
// What stands for something of the reader's is filled in: addresses, folders, placeholders. What serves goes into
// the background until it answers. Settings and JSON that are indented are no commands.

import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { commands, scripts } from './commands.js';
import { document } from './page.js';
import { freePort } from './port.js';
import { Workshop } from './program.js';

const ROOT = new URL('../../', import.meta.url);
const DEADLINE_S = 60;

/** Pages that another test follows from the first command to the last; of some it follows the fenced blocks. */
const FENCES_ELSEWHERE = { 'install.md': 'tests/deploy/pages.test.js', 'upgrade.md': 'tests/deploy/pages.test.js' };
const PAGES_ELSEWHERE = { ...FENCES_ELSEWHERE, 'monitoring.md': 'tests/clients/monitoring.test.js' };

const COMPOSE = 'docker compose -f examples/container/compose.yaml';
/** Commands that are not run here: who runs them, or why nobody can. */
const ELSEWHERE = {
  '../README.md': {
    './tests/run': 'it is what runs this',
  },
  'clients.md': {
    'TIDINGS_CLIENT_EVENTS=10000 TIDINGS_CLIENT_CUTS=20 TIDINGS_BIN=… npm --prefix tests/clients test': 'the full form of receive.test.js beside this',
  },
  'coming-from.md': {
    [`curl -u :$TIDINGS_KEY -H 'Content-Type: application/json' -d '{"to":"topic:staff","title":"The hall closes at noon"}' $TIDINGS_URL/v1/notifications`]:
      'coming-from.test.js',
  },
  'install.md': {
    './systemd/package': 'tests/deploy',
  },
  'mail.md': { 'tidings mail check --to you@example.org': 'tests/it/mail.rs, against a real relay' },
  'message-centre.md': { 'tidings mail check --to you@example.org': 'the same' },
  'operations.md': {
    'journalctl -u tidings -n 20': 'tests/deploy, where there is a journal',
    'systemctl stop tidings': 'tests/deploy stops the service; restoring and mending are tests/promises/restore.rs',
    'systemctl start tidings': 'the same',
    't restore copy.db --data $DATA': 'tests/promises/restore.rs: the server of this page runs on',
    't check --repair --data $DATA': 'the same',
  },
  'performance.md': Object.fromEntries([
    ...['fanout', 'publish', 'start', 'store', 'outbox', 'intake', 'scale'].map((bench) => `TIDINGS_BENCH=full cargo bench --bench ${bench}`),
    'cargo bench --bench encode',
  ].map((command) => [command, 'figures, not verdicts; minutes each, with a Rust toolchain'])),
  'clients/node.md': {
    'npm install eventsource@3': 'package.json beside this installs the same',
    "node publish.mjs user:alice 'Due soon' 'Your loan ends on Friday'": 'publish.test.js',
  },
  'clients/php.md': { "php publish.php user:alice 'Due soon' 'Your loan ends on Friday'": 'publish.test.js' },
  'clients/python.md': {
    'pip install httpx httpx-sse websockets': 'interpreters.js installs the same, by requirements.txt',
    "python publish.py user:alice 'Due soon' 'Your loan ends on Friday'": 'publish.test.js',
  },
  'clients/ruby.md': { "ruby publish.rb user:alice 'Due soon' 'Your loan ends on Friday'": 'publish.test.js' },
  'signing-in.md': Object.fromEntries([
    `curl -u :$TIDINGS_KEY -H 'Content-Type: application/json' -d '{"user":"alice"}' http://127.0.0.1:8383/v1/tickets`,
    'tidings config check && tidings reload --data /var/lib/tidings',
    'curl -i -X POST -H "Authorization: Bearer $TIDINGS_TOKEN" http://127.0.0.1:8383/v1/session',
    'curl -u :$TIDINGS_KEY -X DELETE http://127.0.0.1:8383/tidings/v1/users/user-1/streams',
    'tidings revoke --user alice --data /var/lib/tidings',
  ].map((command) => [command, 'signing-in.test.js takes them out of the page one by one'])),
  '../examples/container/README.md': {
    './systemd/package': 'tests/deploy',
    [`${COMPOSE} build`]: 'needs a registry; the page says how the Containerfile was built without one',
    [`${COMPOSE} up -d`]: 'needs a registry; container.test.js runs nginx.conf with the settings of compose.yaml',
    [`KEY=$(${COMPOSE} exec -T tidings tidings key create --data /var/lib/tidings --name library --scope publish --scope tickets --scope users)`]:
      'container.test.js makes a key in the same way, without the container around it',
    "curl -u :$KEY -H 'To: user:alice' -H 'Title: Hello' -d 'It works' http://127.0.0.1:8080/tidings/v1/publish": 'container.test.js publishes the same',
  },
};

/** Indented lines that are neither settings nor commands. */
const NO_COMMANDS = {
  'templates.md': [/^"/],
  'queue.md': [/^app\.send_task\(/, /^IPAddressAllow=/],
  'data-model.md': [/^unread = published/, /^open = ordinal/, /^- living entries/],
  'configuration.md': [/^\/etc\/tidings\/tidings\.toml(\.d\/\S+)?:\d+: /, /^TIDINGS_STREAMS_HEARTBEAT: /],
};
const SETTINGS = [/^\[[\w.]+\]$/, /^[a-z_]+ = /, /^[A-Z][a-z]\w*=\S+$/, /^\{/];

/** What a page takes for granted: its reader's server, and what is in it. Shell, in which `$PORT` is free. */
const SERVER = 'serve tidings serve --data ./state --listen 127.0.0.1:$PORT';
const KEY = 'key() { tidings key create --data ./state --name test --scope publish --scope tickets --scope users 2>>log; }';
const PREPARED = {
  'operations.md': `${SERVER}
    printf '[limits]\\nstreams_per_user = 16\\n' > tidings.toml
    tidings topic put news --data ./state
    printf '{"user":"alice"}\\n{"user":"bob","last":1}\\n' > users.ndjson
    tidings publish --data ./state --to user:alice --title Hello
    ID=$(tidings key create --data ./state --name library --scope publish 2>>log | cut -d_ -f2)`,
  'deliveries.md': SERVER,
  'templates.md': `ln -s ${new URL('examples', ROOT).pathname} examples
    ${SERVER}`,
  'dingtalk.md': 'mkdir etc',
  'message-centre.md': `mkdir etc
    printf '[email]\\nurl = "smtp://127.0.0.1:9?tls=none"\\nfrom = "library@example.org"\\n' > etc/tidings.toml
    printf 'user,name,email,locale\\nalice,Alice,alice@example.org,zh-CN\\n' > people.csv
    ln -s ${new URL('examples', ROOT).pathname} examples
    ${SERVER} --config etc/tidings.toml`,
  'configuration.md': `mkdir etc && printf '[http]\\nlisten = "127.0.0.1:%s"\\n' $PORT > etc/tidings.toml
    serve tidings serve --data ./state --config etc/tidings.toml`,
};
for (const page of ['curl', 'node', 'php', 'python', 'ruby']) {
  PREPARED[`clients/${page}.md`] = `export TIDINGS_STREAMS_HEARTBEAT=1s
    ${SERVER}
    ${KEY}`;
}

/** What stands in a page, and what it is here. */
function filled(text) {
  return text
    .replaceAll(/(localhost|127\.0\.0\.1):8383/g, '127.0.0.1:$PORT')
    .replaceAll('cargo run --release --', 'tidings')
    .replaceAll('./target/release/tidings', 'tidings')
    .replaceAll('/var/lib/tidings', './state')
    .replaceAll('/etc/tidings', 'etc')
    .replaceAll(/tidings config (check|show)/g, 'tidings config $1 --config $(ls etc/tidings.toml tidings.toml 2>/dev/null)')
    // Who sits before it is asked; here nobody does.
    .replaceAll('user erase ', 'user erase --yes ')
    .replaceAll('TIDINGS_TOKEN=…', 'TIDINGS_TOKEN=$(tidings token --data ./state --user alice)')
    .replaceAll('TIDINGS_KEY=tk_…', 'TIDINGS_KEY=$(key)')
    .replaceAll(/cursor=k7x2m9\.10423/g, 'cursor=start');
}

/** A command as this shell runs it. */
function runnable(command) {
  const text = filled(command);
  const serves = /^((?:\w+=\S+ )*)tidings (serve|demo)\b(.*)$/.exec(text);
  if (serves) return `${serves[1]}serve tidings ${serves[2]} --listen 127.0.0.1:$PORT${serves[3]}`;
  // It listens until Ctrl-C, which it gets when it has begun.
  if (/^tidings sink\b/.test(text)) {
    return `${text} --listen 127.0.0.1:0 >sunk & sink=$!
      until grep -q access_token sunk; do kill -0 $sink; sleep 0.05; done
      kill -INT $sink; wait $sink`;
  }
  // What never ends is looked at until it has begun.
  if (/^curl -N /.test(text)) return `${text} | grep -m 1 'event: hello' || fail "it shows no stream"`;
  return text;
}

/** `serve` runs a server until the next one begins, or the shell's end. */
const SHELL = `set -eu
shopt -s expand_aliases
fail() { echo "$1" >&2; exit 1; }
# \`timeout\` makes a group of its own, which nobody ends when the shell has ended by itself.
trap '[ -z "\${server:-}" ] || kill -KILL $server' EXIT
# An answer that tells a problem is a failure.
curl() { command curl -sS --fail-with-body "$@"; }
serve() {
  [ -z "\${server:-}" ] || { kill -INT $server; wait $server; }
  "$@" >>log 2>&1 &
  server=$!
  ready="curl -sf http://127.0.0.1:$PORT/readyz >/dev/null"
  timeout ${DEADLINE_S} sh -c "until $ready; do kill -0 $server || exit 1; sleep 0.05; done" || fail "$(cat log)"
}
`;

/** What stands in the shell blocks of a page. */
const fences = (text) => [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block).join('');

/** The pages, relative to docs/. */
async function pages() {
  const markdown = async (path) => (await readdir(new URL(path, ROOT))).filter((name) => name.endsWith('.md')).sort();
  return [
    '../README.md',
    ...await markdown('docs/'),
    ...(await markdown('docs/clients/')).map((name) => `clients/${name}`),
    '../examples/container/README.md',
  ];
}

for (const page of await pages()) {
  if (PAGES_ELSEWHERE[page] && !FENCES_ELSEWHERE[page]) continue;
  test(`every command of ${page} runs, or is run by the test that is named for it`, async (t) => {
    const none = NO_COMMANDS[page] ?? [];
    const isCommand = (text) => ![...SETTINGS, ...none].some((pattern) => pattern.test(text));
    const found = (await commands(page)).filter(isCommand);
    const elsewhere = ELSEWHERE[page] ?? {};
    for (const command of Object.keys(elsewhere)) assert.ok(found.includes(command), `${page} has no more ${command}`);
    const fenced = FENCES_ELSEWHERE[page] ? fences(await document(page)) : '';
    const here = found.filter((text) => !(text in elsewhere) && !fenced.includes(text));
    if (here.length === 0) return;

    const workshop = await Workshop.open(t);
    await mkdir(join(workshop.path, 'bin'));
    await symlink(process.env.TIDINGS_BIN, join(workshop.path, 'bin/tidings'));
    const lines = here.map((command, i) => `printf '\\n@ ${i}\\n'\n${runnable(command)}`);
    const script = [SHELL, PREPARED[page] ?? '', ...lines, "printf '\\n@ end\\n'"].join('\n');
    const shell = workshop.start(['timeout', String(DEADLINE_S * 2), 'bash', '-c', script], {
      PATH: `${join(workshop.path, 'bin')}:${process.env.PATH}`,
      PORT: String(await freePort()),
    });
    const status = await shell.ended();
    const last = shell.lines.findLast((line) => line.startsWith('@ '))?.slice(2);
    const failed = `${here[last] ?? 'what the page takes for granted'} ended with ${status}`;
    assert.equal(last, 'end', `${failed}: ${shell.complaints}\n${shell.lines.join('\n')}`);
  });
}

test('a page or a program whose commands are run elsewhere is named by a test that is there', async () => {
  const sources = new Map();
  for (const folder of ['tests/clients/', 'tests/deploy/']) {
    const names = (await readdir(new URL(folder, ROOT))).filter((name) => name.endsWith('.js') && name !== 'docs.test.js');
    for (const name of names) sources.set(folder + name, await readFile(new URL(folder + name, ROOT), 'utf8'));
  }
  const all = [...sources.values()].join('\n');
  for (const [page, by] of Object.entries(PAGES_ELSEWHERE)) {
    assert.ok(sources.get(by)?.includes(`'${page}'`), `${by} runs ${page}`);
  }
  for (const page of await pages()) {
    for (const script of await scripts(page)) assert.ok(all.includes(`'${script}'`), `a test runs ${script} of ${page}`);
  }
});
