"""Authentication overhead: a request with a key and one that needs none, warm.

`/v1/projects/none` answers 404 after authorising; an unknown path answers 404 before. What lies
between the two is the one database call that authorises.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.harness.running import Rdev
from tests.load.bench_latency import timed


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        rdev = Rdev(Path(folder) / "home").start()
        try:
            with rdev.client() as client:
                made = client.post(
                    "/v1/keys",
                    json={
                        "name": "bench",
                        "scopes": ["projects:read"],
                        "rate_limit": {"limit": 100_000, "window_s": 1},
                    },
                )
                key = made.raise_for_status().json()["key"]
            with rdev.client(key) as client:
                known = timed(lambda: client.get("/v1/projects/none/none/none"), 300)
                authorised = timed(lambda: client.get("/v1/projects/none"), 300)
        finally:
            rdev.stop()
    without, with_key = statistics.median(known), statistics.median(authorised)
    print(f"unauthenticated: p50 {without:.2f} ms; authenticated: p50 {with_key:.2f} ms")
    print(f"ratio {with_key / without:.2f} (at most 1.6)")


if __name__ == "__main__":
    main()
