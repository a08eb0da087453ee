-- Events in: triggers, what they have seen, and dead letters that can be replayed.

CREATE TABLE triggers (
  id            uuid PRIMARY KEY,
  name          text NOT NULL,
  key_id        uuid NOT NULL REFERENCES api_keys,
  filter        jsonb NOT NULL,
  command       jsonb NOT NULL, -- without its secret parts
  parts_sealed    bytea,
  accept        text[] NOT NULL,
  enabled       boolean NOT NULL DEFAULT true,
  rate_limit    int NOT NULL CHECK (rate_limit > 0),
  rate_window_s int NOT NULL CHECK (rate_window_s > 0),
  secret        bytea NOT NULL, -- sealed; GitHub signs with it
  secret_before bytea,
  before_until  timestamptz,
  version       bigint NOT NULL DEFAULT 1,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row an event and trigger that was for it: it makes an event happen once, and it is the log of
-- what matched. `seen` is the SHA-256 of trigger, source and id.
CREATE TABLE seen_events (
  seen       bytea PRIMARY KEY,
  number     bigint GENERATED ALWAYS AS IDENTITY,
  trigger_id uuid NOT NULL REFERENCES triggers ON DELETE CASCADE,
  event_id   text NOT NULL,
  source     text NOT NULL,
  type       text NOT NULL,
  outcome    text NOT NULL CHECK (outcome IN ('submitted', 'refused')),
  command_id uuid,
  reason     text,
  detail     text NOT NULL DEFAULT '',
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX seen_events_newest ON seen_events (trigger_id, number);
CREATE INDEX seen_events_age ON seen_events (at);

ALTER TABLE dead_letters
  ADD COLUMN channel     text NOT NULL DEFAULT 'delivery',
  ADD COLUMN size        int NOT NULL DEFAULT 0,
  ADD COLUMN trigger_id  uuid,
  ADD COLUMN project     text,
  ADD COLUMN replayed_at timestamptz;
UPDATE dead_letters SET size = coalesce(octet_length(data), 0);
DROP INDEX dead_letters_age;
CREATE INDEX dead_letters_age ON dead_letters (created_at, id);

-- ---------------------------------------------------------------------------------------------
-- Triggers: t is a row as JSON; a: see audit; i: see create_key

-- status: ok, replay, too_many, idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION create_trigger(t jsonb, p_parts bytea, p_secret bytea, p_most int, a jsonb, i jsonb)
RETURNS TABLE (status text, trigger_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; v_id uuid := (t ->> 'id')::uuid; got record;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid; RETURN;
    END IF;
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev triggers', 7));
  IF (SELECT count(*) FROM triggers) >= p_most THEN RETURN QUERY SELECT 'too_many', NULL::uuid; RETURN; END IF;
  INSERT INTO triggers (id, name, key_id, filter, command, parts_sealed, accept, enabled, rate_limit, rate_window_s, secret)
  VALUES (v_id, t ->> 'name', v_caller, t -> 'filter', t -> 'command', p_parts,
          ARRAY(SELECT jsonb_array_elements_text(t -> 'accept')), (t ->> 'enabled')::boolean,
          (t -> 'rate_limit' ->> 'limit')::int, (t -> 'rate_limit' ->> 'window_s')::int, p_secret);
  PERFORM audit(a, 'trigger.created', 'trg_' || translate(v_id::text, '-', ''), trigger_project(t -> 'command'),
                jsonb_build_object('name', t -> 'name', 'accept', t -> 'accept', 'filter', t -> 'filter'));
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', v_id));
  END IF;
  RETURN QUERY SELECT 'ok', v_id;
END $$;

-- The project of a trigger's command, NULL when it may run in several.
CREATE FUNCTION trigger_project(c jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(c ->> 'project',
                  CASE WHEN jsonb_array_length(c -> 'projects') = 1 THEN c -> 'projects' ->> 0 END)
$$;

-- Change the fields given; whoever changes what it does becomes its owner (c has key_id then).
-- status: ok, stale, unknown.
CREATE FUNCTION update_trigger(p_id uuid, p_version bigint, c jsonb, p_parts bytea, a jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  v_command jsonb;
BEGIN
  UPDATE triggers t SET
    name = coalesce(c ->> 'name', t.name),
    key_id = coalesce((c ->> 'key_id')::uuid, t.key_id),
    filter = coalesce(c -> 'filter', t.filter),
    command = coalesce(c -> 'command', t.command),
    parts_sealed = CASE WHEN c ? 'command' THEN p_parts ELSE t.parts_sealed END,
    accept = CASE WHEN c ? 'accept' THEN ARRAY(SELECT jsonb_array_elements_text(c -> 'accept')) ELSE t.accept END,
    enabled = coalesce((c ->> 'enabled')::boolean, t.enabled),
    rate_limit = coalesce((c -> 'rate_limit' ->> 'limit')::int, t.rate_limit),
    rate_window_s = coalesce((c -> 'rate_limit' ->> 'window_s')::int, t.rate_window_s),
    version = t.version + 1, updated_at = clock_timestamp()
   WHERE t.id = p_id AND t.version = p_version RETURNING t.command INTO v_command;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM triggers WHERE id = p_id) THEN 'stale' ELSE 'unknown' END;
  END IF;
  -- What a command says may be long and is no business of the trail: that it changed is.
  PERFORM audit(a, 'trigger.updated', 'trg_' || translate(p_id::text, '-', ''), trigger_project(v_command),
                (c - 'command' - 'key_id') || CASE WHEN c ? 'command' THEN '{"command": "changed"}'::jsonb ELSE '{}' END);
  RETURN 'ok';
END $$;

-- status: ok, stale, unknown.
CREATE FUNCTION delete_trigger(p_id uuid, p_version bigint, a jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_command jsonb;
BEGIN
  DELETE FROM triggers t WHERE t.id = p_id AND (p_version IS NULL OR t.version = p_version)
  RETURNING t.command INTO v_command;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM triggers WHERE id = p_id) THEN 'stale' ELSE 'unknown' END;
  END IF;
  DELETE FROM rate_limits WHERE key_id = p_id;
  PERFORM audit(a, 'trigger.deleted', 'trg_' || translate(p_id::text, '-', ''), trigger_project(v_command), '{}');
  RETURN 'ok';
END $$;

-- A new secret; the old one counts for p_grace_s more.
-- status: ok, replay, unknown, idempotency_in_flight, idempotency_mismatch.
CREATE FUNCTION rotate_trigger(p_id uuid, p_secret bytea, p_grace_s int, a jsonb, i jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; got record; v_command jsonb;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN RETURN 'replay';
    ELSIF got.status <> 'new' THEN RETURN 'idempotency_' || got.status;
    END IF;
  END IF;
  UPDATE triggers t SET secret_before = t.secret, secret = p_secret, version = t.version + 1,
         before_until = clock_timestamp() + make_interval(secs => p_grace_s), updated_at = clock_timestamp()
   WHERE t.id = p_id RETURNING t.command INTO v_command;
  IF NOT FOUND THEN RETURN 'unknown'; END IF;
  PERFORM audit(a, 'trigger.rotated', 'trg_' || translate(p_id::text, '-', ''), trigger_project(v_command),
                jsonb_build_object('grace_s', p_grace_s));
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', p_id));
  END IF;
  RETURN 'ok';
END $$;

-- The key that a trigger acts for: its owner, or what rotation put in its place. Revoked as soon as
-- one on the way is; expired when the last one is.
CREATE FUNCTION acting_key(p_key uuid)
RETURNS TABLE (status text, key_id uuid, name text, scopes text[], projects text[], allowed_ips text[],
               rate_limit int, rate_window_s int, max_concurrent int, unlimited boolean, expires_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  k api_keys; v_next uuid := p_key; v_status text := 'ok';
BEGIN
  FOR n IN 1 .. 1000 LOOP
    SELECT * INTO k FROM api_keys a WHERE a.id = v_next;
    EXIT WHEN NOT FOUND;
    IF k.revoked_at IS NOT NULL THEN v_status := 'revoked'; END IF;
    EXIT WHEN k.replaced_by IS NULL;
    v_next := k.replaced_by;
  END LOOP;
  IF k.id IS NULL THEN v_status := 'unknown';
  ELSIF v_status = 'ok' AND k.expires_at <= clock_timestamp() THEN v_status := 'expired';
  END IF;
  RETURN QUERY SELECT v_status, k.id, k.name, k.scopes, k.projects, k.allowed_ips::text[], k.rate_limit,
                      k.rate_window_s, k.max_concurrent, k.unlimited, k.expires_at;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Events

-- submit_command for an event, once: what was seen is written in the command's transaction.
-- f: seen (hex), trigger, event_id, source, type, again.
-- status: as submit_command, and event_seen (command_id: of the first time), trigger_off, trigger_limited.
CREATE FUNCTION fire_trigger(c jsonb, p_env bytea, a jsonb, p_event uuid, f jsonb)
RETURNS TABLE (status text, command_id uuid, snapshot jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_seen bytea := decode(f ->> 'seen', 'hex'); v_trigger uuid := (f ->> 'trigger')::uuid;
  t triggers; old seen_events; done record; ok boolean;
BEGIN
  -- Two deliveries of one event: the second waits here, and then sees the first.
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev event ' || (f ->> 'seen'), 7));
  SELECT * INTO old FROM seen_events s WHERE s.seen = v_seen;
  IF FOUND AND (old.outcome = 'submitted' OR NOT (f ->> 'again')::boolean) THEN
    RETURN QUERY SELECT 'event_seen', old.command_id, NULL::jsonb; RETURN;
  END IF;
  SELECT * INTO t FROM triggers x WHERE x.id = v_trigger AND x.enabled FOR KEY SHARE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'trigger_off', NULL::uuid, NULL::jsonb; RETURN; END IF;
  IF t.rate_limit <= 240 THEN
    SELECT r.granted INTO ok FROM rate_by_ring(t.id, t.rate_limit, make_interval(secs => t.rate_window_s), true) r;
  ELSE
    SELECT r.granted INTO ok FROM rate_by_buckets(t.id, t.rate_limit, t.rate_window_s, true) r;
  END IF;
  IF NOT ok THEN RETURN QUERY SELECT 'trigger_limited', NULL::uuid, NULL::jsonb; RETURN; END IF;
  SELECT * INTO done FROM submit_command(c, p_env, a, NULL, p_event);
  IF done.status = 'ok' THEN
    INSERT INTO seen_events AS s (seen, trigger_id, event_id, source, type, outcome, command_id)
    VALUES (v_seen, v_trigger, f ->> 'event_id', f ->> 'source', f ->> 'type', 'submitted', done.command_id)
    ON CONFLICT (seen) DO UPDATE
       SET outcome = 'submitted', command_id = excluded.command_id, reason = NULL, detail = '', at = clock_timestamp();
    PERFORM audit(a, 'trigger.fired', 'trg_' || translate(v_trigger::text, '-', ''), c ->> 'project',
                  jsonb_build_object('command', shown_id(done.command_id), 'source', f ->> 'source', 'event', f ->> 'event_id'));
  END IF;
  RETURN QUERY SELECT done.status, done.command_id, done.snapshot;
END $$;

-- Record that an event was refused at a trigger; what was seen before stands. Nothing when the
-- trigger is gone.
CREATE FUNCTION refuse_event(f jsonb, p_reason text, p_detail text) RETURNS SETOF seen_events LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev event ' || (f ->> 'seen'), 7));
  IF EXISTS (SELECT FROM triggers x WHERE x.id = (f ->> 'trigger')::uuid FOR KEY SHARE) THEN
    INSERT INTO seen_events AS s (seen, trigger_id, event_id, source, type, outcome, reason, detail)
    VALUES (decode(f ->> 'seen', 'hex'), (f ->> 'trigger')::uuid, f ->> 'event_id', f ->> 'source', f ->> 'type',
            'refused', p_reason, p_detail)
    ON CONFLICT (seen) DO UPDATE SET reason = excluded.reason, detail = excluded.detail
     WHERE s.outcome = 'refused';
  END IF;
  RETURN QUERY SELECT * FROM seen_events s WHERE s.seen = decode(f ->> 'seen', 'hex');
END $$;

-- Note that somebody replayed a dead letter; false when it is gone.
CREATE FUNCTION replay_letter(p_id uuid, p_outcome text, a jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  v_project text;
BEGIN
  UPDATE dead_letters d SET replayed_at = clock_timestamp() WHERE d.id = p_id RETURNING d.project INTO v_project;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM audit(a, 'dead_letter.replayed', 'dlt_' || translate(p_id::text, '-', ''), v_project,
                jsonb_build_object('outcome', p_outcome));
  RETURN true;
END $$;
