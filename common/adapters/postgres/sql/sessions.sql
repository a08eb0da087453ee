-- claude's sessions (port SessionStore).

-- name: session_list
-- The sessions of a project whose newest command is older than one, last used first.
SELECT s.* FROM (
  SELECT c.id, c.session FROM session_commands c
   WHERE c.project = :project::text AND c.id < :before::uuid
     AND NOT EXISTS (SELECT FROM session_commands n
                      WHERE n.project = c.project AND n.session = c.session AND n.id > c.id)
   ORDER BY c.id DESC LIMIT :limit::int) newest
 CROSS JOIN LATERAL session_of(:project::text, newest.session) s
 ORDER BY newest.id DESC;

-- name: session_get
-- One session.
SELECT * FROM session_of(:project::text, :session::text);
