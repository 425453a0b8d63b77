-- By which template something was published, for those who ask the message log. Never edited after a release.
ALTER TABLE notifications ADD COLUMN template TEXT; -- null: in its own words, or from before this column
