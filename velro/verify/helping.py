"""A second process for a second stretch of the log: reading and folding are Python's work alone.

What came of it, pickled, is in the file that the task names.
"""

from __future__ import annotations

import pickle
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from shared.processes.child import ChildFailed, child, tell
from shared.projection.batch import Decoding
from velro.replaying import log_of
from velro.verify.errors import NotReadable
from velro.verify.known import Known
from velro.verify.objects import KeptObjects
from velro.verify.read_models import compared, joined
from velro.verify.stretch import Aside, Looked, Stretch
from velro.verify.unsettled import Unsettled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from shared.settings import LogSettings
    from velro.verify.read_models import Moment


@dataclass(frozen=True, slots=True)
class Task:
    """One stretch of the log.

    Attributes:
        objects: the file for what it says is stored.
        unsettled: the file for what it cannot settle alone.
        known: the file for the fingerprints of the generations that it speaks of.
        looked: the file for what came of it, where another process does it.
    """

    log: LogSettings
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
            log = await stack.enter_async_context(log_of(task.log))
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
    async with child(partial(_look_for_another, task)) as helper:
        helper.give_no_more()
        try:
            async for line in helper.lines():
                tell(int(line))
        except ChildFailed as error:
            raise NotReadable(f"positions {task.after} to {task.until}: {error}") from error
    # Written by our own process, from our own task.
    return cast("Looked", pickle.loads(task.looked.read_bytes()))  # noqa: S301


async def _look_for_another(task: Task) -> None:
    task.looked.write_bytes(pickle.dumps(await look(task, tell)))
