"""Several works at once, of which the first that fails ends the others and is what is raised."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from shared.errors import VelroError

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


async def together(*works: Coroutine[object, object, Result]) -> list[Result]:
    """The results, in the order of the works."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as group:
        ours = group.subgroup(VelroError)
        first: BaseException | None = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if first is None:
            raise
        raise first from group
    return [task.result() for task in tasks]
