-- Permission requests and what answers them (port Approvals).

-- name: approval_list
-- The requests of a command, as they came.
SELECT * FROM approvals WHERE command_id = :id::uuid ORDER BY requested_at, request_id;

-- name: approval_find
-- The pending request about a tool use, else the newest one.
SELECT * FROM approvals WHERE command_id = :id::uuid AND tool_use_id = :tool_use_id::text
 ORDER BY state = 'pending' DESC, requested_at DESC LIMIT 1;

-- name: approval_decide
-- Decision, event, reply and audit row.
SELECT decide_approval(:id, :request_id, :state, :message, :reply, :audit) AS done;

-- name: approval_ask
-- A request and its event, once.
SELECT ask_approval(:id, :token, :request_id, :tool_use_id, :tool_name, :input, :wait_s) AS held;

-- name: approval_answer
-- The answer to a request that nobody is asked about, once.
SELECT answer_request(:id, :token, :request_id, :reply) AS held;

-- name: approval_expire
-- Deny a request that is overdue.
SELECT expire_approval(:id, :token, :request_id, :reply) AS held;

-- name: input_pieces
-- What a command's stdin gets after its prompt; what was sent is told by its size alone.
SELECT n, octet_length(data) AS size, CASE WHEN sent_at IS NULL THEN data END AS data
  FROM command_inputs WHERE command_id = :id::uuid ORDER BY n;

-- name: input_sent
-- A piece has reached the workspace.
UPDATE command_inputs SET sent_at = clock_timestamp() WHERE command_id = :id::uuid AND n = :number::int AND sent_at IS NULL;

-- name: approval_pending
-- Requests that wait, and for how many seconds more.
SELECT request_id, extract(epoch FROM expires_at - clock_timestamp())::double precision AS left_s
  FROM approvals WHERE command_id = :id::uuid AND state = 'pending' ORDER BY expires_at, request_id;
