-- A page of commands looks along each queue once, not once for each command that waits in it.

-- Commands as readers get them. The place of a queued one is as queue_position has it: in its project, by
-- priority, then age, NULL beyond 1,000. (command_view, which counts for each, is for the release before this one.)
CREATE FUNCTION show_commands(p_ids uuid[]) RETURNS SETOF command_view LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH last AS (
    SELECT DISTINCT ON (c.project) c.project, c.priority, c.id FROM commands c
     WHERE c.id = ANY (p_ids) AND c.state = 'queued' ORDER BY c.project, c.priority DESC, c.id DESC),
  place AS (
    SELECT ahead.id, row_number() OVER (PARTITION BY last.project ORDER BY ahead.priority, ahead.id)::int AS number
      FROM last CROSS JOIN LATERAL (
        SELECT c.priority, c.id FROM commands c
         WHERE c.project = last.project AND c.state = 'queued' AND (c.priority, c.id) <= (last.priority, last.id)
         ORDER BY c.priority, c.id LIMIT 1000) ahead)
  SELECT c.id, c.project, c.key_id, c.kind, c.spec, c.env_names, c.priority, c.state, c.labels, c.session,
         c.timeouts, c.run_at, c.outcome, c.traceparent, c.retry_of, c.created_at, c.started_at, c.finished_at,
         CASE c.state WHEN 'queued' THEN place.number WHEN 'claimed' THEN 0 END,
         CASE WHEN c.state IN ('claimed', 'running', 'cancelling') THEN
           (SELECT lease_is_dead(r.lease_until, r.worker) FROM command_runs r WHERE r.command_id = c.id) ELSE false END
    FROM commands c LEFT JOIN place ON place.id = c.id
   WHERE c.id = ANY (p_ids);
END $$;
