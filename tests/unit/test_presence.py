"""common/services/presence.py: one open request for each followed command."""

from __future__ import annotations

import asyncio
from uuid import UUID

from common.services.presence import Presence

ONE, TWO = UUID(int=1), UUID(int=2)


class World:
    def __init__(self) -> None:
        self.following: list[UUID] = []
        self.open = 0
        self.begun = 0
        self.let_go = asyncio.Event()
        self.presence = Presence(self.hold, lambda: self.following)

    async def hold(self) -> None:
        self.open += 1
        self.begun += 1
        try:
            await self.let_go.wait()
        finally:
            self.open -= 1

    async def follow(self, *commands: UUID) -> None:
        self.following = list(commands)
        self.presence.changed()
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_as_many_requests_are_open_as_commands_are_followed() -> None:
    """One each; they go when the command goes, and all when the process ends."""

    async def scenario() -> None:
        world = World()
        running = asyncio.create_task(world.presence.run())
        await world.follow(ONE, TWO)
        assert (world.open, world.begun) == (2, 2)
        await world.follow(TWO)
        assert (world.open, world.begun) == (1, 2)
        await world.follow(TWO)
        assert (world.open, world.begun) == (1, 2)
        await world.follow()
        assert world.open == 0
        await world.follow(ONE)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert world.open == 0

    asyncio.run(scenario())


def test_a_request_that_ends_is_made_again() -> None:
    """The runner answers after four minutes; the command is still followed."""

    async def scenario() -> None:
        world = World()
        running = asyncio.create_task(world.presence.run())
        await world.follow(ONE)
        world.let_go.set()
        world.let_go = asyncio.Event()
        await settle()
        assert (world.open, world.begun) == (1, 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_a_change_is_heard_from_any_thread() -> None:
    """Before it runs, while it does, and when its loop has ended."""

    async def scenario(world: World) -> None:
        await world.follow(ONE)
        running = asyncio.create_task(world.presence.run())
        await settle()
        assert world.open == 1
        world.following = [ONE, TWO]
        await asyncio.to_thread(world.presence.changed)
        await settle()
        assert world.open == 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    world = World()
    asyncio.run(scenario(world))
    world.presence.changed()
    assert world.open == 0
