-- Breakers and views of the cluster (ports Dependencies and DiscoveryStore).

-- name: dependency
-- One breaker.
SELECT state, failures, greatest(0, coalesce(extract(epoch FROM opened_until - clock_timestamp()), 0))::double precision AS open_for_s, detail
  FROM dependencies WHERE name = :name;

-- name: dependency_write
-- Keep a breaker's state.
INSERT INTO dependencies (name, state, failures, opened_until, detail, checked_at)
VALUES (:name, :state, :failures::int, clock_timestamp() + make_interval(secs => :open_for_s::double precision), :detail, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET state = excluded.state, failures = excluded.failures, opened_until = excluded.opened_until,
       detail = excluded.detail, checked_at = excluded.checked_at;

-- name: dependency_probe
-- Be the one that tries an open dependency.
SELECT take_probe(:name, make_interval(secs => :probe_s::double precision)) AS mine;

-- name: dependency_forget
-- It is closed, and nobody needs to know.
DELETE FROM dependencies WHERE name = :name;

-- name: discovery_begin
-- The number of a look at a source that begins now.
SELECT nextval('discovery_generations') AS generation;

-- name: discovery_holders
-- The container's life that each project of a source has.
SELECT name, pod_uid FROM projects WHERE source = :source AND phase <> 'gone' AND pod_uid IS NOT NULL;

-- name: discovery_sync
-- Make the registry say what a look showed, unless a later one was stored.
SELECT stale, appeared, vanished, refused FROM sync_discovered(:source, :generation, :found, :notes);

-- name: discovery_notes
-- What is wrong with the sources as a whole.
SELECT note FROM discoveries d, jsonb_array_elements_text(d.notes) AS note ORDER BY d.source, note;

-- name: discovery_own
-- Projects of another kind of workspace are gone; their names are this source's to give.
UPDATE projects SET source = :source, phase = 'gone', seen_at = now() WHERE source <> :source::text RETURNING name;
