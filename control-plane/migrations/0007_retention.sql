-- Retention follows what is refused. `ends_at` is the last second in which anything that a watermark covers may live; the
-- largest there is: it is never forgotten. Only AuthKeys and sessions cover own tokens alone, which lived two days at most.
ALTER TABLE watermarks ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 9223372036854775807;
UPDATE watermarks SET ends_at = instant + 172800 WHERE kind IN ('auth_key', 'session');
CREATE INDEX watermarks_by_end ON watermarks (ends_at);

-- Until when time has passed as far as servers have seen it pass, in milliseconds: a clock that jumps ahead does not move
-- it, so nothing is collected on the word of one.
ALTER TABLE bundle_state ADD COLUMN passed BIGINT NOT NULL DEFAULT 0;
UPDATE bundle_state SET passed = (SELECT COALESCE(MAX(at), 0) FROM audit) WHERE id = 1;
