// firefox.js owns the other browser: one Firefox for a test file, a profile of its own for each test, and what its console said.
//
// Firefox is Debian's, unchanged: it speaks WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/) by itself, so all that stands between
// is this file and a WebSocket. (Playwright drives only a Firefox of its own; what else drives this one brings eighty packages.)
// Invariant: a person's doings (`press`, `type`) are real input, sent to the element that is in sight, in the tab that is in front.
// Invariant: whatever is waited for is waited for under one deadline; then the error says what the page had instead.

import { spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';

const DEADLINE_MS = 30_000;
const LOOK_EVERY_MS = 10;
const VIEWPORT = { width: 1440, height: 900 };

/** Where it is set, pages load the static files of this folder in place of those in the binary, as in client-static.js. */
const WORKING_COPIES = process.env.TIDINGS_STATIC;
const TYPES = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };
const PAGES = { '/': 'inbox.html', '/publish': 'publish.html', '/demo': 'demo.html' };

/**
 * One setting of ours: no icons for tabs, whose absence from an application would be a complaint in its console. All others that keep a
 * driven Firefox from updating and from calling home it sets by itself (its `remote.prefs.recommended`).
 */
const SETTINGS = "user_pref('browser.chrome.site_icons', false);\n";

/**
 * Stands before every look at a page: `all(selector)`, what matches, also in open shadow roots, and `inSight(selector)`, what of it shows.
 * `outer >>> inner` is `inner` anywhere inside of `outer`, whatever roots lie between.
 */
const EYES = `
const everywhere = (selector, root) => [
  ...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].flatMap((element) => (element.shadowRoot ? everywhere(selector, element.shadowRoot) : [])),
];
const all = (path) => path.split(' >>> ').reduce((roots, selector) => roots.flatMap((root) => everywhere(selector, root.shadowRoot ?? root)), [document]);
const inSight = (path) => all(path).filter((element) => element.checkVisibility({ visibilityProperty: true }));
`;

/** What its policy kept a page from is a complaint too. */
const WATCH_POLICY = `() => addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI))`;

function executable() {
  const places = process.env.PATH.split(delimiter);
  const usual = ['firefox-esr', 'firefox'].flatMap((name) => places.map((place) => join(place, name)));
  const found = (process.env.FIREFOX ? [process.env.FIREFOX] : usual).find(existsSync);
  if (!found) throw new Error('there is no Firefox: install firefox-esr, or name one with FIREFOX');
  return found;
}

