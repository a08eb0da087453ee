-- Webhooks: what happened, who wants to hear of it, and every attempt to tell them.
-- Lock order: webhook_endpoints, webhook_health, deliveries. No other lock is taken meanwhile.

-- A fresh UUIDv7 (RFC 9562, 5.7): milliseconds, version 7, and the random bits of a version 4.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT (overlay(overlay(gen_random_uuid()::text PLACING left(oldest_id_at(clock_timestamp())::text, 13) FROM 1)
          PLACING '7' FROM 15))::uuid
$$;

CREATE FUNCTION shown_time(p_at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- NULL for event_types or projects: all. Custom headers hold secrets, so only their names are plain.
CREATE TABLE webhook_endpoints (
  id              uuid PRIMARY KEY,
  key_id          uuid NOT NULL REFERENCES api_keys,
  url             text NOT NULL,
  description     text NOT NULL DEFAULT '',
  event_types     text[],
  projects        text[],
  payload         text NOT NULL CHECK (payload IN ('thin', 'full')),
  header_names    text[] NOT NULL DEFAULT '{}',
  headers_sealed  bytea,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  disabled_at     timestamptz,
  disabled_reason text,
  deleted_at      timestamptz
);

-- The hot part of an endpoint: how it does. It is left alone until rests_until.
CREATE TABLE webhook_health (
  endpoint_id   uuid PRIMARY KEY REFERENCES webhook_endpoints ON DELETE CASCADE,
  failures      int NOT NULL DEFAULT 0,
  failing_since timestamptz,
  rests_until   timestamptz
) WITH (fillfactor = 50);

CREATE TABLE webhook_secrets (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  endpoint_id uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
  sealed      bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at  timestamptz
);
CREATE INDEX webhook_secrets_of ON webhook_secrets (endpoint_id);

-- What somebody may want to hear, written with the event's outbox row and kept as long as deliveries
-- are: so a lost event costs time only, and what was missed can be sent later. `facts`: what a full
-- payload adds to `data`, as it was then.
CREATE TABLE webhook_events (
  id      uuid PRIMARY KEY,
  type    text NOT NULL,
  project text,
  data    jsonb NOT NULL,
  facts   jsonb NOT NULL DEFAULT '{}',
  at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  fanned  boolean NOT NULL DEFAULT false
);
CREATE INDEX webhook_events_at ON webhook_events (at);
CREATE INDEX webhook_events_left ON webhook_events (at) WHERE NOT fanned;

-- tries: attempts since it was last begun anew. A lease is a time until which nobody else sends.
CREATE TABLE deliveries (
  id          uuid PRIMARY KEY,
  endpoint_id uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
  event_id    uuid NOT NULL REFERENCES webhook_events ON DELETE CASCADE,
  state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'failed', 'delivered', 'dead')),
  attempts    int NOT NULL DEFAULT 0,
  tries       int NOT NULL DEFAULT 0,
  next_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  lease_until timestamptz,
  lease_token bigint NOT NULL DEFAULT 0,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (event_id, endpoint_id)
) WITH (fillfactor = 70);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_at) WHERE state IN ('pending', 'failed');
CREATE INDEX deliveries_newest ON deliveries (endpoint_id, id);

-- `day` is the delivery's, so all attempts of one lie together.
CREATE TABLE attempts (
  day         date NOT NULL,
  delivery_id uuid NOT NULL,
  n           int NOT NULL,
  at          timestamptz NOT NULL,
  status      int,
  duration_ms int NOT NULL,
  error       text,
  response    bytea,
  PRIMARY KEY (day, delivery_id, n)
) PARTITION BY RANGE (day);
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- ---------------------------------------------------------------------------------------------
-- Partitions: what 0001 did for events, for attempts too

-- Make a table's daily partitions from p_from on; returns how many were made. A day whose rows lie in
-- the default partition stays there. Made first and attached then: others go on meanwhile.
CREATE FUNCTION ensure_partitions(p_table text, p_from date, p_days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  d date; made int := 0; part text; there boolean;
BEGIN
  FOR i IN 0 .. p_days - 1 LOOP
    d := p_from + i;
    part := p_table || '_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(part) IS NOT NULL;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE day = $1)', p_table || '_default') INTO there USING d;
    CONTINUE WHEN there;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING STORAGE)', part, p_table);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', p_table, part, d, d + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

