"""Wire models of answers: the shapes that openapi.json promises and tests hold real answers to.

Only the generator and tests import them. Functions answer what `domain/resources.py` makes; to
build these as well would cost every cold start some milliseconds for nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

CommandId = Annotated[str, Field(pattern=r"^cmd_[0-9a-f]{32}$")]
KeyId = Annotated[str, Field(pattern=r"^key_[0-9a-f]{32}$")]
KindName = Literal["claude", "shell", "git"]
PriorityName = Literal["low", "normal", "high", "urgent"]
StateName = Literal[
    "scheduled",
    "queued",
    "running",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
    "lost",
]


class Resource(BaseModel):
    """An answer. Every field is always there; a client must pass over ones it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamTotals(Resource):
    """What a stream came to. `truncated`: more was printed than was kept."""

    bytes: int
    sha256: str
    truncated: bool


class OutputTotals(StreamTotals):
    """Of the merged stream, or of stdout; then `stderr` has its own."""

    stderr: StreamTotals | None


class ModelUse(Resource):
    """What was used of one model."""

    cost_usd: float
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int


class SessionTotal(Resource):
    """What a session has cost so far, every command in it counted, as claude reports it."""

    cost_usd: float
    models: dict[str, ModelUse]


class AgentOutcome(Resource):
    """What claude's own result line says."""

    session_id: str | None
    num_turns: int | None
    cost_usd: Annotated[
        float | None,
        Field(
            description="of this command alone; null: the session had cost something that rdev"
            " does not know"
        ),
    ]
    models: Annotated[
        dict[str, ModelUse] | None, Field(description="the same, by model; null as above")
    ] = None
    session_total: SessionTotal | None = None
    usage: dict[str, Any] | None
    permission_denials: list[Any]
    result: str | None
    structured_output: Any


class Outcome(Resource):
    """How a command ended; `reason` belongs to its state (docs/reference/states.md)."""

    reason: str
    exit_code: int | None
    signal: int | None
    orphans_killed: int
    output: OutputTotals
    agent: AgentOutcome | None
    detail: Annotated[str, Field(description="more about the reason, when there is more")] = ""


class Links(Resource):
    """Where to go on."""

    self: str
    stream: str
    output: str
    cancel: str


class Command(Resource):
    """A command. Values of its environment are secret: `spec.env` has the names, each null."""

    id: CommandId
    project: str
    kind: KindName
    state: StateName
    priority: PriorityName
    queue_position: Annotated[
        int | None, Field(description="1 is next; 0 has been claimed; null does not wait")
    ]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    run_at: AwareDatetime | None
    key_id: KeyId
    session_id: str | None
    retry_of: CommandId | None
    labels: dict[str, str]
    spec: dict[str, Any]
    outcome: Annotated[Outcome | None, Field(description="there exactly when it has ended")]
    links: Links


class Project(Resource):
    """A project: a workspace that commands run in."""

    name: str
    description: str
    phase: Literal["ready", "pending", "unreachable", "gone"]
    workspace: str
    allowed_commands: Annotated[list[KindName] | None, Field(description="null: all kinds")]
    max_concurrent_commands: int
    running: int
    queued: int
    paused: bool
    issues: Annotated[list[str], Field(description="what is wrong with its settings, if anything")]


class RateLimit(Resource):
    """At most `limit` requests in any `window_s` seconds."""

    limit: int
    window_s: int


class Key(Resource):
    """An API key, without its text."""

    id: KeyId
    name: str
    prefix: Annotated[str, Field(description="the part of the key that is no secret")]
    scopes: list[str]
    projects: Annotated[list[str] | None, Field(description="null: all projects")]
    allowed_ips: Annotated[list[str], Field(description="empty: from everywhere")]
    expires_at: AwareDatetime | None
    rate_limit: RateLimit | None
    max_concurrent: int | None
    created_at: AwareDatetime
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None
    replaced_by: Annotated[
        KeyId | None, Field(description="the key that it was rotated to; it expires by itself")
    ]


class CreatedKey(Key):
    """A key just made."""

    key: Annotated[
        str | None,
        Field(description="the text to send; in this answer only, null in a replayed one"),
    ]


