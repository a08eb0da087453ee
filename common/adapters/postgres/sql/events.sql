-- Reading events (port EventReader).

-- name: page
-- One page of a command's events after a seq, beside the oldest stored and the newest given seq.
SELECT r.next_seq - 1 AS last,
       (SELECT x.seq FROM command_events x
         WHERE x.day = day_of(r.command_id) AND x.command_id = r.command_id ORDER BY x.seq LIMIT 1) AS first,
       e.seq, e.at, e.type, e.stream, e.off, e.data
  FROM command_runs r
  LEFT JOIN LATERAL (
    SELECT p.*, sum(coalesce(octet_length(p.data), 0)) OVER (ORDER BY p.seq) - coalesce(octet_length(p.data), 0) AS before
      FROM (SELECT x.seq, x.at, x.type, x.stream, x.off, x.data FROM command_events x
             WHERE x.day = day_of(:id::uuid) AND x.command_id = :id::uuid AND x.seq > :after::bigint
             ORDER BY x.seq LIMIT 1000) p) e ON e.before < :max_bytes::bigint
 WHERE r.command_id = :id::uuid
 ORDER BY e.seq;

-- name: news
-- Events after a seq each of many commands; each command gets the same share of the bytes.
SELECT e.command_id, e.seq, e.at, e.type, e.stream, e.off, e.data
  FROM unnest(:ids::uuid[], :seqs::bigint[]) AS head(id, seq)
  JOIN command_runs r ON r.command_id = head.id AND r.next_seq - 1 > head.seq
 CROSS JOIN LATERAL (
    SELECT p.*, sum(coalesce(octet_length(p.data), 0)) OVER (ORDER BY p.seq) - coalesce(octet_length(p.data), 0) AS before
      FROM (SELECT x.command_id, x.seq, x.at, x.type, x.stream, x.off, x.data FROM command_events x
             WHERE x.day = day_of(head.id) AND x.command_id = head.id AND x.seq > head.seq
             ORDER BY x.seq LIMIT 1000) p) e
 WHERE e.before < :share::bigint
 ORDER BY e.command_id, e.seq;

-- name: project_now
-- Where a project's stream that starts now begins: the horizon, and what lies visible above it.
SELECT now.horizon::text::bigint AS horizon, e.command_id, max(e.seq) AS seq
  FROM (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon) now
  LEFT JOIN command_events e ON e.project = :project::text AND e.xid >= now.horizon
 GROUP BY 1, 2;

-- name: project_news
-- A window of a project's events at or above a horizon, whole up to each command's newest in it.
WITH now AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin),
seen AS MATERIALIZED (SELECT * FROM unnest(:ids::uuid[], :seqs::bigint[]) AS s(id, seq)),
scan AS MATERIALIZED (
  SELECT w.command_id, w.seq, w.xid, row_number() OVER by_xid AS n, sum(w.size) OVER by_xid - w.size AS before
    FROM (SELECT x.command_id, x.seq, x.xid::text::bigint AS xid,
                 CASE WHEN :output::boolean OR x.type NOT IN ('output', 'agent') THEN octet_length(x.data) ELSE 0 END AS size
            FROM command_events x LEFT JOIN seen s ON s.id = x.command_id
           WHERE x.project = :project::text AND x.xid >= :horizon::text::xid8 AND x.seq > coalesce(s.seq, 0)
           ORDER BY x.xid LIMIT :limit::int + 1) w
  WINDOW by_xid AS (ORDER BY w.xid ROWS UNBOUNDED PRECEDING)),
taken AS MATERIALIZED (
  SELECT * FROM scan WHERE n <= :limit::int AND (before < :max_bytes::bigint OR n = 1)),
newest AS MATERIALIZED (SELECT command_id, max(seq) AS seq FROM taken GROUP BY command_id)
SELECT now.xmin::text::bigint AS xmin, (SELECT max(xid) FROM taken) AS edge,
       (SELECT count(*) FROM taken) < (SELECT count(*) FROM scan) AS cut,
       ARRAY(SELECT DISTINCT x.command_id FROM command_events x JOIN seen s ON s.id = x.command_id
              WHERE x.project = :project::text AND x.xid >= now.xmin AND x.seq <= s.seq) AS kept,
       e.command_id, e.seq, e.xid::text::bigint AS xid, e.at, e.type, e.stream, e.off,
       CASE WHEN :output::boolean OR e.type NOT IN ('output', 'agent') THEN e.data END AS data
  FROM now
  LEFT JOIN (newest JOIN command_events e
               ON e.day = day_of(newest.command_id) AND e.command_id = newest.command_id AND e.seq <= newest.seq
             LEFT JOIN seen s ON s.id = newest.command_id)
    ON e.xid >= :horizon::text::xid8 AND e.seq > coalesce(s.seq, 0)
 ORDER BY e.command_id, e.seq;
