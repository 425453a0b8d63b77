// tidings.d.ts says what tidings.js offers, in types. docs/protocol.md says what the events mean.

/** `<epoch>.<seq>`, a position in the one order of the log. Opaque: compare with `isCovered`. */
export type Cursor = string;
/** RFC 3339. */
export type Time = string;

export type TransportName = 'sse' | 'poll' | 'ws';

export type Status =
  /** Made with `paused` and not opened yet. */
  | 'idle'
  /** The first connection is on its way. */
  | 'connecting'
  /** What is shown is what is, at most a moment late. */
  | 'live'
  /** There was a connection, and there will be one again. */
  | 'reconnecting'
  /** As `connecting` or `reconnecting`, and the browser says that it has no network. It is tried all the same. */
  | 'offline'
  /** Over, until `open()`. The reason stands beside it. */
  | 'ended';

/** Why a client has ended. */
export type EndReason =
  /** The credential has run out, and there was no new one. */
  | 'expired'
  /** There is no session, or the token callback gave nothing. */
  | 'signed-out'
  /** The token or ticket was never good here. */
  | 'refused'
  /** The credential is good, but not for this. */
  | 'forbidden'
  /** The server took the credential back. */
  | 'revoked'
  /** The ticket is used by another page. */
  | 'replaced'
  /** The credential is now another person's than the one this page was for. `open()` begins anew, for the other person. */
  | 'another-user'
  /** The page called `close()`. */
  | 'closed';

/** `start`: there is none yet; `expires`: the one in use will soon run out; `refused`: the server took it no more. */
export type CredentialReason = 'start' | 'expires' | 'refused';
/** A credential, or how to get one. A callback that gives nothing says that nobody is signed in; one that throws is asked again later. */
export type CredentialSource = string | ((why: CredentialReason) => string | null | undefined | Promise<string | null | undefined>);

export interface Options {
  /** The base of the server, such as `https://host/tidings/`. Default: where this module was loaded from, one folder up. */
  url?: string | URL;
  /** A JWT. It is sent in a header and never stands in an address. */
  token?: CredentialSource;
  /** A ticket, for pages that only read. With neither, the session cookie is used. */
  ticket?: CredentialSource;
  /** `auto` streams, and polls where something in between holds streams back. Default `auto`. */
  transport?: 'auto' | TransportName;
  /**
   * Whether the pages of this origin with the same server, user and filters share one connection. A string keeps those
   * that name it apart from the others. Default true. A page that can't share (no storage, a sandboxed frame) has a
   * connection of its own while it is in sight, and catches up when it comes back to it.
   */
  share?: boolean | string;
  /** Tells people apart for sharing when tickets are used. With a token its `sub` does. */
  user?: string;
  /** Where to begin: a position, `now` or `start`. Default: a first visit, with the newest entries as `replayed` notifications. */
  cursor?: Cursor | 'now' | 'start' | null;
  /** How many entries a first visit brings, 0 to 100. Default 15. */
  snapshot?: number;
  /** Only these kinds of events. */
  events?: string | string[];
  /** Only notifications of this category. */
  category?: string;
  /** Only notifications of these topics, by names or beginnings with `*`. */
  topics?: string | string[];
  /** Do not connect before `open()`. */
  paused?: boolean;
}

export interface CategoryCounts {
  unread: number;
  unseen: number;
}

/** Absolute and exact. Categories in which nothing is unread or unseen are left out. */
export interface Counts extends CategoryCounts {
  by_category: Record<string, CategoryCounts>;
}

export interface CountsAsOf extends Counts {
  as_of: Cursor;
}

export interface EntryState {
  seen_at: Time | null;
  read_at: Time | null;
  archived_at: Time | null;
}

export interface Action {
  label: string;
  click: string;
}

export interface NotificationData {
  id: string;
  seq: number;
  /** Null for one that was sent to this person, `everyone` for one to all. */
  topic: string | null;
  category: string;
  title: string;
  body: string;
  /** What the publisher sent along, as it was sent. */
  data: unknown;
  icon: string | null;
  click: string | null;
  actions: Action[];
  priority: 1 | 2 | 3 | 4 | 5;
  sender: string | null;
  created_at: Time;
  /**
   * It is not news: it happened while the page was away, or belongs to the first picture. Pop nothing up for it. A connection
   * that is made anew within ten seconds and a heartbeat of the last word was not away: what came meanwhile is news.
   */
  replayed: boolean;
  /** Only where it was read from the log, as all that is replayed. Without it the entry is new. */
  state?: EntryState;
}

