-- The registry of projects (port ProjectStore).

-- name: project_list
-- All projects that are not gone, or those of the given names, with what runs and waits there.
SELECT p.name, p.description, p.namespace, p.pod, p.pod_uid, p.container, p.workspace, p.phase, p.allowed_commands,
       p.max_concurrent_commands, p.paused_at,
       p.issues || coalesce((SELECT jsonb_build_array('its workspace is not asked for a while: ' || coalesce(d.detail, d.state))
                               FROM dependencies d WHERE d.name = 'workspace/' || p.name AND d.state <> 'closed'), '[]') AS issues,
       (SELECT count(*) FROM commands c WHERE c.project = p.name AND c.state IN ('claimed', 'running', 'cancelling')) AS running,
       (SELECT count(*) FROM commands c WHERE c.project = p.name AND c.state = 'queued') AS queued
  FROM projects p
 WHERE p.phase <> 'gone' AND (:names::text[] IS NULL OR p.name = ANY (:names::text[]))
 ORDER BY p.name;

-- name: project_sync
-- Make the registry say what a source shows now.
SELECT appeared, vanished, refused FROM sync_projects(:source, :found);
