-- The keys that edges verify with: the version in which one of them last came, changed or went.
CREATE TABLE key_set (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL
);
INSERT INTO key_set (id, version) VALUES (1, 0);

-- What the tags of API keys are made and checked with; the secrets are files.
CREATE TABLE tag_keys (
    generation BIGINT PRIMARY KEY,
    created_at BIGINT NOT NULL
);

-- The row that hands out the numbers of API keys: none is ever used twice.
CREATE TABLE api_key_numbers (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    last BIGINT NOT NULL
);
INSERT INTO api_key_numbers (id, last) VALUES (1, 0);

-- Without the key itself, whose fingerprint is in `issued` too. `username` is what the tag is bound to; the key belongs
-- to the operator and the user, who is null for the root user.
CREATE TABLE api_keys (
    number BIGINT PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    generation BIGINT NOT NULL,
    operator_id TEXT NOT NULL,
    user_name TEXT,
    username TEXT NOT NULL,
    key_prefix TEXT NOT NULL,
    name TEXT,
    metadata TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'disabled', 'expired')),
    issued_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT
);
CREATE INDEX api_keys_by_owner ON api_keys (operator_id, user_name);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at);

-- Issuers whose tokens edges take. `keys` is the last good set, in JSON; it holds whatever becomes of the issuer's server.
CREATE TABLE issuers (
    issuer TEXT PRIMARY KEY,
    keys TEXT,
    skipped TEXT,
    etag TEXT,
    fetched_at BIGINT,
    tried_at BIGINT,
    due_at BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    error TEXT
);
