"""Use case: create, show, change, try and delete triggers.

A trigger acts with the rights of the key that said what it does. So whoever changes that becomes
its owner, and nobody makes one that may do more than they may themselves.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from common.domain import identifiers
from common.domain.command import NewCommand
from common.domain.errors import (
    InvalidField,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    RdevError,
    Unavailable,
)
from common.domain.keys import Caller
from common.domain.templates import Unfit
from common.domain.triggers import Channel, Inbound, Match, Trigger
from common.ports.commands import Idempotency, Origin
from common.ports.sealer import Sealer
from common.ports.triggers import CreatedTrigger, TriggerStore
from common.services.prepare_command import PrepareCommand, ToCommand
from common.services.visible import visible

Wanted = frozenset[str] | None  # the versions that If-Match names, `*` for any

_WHAT_IT_DOES: Final = frozenset({"filter", "command", "accept", "rate_limit"})


@dataclass(frozen=True)
class DryRun:
    """What an event would give. `reason`: why nothing, when it would give none."""

    matches: bool
    command: NewCommand | None = None
    reason: str | None = None
    detail: str = ""


class ManageTriggers:
    def __init__(self, store: TriggerStore, prepare: PrepareCommand, sealer: Sealer) -> None:
        self._store = store
        self._prepare = prepare
        self._sealer = sealer

    def create(
        self,
        wanted: Trigger,
        parts: dict[str, Any],
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> tuple[CreatedTrigger, str | None]:
        """The stored trigger and its secret, which is shown now and never again.

        `parts`: the secret parts of its command.

        Raises Forbidden and NotFound for what the caller may not do, InvalidField, Conflict.
        """
        _check_rights(wanted, caller)
        secret = secrets.token_hex(32)
        trigger = replace(wanted, sealed_parts=self._sealed(parts))
        sealed = self._sealer.seal(secret.encode())
        made = self._store.create(trigger, sealed, caller, origin, idempotency)
        return made, None if made.replayed else secret

    def many(self, before: UUID | None, limit: int, caller: Caller) -> list[Trigger]:
        """The newest `limit` triggers below `before` that the caller may see."""
        return visible(self._store.list, caller, before, limit)

    def one(self, text: str, caller: Caller) -> Trigger:
        """Raises NotFound, the same for a trigger of other projects as for none."""
        trigger = self._store.get(identifiers.parse(identifiers.TRIGGER, text))
        if trigger is None or not caller.sees_all(trigger.projects):
            raise NotFound.named(text)
        return trigger

    def update(
        self,
        text: str,
        wanted: Wanted,
        fields: dict[str, Any],
        parts: dict[str, Any],
        caller: Caller,
        origin: Origin,
    ) -> Trigger:
        """Change fields, named and shaped as the API does.

        Raises PreconditionRequired, PreconditionFailed, and what `create` raises.
        """
        trigger = self.one(text, caller)
        _check_version(trigger, wanted)
        changes = dict(fields)
        if _WHAT_IT_DOES & changes.keys():
            after = replace(
                trigger,
                command=fields.get("command", trigger.command),
                accept=frozenset(fields.get("accept", trigger.accept)),
            )
            _check_rights(after, caller)
            changes["key_id"] = str(caller.key_id)
        if changes:
            sealed = self._sealed(parts)
            done = self._store.update(trigger.id, trigger.version, changes, sealed, caller, origin)
            _require_ok(done, text)
        return self.one(text, caller)

    def delete(self, text: str, wanted: Wanted, caller: Caller, origin: Origin) -> None:
        """It does nothing from the next event on; what it started goes on."""
        trigger = self.one(text, caller)
        _check_version(trigger, wanted)
        _require_ok(self._store.delete(trigger.id, trigger.version, caller, origin), text)

    def rotate(
        self,
        text: str,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> tuple[CreatedTrigger, str | None]:
        """A new secret (None on a replay); the old one counts for `grace_s` seconds more."""
        trigger = self.one(text, caller)
        secret = secrets.token_hex(32)
        sealed = self._sealer.seal(secret.encode())
        made = self._store.rotate(trigger.id, sealed, grace_s, caller, origin, idempotency)
        if made is None:
            raise NotFound.named(text)
        return made, None if made.replayed else secret

    def matches(
        self, text: str, outcome: str | None, before: int | None, limit: int, caller: Caller
    ) -> Sequence[Match]:
        """What came to it and was for it, newest first."""
        return self._store.matches(self.one(text, caller).id, outcome, before, limit)

    def dry_run(self, text: str, event: Inbound, to_command: ToCommand, caller: Caller) -> DryRun:
        """What an event would give now. Nothing is stored and nothing runs."""
        trigger = self.one(text, caller)
        if not trigger.is_for(event):
            return DryRun(matches=False, reason="no_match", detail="the event is not for it")
        for wrong, reason, detail in (
            (event.is_ours, "loop", "events of rdev itself start nothing"),
            (not trigger.enabled, "trigger_off", "the trigger is disabled"),
            (
                str(event.channel) not in trigger.accept,
                "not_accepted",
                f"the trigger takes nothing that comes by {event.channel}",
            ),
        ):
            if wrong:
                return DryRun(matches=True, reason=reason, detail=detail)
        try:
            command, _ = self._prepare(trigger, event, to_command)
        except Unavailable:
            raise
        except (RdevError, Unfit) as error:
            return DryRun(matches=True, reason=error.code, detail=error.detail)
        return DryRun(matches=True, command=command)

    def _sealed(self, parts: dict[str, Any]) -> bytes | None:
        return self._sealer.seal(json.dumps(parts).encode()) if parts else None


def _check_version(trigger: Trigger, wanted: Wanted) -> None:
    if wanted is None:
        raise PreconditionRequired("send If-Match with the ETag of what you change")
    if wanted.isdisjoint({"*", str(trigger.version)}):
        raise PreconditionFailed("the trigger was changed meanwhile: read it again")


def _require_ok(status: str, text: str) -> None:
    if status == "stale":
        raise PreconditionFailed("the trigger was changed meanwhile: read it again")
    if status != "ok":
        raise NotFound.named(text)


def _check_rights(trigger: Trigger, caller: Caller) -> None:
    for kind in sorted(trigger.kinds):
        caller.require(f"commands:write:{kind}")
    for project in sorted(trigger.projects):
        caller.require_project(project)
    if Channel.BROKER not in trigger.accept:
        return
    caller.require("triggers:broker")
    if len(trigger.projects) != 1:
        raise InvalidField.one(
            "command.projects",
            "invalid_trigger",
            "command.projects: anyone in the cluster reaches a broker, so name one project only",
        )
