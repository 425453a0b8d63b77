// client-static.js lets a browser load the working copies of the static files in place of those that are compiled into the binary under
// test, so that a script can be tried without a build. Only where TIDINGS_STATIC names their folder; otherwise it does nothing.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

const FOLDER = process.env.TIDINGS_STATIC;
const TYPES = { js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml', html: 'text/html' };
const PAGES = { '/': 'inbox.html', '/publish': 'publish.html', '/demo': 'demo.html' };

const typeOf = (name) => `${TYPES[name.split('.').pop()] ?? 'application/octet-stream'}; charset=utf-8`;
const workingCopy = (name) => readFile(join(FOLDER, name)).catch(() => null);

/** Serves the files that `pattern` matches to every page of the context. */
export async function serveWorkingCopies(context, pattern = '**/static/*') {
  if (!FOLDER) return;
  // Chromium no longer knows that a page is local once its requests go through here, and then keeps it from local WebSockets.
  await context.grantPermissions(['local-network-access']);
  await context.route(pattern, async (route) => {
    const name = new URL(route.request().url()).pathname.split('/').pop();
    const body = await workingCopy(name);
    if (body) await route.fulfill({ body, contentType: typeOf(name) });
    else await route.fallback();
  });
}

/** Serves the pages too. The answer's head stays the server's own, for its policy is part of what is tested. */
export async function serveWorkingPages(context) {
  if (!FOLDER) return;
  await context.route(({ pathname }) => pathname in PAGES, async (route) => {
    const body = await workingCopy(PAGES[new URL(route.request().url()).pathname]);
    if (!body || route.request().method() !== 'GET') return route.fallback();
    return route.fulfill({ response: await route.fetch(), body });
  });
}

/** The same for a proxy's rule `answer`, where a page must come from the network: whether this one has answered. */
export function answerWorkingCopies(url, response) {
  if (!FOLDER || !url.pathname.startsWith('/static/')) return false;
  const name = url.pathname.split('/').pop();
  workingCopy(name).then((body) => response.writeHead(body ? 200 : 404, { 'Content-Type': typeOf(name), 'Access-Control-Allow-Origin': '*' }).end(body));
  return true;
}
