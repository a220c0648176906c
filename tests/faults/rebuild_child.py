"""A rebuild in a process of its own that kills itself at one moment.

`python -m tests.faults.rebuild_child <nats> <stream> <root> <dsn> <processes> <what> <number>`:
`built` ends it when it is told of so many steps of progress, `interrupted` presses Ctrl-C then,
`part` ends one of the processes that fill its parts instead, `switch` ends it before so many
statements of the switch are sent, `never` lets it end. It prints where it began, and what
processes it had when something ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import psutil

from generation_svc.read_model.model import GenerationModel
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_reader import ReadLimits
from shared.messaging.connection import connected
from shared.projection import rebuild, rebuild_bulk, rebuild_catching_up
from shared.projection.batch import Decoding
from shared.projection.errors import PartFailed
from shared.projection.rebuild_switch import Switch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shared.projection.rebuild import Progress

# Small, so that what is tested takes several steps of each kind.
BATCH, BULK_EVENTS, ROWS_A_LOT = 5, 10, 3


class CrashPoint:
    """Counts down to the moment at which the process ends."""

    def __init__(self, what: str, number: int, *, divided: bool) -> None:
        self._what = what
        self._divided = divided
        self._left = number
        self._switching = False

    def progress(self, progress: Progress) -> None:
        if progress.done == progress.began_at:
            print("began", progress.began_at, flush=True)  # noqa: T201 - tells the test
        elif self._what != "switch" and (not self._divided or psutil.Process().children()):
            self._count()

    def install(self) -> None:
        """Stand before every statement that a switch sends."""
        switch: Any = Switch
        tried = switch.tried

        async def counted_try(*arguments: Any) -> Any:  # noqa: ANN401 - stands in for any
            self._switching = True
            return await tried(*arguments)

        switch.tried = counted_try
        for name in ("execute", "_execute"):
            original = getattr(asyncpg.Connection, name)
            setattr(asyncpg.Connection, name, self._counting(original))

    def _counting(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(connection: Any, query: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - the same
            # `execute` with arguments goes through `_execute`, where it is counted.
            if self._switching and not (original.__name__ == "execute" and args):
                self._count()
            return await original(connection, query, *args, **named)

        return counted

    def _count(self) -> None:
        self._left -= 1
        if self._left:
            return
        parts = [child.pid for child in psutil.Process().children()]
        print("parts", *parts, flush=True)  # noqa: T201 - the same
        ctrl_c = self._what == "interrupted"
        one = parts[-1] if self._what == "part" else os.getpid()
        os.kill(one, signal.SIGINT if ctrl_c else signal.SIGKILL)


async def main(where: Sequence[str], point: CrashPoint) -> None:
    nats_url, stream, root, dsn, processes = where
    subjects = Subjects(root)
    async with connected(nats_url, name="child") as nats:
        log = JetStreamLog(nats, subjects, stream=stream, read_limits=ReadLimits(batch=BATCH))
        await rebuild.replay(
            dsn,
            log,
            GenerationModel(),
            Decoding(subjects),
            on_progress=point.progress,
            processes=int(processes),
        )


if __name__ == "__main__":
    *where, what, number = sys.argv[1:]
    crash = CrashPoint(what, int(number), divided=where[-1] != "1")
    if what == "switch":
        crash.install()
    sizes: Any = rebuild_catching_up, rebuild_bulk, rebuild
    sizes[0]._BULK_EVENTS, sizes[0]._PARTS_EVENTS = BULK_EVENTS, BULK_EVENTS
    sizes[1].ROWS_A_LOT, sizes[2]._NEAR_EVENTS = ROWS_A_LOT, BULK_EVENTS
    try:
        asyncio.run(main(where, crash))
    except PartFailed as failed:
        sys.exit(str(failed))
