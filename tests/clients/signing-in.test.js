// What docs/signing-in.md says, done: sign-on in the proxy with nginx, its configuration as it stands in
// docs/proxies, and Django's own accounts behind it; keys of tokens that are changed without signing anybody out;
// the ticket, the cookie, and access taken back.

import assert from 'node:assert/strict';
import { createHmac, createPrivateKey, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { appendFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { command } from './commands.js';
import { chromium, create, serve, signIn, signInBy } from './django.js';
import { python } from './interpreters.js';
import { block, document, extract } from './page.js';
import { openStream } from './people.js';
import { freePort } from './port.js';
import { Workshop } from './program.js';
import { startNginx } from './proxy.js';
import { Service } from './service.js';

const PAGE = 'signing-in.md';
const TRUSTING = `
[http]
base_path = "/tidings"
trusted_proxies = ["unix"]
[auth]
trusted_header = "X-Remote-User"
trusted_header_from = ["unix"]
trusted_header_recheck = "10s"
`;

/** What only who has signed in may read, also by detours. */
const PROTECTED = [
  'v1/inbox/counts', 'v1/stream', 'v1/poll?wait=0', 'static/../v1/inbox/counts', 'static/%2e%2e/v1/inbox/counts',
];

before(python);

/** A shell in which `tidings` is the binary under test, and the page's commands mean this service. */
async function shell(t, service, env = {}) {
  const workshop = await Workshop.open(t);
  await mkdir(join(workshop.path, 'bin'));
  await symlink(process.env.TIDINGS_BIN, join(workshop.path, 'bin/tidings'));
  const all = { PATH: `${join(workshop.path, 'bin')}:${process.env.PATH}`, ...env };
  const here = (text) => text
    .replaceAll('/var/lib/tidings', service.data)
    .replaceAll('config check', `config check --config ${service.config}`)
    .replaceAll('http://127.0.0.1:8383/tidings', service.url)
    .replaceAll('http://127.0.0.1:8383', service.url);
  return { workshop, run: (text) => workshop.run(['sh', '-ec', here(text)], all) };
}

/** An API key for everything that a backend does. */
async function backendKey({ run }) {
  return run("tidings key create --data /var/lib/tidings --name library --scope publish --scope tickets --scope users");
}

/** Django, nginx in front of it and of Tidings, and a person who has signed in. */
async function signedOn(t) {
  const service = await Service.start(t, TRUSTING);
  const key = await backendKey(await shell(t, service));
  const project = await create(t, { url: service.url, key }, {}, async (folder) => {
    await extract(PAGE, 'library/signon.py', folder);
    await appendFile(join(folder, 'library/urls.py'), await block(PAGE, 'urls-end.py'));
  });
  const django = await freePort();
  await serve(project, django);
  const nginx = await startNginx(await Workshop.open(t), await document('proxies/nginx-auth-request.conf'), [
    ['server unix:/run/tidings.sock;', `server unix:${service.socket};`],
    ['server 127.0.0.1:8000;', `server 127.0.0.1:${django};`],
  ]);
  const publish = (user, title) => fetch(service.page('v1/notifications'), {
    method: 'POST',
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ to: { user }, title }),
  });
  return { service, key, nginx, publish, visitor: (await signIn(nginx)).visitor };
}

/** The status of a GET whose path is sent as it stands; `fetch` would tidy it up. */
async function status(url, path, headers) {
  const { hostname: host, port } = new URL(url);
  const request = get({ host, port, path, headers, agent: false });
  const [response] = await once(request, 'response');
  request.destroy();
  return response.statusCode;
}

