-- When the clock was trusted last, by the machine's uptime, so that a jump between two starts is seen. One
-- row, whose id is 1.
CREATE TABLE clock_mark (
    id            BIGINT NOT NULL PRIMARY KEY,
    boot          TEXT NOT NULL,   -- of the machine
    uptime        BIGINT NOT NULL, -- milliseconds since that boot
    trusted_at    BIGINT NOT NULL, -- the time it was then
    doubted_since BIGINT,          -- until a day after, nothing is removed by the clock
    accepted      BIGINT NOT NULL  -- how often an operator has said that the clock is right
);
