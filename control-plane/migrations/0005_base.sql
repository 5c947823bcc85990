-- The version in which the last checkpoint took the tail in: all publishers settle there, so that edges may move between
-- them. And until when (milliseconds) somebody builds the base.
ALTER TABLE bundle_state ADD COLUMN checkpoint BIGINT NOT NULL DEFAULT 0;
UPDATE bundle_state SET checkpoint = version;
ALTER TABLE bundle_state ADD COLUMN rebasing_until BIGINT NOT NULL DEFAULT 0;

-- Up to which second of issue the base knows every token of a signing key: none is issued at or before it any more.
CREATE TABLE coverage (
    kid TEXT PRIMARY KEY,
    high BIGINT NOT NULL
);

-- The base, one block for each bucket of expiry: what was revoked as of version `as_of`.
CREATE TABLE blocks (
    expires_from BIGINT PRIMARY KEY,
    expires_before BIGINT NOT NULL,
    as_of BIGINT NOT NULL,
    version BIGINT NOT NULL,
    built_at BIGINT NOT NULL,
    members BIGINT NOT NULL,
    revoked BIGINT NOT NULL
);
CREATE TABLE block_coverage (
    expires_from BIGINT NOT NULL,
    kid TEXT NOT NULL,
    high BIGINT NOT NULL,
    PRIMARY KEY (expires_from, kid)
);
-- base64, in order.
CREATE TABLE block_parts (
    expires_from BIGINT NOT NULL,
    part BIGINT NOT NULL,
    bytes TEXT NOT NULL,
    PRIMARY KEY (expires_from, part)
);
