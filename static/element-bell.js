// element-bell.js owns <tidings-bell>: the button, its badge, and the panel with an inbox that it opens.
//
// The inbox is made when the panel is first opened: a page that only shows a bell asks for counts and nothing else.
// The panel stands in the top layer, so that nothing of the page cuts it off, and is placed by the button whenever that moves.
// Invariant: the panel closes on Escape, on a click outside, and when the focus goes elsewhere; the focus comes back to the button
// unless the person put it somewhere.

import { focused, icon, make } from './dom.js';
import { Announcer, TidingsElement } from './element-base.js';
import { readCount } from './element-counter.js';
import { bellSheet } from './element-styles.js';
import { INBOX_PARTS } from './element-inbox.js';
import { isDeath } from './list.js';
import { showInTitle } from './title.js';

/** Between the panel and the button, and between the panel and the edges of the window. */
const GAP = 8;
const PANEL_WIDTH = 420;
/** With less room than this below the button the panel goes above it, where there is more. */
const ENOUGH_HEIGHT = 320;
const FORWARDED = ['readonly', 'desktop'];
const SLOTS = ['header', 'empty', 'footer'];

export class TidingsBell extends TidingsElement {
  static observedAttributes = [...super.observedAttributes, 'count', 'max', 'title-count', ...FORWARDED];

  #announcer = new Announcer(this);
  #button = null;
  #badge = null;
  #panel = null;
  #inbox = null;
  #drawing = null;
  /** Listeners of the page while the panel is open. */
  #watching = null;

  constructor() {
    super(bellSheet);
    this.addEventListener('focusout', (event) => {
      if (event.relatedTarget && !this.contains(event.relatedTarget)) this.close({ refocus: false });
    });
  }

  get opened() {
    return this.#watching !== null;
  }

  focus(options) {
    this.#button?.focus(options);
  }

  /** Opens the panel. */
  open() {
    if (this.opened || !this.isConnected) return;
    this.#fill();
    this.#watching = new AbortController();
    this.#panel.hidden = false;
    this.#panel.showPopover?.();
    this.#button.setAttribute('aria-expanded', 'true');
    this.toggleAttribute('opened', true);
    this.#place();
    this.#watch(this.#watching.signal);
    this.#panel.focus({ preventScroll: true });
    this.tell('open');
  }

  /** Closes the panel. */
  close({ refocus = true } = {}) {
    if (!this.opened) return;
    this.#watching.abort();
    this.#watching = null;
    const inside = this.shadowRoot.activeElement !== null || this.contains(document.activeElement);
    this.#panel.hidePopover?.();
    this.#panel.hidden = true;
    this.#button.setAttribute('aria-expanded', 'false');
    this.toggleAttribute('opened', false);
    if (refocus && (inside || focused() === document.body)) this.#button.focus();
    this.tell('close');
  }

  toggle() {
    if (this.opened) this.close();
    else this.open();
  }

  // --- Insides -----------------------------------------------------------------------------------------------------

