"""Projecting batch by batch up to one position, as live, and then no further."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shared.projection.reading import reading_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.projection.applying import Applier
    from shared.projection.reading import Batching, Readable
    from shared.projection.tables import Checkpoint


async def project(
    applier: Applier[Any],
    log: Readable,
    decoding: Batching,
    checkpoint: Checkpoint,
    *,
    until: int,
    tell: Callable[[int], None],
) -> Checkpoint:
    """Project up to a position, inclusive; `tell` hears how far it is.

    Raises:
        PoisonedEvent: with `Poison.STOP`.
        Superseded: somebody else writes to these tables.
        LogUnavailable, LogMismatch: the log cannot be read.
    """
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with reading_ahead(log, decoding, after=checkpoint.position, until=until) as ahead:
        while (batch := await ahead.next(never)) is not None:
            checkpoint = await applier.apply(batch, checkpoint)
            tell(checkpoint.position)
    return checkpoint
