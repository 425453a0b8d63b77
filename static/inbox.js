// inbox.js owns the inbox page: it joins the list (list.js), the stream (feed.js) and the document.
//
// Data passes so: a page of the inbox gives entries, counts and a position; the stream begins at that position, so nothing
// falls between them and no snapshot is needed. Events change the list, the list is drawn some milliseconds later.
// Counts are shown as the server says them, and an answer that is older than the one on display is ignored.
// Invariant: every mark of many entries goes by `upto`, the position the person has on display, never further.

import { isSignedOut, request } from './api.js';
import { createEntry, paintState, refreshTimes } from './entry.js';
import { Feed, isCovered, parseCursor } from './feed.js';
import { EntryList } from './list.js';
import { showSignIn } from './signin.js';

const PAGE = 30;
/** Above this many entries a list at its top is loaded anew, so that a page left open for weeks stays small. */
const KEEP = 600;
/** More ids than this in one `state` are not fetched one by one. */
const FETCH_LIMIT = 10;
const DRAW_MS = 30;
const ANNOUNCE_MS = 1_000;
const SEEN_MS = 700;
const BANNER_MS = 1_200;
const TOAST_MS = 8_000;
const RETRY_MS = 4_000;
const BADGE_LIMIT = 99;

const $ = (id) => document.getElementById(id);
const template = $('entry');
const feedElement = $('feed');
const elements = new Map();

let list = new EntryList({ tab: 'all' });
let user = null;
let counts = null;
let countsAsOf = null;
/** 'loading', 'ready', 'failed' or 'signed-out' */
let phase = 'loading';
let loading = null;
/** State and notification events since a page was asked for: applied again once it is there, see `load`. */
let overlap = [];
let arrived = [];

const feed = new Feed({ onEvent: receive, onStatus: showStatus });
const now = () => new Date().toISOString();

// --- Loading ---------------------------------------------------------------------------------------------------------

/** Loads the newest page of the tab. Events that overtake it are kept and applied to what it brings. */
async function load({ quietly = false } = {}) {
  loading?.abort();
  const mine = (loading = new AbortController());
  overlap = [];
  if (!quietly) {
    phase = 'loading';
    list = new EntryList({ tab: list.tab, category: list.category });
    draw();
  }
  const fresh = new EntryList({ tab: list.tab, category: list.category });
  let page;
  try {
    page = await request('GET', 'v1/inbox', {
      query: { limit: PAGE, state: list.tab, category: list.category },
      signal: mine.signal,
    });
  } catch (error) {
    if (mine.signal.aborted) return;
    loading = null;
    if (isSignedOut(error)) return signedOut();
    if (quietly) return void setTimeout(() => phase === 'ready' && load({ quietly }), RETRY_MS);
    phase = 'failed';
    $('failure-text').textContent = error.message;
    return draw();
  }
  loading = null;
  fresh.addPage(page, { newest: true });
  const unsettled = replayOverlap(fresh);
  list = fresh;
  phase = 'ready';
  takeCounts(page.counts, page.cursor);
  if (!feed.last) feed.open(page.cursor);
  draw();
  markSeenSoon();
  for (const one of unsettled) settle(one);
}

function replayOverlap(onto) {
  const unsettled = [];
  for (const [kind, data, cursor] of overlap) {
    if (isCovered(cursor, onto.cursor)) continue;
    if (kind === 'notification') onto.addNotification(data, cursor);
    else unsettled.push(onto.applyState(data, cursor, now()));
  }
  return unsettled;
}

async function loadOlder() {
  if (loading || phase !== 'ready' || list.next === null) return;
  const mine = (loading = new AbortController());
  const onto = list;
  overlap = [];
  $('older').setAttribute('aria-disabled', 'true');
  $('older').textContent = 'Loading…';
  feedElement.setAttribute('aria-busy', 'true');
  try {
    const page = await request('GET', 'v1/inbox', {
      query: { before: onto.next, limit: PAGE, state: onto.tab, category: onto.category },
      signal: mine.signal,
    });
    onto.addPage(page, { newest: false });
    for (const [kind, data, cursor] of overlap) if (kind === 'state') onto.applyState(data, cursor, now());
    // Still in sight after a short page: an observer speaks up again only if asked again.
    olderInSight.unobserve($('older-row'));
    olderInSight.observe($('older-row'));
  } catch (error) {
    if (mine.signal.aborted) return;
    if (isSignedOut(error)) return signedOut();
    toast(error.message);
  } finally {
    if (loading === mine) loading = null;
    $('older').removeAttribute('aria-disabled');
    $('older').textContent = 'Show older';
    draw();
  }
}

