-- What taking access back needs, and keys that are rotated. The reasons are in docs/data-model.md. Never edited after a release.

-- Every credential of the user that was made at or before the moment is refused. By the name's SHA-256: a token may come
-- before the user's first appearance, and must not come back after the user was erased.
CREATE TABLE revocations (
    user BLOB    PRIMARY KEY CHECK (length(user) = 32),
    at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When the credential was made that the ticket was had for: a revocation of that one reaches the ticket too. Null: a ticket
-- from before this column, as of when it was made.
ALTER TABLE tickets ADD COLUMN issued_at INTEGER;

ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER; -- written once a minute
-- The secret before the last rotation, and until when it is still taken.
ALTER TABLE api_keys ADD COLUMN old_hash BLOB CHECK (old_hash IS NULL OR length(old_hash) = 32);
ALTER TABLE api_keys ADD COLUMN old_until INTEGER;
