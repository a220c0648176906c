"""Comparing one stretch of the log with the read models, in bounded memory.

Events are folded as they come. A generation that has been quiet for a while is compared with its
rows and, where they are equal, forgotten. Where they are not, it waits for later events; what waits
too long, or at the end, is written down for `settling.py`, and so are events of a generation that
is not known here, because it began before the stretch or was forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from shared.projection.collecting import collecting_rarely
from velro.verify.comparing import Comparison
from velro.verify.folding import Folding, Generation
from velro.verify.known import Met

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Record

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from velro.verify.findings import Finding
    from velro.verify.known import Known
    from velro.verify.objects import KeptObjects
    from velro.verify.read_models import Compared, Moment, Snapshot
    from velro.verify.unsettled import Unsettled

# After so many batches of 2,000 events without one of its own, a generation is compared.
_QUIET_BATCHES: Final = 5
# As many as wait for later events, at 2 to 3 KB each; the oldest beyond that are written down.
_MOST_WAITING: Final = 20_000
_COMPARED_AT_ONCE: Final = 2_000


@dataclass(slots=True)
class Looked:
    """What came of one stretch.

    Attributes:
        events: how many were read.
        equal: generations whose rows are as the log says.
        met: these rows, by read model.
        findings: events that cannot be used.
    """

    events: int = 0
    equal: int = 0
    met: list[Met] = field(default_factory=list[Met])
    findings: list[Finding] = field(default_factory=list["Finding"])


@dataclass(frozen=True, slots=True)
class Aside:
    """What a stretch writes down: what is stored, what it cannot settle, whom the log speaks of."""

    objects: KeptObjects
    unsettled: Unsettled
    known: Known

    def close(self) -> None:
        """Write the rest."""
        self.objects.close()
        self.unsettled.close()
        self.known.close()


class Stretch:
    """Looks at one stretch of the log."""

    def __init__(
        self,
        models: Sequence[Compared],
        moments: Sequence[Moment],
        snapshots: Sequence[Snapshot],
        aside: Aside,
    ) -> None:
        self._aside = aside
        self._snapshots = snapshots
        self._folding = Folding(models, moments)
        self._comparisons = [Comparison(model) for model in models]
        self._recent: OrderedDict[str, Generation] = OrderedDict()
        self._waiting: OrderedDict[str, Generation] = OrderedDict()
        self._looked = Looked(met=[Met() for _ in models])

    async def look(
        self,
        log: EventLog,
        decoding: Decoding,
        *,
        after: int,
        until: int,
        tell: Callable[[int], None],
    ) -> Looked:
        """Read the log after one position up to another, inclusive.

        Args:
            log: read once, in order.
            decoding: how its records become events.
            after: where the stretch before ended.
            until: where this one ends.
            tell: called with how many events were read so far.

        Raises:
            LogUnavailable: the log cannot be read.
            LogMismatch: it is not the log that it was, or begins after `after`.
            NotReadable: Postgres is gone.
        """
        number = 0
        with collecting_rarely():
            async with aclosing(log.read(after=after, until=until)) as source:
                async for records in source:
                    number += 1
                    batch = await decoding.batch(records)
                    for generation_id, history in batch.histories.items():
                        generation = self._taken_out(generation_id)
                        if generation is None:
                            generation = self._folding.begin(history)
                        generation.seen_at = number
                        self._recent[generation_id] = generation
                        self._folding.add(generation_id, generation, history)
                        if not generation.begun:
                            first = records[0].position
                            generation.records += tuple(
                                records[event.position - first] for event in history
                            )
                    self._looked.events += len(records)
                    await self._settle(quiet_since=number - _QUIET_BATCHES)
                    tell(self._looked.events)
            await self._settle(quiet_since=number)
            while self._waiting:
                oldest = dict(islice(self._waiting.items(), _COMPARED_AT_ONCE))
                for generation_id in oldest:
                    del self._waiting[generation_id]
                self._write_down(await self._compare(oldest))
        self._looked.findings += self._folding.findings.values()
        return self._looked

    def _taken_out(self, generation_id: str) -> Generation | None:
        # So that it is put back as the most recent one.
        return self._recent.pop(generation_id, None) or self._waiting.pop(generation_id, None)

    async def _settle(self, *, quiet_since: int) -> None:
        """Compare what has been quiet for long enough, but for what is sure to go on."""
        quiet: dict[str, Generation] = {}
        while self._recent:
            generation_id, generation = next(iter(self._recent.items()))
            if generation.seen_at > quiet_since:
                break
            del self._recent[generation_id]
            if generation.goes_on:
                self._waiting[generation_id] = generation
            else:
                quiet[generation_id] = generation
        self._waiting |= await self._compare(quiet)
        if len(self._waiting) > _MOST_WAITING:
            oldest = dict(islice(self._waiting.items(), _COMPARED_AT_ONCE))
            for generation_id in oldest:
                del self._waiting[generation_id]
            self._write_down(await self._compare(oldest))

    async def _compare(self, generations: dict[str, Generation]) -> dict[str, Generation]:
        """Forget what is equal; what is not, of what began here."""
        if not generations:
            return {}
        unequal, found = await self._unequal(generations)
        begun: dict[str, Generation] = {}
        equal: list[str] = []
        for generation_id, generation in generations.items():
            if generation_id not in unequal:
                if any(row is not None for row in generation.rows):
                    equal.append(generation_id)
                    self._aside.known.add(generation_id)
                    self._aside.objects.add(generation_id, generation.rows[0])
            elif generation.begun:
                begun[generation_id] = generation
            else:
                self._aside.known.add(generation_id)
                self._aside.unsettled.add_tail(generation_id, generation.records)
        self._looked.equal += len(equal)
        for met, rows in zip(self._looked.met, found, strict=True):
            met.add(equal, rows)
        return begun

    def _write_down(self, begun: dict[str, Generation]) -> None:
        for generation_id in begun:
            self._aside.known.add(generation_id)
        self._aside.unsettled.add_begun(begun)

    async def _unequal(
        self, generations: dict[str, Generation]
    ) -> tuple[set[str], list[dict[str, list[Record]]]]:
        """Which have other rows than the log says, and all their rows, by read model."""
        ids = list(generations)
        unequal: set[str] = set()
        rows: list[dict[str, list[Record]]] = []
        for place, comparison in enumerate(self._comparisons):
            folded = {
                generation_id: generation.rows[place]
                for generation_id, generation in generations.items()
            }
            found = await self._snapshots[place].rows(ids)
            unequal |= comparison.unequal(ids, folded, found)
            rows.append(found)
        return unequal, rows
