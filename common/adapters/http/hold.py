"""Open requests to the own Service, so that the autoscaler sees the work behind them.

One client for all: making one builds a TLS context, tens of milliseconds of a core, just when a
command's first byte is due.
"""

from __future__ import annotations

import asyncio

import httpx

HELD_S = 250.0  # the runner answers after 240 s at the latest
PAUSE_S = 1.0  # after a failure; nothing depends on this request


class Holder:
    """Made once per process, before its first command."""

    def __init__(self, url: str) -> None:
        self._url = url
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=4)
        self._client = httpx.AsyncClient(timeout=HELD_S, trust_env=False, limits=unlimited)

    async def hold(self) -> None:
        """Keep one request open; returns when it ended, for whatever reason."""
        try:
            answer = await self._client.post(self._url)
            answer.raise_for_status()
        except httpx.HTTPError:
            await asyncio.sleep(PAUSE_S)