/** Fetches what an event named but the list does not hold. */
async function settle({ missing, reload }) {
  if (reload || missing.length > FETCH_LIMIT) return load({ quietly: true });
  const onto = list;
  for (const id of missing) {
    try {
      onto.addEntry(await request('GET', `v1/inbox/${encodeURIComponent(id)}`));
    } catch {
      continue; // Gone meanwhile, or the connection is: a `hello` will put it right.
    }
    draw();
  }
}

// --- The stream --------------------------------------------------------------------------------------------------------

function receive(kind, data, cursor) {
  if (kind === 'hello') return greet(data);
  if (kind === 'unread') return takeCounts(data, data.as_of);
  if (kind === 'token') return toast(`Your session ends in ${Math.round(data.seconds)} seconds.`);
  if (kind !== 'notification' && kind !== 'state') return;

  if (loading) overlap.push([kind, data, cursor]);
  if (kind === 'state') {
    const unsettled = list.applyState(data, cursor, now());
    if (!loading) settle(unsettled);
  } else if (list.addNotification(data, cursor)) {
    arrived.push(data);
    announceSoon();
    if (!data.replayed) pop();
    markSeenSoon();
    if (list.size > KEEP && scrollY < 200 && !loading) load({ quietly: true });
  }
  drawSoon();
}

function greet(hello) {
  // The cookie may be another person's by now: then nothing on display counts any more.
  const other = user !== null && user !== hello.user;
  user = hello.user;
  $('who').textContent = user;
  $('who').hidden = false;
  $('sign-out').hidden = false;
  if (other || !hello.recovered) countsAsOf = null;
  takeCounts(hello.counts, hello.head ?? hello.cursor);
  if (other || !hello.recovered) load({ quietly: !other });
}

function takeCounts(fresh, asOf) {
  if (!fresh) return;
  const same = parseCursor(countsAsOf)?.epoch === parseCursor(asOf)?.epoch;
  if (same && countsAsOf !== asOf && isCovered(asOf, countsAsOf)) return;
  counts = fresh;
  countsAsOf = asOf;
  drawCounts();
}

let bannerTimer = null;
function showStatus(status, why) {
  const words = { connecting: 'Connecting…', live: 'Live', reconnecting: 'Reconnecting…', ended: 'Offline' };
  $('connection').hidden = status === 'idle';
  $('connection').dataset.state = status;
  $('connection-text').textContent = words[status] ?? '';
  clearTimeout(bannerTimer);
  if (status === 'reconnecting') {
    // A short cut is nobody's business.
    bannerTimer = setTimeout(() => banner('Reconnecting… What arrives meanwhile will appear here by itself.'), BANNER_MS);
  } else {
    banner('');
  }
  if (status === 'ended' && why !== 'closed') signedOut(why);
}

function banner(text) {
  if (text) announce(text);
  else if (!$('banner').hidden) announce('Connected again.');
  $('banner').textContent = text;
  $('banner').hidden = text === '';
}

// --- Marks -------------------------------------------------------------------------------------------------------------

async function mark(body) {
  const answer = await request('POST', 'v1/inbox/mark', { body, keepalive: true });
  takeCounts(answer.counts, answer.cursor);
  return answer;
}

/** Marks one entry: shown at once, taken back if the server says no. */
async function markOne(id, as) {
  const takeBack = list.expect(id, as, now());
  draw();
  try {
    await mark({ as, ids: [id] });
    return true;
  } catch (error) {
    if (isSignedOut(error)) signedOut();
    takeBack();
    draw();
    toast(`That did not work: ${error.message}`);
    return false;
  }
}

async function markAllRead() {
  if (!list.cursor || $('mark-all').getAttribute('aria-disabled') === 'true') return;
  try {
    await mark({ as: 'read', upto: list.cursor, category: list.category || undefined });
  } catch (error) {
    if (isSignedOut(error)) return signedOut();
    toast(`That did not work: ${error.message}`);
  }
}

let seenTimer = null;
/** Who looks at the page has seen what is on it, which is not to say read. */
function markSeenSoon() {
  clearTimeout(seenTimer);
  seenTimer = setTimeout(() => {
    if (document.visibilityState !== 'visible' || phase !== 'ready' || !counts?.unseen || !list.cursor) return;
    mark({ as: 'seen', upto: list.cursor }).catch(() => {}); // Not worth a word: the next visit says it again.
  }, SEEN_MS);
}

async function archive(id, as) {
  const neighbour = focusAfter(id);
  const done = markOne(id, as);
  neighbour?.focus();
  if (!(await done)) return;
  const [text, undo] = as === 'archived' ? ['Archived', 'unarchived'] : ['Moved back to the inbox', 'archived'];
  toast(text, () => markOne(id, undo));
}

/** Where the focus goes when the entry it is in leaves the list. */
function focusAfter(id) {
  const element = elements.get(id);
  if (!element?.contains(document.activeElement)) return null;
  return element.nextElementSibling ?? element.previousElementSibling ?? $('main');
}

