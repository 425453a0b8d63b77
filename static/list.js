// list.js owns which entries are on display: one tab's entries, merged from pages of the inbox and events of the stream.
//
// Pages and events come on separate connections, so each entry remembers the position (`asOf`) up to which its state is known.
// Invariant: an event at or before an entry's `asOf` changes nothing, so a page and the stream may overlap in any way.
// Invariant: entries stand newest first, each id once.
// Counts are not kept here: they come absolute from the server and are never derived from what happens to be loaded.
// It deliberately touches no document, so that it can be tested without a browser.

import { parseCursor } from './feed.js';

const CHANGES = {
  seen: (state, now) => { state.seen_at ??= now; },
  read: (state, now) => { state.read_at ??= now; state.seen_at ??= now; },
  // Only what was read can be unread, and what was read was seen.
  unread: (state, now) => { state.read_at = null; state.seen_at ??= now; },
  archived: (state, now) => { state.archived_at ??= now; },
  unarchived: (state) => { state.archived_at = null; },
};
const DEATHS = new Set(['retracted', 'expired', 'replaced']);
const NO_STATE = { seen_at: null, read_at: null, archived_at: null };

const BELONGS = {
  all: (entry) => !entry.state.archived_at,
  unread: (entry) => !entry.state.archived_at && (!entry.state.read_at || entry.kept),
  archived: (entry) => Boolean(entry.state.archived_at),
};

/** The states that can bring an entry into a tab which was not there before. */
const BRINGS = { all: ['unarchived'], unread: ['unread', 'unarchived'], archived: ['archived'] };

export class EntryList {
  #entries = new Map();

  constructor({ tab, category = '' }) {
    this.tab = tab;
    this.category = category;
    /** Opaque: where the next older page begins; null when everything is loaded. */
    this.next = null;
    /** The newest position this list has taken in: what a person who looks at it has seen. */
    this.cursor = null;
  }

  /** What is on display, newest first. */
  get visible() {
    return [...this.#entries.values()].filter(BELONGS[this.tab]).sort((a, b) => b.seq - a.seq);
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
    for (const entry of page.entries) this.#put(entry, asOf);
    this.next = page.next ?? null;
    if (newest) this.cursor = page.cursor;
  }

  /** Takes in one entry that was asked for by its id. False if it lies beyond the oldest page loaded. */
  addEntry(entry) {
    const oldest = Math.min(...[...this.#entries.values()].map((known) => known.seq));
    if (this.next !== null && entry.seq < oldest) return false;
    // When it was read is not told, so only its own position is sure.
    this.#put(entry, this.#entries.get(entry.id)?.asOf ?? entry.seq);
    return true;
  }

  /** Takes in a `notification`. True if it is one more on display. */
  addNotification(data, cursor) {
    this.cursor = cursor;
    if (this.#entries.has(data.id)) return false;
    if (this.category && data.category !== this.category) return false;
    const entry = this.#put(data, parseCursor(cursor)?.seq ?? data.seq);
    return BELONGS[this.tab](entry);
  }

  /**
   * Takes in a `state`. Answers what it could not settle by itself: ids that may now belong here but are not
   * loaded, or that the whole list must be loaded anew.
   */
  applyState(data, cursor, now) {
    this.cursor = cursor;
    const seq = parseCursor(cursor)?.seq ?? Infinity;
    for (const entry of this.#affected(data)) {
      if (seq <= entry.asOf) continue;
      entry.asOf = seq;
      if (DEATHS.has(data.state)) this.#entries.delete(entry.id);
      else this.#change(entry, data, now);
    }
    const unsettled = { missing: [], reload: false };
    if (BRINGS[this.tab].includes(data.state)) {
      if (data.ids) unsettled.missing = data.ids.filter((id) => !this.#entries.has(id));
      else unsettled.reload = true;
    }
    return unsettled;
  }

  /** Shows a change before the server has confirmed it. Answers how to take it back. */
  expect(id, as, now) {
    const entry = this.#entries.get(id);
    if (!entry) return () => {};
    const before = { state: { ...entry.state }, kept: entry.kept, asOf: entry.asOf };
    this.#change(entry, { ids: [id], state: as }, now);
    return () => {
      if (entry.asOf === before.asOf) Object.assign(entry, before);
    };
  }

  #affected({ ids, upto, category }) {
    if (ids) return ids.map((id) => this.#entries.get(id)).filter(Boolean);
    const limit = parseCursor(upto)?.seq ?? 0;
    return [...this.#entries.values()].filter((e) => e.seq <= limit && (!category || e.category === category));
  }

  #change(entry, { ids, state }, now) {
    CHANGES[state]?.(entry.state, now);
    // In the unread tab one that was just read stays in sight, dimmed, so that nothing jumps away under the pointer;
    // "mark all" clears the tab.
    entry.kept = this.tab === 'unread' && state === 'read' ? Boolean(ids) : entry.kept;
  }

  #put(data, asOf) {
    const known = this.#entries.get(data.id);
    if (known && known.asOf > asOf) return known;
    const entry = { ...data, state: { ...NO_STATE, ...data.state }, asOf, kept: known?.kept ?? false };
    this.#entries.set(entry.id, entry);
    return entry;
  }
}
