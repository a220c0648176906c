"""A person's word on what was refused for its type: copy it as it is, or never."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage_svc.domain.commands import RejectQuarantined, ReleaseQuarantined
from storage_svc.domain.decide import NothingToKeep, NotQuarantined, is_quarantined
from storage_svc.domain.state import Kept, Stored

if TYPE_CHECKING:
    from datetime import datetime

    from storage_svc.application.backlog import OutputRef
    from storage_svc.application.recording import Recorder
    from storage_svc.application.retry_outputs import RetryOutputs
    from storage_svc.application.store_output import Outcome


@dataclass(frozen=True, slots=True)
class Released:
    """What came of one output that a person released; `died_at` where its link is overdue."""

    ref: OutputRef
    died_at: datetime | None
    outcome: Outcome


async def release(
    recorder: Recorder, retry: RetryOutputs, generation_id: str, index: int | None = None
) -> list[Released]:
    """Copy quarantined outputs as bytes of no type; of one generation, or one output of it.

    An output that is named and was released before is copied, where it is not stored yet.

    Raises:
        NotQuarantined: nothing of it is in quarantine.
        NothingToKeep: the log has no such completed generation or output.
        TryLater: the log or the database does not answer.
    """
    kept = await _kept(recorder, generation_id)
    indexes = _meant(generation_id, kept, index)
    for each in indexes:
        await recorder.record(generation_id, ReleaseQuarantined(each))
    now = retry.clock()
    return [
        Released(ref, _died_at(kept, ref.output_index, now), outcome)
        for ref, outcome in await retry(generation_id, set(indexes))
    ]


async def reject(
    recorder: Recorder, generation_id: str, why: str, index: int | None = None
) -> list[int]:
    """Record for good that nobody wants what is quarantined; which outputs that were.

    Raises:
        NotQuarantined: nothing of it is in quarantine.
        NothingToKeep: the log has no such completed generation or output.
        TryLater: the log does not answer.
    """
    kept = await _kept(recorder, generation_id)
    indexes = _meant(generation_id, kept, index)
    for each in indexes:
        await recorder.record(generation_id, RejectQuarantined(each, why))
    return indexes


async def _kept(recorder: Recorder, generation_id: str) -> Kept:
    kept = (await recorder.load(generation_id)).state
    if not isinstance(kept, Kept):
        raise NothingToKeep(f"the log has no completed generation {generation_id}")
    return kept


def _meant(generation_id: str, kept: Kept, index: int | None) -> list[int]:
    if index is not None:
        return [index]  # whether it can be judged is decided where it is recorded
    indexes = sorted(each for each, output in kept.outputs.items() if is_quarantined(output))
    if not indexes:
        raise NotQuarantined(f"no output of {generation_id} is in quarantine")
    return indexes


def _died_at(kept: Kept, index: int, now: datetime) -> datetime | None:
    output = kept.outputs[index]
    if isinstance(output, Stored) or output.past.link.dies_at > now:
        return None
    return output.past.link.dies_at