test('nginx tells whom the application has signed in, and a header that a client made up counts for nothing', async (t) => {
  const { service, key, nginx, publish, visitor } = await signedOn(t);
  const forged = ['X-Remote-User', 'x-remote-user', 'X_Remote_User'];

  for (const name of forged) {
    for (const path of PROTECTED) {
      assert.equal(await status(nginx, `/tidings/${path}`, { [name]: 'user-1' }), 401, `${name} at ${path} behind nginx`);
    }
    const direct = await fetch(service.page('v1/inbox/counts'), { headers: { [name]: 'user-1' } });
    assert.equal(direct.status, 401, `${name} at the server, from an address that is not named`);
  }
  for (const headers of [{ Authorization: `Bearer ${key}` }, { Cookie: 'sessionid=guessed' }]) {
    assert.equal((await fetch(`${nginx}/tidings/v1/online`, { headers })).status, 401, 'nobody has signed in');
  }
  const script = await fetch(`${nginx}/tidings/static/tidings.js`, { headers: { 'X-Remote-User': 'user-1' } });
  assert.equal(script.status, 200, 'scripts are for everybody');

  // Signed in, and lying about it: what counts is what the application says.
  const headers = { Cookie: visitor.cookie, 'X-Remote-User': 'user-2', X_Remote_User: 'user-2' };
  const stream = await openStream(t, `${nginx}/tidings/v1/stream`, headers);
  assert.match(await stream.shows('"expires":null'), /"user":"user-1"/);
  assert.equal((await publish('user-1', 'Due soon')).status, 201);
  await stream.shows('"title":"Due soon"');

  const [, upto] = /^id: (\S+)\nevent: notification$/m.exec(await stream.shows('event: notification\n'));
  const mark = (site) => fetch(`${nginx}/tidings/v1/inbox/mark`, {
    method: 'POST',
    headers: { ...headers, 'Content-Type': 'application/json', 'Sec-Fetch-Site': site },
    body: JSON.stringify({ as: 'read', upto }),
  });
  assert.equal((await mark('cross-site')).status, 403, 'another page acts in the name of who is signed in');
  const marked = await mark('same-origin');
  assert.equal(marked.status, 200, await marked.clone().text());
  assert.equal((await marked.json()).counts.unread, 0);
});

test('a bell in the application\'s page needs neither token nor ticket behind that nginx, and marks', async (t) => {
  const browser = await chromium(t);
  if (!browser) return;
  const { nginx, publish } = await signedOn(t);
  const page = await signInBy(browser, nginx);
  await page.evaluate(() => document.body.insertAdjacentHTML('beforeend', '<tidings-bell id="plain" url="/tidings/"></tidings-bell>'));
  await page.addScriptTag({ url: '/tidings/static/tidings-elements.js', type: 'module' });
  await publish('user-1', 'Due soon');
  const bell = page.locator('#plain').getByRole('button', { name: 'Notifications, 1 new' });
  await bell.click();
  await page.locator('#plain').getByRole('heading', { name: 'Due soon' }).waitFor();
  await page.locator('#plain').getByRole('button', { name: /^Notifications(, none new)?$/ }).waitFor();
  await page.goto(`${nginx}/tidings/`);
  await page.getByText('Due soon').first().waitFor();
});

test('who signs out is out at once, and of open streams when nginx is asked again or the application says so', async (t) => {
  const { service, key, nginx, visitor } = await signedOn(t);
  const headers = { Cookie: visitor.cookie };
  const rechecked = await openStream(t, `${nginx}/tidings/v1/stream`, headers);
  await rechecked.shows('event: hello\n');
  await rechecked.shows('"reason":"rotate"');

  // Whoever is still signed in comes back.
  const open = await openStream(t, `${nginx}/tidings/v1/stream`, headers);
  await open.shows('event: hello\n');
  assert.equal((await visitor.post('/accounts/logout/', {})).status, 200);
  const { run } = await shell(t, service, { TIDINGS_KEY: key });
  assert.equal(JSON.parse(await run(await command(PAGE, '-X DELETE'))).ended, 1);
  await open.shows('"reason":"rotate"');
  assert.equal((await fetch(`${nginx}/tidings/v1/stream`, { headers })).status, 401);
  assert.equal((await fetch(`${nginx}/tidings/v1/stream`, { headers: { Cookie: visitor.cookie } })).status, 401);
});

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
/** How each algorithm signs, with a private key in PEM or a secret. */
const SIGNERS = {
  ES256: (text, key) => sign('sha256', text, { key: createPrivateKey(key), dsaEncoding: 'ieee-p1363' }),
  RS256: (text, key) => sign('sha256', text, createPrivateKey(key)),
  EdDSA: (text, key) => sign(null, text, createPrivateKey(key)),
  HS256: (text, key) => createHmac('sha256', key).update(text).digest(),
};

/** A token as an application makes it. */
function token(alg, kid, key) {
  const now = Math.floor(Date.now() / 1_000);
  const text = `${encode({ alg, typ: 'JWT', ...(kid && { kid }) })}.${encode({ sub: 'alice', iat: now, exp: now + 600 })}`;
  return `${text}.${SIGNERS[alg](Buffer.from(text), key).toString('base64url')}`;
}

