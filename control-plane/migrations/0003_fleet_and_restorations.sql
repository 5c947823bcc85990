-- What an edge last told: when the manifest it holds was signed (milliseconds), how many workers it has, the oldest
-- version among them, how many lag behind.
ALTER TABLE edges ADD COLUMN issued_at BIGINT;
ALTER TABLE edges ADD COLUMN workers BIGINT;
ALTER TABLE edges ADD COLUMN oldest BIGINT;
ALTER TABLE edges ADD COLUMN lagging BIGINT;

-- One row for each fingerprint that was ever revoked: its latest operation. Null while it is refused.
ALTER TABLE revocations ADD COLUMN restored_at BIGINT;
