// list.js owns which entries are on display: one tab's entries, merged from pages of the inbox and events of the stream.
//
// Pages and events come on separate connections, so each entry remembers the position (`asOf`) up to which its state is known.
// Invariant: an event at or before an entry's `asOf` changes nothing, so a page and the stream may overlap in any way.
// Invariant: entries stand newest first, each id once.
// Invariant: `cursor` never lies beyond an entry that is held back, so that a mark `upto` it covers only what was on display.
// Invariant: who has died never comes back, also not by an answer that was on its way when it died.
// Counts are not kept here: they come absolute from the server and are never derived from what happens to be loaded.
// It deliberately touches no document, so that it can be tested without a browser.

import { parseCursor } from './tidings.js';

const CHANGES = {
  seen: (state, now) => { state.seen_at ??= now; },
  read: (state, now) => { state.read_at ??= now; state.seen_at ??= now; },
  // Only what was read can be unread, and what was read was seen.
  unread: (state, now) => { state.read_at = null; state.seen_at ??= now; },
  archived: (state, now) => { state.archived_at ??= now; },
  unarchived: (state) => { state.archived_at = null; },
};
const DEATHS = new Set(['retracted', 'expired', 'replaced']);
/** How many of the dead a list remembers: many times what can be on its way while one of them dies. */
const DEAD_LIMIT = 1_000;
const NO_STATE = { seen_at: null, read_at: null, archived_at: null };

const BELONGS = {
  all: (entry) => !entry.state.archived_at,
  unread: (entry) => !entry.state.archived_at && (!entry.state.read_at || entry.kept),
  archived: (entry) => Boolean(entry.state.archived_at),
};

/** More than this many are not held back one by one: they are counted, and come with a page. */
const HELD_LIMIT = 200;

/** The states that can bring an entry into a tab which was not there before. */
const BRINGS = { all: ['unarchived'], unread: ['unread', 'unarchived'], archived: ['archived'] };

export class EntryList {
  #entries = new Map();
  #reached = null;
  /** Ids of those that died while this list was there, the latest last. */
  #dead = new Set();
  /** Marks that the server has not confirmed yet. */
  #expected = new Set();
  /** Where `#reached` stood when the first of those that are held back now came. */
  #heldFrom = null;
  /** How many came beyond those that are held back. */
  #beyond = 0;

  constructor({ tab, category = '' }) {
    this.tab = tab;
    this.category = category;
    /** Opaque: where the next older page begins; null when everything is loaded. */
    this.next = null;
  }

  /** The newest position that was taken in. */
  get reached() {
    return this.#reached;
  }

  /** The position that a person who looks at this list has seen. */
  get cursor() {
    return this.held > 0 ? this.#heldFrom : this.#reached;
  }

  /** What is on display, newest first. */
  get visible() {
    return this.#belonging.filter((entry) => !entry.held).sort((a, b) => b.seq - a.seq);
  }

  /** How many entries wait until the person asks for them. */
  get held() {
    return this.#belonging.filter((entry) => entry.held).length + this.#beyond;
  }

  /** Whether more waits than is kept here, so that only a page can bring it. */
  get overflows() {
    return this.#beyond > 0;
  }

  get #belonging() {
    return [...this.#entries.values()].filter(BELONGS[this.tab]);
  }

  get size() {
    return this.#entries.size;
  }

  find(id) {
    return this.#entries.get(id);
  }

