"""Looking at the log again while it is projected: it may lose what nobody reads just now."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shared.errors import VelroError
from shared.event_log.port import LogMismatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


@asynccontextmanager
async def looking_again(
    whole: Callable[[], Awaitable[None]] | None, *, every_s: float, interrupt: Callable[[], None]
) -> AsyncGenerator[list[LogMismatch]]:
    """Look while the context is open. What was found is in the list, once, and interrupts."""
    found: list[LogMismatch] = []
    if whole is None:
        yield found
        return

    async def look() -> None:
        while not found:
            await asyncio.sleep(every_s * random.uniform(0.5, 1.5))  # noqa: S311 - no secret depends on it
            try:
                await whole()
            except LogMismatch as error:
                found.append(error)
                interrupt()
            except VelroError:
                continue  # no answer says nothing against it

    looking = asyncio.create_task(look(), name="look again")
    try:
        yield found
    finally:
        looking.cancel()
        await asyncio.wait((looking,))
        if not looking.cancelled():
            looking.result()
