"""Every folder under functions/ is one function, declared the way all others are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.domain.scopes import ALL
from common.entrypoints.function import Account, Function
from infra.generation import capacity, declared

ROOT = declared.ROOT
FUNCTIONS = declared.functions()
ROUTES = [(f, r) for f in FUNCTIONS for r in f.routes]
# A main.py declares and handles; what is longer belongs into a service.
MOST_LINES = 130
# Operations that ask for no key, each because it must not.
OPEN = {
    ("health", "GET", "/health"): "load balancers have no key",
    ("health", "GET", "/ready"): "load balancers have no key",
    ("health", "GET", "/metrics"): "not routed in public; counts only",
    ("reference", "GET", "/openapi.json"): "public documentation",
    ("reference", "GET", "/docs"): "public documentation",
    ("reference", "GET", "/schemas/{schema}"): "public documentation",
    ("on_command_finished", "POST", "/"): "cluster-local doorbell without authority",
    ("on_command_queued", "POST", "/"): "cluster-local doorbell without authority",
    ("on_command_queued", "POST", "/follow"): "cluster-local, holds and changes nothing",
    ("events", "POST", "/v1/events/github/{trigger}"): "the body's signature says who sent it",
    ("on_command_requested", "POST", "/"): "cluster-local; a trigger says what may run",
    ("on_dead_letter", "POST", "/"): "cluster-local, the broker has no key",
    ("on_pods_changed", "POST", "/"): "cluster-local doorbell without authority",
    ("on_tick", "POST", "/"): "cluster-local doorbell without authority",
    ("on_webhook_due", "POST", "/"): "cluster-local doorbell without authority",
    ("on_webhook_due", "POST", "/follow"): "cluster-local, holds and changes nothing",
}


@pytest.mark.parametrize(
    "folder",
    [p for p in sorted((ROOT / "functions").glob("*/")) if p.name != "__pycache__"],
    ids=lambda p: p.name,
)
def test_a_folder_is_a_function(folder: Path) -> None:
    """It has a main.py that is short and a package marker, so that disk, import and image agree."""
    assert (folder / "__init__.py").exists()
    assert len((folder / "main.py").read_text().splitlines()) <= MOST_LINES
    assert folder.name in {f.name for f in FUNCTIONS}


def test_every_operation_has_a_scope_or_is_open_on_purpose() -> None:
    """An operation without a scope is on the list above, with its reason, and nothing else is."""
    unscoped = {(f.name, r.method, r.path) for f, r in ROUTES if not r.scopes}
    assert unscoped == set(OPEN)


def test_scopes_are_of_the_closed_list() -> None:
    """No operation asks for a scope that no key could have."""
    assert {scope for _, r in ROUTES for scope in r.scopes} <= set(ALL)


def test_only_functions_that_seal_or_open_secrets_get_their_keys() -> None:
    """Those that submit commands, the runner, and webhooks with their sender, nowhere else."""
    assert {f.name for f in FUNCTIONS if f.secret_keys} == {
        "commands",
        "events",
        "on_command_queued",
        "on_command_requested",
        "on_webhook_due",
        "projects",
        "triggers",
        "webhooks",
    }


def test_rights_in_kubernetes_are_with_four_functions() -> None:
    """What runs commands and what writes .claude may exec, watcher and tick may list, no more."""
    assert {f.name: f.account for f in FUNCTIONS if f.account is not Account.API} == {
        "claude_config": Account.RUNNER,
        "on_command_queued": Account.RUNNER,
        "on_pods_changed": Account.WATCHER,
        "on_tick": Account.WATCHER,
    }


def test_timeouts_leave_time_to_drain() -> None:
    """SIGTERM comes 30 s late and SIGKILL at timeoutSeconds, so every function has 60 s or more."""
    assert [f.name for f in FUNCTIONS if f.scale.timeout_s < 60] == []


def test_a_database_connection_is_there_for_every_instance() -> None:
    """All instances that Knative may start fit max_connections, and more would be refused."""
    assert capacity.complaint(FUNCTIONS, ROOT) is None
    more = [*FUNCTIONS, *FUNCTIONS]
    assert "RDEV_PG_MAX_CONNECTIONS" in (capacity.complaint(more, ROOT) or "")


def test_two_functions_cannot_share_a_prefix() -> None:
    """A gateway routes by prefix alone, so the second owner of one is refused."""
    twins = [
        Function(name="one", summary="", prefixes=("/v1/x",)),
        Function(name="two", summary="", prefixes=("/v1/x",)),
    ]
    with pytest.raises(declared.DeclarationError, match=re.escape("/v1/x belongs to one and two")):
        declared._check_prefixes(twins)
