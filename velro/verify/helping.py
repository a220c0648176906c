"""A second process for a second stretch of the log: reading and folding are Python's work alone.

`python -m velro.verify.helping` takes its task, pickled, on stdin, and tells on stdout how far it
is, a number a line. What came of it, pickled, is in the file that the task names.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from shared.program import configure_logging, run
from shared.projection.batch import Decoding
from shared.settings import LogSettings
from velro.replaying import log_of
from velro.verify.errors import NotReadable
from velro.verify.known import Known
from velro.verify.objects import KeptObjects
from velro.verify.read_models import compared, joined
from velro.verify.stretch import Aside, Looked, Stretch
from velro.verify.unsettled import Unsettled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from shared.contracts.subjects import Subjects
    from shared.event_log.port import EventLog
    from velro.verify.read_models import Moment

_LEAVES_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class LogAddress:
    """Where the log is."""

    nats_url: str
    stream: str
    subjects: Subjects

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[EventLog]:
        """The log, over a connection of one's own; with its archive where its beginning has gone.

        Raises:
            BrokerUnavailable: no NATS.
            LogUnavailable: no stream.
        """
        settings = LogSettings(
            nats_url=self.nats_url, stream=self.stream, subject_root=self.subjects.root
        )
        async with log_of(settings) as log:
            yield log


@dataclass(frozen=True, slots=True)
class Task:
    """One stretch of the log.

    Attributes:
        objects: the file for what it says is stored.
        unsettled: the file for what it cannot settle alone.
        known: the file for the fingerprints of the generations that it speaks of.
        looked: the file for what came of it, where another process does it.
    """

    log: LogAddress
    moments: Sequence[Moment]
    after: int
    until: int
    objects: Path
    unsettled: Path
    known: Path
    looked: Path


async def look(task: Task, tell: Callable[[int], None]) -> Looked:
    """Look at a stretch in this process.

    Raises:
        LogUnavailable, LogMismatch, NotReadable: as `Stretch.look`.
    """
    models = compared()
    aside = Aside(KeptObjects(task.objects), Unsettled(task.unsettled), Known(task.known))
    try:
        async with AsyncExitStack() as stack:
            log = await stack.enter_async_context(task.log.opened())
            snapshots = [
                await stack.enter_async_context(joined(moment, model))
                for moment, model in zip(task.moments, models, strict=True)
            ]
            stretch = Stretch(models, task.moments, snapshots, aside)
            return await stretch.look(
                log, Decoding(task.log.subjects), after=task.after, until=task.until, tell=tell
            )
    finally:
        aside.close()


async def look_elsewhere(task: Task, tell: Callable[[int], None]) -> Looked:
    """The same in a process of its own, which ends when this call does.

    Raises:
        NotReadable: it failed, for the reason it gave.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "velro.verify.helping"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(pickle.dumps(task))
        process.stdin.close()
        async for line in process.stdout:
            tell(int(line))
        said = (await process.stderr.read()).decode(errors="replace").strip()
        if await process.wait():
            raise NotReadable(f"positions {task.after} to {task.until}: {said[-2000:]}")
        # Written by our own process, from our own task.
        return cast("Looked", pickle.loads(task.looked.read_bytes()))  # noqa: S301
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(_LEAVES_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def main() -> None:
    """Look at the stretch that stdin names."""
    configure_logging(logging.WARNING)
    task = cast("Task", pickle.loads(sys.stdin.buffer.read()))  # noqa: S301 - from our own process
    looked = run(look(task, _tell))
    task.looked.write_bytes(pickle.dumps(looked))


def _tell(events: int) -> None:
    sys.stdout.write(f"{events}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
