-- Which installation this database belongs to, and the root key that its edges pin. `init` writes the row, or the first
-- server of a database that is older than this.
CREATE TABLE installation (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    installation_id TEXT NOT NULL,
    root_key TEXT NOT NULL
);

-- A random number of each version. A server whose last version is not in the log with the number it knows reads a
-- database that went back. Kept for the ten minutes before the latest version.
ALTER TABLE bundle_state ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
CREATE TABLE version_log (
    version BIGINT PRIMARY KEY,
    mark BIGINT NOT NULL
);
INSERT INTO version_log (version, mark) SELECT version, mark FROM bundle_state;

-- The highest version that any server has published from this database, and when any of them last did (seconds).
CREATE TABLE published (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL,
    at BIGINT NOT NULL
);
INSERT INTO published (id, version, at) VALUES (1, 0, 0);
