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
-- Sums over the commands that ended in a time, by the dimensions given.
SELECT CASE WHEN 'project' = ANY (:by::text[]) THEN c.project END AS project,
       CASE WHEN 'key' = ANY (:by::text[]) THEN c.key_id END AS key_id,
       CASE WHEN 'model' = ANY (:by::text[]) THEN c.spec #>> '{options,model}' END AS model,
       CASE WHEN 'day' = ANY (:by::text[]) THEN to_char(c.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') END AS day,
       count(*) AS commands,
       coalesce(sum(extract(epoch FROM c.finished_at - c.started_at)), 0)::double precision AS seconds,
       coalesce(sum(reported_number(c.outcome #> '{agent,cost_usd}')), 0) AS cost_usd,
       coalesce(sum(reported_number(c.outcome #> '{agent,usage,input_tokens}')), 0) AS input_tokens,
       coalesce(sum(reported_number(c.outcome #> '{agent,usage,output_tokens}')), 0) AS output_tokens,
       coalesce(sum(reported_number(c.outcome #> '{agent,usage,cache_read_input_tokens}')), 0) AS cache_read_tokens,
       coalesce(sum(reported_number(c.outcome #> '{agent,usage,cache_creation_input_tokens}')), 0) AS cache_creation_tokens
  FROM commands c
 WHERE c.finished_at >= :since::timestamptz AND c.finished_at < :until::timestamptz
   AND (:projects::text[] IS NULL OR c.project = ANY (:projects::text[]))
   AND (:key_id::uuid IS NULL OR c.key_id = :key_id::uuid)
   AND (:model::text IS NULL OR c.spec #>> '{options,model}' = :model::text)
 GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC NULLS LAST, 1, 3, 2 LIMIT :limit::int;