class CommandPage(Resource):
    """Commands, newest first."""

    items: list[Command]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class ProjectPage(Resource):
    """Projects by name; there is one page."""

    items: list[Project]
    next_cursor: str | None


class KeyPage(Resource):
    """Keys, newest first."""

    items: list[Key]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class Session(Resource):
    """A claude session: what the commands that worked in it come to."""

    id: Annotated[str, Field(description="claude's own id of it")]
    project: str
    state: Literal["free", "busy"]
    busy_with: Annotated[CommandId | None, Field(description="the command that holds it now")]
    waiting: Annotated[int, Field(description="commands that come after that")]
    forked_from: Annotated[str | None, Field(description="the session it was copied from")]
    model: Annotated[str | None, Field(description="that its newest command used most")]
    commands: int
    turns: int
    cost_usd: Annotated[float, Field(description="of the commands that are still kept")]
    first_command: CommandId
    last_command: CommandId
    started_at: AwareDatetime
    last_used_at: AwareDatetime


class Approval(Resource):
    """A permission request of claude's."""

    tool_use_id: str
    tool_name: str
    input: Annotated[
        dict[str, Any] | None, Field(description="of the tool; null when the command has ended")
    ]
    state: Literal["pending", "allowed", "denied", "expired"]
    message: Annotated[str | None, Field(description="of whoever decided; claude reads it if no")]
    key_id: Annotated[KeyId | None, Field(description="who decided")]
    requested_at: AwareDatetime
    expires_at: Annotated[AwareDatetime, Field(description="then it is denied")]
    decided_at: AwareDatetime | None


class ApprovalPage(Resource):
    """A command's requests as they came; there is one page."""

    items: list[Approval]
    next_cursor: None


class SessionPage(Resource):
    """Sessions, the last used first."""

    items: list[Session]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


TriggerId = Annotated[str, Field(pattern=r"^trg_[0-9a-f]{32}$")]


class TriggerLinks(Resource):
    """Where to go on. `github`: where GitHub sends deliveries to."""

    self: str
    matches: str
    github: str | None


class Trigger(Resource):
    """When an event like this arrives, run this command there."""

    id: TriggerId
    name: str
    key_id: Annotated[KeyId, Field(description="its owner, with whose rights it acts")]
    filter: Annotated[dict[str, Any], Field(description="CloudEvents Subscriptions filters")]
    command: Annotated[dict[str, Any], Field(description="values of `env` are secret, so null")]
    accept: list[Literal["http", "github", "broker"]]
    enabled: bool
    rate_limit: RateLimit
    created_at: AwareDatetime
    updated_at: AwareDatetime
    links: TriggerLinks


class CreatedTrigger(Trigger):
    """A trigger just made, or with a new secret."""

    secret: Annotated[
        str | None,
        Field(description="for GitHub; in this answer only, null in a replayed one"),
    ]


class TriggerPage(Resource):
    """Triggers, newest first."""

    items: list[Trigger]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class DryCommand(Resource):
    """A command as it would be."""

    project: str
    kind: KindName
    priority: PriorityName
    labels: dict[str, str]
    spec: dict[str, Any]


class DryRun(Resource):
    """What an event would give; nothing was stored. `reason`: why no command."""

    matches: bool
    command: DryCommand | None
    reason: str | None
    detail: str


class Match(Resource):
    """What became of an event that a trigger was for."""

    id: Annotated[str, Field(pattern=r"^mat_[0-9a-f]{32}$")]
    at: AwareDatetime
    event_id: str
    source: str
    type: str
    outcome: Literal["submitted", "refused"]
    command_id: CommandId | None
    reason: str | None
    detail: str


class MatchPage(Resource):
    """Matches, newest first."""

    items: list[Match]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class EventAtTrigger(Resource):
    """What became of an event at one trigger; `duplicate`: it was seen there before."""

    trigger_id: TriggerId
    outcome: Literal["submitted", "refused"]
    duplicate: bool
    command_id: CommandId | None
    reason: str | None


