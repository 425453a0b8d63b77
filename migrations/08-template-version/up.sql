-- Which version of its template something was published by, for those who ask the message log. Never edited after a release.
ALTER TABLE notifications ADD COLUMN template_version INTEGER; -- null: by no template, or from before this column
ALTER TABLE scheduled ADD COLUMN template_version INTEGER;
ALTER TABLE expansions ADD COLUMN template_version INTEGER;
ALTER TABLE deliveries ADD COLUMN template_version INTEGER;
