"""docs/reference: endpoints, errors and states as tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath
from typing import Final

from common.domain import errors
from common.domain.command import REASONS, State, may_follow
from common.domain.errors import RdevError
from common.entrypoints import problem
from common.entrypoints.function import Function
from infra.generation.markdown import page, table
from infra.generation.openapi import statuses

FOLDER: Final = PurePosixPath("docs/reference")
# Answers of the database that become codes as they are, so no `raise` spells them.
_FROM_SQL: Final = {
    "Conflict": {"session_busy", "idempotency_in_flight"},
    "InvalidField": {"idempotency_mismatch"},
}


def files(functions: list[Function], root: Path) -> dict[PurePosixPath, str]:
    """The pages by path."""
    return {
        FOLDER / "endpoints.md": _endpoints(functions),
        FOLDER / "errors.md": _errors(root),
        FOLDER / "states.md": _states(),
    }


def _endpoints(functions: list[Function]) -> str:
    public = [f for f in functions if f.prefixes or f.local_prefixes]
    rows = [
        [
            f"`{route.method} {route.path}`",
            route.summary,
            "<br>".join(f"`{scope}`" for scope in route.scopes) or "open",
            ", ".join(str(status) for status in statuses(route) if status < 400),
            f"`{function.name}`",
        ]
        for function in public
        for route in function.routes
    ]
    inside = [
        [f"`{function.service}`", function.summary, f"`{route.method} {route.path}`", route.summary]
        for function in functions
        if function not in public
        for route in function.routes
    ]
    return page(
        "Endpoints",
        "`functions/*/main.py`",
        "Any one of the scopes is enough. Bodies, answers and an example of each are in "
        "[openapi.json](../../functions/reference/openapi.json), which every server has at "
        "`/openapi.json`, and as a page at `/docs`.",
        table(["operation", "what it does", "scope", "answers", "function"], rows),
        "## Not routed: called by the broker, the tick and other functions",
        table(["service", "what it is for", "operation", "what it does"], inside),
    )


def _errors(root: Path) -> str:
    meanings = _meanings()
    rows = [
        [
            str(status),
            "<br>".join(f"`{code}`" for code in codes),
            title,
            meanings.get(cls.__name__, ""),
        ]
        for cls, (status, title) in problem.STATUSES.items()
        for codes in [[cls.code, *sorted(_special_codes(root).get(cls.__name__, set()))]]
    ]
    return page(
        "Errors",
        "`common/domain/errors.py` and `common/entrypoints/problem.py`",
        "Every refusal is `application/problem+json` (RFC 9457). Decide by `code`; `detail` is for "
        "people, `request_id` finds the request in the logs, and `errors` names the fields of an "
        "`invalid_field`.",
        table(["status", "code", "title", "when"], rows),
        "429 and 503 carry `Retry-After`. On a stream they are a 200 that only says `retry:` and "
        "ends, because EventSource gives up for good on anything else.",
    )


def _meanings() -> dict[str, str]:
    """What the tree in the module's docstring says of each class."""
    found = re.findall(r"[├└]── (\w+)[ ]*(.*)", errors.__doc__ or "")
    return {name: meaning.strip() for name, meaning in found} | {"RdevError": "our own mistake"}


def _special_codes(root: Path) -> dict[str, set[str]]:
    """Codes given at a `raise`, by class: `Forbidden(…, code="ip_not_allowed")`."""
    found = {name: set(codes) for name, codes in _FROM_SQL.items()}
    for folder in ("common", "functions"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                for name, code in _codes_in(node):
                    found.setdefault(name, set()).add(code)
    return found


def _codes_in(node: ast.AST) -> list[tuple[str, str]]:
    if not isinstance(node, ast.Call):
        return []
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    known = getattr(errors, name, None)
    if not (isinstance(known, type) and issubclass(known, RdevError)):
        return []
    return [
        (name, word.value.value)
        for word in node.keywords
        if word.arg == "code"
        and isinstance(word.value, ast.Constant)
        and isinstance(word.value.value, str)
        and word.value.value != known.code
    ]


def _states() -> str:
    arrows = [
        f"    {old} --> {new}"
        for old in State
        for new in State
        if may_follow(old, new) and not (old is State.CLAIMED and new in REASONS)
    ]
    rows = [
        [f"`{state}`", "<br>".join(sorted(f"`{reason}`" for reason in reasons))]
        for state, reasons in REASONS.items()
    ]
    return page(
        "States",
        "`common/domain/command.py`",
        "A command runs at most once; `retry` makes a new one. `claimed` is shown as `queued` with "
        "`queue_position` 0: nothing has run yet. A claimed command may end in any final state "
        "without having run.",
        "```mermaid\nstateDiagram-v2\n    [*] --> scheduled\n    [*] --> queued\n"
        + "\n".join(arrows)
        + "\n```",
        "## Reasons of final states",
        table(["state", "`outcome.reason`"], rows),
    )
