// element-topics.js owns <tidings-topics>: the topics a person follows, folded up; each with a switch that mutes it and, where
// it is open, with a way out.
//
// Data passes so: the server is asked for the list at the beginning, when the fold is opened, and when a topic speaks that is not
// on it. Each press is a request, and its answer is what is shown; what it does to the counts comes by the stream, as every count does.
// Invariant: a topic that was left here keeps its place, with a way back, until the fold is opened again: nothing jumps away under the
// pointer, and a slip is mended by a second press.
// Invariant: an answer that was asked for before a press, and may know nothing of it, is not shown after it.
// It deliberately finds no topics that the person does not follow: which there are is the application's to say.

import { make } from './dom.js';
import { TidingsElement } from './element-base.js';
import { topicsSheet } from './element-styles.js';

export class TidingsTopics extends TidingsElement {
  static observedAttributes = [...super.observedAttributes, 'readonly'];

  /** As the server told them; null while nobody is known to be there. */
  #topics = null;
  /** The request for the list that is under way; a later one, or a press, makes its answer worthless. */
  #asking = null;
  /** Names of topics whose press is not answered yet. */
  #pressed = new Set();
  #nodes = null;
  #rows = new Map();

  constructor() {
    super(topicsSheet);
    this.shadowRoot.addEventListener('click', (event) => this.#click(event));
  }

  joined() {
    if (this.source.user !== null) this.#load(); // Else `hello` is still to come.
    this.#draw();
  }

  left() {
    this.#forget();
  }

  changed() {
    if (this.readonly) this.#forget();
    else this.#load();
  }

  build() {
    const { words } = this;
    const open = Boolean(this.#nodes?.fold.open);
    this.#rows.clear();
    const count = make('span', { class: 'tab-count', part: 'count' });
    const summary = make('summary', { part: 'summary' }, words.say('topics'), ' ', count);
    const list = make('ul', { part: 'list', role: 'list', 'aria-label': words.say('topics') });
    const note = make('p', { class: 'note', part: 'note', role: 'status' });
    const fold = make('details', { part: 'base', lang: words.locale, open }, summary, list, note);
    fold.addEventListener('toggle', () => fold.open && this.#load());
    this.#nodes = { fold, summary, count, list, note };
    this.shadowRoot.replaceChildren(fold);
    this.#draw();
  }

  receive(kind, data) {
    if (kind === 'status' && data === 'ended') this.#forget();
    if (kind === 'hello' && (this.#topics === null || this.#nodes.fold.open)) this.#load();
    if (kind === 'notification' && !data.replayed && this.#isUnheardOf(data.topic)) this.#load();
  }

  #isUnheardOf(topic) {
    return topic !== null && topic !== 'everyone' && !this.#topics?.some((known) => known.topic === topic);
  }

  #forget() {
    this.#asking = this.#topics = null;
    this.#draw();
  }

  async #load() {
    if (this.readonly || !this.source) return;
    const mine = (this.#asking = {});
    try {
      const { topics } = await this.source.client.follows();
      if (this.#asking !== mine) return;
      this.#asking = null;
      this.#topics = topics;
      this.#draw();
    } catch {
      // What is shown stays. The next `hello`, or the next look, asks again.
    }
  }

  // --- Drawing -----------------------------------------------------------------------------------------------------

  #draw() {
    if (!this.#nodes) return;
    const topics = this.#topics ?? [];
    this.toggleAttribute('hidden', this.readonly || topics.length === 0);
    this.#nodes.count.textContent = String(topics.length);
    this.#place(topics.map(({ topic }) => topic));
    for (const topic of topics) this.#paint(topic);
  }

  /** Brings the rows in line with the names; the focus stays where it was, or goes to the fold where its row is gone. */
  #place(names) {
    if ([...this.#rows.keys()].join('\n') === names.join('\n')) return;
    const held = this.shadowRoot.activeElement;
    this.#rows = new Map(names.map((name) => [name, this.#rows.get(name) ?? this.#makeRow(name)]));
    this.#nodes.list.replaceChildren(...[...this.#rows.values()].map(({ row }) => row));
    if (held) (held.isConnected ? held : this.#nodes.summary).focus({ preventScroll: true });
  }

  #makeRow(name) {
    const { words } = this;
    const action = words.say('muteTopic');
    const label = words.say('entryButton', { action, title: name });
    const mute = make('button', { type: 'button', class: 'switch', part: 'mute', role: 'switch', 'data-act': 'mute', 'aria-label': label },
      action, make('span', { class: 'track', 'aria-hidden': 'true' }));
    const follow = make('button', { type: 'button', class: 'follow', part: 'follow', 'data-act': 'follow' });
    const row = make('li', { class: 'topic', part: 'topic', 'data-topic': name }, make('bdi', { class: 'name', part: 'name' }, name), follow, mute);
    return { row, mute, follow };
  }

  #paint({ topic, following, muted, follow: by }) {
    const { words } = this;
    const { row, mute, follow } = this.#rows.get(topic);
    row.dataset.muted = String(muted);
    mute.setAttribute('aria-checked', String(muted));
    const action = words.say(following ? 'leaveTopic' : 'followTopic');
    follow.textContent = action;
    follow.setAttribute('aria-label', words.say('entryButton', { action, title: topic }));
    follow.hidden = by !== 'open';
    const waits = String(this.#pressed.has(topic));
    for (const button of [mute, follow]) button.setAttribute('aria-disabled', waits);
  }

  // --- What the person does ----------------------------------------------------------------------------------------

  #click(event) {
    const button = event.target.closest('button[data-act]');
    const name = button?.closest('[data-topic]').dataset.topic;
    const topic = this.#topics?.find((known) => known.topic === name);
    if (topic && !this.#pressed.has(name)) this.#press(topic, button.dataset.act);
  }

  async #press(topic, act) {
    const { client } = this.source;
    const name = topic.topic;
    const undo = act === 'mute' ? topic.muted : topic.following;
    const verb = { mute: ['mute', 'unmute'], follow: ['follow', 'unfollow'] }[act][Number(undo)];
    this.#pressed.add(name);
    this.#nodes.note.textContent = '';
    this.#draw();
    try {
      const answer = await client[verb](name);
      Object.assign(topic, act === 'mute' ? { muted: answer.muted } : { following: answer.following });
      // A list that was asked for meanwhile may be from before the press. (None at all: nobody is there any more.)
      if (this.#topics && (this.#asking || !this.#topics.includes(topic))) this.#load();
    } catch (error) {
      this.#nodes.note.textContent = this.words.say('didNotWork', { reason: this.words.reason(error) });
    } finally {
      this.#pressed.delete(name);
      this.#draw();
    }
  }
}