export async function launch() {
  const program = executable();
  const home = await mkdtemp(join(tmpdir(), 'tidings-firefox-'));
  await writeFile(join(home, 'user.js'), SETTINGS);
  const child = spawn(program, ['--headless', '--no-remote', '--profile', home, '--remote-debugging-port', '0'], {
    // A home of its own, since Firefox refuses to run as root in another user's.
    env: { ...process.env, HOME: home, MOZ_HEADLESS: '1', MOZ_CRASHREPORTER_DISABLE: '1' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  const end = async () => {
    child.kill('SIGKILL');
    await exited;
    await rm(home, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    const firefox = await Firefox.reach(await addressOf(child), end);
    if (WORKING_COPIES) await serveWorkingCopies(firefox);
    return firefox;
  } catch (error) {
    await end();
    throw error;
  }
}

/** Where Firefox listens, which it says once it does. */
async function addressOf(child) {
  const said = [];
  const found = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      said.push(line);
      const [, address] = /^WebDriver BiDi listening on (ws:\S+)/.exec(line) ?? [];
      if (address) return address;
    }
    return null;
  })();
  const address = await Promise.race([found, delay(DEADLINE_MS, null, { ref: false })]);
  if (!address) throw new Error(`Firefox did not start: ${said.join('\n')}`);
  child.stderr.resume(); // Nobody reads on, and a full pipe would stop it.
  return address;
}

class Firefox {
  #socket;
  #end;
  #waiting = new Map();
  #events = new EventEmitter();
  #last = 0;

  static async reach(address, end) {
    const socket = new WebSocket(`${address}/session`, { perMessageDeflate: false });
    await once(socket, 'open');
    const firefox = new Firefox(socket, end);
    const { capabilities } = await firefox.command('session.new', { capabilities: {} });
    firefox.version = capabilities.browserVersion;
    return firefox;
  }

  constructor(socket, end) {
    this.#socket = socket;
    this.#end = end;
    socket.on('message', (text) => this.#receive(JSON.parse(text)));
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('Firefox has ended'));
    });
  }

  async command(method, params = {}) {
    const id = ++this.#last;
    const answered = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const deadline = setTimeout(() => this.#waiting.get(id).reject(new Error(`Firefox did not answer ${method}`)), DEADLINE_MS);
    this.#socket.send(JSON.stringify({ id, method, params }), (error) => error && this.#waiting.get(id)?.reject(error));
    try {
      const answer = await answered;
      if (answer.type === 'error') throw new Refusal(`${method}: ${answer.error}: ${answer.message}`);
      return answer.result;
    } finally {
      clearTimeout(deadline);
      this.#waiting.delete(id);
    }
  }

  /** Calls `act` with what the events of `method` say. */
  listen(method, act) {
    this.#events.on(method, act);
  }

  #receive(message) {
    if (message.type === 'event') this.#events.emit(message.method, message.params);
    else this.#waiting.get(message.id)?.resolve(message);
  }

  /** A profile of its own. `profile.complaints` collects every console error, page error and policy violation. */
  async openProfile(t) {
    const { userContext } = await this.command('browser.createUserContext');
    t.after(() => this.command('browser.removeUserContext', { userContext }));
    const profile = new Profile(this, userContext);
    await profile.prepare();
    return profile;
  }

  async close() {
    await this.command('browser.close');
    await this.#end();
  }
}

/** What Firefox answered with an error. */
class Refusal extends Error {}

class Profile {
  #firefox;
  #userContext;
  #pages = new Set();
  complaints = [];

  constructor(firefox, userContext) {
    this.#firefox = firefox;
    this.#userContext = userContext;
  }

  async prepare() {
    const userContexts = [this.#userContext];
    this.#firefox.listen('log.entryAdded', ({ level, text, source }) => {
      if (level === 'error' && this.#pages.has(source.context)) this.complaints.push(text);
    });
    await this.#firefox.command('session.subscribe', { events: ['log.entryAdded'], userContexts });
    await this.#firefox.command('script.addPreloadScript', { functionDeclaration: WATCH_POLICY, userContexts });
    await this.#firefox.command('browsingContext.setViewport', { viewport: VIEWPORT, userContexts });
  }

  /** A new tab, in front of the others. */
  async newPage(address) {
    const { context } = await this.#firefox.command('browsingContext.create', { type: 'tab', userContext: this.#userContext });
    this.#pages.add(context);
    const page = new Page(this.#firefox, context);
    await page.goto(address);
    return page;
  }
}

class Page {
  #firefox;
  #context;

  constructor(firefox, context) {
    this.#firefox = firefox;
    this.#context = context;
  }

  #command(method, params = {}) {
    return this.#firefox.command(method, { context: this.#context, ...params });
  }

  goto(url) {
    return this.#command('browsingContext.navigate', { url, wait: 'complete' });
  }

  /** Puts the tab in front; the one that was there is hidden from then on. */
  toFront() {
    return this.#command('browsingContext.activate');
  }

  close() {
    return this.#command('browsingContext.close');
  }

  async #evaluate(expression) {
    const target = { context: this.#context };
    const answer = await this.#firefox.command('script.evaluate', { expression, target, awaitPromise: true });
    if (answer.type === 'exception') throw new Error(answer.exceptionDetails.text);
    return answer.result;
  }

  /** What `look({ all, inSight }, ...given)` says in the page. */
  async look(look, ...given) {
    const { value } = await this.#evaluate(`(() => {${EYES} return JSON.stringify((${look})({ all, inSight }, ...${JSON.stringify(given)}) ?? null); })()`);
    return JSON.parse(value);
  }

