-- What goes to people besides the inbox, and what became of it. The reasons are in docs/data-model.md. Never edited after a
-- release.

-- One notification on its way to one person by one medium (1 email, 2 DingTalk, 3 webhook). Where it goes is fixed when it
-- is published. A number is never given again, since a Message-ID is made of it.
CREATE TABLE deliveries (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    notification BLOB    NOT NULL CHECK (length(notification) = 16),
    user         INTEGER NOT NULL REFERENCES users,
    medium       INTEGER NOT NULL CHECK (medium IN (1, 2, 3)),
    address      TEXT,                       -- null: none was known
    lane         TEXT    NOT NULL,           -- what one destination takes one after another; empty where nothing goes
    category     TEXT    NOT NULL,
    template     TEXT,
    bulk         INTEGER NOT NULL CHECK (bulk IN (0, 1)),
    -- 1 pending, 2 leased, 3 sent, 4 dead, 5 cancelled, 6 skipped
    state        INTEGER NOT NULL CHECK (state BETWEEN 1 AND 6),
    attempts     INTEGER NOT NULL DEFAULT 0, -- begun ever; the newest names the lease
    forgiven     INTEGER NOT NULL DEFAULT 0, -- attempts that the schedule does not count
    next_at      INTEGER,
    reason       TEXT,
    created_at   INTEGER NOT NULL,
    settled_at   INTEGER,
    CHECK ((state = 1) = (next_at IS NOT NULL)),
    CHECK ((state <= 2) = (settled_at IS NULL))
) STRICT;
CREATE INDEX deliveries_by_notification ON deliveries (notification, id, state);
CREATE INDEX deliveries_by_user ON deliveries (user, id);
-- `state` is the same in all of it, and there so that nothing is looked up in the table.
CREATE INDEX deliveries_in_lane ON deliveries (medium, lane, next_at, state) WHERE state = 1;
CREATE INDEX deliveries_due ON deliveries (medium, next_at, state) WHERE state = 1;
CREATE INDEX deliveries_leased ON deliveries (id, state) WHERE state = 2;
CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 4;
CREATE INDEX deliveries_settled ON deliveries (settled_at) WHERE settled_at IS NOT NULL;

-- Each try at a delivery. `outcome`: 1 sent, 2 to be tried later, 3 never, 4 unknown, since the server ended meanwhile.
CREATE TABLE attempts (
    delivery INTEGER NOT NULL REFERENCES deliveries ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    outcome  INTEGER NOT NULL CHECK (outcome BETWEEN 1 AND 4),
    answer   TEXT    NOT NULL,
    next_at  INTEGER,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

-- Lanes in which something waits, and from when on: never later than the earliest there, so that none is overlooked. What
-- was just served stands behind the others.
CREATE TABLE lanes (
    medium  INTEGER NOT NULL,
    lane    TEXT    NOT NULL,
    next_at INTEGER NOT NULL,
    PRIMARY KEY (medium, lane)
) STRICT, WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (medium, next_at);

-- Work that is too much for the transaction it belongs to, and goes on behind it: deliveries to many, or their end.
-- `kind`: 1 to a topic's followers, 2 to everyone, 3 to named users, 4 cancels what is pending.
CREATE TABLE expansions (
    id           INTEGER PRIMARY KEY,
    notification BLOB    NOT NULL UNIQUE CHECK (length(notification) = 16),
    kind         INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 4),
    seq          INTEGER NOT NULL,
    topic        INTEGER,
    media        INTEGER NOT NULL,           -- bits: 1 email, 2 DingTalk, 4 webhook
    category     TEXT    NOT NULL,
    template     TEXT,
    after        INTEGER NOT NULL DEFAULT 0, -- the last user, or delivery, that is done
    upto         INTEGER NOT NULL,           -- the last user there was
    reason       TEXT,
    created_at   INTEGER NOT NULL
) STRICT;

-- What a template says by a medium. By the notification's id, since one that waits has no position yet.
CREATE TABLE letters (
    notification BLOB    NOT NULL CHECK (length(notification) = 16),
    medium       INTEGER NOT NULL,
    locale       TEXT    NOT NULL,
    fallback     INTEGER NOT NULL CHECK (fallback IN (0, 1)), -- 1: for readers for whom there is no better one
    subject      TEXT    NOT NULL,
    text         TEXT    NOT NULL,
    html         TEXT,
    click        TEXT,
    PRIMARY KEY (notification, medium, locale)
) STRICT, WITHOUT ROWID;

-- Whether it has deliveries: most notifications have none, and nobody looks for theirs.
ALTER TABLE notifications ADD COLUMN carried INTEGER NOT NULL DEFAULT 0 CHECK (carried IN (0, 1));
ALTER TABLE scheduled ADD COLUMN via INTEGER NOT NULL DEFAULT 0; -- bits, as in `expansions`
ALTER TABLE scheduled ADD COLUMN template TEXT;

CREATE TRIGGER letters_of_the_deleted AFTER DELETE ON notifications WHEN OLD.carried = 1 BEGIN
    DELETE FROM letters WHERE notification = OLD.id;
END;
CREATE TRIGGER letters_of_the_dead AFTER UPDATE OF died ON notifications WHEN NEW.carried = 1 AND NEW.died IS NOT NULL BEGIN
    DELETE FROM letters WHERE notification = NEW.id;
END;
CREATE TRIGGER letters_of_the_cancelled AFTER DELETE ON scheduled
WHEN OLD.via <> 0 AND NOT EXISTS (SELECT 1 FROM notifications WHERE id = OLD.id) BEGIN
    DELETE FROM letters WHERE notification = OLD.id;
END;
