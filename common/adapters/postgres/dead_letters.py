"""DeadLetters on PostgreSQL."""

from __future__ import annotations

from uuid import UUID

from common.adapters.postgres import rows
from common.adapters.postgres.connection import Row
from common.adapters.postgres.parameters import jsonb, printable
from common.adapters.postgres.pool import Database
from common.domain.keys import Caller
from common.ports.commands import Origin
from common.ports.dead_letters import DeadLetter, LetterFilter


class PgDeadLetters:
    """Events that could not be handled, whatever they hold."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def bury(self, letter: DeadLetter) -> None:
        self._db.run(
            "bury",
            id=letter.id,
            event_id=_kept(letter.event_id),
            source=_kept(letter.source),
            type=_kept(letter.type),
            subject=_kept(letter.subject),
            reason=printable(letter.reason),
            detail=printable(letter.detail),
            attributes=jsonb(
                {printable(name): printable(text) for name, text in letter.attributes.items()}
            ),
            data=letter.data,
            size=letter.size,
            channel=letter.channel,
            trigger_id=letter.trigger_id,
            project=letter.project,
        )

    def get(self, letter_id: UUID) -> DeadLetter | None:
        row = self._db.one("letter_get", id=letter_id)
        return _letter(row) if row else None

    def list(self, wanted: LetterFilter) -> list[DeadLetter]:
        found = self._db.run(
            "letter_list",
            projects=None if wanted.projects is None else sorted(wanted.projects),
            reason=wanted.reason,
            type=wanted.type,
            source=wanted.source,
            replayed=wanted.replayed,
            before=wanted.before,
            limit=wanted.limit,
        )
        return [_letter(row) for row in found]

    def replayed(self, letter_id: UUID, outcome: str, caller: Caller, origin: Origin) -> bool:
        answer = self._db.one(
            "letter_replayed", id=letter_id, outcome=outcome, audit=rows.audit(caller, origin)
        )
        return bool(answer and answer["known"])


def _kept(text: str | None) -> str | None:
    return None if text is None else printable(text)


def _letter(row: Row) -> DeadLetter:
    return DeadLetter(**row | {"data": row["data"] or b""})
