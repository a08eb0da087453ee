"""What a run came to: from the workspace's exit record to a state and an outcome, truthfully.

Every row of data.md's table of states and reasons is decided here and nowhere else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.domain.command import Kind, Reason, State
from common.domain.events import TRUNCATED, NewEvent
from common.domain.workspace import ExitRecord, StreamTotal

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_TIMEOUTS: Final = {"run_timeout": Reason.RUN, "idle_timeout": Reason.IDLE}
_KILLED: Final = {str(r): r for r in (Reason.USER, Reason.SHUTDOWN, Reason.KEY_REVOKED)}
RESULT_SEEN: Final = "result_seen"  # why a claude was ended that did not exit after its result
_SILENT_ANSWER: Final = "answer_in_transcript"  # the supervisor's word for it
_UNKNOWN_SESSION: Final = "No conversation found with session ID"
_DEEPEST: Final = 32  # levels of a result that are kept


@dataclass(frozen=True)
class Conclusion:
    """The final state of a command and the outcome callers see.

    `said`: events that are stored with the end or not at all, so that none of them comes twice.
    """

    state: State
    outcome: dict[str, Any]
    said: tuple[NewEvent, ...] = ()


def never_ran(reason: Reason) -> dict[str, Any]:
    """The outcome of a command that ended before anything ran."""
    return _outcome(reason, None, None, 0, _total(StreamTotal(0, EMPTY_SHA256)), None)


def conclude(
    kind: Kind,
    record: ExitRecord,
    result: dict[str, Any] | None,
    *,
    separate: bool,
    unconnected: Sequence[str] = (),
) -> Conclusion:
    """State and outcome of a run that left an exit record; `result` is claude's result line.

    `unconnected`: MCP servers that were required and are not connected, as claude said.
    """
    state, reason = _verdict(kind, record, result, unconnected)
    out = _total(record.stdout, stderr=record.stderr if separate else None)
    outcome = _outcome(
        reason,
        record.code,
        record.signal,
        record.orphans,
        out,
        _agent(result) if kind is Kind.CLAUDE else None,
    )
    if detail := _detail(reason, record, result, unconnected):
        outcome["detail"] = detail
    return Conclusion(state, outcome, tuple(_cuts(record, separate=separate)))


def lost(reason: Reason, sizes: dict[str, int], digests: dict[str, str]) -> Conclusion:
    """A run nobody can vouch for; `sizes` and `digests` are of what was stored of it."""
    main = "merged" if "merged" in sizes else "stdout"
    out: dict[str, Any] = {
        "bytes": sizes.get(main, 0),
        "sha256": digests.get(main, EMPTY_SHA256),
        "truncated": True,
        "stderr": None,
    }
    if "stderr" in sizes:
        out["stderr"] = {
            "bytes": sizes["stderr"],
            "sha256": digests.get("stderr", EMPTY_SHA256),
            "truncated": True,
        }
    return Conclusion(State.LOST, _outcome(reason, None, None, 0, out, None))


def _cuts(record: ExitRecord, *, separate: bool) -> Iterator[NewEvent]:
    """A word for each stream of which more was printed than is kept."""
    totals = {"stdout" if separate else "merged": record.stdout}
    if separate:
        totals["stderr"] = record.stderr
    for stream, total in totals.items():
        if total.truncated:
            said = {"stream": stream, "bytes": total.size, "why": total.truncated}
            yield NewEvent.of(TRUNCATED, said)


def _detail(
    reason: Reason,
    record: ExitRecord,
    result: dict[str, Any] | None,
    unconnected: Sequence[str],
) -> str:
    """What the reason alone does not say."""
    if reason is Reason.MCP_FAILED:
        return f"not connected: {', '.join(unconnected)}"
    if record.reason == RESULT_SEEN:
        return "claude did not exit after its result and was ended"
    if record.detail == _SILENT_ANSWER:
        # Only worth a word when it is all there is.
        return "" if result else "the answer is in the session's transcript: resume the session"
    return record.detail


def _verdict(
    kind: Kind,
    record: ExitRecord,
    result: dict[str, Any] | None,
    unconnected: Sequence[str],
) -> tuple[State, Reason]:
    if record.reason in _KILLED:
        return State.CANCELLED, _KILLED[record.reason]
    if record.reason in _TIMEOUTS:
        return State.TIMED_OUT, _TIMEOUTS[record.reason]
    if record.reason == "start_failed":
        return State.FAILED, Reason.START_FAILED
    if record.reason == Reason.MCP_FAILED:
        return State.FAILED, Reason.MCP_FAILED
    if record.reason == RESULT_SEEN and result is not None:  # its exit was our doing
        return _agent_verdict(0, result, unconnected)
    if record.code is None:  # nobody saw the exit
        return State.LOST, Reason.SUPERVISOR
    if record.signal is not None:
        return State.FAILED, Reason.SIGNALLED
    if kind is Kind.CLAUDE and record.code in (0, 1):
        return _agent_verdict(record.code, result, unconnected)
    if record.code == 0:
        return State.SUCCEEDED, Reason.EXIT_ZERO
    return State.FAILED, Reason.EXIT_NONZERO


_SUBTYPES: Final = {
    "error_max_turns": Reason.MAX_TURNS,
    "error_max_budget_usd": Reason.MAX_BUDGET,
}


def _agent_verdict(
    code: int, result: dict[str, Any] | None, unconnected: Sequence[str]
) -> tuple[State, Reason]:
    """claude exits 0 without a result and says `success` of an API error: believe neither alone."""
    if result is None:
        return State.FAILED, Reason.NO_RESULT if code == 0 else Reason.EXIT_NONZERO
    subtype, text = str(result.get("subtype")), result.get("result")
    if subtype in _SUBTYPES:
        return State.FAILED, _SUBTYPES[subtype]
    if _UNKNOWN_SESSION in str(result.get("errors")):
        return State.FAILED, Reason.SESSION_UNKNOWN
    if result.get("num_turns") == 0 and str(text).startswith("Unknown command: "):
        return State.FAILED, Reason.UNKNOWN_SLASH_COMMAND
    if result.get("is_error") is not False:
        return State.FAILED, Reason.API_ERROR if subtype == "success" else Reason.AGENT_ERROR
    if code != 0:
        return State.FAILED, Reason.EXIT_NONZERO
    if unconnected:
        return State.FAILED, Reason.MCP_FAILED
    if result.get("permission_denials"):
        return State.SUCCEEDED, Reason.COMPLETED_WITH_DENIALS
    return State.SUCCEEDED, Reason.EXIT_ZERO


def _agent(result: dict[str, Any] | None) -> dict[str, Any] | None:
    if result is None:
        return None
    shown = {
        "session_id": result.get("session_id"),
        "num_turns": result.get("num_turns"),
        "cost_usd": result.get("total_cost_usd"),
        "usage": result.get("usage"),
        "permission_denials": result.get("permission_denials") or [],
        "result": result.get("result"),
        "structured_output": result.get("structured_output"),
    }
    return {name: _storable(value, _DEEPEST) for name, value in shown.items()}


def _storable(value: Any, depth: int) -> Any:
    """What jsonb can hold of `value`: else a model that said NUL would keep a command from ending.

    The stream has the line as it was.
    """
    if isinstance(value, str):
        return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict | list) and not depth:
        return None
    if isinstance(value, dict):
        return {_storable(k, 0): _storable(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_storable(v, depth - 1) for v in value]
    return value


def _total(main: StreamTotal, stderr: StreamTotal | None = None) -> dict[str, Any]:
    total: dict[str, Any] = {
        "bytes": main.size,
        "sha256": main.sha256,
        "truncated": bool(main.truncated),
        "stderr": None,
    }
    if stderr is not None:
        total["stderr"] = {
            "bytes": stderr.size,
            "sha256": stderr.sha256,
            "truncated": bool(stderr.truncated),
        }
    return total


def _outcome(
    reason: Reason,
    code: int | None,
    signal: int | None,
    orphans: int,
    output: dict[str, Any],
    agent: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "reason": str(reason),
        "exit_code": code,
        "signal": signal,
        "orphans_killed": orphans,
        "output": output,
        "agent": agent,
    }
