"""Use case: say how the system is, from SQL truth only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.domain.errors import Unavailable
from common.ports.dependencies import KUBERNETES
from common.ports.status import Dependency, SystemStatus

STALE: Final = timedelta(seconds=90)
WORKSPACE: Final = "workspace/"  # as `ports.dependencies.workspace` names them
DISCOVERY: Final = f"discovery/{KUBERNETES}"  # the registry's view, as the status names it
_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}


class Health:
    """`kubernetes`: whether workspaces are pods, so that its checks count and must be there.

    None takes what the table has.
    """

    def __init__(self, status: SystemStatus, *, kubernetes: bool | None = None) -> None:
        self._status = status
        self._kubernetes = kubernetes
        self._compatible = False

    def require_compatible_schema(self) -> None:
        """Raise Unavailable when code and schema do not fit; unknown (database down) passes."""
        if self._compatible:
            return
        try:
            version, min_compatible = self._status.schema_version()
        except Unavailable:
            return
        ours = self._status.code_version
        if version < ours or min_compatible > ours:
            raise Unavailable(
                f"the database's schema is {version} (compatible from {min_compatible}), "
                f"this code needs {ours}: run `rdev migrate`"
            )
        self._compatible = True

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything that is configured works, and each check with its state."""
        checks: dict[str, Any] = {"database": self._database()}
        if checks["database"]["status"] == "ok":
            checks |= {d.name: _shown(d) for d in self._dependencies()}
            if self._kubernetes:
                checks.setdefault(KUBERNETES, {"status": "stale", "detail": "it was never asked"})
                why = checks[KUBERNETES]["detail"]  # also of a failure that opened no breaker yet
                never = "projects were never read" + (f": {why}" if why else "")
                checks.setdefault(DISCOVERY, {"status": "stale", "detail": never})
        # One broken workspace is its project's trouble; the system works for all others.
        core = [c for name, c in checks.items() if not name.startswith(WORKSPACE)]
        return all(c["status"] == "ok" for c in core), checks

    def metrics(self) -> str:
        """Prometheus text: gauges of what the tables say now."""
        n = self._status.numbers()
        lines = ["# TYPE rdev_commands gauge"]
        lines += [
            f'rdev_commands{{kind="{kind}",state="{state}"}} {count}'
            for (kind, state), count in sorted(n.commands.items())
        ]
        lines.append("# TYPE rdev_queue_depth gauge")
        lines += [f'rdev_queue_depth{{priority="{p}"}} {c}' for p, c in n.queue_depth.items()]
        if n.dead_letters:
            lines.append("# TYPE rdev_dead_letters gauge")
            lines += [
                f'rdev_dead_letters{{reason="{r}"}} {c}' for r, c in sorted(n.dead_letters.items())
            ]
        if found := self._dependencies():
            lines.append("# TYPE rdev_breaker_state gauge")
            lines += [
                f'rdev_breaker_state{{dep="{d.name}"}} {_BREAKER.get(d.state, 2)}' for d in found
            ]
        for name, value in (
            ("rdev_queue_oldest_age_seconds", n.oldest_age_s),
            ("rdev_outbox_pending", n.outbox_pending),
            ("rdev_outbox_oldest_age_seconds", n.outbox_oldest_age_s),
        ):
            lines += [f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"

    def _dependencies(self) -> list[Dependency]:
        """Those that are configured; rows of an earlier configuration say nothing any more."""
        return [] if self._kubernetes is False else self._status.dependencies()

    def _database(self) -> dict[str, Any]:
        try:
            self._status.ping()
            self.require_compatible_schema()
        except Unavailable as error:
            return {"status": "unhealthy", "detail": error.detail}
        return {"status": "ok"}


def _shown(dependency: Dependency) -> dict[str, Any]:
    if datetime.now(UTC) - dependency.checked_at > STALE:
        return {"status": "stale", "detail": dependency.detail}
    healthy = dependency.state == "closed"
    return {"status": "ok" if healthy else "unhealthy", "detail": dependency.detail}
