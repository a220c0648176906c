"""Several trim one log at once, or it is compared while one does: nothing of it is lost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shared.archive.restoring import compare
from shared.archive.trimmed import TrimmingElsewhere
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import LogMismatch
from tests.archives import positions_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from shared.event_log.port import RawRecord, WholeRecord
    from tests.archives import Archived


async def test_two_that_trim_at_once_take_nothing_away_that_one_did_not_write_down(
    archived: Archived,
) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    results = await asyncio.gather(*(archived.trim() for _ in range(4)), return_exceptions=True)
    assert all(
        not isinstance(result, BaseException) or isinstance(result, TrimmingElsewhere)
        for result in results
    )
    await archived.trim()
    assert await archived.log.first_position() == 40
    for number in range(1, 41):
        assert await positions_of(archived.whole_log, "generation", f"g{number}") == [number]


class TrimmedMeanwhile(JetStreamLog):
    """A log whose beginning leaves after one has asked where it begins, and before it is read."""

    trim: Callable[[], Awaitable[object]]

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        await self.trim()
        async with aclosing(super().read(after=after, until=until)) as source:
            async for records in source:
                yield records

    async def read_whole(
        self, *, after: int, until: int
    ) -> AsyncGenerator[Sequence[WholeRecord], None]:
        await self.trim()
        async with aclosing(super().read_whole(after=after, until=until)) as source:
            async for records in source:
                yield records


def trimmed_meanwhile(archived: Archived) -> TrimmedMeanwhile:
    log = TrimmedMeanwhile(
        archived.connection, Subjects(archived.stream.lower()), stream=archived.stream
    )
    log.trim = archived.trim
    return log


async def test_one_looks_on_behind_what_another_one_trimmed_meanwhile(archived: Archived) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    trimmer = replace(archived.trimmer(), log=trimmed_meanwhile(archived))
    async with aclosing(trimmer.cuts()) as cuts:
        assert [(cut.first, cut.events) async for cut in cuts] == [(40, 0)]


async def test_comparing_passes_over_what_is_trimmed_meanwhile(archived: Archived) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    async with aclosing(compare(trimmed_meanwhile(archived), archived.archive)) as compared:
        assert [each.position async for each in compared] == [40]


async def _refuses() -> None:
    raise LogMismatch("a hole")


async def test_nothing_else_that_is_missing_is_passed_over(archived: Archived) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    log = trimmed_meanwhile(archived)
    log.trim = _refuses
    with pytest.raises(LogMismatch, match="a hole"):
        async with aclosing(compare(log, archived.archive)) as compared:
            assert [each async for each in compared] == []
    with pytest.raises(LogMismatch, match="a hole"):
        async with aclosing(replace(archived.trimmer(), log=log).cuts()) as cuts:
            assert [cut async for cut in cuts] == []
