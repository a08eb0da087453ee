"""Imports point down, as ARCHITECTURE.md draws them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_imports_point_down() -> None:
    """import-linter keeps every contract of pyproject.toml."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_laptop_starts_processes_and_imports_nothing_of_them() -> None:
    """infra.local loads without the functions, the common library and what those need."""
    code = (
        "import sys, infra.local.main\n"
        "wrong = {'common', 'functions', 'rdev', 'pg8000', 'starlette', 'pydantic'}\n"
        "wrong &= {*sys.modules}\n"
        "sys.exit(', '.join(sorted(wrong)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
