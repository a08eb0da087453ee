"""Every environment variable rdev reads, read once per process and described here.

The docs table in docs/reference/settings.md is generated from these fields, so a setting that is not
described does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import unquote

Network = IPv4Network | IPv6Network


def _setting(variable: str, default: Any, what: str) -> Any:
    return field(default=default, metadata={"variable": variable, "what": what})


@dataclass(frozen=True)
class Settings:
    """One process's configuration."""

    database_url: str = _setting(
        "RDEV_DATABASE_URL",
        "",
        "PostgreSQL to use, `postgresql://user@host/db`; `?host=/dir` for a socket",
    )
    listen_url: str = _setting(
        "RDEV_DATABASE_LISTEN_URL",
        "",
        "direct PostgreSQL for LISTEN and migrations where a pooler stands between; default: RDEV_DATABASE_URL",
    )
    pool_open: int = _setting("RDEV_PG_POOL", 25, "connections a process opens at most")
    pool_idle: int = _setting("RDEV_PG_IDLE", 10, "connections a process keeps idle at most")
    secret_keys: tuple[str, ...] = _setting(
        "RDEV_SECRET_KEYS", (), "Fernet keys for secrets at rest, comma-separated, newest first"
    )
    broker_url: str = _setting(
        "RDEV_BROKER_URL",
        "",
        "the broker's ingress; events are POSTed here; empty: events wait in the outbox",
    )
    service_url: str = _setting(
        "RDEV_SERVICE_URL",
        "http://{service}.rdev.svc.cluster.local",
        "a function's own address, `{service}` replaced",
    )
    workspaces: str = _setting(
        "RDEV_WORKSPACES", "local", "where commands run: `local` directories or `kubernetes` pods"
    )
    home: str = _setting(
        "RDEV_HOME",
        ".rdev",
        "laptop only: holds workspaces/, projects.yaml and the run directories",
    )
    claude_credentials: str = _setting(
        "RDEV_CLAUDE_CREDENTIALS",
        "",
        "folder with a file for each project that names a credential for claude; empty: `claude-credentials` in RDEV_HOME",
    )
    kubeconfig: str = _setting(
        "KUBECONFIG", "", "kubeconfig files, as kubectl reads it; empty: the pod's own account"
    )
    kubernetes_context: str = _setting(
        "RDEV_KUBERNETES_CONTEXT", "", "context of the kubeconfig; empty: its current one"
    )
    kubernetes_namespace: str = _setting(
        "RDEV_KUBERNETES_NAMESPACE",
        "",
        "namespace of the workspace pods; empty: the pod's own, or the context's",
    )
    workspace_runs: str = _setting(
        "RDEV_WORKSPACE_RUNS",
        "/tmp/.rdev/runs",  # noqa: S108  # in the workspace, made with umask 077  # nosec B108
        "folder in a pod for run directories: on a volume that outlives the container, writable, outside the work tree",
    )
    breaker_failures: int = _setting(
        "RDEV_BREAKER_FAILURES", 5, "failures in a row after which a dependency is not asked"
    )
    breaker_open_s: int = _setting(
        "RDEV_BREAKER_OPEN_S",
        5,
        "seconds that it is not asked at first; doubled up to 6 times that",
    )
    runner_commands: int = _setting(
        "RDEV_RUNNER_COMMANDS", 10, "commands one runner process follows at most"
    )
    output_cap: int = _setting(
        "RDEV_OUTPUT_CAP",
        1 << 30,
        "bytes of output kept per command and stream; beyond it the cut is marked",
    )
    approval_s: int = _setting(
        "RDEV_APPROVAL_TIMEOUT_S",
        900,
        "seconds that a permission request of claude waits for an answer; then it is denied",
    )
    max_body: int = _setting("RDEV_MAX_BODY", 1 << 20, "bytes of a request body at most")
    stream_max_age_s: int = _setting(
        "RDEV_STREAM_MAX_AGE_S", 300, "seconds after which a stream asks its client to reconnect"
    )
    streams_per_key: int = _setting(
        "RDEV_STREAMS_PER_KEY", 50, "open streams of one key in one stream process at most"
    )
    waiters: int = _setting(
        "RDEV_WAITERS", 30, "requests with `Prefer: wait` one process holds at most"
    )
    drain_s: int = _setting("RDEV_DRAIN_S", 30, "seconds a stopping process gives its requests")
    trusted_proxies: tuple[Network, ...] = _setting(
        "RDEV_TRUSTED_PROXIES", (), "CIDRs of pods and load balancers whose X-Forwarded-For counts"
    )
    edge_overwrites: bool = _setting(
        "RDEV_EDGE_OVERWRITES",
        False,
        "1: the edge overwrites X-Forwarded-For, so its leftmost address counts when all hops are trusted",
    )
    webhook_allow: tuple[Network, ...] = _setting(
        "RDEV_WEBHOOK_ALLOW",
        (),
        "CIDRs of the inside that webhooks may be sent to, by http and to any port too; empty: none",
    )
    public_url: str = _setting(
        "RDEV_PUBLIC_URL",
        "https://rdev.orchard9.ai",
        "where callers reach this API; events name their schemas below it",
    )
    output_days: int = _setting("RDEV_KEEP_OUTPUT_DAYS", 14, "days that events and output are kept")
    commands_days: int = _setting(
        "RDEV_KEEP_COMMANDS_DAYS", 90, "days that ended commands are kept"
    )
    audit_days: int = _setting("RDEV_KEEP_AUDIT_DAYS", 400, "days that the audit trail is kept")
    idempotency_hours: int = _setting(
        "RDEV_KEEP_IDEMPOTENCY_HOURS", 24, "hours that an Idempotency-Key is remembered"
    )
    dead_letters_days: int = _setting(
        "RDEV_KEEP_DEAD_LETTERS_DAYS", 30, "days that dead letters are kept"
    )
    deliveries_days: int = _setting(
        "RDEV_KEEP_DELIVERIES_DAYS",
        90,
        "days that webhooks' deliveries are kept, and events that can be sent again",
    )
    runs_hours: int = _setting(
        "RDEV_KEEP_RUNS_HOURS",
        24,
        "hours that a run directory stays in the workspace after its end",
    )
    log_level: str = _setting("RDEV_LOG_LEVEL", "info", "debug, info, warning or error")

    @property
    def listen(self) -> str:
        """The database without a pooler: where LISTEN connects, and where migrations run."""
        return self.listen_url or self.database_url

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may hold: keys, and the databases' passwords as written and as meant."""
        written = [
            url.partition("://")[2].rpartition("@")[0].partition(":")[2]
            for url in (self.database_url, self.listen_url)
        ]
        return (*self.secret_keys, *written, *map(unquote, written))


_EMPTY: Final = ("", None)
_NETWORKS: Final = frozenset({"RDEV_TRUSTED_PROXIES", "RDEV_WEBHOOK_ALLOW"})


def _read(text: str, default: Any, variable: str) -> Any:
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, tuple):
            parts = tuple(p.strip() for p in text.split(",") if p.strip())
            return tuple(ip_network(p) for p in parts) if variable in _NETWORKS else parts
    except (KeyError, ValueError) as error:
        raise SystemExit(f"rdev: {variable}={text!r} cannot be read: {error}") from None
    return text


def read(environment: Mapping[str, str]) -> Settings:
    """Settings from an environment; a value that cannot be read ends the process and says which."""
    given: dict[str, Any] = {}
    for f in fields(Settings):
        text = environment.get(f.metadata["variable"])
        if text not in _EMPTY:
            given[f.name] = _read(str(text), f.default, f.metadata["variable"])
    return Settings(**given)


@cache
def settings() -> Settings:
    """This process's settings; read after a fork, never before."""
    return read(os.environ)