class ReceivedEvent(Resource):
    """What became of an event."""

    id: str
    source: str
    outcome: Literal[
        "submitted", "duplicate", "refused", "no_trigger", "stale", "loop", "trigger_off"
    ]
    triggers: list[EventAtTrigger]


class ReceivedEvents(Resource):
    """Every event that was sent, in its order; a ping of GitHub is none."""

    events: list[ReceivedEvent]


class DeadLetter(Resource):
    """An event that nothing came of."""

    id: Annotated[str, Field(pattern=r"^dlt_[0-9a-f]{32}$")]
    created_at: AwareDatetime
    reason: str
    detail: str
    channel: Literal["http", "github", "broker", "delivery"]
    project: str | None
    trigger_id: TriggerId | None
    event_id: str | None
    source: str | None
    type: str | None
    subject: str | None
    size: Annotated[int, Field(description="bytes of its data, of which 64 KiB are kept")]
    replayable: bool
    replayed_at: AwareDatetime | None


class WholeDeadLetter(DeadLetter):
    """A dead letter with what it held: `data` where that is JSON, else `data_base64`."""

    attributes: dict[str, str]
    data: Any
    data_base64: str | None


class DeadLetterPage(Resource):
    """Dead letters, newest first."""

    items: list[DeadLetter]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class ReplayedDeadLetter(Resource):
    """What a replay gave. `published`: an event of rdev itself, handed to the broker again."""

    outcome: str
    event: ReceivedEvent | None
    letter: DeadLetter


class QueueDepth(Resource):
    """Of one priority."""

    queued: int
    running: int
    oldest_s: Annotated[float | None, Field(description="seconds that the oldest has waited")]


class QueueDepths(Resource):
    """Every priority."""

    urgent: QueueDepth
    high: QueueDepth
    normal: QueueDepth
    low: QueueDepth


class Queue(Resource):
    """What waits and runs in a project."""

    project: str
    paused_at: Annotated[AwareDatetime | None, Field(description="since when nothing starts")]
    queued: int
    running: int
    oldest_s: Annotated[float | None, Field(description="seconds that the oldest has waited")]
    by_priority: QueueDepths


class QueuePage(Resource):
    """Queues by project; there is one page."""

    items: list[Queue]
    next_cursor: None


class UsageSum(Resource):
    """Sums over ended commands. What they are not told apart by is null."""

    project: str | None
    key_id: KeyId | None
    model: str | None
    day: Annotated[str | None, Field(description="of its end, in UTC: 2026-01-31")]
    commands: int
    seconds: float
    cost_usd: Annotated[float, Field(description="as claude reports it")]
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int


class UsagePage(Resource):
    """Sums, newest day first; there is one page, of 5000 at most."""

    items: list[UsageSum]
    next_cursor: None


class AuditEntry(Resource):
    """Something that was done, or refused (`request.refused`, and `requests.refused` in sums)."""

    id: Annotated[str, Field(pattern=r"^aud_[0-9a-f]{32}$")]
    at: AwareDatetime
    key_id: Annotated[KeyId | None, Field(description="null: rdev itself, or nobody known")]
    action: str
    target: str
    project: str | None
    detail: dict[str, Any]
    request_id: str | None
    client_ip: Annotated[str | None, Field(description="as computed from trusted proxies")]
    peer_ip: Annotated[str | None, Field(description="who really connected")]


class AuditPage(Resource):
    """Entries, newest first."""

    items: list[AuditEntry]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class AuditLink(Resource):
    """Where the chain ends. Kept elsewhere, it shows later that nothing was cut off."""

    seq: int
    hash: str


class BrokenEntry(Resource):
    """The first entry that is not what was sealed."""

    id: Annotated[str, Field(pattern=r"^aud_[0-9a-f]{32}$")]
    reason: Literal["changed", "missing", "gap", "inserted"]


class AuditVerdict(Resource):
    """What a look at the whole chain found. Entries of the last minute may not be sealed yet."""

    ok: bool
    checked: int
    head: AuditLink
    broken: BrokenEntry | None


