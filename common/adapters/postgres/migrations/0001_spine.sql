-- The spine: projects, keys, commands, their events, the queue and its outbox.
-- Lock order everywhere: project_slots, key_slots, command_runs, commands. A state changes only under
-- the lock of its run row. Clocks are the database's; days are UTC.

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

-- The newest grants of each key. UNLOGGED: a crash opens the window, and nothing else. Limits up to
-- 240 keep a ring of grants, newest first (exact). Beyond that the row would outgrow its page, so
-- they keep counts per bucket, newest first, `base` being the newest bucket's number (exact to a
-- bucket: never more than the limit in any window, up to one bucket late in opening again).
CREATE UNLOGGED TABLE rate_limits (
  key_id uuid PRIMARY KEY,
  hits   timestamptz[],
  base   bigint,
  counts int[]
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
CREATE INDEX commands_lanes ON commands (project, key_id, priority, id) INCLUDE (session) WHERE state = 'queued';
CREATE INDEX commands_order ON commands (project, priority, id) WHERE state = 'queued';
-- Live commands are few, so those of one key are found by looking through all of them.
CREATE INDEX commands_active ON commands (project) WHERE state IN ('claimed', 'running', 'cancelling');
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
CREATE INDEX idempotency_age ON idempotency (created_at);

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
CREATE INDEX dead_letters_age ON dead_letters (created_at);

-- ---------------------------------------------------------------------------------------------
-- Ids and days

-- The UTC day inside a UUIDv7: its first 48 bits are milliseconds since 1970 (RFC 9562, 5.7).
CREATE FUNCTION day_of(p_id uuid) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (to_timestamp(('x' || translate(left(p_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
          AT TIME ZONE 'UTC')::date
$$;

-- The smallest UUIDv7 of a moment: ids below it are older.
CREATE FUNCTION oldest_id_at(p_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (lpad(to_hex(floor(extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The id callers see.
CREATE FUNCTION shown_id(p_id uuid) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT 'cmd_' || translate(p_id::text, '-', '')
$$;

-- ---------------------------------------------------------------------------------------------
-- Partitions

-- Make the daily partitions from `p_from` on; returns how many were made. A day whose rows already
-- lie in the default partition stays there: retention deletes those rows one by one. A table is made
-- first and attached then, which lets readers and writers of the other days go on; a busy table is
-- left for the next try after 2 s rather than have everybody queue behind us.
CREATE FUNCTION ensure_event_partitions(p_from date, p_days int) RETURNS int LANGUAGE plpgsql
SET lock_timeout = '2s' AS $$
DECLARE
  d date; made int := 0; part text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev partitions', 7));
  FOR i IN 0 .. p_days - 1 LOOP
    d := p_from + i;
    part := 'command_events_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass(part) IS NOT NULL
      OR EXISTS (SELECT FROM command_events_default e WHERE e.day = d);
    EXECUTE format('CREATE TABLE %I (LIKE command_events INCLUDING DEFAULTS INCLUDING STORAGE)', part);
    EXECUTE format('ALTER TABLE command_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, d, d + 1);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

-- Whether a command of that day has not ended: its events must stay.
CREATE FUNCTION day_is_live(p_day date) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM commands c
     WHERE c.id >= oldest_id_at(p_day::timestamp AT TIME ZONE 'UTC')
       AND c.id < oldest_id_at((p_day + 1)::timestamp AT TIME ZONE 'UTC')
       AND c.state IN ('scheduled', 'queued', 'claimed', 'running', 'cancelling'))
$$;

-- Drop what is older than `p_before`; returns how many partitions went.
CREATE FUNCTION drop_event_partitions(p_before date) RETURNS int LANGUAGE plpgsql
SET lock_timeout = '2s' AS $$
DECLARE
  part record; dropped int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev partitions', 7));
  FOR part IN
    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') AS day
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'command_events'::regclass AND c.relname ~ '_[0-9]{8}$'
       AND to_date(right(c.relname, 8), 'YYYYMMDD') < p_before
     ORDER BY 1
  LOOP
    CONTINUE WHEN day_is_live(part.day);
    EXECUTE format('DROP TABLE %I', part.relname);
    dropped := dropped + 1;
  END LOOP;
  FOR part IN SELECT DISTINCT e.day FROM command_events_default e WHERE e.day < p_before LOOP
    CONTINUE WHEN day_is_live(part.day);
    DELETE FROM command_events_default e WHERE e.day = part.day;
  END LOOP;
  RETURN dropped;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Leases: a run row with a lease_until has a holder, who writes with its lease_token

-- A runner holds a session advisory lock on its number; when its connection dies, so does the lock.
-- Such functions are plpgsql because before PostgreSQL 18 an SQL function with a subquery is planned
-- anew at every call.
CREATE FUNCTION worker_is_alive(p_worker bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM pg_locks
     WHERE locktype = 'advisory' AND objsubid = 1 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND classid = ((p_worker >> 32) & 4294967295)::oid AND objid = (p_worker & 4294967295)::oid);
END $$;

CREATE FUNCTION lease_is_dead(p_until timestamptz, p_worker bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN p_until IS NULL OR p_until < clock_timestamp() OR NOT worker_is_alive(p_worker);
END $$;

-- ---------------------------------------------------------------------------------------------
-- Events

-- Lock the run row and number `p_count` events of a lease's holder. p_out, p_err: the bytes
-- [start, end) of each stream that the events hold, NULL for none. Nothing is numbered and
-- `first_seq` is NULL when a stream does not go on exactly where its stored bytes end; then the
-- stored offsets say whether the events are a repeat. No row: the lease is another's.
CREATE FUNCTION reserve_events(p_id uuid, p_token bigint, p_count int, p_out int8range, p_err int8range)
RETURNS TABLE (first_seq bigint, day date, project text, at timestamptz, cancel_mode text,
               out_offset bigint, err_offset bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  r command_runs;
BEGIN
  UPDATE command_runs x
     SET next_seq = x.next_seq + p_count,
         out_offset = coalesce(upper(p_out), x.out_offset), err_offset = coalesce(upper(p_err), x.err_offset)
   WHERE x.command_id = p_id AND x.lease_token = p_token AND x.lease_until IS NOT NULL
     AND x.out_offset = coalesce(lower(p_out), x.out_offset) AND x.err_offset = coalesce(lower(p_err), x.err_offset)
  RETURNING x.* INTO r;
  IF FOUND THEN
    RETURN QUERY SELECT r.next_seq - p_count, day_of(p_id), r.project, clock_timestamp(), r.cancel_mode,
                        r.out_offset, r.err_offset;
  ELSE
    RETURN QUERY SELECT NULL::bigint, day_of(p_id), x.project, clock_timestamp(), x.cancel_mode, x.out_offset, x.err_offset
      FROM command_runs x WHERE x.command_id = p_id AND x.lease_token = p_token AND x.lease_until IS NOT NULL;
  END IF;
END $$;

-- Append small events in one call. p_events: [{"type", "stream", "off", "data": base64}].
-- Answers as reserve_events does.
CREATE FUNCTION append_events(p_id uuid, p_token bigint, p_events jsonb, p_out int8range, p_err int8range)
RETURNS TABLE (first_seq bigint, cancel_mode text, out_offset bigint, err_offset bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  got record;
BEGIN
  SELECT * INTO got FROM reserve_events(p_id, p_token, jsonb_array_length(p_events), p_out, p_err);
  IF NOT FOUND THEN RETURN; END IF;
  IF got.first_seq IS NOT NULL THEN
    INSERT INTO command_events (day, command_id, seq, project, at, type, stream, off, data)
    SELECT got.day, p_id, got.first_seq + e.n - 1, got.project, got.at, e.v ->> 'type', e.v ->> 'stream',
           (e.v ->> 'off')::bigint, decode(e.v ->> 'data', 'base64')
      FROM jsonb_array_elements(p_events) WITH ORDINALITY AS e(v, n);
  END IF;
  RETURN QUERY SELECT got.first_seq, got.cancel_mode, got.out_offset, got.err_offset;
END $$;

-- One event of our own, JSON data, under the run row's lock that the caller holds.
CREATE FUNCTION append_state(p_id uuid, p_type text, p_data jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint; p text;
BEGIN
  UPDATE command_runs SET next_seq = next_seq + 1 WHERE command_id = p_id
  RETURNING next_seq - 1, project INTO n, p;
  INSERT INTO command_events (day, command_id, seq, project, type, data)
  VALUES (day_of(p_id), p_id, n, p, p_type, convert_to(p_data::text, 'UTF8'));
END $$;

-- The first event of a stream that holds bytes at or after an offset: a binary search over seq,
-- along which a stream's offsets only grow. NULL when there is none.
CREATE FUNCTION seq_at_offset(p_id uuid, p_stream text, p_offset bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
  low bigint := 1; high bigint; middle bigint; probe record; found_seq bigint; v_day date := day_of(p_id);
BEGIN
  SELECT r.next_seq INTO high FROM command_runs r WHERE r.command_id = p_id;
  WHILE low < high LOOP
    middle := (low + high) / 2;
    SELECT e.seq, e.off + octet_length(e.data) AS past INTO probe FROM command_events e
     WHERE e.day = v_day AND e.command_id = p_id AND e.seq >= middle AND e.stream = p_stream
     ORDER BY e.seq LIMIT 1;
    IF NOT FOUND THEN high := middle;
    ELSIF probe.past > p_offset THEN found_seq := probe.seq; high := middle;
    ELSE low := probe.seq + 1;
    END IF;
  END LOOP;
  RETURN found_seq;
END $$;

-- ---------------------------------------------------------------------------------------------
-- What a change leaves behind: an outbox row, an audit row

-- a: key_id, request_id, client_ip, peer_ip.
CREATE FUNCTION audit(a jsonb, p_action text, p_target text, p_project text, p_detail jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_log (key_id, action, target, project, detail, request_id, client_ip, peer_ip)
  VALUES ((a ->> 'key_id')::uuid, p_action, p_target, p_project, p_detail, a ->> 'request_id',
          a ->> 'client_ip', a ->> 'peer_ip');
END $$;

-- The CloudEvent of a command: ids only, no output.
CREATE FUNCTION announce(p_event uuid, p_type text, p_id uuid, p_project text, p_kind text, p_state text,
                         p_outcome jsonb, p_traceparent text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO outbox (id, type, subject, data, traceparent)
  VALUES (p_event, 'ai.orchard9.rdev.command.' || p_type || '.v1',
          'projects/' || p_project || '/commands/' || shown_id(p_id),
          jsonb_build_object('id', shown_id(p_id), 'project', p_project, 'kind', p_kind, 'state', p_state)
          || CASE WHEN p_outcome IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('outcome',
               p_outcome #- '{agent,result}' #- '{agent,structured_output}' #- '{agent,permission_denials}') END,
          p_traceparent);
END $$;

-- What the end of a command leaves behind: its last event, numbered n, and its CloudEvent.
CREATE FUNCTION end_of(c commands, n bigint, p_event uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO command_events (day, command_id, seq, project, type, data)
  VALUES (day_of(c.id), c.id, n, c.project, 'end', '{}');
  PERFORM announce(p_event, c.state, c.id, c.project, c.kind, c.state, c.outcome, c.traceparent);
END $$;

-- ---------------------------------------------------------------------------------------------
-- Authorising: key, address, scope and rate in one call

-- The ring of limits up to 240: exact. `oldest`: the oldest grant that still counts.
CREATE FUNCTION rate_by_ring(p_key uuid, p_limit int, p_span interval, p_counts boolean)
RETURNS TABLE (granted boolean, used int, opens_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
  ring timestamptz[]; ok boolean := true;
BEGIN
  SELECT r.hits INTO ring FROM rate_limits r WHERE r.key_id = p_key;
  IF p_counts THEN
    -- An unlocked look first: a stale ring is only more permissive, so a refusal here is exact.
    IF ring[p_limit] >= clock_timestamp() - p_span THEN
      ok := false;
    ELSE
      INSERT INTO rate_limits AS r (key_id, hits) VALUES (p_key, ARRAY[clock_timestamp()])
      ON CONFLICT (key_id) DO UPDATE
        SET hits = array_prepend(clock_timestamp(), r.hits[1:p_limit - 1]), base = NULL, counts = NULL
        WHERE (r.hits[p_limit] < clock_timestamp() - p_span) IS NOT FALSE
      RETURNING r.hits INTO ring;
      IF NOT FOUND THEN
        ok := false;
        SELECT r.hits INTO ring FROM rate_limits r WHERE r.key_id = p_key;
      END IF;
    END IF;
  END IF;
  RETURN QUERY SELECT ok, count(*)::int, min(h) + p_span FROM unnest(ring[1:p_limit]) h
                WHERE h >= clock_timestamp() - p_span;
END $$;

-- Counts per bucket as of bucket `p_now`: older ones move back, what left the window falls off.
CREATE FUNCTION shift_counts(p_base bigint, p_counts int[], p_now bigint, p_buckets int) RETURNS int[]
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN p_counts IS NULL OR p_now - p_base >= p_buckets THEN array_fill(0, ARRAY[p_buckets])
    WHEN p_now <= p_base THEN (p_counts || array_fill(0, ARRAY[p_buckets]))[1:p_buckets]
    ELSE (array_fill(0, ARRAY[(p_now - p_base)::int]) || p_counts || array_fill(0, ARRAY[p_buckets]))[1:p_buckets]
  END
$$;

CREATE FUNCTION sum_counts(p_counts int[]) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN (SELECT sum(n) FROM unnest(p_counts) n);
END $$;

-- Buckets of 1 s, wider ones for windows over 240 s, for limits above 240. The oldest bucket counts
-- whole, so no window ever holds more than the limit.
CREATE FUNCTION rate_by_buckets(p_key uuid, p_limit int, p_window_s int, p_counts boolean)
RETURNS TABLE (granted boolean, used int, opens_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
  width int := greatest(1, ceil(p_window_s / 240.0)::int);
  buckets int := ceil(p_window_s / greatest(1, ceil(p_window_s / 240.0)))::int + 1;
  now_bucket bigint := floor(extract(epoch FROM clock_timestamp()) / width)::bigint;
  row_base bigint; row_counts int[]; ok boolean := true; oldest int;
BEGIN
  SELECT r.base, r.counts INTO row_base, row_counts FROM rate_limits r WHERE r.key_id = p_key;
  IF p_counts THEN
    IF sum_counts(shift_counts(row_base, row_counts, now_bucket, buckets)) >= p_limit THEN
      ok := false;
    ELSE
      INSERT INTO rate_limits AS r (key_id, base, counts)
      VALUES (p_key, now_bucket, array_fill(1, ARRAY[1]) || array_fill(0, ARRAY[buckets - 1]))
      ON CONFLICT (key_id) DO UPDATE
        SET hits = NULL,
            base = greatest(r.base, floor(extract(epoch FROM clock_timestamp()) / width)::bigint),
            counts = ARRAY[(shift_counts(r.base, r.counts, floor(extract(epoch FROM clock_timestamp()) / width)::bigint, buckets))[1] + 1]
              || (shift_counts(r.base, r.counts, floor(extract(epoch FROM clock_timestamp()) / width)::bigint, buckets))[2:]
        WHERE sum_counts(shift_counts(r.base, r.counts, floor(extract(epoch FROM clock_timestamp()) / width)::bigint, buckets)) < p_limit
      RETURNING r.base, r.counts INTO row_base, row_counts;
      IF NOT FOUND THEN
        ok := false;
        SELECT r.base, r.counts INTO row_base, row_counts FROM rate_limits r WHERE r.key_id = p_key;
      END IF;
    END IF;
  END IF;
  now_bucket := greatest(now_bucket, row_base);
  row_counts := shift_counts(row_base, row_counts, now_bucket, buckets);
  SELECT max(n) INTO oldest FROM unnest(row_counts) WITH ORDINALITY AS b(c, n) WHERE c > 0;
  RETURN QUERY SELECT ok, sum_counts(row_counts)::int,
    to_timestamp((now_bucket - oldest + 1 + buckets) * width::double precision);
END $$;

-- p_scopes: any one of these is enough. p_counts: whether a grant uses up the window.
-- status: ok, unknown, revoked, expired, ip, scope, limited.
CREATE FUNCTION authorise(p_hash bytea, p_scopes text[], p_ip inet, p_counts boolean)
RETURNS TABLE (status text, key_id uuid, name text, scopes text[], projects text[], allowed_ips text[],
               rate_limit int, rate_window_s int, max_concurrent int, unlimited boolean,
               expires_at timestamptz, remaining int, reset_s double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  k api_keys; rate record; verdict text := 'ok'; t timestamptz := clock_timestamp();
  left_over int; opens timestamptz;
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
    IF k.rate_limit <= 240 THEN
      SELECT * INTO rate FROM rate_by_ring(k.id, k.rate_limit, make_interval(secs => k.rate_window_s), p_counts);
    ELSE
      SELECT * INTO rate FROM rate_by_buckets(k.id, k.rate_limit, k.rate_window_s, p_counts);
    END IF;
    IF NOT rate.granted THEN verdict := 'limited'; END IF;
    left_over := greatest(0, k.rate_limit - rate.used);
    opens := coalesce(rate.opens_at, t);
  END IF;
  IF verdict = 'ok' AND (k.last_used_at IS NULL OR k.last_used_at < t - interval '1 min') THEN
    UPDATE api_keys a SET last_used_at = t
     WHERE a.id = (SELECT b.id FROM api_keys b WHERE b.id = k.id FOR NO KEY UPDATE SKIP LOCKED);
  END IF;
  RETURN QUERY SELECT verdict, k.id, k.name, k.scopes, k.projects, k.allowed_ips::text[], k.rate_limit,
    k.rate_window_s, k.max_concurrent, k.unlimited, k.expires_at, left_over,
    greatest(0, extract(epoch FROM opens - clock_timestamp()))::double precision;
END $$;

-- Revoking excludes submits of that key in flight: each sees the revocation or is seen by it.
CREATE FUNCTION key_lock(p_key uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT hashtextextended('rdev key ' || p_key::text, 7)
$$;

-- ---------------------------------------------------------------------------------------------
-- Idempotency: in the transaction of what is created

-- status: new (go on, then insert into idempotency), replay (response is the first one), mismatch,
-- in_flight. The lock is tried, not waited for: a second request answers at once.
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

-- Create a key. k: the row; a: see audit; i: route, key, hash (hex) or NULL.
-- status: ok, replay, idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION create_key(k jsonb, p_hash bytea, a jsonb, i jsonb)
RETURNS TABLE (status text, key_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; v_id uuid := (k ->> 'id')::uuid; got record;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid; RETURN;
    END IF;
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', v_id));
  END IF;
  INSERT INTO api_keys (id, name, prefix, key_hash, scopes, projects, allowed_ips, rate_limit, rate_window_s,
                        max_concurrent, created_at, expires_at)
  VALUES (v_id, k ->> 'name', k ->> 'prefix', p_hash,
          ARRAY(SELECT jsonb_array_elements_text(k -> 'scopes')),
          CASE WHEN jsonb_typeof(k -> 'projects') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(k -> 'projects')) END,
          ARRAY(SELECT jsonb_array_elements_text(k -> 'allowed_ips')::cidr),
          (k ->> 'rate_limit')::int, (k ->> 'rate_window_s')::int, (k ->> 'max_concurrent')::int,
          (k ->> 'created_at')::timestamptz, (k ->> 'expires_at')::timestamptz);
  PERFORM audit(a, 'key.created', 'key_' || translate(v_id::text, '-', ''), NULL,
                jsonb_build_object('name', k -> 'name', 'scopes', k -> 'scopes', 'projects', k -> 'projects'));
  RETURN QUERY SELECT 'ok', v_id;
END $$;

-- Revoke a key; false when there is no such key. Its waiting commands: see end_waiting.
CREATE FUNCTION revoke_key(p_key uuid, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(key_lock(p_key));
  UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = p_key AND revoked_at IS NULL;
  IF FOUND THEN
    PERFORM audit(a, 'key.revoked', 'key_' || translate(p_key::text, '-', ''), NULL, '{}');
    RETURN true;
  END IF;
  RETURN EXISTS (SELECT FROM api_keys WHERE id = p_key);
END $$;

-- ---------------------------------------------------------------------------------------------
-- The queue

-- The place of a queued command in its project: by priority, then age. NULL beyond 1,000, so that
-- a long queue costs a submit no more than a short one.
CREATE FUNCTION queue_position(p_project text, p_priority smallint, p_id uuid) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE
  ahead int;
BEGIN
  SELECT count(*) INTO ahead FROM (
    SELECT FROM commands c
     WHERE c.project = p_project AND c.state = 'queued' AND (c.priority, c.id) < (p_priority, p_id)
     LIMIT 1000) counted;
  RETURN CASE WHEN ahead < 1000 THEN ahead + 1 END;
END $$;

-- How many commands of a project run or wait, counted no further than `p_most`.
CREATE FUNCTION busy_in_project(p_project text, p_most int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT count(*) FROM commands c
           WHERE c.project = p_project AND c.state IN ('claimed', 'running', 'cancelling'))
       + (SELECT count(*) FROM (SELECT FROM commands c WHERE c.project = p_project AND c.state = 'queued' LIMIT p_most) w);
END $$;

-- The same for a key: what it runs anywhere, and what it waits for in this project.
CREATE FUNCTION busy_in_key(p_key uuid, p_project text, p_most int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT count(*) FROM commands c
           WHERE c.key_id = p_key AND c.state IN ('claimed', 'running', 'cancelling'))
       + (SELECT count(*) FROM (SELECT FROM commands c
            WHERE c.project = p_project AND c.key_id = p_key AND c.state = 'queued' LIMIT p_most) w);
END $$;

-- Everything a submit does, in one call and one transaction.
-- c: id, project, kind, spec, env_names, priority, labels, session, timeouts, run_at, retry_of,
--    traceparent, reject_if_busy, reject_if_session_busy; a: see audit, and max_concurrent;
-- i: route, key, hash (hex) or NULL.
-- status: ok, replay, no_project, kind_not_allowed, key_revoked, concurrency_limited, session_busy,
--    idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION submit_command(c jsonb, p_env bytea, a jsonb, i jsonb, p_event uuid)
RETURNS TABLE (status text, command_id uuid, snapshot jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_id uuid := (c ->> 'id')::uuid; v_key uuid := (a ->> 'key_id')::uuid; v_project text := c ->> 'project';
  p projects; got record; v_state text := 'queued'; v_now timestamptz := clock_timestamp();
  v_priority smallint := (c ->> 'priority')::smallint; v_run_at timestamptz := (c ->> 'run_at')::timestamptz;
  v_queue_s double precision := (c -> 'timeouts' ->> 'queue_s')::double precision;
  v_most int := (a ->> 'max_concurrent')::int; snap jsonb;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_key, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid, got.response; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid, NULL::jsonb; RETURN;
    END IF;
  END IF;
  PERFORM pg_advisory_xact_lock_shared(key_lock(v_key));
  IF EXISTS (SELECT FROM api_keys k WHERE k.id = v_key AND k.revoked_at IS NOT NULL) THEN
    RETURN QUERY SELECT 'key_revoked', NULL::uuid, NULL::jsonb; RETURN;
  END IF;
  IF (c ->> 'reject_if_busy')::boolean OR (c ->> 'reject_if_session_busy')::boolean THEN
    PERFORM FROM project_slots s WHERE s.project = v_project FOR UPDATE;
  END IF;
  SELECT * INTO p FROM projects WHERE name = v_project AND phase <> 'gone';
  IF NOT FOUND THEN RETURN QUERY SELECT 'no_project', NULL::uuid, NULL::jsonb; RETURN; END IF;
  IF p.allowed_commands IS NOT NULL AND NOT (c ->> 'kind') = ANY (p.allowed_commands) THEN
    RETURN QUERY SELECT 'kind_not_allowed', NULL::uuid, NULL::jsonb; RETURN;
  END IF;
  IF (c ->> 'reject_if_busy')::boolean AND (
       p.paused_at IS NOT NULL OR p.phase <> 'ready'
       OR busy_in_project(v_project, p.max_concurrent_commands) >= p.max_concurrent_commands
       OR (v_most IS NOT NULL AND busy_in_key(v_key, v_project, v_most) >= v_most)) THEN
    RETURN QUERY SELECT 'concurrency_limited', NULL::uuid, NULL::jsonb; RETURN;
  END IF;
  IF (c ->> 'reject_if_session_busy')::boolean AND EXISTS (
       SELECT FROM commands x WHERE x.project = v_project AND x.session = c ->> 'session'
          AND x.state IN ('queued', 'claimed', 'running', 'cancelling')) THEN
    RETURN QUERY SELECT 'session_busy', NULL::uuid, NULL::jsonb; RETURN;
  END IF;
  IF v_run_at <= v_now THEN RETURN QUERY SELECT 'run_at_past', NULL::uuid, NULL::jsonb; RETURN; END IF;
  IF v_run_at > v_now + interval '7 days' THEN RETURN QUERY SELECT 'run_at_far', NULL::uuid, NULL::jsonb; RETURN; END IF;
  IF v_run_at IS NOT NULL THEN v_state := 'scheduled'; END IF;
  INSERT INTO commands (id, project, key_id, kind, spec, env_sealed, env_names, priority, state, labels, session,
                        timeouts, run_at, queue_deadline, traceparent, retry_of, created_at)
  VALUES (v_id, v_project, v_key, c ->> 'kind', c -> 'spec', p_env,
          ARRAY(SELECT jsonb_array_elements_text(c -> 'env_names')), v_priority, v_state, c -> 'labels',
          c ->> 'session', c -> 'timeouts', v_run_at,
          greatest(v_run_at, v_now) + make_interval(secs => v_queue_s), c ->> 'traceparent',
          (c ->> 'retry_of')::uuid, v_now);
  INSERT INTO command_runs (command_id, project, next_seq) VALUES (v_id, v_project, 2);
  INSERT INTO command_events (day, command_id, seq, project, at, type, data)
  VALUES (day_of(v_id), v_id, 1, v_project, v_now, 'state',
          convert_to(jsonb_build_object('state', v_state)::text, 'UTF8'));
  IF v_state = 'queued' THEN
    PERFORM announce(p_event, 'queued', v_id, v_project, c ->> 'kind', 'queued', NULL, c ->> 'traceparent');
  END IF;
  PERFORM audit(a, 'command.created', shown_id(v_id), v_project,
                jsonb_build_object('kind', c ->> 'kind', 'priority', v_priority));
  snap := jsonb_build_object('id', v_id, 'state', v_state, 'priority', v_priority, 'created_at', v_now,
    'queue_position', CASE WHEN v_state = 'queued' THEN queue_position(v_project, v_priority, v_id) END);
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_key, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), snap);
  END IF;
  RETURN QUERY SELECT 'ok', v_id, snap;
END $$;

-- The candidates of a project, one per lane, in the order in which they should run. Lanes are found
-- by jumping along the index to each one's first command, so 10,000 queued commands of one key cost
-- as much as one; a lane is searched only when its first command may not run now.
CREATE FUNCTION queue_heads(p_project text)
RETURNS TABLE (id uuid, key_id uuid, max_concurrent int) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  one commands; busy text[];
BEGIN
  SELECT c.* INTO one FROM commands c WHERE c.project = p_project AND c.state = 'queued'
   ORDER BY c.key_id, c.priority, c.id LIMIT 1;
  -- A single lane whose first command nothing bars: so it is in most projects most of the time.
  IF one.session IS NULL AND (one.queue_deadline > clock_timestamp()) IS NOT FALSE AND NOT EXISTS (
       SELECT FROM commands c WHERE c.project = p_project AND c.state = 'queued' AND c.key_id > one.key_id) THEN
    RETURN QUERY
    SELECT one.id, k.id, k.max_concurrent FROM api_keys k
     WHERE k.id = one.key_id AND (k.max_concurrent IS NULL OR k.max_concurrent > (
             SELECT count(*) FROM commands b WHERE b.key_id = one.key_id
                AND b.state IN ('claimed', 'running', 'cancelling')));
    RETURN;
  END IF;
  busy := ARRAY(SELECT c.session FROM commands c WHERE c.project = p_project AND c.session IS NOT NULL
                   AND c.state IN ('claimed', 'running', 'cancelling'));
  RETURN QUERY
  WITH RECURSIVE lane AS (
    (SELECT c.key_id, c.priority, c.id, c.session, c.queue_deadline FROM commands c
      WHERE c.project = p_project AND c.state = 'queued' ORDER BY c.key_id, c.priority, c.id LIMIT 1)
    UNION ALL
    SELECT n.* FROM lane CROSS JOIN LATERAL (
      SELECT c.key_id, c.priority, c.id, c.session, c.queue_deadline FROM commands c
       WHERE c.project = p_project AND c.state = 'queued' AND c.key_id > lane.key_id
       ORDER BY c.key_id, c.priority, c.id LIMIT 1) n),
  first AS (
    SELECT lane.key_id, lane.priority, lane.id,
           coalesce(lane.session = ANY (busy) OR lane.queue_deadline <= clock_timestamp(), false) AS barred
      FROM lane)
  SELECT head.id, first.key_id, k.max_concurrent
    FROM first
    CROSS JOIN LATERAL (
      SELECT first.id, first.priority WHERE NOT first.barred
      UNION ALL
      (SELECT c.id, c.priority FROM commands c
        WHERE first.barred AND c.project = p_project AND c.key_id = first.key_id AND c.state = 'queued'
          AND (c.session IS NULL OR c.session <> ALL (busy))
          AND (c.queue_deadline IS NULL OR c.queue_deadline > clock_timestamp())
        ORDER BY c.priority, c.id LIMIT 1)) head
    CROSS JOIN LATERAL (SELECT a.max_concurrent FROM api_keys a WHERE a.id = first.key_id LIMIT 1) k
   WHERE k.max_concurrent IS NULL OR k.max_concurrent > (
           SELECT count(*) FROM commands b WHERE b.key_id = first.key_id
              AND b.state IN ('claimed', 'running', 'cancelling'))
   ORDER BY head.priority,
            (SELECT l.last_claimed_at FROM lanes l WHERE l.project = p_project AND l.key_id = first.key_id) NULLS FIRST,
            head.id;
END $$;

-- What a lease's holder needs to know of its command, in one row.
CREATE VIEW claim_view AS
  SELECT c.id, c.project, c.key_id, c.kind, c.spec, c.env_sealed, c.env_names, c.priority, c.state, c.labels,
         c.session, c.timeouts, c.run_at, c.traceparent, c.retry_of, c.created_at, c.started_at,
         r.lease_token, r.lease_until, r.pod_uid, r.out_offset, r.err_offset, r.cancel_mode, r.cancel_reason,
         p.description AS p_description, p.namespace AS p_namespace, p.pod AS p_pod, p.pod_uid AS p_pod_uid,
         p.container AS p_container, p.workspace AS p_workspace, p.phase AS p_phase,
         p.allowed_commands AS p_allowed_commands, p.max_concurrent_commands AS p_max_concurrent_commands,
         p.paused_at AS p_paused_at, p.issues AS p_issues
    FROM commands c JOIN command_runs r ON r.command_id = c.id JOIN projects p ON p.name = c.project;

-- queued → claimed under a lease; false when the command does not wait any more. Only a command that
-- has ended can lose its place after it was seen queued, so the lease it may get then binds nobody.
CREATE FUNCTION take_command(p_id uuid, p_worker bigint, p_lease interval, p_pod_uid text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE command_runs r SET lease_token = r.lease_token + 1, worker = p_worker, pod_uid = p_pod_uid,
         lease_until = clock_timestamp() + p_lease
   WHERE r.command_id = p_id;
  UPDATE commands c SET state = 'claimed' WHERE c.id = p_id AND c.state = 'queued';
  IF FOUND THEN RETURN true; END IF;
  UPDATE command_runs r SET lease_until = NULL WHERE r.command_id = p_id;
  RETURN false;
END $$;

-- The same for a key with a limit: lock the key and count again. Refusing rolls the subtransaction
-- back and with it the lock, so no claim ever holds one key while it waits for another.
CREATE FUNCTION take_command_of_key(p_id uuid, p_key uuid, p_max int, p_worker bigint, p_lease interval,
                                    p_pod_uid text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO key_slots (key_id) VALUES (p_key) ON CONFLICT DO NOTHING;
  PERFORM FROM key_slots WHERE key_id = p_key FOR UPDATE;
  IF (SELECT count(*) FROM commands b WHERE b.key_id = p_key
         AND b.state IN ('claimed', 'running', 'cancelling')) >= p_max
     OR NOT take_command(p_id, p_worker, p_lease, p_pod_uid) THEN
    RAISE EXCEPTION 'not this one' USING ERRCODE = 'RD001';
  END IF;
  RETURN true;
EXCEPTION WHEN SQLSTATE 'RD001' THEN RETURN false;
END $$;

-- Claim the next command of a project for `p_worker`; no row when nothing may run. READ COMMITTED:
-- each statement sees what committed before it, so the count after the lock is exact. An empty queue
-- is seen without the lock: what is queued later rings later.
CREATE FUNCTION claim_command(p_project text, p_worker bigint, p_lease interval) RETURNS SETOF claim_view
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  room int; p projects; head record; tries int := 0; taken boolean;
BEGIN
  IF NOT EXISTS (SELECT FROM commands c WHERE c.project = p_project AND c.state = 'queued') THEN RETURN; END IF;
  SELECT s.max_running INTO room FROM project_slots s WHERE s.project = p_project FOR UPDATE;
  IF NOT FOUND THEN RETURN; END IF;
  SELECT * INTO p FROM projects x
   WHERE x.name = p_project AND x.phase = 'ready' AND x.paused_at IS NULL
     AND room > (SELECT count(*) FROM commands c WHERE c.project = p_project
                    AND c.state IN ('claimed', 'running', 'cancelling'));
  IF NOT FOUND THEN RETURN; END IF;
  FOR head IN SELECT * FROM queue_heads(p_project) LOOP
    IF head.max_concurrent IS NULL THEN
      taken := take_command(head.id, p_worker, p_lease, p.pod_uid);
    ELSE
      tries := tries + 1;
      EXIT WHEN tries > 3;
      taken := take_command_of_key(head.id, head.key_id, head.max_concurrent, p_worker, p_lease, p.pod_uid);
    END IF;
    CONTINUE WHEN NOT taken;
    INSERT INTO lanes (project, key_id, last_claimed_at) VALUES (p_project, head.key_id, clock_timestamp())
    ON CONFLICT (project, key_id) DO UPDATE SET last_claimed_at = excluded.last_claimed_at;
    RETURN QUERY SELECT * FROM claim_view v WHERE v.id = head.id;
    RETURN;
  END LOOP;
END $$;

-- Take over live commands whose lease is dead: the only way to take one from another runner. A
-- runner takes its own only when time has run out, not because its lock is being reconnected.
CREATE FUNCTION adopt_commands(p_worker bigint, p_lease interval, p_limit int) RETURNS SETOF claim_view
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  taken uuid[];
BEGIN
  WITH dead AS (
    SELECT d.command_id FROM commands c JOIN command_runs d ON d.command_id = c.id
     WHERE c.state IN ('claimed', 'running', 'cancelling')
       AND (d.lease_until IS NULL OR d.lease_until < clock_timestamp()
            OR (d.worker IS DISTINCT FROM p_worker AND NOT worker_is_alive(d.worker)))
     ORDER BY c.id LIMIT p_limit FOR UPDATE OF d SKIP LOCKED),
  adopted AS (
    UPDATE command_runs r SET lease_token = r.lease_token + 1, worker = p_worker,
           lease_until = clock_timestamp() + p_lease
      FROM dead WHERE r.command_id = dead.command_id
    RETURNING r.command_id)
  SELECT array_agg(command_id) INTO taken FROM adopted;
  RETURN QUERY SELECT * FROM claim_view v WHERE v.id = ANY (taken) AND v.state IN ('claimed', 'running', 'cancelling')
                ORDER BY v.id;
END $$;

-- claimed → running, with its event; one being cancelled gets only its start time. False: the lease
-- is another's.
CREATE FUNCTION mark_running(p_id uuid, p_token bigint, p_event uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  c commands;
BEGIN
  PERFORM FROM command_runs r WHERE r.command_id = p_id AND r.lease_token = p_token AND r.lease_until IS NOT NULL
     FOR UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE commands x SET started_at = clock_timestamp(), state = CASE x.state WHEN 'claimed' THEN 'running' ELSE x.state END
   WHERE x.id = p_id AND x.state IN ('claimed', 'cancelling') AND x.started_at IS NULL RETURNING x.* INTO c;
  IF c.state = 'running' THEN
    PERFORM append_state(p_id, 'state', jsonb_build_object('state', 'running'));
    PERFORM announce(p_event, 'started', p_id, c.project, c.kind, 'running', NULL, c.traceparent);
  END IF;
  RETURN true;
END $$;

-- End a command once under its lease: state, `end` event, outbox row. Who holds a lease holds a live
-- command, from which every end is legal (p_from asserts it).
-- status: ok, ended (it had), stale (the lease is another's).
CREATE FUNCTION finish_command(p_id uuid, p_token bigint, p_from text[], p_state text, p_outcome jsonb, p_event uuid)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  n bigint; c commands;
BEGIN
  UPDATE command_runs r SET next_seq = r.next_seq + 1, lease_until = NULL
   WHERE r.command_id = p_id AND r.lease_token = p_token AND r.lease_until IS NOT NULL
  RETURNING r.next_seq - 1 INTO n;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM commands x JOIN command_runs r ON r.command_id = x.id
                              WHERE x.id = p_id AND x.finished_at IS NOT NULL AND r.lease_token = p_token)
                THEN 'ended' ELSE 'stale' END;
  END IF;
  UPDATE commands x SET state = p_state, outcome = p_outcome, finished_at = clock_timestamp(), env_sealed = NULL
   WHERE x.id = p_id AND x.state = ANY (p_from) RETURNING x.* INTO STRICT c;
  PERFORM end_of(c, n, p_event);
  RETURN 'ok';
END $$;

-- The same for a command that was never claimed; false when it was, or has ended.
CREATE FUNCTION end_unclaimed(p_id uuid, p_state text, p_outcome jsonb, p_event uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  n bigint; c commands;
BEGIN
  SELECT r.next_seq INTO n FROM command_runs r WHERE r.command_id = p_id AND r.lease_token = 0 FOR UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE commands x SET state = p_state, outcome = p_outcome, finished_at = clock_timestamp(), env_sealed = NULL
   WHERE x.id = p_id AND x.state IN ('scheduled', 'queued') RETURNING x.* INTO c;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE command_runs r SET next_seq = n + 1 WHERE r.command_id = p_id;
  PERFORM end_of(c, n, p_event);
  RETURN true;
END $$;

-- Cancel. Never claimed: it ends here. Claimed once: it is `cancelling` until the workspace agrees.
-- status: cancelled, cancelling, ended, unknown.
CREATE FUNCTION cancel_command(p_id uuid, p_mode text, p_reason text, p_outcome jsonb, p_event uuid, a jsonb)
RETURNS TABLE (status text, lease_dead boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  r command_runs; v_state text;
BEGIN
  SELECT * INTO r FROM command_runs x WHERE x.command_id = p_id FOR UPDATE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'unknown', false; RETURN; END IF;
  SELECT c.state INTO v_state FROM commands c WHERE c.id = p_id;
  IF v_state NOT IN ('scheduled', 'queued', 'claimed', 'running', 'cancelling') THEN
    RETURN QUERY SELECT 'ended', false; RETURN;
  END IF;
  PERFORM audit(a, 'command.cancel_requested', shown_id(p_id), r.project,
                jsonb_build_object('mode', p_mode, 'reason', p_reason));
  IF end_unclaimed(p_id, 'cancelled', p_outcome, p_event) THEN
    RETURN QUERY SELECT 'cancelled', false; RETURN;
  END IF;
  IF v_state <> 'cancelling' THEN
    UPDATE commands c SET state = 'cancelling' WHERE c.id = p_id;
    PERFORM append_state(p_id, 'state', jsonb_build_object('state', 'cancelling', 'reason', p_reason));
  END IF;
  UPDATE command_runs x SET cancel_requested_at = coalesce(x.cancel_requested_at, clock_timestamp()),
         cancel_reason = coalesce(x.cancel_reason, p_reason),
         cancel_mode = CASE WHEN x.cancel_mode = 'force' THEN 'force' ELSE p_mode END
   WHERE x.command_id = p_id;
  RETURN QUERY SELECT 'cancelling', lease_is_dead(r.lease_until, r.worker);
END $$;

-- Change the priority of a command that waits; false when it does not.
CREATE FUNCTION reprioritise_command(p_id uuid, p_priority smallint, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  c commands;
BEGIN
  PERFORM FROM command_runs r WHERE r.command_id = p_id FOR UPDATE;
  UPDATE commands x SET priority = p_priority WHERE x.id = p_id AND x.state IN ('scheduled', 'queued')
  RETURNING x.* INTO c;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM audit(a, 'command.reprioritised', shown_id(p_id), c.project, jsonb_build_object('priority', p_priority));
  RETURN true;
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
    PERFORM announce(gen_random_uuid(), 'queued', due.id, due.project, due.kind, 'queued', NULL, due.traceparent);
    RETURN QUERY SELECT due.id, due.project;
  END LOOP;
END $$;

-- End what waited longer than its queue timeout. Only commands that were never claimed.
CREATE FUNCTION expire_queued(p_outcome jsonb, p_limit int) RETURNS SETOF uuid LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
  late record;
BEGIN
  FOR late IN
    SELECT c.id FROM commands c JOIN command_runs r ON r.command_id = c.id
     WHERE c.state = 'queued' AND c.queue_deadline <= clock_timestamp() AND r.lease_token = 0
     LIMIT p_limit FOR UPDATE OF r SKIP LOCKED
  LOOP
    IF end_unclaimed(late.id, 'timed_out', p_outcome, gen_random_uuid()) THEN
      RETURN NEXT late.id;
    END IF;
  END LOOP;
END $$;

-- End commands of a key that wait; returns how many. What is claimed meanwhile is left to its runner.
CREATE FUNCTION end_waiting(p_key uuid, p_outcome jsonb, p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  waiting record; ended int := 0;
BEGIN
  FOR waiting IN
    SELECT c.id FROM commands c JOIN command_runs r ON r.command_id = c.id
     WHERE c.key_id = p_key AND c.state IN ('scheduled', 'queued') AND r.lease_token = 0
     LIMIT p_limit FOR UPDATE OF r SKIP LOCKED
  LOOP
    IF end_unclaimed(waiting.id, 'cancelled', p_outcome, gen_random_uuid()) THEN
      ended := ended + 1;
    END IF;
  END LOOP;
  RETURN ended;
END $$;

-- Projects that need a runner: claimable work with room, or a live command without a live lease.
CREATE FUNCTION projects_to_ring() RETURNS SETOF text LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY
  SELECT s.project FROM project_slots s JOIN projects p ON p.name = s.project
   WHERE (p.phase = 'ready' AND p.paused_at IS NULL
          AND EXISTS (SELECT FROM commands c WHERE c.project = s.project AND c.state = 'queued')
          AND (SELECT count(*) FROM commands c WHERE c.project = s.project
                AND c.state IN ('claimed', 'running', 'cancelling')) < s.max_running)
      OR EXISTS (SELECT FROM commands c JOIN command_runs r ON r.command_id = c.id
                  WHERE c.project = s.project AND c.state IN ('claimed', 'running', 'cancelling')
                    AND lease_is_dead(r.lease_until, r.worker))
   ORDER BY 1;
END $$;

-- Commands as callers see them, without secrets; the computed columns cost only where they apply.
CREATE VIEW command_view AS
  SELECT c.id, c.project, c.key_id, c.kind, c.spec, c.env_names, c.priority, c.state, c.labels, c.session,
         c.timeouts, c.run_at, c.outcome, c.traceparent, c.retry_of, c.created_at, c.started_at, c.finished_at,
         CASE c.state WHEN 'queued' THEN queue_position(c.project, c.priority, c.id) WHEN 'claimed' THEN 0 END AS queue_position,
         CASE WHEN c.state IN ('claimed', 'running', 'cancelling') THEN
           (SELECT lease_is_dead(r.lease_until, r.worker) FROM command_runs r WHERE r.command_id = c.id) ELSE false END AS lease_dead
    FROM commands c;

-- ---------------------------------------------------------------------------------------------
-- Projects

-- Make the registry say what one source shows now. p_found: [{name, workspace, phase, description,
-- namespace, pod, pod_uid, container, allowed_commands, max_concurrent_commands, issues}]. A name that
-- another source owns stays as it is and is answered in `refused`. Only rows that differ are written.
CREATE FUNCTION sync_projects(p_source text, p_found jsonb, OUT appeared text[], OUT vanished text[], OUT refused text[])
LANGUAGE plpgsql AS $$
DECLARE
  names text[] := ARRAY(SELECT f ->> 'name' FROM jsonb_array_elements(p_found) f);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev projects', 7));
  refused := ARRAY(SELECT p.name FROM projects p WHERE p.name = ANY (names) AND p.source <> p_source ORDER BY 1);
  appeared := ARRAY(SELECT n FROM unnest(names) n
                     WHERE NOT EXISTS (SELECT FROM projects p WHERE p.name = n
                                          AND (p.phase <> 'gone' OR p.source <> p_source)) ORDER BY 1);
  vanished := ARRAY(SELECT p.name FROM projects p
                     WHERE p.source = p_source AND p.phase <> 'gone' AND p.name <> ALL (names) ORDER BY 1);
  INSERT INTO projects AS p (name, description, namespace, pod, pod_uid, container, workspace, phase, source,
                             allowed_commands, max_concurrent_commands, issues)
  SELECT f.name, f.description, f.namespace, f.pod, f.pod_uid, f.container, f.workspace, f.phase, p_source,
         f.allowed_commands, f.max_concurrent_commands, f.issues
    FROM jsonb_to_recordset(p_found) AS f(name text, description text, namespace text, pod text, pod_uid text,
           container text, workspace text, phase text, allowed_commands text[], max_concurrent_commands int, issues jsonb)
   ORDER BY f.name
  ON CONFLICT (name) DO UPDATE SET
         description = excluded.description, namespace = excluded.namespace, pod = excluded.pod,
         pod_uid = excluded.pod_uid, container = excluded.container, workspace = excluded.workspace,
         phase = excluded.phase, allowed_commands = excluded.allowed_commands,
         max_concurrent_commands = excluded.max_concurrent_commands, issues = excluded.issues, seen_at = now()
   WHERE p.source = excluded.source
     AND (p.description, p.namespace, p.pod, p.pod_uid, p.container, p.workspace, p.phase, p.allowed_commands,
          p.max_concurrent_commands, p.issues)
         IS DISTINCT FROM
         (excluded.description, excluded.namespace, excluded.pod, excluded.pod_uid, excluded.container,
          excluded.workspace, excluded.phase, excluded.allowed_commands, excluded.max_concurrent_commands, excluded.issues);
  UPDATE projects p SET phase = 'gone', seen_at = now() WHERE p.name = ANY (vanished);
  INSERT INTO project_slots AS s (project, max_running)
  SELECT p.name, p.max_concurrent_commands FROM projects p WHERE p.source = p_source AND p.name = ANY (names)
   ORDER BY p.name
  ON CONFLICT (project) DO UPDATE SET max_running = excluded.max_running WHERE s.max_running <> excluded.max_running;
  INSERT INTO outbox (id, type, subject, data)
  SELECT gen_random_uuid(), 'ai.orchard9.rdev.project.' || e.what || '.v1', 'projects/' || e.name,
         jsonb_build_object('project', e.name)
    FROM (SELECT 'discovered' AS what, n AS name FROM unnest(appeared) n
          UNION ALL SELECT 'removed', n FROM unnest(vanished) n) e;
END $$;
