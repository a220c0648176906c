"""Log and read models beside each other: every generation that either of them knows."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from shared.processes.together import together
from shared.projection.batch import Decoding
from shared.projection.tables import recognise
from velro.verify.errors import NothingKnown
from velro.verify.findings import Finding, Kind
from velro.verify.helping import Task, look, look_elsewhere
from velro.verify.judging import Judging
from velro.verify.known import Met, fingerprint, known_in
from velro.verify.objects import KeptObjects
from velro.verify.progress import Progress
from velro.verify.read_models import Moment, Snapshot, compared, taken
from velro.verify.settling import Settling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shared.event_log.port import EventLog
    from shared.settings import LogSettings
    from velro.verify.report import Report
    from velro.verify.stretch import Looked

# Another process takes 1.5 s to be there.
_WORTH_A_PROCESS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Said:
    """What the log says is stored.

    Attributes:
        parts: files, each with a part of it: see `objects.KeptObjects`.
        folders: of the generations that were asked for alone.
    """

    parts: Sequence[Path]
    folders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rows:
    """Compares the rows of both read models with the log.

    Attributes:
        dsns: of their databases, in the order of `read_models.NAMES`.
        room: a folder for what does not belong in memory.
    """

    settings: LogSettings
    log: EventLog
    dsns: Sequence[str]
    room: Path
    report: Report
    tell: Callable[[Progress], None]
    processes: int

    async def compare(self, only: Sequence[str]) -> Said:
        """Add to the report what is wrong; what the log says is stored.

        Args:
            only: these generations instead of all.

        Raises:
            NotReadable, LogUnavailable: one of the two cannot be read.
            LogMismatch: the log is not the one that is in the tables.
            SchemaOutdated: the tables are those of another version.
            NothingKnown: one of `only` is in neither.
        """
        models = compared()
        async with AsyncExitStack() as stack:
            moments: list[Moment] = []
            snapshots: list[Snapshot] = []
            for dsn, model in zip(self.dsns, models, strict=True):
                moment, snapshot, checkpoint = await stack.enter_async_context(taken(dsn, model))
                await recognise(self.log, checkpoint)
                moments.append(moment)
                snapshots.append(snapshot)
                self.report.positions[model.name] = moment.position
                self.report.add(_parked(model.name, moment, only))
            parts = [self.room / "judged.sqlite"]
            objects = KeptObjects(parts[0])
            decoding = Decoding(self.settings.subjects)
            suspects = list(only)
            if not only:
                tasks = self._tasks(moments)
                parts += [task.objects for task in tasks]
                looks = await self._look(tasks)
                settling = Settling(models, moments, snapshots, objects, decoding)
                async for findings in settling.settle([task.unsettled for task in tasks]):
                    self.report.add(findings)
                self.report.generations += settling.settled
                suspects = settling.suspects
                self._add_looks(looks)
                met = [
                    sum((looked.met[place] for looked in looks), settling.met[place])
                    for place in range(len(models))
                ]
                await self._add_unknown([task.known for task in tasks], met, snapshots)
            judging = Judging(self.log, models, moments, snapshots, objects, decoding=decoding)
            judged = 0
            async for judgement in judging.judge(suspects):
                judged += len(judgement.ids)
                self.report.add(judgement.found)
                self.tell(Progress("generations judged", judged, len(suspects)))
            objects.close()
            if only and judging.unknown:
                raise NothingKnown(
                    f"neither the log nor a read model knows {', '.join(sorted(judging.unknown))}"
                )
            self.report.generations += judged
        return Said(parts, frozenset(judging.folders) if only else frozenset())

    def _tasks(self, moments: Sequence[Moment]) -> list[Task]:
        end = max(moment.position for moment in moments)
        pieces = max(1, min(self.processes, end // _WORTH_A_PROCESS))
        cuts = [end * piece // pieces for piece in range(pieces + 1)]
        return [
            Task(
                self.settings,
                moments,
                after=after,
                until=until,
                unsettled=self.room / f"unsettled-{after}.sqlite",
                known=self.room / f"known-{after}",
                objects=self.room / f"stretch-{after}.sqlite",
                looked=self.room / f"stretch-{after}.pickle",
            )
            for after, until in pairwise(cuts)
            if after < until
        ]

    async def _look(self, tasks: Sequence[Task]) -> list[Looked]:
        total = tasks[-1].until if tasks else 0
        done = dict.fromkeys((task.after for task in tasks), 0)

        async def one(task: Task) -> Looked:
            def tell(events: int) -> None:
                done[task.after] = events
                self.tell(Progress("events compared", sum(done.values()), total))

            return await (look if len(tasks) == 1 else look_elsewhere)(task, tell)

        return await together(*(one(task) for task in tasks))

    def _add_looks(self, looks: Sequence[Looked]) -> None:
        """Add to the report what the stretches saw."""
        for looked in looks:
            self.report.events += looked.events
            self.report.generations += looked.equal
            self.report.add(looked.findings)

    async def _add_unknown(
        self, known: Sequence[Path], met: Sequence[Met], snapshots: Sequence[Snapshot]
    ) -> None:
        """Add to the report rows of generations that no stretch saw anything of."""
        others = [
            snapshot
            for snapshot, rows in zip(snapshots, met, strict=True)
            if await snapshot.all_rows() != rows
        ]
        if not others:
            return
        for part, parts, fingerprints in known_in(known):
            for snapshot in others:
                async for ids in snapshot.ids():
                    self.report.add(
                        Finding(
                            Kind.ROW_UNKNOWN,
                            "no event of the log speaks of this generation",
                            generation_id=one,
                            read_model=snapshot.read_model,
                        )
                        for one in dict.fromkeys(ids)
                        if (its := fingerprint(one)) % parts == part and its not in fingerprints
                    )


def _parked(read_model: str, moment: Moment, only: Sequence[str]) -> list[Finding]:
    return [
        Finding(
            Kind.PARKED,
            f"{parked.events} events are put aside from position {parked.position} on: "
            f"{parked.reason}",
            generation_id=generation_id,
            read_model=read_model,
            position=parked.position,
        )
        for generation_id, parked in moment.parked.items()
        if not only or generation_id in only
    ]
