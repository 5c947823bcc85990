-- Compactions of the base: the version whose revocations the blocks contain, and a random number. A server keeps what it
-- has read for a compaction in a file, and uses that again only if this database has the row, so never for another history.
CREATE TABLE compactions (
    mark BIGINT PRIMARY KEY,
    as_of BIGINT NOT NULL
);
CREATE INDEX compactions_by_version ON compactions (as_of);

-- The first covered second of issue. It is above 0 for a key that is newer than what the server had read by then.
ALTER TABLE block_coverage ADD COLUMN low BIGINT NOT NULL DEFAULT 0;
