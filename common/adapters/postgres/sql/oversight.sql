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
-- models counts in each of them where models are told apart.
SELECT used.project, used.key_id, used.model, used.day, count(*) AS commands,
       coalesce(sum(used.seconds), 0)::double precision AS seconds, sum(used.cost_usd) AS cost_usd,
       sum(used.input_tokens) AS input_tokens, sum(used.output_tokens) AS output_tokens,
       sum(used.cache_read_tokens) AS cache_read_tokens, sum(used.cache_creation_tokens) AS cache_creation_tokens
  FROM (
    SELECT CASE WHEN 'project' = ANY (:by::text[]) THEN c.project END AS project,
           CASE WHEN 'key' = ANY (:by::text[]) THEN c.key_id END AS key_id,
           CASE WHEN 'model' = ANY (:by::text[]) THEN coalesce(u.model, c.spec #>> '{options,model}') END AS model,
           CASE WHEN 'day' = ANY (:by::text[]) THEN to_char(c.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') END AS day,
           extract(epoch FROM c.finished_at - c.started_at) AS seconds,
           sum(u.cost_usd) AS cost_usd, sum(u.input_tokens) AS input_tokens, sum(u.output_tokens) AS output_tokens,
           sum(u.cache_read_tokens) AS cache_read_tokens, sum(u.cache_creation_tokens) AS cache_creation_tokens
      FROM commands c CROSS JOIN LATERAL usage_parts(c.outcome) u
     WHERE c.finished_at >= :since::timestamptz AND c.finished_at < :until::timestamptz
       AND (:projects::text[] IS NULL OR c.project = ANY (:projects::text[]))
       AND (:key_id::uuid IS NULL OR c.key_id = :key_id::uuid)
       AND (:model::text IS NULL OR coalesce(u.model, c.spec #>> '{options,model}') = :model::text)
     GROUP BY c.id, 1, 2, 3, 4) used
 GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC NULLS LAST, 1, 3, 2 LIMIT :limit::int;
