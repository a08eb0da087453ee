"""Use case: a delivery of GitHub, known by its signature, becomes an event for one trigger.

The signature covers the body and nothing else: a header can be forged by whoever has seen one
delivery. So a delivery is told from others by its body, and what the headers say besides (its id,
the kind of event) can only be said once for it.

Attributes follow the CloudEvents adapter for GitHub, except that `source` is always the page of the
repository (`https://github.com/acme/site`): `repository.url` is that in some events and an address
of the API in others.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from common.domain import identifiers
from common.domain.errors import InvalidRequest, NotFound, Unauthorized
from common.domain.events import dumps
from common.domain.triggers import Channel, Inbound
from common.ports.commands import Origin
from common.ports.sealer import Sealer
from common.ports.triggers import TriggerStore
from common.services.prepare_command import ToCommand
from common.services.receive import Receive, Received

_NOBODY: Final = "0" * 64  # signs for triggers that are not there, so that they answer as others do
_SIGNATURE: Final = re.compile(r"sha256=[0-9a-f]{64}")
_DELIVERY: Final = re.compile(r"[A-Za-z0-9-]{1,100}")
_WORD: Final = re.compile(r"[a-z_]{1,60}")
MAX_ATTRIBUTE: Final = 1024


class ReceiveGithub:
    def __init__(self, triggers: TriggerStore, sealer: Sealer, receive: Receive) -> None:
        self._triggers = triggers
        self._sealer = sealer
        self._receive = receive

    def __call__(
        self,
        trigger_id: str,
        headers: Mapping[str, str],
        body: bytes,
        payload_of: Callable[[bytes], Any],
        to_command: ToCommand,
        origin: Origin,
    ) -> Received | None:
        """What became of it; None for a ping.

        Raises Unauthorized for a signature that does not fit and for no such trigger alike, then
        InvalidRequest.
        """
        trigger = self._signed(trigger_id, headers.get("x-hub-signature-256", ""), body)
        kind, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
        if not _WORD.fullmatch(kind) or not _DELIVERY.fullmatch(delivery):
            raise InvalidRequest("X-GitHub-Event and X-GitHub-Delivery are needed")
        if kind == "ping":
            return None
        event = _event(kind, delivery, payload_of(body))
        return self._receive.at_one(event, trigger, to_command, origin, again=False)

    def _signed(self, text: str, signature: str, body: bytes) -> Any:
        try:
            trigger_id = identifiers.parse(identifiers.TRIGGER, text)
            trigger = self._triggers.get(trigger_id)
        except NotFound:
            trigger = None
        sealed = self._triggers.secrets(trigger.id) if trigger is not None else ()
        secrets = [self._sealer.unseal(secret) for secret in sealed] or [_NOBODY.encode()]
        given = signature if _SIGNATURE.fullmatch(signature) else "sha256=" + _NOBODY
        fits = [hmac.compare_digest(given, signature_of(secret, body)) for secret in secrets]
        if not any(fits) or trigger is None:
            raise Unauthorized(
                "X-Hub-Signature-256 does not fit this trigger's secret and the body"
            )
        return trigger


def signature_of(secret: bytes, body: bytes) -> str:
    """X-Hub-Signature-256, as GitHub makes it."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def _event(kind: str, delivery: str, payload: Any) -> Inbound:
    if not isinstance(payload, dict):
        raise InvalidRequest("the payload must be a JSON object")
    action = payload.get("action")
    told = f".{action}" if isinstance(action, str) and _WORD.fullmatch(action) else ""
    attributes = {
        "specversion": "1.0",
        "id": delivery,
        "source": _text(payload.get("repository"), "html_url") or "https://github.com",
        "type": f"com.github.{kind}{told}",
        "datacontenttype": "application/json",
    }
    subject = payload.get("ref") if kind == "push" else payload.get("number")
    if isinstance(subject, str | int) and not isinstance(subject, bool):
        attributes["subject"] = str(subject)[:MAX_ATTRIBUTE]
    return Inbound(Channel.GITHUB, attributes, payload, dumps(payload))


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found[:MAX_ATTRIBUTE] if isinstance(found, str) else ""
