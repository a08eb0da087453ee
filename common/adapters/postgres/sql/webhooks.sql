-- Webhooks (ports WebhookStore and DeliveryQueue).

-- name: webhook_create
-- Store an endpoint with its secret, its audit row and its Idempotency-Key.
SELECT status, webhook_id FROM create_webhook(:webhook, :headers, :secret, :audit, :idempotency);

-- name: webhook_get
-- One endpoint.
SELECT * FROM webhook_view WHERE id = :id::uuid;

-- name: webhook_list
-- The newest endpoints below an id.
SELECT * FROM webhook_view WHERE id < :before::uuid ORDER BY id DESC LIMIT :limit::int;

-- name: webhook_update
-- Change some fields of an endpoint.
SELECT update_webhook(:id, :changes, :headers, :audit) AS known;

-- name: webhook_delete
-- Delete an endpoint.
SELECT delete_webhook(:id, :audit) AS known;

-- name: webhook_rotate
-- Give an endpoint another secret.
SELECT rotate_webhook(:id, :secret, :grace_s, :audit, :idempotency) AS status;

-- name: webhook_ping
-- Send an endpoint an event of its own.
SELECT ping_webhook(:id, :event, :delivery, :audit) AS delivery_id;

-- name: webhook_redeliver
-- Send a delivery again.
SELECT redeliver(:id, :delivery, :audit) AS known;

-- name: webhook_recover
-- Send again what was missed in a range of time.
SELECT recover_webhook(:id, :since, :until, :everything, :audit) AS recovered;

-- name: delivery_list
-- The newest deliveries of an endpoint below an id.
SELECT d.id, d.endpoint_id, d.event_id, d.event_type, d.project, d.created_at, d.state, d.next_at
  FROM delivery_view d
 WHERE d.endpoint_id = :endpoint::uuid AND d.id < :before::uuid
   AND (cardinality(:states::text[]) = 0 OR d.state = ANY (:states::text[]))
   AND (cardinality(:event_types::text[]) = 0 OR d.event_type = ANY (:event_types::text[]))
   AND (:since::timestamptz IS NULL OR d.event_at >= :since::timestamptz)
   AND (:until::timestamptz IS NULL OR d.event_at < :until::timestamptz)
 ORDER BY d.id DESC LIMIT :limit::int;

-- name: delivery_get
-- One delivery of an endpoint, with what is sent.
SELECT * FROM delivery_view WHERE id = :id::uuid AND endpoint_id = :endpoint::uuid;

-- name: delivery_attempts
-- Attempts of deliveries, oldest first; what was answered only where it is asked for.
SELECT a.delivery_id, a.at, a.status, a.duration_ms, a.error, CASE WHEN :response::boolean THEN a.response END AS response
  FROM unnest(:ids::uuid[]) d(id) JOIN attempts a ON a.day = day_of(d.id) AND a.delivery_id = d.id
 ORDER BY a.delivery_id, a.n;

-- name: webhook_fan_out
-- Turn kept events into deliveries.
SELECT fan_out(:limit) AS events;

-- name: webhooks_due
-- Endpoints with something to send soon.
SELECT endpoint_id, in_s, failing FROM webhooks_due(make_interval(secs => :horizon_s::double precision));

-- name: deliveries_claim
-- Take due deliveries of an endpoint under a lease.
SELECT id, token, tries, event_id, type, at, data, facts
  FROM claim_deliveries(:endpoint, :limit, make_interval(secs => :lease_s::double precision));

-- name: webhook_target
-- Where to and with what an endpoint's deliveries are sent.
SELECT w.url, w.payload, h.failures, w.headers_sealed,
       ARRAY(SELECT s.sealed FROM webhook_secrets s
              WHERE s.endpoint_id = w.id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
              ORDER BY s.id DESC) AS secrets
  FROM webhook_endpoints w JOIN webhook_health h ON h.endpoint_id = w.id
 WHERE w.id = :id::uuid AND w.deleted_at IS NULL;

-- name: attempts_record
-- Write down what attempts of an endpoint came to.
SELECT record_attempts(:endpoint, :attempts, make_interval(secs => :failing_for_s::double precision), :event) AS disabled;

-- name: deliveries_release
-- Give back what was claimed and not sent.
SELECT release_deliveries(:ids, :tokens);

-- name: drop_webhook_events
-- Delete some of the events older than the retention, with their deliveries.
WITH old AS (
  SELECT e.id FROM webhook_events e
   WHERE e.at < now() - make_interval(days => :days::int) ORDER BY e.at LIMIT :limit::int FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM webhook_events e USING old WHERE e.id = old.id RETURNING 1)
SELECT count(*) AS dropped FROM gone;

-- name: drop_attempts
-- Drop the partitions of days older than the retention.
SELECT drop_attempt_partitions((now() AT TIME ZONE 'UTC')::date - :days::int) AS dropped;

-- name: drop_webhooks
-- Delete some of the deleted endpoints that have no deliveries any more.
WITH old AS (
  SELECT w.id FROM webhook_endpoints w
   WHERE w.deleted_at < now() - interval '1 day' AND NOT EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = w.id)
   LIMIT :limit::int),
gone AS (DELETE FROM webhook_endpoints w USING old WHERE w.id = old.id RETURNING 1)
SELECT count(*) AS dropped FROM gone;
