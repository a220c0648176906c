"""Try the outputs of one generation now, because a person asks for it."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class RetryOutputs:
    """The use case with what it needs.

    Attributes:
        owner: names this process in leases.
        lease_s: how long others leave alone what it takes.
    """

    recorder: Recorder
    backlog: Backlog
    store: StoreOutput
    clock: Callable[[], datetime]
    owner: str
    lease_s: float

    async def __call__(
        self, generation_id: str, indexes: set[int] | None = None
    ) -> list[tuple[OutputRef, Outcome]]:
        """Copy what of a generation is not stored: waiting for its next attempt, or given up on.

        What somebody copies at this moment is copied a second time, which changes nothing.

        Args:
            generation_id: which.
            indexes: only these outputs; None is all of them.

        Raises:
            NothingToKeep: the log has no such completed generation.
            TryLater: the log or the database does not answer.
        """
        kept = (await self.recorder.load(generation_id)).state
        if not isinstance(kept, Kept):
            raise NothingToKeep(f"the log has no completed generation {generation_id}")
        now = self.clock()
        await self.backlog.lease_generation(
            generation_id, owner=self.owner, now=now, until=now + timedelta(seconds=self.lease_s)
        )
        wanted = [
            OutputRef(generation_id, index)
            for index, output in sorted(kept.outputs.items())
            if not isinstance(output, Stored) and (indexes is None or index in indexes)
        ]
        return [(ref, await self.store(ref, even_if_lost=True)) for ref in wanted]
