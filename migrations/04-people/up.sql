-- Who people are: where they are reached, in which language, and by what they want to be. The reasons are in
-- docs/data-model.md. Never edited after a release.

-- A user without a row has said nothing, and receives in the app all the same.
CREATE TABLE profiles (
    user       INTEGER PRIMARY KEY REFERENCES users,
    name       TEXT,
    email      TEXT,
    locale     TEXT,                       -- BCP 47, in its canonical case
    time_zone  TEXT,                       -- a name of the IANA database
    dingtalk   TEXT,
    changed_at INTEGER NOT NULL
) STRICT;

-- By category (`*` is every one without a row of its own) and medium (1 email, 2 DingTalk, 3 webhook). A category need
-- not have entries yet, so it stands by its name.
CREATE TABLE preferences (
    user     INTEGER NOT NULL REFERENCES users,
    category TEXT    NOT NULL,
    medium   INTEGER NOT NULL CHECK (medium IN (1, 2, 3)),
    wanted   INTEGER NOT NULL CHECK (wanted IN (0, 1)),
    PRIMARY KEY (user, category, medium)
) STRICT, WITHOUT ROWID;
