-- The queue as the runner sees it (port Queue).

-- name: claim
-- The next command of a project, now claimed under a lease. Its commit does not wait for the disk,
-- because it holds the project's mutex: make_durable waits afterwards, together with other claims.
SELECT claimed.*
  FROM set_config('synchronous_commit', 'off', true),
       claim_command(:project, :worker, make_interval(secs => :lease_s::double precision)) claimed;

-- name: make_durable
-- Return when everything committed before is on disk (or wherever synchronous_commit wants it).
SELECT pg_logical_emit_message(true, 'rdev', '');

-- name: adopt
-- Live commands whose lease is dead, now this worker's.
SELECT * FROM adopt_commands(:worker, make_interval(secs => :lease_s::double precision), :limit);

-- name: end_stalled
-- End sessions that keep the run row of a dead lease locked for longer than a lease: their process was
-- stopped inside a COPY, where no timeout of the server counts, and adoption passes locked rows by.
SELECT count(pg_terminate_backend(a.pid, 1000)) AS ended
  FROM commands c
  JOIN command_runs r ON r.command_id = c.id
  JOIN pg_locks l ON l.locktype = 'transactionid' AND l.granted AND l.transactionid = r.xmax
  JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
 WHERE c.state IN ('claimed', 'running', 'cancelling') AND r.lease_until < clock_timestamp()
   AND a.xact_start < clock_timestamp() - make_interval(secs => :lease_s::double precision);

-- name: held
-- A command under a lease, as it is now.
SELECT * FROM claim_view WHERE id = :id::uuid AND lease_token = :token::bigint AND lease_until IS NOT NULL;

-- name: heartbeat
-- Renew leases; answers those that are still ours, with the cancel request there may be.
UPDATE command_runs r SET lease_until = clock_timestamp() + make_interval(secs => :lease_s::double precision)
  FROM unnest(:ids::uuid[], :tokens::bigint[]) AS mine(id, token)
 WHERE r.command_id = mine.id AND r.lease_token = mine.token AND r.lease_until IS NOT NULL
RETURNING r.command_id, r.cancel_mode, r.cancel_reason;

-- name: release
-- Give leases up, so that anybody may adopt the commands at once.
UPDATE command_runs r SET lease_until = NULL, worker = NULL
  FROM unnest(:ids::uuid[], :tokens::bigint[]) AS mine(id, token)
 WHERE r.command_id = mine.id AND r.lease_token = mine.token;

-- name: append_events
-- Append small events in one call.
SELECT first_seq, out_offset, err_offset, cancel_mode
  FROM append_events(:id, :token, :events, :out, :err);

-- name: reserve_events
-- Number events that a COPY in the same transaction then brings.
SELECT first_seq, day, project, at, out_offset, err_offset, cancel_mode
  FROM reserve_events(:id, :token, :count, :out, :err);

-- name: mark_running
-- claimed → running, with its event.
SELECT mark_running(:id, :token, :event) AS held;

-- name: finish
-- End a command: state, end event and outbox row.
SELECT finish_command(:id, :token, :sources, :state, :outcome, :event) AS status;

-- name: line_start
-- Where the last stored line of stdout ends: the newest bytes that end with a newline.
SELECT e.off + octet_length(e.data) AS line_start FROM command_events e
 WHERE e.day = day_of(:id::uuid) AND e.command_id = :id::uuid AND e.stream = 'stdout'
   AND substring(e.data FROM octet_length(e.data) FOR 1) = '\x0a'::bytea
 ORDER BY e.seq DESC LIMIT 1;

-- name: agent_lines
-- The agent lines that tell how it began and how it ended: those that could be an init or a result,
-- and the newest ones. In their order.
WITH lines AS (
  SELECT e.seq, e.stream, e.data FROM command_events e
   WHERE e.day = day_of(:id::uuid) AND e.command_id = :id::uuid AND e.type = 'agent'
)
(SELECT * FROM lines WHERE position('"init"'::bytea IN data) > 0 ORDER BY seq LIMIT 5)
UNION
(SELECT * FROM lines WHERE position('"result"'::bytea IN data) > 0 ORDER BY seq DESC LIMIT 20)
UNION
(SELECT * FROM lines ORDER BY seq DESC LIMIT 20)
ORDER BY seq;

-- name: session_total
-- The total that the last command before this one reported, of the session that this one goes on with.
SELECT x.outcome #> '{agent,session_total}' AS total
  FROM commands c
  JOIN commands x ON x.project = c.project AND x.session = c.spec #>> '{session,id}' AND x.kind = 'claude'
 WHERE c.id = :id::uuid AND x.started_at IS NOT NULL AND x.finished_at <= c.started_at
   AND jsonb_typeof(x.outcome #> '{agent,session_total}') = 'object'
 ORDER BY x.finished_at DESC LIMIT 1;