CREATE OR REPLACE FUNCTION ensure_event_partitions(p_from date, p_days int) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev partitions', 7));
  RETURN ensure_partitions('command_events', p_from, p_days) + ensure_partitions('attempts', p_from, p_days);
END $$;

-- Drop attempts of deliveries made before p_before; returns how many partitions went.
CREATE FUNCTION drop_attempt_partitions(p_before date) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  part record; dropped int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev partitions', 7));
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '_[0-9]{8}$'
       AND to_date(right(c.relname, 8), 'YYYYMMDD') < p_before
     ORDER BY 1
  LOOP
    EXECUTE format('DROP TABLE %I', part.relname);
    dropped := dropped + 1;
  END LOOP;
  DELETE FROM attempts_default a WHERE a.day < p_before;
  RETURN dropped;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Every event that leaves is also what webhooks hear

ALTER TABLE outbox ADD COLUMN webhooks boolean NOT NULL DEFAULT false;

-- What a full payload says of a command beyond its event: no script, prompt, argument, environment.
CREATE FUNCTION command_facts(p_shown text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT jsonb_build_object(
      'key_id', 'key_' || translate(c.key_id::text, '-', ''), 'labels', c.labels, 'session_id', c.session,
      'priority', (ARRAY['urgent', 'high', 'normal', 'low'])[c.priority],
      'retry_of', CASE WHEN c.retry_of IS NOT NULL THEN shown_id(c.retry_of) END,
      'created_at', shown_time(c.created_at), 'started_at', shown_time(c.started_at),
      'finished_at', shown_time(c.finished_at))
    FROM commands c WHERE c.id = substr(p_shown, 5)::uuid);
END $$;

-- Keep an event for webhooks when one might want it; the outbox row says so, for the broker's filter.
CREATE FUNCTION keep_for_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  v_type text := substr(NEW.type, 18, length(NEW.type) - 20); -- without ai.orchard9.rdev. and .v1
BEGIN
  IF EXISTS (SELECT FROM webhook_endpoints w
              WHERE w.deleted_at IS NULL AND (w.event_types IS NULL OR v_type = ANY (w.event_types))) THEN
    INSERT INTO webhook_events (id, type, project, data, facts)
    VALUES (NEW.id, v_type, NEW.data ->> 'project', NEW.data,
            CASE WHEN v_type LIKE 'command.%' THEN coalesce(command_facts(NEW.data ->> 'id'), '{}') ELSE '{}' END);
    NEW.webhooks := true;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER outbox_webhooks BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION keep_for_webhooks();

-- Whether an endpoint is to hear an event. What its key may not know of, it does not hear: the key is
-- asked each time, so what was taken from it is taken from its endpoints.
CREATE FUNCTION hears(w webhook_endpoints, k api_keys, e webhook_events) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT w.deleted_at IS NULL AND e.type <> 'webhook.ping'
     AND (w.event_types IS NULL OR e.type = ANY (w.event_types))
     AND (w.projects IS NULL OR coalesce(e.project = ANY (w.projects), false))
     AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
     AND 'webhooks:write' = ANY (k.scopes)
     AND (k.projects IS NULL OR coalesce(e.project = ANY (k.projects), false))
     AND (e.type NOT LIKE 'key.%' OR 'keys:admin' = ANY (k.scopes))
$$;

