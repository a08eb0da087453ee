"""A credential that a project names for claude, in place of its workspace's own.

A text of `NAME=value` lines. What it may set says who pays and where the service is, and nothing
else. No error repeats any of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MAX_TEXT: Final = 64 * 1024
Credential = Mapping[str, str]
_NAME: Final = re.compile(r"ANTHROPIC_[A-Z0-9_]{1,60}|CLAUDE_CODE_OAUTH_TOKEN|CLAUDE_CONFIG_DIR")


class BadCredential(ValueError):
    """The text is no credential; the message says which line, and nothing of what it holds."""


def parse(text: str) -> Credential:
    """The variables of a credential. Blank lines and lines that begin with `#` say nothing."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise BadCredential(
                f"line {number} is not NAME=value with an ANTHROPIC_ name, "
                "CLAUDE_CODE_OAUTH_TOKEN or CLAUDE_CONFIG_DIR"
            )
        if "\0" in value or name in found:
            raise BadCredential(f"line {number} sets {name} twice, or to a NUL")
        found[name] = value
    if not found:
        raise BadCredential("it sets nothing")
    return found
