-- The audit trail (port AuditLog).

-- name: audit_record
-- Append refusals.
SELECT record_refusals(:refusals) AS done;

-- name: audit_list
-- The newest entries below a number that fit every filter given.
SELECT id, at, key_id, action, target, project, detail, request_id, client_ip, peer_ip
  FROM audit_log
 WHERE id < :before::bigint
   AND (:projects::text[] IS NULL OR project = ANY (:projects::text[]))
   AND (:key_id::uuid IS NULL OR key_id = :key_id::uuid)
   AND (:action::text IS NULL OR action = :action::text)
   AND (:target::text IS NULL OR target = :target::text)
   AND (:since::timestamptz IS NULL OR at >= :since::timestamptz)
   AND (:until::timestamptz IS NULL OR at < :until::timestamptz)
 ORDER BY id DESC LIMIT :limit::int;

-- name: audit_seal
-- Chain what is not chained yet.
SELECT sealed, seq, hash FROM seal_audit(:limit);

-- name: audit_verify
-- Check some links of the chain.
SELECT checked, seq, hash, broken, reason FROM verify_audit(:seq, :hash, :limit);
