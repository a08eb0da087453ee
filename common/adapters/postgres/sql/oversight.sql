-- The queue as a whole and what was used (port Oversight).

-- name: queue_depths
-- What waits and runs by project and priority; a project with neither has one row without a priority.
SELECT p.name AS project, p.paused_at, c.priority,
       count(*) FILTER (WHERE c.state = 'queued') AS queued,
       count(*) FILTER (WHERE c.state <> 'queued') AS running,
       extract(epoch FROM clock_timestamp() - min(coalesce(c.run_at, c.created_at)) FILTER (WHERE c.state = 'queued'))::double precision AS oldest_s
  FROM projects p
  LEFT JOIN commands c ON c.project = p.name AND c.state IN ('queued', 'claimed', 'running', 'cancelling')
 WHERE p.phase <> 'gone' AND (:projects::text[] IS NULL OR p.name = ANY (:projects::text[]))
 GROUP BY p.name, p.paused_at, c.priority ORDER BY p.name, c.priority;

-- name: project_pause
-- Pause or resume a project, with its audit row.
SELECT pause_project(:project, :paused, :audit) AS status;

-- name: usage
-- Sums over the commands that ended in a time, by the dimensions given. A command that used several
-- models counts in each of them where models are told apart, and with its first part alone where not.
SELECT CASE WHEN 'project' = ANY (:by::text[]) THEN c.project END AS project,
       CASE WHEN 'key' = ANY (:by::text[]) THEN c.key_id END AS key_id,
       CASE WHEN 'model' = ANY (:by::text[]) THEN u.model END AS model,
       CASE WHEN 'day' = ANY (:by::text[]) THEN to_char(c.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') END AS day,
       count(*) FILTER (WHERE u.counts) AS commands,
       coalesce(sum(extract(epoch FROM c.finished_at - c.started_at)) FILTER (WHERE u.counts), 0)::double precision AS seconds,
       coalesce(sum(reported_number(u.used -> 'cost_usd')), 0) AS cost_usd,
       coalesce(sum(reported_number(u.used -> 'input_tokens')), 0) AS input_tokens,
       coalesce(sum(reported_number(u.used -> 'output_tokens')), 0) AS output_tokens,
       coalesce(sum(reported_number(u.used -> 'cache_read_tokens')), 0) AS cache_read_tokens,
       coalesce(sum(reported_number(u.used -> 'cache_creation_tokens')), 0) AS cache_creation_tokens
  FROM commands c CROSS JOIN LATERAL (
    -- The parts as usage_parts has them, here because a call a row would be most of the work.
    SELECT coalesce(nullif(part.name, ''), c.spec #>> '{options,model}') AS model, part.used,
           part.n = 1 OR 'model' = ANY (:by::text[]) OR :model::text IS NOT NULL AS counts
      FROM jsonb_each(CASE
             WHEN jsonb_typeof(c.outcome #> '{agent,models}') = 'object' AND c.outcome #> '{agent,models}' <> '{}'
             THEN c.outcome #> '{agent,models}'
             WHEN jsonb_typeof(c.outcome -> 'agent') = 'object'
             THEN jsonb_build_object('', jsonb_build_object('cost_usd', c.outcome #> '{agent,cost_usd}',
               'input_tokens', c.outcome #> '{agent,usage,input_tokens}',
               'output_tokens', c.outcome #> '{agent,usage,output_tokens}',
               'cache_read_tokens', c.outcome #> '{agent,usage,cache_read_input_tokens}',
               'cache_creation_tokens', c.outcome #> '{agent,usage,cache_creation_input_tokens}'))
             ELSE '{"": {}}' END) WITH ORDINALITY AS part(name, used, n)) u
 WHERE c.finished_at >= :since::timestamptz AND c.finished_at < :until::timestamptz
   AND (:projects::text[] IS NULL OR c.project = ANY (:projects::text[]))
   AND (:key_id::uuid IS NULL OR c.key_id = :key_id::uuid)
   AND (:model::text IS NULL OR u.model = :model::text)
 GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC NULLS LAST, 1, 3, 2 LIMIT :limit::int;