// --- Drawing -----------------------------------------------------------------------------------------------------------

let drawTimer = null;
function drawSoon() {
  drawTimer ??= setTimeout(draw, DRAW_MS);
}

function draw() {
  clearTimeout(drawTimer);
  drawTimer = null;
  $('sign-in').hidden = phase !== 'signed-out';
  $('inbox').hidden = phase === 'signed-out';
  const visible = phase === 'ready' ? list.visible : [];
  drawFeed(visible);
  $('loading').hidden = phase !== 'loading';
  $('failure').hidden = phase !== 'failed';
  $('older-row').hidden = phase !== 'ready' || list.next === null;
  drawEmpty(phase === 'ready' && visible.length === 0 && list.next === null);
  drawCounts();
}

/** Brings the feed's children in line with the list, moving as few as possible so that focus and scroll stay. */
function drawFeed(visible) {
  const wanted = new Set(visible.map((entry) => entry.id));
  for (const [id, element] of elements) {
    if (wanted.has(id)) continue;
    element.remove();
    elements.delete(id);
  }
  let place = feedElement.firstElementChild;
  visible.forEach((entry, index) => {
    let element = elements.get(entry.id);
    if (!element) {
      element = createEntry(template, entry);
      elements.set(entry.id, element);
      element.classList.toggle('is-new', arrived.some((one) => one.id === entry.id && !one.replayed));
    }
    if (element === place) place = place.nextElementSibling;
    else feedElement.insertBefore(element, place);
    element.setAttribute('aria-posinset', String(index + 1));
    element.setAttribute('aria-setsize', String(list.next === null ? visible.length : -1));
    paintState(element, entry);
  });
  feedElement.hidden = visible.length === 0;
  feedElement.setAttribute('aria-busy', String(phase === 'loading' || Boolean(loading)));
}

const EMPTY = {
  all: ['Nothing here yet', 'When something happens, it will appear here by itself.'],
  unread: ['All caught up', 'There is nothing you have not read.'],
  archived: ['Nothing archived', 'What you archive leaves the inbox and is kept here.'],
};

function drawEmpty(empty) {
  $('empty').hidden = !empty;
  if (!empty) return;
  const [title, text] = EMPTY[list.tab];
  $('empty-title').textContent = title;
  $('empty-text').textContent = text;
}

function drawCounts() {
  const unread = phase === 'signed-out' ? 0 : counts?.unread ?? 0;
  const short = unread > BADGE_LIMIT ? `${BADGE_LIMIT}+` : String(unread);
  const words = unread === 1 ? '1 unread' : `${unread} unread`;
  $('badge').textContent = short;
  $('badge').hidden = unread === 0;
  $('badge-words').textContent = words;
  $('unread-count').textContent = short;
  $('unread-count').hidden = unread === 0;
  $('summary').textContent = !counts ? '' : unread === 0 ? 'Nothing unread' : words;
  document.title = unread === 0 ? 'Inbox · Tidings' : `(${short}) Inbox · Tidings`;

  const here = list.category ? counts?.by_category?.[list.category]?.unread ?? 0 : unread;
  $('mark-all').hidden = list.tab === 'archived';
  $('mark-all').setAttribute('aria-disabled', String(here === 0));
  drawCategories();
}

/** The choice of category, where there is more than one to choose from. */
function drawCategories() {
  const names = new Set(Object.keys(counts?.by_category ?? {}));
  if (list.category) names.add(list.category);
  const sorted = [...names].sort();
  const select = $('category');
  const shown = [...select.options].slice(1).map((option) => option.value);
  if (shown.join('\n') !== sorted.join('\n')) {
    select.replaceChildren(new Option('All categories', ''), ...sorted.map((name) => new Option(name, name)));
  }
  select.value = list.category;
  $('category-label').hidden = sorted.length < 2 && !list.category;
}

function pop() {
  const bell = $('bell');
  bell.classList.remove('is-ringing');
  void bell.offsetWidth; // Lets the animation start anew.
  bell.classList.add('is-ringing');
}

/** Says a sentence to those who listen, when they are not busy. The only live region, since it is always there. */
function announce(text) {
  $('live').textContent = text;
}

let announceTimer = null;
/** One sentence for all that came in a second, for those who listen; a button up for those who have scrolled down. */
function announceSoon() {
  announceTimer ??= setTimeout(() => {
    announceTimer = null;
    const fresh = arrived;
    arrived = [];
    if (!fresh.length) return;
    const text = fresh.length === 1 ? '1 new notification' : `${fresh.length} new notifications`;
    announce(fresh.length === 1 ? `${text}: ${fresh[0].title || fresh[0].body}` : text);
    if (scrollY > 300) {
      $('news').textContent = `↑ ${text}`;
      $('news').hidden = false;
    }
  }, ANNOUNCE_MS);
}

