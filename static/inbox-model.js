// inbox-model.js owns what one inbox shows: its list, how far that is loaded, and the marks on their way to the server.
//
// Data passes so: a page of the inbox gives entries and a position, the source's events change them, and `changed` is called.
// A page and the events come on separate connections and in any order. Events that overtake a page are kept and applied to
// what it brings; where the stream begins behind a page, so that something may lie between, the page is loaded again.
// Invariant: every mark of many entries goes by `upto`, the position the person has on display, never further.
// It deliberately touches no document.

import { EntryList } from './list.js';
import { isCovered, parseCursor, Problem } from './tidings.js';

const PAGE = 30;
/** Above this many entries a list at its top is made shorter, so that a page left open for weeks stays small. */
const KEEP = 600;
/** More ids than this in one `state` are not fetched one by one. */
const FETCH_LIMIT = 10;
/** The server takes no more ids in one mark. */
const IDS_LIMIT = 1_000;
const RETRY_MS = 4_000;

const now = () => new Date().toISOString();
const isBehind = (cursor, other) => parseCursor(cursor)?.epoch === parseCursor(other)?.epoch && !isCovered(other, cursor);
const isSignedOut = (error) => error instanceof Problem && error.status === 401;

/** Applies one event to a list. Answers what it could not settle. */
function apply(list, kind, data, cursor) {
  if (kind === 'state') return list.applyState(data, cursor, now());
  list.addNotification(data, cursor);
  return { missing: [], reload: false };
}

export class InboxModel {
  list = new EntryList({ tab: 'all' });
  /** 'loading', 'ready', 'failed' or 'ended' */
  phase = 'loading';
  /** Why the phase is 'failed': an error; or 'ended': a word of the client. */
  why = null;
  /** Whether the top of the list is out of sight, so that what comes is held back rather than put before it. */
  holding = false;

  #source;
  #changed;
  /** The request for a page that is under way; a later one makes its answer worthless. */
  #loading = null;
  /** Events since a page was asked for. */
  #overlap = [];
  /** Where the stream began; what lies before it comes with pages only. */
  #streamFrom = null;
  /** The last mark that told that this list was seen. */
  #seen = null;

  constructor(source, changed) {
    this.#source = source;
    this.#changed = changed;
  }

  get isLoading() {
    return this.#loading !== null;
  }

  get counts() {
    return this.#source.counts;
  }

