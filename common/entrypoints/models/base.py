"""What all wire models share, and the few constrained types they are made of."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MAX_LABELS: Final = 32
# What every clock and calendar between us and PostgreSQL can hold, in whatever zone.
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?")
# What `one_line` refuses, for openapi.json, without what lies beyond U+FFFF: its patterns have no
# escape for that.
_INVISIBLE: Final = (
    r"\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb"
)
ONE_LINE: Final = f"^[^{_INVISIBLE}]*$"


class Body(BaseModel):
    """A request body: strict types, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: text that is parsed, unknown ones refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)  # JSON has numbers only: 60.0 is the integer 60


def one_line(text: str) -> str:
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in text):
        raise ValueError("control, format and line-breaking characters are not allowed")
    return text


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} is no label name (letters, digits, - _ . /, at most 63)"
            )
        if len(value) > 256:
            raise ValueError(f"the value of {name} has more than 256 characters")
        one_line(value)
    return labels


def _in_utc(at: datetime) -> datetime:
    """PostgreSQL takes offsets below 16 hours; there are up to 24 in RFC 3339."""
    try:
        return at.astimezone(UTC)
    except OverflowError:  # beyond the calendar's end, which is as far as it goes
        ends = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        return ends[at.year > 1]


def _within_reach(at: datetime) -> datetime:
    """Nothing of ours lies outside, so the edges ask the same."""
    return min(max(at, _EARLIEST), _LATEST).astimezone(UTC)


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Moment = Annotated[AwareDatetime, AfterValidator(_within_reach)]  # in filters
Name = Annotated[
    str,
    Field(min_length=1, max_length=100, json_schema_extra={"pattern": ONE_LINE}),
    AfterValidator(one_line),
]
Labels = Annotated[
    dict[str, str],
    Field(
        json_schema_extra={
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": f"^{_LABEL.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": 256, "pattern": ONE_LINE},
        }
    ),
    AfterValidator(_labels),
]
Page = Annotated[int, Field(ge=1, le=200)]


class PageQuery(Query):
    """Of a list that has pages and no filters."""

    limit: Page = 50
    cursor: str | None = None


JsonObject = dict[str, Any]
