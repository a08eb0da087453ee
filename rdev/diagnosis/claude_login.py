"""Whether claude is logged in, told by where its credentials come from. No request is spent on it.

claude takes the first of what it finds: variables of the environment `rdev up` is started in, then
what its configuration folder holds. Only names and places are told, never a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

# In the order in which claude looks at them.
_VARIABLES: Final = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
)


def config_folder(environ: Mapping[str, str]) -> Path:
    """Where claude keeps what it knows."""
    named = environ.get("CLAUDE_CONFIG_DIR")
    return Path(named) if named else Path(environ.get("HOME", "~")).expanduser() / ".claude"


def sources(environ: Mapping[str, str], now: datetime | None = None) -> tuple[list[str], list[str]]:
    """The sources of credentials that are there, and the places where there was none."""
    folder = config_folder(environ)
    found = [name for name in _VARIABLES if environ.get(name)]
    looked = [] if found else [", ".join(_VARIABLES)]
    for place, says in (
        (folder / ".credentials.json", _logged_in(folder, now or datetime.now(UTC))),
        (folder / "settings.json", _helper(folder / "settings.json")),
        (_global_config(environ), _stored_key(_global_config(environ))),
    ):
        (found if says else looked).append(f"{place}{says}")
    return found, looked


def _logged_in(folder: Path, now: datetime) -> str:
    """` (…)` when there is a login that can be used."""
    login = _object(_read(folder / ".credentials.json").get("claudeAiOauth"))
    if not login.get("accessToken"):
        return ""
    expires = login.get("expiresAt")
    is_over = isinstance(expires, int | float) and expires / 1000 < now.timestamp()
    if is_over and not login.get("refreshToken"):
        return ""
    return f" (a login of claude.ai{', renewed at its next use' if is_over else ''})"


def _helper(settings: Path) -> str:
    return " (apiKeyHelper)" if _read(settings).get("apiKeyHelper") else ""


def _global_config(environ: Mapping[str, str]) -> Path:
    named = environ.get("CLAUDE_CONFIG_DIR")
    home = Path(named) if named else Path(environ.get("HOME", "~")).expanduser()
    return home / ".claude.json"


def _stored_key(path: Path) -> str:
    return " (an API key)" if _read(path).get("primaryApiKey") else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return _object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