/** An entry of the inbox. */
export interface Entry extends Omit<NotificationData, 'replayed' | 'state'> {
  state: EntryState;
}

/** Taken back by its publisher; over by its own time; another took its place. */
export type DeathName = 'retracted' | 'expired' | 'replaced';
export type StateName = 'seen' | 'read' | 'unread' | 'archived' | 'unarchived' | DeathName;

/** What one of the person's devices has changed: of the entries `ids`, or of all up to `upto`. */
export type MarkedData = { state: Exclude<StateName, DeathName>; category?: string | null; by?: undefined } & ({ ids: string[]; upto?: undefined } | { upto: Cursor; ids?: undefined });

/** Entries that are no more: take them out of every list. `by` is the id of the one that has taken their place. */
export type DeathData = { ids: string[]; upto?: undefined; category?: undefined } & (
  | { state: 'retracted' | 'expired'; by?: undefined }
  | { state: 'replaced'; by: string }
);

export type StateData = MarkedData | DeathData;

export interface HelloData {
  user: string;
  /** The position before what follows. */
  cursor: Cursor;
  /** The newest position; `counts` are as of it. */
  head: Cursor;
  /** Whether everything since the page's position follows. If not, the newest entries follow, and what the page shows is to be loaded anew. */
  recovered: boolean;
  reason?: 'none' | 'epoch' | 'pruned' | 'ahead' | 'malformed';
  /** Events that follow as replay or as first picture; `"1000+"` or the like where there are more than were counted. */
  missed: number | string;
  counts: Counts;
  /** Seconds. */
  heartbeat: number;
  /** When the credential runs out. */
  expires: Time | null;
  /** The connection's id, where it is one that can be refreshed. */
  stream: string | null;
}

export interface TokenData {
  /** In how many seconds the credential runs out. The client renews it by itself where it has a callback. */
  seconds: number;
}

export interface ByeData {
  reason: 'shutdown' | 'rotate' | 'overloaded' | 'expired' | 'revoked' | 'slow' | 'replaced';
  reconnect: boolean;
  retry_ms?: number;
}

export interface EventData {
  hello: HelloData;
  notification: NotificationData;
  state: StateData;
  unread: CountsAsOf;
  /** Only in the page whose connection it is, as `bye`. */
  token: TokenData;
  bye: ByeData;
}

export interface TidingsEvent<Kind extends string = string, Data = unknown> {
  /** The position; null where the kind has none of its own. */
  id: Cursor | null;
  event: Kind;
  data: Data;
}

export type Mark =
  | { as: 'seen' | 'read' | 'archived'; upto: Cursor; ids?: undefined; category?: string }
  | { as: 'seen' | 'read' | 'unread' | 'archived' | 'unarchived'; ids: string[]; upto?: undefined; category?: string };

export interface Marked {
  changed: number;
  counts: Counts;
  cursor: Cursor;
  /** Those ids that are not in this inbox, or no more. */
  unknown?: string[];
}

export interface InboxQuery {
  /** `next` of the page before. */
  before?: Cursor | null;
  /** 1 to 100. */
  limit?: number;
  state?: 'all' | 'unread' | 'archived';
  category?: string;
}

/** A page of the inbox, newest first. */
export interface InboxPage {
  entries: Entry[];
  /** Where the next older page begins; null at the end. */
  next: Cursor | null;
  counts: Counts;
  /** Up to where this page knows what has happened. */
  cursor: Cursor;
}

/** A topic that the person follows or has muted. */
export interface FollowedTopic {
  topic: string;
  category: string;
  following: boolean;
  /** Its entries come, and count nowhere. */
  muted: boolean;
  /** Who decides who follows it: the application, or the users too. */
  follow: 'managed' | 'open';
}

export interface RequestOptions {
  /** Those without a value are left out. */
  query?: Record<string, string | number | boolean | null | undefined>;
  /** What becomes JSON, or a string that is JSON already. */
  body?: unknown;
  headers?: Record<string, string>;
  /** Let the request outlive the page, as for a mark at the moment of leaving. */
  keepalive?: boolean;
  signal?: AbortSignal;
}

