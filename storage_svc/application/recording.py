"""Load, decide, append; and again when somebody else was faster."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from shared.contracts.envelope import Context, seal_decision
from shared.event_log.port import (
    APPEND_PATIENCE_S,
    AppendOutcomeUnknown,
    ExpectedVersion,
    VersionConflict,
)
from storage_svc.domain.decide import decide
from storage_svc.domain.state import Absent, Kept, fold

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shared.contracts.storage_events import StorageEvent
    from shared.event_log.port import EventLog
    from storage_svc.domain.commands import Command

# Each conflict means that another worker got an event of the same generation in. A generation
# has at most 1,000 outputs and they are leased to a few workers, so a loser that lost this often
# is not in a race but in a loop.
MAX_TRIES = 16


@dataclass(frozen=True, slots=True)
class Loaded:
    """A generation as the log has it now, and the version to append against.

    Attributes:
        correlation_id, traceparent: of the request that began it.
        last_id: of the last event of both aggregates.
    """

    state: Absent | Kept
    version: ExpectedVersion
    correlation_id: str | None
    traceparent: str | None
    last_id: str | None


@dataclass(frozen=True, slots=True)
class Recorder:
    """Decides on the log's word, with the service's clock and name."""

    log: EventLog
    clock: Callable[[], datetime]
    source: str

    async def load(self, generation_id: str) -> Loaded:
        """Both aggregates of a generation, folded in the order of the log.

        Raises:
            LogUnavailable: the log gave no answer.
        """
        generation = await self.log.load("generation", generation_id)
        storage = await self.log.load("storage", generation_id)
        history = sorted((*generation.events, *storage.events), key=lambda event: event.position)
        first = history[0].envelope if history else None
        return Loaded(
            fold(recorded.envelope for recorded in history),
            storage.version,
            first.correlationid if first else None,
            first.traceparent if first else None,
            history[-1].envelope.id if history else None,
        )

    async def record(self, generation_id: str, command: Command) -> tuple[StorageEvent, ...]:
        """Append what a command comes to; an empty answer: the log knew as much already.

        Raises:
            NothingToKeep: the generation is not completed, or has no such output.
            TryLater: the log could not be asked or written; doing it again is safe.
            VersionConflict: others were faster every time.
        """
        give_up_at = monotonic() + APPEND_PATIENCE_S
        for tries_left in reversed(range(MAX_TRIES)):
            loaded = await self.load(generation_id)
            events = decide(command, loaded.state)
            if not events:
                return ()
            context = Context(
                source=self.source,
                correlation_id=loaded.correlation_id or generation_id,
                causation_id=loaded.last_id,
                traceparent=loaded.traceparent,
            )
            envelopes = seal_decision(
                events, generation_id=generation_id, at=self.clock(), context=context
            )
            try:
                appended = await self.log.append(
                    "storage", generation_id, envelopes, expected=loaded.version
                )
            except (VersionConflict, AppendOutcomeUnknown):
                # Either way the log knows more than this decision did: ask it again. An append
                # that got through in silence shows as a decision with nothing left to say.
                if not tries_left or monotonic() > give_up_at:
                    raise
                continue
            if appended.duplicate:
                continue
            return tuple(events)
        raise VersionConflict(f"generation {generation_id} changed faster than it could be decided")
