// tidings-elements.js is the way in: it defines <tidings-bell>, <tidings-inbox>, <tidings-counter> and <tidings-topics> in
// the page that imports it.
//
//     <script type="module" src="https://host/tidings/static/tidings-elements.js"></script>
//     <tidings-bell ticket="…"></tidings-bell>
//
// Everything that a page may rely on stands, with its words, in tidings-elements.d.ts. In short:
//
//   all       attributes  url, ticket, user, transport, lang
//             properties  client (a `connect()` client), token (a JWT, or a callback that gives one), strings
//             events      tidings-counts, tidings-notification (cancelable: no desktop notification), tidings-status
//   bell      attributes  count="unseen|unread", max="99", title-count, desktop, readonly; `opened` says that it is
//             methods     open(), close(), toggle();  events  tidings-open, tidings-close, and the inbox's
//             slots       icon, header, empty, footer
//   inbox     attributes  readonly, desktop, scrolls (give it a height), heading-level="2"
//             events      tidings-entry-click (cancelable: the link is not followed), tidings-mark
//             slots       header, loading, empty, error, ended, footer
//   counter   attributes  count, max, category, show-zero, title-count
//   topics    attributes  readonly
//
// Elements with equal options share one client, and so one connection. Without `url` the server is the one that this module came
// from. With neither `token` nor `ticket` the session cookie counts. A ticket only reads: nothing can be marked with it.
//
// What each file owns: element-base.js what is common, element-{bell,inbox,counter,topics}.js an element each, source.js what elements
// share, inbox-model.js and list.js what an inbox shows, entry.js one entry, strings.js the words, element-styles.js the looks,
// desktop.js and title.js what lies outside of the page's body.

import { TidingsBell } from './element-bell.js';
import { TidingsCounter } from './element-counter.js';
import { TidingsInbox } from './element-inbox.js';
import { TidingsTopics } from './element-topics.js';

// A page may import this from two places; the first stays.
const ELEMENTS = { 'tidings-counter': TidingsCounter, 'tidings-topics': TidingsTopics, 'tidings-inbox': TidingsInbox, 'tidings-bell': TidingsBell };
for (const [name, element] of Object.entries(ELEMENTS)) {
  if (!customElements.get(name)) customElements.define(name, element);
}

export { TidingsBell, TidingsCounter, TidingsInbox, TidingsTopics };
