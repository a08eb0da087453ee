-- What the system says of itself (port SystemStatus).

-- name: ping
-- One round trip.
SELECT 1 AS here;

-- name: schema_version
-- The newest migration, and the oldest code that works with it.
SELECT coalesce(max(version), 0) AS version, coalesce(max(min_compatible), 0) AS min_compatible FROM schema_migrations;

-- name: dependencies
-- The breakers, and the looks at a cluster with what is wrong there and belongs to no project.
SELECT name, state, failures, checked_at, detail FROM dependencies
UNION ALL
SELECT 'discovery/' || source, 'closed', 0, synced_at,
       (SELECT string_agg(note, '; ' ORDER BY note) FROM jsonb_array_elements_text(notes) AS note)
  FROM discoveries
 ORDER BY name;

-- name: count_commands
-- Commands by kind and state.
SELECT kind, state, count(*) AS n FROM commands GROUP BY kind, state;

-- name: count_waiting
-- Waiting commands by priority, and the age of the oldest.
SELECT priority, count(*) AS n, extract(epoch FROM clock_timestamp() - min(coalesce(run_at, created_at)))::double precision AS oldest_s
  FROM commands WHERE state = 'queued' GROUP BY priority;

-- name: count_outbox
-- Events that wait to be published.
SELECT count(*) AS n, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::double precision AS oldest_s
  FROM outbox;

-- name: count_dead_letters
-- Events that nothing came of and nobody has replayed, by reason.
SELECT reason, count(*) AS n FROM dead_letters WHERE replayed_at IS NULL GROUP BY reason;
