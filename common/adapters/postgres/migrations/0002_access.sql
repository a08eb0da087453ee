-- Who may do what, and the record of it: keys that change, an audit trail nobody can rewrite, pauses.

-- ---------------------------------------------------------------------------------------------
-- Keys

-- Change a key. c: the fields to change, named as the API does; a: see audit.
-- status: ok, revoked, unknown.
CREATE FUNCTION update_key(p_key uuid, c jsonb, a jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  UPDATE api_keys k SET
    name = CASE WHEN c ? 'name' THEN c ->> 'name' ELSE k.name END,
    scopes = CASE WHEN c ? 'scopes' THEN ARRAY(SELECT jsonb_array_elements_text(c -> 'scopes')) ELSE k.scopes END,
    projects = CASE WHEN NOT c ? 'projects' THEN k.projects
                    WHEN jsonb_typeof(c -> 'projects') = 'array'
                    THEN ARRAY(SELECT jsonb_array_elements_text(c -> 'projects')) END,
    allowed_ips = CASE WHEN c ? 'allowed_ips'
                       THEN ARRAY(SELECT jsonb_array_elements_text(c -> 'allowed_ips')::cidr) ELSE k.allowed_ips END,
    rate_limit = CASE WHEN c ? 'rate_limit' THEN (c -> 'rate_limit' ->> 'limit')::int ELSE k.rate_limit END,
    rate_window_s = CASE WHEN c ? 'rate_limit' THEN (c -> 'rate_limit' ->> 'window_s')::int ELSE k.rate_window_s END,
    max_concurrent = CASE WHEN c ? 'max_concurrent' THEN (c ->> 'max_concurrent')::int ELSE k.max_concurrent END,
    expires_at = CASE WHEN c ? 'expires_at' THEN (c ->> 'expires_at')::timestamptz ELSE k.expires_at END
   WHERE k.id = p_key AND k.revoked_at IS NULL;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM api_keys WHERE id = p_key) THEN 'revoked' ELSE 'unknown' END;
  END IF;
  PERFORM audit(a, 'key.updated', 'key_' || translate(p_key::text, '-', ''), NULL, c);
  RETURN 'ok';
END $$;

