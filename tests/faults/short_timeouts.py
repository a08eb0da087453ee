"""`rdev up` from another folder of YAML than infra/base: run by test_timeout.py.

python -m tests.faults.short_timeouts BASE
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from infra.local.main import up
from infra.local.settings import Settings


def main() -> None:
    settings = Settings.read(sys.argv[2:], os.environ)
    asyncio.run(up(replace(settings, base=Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