  /** Takes in a page of the inbox. The newest page also says how far this list reaches. */
  addPage(page, { newest }) {
    const asOf = parseCursor(page.cursor)?.seq ?? 0;
    for (const entry of page.entries) if (!this.#dead.has(entry.id)) this.#put(entry, asOf);
    this.next = page.next ?? null;
    if (newest) this.#reached = page.cursor;
  }

  /** Takes in one entry that was asked for by its id. False if it lies beyond the oldest page loaded, or has died meanwhile. */
  addEntry(entry) {
    if (this.#dead.has(entry.id)) return false;
    const oldest = Math.min(...[...this.#entries.values()].map((known) => known.seq));
    if (this.next !== null && entry.seq < oldest) return false;
    // When it was read is not told, so only its own position is sure.
    this.#put(entry, this.#entries.get(entry.id)?.asOf ?? entry.seq);
    return true;
  }

  /** Takes in a `notification`; held back, it is not on display before `release`. True if it is one more of this list. */
  addNotification(data, cursor, { hold = false } = {}) {
    const before = this.#reached;
    const first = this.held === 0;
    this.#reached = cursor;
    if (this.#entries.has(data.id)) return false;
    if (this.category && data.category !== this.category) return false;
    // What is not for this tab would be kept without ever being released; should it come to belong here, it can be asked for.
    if (hold && !BELONGS[this.tab]({ state: { ...NO_STATE, ...data.state } })) return false;
    if (hold && this.held >= HELD_LIMIT) {
      this.#beyond += 1;
      return true;
    }
    const entry = this.#put(data, parseCursor(cursor)?.seq ?? data.seq);
    if (!BELONGS[this.tab](entry)) return false;
    entry.held = hold;
    if (hold && first) this.#heldFrom = before;
    return true;
  }

  /** Forgets the oldest beyond `limit`. */
  trim(limit) {
    const tooOld = [...this.#entries.values()].sort((a, b) => b.seq - a.seq).slice(limit);
    for (const { id } of tooOld) this.#entries.delete(id);
  }

  /** Puts on display what was held back. */
  release() {
    for (const entry of this.#entries.values()) entry.held = false;
  }

  /**
   * Takes in a `state`. Answers what it could not settle by itself: ids that may now belong here but are not
   * loaded, or that the whole list must be loaded anew.
   */
  applyState(data, cursor, now) {
    this.#reached = cursor;
    const seq = parseCursor(cursor)?.seq ?? Infinity;
    if (isDeath(data)) this.bury(data.ids);
    for (const entry of this.#affected(data)) {
      if (seq <= entry.asOf) continue;
      entry.asOf = seq;
      this.#change(entry, data, now);
    }
    const unsettled = { missing: [], reload: false };
    if (BRINGS[this.tab].includes(data.state)) {
      if (data.ids) unsettled.missing = data.ids.filter((id) => !this.#entries.has(id));
      else unsettled.reload = true;
    }
    return unsettled;
  }

  /** Takes out entries that are no more. */
  bury(ids) {
    for (const id of ids) {
      this.#entries.delete(id);
      this.#dead.add(id);
    }
    for (const id of this.#dead) {
      if (this.#dead.size <= DEAD_LIMIT) break;
      this.#dead.delete(id);
    }
  }

  /**
   * Shows a mark before the server has confirmed it. Answers how that ends: `settle(cursor)` with the cursor of the server's
   * answer, or `takeBack()`, which leaves whatever the server has said meanwhile.
   */
  expect({ as, ...which }, now) {
    const change = { ...which, state: as };
    const expected = { change, now };
    const kept = this.#affected(which).map((entry) => [entry, entry.kept]);
    this.#expected.add(expected);
    for (const [entry] of kept) this.#keep(entry, change);
    const show = () => this.#affected(which).forEach((entry) => this.#show(entry));
    show();
    return {
      settle: (cursor) => {
        const seq = parseCursor(cursor)?.seq ?? 0;
        this.#expected.delete(expected);
        for (const entry of this.#affected(which)) if (entry.asOf < seq) CHANGES[as](entry.told, now);
        show();
      },
      takeBack: () => {
        this.#expected.delete(expected);
        for (const [entry, was] of kept) entry.kept = was;
        show();
      },
    };
  }

  #affected(change) {
    if (change.ids) return change.ids.map((id) => this.#entries.get(id)).filter(Boolean);
    return [...this.#entries.values()].filter((entry) => affects(change, entry));
  }

  #change(entry, change, now) {
    CHANGES[change.state]?.(entry.told, now);
    this.#keep(entry, change);
    this.#show(entry);
  }

  /**
   * In the unread tab one that was just read stays in sight, dimmed, so that nothing jumps away under the pointer; "mark all"
   * clears the tab.
   */
  #keep(entry, { ids, state }) {
    if (this.tab === 'unread' && state === 'read') entry.kept = Boolean(ids) && !entry.held;
  }

  /** What is shown of an entry: what the server told, and what is expected of it. */
  #show(entry) {
    entry.state = { ...entry.told };
    for (const { change, now } of this.#expected) if (affects(change, entry)) CHANGES[change.state](entry.state, now);
  }

  #put(data, asOf) {
    const known = this.#entries.get(data.id);
    if (known && known.asOf > asOf) return known;
    const entry = { ...data, told: { ...NO_STATE, ...data.state }, asOf, kept: known?.kept ?? false, held: known?.held ?? false };
    this.#show(entry);
    this.#entries.set(entry.id, entry);
    return entry;
  }
}

/** Whether a `state` says that entries are no more. */
export const isDeath = ({ state, ids }) => DEATHS.has(state) && Array.isArray(ids);

/** An entry as the server gave it and with its state, without what a list notes about it. */
export function bare({ told, asOf, kept, held, ...entry }) {
  return entry;
}

/** Whether a change that names ids, or a bound and perhaps a category, reaches the entry. */
function affects({ ids, upto, category }, entry) {
  if (ids) return ids.includes(entry.id);
  return entry.seq <= (parseCursor(upto)?.seq ?? 0) && (!category || entry.category === category);
}
