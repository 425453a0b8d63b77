// client-proxy.js owns what stands between a page and the server in these tests: a proxy that can hold back, change or refuse.

import { once } from 'node:events';
import { createServer, request } from 'node:http';

/**
 * Starts a proxy before `server` and ends it with the test. Its rules, which may be changed at any time:
 * `buffers(path)`: whether no byte of the answer's body is passed on before its end;
 * `buffersAfterHello`: whether a stream is cut off from its first chunk on, and stays open;
 * `rewrite(url)`: changes the address asked for; `answer(url, response)`: answers by itself and says so with true.
 */
export async function proxyTo(t, server, rules = {}) {
  const proxy = { rules, asked: [], answered: [] };
  const listener = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url, server.url);
    proxy.asked.push(url.pathname);
    if (proxy.rules.answer?.(url, outgoing)) return;
    proxy.rules.rewrite?.(url);
    const onward = request(url, { method: incoming.method, headers: incoming.headers }, (answer) => {
      proxy.answered.push({ path: url.pathname, status: answer.statusCode });
      const pass = () => outgoing.writeHead(answer.statusCode, answer.headers);
      if (proxy.rules.buffersAfterHello && url.pathname === '/v1/stream') {
        pass();
        answer.once('data', (bytes) => outgoing.write(bytes));
        answer.on('end', () => outgoing.end());
      } else if (!proxy.rules.buffers?.(url.pathname)) {
        pass();
        answer.pipe(outgoing);
      } else {
        const held = [];
        answer.on('data', (bytes) => held.push(bytes));
        answer.on('end', () => pass().end(Buffer.concat(held)));
      }
      answer.on('error', () => outgoing.destroy());
    });
    onward.on('error', () => outgoing.destroy());
    outgoing.on('close', () => onward.destroy());
    incoming.pipe(onward);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => {
    listener.closeAllConnections();
    listener.close();
  });
  proxy.url = `http://127.0.0.1:${listener.address().port}`;
  proxy.page = (path = '') => `${proxy.url}/${path}`;
  proxy.count = (path) => proxy.asked.filter((asked) => asked === path).length;
  return proxy;
}
