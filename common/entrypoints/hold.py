"""The other end of a presence: `POST /follow`, held open for the autoscaler; it changes nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from common.domain.errors import ShuttingDown
from common.entrypoints.call import Call, Later, Reply

HELD_S: Final = 240.0  # below timeoutSeconds; the presence renews it


def hold(call: Call) -> Later:
    """Answer after a while, or at once when this instance stops."""

    async def later() -> Reply:
        try:
            await asyncio.wait_for(call.app.draining.wait(), HELD_S)
        except TimeoutError:
            return Reply(status=204)
        # An error, so that the presence pauses before it asks again instead of spinning.
        raise ShuttingDown("this instance is stopping")

    return later
