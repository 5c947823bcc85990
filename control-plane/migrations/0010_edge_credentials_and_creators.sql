-- Earlier credentials of edges that are still good after a rotation; the newest is `edges.credential_hash`. Instants are
-- seconds. `ends_on_use` is 1 where the first use of the newest ends them.
CREATE TABLE old_edge_credentials (
    credential_hash TEXT PRIMARY KEY,
    edge_id TEXT NOT NULL,
    ends_at BIGINT NOT NULL,
    ends_on_use BIGINT NOT NULL
);
CREATE INDEX old_edge_credentials_by_edge ON old_edge_credentials (edge_id);
ALTER TABLE edges ADD COLUMN rotated_at BIGINT;

-- Who made a key, as the audit log names it; null where that is not known.
ALTER TABLE auth_keys ADD COLUMN created_by TEXT;
ALTER TABLE api_keys ADD COLUMN created_by TEXT;
UPDATE auth_keys SET created_by = made.actor
    FROM (SELECT target, MAX(actor) AS actor FROM audit WHERE action = 'auth_key.create' GROUP BY target) AS made
    WHERE made.target = auth_keys.auth_key_id;
CREATE INDEX auth_keys_by_creator ON auth_keys (created_by);
CREATE INDEX api_keys_by_creator ON api_keys (created_by);