  build() {
    const { words } = this;
    this.close({ refocus: false });
    this.#inbox = null;
    this.#drawing = icon('bell', { part: 'icon' });
    this.#badge = make('span', { class: 'badge', part: 'badge', 'aria-hidden': 'true', hidden: true });
    this.#button = make('button', { type: 'button', class: 'bell', part: 'button', 'aria-haspopup': 'dialog', 'aria-expanded': 'false', 'aria-controls': 'panel' },
      make('slot', { name: 'icon' }, this.#drawing), this.#badge);
    this.#button.addEventListener('click', () => this.toggle());
    this.#panel = make('div', { id: 'panel', class: 'bell-panel', part: 'panel', role: 'dialog', 'aria-label': words.say('notifications'), tabindex: '-1', popover: 'manual', hidden: true });
    this.shadowRoot.replaceChildren(make('div', { class: 'bell-base', lang: words.locale }, this.#button, this.#panel, this.#announcer.node));
    this.#draw();
  }

  /** Puts the inbox into the panel. */
  #fill() {
    if (this.#inbox) return;
    const slots = SLOTS.map((name) => make('slot', { name, slot: name }, ...(name === 'header' ? [this.#heading()] : [])));
    const inbox = make('tidings-inbox', { scrolls: true, inside: true, 'heading-level': '3', part: 'inbox', exportparts: INBOX_PARTS.join(', ') }, ...slots);
    this.#inbox = inbox;
    this.#forward();
    this.#panel.replaceChildren(inbox);
  }

  #heading() {
    return make('h2', { class: 'bell-heading', part: 'heading' }, this.words.say('notifications'));
  }

  #forward() {
    if (!this.#inbox) return;
    this.#inbox.client = this.client;
    this.#inbox.strings = this.strings;
    this.#inbox.lang = this.words.locale;
    for (const name of FORWARDED) this.#inbox.toggleAttribute(name, name === 'readonly' ? this.readonly : this.hasAttribute(name));
  }

  joined() {
    this.changed();
  }

  left() {
    this.close({ refocus: false });
    this.#announcer.stop();
    showInTitle(this, '');
  }

  changed() {
    if (this.hasAttribute('desktop')) this.source?.desktop.want(this);
    else this.source?.desktop.release(this);
    this.#forward();
    this.#draw();
  }

  receive(kind, data) {
    if (kind === 'counts') {
      this.#draw();
      if (data) this.tell('counts', data);
    }
    if (kind === 'status') this.tell('status', { status: data, why: this.source.why });
    if (kind === 'state' && isDeath(data)) this.#announcer.forget(data.ids);
    return kind === 'notification' ? this.#arrive(data) : true;
  }

  #arrive(entry) {
    if (!entry.state?.read_at && (!entry.replayed || this.source.recovered)) this.#announcer.arrived(entry);
    if (!entry.replayed) this.#ring();
    return this.tell('notification', { notification: entry, replayed: entry.replayed }, { cancelable: true });
  }

  #ring() {
    this.#drawing.classList.remove('is-ringing');
    this.#drawing.getBoundingClientRect(); // Lets the animation start anew.
    this.#drawing.classList.add('is-ringing');
  }

  #draw() {
    if (!this.#button) return;
    const { n, count, text } = readCount(this, this.source?.counts ?? null);
    this.#badge.textContent = text;
    this.#badge.hidden = n === 0;
    const key = n === 0 ? 'bellNone' : count === 'unread' ? 'bellUnread' : 'bellUnseen';
    this.#button.setAttribute('aria-label', this.words.say(key, { n }));
    showInTitle(this, this.hasAttribute('title-count') && n > 0 ? text : '');
  }

  /** A click on a desktop notification. */
  follow(entry) {
    this.#fill();
    this.#inbox.follow(entry);
  }

  // --- While it is open --------------------------------------------------------------------------------------------

  #watch(signal) {
    const isOutside = (event) => !event.composedPath().includes(this);
    let pressedOutside = false;
    document.addEventListener('pointerdown', (event) => { pressedOutside = isOutside(event); }, { capture: true, signal });
    document.addEventListener('click', (event) => {
      // What was pressed inside and let go outside was a selection of text, say.
      if (pressedOutside && isOutside(event)) this.close();
    }, { capture: true, signal });
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return;
      event.preventDefault();
      this.close();
    }, { signal });
    for (const kind of ['scroll', 'resize']) {
      addEventListener(kind, (event) => event.target !== this && this.#place(), { capture: true, passive: true, signal });
    }
  }

  /** Below the button, its end at the button's end; moved where that would leave the window. */
  #place() {
    const button = this.#button.getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const style = getComputedStyle(this);
    const wanted = parseFloat(style.getPropertyValue('--tidings-panel-width')) || PANEL_WIDTH;
    const width = Math.min(wanted, clientWidth - 2 * GAP);
    const start = style.direction === 'rtl' ? button.left : button.right - width;
    const below = clientHeight - button.bottom - 2 * GAP;
    const above = button.top - 2 * GAP;
    const up = below < ENOUGH_HEIGHT && above > below;
    const place = {
      width: `${width}px`,
      left: `${Math.max(GAP, Math.min(start, clientWidth - GAP - width))}px`,
      top: up ? 'auto' : `${button.bottom + GAP}px`,
      bottom: up ? `${clientHeight - button.top + GAP}px` : 'auto',
      'max-height': `${Math.max(up ? above : below, 0)}px`,
    };
    for (const [property, value] of Object.entries(place)) this.#panel.style.setProperty(property, value);
  }
}
