-- What committed late is sealed late also when nothing was sealed for hours in between, as on a laptop that slept.

-- What is older than this was there when the last link was made: no transaction of ours lives for an hour.
CREATE FUNCTION audit_horizon() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT c.sealed_at FROM audit_chain c ORDER BY c.seq DESC LIMIT 1) - interval '1 hour';
END $$;

-- As before, but that hour ends with the last link instead of now.
CREATE OR REPLACE FUNCTION seal_audit(p_limit int, OUT sealed int, OUT seq bigint, OUT hash bytea) LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  r audit_log; v_floor bigint; v_seq bigint; v_hash bytea; v_sealed int := 0; v_horizon timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev audit chain', 7));
  SELECT h.seq, h.hash INTO v_seq, v_hash FROM audit_head() h;
  v_horizon := audit_horizon();
  SELECT c.row_id INTO v_floor FROM audit_chain c WHERE c.sealed_at < v_horizon ORDER BY c.seq DESC LIMIT 1;
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

-- As before; `inserted` now says of a row that the last seal would have found it.
CREATE OR REPLACE FUNCTION verify_audit(p_seq bigint, p_hash bytea, p_limit int, OUT checked int, OUT seq bigint,
                                        OUT hash bytea, OUT broken bigint, OUT reason text) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
  link record; v_row audit_log; v_seq bigint := p_seq; v_hash bytea := p_hash; n int := 0;
  v_horizon timestamptz := audit_horizon();
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
     WHERE a.id < (SELECT max(c.row_id) FROM audit_chain c) AND a.at < v_horizon
       AND NOT EXISTS (SELECT FROM audit_chain c WHERE c.row_id = a.id);
    reason := CASE WHEN broken IS NOT NULL THEN 'inserted' END;
  END IF;
  checked := n; seq := v_seq; hash := v_hash;
END $$;
