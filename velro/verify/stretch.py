"""Comparing one stretch of the log with the read models, in bounded memory.

Events are folded as they come. A generation that has been quiet for a while is compared with its
rows and, where they are equal, forgotten. Where they are not, it waits for later events; what waits
too long, or at the end, is written down for `settling.py`, and so are events of a generation that
is not known here, because it began before the stretch or was forgotten.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final

from shared.projection.collecting import collecting_rarely
from velro.verify.comparing import Comparison
from velro.verify.folding import Folding, Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.event_log.port import EventLog
    from shared.projection.batch import Decoding
    from velro.verify.findings import Finding
    from velro.verify.objects import KeptObjects
    from velro.verify.read_models import Compared, Moment, Snapshot
    from velro.verify.unsettled import Unsettled

# After so many batches of 2,000 events without one of its own, a generation is compared.
_QUIET_BATCHES: Final = 5
# As many as wait for later events, at 2 to 3 KB each; the oldest beyond that are written down.
_MOST_WAITING: Final = 20_000
_COMPARED_AT_ONCE: Final = 2_000


def fingerprint(generation_id: str) -> int:
    """A generation in 8 bytes, the same in every process."""
    return int.from_bytes(blake2b(generation_id.encode(), digest_size=8).digest(), "big")


@dataclass(slots=True)
class Looked:
    """What came of one stretch.

    Attributes:
        events: how many were read.
        equal: generations whose rows are as the log says.
        known: fingerprints of these, and of what was written down.
        findings: events that cannot be used.
    """

    events: int = 0
    equal: int = 0
    known: array[int] = field(default_factory=lambda: array("Q"))
    findings: list[Finding] = field(default_factory=list["Finding"])


class Stretch:
    """Looks at one stretch of the log."""

    def __init__(
        self,
        models: Sequence[Compared],
        moments: Sequence[Moment],
        snapshots: Sequence[Snapshot],
        objects: KeptObjects,
        unsettled: Unsettled,
    ) -> None:
        self._unsettled = unsettled
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

    def _known(self, generation_id: str) -> Generation | None:
        # Taken out, so that it is put back as the most recent one.
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
        unequal = await self._unequal(generations)
        begun: dict[str, Generation] = {}
        for generation_id, generation in generations.items():
            if generation_id not in unequal:
                if any(row is not None for row in generation.rows):
                    self._looked.equal += 1
                    self._looked.known.append(fingerprint(generation_id))
                    self._objects.add(generation_id, generation.rows[0])
            elif generation.begun:
                begun[generation_id] = generation
            else:
                self._looked.known.append(fingerprint(generation_id))
                self._unsettled.add_tail(generation_id, generation.records)
        return begun

    def _write_down(self, begun: dict[str, Generation]) -> None:
        self._looked.known.extend(map(fingerprint, begun))
        self._unsettled.add_begun(begun)

    async def _unequal(self, generations: dict[str, Generation]) -> set[str]:
        ids = list(generations)
        unequal: set[str] = set()
        for place, comparison in enumerate(self._comparisons):
            folded = {
                generation_id: generation.rows[place]
                for generation_id, generation in generations.items()
            }
            found = await self._snapshots[place].rows(ids)
            unequal |= comparison.unequal(ids, folded, found)
        return unequal
