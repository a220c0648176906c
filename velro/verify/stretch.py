"""Comparing one stretch of the log with the read models, in bounded memory.

Events are folded as they come. A generation that has been quiet for a while is compared with its
rows and, where they are equal, forgotten. Where they are not, it waits for later events, and what
waits too long, or at the end, is suspect: somebody else loads its history whole and judges. So the
common case costs one read of the log, and nothing is reported on this hurried look alone.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from shared.projection.collecting import collecting_rarely
from velro.verify.folding import Folding, Generation
from velro.verify.read_models import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from velro.verify.findings import Finding
    from velro.verify.objects import KeptObjects
    from velro.verify.read_models import Compared, Moment, Snapshot

# After so many batches of 2,000 events without one of its own, a generation is compared.
_QUIET_BATCHES: Final = 5
# As many as wait for later events, at 2 to 3 KB each; the oldest beyond that are suspect.
_MOST_WAITING: Final = 20_000


def fingerprint(generation_id: str) -> int:
    """A generation in 8 bytes, the same in every process."""
    return int.from_bytes(blake2b(generation_id.encode(), digest_size=8).digest(), "big")


@dataclass(slots=True)
class Looked:
    """What came of one stretch.

    Attributes:
        events: how many were read.
        equal: generations whose rows are as the log says.
        known: fingerprints of these.
        suspects: generations that have to be judged by their whole history.
        findings: events that cannot be used.
    """

    events: int = 0
    equal: int = 0
    known: array[int] = field(default_factory=lambda: array("Q"))
    suspects: list[str] = field(default_factory=list[str])
    findings: list[Finding] = field(default_factory=list["Finding"])


class Stretch:
    """Looks at one stretch of the log."""

    def __init__(
        self,
        models: Sequence[Compared],
        moments: Sequence[Moment],
        snapshots: Sequence[Snapshot],
        objects: KeptObjects,
    ) -> None:
        self._models = models
        self._snapshots = snapshots
        self._objects = objects
        self._folding = Folding(models, moments)
        self._comparisons = [Comparison(model) for model in models]
        self._recent: OrderedDict[str, Generation] = OrderedDict()
        self._waiting: OrderedDict[str, Generation] = OrderedDict()
        self._looked = Looked()

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
                        generation = self._known(generation_id)
                        if generation is None:
                            generation = self._folding.begin(history)
                        generation.seen_at = number
                        self._recent[generation_id] = generation
                        self._folding.add(generation_id, generation, history)
                    self._looked.events += len(records)
                    await self._compare(quiet_since=number - _QUIET_BATCHES)
                    tell(self._looked.events)
            await self._compare(quiet_since=number)
        self._looked.suspects += self._waiting
        self._looked.findings += self._folding.findings.values()
        return self._looked

    def _known(self, generation_id: str) -> Generation | None:
        # Taken out, so that it is put back as the most recent one.
        return self._recent.pop(generation_id, None) or self._waiting.pop(generation_id, None)

    async def _compare(self, *, quiet_since: int) -> None:
        quiet: dict[str, Generation] = {}
        while self._recent:
            generation_id, generation = next(iter(self._recent.items()))
            if generation.seen_at > quiet_since:
                break
            quiet[generation_id] = self._recent.pop(generation_id)
        if not quiet:
            return
        unequal = await self._unequal(quiet)
        for generation_id, generation in quiet.items():
            if generation_id in unequal:
                self._waiting[generation_id] = generation
            elif any(row is not None for row in generation.rows):
                self._looked.equal += 1
                self._looked.known.append(fingerprint(generation_id))
                self._objects.add(generation_id, generation.rows[0])
        await self._forget_tails(unequal)
        while len(self._waiting) > _MOST_WAITING:
            generation_id, _ = self._waiting.popitem(last=False)
            self._looked.suspects.append(generation_id)

    async def _unequal(self, generations: dict[str, Generation]) -> set[str]:
        ids = list(generations)
        unequal: set[str] = set()
        for place, comparison in enumerate(self._comparisons):
            folded = {
                generation_id: generation.rows[place]
                for generation_id, generation in generations.items()
            }
            found = await self._snapshots[place].rows(ids)
            unequal.update(comparison.differing(ids, folded, found))
        return unequal

    async def _forget_tails(self, unequal: set[str]) -> None:
        """Forget what only goes on from elsewhere and changes nothing of the rows that are there.

        Whoever has its beginning judges the rows, and needs no more for it: these events are among
        those that the rows hold already.
        """
        tails = [one for one in unequal if not self._waiting[one].begun]
        if not tails:
            return
        loaded = [await snapshot.loaded(tails) for snapshot in self._snapshots]
        for generation_id in tails:
            rows = [rows.get(generation_id) for rows in loaded]
            events = self._waiting[generation_id].events
            if any(row is not None for row in rows) and self._folding.tail(
                generation_id, rows, events
            ):
                del self._waiting[generation_id]
