// proxy.js owns the proxies under test: nginx and HAProxy with the configurations of docs/proxies, in which only what their
// headers name is changed.
//
// Invariant: a line that is to be changed stands in the file as it is written here, or the test fails.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { document } from './page.js';
import { accepts, freePort } from './port.js';
import { eventually } from './program.js';

/** Changes each line of `text` that `changes` names, wherever it stands. */
function edit(text, changes) {
  for (const [line, instead] of changes) {
    assert.ok(text.includes(line), `the configuration has the line ${line}`);
    text = text.replaceAll(line, instead);
  }
  return text;
}

/** What nginx keeps in the system's folders goes into the test's, and nginx runs as whoever runs the test. */
function nginxPlaces(folder) {
  const kept = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`);
  return [
    ['user www-data;', `user ${userInfo().username};`],
    ['pid /run/nginx.pid;', `pid ${folder}/nginx.pid;`],
    ['error_log /var/log/nginx/error.log;', 'error_log stderr;'],
    ['access_log /var/log/nginx/access.log path;', `access_log ${folder}/access.log path;`],
    ['http {\n', `http {\n${kept.join('\n')}\n`],
  ];
}

const NGINX_UPSTREAM = {
  tcp: ({ host }) => [['server 127.0.0.1:8383;', `server ${host};`]],
  unix: ({ socket }) => [['server 127.0.0.1:8383;', ''], ['# server unix:/run/tidings/http.sock;', `server unix:${socket};`]],
};

const HAPROXY_UPSTREAM = {
  tcp: ({ host }) => [['server tidings 127.0.0.1:8383', `server tidings ${host}`]],
  unix: ({ socket }) => [
    ['    server tidings 127.0.0.1:8383\n', ''],
    ['# server tidings unix@/run/tidings/http.sock', `server tidings unix@${socket}`],
  ],
};

/** Where Tidings has no base path. */
const NGINX_ROOT = [['location = /tidings/metrics {', 'location = /metrics {'], ['location /tidings/ {', 'location / {']];
const HAPROXY_ROOT = [['{ path /tidings/metrics }', '{ path /metrics }'], ['{ path_beg /tidings/ }', '{ path_beg / }']];

const nginx = (folder) => ['nginx', '-p', folder, '-c', join(folder, 'proxy.conf'), '-g', 'daemon off;'];

/** The sample configurations by their files: how each is pointed at a server, a port and a certificate, and run. */
export const SAMPLES = {
  'nginx.conf': {
    tls: false,
    upstream: NGINX_UPSTREAM,
    root: NGINX_ROOT,
    places: (folder, port) => [...nginxPlaces(folder), ['listen 80;', `listen 127.0.0.1:${port};`]],
    command: nginx,
  },
  'nginx-tls.conf': {
    tls: true,
    upstream: NGINX_UPSTREAM,
    root: NGINX_ROOT,
    places: (folder, port) => [
      ...nginxPlaces(folder),
      ['listen 443 ssl http2;', `listen 127.0.0.1:${port} ssl http2;`],
      ['/etc/ssl/library.example.crt', `${folder}/proxy.crt`],
      ['/etc/ssl/private/library.example.key', `${folder}/proxy.key`],
    ],
    command: nginx,
  },
  'haproxy.cfg': {
    tls: false,
    upstream: HAPROXY_UPSTREAM,
    root: HAPROXY_ROOT,
    places: (folder, port) => [['    bind :80\n', `    bind 127.0.0.1:${port}\n`]],
    command: (folder) => ['haproxy', '-db', '-f', join(folder, 'proxy.conf')],
  },
  'haproxy.cfg over TLS': {
    file: 'haproxy.cfg',
    tls: true,
    upstream: HAPROXY_UPSTREAM,
    root: HAPROXY_ROOT,
    places: (folder, port) => [
      ['    bind :80\n', ''],
      ['# bind :443 ssl crt /etc/haproxy/library.example.pem alpn', `bind 127.0.0.1:${port} ssl crt ${folder}/proxy.pem alpn`],
    ],
    command: (folder) => ['haproxy', '-db', '-f', join(folder, 'proxy.conf')],
  },
};

/** A certificate for 127.0.0.1 that signs itself: `proxy.crt`, `proxy.key`, and both in `proxy.pem`. Returns the certificate. */
async function certificate(workshop) {
  const at = (name) => join(workshop.path, name);
  await workshop.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1',
    '-subj', '/CN=library.example', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', at('proxy.key'), '-out', at('proxy.crt')]);
  const [crt, key] = await Promise.all([readFile(at('proxy.crt'), 'utf8'), readFile(at('proxy.key'), 'utf8')]);
  await writeFile(at('proxy.pem'), crt + key);
  return crt;
}

/**
 * Runs a sample in front of `server`, over `tcp` or the `unix` socket, with `more` changes where a test wants them. Returns its
 * address, with the base path, and its certificate.
 */
export async function startProxy(workshop, name, server, upstream, basePath, more = []) {
  const sample = SAMPLES[name];
  const port = await freePort();
  const ca = sample.tls ? await certificate(workshop) : undefined;
  const target = { host: new URL(server.url).host, socket: join(server.data, 'tidings.sock') };
  const changes = [...sample.upstream[upstream](target), ...(basePath ? [] : sample.root), ...sample.places(workshop.path, port), ...more];
  await writeFile(join(workshop.path, 'proxy.conf'), edit(await document(`proxies/${sample.file ?? name}`), changes));
  await accepting(workshop.start(sample.command(workshop.path)), port, name);
  return { url: `${sample.tls ? 'https' : 'http'}://127.0.0.1:${port}${basePath}`, ca };
}

/** Runs an nginx.conf of the project with `changes` besides its places; returns the address of its one server. */
export async function startNginx(workshop, text, changes) {
  const port = await freePort();
  const all = [...nginxPlaces(workshop.path), ['listen 80;', `listen 127.0.0.1:${port};`], ...changes];
  await writeFile(join(workshop.path, 'proxy.conf'), edit(text, all));
  await accepting(workshop.start(nginx(workshop.path)), port, 'nginx');
  return `http://127.0.0.1:${port}`;
}

async function accepting(proxy, port, name) {
  await Promise.race([
    eventually(() => accepts(port), `${name} accepts connections`),
    proxy.ended().then((status) => { throw new Error(`${name} ended with ${status}: ${proxy.complaints}`); }),
  ]);
}
