-- The number of open streams that a rule of the edge keeps although their credential is refused.
ALTER TABLE edges ADD COLUMN kept_streams BIGINT NOT NULL DEFAULT 0;
