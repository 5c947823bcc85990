-- Watermarks of issuers, and of their clients, sessions and tokens. SQLite cannot change a check, so the table is made again.
CREATE TABLE new_watermarks (
    kind TEXT NOT NULL CHECK (kind IN ('global', 'signing_key', 'operator', 'user', 'auth_key', 'session', 'issuer',
        'client', 'issuer_session', 'token_id')),
    id TEXT NOT NULL,
    instant BIGINT NOT NULL,
    version BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
INSERT INTO new_watermarks (kind, id, instant, version, ends_at)
    SELECT kind, id, instant, version, ends_at FROM watermarks;
DROP TABLE watermarks;
ALTER TABLE new_watermarks RENAME TO watermarks;
CREATE INDEX watermarks_by_version ON watermarks (version);
CREATE INDEX watermarks_by_end ON watermarks (ends_at);

-- Subjects of other issuers that have or had permissions: `ISSUER#SUBJECT`. `statements` is what follows from their own
-- document and their roles, in base64url; null if there are none any more.
CREATE TABLE foreign_subjects (
    subject TEXT PRIMARY KEY,
    permission TEXT,
    statements TEXT,
    version BIGINT NOT NULL
);
CREATE INDEX foreign_subjects_by_version ON foreign_subjects (version);

CREATE TABLE foreign_subject_roles (
    subject TEXT NOT NULL REFERENCES foreign_subjects (subject),
    operator_id TEXT NOT NULL,
    role_id TEXT NOT NULL,
    PRIMARY KEY (subject, operator_id, role_id),
    FOREIGN KEY (operator_id, role_id) REFERENCES roles (operator_id, role_id)
);
CREATE INDEX foreign_subject_roles_by_role ON foreign_subject_roles (operator_id, role_id);
