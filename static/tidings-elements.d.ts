// The types of tidings-elements.js: the four elements, what they take, and what they tell.

import type { Client, CredentialSource, Counts, EndReason, Entry, Mark, Marked, NotificationData, Status } from './tidings.js';

/**
 * One text, with `{name}` for what changes; or one for each plural category of `{n}` (`one`, `other`, …, as in
 * `Intl.PluralRules`); or a function of the values.
 */
export type TidingsText = string | ({ other: string } & Partial<Record<Intl.LDMLPluralRule, string>>) | ((values: Record<string, string | number>) => string);

/** The words of the elements. English and Simplified Chinese are built in. */
export interface TidingsStrings {
  notifications: TidingsText;
  /** What the bell is called: without a count, with `{n}` unseen, with `{n}` unread. */
  bellNone: TidingsText;
  bellUnseen: TidingsText;
  bellUnread: TidingsText;
  counterUnseen: TidingsText;
  counterUnread: TidingsText;
  tabs: TidingsText;
  all: TidingsText;
  unread: TidingsText;
  archived: TidingsText;
  category: TidingsText;
  allCategories: TidingsText;
  markAll: TidingsText;
  loading: TidingsText;
  older: TidingsText;
  loadingOlder: TidingsText;
  emptyAll: TidingsText;
  emptyAllText: TidingsText;
  emptyUnread: TidingsText;
  emptyUnreadText: TidingsText;
  emptyArchived: TidingsText;
  emptyArchivedText: TidingsText;
  failed: TidingsText;
  unreachable: TidingsText;
  tryAgain: TidingsText;
  offline: TidingsText;
  offlineText: TidingsText;
  offlineBanner: TidingsText;
  reconnecting: TidingsText;
  connectedAgain: TidingsText;
  ended: TidingsText;
  endedText: TidingsText;
  endedExpired: TidingsText;
  endedExpiredText: TidingsText;
  endedReplaced: TidingsText;
  endedReplacedText: TidingsText;
  endedOther: TidingsText;
  endedOtherText: TidingsText;
  /** `{n}` seconds. */
  sessionEnds: TidingsText;
  untitled: TidingsText;
  unreadEntry: TidingsText;
  showMore: TidingsText;
  showLess: TidingsText;
  priority1: TidingsText;
  priority2: TidingsText;
  priority4: TidingsText;
  priority5: TidingsText;
  markRead: TidingsText;
  markUnread: TidingsText;
  archive: TidingsText;
  unarchive: TidingsText;
  /** `{action}` is one of the four before, `{title}` the entry's. */
  entryButton: TidingsText;
  /** `{n}` entries wait at the top. */
  pill: TidingsText;
  /** `{n}` came: announced to those who listen. */
  arrived: TidingsText;
  /** One came: `{arrived}` is the sentence before, `{title}` the entry's. */
  arrivedOne: TidingsText;
  wasArchived: TidingsText;
  wasUnarchived: TidingsText;
  undo: TidingsText;
  /** `{reason}` is what the server said. */
  didNotWork: TidingsText;
  enableDesktop: TidingsText;
  /** The fold of `<tidings-topics>`, and what can be done to a topic; in `entryButton` the topic is the `{title}`. */
  topics: TidingsText;
  muteTopic: TidingsText;
  leaveTopic: TidingsText;
  followTopic: TidingsText;
  justNow: TidingsText;
}

/**
 * What the four elements have in common.
 *
 * Attributes: `url`, the base of the server (default: where the module came from); `ticket`, which only reads; `user`, which tells
 * people apart for sharing a connection where tickets are used; `transport`, `auto`, `sse`, `poll` or `ws`; `lang`, else the
 * closest `lang` around the element counts, then the browser's language.
 *
 * Elements with equal options share one client. They connect a moment after they are in the document, so set attributes and
 * properties in any order. Without `token` and `ticket` the session cookie counts.
 *
 * CSS variables, with their defaults in light and dark (the element takes what suits the `color-scheme` it stands in):
 *
 * | variable | light | dark | of |
 * |---|---|---|---|
 * | `--tidings-surface` | `#ffffff` | `#151c1d` | the list, the panel, buttons |
 * | `--tidings-raised` | `#e9efef` | `#1f292a` | the tabs' ground, what is pointed at |
 * | `--tidings-lift` | `#ffffff` | `#33413f` | the chosen tab |
 * | `--tidings-line` | `#dde5e5` | `#283335` | lines between entries |
 * | `--tidings-edge` | `#76878a` | `#71858a` | borders of controls |
 * | `--tidings-text` | `#132022` | `#e8efef` | text |
 * | `--tidings-soft` | `#4c5d60` | `#a3b3b5` | text of less weight |
 * | `--tidings-accent` | `#0b6b6a` | `#5bd0c6` | the badge, the dot of what is unread, focus rings |
 * | `--tidings-accent-strong` | `#085453` | `#85e0d8` | text on the tint |
 * | `--tidings-on-accent` | `#ffffff` | `#04211f` | text on the accent |
 * | `--tidings-tint` | `#e3f2f1` | `#14302f` | grounds that belong to the accent |
 * | `--tidings-danger` | `#a92a1f` | `#ff9d92` | the word for what is urgent |
 * | `--tidings-badge-background`, `--tidings-badge-text` | accent, on-accent | the same | the bell's badge |
 *
 * | variable | default | of |
 * |---|---|---|
 * | `--tidings-font`, `--tidings-font-size` | `inherit` | all text |
 * | `--tidings-radius` | `14px` | the list and the panel |
 * | `--tidings-shadow` | a soft one | the list |
 * | `--tidings-bell-size` | `44px` | the bell's button |
 * | `--tidings-panel-width`, `--tidings-panel-height` | `420px`, `620px` | the bell's panel, at most |
 * | `--tidings-sticky-top` | `12px` | where the pill stands: below what sticks to the top of the page |
 * | `--tidings-list-min-height` | `12em` | the inbox without entries |
 */
