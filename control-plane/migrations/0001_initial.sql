-- One text for SQLite and PostgreSQL: only BIGINT and TEXT, which both have and sqlx's Any driver decodes alike.
-- Hashes are lower-case hex. Instants are whole seconds since the Unix epoch, but `audit.at`, which is milliseconds.
-- `prefix` is the first 64 bits of a fingerprint, as the i64 of the same bits: no two live credentials share one.

-- What edges must know has one version. Whoever changes it updates this row first; its lock orders the versions by commit.
CREATE TABLE bundle_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    collected_before BIGINT NOT NULL
);
INSERT INTO bundle_state (id, version, collected_before) VALUES (1, 1, 0);

CREATE TABLE operators (
    operator_id TEXT PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE users (
    operator_id TEXT NOT NULL REFERENCES operators (operator_id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (operator_id, name)
);

-- user_name is null for the root user.
CREATE TABLE auth_keys (
    auth_key_id TEXT PRIMARY KEY,
    operator_id TEXT NOT NULL REFERENCES operators (operator_id),
    user_name TEXT,
    secret_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX auth_keys_by_operator ON auth_keys (operator_id);

-- The private parts are files. `public` is null for a symmetric key.
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    public TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'verifying')),
    created_at BIGINT NOT NULL
);

-- Written before the token is released; collected when it has expired.
CREATE TABLE issued (
    prefix BIGINT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    kid TEXT NOT NULL,
    operator_id TEXT NOT NULL,
    user_name TEXT,
    auth_key_id TEXT,
    session_id TEXT,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX issued_by_session ON issued (session_id);
CREATE INDEX issued_by_issue ON issued (issued_at);
CREATE INDEX issued_by_expiry ON issued (expires_at);

CREATE TABLE revocations (
    prefix BIGINT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    reason TEXT,
    revoked_at BIGINT NOT NULL
);
CREATE INDEX revocations_by_version ON revocations (version);
CREATE INDEX revocations_by_expiry ON revocations (expires_at);

-- Everything of the scope that was issued at or before `instant` is refused. An instant only ever grows.
CREATE TABLE watermarks (
    kind TEXT NOT NULL CHECK (kind IN ('global', 'signing_key', 'operator', 'user', 'auth_key', 'session')),
    id TEXT NOT NULL,
    instant BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX watermarks_by_version ON watermarks (version);

CREATE TABLE edges (
    edge_id TEXT PRIMARY KEY,
    credential_hash TEXT NOT NULL UNIQUE,
    enrolled_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    version BIGINT,
    status TEXT
);

-- The row that hands out `audit.seq`, so that the log has no gaps and is ordered by commit.
CREATE TABLE audit_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);
INSERT INTO audit_state (id, seq) VALUES (1, 0);

CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);
