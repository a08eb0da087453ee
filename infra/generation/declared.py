"""The functions as their folders declare them; the folder listing is the registry."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from common.entrypoints.function import Function

ROOT: Final = Path(__file__).resolve().parents[2]


class DeclarationError(Exception):
    """A folder under `functions/` that does not declare a function the way all others do."""


def functions(root: Path = ROOT) -> list[Function]:
    """Every declared function, in the order of its folder's name. Raises DeclarationError."""
    folders = sorted(path.parent for path in (root / "functions").glob("*/__init__.py"))
    found = [_read(folder) for folder in folders]
    _check_sinks(found)
    _check_prefixes(found)
    return found


def _read(folder: Path) -> Function:
    if not (folder / "main.py").exists():
        raise DeclarationError(f"{folder}: there is no main.py")
    module = importlib.import_module(f"functions.{folder.name}.main")
    function = getattr(getattr(module, "handle", None), "function", None)
    if not isinstance(function, Function):
        raise DeclarationError(f"{folder}/main.py: `handle` is not `function.target()`")
    if function.name != folder.name:
        raise DeclarationError(f"{folder}/main.py: declares {function.name!r}")
    _check_routes(function)
    return function


def _check_routes(function: Function) -> None:
    if not function.routes:
        raise DeclarationError(f"{function.name}: has no routes")
    for route in function.routes:
        public = (*function.prefixes, *function.local_prefixes)
        inside = any(route.path == p or route.path.startswith(p + "/") for p in public)
        if public and not inside:
            raise DeclarationError(f"{function.name}: {route.path} is outside of its prefixes")
    handles_events = any(route.kind == "event" for route in function.routes)
    callers = (function.trigger, function.schedule, function.watches, function.dead_letter_sink)
    called = any((*callers, function.rung))
    if handles_events != bool(called):
        raise DeclarationError(f"{function.name}: events and who sends them do not fit together")


def _check_sinks(found: list[Function]) -> None:
    sinks = [f.name for f in found if f.dead_letter_sink]
    if len(sinks) != 1:
        raise DeclarationError(f"exactly one function takes dead letters, not {sinks}")


def _check_prefixes(found: list[Function]) -> None:
    """A gateway routes by the longest prefix alone, so two functions cannot share one."""
    owners: dict[str, str] = {}
    for function in found:
        for prefix in (*function.prefixes, *function.local_prefixes):
            if prefix in owners:
                raise DeclarationError(f"{prefix} belongs to {owners[prefix]} and {function.name}")
            owners[prefix] = function.name
