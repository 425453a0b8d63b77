// django.js owns the Django project of docs/clients/django.md: made from its page in an empty folder, run by its own
// server, and used by a person at a browser without scripts. Other pages that change the project (signing in by the
// proxy, coming from elsewhere) begin with it.

import assert from 'node:assert/strict';
import { appendFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { python } from './interpreters.js';
import { block, extract } from './page.js';
import { freePort } from './port.js';
import { Workshop, eventually } from './program.js';

export const PAGE = 'clients/django.md';
const FILES = [
  'library/tidings.py', 'library/urls.py', 'library/token.py', 'loans/models.py', 'loans/views.py',
  'loans/templates/home.html', 'loans/templates/kiosk.html', 'loans/templates/registration/login.html',
];
export const PERSON = { username: 'alice', password: 'correct horse' };

/**
 * The project, with its database and the person, as the page says to make it. `more` is environment; `change(folder)`
 * may add to the project's files before its tables are made.
 */
export async function create(t, server, more = {}, change = async () => {}) {
  const workshop = await Workshop.open(t);
  const env = {
    PATH: `${dirname(await python())}:${process.env.PATH}`,
    TIDINGS_URL: server.url,
    TIDINGS_KEY: server.key,
    DJANGO_SUPERUSER_USERNAME: PERSON.username,
    DJANGO_SUPERUSER_PASSWORD: PERSON.password,
    ...more,
  };
  const script = async (name) => workshop.run(['sh', await extract(PAGE, name, workshop.path)], env);
  await script('create.sh');
  await appendFile(join(workshop.path, 'library/settings.py'), await block(PAGE, 'settings-end.py'));
  for (const name of FILES) await extract(PAGE, name, workshop.path);
  await change(workshop.path);
  await script('prepare.sh');
  return { workshop, env };
}

/** Runs the project's own server and returns its address. */
export async function serve({ workshop, env }, port = null) {
  port ??= await freePort();
  workshop.start(['python', 'manage.py', 'runserver', '--noreload', `127.0.0.1:${port}`], env);
  const url = `http://127.0.0.1:${port}`;
  await eventually(() => fetch(`${url}/accounts/login/`).then(({ ok }) => ok, () => false), 'Django answers');
  return url;
}

/** A person at a browser without scripts: keeps cookies, follows redirects, fills in forms. */
export class Visitor {
  #url;
  #cookies = new Map();

  constructor(url) {
    this.#url = url;
  }

  async get(path) {
    return this.#follow(await this.#ask(path, {}));
  }

  async post(path, fields) {
    const body = new URLSearchParams({ ...fields, csrfmiddlewaretoken: this.#cookies.get('csrftoken') });
    return this.#follow(await this.#ask(path, { method: 'POST', body }));
  }

  /** The cookies, as a header. */
  get cookie() {
    return [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  async #follow(response) {
    const target = response.headers.get('location');
    return target === null ? response : this.get(target);
  }

  async #ask(path, options) {
    const response = await fetch(new URL(path, this.#url), { ...options, headers: { Cookie: this.cookie }, redirect: 'manual' });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      this.#cookies.set(name, value);
    }
    return response;
  }
}

/** Signs the person in at the project that `url` leads to, and returns its first page. */
export async function signIn(url) {
  const visitor = new Visitor(url);
  await visitor.get('/');
  const home = await visitor.post('/accounts/login/?next=/', PERSON);
  assert.equal(home.status, 200);
  const page = await home.text();
  assert.match(page, /Sign alice out/);
  return { visitor, page };
}

/** Chromium, by what tests/browser has; null, and the test is skipped, where that is not installed. */
export async function chromium(t) {
  const { launch } = await import('../browser/browser.js').catch((error) => {
    if (error.code === 'ERR_MODULE_NOT_FOUND') return {};
    throw error;
  });
  if (!launch) {
    t.skip('playwright-core is not installed in tests/browser');
    return null;
  }
  const browser = await launch();
  t.after(() => browser.close());
  return browser;
}

/** A page of the browser on which the person has signed in at the project that `url` leads to. */
export async function signInBy(browser, url) {
  const page = await browser.newPage();
  await page.goto(url);
  await page.fill('[name=username]', PERSON.username);
  await page.fill('[name=password]', PERSON.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('Sign alice out').waitFor();
  return page;
}
