// desktop.js owns the notifications of the desktop: which are shown, and when they are closed again.
//
// Invariant: permission is asked for on the person's click only, by the element's button, never from here unasked.
// Invariant: ten tabs pop up one. Each page that wants them asks for a lock in the entry's name, and the first one that asks shows
// it; without locks it is the page that holds the browser's one connection. The tag is the entry's id, so that a second one of it
// would replace the first. What is replayed is old and pops up nothing.
// Invariant: one is closed when its entry is read, archived or withdrawn, on whichever device. A page that goes away could not do
// that any more, so it takes those that it has shown with it.

import { safeIcon } from './entry.js';
import { parseCursor } from './tidings.js';

/** How long the page that shows one keeps its lock: longer than any other page takes to hear of the entry. */
const HOLD_MS = 60_000;
const SETTLES = new Set(['read', 'archived', 'retracted', 'expired', 'replaced']);

/** Whether the person could still be asked. */
export const mayAsk = () => isSecureContext && globalThis.Notification?.permission === 'default';

export class Desktop {
  #source;
  /** The elements that want them; the first of them is who hears of a click. */
  #wanted = new Set();
  /** Those that are shown, and those that may be in a moment, by the ids of their entries. */
  #shown = new Map();
  /** Each ends the hold of one lock. */
  #holds = new Set();
  /** Listens to the page while somebody wants them. */
  #page = null;

  constructor(source) {
    this.#source = source;
  }

  /** Shows them for `member` from now on; `member.follow(entry)` hears of a click. */
  want(member) {
    this.#wanted.add(member);
    if (this.#page) return;
    this.#page = new AbortController();
    addEventListener('pagehide', () => this.clear(), { signal: this.#page.signal });
  }

  release(member) {
    if (!this.#wanted.delete(member) || this.#wanted.size > 0) return;
    this.#page.abort();
    this.#page = null;
    this.clear();
  }

  receive(kind, data, { calm }) {
    if (kind === 'state') this.#settle(data);
    else if (!calm && this.#isDue(data)) this.#claim(data);
  }

  /** Closes all: nobody is signed in or looks at this page any more. */
  clear() {
    for (const { popup } of this.#shown.values()) popup?.close();
    this.#shown.clear();
    for (const end of [...this.#holds]) end();
  }

  #isDue({ replayed }) {
    return this.#wanted.size > 0 && !replayed && globalThis.Notification?.permission === 'granted';
  }

  /** Shows the entry here unless another page does. */
  #claim(entry) {
    const { id, seq, category } = entry;
    if (this.#shown.has(id) || (!navigator.locks && !this.#source.client.isLeader)) return;
    this.#shown.set(id, { popup: null, seq, category });
    if (!navigator.locks) return this.#show(entry);
    const asked = navigator.locks.request(`tidings desktop ${id}`, { ifAvailable: true }, (lock) => {
      // It may have been read meanwhile, by a mark that came right after it.
      if (lock && this.#shown.has(id)) this.#show(entry);
      else this.#shown.delete(id);
      return lock && this.#hold();
    });
    asked.catch(() => this.#shown.delete(id)); // Refused, as in a page that is going away.
  }

  #hold() {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#holds.delete(end);
        resolve();
      };
      const timer = setTimeout(end, HOLD_MS);
      this.#holds.add(end);
    });
  }

  #show(entry) {
    const { id, title, body, icon } = entry;
    const options = { tag: id, body: title ? body ?? '' : '', icon: safeIcon(icon) ?? undefined };
    let popup;
    try {
      popup = new Notification(title || body, options);
    } catch {
      return void this.#shown.delete(id); // Some phones' browsers have the constructor and let only service workers use it.
    }
    this.#shown.get(id).popup = popup;
    popup.onclose = () => this.#shown.delete(id);
    popup.onclick = () => {
      popup.close();
      window.focus();
      const [first] = this.#wanted;
      first?.follow(entry);
    };
  }

  #settle({ ids, upto, category, state }) {
    if (!SETTLES.has(state)) return;
    const limit = parseCursor(upto)?.seq ?? -1;
    for (const [id, { popup, seq, category: own }] of this.#shown) {
      const named = ids ? ids.includes(id) : seq <= limit && (!category || category === own);
      if (!named) continue;
      this.#shown.delete(id);
      popup?.close();
    }
  }
}
