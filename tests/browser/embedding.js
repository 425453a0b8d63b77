// embedding.js owns a web application that is not Tidings: it serves pages of its own on a port of its own, signs its people's
// tokens as applications do, and allows its pages no more than they need.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { Server } from './server.js';

const STYLE = `
:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#fbfaf7, #191714); color: light-dark(#26221b, #ece7dd); }
header { display: flex; align-items: center; gap: 12px; padding: 10px 20px; border-bottom: 1px solid light-dark(#e4dfd3, #38332b); }
header h1 { flex: 1; margin: 0; font-size: 1.125rem; }
main { max-width: 720px; margin: 0 auto; padding: 24px 20px; }
h2 { font-size: 1.25rem; margin: 0 0 8px; }
.themed { --tidings-accent: rgb(120, 40, 160); }
.themed::part(badge) { background: rgb(1, 2, 3); }
.low { height: 240px; }
.deep { height: 3000px; }
.far { margin-inline-start: 4px; }
`;

/** A policy as strict as an embedding page can have: scripts and requests of Tidings, styles of its own, no markup from text. */
const policy = (tidings) => `default-src 'none'; script-src ${tidings} 'self'; connect-src ${tidings}; style-src 'self'; img-src ${tidings} https: data:; require-trusted-types-for 'script'; trusted-types 'none'`;

const page = ({ body, lang, dir }) => `<!doctype html>
<html lang="${lang}" dir="${dir}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>My library</title>
<link rel="stylesheet" href="/app.css">
<script type="module" src="/app.js"></script>
</head>
<body>${body}</body>
</html>`;

/** What the application's own script does: it loads the elements and gives them the token of whoever is signed in. */
const script = ({ tidings, token, strings }) => `
import '${tidings}/static/tidings-elements.js';
for (const element of document.querySelectorAll('tidings-bell, tidings-inbox, tidings-counter, tidings-topics')) {
  element.token = ${JSON.stringify(token)};
  element.strings = ${JSON.stringify(strings)};
}
`;

/**
 * Starts the application, and a Tidings server that knows its origin. `app.show(body)` says what every address of it but those of
 * its files serves from then on; `app.page` is one.
 */
export async function startApplication(t, env = {}) {
  const files = { '/app.css': { type: 'text/css', text: STYLE } };
  let tidings = '';
  const http = createServer((request, response) => {
    const { type, text } = files[request.url] ?? files.page;
    response.setHeader('Content-Type', `${type}; charset=utf-8`);
    response.setHeader('Content-Security-Policy', policy(tidings));
    response.end(text);
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  t.after(() => http.close());
  const url = `http://127.0.0.1:${http.address().port}`;
  const server = await Server.start(t, { TIDINGS_HTTP_ORIGINS: url, ...env });
  tidings = server.url;
  const show = (body, { lang = 'en', dir = 'ltr', token = null, strings = null } = {}) => {
    files.page = { type: 'text/html', text: page({ body, lang, dir }) };
    files['/app.js'] = { type: 'text/javascript', text: script({ tidings, token, strings }) };
  };
  return { app: { url, page: `${url}/library`, show }, server };
}

/** A token for the person, with these claims besides, signed with the secret that the application and Tidings share. */
export async function tokenFor(server, user, claims = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const secret = await readFile(join(server.data, 'token.key'));
  const end = secret.at(-1) === 10 ? secret.subarray(0, -1) : secret;
  const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
  return `${text}.${createHmac('sha256', end).update(text).digest('base64url')}`;
}

export async function ticketFor(server, user) {
  const answer = await server.post('v1/tickets', JSON.stringify({ user }));
  if (answer.status !== 201) throw new Error(`a ticket was refused with ${answer.status}`);
  return (await answer.json()).ticket;
}
