-- claude's sessions, what each command cost, and permission requests that somebody answers.
-- Locks: an approval changes only under the lock of its command's run row.

-- ---------------------------------------------------------------------------------------------
-- Sessions: what the commands say that worked in them; there is no table that could say otherwise

-- A fork has a session id of its own from the start now; earlier ones told it at their end.
UPDATE commands SET session = outcome #>> '{agent,session_id}'
 WHERE kind = 'claude' AND session IS NULL AND outcome #>> '{agent,session_id}' IS NOT NULL;

CREATE INDEX commands_sessions ON commands (project, session, id)
 WHERE kind = 'claude' AND session IS NOT NULL AND started_at IS NOT NULL;

-- Commands that really worked in a session: claude was started, and knew it.
CREATE VIEW session_commands AS
  SELECT c.* FROM commands c
   WHERE c.kind = 'claude' AND c.session IS NOT NULL AND c.started_at IS NOT NULL
     AND coalesce(c.outcome ->> 'reason', '') NOT IN ('session_unknown', 'start_failed');

-- A session as its commands make it. `busy_with` holds it now; `waiting` commands come after that.
CREATE FUNCTION session_of(p_project text, p_session text)
RETURNS TABLE (id text, project text, busy_with uuid, waiting int, forked_from text, model text, commands int,
               turns bigint, cost_usd double precision, first_command uuid, last_command uuid,
               started_at timestamptz, last_used_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT p_session, p_project,
         (SELECT b.id FROM commands b WHERE b.project = p_project AND b.session = p_session
             AND b.state IN ('claimed', 'running', 'cancelling') LIMIT 1),
         (SELECT count(*)::int FROM commands w WHERE w.project = p_project AND w.session = p_session AND w.state = 'queued'),
         (SELECT s.spec #>> '{session,id}' FROM session_commands s WHERE s.project = p_project AND s.session = p_session
             AND s.spec #>> '{session,mode}' = 'fork' ORDER BY s.id LIMIT 1),
         (SELECT coalesce(main_model(s.outcome), s.spec #>> '{options,model}') FROM session_commands s
           WHERE s.project = p_project AND s.session = p_session
             AND (main_model(s.outcome) IS NOT NULL OR s.spec #>> '{options,model}' IS NOT NULL)
           ORDER BY s.id DESC LIMIT 1),
         count(*)::int, coalesce(sum(reported_number(c.outcome #> '{agent,num_turns}')), 0)::bigint,
         coalesce(sum(reported_number(c.outcome #> '{agent,cost_usd}')), 0),
         (array_agg(c.id ORDER BY c.id))[1], (array_agg(c.id ORDER BY c.id DESC))[1],
         min(c.started_at), max(coalesce(c.finished_at, c.started_at))
    FROM session_commands c WHERE c.project = p_project AND c.session = p_session
  HAVING count(*) > 0;
END $$;

-- ---------------------------------------------------------------------------------------------
-- Cost and tokens

-- What an outcome says was used, one row a model; one row without a model where it tells none apart.
CREATE FUNCTION usage_parts(p_outcome jsonb)
RETURNS TABLE (model text, cost_usd double precision, input_tokens double precision, output_tokens double precision,
               cache_read_tokens double precision, cache_creation_tokens double precision)
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF jsonb_typeof(p_outcome #> '{agent,models}') = 'object' AND p_outcome #> '{agent,models}' <> '{}' THEN
    RETURN QUERY
    SELECT m.name, coalesce(reported_number(m.used -> 'cost_usd'), 0), coalesce(reported_number(m.used -> 'input_tokens'), 0),
           coalesce(reported_number(m.used -> 'output_tokens'), 0), coalesce(reported_number(m.used -> 'cache_read_tokens'), 0),
           coalesce(reported_number(m.used -> 'cache_creation_tokens'), 0)
      FROM jsonb_each(p_outcome #> '{agent,models}') AS m(name, used);
  ELSE
    RETURN QUERY
    SELECT NULL::text, coalesce(reported_number(p_outcome #> '{agent,cost_usd}'), 0),
           coalesce(reported_number(p_outcome #> '{agent,usage,input_tokens}'), 0),
           coalesce(reported_number(p_outcome #> '{agent,usage,output_tokens}'), 0),
           coalesce(reported_number(p_outcome #> '{agent,usage,cache_read_input_tokens}'), 0),
           coalesce(reported_number(p_outcome #> '{agent,usage,cache_creation_input_tokens}'), 0);
  END IF;
END $$;

-- The model that most was spent on; NULL when the outcome tells none apart.
CREATE FUNCTION main_model(p_outcome jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN (SELECT u.model FROM usage_parts(p_outcome) u WHERE u.model IS NOT NULL
           ORDER BY u.cost_usd DESC, u.output_tokens DESC, u.model LIMIT 1);
END $$;

-- ---------------------------------------------------------------------------------------------
-- Approvals

-- A permission request of claude's, by the id it gave it. Its input goes when the command has ended.
CREATE TABLE approvals (
  command_id   uuid NOT NULL REFERENCES commands ON DELETE CASCADE,
  request_id   text NOT NULL,
  tool_use_id  text NOT NULL,
  tool_name    text NOT NULL,
  input        bytea, -- JSON, in ASCII and on one line
  state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'allowed', 'denied', 'expired')),
  message      text,
  key_id       uuid,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at   timestamptz NOT NULL,
  decided_at   timestamptz,
  PRIMARY KEY (command_id, request_id)
);

-- What a command's stdin gets after its prompt: these pieces in this order, each once. The order is
-- here and nowhere else, so whoever follows the command sends the same bytes at the same offsets.
CREATE TABLE command_inputs (
  command_id uuid NOT NULL REFERENCES commands ON DELETE CASCADE,
  n          int NOT NULL,
  request_id text NOT NULL,
  data       bytea NOT NULL,
  sent_at    timestamptz,
  PRIMARY KEY (command_id, n),
  UNIQUE (command_id, request_id)
);

-- Lock a run row for the holder of its lease; false when the lease is another's.
CREATE FUNCTION hold_run(p_id uuid, p_token bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM command_runs r WHERE r.command_id = p_id AND r.lease_token = p_token AND r.lease_until IS NOT NULL
     FOR UPDATE;
  RETURN FOUND;
END $$;

-- The `approval` event of a row. An input that would not fit into one event is left out and said so.
CREATE FUNCTION approval_event(x approvals) RETURNS bytea LANGUAGE plpgsql STABLE AS $$
DECLARE
  fits boolean := octet_length(x.input) <= 48 * 1024;
BEGIN
  RETURN convert_to(
    '{"tool_use_id":' || to_json(x.tool_use_id) || ',"tool_name":' || to_json(x.tool_name)
    || ',"input":' || CASE WHEN fits THEN convert_from(x.input, 'UTF8') ELSE 'null' END
    || CASE WHEN fits THEN '' ELSE ',"truncated":true' END
    || ',"state":' || to_json(x.state) || ',"message":' || coalesce(to_json(x.message)::text, 'null')
    || ',"expires_at":' || to_json(to_char(x.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) || '}', 'UTF8');
END $$;

-- Append that event under the run row's lock that the caller holds.
CREATE FUNCTION tell_approval(x approvals) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  v_seq bigint; v_project text;
BEGIN
  UPDATE command_runs r SET next_seq = r.next_seq + 1 WHERE r.command_id = x.command_id
  RETURNING r.next_seq - 1, r.project INTO v_seq, v_project;
  INSERT INTO command_events (day, command_id, seq, project, type, data)
  VALUES (day_of(x.command_id), x.command_id, v_seq, v_project, 'approval', approval_event(x));
END $$;

-- The next piece of input; false when this request has been answered before.
CREATE FUNCTION queue_input(p_id uuid, p_request text, p_data bytea) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO command_inputs (command_id, n, request_id, data)
  SELECT p_id, coalesce(max(i.n), 0) + 1, p_request, p_data FROM command_inputs i WHERE i.command_id = p_id
  ON CONFLICT (command_id, request_id) DO NOTHING;
  RETURN FOUND;
END $$;

-- A request was read: a row and its event, once however often it is read. False: the lease is another's.
CREATE FUNCTION ask_approval(p_id uuid, p_token bigint, p_request text, p_tool_use text, p_tool text, p_input bytea,
                             p_wait_s int) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  x approvals;
BEGIN
  IF NOT hold_run(p_id, p_token) THEN RETURN false; END IF;
  INSERT INTO approvals (command_id, request_id, tool_use_id, tool_name, input, expires_at)
  VALUES (p_id, p_request, p_tool_use, p_tool, p_input, clock_timestamp() + make_interval(secs => p_wait_s))
  ON CONFLICT DO NOTHING RETURNING * INTO x;
  IF FOUND THEN PERFORM tell_approval(x); END IF;
  RETURN true;
END $$;

-- A request that nobody can be asked about is answered at once. False: the lease is another's.
CREATE FUNCTION answer_request(p_id uuid, p_token bigint, p_request text, p_reply bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  IF NOT hold_run(p_id, p_token) THEN RETURN false; END IF;
  PERFORM queue_input(p_id, p_request, p_reply);
  RETURN true;
END $$;

-- Somebody's decision: row, event, what claude is told, audit, all or nothing. False: it was decided.
CREATE FUNCTION decide_approval(p_id uuid, p_request text, p_state text, p_message text, p_reply bytea, a jsonb)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  x approvals; v_project text;
BEGIN
  SELECT r.project INTO v_project FROM command_runs r WHERE r.command_id = p_id FOR UPDATE;
  UPDATE approvals y SET state = p_state, message = p_message, key_id = (a ->> 'key_id')::uuid, decided_at = clock_timestamp()
   WHERE y.command_id = p_id AND y.request_id = p_request AND y.state = 'pending' AND y.expires_at > clock_timestamp()
  RETURNING * INTO x;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM queue_input(p_id, p_request, p_reply);
  PERFORM tell_approval(x);
  PERFORM audit(a, 'approval.' || p_state, shown_id(p_id), v_project,
                jsonb_build_object('tool_use_id', x.tool_use_id, 'tool_name', x.tool_name));
  RETURN true;
END $$;

-- Nobody answered in time: claude is told no. False: the lease is another's.
CREATE FUNCTION expire_approval(p_id uuid, p_token bigint, p_request text, p_reply bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  x approvals;
BEGIN
  IF NOT hold_run(p_id, p_token) THEN RETURN false; END IF;
  UPDATE approvals y SET state = 'expired', decided_at = clock_timestamp()
   WHERE y.command_id = p_id AND y.request_id = p_request AND y.state = 'pending' AND y.expires_at <= clock_timestamp()
  RETURNING * INTO x;
  IF FOUND THEN
    PERFORM queue_input(p_id, p_request, p_reply);
    PERFORM tell_approval(x);
  END IF;
  RETURN true;
END $$;

-- ---------------------------------------------------------------------------------------------
-- The end of a claude command

-- The last events before `end`, from number n on, and how many they are: requests that nobody will
-- answer any more. What claude wanted to do goes with its command.
CREATE FUNCTION last_words(c commands, n bigint) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  x approvals; told int := 0;
BEGIN
  FOR x IN UPDATE approvals y SET state = 'expired', decided_at = clock_timestamp()
            WHERE y.command_id = c.id AND y.state = 'pending' RETURNING * LOOP
    INSERT INTO command_events (day, command_id, seq, project, type, data)
    VALUES (day_of(c.id), c.id, n + told, c.project, 'approval', approval_event(x));
    told := told + 1;
  END LOOP;
  UPDATE approvals y SET input = NULL WHERE y.command_id = c.id AND y.input IS NOT NULL;
  DELETE FROM command_inputs i WHERE i.command_id = c.id;
  RETURN told;
END $$;

-- As in 0001, with the last words of a claude command before its `end`.
CREATE OR REPLACE FUNCTION finish_command(p_id uuid, p_token bigint, p_from text[], p_state text, p_outcome jsonb, p_event uuid)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  n bigint; c commands; told int;
BEGIN
  UPDATE command_runs r SET next_seq = r.next_seq + 1, lease_until = NULL
   WHERE r.command_id = p_id AND r.lease_token = p_token AND r.lease_until IS NOT NULL
  RETURNING r.next_seq - 1 INTO n;
  IF NOT FOUND THEN
    RETURN CASE WHEN EXISTS (SELECT FROM commands x JOIN command_runs r ON r.command_id = x.id
                              WHERE x.id = p_id AND x.finished_at IS NOT NULL AND r.lease_token = p_token)
                THEN 'ended' ELSE 'stale' END;
  END IF;
  UPDATE commands x SET state = p_state, outcome = p_outcome, finished_at = clock_timestamp(), env_sealed = NULL
   WHERE x.id = p_id AND x.state = ANY (p_from) RETURNING x.* INTO STRICT c;
  IF c.kind = 'claude' THEN
    told := last_words(c, n);
    UPDATE command_runs r SET next_seq = r.next_seq + told WHERE r.command_id = p_id AND told > 0;
    n := n + told;
  END IF;
  PERFORM end_of(c, n, p_event);
  RETURN 'ok';
END $$;
