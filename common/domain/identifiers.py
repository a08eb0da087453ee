"""Identifiers: UUIDv7 inside, `<prefix>_<32 hex>` outside.

UUIDv7 sorts by time, so an id also says on which day a command was made; the partition that holds
its events is found from the id alone. Source: RFC 9562, section 5.7.
"""

from __future__ import annotations

import datetime as dt
import re
from uuid import UUID

import uuid_utils

from common.domain.errors import NotFound

COMMAND, KEY, EVENT, REQUEST, AUDIT = "cmd", "key", "evt", "req", "aud"
WEBHOOK, DELIVERY = "whk", "dlv"
TRIGGER, MATCH, LETTER = "trg", "mat", "dlt"
_HEX = re.compile(r"[0-9a-f]{32}")


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


def show(prefix: str, value: UUID) -> str:
    """`cmd_0190…`: the form callers see."""
    return f"{prefix}_{value.hex}"


def parse(prefix: str, text: str) -> UUID:
    """The UUID behind `text`; anything else is `NotFound`, as for a resource that never was."""
    head, _, tail = text.partition("_")
    if head != prefix or not _HEX.fullmatch(tail):
        raise NotFound.named(text)
    return UUID(hex=tail)


def numbered(number: int) -> UUID:
    """A counted row's id in the form of all others."""
    return UUID(int=number)


def day_of(value: UUID) -> dt.date:
    """The UTC day in a UUIDv7's first 48 bits (milliseconds since 1970)."""
    return dt.datetime.fromtimestamp((value.int >> 80) / 1000, tz=dt.UTC).date()
