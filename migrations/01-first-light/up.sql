-- The log, the inboxes and who may come in. The reasons are in docs/data-model.md. Never edited after a release.
-- Times are milliseconds since the Unix epoch, UTC. `seq` columns hold positions in the one commit order.

PRAGMA application_id = 1414087790; -- "TIDn"

-- The identity of this log and its newest position: stored, never derived from the newest row.
CREATE TABLE log (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    epoch      TEXT    NOT NULL,
    head       INTEGER NOT NULL CHECK (head >= 0),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE categories (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    -- What was sent to everyone at or before this position is not this user's: fixed when the user first appears.
    everyone_from INTEGER NOT NULL,
    -- The highest position that retention took from the user's direct entries.
    floor         INTEGER NOT NULL DEFAULT 0,
    appeared_at   INTEGER NOT NULL
) STRICT;

-- `everyone` is a topic that all follow; it has one row per category, since a topic has one category.
CREATE TABLE topics (
    id         INTEGER PRIMARY KEY CHECK (id > 0),
    name       TEXT    NOT NULL,
    category   INTEGER NOT NULL REFERENCES categories,
    published  INTEGER NOT NULL DEFAULT 0, -- running total; the ordinal of the newest entry
    newest     INTEGER NOT NULL DEFAULT 0, -- seq of the newest entry
    followers  INTEGER NOT NULL DEFAULT 0,
    floor      INTEGER NOT NULL DEFAULT 0, -- the highest position that retention took
    created_at INTEGER NOT NULL,
    UNIQUE (name, category)
) STRICT;
CREATE UNIQUE INDEX topics_by_name ON topics (name) WHERE name <> 'everyone';

-- One row for a notification, however many read it.
CREATE TABLE notifications (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    topic      INTEGER REFERENCES topics,  -- null: sent to users directly
    ordinal    INTEGER,                    -- the how-manieth entry of its topic, from 1
    category   INTEGER NOT NULL REFERENCES categories,
    priority   INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 5),
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    data       TEXT,
    icon       TEXT,
    click      TEXT,
    actions    TEXT,                       -- label and link in turn, a line each: neither can hold a line break
    sender     TEXT,
    created_at INTEGER NOT NULL,
    CHECK ((topic IS NULL) = (ordinal IS NULL))
) STRICT;
-- Replay of a topic is a range of this index, and an ordinal at a position is its last entry.
CREATE INDEX notifications_by_topic ON notifications (topic, seq, ordinal) WHERE topic IS NOT NULL;

-- A direct entry: this notification is in this user's inbox. `source` is minus its category.
CREATE TABLE entries (
    user   INTEGER NOT NULL REFERENCES users,
    source INTEGER NOT NULL CHECK (source < 0),
    seq    INTEGER NOT NULL REFERENCES notifications,
    PRIMARY KEY (user, source, seq)
) STRICT, WITHOUT ROWID;

-- A user's standing in a source: a topic (source > 0) from `joined` to `parted`, or the direct entries of one category.
-- Counted unread = published (the topic's own running total while it is null here) - unread_gone.
CREATE TABLE standings (
    user        INTEGER NOT NULL REFERENCES users,
    source      INTEGER NOT NULL CHECK (source <> 0),
    joined      INTEGER NOT NULL,          -- entries after this position are visible
    parted      INTEGER,                   -- … up to and including this one; null: still following
    published   INTEGER,                   -- null: the topic's running total counts
    newest      INTEGER,                   -- seq of the newest direct entry; null for a topic
    unread_gone INTEGER NOT NULL,
    unseen_gone INTEGER NOT NULL,
    PRIMARY KEY (user, source, joined)
) STRICT, WITHOUT ROWID;

-- "Everything up to here": one row for each mark that moved forward, so that the time of each entry stays known.
-- `category` 0 is all. `kind`: 1 seen, 2 read, 3 archived.
CREATE TABLE watermarks (
    user     INTEGER NOT NULL REFERENCES users,
    category INTEGER NOT NULL,
    kind     INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    upto     INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    changed  INTEGER NOT NULL,             -- seq of the mark
    PRIMARY KEY (user, category, kind, upto)
) STRICT, WITHOUT ROWID;
CREATE INDEX watermarks_changed ON watermarks (user, changed);

-- Marks of single entries: sparse. A row wins over every watermark.
CREATE TABLE marks (
    user    INTEGER NOT NULL REFERENCES users,
    source  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    at      INTEGER,                       -- null: taken back
    changed INTEGER NOT NULL,              -- seq of the mark
    PRIMARY KEY (user, source, seq, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX marks_changed ON marks (user, changed);
CREATE INDEX marks_taken_back ON marks (user, source, seq) WHERE at IS NULL;

-- The stored answer to a publish, by who asked, over which route and with which key.
CREATE TABLE idempotency (
    principal_kind INTEGER NOT NULL,       -- 1 user, 2 API key, 3 operator
    principal      TEXT    NOT NULL,
    route          TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    body_hash      BLOB    NOT NULL CHECK (length(body_hash) = 32),
    epoch          TEXT    NOT NULL,
    seq            INTEGER NOT NULL,
    notification   BLOB    NOT NULL,
    recipients     INTEGER,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (principal_kind, principal, route, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Secrets are stored as SHA-256 of 256 random bits; a slow hash would protect nothing more.
CREATE TABLE api_keys (
    id         TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,           -- separated by spaces
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE tickets (
    id         TEXT    PRIMARY KEY,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    user       TEXT    NOT NULL,
    topics     TEXT,                       -- patterns separated by spaces; null: no restriction
    created_at INTEGER NOT NULL,
    use_by     INTEGER NOT NULL,
    used_at    INTEGER,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tickets_by_expiry ON tickets (expires_at);
