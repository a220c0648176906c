"""Cancel a generation: in the log first, at the provider when its run next looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation_svc.domain.commands import Cancel

if TYPE_CHECKING:
    from generation_svc.application.deciding import Decided, Decider


async def cancel_generation(
    generation_id: str, *, reason: str, decider: Decider, correlation_id: str | None = None
) -> Decided:
    """Write GenerationCancelled, or find it there already.

    Raises:
        UnknownGeneration: there is no such generation.
        AlreadyFinished: it is completed or failed.
        TryLater: the log could not be written; nothing was cancelled.
    """
    return await decider.handle(generation_id, Cancel(reason), correlation_id=correlation_id)
