-- How much of what every edge holds an operator has put there by the API: revocations of single tokens, watermarks of
-- sessions and of AuthKeys. Counted in the hour (since the Unix epoch) in which edges forget them, so that what is past
-- is no longer counted.
CREATE TABLE operator_shares (
    operator_id TEXT NOT NULL,
    until_hour BIGINT NOT NULL,
    held BIGINT NOT NULL,
    PRIMARY KEY (operator_id, until_hour)
);
CREATE INDEX operator_shares_by_hour ON operator_shares (until_hour);