class Webhook(Resource):
    """Where events are sent. Values of its headers are secret: each name maps to null."""

    id: Annotated[str, Field(pattern=r"^whk_[0-9a-f]{32}$")]
    url: str
    description: str
    event_types: Annotated[list[str] | None, Field(description="null: all")]
    projects: Annotated[list[str] | None, Field(description="null: all")]
    payload: Literal["thin", "full"]
    headers: dict[str, None]
    enabled: bool
    disabled_at: AwareDatetime | None
    disabled_reason: Annotated[
        Literal["user", "gone", "failing", "key_revoked"] | None,
        Field(description="gone: it answered 410; failing: for five days without a break"),
    ]
    failing_since: AwareDatetime | None
    key_id: KeyId
    created_at: AwareDatetime


class CreatedWebhook(Webhook):
    """A webhook with a secret just made."""

    secret: Annotated[
        str | None,
        Field(description="`whsec_…`; in this answer only, null in a replayed one"),
    ]


class WebhookPage(Resource):
    """Webhooks, newest first."""

    items: list[Webhook]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class Attempt(Resource):
    """One request that was made."""

    at: AwareDatetime
    status: Annotated[int | None, Field(description="null: there was no answer")]
    duration_ms: int
    error: Annotated[str | None, Field(description="why it does not count as delivered")]


class Delivery(Resource):
    """One event on its way to one webhook."""

    id: Annotated[str, Field(pattern=r"^dlv_[0-9a-f]{32}$")]
    webhook_id: str
    event_id: Annotated[str, Field(description="the `webhook-id`, the same in every attempt")]
    event_type: str
    project: str | None
    state: Annotated[
        Literal["pending", "failed", "delivered", "dead"],
        Field(description="failed: there will be another attempt; dead: there will be none"),
    ]
    created_at: AwareDatetime
    next_attempt_at: AwareDatetime | None
    attempts: Annotated[list[Attempt], Field(description="oldest first")]


class AnswerHead(Resource):
    """The beginning of an answer, 20 kB at most: `text` when it is UTF-8, else `b64`."""

    text: str | None = None
    b64: str | None = None


class AnsweredAttempt(Attempt):
    """An attempt, with what was answered."""

    response: AnswerHead


class SentDelivery(Delivery):
    """A delivery alone."""

    attempts: list[AnsweredAttempt]  # type: ignore[assignment]  # the same and more
    body: Annotated[str, Field(description="what is signed and sent, byte for byte")]


class DeliveryPage(Resource):
    """Deliveries, newest first."""

    items: list[Delivery]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null: none")]


class Recovered(Resource):
    """What a recovery began."""

    deliveries: Annotated[int, Field(description="how many are sent again")]


ConfigKind = Literal["commands", "skills", "agents"]


class Effective(Resource):
    """What claude makes of a definition; `reason` says why not, or what restricts it."""

    loaded: Annotated[bool | None, Field(description="null: rdev cannot tell")]
    reason: str | None


class ConfigIssue(Resource):
    """Something about a definition. Strict validation refuses what has an error."""

    field: Annotated[str, Field(description="a key of the frontmatter, or a field of the body")]
    code: str
    message: str
    line: Annotated[int | None, Field(description="of the .md file, from 1")]
    level: Literal["error", "warning"]


class ConfigFile(Resource):
    """A file of a skill that is not plain text, or that can be executed."""

    text: str | None = None
    b64: str | None = None
    executable: bool


class ConfigDefinition(Resource):
    """A command, skill or agent as it is in the workspace."""

    kind: ConfigKind
    name: str
    path: str
    content: Annotated[str | None, Field(description="the .md file; null: it is not UTF-8")]
    files: Annotated[
        dict[str, str | ConfigFile], Field(description="a skill's other files; a text is itself")
    ]
    size: int
    effective: Effective
    issues: list[ConfigIssue]


class ConfigLine(Resource):
    """A definition, or what somebody may have meant as one."""

    kind: ConfigKind
    name: str
    path: str
    size: Annotated[int, Field(description="of the .md file")]
    description: str | None
    effective: Effective
    issues: list[ConfigIssue]


class ConfigPage(Resource):
    """Definitions by path; there is one page."""

    items: list[ConfigLine]
    next_cursor: None
    truncated: Annotated[bool, Field(description="there is more than rdev looks at")]


