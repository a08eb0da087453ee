"""Use case: say how the system is, from SQL truth only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.domain.errors import Unavailable
from common.ports.status import Dependency, SystemStatus

STALE: Final = timedelta(seconds=90)


class Health:
    def __init__(self, status: SystemStatus) -> None:
        self._status = status
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
            for dependency in self._status.dependencies():
                checks[dependency.name] = _shown(dependency)
        return all(c["status"] == "ok" for c in checks.values()), checks

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
        for name, value in (
            ("rdev_queue_oldest_age_seconds", n.oldest_age_s),
            ("rdev_outbox_pending", n.outbox_pending),
            ("rdev_outbox_oldest_age_seconds", n.outbox_oldest_age_s),
        ):
            lines += [f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"

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