  /** Begins, from whatever the source has reached. */
  open() {
    if (this.#source.status === 'ended') this.#end(this.#source.why);
    else this.load();
  }

  /** Stops listening to what is under way. */
  close() {
    this.#loading = null;
    this.#changed = () => {};
  }

  choose({ tab = this.list.tab, category = this.list.category }) {
    this.list = new EntryList({ tab, category });
    this.load();
  }

  // --- Loading -----------------------------------------------------------------------------------------------------

  /** Loads the newest page. Quietly, what is on display stays until it is there. */
  async load({ quietly = false } = {}) {
    const { tab, category } = this.list;
    const fresh = new EntryList({ tab, category });
    if (this.#source.readonly) return this.#recall(fresh);
    const mine = (this.#loading = {});
    this.#overlap = [];
    if (!quietly) {
      this.phase = 'loading';
      this.list = new EntryList({ tab, category });
      this.#changed();
    }
    let page;
    try {
      page = await this.#ask({ state: tab, category });
    } catch (error) {
      if (this.#loading === mine) this.#failed(error, quietly);
      return;
    }
    if (this.#loading !== mine) return;
    this.#loading = null;
    fresh.addPage(page, { newest: true });
    const unsettled = this.#replayOverlap(fresh);
    this.list = fresh;
    this.phase = 'ready';
    this.#source.takeCounts(page.counts, page.cursor);
    this.#changed();
    if (isBehind(page.cursor, this.#streamFrom)) return void this.load({ quietly: true });
    for (const one of unsettled) this.#settle(one);
  }

  #ask({ category, ...query }) {
    return this.#source.client.inbox({ limit: PAGE, category: category || undefined, ...query });
  }

  #failed(error, quietly) {
    this.#loading = null;
    if (isSignedOut(error)) return this.#end('signed-out');
    if (quietly && this.phase === 'ready') {
      setTimeout(() => this.phase === 'ready' && !this.#loading && this.load({ quietly }), RETRY_MS);
      return;
    }
    this.phase = 'failed';
    this.why = error;
    this.#changed();
  }

  /** Without pages to ask for: what the events since the snapshot make. */
  #recall(fresh) {
    this.list = fresh;
    for (const [kind, data, cursor] of this.#source.history) apply(fresh, kind, data, cursor);
    this.phase = this.#source.user === null || this.#source.cameLate ? 'loading' : 'ready';
    this.#changed();
  }

  #replayOverlap(onto) {
    const news = this.#overlap.filter(([, , cursor]) => !isCovered(cursor, onto.cursor));
    return news.map(([kind, data, cursor]) => apply(onto, kind, data, cursor));
  }

  /** Loads the next older page. An error is the caller's to tell. */
  async loadOlder() {
    if (this.#loading || this.phase !== 'ready' || this.list.next === null) return;
    const mine = (this.#loading = {});
    const onto = this.list;
    this.#overlap = [];
    this.#changed();
    try {
      const page = await this.#ask({ before: onto.next, state: onto.tab, category: onto.category });
      if (this.#loading !== mine) return;
      onto.addPage(page, { newest: false });
      for (const [kind, data, cursor] of this.#overlap) if (kind === 'state') onto.applyState(data, cursor, now());
    } catch (error) {
      if (this.#loading !== mine) return;
      if (isSignedOut(error)) this.#end('signed-out');
      else throw error;
    } finally {
      if (this.#loading === mine) this.#loading = null;
      this.#changed();
    }
  }

  /** Fetches what an event named but the list does not hold. */
  async #settle({ missing, reload }) {
    if (this.#source.readonly) return;
    if (reload || missing.length > FETCH_LIMIT) return void this.load({ quietly: true });
    const onto = this.list;
    for (const id of missing) {
      try {
        onto.addEntry(await this.#source.client.entry(id));
      } catch {
        continue; // Gone meanwhile, or the connection is: a `hello` will put it right.
      }
      this.#changed();
    }
  }

  // --- Events ------------------------------------------------------------------------------------------------------

  /** Takes in an event of the source. True if it put one more entry into the list. */
  receive(kind, data, cursor) {
    if (kind === 'hello') this.#greet(data);
    if (kind === 'status') this.#follow(data);
    if (kind === 'state') this.#takeState(data, cursor);
    return kind === 'notification' && this.#takeNotification(data, cursor);
  }

  #greet({ cursor, recovered }) {
    this.#streamFrom = cursor;
    const ready = this.phase === 'ready';
    if (this.#source.readonly) {
      if (!recovered || !ready) this.load();
    } else if (!recovered || (ready && !isCovered(cursor, this.list.reached))) {
      this.load({ quietly: ready });
    }
  }

  #follow(status) {
    if (status === 'ended') this.#end(this.#source.why);
    else if (this.phase === 'ended' || (this.phase === 'failed' && status === 'live')) this.load();
    else this.#changed();
  }

  #takeNotification(data, cursor) {
    if (this.#loading) this.#overlap.push(['notification', data, cursor]);
    const isNew = this.list.addNotification(data, cursor, { hold: this.holding });
    if (this.list.size > KEEP && !this.holding && !this.#loading) this.#shorten();
    this.#changed();
    return isNew;
  }

  /** Loaded anew, what is cut off can be asked for again; where there is nothing to ask, the oldest are forgotten. */
  #shorten() {
    if (this.#source.readonly) this.list.trim(KEEP);
    else this.load({ quietly: true });
  }

  #takeState(data, cursor) {
    if (this.#loading) this.#overlap.push(['state', data, cursor]);
    const unsettled = this.list.applyState(data, cursor, now());
    if (!this.#loading) this.#settle(unsettled);
    this.#changed();
  }

  #end(why) {
    this.#loading = null;
    this.list = new EntryList({ tab: this.list.tab, category: this.list.category });
    this.phase = 'ended';
    this.why = why;
    this.#changed();
  }

  /** Puts on display what was held back; where that is more than was kept, the newest page, which has to be there first. */
  async release() {
    if (this.list.overflows) return this.load({ quietly: true });
    this.list.release();
    this.#changed();
  }

  // --- Marks -------------------------------------------------------------------------------------------------------

  /** Shows a mark at once and sends it; it is taken back where the server says no, and the error is the caller's to tell. */
  async mark(which) {
    const answered = this.#send(which); // First, for it looks at what is on display.
    const expected = this.list.expect(which, now());
    this.#changed();
    try {
      const answer = await answered;
      expected.settle(answer.cursor);
      this.list.bury(answer.unknown ?? []); // Dead, and the word of it is on its way; or it went with its topic, without one.
      return answer;
    } catch (error) {
      expected.takeBack();
      throw error;
    } finally {
      this.#changed();
    }
  }

  /** Answers what was sent and what came of it. A token that sees some topics only must name what it marks, since a bound would cover what it can't see. */
  async #send(which) {
    const ids = which.upto ? this.list.visible.slice(0, IDS_LIMIT).map(({ id }) => id) : [];
    try {
      return { ...which, ...(await this.#source.mark(which)) };
    } catch (error) {
      if (error.status !== 403 || ids.length === 0) throw error;
      const named = { as: which.as, ids };
      return { ...named, ...(await this.#source.mark(named)) };
    }
  }

  /** How much of what is on display is not yet `count` ('unread' or 'unseen'). */
  #left(count) {
    const { category } = this.list;
    return (category ? this.counts?.by_category?.[category] : this.counts)?.[count] ?? 0;
  }

  get canMarkAll() {
    return this.phase === 'ready' && this.list.cursor !== null && this.#left('unread') > 0;
  }

  /** The mark that covers what is on display and nothing that came later. */
  upto(as) {
    return { as, upto: this.list.cursor, ...(this.list.category && { category: this.list.category }) };
  }

  /** Who looks at the list has seen what is on it, which is not to say read. */
  async markSeen() {
    const shown = this.phase === 'ready' && this.list.tab !== 'archived' && this.list.cursor !== null;
    if (!shown || this.#source.readonly || this.#left('unseen') === 0) return null;
    const which = this.upto('seen');
    const told = JSON.stringify(which);
    if (this.#seen === told) return null; // What is still unseen lies beyond what is on display.
    this.#seen = told;
    try {
      return await this.#send(which);
    } catch {
      this.#seen = null; // Not worth a word: the next look says it again.
      return null;
    }
  }
}
