// tidings-poll.js: long poll in ES5, for old browsers. Events come once, in order.
// TidingsPoll.connect({url, token | ticket, cursor, onevent(event), onstatus(status, why)}) -> {cursor, close()}
var TidingsPoll = { connect: function (o) {
  var self = { cursor: o.cursor || '', close: function () { end('closed'); } };
  var me = 'p' + Math.random().toString(36).slice(2);
  var status, timer, xhr, failures = 0, since = 0;

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
      call(o.onevent, e);
      if (e.event === 'bye') return e.data.reconnect ? fail(e.data.retry_ms) : end(e.data.reason);
    }
    if (status === 'ended') return;
    self.cursor = a.cursor;
    tell('live');
    // No storm, least of all of empty answers.
    later(wait && !i && took < 1e3 ? 1e3 + Math.random() * 1e3 : 200, a.more ? 0 : 25);
  }

  function ask(wait) {
    var x = xhr = new XMLHttpRequest(), began = new Date();
    x.open('GET', o.url + 'v1/poll?wait=' + wait + '&client=' + me +
      (self.cursor && '&cursor=' + self.cursor) + (o.ticket ? '&ticket=' + o.ticket : ''));
    if (o.token) x.setRequestHeader('Authorization', 'Bearer ' + o.token);
    x.withCredentials = !o.token && !o.ticket;
    x.timeout = (wait + 15) * 1e3;
    x.onerror = x.ontimeout = function () { fail(); };
    x.onload = function () {
      var a;
      try { a = JSON.parse(x.responseText); } catch (e) { a = {}; }
      if (x.status === 200 && a.events) take(a, wait, new Date() - began);
      else if (/40[13]/.test(x.status)) end(a.code);
      else fail(x.getResponseHeader('Retry-After') * 1e3);
    };
    x.send();
  }

  tell('connecting');
  if (status !== 'ended') ask(0);
  return self;
} };
