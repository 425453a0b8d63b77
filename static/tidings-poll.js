// tidings-poll.js: long poll in ES5, for old browsers. Events come once, in order.
// TidingsPoll.connect({url, token | ticket, cursor, onevent(event), onstatus(status, why)}) -> {cursor, close()}
// url: default where this script came from, one folder up. token, ticket: a string, or function (why, give), which calls
// give(value), with nothing where nobody is signed in; why is 'start', 'expires' or 'refused'.
var TidingsPoll = (function () {
var script = typeof document !== 'undefined' && (document.currentScript || [].slice.call(document.scripts).pop());
var root = script && script.src.replace(/[^\/]*\/[^\/]*$/, '');

return { connect: function (o) {
  var self = { cursor: o.cursor || '', close: function () { end('closed'); } };
  var me = 'p' + Math.random().toString(36).slice(2);
  var url = (o.url || root).replace(/\/?$/, '/');
  var secret = o.token || o.ticket, source = typeof secret === 'function' && secret;
  var status, timer, xhr, failures = 0, since = 0, renewed, warned;
  if (source) secret = '';

  // A handler's fault costs no event.
  function call(f, a, b) {
    try { if (f) f(a, b); } catch (e) { setTimeout(function () { throw e; }); }
  }
  function tell(to, why) {
    if (to !== status && status !== 'ended') call(o.onstatus, status = to, why);
  }
  function end(why) {
    tell('ended', why);
    clearTimeout(timer);
    if (xhr) xhr.abort();
  }
  function later(ms, wait) {
    if (status !== 'ended') timer = setTimeout(function () { ask(wait); }, ms);
  }
  // Full jitter; after ten good seconds the next failure is the first again.
  function fail(least) {
    if (since && new Date() - since > 1e4) failures = 0;
    since = 0;
    tell('reconnecting');
    later(Math.max(least || 0, Math.random() * Math.min(3e4, 1e3 * Math.pow(2, failures++))), 0);
  }

  // A callback that throws is asked again later.
  function renew(why, wait) {
    var done;
    function give(value) {
      if (done) return;
      done = 1;
      if (value || why === 'expires') {
        secret = value || secret;
        later(0, wait);
      } else end('signed-out');
    }
    try { source(why, give); } catch (e) { done = 1; fail(); call(function () { throw e; }); }
  }
  // Once, until an answer proves the new one.
  function refused(why) {
    if (!source || renewed || why === 'unauthenticated') return end(why);
    renewed = 1;
    secret = '';
    renew('refused', 0);
  }

  function covered(id, last) {
    var a = id.split('.'), b = last.split('.');
    return a[0] === b[0] && +a[1] <= +b[1];
  }
  function take(a, wait, took) {
    var i, e, all = a.events, last = a.recovered ? self.cursor : '';
    if (!since || !last) all.unshift({ event: 'hello', data: { user: a.user, recovered: a.recovered, reason: a.reason, counts: a.counts } });
    since = since || new Date();
    for (i = 0; i < all.length && status !== 'ended'; i++) {
      e = all[i];
      if (e.id && covered(e.id, last)) continue;
      if (e.id) self.cursor = last = e.id;
      // What came between two polls is new to one who had heard everything up to then.
      if (wait && e.data.replayed) e.data.replayed = false;
      call(o.onevent, e);
      if (e.event === 'bye') return e.data.reconnect ? fail(e.data.retry_ms) : e.data.reason === 'expired' ? refused('expired') : end(e.data.reason);
    }
    if (status === 'ended') return;
    self.cursor = a.cursor;
    renewed = 0;
    tell('live');
    if (source && a.expires && a.expires !== warned && Date.parse(a.expires) - new Date() < 6e4) {
      warned = a.expires;
      return renew('expires', a.more ? 0 : 25);
    }
    // No storm, least of all of empty answers.
    later(wait && !i && took < 1e3 ? 1e3 + Math.random() * 1e3 : 200, a.more ? 0 : 25);
  }

  function ask(wait) {
    if (source && !secret) return renew('start', 0);
    var x = xhr = new XMLHttpRequest(), began = new Date();
    x.open('GET', url + 'v1/poll?wait=' + wait + '&client=' + me +
      (self.cursor && '&cursor=' + self.cursor) + (o.ticket ? '&ticket=' + secret : ''));
    if (o.token) x.setRequestHeader('Authorization', 'Bearer ' + secret);
    x.withCredentials = !o.token && !o.ticket;
    x.timeout = (wait + 15) * 1e3;
    x.onerror = x.ontimeout = function () { fail(); };
    x.onload = function () {
      var a;
      try { a = JSON.parse(x.responseText); } catch (e) { a = {}; }
      if (x.status === 200 && a.events) take(a, wait, new Date() - began);
      else if (x.status === 401) refused(a.code);
      else if (x.status === 403) end(a.code);
      else fail(x.getResponseHeader('Retry-After') * 1e3);
    };
    x.send();
  }

  tell('connecting');
  if (status !== 'ended') ask(0);
  return self;
} };
})();
