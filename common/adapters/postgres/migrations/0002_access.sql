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
