-- A database of release 0.1: the schema of its first migration, and data. It is the same for SQLite and PostgreSQL, apart from
-- the table of the migrations, which the test adds. The test replaces `$KID` and `$PUBLIC` by its own signing key.


CREATE TABLE bundle_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    collected_before BIGINT NOT NULL
);

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

CREATE TABLE auth_keys (
    auth_key_id TEXT PRIMARY KEY,
    operator_id TEXT NOT NULL REFERENCES operators (operator_id),
    user_name TEXT,
    secret_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX auth_keys_by_operator ON auth_keys (operator_id);

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    public TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'verifying')),
    created_at BIGINT NOT NULL
);

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

CREATE TABLE audit_state (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);

CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);

INSERT INTO bundle_state (id, version, collected_before) VALUES (1, 7, 1795132800);

INSERT INTO operators (operator_id, created_at) VALUES ('OP0000000001', 1795219200), ('OP0000000002', 1795219300);

INSERT INTO users (operator_id, name, created_at) VALUES ('OP0000000001', 'alice', 1795219210);

-- The hash of SECRET in `first_release.rs`.
INSERT INTO auth_keys (auth_key_id, operator_id, user_name, secret_hash, created_at, last_used_at) VALUES
    ('keyId-root', 'OP0000000001', NULL, '7ada1df4dfaa314ca9f5ed8f0fee1ffbb04d23fb970d17c6665140d03cd5bc28', 1795219200, 1795219220),
    ('keyId-alice', 'OP0000000001', 'alice', '7ada1df4dfaa314ca9f5ed8f0fee1ffbb04d23fb970d17c6665140d03cd5bc28', 1795219210, NULL);

INSERT INTO signing_keys (kid, algorithm, public, state, created_at) VALUES ('$KID', 'EdDSA', '$PUBLIC', 'active', 1795219200);

INSERT INTO issued (prefix, fingerprint, kid, operator_id, user_name, auth_key_id, session_id, issued_at, expires_at) VALUES
    (1152921504606846976, '1000000000000000000000000000000000000000000000000000000000000001', '$KID', 'OP0000000001', NULL,
     'keyId-root', 'api-00000000-0000-4000-8000-000000000001', 1795219220, 4102444800),
    (-1152921504606846976, 'f000000000000000000000000000000000000000000000000000000000000002', '$KID', 'OP0000000001', 'alice',
     'keyId-alice', 'api-00000000-0000-4000-8000-000000000002', 1795219230, 4102444800);

INSERT INTO revocations (prefix, fingerprint, expires_at, version, reason, revoked_at) VALUES
    (-1152921504606846976, 'f000000000000000000000000000000000000000000000000000000000000002', 4102444800, 5, 'leaked', 1795219240);

INSERT INTO watermarks (kind, id, instant, version) VALUES
    ('user', 'OP0000000001/alice', 1795219250, 6), ('operator', 'OP0000000002', 1795219260, 7);

-- The hash of EDGE_CREDENTIAL in `first_release.rs`.
INSERT INTO edges (edge_id, credential_hash, enrolled_at, last_seen_at, version, status) VALUES
    ('edge-1', 'dfc0543cf764b35dace784e7767869a3832b35cdbd76b6511cf9740d0ae61315', 1795219205, 1795219265, 7, 'ok');

INSERT INTO audit_state (id, seq) VALUES (1, 2);

INSERT INTO audit (seq, at, actor, action, target, detail) VALUES
    (1, 1795219200000, 'admin', 'init', 'OP0000000001', '{}'),
    (2, 1795219210000, 'OP0000000001', 'auth_key.create', 'keyId-alice', '{}');
