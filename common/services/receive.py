"""Use case: events from outside, each at every trigger that is for it, once.

What a trigger makes of an event and what was seen of it are stored in one transaction, so a
repetition after any crash goes on where it stopped. An event nothing came of is a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from common.domain.errors import InvalidField, NotFound, RdevError, Unauthorized, Unavailable
from common.domain.identifiers import TRIGGER, show
from common.domain.keys import Caller
from common.domain.templates import Unfit
from common.domain.triggers import Channel, Inbound, Match, Outcome, Trigger
from common.ports.commands import Firing, Origin
from common.ports.dead_letters import DeadLetter
from common.ports.triggers import TriggerStore
from common.services import telemetry
from common.services.bury import Bury, inbound_letter
from common.services.prepare_command import PrepareCommand, ToCommand
from common.services.submit import Submit

MAX_MATCHES: Final = 200  # commands that one request may start
MAX_DETAIL: Final = 300

NO_TRIGGER: Final = "no_trigger"
_WHY: Final = {
    NO_TRIGGER: "no trigger is for it",
    "stale": "it is older than 30 days, so nobody knows whether it was seen before",
    "loop": "it comes from rdev itself: commands whose events start commands would never end",
}


@dataclass(frozen=True)
class Result:
    """An event at a trigger; `duplicate` when it was seen there before."""

    match: Match
    duplicate: bool


@dataclass(frozen=True)
class Received:
    """What became of an event.

    `outcome`: submitted, duplicate, refused, or why no trigger was asked: no_trigger, stale, loop,
    trigger_off.
    """

    event: Inbound
    outcome: str
    results: Sequence[Result] = ()


@dataclass(frozen=True)
class _Round:
    """What all events of one request have in common."""

    to_command: ToCommand
    origin: Origin
    again: bool = False


class Receive:
    def __init__(
        self,
        triggers: TriggerStore,
        prepare: PrepareCommand,
        submit: Submit,
        bury: Bury,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._triggers = triggers
        self._prepare = prepare
        self._submit = submit
        self._bury = bury
        self._clock = clock

    def __call__(
        self,
        events: Sequence[Inbound],
        to_command: ToCommand,
        origin: Origin,
        sender: Caller | None = None,
        *,
        again: bool = False,
    ) -> list[Received]:
        """Take events of one channel; with a `sender`, only where its key may look.

        `again`: a person replays them, so earlier refusals and their age no longer count.
        Raises NotFound, before anything is done, when one asks for a project that the sender does
        not see, and Unavailable.
        """
        for number, event in enumerate(events):
            wanted = event.named_project
            if sender is not None and wanted is not None and not sender.sees(wanted):
                raise NotFound(f"event {number}: there is no project {wanted[:80]!r}")
        channel = events[0].channel
        there = [
            trigger
            for trigger in self._triggers.accepting(str(channel))
            if sender is None or sender.projects is None or trigger.projects <= sender.projects
        ]
        plan = [(event, self._at(event, there, again=again)) for event in events]
        if sum(len(found) for _, found in plan if not isinstance(found, str)) > MAX_MATCHES:
            message = f"they would start more than {MAX_MATCHES} commands: send fewer at once"
            raise InvalidField.one("events", "too_many_matches", message)
        this = _Round(to_command, origin, again)
        return [self._take(event, found, this) for event, found in plan]

    def at_one(
        self,
        event: Inbound,
        trigger: Trigger,
        to_command: ToCommand,
        origin: Origin,
        *,
        again: bool,
    ) -> Received:
        """Take an event that was sent to one trigger; that it is not for it is no news."""
        if not trigger.enabled or str(event.channel) not in trigger.accept:
            return Received(event, "trigger_off")
        found = self._at(event, [trigger], again=again)
        if found == NO_TRIGGER:
            return Received(event, NO_TRIGGER)
        return self._take(event, found, _Round(to_command, origin, again), trigger.id)

    def _at(
        self, event: Inbound, there: Sequence[Trigger], *, again: bool
    ) -> Sequence[Trigger] | str:
        """The triggers it is for, or why there is none."""
        if event.is_ours:
            return "loop"
        if event.is_stale(self._clock()) and not again:
            return "stale"
        return [trigger for trigger in there if trigger.is_for(event)] or NO_TRIGGER

    def _take(
        self,
        event: Inbound,
        found: Sequence[Trigger] | str,
        this: _Round,
        only: UUID | None = None,
    ) -> Received:
        if isinstance(found, str):
            self._bury(inbound_letter(event, found, _WHY[found], trigger=only))
            return Received(event, found)
        results = [self._fire(event, trigger, this) for trigger in found]
        refused = [r.match for r in results if r.match.outcome is Outcome.REFUSED]
        for match in refused:
            telemetry.event_refused.add(1, {"reason": match.reason or ""})
        if refused:  # also those of before: whoever recorded them may have died right then
            self._bury(_refusal(event, refused, found, only))
        return Received(event, _outcome(results), results)

    def _fire(self, event: Inbound, trigger: Trigger, this: _Round) -> Result:
        seen = event.seen_as(trigger.id)
        before = self._triggers.seen(seen)
        if before is not None and (before.outcome is Outcome.SUBMITTED or not this.again):
            return Result(before, duplicate=True)
        try:
            command, owner = self._prepare(trigger, event, this.to_command)
            firing = Firing(seen, trigger.id, event.id, event.source, event.type, this.again)
            self._submit(command, owner, this.origin, None, firing)
        except Unavailable:
            raise
        except (RdevError, Unfit) as error:
            if error.code != "event_seen":
                return Result(self._refused(event, trigger, seen, error), duplicate=False)
        made = self._triggers.seen(seen)
        if made is None:  # the trigger was deleted meanwhile, and what it had seen went with it
            return Result(_match(event, trigger, "trigger_off", ""), duplicate=False)
        return Result(made, duplicate=made.command_id is None or made.command_id != command.id)

    def _refused(
        self, event: Inbound, trigger: Trigger, seen: bytes, error: RdevError | Unfit
    ) -> Match:
        reason = "key_revoked" if isinstance(error, Unauthorized) else error.code
        return self._triggers.refused(seen, _match(event, trigger, reason, error.detail))


def _match(event: Inbound, trigger: Trigger, reason: str, detail: str) -> Match:
    return Match(
        trigger.id,
        event.id,
        event.source,
        event.type,
        Outcome.REFUSED,
        reason=reason,
        detail=detail[:MAX_DETAIL],
    )


def _refusal(
    event: Inbound, refused: Sequence[Match], found: Sequence[Trigger], only: UUID | None
) -> DeadLetter:
    projects = {project for trigger in found for project in trigger.projects}
    told = "; ".join(f"{show(TRIGGER, m.trigger_id)}: {m.reason}: {m.detail}" for m in refused)
    where = projects.pop() if len(projects) == 1 else None
    return inbound_letter(event, "refused", told, trigger=only, project=where)


def _outcome(results: Sequence[Result]) -> str:
    new = {str(result.match.outcome) for result in results if not result.duplicate}
    return next((each for each in ("submitted", "refused") if each in new), "duplicate")


def channel_of(text: str) -> Channel:
    """How a dead letter came: what the broker could not deliver came from the broker."""
    return Channel.BROKER if text == "delivery" else Channel(text)