class ConfigVerdict(Resource):
    """What a check found."""

    valid: Annotated[bool, Field(description="strict validation lets it pass")]
    issues: list[ConfigIssue]


class EffectiveLine(Resource):
    """One thing that is there, and what claude makes of it."""

    kind: ConfigKind
    name: Annotated[str | None, Field(description="rdev's, from the path; null: a whole folder")]
    path: str
    shown: Annotated[str | None, Field(description="claude's own name for it")]
    effective: Effective


class EffectiveConfig(Resource):
    """Everything in the workspace's .claude by kind and path; there is one page."""

    items: list[EffectiveLine]
    next_cursor: None
    truncated: bool
    scope: Annotated[str, Field(description="what this does not speak of")]


class Alive(Resource):
    """The API answers."""

    status: Literal["alive"]


class Check(Resource):
    """One thing rdev needs."""

    status: Literal["ok", "unhealthy", "stale"]
    detail: str | None = None


class Ready(Resource):
    """Everything that is configured works."""

    status: Literal["ready"]
    checks: dict[str, Check]


class FieldProblem(Resource):
    """One wrong value."""

    field: Annotated[str, Field(description="its path in the body or query: `scopes[0]`")]
    code: str
    message: str
    line: Annotated[int | None, Field(description="of `content`; then `field` is a key there")] = (
        None
    )


class Problem(Resource):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    code: Annotated[str, Field(description="what to decide by; docs/reference/errors.md has all")]
    detail: str
    request_id: str
    errors: Annotated[list[FieldProblem] | None, Field(description="with invalid_field")] = None


class StateEvent(Resource):
    """`event: state`: the command is in another state now."""

    seq: int
    state: StateName
    reason: str | None = None
    at: AwareDatetime


class OutputEvent(Resource):
    """`event: output`: bytes from `offset` of a stream, `text` when UTF-8, else `b64`."""

    seq: int
    stream: Literal["merged", "stdout", "stderr"]
    offset: int
    text: str | None = None
    b64: str | None = None
    at: AwareDatetime


class AgentItem(BaseModel):
    """What a line of claude's says. `kind` tells which other fields there are; texts are clipped.

    `init`, `text`, `thinking`, `tool_call`, `tool_result`, `delta`, `retry`, `result`; `parent` is
    the tool call of the subagent that says it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    text: str | None = None
    parent: str | None = None


class AgentEvent(Resource):
    """`event: agent`: one line of claude's stream-json output in `raw`, and what it says in `view`.

    A line that does not fit one event (64 KiB of JSON) comes as `output` events first; the `agent`
    event behind them is `truncated`, with the line's `type`, `uuid` and `size` in bytes, and `raw`
    has only its short fields. `offset` is where the line begins in stdout.
    """

    seq: int
    stream: Literal["stdout"]
    offset: int
    raw: dict[str, Any]
    view: list[AgentItem]
    truncated: bool = False
    type: str | None = None
    uuid: str | None = None
    size: int | None = None
    at: AwareDatetime


class ApprovalEvent(Resource):
    """`event: approval`: claude asks for a permission, or it was decided.

    `truncated`: the input is too large for an event, `GET …/approvals` has it.
    """

    seq: int
    tool_use_id: str
    tool_name: str
    input: dict[str, Any] | None
    truncated: bool = False
    state: Literal["pending", "allowed", "denied", "expired"]
    message: str | None
    expires_at: AwareDatetime
    at: AwareDatetime


class UsageEvent(Resource):
    """`event: usage`: what a claude command used, once, before its `end`."""

    seq: int
    session_id: str | None
    num_turns: int | None
    cost_usd: float | None
    session_cost_usd: float | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    models: dict[str, ModelUse] | None
    at: AwareDatetime


class TruncatedEvent(Resource):
    """`event: truncated`: the stream printed more than is kept."""

    seq: int
    stream: Literal["merged", "stdout", "stderr"]
    bytes: int
    why: str
    at: AwareDatetime


class GapEvent(Resource):
    """`event: gap`: the events from `from` to `to` are no longer kept."""

    from_: Annotated[int | str, Field(alias="from")]
    to: int | str
