-- Templates, and what notifications say in other languages. The reasons are in docs/data-model.md. Never edited after a
-- release.

CREATE TABLE templates (
    name       TEXT    PRIMARY KEY,
    published  INTEGER,                    -- the version that publishes get; null: none yet
    newest     INTEGER NOT NULL,           -- the highest version ever given out
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A version never changes. The same content has one version, found by its SHA-256.
CREATE TABLE template_versions (
    name       TEXT    NOT NULL REFERENCES templates,
    version    INTEGER NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    definition TEXT    NOT NULL,           -- as it was registered, in one canonical form
    created_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX template_versions_by_hash ON template_versions (name, hash);

-- What a notification says to readers of a language. By its id, since one that waits has no position yet.
CREATE TABLE wordings (
    notification BLOB NOT NULL CHECK (length(notification) = 16),
    locale       TEXT NOT NULL,
    title        TEXT NOT NULL,
    body         TEXT NOT NULL,
    click        TEXT,
    PRIMARY KEY (notification, locale)
) STRICT, WITHOUT ROWID;
-- Whether there are any: most notifications say one thing to everybody, and nobody looks for theirs.
ALTER TABLE notifications ADD COLUMN worded INTEGER NOT NULL DEFAULT 0 CHECK (worded IN (0, 1));

-- They go with what they belong to, whoever takes it: a death, retention, an erasure, a topic's end.
CREATE TRIGGER wordings_of_the_deleted AFTER DELETE ON notifications WHEN OLD.worded = 1 BEGIN
    DELETE FROM wordings WHERE notification = OLD.id;
END;
CREATE TRIGGER wordings_of_the_dead AFTER UPDATE OF died ON notifications WHEN NEW.worded = 1 AND NEW.died IS NOT NULL BEGIN
    DELETE FROM wordings WHERE notification = NEW.id;
END;
-- What was delivered has them still.
CREATE TRIGGER wordings_of_the_cancelled AFTER DELETE ON scheduled
WHEN NOT EXISTS (SELECT 1 FROM notifications WHERE id = OLD.id) BEGIN
    DELETE FROM wordings WHERE notification = OLD.id;
END;
