-- Workspaces in Kubernetes: whose view of the cluster is newer, and one probe for all processes.

-- Every look at a source takes a number before it looks; a view that is older than the one stored is
-- dropped. So a slow reconcile never undoes what the watcher has seen meanwhile.
CREATE SEQUENCE discovery_generations;

CREATE TABLE discoveries (
  source     text PRIMARY KEY,
  generation bigint NOT NULL,
  notes      jsonb NOT NULL DEFAULT '[]', -- what is wrong with the source and belongs to no project
  synced_at  timestamptz NOT NULL DEFAULT now()
);

-- sync_projects with a view's number. stale: it was older than the one stored, nothing was changed.
CREATE FUNCTION sync_discovered(p_source text, p_generation bigint, p_found jsonb, p_notes jsonb,
                                OUT stale boolean, OUT appeared text[], OUT vanished text[], OUT refused text[])
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('rdev projects', 7)); -- as sync_projects does
  INSERT INTO discoveries AS d (source, generation, notes) VALUES (p_source, p_generation, p_notes)
  ON CONFLICT (source) DO UPDATE
     SET generation = excluded.generation, notes = excluded.notes, synced_at = clock_timestamp()
   WHERE d.generation < excluded.generation;
  stale := NOT FOUND;
  IF stale THEN RETURN; END IF;
  SELECT s.appeared, s.vanished, s.refused INTO appeared, vanished, refused
    FROM sync_projects(p_source, p_found) s;
  -- A workspace that nobody asked for an hour is not known to be broken any more.
  DELETE FROM dependencies WHERE name LIKE 'workspace/%' AND checked_at < now() - interval '1 hour';
END $$;

-- Whether the caller may try an open dependency; others may after p_probe. Unknown ones are closed.
CREATE FUNCTION take_probe(p_name text, p_probe interval) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  UPDATE dependencies SET state = 'half_open', opened_until = clock_timestamp() + p_probe, checked_at = clock_timestamp()
   WHERE name = p_name AND (state = 'closed' OR opened_until IS NULL OR opened_until <= clock_timestamp());
  RETURN FOUND OR NOT EXISTS (SELECT FROM dependencies WHERE name = p_name);
END $$;
