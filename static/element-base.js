// element-base.js owns what the elements have in common: their options, their source, their words, and how they speak up.
//
// An element connects a moment after it was put into a document or its options changed, so that a page may set attributes and
// properties in any order. Properties that were set before the element was defined are taken up.
// Invariant: an element that has left the document holds no source, no timer and no listener of the page.

import { make } from './dom.js';
import { baseSheet } from './element-styles.js';
import { Source } from './source.js';
import { languageOf, Words } from './strings.js';

const OPTIONS = ['url', 'ticket', 'user', 'transport'];
const WORDS = ['lang'];
const PROPERTIES = ['client', 'token', 'strings'];
const ANNOUNCE_MS = 1_000;

export class TidingsElement extends HTMLElement {
  static observedAttributes = [...OPTIONS, ...WORDS];

  /** The words in which this element speaks. */
  words = null;

  #source = null;
  #given = null;
  #token = null;
  #strings = null;
  #soon = null;

  constructor(...sheets) {
    super();
    this.attachShadow({ mode: 'open' }).adoptedStyleSheets = [baseSheet, ...sheets];
  }

  /** The client in use: the page's own where it set one, else the one that elements with equal options share. */
  get client() {
    this.connectNow();
    return this.#source?.client ?? this.#given;
  }

  set client(client) {
    this.#given = client ?? null;
    this.#restart();
  }

  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token ?? null;
    this.#restart();
  }

  get strings() {
    return this.#strings;
  }

  set strings(strings) {
    this.#strings = strings ?? null;
    this.#reword();
  }

  get readonly() {
    return this.hasAttribute('readonly') || this.hasAttribute('ticket') || Boolean(this.#source?.readonly);
  }

  /** For the element itself: what it shares with others; null until it is connected. */
  get source() {
    return this.#source;
  }

  connectedCallback() {
    for (const name of PROPERTIES) this.#upgrade(name);
    this.#reword();
    this.#restart();
  }

  disconnectedCallback() {
    clearTimeout(this.#soon);
    this.#leave();
  }

  attributeChangedCallback(name, before, now) {
    if (before === now) return;
    if (WORDS.includes(name)) this.#reword();
    else if (OPTIONS.includes(name)) this.#restart();
    else this.changed();
  }

  /** Joins its source at once, where that was still to come. */
  connectNow() {
    if (!this.#source && this.isConnected) this.#connect();
  }

  /** Tells the page; false where a listener prevented what would follow. */
  tell(name, detail, { cancelable = false } = {}) {
    return this.dispatchEvent(new CustomEvent(`tidings-${name}`, { detail, cancelable, bubbles: true, composed: true }));
  }

  // What an element does of its own:

  /** Makes the insides anew, in `this.words`. */
  build() {}

  /** A source was joined. */
  joined() {}

  /** The source was left. */
  left() {}

  /** An attribute of the element's own changed. */
  changed() {}

  /** An event of the source. False where it should pop up nothing. */
  receive() {}

  /** A property that was set on the plain element, before it was one of ours, would hide the accessor. */
  #upgrade(name) {
    if (!Object.hasOwn(this, name)) return;
    const value = this[name];
    delete this[name];
    this[name] = value;
  }

  #reword() {
    if (!this.isConnected) return;
    this.words = new Words(languageOf(this), this.#strings);
    this.build();
  }

  #restart() {
    clearTimeout(this.#soon);
    if (this.isConnected) this.#soon = setTimeout(() => this.#connect());
  }

  #connect() {
    clearTimeout(this.#soon);
    const source = this.#given ? Source.of(this.#given) : Source.with({ ...this.#options(), token: this.#token });
    if (source === this.#source) return;
    this.#leave();
    this.#source = source;
    source.join(this);
    this.joined();
  }

  #leave() {
    const source = this.#source;
    if (!source) return;
    this.#source = null;
    this.left();
    source.leave(this);
  }

  #options() {
    const options = Object.fromEntries(OPTIONS.map((name) => [name, this.getAttribute(name)]));
    if (options.url) options.url = new URL(options.url.replace(/\/?$/, '/'), document.baseURI).href;
    return options;
  }
}

/** A live region that says one sentence at a time: what came within a second is said together. */
export class Announcer {
  #arrived = [];
  #timer = null;

  constructor(element) {
    this.#element = element;
    this.node = make('p', { class: 'visually-hidden', role: 'status', 'aria-live': 'polite' });
  }

  #element;

  say(text) {
    this.node.textContent = text;
  }

  /** A notification came: say so, and what it is about where it is the only one. */
  arrived(entry) {
    this.#arrived.push(entry);
    this.#timer ??= setTimeout(() => this.#flush(), ANNOUNCE_MS);
  }

  /** Those have died before anything was said about them. */
  forget(ids) {
    this.#arrived = this.#arrived.filter(({ id }) => !ids.includes(id));
    if (this.#arrived.length === 0) this.stop();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#arrived = [];
  }

  #flush() {
    const { words } = this.#element;
    const news = this.#arrived;
    this.stop();
    const arrived = words.say('arrived', { n: news.length });
    const [first] = news;
    this.say(news.length === 1 ? words.say('arrivedOne', { arrived, title: first.title || first.body }) : arrived);
  }
}
