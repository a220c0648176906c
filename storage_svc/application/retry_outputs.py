"""Try the outputs of one generation now, because a person asks for it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from storage_svc.application.backlog import OutputRef
from storage_svc.domain.decide import NothingToKeep
from storage_svc.domain.state import Kept, Stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from storage_svc.application.backlog import Backlog
    from storage_svc.application.recording import Recorder
    from storage_svc.application.store_output import Outcome, StoreOutput


async def retry_outputs(
    generation_id: str,
    *,
    recorder: Recorder,
    backlog: Backlog,
    store: StoreOutput,
    clock: Callable[[], datetime],
    owner: str,
    lease_s: float,
) -> list[tuple[OutputRef, Outcome]]:
    """Copy whatever of a generation is not stored: waiting for its next attempt, or given up on.

    What somebody copies at this moment is copied a second time, which changes nothing.

    Raises:
        NothingToKeep: the log has no such completed generation.
        TryLater: the log or the database does not answer.
    """
    kept = (await recorder.load(generation_id)).state
    if not isinstance(kept, Kept):
        raise NothingToKeep(f"the log has no completed generation {generation_id}")
    now = clock()
    await backlog.lease_generation(
        generation_id, owner=owner, now=now, until=now + timedelta(seconds=lease_s)
    )
    wanted = [
        OutputRef(generation_id, index)
        for index, output in sorted(kept.outputs.items())
        if not isinstance(output, Stored)
    ]
    return [(ref, await store(ref, even_if_lost=True)) for ref in wanted]
