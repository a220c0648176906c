"""Whether anything is still to happen to a generation, as far as its events tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts.generation_events import GenerationCancelled, GenerationFailed
from storage_svc.domain.state import Absent, AwaitingLink, Kept, Missing, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.envelope import Envelope


def unsettled_because(events: Sequence[Envelope]) -> str | None:
    """What is still to come of a generation, by both aggregates in the log's order; None: nothing.

    What is lost, or refused for good, is settled: only a person brings it back, and for a person
    its history is in the archive.
    """
    match fold(events):
        case Absent():
            ended = any(
                isinstance(event.data, GenerationFailed | GenerationCancelled) for event in events
            )
            return None if ended else "it has not ended"
        case Kept(outputs=outputs):
            for index, output in outputs.items():
                if isinstance(output, Missing | AwaitingLink):
                    return f"output {index} is not stored"
            return None
