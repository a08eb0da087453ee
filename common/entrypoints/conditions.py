"""ETag and If-Match (RFC 9110, 8.8.3 and 13.1.1): strong tags only, since a change is exact."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

from common.domain.errors import InvalidRequest

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]{0,200})"')
_MOST: Final = 100


def etag(fingerprint: str) -> str:
    return f'"{fingerprint}"'


def if_match(headers: Headers) -> frozenset[str] | None:
    """The fingerprints that would do, `*` for any; None without the header.

    A weak tag matches nothing. Raises InvalidRequest.
    """
    given = headers.getlist("if-match")
    if not given:
        return None
    tags = [tag.strip() for tag in ",".join(given).split(",")]
    if tags == ["*"]:
        return frozenset(tags)
    matches = [_TAG.fullmatch(tag) for tag in tags[:_MOST]]
    if not all(matches) or len(tags) > _MOST:
        raise InvalidRequest('If-Match is an ETag in its quotes, as in If-Match: "9f86d0…"')
    return frozenset(match[2] for match in matches if match and not match[1])
