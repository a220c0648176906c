from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.media.budget import ByteBudget, OthersGrow

MAX = 100


async def test_a_large_wish_is_not_overtaken_by_small_ones() -> None:
    budget = ByteBudget(MAX)
    order: list[int] = []

    async def take(size: int) -> None:
        with await budget.take(size):
            order.append(size)

    with await budget.take(50):
        waiting = [asyncio.create_task(take(size)) for size in (80, 20, 10)]
        await asyncio.wait(waiting, timeout=0.01)
        assert order == []
    await asyncio.gather(*waiting)
    assert order == [80, 20, 10]


async def test_a_wish_beyond_all_gets_all() -> None:
    budget = ByteBudget(MAX)
    with await budget.take(10 * MAX) as share:
        assert share.size_bytes == MAX
        assert budget.free_bytes == 0
        await share.grow(20 * MAX)
        assert share.size_bytes == MAX
    assert budget.free_bytes == MAX


async def test_who_grows_goes_before_who_begins() -> None:
    budget = ByteBudget(MAX)
    begun = asyncio.Event()

    async def begin() -> None:
        with await budget.take(60):
            begun.set()

    with await budget.take(40) as share:
        with await budget.take(60):
            growing = asyncio.create_task(share.grow(90))
            await asyncio.wait({growing}, timeout=0.01)
            beginning = asyncio.create_task(begin())
        await growing
        assert not begun.is_set()
    await beginning


async def test_a_second_one_that_would_wait_to_grow_is_told_so() -> None:
    budget = ByteBudget(MAX)
    with await budget.take(50) as one, await budget.take(50) as two:
        growing = asyncio.create_task(one.grow(60))
        await asyncio.wait({growing}, timeout=0.01)
        with pytest.raises(OthersGrow):
            await two.grow(60)
        growing.cancel()
        await asyncio.wait({growing})


@given(
    st.lists(
        st.tuples(st.integers(0, 150), st.integers(0, 150), st.integers(0, 4), st.integers(0, 12)),
        max_size=30,
    )
)
def test_no_byte_is_lost_or_made_whoever_is_cancelled_when(
    plans: list[tuple[int, int, int, int]],
) -> None:
    async def run() -> None:
        budget = ByteBudget(MAX)

        async def take(size: int, grown: int, turns: int) -> None:
            with await budget.take(size) as share:
                assert 0 <= budget.free_bytes <= MAX - share.size_bytes
                with suppress(OthersGrow):
                    await share.grow(grown)
                for _ in range(turns):
                    await asyncio.sleep(0)

        async def cancelled(task: asyncio.Task[None], after: int) -> None:
            for _ in range(after):
                await asyncio.sleep(0)
            task.cancel()

        tasks: list[asyncio.Task[None]] = []
        for size, grown, turns, after in plans:
            task = asyncio.create_task(take(size, grown, turns))
            tasks.append(task)
            if after < 10:
                tasks.append(asyncio.create_task(cancelled(task, after)))
        async with asyncio.timeout(5):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in results if isinstance(error, Exception)]
        assert budget.free_bytes == MAX

    asyncio.run(run())