  /** Waits until `look` says something that is `wanted`, or, with none named, something true. */
  async until(look, { given = [], wanted = true } = {}) {
    const aim = JSON.stringify(wanted);
    let seen;
    for (const deadline = Date.now() + DEADLINE_MS; Date.now() < deadline; await delay(LOOK_EVERY_MS)) {
      try {
        seen = JSON.stringify(await this.look(look, ...given));
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        seen = error.message; // The page was just going: the next one will say.
      }
      if (seen === aim) return;
    }
    throw new Error(`${look} with ${JSON.stringify(given)} stayed at ${seen} and never became ${aim}`);
  }

  /** Waits until something that matches is in sight and, where `text` is given, says exactly that. */
  shows(selector, text = null) {
    return this.until(({ inSight }, selector, text) => inSight(selector).some((e) => text === null || e.textContent.trim() === text), { given: [selector, text] });
  }

  hides(selector) {
    return this.until(({ inSight }, selector) => inSight(selector).length === 0, { given: [selector] });
  }

  /** The text of everything that matches, in the order of the page. */
  texts(selector) {
    return this.look(({ all }, selector) => all(selector).map((e) => e.textContent.trim()), selector);
  }

  /** Clicks what matches, with the mouse, as soon as it is in sight and can be pressed. */
  async press(path) {
    const selector = `${path}:not([aria-disabled="true"])`;
    await this.toFront();
    await this.shows(selector);
    const element = await this.#evaluate(`(() => {${EYES}
      const [element] = inSight(${JSON.stringify(selector)});
      element.scrollIntoView({ block: 'nearest', behavior: 'instant' });
      return element;
    })()`);
    const origin = { type: 'element', element: { sharedId: element.sharedId } };
    const actions = [{ type: 'pointerMove', x: 0, y: 0, origin }, { type: 'pointerDown', button: 0 }, { type: 'pointerUp', button: 0 }];
    await this.#command('input.performActions', { actions: [{ type: 'pointer', id: 'mouse', actions }] });
  }

  /** Clicks what matches and types into it. */
  async type(selector, text) {
    await this.press(selector);
    const actions = [...text].flatMap((value) => [{ type: 'keyDown', value }, { type: 'keyUp', value }]);
    await this.#command('input.performActions', { actions: [{ type: 'key', id: 'keys', actions }] });
  }

  async screenshot(path) {
    const { data } = await this.#command('browsingContext.captureScreenshot');
    await writeFile(path, Buffer.from(data, 'base64'));
  }
}

/** Answers for the static files and the pages of every server. */
async function serveWorkingCopies(firefox) {
  const files = (await readdir(WORKING_COPIES)).map((name) => `/static/${name}`);
  const urlPatterns = [...files, ...Object.keys(PAGES)].map((pathname) => ({ type: 'pattern', pathname }));
  firefox.listen('network.beforeRequestSent', async ({ isBlocked, request }) => {
    if (!isBlocked) return;
    const copy = request.method === 'GET' ? await workingCopy(request.url) : null;
    try {
      await firefox.command(copy ? 'network.provideResponse' : 'network.continueRequest', { request: request.request, ...copy });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error; // A page that has gone meanwhile no longer waits for its files.
    }
  });
  await firefox.command('session.subscribe', { events: ['network.beforeRequestSent'] });
  await firefox.command('network.addIntercept', { phases: ['beforeRequestSent'], urlPatterns });
}

/** The answer's head stays the server's own for a page, for its policy is part of what is tested. */
async function workingCopy(url) {
  const { pathname } = new URL(url);
  const name = PAGES[pathname] ?? pathname.split('/').pop();
  const head = PAGES[pathname]
    ? [...(await fetch(url, { headers: { 'Accept-Encoding': 'identity' } })).headers].filter(([field]) => field !== 'content-length')
    : [['content-type', TYPES[name.split('.').pop()]], ['access-control-allow-origin', '*']];
  const headers = head.map(([name, value]) => ({ name, value: { type: 'string', value } }));
  const value = await readFile(join(WORKING_COPIES, name), 'base64');
  return { statusCode: 200, reasonPhrase: 'OK', headers, body: { type: 'base64', value } };
}
