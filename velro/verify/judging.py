"""Judging single generations by their whole history: what is reported has passed here."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from shared.archive.archived_log import ArchivedLog
from shared.event_log.port import CorruptRecord
from shared.object_store.keys import folder_of
from velro.verify.comparing import Comparison
from velro.verify.findings import Finding, Kind
from velro.verify.folding import Folding

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from generation_svc.read_model.rows import GenerationRow
    from shared.contracts.envelope import Recorded
    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from shared.projection.folding import Happened
    from velro.verify.objects import KeptObjects
    from velro.verify.read_models import Compared, Moment, Snapshot

_AT_ONCE: Final = 500
_LOADS_AT_ONCE: Final = 32


async def history(log: EventLog, generation_id: str) -> list[Recorded]:
    """Both aggregates of a generation, in the order of the log.

    Raises:
        CorruptRecord: an event cannot be decoded.
        LogUnavailable: no answer.
    """
    generation, storage = await asyncio.gather(
        log.load("generation", generation_id), log.load("storage", generation_id)
    )
    return sorted((*generation.events, *storage.events), key=lambda event: event.position)


@dataclass(frozen=True, slots=True)
class Judged:
    """Some generations, and what is wrong with them."""

    ids: list[str]
    found: list[Finding]


async def _read_through(
    log: EventLog, decoding: Decoding, ids: Sequence[str]
) -> dict[str, list[Happened]]:
    """Whole histories where the stream has lost its beginning: by reading everything once."""
    found: dict[str, list[Happened]] = {one: [] for one in ids}
    async with aclosing(log.read(after=0, until=await log.last_position())) as source:
        async for records in source:
            if wanted := [one for one in records if one.subject.rpartition(".")[2] in found]:
                batch = await decoding.batch(wanted)
                for one, events in batch.histories.items():
                    found[one] += events
    return found


class Judging:
    """Judges generations at the moments at which the read models are looked at.

    Attributes:
        folders: where the objects of those that were judged are, whatever is known of them.
        unknown: those of which there is neither event nor row.
    """

    def __init__(
        self,
        log: EventLog,
        models: Sequence[Compared],
        moments: Sequence[Moment],
        snapshots: Sequence[Snapshot],
        objects: KeptObjects,
        *,
        decoding: Decoding,
    ) -> None:
        self._decoding = decoding
        self._log = log
        self._models = models
        self._moments = moments
        self._snapshots = snapshots
        self._objects = objects
        self._comparisons = [Comparison(model) for model in models]
        self.folders: set[str] = set()
        self.unknown: set[str] = set()
        self._loading = asyncio.Semaphore(_LOADS_AT_ONCE)

    async def judge(self, suspects: Iterable[str]) -> AsyncGenerator[Judged, None]:
        """What is wrong with them; some hundred at a time.

        Raises:
            LogUnavailable: the log gave no answer.
            NotReadable: Postgres is gone.
        """
        left = iter(suspects)
        while ids := list(islice(left, _AT_ONCE)):
            if isinstance(self._log, ArchivedLog) and self._log.from_archive:
                through = await _read_through(self._log, self._decoding, ids)
                yield Judged(ids, await self._judged(through))
            else:
                loaded = await asyncio.gather(*(self._history(each) for each in ids))
                yield Judged(ids, await self._judged(dict(zip(ids, loaded, strict=True))))

    async def _history(self, generation_id: str) -> list[Recorded] | CorruptRecord:
        async with self._loading:
            try:
                return await history(self._log, generation_id)
            except CorruptRecord as error:
                return error

    async def _judged(
        self, histories: Mapping[str, Sequence[Happened] | CorruptRecord]
    ) -> list[Finding]:
        findings: list[Finding] = []
        folding = Folding(self._models, self._moments)
        folded: list[dict[str, object]] = [{} for _ in self._models]
        ids: list[str] = []
        for generation_id, events in histories.items():
            if isinstance(events, CorruptRecord):
                findings.append(
                    Finding(
                        Kind.EVENT_UNUSABLE,
                        f"its rows cannot be judged: {events}",
                        generation_id=generation_id,
                    )
                )
                continue
            ids.append(generation_id)
            if not events:
                self.unknown.add(generation_id)
                continue
            generation = folding.begin(events)
            folding.add(generation_id, generation, events)
            for rows, row in zip(folded, generation.rows, strict=True):
                rows[generation_id] = row
            row: GenerationRow | None = generation.rows[0]
            self._objects.add(generation_id, row)
            if row is not None:
                self.folders.add(f"{folder_of(row.user_id, generation_id)}/")
        for place, model in enumerate(self._models):
            found = await self._snapshots[place].rows(ids)
            self.unknown -= found.keys()
            differing = self._comparisons[place].differing(ids, folded[place], found)
            findings += [
                Finding(
                    difference.kind,
                    difference.detail,
                    generation_id=generation_id,
                    read_model=model.name,
                )
                for generation_id, difference in differing.items()
            ]
        return findings
