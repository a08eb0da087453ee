-- API keys (port KeyStore).

-- name: authorise
-- Key, address, scope and rate in one call.
SELECT * FROM authorise(:hash, :scopes, :ip, :counts);

-- name: key_create
-- Store a key, with its audit row and its Idempotency-Key.
SELECT status, key_id FROM create_key_announced(:key, :hash, :audit, :idempotency, :event);

-- name: key_ensure
-- Make a key be exactly as given and unlimited, whatever became of it.
INSERT INTO api_keys (id, name, prefix, key_hash, scopes, projects, allowed_ips, created_at, unlimited)
VALUES (:id, :name, :prefix, :hash, :scopes, NULL, '{}', :created_at, true)
ON CONFLICT (key_hash) DO UPDATE
   SET name = excluded.name, scopes = excluded.scopes, projects = NULL, allowed_ips = '{}', rate_limit = NULL,
       rate_window_s = NULL, max_concurrent = NULL, expires_at = NULL, revoked_at = NULL, unlimited = true;

-- name: key_get
-- One key.
SELECT id, name, prefix, scopes, projects, allowed_ips::text[] AS allowed_ips, rate_limit, rate_window_s,
       max_concurrent, created_at, expires_at, revoked_at, last_used_at, replaced_by
  FROM api_keys WHERE id = :id::uuid;

-- name: key_list
-- The newest keys below an id.
SELECT id, name, prefix, scopes, projects, allowed_ips::text[] AS allowed_ips, rate_limit, rate_window_s,
       max_concurrent, created_at, expires_at, revoked_at, last_used_at, replaced_by
  FROM api_keys WHERE id < :before::uuid ORDER BY id DESC LIMIT :limit::int;

-- name: key_update
-- Change some fields of a key, with its audit row.
SELECT update_key(:id, :changes, :audit) AS status;

-- name: key_rotate
-- Replace a key by a new one, with its audit row and its Idempotency-Key.
SELECT status, key_id FROM rotate_key_announced(:id, :new, :hash, :grace_s, :audit, :idempotency, :event);

-- name: key_revoke
-- Revoke a key.
SELECT revoke_key_announced(:id, :audit, :event) AS known;

-- name: end_waiting
-- End some of the commands of a key that still wait.
SELECT end_waiting(:key, :outcome, :limit) AS ended;
