"""Definitions as callers see them. Apart from `resources.py`: these need a parser of YAML, which a
function that knows no definitions should not import.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from common.domain.claude_config import Definition, File, Tree
from common.domain.config_validation import ERROR, Issue
from common.domain.effective import Effect

OUTSIDE: Final = (
    "only the workspace's own .claude: claude also loads its user's folder, plugins and what is "
    "built in"
)


def definition_resource(
    definition: Definition, effect: Effect, issues: Sequence[Issue]
) -> dict[str, Any]:
    """One in full. `content` is null when it is not UTF-8."""
    try:
        content: str | None = definition.content.decode("utf-8")
    except UnicodeDecodeError:
        content = None
    return {
        "kind": str(definition.kind),
        "name": definition.name,
        "path": effect.path,
        "content": content,
        "files": {path: _file(part) for path, part in sorted(definition.files.items())},
        "size": definition.size,
        "effective": _effective(effect),
        "issues": [issue.as_json() for issue in issues],
    }


def _file(part: File) -> str | dict[str, Any]:
    """A plain text is itself, as in a body."""
    try:
        text: str | None = part.data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is not None and "\0" not in text:  # no JSON that we take has a NUL
        return {"text": text, "executable": True} if part.executable else text
    return {"b64": base64.b64encode(part.data).decode(), "executable": part.executable}


def line_resource(effect: Effect, issues: Sequence[Issue]) -> dict[str, Any]:
    """A line of a list. `size` is the .md file's, of a skill its SKILL.md's."""
    about = effect.front.fields.get("description")
    return {
        "kind": str(effect.kind),
        "name": effect.name,
        "path": effect.path,
        "size": effect.size,
        "description": about if isinstance(about, str) else None,
        "effective": _effective(effect),
        "issues": [issue.as_json() for issue in issues],
    }


def verdict_resource(issues: Sequence[Issue]) -> dict[str, Any]:
    """What a check found; `valid` when strict validation lets it pass."""
    valid = not any(issue.level == ERROR for issue in issues)
    return {"valid": valid, "issues": [issue.as_json() for issue in issues]}


def effective_resource(found: Sequence[Effect], tree: Tree) -> dict[str, Any]:
    """What claude will load, by kind and path."""
    blocked = [
        {
            "kind": str(kind),
            "name": None,
            "path": f".claude/{kind}",
            "shown": None,
            "effective": {"loaded": None, "reason": why},
        }
        for kind, why in sorted(tree.blocked.items())
    ]
    items = [
        {
            "kind": str(effect.kind),
            "name": effect.name,
            "path": effect.path,
            "shown": effect.shown,
            "effective": _effective(effect),
        }
        for effect in found
    ]
    return {
        "items": [*items, *blocked],
        "next_cursor": None,
        "truncated": bool(tree.truncated),
        "scope": OUTSIDE,
    }


def _effective(effect: Effect) -> dict[str, Any]:
    return {"loaded": effect.loaded, "reason": effect.reason}
