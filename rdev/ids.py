"""Ids by unique prefix: nobody types 32 hexadecimal digits.

The server knows whole ids only, so a shorter one is looked for in the lists. Ids begin with their
time (UUIDv7) and lists are newest first, so the search can stop once it has passed the prefix.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rdev.errors import WrongUsage
from rdev.text import printable

if TYPE_CHECKING:
    from rdev.http import Api

_DIGITS: Final = 32
_UUID: Final = 36
_MOST: Final = 10_000
"""How many resources are searched; beyond that a longer copy of the id is quicker for everybody."""
_SLACK: Final = 100
"""Ids made within one millisecond, or by servers whose clocks differ, are not in strict order."""
_SHOWN: Final = 8
_UNORDERED: Final = frozenset({"dlt"})
"""Kinds whose ids do not begin with their time."""
_LISTED_BY: Final = {
    "keys": "keys ls",
    "webhooks": "webhooks ls",
    "deliveries": "webhooks deliveries",
    "triggers": "triggers ls",
    "dead-letters": "events dead --all",
}


def command_id(api: Api, text: str) -> str:
    """The id of the one command that `text` begins; raises WrongUsage for none or several."""
    return _resolve(api, "/v1/commands", "cmd", text)


def key_id(api: Api, text: str) -> str:
    """The id of the one key that `text` begins; raises WrongUsage for none or several."""
    return _resolve(api, "/v1/keys", "key", text)


def trigger_id(api: Api, text: str) -> str:
    """The id of the one trigger that `text` begins; raises WrongUsage for none or several."""
    return _resolve(api, "/v1/triggers", "trg", text)


def letter_id(api: Api, text: str) -> str:
    """The id of the one dead letter that `text` begins; raises WrongUsage for none or several."""
    return _resolve(api, "/v1/events/dead-letters", "dlt", text)


def session_id(api: Api, project: str, text: str) -> str:
    """The session of a project that `text` begins; raises WrongUsage for none or several."""
    if not re.fullmatch(r"[0-9a-f][-0-9a-f]*", text):
        raise WrongUsage(f"{printable(text)!r} is not a session id or the beginning of one")
    if len(text) >= _UUID:
        return text
    path = f"/v1/projects/{quote(project, safe='')}/sessions"
    listed = (str(item.get("id", "")) for item in api.pages(path, {}, limit=_MOST))
    found = [identifier for identifier in listed if identifier.startswith(text)]
    if len(found) != 1:
        raise WrongUsage(_none_or_many(text, found), hint="`rdev sessions ls` lists them")
    return found[0]


def webhook_id(api: Api, text: str) -> str:
    """The id of the one webhook that `text` begins; raises WrongUsage for none or several."""
    return _resolve(api, "/v1/webhooks", "whk", text)


def delivery_id(api: Api, path: str, text: str) -> str:
    """The id of the one delivery in the list at `path` that `text` begins; raises WrongUsage."""
    return _resolve(api, path, "dlv", text)


def _resolve(api: Api, path: str, kind: str, text: str) -> str:
    wanted = text if text.startswith(f"{kind}_") else f"{kind}_{text}"
    if not re.fullmatch(rf"{kind}_[0-9A-Za-z-]+", wanted):
        raise WrongUsage(f"{printable(text)!r} is not an id or the beginning of one ({kind}_…)")
    if len(wanted) >= len(kind) + 1 + _DIGITS:
        return wanted
    found = _matches(api, path, kind, wanted)
    if wanted in found:
        return wanted
    if len(found) == 1:
        return found[0]
    raise WrongUsage(_none_or_many(wanted, found), hint=_hint(path, found))


def _matches(api: Api, path: str, kind: str, wanted: str) -> list[str]:
    found, passed = [], 0
    for item in api.pages(path, {}, limit=_MOST):
        identifier = str(item.get("id", "")) if isinstance(item, dict) else ""
        if identifier.startswith(wanted):
            found.append(identifier)
        elif identifier < wanted and kind not in _UNORDERED:
            passed += 1
        if passed > _SLACK:
            break
    return found


def _none_or_many(wanted: str, found: list[str]) -> str:
    if not found:
        return f"there is no {wanted}… that this key may see"
    shown = ", ".join(found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{wanted}… is the beginning of {len(found)} ids: {shown}{more}"


def _hint(path: str, found: list[str]) -> str:
    if found:
        return "type a few characters more"
    verb = next((verb for end, verb in _LISTED_BY.items() if path.endswith(end)), "ps")
    return f"`rdev {verb}` lists them"
