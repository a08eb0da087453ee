-- The spine: projects, keys, commands, their events, the queue and its outbox.
-- Lock order everywhere: project_slots, key_slots, command_runs, commands. Clocks are the database's.

CREATE TABLE projects (
  name                    text PRIMARY KEY,
  description             text NOT NULL DEFAULT '',
  namespace               text,
  pod                     text,
  pod_uid                 text,
  container               text,
  workspace               text NOT NULL,
  phase                   text NOT NULL CHECK (phase IN ('ready', 'pending', 'unreachable', 'gone')),
  source                  text NOT NULL,
  allowed_commands        text[],
  max_concurrent_commands int NOT NULL DEFAULT 5 CHECK (max_concurrent_commands > 0),
  paused_at               timestamptz,
  issues                  jsonb NOT NULL DEFAULT '[]',
  seen_at                 timestamptz NOT NULL DEFAULT now()
);

-- The mutex of a project: claims wait here, so that counting the running ones is exact.
CREATE TABLE project_slots (
  project     text PRIMARY KEY REFERENCES projects ON DELETE CASCADE,
  max_running int NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE api_keys (
  id             uuid PRIMARY KEY,
  name           text NOT NULL,
  prefix         text NOT NULL,
  key_hash       bytea NOT NULL UNIQUE,
  scopes         text[] NOT NULL,
  projects       text[],
  allowed_ips    cidr[] NOT NULL DEFAULT '{}',
  rate_limit     int,
  rate_window_s  int,
  max_concurrent int,
  unlimited      boolean NOT NULL DEFAULT false,
  created_at     timestamptz NOT NULL DEFAULT now(),
  expires_at     timestamptz,
  revoked_at     timestamptz,
  replaced_by    uuid,
  last_used_at   timestamptz,
  CHECK ((rate_limit IS NULL) = (rate_window_s IS NULL))
);

-- The mutex of a key that has a concurrency limit; kept apart so that authorising never waits for it.
CREATE TABLE key_slots (
  key_id uuid PRIMARY KEY REFERENCES api_keys ON DELETE CASCADE
) WITH (fillfactor = 50);

-- The ring of the newest grants of each key. UNLOGGED: a crash opens the window, and nothing else.
CREATE UNLOGGED TABLE rate_limits (
  key_id uuid PRIMARY KEY,
  hits   timestamptz[] NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE commands (
  id             uuid PRIMARY KEY,
  project        text NOT NULL REFERENCES projects,
  key_id         uuid NOT NULL REFERENCES api_keys,
  kind           text NOT NULL,
  spec           jsonb NOT NULL,
  env_sealed     bytea,
  env_names      text[] NOT NULL DEFAULT '{}',
  priority       smallint NOT NULL CHECK (priority BETWEEN 1 AND 4),
  state          text NOT NULL,
  labels         jsonb NOT NULL DEFAULT '{}',
  session        text,
  timeouts       jsonb NOT NULL,
  run_at         timestamptz,
  queue_deadline timestamptz,
  outcome        jsonb,
  traceparent    text,
  retry_of       uuid,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at     timestamptz,
  finished_at    timestamptz
);
CREATE INDEX commands_lanes ON commands (project, key_id, priority, id) WHERE state = 'queued';
CREATE INDEX commands_order ON commands (project, priority, id) WHERE state = 'queued';
CREATE INDEX commands_active ON commands (project) WHERE state IN ('claimed', 'running', 'cancelling');
CREATE INDEX commands_active_of_key ON commands (key_id) WHERE state IN ('claimed', 'running', 'cancelling');
CREATE INDEX commands_due ON commands (run_at) WHERE state = 'scheduled';
CREATE INDEX commands_newest ON commands (project, id);

-- The hot row of a command: numbering, lease, offsets. No index but the key, so updates stay HOT.
CREATE TABLE command_runs (
  command_id   uuid PRIMARY KEY REFERENCES commands ON DELETE CASCADE,
  project      text NOT NULL,
  next_seq     bigint NOT NULL DEFAULT 1,
  lease_until  timestamptz,
  lease_token  bigint NOT NULL DEFAULT 0,
  worker       bigint,
  pod_uid      text,
  out_offset   bigint NOT NULL DEFAULT 0,
  err_offset   bigint NOT NULL DEFAULT 0,
  cancel_mode  text,
  cancel_reason text,
  cancel_requested_at timestamptz
) WITH (fillfactor = 50);

-- Which lane (project, key) was served last, and when: the least recently served goes first.
CREATE TABLE lanes (
  project         text NOT NULL REFERENCES projects ON DELETE CASCADE,
  key_id          uuid NOT NULL,
  last_claimed_at timestamptz NOT NULL,
  PRIMARY KEY (project, key_id)
) WITH (fillfactor = 50);

-- `xid` lets a project's stream resume exactly although transactions commit out of order.
CREATE TABLE command_events (
  day        date NOT NULL,
  command_id uuid NOT NULL,
  seq        bigint NOT NULL,
  project    text NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  type       text NOT NULL,
  stream     text,
  off        bigint,
  data       bytea,
  xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (day, command_id, seq)
) PARTITION BY RANGE (day);
ALTER TABLE command_events ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX command_events_by_project ON command_events (project, xid);
CREATE TABLE command_events_default PARTITION OF command_events DEFAULT;

CREATE TABLE outbox (
  id          uuid PRIMARY KEY,
  type        text NOT NULL,
  subject     text NOT NULL,
  data        jsonb NOT NULL,
  traceparent text,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  next_at     timestamptz NOT NULL DEFAULT clock_timestamp() + interval '5 s',
  attempts    int NOT NULL DEFAULT 0
);
CREATE INDEX outbox_next ON outbox (next_at);

CREATE TABLE idempotency (
  key_id       uuid NOT NULL,
  route        text NOT NULL,
  idem_key     text NOT NULL,
  request_hash bytea NOT NULL,
  response     jsonb NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (key_id, route, idem_key)
);

CREATE TABLE audit_log (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  key_id     uuid,
  action     text NOT NULL,
  target     text NOT NULL,
  project    text,
  detail     jsonb NOT NULL DEFAULT '{}',
  request_id text,
  client_ip  text,
  peer_ip    text
);

CREATE TABLE dependencies (
  name         text PRIMARY KEY,
  state        text NOT NULL,
  failures     int NOT NULL DEFAULT 0,
  opened_until timestamptz,
  detail       text,
  checked_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dead_letters (
  id          uuid PRIMARY KEY,
  event_id    text,
  source      text,
  type        text,
  subject     text,
  reason      text NOT NULL,
  detail      text NOT NULL DEFAULT '',
  attributes  jsonb NOT NULL DEFAULT '{}',
  data        bytea,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------------------------
-- Partitions

-- Make the daily partitions from `p_from` on. A day whose rows already lie in the default
-- partition stays there: retention deletes those rows one by one.
CREATE FUNCTION ensure_event_partitions(p_from date, p_days int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  d date; made int := 0; part text;
BEGIN
  FOR i IN 0 .. p_days - 1 LOOP
    d := p_from + i;
    part := 'command_events_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(part) IS NOT NULL
      OR EXISTS (SELECT FROM command_events_default e WHERE e.day = d);
    EXECUTE format('CREATE TABLE %I PARTITION OF command_events FOR VALUES FROM (%L) TO (%L)', part, d, d + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

-- Drop what is older than `p_before`; returns how many partitions went.
CREATE FUNCTION drop_event_partitions(p_before date) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  part text; dropped int := 0;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'command_events'::regclass AND c.relname ~ '_[0-9]{8}$'
       AND to_date(right(c.relname, 8), 'YYYYMMDD') < p_before
  LOOP
    EXECUTE format('DROP TABLE %I', part);
    dropped := dropped + 1;
  END LOOP;
  DELETE FROM command_events_default e WHERE e.day < p_before;
  RETURN dropped;
END $$;

-- The UTC day inside a UUIDv7: its first 48 bits are milliseconds since 1970 (RFC 9562, 5.7).
CREATE FUNCTION day_of(p_id uuid) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (to_timestamp(('x' || translate(left(p_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
          AT TIME ZONE 'UTC')::date
$$;

-- ---------------------------------------------------------------------------------------------
-- Leases

-- A runner holds a session advisory lock on its number; when its connection dies, so does the lock.
CREATE FUNCTION worker_is_alive(p_worker bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM pg_locks
     WHERE locktype = 'advisory' AND objsubid = 1 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND classid = ((p_worker >> 32) & 4294967295)::oid AND objid = (p_worker & 4294967295)::oid)
$$;

CREATE FUNCTION lease_is_dead(p_until timestamptz, p_worker bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT p_until IS NULL OR p_until < clock_timestamp() OR NOT worker_is_alive(p_worker)
$$;

-- ---------------------------------------------------------------------------------------------
-- Events

-- Lock the run row and number `p_count` events. NULL token: the caller checks the state instead.
CREATE FUNCTION reserve_events(p_id uuid, p_token bigint, p_count int, p_out bigint, p_err bigint)
RETURNS TABLE (first_seq bigint, day date, project text, cancel_mode text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    UPDATE command_runs r
       SET next_seq = r.next_seq + p_count,
           out_offset = r.out_offset + p_out, err_offset = r.err_offset + p_err
     WHERE r.command_id = p_id AND (p_token IS NULL OR r.lease_token = p_token)
    RETURNING r.next_seq - p_count, day_of(p_id), r.project, r.cancel_mode;
END $$;

-- Append small events in one call. p_events: [{"type", "stream", "off", "data": base64}].
-- No row comes back when the token is stale.
CREATE FUNCTION append_events(p_id uuid, p_token bigint, p_events jsonb, p_out bigint, p_err bigint)
RETURNS TABLE (first_seq bigint, cancel_mode text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  got record;
BEGIN
  SELECT * INTO got FROM reserve_events(p_id, p_token, jsonb_array_length(p_events), p_out, p_err);
  IF NOT FOUND THEN RETURN; END IF;
  INSERT INTO command_events (day, command_id, seq, project, type, stream, off, data)
  SELECT got.day, p_id, got.first_seq + e.n - 1, got.project, e.v ->> 'type', e.v ->> 'stream',
         (e.v ->> 'off')::bigint, decode(e.v ->> 'data', 'base64')
    FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e(v, n);
  RETURN QUERY SELECT got.first_seq, got.cancel_mode;
END $$;

-- One event of our own, JSON data, under the run row's lock that the caller holds.
CREATE FUNCTION append_state(p_id uuid, p_type text, p_data jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint; p text;
BEGIN
  UPDATE command_runs SET next_seq = next_seq + 1 WHERE command_id = p_id
  RETURNING next_seq - 1, project INTO n, p;
  INSERT INTO command_events (day, command_id, seq, project, type, data)
  VALUES (day_of(p_id), p_id, n, p, p_type, convert_to(p_data::text, 'UTF8'));
  RETURN n;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Authorising: key, address, scope and rate in one call

-- p_scopes: any one of these is enough. p_counts: whether a grant uses up the window.
-- status: ok, unknown, revoked, expired, ip, scope, limited.
CREATE FUNCTION authorise(p_hash bytea, p_scopes text[], p_ip inet, p_counts boolean)
RETURNS TABLE (status text, key_id uuid, name text, scopes text[], projects text[], allowed_ips text[],
               rate_limit int, rate_window_s int, max_concurrent int, unlimited boolean,
               expires_at timestamptz, remaining int, reset_s double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  k api_keys; ring timestamptz[]; verdict text := 'ok'; t timestamptz := clock_timestamp();
  span interval; cut int; used int; oldest timestamptz;
BEGIN
  SELECT * INTO k FROM api_keys a WHERE a.key_hash = p_hash;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'unknown', NULL::uuid, NULL::text, NULL::text[], NULL::text[], NULL::text[],
                        NULL::int, NULL::int, NULL::int, NULL::boolean, NULL::timestamptz, NULL::int,
                        NULL::double precision;
    RETURN;
  END IF;
  IF k.revoked_at IS NOT NULL AND k.revoked_at <= t THEN verdict := 'revoked';
  ELSIF k.expires_at IS NOT NULL AND k.expires_at <= t THEN verdict := 'expired';
  ELSIF cardinality(k.allowed_ips) > 0 AND (p_ip IS NULL OR NOT p_ip <<= ANY (k.allowed_ips)) THEN verdict := 'ip';
  ELSIF cardinality(p_scopes) > 0 AND NOT k.scopes && p_scopes THEN verdict := 'scope';
  END IF;
  IF verdict = 'ok' AND k.rate_limit IS NOT NULL THEN
    span := make_interval(secs => k.rate_window_s);
    SELECT r.hits INTO ring FROM rate_limits r WHERE r.key_id = k.id;
    IF p_counts THEN
      -- An unlocked look first: a stale ring is only more permissive, so a refusal here is exact.
      IF ring[k.rate_limit] IS NOT NULL AND ring[k.rate_limit] > t - span THEN
        verdict := 'limited';
      ELSE
        INSERT INTO rate_limits AS r (key_id, hits) VALUES (k.id, ARRAY[t])
        ON CONFLICT (key_id) DO UPDATE
          SET hits = array_prepend(clock_timestamp(), r.hits[1:k.rate_limit - 1])
          WHERE r.hits[k.rate_limit] IS NULL OR r.hits[k.rate_limit] <= clock_timestamp() - span
        RETURNING r.hits INTO ring;
        IF NOT FOUND THEN
          verdict := 'limited';
          SELECT r.hits INTO ring FROM rate_limits r WHERE r.key_id = k.id;
        END IF;
      END IF;
    END IF;
    SELECT count(*), min(h) INTO used, oldest FROM unnest(ring) h WHERE h > t - span;
  END IF;
  IF verdict = 'ok' AND (k.last_used_at IS NULL OR k.last_used_at < t - interval '1 min') THEN
    UPDATE api_keys a SET last_used_at = t
     WHERE a.id = (SELECT b.id FROM api_keys b WHERE b.id = k.id FOR NO KEY UPDATE SKIP LOCKED);
  END IF;
  RETURN QUERY SELECT verdict, k.id, k.name, k.scopes, k.projects, k.allowed_ips::text[], k.rate_limit,
    k.rate_window_s, k.max_concurrent, k.unlimited, k.expires_at, k.rate_limit - used,
    CASE WHEN k.rate_limit IS NULL THEN NULL
         ELSE greatest(0, extract(epoch FROM coalesce(oldest, t - span) + span - clock_timestamp()))::double precision END;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Idempotency: in the transaction of what is created

-- status: new (go on, then idempotency_keep), replay (response is the first one), mismatch, in_flight.
CREATE FUNCTION idempotency_begin(p_key uuid, p_route text, p_idem text, p_hash bytea)
RETURNS TABLE (status text, response jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  old idempotency;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(p_key::text || ' ' || p_route || ' ' || p_idem, 7)) THEN
    RETURN QUERY SELECT 'in_flight', NULL::jsonb; RETURN;
  END IF;
  SELECT * INTO old FROM idempotency i WHERE i.key_id = p_key AND i.route = p_route AND i.idem_key = p_idem;
  IF NOT FOUND THEN RETURN QUERY SELECT 'new', NULL::jsonb;
  ELSIF old.request_hash <> p_hash THEN RETURN QUERY SELECT 'mismatch', NULL::jsonb;
  ELSE RETURN QUERY SELECT 'replay', old.response;
  END IF;
END $$;

-- ---------------------------------------------------------------------------------------------
-- The queue

-- The place of a queued command in its project: by priority, then age. NULL beyond 10,000.
CREATE FUNCTION queue_position(p_project text, p_priority smallint, p_id uuid) RETURNS int LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN n < 10000 THEN n + 1 END FROM (
    SELECT count(*)::int AS n FROM (
      SELECT FROM commands c
       WHERE c.project = p_project AND c.state = 'queued' AND (c.priority, c.id) < (p_priority, p_id)
       LIMIT 10000) ahead) counted
$$;

-- Everything a submit does, in one call and one transaction.
-- c: id, project, kind, spec, env_names, priority, labels, session, timeouts, run_at, retry_of,
--    traceparent, reject_if_busy, reject_if_session_busy; a: key_id, max_concurrent, request_id,
--    client_ip, peer_ip; i: route, key, hash (hex) or NULL.
-- status: ok, replay, no_project, kind_not_allowed, concurrency_limited, session_busy,
--    idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION submit_command(c jsonb, p_env bytea, a jsonb, i jsonb, p_event uuid)
RETURNS TABLE (status text, command_id uuid, snapshot jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_id uuid := (c ->> 'id')::uuid; v_key uuid := (a ->> 'key_id')::uuid; v_project text := c ->> 'project';
  p projects; got record; v_state text := 'queued'; v_now timestamptz := clock_timestamp();
  v_priority smallint := (c ->> 'priority')::smallint; v_run_at timestamptz := (c ->> 'run_at')::timestamptz;
  v_queue_s int := (c -> 'timeouts' ->> 'queue_s')::int; snap jsonb; busy int; in_key int;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_key, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid, got.response; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid, NULL::jsonb; RETURN;
    END IF;
  END IF;
  SELECT * INTO p FROM projects WHERE name = v_project AND phase <> 'gone';
  IF NOT FOUND THEN RETURN QUERY SELECT 'no_project', NULL::uuid, NULL::jsonb; RETURN; END IF;
  IF p.allowed_commands IS NOT NULL AND NOT (c ->> 'kind') = ANY (p.allowed_commands) THEN
    RETURN QUERY SELECT 'kind_not_allowed', NULL::uuid, NULL::jsonb; RETURN;
  END IF;
  IF (c ->> 'reject_if_busy')::boolean THEN
    PERFORM FROM project_slots s WHERE s.project = v_project FOR UPDATE;
    SELECT count(*) FILTER (WHERE x.project = v_project), count(*) FILTER (WHERE x.key_id = v_key) INTO busy, in_key
      FROM commands x WHERE x.state IN ('claimed', 'running', 'cancelling')
       AND (x.project = v_project OR x.key_id = v_key);
    busy := busy + (SELECT count(*) FROM commands x WHERE x.project = v_project AND x.state = 'queued');
    IF busy >= p.max_concurrent_commands OR p.paused_at IS NOT NULL
       OR in_key >= coalesce((a ->> 'max_concurrent')::int, in_key + 1) THEN
      RETURN QUERY SELECT 'concurrency_limited', NULL::uuid, NULL::jsonb; RETURN;
    END IF;
  END IF;
  IF (c ->> 'reject_if_session_busy')::boolean THEN
    PERFORM FROM project_slots s WHERE s.project = v_project FOR UPDATE;
    IF EXISTS (SELECT FROM commands x WHERE x.project = v_project AND x.session = c ->> 'session'
                AND x.state IN ('queued', 'claimed', 'running', 'cancelling')) THEN
      RETURN QUERY SELECT 'session_busy', NULL::uuid, NULL::jsonb; RETURN;
    END IF;
  END IF;
  IF v_run_at IS NOT NULL THEN v_state := 'scheduled'; END IF;
  INSERT INTO commands (id, project, key_id, kind, spec, env_sealed, env_names, priority, state, labels, session,
                        timeouts, run_at, queue_deadline, traceparent, retry_of, created_at)
  VALUES (v_id, v_project, v_key, c ->> 'kind', c -> 'spec', p_env,
          ARRAY(SELECT jsonb_array_elements_text(c -> 'env_names')), v_priority, v_state, c -> 'labels',
          c ->> 'session', c -> 'timeouts', v_run_at,
          coalesce(v_run_at, v_now) + make_interval(secs => v_queue_s), c ->> 'traceparent',
          (c ->> 'retry_of')::uuid, v_now);
  INSERT INTO command_runs (command_id, project, next_seq) VALUES (v_id, v_project, 2);
  INSERT INTO command_events (day, command_id, seq, project, at, type, data)
  VALUES (day_of(v_id), v_id, 1, v_project, v_now, 'state',
          convert_to(jsonb_build_object('state', v_state)::text, 'UTF8'));
  IF v_state = 'queued' THEN
    INSERT INTO outbox (id, type, subject, data, traceparent)
    VALUES (p_event, 'ai.orchard9.rdev.command.queued.v1',
            format('projects/%s/commands/cmd_%s', v_project, translate(v_id::text, '-', '')),
            jsonb_build_object('id', 'cmd_' || translate(v_id::text, '-', ''), 'project', v_project,
                               'kind', c ->> 'kind', 'state', 'queued'), c ->> 'traceparent');
  END IF;
  INSERT INTO audit_log (key_id, action, target, project, detail, request_id, client_ip, peer_ip)
  VALUES (v_key, 'command.created', 'cmd_' || translate(v_id::text, '-', ''), v_project,
          jsonb_build_object('kind', c ->> 'kind', 'priority', v_priority), a ->> 'request_id',
          a ->> 'client_ip', a ->> 'peer_ip');
  snap := jsonb_build_object('id', v_id, 'state', v_state, 'priority', v_priority, 'queue_position',
    CASE WHEN v_state = 'queued' THEN queue_position(v_project, v_priority, v_id) END);
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_key, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), snap);
  END IF;
  RETURN QUERY SELECT 'ok', v_id, snap;
END $$;

-- The candidates of a project, one per lane, in the order in which they should run. Lanes are found
-- by jumping along the index, so 10,000 queued commands of one key cost as much as one.
CREATE FUNCTION queue_heads(p_project text)
RETURNS TABLE (id uuid, key_id uuid, max_concurrent int) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH RECURSIVE lane AS (
    (SELECT c.key_id FROM commands c WHERE c.project = p_project AND c.state = 'queued' ORDER BY c.key_id LIMIT 1)
    UNION ALL
    SELECT (SELECT c.key_id FROM commands c WHERE c.project = p_project AND c.state = 'queued'
              AND c.key_id > lane.key_id ORDER BY c.key_id LIMIT 1)
      FROM lane WHERE lane.key_id IS NOT NULL)
  SELECT head.id, lane.key_id, k.max_concurrent
    FROM lane
    JOIN api_keys k ON k.id = lane.key_id
    CROSS JOIN LATERAL (
      SELECT c.id, c.priority FROM commands c
       WHERE c.project = p_project AND c.key_id = lane.key_id AND c.state = 'queued'
         AND (c.session IS NULL OR NOT EXISTS (
               SELECT FROM commands b WHERE b.project = p_project AND b.session = c.session
                  AND b.state IN ('claimed', 'running', 'cancelling')))
       ORDER BY c.priority, c.id LIMIT 1) head
    LEFT JOIN lanes l ON l.project = p_project AND l.key_id = lane.key_id
   WHERE k.max_concurrent IS NULL OR k.max_concurrent > (
           SELECT count(*) FROM commands b WHERE b.key_id = lane.key_id
              AND b.state IN ('claimed', 'running', 'cancelling'))
   ORDER BY head.priority, l.last_claimed_at NULLS FIRST, head.id;
END $$;

-- Lock a key and count again; false releases the lock (a subtransaction), so no claim ever holds
-- one key while it waits for another.
CREATE FUNCTION lock_key_slot(p_key uuid, p_max int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO key_slots (key_id) VALUES (p_key) ON CONFLICT DO NOTHING;
  PERFORM FROM key_slots WHERE key_id = p_key FOR UPDATE;
  IF (SELECT count(*) FROM commands b WHERE b.key_id = p_key
         AND b.state IN ('claimed', 'running', 'cancelling')) >= p_max THEN
    RAISE EXCEPTION 'key is full' USING ERRCODE = 'RD001';
  END IF;
  RETURN true;
EXCEPTION WHEN SQLSTATE 'RD001' THEN RETURN false;
END $$;

-- Claim the next command of a project for `p_worker`; no row when nothing may run. READ COMMITTED:
-- each statement sees what committed before it, so the count after the lock is exact.
CREATE FUNCTION claim_command(p_project text, p_worker bigint, p_lease interval) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
  room int; head record; tries int := 0;
BEGIN
  SELECT s.max_running INTO room FROM project_slots s
    JOIN projects p ON p.name = s.project
   WHERE s.project = p_project AND p.phase = 'ready' AND p.paused_at IS NULL
     FOR UPDATE OF s;
  IF NOT FOUND THEN RETURN; END IF;
  IF (SELECT count(*) FROM commands c WHERE c.project = p_project
         AND c.state IN ('claimed', 'running', 'cancelling')) >= room THEN RETURN; END IF;
  FOR head IN SELECT * FROM queue_heads(p_project) LOOP
    IF head.max_concurrent IS NOT NULL THEN
      tries := tries + 1;
      EXIT WHEN tries > 3;
      CONTINUE WHEN NOT lock_key_slot(head.key_id, head.max_concurrent);
    END IF;
    PERFORM FROM command_runs r WHERE r.command_id = head.id FOR UPDATE;
    UPDATE commands c SET state = 'claimed'
     WHERE c.id = head.id AND c.state = 'queued'
       AND (c.queue_deadline IS NULL OR c.queue_deadline > clock_timestamp());
    CONTINUE WHEN NOT FOUND;
    UPDATE command_runs r SET lease_token = r.lease_token + 1, worker = p_worker,
           lease_until = clock_timestamp() + p_lease,
           pod_uid = (SELECT p.pod_uid FROM projects p WHERE p.name = p_project)
     WHERE r.command_id = head.id;
    INSERT INTO lanes (project, key_id, last_claimed_at) VALUES (p_project, head.key_id, clock_timestamp())
    ON CONFLICT (project, key_id) DO UPDATE SET last_claimed_at = excluded.last_claimed_at;
    RETURN NEXT head.id;
    RETURN;
  END LOOP;
END $$;

-- Take over live commands whose lease is dead: the only way to take one from another runner.
CREATE FUNCTION adopt_commands(p_worker bigint, p_lease interval, p_limit int) RETURNS SETOF uuid LANGUAGE sql AS $$
  UPDATE command_runs r SET lease_token = r.lease_token + 1, worker = p_worker,
         lease_until = clock_timestamp() + p_lease
   WHERE r.command_id IN (
     SELECT d.command_id FROM command_runs d JOIN commands c ON c.id = d.command_id
      WHERE c.state IN ('claimed', 'running', 'cancelling')
        AND d.worker IS DISTINCT FROM p_worker AND lease_is_dead(d.lease_until, d.worker)
      LIMIT p_limit FOR UPDATE OF d SKIP LOCKED)
  RETURNING r.command_id
$$;

-- Renew the leases this runner still holds. What does not come back is no longer its own.
CREATE FUNCTION heartbeat(p_ids uuid[], p_tokens bigint[], p_lease interval)
RETURNS TABLE (command_id uuid, cancel_mode text, cancel_reason text) LANGUAGE sql AS $$
  UPDATE command_runs r SET lease_until = clock_timestamp() + p_lease
    FROM unnest(p_ids, p_tokens) AS mine(id, token)
   WHERE r.command_id = mine.id AND r.lease_token = mine.token
  RETURNING r.command_id, r.cancel_mode, r.cancel_reason
$$;

-- The command runs: claimed → running, with its event.
CREATE FUNCTION mark_running(p_id uuid, p_token bigint, p_from text[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM command_runs r WHERE r.command_id = p_id AND r.lease_token = p_token FOR UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE commands c SET state = 'running', started_at = clock_timestamp() WHERE c.id = p_id AND c.state = ANY (p_from);
  IF NOT FOUND THEN RETURN true; END IF;
  PERFORM append_state(p_id, 'state', jsonb_build_object('state', 'running'));
  INSERT INTO outbox (id, type, subject, data, traceparent)
  SELECT gen_random_uuid(), 'ai.orchard9.rdev.command.started.v1',
         format('projects/%s/commands/cmd_%s', c.project, translate(c.id::text, '-', '')),
         jsonb_build_object('id', 'cmd_' || translate(c.id::text, '-', ''), 'project', c.project,
                            'kind', c.kind, 'state', 'running'), c.traceparent
    FROM commands c WHERE c.id = p_id;
  RETURN true;
END $$;

-- End a command once: state, `end` event, outbox row. NULL token: allowed only from p_from.
-- status: ok, stale (token or state no longer fits).
CREATE FUNCTION finish_command(p_id uuid, p_token bigint, p_from text[], p_state text, p_outcome jsonb, p_event uuid)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM command_runs r WHERE r.command_id = p_id AND (p_token IS NULL OR r.lease_token = p_token) FOR UPDATE;
  IF NOT FOUND THEN RETURN 'stale'; END IF;
  UPDATE commands c SET state = p_state, outcome = p_outcome, finished_at = clock_timestamp(), env_sealed = NULL
   WHERE c.id = p_id AND c.state = ANY (p_from);
  IF NOT FOUND THEN RETURN 'stale'; END IF;
  PERFORM append_state(p_id, 'end', '{}');
  UPDATE command_runs r SET lease_until = NULL WHERE r.command_id = p_id;
  INSERT INTO outbox (id, type, subject, data, traceparent)
  SELECT p_event, format('ai.orchard9.rdev.command.%s.v1', p_state),
         format('projects/%s/commands/cmd_%s', c.project, translate(c.id::text, '-', '')),
         jsonb_build_object('id', 'cmd_' || translate(c.id::text, '-', ''), 'project', c.project, 'kind', c.kind,
                            'state', p_state, 'outcome', p_outcome #- '{agent,result}' #- '{agent,structured_output}'
                                                                  #- '{agent,permission_denials}'), c.traceparent
    FROM commands c WHERE c.id = p_id;
  RETURN 'ok';
END $$;

-- Cancel. Never claimed: it ends here. Claimed once: it is `cancelling` until the workspace agrees.
-- status: cancelled, cancelling, ended.
CREATE FUNCTION cancel_command(p_id uuid, p_mode text, p_reason text, p_outcome jsonb, p_event uuid)
RETURNS TABLE (status text, lease_dead boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  r command_runs; v_state text;
BEGIN
  SELECT * INTO r FROM command_runs x WHERE x.command_id = p_id FOR UPDATE;
  SELECT c.state INTO v_state FROM commands c WHERE c.id = p_id;
  IF v_state IN ('scheduled', 'queued') AND r.lease_token = 0 THEN
    PERFORM finish_command(p_id, NULL, ARRAY['scheduled', 'queued'], 'cancelled', p_outcome, p_event);
    RETURN QUERY SELECT 'cancelled', false; RETURN;
  END IF;
  IF v_state IN ('claimed', 'running') THEN
    UPDATE commands c SET state = 'cancelling' WHERE c.id = p_id;
    PERFORM append_state(p_id, 'state', jsonb_build_object('state', 'cancelling', 'reason', p_reason));
  ELSIF v_state <> 'cancelling' THEN
    RETURN QUERY SELECT 'ended', false; RETURN;
  END IF;
  UPDATE command_runs x SET cancel_requested_at = coalesce(x.cancel_requested_at, clock_timestamp()),
         cancel_reason = coalesce(x.cancel_reason, p_reason),
         cancel_mode = CASE WHEN x.cancel_mode = 'force' THEN 'force' ELSE p_mode END
   WHERE x.command_id = p_id;
  RETURN QUERY SELECT 'cancelling', lease_is_dead(r.lease_until, r.worker);
END $$;

-- Move what is due from scheduled to queued; one doorbell per command.
CREATE FUNCTION promote_due(p_limit int) RETURNS TABLE (id uuid, project text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  due record;
BEGIN
  FOR due IN
    SELECT c.id, c.project, c.kind, c.traceparent FROM commands c JOIN command_runs r ON r.command_id = c.id
     WHERE c.state = 'scheduled' AND c.run_at <= clock_timestamp()
     ORDER BY c.run_at LIMIT p_limit FOR UPDATE OF r SKIP LOCKED
  LOOP
    UPDATE commands c SET state = 'queued' WHERE c.id = due.id AND c.state = 'scheduled';
    CONTINUE WHEN NOT FOUND;
    PERFORM append_state(due.id, 'state', jsonb_build_object('state', 'queued'));
    INSERT INTO outbox (id, type, subject, data, traceparent)
    VALUES (gen_random_uuid(), 'ai.orchard9.rdev.command.queued.v1',
            format('projects/%s/commands/cmd_%s', due.project, translate(due.id::text, '-', '')),
            jsonb_build_object('id', 'cmd_' || translate(due.id::text, '-', ''), 'project', due.project,
                               'kind', due.kind, 'state', 'queued'), due.traceparent);
    RETURN QUERY SELECT due.id, due.project;
  END LOOP;
END $$;

-- End what waited longer than its queue timeout. Only commands that were never claimed.
CREATE FUNCTION expire_queued(p_outcome jsonb, p_limit int) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
  late record;
BEGIN
  FOR late IN
    SELECT c.id FROM commands c JOIN command_runs r ON r.command_id = c.id
     WHERE c.state = 'queued' AND c.queue_deadline <= clock_timestamp() AND r.lease_token = 0
     LIMIT p_limit FOR UPDATE OF r SKIP LOCKED
  LOOP
    IF finish_command(late.id, NULL, ARRAY['queued'], 'timed_out', p_outcome, gen_random_uuid()) = 'ok' THEN
      RETURN NEXT late.id;
    END IF;
  END LOOP;
END $$;

-- Projects that need a runner: claimable work with room, or a live command without a live lease.
CREATE FUNCTION projects_to_ring() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT s.project FROM project_slots s JOIN projects p ON p.name = s.project
   WHERE (p.phase = 'ready' AND p.paused_at IS NULL
          AND EXISTS (SELECT FROM commands c WHERE c.project = s.project AND c.state = 'queued')
          AND (SELECT count(*) FROM commands c WHERE c.project = s.project
                AND c.state IN ('claimed', 'running', 'cancelling')) < s.max_running)
      OR EXISTS (SELECT FROM commands c JOIN command_runs r ON r.command_id = c.id
                  WHERE c.project = s.project AND c.state IN ('claimed', 'running', 'cancelling')
                    AND lease_is_dead(r.lease_until, r.worker))
   ORDER BY 1
$$;

-- Commands as callers see them; the computed columns cost only for the rows they concern.
CREATE VIEW command_view AS
  SELECT c.*,
         CASE c.state WHEN 'queued' THEN queue_position(c.project, c.priority, c.id) WHEN 'claimed' THEN 0 END AS queue_position,
         CASE WHEN c.state IN ('claimed', 'running', 'cancelling') THEN
           (SELECT lease_is_dead(r.lease_until, r.worker) FROM command_runs r WHERE r.command_id = c.id) ELSE false END AS lease_dead
    FROM commands c;
