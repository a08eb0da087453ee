"""Keeps secrets out of what rdev itself writes: its logs, whatever an error's message holds.

Two nets: the values that a process knows to be secret, in every form they take on their way into a
line of JSON; and the shapes of keys, its own and those of the services around it. A net is a second
line: nothing puts a secret into a log on purpose.

What commands print is never changed: every byte of it is kept, and its digest proves that
(docs/concepts/security-model.md).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

MARK: Final = "[redacted]"
SHORTEST: Final = 6  # what is shorter is in every other word, and was no secret to begin with
_SHAPES: Final = (
    r"rdev_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}"
    r"|whsec_[A-Za-z0-9+/=]{24,}"
    r"|sk-ant-[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z2-7]{16}\b|xox[baprs]-[0-9A-Za-z-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    r"|(?<=://)[^\s/:@\"]+:[^\s/@\"]+(?=@)"
)


class Redactor:
    """Text without these secrets, and without anything that has the shape of a key."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        known = [re.escape(form) for form in sorted(forms, key=len, reverse=True)]
        self._secret = re.compile("|".join([*known, _SHAPES]))

    def __call__(self, text: str) -> str:
        return self._secret.sub(MARK, text)


def _forms(secret: str) -> Iterator[str]:
    """As it is, in JSON (of Python's kind and of Go's), in a URL, and somewhere within base64."""
    if len(secret) < SHORTEST:
        return
    yield secret
    for ascii_only in (True, False):
        in_json = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield in_json
        yield re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", in_json)
    yield quote(secret, safe="")
    raw = secret.encode()
    for before in range(3):  # three bytes are four characters: where it begins decides which
        first, last = (before * 8 + 5) // 6, (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + raw).decode()[first:last]
