"""SessionStore in dicts."""

from __future__ import annotations

from uuid import UUID

from common.adapters.memory.state import MemoryState
from common.domain.accounting import main_model, number
from common.domain.command import ACTIVE, Command, Kind, Reason, State
from common.domain.session import Session

_NEVER_IN_IT = (Reason.SESSION_UNKNOWN, Reason.START_FAILED)


class MemorySessionStore:
    """Sessions, out of the commands themselves."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def get(self, project: str, session_id: str) -> Session | None:
        with self._state.lock:
            known = {c.session for c in self._used(project)}
            return self._session(project, session_id) if session_id in known else None

    def _used(self, project: str) -> list[Command]:
        commands = (row.command for row in self._state.by_id())
        return [c for c in commands if c.project == project and _worked(c)]

    def _session(self, project: str, session_id: str | None) -> Session:
        assert session_id is not None
        used = [c for c in self._used(project) if c.session == session_id]
        all_of_it = [
            row.command
            for row in self._state.by_id()
            if (row.command.project, row.command.session) == (project, session_id)
        ]
        agents = [(c.outcome or {}).get("agent") or {} for c in used]
        models = [model for c in reversed(used) if (model := _model(c))]
        sources = [c.spec.get("session") or {} for c in used]
        return Session(
            id=session_id,
            project=project,
            busy_with=next((c.id for c in all_of_it if c.state in ACTIVE), None),
            waiting=sum(c.state is State.QUEUED for c in all_of_it),
            forked_from=next((s["id"] for s in sources if s.get("mode") == "fork"), None),
            model=models[0] if models else None,
            commands=len(used),
            turns=int(sum(number(a.get("num_turns")) for a in agents)),
            cost_usd=sum(number(a.get("cost_usd")) for a in agents),
            first_command=used[0].id,
            last_command=used[-1].id,
            started_at=min(c.started_at for c in used if c.started_at),
            last_used_at=max(at for c in used if (at := c.finished_at or c.started_at)),
        )

    def list(self, project: str, before: UUID | None, limit: int) -> list[Session]:
        with self._state.lock:
            found = [self._session(project, s) for s in {c.session for c in self._used(project)}]
            page = [s for s in found if before is None or s.last_command < before]
            return sorted(page, key=lambda s: s.last_command, reverse=True)[:limit]


def _model(command: Command) -> str | None:
    named: str | None = (command.spec.get("options") or {}).get("model")
    return main_model(command.outcome) or named


def _worked(command: Command) -> bool:
    """Whether claude was started in a session that it knew."""
    return (
        command.kind is Kind.CLAUDE
        and command.session is not None
        and command.started_at is not None
        and (command.outcome or {}).get("reason") not in _NEVER_IN_IT
    )
