// element-counter.js owns <tidings-counter>: only the number, hidden while there is nothing to count.

import { make } from './dom.js';
import { TidingsElement } from './element-base.js';
import { counterSheet } from './element-styles.js';
import { short } from './strings.js';
import { showInTitle } from './title.js';

const LIMIT = 99;

/** Which number an element with the attributes `count`, `category` and `max` shows, and how it is said. */
export function readCount(element, counts) {
  const count = element.getAttribute('count') === 'unread' ? 'unread' : 'unseen';
  const category = element.getAttribute('category');
  const n = (category ? counts?.by_category?.[category] : counts)?.[count] ?? 0;
  const limit = Number(element.getAttribute('max') ?? LIMIT);
  return { n, count, text: short(n, Number.isFinite(limit) && limit > 0 ? limit : LIMIT) };
}

export class TidingsCounter extends TidingsElement {
  static observedAttributes = [...super.observedAttributes, 'count', 'max', 'category', 'show-zero', 'title-count'];

  constructor() {
    super(counterSheet);
  }

  joined() {
    this.#draw();
  }

  left() {
    showInTitle(this, '');
  }

  changed() {
    this.#draw();
  }

  build() {
    this.#draw();
  }

  receive(kind, data) {
    if (kind !== 'counts') return;
    this.#draw();
    if (data) this.tell('counts', data);
  }

  #draw() {
    if (!this.words) return;
    const counts = this.source?.counts ?? null;
    const { n, count, text } = readCount(this, counts);
    this.toggleAttribute('hidden', counts === null || (n === 0 && !this.hasAttribute('show-zero')));
    this.shadowRoot.replaceChildren(
      make('span', { part: 'number', 'aria-hidden': 'true' }, text),
      make('span', { class: 'visually-hidden', lang: this.words.locale }, this.words.say(count === 'unread' ? 'counterUnread' : 'counterUnseen', { n })));
    showInTitle(this, this.hasAttribute('title-count') && n > 0 ? text : '');
  }
}
