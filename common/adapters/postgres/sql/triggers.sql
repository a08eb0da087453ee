-- Triggers and what came to them (port TriggerStore).

-- name: trigger_create
-- Store a trigger, with its audit row and its Idempotency-Key.
SELECT status, trigger_id FROM create_trigger(:trigger, :parts, :secret, :most, :audit, :idempotency);

-- name: trigger_get
-- One trigger.
SELECT id, name, key_id, filter, command, parts_sealed, accept, enabled, rate_limit, rate_window_s, version,
       created_at, updated_at
  FROM triggers WHERE id = :id::uuid;

-- name: trigger_list
-- The newest triggers below an id.
SELECT id, name, key_id, filter, command, parts_sealed, accept, enabled, rate_limit, rate_window_s, version,
       created_at, updated_at
  FROM triggers WHERE id < :before::uuid ORDER BY id DESC LIMIT :limit::int;

-- name: trigger_accepting
-- Enabled triggers that take events from a channel, oldest first.
SELECT id, name, key_id, filter, command, parts_sealed, accept, enabled, rate_limit, rate_window_s, version,
       created_at, updated_at
  FROM triggers WHERE enabled AND :channel::text = ANY (accept) ORDER BY id;

-- name: trigger_update
-- Change some fields of a trigger of a version, with its audit row.
SELECT update_trigger(:id, :version, :changes, :parts, :audit) AS status;

-- name: trigger_delete
-- Delete a trigger, with its audit row.
SELECT delete_trigger(:id, :version, :audit) AS status;

-- name: trigger_rotate
-- Give a trigger another secret, with its audit row and its Idempotency-Key.
SELECT rotate_trigger(:id, :secret, :grace_s, :audit, :idempotency) AS status;

-- name: trigger_secrets
-- The sealed secrets that count now.
SELECT secret, CASE WHEN before_until > clock_timestamp() THEN secret_before END AS secret_before
  FROM triggers WHERE id = :id::uuid;

-- name: trigger_owner
-- Whose rights a key stands for.
SELECT * FROM acting_key(:key);

-- name: fire
-- Create a command for an event that a trigger was for, once.
SELECT status, command_id, snapshot FROM fire_trigger(:command, :env, :audit, :event, :firing);

-- name: event_seen
-- What became of an event at a trigger.
SELECT * FROM seen_events WHERE seen = :seen;

-- name: event_refuse
-- Record that an event was refused at a trigger.
SELECT * FROM refuse_event(:firing, :reason, :detail);

-- name: event_matches
-- What came to a trigger, newest first.
SELECT * FROM seen_events
 WHERE trigger_id = :id::uuid AND (:before::bigint IS NULL OR number < :before::bigint)
   AND (:outcome::text IS NULL OR outcome = :outcome::text)
 ORDER BY number DESC LIMIT :limit::int;
