"""Shared work: what several ask for at once is done once, and whoever leaves does not take it from the others."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Shared(Generic[Key, Result]):
    """Work that is under way, by what it is for."""

    def __init__(self) -> None:
        self._running: dict[Key, asyncio.Future[Result]] = {}

    def begun(self, key: Key, make: Callable[[], Coroutine[Any, Any, Result]]) -> "asyncio.Future[Result]":
        """The work for `key`, begun if none is under way. Shield it: it is not the caller's alone."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.ensure_future(make())
            running.add_done_callback(lambda done: self._end(key, done))
        return running

    async def join(self, key: Key, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What the work for `key` comes to."""
        return await asyncio.shield(self.begun(key, make))

    async def next(self, key: Key, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The same of work that begins from now on: what is under way may have looked too early."""
        running = self._running.get(key)
        if running is not None:
            await asyncio.wait([running])
        return await self.join(key, make)

    def under_way(self, key: Key) -> "asyncio.Future[Result] | None":
        """None where nobody has begun it."""
        return self._running.get(key)

    async def cancel(self) -> None:
        """Break all of it off."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _end(self, key: Key, done: "asyncio.Future[Result]") -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # whoever asked was told
