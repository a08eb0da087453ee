"""DeadLetters in dicts."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from common.adapters.memory.state import MemoryState
from common.domain.identifiers import LETTER, show
from common.domain.keys import Caller
from common.ports.commands import Origin
from common.ports.dead_letters import DeadLetter, LetterFilter


class MemoryDeadLetters:
    """Events that could not be handled."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def bury(self, letter: DeadLetter) -> None:
        with self._state.lock:
            before = self._state.dead_letters.get(letter.id)
            if before is not None:
                letter = replace(before, reason=letter.reason, detail=letter.detail)
            at = letter.created_at or self._state.clock()
            self._state.dead_letters[letter.id] = replace(letter, created_at=at)

    def get(self, letter_id: UUID) -> DeadLetter | None:
        with self._state.lock:
            return self._state.dead_letters.get(letter_id)

    def list(self, wanted: LetterFilter) -> list[DeadLetter]:
        with self._state.lock:
            letters = self._state.dead_letters
            newest = sorted(letters.values(), key=_order, reverse=True)
            if wanted.before is not None:
                last = letters.get(wanted.before)
                newest = [x for x in newest if last is not None and _order(x) < _order(last)]
            return [letter for letter in newest if _fits(letter, wanted)][: wanted.limit]

    def replayed(self, letter_id: UUID, outcome: str, caller: Caller, origin: Origin) -> bool:
        with self._state.lock:
            letter = self._state.dead_letters.get(letter_id)
            if letter is None:
                return False
            self._state.dead_letters[letter_id] = replace(letter, replayed_at=self._state.clock())
            target = show(LETTER, letter_id)
            self._state.record(caller, origin, "dead_letter.replayed", target, letter.project)
            return True


def _order(letter: DeadLetter) -> tuple[float, UUID]:
    assert letter.created_at is not None  # bury has set it
    return letter.created_at.timestamp(), letter.id


def _fits(letter: DeadLetter, wanted: LetterFilter) -> bool:
    return (
        (wanted.projects is None or letter.project in wanted.projects)
        and wanted.reason in (None, letter.reason)
        and wanted.type in (None, letter.type)
        and wanted.source in (None, letter.source)
        and wanted.replayed in (None, letter.replayed_at is not None)
    )