export interface TidingsElement extends HTMLElement {
  /** The client in use. Set one from `connect()` to use your own; the element never closes that. */
  get client(): Client | null;
  set client(client: Client | null);
  /** A JWT, or a callback that gives one (keep to one function: another is another connection). It is sent in a header and stands in no address. */
  token: CredentialSource | null;
  /** Words over the built-in ones; all of them, with `lang`, for another language. */
  strings: Partial<TidingsStrings> | null;
  /**
   * Whether nothing can be marked: by the attribute `readonly`, or because of a `ticket`, also that of a `client` the page gave. Give
   * such a client before it has connected: a ticket can't ask for what came before the element was there to hear it.
   */
  readonly readonly: boolean;
}

/**
 * `<tidings-bell>`: a button with a badge, and a panel with a `<tidings-inbox>`. Opening it marks as seen what it shows.
 *
 * Attributes: `count` (`unseen` or `unread`), `max` (99), `title-count` (puts the count before the document's title), `desktop`
 * (desktop notifications, and a button in the panel that asks for them), `readonly`. `opened` is set while it is.
 * Slots: `icon`, `header`, `empty`, `footer`. Parts: `button`, `icon`, `badge`, `panel`, `heading`, `inbox`, and the inbox's.
 */
export class TidingsBell extends HTMLElement implements TidingsElement {
  get client(): Client | null;
  set client(client: Client | null);
  token: CredentialSource | null;
  strings: Partial<TidingsStrings> | null;
  readonly readonly: boolean;
  /** Whether the panel is open. */
  readonly opened: boolean;
  open(): void;
  /** Closes the panel; the focus returns to the button unless told otherwise. */
  close(options?: { refocus?: boolean }): void;
  toggle(): void;
}

/**
 * `<tidings-inbox>`: tabs, a choice of category, and the list.
 *
 * Attributes: `readonly`, `desktop`, `scrolls` (it scrolls inside itself; give it a height), `heading-level` (2).
 * Slots: `header`, `loading`, `empty`, `error`, `ended`, `footer`.
 * Parts: `base`, `toolbar`, `tabs`, `tab`, `tab-count`, `tools`, `category-select`, `control` (also `mark-all`, `desktop`, `older`,
 * `try-again`), `scroller`, `banner`, `pill`, `content`, `list`, `entry` (also `entry-unread`), `avatar`, `title`, `link`, `body`, `more`,
 * `actions`, `action`, `meta`, `priority`, `category`, `sender`, `time`, `buttons`, `icon-button` (also `read`, `archive`), `loading`,
 * `notice` (also `empty`, `error`, `ended`), `toast`, `toast-action`.
 */
export class TidingsInbox extends HTMLElement implements TidingsElement {
  get client(): Client | null;
  set client(client: Client | null);
  token: CredentialSource | null;
  strings: Partial<TidingsStrings> | null;
  readonly readonly: boolean;
}

/**
 * `<tidings-counter>`: only the number. Attributes: `count` (`unseen` or `unread`), `max` (99), `category`, `show-zero` (else it has
 * the attribute `hidden` while there is nothing to count), `title-count`. Part: `number`.
 */
export class TidingsCounter extends HTMLElement implements TidingsElement {
  get client(): Client | null;
  set client(client: Client | null);
  token: CredentialSource | null;
  strings: Partial<TidingsStrings> | null;
  readonly readonly: boolean;
}

/**
 * `<tidings-topics>`: the topics the person follows, folded up, each with a switch that mutes it and, where it is `open`, a button to
 * leave it. It has the attribute `hidden` while there are none, and where nothing can be changed (`readonly`, or a `ticket`).
 * Parts: `base`, `summary`, `count`, `list`, `topic`, `name`, `follow`, `mute`, `note`.
 */
export class TidingsTopics extends HTMLElement implements TidingsElement {
  get client(): Client | null;
  set client(client: Client | null);
  token: CredentialSource | null;
  strings: Partial<TidingsStrings> | null;
  readonly readonly: boolean;
}

/** Every event bubbles and leaves the shadow root. */
export interface TidingsElementsEvents {
  /** The bell's panel was opened, closed. */
  'tidings-open': CustomEvent<null>;
  'tidings-close': CustomEvent<null>;
  /**
   * An entry, its link or one of its actions (`action` is the label) was pressed. It is marked as read in any case; prevent the
   * event to follow `link` in your own way.
   */
  'tidings-entry-click': CustomEvent<{ entry: Entry | NotificationData; link: string | null; action: string | null }>;
  /** A mark was made here and the server has it. */
  'tidings-mark': CustomEvent<Mark & Marked>;
  'tidings-counts': CustomEvent<Counts>;
  /** A notification came. Prevent it to keep it from the desktop. */
  'tidings-notification': CustomEvent<{ notification: NotificationData; replayed: boolean }>;
  /** The connection's status, as the client's. */
  'tidings-status': CustomEvent<{ status: Status; why: EndReason | null }>;
}

declare global {
  interface HTMLElementTagNameMap {
    'tidings-bell': TidingsBell;
    'tidings-inbox': TidingsInbox;
    'tidings-counter': TidingsCounter;
    'tidings-topics': TidingsTopics;
  }
  interface GlobalEventHandlersEventMap extends TidingsElementsEvents {}
}
