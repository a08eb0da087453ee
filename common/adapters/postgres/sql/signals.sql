-- Wake-ups between processes (port Signals).

-- name: notify
-- Wake who listens on a channel; a transaction of its own, since its commit takes a database-wide lock.
SELECT pg_notify(:channel, :payload);