-- Turn kept events into deliveries; answers how many events. Whoever comes, however often: once each.
CREATE FUNCTION fan_out(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  n int;
BEGIN
  WITH left_over AS (
    SELECT e.id FROM webhook_events e WHERE NOT e.fanned ORDER BY e.at LIMIT p_limit FOR UPDATE SKIP LOCKED),
  made AS (
    INSERT INTO deliveries (id, endpoint_id, event_id)
    SELECT new_id(), w.id, e.id
      FROM left_over l JOIN webhook_events e ON e.id = l.id
      CROSS JOIN webhook_endpoints w JOIN api_keys k ON k.id = w.key_id
     WHERE w.disabled_at IS NULL AND e.at >= w.created_at AND hears(w, k, e)
     ORDER BY e.at
    ON CONFLICT (event_id, endpoint_id) DO NOTHING)
  UPDATE webhook_events e SET fanned = true FROM left_over l WHERE e.id = l.id;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Sending

-- Endpoints with something to send within the horizon, and in how many seconds.
CREATE FUNCTION webhooks_due(p_horizon interval)
RETURNS TABLE (endpoint_id uuid, in_s double precision, failing boolean) LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY
  SELECT w.id, extract(epoch FROM greatest(d.next_at, h.rests_until) - clock_timestamp())::double precision, h.failures > 0
    FROM webhook_endpoints w JOIN webhook_health h ON h.endpoint_id = w.id
    CROSS JOIN LATERAL (SELECT x.next_at FROM deliveries x
                         WHERE x.endpoint_id = w.id AND x.state IN ('pending', 'failed') ORDER BY x.next_at LIMIT 1) d
   WHERE w.disabled_at IS NULL AND w.deleted_at IS NULL
     AND greatest(d.next_at, h.rests_until) <= clock_timestamp() + p_horizon
   ORDER BY 2;
END $$;

-- Take due deliveries of one endpoint under a lease; of one that fails, a single one as a probe, and
-- nobody else probes meanwhile.
CREATE FUNCTION claim_deliveries(p_endpoint uuid, p_limit int, p_lease interval)
RETURNS TABLE (id uuid, token bigint, tries int, event_id uuid, type text, at timestamptz, data jsonb, facts jsonb)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  h webhook_health; n int := p_limit;
BEGIN
  PERFORM FROM webhook_endpoints w WHERE w.id = p_endpoint AND w.disabled_at IS NULL AND w.deleted_at IS NULL;
  IF NOT FOUND THEN RETURN; END IF;
  SELECT x.* INTO h FROM webhook_health x WHERE x.endpoint_id = p_endpoint FOR UPDATE;
  IF h.rests_until > clock_timestamp() THEN RETURN; END IF;
  IF h.failures > 0 THEN
    n := 1;
    UPDATE webhook_health x SET rests_until = clock_timestamp() + p_lease WHERE x.endpoint_id = p_endpoint;
  END IF;
  RETURN QUERY
  WITH due AS (
    SELECT d.id FROM deliveries d
     WHERE d.endpoint_id = p_endpoint AND d.state IN ('pending', 'failed') AND d.next_at <= clock_timestamp()
     ORDER BY d.next_at LIMIT n FOR UPDATE SKIP LOCKED),
  taken AS (
    UPDATE deliveries d SET lease_token = d.lease_token + 1, lease_until = clock_timestamp() + p_lease,
           next_at = clock_timestamp() + p_lease
      FROM due WHERE d.id = due.id RETURNING d.*)
  SELECT t.id, t.lease_token, t.tries, e.id, e.type, e.at, e.data, e.facts
    FROM taken t JOIN webhook_events e ON e.id = t.event_id ORDER BY e.at, t.id;
  IF NOT FOUND AND h.failures > 0 THEN
    UPDATE webhook_health x SET rests_until = h.rests_until WHERE x.endpoint_id = p_endpoint;
  END IF;
END $$;

-- Stop an endpoint; what waits for it waits on. Its CloudEvent, or NULL when it was disabled before.
CREATE FUNCTION disable_webhook(p_endpoint uuid, p_reason text, p_event uuid) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  v_shown text := 'whk_' || translate(p_endpoint::text, '-', '');
BEGIN
  UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_reason = p_reason
   WHERE id = p_endpoint AND disabled_at IS NULL AND deleted_at IS NULL;
  IF NOT FOUND THEN RETURN NULL; END IF;
  INSERT INTO outbox (id, type, subject, data)
  VALUES (p_event, 'ai.orchard9.rdev.webhook.disabled.v1', 'webhooks/' || v_shown,
          jsonb_build_object('id', v_shown, 'reason', p_reason));
  INSERT INTO audit_log (action, target, detail) VALUES ('webhook.disabled', v_shown, jsonb_build_object('reason', p_reason));
  RETURN p_event;
END $$;

-- Write down what attempts of one endpoint came to, in their order.
-- p: [{id, token, ago_s, status, duration_ms, error, response (base64), retry_in_s, rest_s, gone}];
-- retry_in_s NULL: there is no further attempt. Every attempt is kept; only the lease's holder
-- changes the delivery. Answers the event of an endpoint that was disabled by it.
CREATE FUNCTION record_attempts(p_endpoint uuid, p jsonb, p_failing_for interval, p_event uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
  h webhook_health; a record; n int; ok boolean; gone boolean := false;
BEGIN
  SELECT x.* INTO h FROM webhook_health x WHERE x.endpoint_id = p_endpoint FOR UPDATE;
  FOR a IN SELECT * FROM jsonb_to_recordset(p) AS x(id uuid, token bigint, ago_s double precision, status int,
             duration_ms int, error text, response text, retry_in_s double precision, rest_s double precision, gone boolean)
  LOOP
    ok := coalesce(a.status BETWEEN 200 AND 299, false);
    UPDATE deliveries d SET attempts = d.attempts + 1,
           tries = CASE WHEN d.lease_token = a.token THEN d.tries + 1 ELSE d.tries END,
           lease_until = CASE WHEN d.lease_token = a.token THEN NULL ELSE d.lease_until END,
           state = CASE WHEN d.lease_token <> a.token THEN d.state WHEN ok THEN 'delivered'
                        WHEN a.retry_in_s IS NULL THEN 'dead' ELSE 'failed' END,
           next_at = CASE WHEN d.lease_token = a.token
                          THEN clock_timestamp() + make_interval(secs => coalesce(a.retry_in_s, 0)) ELSE d.next_at END
     WHERE d.id = a.id RETURNING d.attempts INTO n;
    CONTINUE WHEN NOT FOUND;
    INSERT INTO attempts (day, delivery_id, n, at, status, duration_ms, error, response)
    VALUES (day_of(a.id), a.id, n, clock_timestamp() - make_interval(secs => a.ago_s), a.status, a.duration_ms,
            a.error, decode(a.response, 'base64'));
    gone := gone OR a.gone;
    IF ok THEN h.failures := 0; h.failing_since := NULL; h.rests_until := NULL;
    ELSE
      h.failures := h.failures + 1;
      h.failing_since := coalesce(h.failing_since, clock_timestamp());
      h.rests_until := CASE WHEN a.rest_s > 0 THEN clock_timestamp() + make_interval(secs => a.rest_s) END;
    END IF;
  END LOOP;
  UPDATE webhook_health x SET failures = h.failures, failing_since = h.failing_since, rests_until = h.rests_until
   WHERE x.endpoint_id = p_endpoint
     AND (x.failures, x.failing_since, x.rests_until) IS DISTINCT FROM (h.failures, h.failing_since, h.rests_until);
  IF gone THEN RETURN disable_webhook(p_endpoint, 'gone', p_event); END IF;
  IF h.failing_since < clock_timestamp() - p_failing_for THEN RETURN disable_webhook(p_endpoint, 'failing', p_event); END IF;
  RETURN NULL;
END $$;

-- Give back what was claimed and not sent.
CREATE FUNCTION release_deliveries(p_ids uuid[], p_tokens bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE deliveries d SET lease_until = NULL, next_at = clock_timestamp()
    FROM unnest(p_ids, p_tokens) AS mine(id, token) WHERE d.id = mine.id AND d.lease_token = mine.token;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Endpoints, as their owners change them

-- How many an owner may have; each costs every event a look.
CREATE FUNCTION webhooks_at_most() RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 100 $$;

-- w: id, url, description, event_types, projects, payload, header_names; a: see audit; i: see create_key.
-- status: ok, replay, too_many, idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION create_webhook(w jsonb, p_headers bytea, p_secret bytea, a jsonb, i jsonb)
RETURNS TABLE (status text, webhook_id uuid) LANGUAGE plpgsql AS $$
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; v_id uuid := (w ->> 'id')::uuid; got record;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid; RETURN;
    END IF;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev webhooks ' || v_caller::text, 7));
  IF (SELECT count(*) FROM webhook_endpoints x WHERE x.key_id = v_caller AND x.deleted_at IS NULL) >= webhooks_at_most() THEN
    RETURN QUERY SELECT 'too_many', NULL::uuid; RETURN;
  END IF;
  INSERT INTO webhook_endpoints (id, key_id, url, description, event_types, projects, payload, header_names, headers_sealed)
  VALUES (v_id, v_caller, w ->> 'url', w ->> 'description', texts(w -> 'event_types'), texts(w -> 'projects'),
          w ->> 'payload', texts(w -> 'header_names'), p_headers);
  INSERT INTO webhook_health (endpoint_id) VALUES (v_id);
  INSERT INTO webhook_secrets (endpoint_id, sealed) VALUES (v_id, p_secret);
  PERFORM audit(a, 'webhook.created', 'whk_' || translate(v_id::text, '-', ''), NULL,
                jsonb_build_object('event_types', w -> 'event_types', 'projects', w -> 'projects', 'payload', w -> 'payload'));
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', v_id));
  END IF;
  RETURN QUERY SELECT 'ok', v_id;
END $$;

-- A JSON list of strings as an array; NULL for null.
CREATE FUNCTION texts(j jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN jsonb_typeof(j) = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(j)) END
$$;

-- c: the fields to change, named as in create_webhook, and `enabled`. Enabling forgets all failures;
-- what waits is then sent. False: there is no such endpoint.
CREATE FUNCTION update_webhook(p_id uuid, c jsonb, p_headers bytea, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE webhook_endpoints w SET
    url = coalesce(c ->> 'url', w.url), description = coalesce(c ->> 'description', w.description),
    payload = coalesce(c ->> 'payload', w.payload),
    event_types = CASE WHEN c ? 'event_types' THEN texts(c -> 'event_types') ELSE w.event_types END,
    projects = CASE WHEN c ? 'projects' THEN texts(c -> 'projects') ELSE w.projects END,
    header_names = CASE WHEN c ? 'header_names' THEN texts(c -> 'header_names') ELSE w.header_names END,
    headers_sealed = CASE WHEN c ? 'header_names' THEN p_headers ELSE w.headers_sealed END,
    disabled_reason = CASE (c ->> 'enabled')::boolean WHEN true THEN NULL
                           WHEN false THEN coalesce(w.disabled_reason, 'user') ELSE w.disabled_reason END,
    disabled_at = CASE (c ->> 'enabled')::boolean WHEN true THEN NULL
                       WHEN false THEN coalesce(w.disabled_at, clock_timestamp()) ELSE w.disabled_at END
   WHERE w.id = p_id AND w.deleted_at IS NULL;
  IF NOT FOUND THEN RETURN false; END IF;
  IF (c ->> 'enabled')::boolean THEN
    UPDATE webhook_health SET failures = 0, failing_since = NULL, rests_until = NULL WHERE endpoint_id = p_id;
  END IF;
  PERFORM audit(a, 'webhook.updated', 'whk_' || translate(p_id::text, '-', ''), NULL, c - 'url');
  RETURN true;
END $$;

-- Nothing is sent from here on and its secrets are gone; the log goes with the retention.
CREATE FUNCTION delete_webhook(p_id uuid, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE webhook_endpoints SET deleted_at = clock_timestamp(), headers_sealed = NULL WHERE id = p_id AND deleted_at IS NULL;
  IF NOT FOUND THEN RETURN false; END IF;
  DELETE FROM webhook_secrets WHERE endpoint_id = p_id;
  PERFORM audit(a, 'webhook.deleted', 'whk_' || translate(p_id::text, '-', ''), NULL, '{}');
  RETURN true;
END $$;

-- A new secret; the ones before sign on for p_grace_s seconds.
-- status: ok, replay, unknown, idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION rotate_webhook(p_id uuid, p_secret bytea, p_grace_s int, a jsonb, i jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; got record; v_end timestamptz := clock_timestamp() + make_interval(secs => p_grace_s);
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN RETURN 'replay'; END IF;
    IF got.status <> 'new' THEN RETURN 'idempotency_' || got.status; END IF;
  END IF;
  PERFORM FROM webhook_endpoints WHERE id = p_id AND deleted_at IS NULL FOR UPDATE;
  IF NOT FOUND THEN RETURN 'unknown'; END IF;
  DELETE FROM webhook_secrets WHERE endpoint_id = p_id AND expires_at <= clock_timestamp();
  UPDATE webhook_secrets SET expires_at = least(expires_at, v_end) WHERE endpoint_id = p_id;
  INSERT INTO webhook_secrets (endpoint_id, sealed) VALUES (p_id, p_secret);
  PERFORM audit(a, 'webhook.rotated', 'whk_' || translate(p_id::text, '-', ''), NULL, jsonb_build_object('grace_s', p_grace_s));
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', p_id));
  END IF;
  RETURN 'ok';
END $$;

-- An event for this endpoint alone, sent like any other. NULL: it is disabled, or there is none.
CREATE FUNCTION ping_webhook(p_id uuid, p_event uuid, p_delivery uuid, a jsonb) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  v_shown text := 'whk_' || translate(p_id::text, '-', '');
BEGIN
  PERFORM FROM webhook_endpoints WHERE id = p_id AND disabled_at IS NULL AND deleted_at IS NULL;
  IF NOT FOUND THEN RETURN NULL; END IF;
  INSERT INTO webhook_events (id, type, data, fanned)
  VALUES (p_event, 'webhook.ping', jsonb_build_object('id', v_shown), true);
  INSERT INTO deliveries (id, endpoint_id, event_id) VALUES (p_delivery, p_id, p_event);
  PERFORM audit(a, 'webhook.pinged', v_shown, NULL, '{}');
  RETURN p_delivery;
END $$;

-- Send one again from the beginning of the schedule, whatever became of it. What is on its way at
-- this moment is not sent beside that. False: it is not this endpoint's.
CREATE FUNCTION redeliver(p_id uuid, p_delivery uuid, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE deliveries d SET state = 'pending', tries = 0, next_at = greatest(clock_timestamp(), d.lease_until)
   WHERE d.id = p_delivery AND d.endpoint_id = p_id;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM audit(a, 'webhook.redelivered', 'whk_' || translate(p_id::text, '-', ''), NULL,
                jsonb_build_object('delivery', 'dlv_' || translate(p_delivery::text, '-', '')));
  RETURN true;
END $$;

-- Send what happened in [p_since, p_until) and was not delivered, also what the endpoint missed while
-- it was disabled; with p_all, everything. Answers how many deliveries that are.
CREATE FUNCTION recover_webhook(p_id uuid, p_since timestamptz, p_until timestamptz, p_all boolean, a jsonb) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  made int; again int;
BEGIN
  INSERT INTO deliveries (id, endpoint_id, event_id)
  SELECT new_id(), w.id, e.id FROM webhook_endpoints w JOIN api_keys k ON k.id = w.key_id
    CROSS JOIN webhook_events e
   WHERE w.id = p_id AND e.at >= p_since AND e.at < p_until AND e.fanned AND hears(w, k, e)
   ORDER BY e.at
  ON CONFLICT (event_id, endpoint_id) DO NOTHING;
  GET DIAGNOSTICS made = ROW_COUNT;
  UPDATE deliveries d SET state = 'pending', tries = 0, next_at = greatest(clock_timestamp(), d.lease_until)
    FROM webhook_events e
   WHERE e.id = d.event_id AND d.endpoint_id = p_id AND e.at >= p_since AND e.at < p_until
     AND (d.state IN ('failed', 'dead') OR (p_all AND d.state = 'delivered'));
  GET DIAGNOSTICS again = ROW_COUNT;
  PERFORM audit(a, 'webhook.recovered', 'whk_' || translate(p_id::text, '-', ''), NULL,
                jsonb_build_object('since', shown_time(p_since), 'until', shown_time(p_until), 'deliveries', made + again));
  RETURN made + again;
END $$;

-- Endpoints as their owners see them.
CREATE VIEW webhook_view AS
  SELECT w.id, w.key_id, w.url, w.description, w.event_types, w.projects, w.payload, w.header_names, w.created_at,
         w.disabled_at, w.disabled_reason, h.failing_since
    FROM webhook_endpoints w JOIN webhook_health h ON h.endpoint_id = w.id
   WHERE w.deleted_at IS NULL;

-- Deliveries as their owners see them: what waits for a disabled endpoint is dead until it is enabled.
CREATE VIEW delivery_view AS
  SELECT d.id, d.endpoint_id, d.event_id, e.type AS event_type, e.project, d.created_at, e.at AS event_at, e.data, e.facts,
         w.payload, s.state, CASE WHEN s.state IN ('pending', 'failed') THEN d.next_at END AS next_at
    FROM deliveries d JOIN webhook_events e ON e.id = d.event_id JOIN webhook_endpoints w ON w.id = d.endpoint_id
    CROSS JOIN LATERAL (SELECT CASE WHEN w.disabled_at IS NOT NULL AND d.state IN ('pending', 'failed') THEN 'dead'
                                    ELSE d.state END AS state) s
   WHERE w.deleted_at IS NULL;

-- ---------------------------------------------------------------------------------------------
-- Keys: their creation, replacement and end are events, and their endpoints go with them

-- The CloudEvent of a key: its id and nothing else.
CREATE FUNCTION announce_key(p_event uuid, p_what text, p_key uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_shown text := 'key_' || translate(p_key::text, '-', '');
BEGIN
  INSERT INTO outbox (id, type, subject, data)
  VALUES (p_event, 'ai.orchard9.rdev.key.' || p_what || '.v1', 'keys/' || v_shown, jsonb_build_object('id', v_shown));
END $$;

CREATE FUNCTION create_key_announced(k jsonb, p_hash bytea, a jsonb, i jsonb, p_event uuid)
RETURNS TABLE (status text, key_id uuid) LANGUAGE plpgsql AS $$
DECLARE
  got record;
BEGIN
  SELECT * INTO got FROM create_key(k, p_hash, a, i);
  IF got.status = 'ok' THEN PERFORM announce_key(p_event, 'created', got.key_id); END IF;
  RETURN QUERY SELECT got.status, got.key_id;
END $$;

CREATE FUNCTION rotate_key_announced(p_key uuid, n jsonb, p_hash bytea, p_grace_s int, a jsonb, i jsonb, p_event uuid)
RETURNS TABLE (status text, key_id uuid) LANGUAGE plpgsql AS $$
DECLARE
  got record;
BEGIN
  SELECT * INTO got FROM rotate_key(p_key, n, p_hash, p_grace_s, a, i);
  IF got.status = 'ok' THEN
    UPDATE webhook_endpoints w SET key_id = got.key_id WHERE w.key_id = p_key;
    PERFORM announce_key(p_event, 'created', got.key_id);
  END IF;
  RETURN QUERY SELECT got.status, got.key_id;
END $$;

CREATE FUNCTION revoke_key_announced(p_key uuid, a jsonb, p_event uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  fresh boolean := EXISTS (SELECT FROM api_keys WHERE id = p_key AND revoked_at IS NULL);
BEGIN
  IF NOT revoke_key(p_key, a) THEN RETURN false; END IF;
  IF fresh THEN
    PERFORM announce_key(p_event, 'revoked', p_key);
    PERFORM disable_webhook(w.id, 'key_revoked', new_id()) FROM webhook_endpoints w WHERE w.key_id = p_key ORDER BY w.id;
  END IF;
  RETURN true;
END $$;
