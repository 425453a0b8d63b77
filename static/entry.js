// entry.js owns how one entry looks: it fills the page's <template id="entry"> and keeps the element up to date.
//
// Invariant: whatever a publisher wrote becomes text, never markup; a link only where `safeLink` says so.
// It deliberately makes no request and knows no list: what a button does is the page's business (inbox.js).

import { ROOT } from './api.js';

/** What a path in a link is relative to: the root of the host, where the application's own paths begin. */
const HERE = new URL('/', ROOT);
const SAFE_LINKS = new Set(['http:', 'https:', 'mailto:']);
const PRIORITIES = { 1: 'Lowest', 2: 'Low', 4: 'High', 5: 'Urgent' };
/** A body longer than this, or of more lines, is folded. */
const FOLD_CHARACTERS = 420;
const FOLD_LINES = 6;

/** The address of a link that may be followed, or null. The URL parser is the judge, so no spelling slips through. */
export function safeLink(text) {
  if (typeof text !== 'string' || text.trim() === '') return null;
  try {
    const url = new URL(text, HERE);
    return SAFE_LINKS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function safeIcon(text) {
  if (typeof text !== 'string' || text === '') return null;
  try {
    const url = new URL(text, HERE);
    const own = url.origin === HERE.origin;
    return own || url.protocol === 'https:' || /^data:image\//.test(url.href) ? url.href : null;
  } catch {
    return null;
  }
}

const STEPS = [[60, 'second', 1], [3600, 'minute', 60], [86400, 'hour', 3600], [604800, 'day', 86400]];
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });
const thisYear = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short' });
const otherYear = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short', year: 'numeric' });
const exact = new Intl.DateTimeFormat('en', { dateStyle: 'full', timeStyle: 'short' });

/** How long ago, in the words a person would use; a date once it is more than a week. */
export function ago(date, now) {
  const seconds = Math.max(0, (now - date) / 1000);
  if (seconds < 45) return 'just now';
  for (const [limit, unit, size] of STEPS) {
    if (seconds < limit) return relative.format(-Math.max(1, Math.floor(seconds / size)), unit);
  }
  return (date.getFullYear() === now.getFullYear() ? thisYear : otherYear).format(date);
}

/** Says the time anew in every <time> below `root`. */
export function refreshTimes(root, now = new Date()) {
  for (const element of root.querySelectorAll('time')) {
    const text = ago(new Date(element.dateTime), now);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** A new element for an entry. Its content never changes, only its state: see `paintState`. */
export function createEntry(template, entry) {
  const article = template.content.firstElementChild.cloneNode(true);
  const part = (name) => article.querySelector(`[data-part="${name}"]`);
  article.dataset.id = entry.id;
  const own = `entry-${entry.seq}`;

  const title = part('title');
  title.id = `${own}-title`;
  const text = entry.title || entry.body || 'Untitled';
  const link = safeLink(entry.click);
  if (link) {
    title.append(anchor(link, text, 'entry-link'));
  } else {
    title.textContent = text;
  }

  const body = part('body');
  body.id = `${own}-body`;
  const more = Boolean(entry.title && entry.body);
  if (more) body.textContent = entry.body;
  else body.remove();
  fold(part('more'), body);

  part('unread').id = `${own}-unread`;
  part('meta').id = `${own}-meta`;
  article.setAttribute('aria-labelledby', `${own}-unread ${own}-title`);
  article.setAttribute('aria-describedby', more ? `${own}-body ${own}-meta` : `${own}-meta`);

  paintMeta(part, entry);
  paintAvatar(part('avatar'), entry);
  paintActions(part('actions'), entry.actions);
  return article;
}

function anchor(href, text, className) {
  const a = document.createElement('a');
  a.href = href;
  a.textContent = text;
  a.className = className;
  a.rel = 'noopener noreferrer';
  a.dataset.follows = '';
  return a;
}

function fold(button, body) {
  const long = body.textContent.length > FOLD_CHARACTERS || body.textContent.split('\n').length > FOLD_LINES;
  if (!long) return button.remove();
  body.classList.add('is-folded');
  button.setAttribute('aria-controls', body.id);
  button.addEventListener('click', () => {
    const open = body.classList.toggle('is-folded') === false;
    button.setAttribute('aria-expanded', String(open));
    button.textContent = open ? 'Show less' : 'Show more';
  });
}

function paintMeta(part, entry) {
  const created = new Date(entry.created_at);
  const time = part('time');
  time.dateTime = entry.created_at;
  time.title = exact.format(created);
  time.textContent = ago(created, new Date());
  part('category').textContent = entry.category;
  const from = entry.sender ?? entry.topic;
  if (from) part('from').textContent = from;
  else part('from').remove();
  const priority = part('priority');
  if (PRIORITIES[entry.priority]) {
    priority.textContent = PRIORITIES[entry.priority];
    priority.dataset.priority = entry.priority;
  } else {
    priority.remove();
  }
}

/** The publisher's icon, or the first letter of whom it comes from. */
function paintAvatar(avatar, entry) {
  const name = entry.sender || entry.topic || entry.category || '?';
  const [letter] = name; // A whole code point, also outside the basic plane.
  const source = safeIcon(entry.icon);
  avatar.textContent = letter.toUpperCase();
  if (!source) return;
  const image = document.createElement('img');
  image.alt = '';
  image.referrerPolicy = 'no-referrer';
  image.addEventListener('load', () => avatar.replaceChildren(image), { once: true });
  image.src = source;
}

function paintActions(row, actions) {
  for (const { label, click } of (actions ?? []).slice(0, 3)) {
    const link = safeLink(click);
    if (link && label) row.append(anchor(link, label, 'button button-small'));
  }
  if (!row.childElementCount) row.remove();
}

/** Shows whether the entry is unread and archived, and what its buttons would do. */
export function paintState(article, entry) {
  const unread = !entry.state.read_at;
  const archived = Boolean(entry.state.archived_at);
  const part = (name) => article.querySelector(`[data-part="${name}"]`);
  article.dataset.unread = String(unread);
  part('unread').textContent = unread ? 'Unread:' : '';
  label(part('read'), unread ? 'read' : 'unread', unread ? 'Mark as read' : 'Mark as unread', entry);
  label(part('archive'), archived ? 'unarchived' : 'archived', archived ? 'Move back to inbox' : 'Archive', entry);
}

function label(button, as, text, entry) {
  button.dataset.as = as;
  button.title = text;
  button.setAttribute('aria-label', `${text}: ${entry.title || entry.body || 'Untitled'}`);
}
