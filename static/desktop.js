// desktop.js owns the notifications of the desktop: which are shown, and when they are closed again.
//
// Invariant: permission is asked for on the person's click only, by the element's button, never from here unasked.
// Invariant: only the page that holds the browser's one connection shows any, so that ten tabs pop up one; the tag is the
// entry's id, so that a second one of it would replace the first. What is replayed is old and pops up nothing.
// One is closed when its entry is read, archived or withdrawn, on whichever device.

import { safeIcon } from './entry.js';
import { parseCursor } from './tidings.js';

const SETTLES = new Set(['read', 'archived', 'retracted', 'expired', 'replaced']);

/** Whether the person could still be asked. */
export const mayAsk = () => isSecureContext && globalThis.Notification?.permission === 'default';

export class Desktop {
  #source;
  /** The elements that want them; the first of them is who hears of a click. */
  #wanted = new Set();
  #shown = new Map();

  constructor(source) {
    this.#source = source;
  }

  /** Shows them for `member` from now on; `member.follow(entry)` hears of a click. */
  want(member) {
    this.#wanted.add(member);
  }

  release(member) {
    this.#wanted.delete(member);
  }

  receive(kind, data, { calm }) {
    if (kind === 'state') this.#settle(data);
    else if (!calm && this.#isDue(data)) this.#show(data);
  }

  /** Closes all: nobody is signed in any more. */
  clear() {
    for (const { popup } of this.#shown.values()) popup.close();
    this.#shown.clear();
  }

  #isDue({ replayed }) {
    return this.#wanted.size > 0 && !replayed && this.#source.client.isLeader && globalThis.Notification?.permission === 'granted';
  }

  #show(entry) {
    const { id, seq, category, title, body, icon } = entry;
    const options = { tag: id, body: title ? body ?? '' : '', icon: safeIcon(icon) ?? undefined };
    let popup;
    try {
      popup = new Notification(title || body, options);
    } catch {
      return; // Some phones' browsers have the constructor and let only service workers use it.
    }
    this.#shown.set(id, { popup, seq, category });
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
      popup.close();
    }
  }
}
