-- Events that could not be handled (port DeadLetters).

-- name: bury
-- Record a dead letter once; what it was stays, why it lies here is the newest.
INSERT INTO dead_letters AS d (id, event_id, source, type, subject, reason, detail, attributes, data, size, channel,
                               trigger_id, project)
VALUES (:id, :event_id, :source, :type, :subject, :reason, :detail, :attributes, :data, :size, :channel, :trigger_id,
        :project)
ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, detail = excluded.detail;

-- name: letter_get
-- One dead letter.
SELECT * FROM dead_letters WHERE id = :id::uuid;

-- name: letter_list
-- Dead letters, newest first, below one.
SELECT d.* FROM dead_letters d
 WHERE (:before::uuid IS NULL
        OR (d.created_at, d.id) < (SELECT x.created_at, x.id FROM dead_letters x WHERE x.id = :before::uuid))
   AND (:projects::text[] IS NULL OR d.project = ANY (:projects::text[]))
   AND (:reason::text IS NULL OR d.reason = :reason::text)
   AND (:type::text IS NULL OR d.type = :type::text)
   AND (:source::text IS NULL OR d.source = :source::text)
   AND (:replayed::boolean IS NULL OR (d.replayed_at IS NOT NULL) = :replayed::boolean)
 ORDER BY d.created_at DESC, d.id DESC LIMIT :limit::int;

-- name: letter_replayed
-- Note that somebody replayed a dead letter, with its audit row.
SELECT replay_letter(:id, :outcome, :audit) AS known;
