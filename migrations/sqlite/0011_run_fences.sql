-- Whether a run is alive, and whether it may hold units. An earlier version's run keeps writing `beat_at` only.

-- Device and inode of the data folder and of its lock file. NULL: a run of an earlier version.
ALTER TABLE runs ADD COLUMN folder TEXT;
-- Heartbeats so far. A run is silent when neither this nor beat_at changes; no two clocks are compared.
ALTER TABLE runs ADD COLUMN beats BIGINT NOT NULL DEFAULT 0;
-- Since when another run takes over its leases: it is granted nothing from then on, and its heartbeat is refused.
ALTER TABLE runs ADD COLUMN fenced_at BIGINT;
