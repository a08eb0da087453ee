-- Events on their way out (port Outbox).

-- name: outbox_take
-- The rows with these ids that are still unsent.
SELECT o.id, o.type, o.subject, o.data, o.traceparent, o.webhooks FROM outbox o
 WHERE o.id = ANY (:ids::uuid[]) ORDER BY o.created_at, o.id;

-- name: outbox_take_left
-- The oldest rows that nobody published in time; nobody else gets them for 5 s.
WITH due AS (
  SELECT o.id FROM outbox o WHERE o.next_at <= clock_timestamp()
   ORDER BY o.next_at LIMIT :limit::int FOR UPDATE SKIP LOCKED),
taken AS (
  UPDATE outbox o SET next_at = clock_timestamp() + interval '5 s', attempts = o.attempts + 1
    FROM due WHERE o.id = due.id
  RETURNING o.id, o.type, o.subject, o.data, o.traceparent, o.webhooks, o.created_at)
SELECT id, type, subject, data, traceparent, webhooks FROM taken ORDER BY created_at, id;

-- name: outbox_sent
-- Forget rows the broker has accepted.
DELETE FROM outbox WHERE id = ANY (:ids::uuid[]);
