"""Settling what single stretches of the log could not: their ends are put together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from velro.verify.comparing import Comparison
from velro.verify.findings import Finding
from velro.verify.folding import Folding
from velro.verify.known import Met
from velro.verify.unsettled import Unsettled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from shared.projection.batch import Decoding
    from velro.verify.folding import Generation
    from velro.verify.objects import KeptObjects
    from velro.verify.read_models import Compared, Moment, Snapshot


class Settling:
    """Puts together what several stretches saw of one generation.

    Attributes:
        settled: how many generations were compared here.
        met: their rows, by read model.
        suspects: generations that only their whole history can judge: rows are as the log said
            once, and not as it said afterwards, or the log has no beginning of them.
    """

    def __init__(
        self,
        models: Sequence[Compared],
        moments: Sequence[Moment],
        snapshots: Sequence[Snapshot],
        objects: KeptObjects,
        decoding: Decoding,
    ) -> None:
        self._models = models
        self._snapshots = snapshots
        self._objects = objects
        self._decoding = decoding
        self._folding = Folding(models, moments)
        self._comparisons = [Comparison(model) for model in models]
        self.settled = 0
        self.met = [Met() for _ in models]
        self.suspects: list[str] = []

    async def settle(self, files: Sequence[Path]) -> AsyncGenerator[list[Finding], None]:
        """What is wrong, some at a time.

        Args:
            files: what each stretch left, in the order of the log.

        Raises:
            NotReadable: Postgres is gone.
        """
        with ExitStack() as stack:
            stretches = [Unsettled(file) for file in files]
            for stretch in stretches:
                stack.callback(stretch.close)
            for place, stretch in enumerate(stretches):
                for generations in stretch.begun():
                    for later in stretches[place:]:
                        await self._go_on(generations, later)
                    yield await self._compared(generations)
            for stretch in stretches:
                for ids in stretch.tails():
                    begun = {one for each in stretches for one in each.which_begun(ids)}
                    await self._check_tails([one for one in ids if one not in begun], stretch)
            yield list(self._folding.findings.values())

    async def _go_on(self, generations: dict[str, Generation], stretch: Unsettled) -> None:
        if records := stretch.tails_of(list(generations)):
            batch = await self._decoding.batch(records)
            for generation_id, events in batch.histories.items():
                self._folding.add(generation_id, generations[generation_id], events)

    async def _compared(self, generations: dict[str, Generation]) -> list[Finding]:
        findings: list[Finding] = []
        ids = list(generations)
        for place, model in enumerate(self._models):
            folded = {one: generation.rows[place] for one, generation in generations.items()}
            found = await self._snapshots[place].rows(ids)
            self.met[place].add(ids, found)
            findings += [
                Finding(difference.kind, difference.detail, one, model.name)
                for one, difference in self._comparisons[place]
                .differing(ids, folded, found)
                .items()
            ]
        for one, generation in generations.items():
            self._objects.add(one, generation.rows[0])
        self.settled += len(generations)
        return findings

    async def _check_tails(self, ids: list[str], stretch: Unsettled) -> None:
        """See that later events of what was found equal change nothing of the rows."""
        if not ids:
            return
        batch = await self._decoding.batch(stretch.tails_of(ids))
        loaded = [await snapshot.loaded(ids) for snapshot in self._snapshots]
        for one in ids:
            rows = [rows.get(one) for rows in loaded]
            known = any(row is not None for row in rows)
            if not known or not self._folding.tail(one, rows, batch.histories.get(one, [])):
                self.suspects.append(one)
