// element-inbox.js owns <tidings-inbox>: it draws the model (inbox-model.js) and turns what the person does into marks.
//
// Data passes so: the source's events go into the model, the model says that it changed, the element is drawn some milliseconds
// later. Entries keep their elements from drawing to drawing, so that focus, scroll and what is unfolded stay.
// Invariant: nothing is put before what the person is reading. While the top of the list is out of sight, what comes is held
// back and a pill says how much; it goes in when the pill is pressed or the top is in sight again.
// Invariant: a drawing that takes away what has the focus gives it to something near, never to nothing.
// It deliberately counts nothing: numbers come from the source.

import { mayAsk } from './desktop.js';
import { icon, make } from './dom.js';
import { Announcer, TidingsElement } from './element-base.js';
import { inboxSheet } from './element-styles.js';
import { createEntry, paintState, refreshTimes, safeLink } from './entry.js';
import { InboxModel } from './inbox-model.js';
import { bare, isDeath } from './list.js';
import { short } from './strings.js';

const DRAW_MS = 30;
const SEEN_MS = 700;
const BANNER_MS = 1_200;
const TOAST_MS = 8_000;
const TIMES_MS = 30_000;
const COUNT_LIMIT = 99;
/** How far before the end of what is loaded more is asked for. */
const AHEAD = '300px';
const TABS = ['all', 'unread', 'archived'];
const SKELETON_ROWS = 4;
/** Ends that have words of their own. */
const ENDS = { expired: 'endedExpired', replaced: 'endedReplaced', 'another-user': 'endedOther' };

/** Every part that can be styled, also through a bell. */
export const INBOX_PARTS = [
  'base', 'toolbar', 'tabs', 'tab', 'tab-count', 'tools', 'category-select', 'control', 'mark-all', 'desktop', 'scroller', 'banner', 'pill', 'content', 'list',
  'entry', 'entry-unread', 'avatar', 'title', 'link', 'body', 'more', 'actions', 'action', 'meta', 'priority', 'category', 'sender', 'time', 'buttons',
  'icon-button', 'read', 'archive', 'loading', 'notice', 'empty', 'error', 'ended', 'try-again', 'older', 'toast', 'toast-action',
];

export class TidingsInbox extends TidingsElement {
  static observedAttributes = [...super.observedAttributes, 'readonly', 'desktop', 'scrolls', 'heading-level'];

  #model = null;
  #announcer = new Announcer(this);
  #nodes = {};
  #articles = new Map();
  /** Entries that came live and have not been drawn yet: they light up once. */
  #fresh = new Set();
  #inSight = false;
  #observers = [];
  #olderObserver = null;
  #timers = { draw: null, seen: null, banner: null, toast: null, times: null };
  #page = null;

