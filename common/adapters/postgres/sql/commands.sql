-- Commands as callers create, read and change them (port CommandStore).

-- name: submit
-- Create a command with everything that belongs to it, in one transaction.
SELECT status, command_id, snapshot
  FROM submit_command(:command, :env, :audit, :idempotency, :event);

-- name: command_get
-- Commands by id.
SELECT * FROM show_commands(:ids);

-- name: command_list
-- The newest commands of all projects, below an id.
SELECT * FROM show_commands(ARRAY(
  SELECT c.id FROM commands c
   WHERE c.id < :before::uuid
     AND (cardinality(:states::text[]) = 0 OR c.state = ANY (:states::text[]))
     AND (cardinality(:kinds::text[]) = 0 OR c.kind = ANY (:kinds::text[]))
     AND c.labels @> :labels::jsonb
   ORDER BY c.id DESC LIMIT :limit::int))
 ORDER BY id DESC;

-- name: command_list_projects
-- The newest commands of some projects, below an id: each project's newest, then the newest of those.
SELECT * FROM show_commands(ARRAY(
  SELECT newest.id FROM unnest(:projects::text[]) wanted(project)
   CROSS JOIN LATERAL (
     SELECT c.id FROM commands c
      WHERE c.project = wanted.project AND c.id < :before::uuid
        AND (cardinality(:states::text[]) = 0 OR c.state = ANY (:states::text[]))
        AND (cardinality(:kinds::text[]) = 0 OR c.kind = ANY (:kinds::text[]))
        AND c.labels @> :labels::jsonb
      ORDER BY c.id DESC LIMIT :limit::int) newest
   ORDER BY newest.id DESC LIMIT :limit::int))
 ORDER BY id DESC;

-- name: command_list_open
-- The newest commands that have not ended, below an id; they are few and have indexes of their own.
SELECT * FROM show_commands(ARRAY(
  SELECT c.id FROM (
    SELECT * FROM commands WHERE state = 'queued'
    UNION ALL SELECT * FROM commands WHERE state IN ('claimed', 'running', 'cancelling')
    UNION ALL SELECT * FROM commands WHERE state = 'scheduled') c
   WHERE c.id < :before::uuid
     AND (:projects::text[] IS NULL OR c.project = ANY (:projects::text[]))
     AND c.state = ANY (:states::text[])
     AND (cardinality(:kinds::text[]) = 0 OR c.kind = ANY (:kinds::text[]))
     AND c.labels @> :labels::jsonb
   ORDER BY c.id DESC LIMIT :limit::int))
 ORDER BY id DESC;

-- name: cancel
-- End a command that was never claimed, mark one that was.
SELECT status, lease_dead FROM cancel_command(:id, :mode, :reason, :outcome, :event, :audit);

-- name: reprioritise
-- Change the priority of a command that waits.
SELECT reprioritise_command(:id, :priority, :audit) AS changed;

-- name: output
-- Output of one stream from a byte offset on: the piece that holds it, and about max_bytes more.
SELECT seq, off, data FROM (
  SELECT e.seq, e.off, e.data,
         sum(octet_length(e.data)) OVER (ORDER BY e.seq) - octet_length(e.data) AS before
    FROM (SELECT seq_at_offset(:id::uuid, :stream_name::text, :offset::bigint) AS seq) start
   CROSS JOIN LATERAL (
     SELECT * FROM command_events x
      WHERE x.day = day_of(:id::uuid) AND x.command_id = :id::uuid AND x.seq >= start.seq
        AND x.stream = :stream_name::text
      ORDER BY x.seq LIMIT 1000) e) piece
 WHERE before < :max_bytes::bigint
 ORDER BY seq;

-- name: output_size
-- Stored bytes of both streams, and whether the events behind them are gone.
SELECT r.out_offset, r.err_offset,
       NOT EXISTS (SELECT FROM command_events e
                    WHERE e.day = day_of(:id::uuid) AND e.command_id = :id::uuid AND e.seq = 1) AS expired
  FROM command_runs r WHERE r.command_id = :id::uuid;
