-- Entries that die, notifications that wait for their time, topics that users follow and mute by themselves, and what
-- retention needs. The reasons are in docs/data-model.md. Never edited after a release.

-- The highest numbers ever given out: none is given twice, so what is still held of an erased user, or of a deleted
-- topic, meets nobody else.
ALTER TABLE log ADD COLUMN last_user INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log ADD COLUMN last_topic INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log ADD COLUMN scheduled INTEGER NOT NULL DEFAULT 0; -- notifications that wait
UPDATE log SET
    last_user = (SELECT coalesce(max(id), 0) FROM users),
    last_topic = (SELECT coalesce(max(id), 0) FROM topics);

ALTER TABLE topics ADD COLUMN follow INTEGER NOT NULL DEFAULT 0 CHECK (follow IN (0, 1)); -- 0 managed, 1 open
ALTER TABLE topics ADD COLUMN shrunk INTEGER NOT NULL DEFAULT 0; -- when an entry last died or was pruned, as a seq
ALTER TABLE topics ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0; -- ordinal of the newest entry that retention took
ALTER TABLE topics ADD COLUMN deleted INTEGER;                   -- the seq at which it was; -1 when its other rows are gone
CREATE INDEX topics_deleted ON topics (deleted) WHERE deleted > 0;

-- `death`: 1 retracted, 2 expired, 3 replaced. A direct notification is dead when nobody's inbox holds it any more.
ALTER TABLE notifications ADD COLUMN collapse TEXT;
ALTER TABLE notifications ADD COLUMN expires_at INTEGER;
ALTER TABLE notifications ADD COLUMN died INTEGER;               -- seq of the death
ALTER TABLE notifications ADD COLUMN death INTEGER CHECK (death IN (1, 2, 3));
ALTER TABLE notifications ADD COLUMN replaced_by BLOB;           -- id of the newer one
ALTER TABLE notifications ADD COLUMN publisher_kind INTEGER;     -- 1 user, 2 API key, 3 operator; null: before this column
ALTER TABLE notifications ADD COLUMN publisher TEXT;
-- Lists, pages and replay look at living entries only. An ordinal at a position is that of the newest living entry there.
DROP INDEX notifications_by_topic;
-- `died` is null in all of it, and there so that nothing is looked up in the table.
CREATE INDEX notifications_by_topic ON notifications (topic, seq, ordinal, died) WHERE topic IS NOT NULL AND died IS NULL;
CREATE INDEX notifications_died ON notifications (topic, died, seq) WHERE topic IS NOT NULL AND died IS NOT NULL;
CREATE INDEX notifications_dead ON notifications (topic, seq) WHERE topic IS NOT NULL AND died IS NOT NULL;
CREATE INDEX notifications_expiring ON notifications (expires_at, seq) WHERE expires_at IS NOT NULL AND died IS NULL;
CREATE INDEX notifications_by_publisher ON notifications (publisher, seq) WHERE publisher_kind = 1;
CREATE INDEX notifications_by_sender ON notifications (sender) WHERE sender IS NOT NULL;
CREATE INDEX entries_by_notification ON entries (seq);

-- How many entries of a topic are dead, by ordinal: level 0 has a row for each dead one, and a row of a higher level sums
-- 256 of the level below. So the dead up to an ordinal are a few short ranges, and a death touches four rows.
CREATE TABLE dead_blocks (
    topic INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    block INTEGER NOT NULL,
    dead  INTEGER NOT NULL,
    PRIMARY KEY (topic, level, block)
) STRICT, WITHOUT ROWID;

-- A direct entry that died, for replay of its `state` and for its publisher's question who had read it.
CREATE TABLE graves (
    user        INTEGER NOT NULL,
    died        INTEGER NOT NULL,
    source      INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    death       INTEGER NOT NULL CHECK (death IN (1, 2, 3)),
    replaced_by BLOB,
    at          INTEGER NOT NULL,
    PRIMARY KEY (user, died, source, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX graves_by_notification ON graves (seq);

-- Counters are exact as of `settled`; where the topic has shrunk since, they are counted anew.
ALTER TABLE standings ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
-- The seq of the follow. Entries in (joined, began] were there before: in lists and counts, not in replay.
ALTER TABLE standings ADD COLUMN began INTEGER NOT NULL DEFAULT 0;
ALTER TABLE standings ADD COLUMN kept INTEGER NOT NULL DEFAULT 0; -- direct entries that are in the inbox
UPDATE standings SET kept = (SELECT count(*) FROM entries e WHERE e.user = standings.user AND e.source = standings.source)
WHERE source < 0;
CREATE INDEX standings_by_topic ON standings (source, user, joined, parted) WHERE source > 0;

-- A topic that a user has taken out of their counts.
CREATE TABLE mutes (
    user   INTEGER NOT NULL REFERENCES users,
    source INTEGER NOT NULL CHECK (source > 0),
    at     INTEGER NOT NULL,
    PRIMARY KEY (user, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX mutes_by_topic ON mutes (source);

-- The newest entry of each collapse key. `owner` is a topic, 0 for everyone, or minus a user for direct entries.
CREATE TABLE collapses (
    owner INTEGER NOT NULL,
    key   TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

-- Notifications that wait for their time.
CREATE TABLE scheduled (
    id             BLOB    PRIMARY KEY CHECK (length(id) = 16),
    due            INTEGER NOT NULL,
    failed         TEXT,                       -- why it could not be delivered
    topic          TEXT,                       -- `everyone` too; null: to users
    users          TEXT,                       -- a name a line: none can hold a line break
    category       TEXT    NOT NULL,
    category_named INTEGER NOT NULL,
    priority       INTEGER NOT NULL,
    title          TEXT    NOT NULL,
    body           TEXT    NOT NULL,
    data           TEXT,
    icon           TEXT,
    click          TEXT,
    actions        TEXT,
    sender         TEXT,
    collapse       TEXT,
    expires_at     INTEGER,
    publisher_kind INTEGER NOT NULL,
    publisher      TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    CHECK ((topic IS NULL) <> (users IS NULL))
) STRICT;
CREATE INDEX scheduled_by_due ON scheduled (due, id) WHERE failed IS NULL;
CREATE INDEX scheduled_in_order ON scheduled (due, id);

CREATE INDEX tickets_by_user ON tickets (user);

-- The answer to a scheduled publish has no seq (0 here) but a moment.
ALTER TABLE idempotency ADD COLUMN due INTEGER;
