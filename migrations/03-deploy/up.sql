-- What taking access back needs, and keys that are rotated. The reasons are in docs/data-model.md. Never edited after a release.

-- Every credential of the user that was made at or before the moment is refused. By name, since a token may come before
-- the user's first appearance.
CREATE TABLE revocations (
    user TEXT    PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER; -- written once a minute
-- The secret before the last rotation, and until when it is still taken.
ALTER TABLE api_keys ADD COLUMN old_hash BLOB CHECK (old_hash IS NULL OR length(old_hash) = 32);
ALTER TABLE api_keys ADD COLUMN old_until INTEGER;
