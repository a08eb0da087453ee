"""Use case: look at dead letters, and replay one.

A replay of an event from outside goes the way the event came, once more: what it has started before
is not started again, what was refused is tried again. An event of rdev itself that the broker could
not deliver is handed to the broker again, with the same id.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from common.domain import identifiers
from common.domain.errors import Conflict, NotFound
from common.domain.keys import Caller
from common.domain.triggers import Inbound
from common.ports.commands import Origin
from common.ports.dead_letters import DeadLetter, DeadLetters, LetterFilter
from common.ports.outbox import OutgoingEvent, Publisher
from common.ports.triggers import TriggerStore
from common.services.prepare_command import ToCommand
from common.services.receive import Receive, Received, channel_of

PUBLISHED: Final = "published"
_BY_THE_BROKER: Final = "knativeerror"  # what it added when it gave up


@dataclass(frozen=True)
class Replayed:
    """`outcome` as in Received, or `published`."""

    letter: DeadLetter
    outcome: str
    received: Received | None = None


class ReadDeadLetters:
    def __init__(
        self,
        letters: DeadLetters,
        triggers: TriggerStore,
        receive: Callable[[], Receive],
        publisher: Callable[[], Publisher],
    ) -> None:
        self._letters = letters
        self._triggers = triggers
        self._receive = receive
        self._publisher = publisher

    def many(self, wanted: LetterFilter, caller: Caller) -> list[DeadLetter]:
        """Those of the wanted ones that the caller may see."""
        return self._letters.list(replace(wanted, projects=caller.narrowed(wanted.projects)))

    def one(self, text: str, caller: Caller) -> DeadLetter:
        """Raises NotFound; a key for some projects sees what was for these."""
        letter = self._letters.get(identifiers.parse(identifiers.LETTER, text))
        if letter is None or not (caller.projects is None or letter.project in caller.projects):
            raise NotFound.named(text)
        return letter

    def replay(self, text: str, to_command: ToCommand, caller: Caller, origin: Origin) -> Replayed:
        """Raises NotFound, Conflict for one that cannot be replayed, Unavailable."""
        letter = self.one(text, caller)
        event = _event(letter)
        if event.is_ours:
            self._publish(letter, event)
            outcome, received = PUBLISHED, None
        else:
            received = self._received(letter, event, to_command, caller, origin)
            outcome = received.outcome
        if not self._letters.replayed(letter.id, outcome, caller, origin):
            raise NotFound.named(text)
        return Replayed(self.one(text, caller), outcome, received)

    def _received(
        self,
        letter: DeadLetter,
        event: Inbound,
        to_command: ToCommand,
        caller: Caller,
        origin: Origin,
    ) -> Received:
        if letter.trigger_id is None:
            [received] = self._receive()([event], to_command, origin, caller, again=True)
            return received
        trigger = self._triggers.get(letter.trigger_id)
        if trigger is None:
            raise Conflict("the trigger it was sent to is gone", code="not_replayable")
        return self._receive().at_one(event, trigger, to_command, origin, again=True)

    def _publish(self, letter: DeadLetter, event: Inbound) -> None:
        if letter.channel != "delivery" or not isinstance(event.data, dict):
            raise Conflict("it only says to come from rdev", code="not_replayable")
        self._publisher().publish(
            OutgoingEvent(
                _own_id(event.id),
                event.type,
                event.subject or "",
                event.data,
                event.attributes.get("traceparent"),
            )
        )


def _event(letter: DeadLetter) -> Inbound:
    if not letter.whole:
        raise Conflict("it could not be read, or was not kept whole", code="not_replayable")
    attributes = {
        name: text
        for name, text in letter.attributes.items()
        if not name.startswith(_BY_THE_BROKER)
    }
    return Inbound(channel_of(letter.channel), attributes, _json(letter.data), letter.data)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(text: str) -> None:
    raise ValueError(text)


def _own_id(text: str) -> UUID:
    try:
        return identifiers.parse(identifiers.EVENT, text)
    except NotFound:
        raise Conflict("it only says to come from rdev", code="not_replayable") from None
