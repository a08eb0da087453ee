-- What falls over and over is left alone for longer each time; what waited too long is told at once.

-- How often in a row a follower has fallen while its process lived on, without having written anything,
-- and where the command stood when it last did.
ALTER TABLE command_runs ADD COLUMN falls int NOT NULL DEFAULT 0, ADD COLUMN fell_at_seq bigint;

-- How long a command rests after so many falls, beside its lease: not after the first, then 15 s and
-- twice as long each time, 10 minutes at most.
CREATE FUNCTION rest_after(p_falls int) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_falls < 2 THEN interval '0'
              ELSE make_interval(secs => least(15 * power(2, least(p_falls, 10) - 2), 600)) END
$$;

-- As before, but for rests. A cancel is never kept waiting by one.
CREATE OR REPLACE FUNCTION adopt_commands(p_worker bigint, p_lease interval, p_limit int) RETURNS SETOF claim_view
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  taken uuid[];
BEGIN
  WITH dead AS (
    SELECT d.command_id, d.lease_until < clock_timestamp() AND worker_is_alive(d.worker) AS fell
      FROM commands c JOIN command_runs d ON d.command_id = c.id
     WHERE c.state IN ('claimed', 'running', 'cancelling')
       AND (d.lease_until IS NULL
            OR d.lease_until + CASE WHEN d.cancel_mode IS NULL THEN rest_after(d.falls) ELSE interval '0' END
               < clock_timestamp()
            OR (d.worker IS DISTINCT FROM p_worker AND NOT worker_is_alive(d.worker)))
     ORDER BY c.id LIMIT p_limit FOR UPDATE OF d SKIP LOCKED),
  adopted AS (
    UPDATE command_runs r SET lease_token = r.lease_token + 1, worker = p_worker,
           lease_until = clock_timestamp() + p_lease,
           falls = CASE WHEN NOT coalesce(dead.fell, false) THEN 0
                        WHEN r.fell_at_seq = r.next_seq THEN r.falls + 1 ELSE 1 END,
           fell_at_seq = CASE WHEN dead.fell THEN r.next_seq END
      FROM dead WHERE r.command_id = dead.command_id
    RETURNING r.command_id)
  SELECT array_agg(command_id) INTO taken FROM adopted;
  RETURN QUERY SELECT * FROM claim_view v WHERE v.id = ANY (taken) AND v.state IN ('claimed', 'running', 'cancelling')
                ORDER BY v.id;
END $$;

-- End what waited longer than its queue timeout, and say which events tell so. Only commands that were
-- never claimed. (expire_queued, which says less, is for the release before this one.)
CREATE FUNCTION expire_waiting(p_outcome jsonb, p_limit int, OUT id uuid, OUT project text, OUT event uuid)
RETURNS SETOF record LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  late record;
BEGIN
  FOR late IN
    SELECT c.id, c.project FROM commands c JOIN command_runs r ON r.command_id = c.id
     WHERE c.state = 'queued' AND c.queue_deadline <= clock_timestamp() AND r.lease_token = 0
     LIMIT p_limit FOR UPDATE OF r SKIP LOCKED
  LOOP
    id := late.id; project := late.project; event := gen_random_uuid();
    IF end_unclaimed(id, 'timed_out', p_outcome, event) THEN RETURN NEXT; END IF;
  END LOOP;
END $$;