-- Replace a key by a new one with the same rights; the old one works on for p_grace_s seconds.
-- n: id, prefix, created_at of the new one; a: see audit; i: see create_key.
-- status: ok, replay, revoked, replaced (it was rotated before), unknown, idempotency_in_flight,
--   idempotency_mismatch.
CREATE FUNCTION rotate_key(p_key uuid, n jsonb, p_hash bytea, p_grace_s int, a jsonb, i jsonb)
RETURNS TABLE (status text, key_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  v_caller uuid := (a ->> 'key_id')::uuid; v_id uuid := (n ->> 'id')::uuid; got record; k api_keys;
BEGIN
  IF i IS NOT NULL THEN
    SELECT * INTO got FROM idempotency_begin(v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'));
    IF got.status = 'replay' THEN
      RETURN QUERY SELECT 'replay', (got.response ->> 'id')::uuid; RETURN;
    ELSIF got.status <> 'new' THEN
      RETURN QUERY SELECT 'idempotency_' || got.status, NULL::uuid; RETURN;
    END IF;
  END IF;
  SELECT * INTO k FROM api_keys x WHERE x.id = p_key FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'unknown', NULL::uuid; RETURN;
  ELSIF k.revoked_at IS NOT NULL THEN RETURN QUERY SELECT 'revoked', NULL::uuid; RETURN;
  ELSIF k.replaced_by IS NOT NULL THEN RETURN QUERY SELECT 'replaced', NULL::uuid; RETURN;
  END IF;
  INSERT INTO api_keys (id, name, prefix, key_hash, scopes, projects, allowed_ips, rate_limit, rate_window_s,
                        max_concurrent, unlimited, created_at, expires_at)
  VALUES (v_id, k.name, n ->> 'prefix', p_hash, k.scopes, k.projects, k.allowed_ips, k.rate_limit, k.rate_window_s,
          k.max_concurrent,
          -- Only a key without limits hands on that it has none.
          k.unlimited AND coalesce((SELECT x.unlimited FROM api_keys x WHERE x.id = v_caller), false),
          (n ->> 'created_at')::timestamptz, k.expires_at);
  UPDATE api_keys x SET replaced_by = v_id,
         expires_at = least(x.expires_at, clock_timestamp() + make_interval(secs => p_grace_s))
   WHERE x.id = p_key;
  PERFORM audit(a, 'key.rotated', 'key_' || translate(p_key::text, '-', ''), NULL,
                jsonb_build_object('replaced_by', 'key_' || translate(v_id::text, '-', ''), 'grace_s', p_grace_s));
  IF i IS NOT NULL THEN
    INSERT INTO idempotency (key_id, route, idem_key, request_hash, response)
    VALUES (v_caller, i ->> 'route', i ->> 'key', decode(i ->> 'hash', 'hex'), jsonb_build_object('id', v_id));
  END IF;
  RETURN QUERY SELECT 'ok', v_id;
END $$;

-- ---------------------------------------------------------------------------------------------
-- The audit trail: sealed after the fact, so that business transactions never wait for each other

-- Which row is which link. A link's number and hash depend on every link before it. Rows that commit
-- late are simply sealed later: the order of links is that of sealing.
CREATE TABLE audit_chain (
  seq       bigint PRIMARY KEY,
  row_id    bigint NOT NULL UNIQUE,
  hash      bytea NOT NULL,
  sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The last link that retention took away: what is left begins behind it.
CREATE TABLE audit_anchor (
  one  boolean PRIMARY KEY DEFAULT true CHECK (one),
  seq  bigint NOT NULL,
  hash bytea NOT NULL
);
INSERT INTO audit_anchor (seq, hash) VALUES (0, '\x');

-- SHA-256 of the link before and of everything the row says, in a form no setting changes.
CREATE FUNCTION audit_digest(p_before bytea, r audit_log) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
  SELECT sha256(p_before || convert_to(jsonb_build_array(
    r.id, extract(epoch FROM r.at)::text, r.key_id, r.action, r.target, r.project, r.detail, r.request_id,
    r.client_ip, r.peer_ip)::text, 'UTF8'))
$$;

-- Where the chain ends now.
CREATE FUNCTION audit_head(OUT seq bigint, OUT hash bytea) LANGUAGE plpgsql STABLE AS $$
BEGIN
  SELECT c.seq, c.hash INTO seq, hash FROM audit_chain c ORDER BY c.seq DESC LIMIT 1;
  IF NOT FOUND THEN SELECT x.seq, x.hash INTO seq, hash FROM audit_anchor x; END IF;
END $$;

-- Seal up to p_limit rows that are not sealed yet. They are looked for behind what was sealed an hour
-- ago: no transaction of ours lives that long, so none commits a row before it.
CREATE FUNCTION seal_audit(p_limit int, OUT sealed int, OUT seq bigint, OUT hash bytea) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  r audit_log; v_floor bigint; v_seq bigint; v_hash bytea; v_sealed int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev audit chain', 7));
  SELECT h.seq, h.hash INTO v_seq, v_hash FROM audit_head() h;
  SELECT c.row_id INTO v_floor FROM audit_chain c WHERE c.sealed_at < clock_timestamp() - interval '1 hour'
   ORDER BY c.seq DESC LIMIT 1;
  FOR r IN
    SELECT a.* FROM audit_log a
     WHERE a.id > coalesce(v_floor, 0) AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.row_id = a.id)
     ORDER BY a.id LIMIT p_limit
  LOOP
    v_seq := v_seq + 1;
    v_hash := audit_digest(v_hash, r);
    INSERT INTO audit_chain (seq, row_id, hash) VALUES (v_seq, r.id, v_hash);
    v_sealed := v_sealed + 1;
  END LOOP;
  sealed := v_sealed; seq := v_seq; hash := v_hash;
END $$;

-- Check up to p_limit links behind one (NULL: from the beginning). `broken` is the first row that is
-- not what was sealed, and `reason`: changed, missing, gap (links were taken out), inserted (a row
-- that stands among sealed ones and was never sealed).
CREATE FUNCTION verify_audit(p_seq bigint, p_hash bytea, p_limit int, OUT checked int, OUT seq bigint, OUT hash bytea,
                             OUT broken bigint, OUT reason text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  link record; v_row audit_log; v_seq bigint := p_seq; v_hash bytea := p_hash; n int := 0;
BEGIN
  IF v_seq IS NULL THEN SELECT x.seq, x.hash INTO v_seq, v_hash FROM audit_anchor x; END IF;
  FOR link IN SELECT c.seq, c.row_id, c.hash FROM audit_chain c WHERE c.seq > v_seq ORDER BY c.seq LIMIT p_limit LOOP
    SELECT a.* INTO v_row FROM audit_log a WHERE a.id = link.row_id;
    IF NOT FOUND THEN reason := 'missing';
    ELSIF link.seq <> v_seq + 1 THEN reason := 'gap';
    ELSIF link.hash <> audit_digest(v_hash, v_row) THEN reason := 'changed';
    END IF;
    IF reason IS NOT NULL THEN broken := link.row_id; EXIT; END IF;
    v_seq := link.seq; v_hash := link.hash; n := n + 1;
  END LOOP;
  IF reason IS NULL AND n < p_limit THEN
    SELECT min(a.id) INTO broken FROM audit_log a
     WHERE a.id < (SELECT max(c.row_id) FROM audit_chain c) AND a.at < clock_timestamp() - interval '1 hour'
       AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.row_id = a.id);
    reason := CASE WHEN broken IS NOT NULL THEN 'inserted' END;
  END IF;
  checked := n; seq := v_seq; hash := v_hash;
END $$;

-- Retention, the only way in which rows go: the oldest, whole links from the chain's beginning. Never
-- what is younger than 30 days, so that who has the application's role cannot wipe its own traces.
CREATE FUNCTION drop_audit(p_days int, p_limit int) RETURNS int LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  cutoff timestamptz := now() - make_interval(days => greatest(p_days, 30)); last record; n int; dropped int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev audit chain', 7));
  SELECT q.seq, q.hash INTO last FROM (
    SELECT c.seq, c.hash, bool_and(a.at IS NULL OR a.at < cutoff) OVER (ORDER BY c.seq) AS old
      FROM (SELECT * FROM audit_chain ORDER BY seq LIMIT p_limit) c LEFT JOIN audit_log a ON a.id = c.row_id) q
   WHERE q.old ORDER BY q.seq DESC LIMIT 1;
  IF FOUND THEN
    UPDATE audit_anchor SET seq = last.seq, hash = last.hash;
    WITH gone AS (DELETE FROM audit_chain c WHERE c.seq <= last.seq RETURNING c.row_id)
    DELETE FROM audit_log a USING gone WHERE a.id = gone.row_id;
    GET DIAGNOSTICS dropped = ROW_COUNT;
  END IF;
  WITH old AS (SELECT x.id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT p_limit) x
                WHERE x.at < cutoff AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.row_id = x.id))
  DELETE FROM audit_log a USING old WHERE a.id = old.id;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN dropped + n;