let toastTimer = null;
function toast(text, undo = null) {
  announce(text);
  $('toast-text').textContent = text;
  $('toast-action').hidden = !undo;
  $('toast-action').onclick = () => {
    hideToast();
    undo();
  };
  $('toast').hidden = false;
  hideToastLater();
}

function hideToastLater() {
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hideToast, TOAST_MS);
}

function hideToast() {
  clearTimeout(toastTimer);
  if ($('toast').contains(document.activeElement)) $('main').focus();
  $('toast').hidden = true;
}

function signedOut(why) {
  if (phase === 'signed-out') return;
  loading?.abort();
  loading = null;
  phase = 'signed-out';
  user = counts = countsAsOf = null;
  list = new EntryList({ tab: list.tab, category: list.category });
  feed.close();
  for (const id of ['connection', 'who', 'sign-out', 'news']) $(id).hidden = true;
  draw();
  showSignIn($('sign-in'), { why, done: signedIn });
}

function signedIn() {
  feed.reset();
  load();
}

// --- What the person does ----------------------------------------------------------------------------------------------

function chooseTab(tab) {
  if (tab === list.tab) return;
  for (const button of document.querySelectorAll('[role="tab"]')) {
    const chosen = button.dataset.tab === tab;
    button.setAttribute('aria-selected', String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  $('panel').setAttribute('aria-labelledby', `tab-${tab}`);
  list = new EntryList({ tab, category: list.category });
  load();
}

$('tabs').addEventListener('click', (event) => {
  const tab = event.target.closest('[role="tab"]');
  if (tab) chooseTab(tab.dataset.tab);
});

$('tabs').addEventListener('keydown', (event) => {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.focus();
  chooseTab(tab.dataset.tab);
});

$('category').addEventListener('change', (event) => {
  list = new EntryList({ tab: list.tab, category: event.target.value });
  load();
});

$('mark-all').addEventListener('click', markAllRead);
$('older').addEventListener('click', loadOlder);
$('try-again').addEventListener('click', () => load());
$('news').addEventListener('click', () => {
  $('news').hidden = true;
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  scrollTo({ top: 0, behavior: calm ? 'auto' : 'smooth' });
  feedElement.firstElementChild?.focus({ preventScroll: true });
});
addEventListener('scroll', () => { if (scrollY < 100) $('news').hidden = true; }, { passive: true });
for (const kind of ['pointerenter', 'focusin']) $('toast').addEventListener(kind, () => clearTimeout(toastTimer));
for (const kind of ['pointerleave', 'focusout']) $('toast').addEventListener(kind, hideToastLater);

$('sign-out').addEventListener('click', async () => {
  try {
    await request('DELETE', 'v1/session');
    signedOut('signed-out');
  } catch (error) {
    toast(`That did not work: ${error.message}`);
  }
});

feedElement.addEventListener('click', (event) => {
  const id = event.target.closest('article')?.dataset.id;
  const button = event.target.closest('button[data-as]');
  if (button?.dataset.part === 'read') markOne(id, button.dataset.as);
  else if (button?.dataset.part === 'archive') archive(id, button.dataset.as);
  else if (event.target.closest('a[data-follows]') && !list.find(id)?.state.read_at) markOne(id, 'read');
});

/** The keys of the feed pattern: Page Up and Down walk the articles, Control+Home and +End leave the feed. */
feedElement.addEventListener('keydown', (event) => {
  const article = event.target.closest('article');
  const leave = event.ctrlKey && { Home: $('mark-all').hidden ? $('tab-archived') : $('mark-all'), End: afterFeed() }[event.key];
  const step = { PageDown: 'nextElementSibling', PageUp: 'previousElementSibling' }[event.key];
  const target = leave || (step && article?.[step]);
  if (!target && !step) return;
  event.preventDefault();
  if (target) target.focus();
  else if (event.key === 'PageDown') loadOlder();
});

function afterFeed() {
  if (!$('older-row').hidden) return $('older');
  return [...feedElement.querySelectorAll('a, button')].at(-1);
}

const olderInSight = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && loadOlder(), { rootMargin: '300px' });
olderInSight.observe($('older-row'));
setInterval(() => refreshTimes(feedElement), 30_000);
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState !== 'visible') return;
  refreshTimes(feedElement);
  if (phase === 'signed-out') retrySignIn();
  else markSeenSoon();
});

/** Somebody who comes back to this tab may have signed in elsewhere. */
async function retrySignIn() {
  try {
    await request('GET', 'v1/inbox/counts');
    signedIn();
  } catch {
    // Still not.
  }
}

load();
