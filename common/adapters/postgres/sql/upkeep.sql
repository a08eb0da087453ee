-- What on_tick repairs (port Upkeep).

-- name: job_lock
-- Try to be the one process that does a job.
SELECT pg_try_advisory_lock(hashtextextended('rdev job ' || :job::text, 7)) AS got;

-- name: job_unlock
-- Let another process do the job.
SELECT pg_advisory_unlock(hashtextextended('rdev job ' || :job::text, 7)) AS was_held;

-- name: projects_to_ring
-- Projects with claimable work and room, or with a live command that nobody follows.
SELECT project FROM projects_to_ring() AS project;

-- name: promote_due
-- Move what is due from scheduled to queued.
SELECT id, project FROM promote_due(:limit);

-- name: expire_queued
-- End what waited longer than its queue timeout.
SELECT id, project, event FROM expire_waiting(:outcome, :limit);

-- name: make_partitions
-- The daily partitions from yesterday on.
SELECT ensure_event_partitions((now() AT TIME ZONE 'UTC')::date - 1, :days) AS made;

-- name: drop_events
-- Drop the partitions of days older than the retention.
SELECT drop_event_partitions((now() AT TIME ZONE 'UTC')::date - :days::int) AS dropped;

-- name: drop_commands
-- Delete some of the commands that ended before the retention; ids give their age through the key.
WITH old AS (
  SELECT c.id FROM commands c
   WHERE c.id < oldest_id_at(now() - make_interval(days => :days::int))
     AND c.finished_at < now() - make_interval(days => :days::int)
   ORDER BY c.id LIMIT :limit::int FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM commands c USING old WHERE c.id = old.id RETURNING 1)
SELECT count(*) AS dropped FROM gone;

-- name: drop_audit
-- Delete some of the audit rows older than the retention, with their links.
SELECT drop_audit(:days::int, :limit::int) AS dropped;

-- name: drop_idempotency
-- Delete some of the Idempotency-Keys older than the retention.
WITH old AS (
  SELECT i.key_id, i.route, i.idem_key FROM idempotency i
   WHERE i.created_at < now() - make_interval(hours => :hours::int) ORDER BY i.created_at LIMIT :limit::int),
gone AS (DELETE FROM idempotency i USING old
          WHERE (i.key_id, i.route, i.idem_key) = (old.key_id, old.route, old.idem_key) RETURNING 1)
SELECT count(*) AS dropped FROM gone;

-- name: drop_dead_letters
-- Delete some of the dead letters older than the retention, and of those beyond the newest so many.
WITH old AS (
  SELECT d.id FROM dead_letters d
   WHERE d.created_at < now() - make_interval(days => :days::int)
      OR d.created_at < (SELECT x.created_at FROM dead_letters x ORDER BY x.created_at DESC
                         OFFSET greatest(:most::int - 1, 0) LIMIT 1)
   ORDER BY d.created_at LIMIT :limit::int),
gone AS (DELETE FROM dead_letters d USING old WHERE d.id = old.id RETURNING 1)
SELECT count(*) AS dropped FROM gone;

-- name: drop_seen_events
-- Delete some of the seen events older than the retention, and of the refusals beyond the newest so many:
-- nothing ran for them, so an event of theirs that comes again is refused again at worst.
WITH old AS (
  SELECT s.seen FROM seen_events s
   WHERE s.at < now() - make_interval(days => :days::int)
      OR (s.outcome = 'refused'
          AND s.at < (SELECT x.at FROM seen_events x WHERE x.outcome = 'refused' ORDER BY x.at DESC
                      OFFSET greatest(:most::int - 1, 0) LIMIT 1))
   ORDER BY s.at LIMIT :limit::int),
gone AS (DELETE FROM seen_events s USING old WHERE s.seen = old.seen RETURNING 1)
SELECT count(*) AS dropped FROM gone;