  constructor() {
    super(inboxSheet);
    this.shadowRoot.addEventListener('click', (event) => this.#click(event));
    this.shadowRoot.addEventListener('keydown', (event) => this.#key(event));
  }

  connectedCallback() {
    super.connectedCallback();
    this.#page = new AbortController();
    document.addEventListener('visibilitychange', () => this.#look(), { signal: this.#page.signal });
    this.#timers.times = setInterval(() => refreshTimes(this.shadowRoot, this.words), TIMES_MS);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#page?.abort();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers.draw = this.#timers.seen = null;
    this.#announcer.stop();
    this.#disconnectObservers();
  }

  // --- The source --------------------------------------------------------------------------------------------------

  joined() {
    this.#model = new InboxModel(this.source, () => this.#drawSoon());
    this.#wantDesktop();
    this.build();
    this.#model.open();
  }

  left() {
    this.#model?.close();
    this.#model = null;
  }

  changed() {
    this.#wantDesktop();
    if (this.isConnected && this.words) this.build();
  }

  receive(kind, data, cursor) {
    if (kind === 'counts' && data && !this.#isInside) this.tell('counts', data);
    if (kind === 'status') this.#showStatus();
    if (kind === 'status' && !this.#isInside) this.tell('status', { status: data, why: this.source.why });
    if (kind === 'token' && !this.source.renews) this.#toast(this.words.say('sessionEnds', { n: Math.round(data.seconds) }));
    if (kind === 'state' && isDeath(data)) this.#announcer.forget(data.ids);
    // The observer tells a moment after the scroll, and this may be that moment.
    if (kind === 'notification' && this.#isScrolledAway) this.#model.holding = true;
    const isNew = this.#model.receive(kind, data, cursor);
    if (this.#model.phase === 'ended') this.#draw(); // Nothing of a person who has left stays in sight for a moment longer.
    else this.#drawSoon();
    return kind === 'notification' ? this.#arrive(data, isNew) : true;
  }

  #arrive(entry, isNew) {
    if (isNew && !entry.replayed) this.#fresh.add(entry.id);
    this.#seenSoon();
    if (this.#isInside) return true;
    if (isNew && !entry.state?.read_at && (!entry.replayed || this.source.recovered)) this.#announcer.arrived(entry);
    return this.tell('notification', { notification: entry, replayed: entry.replayed }, { cancelable: true });
  }

  /** Whether a bell around it speaks for it. */
  get #isInside() {
    return this.hasAttribute('inside');
  }

  #wantDesktop() {
    if (this.#isInside) return;
    if (this.hasAttribute('desktop')) this.source?.desktop.want(this);
    else this.source?.desktop.release(this);
  }

  // --- Insides -----------------------------------------------------------------------------------------------------

  /** Makes everything anew, in `this.words`. */
  build() {
    this.#articles.clear();
    const nodes = (this.#nodes = {});
    const base = make('div', { class: 'base', part: 'base', lang: this.words.locale },
      make('slot', { name: 'header' }),
      this.#makeToolbar(nodes),
      (nodes.scroller = make('div', { class: 'scroller', part: 'scroller' },
        (nodes.banner = make('p', { id: 'banner', class: 'banner', part: 'banner', hidden: true })),
        make('div', { class: 'pill-rail' }, (nodes.pill = make('button', { type: 'button', id: 'pill', class: 'pill', part: 'pill', hidden: true }))),
        this.#makePanel(nodes))),
      make('slot', { name: 'footer' }));
    nodes.pill.addEventListener('click', () => this.#showNews());
    this.shadowRoot.replaceChildren(base, this.#makeToast(nodes), this.#announcer.node);
    this.#observe();
    this.#draw();
    this.#showStatus();
  }

  #makeToolbar(nodes) {
    const { words } = this;
    nodes.tabs = make('div', { class: 'tabs', part: 'tabs', role: 'tablist', 'aria-label': words.say('tabs') },
      ...TABS.map((tab) => make('button', { type: 'button', role: 'tab', id: `tab-${tab}`, part: 'tab', 'data-tab': tab, 'aria-controls': 'panel' }, words.say(tab))));
    nodes.unread = make('span', { id: 'unread-count', class: 'tab-count', part: 'tab-count', hidden: true });
    nodes.tabs.children[1].append(' ', nodes.unread);
    nodes.category = make('select', { id: 'category', part: 'category-select', 'aria-label': words.say('category') });
    nodes.category.addEventListener('change', () => this.#choose({ category: nodes.category.value }));
    nodes.categoryBox = make('span', { class: 'select', hidden: true }, nodes.category);
    nodes.markAll = make('button', { type: 'button', id: 'mark-all', class: 'button', part: 'control mark-all' }, words.say('markAll'));
    nodes.markAll.addEventListener('click', () => this.#markAll());
    nodes.desktop = make('button', { type: 'button', id: 'desktop', class: 'button', part: 'control desktop', hidden: true }, words.say('enableDesktop'));
    nodes.desktop.addEventListener('click', () => this.#askForDesktop());
    nodes.toolbar = make('div', { class: 'toolbar', part: 'toolbar' }, nodes.tabs,
      make('div', { class: 'tools', part: 'tools' }, nodes.desktop, nodes.categoryBox, nodes.markAll));
    return nodes.toolbar;
  }

  #makePanel(nodes) {
    const { words } = this;
    nodes.top = make('div', { class: 'top', 'aria-hidden': 'true' });
    nodes.list = make('div', { id: 'feed', class: 'list', part: 'list', role: 'feed', 'aria-label': words.say('notifications'), 'aria-busy': 'true', hidden: true });
    nodes.loading = make('div', { id: 'loading', class: 'skeleton', part: 'loading', hidden: true }, make('slot', { name: 'loading' },
      make('span', { class: 'visually-hidden' }, words.say('loading')),
      ...Array.from({ length: SKELETON_ROWS }, () => make('div', { class: 'skeleton-row', 'aria-hidden': 'true' }, make('i'), make('b'), make('s')))));
    nodes.empty = this.#makeNotice('empty', 'bell');
    nodes.ended = this.#makeNotice('ended', 'bell');
    nodes.error = this.#makeNotice('error', null);
    nodes.error.setAttribute('role', 'alert');
    nodes.again = make('button', { type: 'button', id: 'try-again', class: 'button', part: 'control try-again' }, words.say('tryAgain'));
    nodes.again.addEventListener('click', () => this.#model.load());
    nodes.error.append(nodes.again);
    nodes.older = make('button', { type: 'button', id: 'older', class: 'button', part: 'control older' }, words.say('older'));
    nodes.older.addEventListener('click', () => this.#loadOlder());
    nodes.olderRow = make('div', { id: 'older-row', class: 'older', hidden: true }, nodes.older);
    nodes.panel = make('section', { id: 'panel', class: 'panel', part: 'content', role: 'tabpanel', tabindex: '-1' },
      nodes.top, nodes.list, nodes.loading, nodes.empty, nodes.ended, nodes.error, nodes.olderRow);
    return nodes.panel;
  }

  /** A calm statement in place of the list; a slot of the same name replaces it. */
  #makeNotice(name, drawing) {
    return make('div', { id: name, class: 'notice', part: `notice ${name}`, hidden: true }, make('slot', { name },
      drawing ? icon(drawing, { class: 'notice-icon' }) : null, make(`h${this.#level}`, { class: 'notice-title' }), make('p')));
  }

  #makeToast(nodes) {
    nodes.toastText = make('span', { id: 'toast-text' });
    nodes.toastAction = make('button', { type: 'button', id: 'toast-action', part: 'toast-action' }, this.words.say('undo'));
    nodes.toast = make('div', { id: 'toast', class: 'toast', part: 'toast', hidden: true }, nodes.toastText, nodes.toastAction);
    for (const kind of ['pointerenter', 'focusin']) nodes.toast.addEventListener(kind, () => clearTimeout(this.#timers.toast));
    for (const kind of ['pointerleave', 'focusout']) nodes.toast.addEventListener(kind, () => this.#hideToastLater());
    return nodes.toast;
  }

  get #level() {
    const level = Number(this.getAttribute('heading-level') ?? 2);
    return Number.isInteger(level) && level >= 1 && level <= 6 ? level : 2;
  }

  // --- In sight ----------------------------------------------------------------------------------------------------

  /** Watches whether the element is in sight, whether the top of its list is, and whether the end of what is loaded is near. */
  #observe() {
    this.#disconnectObservers();
    const { top, olderRow, scroller } = this.#nodes;
    const root = this.hasAttribute('scrolls') ? scroller : null;
    const watch = (target, options, act) => {
      const observer = new IntersectionObserver((seen) => act(seen.at(-1).isIntersecting), options);
      observer.observe(target);
      this.#observers.push(observer);
      return observer;
    };
    watch(this, {}, (inSight) => {
      this.#inSight = inSight;
      this.#look();
    });
    watch(top, {}, (inSight) => {
      if (!this.#model) return;
      this.#model.holding = !inSight;
      if (inSight) this.#release();
    });
    this.#olderObserver = watch(olderRow, { root, rootMargin: AHEAD }, (inSight) => inSight && this.#loadOlder());
  }

  #disconnectObservers() {
    for (const observer of this.#observers) observer.disconnect();
    this.#observers = [];
  }

  /** The person may be looking now. */
  #look() {
    if (document.visibilityState !== 'visible') return;
    refreshTimes(this.shadowRoot, this.words);
    this.#seenSoon();
  }

  #seenSoon() {
    this.#timers.seen ??= setTimeout(async () => {
      this.#timers.seen = null;
      const looks = document.visibilityState === 'visible' && this.#inSight && !this.readonly;
      const answer = looks ? await this.#model?.markSeen() : null;
      if (answer) this.tell('mark', answer);
    }, SEEN_MS);
  }

  get #isScrolledAway() {
    const { top, scroller } = this.#nodes;
    const edge = this.hasAttribute('scrolls') ? scroller.getBoundingClientRect().top : 0;
    return top.getBoundingClientRect().bottom < edge;
  }

  async #release() {
    if (this.#model.list.held === 0) return;
    await this.#model.release();
    this.#draw();
    this.#seenSoon();
  }

  /** The pill was pressed: the news go in, and the person goes to the top. */
  async #showNews() {
    await this.#release();
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    const { scroller, list } = this.#nodes;
    const behavior = calm ? 'auto' : 'smooth';
    if (this.hasAttribute('scrolls')) scroller.scrollTo({ top: 0, behavior });
    else this.scrollIntoView({ block: 'start', behavior });
    list.firstElementChild?.focus({ preventScroll: true });
  }

  async #loadOlder() {
    try {
      await this.#model?.loadOlder();
      // Still in sight after a short page: an observer speaks up again only if asked again.
      this.#olderObserver.unobserve(this.#nodes.olderRow);
      this.#olderObserver.observe(this.#nodes.olderRow);
    } catch (error) {
      this.#toast(this.words.reason(error));
    }
  }

  // --- Drawing -----------------------------------------------------------------------------------------------------

  #drawSoon() {
    this.#timers.draw ??= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw() {
    clearTimeout(this.#timers.draw);
    this.#timers.draw = null;
    const keepFocus = this.#guardFocus();
    this.#drawParts();
    keepFocus();
  }

  /** Notes what has the focus and who is near; answers what hands the focus on if that is no longer shown. */
  #guardFocus() {
    const held = this.shadowRoot.activeElement;
    if (!held) return () => {};
    const near = [...this.#near(held), this.#nodes.panel];
    return () => {
      if (!isShown(held)) near.find(isShown)?.focus({ preventScroll: true });
    };
  }

  /** Who takes the focus over, the best one first: beside an entry the next ones and then those before, below the list its last. */
  #near(held) {
    const { list, toolbar, olderRow, markAll, tabs } = this.#nodes;
    const articles = [...list.children];
    const at = articles.findIndex((article) => article.contains(held));
    if (at >= 0) return [...articles.slice(at + 1), ...articles.slice(0, at).reverse()];
    if (olderRow.contains(held)) return articles.reverse();
    return toolbar.contains(held) ? [markAll, ...tabs.querySelectorAll('[aria-selected="true"]')] : [];
  }

  #drawParts() {
    const model = this.#model;
    const { loading, empty, ended, error, olderRow, older, toolbar } = this.#nodes;
    const phase = model?.phase ?? 'loading';
    const visible = phase === 'ready' ? model.list.visible : [];
    this.#drawList(visible);
    loading.hidden = phase !== 'loading';
    toolbar.hidden = phase === 'ended';
    olderRow.hidden = phase !== 'ready' || model.list.next === null;
    older.textContent = this.words.say(model?.isLoading ? 'loadingOlder' : 'older');
    older.setAttribute('aria-disabled', String(Boolean(model?.isLoading)));
    empty.hidden = phase !== 'ready' || visible.length > 0 || model.list.next !== null;
    ended.hidden = phase !== 'ended';
    error.hidden = phase !== 'failed';
    if (model) this.#drawNotices();
    this.#drawTools();
    this.#drawPill();
    if (phase === 'ready' && model.counts?.unseen) this.#seenSoon();
  }

  /** Brings the list's children in line with the model, moving as few as possible so that focus and scroll stay. */
  #drawList(visible) {
    const { list } = this.#nodes;
    const wanted = new Set(visible.map((entry) => entry.id));
    for (const [id, article] of this.#articles) {
      if (wanted.has(id)) continue;
      article.remove();
      this.#articles.delete(id);
    }
    let place = list.firstElementChild;
    visible.forEach((entry, index) => {
      const article = this.#articles.get(entry.id) ?? this.#makeArticle(entry);
      if (article === place) place = place.nextElementSibling;
      else list.insertBefore(article, place);
      article.setAttribute('aria-posinset', String(index + 1));
      article.setAttribute('aria-setsize', String(this.#model.list.next === null ? visible.length : -1));
      paintState(article, entry, this.words);
    });
    list.hidden = visible.length === 0;
    list.setAttribute('aria-busy', String(Boolean(this.#model?.isLoading)));
  }

  #makeArticle(entry) {
    const article = createEntry(entry, { words: this.words, level: this.#level, readonly: this.readonly });
    article.classList.toggle('is-new', this.#fresh.delete(entry.id));
    this.#articles.set(entry.id, article);
    return article;
  }

  #drawNotices() {
    const { words } = this;
    const { empty, ended, error } = this.#nodes;
    const { list, phase, why } = this.#model;
    const say = (notice, title, text) => {
      notice.querySelector('.notice-title').textContent = title;
      notice.querySelector('p').textContent = text;
    };
    const tab = `empty${list.tab[0].toUpperCase()}${list.tab.slice(1)}`;
    say(empty, words.say(tab), words.say(`${tab}Text`));
    const end = ENDS[why] ?? 'ended';
    say(ended, words.say(end), words.say(`${end}Text`));
    if (phase !== 'failed') return;
    if (this.source.status === 'offline') say(error, words.say('offline'), words.say('offlineText'));
    else say(error, words.say('failed'), words.reason(why));
  }

  #drawTools() {
    const { tabs, unread, markAll, desktop } = this.#nodes;
    const list = this.#model?.list;
    for (const tab of tabs.children) {
      const chosen = tab.dataset.tab === (list?.tab ?? 'all');
      tab.setAttribute('aria-selected', String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      // Without pages to ask for there is nothing to show what was archived.
      tab.hidden = tab.dataset.tab === 'archived' && Boolean(this.source?.readonly);
    }
    this.#nodes.panel.setAttribute('aria-labelledby', `tab-${list?.tab ?? 'all'}`);
    const n = this.#model?.counts?.unread ?? 0;
    unread.textContent = short(n, COUNT_LIMIT);
    unread.hidden = n === 0;
    markAll.hidden = list?.tab === 'archived' || this.readonly;
    markAll.setAttribute('aria-disabled', String(!this.#model?.canMarkAll));
    desktop.hidden = !this.hasAttribute('desktop') || !mayAsk();
    this.#drawCategories();
  }

  /** The choice of category, where there is more than one to choose from. */
  #drawCategories() {
    const { category, categoryBox } = this.#nodes;
    const chosen = this.#model?.list.category ?? '';
    const names = new Set(Object.keys(this.#model?.counts?.by_category ?? {}));
    if (chosen) names.add(chosen);
    const wanted = ['', ...[...names].sort()];
    const shown = [...category.options].map((option) => option.value);
    if (shown.join('\n') !== wanted.join('\n')) {
      category.replaceChildren(...wanted.map((name) => new Option(name || this.words.say('allCategories'), name)));
    }
    category.value = chosen;
    categoryBox.hidden = names.size < 2 && !chosen;
  }

  #drawPill() {
    const held = this.#model?.list.held ?? 0;
    this.#nodes.pill.hidden = held === 0;
    if (held > 0) this.#nodes.pill.textContent = `↑ ${this.words.say('pill', { n: held })}`;
  }

  // --- Banner and toast --------------------------------------------------------------------------------------------

  #showStatus() {
    const status = this.source?.status;
    clearTimeout(this.#timers.banner);
    if (status === 'offline') this.#banner(this.words.say('offlineBanner'));
    // A short cut is nobody's business.
    else if (status === 'reconnecting') this.#timers.banner = setTimeout(() => this.#banner(this.words.say('reconnecting')), BANNER_MS);
    else this.#banner('');
  }

  #banner(text) {
    const { banner } = this.#nodes;
    if (text) this.#announcer.say(text);
    else if (!banner.hidden) this.#announcer.say(this.words.say('connectedAgain'));
    banner.textContent = text;
    banner.hidden = text === '';
  }

  #toast(text, undo = null) {
    const { toast, toastText, toastAction } = this.#nodes;
    const keepFocus = this.#guardFocus();
    this.#announcer.say(text);
    toastText.textContent = text;
    toastAction.hidden = !undo;
    keepFocus();
    toastAction.onclick = () => {
      this.#hideToast();
      undo();
    };
    toast.hidden = false;
    this.#hideToastLater();
  }

  #hideToastLater() {
    clearTimeout(this.#timers.toast);
    this.#timers.toast = setTimeout(() => this.#hideToast(), TOAST_MS);
  }

  #hideToast() {
    clearTimeout(this.#timers.toast);
    const { toast, panel } = this.#nodes;
    if (toast.contains(this.shadowRoot.activeElement)) panel.focus({ preventScroll: true });
    toast.hidden = true;
  }

  // --- What the person does ----------------------------------------------------------------------------------------

  #choose(which) {
    this.#model?.choose(which);
    this.#draw();
  }

  /** Marks, tells the page, and tells the person where it did not work. True if it did; false also for an entry that was no more. */
  async #mark(which) {
    try {
      const answer = await this.#model.mark(which);
      this.tell('mark', answer);
      return !answer.unknown?.length;
    } catch (error) {
      this.#toast(this.words.say('didNotWork', { reason: this.words.reason(error) }));
      return false;
    }
  }

  #markOne(id, as) {
    return this.#mark({ as, ids: [id] });
  }

  #markAll() {
    if (this.#model?.canMarkAll) this.#mark(this.#model.upto('read'));
  }

  async #archive(id, as) {
    const done = this.#markOne(id, as);
    this.#draw();
    if (!(await done)) return;
    const [text, undo] = as === 'archived' ? ['wasArchived', 'unarchived'] : ['wasUnarchived', 'archived'];
    this.#toast(this.words.say(text), () => this.#markOne(id, undo));
  }

  async #askForDesktop() {
    await Notification.requestPermission();
    this.#draw();
  }

  /** An entry was clicked: it is read now, and its link is followed unless the page does something of its own. */
  #open(entry, link, action, event) {
    const goes = this.tell('entry-click', { entry: bare(entry), link, action }, { cancelable: true });
    if (!this.readonly && !entry.state?.read_at) this.#markOne(entry.id, 'read');
    if (!goes) event?.preventDefault();
    return goes;
  }

  /** For a desktop notification that was clicked. */
  follow(entry) {
    this.connectNow(); // A bell may just have made it.
    const link = safeLink(entry.click);
    if (this.#open(this.#model?.list.find(entry.id) ?? entry, link, null) && link) location.assign(link);
  }

  #click(event) {
    const tab = event.target.closest('[role="tab"]');
    if (tab && tab.dataset.tab !== this.#model?.list.tab) this.#choose({ tab: tab.dataset.tab });
    const article = event.target.closest('article');
    const entry = article && this.#model?.list.find(article.dataset.id);
    if (!entry) return;
    const button = event.target.closest('button');
    if (button?.part.contains('read')) this.#markOne(entry.id, button.dataset.as);
    else if (button?.part.contains('archive')) this.#archive(entry.id, button.dataset.as);
    if (button) return;
    const anchor = event.target.closest('a');
    if (anchor) this.#open(entry, anchor.href, anchor.dataset.action ?? null, event);
    else if (!hasSelection(this.shadowRoot)) this.#press(article, entry);
  }

  /** The entry itself was pressed: as if its link was, where it has one. */
  #press(article, entry) {
    const link = article.querySelector('[part~="link"]');
    if (link) link.click();
    else this.#open(entry, null, null);
  }

  /**
   * The keys of the feed pattern: Page Up and Down walk the articles, Control+Home and +End leave the feed. Enter presses
   * the article that has the focus. In the tabs: the arrows, Home and End.
   */
  #key(event) {
    if (event.target.closest('[role="tab"]')) return this.#keyInTabs(event);
    const article = event.target.closest('article');
    if (!article || event.altKey || event.metaKey) return;
    if (event.key === 'Enter' && event.target === article) {
      event.preventDefault();
      return this.#press(article, this.#model.list.find(article.dataset.id));
    }
    const leave = event.ctrlKey && { Home: () => this.#beforeList(), End: () => this.#afterList() }[event.key];
    const step = !event.ctrlKey && { PageDown: 'nextElementSibling', PageUp: 'previousElementSibling' }[event.key];
    if (!leave && !step) return;
    event.preventDefault();
    const target = leave ? leave() : article[step];
    if (target) target.focus();
    else if (event.key === 'PageDown') this.#loadOlder();
  }

  #keyInTabs(event) {
    const tabs = [...this.#nodes.tabs.children].filter((tab) => !tab.hidden);
    const at = tabs.indexOf(event.target);
    const next = getComputedStyle(this).direction === 'rtl' ? -1 : 1;
    const to = { ArrowRight: at + next, ArrowLeft: at - next, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    tab.focus();
    tab.click();
  }

  #beforeList() {
    const { markAll, tabs } = this.#nodes;
    return markAll.hidden ? tabs.querySelector('[aria-selected="true"]') : markAll;
  }

  #afterList() {
    const { olderRow, older, list } = this.#nodes;
    return olderRow.hidden ? [...list.querySelectorAll('a, button')].at(-1) ?? list.lastElementChild : older;
  }
}

/** Whether it still stands in the element, and not in something hidden. */
function isShown(node) {
  return node.isConnected && !node.closest('[hidden]');
}

/** Whether the click ended a selection of text, which is no press. */
function hasSelection(root) {
  const selection = root.getSelection?.() ?? getSelection();
  return selection !== null && !selection.isCollapsed;
}
