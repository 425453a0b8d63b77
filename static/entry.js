// entry.js owns how one entry looks: it makes the article for an entry and keeps its state up to date.
//
// Invariant: whatever a publisher wrote becomes text, never markup; a link only where `safeLink` says so.
// It deliberately makes no request and knows no list: what a button does is the inbox's business (element-inbox.js).

import { icon, make } from './dom.js';

const SAFE_LINKS = new Set(['http:', 'https:', 'mailto:']);
/** Priorities that are worth a word. */
const PRIORITIES = new Set([1, 2, 4, 5]);
/** A body longer than this, or of more lines, is folded. */
const FOLD_CHARACTERS = 420;
const FOLD_LINES = 6;

/** What a path in a link is relative to: the root of the page's host, where the application's own paths begin. */
function here() {
  return new URL('/', globalThis.document?.baseURI ?? import.meta.url);
}

/** The address of a link that may be followed, or null. The URL parser is the judge, so no spelling slips through. */
export function safeLink(text) {
  if (typeof text !== 'string' || text.trim() === '') return null;
  try {
    const url = new URL(text, here());
    return SAFE_LINKS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** The address of a picture that may be shown, or null. */
export function safeIcon(text) {
  if (typeof text !== 'string' || text === '') return null;
  try {
    const url = new URL(text, here());
    const own = url.origin === here().origin;
    return own || url.protocol === 'https:' || /^data:image\//.test(url.href) ? url.href : null;
  } catch {
    return null;
  }
}

/** What the entry is called where there is room for one line. */
const nameOf = (entry, words) => entry.title || entry.body || words.say('untitled');

/** Says the time anew in every <time> below `root`. */
export function refreshTimes(root, words, now = new Date()) {
  for (const element of root.querySelectorAll('time')) {
    const text = words.ago(new Date(element.dateTime), now);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** A new article for an entry. Its content never changes, only its state: see `paintState`. */
export function createEntry(entry, { words, level, readonly }) {
  const own = `entry-${entry.seq}`;
  const both = Boolean(entry.title && entry.body);
  const main = make('div', { class: 'entry-main' },
    make('span', { id: `${own}-unread`, class: 'visually-hidden' }),
    makeTitle(entry, own, { words, level }),
    ...(both ? makeBody(entry, own, words) : []),
    makeActions(entry.actions),
    makeMeta(entry, own, words));
  return make('article', {
    class: 'entry',
    part: 'entry',
    tabindex: '0',
    'data-id': entry.id,
    'aria-labelledby': `${own}-unread ${own}-title`,
    'aria-describedby': both ? `${own}-body ${own}-meta` : `${own}-meta`,
  }, makeAvatar(entry), main, readonly ? null : makeButtons());
}

function anchor(href, text, attributes) {
  return make('a', { href, rel: 'noopener noreferrer', ...attributes }, text);
}

function makeTitle(entry, own, { words, level }) {
  const link = safeLink(entry.click);
  const text = nameOf(entry, words);
  return make(`h${level}`, { id: `${own}-title`, class: 'entry-title', part: 'title', dir: 'auto' },
    link ? anchor(link, text, { class: 'entry-link', part: 'link' }) : text);
}

/** The body, and a button that unfolds it where it is long. */
function makeBody(entry, own, words) {
  const body = make('p', { id: `${own}-body`, class: 'entry-body', part: 'body', dir: 'auto' }, entry.body);
  const long = entry.body.length > FOLD_CHARACTERS || entry.body.split('\n').length > FOLD_LINES;
  if (!long) return [body];
  body.classList.add('is-folded');
  const more = make('button', { type: 'button', class: 'more', part: 'more', 'aria-expanded': 'false', 'aria-controls': body.id }, words.say('showMore'));
  more.addEventListener('click', () => {
    const open = body.classList.toggle('is-folded') === false;
    more.setAttribute('aria-expanded', String(open));
    more.textContent = words.say(open ? 'showLess' : 'showMore');
  });
  return [body, more];
}

function makeActions(actions) {
  const links = (actions ?? []).slice(0, 3).map(({ label, click }) => ({ label, link: safeLink(click) }));
  const good = links.filter(({ label, link }) => link && label);
  if (!good.length) return null;
  return make('div', { class: 'entry-actions', part: 'actions' },
    ...good.map(({ label, link }) => anchor(link, label, { class: 'button button-small', part: 'action', 'data-action': label })));
}

function makeMeta(entry, own, words) {
  const created = new Date(entry.created_at);
  const from = entry.sender ?? entry.topic;
  const facts = [
    PRIORITIES.has(entry.priority)
      && make('span', { class: 'priority', part: 'priority', 'data-priority': entry.priority }, words.say(`priority${entry.priority}`)),
    entry.category && make('bdi', { part: 'category' }, entry.category),
    from && make('bdi', { part: 'sender' }, from),
    make('time', { part: 'time', datetime: entry.created_at, title: words.exactly(created) }, words.ago(created, new Date())),
  ];
  // The dots between them stand in the direction of the page, so outside of what has its own.
  return make('p', { id: `${own}-meta`, class: 'entry-meta', part: 'meta' }, ...facts.filter(Boolean).map((fact) => make('span', {}, fact)));
}

/** The publisher's icon, or the first letter of whom it comes from. */
function makeAvatar(entry) {
  const name = entry.sender || entry.topic || entry.category || '?';
  const [letter] = name; // A whole code point, also outside the basic plane.
  const avatar = make('span', { class: 'entry-avatar', part: 'avatar', 'aria-hidden': 'true' }, letter.toUpperCase());
  const source = safeIcon(entry.icon);
  if (source) {
    const image = make('img', { alt: '', referrerpolicy: 'no-referrer' });
    image.addEventListener('load', () => avatar.replaceChildren(image), { once: true });
    image.src = source;
  }
  return avatar;
}

function makeButtons() {
  return make('div', { class: 'entry-buttons', part: 'buttons' },
    make('button', { type: 'button', class: 'icon-button', part: 'icon-button read' }, icon('read'), icon('unread')),
    make('button', { type: 'button', class: 'icon-button', part: 'icon-button archive' }, icon('archived'), icon('unarchived')));
}

/** Shows whether the entry is unread and archived, and what its buttons would do. */
export function paintState(article, entry, words) {
  const unread = !entry.state.read_at;
  const archived = Boolean(entry.state.archived_at);
  const part = (name) => article.querySelector(`[part~="${name}"]`);
  article.dataset.unread = String(unread);
  article.part.toggle('entry-unread', unread);
  article.querySelector('[id$="-unread"]').textContent = unread ? words.say('unreadEntry') : '';
  label(part('read'), unread ? 'read' : 'unread', words.say(unread ? 'markRead' : 'markUnread'), entry, words);
  label(part('archive'), archived ? 'unarchived' : 'archived', words.say(archived ? 'unarchive' : 'archive'), entry, words);
}

/** Names a button. Its two drawings stand in the order that `as` may have; the one that fits is shown. */
function label(button, as, text, entry, words) {
  if (!button || button.dataset.as === as) return;
  button.dataset.as = as;
  button.title = text;
  button.setAttribute('aria-label', words.say('entryButton', { action: text, title: nameOf(entry, words) }));
  const [first, second] = button.children;
  const isFirst = as === 'read' || as === 'archived';
  first.toggleAttribute('hidden', !isFirst);
  second.toggleAttribute('hidden', isFirst);
}
