"""Mending what verifying found: each repair may be repeated, and the next look proves it."""

from __future__ import annotations

from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.archive.archived_log import ArchivedLog
from shared.errors import VelroError
from shared.event_log.port import CorruptRecord
from shared.media.copier import media_copier
from shared.object_store.s3 import s3_object_store
from shared.projection.batch import Decoding
from shared.projection.errors import PoisonedEvent
from shared.projection.rebuild_only import rebuild_only
from velro.replaying import log_of
from velro.verify.bucket import spoken_of
from velro.verify.findings import Finding, Kind
from velro.verify.judging import history
from velro.verify.read_models import NAMES, compared
from velro.verify.recopying import Recopying

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from shared.event_log.port import EventLog
    from shared.media.settings import MediaSettings
    from shared.object_store.port import ObjectStore
    from velro.verify.verifying import Places

    Mending = Callable[[Finding], Awaitable["Repair"]]

_ROWS: Final = frozenset({Kind.ROW_MISSING, Kind.ROW_DIFFERS, Kind.ROW_UNKNOWN})
_OBJECTS: Final = frozenset({Kind.OBJECT_MISSING, Kind.OBJECT_DIFFERS})


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one finding: `said` is a sentence on it."""

    finding: Finding
    done: bool
    said: str


@dataclass(frozen=True, slots=True)
class Repairing:
    """Mends findings of every kind that can be mended from here.

    Attributes:
        delete: asked for each orphan, whether it may go.
    """

    places: Places
    log: EventLog
    store: ObjectStore
    recopying: Recopying
    delete: Callable[[Finding], bool]

    async def repair(self, findings: Sequence[Finding]) -> AsyncGenerator[Repair, None]:
        """Mend these, one after the other; an error of ours ends one repair and not the others."""
        rows: dict[str, dict[str, list[Finding]]] = defaultdict(lambda: defaultdict(list))
        for finding in findings:
            if finding.kind in _ROWS and finding.read_model and finding.generation_id:
                rows[finding.read_model][finding.generation_id].append(finding)
        for read_model, by_generation in rows.items():
            async for repaired in self._rows(read_model, by_generation):
                yield repaired
        for finding in findings:
            if finding.kind in _OBJECTS:
                yield await self._one(finding, self._object)
            elif finding.kind is Kind.OBJECT_ORPHANED:
                yield await self._one(finding, self._orphan)
            elif finding.kind not in _ROWS:
                yield Repair(finding, done=False, said="nothing can be mended from here")

    async def _one(self, finding: Finding, mended: Mending) -> Repair:
        try:
            return await mended(finding)
        except VelroError as error:
            return Repair(finding, done=False, said=str(error))

    async def _rows(
        self, read_model: str, by_generation: dict[str, list[Finding]]
    ) -> AsyncGenerator[Repair, None]:
        """Project generations again; together, unless one of them stands in the others' way."""
        try:
            await self._project(read_model, list(by_generation))
        except PoisonedEvent:
            if len(by_generation) > 1:
                for one, findings in by_generation.items():
                    async for repaired in self._rows(read_model, {one: findings}):
                        yield repaired
                return
            done, said = False, "an event of it is parked or cannot be used: see velro parked"
        except VelroError as error:
            done, said = False, str(error)
        else:
            done, said = True, "projected again from the log"
        for findings in by_generation.values():
            for finding in findings:
                yield Repair(finding, done, said)

    async def _project(self, read_model: str, generation_ids: list[str]) -> None:
        place = NAMES.index(read_model)
        await rebuild_only(
            self.places.dsns[place],
            self.log,
            compared()[place].model,
            Decoding(self.places.log.subjects),
            generation_ids,
            by_reading=isinstance(self.log, ArchivedLog) and self.log.from_archive,
        )

    async def _object(self, finding: Finding) -> Repair:
        if finding.bucket != self.store.bucket:
            said = f"copies go to {self.store.bucket}: set VELRO_S3_BUCKET={finding.bucket} for it"
            return Repair(finding, done=False, said=said)
        assert finding.generation_id is not None
        assert finding.output_index is not None
        done, said = await self.recopying.copy(finding.generation_id, finding.output_index)
        return Repair(finding, done, said)

    async def _orphan(self, finding: Finding) -> Repair:
        assert finding.bucket is not None
        assert finding.key is not None
        if finding.bucket != self.store.bucket:
            return Repair(finding, done=False, said="it is in a bucket that settings do not name")
        if finding.generation_id is not None:
            try:
                events = await history(self.log, finding.generation_id)
            except CorruptRecord as error:
                return Repair(finding, done=False, said=f"what cannot be read may name it: {error}")
            if (finding.bucket, finding.key) in spoken_of(events):
                return Repair(finding, done=True, said="an event has come to speak of it")
        if not self.delete(finding):
            return Repair(finding, done=False, said="left where it is")
        await self.store.delete(finding.key)
        return Repair(finding, done=True, said="deleted")


@asynccontextmanager
async def repairing(
    places: Places, media: MediaSettings, delete: Callable[[Finding], bool]
) -> AsyncGenerator[Repairing]:
    """What it takes to mend; connections are closed at the end.

    Raises:
        BrokerUnavailable: no NATS.
    """
    assert places.bucket is not None, "it is what may have to be mended"
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(log_of(places.log))
        store = await stack.enter_async_context(s3_object_store(places.bucket))
        copier = await stack.enter_async_context(media_copier(media, store))
        yield Repairing(places, log, store, Recopying(log, store, copier), delete)
