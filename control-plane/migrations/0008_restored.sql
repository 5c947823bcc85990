-- What was deleted for ever, for the journal beside the database: a backup that is restored brings it back. `kind` and `id`
-- say what; `at` is when what was deleted had been made, so that a namesake that came later is told from it. Of an
-- `api_key_end` it is the end.
CREATE TABLE tombstones (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX tombstones_by_version ON tombstones (version);

-- Spans of issue of which this database knows a part only: it was restored from a backup. The first second is not part
-- of it, the last one is. `version` is null until somebody has repaired it: edges refuse what is not known from then on.
CREATE TABLE gaps (
    issued_after BIGINT NOT NULL,
    issued_until BIGINT NOT NULL,
    found_at BIGINT NOT NULL,
    version BIGINT,
    PRIMARY KEY (issued_after, found_at)
);
