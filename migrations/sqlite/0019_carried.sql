-- What accounts that were deleted, or that gave up an e-mail address, had used of a day. A new account of the same
-- username or e-mail address begins with it. Rows are removed once their day is over.

CREATE TABLE carried (
    digest TEXT   NOT NULL, -- HMAC-SHA256 of a username or an e-mail address, in hex
    day    BIGINT NOT NULL,
    used   BIGINT NOT NULL CHECK (used > 0),
    PRIMARY KEY (digest, day)
);

CREATE INDEX carried_by_day ON carried (day);
