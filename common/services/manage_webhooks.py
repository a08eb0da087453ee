"""Use case: create, show, change, test and repair webhooks, and read what became of deliveries.

An endpoint belongs to the key that made it and hears no more than that key may know. Other keys
see it when they see all of its projects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from common.domain import identifiers, webhooks
from common.domain.errors import Conflict, Forbidden, InvalidField, NotFound
from common.domain.keys import Caller
from common.domain.scopes import grants
from common.domain.webhooks import Delivery, Endpoint
from common.ports.commands import Idempotency, Origin
from common.ports.sealer import Sealer
from common.ports.webhooks import (
    Courier,
    CreatedEndpoint,
    DeliveryFilter,
    Range,
    SenderBell,
    Sent,
    WebhookStore,
)
from common.services.visible import visible

LONGEST_RANGE: Final = timedelta(days=100)  # longer than events are kept


class ManageWebhooks:
    def __init__(
        self, store: WebhookStore, courier: Courier, sealer: Sealer, bell: SenderBell
    ) -> None:
        self._store = store
        self._courier = courier
        self._sealer = sealer
        self._bell = bell

    def create(
        self,
        wanted: Endpoint,
        headers: Mapping[str, str],
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> tuple[CreatedEndpoint, str | None]:
        """The stored endpoint and its secret, which is shown now and never again (None: replay).

        Without projects it is for all of its key's. Raises InvalidField, Forbidden, Conflict.
        """
        if wanted.projects is None:
            wanted = replace(wanted, projects=caller.projects)
        _check_rights(wanted.projects, wanted.event_types, caller)
        self._courier.check(wanted.url)
        secret = webhooks.new_secret()
        endpoint = replace(wanted, header_names=tuple(sorted(headers)))
        created = self._store.create(
            endpoint,
            self._sealed(headers),
            self._sealer.seal(secret.encode()),
            caller,
            origin,
            idempotency,
        )
        return created, None if created.replayed else secret

    def many(self, before: UUID | None, limit: int, caller: Caller) -> list[Endpoint]:
        """The newest `limit` endpoints below `before` that the caller may see."""
        return visible(self._store.list, caller, before, limit)

    def one(self, text: str, caller: Caller) -> Endpoint:
        """Raises NotFound, the same for one of other projects as for none."""
        endpoint = self._store.get(identifiers.parse(identifiers.WEBHOOK, text))
        if endpoint is None or not caller.sees_all(endpoint.projects):
            raise NotFound.named(text)
        return endpoint

    def update(
        self,
        text: str,
        changes: dict[str, Any],
        headers: Mapping[str, str] | None,
        caller: Caller,
        origin: Origin,
    ) -> Endpoint:
        """Change fields of Endpoint, and `enabled`; `headers`, when given, replace all headers."""
        endpoint = self.one(text, caller)
        if "projects" in changes and changes["projects"] is None:
            changes = changes | {"projects": caller.projects}
        _check_rights(
            changes.get("projects", endpoint.projects),
            changes.get("event_types", endpoint.event_types),
            caller,
        )
        if "url" in changes:
            self._courier.check(changes["url"])
        if headers is not None:
            changes = changes | {"header_names": sorted(headers)}
        if changes:
            sealed = self._sealed(headers or {})
            if not self._store.update(endpoint.id, changes, sealed, caller, origin):
                raise NotFound.named(text)
        if changes.get("enabled"):
            self._bell.ring()
        return self.one(text, caller)

    def delete(self, text: str, caller: Caller, origin: Origin) -> None:
        """Nothing more is sent; its secrets are forgotten."""
        if not self._store.delete(self.one(text, caller).id, caller, origin):
            raise NotFound.named(text)

    def rotate(
        self,
        text: str,
        grace_s: int,
        caller: Caller,
        origin: Origin,
        idempotency: Idempotency | None,
    ) -> tuple[Endpoint, str | None]:
        """A new secret (None on a replay); the old one signs on beside it for `grace_s`."""
        endpoint = self.one(text, caller)
        secret = webhooks.new_secret()
        sealed = self._sealer.seal(secret.encode())
        status = self._store.rotate(endpoint.id, sealed, grace_s, caller, origin, idempotency)
        if status == "unknown":
            raise NotFound.named(text)
        return endpoint, None if status == "replay" else secret

    def ping(self, text: str, caller: Caller, origin: Origin) -> Delivery:
        """Send a `webhook.ping` through the same door as everything else."""
        endpoint = self.one(text, caller)
        delivery_id = self._store.ping(endpoint.id, caller, origin)
        if delivery_id is None:
            raise _disabled(endpoint)
        self._bell.ring()
        return self._delivery(endpoint, delivery_id).delivery

    def deliveries(self, text: str, wanted: DeliveryFilter, caller: Caller) -> list[Delivery]:
        """Newest first."""
        return self._store.deliveries(self.one(text, caller).id, wanted)

    def delivery(self, text: str, delivery: str, caller: Caller) -> Sent:
        """One delivery with what is sent and what was answered. Raises NotFound."""
        endpoint = self.one(text, caller)
        return self._delivery(endpoint, identifiers.parse(identifiers.DELIVERY, delivery))

    def redeliver(self, text: str, delivery: str, caller: Caller, origin: Origin) -> Delivery:
        """Begin its schedule anew, under the same webhook-id. Raises NotFound, Conflict."""
        endpoint = self.one(text, caller)
        delivery_id = identifiers.parse(identifiers.DELIVERY, delivery)
        self._delivery(endpoint, delivery_id)
        if endpoint.disabled_at is not None:
            raise _disabled(endpoint)
        self._store.redeliver(endpoint.id, delivery_id, caller, origin)
        self._bell.ring()
        return self._delivery(endpoint, delivery_id).delivery

    def recover(self, text: str, wanted: Range, caller: Caller, origin: Origin) -> int:
        """Send what was missed in a range of time; answers how many deliveries that are.

        Raises InvalidField for a range that is none or longer than events are kept, Conflict while
        the endpoint is disabled.
        """
        endpoint = self.one(text, caller)
        if wanted.since >= wanted.until:
            raise InvalidField.one("since", "empty_range", "since: must lie before until and now")
        if wanted.until - wanted.since > LONGEST_RANGE:
            raise InvalidField.one("since", "too_far", "since: a range has 100 days at most")
        if endpoint.disabled_at is not None:
            raise _disabled(endpoint)
        count = self._store.recover(endpoint.id, wanted, caller, origin)
        if count:
            self._bell.ring()
        return count

    def _delivery(self, endpoint: Endpoint, delivery_id: UUID) -> Sent:
        sent = self._store.delivery(endpoint.id, delivery_id)
        if sent is None:
            shown = identifiers.show(identifiers.DELIVERY, delivery_id)
            raise NotFound.named(shown)
        return sent

    def _sealed(self, headers: Mapping[str, str]) -> bytes | None:
        return self._sealer.seal(json.dumps(dict(headers)).encode()) if headers else None


def _check_rights(
    projects: frozenset[str] | None, types: frozenset[str] | None, caller: Caller
) -> None:
    if not caller.sees_all(projects):
        raise Forbidden("this key cannot listen to projects it does not see")
    if any(t.startswith("key.") for t in types or ()) and not grants(caller.scopes, "keys:admin"):
        raise Forbidden("only a key with keys:admin hears of keys")


def _disabled(endpoint: Endpoint) -> Conflict:
    return Conflict(f"the webhook is disabled ({endpoint.disabled_reason}); enable it first")
