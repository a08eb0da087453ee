"""Where `claude` is when PATH has none: in the wheel of `rdev[claude]`."""

import importlib.util
import os
import shutil
from pathlib import Path

_PACKAGE = "claude_agent_sdk"  # only its binary is used; no code of it runs


def path_with_claude(path: str) -> str:
    """Return PATH, with the bundled claude at its end when there is no other."""
    if shutil.which("claude", path=path):
        return path
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return path
    bundled = Path(next(iter(found.submodule_search_locations))) / "_bundled"
    return f"{path}{os.pathsep}{bundled}" if (bundled / "claude").is_file() else path