END $$;

-- Refusals, which have no transaction of their own: [{at, key_id, action, target, project, detail,
-- request_id, client_ip, peer_ip}].
CREATE FUNCTION record_refusals(p_rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_log (at, key_id, action, target, project, detail, request_id, client_ip, peer_ip)
  SELECT r.at, r.key_id, r.action, r.target, r.project, r.detail, r.request_id, r.client_ip, r.peer_ip
    FROM jsonb_to_recordset(p_rows) AS r(at timestamptz, key_id uuid, action text, target text, project text,
           detail jsonb, request_id text, client_ip text, peer_ip text);
END $$;

-- ---------------------------------------------------------------------------------------------
-- Roles: who owns the tables migrates, and the application gets a role that may do less

-- Give a role everything the application needs and no way to rewrite the audit trail. Run it again
-- after a migration that makes tables.
CREATE FUNCTION grant_application(p_role name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', p_role);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %I', p_role);
  EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO %I', p_role);
  EXECUTE format('REVOKE UPDATE, DELETE ON audit_log FROM %I', p_role);
  EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON audit_chain, audit_anchor, schema_migrations FROM %I', p_role);
END $$;
REVOKE EXECUTE ON FUNCTION grant_application(name) FROM PUBLIC;

-- Partitions are made and dropped by whoever owns their table.
ALTER FUNCTION ensure_event_partitions(date, int) SECURITY DEFINER;
ALTER FUNCTION ensure_event_partitions(date, int) SET search_path = public, pg_temp;
ALTER FUNCTION drop_event_partitions(date) SECURITY DEFINER;
ALTER FUNCTION drop_event_partitions(date) SET search_path = public, pg_temp;

-- ---------------------------------------------------------------------------------------------
-- The queue

-- Pause or resume a project; what runs goes on. status: ok (also when it was so before), unknown.
CREATE FUNCTION pause_project(p_project text, p_paused boolean, a jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  -- As a claim does: once this has committed, none that had not seen it takes a command.
  PERFORM FROM project_slots s WHERE s.project = p_project FOR UPDATE;
  UPDATE projects p SET paused_at = CASE WHEN p_paused THEN clock_timestamp() END
   WHERE p.name = p_project AND p.phase <> 'gone' AND (p.paused_at IS NOT NULL) <> p_paused;
  IF FOUND THEN
    PERFORM audit(a, CASE WHEN p_paused THEN 'queue.paused' ELSE 'queue.resumed' END, p_project, p_project, '{}');
    RETURN 'ok';
  END IF;
  RETURN CASE WHEN EXISTS (SELECT FROM projects p WHERE p.name = p_project AND p.phase <> 'gone') THEN 'ok' ELSE 'unknown' END;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Usage

-- A number out of what a program reported; NULL for anything else, and for what no sum could hold.
CREATE FUNCTION reported_number(j jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN jsonb_typeof(j) = 'number' AND abs((j #>> '{}')::numeric) < 1e15
              THEN (j #>> '{}')::double precision END
$$;
