"""One open request to the own Service, so that the autoscaler sees the work behind it."""

from __future__ import annotations

import asyncio

import httpx

HELD_S = 250.0  # the runner answers after 240 s at the latest
PAUSE_S = 1.0  # after a failure; nothing depends on this request


async def hold(url: str) -> None:
    """Returns when the request ended, for whatever reason."""
    try:
        async with httpx.AsyncClient(timeout=HELD_S, trust_env=False) as client:
            answer = await client.post(url)
            answer.raise_for_status()
    except httpx.HTTPError:
        await asyncio.sleep(PAUSE_S)