/** What the server answers to this token. */
async function answer(service, credential) {
  const response = await fetch(service.page('v1/inbox/counts'), { headers: { Authorization: `Bearer ${credential}` } });
  return response.status === 200 ? 200 : (await response.json()).code;
}

test('a pair is changed for another without signing anybody out', async (t) => {
  const service = await Service.start(t);
  const { workshop, run } = await shell(t, service);
  const script = await block(PAGE, 'new-key.sh');
  await run(`cd ${workshop.path}\n${script}\n${script.replaceAll('web-2026', 'web-2027')}`);
  const entry = (year) => `"ES256 web-${year} ${workshop.path}/web-${year}.pem"`;
  const reload = await command(PAGE, 'tidings config check');
  const use = async (...years) => {
    await service.configure(`[auth]\njwt_keys = [${years.map(entry).join(', ')}]\n`);
    return run(reload);
  };
  const [older, newer] = await Promise.all([2026, 2027].map(async (year) => (
    token('ES256', `web-${year}`, await readFile(join(workshop.path, `web-${year}.key`)))
  )));
  const answers = () => Promise.all([answer(service, older), answer(service, newer)]);

  assert.deepEqual(await answers(), ['bad-credential', 'bad-credential']);
  await use(2026);
  assert.deepEqual(await answers(), [200, 'bad-credential']);
  await use(2026, 2027);
  assert.deepEqual(await answers(), [200, 200]);
  await use(2027);
  assert.deepEqual(await answers(), ['bad-credential', 200]);

  await service.configure('[auth]\njwt_keys = ["ES256 web-2028 /nowhere.pem"]\n');
  await assert.rejects(run('tidings reload --data /var/lib/tidings'), /nowhere\.pem/);
  assert.deepEqual(await answers(), ['bad-credential', 200], 'what was in force stays in force');
});

test('the other algorithms of the page, and a shared secret that is changed', async (t) => {
  const service = await Service.start(t);
  const { workshop, run } = await shell(t, service);
  const page = await document(PAGE);
  const pairs = [['RS256', '-algorithm RSA -pkeyopt rsa_keygen_bits:3072'], ['EdDSA', '-algorithm ED25519']];
  for (const [name, flags] of pairs) {
    assert.ok(page.includes(flags), `the page says how to make a pair for ${name}`);
    const generate = `openssl genpkey ${flags} -out ${name}.key 2>/dev/null`;
    await run(`cd ${workshop.path} && ${generate} && openssl pkey -in ${name}.key -pubout -out ${name}.pem`);
  }
  const at = (name) => join(workshop.path, name);
  const [old, fresh] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')];
  await writeFile(at('jwt-old'), old, { mode: 0o600 });
  await writeFile(at('jwt'), fresh, { mode: 0o600 });
  const keys = [...pairs.map(([name]) => `"${name} ${name} ${at(`${name}.pem`)}"`), `"HS256 - ${at('jwt-old')}"`];
  await service.configure(`[auth]\njwt_secret_file = "${at('jwt')}"\njwt_keys = [${keys.join(', ')}]\n`);
  await run(await command(PAGE, 'tidings config check'));
  for (const [name] of pairs) {
    assert.equal(await answer(service, token(name, name, await readFile(at(`${name}.key`)))), 200, name);
  }
  for (const secret of [old, fresh]) assert.equal(await answer(service, token('HS256', null, secret)), 200);
  // The public half is no secret: nobody may sign with it as with one.
  assert.equal(await answer(service, token('HS256', 'RS256', await readFile(at('RS256.pem')))), 'bad-credential');
});

test('the ticket, the cookie and the revocation of the page', async (t) => {
  const service = await Service.start(t);
  const operator = await shell(t, service);
  const alice = await operator.run('tidings token --data /var/lib/tidings --user alice');
  const { run } = await shell(t, service, { TIDINGS_KEY: await backendKey(operator), TIDINGS_TOKEN: alice });

  const { ticket } = JSON.parse(await run(await command(PAGE, 'v1/tickets')));
  const stream = await openStream(t, service.page(`v1/stream?ticket=${ticket}`));
  await stream.shows('"user":"alice"');
  assert.match(await run(await command(PAGE, 'v1/session')), /^HTTP\/1\.1 204[\s\S]*set-cookie: tidings_session=/i);

  await run(await command(PAGE, 'tidings revoke'));
  await stream.shows('"reason":"revoked"');
  assert.equal(await answer(service, alice), 'revoked');
});
