-- Who may do what. Permission documents are kept as they were given; `grants` holds what follows from them.

ALTER TABLE operators ADD COLUMN description TEXT;
-- Holds for every user of the operator.
ALTER TABLE operators ADD COLUMN default_permission TEXT;

ALTER TABLE users ADD COLUMN description TEXT;
ALTER TABLE users ADD COLUMN permission TEXT;

CREATE TABLE roles (
    operator_id TEXT NOT NULL REFERENCES operators (operator_id),
    role_id TEXT NOT NULL,
    description TEXT,
    permission TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (operator_id, role_id)
);

CREATE TABLE user_roles (
    operator_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    role_id TEXT NOT NULL,
    PRIMARY KEY (operator_id, user_name, role_id),
    FOREIGN KEY (operator_id, user_name) REFERENCES users (operator_id, name),
    FOREIGN KEY (operator_id, role_id) REFERENCES roles (operator_id, role_id)
);
CREATE INDEX user_roles_by_role ON user_roles (operator_id, role_id);

-- The compiled statements of a user, in base64url. Null: none any more, which whoever knew of some must hear of.
CREATE TABLE grants (
    operator_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    statements TEXT,
    version BIGINT NOT NULL,
    PRIMARY KEY (operator_id, user_name)
);
CREATE INDEX grants_by_version ON grants (version);
