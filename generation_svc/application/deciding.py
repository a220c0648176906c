"""Load, decide, append; and again when somebody else was faster. Every use case stands on this."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from generation_svc.domain.decide import decide
from generation_svc.domain.state import State, evolve, fold
from shared.contracts.envelope import Context, Envelope, seal_decision
from shared.event_log.port import (
    APPEND_PATIENCE_S,
    AppendOutcomeUnknown,
    ExpectedVersion,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from generation_svc.domain.commands import Command
    from shared.event_log.port import EventLog

# Each conflict means that another writer got an event in; one generation has few, so a loser
# that lost this often is not in a race but in a loop.
MAX_TRIES = 8


@dataclass(frozen=True, slots=True)
class Loaded:
    """A generation as the log has it now.

    Attributes:
        correlation_id, traceparent: of the request that began it.
        last_id: of its last event.
    """

    state: State
    version: ExpectedVersion
    correlation_id: str | None
    traceparent: str | None
    last_id: str | None


@dataclass(frozen=True, slots=True)
class Decided:
    """What a command came to.

    Attributes:
        state: after the decision.
        new: the events that this decision wrote; empty where it changed nothing.
        position: of the aggregate's last event, to wait for in a read model.
    """

    state: State
    new: tuple[Envelope, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Decider:
    """Decides commands on the log's word, with the service's clock and name."""

    log: EventLog
    clock: Callable[[], datetime]
    source: str

    async def load(self, generation_id: str) -> Loaded:
        """The generation's state.

        Raises:
            LogUnavailable: the log gave no answer.
        """
        history = await self.log.load("generation", generation_id)
        first = history.events[0].envelope if history.events else None
        return Loaded(
            fold(recorded.envelope for recorded in history.events),
            history.version,
            first.correlationid if first else None,
            first.traceparent if first else None,
            history.events[-1].envelope.id if history.events else None,
        )

    async def handle(
        self,
        generation_id: str,
        command: Command,
        *,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        causation_id: str | None = None,
    ) -> Decided:
        """Decide a command and append what it comes to.

        What it causes belongs to `correlation_id` and to the trace `traceparent`, or else to those
        of the request that began it all. It answers the event `causation_id`, or else the last one
        of the generation.

        Raises:
            Refused: the decision is no, for good.
            TryLater: the log could not be asked or written; nothing is lost by asking again.
            VersionConflict: others were faster every time.
        """
        give_up_at = monotonic() + APPEND_PATIENCE_S
        for tries_left in reversed(range(MAX_TRIES)):
            loaded = await self.load(generation_id)
            events = decide(command, loaded.state)
            if not events:
                return Decided(loaded.state, (), loaded.version)
            context = Context(
                source=self.source,
                correlation_id=correlation_id or loaded.correlation_id or generation_id,
                causation_id=causation_id or loaded.last_id,
                traceparent=traceparent or loaded.traceparent,
            )
            envelopes = seal_decision(
                events, generation_id=generation_id, at=self.clock(), context=context
            )
            try:
                appended = await self.log.append(
                    "generation", generation_id, envelopes, expected=loaded.version
                )
            except (VersionConflict, AppendOutcomeUnknown):
                # Either way the log knows more than this decision did: ask it again. An append
                # that got through in silence shows as a decision with nothing left to write.
                if not tries_left or monotonic() > give_up_at:
                    raise
                continue
            if appended.duplicate:
                continue
            state = loaded.state
            for envelope in envelopes:
                state = evolve(state, envelope)
            return Decided(state, tuple(envelopes), appended.position)
        raise VersionConflict(f"generation {generation_id} changed faster than it could be decided")