export interface Client {
  readonly status: Status;
  /** Of the connection that feeds this page; null while there is none. */
  readonly transport: TransportName | null;
  /** Whether this page holds the browser's one connection: the one to show desktop notifications. True where nothing is shared. */
  readonly isLeader: boolean;
  /** The newest that is known; null before the first `hello`. */
  readonly user: string | null;
  readonly cursor: Cursor | null;
  readonly counts: CountsAsOf | null;
  /** Whether the credential only reads, as a ticket does: marks and the inbox are then refused. */
  readonly readonly: boolean;

  /**
   * Calls `handler` for each event of a kind, until the function that is returned is called. `notification` and `state`
   * come once, in order, whatever happens to connections. `hello` comes whenever a position was agreed on: at first, after a
   * reconnect, after a page has missed something. What a handler throws is reported and stops nothing.
   */
  on<Kind extends keyof EventData>(kind: Kind, handler: (data: EventData[Kind], event: TidingsEvent<Kind, EventData[Kind]>) => void): () => void;
  on(kind: 'status', handler: (status: Status, why: EndReason | null) => void): () => void;
  /** Every event of the server. */
  on(kind: '*', handler: (data: unknown, event: TidingsEvent) => void): () => void;
  on(kind: string, handler: (data: unknown, event: TidingsEvent) => void): () => void;

  /** Connects, or begins anew after an end: position, counts and user of before are then forgotten. */
  open(): void;
  /** Ends the connection until `open()`. */
  close(): void;
  /** Makes a new connection at once, from the same position. Opens a client that has ended. */
  reconnect(): void;

  mark(mark: Mark, options?: { keepalive?: boolean }): Promise<Marked>;
  inbox(query?: InboxQuery, options?: { signal?: AbortSignal }): Promise<InboxPage>;
  entry(id: string): Promise<Entry>;

  /** What the person follows or has muted. */
  follows(): Promise<{ topics: FollowedTopic[] }>;
  /** Follows a topic that is `open`, from now on or with the `last` (0 to 100) of its entries, which count as unread. */
  follow(topic: string, options?: { last?: number }): Promise<{ topic: string; user: string; following: boolean; changed: boolean }>;
  unfollow(topic: string): Promise<{ topic: string; user: string; following: boolean; changed: boolean }>;
  /** Takes a topic out of the counts, followed or not. */
  mute(topic: string): Promise<{ topic: string; user: string; muted: boolean; changed: boolean }>;
  unmute(topic: string): Promise<{ topic: string; user: string; muted: boolean; changed: boolean }>;
  /** Any request, with the client's credential. Rejects with a `Problem` or as `Unreachable`, after 15 s at the latest. */
  request<Answer = any>(method: string, path: string, options?: RequestOptions): Promise<Answer>;
}

/** A client of a Tidings server. It connects at once unless `paused`. */
export function connect(options?: Options): Client;

/** The server answered and said no, as a problem document (RFC 9457). */
export class Problem extends Error {
  constructor(status: number, document: { detail?: string; title?: string; code?: string; errors?: unknown }, retryAfter?: number | null);
  readonly name: 'Problem';
  readonly status: number;
  /** Stable: see `/problems/<code>`. */
  readonly code: string | null;
  readonly errors: { pointer?: string; detail: string }[];
  /** Milliseconds after which to try again, where the server named them. */
  readonly retryAfter: number | null;
}

/** No answer came: whether the request had an effect is unknown. */
export class Unreachable extends Error {
  constructor(cause: unknown);
  readonly name: 'Unreachable';
}

/** `<epoch>.<seq>` taken apart; null where it isn't that. */
export function parseCursor(text: string | null | undefined): { epoch: string; seq: number } | null;
/** Whether `cursor` lies at or before `other` in the same log. */
export function isCovered(cursor: string | null | undefined, other: string | null | undefined): boolean;

/** The parser of server-sent events, for those who read a stream themselves. */
export class EventStreamParser {
  /** Takes in bytes; answers the events that they complete. */
  push(bytes: Uint8Array): { id: string; event: string; data: string }[];
}
