"""Examples for openapi.json of what the claude_config function takes and answers."""

from __future__ import annotations

from typing import Any, Final

_CONTENT: Final = (
    "---\ndescription: Deploy to staging\nargument-hint: '[version]'\n---\nDeploy $1.\n"
)
CREATE: Final[dict[str, Any]] = {"name": "deploy", "content": _CONTENT}
UPDATE: Final[dict[str, Any]] = {"content": _CONTENT}
_LOADED: Final[dict[str, Any]] = {"loaded": True, "reason": None}
DEFINITION: Final[dict[str, Any]] = {
    "kind": "commands",
    "name": "deploy",
    "path": ".claude/commands/deploy.md",
    "content": _CONTENT,
    "files": {},
    "size": len(_CONTENT),
    "effective": _LOADED,
    "issues": [],
}
PAGE: Final[dict[str, Any]] = {
    "items": [
        {
            "kind": "agents",
            "name": "reviewer",
            "path": ".claude/agents/reviewer.md",
            "size": 120,
            "description": None,
            "effective": {"loaded": False, "reason": "no description in its frontmatter"},
            "issues": [
                {
                    "field": "description",
                    "code": "missing",
                    "message": "description: is needed",
                    "line": 1,
                    "level": "error",
                }
            ],
        }
    ],
    "next_cursor": None,
    "truncated": False,
}
VERDICT: Final[dict[str, Any]] = {"valid": True, "issues": []}
EFFECTIVE: Final[dict[str, Any]] = {
    "items": [
        {
            "kind": "commands",
            "name": "deploy",
            "path": ".claude/commands/deploy.md",
            "shown": "deploy",
            "effective": _LOADED,
        }
    ],
    "next_cursor": None,
    "truncated": False,
    "scope": "only the workspace's own .claude: claude also loads its user's folder, plugins and "
    "what is built in",
}
